"""
What watchers cost: CPU time of a node for each NOTIFY, and memory for each subscription.

Two nodes of a cluster, half of the watchers at each; one of the nodes gets PUBLISHes, one after the other, each when
all watchers have answered the one before.

    python bench/notify.py --watchers 100 --publishes 300 --subscriptions 10000
"""

from __future__ import annotations

import argparse
import re
import socket
import time
from collections.abc import Iterator

from servers import SipdmqNode

__all__ = ["measure_memory", "measure_notify"]

NETWORK = "127.90.77"
NODES = (f"{NETWORK}.1", f"{NETWORK}.2")
DOMAIN = NODES[0]

PIDF = (
    '<?xml version="1.0"?><presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:bob@{domain}"><tuple id="t1">'
    "<status><basic>{basic}</basic></status><note>{note}</note></tuple></presence>"
)


def cluster() -> tuple[SipdmqNode, SipdmqNode]:
    """
    Two nodes, not yet started.
    """

    def node(host: str, core: int) -> SipdmqNode:
        return SipdmqNode(
            host,
            core=core,
            settings={
                "node": {"domains": f"bench.example {host}"},
                "auth": {"secret": "a secret for benchmarks"},
                "dmq": {"server_address": f"sip:{host}:5060", "notification_address": f"sip:{NODES[0]}:5060"},
                "presence": {
                    "enable": "1",
                    "min_notify_interval": "0",
                    "watchers_per_presentity": "100000",
                    "subscriptions_per_watcher": "100000",
                },
            },
        )

    return node(NODES[0], 0), node(NODES[1], 0)


