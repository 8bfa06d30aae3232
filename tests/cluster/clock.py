"""
One clock for all machines of a cluster. L{twisted.internet.task.Clock} sorts all that waits at each call; this one is
a heap.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

__all__ = ["HeapCall", "HeapClock", "Owner"]

TICK = 1e-6
"""Seconds: who waits for less, because two sums differ in their last bit, would wait for ever: this clock stands."""


class Owner(Protocol):
    """
    The process that a call belongs to.
    """

    is_dead: bool
    """Its calls do not happen any more."""

    def is_late(self, call: HeapCall) -> bool:
        """
        Whether the process stands still: then it keeps the call, and gives it back by L{HeapClock.again} afterwards.
        """


@implementer(IDelayedCall)
class HeapCall:
    """
    A call that waits.
    """

    __slots__ = ("_clock", "_time", "is_active", "is_cancelled", "owner", "run")

    def __init__(self, clock: HeapClock, time: float, run: Callable[[], object], owner: Owner | None) -> None:
        self._clock = clock
        self._time = time
        self.run = run
        self.owner = owner
        self.is_active = True
        self.is_cancelled = False

    def getTime(self) -> float:
        return self._time

    def active(self) -> bool:
        return self.is_active

    def cancel(self) -> None:
        self._check()
        self.is_active = False
        self.is_cancelled = True

    def delay(self, secondsLater: float) -> None:
        self._check()
        self._move(self._time + secondsLater)

    def reset(self, secondsFromNow: float) -> None:
        self._check()
        self._move(self._clock.now + max(secondsFromNow, TICK))

    def _check(self) -> None:
        if self.is_cancelled:
            raise AlreadyCancelled
        if not self.is_active:
            raise AlreadyCalled

    def _move(self, time: float) -> None:
        is_earlier = time < self._time
        self._time = time
        if is_earlier:  # a later one is found to be so when its old time has come
            self._clock.again(self)

    def due(self) -> None:
        """
        It is time.
        """
        self.is_active = False
        self.run()


@implementer(IReactorTime)
class HeapClock:
    """
    @ivar now: seconds since the beginning.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, HeapCall]] = []
        self._order = count()

    def seconds(self) -> float:
        return self.now

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kw: object) -> HeapCall:
        return self.call_for(None, delay, callable, *args, **kw)

    def call_for(
        self, owner: Owner | None, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> HeapCall:
        """
        As C{callLater}, of a process that may stand still or die.
        """
        assert delay >= 0
        if 0 < delay < TICK:
            delay = TICK
        call = HeapCall(self, self.now + delay, lambda: callable(*args, **kw), owner)
        self.again(call)
        return call

    def again(self, call: HeapCall) -> None:
        """
        Look at a call when its time has come, at once if that is over.
        """
        heapq.heappush(self._heap, (max(self.now, call.getTime()), next(self._order), call))

    def getDelayedCalls(self) -> list[HeapCall]:
        return [call for _, _, call in self._heap if call.is_active]

    def advance(self, seconds: float) -> None:
        """
        Let time pass, call by call in the order of their times.
        """
        end = self.now + seconds
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.now, _, call = heapq.heappop(heap)
            if not call.is_active:
                continue
            if call.getTime() > self.now:
                self.again(call)
            elif call.owner is None or not (call.owner.is_dead or call.owner.is_late(call)):
                call.due()
        self.now = end
