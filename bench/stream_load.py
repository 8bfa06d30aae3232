"""
What a REGISTER costs over kept connections, TCP and TLS beside one another.

Each connection is a phone that refreshes its binding again and again: all of them send one REGISTER and wait for the
answer, at the same time, from one process that spins: to wake it would be charged to the server, to TLS and TCP alike,
and so make TLS look cheaper beside TCP. What is measured is the CPU time of the server.

    python bench/stream_load.py --connections 50 --count 45000
"""

from __future__ import annotations

import argparse
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from idle_tcp import connect_from_many
from idle_tls import TLS_PORT, client_context, make_certificates, tls_node
from load import LoadFailed
from servers import Server, own_host

__all__ = ["Phones", "StreamResult", "measure"]

#: Turns.
SLICES = 9

#: Seconds for the answers of one round.
ROUND_TIMEOUT = 20.0


@dataclass(frozen=True)
class StreamResult:
    """
    @ivar count: requests, all answered with 200.
    @ivar cpu_each: seconds of CPU time of the server for each of them.
    @ivar rate: requests per second.
    """

    count: int
    cpu_each: float
    rate: float


def _register(domain: str, transport: str, local: tuple[str, int], number: int, cseq: int) -> bytes:
    """
    @param number: of the phone.
    """
    host, port = local
    return (
        f"REGISTER sip:{domain};transport={transport.lower()} SIP/2.0\r\n"
        f"Via: SIP/2.0/{transport} {host}:{port};branch=z9hG4bK{transport}{number:06d}{cseq:08d};rport\r\n"
        f"Max-Forwards: 70\r\n"
        f"From: <sip:phone{number}@{domain}>;tag=t{number}\r\n"
        f"To: <sip:phone{number}@{domain}>\r\n"
        f"Call-ID: {transport}-{number}@{host}\r\n"
        f"CSeq: {cseq} REGISTER\r\n"
        f"Contact: <sip:phone{number}@{host}:{port};transport={transport.lower()}>\r\n"
        f"Expires: 3600\r\n"
        f"User-Agent: bench\r\n"
        f"Content-Length: 0\r\n\r\n"
    ).encode()


class Phones:
    """
    So many connections of one kind.
    """

    def __init__(
        self, server: Server, transport: str, connections: int, secure: Callable[[socket.socket], socket.socket]
    ) -> None:
        """
        @param server: running.
        @param transport: C{"TCP"} or C{"TLS"}.
        @param secure: from a new connection to what is spoken over.
        """
        port = TLS_PORT if transport == "TLS" else server.address[1]
        self._server = server
        self._transport = transport
        self._connections = [secure(plain) for plain in connect_from_many((server.address[0], port), connections)]
        for connection in self._connections:
            connection.setblocking(False)
        self._cseq = 0

    def close(self) -> None:
        """
        End all connections.
        """
        for connection in self._connections:
            connection.close()

    def measure(self, count: int) -> StreamResult:
        """
        @param count: requests altogether.
        @raise LoadFailed: an answer was not 200.
        """
        rounds = max(1, count // len(self._connections))
        cpu, start = self._server.cpu_seconds(), time.perf_counter()
        for _ in range(rounds):
            self._round()
        seconds = time.perf_counter() - start
        done = rounds * len(self._connections)
        return StreamResult(done, (self._server.cpu_seconds() - cpu) / done, done / seconds)

    def _round(self) -> None:
        self._cseq += 1
        for number, phone in enumerate(self._connections):
            local = phone.getsockname()[:2]
            phone.sendall(_register(self._server.address[0], self._transport, local, number, self._cseq))
        deadline = time.monotonic() + ROUND_TIMEOUT
        for phone in self._connections:
            while True:
                try:
                    answer = phone.recv(65535)
                    break
                except (BlockingIOError, ssl.SSLWantReadError):
                    if time.monotonic() > deadline:
                        raise LoadFailed("a REGISTER was not answered") from None
            if not answer.startswith(b"SIP/2.0 200 ") or not answer.endswith(b"\r\n\r\n"):
                raise LoadFailed(f"a REGISTER was answered {answer[:100]!r}")


def measure(
    server: Server, connections: int, count: int, context: ssl.SSLContext
) -> list[tuple[StreamResult, StreamResult]]:
    """
    TCP and TLS by turns, in slices, so that what else the machine does disturbs both alike.

    @param server: running.
    @param connections: how many at the same time.
    @param count: requests of each kind.
    @return: of each slice, what TCP and then TLS gave.
    """
    kinds = (
        Phones(server, "TCP", connections, lambda plain: plain),
        Phones(server, "TLS", connections, context.wrap_socket),
    )
    try:
        for phones in kinds:
            phones.measure(2000)  # warms up
        return [(kinds[0].measure(count // SLICES), kinds[1].measure(count // SLICES)) for _ in range(SLICES)]
    finally:
        for phones in kinds:
            phones.close()


def main(arguments: list[str]) -> int:
    """
    @return: the exit status.
    """
    parser = argparse.ArgumentParser(description="CPU time of a REGISTER over kept connections, TCP and TLS.")
    parser.add_argument("--connections", type=int, default=50, help="at the same time (default %(default)s)")
    parser.add_argument("--count", type=int, default=45_000, help="requests of each kind (default %(default)s)")
    parser.add_argument("--version", choices=("1.2", "1.3"), default="1.3", help="of TLS (default %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sipdmq-bench-") as name:
        folder = Path(name)
        make_certificates(folder)
        context = client_context(folder, options.version)
        with tls_node(own_host(1), folder) as server:
            slices = measure(server, options.connections, options.count, context)
    for title, results in zip(("TCP", f"TLS {options.version}"), zip(*slices)):
        costs = sorted(result.cpu_each * 1e6 for result in results)
        print(
            f"{server.title}: REGISTER over {options.connections} kept {title} connections: "
            f"{costs[SLICES // 2]:.1f} µs of CPU each ({costs[0]:.1f} to {costs[-1]:.1f} in {SLICES} slices)"
        )
    ratios = sorted(tls.cpu_each / tcp.cpu_each for tcp, tls in slices)
    # The range is the result, too: on a machine that does other work it is wide, and the median says little.
    print(f"TLS costs {ratios[SLICES // 2]:.2f} × TCP ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
