"""
What the dispatcher does with the coroutines of policies.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred

__all__ = ["close_coroutine", "wait_for"]


def close_coroutine(coroutine: Coroutine[Any, Any, Any]) -> None:
    """
    End a policy where it waits; what it says to that does not matter.
    """
    with suppress(Exception):  # the edge to the operator's own code, which will be complained of anyway
        coroutine.close()


async def wait_for(outcome: Deferred[Any]) -> None:
    """
    What a plain policy returned, as a coroutine.
    """
    await outcome
