"""
One end of channel usrloc in memory: a real location store and its peer, between stand-ins for the cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from sipdmq.config import UsrlocConfig
from sipdmq.core.domains import Domains
from sipdmq.dmq.conflict import Limits
from sipdmq.dmq.owner import FlowTokens
from sipdmq.dmq.usrloc import UsrlocPeer
from sipdmq.dmq.usrloc_form import UsrlocForm
from sipdmq.interfaces.replication import IBroadcaster, IMembership, IReplicator
from sipdmq.records import (
    Binding,
    ChannelMessage,
    ClusterNode,
    NodeName,
    NodeStatus,
    Origin,
    Protocol,
    Source,
)
from sipdmq.registrar.store import MemoryLocationStore
from tests.fakes import UDP
from tests.location_store_tests import EPOCH, make_binding

HERE = NodeName(Protocol.UDP, "192.0.2.1", 5060)
KAMAILIO = ClusterNode(NodeName(Protocol.UDP, "192.0.2.11", 5060), NodeStatus.ACTIVE, "kamailio 5.6.3")
OURS = ClusterNode(NodeName(Protocol.UDP, "192.0.2.12", 5060), NodeStatus.ACTIVE, "sipdmq 0.1", True)
KEY = b"k" * 32


class FakeResponse:
    def __init__(self, status: int, body: bytes = b"") -> None:
        self.status = status
        self.body = body


@implementer(IReplicator, IMembership, IBroadcaster)
class FakeCluster:
    """
    Remembers what is put and sent.

    @ivar put_ones: C{(node or None for all, key, change)} in order.
    @ivar asked: C{(channel, node, body, Deferred)} in order.
    @ivar inherited: lost nodes whose heir this one is; C{passed_on}: of these, whose changes it passes on.
    @ivar restorers: who repairs a Kamailio that was lost.
    @ivar missed: nodes for L{IMembership.has_missed}.
    @ivar owed: C{(node, age)} of L{IReplicator.owe}.
    """

    local = HERE

    def __init__(self) -> None:
        self.put_ones: list[tuple[NodeName | None, str, Any]] = []
        self.missed: set[NodeName] = set()
        self.want_all: list[NodeName] = []
        self.asked: list[tuple[str, NodeName, bytes, Deferred[Any]]] = []
        self.members: list[ClusterNode] = []
        self.listeners: list[Any] = []
        self.full: Deferred[Any] | None = None
        self.inherited: set[str] = set()
        self.passed_on: set[str] = set()
        self.differences: dict[str, float] = {}
        self.under_way: set[tuple[NodeName, str]] = set()
        self.restorers: dict[NodeName, NodeName] = {}
        self.heirs: dict[str, NodeName] = {}
        self.owed: list[tuple[NodeName, float]] = []

    def put(self, channel: str, key: str, change: Any) -> None:
        self.put_ones.append((None, key, change))

    def put_for(self, node: NodeName, channel: str, key: str, change: Any, age: float = 0.0) -> Any:
        self.put_ones.append((node, key, change))
        return self.full

    def is_under_way(self, node: NodeName, channel: str, key: str) -> bool:
        return (node, key) in self.under_way

    def owe(self, node: NodeName, channel: str, age: float) -> None:
        self.owed.append((node, age))

    def answers_for(self, told_by: str) -> bool:
        return not told_by or told_by in self.inherited

    def has_lost(self) -> bool:
        return bool(self.inherited or self.passed_on or self.heirs)

    def passes_on(self, told_by: str) -> bool:
        return told_by in self.passed_on

    def has_missed(self, node: NodeName) -> bool:
        return node in self.missed

    def wants_all(self, node: NodeName) -> None:
        self.want_all.append(node)

    def teller_to_all(self, told_by: str) -> NodeName | None:
        return self.heirs.get(told_by)

    def restorer_of(self, node: NodeName) -> NodeName | None:
        return self.restorers.get(node)

    def clock_difference(self, told_by: str) -> float | None:
        return self.differences.get(told_by)

    def nodes(self) -> Sequence[ClusterNode]:
        return (ClusterNode(HERE, NodeStatus.ACTIVE, is_local=True), *self.members)

    def is_from_node(self, source: Source) -> bool:
        return False

    def watch(self, listener: Any) -> None:
        self.listeners.append(listener)

    def broadcast(self, channel: str, body: bytes, content_type: str) -> Any:
        raise NotImplementedError

    def send(
        self,
        channel: str,
        node: NodeName,
        body: bytes,
        content_type: str,
        max_forwards: int = 1,
        is_slow: bool = False,
    ) -> Deferred[Any]:
        waiting: Deferred[Any] = Deferred()
        self.asked.append((channel, node, body, waiting))
        return waiting


class UsrlocTestCase(SynchronousTestCase):
    """
    A node whose clock's second 0 is EPOCH.
    """

    settings: dict[str, Any] = {}
    use_domain = False
    init_with_single = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.cluster = FakeCluster()
        self.cluster.members = [KAMAILIO, OURS]
        self.store = MemoryLocationStore(self.clock, self.now, forget_after=86_400)
        self.form = UsrlocForm(
            Domains(["example.org"], {}, []), FlowTokens(KEY, HERE), self.use_domain, sockets=["udp:192.0.2.1:5060"]
        )
        self.peer = UsrlocPeer(
            self.clock, self.now, self.store, self.form, UsrlocConfig(**self.settings), Limits(contacts=20),
            self.cluster, self.cluster, self.cluster, self.init_with_single,
        )  # fmt: skip
        self.addCleanup(self.peer.stop)

    def now(self) -> float:
        return EPOCH + self.clock.seconds()

    def put(self, *bindings: Binding, origin: Origin = Origin.LOCAL) -> None:
        """
        Replace all records of the AoR of the first one.
        """
        self.store.update(bindings[0].aor, lambda _: bindings, origin)

    def receive(self, body: bytes, sender: ClusterNode | None = KAMAILIO) -> int:
        """
        @return: the status of the answer.
        """
        host = "203.0.113.1" if sender is None else sender.name.host
        message = ChannelMessage("usrloc", sender, Source(Protocol.UDP, host, 5060, UDP), "application/json", body, 1)
        self.peer.keys_of(message)
        reply = self.successResultOf(maybeDeferred(self.peer.message_received, message))
        self.assertEqual(reply.body, b"")
        status: int = reply.status
        return status

    def live(self, aor: str = "alice@example.org") -> list[str]:
        return [binding.ruid for binding in self.successResultOf(self.store.lookup(aor))]

    def told(self) -> list[tuple[NodeName | None, bytes]]:
        """
        What was put since this was asked last, as fragments.
        """
        put, self.cluster.put_ones = self.cluster.put_ones, []
        return [(node, self.peer.encode(change)) for node, _, change in put]


def update(form: UsrlocForm, ruid: str = "k1", **changes: Any) -> bytes:
    """
    A record of alice as another node sends it.
    """
    return form.encode_update(make_binding(ruid, **changes))
