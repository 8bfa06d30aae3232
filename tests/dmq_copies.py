"""
Phones that register in a cluster in memory whose nodes copy REGISTERs, and what the nodes have then.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.records import Binding, BindingChange
from sipdmq.sip.message import Request, Response
from tests.dmq_network import DMQNetwork, address

__all__ = ["BEHIND_NAT", "OWN", "PHONE", "CopyTestCase", "register"]

PHONE = ("198.51.100.7", 5062)
BEHIND_NAT = ("203.0.113.5", 40_001)
OWN = "X-Sipdmq-Registered"


def register(
    *fields: str, cseq: int = 1, vias: tuple[str, ...] = (), contact: str = "<sip:alice@198.51.100.7:5062>;expires=600",
    hops: str = "Max-Forwards: 70", method: str = "REGISTER", uri: str = "sip:localhost",
) -> bytes:  # fmt: skip
    """
    @param vias: above the phone's: C{"127.0.0.2:5060"}.
    """
    return "\r\n".join([
        f"{method} {uri} SIP/2.0",
        *(f"Via: SIP/2.0/UDP {via};branch=z9hG4bKa{cseq}" for via in vias),
        f"Via: SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK{cseq}",
        *([hops] if hops else []),
        f"From: <sip:alice@localhost>;tag={cseq}",
        f"To: <sip:alice@{uri.partition(':')[2]}>",
        "Call-ID: call-1",
        f"CSeq: {cseq} {method}",
        *([f"Contact: {contact}"] if contact else []),
        *fields,
        "Content-Length: 0", "", "",
    ]).encode()  # fmt: skip


class CopyTestCase(SynchronousTestCase):
    """
    @ivar changes: of the location store of each node.
    """

    def setUp(self) -> None:
        self.network = DMQNetwork(self)
        self.changes: dict[int, list[BindingChange]] = {}

    def nodes(self, *numbers: int, **keys: Any) -> None:
        keys.setdefault("replicate", ("REGISTER",))
        for number in numbers:
            node = self.network.add(number, *(each for each in numbers if each < number), **keys)
            changes = self.changes[number] = []

            class Listener:
                binding_changed = changes.append

            node.node.store._listeners.append(Listener())
        self.network.pump(2)
        self.network.seen.clear()

    def send(self, number: int, data: bytes, source: tuple[str, int] = PHONE) -> None:
        """
        A node gets a datagram, and then all gets where it goes.
        """
        self.network.nodes[address(number)].reactor.ports[0].protocol.datagramReceived(data, source)
        self.network.deliver()

    def take(self, kind: type = Request) -> list[tuple[str, str, Any]]:
        seen, self.network.seen = self.network.seen, []
        return [each for each in seen if isinstance(each[2], kind)]

    def answers(self, to: str = PHONE[0]) -> list[int]:
        return [message.status for _, host, message in self.take(Response) if host == to]

    def bindings(self, number: int) -> tuple[Binding, ...]:
        found: tuple[Binding, ...] = self.successResultOf(
            self.network.nodes[address(number)].node.store.lookup("alice@localhost")
        )
        return found

    def count(self, number: int, name: str) -> float:
        return float(self.network.nodes[address(number)].node.snapshot()[f"dmq.copies_{name}"])
