"""
Whether connections that sent half a message slow down a new client, and whether the server closes them.

The time of a new client is that from its connect() to the answer to its OPTIONS; half a message is the half of such
an OPTIONS.

    python bench/stalled_tcp.py --count 200
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from dataclasses import dataclass

from idle_tcp import connect_from_many, is_open, tcp_options
from programs import SERVERS
from servers import Server, own_host

__all__ = ["StalledResult", "measure"]

#: New clients, one after the other, before and beside the stalled connections.
CLIENTS = 300

#: Seconds after which half a message must have been given up, and how long we look for that.
GIVE_UP_AFTER = 30.0
GIVE_UP_MARGIN = 5.0


#: Makes each new client's request a transaction of its own.
_marks = itertools.count()


@dataclass(frozen=True)
class StalledResult:
    """
    @ivar count: connections with half a message each.
    @ivar before: seconds that each new client took without them, sorted.
    @ivar beside: seconds that each new client took beside them, sorted.
    @ivar closed: how many of them the server had closed 35 s later.
    """

    count: int
    before: list[float]
    beside: list[float]
    closed: int


def measure(server: Server, count: int, wait: bool = True) -> StalledResult:
    """
    @param server: running.
    @param count: connections to stall.
    @param wait: look whether the server closes them, which takes 35 s.
    """
    _new_clients(server, 50)  # warms up
    before = _new_clients(server, CLIENTS)
    stalled = connect_from_many(server.address, count)
    try:
        for number, connection in enumerate(stalled):
            message = tcp_options(server.address, connection.getsockname(), f"half{number:06d}")
            connection.sendall(message[: len(message) // 2])
        stalled_at = time.monotonic()
        beside = _new_clients(server, CLIENTS)
        closed = 0
        if wait:
            time.sleep(max(0.0, stalled_at + GIVE_UP_AFTER + GIVE_UP_MARGIN - time.monotonic()))
            closed = sum(1 for connection in stalled if not is_open(connection))
    finally:
        for connection in stalled:
            connection.close()
    return StalledResult(count, before, beside, closed)


def _new_clients(server: Server, count: int) -> list[float]:
    """
    @return: seconds from connect() to the answer for each client, sorted.
    """
    times = []
    for _ in range(count):
        start = time.perf_counter()
        (connection,) = connect_from_many(server.address, 1)
        connection.sendall(tcp_options(server.address, connection.getsockname(), f"new{next(_marks):08d}"))
        answer = connection.recv(65535)
        times.append(time.perf_counter() - start)
        connection.close()
        if not answer.startswith(b"SIP/2.0 200 "):
            raise ConnectionError(f"OPTIONS was answered {answer[:100]!r}")
    return sorted(times)


def main(arguments: list[str]) -> int:
    """
    @return: the exit status.
    """
    parser = argparse.ArgumentParser(description="A new client's OPTIONS beside stalled TCP connections.")
    parser.add_argument(
        "--server", choices=[n for n, s in SERVERS.items() if "stalled-tcp" in s.works], default="sipdmq"
    )
    parser.add_argument("--count", type=int, default=200, help="stalled connections (default %(default)s)")
    options = parser.parse_args(arguments)
    with SERVERS[options.server](own_host(1)) as server:
        result = measure(server, options.count)
    for title, times in (("before", result.before), (f"beside {result.count} stalled", result.beside)):
        print(
            f"{server.title}: a new client's OPTIONS {title}: median {times[len(times) // 2] * 1e3:.2f} ms, "
            f"p99 {times[len(times) * 99 // 100] * 1e3:.2f} ms, longest {times[-1] * 1e3:.2f} ms"
        )
    print(f"closed by the server after {GIVE_UP_AFTER + GIVE_UP_MARGIN:.0f} s: {result.closed} of {result.count}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
