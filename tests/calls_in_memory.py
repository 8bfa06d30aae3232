"""
A whole node in memory, and the peers of its calls, who write what they like: requests and responses as bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.config import NodeConfig, NodeSection
from sipdmq.records import Listener, Protocol
from tests.memory_node import MemoryNode

__all__ = ["BOB", "CALLER", "NODE", "CallTestCase", "Datagram", "field_of", "fields_of", "respond", "start_of"]

NODE = ("192.0.2.200", 5060)
CALLER = ("198.51.100.7", 5062)
BOB = ("198.51.100.20", 5060)

LISTENERS = tuple(Listener(each, *NODE, *NODE) for each in (Protocol.UDP, Protocol.TCP))

Datagram = tuple[bytes, tuple[str, int]]


def fields_of(message: bytes, name: str) -> list[str]:
    """
    The lines of one header field, without its name.
    """
    head = message.partition(b"\r\n\r\n")[0].decode("utf-8", "surrogateescape")
    return re.findall(rf"(?im)^{name}: (.*?)\r?$", head)


def field_of(message: bytes, name: str) -> str:
    """
    The first of L{fields_of}.
    """
    return fields_of(message, name)[0]


def start_of(message: bytes) -> str:
    """
    The method of a request, or the status of a response.
    """
    words = message.split(b" ", 2)
    return (words[1] if words[0].startswith(b"SIP/") else words[0]).decode()


def respond(
    request: bytes, status: int, tag: str = "t1", more: Sequence[str] = (), vias: Sequence[str] | None = None
) -> bytes:
    """
    A response as a phone writes it.

    @param more: further lines.
    @param vias: in the place of those that came.
    """
    to = field_of(request, "To")
    lines = [
        f"SIP/2.0 {status} Whatever",
        *[f"Via: {via}" for via in (fields_of(request, "Via") if vias is None else vias)],
        f"From: {field_of(request, 'From')}",
        f"To: {to}" if ";tag=" in to or status == 100 else f"To: {to};tag={tag}",
        f"Call-ID: {field_of(request, 'Call-ID')}",
        f"CSeq: {field_of(request, 'CSeq')}",
        *[f"Record-Route: {route}" for route in fields_of(request, "Record-Route")],
        *more,
        "Content-Length: 0",
    ]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


class CallTestCase(SynchronousTestCase):
    """
    A node without authentication; a caller and a callee, who has registered.

    @ivar passed: what the node sent to itself.
    """

    config: dict[str, Any] = {}

    def setUp(self) -> None:
        section = NodeSection(listen=LISTENERS, domains=("example.org",))
        self.memory = MemoryNode(self, NodeConfig(node=section, **self.config))
        self.passed: list[bytes] = []
        self._count = 0

    def send(self, message: bytes, source: tuple[str, int] = CALLER) -> list[Datagram]:
        """
        The node receives a datagram, and all that it sends to itself.

        @return: what it sent to others.
        """
        return self._go_around(self.memory.receive(message, *source))

    def _go_around(self, sent: Sequence[Datagram]) -> list[Datagram]:
        waiting = list(sent)
        others = []
        while waiting:
            message, address = waiting.pop(0)
            if address == NODE:
                self.passed.append(message)
                waiting += self.memory.receive(message, *NODE)
            else:
                others.append((message, address))
        return others

    def wait(self, seconds: float, step: float = 0.5) -> list[Datagram]:
        """
        Let time pass.

        @return: what the node sent to others meanwhile.
        """
        others = []
        for _ in range(round(seconds / step)):
            self.memory.take_sent()
            self.memory.reactor.advance(step)
            others += self._go_around(self.memory.take_sent())
        return others

    def make(
        self,
        method: str = "INVITE",
        uri: str = "sip:bob@example.org",
        more: Sequence[str] = (),
        mark: str = "",
        to_tag: str = "",
        from_: str = "<sip:carol@example.com>;tag=f1",
        branch: str = "",
        source: tuple[str, int] = CALLER,
    ) -> bytes:
        """
        A request as a stranger writes it.

        @param mark: what is the same in requests of one call; by default another one each time.
        """
        self._count += 1
        mark = mark or f"call{self._count}"
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {source[0]}:{source[1]};branch=z9hG4bK{branch or mark}",
            *([] if any(line.startswith("Max-Forwards:") for line in more) else ["Max-Forwards: 70"]),
            f"From: {from_}",
            f"To: <sip:bob@example.org>{';tag=' + to_tag if to_tag else ''}",
            f"Call-ID: {mark}",
            f"CSeq: 1 {method}",
            *([] if any(line.startswith("Contact:") for line in more) else [f"Contact: <sip:carol@{source[0]}:5062>"]),
            *more,
            "Content-Length: 0",
        ]
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")

    def register(self, user: str, *contacts: str, path: str = "", source: tuple[str, int] = BOB) -> None:
        """
        A user registers contacts.
        """
        more = [f"Contact: {contact}" for contact in contacts] + ([f"Path: {path}"] if path else [])
        if path:
            more.append("Supported: path")
        request = self.make("REGISTER", "sip:example.org", more, source=source)
        request = request.replace(b"To: <sip:bob@", f"To: <sip:{user}@".encode())
        ((answer, _),) = self.send(request, source)
        self.assertEqual(start_of(answer), "200", answer)

    def invite(self, more: Sequence[str] = (), **changes: Any) -> tuple[bytes, bytes]:
        """
        A call to bob.

        @return: the INVITE as it was sent, and as it reached him.
        """
        self.register("bob", f"<sip:bob@{BOB[0]}>")
        invite = self.make("INVITE", more=more, **changes)
        sent = self.send(invite)
        (reached,) = [message for message, address in sent if address == BOB]
        return invite, reached

    def statuses(self, sent: Sequence[Datagram], host: str = CALLER[0]) -> list[str]:
        """
        What was sent to one address: methods and statuses.
        """
        return [start_of(message) for message, address in sent if address[0] == host]

    @property
    def numbers(self) -> dict[str, int | float]:
        """
        The node's snapshot.
        """
        return dict(self.memory.node.snapshot())

    def assert_nothing_left(self) -> None:
        """
        No transaction, no response context, no timer of one: only bindings and what expires them.
        """
        tables = ("proxy.contexts", "policy.waiting")
        left = {name for name, number in self.numbers.items() if number and name.startswith(("transaction.", *tables))}
        self.assertEqual(left, set())
        self.assertEqual(self.memory.node.transactions._by_target, {})
        self.assertEqual(self.flushLoggedErrors(), [])
