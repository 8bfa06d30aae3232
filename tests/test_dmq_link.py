"""
The way to one other node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock
from zope.interface import implementer

from sipdmq.dmq.changes import OutboxLimits
from sipdmq.dmq.channels import Channels, CustomChannel
from sipdmq.dmq.link import Link
from sipdmq.dmq.sender import KdmqSender
from sipdmq.interfaces.replication import IRepairer
from sipdmq.records import ClusterNode, NodeName, NodeStatus, Protocol
from sipdmq.sip.timers import RequestTimers
from tests.fakes import UDP, TransactionTestCase, answer, make_ids, pump

NAME = NodeName(Protocol.UDP, "198.51.100.10", 5060)
NODE = ClusterNode(NAME, NodeStatus.ACTIVE)
LOCAL = NodeName(Protocol.UDP, "192.0.2.1", 5060)


@implementer(IRepairer)
class Peer(CustomChannel):
    def __init__(self) -> None:
        super().__init__("c")
        self.repaired: list[tuple[ClusterNode, float]] = []

    def join(self, fragments: Sequence[bytes]) -> tuple[str, bytes]:
        return "text/plain", b",".join(fragments)

    def repair(self, node: ClusterNode, age: float) -> None:
        self.repaired.append((node, age))

    def hand_over(self, node: ClusterNode, lost: str, age: float) -> None:
        raise AssertionError("nobody is lost here")

    @staticmethod
    def is_needless(fragments: Sequence[bytes], status: int) -> bool:
        return False


class LinkTests(TransactionTestCase):
    def setUp(self) -> None:
        super().setUp()
        assert isinstance(self.clock, Clock)
        self.peer = Peer()
        self.channels = channels = Channels()
        channels.add(self.peer)
        self.sender = KdmqSender(self.layer, make_ids(), LOCAL, UDP, RequestTimers(0.1, 1, 8), "sipdmq/1")
        self.lost: list[Any] = []
        limits = OutboxLimits(window=2, batch_window=0, changes=5)
        self.link = Link(
            self.clock, NODE, self.sender, channels, limits, True, lambda name, sent_at: self.lost.append(sent_at)
        )

    def bodies(self) -> list[bytes]:
        found = [message.body for message, _ in self.transport.sent]
        self.transport.sent.clear()
        return found

    def put_own(self, key: str, fragment: bytes) -> None:
        self.link.put_own("c", key, self.link.change("c", key, fragment))

    def reply(self, status: int) -> None:
        self.receive(answer(self.transport.last, status))

    def test_a_change_leaves_at_once(self) -> None:
        self.link.put("c", "a", b"1")
        target = self.transport.sent[0][1]
        self.assertEqual((str(target), target.fixed, target.listener), ("udp:198.51.100.10:5060", True, UDP))
        self.assertEqual(self.bodies(), [b"1"])

    def test_what_gathers_leaves_when_the_node_has_answered_or_after_a_while(self) -> None:
        limits = OutboxLimits(batch_changes=3, batch_window=0.002)
        link = Link(self.clock, NODE, self.sender, self.channels, limits, True, lambda name, sent_at: None)
        self.peer.batch_contacts = 3  # type: ignore[attr-defined]
        for is_answered, waits in ((True, 0.002), (False, 0.008)):
            link.put("c", "a", b"1")
            request = self.transport.last
            link.put("c", "b", b"2")
            self.assertEqual(self.bodies(), [b"1"])
            self.clock.advance(0.001)
            if is_answered:
                self.receive(answer(request, 200))
            self.assertEqual(self.bodies(), [])
            self.clock.advance(waits - 0.0015)
            self.assertEqual(self.bodies(), [])
            self.clock.advance(0.0006)
            self.assertEqual(self.bodies(), [b"2"])
            self.clock.advance(10)
            self.bodies()

    def test_the_next_of_a_key_leaves_with_the_answer(self) -> None:
        self.link.put("c", "a", b"1")
        self.link.put("c", "a", b"2")
        self.reply(200)
        self.assertEqual(self.bodies(), [b"1", b"2"])

    def test_503_is_tried_again(self) -> None:
        self.link.put("c", "a", b"1")
        self.reply(503)
        self.assertEqual(self.bodies(), [b"1"])
        pump(self.clock, 0.5)
        self.assertEqual(self.bodies(), [b"1"])

    def test_404_is_the_end_until_it_is_started_anew_or_speaks_there(self) -> None:
        for end in (self.link.restarted, lambda: self.link.has_channel("c")):
            self.put_own("a", b"1")
            self.reply(404)
            self.bodies()
            self.put_own("b", b"2")
            self.link.owe("c", 10)
            self.assertEqual((self.bodies(), self.link.is_dirty), ([], False))
            end()
            self.put_own("c", b"3")
            self.reply(200)
            self.assertEqual(self.bodies(), [b"3"])

    def test_404_is_the_end_until_it_returns(self) -> None:
        self.link.put("c", "a", b"1")
        self.reply(404)
        self.link.put("c", "a", b"2")
        self.assertEqual(self.bodies(), [b"1"])
        self.link.went_down()
        self.link.went_up()
        self.link.put("c", "a", b"3")
        self.assertEqual(self.bodies(), [b"3"])

    def test_refused_ones_are_dropped(self) -> None:
        for key in "ab":
            self.link.put("c", key, b"1")
            self.reply(400)
        self.assertEqual((self.link.refused, self.link.waiting, self.link.unanswered), (2, 0, 0))

    def test_an_error_may_say_that_there_was_no_need(self) -> None:
        self.patch(self.peer, "is_needless", lambda fragments, status: (*fragments, status) == (b"end", 500))
        for fragment, status, refused in ((b"end", 500, 0), (b"end", 400, 1), (b"1", 500, 2)):
            self.link.put("c", "a", fragment)
            self.reply(status)
            self.assertEqual((self.link.refused, self.link.waiting, self.link.unanswered), (refused, 0, 0))

    def test_what_is_too_long_is_refused_here(self) -> None:
        self.link.put("c", "a", b"x" * 32_000)
        self.link.put("c", "b", b"1")
        self.assertEqual(self.bodies(), [b"1"])
        self.assertEqual(self.link.refused, 1)

    def test_no_answer(self) -> None:
        self.link.put("c", "a", b"1")
        self.link.put("c", "b", b"1")
        self.link.put("c", "d", b"1")
        self.assertFalse(self.link.is_troubled(2))
        pump(self.clock, 2)
        self.assertTrue(self.link.is_troubled(2))
        pump(self.clock, 7)
        self.assertEqual(self.lost, [0.0, 0.0])
        self.assertEqual((self.link.is_dirty, self.link.waiting, self.link.unanswered), (True, 0, 0))

    def test_a_node_that_was_away_is_repaired(self) -> None:
        self.link.put("c", "a", b"1")
        self.reply(200)
        self.link.went_down()
        pump(self.clock, 5)
        self.link.put("c", "b", b"1")
        self.assertEqual(self.bodies(), [b"1"])
        pump(self.clock, 2)
        self.link.went_up()
        self.assertEqual((self.peer.repaired, self.link.is_dirty), ([(NODE, 7)], False))

    def test_what_was_under_way_when_it_went_is_sent_again(self) -> None:
        self.link.put("c", "a", b"1")
        pump(self.clock, 2)
        self.link.went_down()
        pump(self.clock, 10)
        self.link.went_up()
        self.assertEqual(self.peer.repaired, [(NODE, 12)])

    def test_what_is_still_under_way_when_it_is_back_is_repaired_at_once(self) -> None:
        self.link.put("c", "a", b"1")
        pump(self.clock, 3)
        self.link.went_down()
        pump(self.clock, 2)
        self.link.went_up()
        self.assertEqual(self.peer.repaired, [(NODE, 5)])

    def test_what_was_under_way_to_a_kamailio_is_not_repeated(self) -> None:
        """
        It would come when that is back, and be taken for newer than what it has been told meanwhile.
        """
        self.link.put("c", "a", b"old")
        pump(self.clock, 0.5)
        self.link.went_down()
        self.bodies()
        pump(self.clock, 20)
        self.assertEqual((self.bodies(), self.link.unanswered, self.lost), ([], 0, []))
        self.link.went_up()
        self.assertEqual([age for _, age in self.peer.repaired], [20.5])
        self.link.put("c", "a", b"new")
        self.assertEqual(self.bodies(), [b"new"])
        self.assertEqual(self.layer.snapshot()["transaction.clients"], 1)

    def test_a_kamailio_that_does_not_answer_is_told_nothing_until_it_answers_a_ping(self) -> None:
        """
        It may be cut off for less time than it takes to notice: what is repeated then would overwrite what is newer.
        """
        self.link.put("c", "a", b"1")
        pump(self.clock, 3)
        self.link.hold_if_silent(4)
        pump(self.clock, 1)
        self.bodies()
        self.link.release()
        self.link.hold_if_silent(4)
        self.put_own("b", b"2")
        pump(self.clock, 20)
        self.assertEqual((self.bodies(), self.lost, self.link.is_troubled(4)), ([], [], True))
        self.assertTrue(self.link.has_missed)
        self.link.release()
        self.assertEqual([age for _, age in self.peer.repaired], [24])
        self.assertFalse(self.link.has_missed)
        self.put_own("b", b"3")
        self.assertEqual(self.bodies(), [b"3"])

    def test_what_is_newer_waits_until_all_copies_have_had_their_effect(self) -> None:
        """
        A Kamailio that stood still takes them in any order, the last copy of the old one perhaps at last.
        """
        for is_ours, delay in ((False, 0.05), (False, 0.15), (True, 0.15)):
            self.link.node = NODE._replace(is_sipdmq=is_ours)
            self.link.put("c", "a", b"old")
            pump(self.clock, delay)
            self.link.put("c", "a", b"new")
            request = self.transport.last
            self.bodies()
            self.receive(answer(request, 200))
            is_held = delay > 0.1 and not is_ours
            self.link.put("c", "b", b"other")
            self.assertEqual(self.bodies(), [b"other"] if is_held else [b"new", b"other"])
            pump(self.clock, 0.2)
            self.assertIn(b"new", self.bodies())
            self.setUp()

    def test_one_of_ours_is_not_held(self) -> None:
        self.link.node = NODE._replace(is_sipdmq=True)
        self.link.put("c", "a", b"1")
        pump(self.clock, 5)
        self.bodies()
        self.link.hold_if_silent(4)
        pump(self.clock, 2)
        self.assertIn(b"1", self.bodies())

    def test_the_end_of_that_is_not_the_end_of_what_the_new_life_is_told(self) -> None:
        self.link.node = NODE._replace(is_sipdmq=True)
        self.link.put("c", "a", b"old")
        self.bodies()
        self.link.went_down()
        self.link.went_up()
        self.link.put("c", "a", b"new")
        pump(self.clock, 7.9)
        self.assertNotIn(b"new", self.bodies())
        pump(self.clock, 0.2)
        self.assertEqual(self.bodies(), [b"new"])
        self.assertFalse(self.link.is_dirty)

    def test_a_repair_that_gets_lost_begins_again_where_it_began(self) -> None:
        self.link.put("c", "a", b"1", 100)
        self.link.put("c", "b", b"1")
        pump(self.clock, 9)
        self.link.probe()
        self.assertEqual(self.peer.repaired, [(NODE, 109)])

    def test_what_somebody_else_could_not_send_is_owed(self) -> None:
        self.link.owe("c", 50)
        self.link.owe("c", 20)
        self.assertTrue(self.link.is_dirty)
        self.link.probe()
        self.assertEqual(self.peer.repaired, [(NODE, 50)])

    def test_who_has_much_to_send_waits_for_room(self) -> None:
        limits = OutboxLimits(window=1, batch_window=0, changes=50)
        self.link = Link(self.clock, NODE, self.sender, self.channels, limits, True, lambda name, sent_at: None)
        waits = [self.link.put("c", str(number), b"1") for number in range(6)]
        self.assertEqual([wait is None for wait in waits], [True, True, True, True, False, False])
        self.assertFalse(any(wait.called for wait in waits if wait is not None))
        for _ in range(4):
            self.reply(200)
        self.assertTrue(all(wait.called for wait in waits if wait is not None))

    def test_nobody_waits_for_room_at_a_node_that_is_gone(self) -> None:
        limits = OutboxLimits(window=1, batch_window=0, changes=50)
        for end in ("went_down", "stop"):
            link = Link(self.clock, NODE, self.sender, self.channels, limits, True, lambda name, sent_at: None)
            wait = [link.put("c", str(number), b"1") for number in range(5)][-1]
            assert wait is not None
            self.assertFalse(wait.called)
            getattr(link, end)()
            self.assertTrue(wait.called)

    def test_drained(self) -> None:
        self.assertTrue(self.link.drain().called)
        self.link.put("c", "a", b"1")
        self.link.put("c", "a", b"2")
        first = self.link.drain()
        self.reply(200)
        self.assertFalse(first.called)
        self.reply(200)
        self.assertTrue(first.called)
        self.link.put("c", "a", b"3")
        second = self.link.drain()
        self.link.went_down()
        self.assertTrue(second.called)

    def test_so_is_one_for_which_too_much_waited(self) -> None:
        for number in range(8):
            self.link.put("c", str(number), b"1")
        self.assertTrue(self.link.is_dirty)
        for message, _ in list(self.transport.sent):
            self.receive(answer(message, 200))
        self.link.probe()
        self.assertEqual((self.peer.repaired, self.link.is_dirty), ([(NODE, 0)], False))

    def test_while_a_repair_is_due_changes_of_our_own_are_not_kept(self) -> None:
        """
        It brings them; it comes with the answer to what is under way.
        """
        for number in range(9):  # two are under way, five may wait
            self.put_own(f"a{number}", b"1")
        self.assertEqual((self.link.is_dirty, self.link.waiting), (True, 0))
        self.link.put("c", "theirs", b"1")
        self.assertEqual(self.link.waiting, 1, "what others told, no repair of ours brings")
        answered = 0
        while self.link.unanswered:
            self.receive(answer(self.transport.sent[answered][0], 200))
            answered += 1
        self.assertEqual(answered, 3)
        self.assertEqual(len(self.peer.repaired), 1)
        self.put_own("d", b"2")
        self.assertEqual(self.bodies()[-1], b"2")

    def test_stopped(self) -> None:
        self.link.put("c", "a", b"1")
        self.reply(503)
        self.link.stop()
        pump(self.clock, 10)
        self.assertEqual(self.bodies(), [b"1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_name_of_a_certificate(self) -> None:
        self.assertEqual((self.sender.target_of(NAME).name, self.sender.cert_name(NAME)), ("", "198.51.100.10"))
        self.sender.know_as(NAME, "b.example")
        self.assertEqual((self.sender.target_of(NAME).name, self.sender.cert_name(NAME)), ("b.example", "b.example"))
