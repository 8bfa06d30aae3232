"""
The life of subscriptions between stand-ins: what a node makes of what others tell, above all of connections that one
of them alone has.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from sipdmq.core.targets import BindingTargets
from sipdmq.errors import UnreachableError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import IFlows, IRequestSender, ITargetResolver
from sipdmq.interfaces.presence import IEventState, IEventStateListener, ISubscriptionServer
from sipdmq.interfaces.replication import INodeListener, IRepairer
from sipdmq.presence.notifier import Contacts, Notifier
from sipdmq.presence.replicas import SubscriptionReplicas
from sipdmq.presence.service import Subscriptions
from sipdmq.presence.states import EventStates
from sipdmq.presence.subscribe import SubscriptionServer
from sipdmq.presence.subscriptions import State, Subscription
from sipdmq.presence.subscriptions_json import SYNC_REQUEST, decode, encode, join
from sipdmq.presence.succession import end, heir, taken_over
from sipdmq.presence.table import SubscriptionTable, TableLimits
from sipdmq.presence.winfo import WatcherInformation
from sipdmq.records import ChannelMessage, ClusterNode, NodeName, NodeStatus, Protocol, Source, Target
from sipdmq.sip.message import Request, response_to
from sipdmq.sip.uri import SipURI
from tests.fakes import TCP, UDP
from tests.test_presence_subscriptions import NOW, A, B, C, make
from tests.usrloc_node import FakeCluster, FakeResponse
from tests.watchers import FakeState


@implementer(IFlows)
class FakeFlows:
    def __init__(self) -> None:
        self.alive: set[str] = set()

    def is_alive(self, flow: str) -> bool:
        return flow in self.alive

    def target_of(self, flow: str) -> Target | None:
        return Target(Protocol.TCP, "198.51.100.7", 4000, True, flow, True) if flow in self.alive else None

    def flow_from(self, protocol: Protocol, host: str, port: int) -> str:
        return ""


@implementer(IRequestSender, ITargetResolver)
class FakeSender:
    """
    @ivar sent: C{(request, targets, user)} in order.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[Request, tuple[Target, ...], Any]] = []
        self.resolving: Deferred[tuple[Target, ...]] | None = None

    def send_request(self, request: Request, targets: Any, user: Any, *rest: Any, **more: Any) -> Any:
        self.sent.append((request, targets, user))

    def send_stateless(self, message: Any, target: Target) -> None:
        raise NotImplementedError

    def resolve(self, uri: SipURI) -> Deferred[tuple[Target, ...]]:
        if self.resolving is not None:
            return self.resolving
        return succeed((Target(Protocol.UDP, uri.host, uri.port or 5060),))


def node(number: int, status: NodeStatus = NodeStatus.ACTIVE, is_sipdmq: bool = True, release: str = "") -> ClusterNode:
    return ClusterNode(NodeName(Protocol.UDP, f"192.0.2.{number}", 5060), status, release, is_sipdmq)


class ServiceTestCase(SynchronousTestCase):
    """
    This node is A; B and C are others.
    """

    limits = TableLimits()

    def setUp(self) -> None:
        self.clock = Clock()
        self.flows = FakeFlows()
        self.sender = FakeSender()
        self.table = SubscriptionTable(self.limits)
        self.states = EventStates()
        targets = BindingTargets([UDP, TCP], self.flows, self.sender)
        self.notifier = Notifier(
            self.clock, self.now, self.table, self.states, self.sender, self.sender, targets, Contacts([UDP, TCP]), A,
            1.0, "agent",
        )  # fmt: skip
        self.service = Subscriptions(self.clock, self.now, self.table, self.notifier, self.flows, A, 7200)
        self.state = FakeState("presence")
        self.states.add(self.state, self.notifier)
        self.cluster = FakeCluster()
        self.cluster.members = [node(2), node(3)]
        self.replicas = SubscriptionReplicas(
            self.clock, self.table, self.service, self.cluster, self.cluster, self.cluster
        )
        self.addCleanup(self.service.stop)
        self.addCleanup(self.replicas.stop)

    def now(self) -> float:
        return NOW + self.clock.seconds()

    def told(self) -> list[tuple[str, Subscription]]:
        """
        What others were told since this was asked last: to whom, and what.
        """
        put, self.cluster.put_ones = self.cluster.put_ones, []
        found = []
        for name, _, change in put:
            (record,) = decode(join([change]))
            assert isinstance(record, Subscription)
            found.append((str(name), record))
        return found

    def record(self, tag: str = "t1") -> Subscription:
        record = self.table.get(tag)
        assert record is not None
        return record

    def answer(self, status: int) -> None:
        request, _, user = self.sender.sent[-1]
        user.response_received(response_to(_with_via(request), status, "t"))


