"""
A Kamailio that is back is asked before it is told.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.restores import CLOCKS, LONGEST, QUIET, WAIT, Restores
from sipdmq.dmq.usrloc_json import SYNC_REQUEST_OF_OURS
from sipdmq.records import ClusterNode
from tests.fakes import pump
from tests.location_store_tests import make_binding
from tests.usrloc_node import HERE, KAMAILIO, OURS, FakeResponse, UsrlocTestCase, update


class RestoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100)
        self.events: list[tuple[Any, ...]] = []
        self.answers: list[Deferred[bool]] = []
        self.restores = Restores(self.clock, self.ask, self.record("repair"), self.record("owe"))

    def ask(self, node: ClusterNode) -> Deferred[bool]:
        self.events.append(("ask", node, self.clock.seconds()))
        return self.answers.pop(0) if self.answers else succeed(True)

    def record(self, event: str):  # type: ignore[no-untyped-def]
        return lambda node, number, *more: self.events.append((event, node, number, *more))

    def test_it_is_asked_when_it_lists_us_and_repaired_when_it_is_quiet(self) -> None:
        self.restores.begin(KAMAILIO, 40)
        pump(self.clock, 3)
        self.assertEqual(self.events, [])
        self.assertTrue(self.restores.joined(KAMAILIO))
        self.assertTrue(self.restores.joined(KAMAILIO))
        pump(self.clock, 1.5)
        self.restores.records_received(KAMAILIO.name, 1000)
        pump(self.clock, 1.5)
        self.restores.records_received(OURS.name, 1000)
        self.assertEqual(self.events, [("ask", KAMAILIO, 103)])
        pump(self.clock, 0.5)
        self.assertEqual(self.events[1:], [("repair", KAMAILIO, 60, False)])
        self.assertFalse(self.restores.joined(KAMAILIO), "that is over")

    def test_one_that_never_lists_us_is_repaired_all_the_same(self) -> None:
        self.restores.begin(KAMAILIO, 40)
        self.restores.begin(KAMAILIO, 70)
        pump(self.clock, WAIT)
        self.assertEqual(self.events, [("repair", KAMAILIO, 30, False)])

    def test_one_that_is_never_quiet(self) -> None:
        self.restores.begin(KAMAILIO, 40)
        self.restores.joined(KAMAILIO)
        for _ in range(int(LONGEST)):
            pump(self.clock, 1)
            self.restores.records_received(KAMAILIO.name, 1000)
        pump(self.clock, QUIET)
        self.assertEqual([event for event, *_ in self.events], ["ask", "repair"])

    def test_what_its_phones_change_meanwhile_is_none_of_the_answer(self) -> None:
        self.restores.begin(KAMAILIO, 40)
        self.restores.joined(KAMAILIO)
        for _ in range(4):
            pump(self.clock, QUIET / 4)
            self.restores.records_received(KAMAILIO.name, CLOCKS)
        self.assertEqual([event for event, *_ in self.events], ["ask", "repair"])

    def test_one_that_goes_again_is_owed_what_it_was_owed(self) -> None:
        self.restores.begin(KAMAILIO, 40)
        pump(self.clock, 5)
        self.restores.lost(KAMAILIO)
        self.restores.lost(OURS)
        self.assertEqual(self.events, [("owe", KAMAILIO, 45)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_was_there_while_we_were_stopped_is_asked_at_once(self) -> None:
        self.restores.begin_asking(KAMAILIO, 40, is_whole=True)
        self.assertEqual(self.events, [("ask", KAMAILIO, 100)])
        self.assertTrue(self.restores.defers(KAMAILIO.name))
        pump(self.clock, QUIET)
        self.assertEqual(self.events[1:], [("repair", KAMAILIO, 60, True)])
        self.assertFalse(self.restores.defers(KAMAILIO.name))

    def test_one_that_does_not_answer_that_is_not_told_what_is_old(self) -> None:
        answer: Deferred[bool] = Deferred()
        self.answers.append(answer)
        self.restores.begin_asking(KAMAILIO, 40, is_whole=True)
        pump(self.clock, 8)
        self.assertEqual(self.events, [("ask", KAMAILIO, 100)])
        answer.callback(False)
        self.assertEqual(self.events[1:], [("owe", KAMAILIO, 48)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_had_forgotten_us_meanwhile_is_asked_again(self) -> None:
        self.restores.begin_asking(KAMAILIO, 40, is_whole=True)
        self.restores.begin_asking(KAMAILIO, 60, is_whole=True)
        pump(self.clock, 1)
        for _ in range(2):
            self.assertTrue(self.restores.joined(KAMAILIO))
        pump(self.clock, QUIET)
        expected = [("ask", KAMAILIO, 100), ("ask", KAMAILIO, 101), ("repair", KAMAILIO, 40, True)]
        self.assertEqual(self.events, expected)

    def test_what_it_was_to_be_told_of_all_it_is_told_when_it_is_back(self) -> None:
        self.restores.begin_asking(KAMAILIO, 40, is_whole=True)
        self.restores.lost(KAMAILIO)
        self.restores.begin(KAMAILIO, 50)
        pump(self.clock, WAIT)
        self.assertEqual(self.events[-1], ("repair", KAMAILIO, 50, True))
        self.restores.begin(KAMAILIO, 10)
        pump(self.clock, WAIT)
        self.assertEqual(self.events[-1][3], False)

    def test_what_comes_before_the_answer_to_the_last_question_says_nothing(self) -> None:
        self.answers += [succeed(True), Deferred()]
        self.restores.begin_asking(KAMAILIO, 40, is_whole=True)
        self.restores.begin_asking(KAMAILIO, 40, is_whole=True, is_for_all=True)
        self.restores.records_received(KAMAILIO.name, 1000)
        pump(self.clock, QUIET + 1)
        self.assertEqual([event for event, *_ in self.events], ["ask", "ask"])

    def test_for_a_lost_node_it_is_asked_once_more(self) -> None:
        """
        That one may have told it something after it was asked.
        """
        first: Deferred[bool] = Deferred()
        self.answers += [first, succeed(True)]
        self.restores.begin_asking(KAMAILIO, 40, is_whole=True)
        pump(self.clock, 1)
        self.restores.begin_asking(KAMAILIO, 40, is_whole=True, is_for_all=True)
        self.assertTrue(self.restores.is_for_all(KAMAILIO.name))
        first.callback(False)
        pump(self.clock, QUIET)
        expected = [("ask", KAMAILIO, 100), ("ask", KAMAILIO, 101), ("repair", KAMAILIO, 60, True)]
        self.assertEqual(self.events, expected)

    def test_stopped(self) -> None:
        self.restores.begin(KAMAILIO, 40)
        self.restores.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ChannelTests(UsrlocTestCase):
    """
    What C{usrloc} does with it.
    """

    def ruids(self) -> list[str]:
        put, self.cluster.put_ones = self.cluster.put_ones, []
        return sorted(change.ruid for node, _, change in put if node == KAMAILIO.name)

    def setUp(self) -> None:
        super().setUp()
        self.peer.start(has_peers=False)
        self.receive(update(self.form, "theirs", aor="bob@example.org", last_modified=int(self.now())), OURS)
        self.put(*[self.binding("mine")])
        self.ruids()

    def binding(self, ruid: str):  # type: ignore[no-untyped-def]
        return make_binding(ruid, last_modified=int(self.now()))

    def test_it_is_asked_before_it_gets_back_what_this_node_had_told_before_its_start(self) -> None:
        """
        It may have been told something newer, by this node alone, before that was killed.
        """
        now = int(self.now())
        for each in (
            make_binding("before", last_modified=now - 20),
            make_binding("too", "dave@example.org", last_modified=now),
        ):
            self.receive(self.form.encode_update(each, each.ruid, str(HERE)), OURS)
        self.assertEqual(([node for _, node, _, _ in self.cluster.asked], self.ruids()), ([KAMAILIO.name], []))
        newer = update(self.form, "before", last_modified=now - 10, cseq=5)
        self.receive(newer)
        self.cluster.asked[0][3].callback(FakeResponse(200))
        pump(self.clock, QUIET + 1)
        put = {change.ruid: change.binding.cseq for node, _, change in self.cluster.put_ones if node == KAMAILIO.name}
        self.assertEqual(put, {"before": 5, "mine": 1, "theirs": 1, "too": 1})

    def test_what_it_tells_late_goes_on_to_who_has_just_been_told_everything_else(self) -> None:
        """
        It tells those only whom it lists by then.
        """
        late = update(self.form, "late", aor="dave@example.org", last_modified=int(self.now()))
        self.receive(SYNC_REQUEST_OF_OURS, OURS)
        pump(self.clock, 1)
        self.cluster.put_ones.clear()
        self.receive(late)
        self.assertEqual([(node, change.ruid) for node, _, change in self.cluster.put_ones], [(OURS.name, "late")])
        self.cluster.put_ones.clear()
        self.clock.advance(2)
        after = update(self.form, "after", aor="erin@example.org", last_modified=int(self.now()))
        self.receive(after)
        self.assertEqual(self.cluster.put_ones, [])

    def test_one_that_was_not_lost_gets_what_is_owed_at_once(self) -> None:
        self.peer.repair(KAMAILIO, 10)
        pump(self.clock, 1)
        self.assertEqual(self.ruids(), ["mine"])

    def test_the_heir_repairs_it_for_all(self) -> None:
        self.cluster.restorers[KAMAILIO.name] = HERE
        self.cluster.passed_on.add(str(KAMAILIO.name))
        self.peer.repair(KAMAILIO, 10)
        pump(self.clock, 1)
        self.assertEqual(self.ruids(), [])
        self.peer.node_joined(KAMAILIO)
        self.assertEqual([node for _, node, _, _ in self.cluster.asked], [KAMAILIO.name])
        self.cluster.asked[0][3].callback(FakeResponse(200))
        pump(self.clock, QUIET + 1)
        self.assertEqual(self.ruids(), ["mine", "theirs"])

    def test_meanwhile_it_is_not_told_what_a_lost_node_has_told(self) -> None:
        """
        It may have something newer, which it has told nobody.
        """
        self.cluster.passed_on.add(str(OURS.name))
        self.cluster.restorers[KAMAILIO.name] = HERE
        self.peer.repair(KAMAILIO, 10)
        self.receive(update(self.form, "late", aor="bob@example.org", last_modified=int(self.now())), OURS)
        self.peer.node_joined(KAMAILIO)
        self.assertEqual(self.ruids(), [])
        self.receive(update(self.form, "late", aor="bob@example.org", last_modified=int(self.now()) + 1, cseq=9))
        self.cluster.asked[0][3].callback(FakeResponse(200))
        pump(self.clock, QUIET + 1)
        put = [(change.ruid, change.binding.cseq) for node, _, change in self.cluster.put_ones if node == KAMAILIO.name]
        self.assertIn(("late", 9), put)
        self.assertEqual([cseq for ruid, cseq in put if ruid == "late"], [9])

    def test_one_that_has_not_answered_for_a_while_is_asked_at_once(self) -> None:
        """
        Nobody has noticed that it was away; it may have told nobody what it did meanwhile.
        """
        self.cluster.missed.add(KAMAILIO.name)
        self.peer.repair(KAMAILIO, 10)
        self.assertEqual([node for _, node, _, _ in self.cluster.asked], [KAMAILIO.name])
        self.assertEqual(self.ruids(), [])
        self.cluster.asked[0][3].callback(FakeResponse(200))
        pump(self.clock, QUIET + 1)
        self.assertEqual(self.ruids(), ["mine"])

    def test_others_leave_it_to_the_heir(self) -> None:
        self.cluster.restorers[KAMAILIO.name] = OURS.name
        self.peer.repair(KAMAILIO, 10)
        pump(self.clock, WAIT + 1)
        self.assertEqual(self.ruids(), [])

    def test_one_that_this_node_has_missed_is_asked_and_then_told_everything(self) -> None:
        """
        What it tells late was long ago: it is not told that again, but what counts when all have spoken.
        """
        self.peer.restore(KAMAILIO, 10)
        self.assertEqual([node for _, node, _, _ in self.cluster.asked], [KAMAILIO.name])
        self.receive(update(self.form, "mine", last_modified=int(self.now()) + 1, cseq=9))
        self.assertEqual(self.ruids(), [])
        self.cluster.asked[0][3].callback(FakeResponse(200))
        pump(self.clock, QUIET + 1)
        self.assertEqual(self.ruids(), ["mine", "theirs"])

    def test_what_a_lost_node_may_have_told_it_alone_is_passed_on(self) -> None:
        """
        It is there all the time, so that it tells what is new by itself: only while it is asked for a lost one.
        """
        record = {"aor": "carol@example.org", "last_modified": int(self.now())}
        self.receive(update(self.form, "before", **record))
        self.peer.restore(KAMAILIO, 10, True)
        self.receive(update(self.form, "alone", **{**record, "aor": "dave@example.org"}))
        put, self.cluster.put_ones = self.cluster.put_ones, []
        self.assertEqual([(node, change.ruid) for node, _, change in put], [(OURS.name, "alone")])
        self.cluster.asked[0][3].callback(FakeResponse(200))
        pump(self.clock, QUIET + 1)
        self.assertEqual(self.ruids(), ["alone", "before", "mine", "theirs"])

    def test_ours_that_has_just_lost_reaches_a_kamailio_no_more(self) -> None:
        """
        What it has lost against is put behind it.
        """
        winner = update(self.form, "mine", last_modified=int(self.now()) + 1, cseq=9)
        self.receive(winner, OURS)
        self.assertEqual(self.ruids(), ["mine"])
        self.receive(update(self.form, "mine", last_modified=int(self.now()) + 2, cseq=10), OURS)
        self.assertEqual(self.ruids(), [], "that was not ours any more")

    def test_even_the_one_that_told_what_it_has_lost_against(self) -> None:
        """
        Ours was on its way to it, and is repeated: a Kamailio would go back to it.
        """
        self.receive(update(self.form, "mine", last_modified=int(self.now()) + 1, cseq=9))
        self.assertEqual(self.ruids(), ["mine"])

    def test_so_for_what_was_told_for_others_and_has_not_arrived(self) -> None:
        newer = {"aor": "bob@example.org", "cseq": 9}
        self.receive(update(self.form, "theirs", last_modified=int(self.now()) + 1, **newer), OURS)
        self.assertEqual(self.ruids(), [])
        self.cluster.under_way.add((KAMAILIO.name, "bob@example.org theirs"))
        self.receive(update(self.form, "theirs", last_modified=int(self.now()) + 2, **newer), OURS)
        self.assertEqual(self.ruids(), ["theirs"])

    def test_one_that_knew_nobody_is_asked_and_then_told_everything(self) -> None:
        self.cluster.members = [KAMAILIO]
        self.peer.exchange(KAMAILIO)
        self.assertEqual([node for _, node, _, _ in self.cluster.asked], [KAMAILIO.name])
        self.cluster.asked[0][3].callback(FakeResponse(200))
        self.receive(update(self.form, "mine", last_modified=int(self.now()) + 1, cseq=9))
        pump(self.clock, QUIET - 0.5)
        self.assertEqual(self.ruids(), [])
        pump(self.clock, 1.5)
        self.assertEqual(self.ruids(), ["mine", "theirs"])
        self.assertEqual(len(self.cluster.asked), 1)

    def test_so_for_what_a_repair_of_ours_has_told_in_ignorance(self) -> None:
        """
        A node that was cut off from the others repairs it, and hears only then of what it has told others before that.
        """
        newer = {"aor": "bob@example.org", "cseq": 9}
        self.peer.hand_over(KAMAILIO, str(OURS.name), 100)
        pump(self.clock, 1)
        self.assertEqual(self.ruids(), ["theirs"])
        self.receive(update(self.form, "theirs", last_modified=int(self.now()) + 1, **newer), OURS)
        self.assertEqual(self.ruids(), ["theirs"])
        pump(self.clock, 60)
        self.receive(update(self.form, "theirs", last_modified=int(self.now()), **newer), OURS)
        self.assertEqual(self.ruids(), [], "that was made since")
