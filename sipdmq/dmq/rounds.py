"""
What a node of a cluster does again and again, and what it does once, later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

__all__ = ["Rounds"]

log = Logger()

OVERSLEPT: Final = 2.0
"""Seconds by which a timer is late when the process was stopped meanwhile."""


class Rounds:
    """
    Timers by name. What they call may raise: that is logged, and the next round comes all the same.
    """

    def __init__(self, clock: IReactorTime, overslept: Callable[[float], object]) -> None:
        """
        @param overslept: told by how many seconds a round is late, when the process must have stood still, before that
            round is made.
        """
        self._clock = IReactorTime(clock)
        self._overslept = overslept
        self._calls: dict[str, IDelayedCall] = {}

    def every(self, name: str, interval: float, do: Callable[[], object]) -> None:
        """
        Call something for the first time when C{interval} seconds are over, and so on.
        """
        due_at = self._clock.seconds() + interval

        def due() -> None:
            late = self._clock.seconds() - due_at
            self.every(name, interval, do)
            self._do(name, do, late)

        self._calls[name] = self._clock.callLater(interval, due)

    def once(self, name: str, delay: float, do: Callable[[], object]) -> None:
        """
        Call something after C{delay} seconds, instead of what waits under that name.
        """
        if name in self._calls:
            self._calls[name].cancel()

        def due() -> None:
            del self._calls[name]
            self._do(name, do)

        self._calls[name] = self._clock.callLater(delay, due)

    def _do(self, name: str, do: Callable[[], object], late: float = 0.0) -> None:
        try:
            if late > OVERSLEPT:
                self._overslept(late)
            do()
        except Exception:  # noqa: BLE001 - the edge of timers
            log.failure("{name} broke", name=name)

    def stop(self) -> None:
        """
        Call nothing more.
        """
        for call in self._calls.values():
            if call.active():
                call.cancel()
        self._calls.clear()
