"""
What happens often and is written into the log seldom: a flood must not fill the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

__all__ = ["COMPLAINT_INTERVAL", "Complaints"]

COMPLAINT_INTERVAL: Final = 60.0
"""Seconds between two lines of one kind, at least."""


class Complaints:
    """
    Lines of one kind.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """
        @param now: monotonic seconds.
        """
        self._now = now
        self._last_at = -inf

    def is_due(self) -> bool:
        """
        @return: whether to write a line now; if so, it counts as written.
        """
        now = self._now()
        if now - self._last_at < COMPLAINT_INTERVAL:
            return False
        self._last_at = now
        return True

    def reset(self) -> None:
        """
        All is well again: what fails next is written of at once.
        """
        self._last_at = -inf
