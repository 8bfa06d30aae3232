"""
Channel htable: outward, inward, syncs and repairs.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.config import HtableConfig
from sipdmq.dmq.changes import Place
from sipdmq.dmq.htable import HtablePeer
from sipdmq.dmq.newcomer import SyncState
from sipdmq.htable.service import Tables
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.replication import IChannelPeer, INodeListener, IRepairer
from sipdmq.interfaces.tables import ITableListener
from sipdmq.records import Cell, ChannelMessage, ClusterNode, NodeName, NodeStatus, Protocol, Source
from tests.fakes import UDP
from tests.location_store_tests import EPOCH
from tests.test_dmq_htable_json import capture
from tests.usrloc_node import HERE, KAMAILIO, OURS, FakeCluster, FakeResponse

MS = int(EPOCH * 1000)


class HtableTestCase(SynchronousTestCase):
    """
    A node whose clock's second 0 is EPOCH, in a cluster with a Kamailio and one of ours.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.cluster = FakeCluster()
        self.cluster.members = [KAMAILIO, OURS]
        shared = {"dmqreplicate": True}
        self.tables = Tables(
            self.clock,
            self.now,
            {
                "t1": HtableConfig(**shared),
                "tlong": HtableConfig(autoexpire=600, **shared),
                "tiny": HtableConfig(max_cells=1, **shared),
                "loc": HtableConfig(),
            },
            "192.0.2.1:5060",
            86_400,
        )
        self.peer = HtablePeer(self.clock, self.now, self.tables, HERE, self.cluster, self.cluster, self.cluster)
        self.peer.start(False)
        self.addCleanup(self.peer.stop)
        self.addCleanup(self.tables.stop)

    def now(self) -> float:
        return EPOCH + self.clock.seconds()

    def told(self, node: ClusterNode = KAMAILIO) -> list[bytes]:
        """
        The bodies for a node since this was asked last, each as if it went alone; others are let go.
        """
        put_ones, self.cluster.put_ones = self.cluster.put_ones, []
        return [self.peer.join([self.peer.encode(change)])[1] for name, _, change in put_ones if name == node.name]

    def receive(self, body: bytes, sender: ClusterNode | None = KAMAILIO) -> int:
        """
        @return: the status of the answer.
        """
        host = "192.0.2.99" if sender is None else sender.name.host
        message = ChannelMessage("htable", sender, Source(Protocol.UDP, host, 5060, UDP), "application/json", body)
        self.peer.keys_of(message)
        reply: Any = self.peer.message_received(message)
        if not hasattr(reply, "status"):
            reply = self.successResultOf(reply)
        return int(reply.status)

    def cells(self, table: str = "t1") -> dict[str, Any]:
        return dict(self.tables[table].items())

    def cell(self, key: str, table: str = "t1") -> Cell:
        cell = self.tables.stored(table, key)
        assert cell is not None
        return cell


class OutwardTests(HtableTestCase):
    def test_the_interfaces(self) -> None:
        for interface in (IChannelPeer, IRepairer, ITableListener, INodeListener, IInspectable):
            verifyObject(interface, self.peer)
        self.assertEqual(self.peer.place_of(b'{"action":5,'), Place.BETWEEN)

    def test_kamailio_gets_its_own_form_and_ours_the_time(self) -> None:
        self.tables["t1"].set("k1", "hello world")
        kept = list(self.cluster.put_ones)
        self.assertEqual(self.told(), [capture("captures/ht-set-str.sip")])
        self.cluster.put_ones = kept
        self.assertEqual(
            self.told(OURS),
            [
                b'{"cells":[{"htname":"t1","cname":"k1","type":2,"strval":"hello world","expire":0,'
                b'"last_modified":%d}]}' % MS
            ],
        )
        self.assertEqual({key for _, key, _ in kept}, {"t1 k1"})

    def test_what_the_table_gives_it_anyway_is_no_expiry(self) -> None:
        self.tables["tlong"].set("k", 1)
        self.assertEqual(
            self.told(), [b'{"action":2,"htname":"tlong","cname":"k","type":0,"intval":1,"mode":1}']
        )

    def test_value_and_expiry_go_in_one_message(self) -> None:
        self.tables["tlong"].set("k", 1, 60)
        expected = b'{"cells":[{"htname":"tlong","cname":"k","type":0,"intval":1,"expire":%d}]}'
        self.assertEqual(self.told(), [expected % (EPOCH + 60)])
        self.tables["tlong"].expire("k", 90)
        self.assertEqual(self.told(), [expected % (EPOCH + 90)])

    def test_deletions_and_removals(self) -> None:
        self.tables["t1"].set("k3", 1)
        self.tables["t1"].delete("k3")
        self.assertEqual(self.told()[1], capture("captures/ht-del.sip"))
        self.tables["t1"].remove(name_re="^rx.*")
        self.tables["t1"].remove(name_prefix="sw")
        self.assertEqual(self.told(), [capture("captures/ht-rmre.sip"), capture("captures/ht-rmsw.sip")])

    def test_what_is_not_shared_or_not_from_here_stays(self) -> None:
        self.tables["loc"].set("k", 1)
        self.tables["loc"].remove(name_prefix="k")
        self.receive(b'{"action":2,"htname":"t1","cname":"k","type":0,"intval":1,"mode":1}')
        self.receive(b'{"action":6,"htname":"t1","type":2,"strval":"k","mode":0}')
        self.tables["t1"].set("e", 1, 5)
        self.told()
        self.clock.advance(5)
        self.assertEqual(self.cluster.put_ones, [])


