"""
Whole nodes on one memory network: what one sends arrives at the other that listens there, when the network is pumped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.config import (
    AuthConfig,
    DMQConfig,
    HtableConfig,
    NodeConfig,
    NodeSection,
    PresenceConfig,
    UsrlocConfig,
)
from sipdmq.records import Listener, Protocol
from sipdmq.sip.message import Message, Request
from sipdmq.sip.parser import parse_message
from sipdmq.sip.uri import parse_sip_uri
from tests.memory_node import MemoryNode

__all__ = ["DMQNetwork", "address"]

Address = tuple[str, int]


def address(number: int) -> str:
    """
    Of a node: C{"127.0.0.1"}.
    """
    return f"127.0.0.{number}"


class DMQNetwork:
    """
    @ivar nodes: by address.
    @ivar seen: C{(from, to, message)} of all that was sent.
    @ivar dead: addresses where nothing arrives and from which nothing leaves.
    @ivar cuts: C{(from, to)} between which nothing arrives.
    @ivar outside: what was sent to nobody here.
    """

    def __init__(self, case: SynchronousTestCase) -> None:
        self._case = case
        self.nodes: dict[str, MemoryNode] = {}
        self.seen: list[tuple[str, str, Message]] = []
        self.dead: set[str] = set()
        self.cuts: set[tuple[str, str]] = set()
        self.outside: list[tuple[bytes, Address]] = []

    def add(
        self,
        number: int,
        *peers: int,
        policy: Any = None,
        usrloc: bool = False,
        users: str = "",
        presence: PresenceConfig | None = None,
        addresses: Sequence[str] = (),
        hosts: bytes = b"/dev/null",
        sections: Mapping[str, Any] | None = None,
        htables: Mapping[str, HtableConfig] | None = None,
        **keys: Any,
    ) -> MemoryNode:
        """
        A node that joins through others.

        @param users: the path of a file of users: then passwords are asked for.
        @param addresses: URIs of more nodes to join through.
        @param hosts: as for L{MemoryNode}.
        @param sections: of the configuration, in place of the usual ones.
        @param htables: tables by name.
        @param keys: of C{[dmq]}.
        """
        host = address(number)
        joined = (*(f"sip:{address(each)}:5060" for each in peers), *addresses)
        keys.setdefault("server_address", parse_sip_uri(f"sip:{host}:5060"))
        dmq = DMQConfig(notification_address=tuple(map(parse_sip_uri, joined)), **keys)
        listen = tuple(Listener(protocol, host, 5060, host, 5060) for protocol in (Protocol.UDP, Protocol.TCP))
        config = NodeConfig(
            node=NodeSection(listen),
            auth=AuthConfig(enable=bool(users), users=users, secret="0" * 64),
            dmq=dmq,
            usrloc=replace(UsrlocConfig(), enable=usrloc),
            presence=presence or PresenceConfig(),
            htables=htables or {},
        )
        config = replace(config, **(sections or {}))
        if policy is not None:
            self._case.patch(_composition(), "load_policy", lambda config: policy)
        node = self.nodes[host] = MemoryNode(self._case, config, hosts)
        return node

    def deliver(self) -> None:
        """
        All that was sent arrives, and what that leads to.
        """
        while True:
            on_the_way = [
                (host, data, to)
                for host, node in self.nodes.items()
                for data, to in node.take_sent()
                if host not in self.dead
            ]
            if not on_the_way:
                return
            for host, data, to in on_the_way:
                self.seen.append((host, to[0], parse_message(data)))
                receiver = self.nodes.get(to[0])
                if receiver is None:
                    self.outside.append((data, to))
                elif to[0] not in self.dead and (host, to[0]) not in self.cuts:
                    receiver.reactor.ports[0].protocol.datagramReceived(data, (host, 5060))

    def pump(self, seconds: float, step: float = 0.1) -> None:
        """
        Let time pass everywhere.
        """
        self.deliver()
        for _ in range(round(seconds / step)):
            for node in self.nodes.values():
                node.reactor.advance(step)
            self.deliver()

    def take_requests(self, channel: str = "") -> list[tuple[str, str, bytes]]:
        """
        The KDMQ seen since this was asked last: from, to, body.
        """
        seen, self.seen = self.seen, []
        return [
            (host, to, message.body)
            for host, to, message in seen
            if isinstance(message, Request)
            and message.method == "KDMQ"
            and (not channel or message.uri_text.startswith(f"sip:{channel}@"))
        ]

    def dmq(self, number: int) -> Any:
        """
        The functions of a node, C{node.dmq}.
        """
        return self.nodes[address(number)].node.cluster.functions

    def statuses(self, number: int) -> list[str]:
        """
        What a node thinks of the others.
        """
        return [node.status.name for node in self.dmq(number).nodes()[1:]]


def _composition() -> Any:
    from sipdmq import node

    return node
