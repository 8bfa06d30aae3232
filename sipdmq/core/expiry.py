"""
What expires, by the second in which it does: nothing ever scans a table for it.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Expiry"]


class Expiry:
    """
    Names in buckets, one for each second, and one timer. A name is in one bucket at a time, that of the earliest thing
    that it stands for; it is moved when that changes, so that what is refreshed leaves nothing behind.
    """

    def __init__(self, clock: IReactorTime, now: Callable[[], float], expire: Callable[[str], object]) -> None:
        """
        @param clock: for waiting.
        @param now: the time, seconds since the epoch; it must never jump.
        @param expire: told each name whose second has begun: it L{move}s the name.
        """
        self._clock = IReactorTime(clock)
        self._now = now
        self._expire = expire
        self._buckets: dict[int, set[str]] = {}
        self._call: IDelayedCall | None = None
        self._next_second = 0
        self._is_stopped = False

    def move(self, name: str, was: int, due: int) -> None:
        """
        A name expires at another time.

        @param was: when it did before, seconds since the epoch; 0: it is new.
        @param due: when it does now; 0: it is gone.
        """
        if was:
            bucket = self._buckets.get(was)
            if bucket is not None:
                bucket.discard(name)
                if not bucket:
                    del self._buckets[was]
        if due:
            bucket = self._buckets.get(due)
            if bucket is None:
                self._buckets[due] = {name}
            else:
                bucket.add(name)
            if self._call is None:
                self._wait()

    def _wait(self) -> None:
        """
        Look again when the next second has begun.
        """
        if self._is_stopped:
            return
        now = self._now()
        if not self._next_second:
            self._next_second = int(now)
        self._call = self._clock.callLater(int(now) + 1 - now, self._tick)

    def _tick(self) -> None:
        self._call = None
        now = int(self._now())
        try:
            # Usually one second; more after a pause of the process.
            if now - self._next_second < len(self._buckets):
                due = [second for second in range(self._next_second, now + 1) if second in self._buckets]
            else:
                due = [second for second in self._buckets if second <= now]
            for second in due:
                for name in tuple(self._buckets.get(second, ())):
                    self._expire(name)
            self._next_second = now + 1
        finally:
            self._go_on()

    def _go_on(self) -> None:
        if not self._buckets:
            self._next_second = 0
        elif self._call is None:  # what expired may have led to something that expires
            self._wait()

    def stop(self) -> None:
        """
        Stop the timer; nothing expires any more.
        """
        self._is_stopped = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
