"""
One end of channel presence in memory: a real store and its peer, between stand-ins for the cluster.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.config import PresenceConfig
from sipdmq.core.domains import Domains
from sipdmq.dmq.presence import PresencePeer
from sipdmq.dmq.presence_form import PresenceForm
from sipdmq.dmq.presence_json import PresentityUpdate, encode
from sipdmq.dmq.presence_merge import MergeLimits
from sipdmq.interfaces.publications import Publication
from sipdmq.presence.publication_store import MemoryPublicationStore
from sipdmq.records import ChannelMessage, ClusterNode, NodeName, Origin, Protocol, Source
from tests.fakes import UDP
from tests.location_store_tests import EPOCH
from tests.publication_tools import ALICE, pidf
from tests.usrloc_node import HERE, KAMAILIO, OURS, FakeCluster

__all__ = ["PresenceTestCase", "told"]


def told(etag: str = "k.1.0", **changes: Any) -> PresentityUpdate:
    """
    A new publication of alice as another node tells it.
    """
    update = PresentityUpdate("example.org", "alice", "presence", etag, 600, EPOCH, True, "", "k1", pidf())
    return update._replace(**changes)


class PresenceTestCase(SynchronousTestCase):
    """
    A node whose clock's second 0 is EPOCH.
    """

    settings: dict[str, Any] = {}
    limits = MergeLimits(20)
    most = 1000

    def setUp(self) -> None:
        self.clock = Clock()
        self.cluster = FakeCluster()
        self.cluster.members = [KAMAILIO, OURS]
        self.store = MemoryPublicationStore(self.clock, self.now, self.most, 1000, 86_400)
        self.addCleanup(self.store.stop)
        self.form = PresenceForm(
            Domains(["example.org"], {}, []), lambda host, port: host == "192.0.2.11", str(HERE)
        )
        self.peer = PresencePeer(
            self.clock, self.now, self.store, self.form, PresenceConfig(enable=True, **self.settings), self.limits,
            self.cluster, self.cluster, self.cluster,
        )  # fmt: skip
        self.addCleanup(self.peer.stop)

    def now(self) -> float:
        return EPOCH + self.clock.seconds()

    def put(self, *records: Publication, origin: Origin = Origin.LOCAL, aor: str = ALICE) -> None:
        """
        Replace all records of alice.
        """
        self.store.update(aor, "presence", lambda _: records, origin)

    def receive(self, message: bytes | PresentityUpdate, sender: ClusterNode | None = KAMAILIO) -> int:
        """
        @return: the status of the answer.
        """
        body = message if isinstance(message, bytes) else encode(message)
        host = "203.0.113.1" if sender is None else sender.name.host
        source = Source(Protocol.UDP, host, 5060, UDP)
        received = ChannelMessage("presence", sender, source, "application/json", body, 1)
        self.peer.keys_of(received)
        reply = self.peer.message_received(received)
        self.assertEqual(reply.body, b"")
        return int(reply.status)

    def live(self, aor: str = ALICE) -> list[str]:
        return sorted(record.etag for record in self.store.records(aor, "presence") if not record.removed)

    def sent(self) -> list[tuple[NodeName | None, Any]]:
        """
        What was put since this was asked last.
        """
        put, self.cluster.put_ones = self.cluster.put_ones, []
        return [(node, change) for node, _, change in put]
