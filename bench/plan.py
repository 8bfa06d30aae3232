"""
What is to be measured, as the command line of L{run} says.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from servers import Server

__all__ = ["Numbers", "Plan", "say"]

#: What one repetition gives for a work: numbers, written by L{write_cell} as the median of all repetitions.
Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Plan:
    """
    What to measure, from the command line.

    @ivar count: requests of a run, and users.
    @ivar window: unanswered requests at most.
    @ivar rate: requests per second of the latency run.
    @ivar connections: idle TCP connections.
    @ivar stalled: connections with half a message.
    @ivar call_rate: calls per second of the run at a fixed rate.
    @ivar repeat: how often each run is made.
    """

    only: frozenset[str]
    servers: tuple[str, ...]
    count: int
    window: int
    rate: float
    connections: int
    stalled: int
    call_rate: float
    repeat: int
    server_core: int | None

    def wants(self, server: Server, *works: str) -> bool:
        return any(work in self.only and work in server.works for work in works)

    def timeout(self, count: int) -> float:
        """
        @return: seconds after which a run of C{count} requests is given up: 1,000 a second, and a minute.
        """
        return 60.0 + count / 1000


def say(text: str) -> None:
    """
    Progress.
    """
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
