"""
What others send and cannot be used: counted, and written of once in a while, as a flood of it must not fill the disk.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from sipdmq.records import Source

__all__ = ["Refusals"]

log = Logger()

LOG_INTERVAL: Final = 60.0
"""Seconds between two lines of one kind, at least."""


class Refusals:
    """
    One kind of them.

    @ivar count: how many there were.
    """

    def __init__(self, clock: IReactorTime, what: str) -> None:
        """
        @param what: was refused: C{"a record"}.
        """
        self.count = 0
        self._clock = IReactorTime(clock)
        self._what = what
        self._logged_at = float("-inf")

    def add(self, source: Source, reason: str) -> None:
        """
        One more.
        """
        self.count += 1
        now = self._clock.seconds()
        if now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            log.warn(
                "{what} from {source} was refused: {reason}; refused so far: {count}",
                what=self._what,
                source=source.host,
                reason=reason,
                count=self.count,
            )