def _with_via(request: Request) -> Request:
    request.headers.prepend("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1")
    return request


class InterfaceTests(ServiceTestCase):
    def test_interfaces(self) -> None:
        verifyObject(IRepairer, self.replicas)
        verifyObject(INodeListener, self.replicas)
        verifyObject(IEventStateListener, self.notifier)
        verifyObject(IEventState, WatcherInformation(self.table))
        server = SubscriptionServer.__new__(SubscriptionServer)
        self.assertTrue(ISubscriptionServer.implementedBy(SubscriptionServer))
        verifyObject(ISubscriptionServer, server)
        for each in (self.notifier, self.service, self.replicas):
            verifyObject(IInspectable, each)
            self.assertTrue(all(isinstance(number, int) for number in each.snapshot().values()))


class FlowTests(ServiceTestCase):
    """
    Watchers over TCP.
    """

    def test_whoever_has_the_connection_takes_it_back(self) -> None:
        self.flows.alive.add("f1")
        ours = make(flow="f1", local_cseq=3)
        self.service.begun(ours)
        self.told()
        self.assertIsNone(self.service.told(taken_over(ours, B), B))
        self.assertEqual((self.record().owner, self.record().term), (A, 2))
        self.clock.advance(0)
        request, targets, _ = self.sender.sent[-1]
        self.assertEqual(targets[0].flow, "f1")
        self.assertEqual(request.cseq.number, 2004)
        self.assertEqual([(to, record.owner) for to, record in self.told()], [(B, A), (C, A)])

    def test_it_is_let_go_where_the_connection_is_gone(self) -> None:
        ours = make(flow="f1")
        self.service.begun(ours)
        self.service.told(taken_over(ours, B), B)
        self.assertEqual(self.record().owner, B)
        self.clock.advance(1)
        self.assertEqual(self.sender.sent, [])

    def test_one_that_cannot_be_reached_after_a_takeover_waits_for_its_watcher(self) -> None:
        self.service.take_over(make(flow="elsewhere", owner=B))
        self.clock.advance(0)
        self.sender.sent[-1][2].unreachable("refused")
        self.assertEqual((self.record().state, self.record().owner), (State.ACTIVE, A))

    def test_one_that_refuses_after_a_takeover_is_over(self) -> None:
        self.service.take_over(make(flow="elsewhere", owner=B))
        self.clock.advance(0)
        self.answer(481)
        self.assertEqual(self.record().state, State.TERMINATED)

    def test_one_of_ours_whose_connection_is_gone_is_over(self) -> None:
        self.service.begun(make(flow="f1"))
        self.clock.advance(0)
        self.sender.sent[-1][2].unreachable("closed")
        self.assertEqual(self.record().state, State.TERMINATED)


class ToldTests(ServiceTestCase):
    def test_what_does_not_count_is_answered_with_what_does(self) -> None:
        newer = make(owner=B, remote_cseq=5)
        self.service.told(newer, B)
        self.assertEqual(self.service.told(make(owner=C), C), newer)
        self.assertIsNone(self.service.told(newer, B))

    def test_an_end_is_remembered_until_the_record_would_have_expired(self) -> None:
        record = make(owner=B)
        self.service.told(record, B)
        self.service.told(end(record, record.expires_at + 60), B)
        self.assertIsNotNone(self.service.told(record, C))
        self.assertEqual(self.table.live, 0)
        for _ in range(700):
            self.clock.advance(1)
        self.assertEqual(len(self.table), 0)

    def test_nobody_makes_us_remember_for_longer_than_we_would(self) -> None:
        self.service.told(make(owner=B, expires_at=2**39), B)
        self.assertEqual(self.record().expires_at, NOW + 7200 + 120)

    def test_what_we_had_before_this_process_began_is_taken_up(self) -> None:
        self.service.told(make(owner=A, local_cseq=4), B)
        self.clock.advance(0)
        self.assertEqual([each[0].cseq.number for each in self.sender.sent], [1005])

    def test_one_whose_node_is_not_there_is_looked_at_again(self) -> None:
        """
        Perhaps we have only not heard of its node yet.
        """
        lost = "sip:192.0.2.9:5060"
        mine = next(tag for tag in map(str, range(99)) if heir(f"t{tag}", (A, B, C)) == A)
        theirs = next(tag for tag in map(str, range(99)) if heir(f"t{tag}", (A, B, C)) == B)
        for tag in (mine, theirs):
            self.service.told(make(f"t{tag}", owner=lost), C)
        self.told()
        self.clock.advance(9)
        self.assertEqual(self.sender.sent, [])
        self.clock.advance(2)
        self.assertEqual(self.record(f"t{mine}").owner, A)
        self.assertEqual(
            [(to, record.tag, record.owner) for to, record in self.told()],
            [(B, f"t{mine}", A), (C, f"t{mine}", A), (B, f"t{theirs}", lost)],
        )

    def test_every_five_hundredth_notify_the_others_hear_of_its_number(self) -> None:
        self.service.begun(make(local_cseq=497))
        self.told()
        for _ in range(3):
            self.state.set("x", "bob@example.org")
            self.clock.pump([1.2])
            self.answer(200)
            self.clock.pump([1.2])
        self.assertEqual([record.local_cseq for _, record in self.told()], [500, 500])


