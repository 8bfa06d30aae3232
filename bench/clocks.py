"""
What a piece of work cost: the server, the generator, and whether others disturbed them.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from servers import Server

__all__ = ["Clocks", "Cost"]


@dataclass(frozen=True)
class Cost:
    """
    @ivar cpu: CPU seconds of the server.
    @ivar own: CPU seconds of the generator, waiting included where it spins.
    @ivar others: the share of the machine, 0 to 1, that neither of them used and that was not idle either. With more
        than a little of that, the rate and the latencies say nothing.
    """

    cpu: float
    own: float
    others: float


class Clocks:
    """
    Started when made.
    """

    def __init__(self, server: Server) -> None:
        """
        @param server: running; it and this process are the two that count.
        """
        self._server = server
        self._cpu, self._own, self._busy = server.cpu_seconds(), time.process_time(), busy_seconds()
        self._start = time.monotonic()

    def read(self) -> Cost:
        """
        What was used since the start.
        """
        wall = time.monotonic() - self._start
        cpu = self._server.cpu_seconds() - self._cpu
        own = time.process_time() - self._own
        others = max(0.0, busy_seconds() - self._busy - cpu - own) / (wall * (os.cpu_count() or 1))
        return Cost(cpu, own, others)


def busy_seconds() -> float:
    """
    @return: seconds for which the machine's cores were not idle since it started, those that the hypervisor gave to
        others ("steal") included.
    """
    line = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
