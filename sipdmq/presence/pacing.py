"""
A pause of one length after each of many things: a queue and one timer for its head.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Pacing"]

T = TypeVar("T")


class Pacing(Generic[T]):
    """
    Hands over each thing one fixed time after it was added, never early and late by an eighth of that at most.

    @ivar interval: seconds; 0: nothing may be added.
    """

    def __init__(self, clock: IReactorTime, interval: float, over: Callable[[T], object]) -> None:
        self._clock = IReactorTime(clock)
        self.interval = interval
        self._over = over
        self._queue: deque[tuple[float, T]] = deque()
        self._call: IDelayedCall | None = None

    def add(self, thing: T) -> None:
        """
        The pause of C{thing} begins.
        """
        self._queue.append((self._clock.seconds() + self.interval, thing))
        if self._call is None:
            self._call = self._clock.callLater(self.interval, self._fire)

    def _fire(self) -> None:
        self._call = None
        now = self._clock.seconds()
        queue = self._queue
        over = []
        while queue and queue[0][0] <= now:
            over.append(queue.popleft()[1])
        if queue:
            self._call = self._clock.callLater(max(queue[0][0] - now, self.interval / 8), self._fire)
        for thing in over:
            self._over(thing)

    def stop(self) -> None:
        """
        Forget everything.
        """
        self._queue.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None