class FullTests(ServiceTestCase):
    limits = TableLimits(subscriptions=2)

    def test_no_more_than_there_is_room_for(self) -> None:
        for tag in ("t1", "t2", "t3"):
            self.service.told(make(tag, owner=B), B)
        self.assertEqual(len(self.table), 2)
        self.service.told(make("t2", owner=B, remote_cseq=9), B)
        self.assertEqual(self.record("t2").remote_cseq, 9)


class ReplicasTests(ServiceTestCase):
    def message(self, body: bytes, sender: ClusterNode | None) -> ChannelMessage:
        return ChannelMessage("subscriptions", sender, Source(Protocol.UDP, "192.0.2.2", 5060, UDP), "", body)

    def test_a_kamailio_is_told_nothing(self) -> None:
        self.cluster.members = [node(2, is_sipdmq=False, release="kamailio 5.6.3"), node(3)]
        self.service.begun(make())
        self.assertEqual([to for to, _ in self.told()], [C])
        self.replicas.repair(self.cluster.members[0], 5.0)
        self.replicas.hand_over(self.cluster.members[0], B, 5.0)
        self.replicas.node_joined(self.cluster.members[0])
        self.assertEqual((self.told(), self.cluster.asked), ([], []))

    def test_who_asks_gets_all_page_by_page(self) -> None:
        for number in range(250):
            self.table.put(make(f"t{number}", owner=(A, B, C)[number % 3]))
        self.assertEqual(self.replicas.message_received(self.message(SYNC_REQUEST, node(2))).status, 200)
        self.assertEqual(len(self.told()), 100)
        self.clock.pump([0.03] * 2)
        self.assertEqual(len(self.told()), 150)
        self.assertEqual(self.replicas.snapshot()["subscriptions.syncs"], 0)

    def test_a_repair_tells_of_ours(self) -> None:
        for number in range(6):
            self.table.put(make(f"t{number}", owner=(A, B)[number % 2]))
        self.replicas.repair(node(2), 5.0)
        self.assertEqual([record.owner for _, record in self.told()], [A] * 3)
        self.replicas.hand_over(node(3), B, 5.0)
        self.assertEqual([record.owner for _, record in self.told()], [B] * 3)

    def test_a_full_outbox_is_waited_for(self) -> None:
        for number in range(3):
            self.table.put(make(f"t{number}"))
        self.cluster.full = Deferred()
        self.replicas.repair(node(2), 5.0)
        self.assertEqual(len(self.told()), 1)
        self.clock.advance(60)
        self.assertEqual(len(self.told()), 0)
        full, self.cluster.full = self.cluster.full, None
        full.callback(None)
        self.clock.advance(0.03)
        self.assertEqual(len(self.told()), 2)

    def test_a_newcomer_that_gets_no_answer_asks_the_next(self) -> None:
        self.replicas.node_joined(node(2))
        self.assertEqual([asked[1].host for asked in self.cluster.asked], ["192.0.2.2"])
        self.cluster.asked[0][3].errback(UnreachableError("no answer"))
        self.assertEqual([asked[1].host for asked in self.cluster.asked], ["192.0.2.2", "192.0.2.3"])
        self.cluster.asked[1][3].errback(UnreachableError("no answer"))
        self.assertEqual(len(self.cluster.asked), 2)

    def test_so_does_one_that_is_refused(self) -> None:
        self.replicas.node_joined(node(2))
        self.cluster.asked[0][3].callback(FakeResponse(503))
        self.assertEqual([asked[1].host for asked in self.cluster.asked], ["192.0.2.2", "192.0.2.3"])
        self.cluster.asked[1][3].callback(FakeResponse(200))
        self.assertEqual(len(self.cluster.asked), 2)

    def test_what_cannot_be_read(self) -> None:
        self.assertEqual(self.replicas.keys_of(self.message(b"{", node(2))), ("",))
        self.assertEqual(self.replicas.message_received(self.message(b"{", node(2))).status, 400)
        body = join([b"{}", encode(make(owner=B))])
        self.assertEqual(self.replicas.keys_of(self.message(body, node(2))), ("t1",))
        self.assertEqual(self.replicas.message_received(self.message(body, node(2))).status, 200)
        self.assertEqual(self.replicas.snapshot()["subscriptions.refused"], 2)
        self.assertEqual(self.table.live, 1)

    def test_a_sender_that_is_wrong_is_put_right(self) -> None:
        self.table.put(make(owner=C, remote_cseq=9))
        self.replicas.message_received(self.message(join([encode(make(owner=B))]), node(2)))
        self.assertEqual([(to, record.remote_cseq) for to, record in self.told()], [(B, 9)])