class Watchers:
    """
    All watchers behind one socket.

    @ivar notifies: how many NOTIFYs were answered.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 2**20)
        self._socket.bind((f"{NETWORK}.9", 0))
        self._host, self._port = self._socket.getsockname()
        self.notifies = 0
        self._seen: set[bytes] = set()

    def close(self) -> None:
        self._socket.close()

    def subscribe(self, node: str, numbers: Iterator[int] | range, presentity: str) -> None:
        """
        Subscribe, fifty at a time, and wait for each one's 200 and NOTIFY.

        @param presentity: with C{{}} for the number.
        """
        batch: list[int] = []
        for number in numbers:
            batch.append(number)
            if len(batch) == 50:
                self._subscribe(node, batch, presentity)
                batch.clear()
        self._subscribe(node, batch, presentity)

    def _subscribe(self, node: str, numbers: list[int], presentity: str) -> None:
        expected = self.notifies + len(numbers)
        for number in numbers:
            uri = f"sip:{presentity.format(number)}@bench.example"
            self._socket.sendto(
                (
                    f"SUBSCRIBE {uri} SIP/2.0\r\n"
                    f"Via: SIP/2.0/UDP {self._host}:{self._port};branch=z9hG4bKsub{number};rport\r\n"
                    f"From: <sip:watcher{number}@bench.example>;tag=watcher{number}\r\nTo: <{uri}>\r\n"
                    f"Call-ID: 0123456789abcdef{number}@{self._host}\r\nCSeq: 1 SUBSCRIBE\r\nMax-Forwards: 70\r\n"
                    f"Contact: <sip:watcher{number}@{self._host}:{self._port}>\r\nEvent: presence\r\n"
                    "Expires: 7200\r\nUser-Agent: bench\r\nContent-Length: 0\r\n\r\n"
                ).encode(),
                (node, 5060),
            )
        self.wait(expected)

    def publish(self, node: str, number: int, etag: str) -> str:
        """
        @return: the new entity tag.
        """
        body = PIDF.format(domain="bench.example", basic="open" if number % 2 else "closed", note=f"state {number}")
        match = f"SIP-If-Match: {etag}\r\n" if etag else ""
        self._socket.sendto(
            (
                "PUBLISH sip:bob@bench.example SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP {self._host}:{self._port};branch=z9hG4bKpub{number};rport\r\n"
                "From: <sip:bob@bench.example>;tag=p\r\nTo: <sip:bob@bench.example>\r\nCall-ID: pub\r\n"
                f"CSeq: {number} PUBLISH\r\nMax-Forwards: 70\r\nEvent: presence\r\nExpires: 3600\r\n{match}"
                f"Content-Type: application/pidf+xml\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            ).encode(),
            (node, 5060),
        )
        while True:
            answer = self._receive()
            if b"PUBLISH\r\n" in answer:
                found = re.search(rb"SIP-ETag: *(\S+)", answer)
                if found is None:
                    raise RuntimeError(f"PUBLISH was answered {answer!r}")
                return found[1].decode()

    def wait(self, count: int) -> None:
        """
        Until so many NOTIFYs were answered in all.
        """
        while self.notifies < count:
            self._receive()

    def _receive(self) -> bytes:
        self._socket.settimeout(10)
        data, source = self._socket.recvfrom(65535)
        if not data.startswith(b"NOTIFY"):
            if data.startswith(b"SIP/2.0 ") and not data.startswith(b"SIP/2.0 2"):
                raise RuntimeError(f"refused: {data!r}")
            return data
        head = data.partition(b"\r\n\r\n")[0].split(b"\r\n")
        kept = [line for line in head if line.startswith((b"Via:", b"From:", b"To:", b"Call-ID:", b"CSeq:"))]
        if kept[0] not in self._seen:
            self._seen.add(kept[0])
            self.notifies += 1
        self._socket.sendto(
            b"\r\n".join([b"SIP/2.0 200 OK", *kept, b"Content-Length: 0", b"", b""]), source
        )
        return b""


def measure_notify(watchers: int, publishes: int) -> None:
    """
    Print NOTIFYs per second and CPU microseconds for each.
    """
    first, second = cluster()
    with first, second:
        time.sleep(2)  # they find one another
        phones = Watchers()
        phones.subscribe(NODES[0], range(0, watchers, 2), "bob")
        phones.subscribe(NODES[1], range(1, watchers, 2), "bob")
        etag = ""
        expected = phones.notifies
        warm = max(10, publishes // 10)
        for number in range(1, warm + publishes + 1):
            if number == warm + 1:
                cpu, began = first.cpu_seconds() + second.cpu_seconds(), time.monotonic()
            etag = phones.publish(NODES[0], number, etag)
            expected += watchers
            phones.wait(expected)
        cpu = first.cpu_seconds() + second.cpu_seconds() - cpu
        seconds = time.monotonic() - began
        told = publishes * watchers
        print(
            f"PUBLISH with {watchers} watchers on two nodes: {told / seconds:,.0f} NOTIFYs/s, "
            f"{1e6 * cpu / told:.0f} µs of CPU for each (both nodes together; PUBLISH and KDMQ in it)"
        )
        phones.close()


def measure_memory(count: int) -> None:
    """
    Print resident memory for each subscription, on the node that has it and on the other one.
    """
    first, second = cluster()
    with first, second:
        time.sleep(2)
        phones = Watchers()
        phones.subscribe(NODES[0], range(1000), "warm{}")
        time.sleep(40)  # until its transactions are forgotten
        before = [node.resident_bytes() for node in (first, second)]
        phones.subscribe(NODES[0], range(1000, 1000 + count), "user{}")
        time.sleep(40)
        each = [(node.resident_bytes() - was) / count for node, was in zip((first, second), before)]
        print(f"{count:,} subscriptions: {each[0] / 1000:.2f} kB each, {each[1] / 1000:.2f} kB on the other node")
        phones.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--watchers", type=int, default=100)
    parser.add_argument("--publishes", type=int, default=300)
    parser.add_argument("--subscriptions", type=int, default=10_000)
    arguments = parser.parse_args()
    if arguments.publishes:
        measure_notify(arguments.watchers, arguments.publishes)
    if arguments.subscriptions:
        measure_memory(arguments.subscriptions)
