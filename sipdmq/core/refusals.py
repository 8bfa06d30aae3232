"""
What others send and cannot be used: counted, and written of once in a while, as a flood of it must not fill the disk.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from sipdmq.core.complaints import Complaints
from sipdmq.records import Source

__all__ = ["Refusals"]

log = Logger()


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
        self._what = what
        self._complaints = Complaints(IReactorTime(clock).seconds)

    def add(self, source: Source, reason: str) -> None:
        """
        One more.
        """
        self.count += 1
        if self._complaints.is_due():
            log.warn(
                "{what} from {source} was refused: {reason}; refused so far: {count}",
                what=self._what,
                source=source.host,
                reason=reason,
                count=self.count,
            )
