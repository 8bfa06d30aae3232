"""
Which record counts: the rule as a table, and its properties.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.core.contacts import PERMANENT, identity, known_until
from sipdmq.core.domains import Domains
from sipdmq.dmq.conflict import Answer, Limits, Merged, merge
from sipdmq.dmq.merging import merge_all
from sipdmq.dmq.order import rank
from sipdmq.dmq.owner import FlowTokens
from sipdmq.dmq.usrloc_form import UsrlocForm
from sipdmq.records import Binding, NodeName, Protocol
from tests.location_store_tests import EPOCH, make_binding

NOW = EPOCH + 1000
FORM = UsrlocForm(
    Domains(["example.org"], {}, []), FlowTokens(b"k" * 32, NodeName(Protocol.UDP, "192.0.2.1", 5060))
)
LIMITS = Limits(contacts=50)


def record(ruid: str = "r1", contact: str = "sip:a@h1", **changes: Any) -> Binding:
    """
    A record as another node tells of it.
    """
    usual: dict[str, Any] = {"call_id": "c1", "cseq": 5, "last_modified": EPOCH, "methods": 7, "contact": contact}
    return make_binding(ruid, expires_in=5000)._replace(**(usual | changes))


def gone(ruid: str = "r1", contact: str = "sip:a@h1", **changes: Any) -> Binding:
    return record(ruid, contact, removed=True, **changes)


def run(records: Sequence[Binding], *incoming: Binding) -> Merged:
    """
    Merge one after the other.

    @return: what became of the last one.
    """
    merged = Merged(records)
    for each in incoming:
        merged = merge(merged.records, each, NOW, LIMITS, FORM.content)
    return merged


class MergeAllTests(SynchronousTestCase):
    """
    All of one message, whose identities are looked up once.
    """

    def test_as_one_after_the_other(self) -> None:
        for seed in range(300):
            chance = random.Random(seed)
            records = [
                (gone if chance.random() < 0.4 else record)(
                    f"r{chance.randrange(3)}",
                    chance.choice(("sip:a@h1", "sip:a@h2", "sip:a@h3;x=" + 120 * "y")),
                    last_modified=EPOCH + chance.randrange(6),
                    cseq=chance.randrange(4),
                )
                for _ in range(8)
            ]
            known = tuple(run((), *records[:4]).records)
            outcomes: list[Merged] = []
            found = merge_all(records[4:], NOW, LIMITS, FORM.content, outcomes, known)
            self.assertEqual(list(found), list(run(known, *records[4:]).records), f"seed {seed}")


def live(records: Sequence[Binding]) -> list[tuple[str, int]]:
    return sorted([(each.contact, each.cseq) for each in records if not each.removed])


def essence(records: Sequence[Binding]) -> list[Any]:
    """
    What is to be the same on all nodes, tombstones as far as they count.
    """
    return sorted(
        (
            identity(each),
            rank(each, FORM.content),
            each.removed,
            each.is_hidden,
            each.ruid,
            each.other_ruids,
            known_until(each),
            each.expires_at,
            each.xavps,
        )
        for each in records
    )


class OrderTests(SynchronousTestCase):
    """
    The greater of C{(last_modified, call_id, cseq, removed, server_id, ruid, content)} counts.
    """

    def test_each_place_decides_when_those_before_are_equal(self) -> None:
        base = record()
        for greater in (
            record(last_modified=EPOCH + 1, call_id="a", cseq=1),
            record(call_id="c2", cseq=1),
            record(cseq=6),
            gone(),
            record(server_id=1),
            record("r2"),
            record(user_agent="x"),
        ):
            merged = run([base], greater)
            self.assertEqual(rank(merged.records[0], FORM.content), rank(run([], greater).records[0], FORM.content))
            self.assertIsNone(merged.answer)
            merged = run(run([], greater).records, base)
            assert merged.answer is not None
            self.assertEqual(merged.answer, Answer(merged.records[0], "r1", greater.ruid == "r2"))

    def test_the_same_again_changes_nothing(self) -> None:
        for each in (record(), gone(), record(xavps='{"a":"b"}')):
            first = run([], each).records
            self.assertEqual(run(first, each), Merged(first))
            self.assertIs(run(first, each).records, first)

    def test_one_change_under_two_names_is_whose_it_was(self) -> None:
        """
        A Kamailio sends it back by the name that it has for the contact, to one node perhaps: it repairs nobody.
        """
        for ours, echo, teller in (
            (record("r1"), record("r2", told_by="K"), ""),
            (record("r2"), record("r1", told_by="K"), ""),
            (record("r1", told_by="B"), record("r2", told_by="K"), "B"),
            (record("r1"), record("r2", told_by="K", cseq=6), "K"),
            (record("r1"), record("r2", told_by="K", last_modified=EPOCH + 1), "K"),
            (record("r1"), gone("r2", told_by="K"), "K"),
        ):
            (kept,) = run([ours], echo).records
            self.assertEqual((kept.ruid, kept.told_by), (max(ours, echo, key=lambda each: each.ruid).ruid, teller))

    def test_another_contact_is_another_record(self) -> None:
        self.assertEqual(len(run([record()], record("r2", "sip:a@h2")).records), 2)

    def test_a_contact_in_another_spelling_is_the_same(self) -> None:
        self.assertEqual(live(run([record()], record("r2", "sip:%61@H1", cseq=6)).records), [("sip:%61@H1", 6)])

    def test_instance_and_reg_id_go_before_the_contact(self) -> None:
        which = {"instance": "<urn:1>", "reg_id": 1}
        merged = run([record(**which)], record("r2", "sip:elsewhere", cseq=6, **which))
        self.assertEqual(live(merged.records), [("sip:elsewhere", 6)])

    def test_what_lies_in_the_future_is_refused(self) -> None:
        merged = run([record()], record(last_modified=NOW + LIMITS.clock_error + 1))
        self.assertEqual(merged.refused, "last_modified lies in the future")
        self.assertEqual(live(merged.records), [("sip:a@h1", 5)])


class UnknownTimeTests(SynchronousTestCase):
    """
    C{last_modified} 0: the sender does not know.
    """

    def test_within_a_call_id_by_cseq(self) -> None:
        for start in (record(), *run([], gone()).records):
            self.assertEqual(live(run([start], record(last_modified=0, cseq=6)).records), [("sip:a@h1", 6)])
            self.assertNotIn(("sip:a@h1", 4), live(run([start], record(last_modified=0, cseq=4)).records))

    def test_otherwise_over_a_live_record_never_over_a_removal(self) -> None:
        other = record(last_modified=0, call_id="a", cseq=1)
        (kept,) = run([record()], other).records
        self.assertEqual((kept.call_id, kept.last_modified), ("a", EPOCH + 1))
        (kept,) = run([record()], other._replace(call_id="z")).records
        self.assertEqual((kept.call_id, kept.last_modified), ("z", EPOCH))
        self.assertEqual(live(run([], gone(), other).records), [])

    def test_a_removal_by_name_alone(self) -> None:
        """
        C{{"action":2,"aor":"alice","ruid":"r1"}}
        """
        bare = make_binding("r1")._replace(
            contact="", call_id="", cseq=0, last_modified=0, removed=True, expires_at=PERMANENT
        )
        self.assertEqual(live(run([record(), record("r2", "sip:b")], bare).records), [("sip:b", 5)])
        self.assertEqual(live(run([record("r3", other_ruids=("r1",))], bare).records), [])
        self.assertEqual(run([record("r3")], bare).records, [record("r3")])


class NameTests(SynchronousTestCase):
    """
    A ruid names a record in messages, and moves with a phone at Kamailio.
    """

    def test_other_names_are_remembered_at_most_four(self) -> None:
        (kept,) = run([], *[record(f"r{number}", cseq=number) for number in range(9)]).records
        self.assertEqual((kept.ruid, kept.other_ruids), ("r8", ("r0", "r1", "r2", "r3")))

    def test_a_phone_that_got_another_address(self) -> None:
        """
        Without reg-id it is another contact; the ruid tells that it is the same phone.
        """
        moved = record("r1", "sip:a@h2", last_modified=EPOCH + 5, instance="<urn:1>")
        for order in ((record(instance="<urn:1>"), moved), (moved, record(instance="<urn:1>"))):
            self.assertEqual(live(run([], *order).records), [("sip:a@h2", 5)])
        late = run([moved], record(instance="<urn:1>"))
        self.assertEqual(late.answer, Answer(moved, "r1", False))

    def test_a_removal_of_what_is_known_elsewhere(self) -> None:
        removal = gone("r1", "sip:a@h2", last_modified=EPOCH + 9)
        for order in ((record(), removal), (removal, record())):
            self.assertEqual(live(run([], *order).records), [])
        self.assertEqual(live(run([], record(last_modified=EPOCH + 10), removal).records), [("sip:a@h1", 5)])

    def test_removals_by_several_names_are_one(self) -> None:
        records = run([], record("r1"), *[gone(name, last_modified=EPOCH + 1) for name in ("r2", "r1", "r3")]).records
        self.assertEqual([(each.removed, each.other_ruids) for each in records], [(True, ("r1", "r2"))])
        for one, other in (("r1", "r2"), ("r2", "r1")):
            self.assertIsNone(run([], gone(one), gone(other)).answer)


class MemoryTests(SynchronousTestCase):
    """
    A removal is remembered while somebody may still have what was removed.
    """

    def until(self, *incoming: Binding) -> int:
        (kept,) = run([], *incoming).records
        self.assertTrue(kept.removed)
        return kept.expires_at - NOW

    def test_how_long(self) -> None:
        later = {"last_modified": EPOCH + 1}
        for expires, expected in ((NOW + 5000, 5060), (NOW + 100, 600), (NOW - 5, 600), (PERMANENT, 86_400)):
            self.assertEqual(self.until(record(expires_at=expires), gone(expires_at=NOW, **later)), expected)
            self.assertEqual(self.until(gone(expires_at=NOW, **later), record(expires_at=expires)), expected)
            self.assertEqual(self.until(gone(expires_at=expires)), expected)

    def test_an_older_version_that_lived_longer_counts(self) -> None:
        long, short = record(expires_at=NOW + 7000), record(cseq=6, expires_at=NOW + 60)
        self.assertEqual(self.until(long, short, gone(cseq=7, expires_at=NOW + 60)), 7060)

    def test_what_expired_on_its_way_ends_what_was_before(self) -> None:
        over = record(cseq=6, expires_at=NOW)
        for order in ((record(), over), (over, record())):
            merged = run([], *order)
            self.assertEqual(live(merged.records), [])
        self.assertIsNone(run([record(cseq=7)], over).answer)


class BoundTests(SynchronousTestCase):
    def test_too_many(self) -> None:
        full = run([], *[record(f"r{number}", f"sip:a{number}@h") for number in range(50)]).records
        self.assertEqual(run(full, record("new", "sip:new@h")).refused, "too many contacts")
        self.assertEqual(run(full, record("r3", "sip:a3@h", cseq=9)).refused, "")
        removed = run(full, *[gone(f"r{number}", f"sip:a{number}@h") for number in range(50)]).records
        self.assertEqual(run(removed, gone("new", "sip:new@h")).refused, "too many removed contacts")

    def test_too_long(self) -> None:
        long = [record(f"r{number}", f"sip:a{number}@h;x=" + 1900 * "x") for number in range(16)]
        full = run([], *long).records
        self.assertEqual((len(full), run(full, long[15]).refused), (15, "contacts too long together"))


CONTACTS = ("sip:a@h1", "sip:a@h2", "sip:a@h1;x=1", "sip:a@h1;x=2", "sip:%61@h1")
RECORDS = st.builds(
    lambda ruid, contact, instance, call_id, cseq, modified, expires, removed, xavps: record(
        ruid, contact, instance=instance[0], reg_id=instance[1], call_id=call_id, cseq=cseq,
        last_modified=EPOCH + modified, expires_at=NOW + expires, removed=removed, xavps=xavps,
    ),
    st.sampled_from(("r1", "r2", "r3", "r4", "r5", "r6", "r7")),
    st.sampled_from(CONTACTS),
    st.sampled_from((("", 0), ("<urn:1>", 0), ("<urn:1>", 1))),
    st.sampled_from(("c1", "c2")),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from((-10, 30, 5000)),
    st.booleans(),
    st.sampled_from(("", '{"a":"b"}')),
)  # fmt: skip


class PropertyTests(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(st.lists(RECORDS, max_size=9), st.randoms(use_true_random=False))
    def test_order_and_repetition_do_not_matter(self, incoming: list[Binding], chance: random.Random) -> None:
        expected = essence(run([], *incoming).records)
        shuffled = incoming + chance.sample(incoming, len(incoming) // 2)
        chance.shuffle(shuffled)
        self.assertEqual(essence(run([], *shuffled).records), expected)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(RECORDS, min_size=2, max_size=3))
    def test_the_order_is_total(self, given: list[Binding]) -> None:
        """
        Of two that differ in rank one is greater, of two of the same rank nobody sees a difference.
        """
        for one, other in itertools.permutations(given, 2):
            first, second = rank(one, FORM.content), rank(other, FORM.content)
            self.assertEqual((first < second) + (first == second) + (first > second), 1)
            if first == second and not one.removed:
                self.assertEqual(FORM.content(one), FORM.content(other))

    @settings(max_examples=100, deadline=None)
    @given(st.lists(RECORDS, max_size=6), st.lists(RECORDS, max_size=6))
    def test_a_removal_stays(self, before: list[Binding], after: list[Binding]) -> None:
        """
        Nothing that is older brings back what was removed.
        """
        removal = gone("r1", "sip:a@h1", last_modified=EPOCH + 100)
        older = [each for each in after if identity(each) == identity(removal)]
        records = run([], *before, removal, *older).records
        self.assertFalse([each for each in records if identity(each) == identity(removal) and not each.removed])

    @settings(max_examples=200, deadline=None)
    @given(st.lists(RECORDS, max_size=6), st.lists(RECORDS, max_size=6), RECORDS)
    def test_two_nodes_that_answer_each_other_fall_silent(
        self, one: list[Binding], other: list[Binding], first: Binding
    ) -> None:
        states = [run([], *one).records, run([], *other).records]
        message: Binding | None = first
        for turn in range(20):
            if message is None:
                return
            merged = merge(states[turn % 2], message, NOW, LIMITS, FORM.content)
            states[turn % 2] = merged.records
            message = merged.answer and merged.answer.winner._replace(other_ruids=(), known_until=0, is_hidden=False)
        self.fail("they still answer")
