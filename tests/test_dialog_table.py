"""
What dialogs are called, how they go on, and how they are found and counted.
"""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dialog.dialogs import NO_LEG, merged
from sipdmq.dialog.hashes import core_hash, did_text, find_did
from sipdmq.dialog.table import DialogTable
from sipdmq.interfaces.dialogs import Dialog, DialogId, DialogState, EndedDialog, Leg, Profile

UNCONFIRMED, EARLY, CONFIRMED, DELETED = (
    DialogState.UNCONFIRMED, DialogState.EARLY, DialogState.CONFIRMED, DialogState.DELETED,
)  # fmt: skip
ALICE = Profile("caller", "alice", "p1")


def dialog(number: int = 1, state: DialogState = UNCONFIRMED, **changes: object) -> Dialog:
    made = Dialog(
        DialogId(3336, number), f"call{number}", "sip:a@h", "sip:b@h", "sip:b@h", Leg("t1", "1", "", "sip:a@c"),
        Leg("t2", "0", "", "sip:b@c") if state >= CONFIRMED else NO_LEG, state, 1000, 1010 if state >= CONFIRMED else 0,
        600,
    )  # fmt: skip
    return made._replace(**changes)  # type: ignore[arg-type]


class NameTests(SynchronousTestCase):
    """
    WIRE §9, seen on a real Kamailio.
    """

    def test_the_hash(self) -> None:
        self.assertEqual((core_hash(b"call1", 4096), core_hash(b"call2", 4096)), (3336, 3333))

    def test_the_parameter(self) -> None:
        self.assertEqual(did_text(DialogId(3336, 7643)), ";did=80d.bdd1")
        self.assertEqual(find_did("<sip:192.0.2.1;lr;did=80d.bdd1;x=1>"), DialogId(3336, 7643))
        for did in ("", ";did=", ";did=80d", ";did=xyz.1", ";did=1.123456789", ";did=1.2.3"):
            route = f"<sip:h;lr{did}>"
            self.assertIsNone(find_did(route), route)

    @given(st.integers(0, 4095), st.integers(1, 2**32 - 1))
    def test_and_back(self, entry: int, number: int) -> None:
        self.assertEqual(find_did(f"<sip:h;lr{did_text(DialogId(entry, number))}>"), DialogId(entry, number))

    @given(st.binary(max_size=100), st.sampled_from((1, 2, 4096, 2**20)))
    def test_any_call_id_has_a_place(self, data: bytes, size: int) -> None:
        self.assertTrue(0 <= core_hash(data, size) < size)


class MergeTests(SynchronousTestCase):
    def test_it_only_goes_forward(self) -> None:
        confirmed = dialog(state=CONFIRMED)
        self.assertIs(merged(confirmed, dialog(state=EARLY)), confirmed)

    def test_it_changes_hands_only_as_it_goes_on(self) -> None:
        early = dialog(state=EARLY, told_by="sip:o", changed_at=5.0)
        later = merged(early, dialog(state=EARLY, start_ts=7, told_by="sip:p", changed_at=9.0))
        self.assertEqual((later.told_by, later.start_ts, later.changed_at), ("sip:o", 7, 9.0))
        self.assertEqual(merged(early, dialog(state=CONFIRMED, told_by="sip:p")).told_by, "sip:p")

    def test_a_leg_that_says_less_takes_nothing_away(self) -> None:
        confirmed = dialog(state=CONFIRMED)
        for said, expected in (
            (Leg("t2"), confirmed.callee),
            (Leg("t2", "0", "<sip:r;lr>"), Leg("t2", "0", "<sip:r;lr>", "sip:b@c")),
            (Leg("t3", "0"), Leg("t3", "0")),
            (NO_LEG, confirmed.callee),
        ):
            self.assertEqual(merged(confirmed, dialog(state=CONFIRMED, callee=said)).callee, expected)
        self.assertEqual(merged(dialog(), confirmed).state, CONFIRMED)

    def test_in_any_order_the_same(self) -> None:
        said = [
            dialog(profiles=(ALICE,), variables=(("note", "x"),)), dialog(state=EARLY), dialog(state=CONFIRMED),
            dialog(state=DELETED, caller=NO_LEG, callee=NO_LEG, start_ts=0, lifetime=0),
        ]  # fmt: skip
        outcomes = set()
        for order in permutations(said):
            known = dialog()
            for each in order:
                known = merged(known, each)
            outcomes.add((known.state, known.caller))
        self.assertEqual(outcomes, {(DELETED, said[0].caller)})

    def test_what_says_nothing_takes_nothing_away(self) -> None:
        known = dialog(state=CONFIRMED, profiles=(ALICE,), variables=(("note", "x"),))
        end = dialog(state=DELETED, caller=NO_LEG, callee=NO_LEG, start_ts=0, lifetime=0, told_by="sip:x")
        ended = merged(known, end)
        self.assertEqual(
            (ended.callee, ended.start_ts, ended.profiles, ended.variables, ended.told_by),
            (known.callee, 1010, (ALICE,), (("note", "x"),), "sip:x"),
        )

    def test_what_is_known_is_no_news(self) -> None:
        known = dialog(state=CONFIRMED)
        self.assertIs(merged(known, known._replace(told_by="sip:x", changed_at=5.0)), known)


class TableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.table = DialogTable(limit=3, early_timeout=300, end_timeout=5)

    def test_found_by_what_passes(self) -> None:
        self.table.put(dialog(state=CONFIRMED))
        for tags in (("t1", "t2"), ("t2", "t1"), ("t1",)):
            self.assertIsNotNone(self.table.find("call1", *tags), tags)
        for call_id, *others in (("call2", "t1"), ("call1", "t2"), ("call1", "t1", "t3"), ("call1", "t3", "t1")):
            self.assertIsNone(self.table.find(call_id, *others), others)

    def test_counted_while_they_last(self) -> None:
        for number in (1, 2):
            self.table.put(dialog(number, profiles=(ALICE, Profile("all"))))
        self.table.put(dialog(3, profiles=(Profile("caller", "bob"),)))
        self.assertEqual(self.sizes(), (2, 1, 3, 2))
        self.table.put(dialog(1, state=DELETED, profiles=(ALICE, Profile("all"))))
        self.assertEqual(self.sizes(), (1, 1, 2, 1))
        for number in (1, 2, 3):
            self.table.forget(DialogId(3336, number), "", 1000)
        self.assertEqual(self.sizes(), (0, 0, 0, 0))
        self.assertEqual((len(self.table), dict(self.table._sizes), dict(self.table._totals)), (0, {}, {}))

    def sizes(self) -> tuple[int, ...]:
        size = self.table.profile_size
        return size("caller", "alice"), size("caller", "bob"), size("caller"), size("all", "")

    def test_it_has_an_end(self) -> None:
        self.assertEqual([self.table.put(dialog(number)) for number in range(1, 6)], [True, True, True, False, False])
        self.assertTrue(self.table.put(dialog(1, state=EARLY)), "that is no new one")

    def test_when_their_time_is_over(self) -> None:
        self.table.put(dialog(1))
        self.table.put(dialog(2, state=CONFIRMED))
        self.assertEqual(self.table.next_at(), 1300)
        self.assertEqual([each.id.h_id for each in self.table.due(1300)], [1])
        self.table.put(dialog(1, state=DELETED, changed_at=1300.0))
        self.assertEqual([each.id.h_id for each in self.table.due(1305)], [1])
        self.table.forget(DialogId(3336, 1), "", 1000)
        self.assertEqual(self.table.due(1609.9), [])
        self.assertEqual([each.id.h_id for each in self.table.due(1610)], [2])

    def test_one_that_is_answered_lives_longer(self) -> None:
        self.table.put(dialog(1))
        self.table.put(dialog(1, state=CONFIRMED))
        self.assertEqual(self.table.due(1300), [])
        self.assertEqual(self.table.next_at(), 1610)

    def test_postponed_once(self) -> None:
        self.table.put(dialog(1))
        self.assertEqual(len(self.table.due(1300)), 1)
        self.assertTrue(self.table.postpone(DialogId(3336, 1), 1300, 60))
        self.assertEqual((self.table.due(1359), len(self.table.due(1360))), ([], 1))
        self.assertFalse(self.table.postpone(DialogId(3336, 1), 1360, 60))

    def test_what_was_forgotten_is_remembered_for_a_while(self) -> None:
        name = DialogId(3336, 1)
        self.table.put(dialog(1, DELETED, told_by="sip:o", changed_at=1100.0))
        self.table.forget(name, "sip:late", 1105)
        self.table.forget(name, "sip:later", 1106)
        self.assertEqual(self.table.ended(name), EndedDialog(name, "sip:o", 1100.0), "who ended it, and when")
        self.table.put(dialog(2))
        self.table.forget(DialogId(3336, 2), "sip:o", 1200)
        self.table.put(dialog(3))
        self.assertEqual(self.table.names(), [DialogId(3336, number) for number in (1, 2, 3)])
        for number in range(10, 10_009):
            self.table.forget(DialogId(1, number), "sip:o", 1300)
        self.assertIsNone(self.table.ended(name))
        self.assertEqual(self.table.ended(DialogId(3336, 2)), EndedDialog(DialogId(3336, 2), "sip:o", 1200))