class InwardTests(HtableTestCase):
    def test_captures(self) -> None:
        for name, expected in (
            ("ht-set-str", {"k1": "hello world"}), ("ht-set-int", {"k1": "hello world", "k2": 42}),
            ("ht-inc", {"k1": "hello world", "k2": 43}), ("ht-sync-cells", None),
        ):  # fmt: skip
            self.assertEqual(self.receive(capture(f"captures/{name}.sip")), 200, name)
            if expected is not None:
                self.assertEqual(self.cells(), expected)
        self.assertEqual(self.cells()["kü"], 'grüße "q" \\ /')
        self.assertEqual(self.receive(capture("captures/ht-sync-cells-60k.sip")), 200)
        self.assertEqual(len(self.cells()), 323 + 5)
        self.assertEqual(self.receive(capture("captures/ht-value-50k.sip")), 200)
        self.assertEqual(self.cells()["huge"], "w" * 50_000)

    def test_bad_input_is_answered_as_kamailio_does_and_changes_nothing(self) -> None:
        for name, status in (
            ("captures/ht-err-empty", 400), ("captures/ht-err-bad-json", 400), ("captures/ht-err-unknown-field", 400),
            ("captures/ht-err-action-99", 500), ("captures/ht-err-unknown-table", 500),
            ("captures/malformed-ht-array", 400), ("captures/malformed-ht-empty-object", 400),
            ("captures/malformed-ht-null-str", 400), ("captures/malformed-ht-no-htname", 500),
            ("captures/malformed-ht-cells-empty", 200), ("captures-6.1/malformed-ht-array", 400),
            ("captures-6.1/malformed-ht-empty-object", 400), ("captures-6.1/malformed-ht-null-str", 400),
        ):  # fmt: skip
            self.assertEqual(self.receive(capture(f"{name}.sip")), status, name)
        self.assertEqual([len(self.tables[name]) for name in self.tables.names()], [0, 0, 0, 0])
        self.assertEqual(self.peer.snapshot()["htable.refused"], 12)

    def test_tables_that_are_not_shared_are_unknown(self) -> None:
        for body in (
            b'{"action":2,"htname":"loc","cname":"k","type":0,"intval":1,"mode":1}',
            b'{"action":3,"htname":"loc","cname":"k","type":0,"intval":1,"mode":1}',
            b'{"action":4,"htname":"loc","cname":"k","mode":1}',
            b'{"action":5,"htname":"loc","type":2,"strval":".","mode":0}',
        ):
            self.assertEqual(self.receive(body), 500)
        self.assertEqual(self.receive(capture("captures/ht-foreign-cells.sip")), 200)
        self.assertEqual((self.cells(), self.cells("tlong")), ({"c1": "x"}, {"c2": 9}))
        self.assertEqual(self.cells("loc"), {})

    def test_a_table_that_is_full(self) -> None:
        body = b'{"action":2,"htname":"tiny","cname":"k%d","type":0,"intval":1,"mode":1}'
        self.assertEqual([self.receive(body % number) for number in (1, 2, 1)], [200, 500, 200])

    def test_removals(self) -> None:
        for key in ("rx1", "RX2", "sw1", "k"):
            self.tables["t1"].set(key, key)
        self.assertEqual(self.receive(capture("captures/ht-rmre.sip")), 200)
        self.assertEqual(self.receive(capture("captures/ht-rmsw.sip")), 200)
        self.assertEqual(self.cells(), {"k": "k"})
        for pattern in ("(", "(a{200}){200}", "x" * 300):
            body = b'{"action":5,"htname":"t1","type":2,"strval":"%b","mode":1}' % pattern.encode()
            self.assertEqual(self.receive(body), 500, pattern)
        self.assertEqual(self.receive(b'{"action":5,"htname":"t1","type":2,"strval":"^K$","mode":1}'), 200)
        self.assertEqual(self.cells(), {})

    def test_value_and_expiry_in_both_orders(self) -> None:
        one, two = capture("captures/ht-rpc-setxs-1.sip"), capture("captures/ht-rpc-setxs-2.sip")
        self.receive(one)
        self.receive(two)
        self.assertEqual(self.cell("xs", "tlong").expires_at, EPOCH + 100)
        self.clock.advance(5)
        self.assertEqual((self.receive(two), self.receive(one)), (200, 200))
        self.assertEqual(self.cell("xs", "tlong").expires_at, EPOCH + 105)
        self.clock.advance(5)
        self.receive(one)
        self.assertEqual(self.cell("xs", "tlong").expires_at, EPOCH + 610)
        self.receive(b'{"action":3,"htname":"tlong","cname":"xs","type":0,"intval":0,"mode":0}')
        self.assertEqual(self.cell("xs", "tlong").expires_at, EPOCH + 610)

    def test_the_order_of_work(self) -> None:
        def keys(name: str) -> list[str]:
            source = Source(Protocol.UDP, "192.0.2.9", 5060, UDP)
            return list(self.peer.keys_of(ChannelMessage("htable", None, source, "", capture(f"captures/{name}.sip"))))

        self.assertEqual(keys("ht-set-str"), ["t1 k1"])
        self.assertEqual(keys("ht-rpc-setxs-1"), keys("ht-rpc-setxs-2"))
        self.assertEqual(keys("ht-sync-cells")[:2], ["tlong xi", "tlong xs"])
        self.assertEqual(keys("ht-rmre"), [])  # all
        self.assertEqual(keys("ht-sync-request"), [""])
        self.assertEqual(keys("ht-err-bad-json"), [""])


