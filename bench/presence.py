"""
What publishing costs: CPU time of a node for each PUBLISH (initial, refresh, modify) over UDP, without digest.

    python bench/presence.py --count 20000
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
from collections.abc import Iterable

from clocks import Clocks
from programs import SipdmqNode
from servers import own_host

__all__ = ["Publishers", "measure"]

#: PUBLISH requests on their way at the same time.
WINDOW = 50

PIDF = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<presence xmlns="urn:ietf:params:xml:ns:pidf" '
    'entity="sip:user{user:06d}@{domain}"><tuple id="t{user}"><status><basic>{basic}</basic></status>'
    "<contact>sip:user{user:06d}@192.0.2.7</contact></tuple></presence>"
)


class Publishers:
    """
    The phones: one socket stands for all of them.
    """

    def __init__(self, server: tuple[str, int]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.connect(server)
        self._socket.settimeout(5)
        self._local = "{}:{}".format(*self._socket.getsockname())
        self._domain = server[0]
        self._turn = 0
        self._etags: dict[int, str] = {}

    def close(self) -> None:
        """
        Give the port back.
        """
        self._socket.close()

    def publish(self, users: Iterable[int], basic: str) -> None:
        """
        Each user publishes once more, all of it answered with 200.

        @param basic: what; empty for a refresh.
        """
        self._turn += 1
        batch: list[int] = []
        for user in users:
            batch.append(user)
            if len(batch) == WINDOW:
                self._send(batch, basic)
                batch.clear()
        self._send(batch, basic)

    def _send(self, users: list[int], basic: str) -> None:
        for user in users:
            self._socket.send(self._request(user, basic))
        for _ in users:
            answer = self._socket.recv(65_535).decode()
            found = re.search(r"^Call-ID: \w+-(\d+)\r\n.*^SIP-ETag: (\S+)\r\n", answer, re.MULTILINE | re.DOTALL)
            if not answer.startswith("SIP/2.0 200 ") or found is None:
                raise RuntimeError(f"refused: {answer}")
            self._etags[int(found[1])] = found[2]

    def _request(self, user: int, basic: str) -> bytes:
        uri = f"sip:user{user:06d}@{self._domain}"
        etag = self._etags.get(user)
        body = PIDF.format(user=user, domain=self._domain, basic=basic) if basic else ""
        lines = [
            f"PUBLISH {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {self._local};branch=z9hG4bK{self._turn}x{user};rport",
            "Max-Forwards: 70",
            f"From: <{uri}>;tag=t{user}",
            f"To: <{uri}>",
            f"Call-ID: publication-{user}",
            f"CSeq: {self._turn} PUBLISH",
            "Event: presence",
            "Expires: 3600",
            *([f"SIP-If-Match: {etag}"] if etag else []),
            "User-Agent: Softphone/4.2.1 (Linux; x86_64)",
            *(["Content-Type: application/pidf+xml"] if body else []),
            f"Content-Length: {len(body)}",
            "",
            body,
        ]
        return "\r\n".join(lines).encode()


def measure(count: int, turns: int) -> list[tuple[str, float]]:
    """
    @param count: users.
    @param turns: refreshes of each.
    @return: what was done, and the microseconds of CPU of the server for each PUBLISH.
    """
    found = []
    with SipdmqNode(own_host(1), settings={"presence": {"enable": "1", "publications": "1000000"}}) as server:
        publishers = Publishers(server.address)
        try:
            publishers.publish(range(count, count + 1000), "open")  # it has loaded then what it needs
            for what, basic in (("initial", "open"), *[("refresh", "")] * turns, ("modify", "closed")):
                clocks = Clocks(server)
                publishers.publish(range(count), basic)
                found.append((what, clocks.read().cpu / count * 1e6))
        finally:
            publishers.close()
    return found


def main(arguments: list[str]) -> int:
    """
    @return: the exit status.
    """
    parser = argparse.ArgumentParser(description="PUBLISH over UDP: CPU time of a node.")
    parser.add_argument("--count", type=int, default=20_000, help="users (default %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="refreshes of each (default %(default)s)")
    options = parser.parse_args(arguments)
    for what, cost in measure(options.count, options.turns):
        print(f"{what}: {cost:.1f} µs of CPU each")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
