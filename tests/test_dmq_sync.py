"""
Syncs: the donor's pages, the newcomer's state, and who is asked for a user meanwhile.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from sipdmq.dmq import donor
from sipdmq.dmq.errands import SyncEnd
from sipdmq.dmq.lookup import RemoteLookup
from sipdmq.dmq.newcomer import SyncState
from sipdmq.dmq.usrloc_json import SYNC_REQUEST, SYNC_REQUEST_OF_OURS, encode_sync_end
from sipdmq.errors import RequestRefused, UnreachableError
from sipdmq.records import ChannelMessage, ClusterNode, NodeStatus, Origin, Protocol, Source
from tests.fakes import UDP, pump
from tests.location_store_tests import EPOCH, make_binding
from tests.usrloc_node import KAMAILIO, OURS, FakeResponse, UsrlocTestCase, update

SOURCE = Source(Protocol.UDP, "192.0.2.12", 5060, UDP)


class DonorTestCase(UsrlocTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(donor, "PAGE_AORS", 50)

    def fill(self, users: int = 3) -> None:
        for number in range(users):
            aor = f"u{number}@example.org"
            self.put(
                make_binding(f"a{number}", aor, expires_in=5000, told_by="sip:d"),
                make_binding(f"b{number}", aor, expires_in=5000, told_by="sip:d"),
                make_binding(f"t{number}", aor, expires_in=5000, removed=True, other_ruids=("o",), told_by="sip:d"),
                origin=Origin.REPLICATED,
            )

    def sent(self) -> list[str]:
        put, self.cluster.put_ones = self.cluster.put_ones, []
        return ["end" if isinstance(change, SyncEnd) else change.ruid for _, _, change in put]


class DonorTests(DonorTestCase):
    def test_each_contact_once(self) -> None:
        """
        Where a Kamailio sends n(n+1)/2; what it never had needs no removal.
        """
        self.fill()
        self.assertEqual(self.receive(SYNC_REQUEST), 200)
        self.assertEqual(self.sent(), [])  # it was answered before anything else
        pump(self.clock, 1)
        self.assertEqual(sorted(self.sent()), ["a0", "a1", "a2", "b0", "b1", "b2"])

    def test_a_node_of_ours_gets_removals_too_and_hears_the_end(self) -> None:
        self.fill(1)
        self.receive(SYNC_REQUEST, OURS)
        pump(self.clock, 1)
        self.assertEqual(self.cluster.put_ones[-1], (OURS.name, "", SyncEnd(3, is_partial=True)))
        self.assertEqual(sorted(self.sent()), ["a0", "b0", "end", "o", "t0"])

    def test_one_that_says_that_it_is_ours_is_believed(self) -> None:
        """
        Its hello may be on its way.
        """
        self.receive(SYNC_REQUEST_OF_OURS, OURS._replace(is_sipdmq=False))
        pump(self.clock, 1)
        self.assertEqual(self.sent(), ["end"])

    def test_what_waits_is_sent_as_to_the_node_that_it_has_turned_out_to_be(self) -> None:
        """
        Only to one of ours is said who has told a record.
        """
        self.receive(update(self.form, "theirs"), KAMAILIO)
        for unknown, known in ((OURS._replace(is_sipdmq=False), OURS), (OURS, OURS._replace(is_sipdmq=False))):
            self.cluster.put_ones.clear()
            self.peer.repair(unknown, 10)
            self.peer.hand_over(known, str(KAMAILIO.name), 60)
            pump(self.clock, 1)
            self.assertEqual([change.by for _, _, change in self.cluster.put_ones], [str(KAMAILIO.name)])

    def test_an_empty_store_sends_nothing(self) -> None:
        self.receive(SYNC_REQUEST)
        pump(self.clock, 1)
        self.assertEqual(self.sent(), [])

    def test_phones_are_served_in_between(self) -> None:
        self.fill(120)
        self.receive(SYNC_REQUEST)
        for wait, expected in ((0, 100), (0.001, 100), (0.001, 40)):
            self.clock.advance(wait)
            self.assertEqual(len(self.sent()), expected)

    def test_a_second_request_is_dropped_while_one_runs(self) -> None:
        self.fill(60)
        for _ in range(3):
            self.receive(SYNC_REQUEST)
        pump(self.clock, 1)
        self.assertEqual(len(self.sent()), 120)
        self.receive(SYNC_REQUEST)
        pump(self.clock, 1)
        self.assertEqual(len(self.sent()), 120)

    def test_two_nodes_at_the_same_time(self) -> None:
        self.fill(1)
        self.receive(SYNC_REQUEST)
        self.receive(SYNC_REQUEST, OURS)
        pump(self.clock, 1)
        self.assertEqual(len(self.sent()), 2 + 5)

    def test_a_node_that_went_away_gets_no_more(self) -> None:
        self.fill(120)
        self.receive(SYNC_REQUEST)
        self.clock.advance(0)
        self.cluster.members = [OURS]
        pump(self.clock, 5)
        self.assertEqual(len(self.sent()), 100)
        self.assertEqual(self.peer.snapshot()["usrloc.syncs"], 0)

    def test_one_that_is_not_there_yet_gets_it_when_it_is(self) -> None:
        self.fill(1)
        self.cluster.members = [OURS]
        self.receive(SYNC_REQUEST)
        pump(self.clock, 1)
        self.assertEqual(self.sent(), [])
        self.cluster.members = [KAMAILIO, OURS]
        for _ in range(2):
            self.peer.node_up(KAMAILIO)
            pump(self.clock, 1)
        self.assertEqual(sorted(self.sent()), ["a0", "b0"])

    def test_a_full_outbox_is_waited_for(self) -> None:
        self.fill(2)
        self.cluster.full = Deferred()
        self.receive(SYNC_REQUEST)
        pump(self.clock, 1)
        self.assertEqual(len(self.sent()), 1)
        full, self.cluster.full = self.cluster.full, None
        full.callback(None)
        pump(self.clock, 1)
        self.assertEqual(len(self.sent()), 3)

    def test_what_a_phone_changes_meanwhile_is_not_followed_by_what_was_before(self) -> None:
        self.fill(120)
        self.receive(SYNC_REQUEST)
        self.clock.advance(0)
        seen = set(self.sent())
        late = next(number for number in range(120) if f"a{number}" not in seen)
        self.put(make_binding(f"a{late}", f"u{late}@example.org", cseq=77))
        pump(self.clock, 1)
        (change,) = [change for _, _, change in self.cluster.put_ones if change.ruid == f"a{late}"]
        self.assertEqual(change.binding.cseq, 77)

    def test_a_stranger_gets_nothing(self) -> None:
        self.fill(1)
        self.assertEqual(self.receive(SYNC_REQUEST, None), 200)
        pump(self.clock, 1)
        self.assertEqual(self.sent(), [])

    def test_a_repair_sends_what_was_changed_here(self) -> None:
        self.fill(1)
        self.receive(update(self.form, "k1"))
        self.put(make_binding("mine", "bob@example.org"), make_binding("dead", "bob@example.org", removed=True))
        self.put(make_binding("theirs", "carol@example.org", told_by="sip:x"), origin=Origin.REPLICATED)
        self.sent()
        self.peer.repair(KAMAILIO, 10)
        pump(self.clock, 1)
        self.assertEqual(sorted(set(self.sent()) - {"a0", "b0", "t0", "o"}), ["dead", "mine"])


    def test_a_sync_takes_the_place_of_a_repair(self) -> None:
        """
        Whether that is under way or waits: it would all come twice.
        """
        for is_repair_first in (True, False):
            self.setUp()
            first, second = (self.peer.repair, self.ask) if is_repair_first else (self.ask, self.peer.repair)
            self.fill(60)
            self.put(make_binding("dead", "bob@example.org", removed=True))
            self.sent()
            self.peer.hand_over(KAMAILIO, "sip:nobody", 10)
            first(KAMAILIO, 10.0)
            second(KAMAILIO, 10.0)
            pump(self.clock, 1)
            found = self.sent()
            self.assertEqual(len(found), len(set(found)))
            self.assertIn("dead", found)
            self.assertEqual(len([ruid for ruid in found if ruid[0] in "ab"]), 120)
        self.setUp()
        self.fill(60)
        self.cluster.inherited.add("sip:d")
        self.peer.repair(OURS, 10)
        self.clock.advance(0)
        self.assertIn("a0", self.sent())
        self.ask(OURS)
        pump(self.clock, 1)
        found = self.sent()
        self.assertEqual((len([ruid for ruid in found if ruid[0] in "abt"]), found[-1]), (180, "end"))

    def ask(self, node: ClusterNode, age: float = 0.0) -> None:
        self.receive(SYNC_REQUEST, node)


    def test_a_kamailio_that_asked_too_early_gets_the_rest(self) -> None:
        """
        It asks nobody else: this node began apart from the others, and both took it for all there is.
        """
        self.cluster.members = [KAMAILIO]
        self.peer.start(True)
        self.ask(KAMAILIO)
        self.peer.node_joined(KAMAILIO)
        self.cluster.asked[-1][3].callback(FakeResponse(200))
        pump(self.clock, 20)
        self.assertTrue(self.peer.readiness.is_ready)
        self.cluster.members = [KAMAILIO, OURS]
        self.peer.older_met(OURS, 1000.0)
        self.assertEqual(self.cluster.asked[-1][1], OURS.name)
        self.fill(1)
        self.sent()
        self.receive(encode_sync_end(SyncEnd(0)), OURS)
        pump(self.clock, 1.75)  # a record of the sync may be on its way still
        self.assertEqual(self.sent(), [])
        pump(self.clock, 1)
        self.assertEqual(sorted(self.sent()), ["a0", "b0"])
        self.peer.older_met(OURS, 1000.0)
        self.assertEqual(len(self.cluster.asked), 2, "nothing is owed any more")


class PauseTests(DonorTestCase):
    settings = {"batch_size": 4, "batch_usleep": 500_000}

    def test_so_many_then_a_pause(self) -> None:
        self.fill(5)
        self.receive(SYNC_REQUEST)
        for wait, expected in ((0.0, 4), (0.25, 0), (0.25, 4), (0.5, 2)):
            self.clock.advance(wait)
            self.assertEqual(len(self.sent()), expected)


class NewcomerTests(UsrlocTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.states: list[SyncState] = []
        self.peer.readiness.watch(self.states.append)

    def asked(self) -> list[str]:
        return [node.host for _, node, body, _ in self.cluster.asked if body.startswith(SYNC_REQUEST[:-1])]

    def answer(self, result: Any = 200) -> None:
        """
        The last one who was asked answers.
        """
        waiting = self.cluster.asked[-1][3]
        if isinstance(result, int):
            waiting.callback(FakeResponse(result))
        else:
            waiting.errback(Failure(result))

    def test_the_first_of_all_is_ready(self) -> None:
        self.peer.start(False)
        self.assertEqual(self.states, [SyncState.READY])

    def test_who_finds_nobody_is_ready_after_a_while(self) -> None:
        self.peer.start(True)
        pump(self.clock, 9.75)
        self.assertEqual(self.states, [])
        pump(self.clock, 0.25)
        self.assertEqual(self.states, [SyncState.READY])

    def test_one_is_asked_once_a_node_of_ours_first(self) -> None:
        self.peer.start(True)
        for node in (KAMAILIO, OURS, KAMAILIO):
            self.peer.node_joined(node)
        self.assertEqual((self.asked(), self.states), ([OURS.name.host], [SyncState.SYNCING]))

    def test_ready_when_the_donor_has_sent_all(self) -> None:
        self.peer.start(True)
        self.peer.node_joined(OURS)
        self.answer()
        self.receive(update(self.form, "k1"), OURS)
        self.receive(encode_sync_end(SyncEnd(2)), OURS)  # it overtook one
        self.assertFalse(self.peer.readiness.is_ready)
        self.receive(update(self.form, "k2"), OURS)
        self.assertEqual(self.states, [SyncState.SYNCING, SyncState.READY])
        self.assertEqual(self.clock.getDelayedCalls()[1:], [])

    def test_a_kamailio_has_sent_all_when_it_is_quiet(self) -> None:
        self.cluster.members = [KAMAILIO]
        self.peer.start(True)
        self.peer.node_joined(KAMAILIO)
        self.answer()
        for number in range(4):
            self.receive(update(self.form, f"k{number}"))
            pump(self.clock, 1.75)
            self.assertFalse(self.peer.readiness.is_ready)
        pump(self.clock, 0.25)
        self.assertEqual((self.states[-1], len(self.asked())), (SyncState.READY, 1))

    def test_one_that_is_told_as_well_is_a_donor_like_others_and_asked_once(self) -> None:
        self.cluster.members = [KAMAILIO]
        self.peer.start(True)
        self.peer.exchange(KAMAILIO)
        self.assertEqual(self.states, [SyncState.SYNCING])
        self.answer()
        self.receive(update(self.form, "k1"))
        pump(self.clock, 2)
        self.assertEqual((self.states[-1], len(self.asked())), (SyncState.READY, 1))

    def test_without_sync_there_is_no_exchange(self) -> None:
        """
        What it was not asked for might be newer than what it would be told.
        """
        self.settings = {"sync": False}
        self.setUp()
        self.peer.start(True)
        self.peer.exchange(KAMAILIO)
        pump(self.clock, 5)
        self.assertEqual((self.asked(), self.cluster.put_ones), ([], []))

    def test_a_busy_kamailio_is_never_quiet(self) -> None:
        self.cluster.members = [KAMAILIO]
        self.peer.start(True)
        self.peer.node_joined(KAMAILIO)
        for second in range(62):
            self.receive(update(self.form, "k1", cseq=second + 1, expires_in=900))
            pump(self.clock, 1)
        self.assertTrue(self.peer.readiness.is_ready)

    def test_an_empty_donor_is_replaced_by_the_next(self) -> None:
        self.peer.start(True)
        self.peer.node_joined(OURS)
        self.answer()
        pump(self.clock, 2)
        self.assertEqual(self.asked(), [OURS.name.host, KAMAILIO.name.host])
        self.answer()
        pump(self.clock, 2)
        self.assertEqual(self.states, [SyncState.SYNCING, SyncState.READY])

    def test_a_kamailio_is_not_silent_before_it_has_answered(self) -> None:
        """
        It answers when it has sent all, and its question may be lost on the way.
        """
        self.cluster.members = [KAMAILIO]
        self.peer.start(True)
        self.peer.node_joined(KAMAILIO)
        pump(self.clock, 10)
        self.assertFalse(self.peer.readiness.is_ready)
        self.receive(update(self.form, "k1"))
        self.answer()
        pump(self.clock, 2)
        self.assertTrue(self.peer.readiness.is_ready)
        self.assertEqual(len(self.asked()), 1)

    def test_with_init_with_single_an_empty_donor_is_the_only_one(self) -> None:
        for is_there in (True, False):
            self.init_with_single = True
            self.setUp()
            other = KAMAILIO._replace(name=KAMAILIO.name._replace(host="192.0.2.99"))
            self.cluster.members = [KAMAILIO, other]
            self.peer.start(True)
            self.peer.node_joined(KAMAILIO)
            self.answer(200 if is_there else 500)
            self.assertEqual(len(self.asked()), 1 if is_there else 2)
            if not is_there:
                self.answer()
            pump(self.clock, 2)
            self.assertTrue(self.peer.readiness.is_ready)

    def test_an_empty_donor_of_ours_says_so(self) -> None:
        self.cluster.members = [OURS]
        self.peer.start(True)
        self.peer.node_joined(OURS)
        self.receive(encode_sync_end(SyncEnd(0)), OURS)
        self.assertTrue(self.peer.readiness.is_ready)

    def test_a_donor_that_is_a_newcomer_itself_says_so_and_the_next_is_asked(self) -> None:
        self.peer.start(True)
        self.peer.node_joined(OURS)
        self.answer()
        self.receive(update(self.form, "k1"), OURS)
        self.receive(encode_sync_end(SyncEnd(1, is_partial=True)), OURS)
        self.assertEqual(self.asked(), [OURS.name.host, KAMAILIO.name.host])
        self.assertFalse(self.peer.readiness.is_ready)

    def test_a_donor_that_did_not_send_everything_is_asked_again(self) -> None:
        self.cluster.members = [OURS]
        self.peer.start(True)
        self.peer.node_joined(OURS)
        self.answer()
        pump(self.clock, 2)
        self.assertEqual((self.asked(), self.peer.readiness.is_ready), ([OURS.name.host], True))
        pump(self.clock, 10)
        self.assertEqual(len(self.asked()), 2)
        self.receive(encode_sync_end(SyncEnd(0)), OURS)
        pump(self.clock, 60)
        self.assertEqual(len(self.asked()), 2)

    def test_what_a_donor_has_that_is_gone_is_not_waited_for(self) -> None:
        """
        When it is back it is asked once more, started anew or not.
        """
        for is_new in (True, False):
            self.setUp()
            self.cluster.members = [OURS]
            self.peer.start(True)
            self.peer.node_joined(OURS)
            self.answer()
            self.cluster.members = []
            self.peer.node_down(OURS)
            self.assertTrue(self.peer.newcomer.is_complete)
            pump(self.clock, 20)
            self.cluster.members = [OURS]
            self.assertFalse(self.peer.newcomer.is_complete)
            self.peer.node_up(OURS._replace(is_new=is_new))
            self.assertEqual(len(self.asked()), 2)
            self.receive(encode_sync_end(SyncEnd(0, is_partial=is_new)), OURS)
            self.assertTrue(self.peer.newcomer.is_complete)

    def test_after_newcomers_only_who_comes_later_is_asked_too(self) -> None:
        self.cluster.members = [OURS]
        self.peer.start(True)
        self.peer.node_joined(OURS)
        self.receive(encode_sync_end(SyncEnd(0, is_partial=True)), OURS)
        self.assertEqual((self.peer.readiness.is_ready, self.peer.newcomer.is_complete), (True, False))
        late = OURS._replace(name=OURS.name._replace(host="192.0.2.13"))
        self.cluster.members.append(late)
        self.peer.node_up(late)
        self.assertEqual(self.asked(), [OURS.name.host, late.name.host])
        self.receive(encode_sync_end(SyncEnd(0)), late)
        self.assertTrue(self.peer.newcomer.is_complete)
        self.peer.node_up(late._replace(name=late.name._replace(host="192.0.2.14")))
        self.assertEqual(len(self.asked()), 2)

    def test_one_that_seemed_to_be_new_is_asked_when_it_turns_out_to_be_older(self) -> None:
        """
        Who has lost all others looks for them as if he had just started.
        """
        self.cluster.members = [OURS]
        self.peer.start(True)
        self.peer.node_joined(OURS)
        self.receive(encode_sync_end(SyncEnd(0, is_partial=True)), OURS)
        late = OURS._replace(name=OURS.name._replace(host="192.0.2.13"))
        self.cluster.members.append(late)
        self.peer.node_up(late._replace(is_new=True))
        self.peer.older_met(OURS, 1000.0)
        self.assertEqual(self.asked(), [OURS.name.host])
        self.peer.older_met(late, 1000.0)
        self.assertEqual(self.asked(), [OURS.name.host, late.name.host])

    def test_but_not_for_ever(self) -> None:
        self.cluster.members = [OURS]
        self.peer.start(True)
        self.peer.node_joined(OURS)
        self.receive(encode_sync_end(SyncEnd(0, is_partial=True)), OURS)
        pump(self.clock, 61)
        self.assertTrue(self.peer.newcomer.is_complete)

    def test_a_dying_donor_is_replaced_by_the_next(self) -> None:
        for how in ("refuses", "unreachable", "down", "silent"):
            self.setUp()
            self.peer.start(True)
            self.peer.node_joined(OURS)
            if how == "refuses":
                self.answer(404)
            elif how == "unreachable":
                self.answer(UnreachableError("gone"))
            else:
                self.answer()
                self.receive(update(self.form), OURS)
                if how == "down":
                    self.peer.node_down(OURS._replace(status=NodeStatus.NOT_ACTIVE))
                else:
                    pump(self.clock, 2)
            self.assertEqual(self.asked(), [OURS.name.host, KAMAILIO.name.host], how)
            self.assertFalse(self.peer.readiness.is_ready)

    def test_a_kamailio_that_comes_back_is_asked_again(self) -> None:
        self.cluster.members = []
        self.peer.start(False)
        self.peer.node_joined(OURS)  # the first contact of a node that began alone
        self.peer.node_joined(OURS)
        self.peer.node_joined(KAMAILIO)
        self.peer.node_joined(KAMAILIO)
        self.assertEqual(self.asked(), [OURS.name.host, KAMAILIO.name.host, KAMAILIO.name.host])
        self.assertEqual(self.states, [SyncState.READY])


    def test_one_that_took_us_for_gone_is_asked_once_more_when_we_have_everything(self) -> None:
        """
        Be it the donor or not: what its phones did meanwhile it has told to others only.
        """
        self.cluster.members = [KAMAILIO]
        self.peer.start(True)
        self.peer.node_joined(KAMAILIO)
        self.answer()
        self.receive(update(self.form, "k1"))
        self.peer.taken_back(KAMAILIO)
        self.assertEqual((len(self.asked()), self.peer.readiness.is_ready), (1, False))
        pump(self.clock, 2)
        self.assertEqual((len(self.asked()), self.peer.readiness.is_ready), (2, True))
        self.answer()
        self.peer.taken_back(KAMAILIO)
        self.assertEqual(len(self.asked()), 3)

    def test_an_older_one_of_ours_is_asked_where_only_a_kamailio_was_there(self) -> None:
        """
        This node was started when it was cut off from that one; the Kamailio may have been started then, too.
        """
        self.cluster.members = [KAMAILIO]
        self.peer.start(True)
        self.peer.node_joined(KAMAILIO)
        self.answer()
        self.peer.older_met(OURS, 1000.0)
        self.assertEqual(self.asked(), [KAMAILIO.name.host])  # not before it knows what the Kamailio has
        pump(self.clock, 5)
        self.cluster.members = [KAMAILIO, OURS]
        for _ in range(2):
            self.peer.older_met(OURS, 1000.0)
            self.receive(encode_sync_end(SyncEnd(0)), OURS)
        self.assertEqual(self.asked(), [KAMAILIO.name.host, OURS.name.host])

    def test_and_where_the_donor_was_started_apart_from_it(self) -> None:
        """
        The donor took itself for complete, as it had been alone for a while.
        """
        other = OURS._replace(name=OURS.name._replace(port=5070))
        for is_met_before in (False, True):
            for donors_age, is_asked in ((20, True), (96, False), (500, False)):
                self.setUp()
                self.cluster.members = [OURS]
                self.peer.start(True)
                self.peer.node_joined(OURS)
                self.answer()
                self.cluster.members = [OURS, other]
                if is_met_before:
                    self.peer.older_met(other, 100.0)
                self.receive(encode_sync_end(SyncEnd(0, age=donors_age)), OURS)
                self.peer.older_met(other, 100.0)
                found = [node.port for _, node, _, _ in self.cluster.asked]
                self.assertEqual(found, [5060, 5070] if is_asked else [5060])
                self.assertEqual(self.peer.newcomer.end_of_sync(1).age, donors_age)

    def test_one_that_is_gone_by_then_is_not(self) -> None:
        self.peer.start(True)
        self.peer.node_joined(OURS)
        self.peer.taken_back(KAMAILIO)
        self.cluster.members = [OURS]
        self.receive(encode_sync_end(SyncEnd(0)), OURS)
        self.assertEqual((self.asked(), self.peer.readiness.is_ready), ([OURS.name.host], True))

    def test_one_that_is_the_first_to_be_heard_of_is_the_donor(self) -> None:
        self.cluster.members = [KAMAILIO]
        self.peer.start(True)
        self.peer.taken_back(KAMAILIO)
        self.assertEqual((self.asked(), self.states), ([KAMAILIO.name.host], [SyncState.SYNCING]))


class NoSyncTests(UsrlocTestCase):
    settings = {"sync": False}

    def test_nobody_is_asked(self) -> None:
        self.peer.start(True)
        self.peer.node_joined(OURS)
        self.peer.taken_back(KAMAILIO)
        self.peer.older_met(OURS, 1000.0)
        self.assertEqual((self.cluster.asked, self.peer.readiness.is_ready), ([], True))


class LookupTests(UsrlocTestCase):
    """
    A user whom a newcomer does not know yet.
    """

    def setUp(self) -> None:
        super().setUp()
        self.lookup = RemoteLookup(self.clock, self.store, self.form, self.peer, self.cluster, SOURCE)

    def find(self) -> Deferred[Any]:
        return self.lookup.find("alice@example.org")

    def not_yet(self, finding: Deferred[Any]) -> None:
        refusal = self.failureResultOf(finding, RequestRefused).value
        self.assertEqual((refusal.status, refusal.headers), (480, (("Retry-After", "5"),)))

    def sync_from(self, *members: Any) -> None:
        self.cluster.members = list(members)
        self.peer.start(True)
        self.peer.node_joined(members[0])

    def test_a_node_that_has_all_asks_nobody(self) -> None:
        self.peer.start(False)
        self.assertEqual((self.successResultOf(self.find()), self.cluster.asked), ((), []))

    def test_nobody_to_ask(self) -> None:
        self.not_yet(self.find())
        self.sync_from(KAMAILIO)
        self.not_yet(self.find())

    def test_the_donor_knows(self) -> None:
        self.sync_from(OURS)
        for answer, expected in (
            ({"1": json.loads(update(self.form, "k1", xavps='{"a":"b"}'))}, ["k1"]), ({}, []),
        ):  # fmt: skip
            self.store.update("alice@example.org", lambda _: (), Origin.LOADED)
            finding = self.find()
            channel, node, body, waiting = self.cluster.asked[-1]
            self.assertEqual((channel, node, body), ("sipdmq", OURS.name, b'{"lookup": {"aor": "alice@example.org"}}'))
            waiting.callback(FakeResponse(200, json.dumps({"lookup": {"multi": answer}}).encode()))
            self.assertEqual([each.ruid for each in self.successResultOf(finding)], expected)

    def test_the_donor_says_nothing_of_use(self) -> None:
        self.sync_from(OURS)
        for result in (FakeResponse(404), FakeResponse(200, b"x"), FakeResponse(200, b"[]"), FakeResponse(200, b"{}"),
                       FakeResponse(200, b'{"lookup":5}'), FakeResponse(200, b"\xff"), Failure(UnreachableError("x"))):
            finding = self.find()
            self.cluster.asked[-1][3].callback(result)
            self.not_yet(finding)

    def test_the_donor_is_slow(self) -> None:
        self.sync_from(OURS)
        finding = self.find()
        self.clock.advance(0.5)
        self.not_yet(finding)
        self.cluster.asked[-1][3].callback(FakeResponse(200, b"{}"))

    def test_a_flood_is_not_passed_on(self) -> None:
        self.sync_from(OURS)
        waiting = [self.find() for _ in range(200)]
        self.not_yet(self.find())
        self.assertEqual(len(self.cluster.asked), 201)
        self.clock.advance(0.5)
        for each in waiting:
            self.not_yet(each)
        self.find().addErrback(lambda _: None)
        self.assertEqual(len(self.cluster.asked), 202)

    def test_the_other_side(self) -> None:
        message = ChannelMessage("sipdmq", OURS, SOURCE, "", b"")
        self.put(make_binding("r1", flow="f1", expires_in=int(EPOCH / 100)))
        self.assertIsNone(self.lookup.answer({"aor": "alice@example.org"}, message))  # it does not know itself yet
        self.peer.start(False)
        self.assertIsNone(self.lookup.answer({"aor": 5}, message))
        (record,) = self.successResultOf(self.lookup.answer({"aor": "alice@example.org"}, message))["multi"].values()
        self.assertEqual((record["ruid"], record["path"][:8]), ("r1", "<sip:f1."))
        self.assertEqual(self.successResultOf(self.lookup.answer({"aor": "x@example.org"}, message)), {"multi": {}})