class ConflictTests(HtableTestCase):
    def ours(self, value: int, at: int, key: str = "k", **more: object) -> bytes:
        """
        As a node of ours tells it.
        """
        text = "".join(f',"{name}":{value}' for name, value in more.items())
        cell = f'{{"htname":"t1","cname":"{key}","type":0,"intval":{value},"expire":0,"last_modified":{at}{text}}}'
        return f'{{"cells":[{cell}]}}'.encode()

    def test_the_later_write_counts(self) -> None:
        self.receive(self.ours(1, MS), OURS)
        self.receive(self.ours(2, MS - 1), OURS)
        self.assertEqual(self.cells(), {"k": 1})
        self.assertEqual(self.cell("k").told_by, str(OURS.name))
        self.receive(self.ours(0, MS + 1, removed=1), OURS)
        self.receive(self.ours(1, MS), OURS)
        self.assertEqual(self.cells(), {})

    def test_a_kamailio_that_may_have_the_loser_is_put_right(self) -> None:
        self.tables["t1"].set("k", 5)
        self.told()
        self.receive(self.ours(1, MS - 10), OURS)
        kept = list(self.cluster.put_ones)
        self.assertEqual(self.told(), [b'{"action":2,"htname":"t1","cname":"k","type":0,"intval":5,"mode":1}'])
        self.cluster.put_ones = kept
        self.assertEqual(self.told(OURS), [])
        self.receive(self.ours(6, MS + 10), OURS)  # it wins: whoever wrote it tells the Kamailio
        self.assertEqual(self.told(), [])

    def test_what_a_kamailio_says_counts(self) -> None:
        self.tables["t1"].set("k", 5)
        self.receive(b'{"action":2,"htname":"t1","cname":"k","type":0,"intval":1,"mode":1}')
        self.assertEqual(self.cells(), {"k": 1})
        self.receive(b'{"action":4,"htname":"t1","cname":"k","mode":0}')
        self.assertEqual(self.cells(), {})
        self.assertEqual(self.receive(b'{"action":4,"htname":"t1","cname":"k","mode":0}'), 200)

    def test_all_that_a_kamailio_has_does_not_undo_what_was_done_here(self) -> None:
        self.tables["t1"].set("k", 5)
        cells = b'{"cells":[{"htname":"t1","cname":"k","type":0,"intval":1,"expire":0},{"cname":"new"}]}'
        self.receive(cells)
        self.assertEqual(self.cells(), {"k": 5, "new": 1})

    def test_who_did_it_is_passed_on(self) -> None:
        lost = "sip:192.0.2.77:5060"
        self.cluster.passed_on.add(lost)
        self.receive(self.ours(1, MS, by=f'"{lost}"'), OURS)
        self.assertEqual(self.cell("k").told_by, lost)
        self.assertEqual(self.told(), [b'{"action":2,"htname":"t1","cname":"k","type":0,"intval":1,"mode":1}'])
        self.receive(self.ours(1, MS, by=f'"{lost}"'), OURS)
        self.assertEqual(self.told(), [])
        self.receive(self.ours(2, MS + 1, by=f'"{HERE}"'), OURS)  # our own, from before this node was started anew
        self.assertEqual(self.cell("k").told_by, "")

    def test_an_absurd_time_is_refused(self) -> None:
        self.assertEqual(self.receive(self.ours(1, MS + 10**9), OURS), 200)
        self.assertEqual(self.receive(b'{"action":2,"htname":"t1","cname":"k","type":0,"intval":1,"mode":1,'
                                      b'"last_modified":%d}' % (MS + 10**9)), 500)  # fmt: skip
        self.assertEqual((self.cells(), self.peer.snapshot()["htable.refused"]), ({}, 2))


