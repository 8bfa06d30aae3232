"""
Fixed waits by the ten thousand: timers of one length expire in the order in which they were started, so a queue and
one timer for its head do for all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

__all__ = ["Deadlines"]

log = Logger()
T = TypeVar("T")


class Deadlines(Generic[T]):
    """
    Things that become due one fixed time after they were added.

    What is due is handed over in batches, at most C{granularity} late. Single things cannot be taken out early: whoever
    added one knows whether it still means something.
    """

    __slots__ = ("_call", "_clock", "_delay", "_due", "_granularity", "_queue")

    def __init__(
        self, clock: IReactorTime, delay: float, due: Callable[[T], object], granularity: float = 0.25
    ) -> None:
        """
        @param delay: seconds.
        @param due: called with each thing.
        @param granularity: seconds; things added within that time become due together.
        """
        self._clock = clock
        self._delay = delay
        self._due = due
        self._granularity = min(granularity, delay / 8)
        self._queue: deque[tuple[float, deque[T]]] = deque()
        self._call: IDelayedCall | None = None

    def __len__(self) -> int:
        return sum(len(things) for _, things in self._queue)

    def add(self, thing: T) -> None:
        """
        Let C{thing} become due after the delay.
        """
        now = self._clock.seconds()
        queue = self._queue
        if queue and now <= queue[-1][0]:
            queue[-1][1].append(thing)
            return
        # All that is added until then waits for the end of the slot: late by that much, never early.
        queue.append((now + self._granularity, deque((thing,))))
        if self._call is None:
            self._wait()

    def _wait(self) -> None:
        if not self._queue:
            return
        wait = self._queue[0][0] + self._delay - self._clock.seconds()
        self._call = self._clock.callLater(max(0.0, wait), self._fire)

    def _fire(self) -> None:
        self._call = None
        now = self._clock.seconds()
        batches = []
        while self._queue and self._queue[0][0] + self._delay <= now:
            batches.append(self._queue.popleft()[1])
        self._wait()
        for things in batches:
            for thing in things:
                try:
                    self._due(thing)
                except Exception:  # noqa: BLE001 - the edge of timers: the others are due all the same
                    log.failure("a timer broke on {thing}", thing=thing)

    def pop_oldest(self) -> T | None:
        """
        Take out what would become due next; C{None} when nothing waits. For who has no room for more.
        """
        queue = self._queue
        while queue:
            if queue[0][1]:
                return queue[0][1].popleft()
            queue.popleft()
        return None

    def stop(self) -> None:
        """
        Forget everything.
        """
        self._queue.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None
