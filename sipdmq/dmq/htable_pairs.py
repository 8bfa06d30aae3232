"""
The two messages of a Kamailio that sets a cell and its expiry: action 2 and then 3, which may come in any order
(WIRE §1, §7). Pure.

What comes second is known by what came first: an expiry for which no set came just before is early, and is kept for the
set that follows.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["Pairs"]

WITHIN: Final = 1.0
"""Seconds between the two: a set that was lost comes again after half a second."""
MAX_OPEN: Final = 10_000
"""Firsts that wait for their second; the oldest go."""


class _Key(NamedTuple):
    sender: str
    table: str
    key: str


class Pairs:
    """
    What came without its counterpart so far. Times are seconds.
    """

    def __init__(self) -> None:
        self._sets: dict[_Key, float] = {}
        self._expiries: dict[_Key, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._sets) + len(self._expiries)

    def set_received(self, sender: str, table: str, key: str, now: float) -> float | None:
        """
        A cell was set.

        @return: until when it lives, as an expiry that was early said, seconds; 0: as the table has it; L{None}: none
            was.
        """
        self._forget(now)
        found = _Key(sender, table, key)
        early = self._expiries.pop(found, None)
        if early is not None:
            at, seconds = early
            return at + seconds if seconds > 0 else 0.0
        self._sets.pop(found, None)  # to the end
        self._sets[found] = now
        return None

    def expire_received(self, sender: str, table: str, key: str, seconds: int, now: float) -> None:
        """
        An expiry was told.
        """
        self._forget(now)
        found = _Key(sender, table, key)
        if self._sets.pop(found, None) is None:
            self._expiries.pop(found, None)
            self._expiries[found] = (now, seconds)

    def _forget(self, now: float) -> None:
        while self._sets:
            first = next(iter(self._sets))
            if len(self._sets) <= MAX_OPEN and now - self._sets[first] <= WITHIN:
                break
            del self._sets[first]
        while self._expiries:
            first = next(iter(self._expiries))
            if len(self._expiries) <= MAX_OPEN and now - self._expiries[first][0] <= WITHIN:
                break
            del self._expiries[first]