class SyncTests(HtableTestCase):
    def settle(self) -> None:
        self.clock.pump([0.001] * 40)

    def test_a_kamailio_gets_all_cells(self) -> None:
        self.tables["t1"].set("a", 1)
        self.tables["t1"].set("gone", 1)
        self.tables["t1"].delete("gone")
        self.tables["tlong"].set("b", "v", 50)
        self.tables["loc"].set("c", 1)
        self.told()
        self.assertEqual(self.receive(capture("captures/ht-sync-request.sip")), 200)
        self.settle()
        self.assertEqual(
            self.told(),
            [
                b'{"action":2,"htname":"t1","cname":"a","type":0,"intval":1,"mode":1}',
                b'{"cells":[{"htname":"tlong","cname":"b","type":2,"strval":"v","expire":%d}]}' % (EPOCH + 50),
            ],
        )

    def test_a_kamailio_that_asked_too_early_gets_the_rest(self) -> None:
        self.peer.readiness.state = SyncState.SYNCING
        self.receive(capture("captures/ht-sync-request.sip"))
        self.settle()
        self.told()
        self.tables["t1"].set("a", 1)
        self.told()
        self.peer.newcomer._give_owed()
        self.settle()
        self.assertEqual(len(self.told()), 1)
        self.peer.newcomer._give_owed()
        self.settle()
        self.assertEqual(self.told(), [])

    def test_one_table(self) -> None:
        self.tables["t1"].set("a", 1)
        self.tables["tlong"].set("b", 1)
        self.told()
        self.receive(capture("captures-6.1/ht-sync-one-table.sip"))
        self.settle()
        (one,) = self.told()
        self.assertIn(b'"htname":"tlong"', one)

    def test_nothing_at_all(self) -> None:
        self.receive(capture("captures/ht-sync-request.sip"))
        self.settle()
        self.assertEqual(self.told(), [capture("captures/ht-sync-cells-empty.sip")])

    def test_one_of_ours_gets_deletions_and_the_end_too(self) -> None:
        for number in range(120):
            self.tables["t1"].set(f"k{number}", number)
        self.tables["t1"].delete("k7")
        self.told()
        self.receive(b'{"action":1,"ours":1}', OURS)
        self.settle()
        found = self.told(OURS)
        self.assertEqual((len(found), found[-1]), (121, b'{"action":64,"count":120,"age":0}'))
        self.assertEqual(sum(b'"removed":1' in each for each in found), 1)

    def test_a_stranger_gets_nothing(self) -> None:
        self.assertEqual(self.receive(b'{"action":1}', None), 200)
        self.settle()
        self.assertEqual(self.cluster.put_ones, [])

    def test_it_is_paced_and_stops_when_the_node_is_lost(self) -> None:
        for number in range(500):
            self.tables["t1"].set(f"k{number}", number)
        self.told()
        self.peer.repair(OURS, 100.0)
        self.clock.advance(0.001)
        self.assertLessEqual(len(self.cluster.put_ones), 50)
        self.cluster.members = [KAMAILIO]
        self.settle()
        self.assertLess(len(self.told(OURS)), 120)
        self.assertEqual([name for name, _ in self.cluster.owed], [OURS.name])

    def test_a_repair_is_about_what_was_changed_here_since(self) -> None:
        self.tables["t1"].set("old", 1)
        self.clock.advance(100)
        self.tables["t1"].set("new", 1)
        self.tables["t1"].set("gone", 1)
        self.tables["t1"].delete("gone")
        self.receive(b'{"action":2,"htname":"t1","cname":"theirs","type":0,"intval":1,"mode":1}')
        self.told()
        self.peer.repair(KAMAILIO, 50.0)
        self.settle()
        self.assertEqual(
            self.told(),
            [
                b'{"action":2,"htname":"t1","cname":"new","type":0,"intval":1,"mode":1}',
                b'{"action":4,"htname":"t1","cname":"gone","mode":0}',
            ],
        )

    def test_removals_by_pattern_are_repeated_to_ours_only(self) -> None:
        self.tables["t1"].set("xa", 1)
        self.tables["t1"].remove(name_prefix="x")
        self.told()
        self.peer.repair(OURS, 50.0)
        self.settle()
        first, second = self.told(OURS)
        self.assertTrue(first.startswith(b'{"action":6,') and b'"removed":1' in second)
        self.peer.repair(KAMAILIO, 50.0)
        self.settle()
        self.assertEqual(self.told(), [b'{"action":4,"htname":"t1","cname":"xa","mode":0}'])

    def test_the_heir_of_a_lost_node(self) -> None:
        self.receive(b'{"action":2,"htname":"t1","cname":"theirs","type":0,"intval":1,"mode":1}', KAMAILIO)
        self.peer.hand_over(OURS, str(KAMAILIO.name), 50.0)
        self.settle()
        (told,) = self.told(OURS)
        self.assertIn(f'"by":"{KAMAILIO.name}"'.encode(), told)

    def test_a_full_outbox_is_waited_for(self) -> None:
        from twisted.internet.defer import Deferred

        for number in range(10):
            self.tables["t1"].set(f"k{number}", number)
        self.told()
        self.cluster.full = full = Deferred()
        self.peer.repair(OURS, 50.0)
        self.settle()
        self.assertEqual(len(self.cluster.put_ones), 1)
        self.cluster.full = None
        full.callback(None)
        self.settle()
        self.assertEqual(len(self.told(OURS)), 10)

    def test_a_newcomer_asks_one_node_ours_first(self) -> None:
        peer = HtablePeer(self.clock, self.now, self.tables, HERE, self.cluster, self.cluster, self.cluster)
        self.addCleanup(peer.stop)
        peer.start(True)
        peer.node_joined(KAMAILIO)
        ((channel, node, body, waiting),) = self.cluster.asked
        self.assertEqual((channel, node, body), ("htable", OURS.name, b'{"action":1,"ours":1}'))
        waiting.callback(FakeResponse(200))
        self.assertFalse(peer.readiness.is_ready)
        source = Source(Protocol.UDP, OURS.name.host, 5060, UDP)
        for text in (b'{"cells":[{"htname":"t1","cname":"k","type":0,"intval":1,"expire":0,"last_modified":5}]}',
                     b'{"action":64,"count":1}'):  # fmt: skip
            peer.message_received(ChannelMessage("htable", OURS, source, "", text))
        self.assertTrue(peer.readiness.is_ready)
        self.assertEqual(self.cells(), {"k": 1})

    def test_a_lost_donor_has_a_follower(self) -> None:
        peer = HtablePeer(self.clock, self.now, self.tables, HERE, self.cluster, self.cluster, self.cluster)
        self.addCleanup(peer.stop)
        peer.start(True)
        peer.node_joined(OURS)
        self.cluster.members = [KAMAILIO]
        peer.node_disabled(ClusterNode(NodeName(Protocol.UDP, "192.0.2.50", 5060), NodeStatus.DISABLED))
        peer.node_down(OURS)
        self.assertEqual([node for _, node, _, _ in self.cluster.asked], [OURS.name, KAMAILIO.name])
