"""
What goes into the outboxes of nodes and comes out of them, as values. Pure.
"""

from __future__ import annotations

from enum import IntEnum
from math import inf
from typing import NamedTuple

__all__ = ["Batch", "Change", "OutboxLimits", "Outcome", "Place"]


class OutboxLimits(NamedTuple):
    """
    @ivar window: requests that may be unanswered at once.
    @ivar batch_changes: changes in one message at most.
    @ivar batch_window: seconds for which changes gather after something was sent; 0: they do not.
    @ivar changes: how many may wait.
    @ivar size: bytes that may wait.
    @ivar repeated_after: seconds without an answer after which a message is sent again; infinity: it never is.
    """

    window: int = 16
    batch_changes: int = 1
    batch_window: float = 0.002
    changes: int = 50_000
    size: int = 16 * 2**20
    repeated_after: float = inf


class Place(IntEnum):
    """
    How a change stands to the others.
    """

    BESIDE = 1
    """It may go with others into one message."""
    ALONE = 2
    """It goes alone."""
    BETWEEN = 3
    """Alone, behind all that was put before it, and before all that is put after it, whatever the keys."""


class Batch(NamedTuple):
    """
    The changes of one message.

    @ivar number: by which its answer is told.
    @ivar fragments: one for each key.
    """

    number: int
    keys: tuple[str, ...]
    fragments: tuple[bytes, ...]


class Outcome(IntEnum):
    """
    What became of a message.
    """

    TAKEN = 1
    """2xx."""
    REFUSED = 2
    """Anything else: a batch is sent again in halves, until the one refused record is alone."""
    NO_CHANNEL = 3
    """404: the node does not have this channel, until it returns."""
    BUSY = 4
    """503: it has too much to do; the same again, a little later."""
    LOST = 5
    """No answer, or it could not be sent."""


Change = tuple[bytes, float, str]
"""
Its fragment; when it was made, or the oldest that it stands for: seconds; and the group of its key. A plain tuple, made
once for all nodes.
"""
