"""
What nodes have missed, and what lost nodes had told, reaches all that are left: whole nodes on a memory network.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.channels import Channels
from sipdmq.dmq.heirs import Heirs
from sipdmq.dmq.repairs import REACH, VERB, Repairs
from sipdmq.records import Binding, ChannelMessage, ClusterNode, NodeName, Protocol, Source
from sipdmq.sip.message import Response
from tests.dmq_network import DMQNetwork, address
from tests.fakes import UDP, pump
from tests.usrloc_node import HERE, KAMAILIO, OURS, FakeResponse, UsrlocTestCase, update


def register(user: str, cseq: int = 1, expires: int = 600) -> bytes:
    return "\r\n".join([
        "REGISTER sip:localhost SIP/2.0",
        f"Via: SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK{user}{cseq}",
        f"From: <sip:{user}@localhost>;tag={cseq}",
        f"To: <sip:{user}@localhost>",
        f"Call-ID: {user}",
        f"CSeq: {cseq} REGISTER",
        "Max-Forwards: 70",
        f"Contact: <sip:{user}@198.51.100.7:5062>;expires={expires}",
        "Content-Length: 0", "", "",
    ]).encode()  # fmt: skip


def name(number: int) -> NodeName:
    return NodeName(Protocol.UDP, address(number), 5060)


class RepairTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = DMQNetwork(self)

    def nodes(self, *numbers: int) -> None:
        for number in numbers:
            peers = [each for each in numbers if each != number]
            self.network.add(number, *peers, usrloc=True, ping_interval=5.0)
        self.network.pump(12)
        for number in numbers:
            self.assertEqual(self.network.statuses(number), ["ACTIVE"] * (len(numbers) - 1))
        self.network.take_requests()

    def register(self, number: int, user: str, cseq: int = 1, expires: int = 600) -> None:
        port = self.network.nodes[address(number)].reactor.ports[0]
        port.protocol.datagramReceived(register(user, cseq, expires), ("198.51.100.7", 5062))

    def bindings(self, number: int, user: str) -> tuple[Binding, ...]:
        store = self.network.nodes[address(number)].node.store
        found: tuple[Binding, ...] = self.successResultOf(store.lookup(f"{user}@localhost"))
        return found

    def know(self, user: str, *numbers: int) -> list[bool]:
        return [bool(self.bindings(number, user)) for number in numbers]

    def cut(self, *ways: tuple[int, int]) -> None:
        self.network.cuts = {(address(from_), address(to)) for from_, to in ways}

    def die(self, number: int) -> None:
        self.network.dead.add(address(number))

    def heir_of(self, lost: int, *left: int) -> int:
        """
        Of those that are left when one is lost.
        """
        heirs = Heirs(name(left[0]))
        heirs.elect(0, map(name, left[1:]), [])
        return next(number for number in left if name(number) == heirs.heir_of(str(name(lost))))


class AwayTests(RepairTestCase):
    def test_only_what_was_changed_meanwhile_is_sent_and_removals_are(self) -> None:
        self.nodes(1, 2)
        for user in ("old", "gone"):
            self.register(1, user)
        self.network.pump(60)  # until neither takes the other for one who may not have everything yet
        self.assertEqual([self.know(user, 1, 2) for user in ("old", "gone")], [[True, True]] * 2)
        self.cut((1, 2), (2, 1))
        self.network.pump(20)
        self.register(1, "new")
        self.register(1, "gone", cseq=2, expires=0)
        self.register(2, "other")
        self.network.pump(20)
        self.network.take_requests()
        self.cut()
        self.network.pump(10)
        self.assertEqual([self.know(user, 1, 2) for user in ("new", "other", "old")], [[True, True]] * 3)
        self.assertEqual(self.know("gone", 1, 2), [False, False])
        sent = b"".join(body for _, _, body in self.network.take_requests("usrloc"))
        self.assertNotIn(b'"aor":"old"', sent)
        self.assertEqual(sent.count(b'"aor":"new"'), 2, "and once back, as the sender might have been started anew")


class LossTests(RepairTestCase):
    """
    Node 3 dies when only one of the two others has heard of its last change.
    """

    def setUp(self) -> None:
        super().setUp()
        self.nodes(1, 2, 3)
        self.heir = self.heir_of(3, 1, 2)
        self.other = 3 - self.heir

    def lose(self, missing: int) -> None:
        self.cut((3, missing))
        self.register(3, "alice")
        self.network.deliver()
        self.assertEqual(self.know("alice", missing, 3 - missing), [False, True])
        self.die(3)

    def test_the_heir_has_missed_it(self) -> None:
        self.lose(self.heir)
        self.network.pump(20)
        self.assertEqual(self.know("alice", 1, 2), [True, True])
        (binding,) = self.bindings(self.heir, "alice")
        self.assertEqual(binding.told_by, str(name(3)))

    def test_the_other_has_missed_it(self) -> None:
        self.lose(self.other)
        self.network.pump(20)
        self.assertEqual(self.know("alice", 1, 2), [True, True])

    def test_a_removal(self) -> None:
        self.register(3, "alice")
        self.network.pump(1)
        self.cut((3, self.heir))
        self.register(3, "alice", cseq=2, expires=0)
        self.network.deliver()
        self.die(3)
        self.assertEqual(self.know("alice", self.heir, self.other), [True, False])
        self.network.pump(20)
        self.assertEqual(self.know("alice", 1, 2), [False, False])

    def test_what_all_have_is_not_sent_round_for_ever(self) -> None:
        self.register(3, "alice")
        self.network.pump(1)
        self.die(3)
        self.network.pump(30)
        self.assertLessEqual(len(self.network.take_requests("usrloc")), 6)
        self.network.pump(60)
        self.assertEqual(self.network.take_requests("usrloc"), [])


class FourNodesTests(RepairTestCase):
    def test_the_heir_repairs_who_was_away_when_the_other_died(self) -> None:
        """
        Node 4 is cut off, node 3 changes something and dies, node 4 returns.
        """
        self.nodes(1, 2, 3, 4)
        self.cut(*((4, number) for number in (1, 2, 3)), *((number, 4) for number in (1, 2, 3)))
        self.network.pump(15)
        self.register(3, "alice")
        self.network.pump(1)
        self.die(3)
        self.network.pump(30)
        self.assertEqual(self.know("alice", 1, 2, 4), [True, True, False])
        self.cut()
        self.network.pump(12)
        self.assertEqual(self.know("alice", 1, 2, 4), [True, True, True])

    def test_one_that_only_one_has_lost_is_heard_through_its_heir(self) -> None:
        """
        Nodes 3 and 4 do not hear one another, 1 and 2 hear both.
        """
        self.nodes(1, 2, 3, 4)
        self.cut((3, 4), (4, 3))
        self.network.pump(15)
        self.register(3, "alice")
        self.network.pump(6)
        self.assertEqual(self.know("alice", 1, 2, 4), [True, True, True])


class RestartTests(RepairTestCase):
    def test_one_that_is_back_before_it_was_missed(self) -> None:
        """
        Its last change had reached one node only; it has forgotten what it had told nobody else.
        """
        self.nodes(1, 2, 3)
        heir = self.heir_of(3, 1, 2)
        self.cut((3, heir))
        self.register(3, "alice")
        self.network.deliver()
        self.cut()
        self.network.nodes.pop(address(3)).service.stopService()  # type: ignore[no-untyped-call]
        self.network.add(3, 1, 2, usrloc=True, ping_interval=5.0)
        self.network.pump(8)
        self.assertEqual(self.know("alice", 1, 2, 3), [True, True, True])


class OrderlyStopTests(RepairTestCase):
    def test_what_was_confirmed_is_told_first(self) -> None:
        self.nodes(1, 2)
        self.cut((1, 2))
        self.register(1, "alice")
        self.network.deliver()
        self.network.nodes[address(1)].service.stopService()  # type: ignore[no-untyped-call]
        self.cut()
        self.network.pump(1)
        self.assertEqual(self.know("alice", 2), [True])


class QuestionTests(RepairTestCase):
    def test_bad_questions(self) -> None:
        self.nodes(1, 2)
        repairs = self.network.nodes[address(1)].node.cluster.service.membership.repairs
        (node,) = [each for each in self.network.dmq(1).nodes() if not each.is_local]
        message = question(node)
        for value in ({}, {"node": 1, "age": 1}, {"node": "x" * 200, "age": 1}, {"node": "x", "age": -1},
                      {"node": "x", "age": True}, {"node": "x", "age": 1.5}, {"node": "x", "age": 2**40}):  # fmt: skip
            self.assertIsNone(repairs.asked(value, message), value)
        self.assertIsNone(repairs.asked({"node": "x", "age": 1}, question(None)))
        channel = self.network.nodes[address(1)].node.cluster.service.channels.find("sipdmq")
        for value in ([], None, {"age": 1}, {"aor": 1}, {"aor": None}, {"aor": ["a"]}, "x", {"node": {}, "age": []}):
            for verb in ("inherit", "lookup", "hello", "unheard-of"):
                body = json.dumps({verb: value}).encode()
                reply = self.successResultOf(maybeDeferred(channel.message_received, message._replace(body=body)))
                self.assertIn(reply.status, (400, 404), body)
        self.assertEqual(repairs.asked({"node": "sip:unknown", "age": 1}, message), {"lost": True})
        self.assertEqual(repairs.asked({"node": str(name(2)), "age": 1}, message), {"lost": False})


def question(sender: ClusterNode | None) -> ChannelMessage:
    return ChannelMessage("sipdmq", sender, Source(Protocol.UDP, address(2), 5060, UDP), "application/json", b"")


class MissedTests(UsrlocTestCase):
    """
    What this node knows of another is old.
    """

    def make_repairs(self, asked: list[tuple[NodeName, dict[str, Any]]]) -> Repairs:
        def send(node: NodeName, body: bytes) -> Deferred[Response]:
            asked.append((node, json.loads(body)[VERB]))
            return Deferred()

        channels = Channels()
        channels.add(self.peer)
        return Repairs(self.clock, HERE, channels, send, lambda: (OURS, KAMAILIO), 8.0)

    def test_a_kamailio_that_was_cut_off_is_asked_and_told_and_others_are_asked(self) -> None:
        asked: list[tuple[NodeName, dict[str, Any]]] = []
        repairs = self.make_repairs(asked)
        self.clock.advance(40)
        self.receive(update(self.form, "theirs", last_modified=int(self.now()) - 20), OURS)
        self.cluster.put_ones.clear()
        repairs.recheck(KAMAILIO, 30.0)
        self.assertEqual(asked, [(OURS.name, {"node": str(KAMAILIO.name), "age": int(30 + 8 + REACH) + 1})])
        ((_, name, _, answer),) = self.cluster.asked
        self.assertEqual((name, self.cluster.put_ones), (KAMAILIO.name, []))
        answer.callback(FakeResponse(200))
        pump(self.clock, 3)
        self.assertEqual([node for node, _, _ in self.cluster.put_ones], [KAMAILIO.name])

    def test_only_what_may_be_of_use_is_handed_over(self) -> None:
        """
        Each name is an errand over the whole store: they must not be anybody's to invent.
        """
        repairs = self.make_repairs([])
        message = ChannelMessage("sipdmq", OURS, Source(Protocol.UDP, OURS.name.host, 5060, UDP), "", b"")
        for name in ("sync", "sync of ours", "repair", "", 7, "x" * 200):
            self.assertIsNone(repairs.asked({"node": name, "age": 1}, message), name)
        for wrong in ({"age": -1}, {"age": True}, {"age": 1, "heard": "1"}, {"age": 1, "heard": 10**9}):
            self.assertIsNone(repairs.asked({"node": "sip:192.0.2.77:5060", **wrong}, message), wrong)
        for number in range(200):
            repairs.asked({"node": f"sip:192.0.2.{number}:5061", "age": 1, "heard": 3}, message)
        waiting = self.peer._donor._queues[OURS.name]
        self.assertLessEqual(len(waiting), 64)

    def test_who_was_started_anew_while_it_was_away_gets_back_what_it_told_before(self) -> None:
        repairs = self.make_repairs([])
        repairs.returned(OURS)
        self.clock.advance(100)
        self.receive(update(self.form, "theirs", last_modified=int(self.now())), OURS)
        repairs.lost(OURS, self.clock.seconds())
        self.clock.advance(60)
        self.cluster.put_ones.clear()
        repairs.returned(OURS)
        repairs.restarted(OURS, self.clock.seconds())  # it has just answered
        pump(self.clock, 1)
        self.assertEqual([node for node, _, _ in self.cluster.put_ones], [OURS.name])

    def test_who_was_stopped_asks_others_and_the_kamailio_and_tells_that_one_nothing(self) -> None:
        asked: list[tuple[NodeName, dict[str, Any]]] = []
        repairs = self.make_repairs(asked)
        self.receive(update(self.form, "theirs", last_modified=int(self.now())))
        self.clock.advance(12)
        self.cluster.put_ones.clear()
        repairs.overslept(12.0)
        self.clock.pump([0.1] * 10)
        self.assertEqual(asked, [(OURS.name, {"node": str(KAMAILIO.name), "age": int(12 + 8 + REACH) + 1})])
        self.assertEqual([node for _, node, _, _ in self.cluster.asked], [KAMAILIO.name])
        self.assertEqual({node for node, _, _ in self.cluster.put_ones}, {OURS.name})
        self.assertFalse(repairs.heirs.passes_on(str(KAMAILIO.name)))
