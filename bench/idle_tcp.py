"""
What one idle TCP connection costs: resident memory of the server before and with so many of them.

Each connection asks one OPTIONS, as a phone that registered and now waits has spoken once; then nothing, until the
server has forgotten the transactions. The kernel's own socket buffers are not counted, for any server.

    python bench/idle_tcp.py --count 2000
"""

from __future__ import annotations

import argparse
import select
import socket
import sys
import time
from dataclasses import dataclass

from programs import SERVERS
from servers import Server, own_host

__all__ = ["IdleResult", "connect_from_many", "measure", "tcp_options"]

#: Connections from one source address, below what a server allows to one source.
PER_SOURCE = 20


@dataclass(frozen=True)
class IdleResult:
    """
    @ivar count: connections opened.
    @ivar alive: those of them that the server had not closed when its memory was measured.
    @ivar bytes_each: resident bytes of the server for each connection that was alive.
    """

    count: int
    alive: int
    bytes_each: float


def tcp_options(server: tuple[str, int], local: tuple[str, int], mark: str) -> bytes:
    """
    @param local: what the Via says.
    @param mark: makes the transaction different from all others.
    @return: an OPTIONS request to the server itself, as sent over TCP.
    """
    return (
        f"OPTIONS sip:{server[0]};transport=tcp SIP/2.0\r\n"
        f"Via: SIP/2.0/TCP {local[0]}:{local[1]};branch=z9hG4bK{mark};rport\r\n"
        f"Max-Forwards: 70\r\n"
        f"From: <sip:ping@{server[0]}>;tag={mark}\r\n"
        f"To: <sip:{server[0]}>\r\n"
        f"Call-ID: {mark}\r\n"
        f"CSeq: 1 OPTIONS\r\n"
        f"Content-Length: 0\r\n\r\n"
    ).encode()


def connect_from_many(server: tuple[str, int], count: int) -> list[socket.socket]:
    """
    @return: so many connections, from a source address of their own for every L{PER_SOURCE} of them.
    """
    connections = []
    try:
        for number in range(count):
            source = number // PER_SOURCE
            # Port 0 may be bound on any loopback address: no address has to be set up for that.
            connections.append(
                socket.create_connection(
                    server, timeout=5, source_address=(f"127.72.{source // 250}.{source % 250 + 1}", 0)
                )
            )
    except BaseException:
        for connection in connections:
            connection.close()
        raise
    return connections


def measure(server: Server, count: int) -> IdleResult:
    """
    @param server: running.
    @param count: connections to open.
    """
    # The first connections make the server load and allocate what it needs only once.
    for number, connection in enumerate(connect_from_many(server.address, 20)):
        _ask(connection, server.address, f"warm{number:06d}")
        connection.close()
    time.sleep(server.transaction_lifetime + 2)
    before = server.resident_bytes()
    connections = connect_from_many(server.address, count)
    try:
        for number, connection in enumerate(connections):
            _ask(connection, server.address, f"idle{number:06d}")
        time.sleep(server.transaction_lifetime + 4)
        after = server.resident_bytes()
        alive = sum(1 for connection in connections if is_open(connection))
    finally:
        for connection in connections:
            connection.close()
    return IdleResult(count, alive, (after - before) / max(1, alive))


def is_open(connection: socket.socket) -> bool:
    """
    @return: whether the server has not closed the connection.
    """
    poll = select.poll()  # select() cannot watch a file descriptor above 1023
    poll.register(connection, select.POLLIN)
    if not poll.poll(0):
        return True
    try:
        return connection.recv(65535) != b""
    except OSError:
        return False


def _ask(connection: socket.socket, server: tuple[str, int], mark: str) -> None:
    connection.sendall(tcp_options(server, connection.getsockname(), mark))
    if not connection.recv(65535):
        raise ConnectionError("the server closed the connection instead of answering OPTIONS")


def main(arguments: list[str]) -> int:
    """
    @return: the exit status.
    """
    parser = argparse.ArgumentParser(description="Memory of a server per idle TCP connection.")
    parser.add_argument("--server", choices=[n for n, s in SERVERS.items() if "idle-tcp" in s.works], default="sipdmq")
    parser.add_argument("--count", type=int, default=2000, help="connections (default %(default)s)")
    options = parser.parse_args(arguments)
    with SERVERS[options.server](own_host(1)) as server:
        result = measure(server, options.count)
    print(
        f"{server.title}: {result.bytes_each / 1000:.2f} kB for each of {result.alive} idle TCP connections "
        f"({result.count} opened)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