class NotifierTests(ServiceTestCase):
    def test_nothing_is_sent_while_a_name_is_resolved(self) -> None:
        self.sender.resolving = Deferred()
        self.service.begun(make(contact="sip:alice@phone.example.org"))
        self.clock.advance(0)
        self.state.set("2", "bob@example.org")
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.sender.sent, [])
        resolving, self.sender.resolving = self.sender.resolving, None
        resolving.callback((Target(Protocol.UDP, "198.51.100.7", 5060),))
        self.assertEqual(len(self.sender.sent), 1)
        self.answer(200)
        self.clock.pump([1.2])
        self.assertEqual([each[0].body for each in self.sender.sent], [b"<nothing/>", b"2"])

    def test_a_name_that_does_not_exist(self) -> None:
        self.sender.resolving = Deferred()
        self.sender.resolving.errback(UnreachableError("no such name"))
        self.service.begun(make(contact="sip:alice@phone.example.org"))
        self.clock.advance(0)
        self.assertEqual(self.table.live, 0)

    def test_the_end_waits_for_the_answer_to_the_notify_before(self) -> None:
        self.service.begun(make())
        self.clock.advance(0)
        self.service.ended(self.record(), "timeout")
        self.clock.advance(5)
        self.assertEqual(len(self.sender.sent), 1)
        self.answer(200)
        self.clock.advance(0)
        self.assertEqual(self.sender.sent[-1][0].headers.first["subscription-state"], "terminated;reason=timeout")
        self.assertEqual(self.sender.sent[-1][0].cseq.number, 2)
        self.answer(200)
        self.assertEqual(self.notifier.snapshot()["notify.watchers"], 0)

    def test_no_end_for_who_knows_of_nothing(self) -> None:
        self.service.begun(make())
        self.clock.advance(0)
        self.service.ended(self.record(), "timeout")
        self.answer(481)
        self.clock.advance(5)
        self.assertEqual(len(self.sender.sent), 1)
        self.assertEqual(self.notifier.snapshot()["notify.watchers"], 0)

    def test_contacts(self) -> None:
        contacts = Contacts([UDP, TCP])
        for socket, expected in (
            (str(UDP), "<sip:192.0.2.1:5060>"),
            (str(TCP), "<sip:192.0.2.1:5060;transport=tcp>"),
            ("tcp:192.0.2.9:5060", "<sip:192.0.2.1:5060;transport=tcp>"),
            ("tls:192.0.2.9:5061", "<sip:192.0.2.1:5060>"),
            ("", "<sip:192.0.2.1:5060>"),
        ):
            self.assertEqual(contacts.of(make(socket=socket)), expected)
        secure = Contacts([UDP._replace(protocol=Protocol.TLS, port=5061, advertise_port=5061), UDP])
        self.assertEqual(secure.of(make(contact="sips:a@b", socket="udp:192.0.2.1:5060")), "<sips:192.0.2.1:5061>")
