"""
For the tests of one node list: short names, short events.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.effects import Effect, NodeListSettings, SendList
from sipdmq.dmq.lines import NodeLine, format_line
from sipdmq.dmq.nodelist import NodeList
from sipdmq.records import NodeName, NodeStatus, Protocol

ACTIVE, NOT_ACTIVE, DISABLED = NodeStatus.ACTIVE, NodeStatus.NOT_ACTIVE, NodeStatus.DISABLED


def udp(number: int) -> NodeName:
    return NodeName(Protocol.UDP, f"127.101.1.{number}", 5060)


US, A, B, C = udp(1), udp(2), udp(3), udp(4)
KAMAILIO = "kamailio 5.6.3"


def lines(*names: NodeName, status: NodeStatus = ACTIVE) -> list[NodeLine]:
    return [NodeLine(name, status) for name in names]


def body(*names: NodeName) -> bytes:
    return b"".join(format_line(name, ACTIVE) for name in names)


def sent(effects: tuple[Effect, ...]) -> list[tuple[NodeName, int]]:
    return [(effect.name, effect.hops) for effect in effects if isinstance(effect, SendList)]


def kinds(effects: tuple[Effect, ...]) -> list[type]:
    return [type(effect) for effect in effects]


class NodeListTests(SynchronousTestCase):
    def make(self, *configured: NodeName, **settings: float) -> NodeList:
        chosen = NodeListSettings()._replace(**settings)  # type: ignore[arg-type]
        nodes = NodeList(US, configured, chosen, random=lambda: 0.5)
        nodes.start(0.0)
        return nodes

    def with_kamailio(self, *configured: NodeName, **settings: float) -> NodeList:
        """
        A is a Kamailio that is active and lists us.
        """
        nodes = self.make(*configured, **settings)
        nodes.notified(0.0, A, True, 1, lines(A, US), KAMAILIO)
        nodes.answered(0.0, A, lines(A, US), KAMAILIO)
        self.assertEqual(self.status(nodes, A), ACTIVE)
        return nodes

    def status(self, nodes: NodeList, name: NodeName) -> NodeStatus | None:
        node = nodes.find(name)
        return None if node is None else node.status
