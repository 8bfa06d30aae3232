"""
What one idle TLS connection costs: as idle_tcp.py, with the handshake before the OPTIONS, beside TCP.

    python bench/idle_tls.py --count 1000
"""

from __future__ import annotations

import argparse
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from idle_tcp import IdleResult, connect_from_many, is_open, tcp_options
from programs import SipdmqNode
from servers import CHECKOUT, Server, own_host

__all__ = ["TLS_PORT", "client_context", "make_certificates", "measure", "tls_node"]

TLS_PORT = 5061


def make_certificates(folder: Path) -> None:
    """
    What C{make certs} makes.
    """
    subprocess.run(
        [sys.executable, str(CHECKOUT / "etc" / "make_certs.py"), str(folder)], check=True, stdout=subprocess.DEVNULL
    )


def tls_node(
    host: str,
    folder: Path,
    core: int | None = 0,
    kind: type[SipdmqNode] = SipdmqNode,
    t1: float = 0.5,
) -> SipdmqNode:
    """
    @param folder: with certificates.
    @param kind: of node.
    @param t1: its timer T1, seconds: the shorter, the sooner it has forgotten its transactions.
    @return: a node that listens on UDP, TCP and TLS; not yet started.
    """
    listen = f"udp:{host}:5060\n    tcp:{host}:5060\n    tls:{host}:{TLS_PORT}"
    files = {"certificate": f"{folder}/server.pem", "private_key": f"{folder}/server.key"}
    # All are opened before the first handshake begins.
    patient = {"handshake_timeout": "300"}
    sections = {"node": {"listen": listen}, "tls": files, "timers": {"t1": f"{t1:g}"}, "limits": patient}
    node = kind(host, 5060, core, sections)
    node.transaction_lifetime = 64 * t1
    return node


def client_context(folder: Path, version: str = "1.3") -> ssl.SSLContext:
    """
    A client that trusts the authority of these certificates, and speaks this version only. The node's address is one
    of the bench's own, which no certificate names: the name is not looked at.
    """
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.check_hostname = False
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, f"TLSv{version.replace('.', '_')}")
    return context


def measure(server: Server, count: int, context: ssl.SSLContext) -> IdleResult:
    """
    @param server: running, with a TLS listener.
    @param count: connections to open.
    """
    address = (server.address[0], TLS_PORT)
    for number, connection in enumerate(connect_from_many(address, 20)):
        with context.wrap_socket(connection) as secure:
            _ask(secure, address, f"warm{number:06d}")
    time.sleep(server.transaction_lifetime + 2)
    before = server.resident_bytes()
    connections: list[socket.socket] = connect_from_many(address, count)
    try:
        for number, connection in enumerate(connections):
            secure = connections[number] = context.wrap_socket(connection)
            _ask(secure, address, f"idle{number:06d}")
        time.sleep(server.transaction_lifetime + 4)
        after = server.resident_bytes()
        alive = sum(1 for connection in connections if is_open(connection))
    finally:
        for connection in connections:
            connection.close()
    return IdleResult(count, alive, (after - before) / max(1, alive))


def _ask(connection: socket.socket, server: tuple[str, int], mark: str) -> None:
    options = tcp_options(server, connection.getsockname()[:2], mark)
    connection.sendall(options.replace(b"transport=tcp", b"transport=tls").replace(b"2.0/TCP", b"2.0/TLS"))
    if not connection.recv(65535):
        raise ConnectionError("the server closed the connection instead of answering OPTIONS")


def main(arguments: list[str]) -> int:
    """
    @return: the exit status.
    """
    parser = argparse.ArgumentParser(description="Memory of a node per idle TLS connection.")
    parser.add_argument("--count", type=int, default=1000, help="connections (default %(default)s)")
    parser.add_argument("--version", choices=("1.2", "1.3"), default="1.3", help="of TLS (default %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sipdmq-bench-") as name:
        folder = Path(name)
        make_certificates(folder)
        with tls_node(own_host(1), folder) as server:
            result = measure(server, options.count, client_context(folder, options.version))
    print(
        f"{server.title}: {result.bytes_each / 1000:.2f} kB for each of {result.alive} idle TLS {options.version} "
        f"connections ({result.count} opened)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
