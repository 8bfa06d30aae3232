"""
What a call costs that nobody goes on with: resident memory of the node for each open INVITE, and what is left of them
when their timers are over.

Four kinds: the callee rings and never answers; the callee says nothing; the caller came over TCP, or over TLS, and his
connection is gone. Each kind twice on one node: what the second round takes beyond the first one was not freed.

    python bench/half_open.py --count 10000
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from idle_tls import TLS_PORT, client_context, make_certificates
from programs import SipdmqNode
from servers import own_host

__all__ = ["KINDS", "HalfOpenResult", "measure", "node"]

KINDS = ("ringing", "silent", "vanished", "vanished-tls")

#: INVITEs in a second: fast enough to have them open together, slow enough for the callee to keep up.
RATE = 800

#: Seconds: 64 × T1 ends an INVITE that nobody answers, timer C one that rings.
T1 = 0.5
TIMER_C = 20.0

#: Seconds that everything may take to be forgotten: timer C, 64 × T1 for the CANCEL and again for the ACK, timer D.
FORGOTTEN_AFTER = TIMER_C + 2 * 64 * T1 + 32 + 10

#: Calls in one connection of a caller who vanishes.
PER_CONNECTION = 100

_SDP = (
    b"v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\nm=audio 49170 RTP/AVP 8 0 101\r\n"
    b"a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
)
_TABLES = ("proxy.contexts", "transaction.servers", "transaction.clients", "transaction.completed")


@dataclass(frozen=True)
class HalfOpenResult:
    """
    @ivar opened: INVITEs that were open together.
    @ivar bytes_each: resident bytes of the node for each of them at most, until the last was forgotten; the first time.
    @ivar bytes_again: what the second round added to the first one's most, for each.
    @ivar left: what the tables of the node hold in the end.
    """

    kind: str
    opened: int
    bytes_each: float
    bytes_again: float
    left: dict[str, int]


def node(host: str, folder: Path | None = None) -> SipdmqNode:
    """
    A node to be measured, not yet started.

    @param folder: with certificates; L{None}: it has no TLS.
    """
    settings = {"timers": {"t1": f"{T1:g}", "c": f"{TIMER_C:g}"}, "calls": {"record_file": "calls.jsonl"}}
    if folder is not None:
        settings["node"] = {"listen": f"udp:{host}:5060\n    tcp:{host}:5060\n    tls:{host}:{TLS_PORT}"}
        settings["tls"] = {"certificate": f"{folder}/server.pem", "private_key": f"{folder}/server.key"}
    return SipdmqNode(host, settings=settings)


def _numbers(server: SipdmqNode) -> dict[str, int]:
    """
    What the node tells of itself.
    """

    def lines() -> list[str]:
        return re.findall(r"snapshot: (.*)", server._log.read_text(errors="replace"))

    seen = len(lines())
    os.kill(server.pid, signal.SIGUSR2)
    for _ in range(200):
        time.sleep(0.05)
        if len(lines()) > seen:
            return {name: int(float(value)) for name, value in re.findall(r"(\S+)=(\S+)", lines()[-1])}
    raise TimeoutError("SIGUSR2 brought no snapshot")


def _message(first: str, mark: str, via: str, more: tuple[str, ...], body: bytes = b"") -> bytes:
    method = first.split()[0]
    lines = (
        first,
        f"Via: SIP/2.0/{via};branch=z9hG4bK{mark};rport",
        "Max-Forwards: 70",
        f"From: \"A Caller\" <sip:caller@elsewhere.invalid>;tag={mark}",
        f"To: <{first.split()[1]}>",
        f"Call-ID: {mark}@192.0.2.7",
        f"CSeq: 1 {method}",
        *more,
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


@contextmanager
def _callee(server: SipdmqNode, rings: bool) -> Iterator[None]:
    """
    A phone that is registered as bob, and at most rings.
    """
    phone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    phone.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**24)
    phone.bind((server.address[0], 0))
    host, port = phone.getsockname()
    domain = server.address[0]
    contact = (f"Contact: <sip:bob@{host}:{port}>", "Expires: 7200")
    register = _message(f"REGISTER sip:{domain} SIP/2.0", "register", f"UDP {host}:{port}", contact)
    phone.sendto(register.replace(f"To: <sip:{domain}>".encode(), f"To: <sip:bob@{domain}>".encode()), server.address)
    if not phone.recv(65535).startswith(b"SIP/2.0 200"):
        raise ConnectionError("bob could not register")
    is_over = threading.Event()

    def ring() -> None:
        phone.settimeout(0.2)
        while not is_over.is_set():
            try:
                request = phone.recv(65535)
            except TimeoutError:
                continue
            if rings and request.startswith(b"INVITE "):
                head = request.partition(b"\r\n\r\n")[0].split(b"\r\n")
                kept = [line for line in head if re.match(rb"Via|From|To|Call-ID|CSeq|Record-Route", line)]
                kept = [line + b";tag=b" if line.startswith(b"To:") else line for line in kept]
                lines = [b"SIP/2.0 180 Ringing", *kept, b"Content-Length: 0", b"", b""]
                phone.sendto(b"\r\n".join(lines), server.address)

    thread = threading.Thread(target=ring)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        phone.close()


def _connect(server: SipdmqNode, protocol: str, tls: ssl.SSLContext | None) -> socket.socket:
    kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
    caller = socket.socket(socket.AF_INET, kind)
    host, port = server.address
    caller.bind((host, 0))
    caller.connect((host, port if tls is None else TLS_PORT))
    return caller if tls is None else tls.wrap_socket(caller)


def _call(server: SipdmqNode, count: int, protocol: str, mark: str, tls: ssl.SSLContext | None) -> None:
    """
    Send so many INVITEs; nobody reads the answers.

    @param protocol: as in a Via.
    """
    uri = f"sip:bob@{server.address[0]}"
    is_stream = protocol != "UDP"
    caller: socket.socket | None = None
    start = time.monotonic()
    for number in range(count):
        if caller is None or (is_stream and number % PER_CONNECTION == 0):
            if caller is not None:
                caller.close()
            caller = _connect(server, protocol, tls)
        host, port = caller.getsockname()
        via = f"{protocol} {host}:{port}"
        contact = f"Contact: <sip:caller@{host}:{port}>"
        more = (contact, "Allow: INVITE, ACK, CANCEL, BYE, UPDATE", "Content-Type: application/sdp")
        caller.sendall(_message(f"INVITE {uri} SIP/2.0", f"{mark}x{number}", via, more, _SDP))
        time.sleep(max(0.0, start + number / RATE - time.monotonic()))
    if caller is not None:
        caller.close()


def _wait_until_empty(server: SipdmqNode) -> tuple[dict[str, int], int]:
    """
    @return: what is left after the time that it may take; and the most resident bytes until then: the end of a call
        has its own CANCEL and its own answer.
    """
    deadline = time.monotonic() + FORGOTTEN_AFTER
    most = 0
    while True:
        most = max(most, server.resident_bytes())
        numbers = _numbers(server)
        left = {name: numbers[name] for name in _TABLES if numbers[name]}
        if not left or time.monotonic() > deadline:
            return left, most
        time.sleep(2)


def measure(server: SipdmqNode, kind: str, count: int, tls: ssl.SSLContext | None = None) -> HalfOpenResult:
    """
    @param server: running.
    @param tls: for callers over TLS.
    """
    protocol = "TLS" if kind == "vanished-tls" else "TCP" if kind == "vanished" else "UDP"
    with _callee(server, rings=kind != "silent"):
        _call(server, 200, protocol, "warm", tls)
        _wait_until_empty(server)
        before = server.resident_bytes()
        most = []
        for turn in "ab":
            _call(server, count, protocol, turn, tls)
            time.sleep(1)
            opened = _numbers(server)["transaction.servers"]
            left, resident = _wait_until_empty(server)
            most.append(resident)
    return HalfOpenResult(kind, opened, (most[0] - before) / max(1, opened), (most[1] - most[0]) / max(1, opened), left)


def main(arguments: list[str]) -> int:
    """
    @return: the exit status: 1 when something is left.
    """
    parser = argparse.ArgumentParser(description="Memory of a node per open INVITE.")
    parser.add_argument("--count", type=int, default=10_000, help="calls (default %(default)s)")
    parser.add_argument("--kind", choices=KINDS, action="append", help="default: all")
    options = parser.parse_args(arguments)
    status = 0
    for kind in options.kind or KINDS:
        with tempfile.TemporaryDirectory(prefix="sipdmq-bench-") as name:
            folder, tls = None, None
            if kind == "vanished-tls":
                folder = Path(name)
                make_certificates(folder)
                tls = client_context(folder)
            with node(own_host(1), folder) as server:
                result = measure(server, kind, options.count, tls)
        print(
            f"{kind}: {result.bytes_each / 1000:.1f} kB for each of {result.opened} open INVITEs of {options.count}, "
            f"{result.bytes_again / 1000:+.1f} kB in the second round; left in the tables: {result.left or 'nothing'}",
            flush=True,
        )
        status |= bool(result.left)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
