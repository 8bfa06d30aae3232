"""
The timers that each transaction has for itself: A, E and G, for sending again on an unreliable transport.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Retransmission"]


class Retransmission:
    """
    A wait that becomes longer each time (RFC 3261 §17.1.1.2, §17.1.2.2, §17.2.1).

    @ivar interval: the wait that runs, or ran last, in seconds.
    """

    __slots__ = ("_call", "_clock", "_due", "interval")

    def __init__(self, clock: IReactorTime, interval: float, due: Callable[[], object]) -> None:
        """
        @param due: called when the wait is over; it asks for the next one by L{again}.
        """
        self._clock = clock
        self._due = due
        self.interval = interval
        self._call: IDelayedCall | None = clock.callLater(interval, self._fire)

    def _fire(self) -> None:
        self._call = None
        self._due()

    def again(self, longest: float = float("inf")) -> None:
        """
        Wait again, twice as long.

        @param longest: seconds, but not longer than that.
        """
        self.interval = min(self.interval * 2, longest)
        self._call = self._clock.callLater(self.interval, self._fire)

    def stop(self) -> None:
        """
        Wait no more.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None
