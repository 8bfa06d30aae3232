"""
Channel presence: outward, inward, syncs and repairs.
"""

from __future__ import annotations

from zope.interface.verify import verifyObject

from sipdmq.core.contacts import PERMANENT
from sipdmq.dmq.errands import SyncEnd
from sipdmq.dmq.presence_form import version_of
from sipdmq.dmq.presence_json import PresentityUpdate, decode, encode_sync_end
from sipdmq.dmq.presence_syncs import is_kamailio_5
from sipdmq.errors import UnreachableError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.publications import IPublicationListener
from sipdmq.interfaces.replication import INodeListener, IRepairer
from sipdmq.records import ClusterNode, NodeName, NodeStatus, Origin, Protocol
from tests.location_store_tests import EPOCH
from tests.presence_node import PresenceTestCase, told
from tests.publication_tools import ALICE, make_publication, pidf
from tests.test_dmq_presence_json import captured
from tests.test_dmq_usrloc_json import CAPTURES
from tests.usrloc_node import HERE, KAMAILIO, OURS, FakeResponse

KAMAILIO_6 = KAMAILIO._replace(release="kamailio 6.1.4")


class OutwardTests(PresenceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.peer.start(False)

    def test_the_interfaces(self) -> None:
        for interface in (IRepairer, IPublicationListener, INodeListener, IInspectable):
            verifyObject(interface, self.peer)

    def test_only_what_was_changed_here_leaves(self) -> None:
        for number, (origin, count) in enumerate(((Origin.LOCAL, 1), (Origin.REPLICATED, 0), (Origin.LOADED, 0))):
            self.put(make_publication(etag=f"r1.{number}"), origin=origin)
            self.assertEqual(len(self.sent()), count, origin)

    def test_new_changed_removed(self) -> None:
        self.put(make_publication())
        self.put(make_publication(etag="r1.1", previous="r1.0", version=1))
        self.put(make_publication(etag="r1.1", previous="r1.1", version=2, removed=True, body=b""))
        found = [change for node, change in self.sent() if node is None]
        self.assertEqual(
            [(each.etag, each.cur_etag, each.is_new, each.expires, each.body) for each in found],
            [("r1.0", "", True, 60, pidf()), ("r1.0", "r1.1", False, 60, pidf()), ("r1.1", "", False, 0, b"")],
        )
        self.assertEqual(self.peer.join([self.peer.encode(found[0])])[0], "application/json")

    def test_an_expiry_stays_here(self) -> None:
        self.put(make_publication())
        self.sent()
        self.clock.advance(61)
        self.assertEqual((self.live(), self.sent()), ([], []))


class InwardTests(PresenceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.peer.start(False)

    def test_new_refreshed_modified_removed(self) -> None:
        self.assertEqual(self.receive(told()), 200)
        self.assertEqual(self.receive(told(is_new=False, cur_etag="k.2.1", body=b"")), 200)
        self.assertEqual(self.live(), ["k.2.1"])
        self.assertIn(b"open", self.store.document(ALICE, "presence").body)
        self.assertEqual(self.receive(told("k.2.1", is_new=False, cur_etag="k.3.2", body=pidf("closed"))), 200)
        self.assertIn(b"closed", self.store.document(ALICE, "presence").body)
        self.assertEqual(self.receive(told("k.3.2", is_new=False, expires=0, body=b"")), 200)
        self.assertEqual((self.live(), self.sent()), ([], []))

    def test_every_capture_is_answered_as_kamailio_does(self) -> None:
        """
        WIRE §13. But 6.1.4 refuses C{recv} in a subscription, which later ones send; and 5.6.3 subscriptions as such.
        """
        differing = {"pr-subs-foreign-recv", "pr-subscription-to-5.6.3"}
        seen = 0
        for path in sorted(CAPTURES.glob("captures*/pr-*.sip")):
            reply = path.with_name(path.name.replace(".sip", ".reply.sip"))
            name = path.name.removesuffix(".sip")
            if path.name.endswith(".reply.sip") or name.startswith("pr-client") or name in differing:
                continue
            status = int(reply.read_bytes()[8:11])
            self.assertEqual(self.receive(captured(f"{path.parent.name}/{name}")), status, name)
            seen += 1
        self.assertEqual(seen, 24)

    def test_what_kills_a_kamailio_is_400_or_nothing(self) -> None:
        for name, status in (("array", 200), ("array-items", 400), ("empty-object", 200), ("null", 400)):
            self.assertEqual(self.receive(captured(f"captures/malformed-pr-{name}")), status, name)
        self.assertEqual(self.peer.snapshot()["presence.refused"], 2)

    def test_a_removal_of_nothing_is_200(self) -> None:
        self.assertEqual(self.receive(told(is_new=False, expires=0)), 200)

    def test_xml_that_is_none_is_kept_and_left_out(self) -> None:
        """
        A Kamailio takes it. It does no harm here, and is gone with its publication.
        """
        self.assertEqual(self.receive(told(body=b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>")), 200)
        self.assertIn(b"closed", self.store.document(ALICE, "presence").body)

    def test_expires_counts_from_recv_but_not_with_a_kamailio_5(self) -> None:
        late = told(recv=EPOCH - 100)
        for sender, expected in ((KAMAILIO, EPOCH + 600), (KAMAILIO_6, EPOCH + 500), (OURS, EPOCH + 500)):
            self.put()
            self.receive(late, sender)
            self.assertEqual(self.store.records(ALICE, "presence")[0].expires_at, expected)
        self.put()
        self.receive(told(recv=EPOCH + 50), OURS)  # its clock is ahead
        self.assertEqual(self.store.records(ALICE, "presence")[0].expires_at, EPOCH + 600)
        self.put()
        self.receive(told(expires=-1), OURS)
        self.clock.advance(10**7)
        self.assertEqual(self.live(), ["k.1.0"])

    def test_whose_it_is(self) -> None:
        """
        A node's address stands for our domain; another domain is kept for the other nodes.
        """
        self.receive(told("a.0", domain="192.0.2.11", ruid="a"))
        self.assertEqual(self.live(), ["a.0"])
        self.receive(told("b.0", domain="elsewhere.example", ruid="b"))
        self.assertEqual(self.live("alice@elsewhere.example"), ["b.0"])
        self.receive(told("c.0", user="%zz", ruid="c"))
        self.assertEqual(self.live("%zz@example.org"), ["c.0"])
        record = self.store.records(ALICE, "presence")[0]
        self.assertEqual(self.form.update(record).domain, "192.0.2.11")

    def test_the_sender_of_what_does_not_count_is_put_right(self) -> None:
        self.put(make_publication(etag="r1.1", previous="r1.0", version=1, recv=EPOCH + 9))
        self.sent()
        old = told("r1.0", is_new=False, cur_etag="a.1.1", ruid="r1")
        self.receive(old)
        ((node, answer),) = self.sent()
        self.assertEqual((node, answer.etag, answer.cur_etag, answer.body), (KAMAILIO.name, "a.1.1", "r1.1", pidf()))
        self.receive(old, OURS)
        ((node, answer),) = self.sent()
        self.assertEqual((node, answer.etag, answer.cur_etag), (OURS.name, "r1.0", "r1.1"))
        self.receive(told("r1.0", is_new=False, expires=0))
        ((node, answer),) = self.sent()
        self.assertEqual((answer.is_new, answer.etag), (True, "r1.1"))
        self.assertEqual(self.peer.snapshot()["presence.answered"], 3)

    def test_bounds(self) -> None:
        for number in range(25):
            self.assertEqual(self.receive(told(f"k{number}.0", ruid=f"k{number}")), 200)
        self.assertEqual((len(self.live()), self.peer.snapshot()["presence.refused"]), (20, 5))

    def test_who_changed_it_last(self) -> None:
        self.receive(told(), KAMAILIO)
        self.receive(told("b.0", ruid="b"), OURS)
        self.receive(told("c.0", ruid="c", by="sip:192.0.2.99:5060"), OURS)
        self.receive(told("d.0", ruid="d", by=str(HERE)), OURS)
        self.receive(told("e.0", ruid="e"), None)
        found = {record.ruid: record.told_by for record in self.store.records(ALICE, "presence")}
        self.assertEqual(
            found, {"k1": str(KAMAILIO.name), "b": str(OURS.name), "c": "sip:192.0.2.99:5060", "d": "", "e": "?"}
        )

    def test_what_a_lost_node_told_is_passed_on(self) -> None:
        self.cluster.passed_on = {"sip:192.0.2.99:5060"}
        self.receive(told(by="sip:192.0.2.99:5060"), OURS)
        ((node, change),) = self.sent()
        self.assertEqual((node, change.by), (KAMAILIO.name, ""))

    def test_ours_that_has_lost_may_have_reached_another_kamailio_first(self) -> None:
        """
        It does not find the tag any more that the winner is about.
        """
        third = KAMAILIO._replace(name=NodeName(Protocol.UDP, "192.0.2.13", 5060))
        self.cluster.members.append(third)
        self.put(make_publication())
        self.put(make_publication(etag="r1x.1", previous="r1.0", version=1))
        self.sent()
        self.receive(told("r1.0", is_new=False, cur_etag="a.1.2.1", recv=EPOCH + 1))
        ((node, change),) = self.sent()
        self.assertEqual((node, change.etag, change.cur_etag), (third.name, "r1x.1", "a.1.2.1"))
        self.receive(told("a.1.2.1", is_new=False, cur_etag="a.1.3.2", recv=EPOCH + 2))
        self.assertEqual(self.sent(), [])

    def test_one_presentity_in_order(self) -> None:
        from sipdmq.dmq.presence_json import encode
        from sipdmq.records import ChannelMessage, Source
        from tests.fakes import UDP

        source = Source(Protocol.UDP, "192.0.2.11", 5060, UDP)
        for body, key in ((encode(told()), "presence alice@example.org"), (b'{"action":2}', ""), (b"x", "")):
            message = ChannelMessage("presence", KAMAILIO, source, "", body)
            self.assertEqual(self.peer.keys_of(message), (key,))


class FullTests(PresenceTestCase):
    most = 1

    def test_a_full_store_answers_200_and_counts(self) -> None:
        self.peer.start(False)
        self.assertEqual([self.receive(told(f"{name}.0", ruid=name)) for name in "ab"], [200, 200])
        self.assertEqual((self.live(), self.peer.snapshot()["presence.refused"]), (["a.0"], 1))


class SyncTests(PresenceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.peer.start(False)
        ours = make_publication("r1", etag="r1.1", previous="r1.0", version=1)
        self.put(ours, make_publication("gone", removed=True))
        self.put(make_publication("k1", told_by=str(KAMAILIO.name), aor="bob@example.org", user="bob"),
                 aor="bob@example.org", origin=Origin.REPLICATED)  # fmt: skip
        self.sent()

    def served(self, node: ClusterNode) -> list[object]:
        self.clock.pump([0.01] * 10)
        sent = self.sent()
        self.assertEqual({name for name, _ in sent} - {node.name}, set())
        return [change for _, change in sent]

    def test_a_node_of_ours_gets_all_with_who_told_it_and_the_end(self) -> None:
        self.clock.advance(30)
        self.receive(b'{"action":2}', OURS)
        *records, end = self.served(OURS)
        found = [each for each in records if isinstance(each, PresentityUpdate)]
        self.assertEqual(
            [(each.ruid, each.is_new, each.expires, each.recv, each.by) for each in found],
            [("r1", False, 60, EPOCH, ""), ("gone", False, 0, EPOCH, ""),
             ("k1", True, 60, EPOCH, str(KAMAILIO.name))],
        )  # fmt: skip
        self.assertEqual(self.peer.encode(end), encode_sync_end(SyncEnd(3, age=30)))  # type: ignore[arg-type]

    def test_a_kamailio_6_gets_live_ones_as_new_with_what_is_left(self) -> None:
        self.clock.advance(30)
        self.cluster.members = [KAMAILIO_6, OURS]
        self.receive(b'{"action":2}', KAMAILIO_6)
        found = self.served(KAMAILIO_6)
        self.assertEqual(
            [(each.etag, each.is_new, each.expires, each.recv) for each in found if isinstance(each, PresentityUpdate)],
            [("r1.1", True, 30, EPOCH + 30), ("k1.0", True, 30, EPOCH + 30)],
        )

    def sent_right(self, node: ClusterNode = KAMAILIO) -> list[tuple[str, int]]:
        """
        What is told one after the other, each answered before the next one: entity tag, and C{expires}.
        """
        found = []
        self.clock.pump([0.01] * 5)
        while self.cluster.asked:
            self.assertEqual(len(self.cluster.asked), 1)
            _, name, body, waiting = self.cluster.asked.pop()
            self.assertEqual(name, node.name)
            change = decode(body, ("presence",))
            assert isinstance(change, PresentityUpdate)
            self.assertEqual(change.is_new, change.expires > 0)
            found.append((change.etag, change.expires))
            waiting.callback(FakeResponse(200))
            self.clock.pump([0.01] * 5)
        return found

    def test_a_kamailio_5_gets_each_from_one_of_us(self) -> None:
        """
        It asks everybody, and would store twice what it is told twice.
        """

        def asked() -> set[str]:
            self.receive(b'{"action":2}', KAMAILIO)
            return {etag for etag, expires in self.sent_right() if expires}

        told_by = (str(OURS.name), "sip:192.0.2.99:5060")
        more = [make_publication(f"p{number}", told_by=name) for number, name in enumerate(told_by)]
        self.put(*self.store.records(ALICE, "presence"), *more, origin=Origin.REPLICATED)
        self.assertTrue(any(each.removed for each in self.store.records(ALICE, "presence")), "of which it is not told")
        # Of ours r1; of another Kamailio k1, or OURS does.
        self.assertEqual(asked() - {"k1.0"}, {"r1.1"})
        self.cluster.inherited = {"sip:192.0.2.99:5060"}
        self.assertEqual(asked() - {"k1.0"}, {"r1.1", "p1.0"})
        self.cluster.members = [KAMAILIO]
        self.assertEqual(asked(), {"r1.1", "p1.0", "k1.0"})
        self.assertEqual(self.sent(), [])

    def test_what_kamailios_have_changed_is_shared_out(self) -> None:
        names = [f"p{number}" for number in range(40)]
        kamailio = str(KAMAILIO.name)
        self.put(*[make_publication(name, told_by=kamailio) for name in names], origin=Origin.REPLICATED)
        self.receive(b'{"action":2}', KAMAILIO)
        self.assertTrue(5 < len([etag for etag, expires in self.sent_right() if expires]) < 36)

    def test_a_kamailio_5_that_was_away_has_none_twice(self) -> None:
        """
        What it may have is removed, and told as new when that was answered.
        """
        self.peer.repair(KAMAILIO, 100.0)
        self.assertEqual(self.sent_right(), [("r1.0", 0), ("r1.1", 0), ("r1.1", 60)])
        self.assertEqual([change.ruid for _, change in self.sent()], ["gone"])

    def test_a_repair_waits_until_it_is_known_what_a_node_is(self) -> None:
        """
        A Kamailio 5 would store twice what both a repair and the sync it asks for tell it as new.
        """
        stranger = KAMAILIO._replace(release="")
        self.peer.repair(stranger, 100.0)
        self.assertEqual((self.sent_right(), self.sent(), self.cluster.owed), ([], [], [(stranger.name, 100.0)]))
        self.cluster.members = [stranger]
        self.clock.advance(30)
        self.peer.repair(stranger, 130.0)
        self.clock.pump([0.01] * 5)
        self.assertIn("r1.1", [change.etag for _, change in self.sent()])

    def test_what_a_node_is_comes_out_while_it_is_served(self) -> None:
        stranger = KAMAILIO._replace(release="")
        self.receive(b'{"action":2}', stranger)
        self.cluster.members = [KAMAILIO]
        self.assertEqual(self.sent_right(), [("r1.0", 0), ("r1.1", 0), ("r1.1", 60), ("k1.0", 0), ("k1.0", 60)])

    def test_nothing_is_removed_at_a_node_of_ours(self) -> None:
        """
        There it would be a removal: also before it has said hello, and where it is not known what it is.
        """
        for release in ("sipdmq 0.1.0", ""):
            node = OURS._replace(release=release, is_sipdmq=False)
            self.cluster.members = [node]
            for _ in ("repair", "sync"):
                self.peer.repair(node, 100.0)
                self.receive(b'{"action":2}', node)
                self.assertEqual(self.sent_right(node), [])
                found = [each for _, each in self.sent() if isinstance(each, PresentityUpdate)]
                self.assertEqual({each.etag for each in found if not each.expires} - {"gone.0"}, set())

    def test_a_change_during_a_repair(self) -> None:
        self.peer.repair(KAMAILIO, 100.0)
        self.clock.pump([0.01] * 5)
        self.put(make_publication("r1", etag="r1.2", previous="r1.1", version=2))
        self.assertEqual(
            self.sent_right(),
            [("r1.0", 0), ("r1.1", 0), ("r1.1", 60), ("r1.1", 0), ("r1.2", 0), ("r1.2", 60)],
        )

    def test_a_repair_that_fails_is_owed(self) -> None:
        self.peer.repair(KAMAILIO, 100.0)
        self.clock.pump([0.01] * 5)
        self.cluster.asked.pop()[3].errback(UnreachableError("no answer"))
        ((node, age),) = self.cluster.owed
        self.assertEqual(node, KAMAILIO.name)
        self.assertEqual(round(age), 100)

    def test_a_node_of_ours_is_told_what_we_answer_for(self) -> None:
        self.peer.repair(OURS, 100.0)
        found = [each for each in self.served(OURS) if isinstance(each, PresentityUpdate)]
        self.assertEqual([each.ruid for each in found], ["r1", "gone"])
        self.peer.hand_over(OURS, str(KAMAILIO.name), 100.0)
        found = [each for each in self.served(OURS) if isinstance(each, PresentityUpdate)]
        self.assertEqual([(each.ruid, each.by) for each in found], [("k1", str(KAMAILIO.name))])


class NewcomerTests(PresenceTestCase):
    def test_it_asks_until_one_has_told_all(self) -> None:
        self.peer.start(True)
        self.peer.node_joined(OURS)
        ((channel, node, body, waiting),) = self.cluster.asked
        self.assertEqual((channel, node, body), ("presence", OURS.name, b'{"action":2}'))
        waiting.callback(FakeResponse(200))
        self.receive(told(), OURS)
        self.assertFalse(self.peer.readiness.is_ready)
        self.receive(encode_sync_end(SyncEnd(1)), OURS)
        self.assertTrue(self.peer.readiness.is_ready)
        self.assertEqual(self.peer.snapshot()["presence.is_ready"], 1)


class NoSyncTests(PresenceTestCase):
    settings = {"enable_pres_sync_dmq": False, "dmq_peer_id": "pres2"}

    def test_nobody_is_asked(self) -> None:
        self.peer.start(True)
        self.peer.node_joined(OURS)
        self.assertEqual((self.cluster.asked, self.peer.channel), ([], "pres2"))


class FormTests(PresenceTestCase):
    def test_the_number_in_a_tag(self) -> None:
        for etag, number in (("a.1795402691.21046.1.0", 0), ("a.1.2.17", 17), ("x-y-z.7", 7), ("abc", 0),
                             ("x.yz", 0), ("7", 0), ("a." + 30 * "9", 0)):  # fmt: skip
            self.assertEqual(version_of(etag), number, etag)

    def test_what_is_new_to_a_kamailio_is_never_a_removal(self) -> None:
        for expires_at, expires in ((EPOCH + 60, 30), (EPOCH + 30, 1), (EPOCH + 20, 1), (PERMANENT, -1)):
            told = self.form.new(make_publication(expires_at=expires_at), int(EPOCH) + 30)
            self.assertEqual((told.expires, told.recv, told.is_new), (expires, EPOCH + 30, True))

    def test_who_is_a_kamailio_5(self) -> None:
        name = NodeName(Protocol.UDP, "192.0.2.50", 5060)
        for release, is_ours, expected in (
            ("kamailio 5.6.3", False, True), ("", False, True), ("sipdmq 1", True, False), ("", True, False),
            ("kamailio 6.1.4", False, False),
        ):  # fmt: skip
            node = ClusterNode(name, NodeStatus.ACTIVE, release, is_ours)
            self.assertEqual(is_kamailio_5(node), expected)


class RestoreTests(PresenceTestCase):
    def test_a_kamailio_that_was_lost_is_repaired_by_one(self) -> None:
        self.peer.start(False)
        self.put(make_publication())
        self.sent()
        self.cluster.members = [KAMAILIO_6, OURS]
        self.cluster.restorers = {KAMAILIO_6.name: OURS.name}
        self.peer.repair(KAMAILIO_6, 10.0)
        self.clock.pump([0.1] * 50)
        self.assertEqual((self.sent(), self.cluster.asked), ([], []))
        self.cluster.restorers = {KAMAILIO_6.name: HERE}
        self.peer.repair(KAMAILIO_6, 10.0)
        self.peer.node_joined(KAMAILIO_6)
        ((_, node, body, waiting),) = self.cluster.asked
        self.assertEqual((node, body), (KAMAILIO_6.name, b'{"action":2}'))
        waiting.callback(FakeResponse(200))
        self.cluster.asked.clear()
        self.clock.pump([0.1] * 50)
        ((_, node, body, _),) = self.cluster.asked
        change = decode(body, ("presence",))
        assert isinstance(change, PresentityUpdate)
        self.assertEqual((node, change.etag, change.is_new), (KAMAILIO_6.name, "r1.0", True))
