"""
What a write into a shared table costs when it is replicated to one other node: CPU of both together, at full load.

    python bench/htable.py [--count 100000] [--server sipdmq|kamailio]

The writes are made inside the first node, by a policy or a script, so that nothing but them is measured. Our node is
told once to make all of them, and goes as fast as the other one takes them. A Kamailio has no such bound: it is told to
make a few, and then some more, so slowly that it need not send them again: the worker that writes reads no answers
meanwhile, and where these have filled its socket the next order is lost with them.

What the second node has in the end is counted: without all cells there is no figure.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
NODES = ("127.96.1.1", "127.96.1.2")
CELLS = 50_000
"""As many different keys as the policy and the script write, one after the other and then again."""
LIMIT = 300
"""Seconds after which all of it is given up, whatever hangs."""
TICKS = os.sysconf("SC_CLK_TCK")

INI = """
[node]
listen = udp:{host}:5060
domains = localhost
policy = htable_policy:Policy
[auth]
secret = the secret of the benchmark
[dmq]
server_address = sip:{host}:5060
notification_address = sip:{peer}:5060
ping_interval = 5
[usrloc]
enable = 0
[htable t]
dmqreplicate = 1
"""


def ask(host: str, method: str, user: str, timeout: float) -> bytes:
    """
    One request, and its final answer; empty when none comes in time.
    """
    mark = os.urandom(6).hex()
    request = (
        f"{method} sip:{user}@{host} SIP/2.0\r\nVia: SIP/2.0/UDP 127.96.1.9:5099;branch=z9hG4bK{mark};rport\r\n"
        f"Max-Forwards: 70\r\nFrom: <sip:bench@elsewhere>;tag={mark}\r\nTo: <sip:{user}@{host}>\r\n"
        f"Call-ID: {mark}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.96.1.9", 0))
        client.settimeout(timeout)
        client.sendto(request.encode(), (host, 5060))
        try:
            answer = client.recv(65535)
            while answer.startswith(b"SIP/2.0 1"):
                answer = client.recv(65535)
            return answer
        except (TimeoutError, ConnectionRefusedError):
            return b""


def cpu(process: subprocess.Popen[bytes]) -> float:
    """
    Seconds that a process and all of its session have used.
    """
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == process.pid:
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


@contextmanager
def nodes(command: Callable[[Path, str, str], list[str]]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """
    Two nodes that know one another.
    """
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="bench-htable-") as folder:
        try:
            for host, peer in (NODES, NODES[::-1]):
                running.append(
                    subprocess.Popen(
                        command(Path(folder), host, peer),
                        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE.parent), str(HERE)))},
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        start_new_session=True,
                    )
                )
                deadline = time.monotonic() + 20
                while not ask(host, "OPTIONS", "nobody", 0.3):
                    if time.monotonic() > deadline:
                        raise SystemExit(f"{host} does not answer")
                    time.sleep(0.1)
            time.sleep(6)  # they join
            yield running
        finally:
            for process in running:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def sipdmq(folder: Path, host: str, peer: str) -> list[str]:
    """
    How a node of ours is started.
    """
    ini = folder / f"{host}.ini"
    ini.write_text(INI.format(host=host, peer=peer))
    return [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "sipdmq", "-c", str(ini)]


def kamailio(folder: Path, host: str, peer: str) -> list[str]:
    """
    How a Kamailio is started.
    """
    directory = folder / host
    directory.mkdir()
    return [
        *(shutil.which("kamailio") or "kamailio", "-f", str(HERE / "kamailio-htable.cfg"), "-DD", "-E"),
        *("-w", str(directory), "-Y", str(directory), "-P", str(directory / "pid"), "-m", "2048", "-M", "64"),
        *("-x", "tlsf", "-X", "tlsf", "-A", f"LISTEN_UDP=udp:{host}:5060"),
        *("-A", f'NODE="sip:{host}:5060"', "-A", f'PEER="sip:{peer}:5060"'),
    ]


#: How each is started; writes that it is told to make at once, 0: all; seconds that these may take; seconds of pause.
SERVERS = {"sipdmq": (sipdmq, 0, 120.0, 0.0), "kamailio": (kamailio, 50, 5.0, 0.002)}


def main() -> None:
    """
    See the module.
    """
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=100_000)
    options.add_argument("--server", choices=SERVERS, default="sipdmq")
    given = options.parse_args()
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda *_: sys.exit("given up"))  # so that the nodes end with it
    signal.alarm(LIMIT)
    command, slice_size, patience, pause = SERVERS[given.server]
    with nodes(command) as running:
        before, began = [cpu(each) for each in running], time.monotonic()
        for first in range(0, given.count, slice_size or given.count):
            size = min(slice_size or given.count, given.count - first)
            if b" 200 " not in ask(NODES[0], "MESSAGE", f"{first}-{size}", patience):
                raise SystemExit(f"the writes from {first} on were not answered")
            time.sleep(pause)
        took = time.monotonic() - began
        time.sleep(2)
        used = [1e6 * (cpu(each) - earlier) / given.count for each, earlier in zip(running, before)]
        answer, expected = ask(NODES[1], "MESSAGE", "cells", 5.0), min(given.count, CELLS)
        if f" 200 {expected}\r\n".encode() not in answer:
            raise SystemExit(f"the second node has not {expected} cells: {answer.decode(errors='replace')}")
    print(
        f"{given.count} writes, {given.count / took:.0f} a second; CPU of a write: "
        f"{used[0]:.1f} us at the first node, {used[1]:.1f} us at the second, {sum(used):.1f} us together"
    )


if __name__ == "__main__":
    main()
