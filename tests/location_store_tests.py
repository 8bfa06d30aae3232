"""
What every location store does, whatever it keeps its bindings in: a mix-in for the tests of each.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from sipdmq.interfaces.location import IBindingListener, ILocationStore
from sipdmq.records import Binding, BindingChange, Decide, Origin, Page, PageCursor, Update

__all__ = ["EPOCH", "LocationStoreTests", "RecordingListener", "make_binding"]

EPOCH = 1_700_000_000
"""The second since the epoch at which the clock of a test stands at 0."""

ALICE = "alice@example.org"
BOB = "bob@example.org"

Case = SynchronousTestCase if TYPE_CHECKING else object


def make_binding(ruid: str = "r1", aor: str = ALICE, expires_in: int = 60, **changes: Any) -> Binding:
    """
    A live binding.

    @param expires_in: seconds from L{EPOCH}.
    @param changes: fields that differ from the usual.
    """
    binding = Binding(
        aor=aor, ruid=ruid, contact=f"sip:{ruid}@192.0.2.7:5062", params="", q=-1, expires_at=EPOCH + expires_in,
        call_id=f"{ruid}@192.0.2.7", cseq=1, instance="", reg_id=0, path="", received="", socket="udp:192.0.2.1:5060",
        flow="", user_agent="", last_modified=EPOCH,
    )  # fmt: skip
    return binding._replace(**changes)


@implementer(IBindingListener)
class RecordingListener:
    """
    Remembers what it was told, as C{(event, ruid, origin)}.
    """

    def __init__(self) -> None:
        self.changes: list[BindingChange] = []

    def binding_changed(self, change: BindingChange) -> None:
        self.changes.append(change)

    def take(self) -> list[tuple[str, str, Origin]]:
        """
        What it was told since it was asked last.
        """
        changes, self.changes = self.changes, []
        return [
            ("gone" if c.is_gone else "new" if c.previous is None else "changed", c.binding.ruid, c.origin)
            for c in changes
        ]


@implementer(IBindingListener)
class RaisingListener:
    """
    A watcher with a bug.
    """

    def binding_changed(self, change: BindingChange) -> None:
        raise RuntimeError("a listener with a bug")


class LocationStoreTests(Case):
    """
    For any L{ILocationStore}. Who mixes it in provides C{make_store}.
    """

    def make_store(self, clock: Clock) -> Any:
        """
        @param clock: to wait with; its second 0 is L{EPOCH}.
        @return: an empty L{ILocationStore}
        """
        raise NotImplementedError

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = self.make_store(self.clock)
        self.listener = RecordingListener()
        self.store.watch(self.listener)

    # asking

    def put(self, *bindings: Binding, origin: Origin = Origin.LOCAL) -> Update:
        """
        Replace all records of the AoR of the first one.
        """
        return self.update(bindings[0].aor, lambda _: bindings, origin)

    def update(self, aor: str, decide: Decide, origin: Origin = Origin.LOCAL) -> Update:
        """
        @return: of what is made at once.
        """
        update: Update = self.successResultOf(maybeDeferred(self.store.update, aor, decide, origin))
        return update

    def clear(self, aor: str, origin: Origin = Origin.LOCAL) -> Update:
        """
        Remove all records without a trace.
        """
        return self.update(aor, lambda _: (), origin)

    def ruids(self, aor: str = ALICE) -> list[str]:
        """
        What a look-up finds.
        """
        return [binding.ruid for binding in self.successResultOf(self.store.lookup(aor))]

    def records(self, aor: str) -> tuple[Binding, ...]:
        """
        All records of an AoR, as C{decide} is given them.
        """
        given: list[tuple[Binding, ...]] = []

        def decide(records: tuple[Binding, ...]) -> tuple[Binding, ...]:
            given.append(records)
            return records

        self.update(aor, decide)
        return given[0]

    def pages(self) -> list[Page]:
        """
        The whole store, page by page.
        """
        pages: list[Page] = []
        cursor: PageCursor | None = None
        while not pages or cursor is not None:
            pages.append(self.successResultOf(self.store.pages(cursor)))
            cursor = pages[-1].cursor
        return pages

    # the tests

    def test_the_interface(self) -> None:
        verifyObject(ILocationStore, self.store)

    def test_nobody_is_an_empty_tuple(self) -> None:
        self.assertEqual(self.successResultOf(self.store.lookup("nobody@example.org")), ())

    def test_bindings_come_best_q_first_then_the_newest(self) -> None:
        old, new = {"last_modified": EPOCH - 9}, {"last_modified": EPOCH}
        for given, expected in (
            ([("a", 100, new), ("b", 900, old), ("c", 500, new)], ["b", "c", "a"]),
            ([("a", 500, old), ("b", 500, new)], ["b", "a"]),
            ([("a", 999, new), ("b", -1, old), ("c", 0, new)], ["b", "a", "c"]),  # without q as good as 1
            ([("a", 1000, old), ("b", -1, new)], ["b", "a"]),
            ([("a", 0, new)], ["a"]),
        ):
            update = self.put(*[make_binding(ruid, q=q, **when) for ruid, q, when in given])
            self.assertEqual([binding.ruid for binding in update.bindings], expected)
            self.assertEqual(self.ruids(), expected)

    def test_an_update_is_given_all_records_and_tells_what_it_did(self) -> None:
        first = make_binding("a")
        update = self.put(first)
        self.assertEqual(update, Update((first,), (BindingChange(first, None, Origin.LOCAL),)))
        self.assertEqual(self.records(ALICE), (first,))
        self.assertEqual(self.records(BOB), ())
        second = first._replace(cseq=2)
        update = self.put(second, make_binding("b", removed=True))
        self.assertEqual(update.bindings, (second,))
        self.assertEqual(
            set(update.changes),
            {
                BindingChange(second, first, Origin.LOCAL),
                BindingChange(make_binding("b", removed=True), None, Origin.LOCAL),
            },
        )

    def test_decide_may_raise_and_nothing_changes(self) -> None:
        self.put(make_binding("a"))
        self.listener.take()

        def decide(records: tuple[Binding, ...]) -> tuple[Binding, ...]:
            raise ValueError("no")

        failing: Deferred[Update] = self.store.update(ALICE, decide, Origin.LOCAL)
        self.failureResultOf(failing, ValueError)
        self.failureResultOf(self.store.update(BOB, decide, Origin.LOCAL), ValueError)
        self.assertEqual((self.ruids(), self.ruids(BOB), self.store.count()), (["a"], [], 1))
        self.assertEqual(self.listener.take(), [])

    def test_aors_do_not_touch_each_other(self) -> None:
        self.put(make_binding("a"))
        self.put(make_binding("b", BOB))
        self.clear(ALICE)
        self.assertEqual((self.ruids(ALICE), self.ruids(BOB)), ([], ["b"]))

    def test_each_change_carries_its_origin(self) -> None:
        for origin in (Origin.LOCAL, Origin.REPLICATED, Origin.LOADED):
            self.put(make_binding("a"), origin=origin)
            self.assertEqual(self.listener.take(), [("new", "a", origin)])
            self.clear(ALICE, origin)
            self.assertEqual(self.listener.take(), [("gone", "a", origin)])

    def test_what_is_not_changed_is_not_told(self) -> None:
        self.put(make_binding("a"), make_binding("b"))
        self.listener.take()
        self.records(ALICE)
        self.assertEqual(self.listener.take(), [])
        self.put(make_binding("a"), make_binding("b", cseq=2))
        self.assertEqual(self.listener.take(), [("changed", "b", Origin.LOCAL)])

    def test_a_record_that_gets_another_name_is_not_gone(self) -> None:
        """
        It may have one on each of two nodes; what is told to be gone would be removed on all.
        """
        self.put(make_binding("a", contact="sip:a@h"), make_binding("b", contact="sip:b@h"))
        self.listener.take()
        self.put(make_binding("c", contact="sip:a@h"), make_binding("b", contact="sip:b@h"))
        self.assertEqual(self.listener.take(), [("changed", "c", Origin.LOCAL)])

    def test_a_listener_that_raises_harms_nobody(self) -> None:
        store = self.make_store(self.clock)
        store.watch(RaisingListener())
        store.watch(self.listener)
        self.store = store
        update = self.update(ALICE, lambda _: (make_binding("a"),))
        self.assertEqual([binding.ruid for binding in update.bindings], ["a"])
        self.assertEqual(self.listener.take(), [("new", "a", Origin.LOCAL)])
        self.clock.advance(60)
        self.assertEqual(self.listener.take(), [("gone", "a", Origin.EXPIRED)])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_who_watches_must_be_a_listener(self) -> None:
        self.assertRaises(TypeError, self.store.watch, object())

    # expiry

    def test_a_binding_expires_in_its_second_and_that_is_told(self) -> None:
        binding = make_binding("a", expires_in=60)
        self.put(binding)
        self.listener.take()
        self.clock.advance(59.9)
        self.assertEqual((self.ruids(), self.listener.take()), (["a"], []))
        self.clock.advance(0.1)
        self.assertEqual((self.ruids(), self.store.count()), ([], 0))
        (change,) = self.listener.changes
        self.assertEqual(change, BindingChange(binding, binding, Origin.EXPIRED))
        self.assertTrue(change.is_gone)

    def test_what_has_expired_is_not_found_even_before_it_is_swept(self) -> None:
        self.clock.advance(0.5)
        self.put(make_binding("a", expires_in=2), make_binding("b", expires_in=9))
        # The clock jumps, and calls only afterwards.
        self.clock.rightNow += 3
        self.assertEqual(self.ruids(), ["b"])
        self.assertEqual([binding.ruid for binding in self.records(ALICE)], ["b"])

    def test_one_expires_the_others_stay(self) -> None:
        self.put(make_binding("a", expires_in=10), make_binding("b", expires_in=20), make_binding("c", expires_in=10))
        self.clock.pump([1] * 10)
        self.assertEqual(self.ruids(), ["b"])
        self.clock.pump([1] * 10)
        self.assertEqual((self.ruids(), self.store.count()), ([], 0))

    def test_a_refresh_puts_the_expiry_off(self) -> None:
        self.put(make_binding("a", expires_in=10))
        self.clock.advance(5)
        self.put(make_binding("a", expires_in=30))
        self.listener.take()
        self.clock.pump([1] * 24)
        self.assertEqual((self.ruids(), self.listener.take()), (["a"], []))
        self.clock.pump([1])
        self.assertEqual((self.ruids(), self.listener.take()), ([], [("gone", "a", Origin.EXPIRED)]))

    def test_a_shorter_life_counts_too(self) -> None:
        self.put(make_binding("a", expires_in=3000))
        self.put(make_binding("a", expires_in=5))
        self.clock.pump([1] * 5)
        self.assertEqual(self.ruids(), [])

    def test_after_a_pause_of_the_process_all_that_is_due_expires_at_once(self) -> None:
        for number in range(20):
            self.put(make_binding(f"r{number}", f"user{number}@example.org", expires_in=10 + number))
        self.clock.advance(25)
        self.assertEqual(self.store.count(), 4)
        self.clock.advance(3600)
        self.assertEqual(self.store.count(), 0)

    def test_a_record_that_came_too_late_expires_at_once(self) -> None:
        """
        Another node's clock, or a file: what is stored is past already.
        """
        self.clock.advance(100)
        for elsewhere in (None, make_binding("b", BOB, expires_in=500)):
            if elsewhere:
                self.put(elsewhere)
            update = self.put(make_binding("a", expires_in=30), origin=Origin.REPLICATED)
            self.assertEqual((update.bindings, self.ruids()), ((), []))
            self.clock.pump([1] * 3)
            self.assertEqual(self.store.count(), 1 if elsewhere else 0)
            self.assertEqual(self.records(ALICE), ())

    def test_a_listener_may_change_the_store_while_it_is_told(self) -> None:
        """
        It hears that one phone is gone, and removes another that expires in the same second.
        """
        store = self.store

        @implementer(IBindingListener)
        class Remover:
            def binding_changed(self, change: BindingChange) -> None:
                if change.origin is Origin.EXPIRED:
                    for aor in ("u1@example.org", "u2@example.org", "u3@example.org"):
                        store.update(aor, lambda _: (), Origin.LOCAL)

        for number in range(1, 4):
            self.put(make_binding(f"r{number}", f"u{number}@example.org", expires_in=5))
        self.put(make_binding("late", expires_in=8))
        store.watch(Remover())
        self.clock.pump([1] * 5)
        self.assertEqual(store.count(), 1)
        self.clock.pump([1] * 3)
        self.assertEqual(store.count(), 0)

    # tombstones

    def test_a_tombstone_is_kept_for_decide_and_found_by_nobody(self) -> None:
        self.put(make_binding("a"), make_binding("b"))
        self.listener.take()
        self.put(make_binding("a"), make_binding("b", removed=True, expires_in=32))
        self.assertEqual(self.listener.take(), [("gone", "b", Origin.LOCAL)])
        self.assertEqual((self.ruids(), self.store.count()), (["a"], 1))
        self.assertEqual(sorted(record.ruid for record in self.records(ALICE)), ["a", "b"])

    def test_a_tombstone_expires_and_nobody_is_told(self) -> None:
        self.put(make_binding("a", removed=True, expires_in=32))
        self.listener.take()
        self.clock.pump([1] * 31)
        self.assertEqual(len(self.records(ALICE)), 1)
        self.clock.pump([1])
        self.assertEqual((self.records(ALICE), self.listener.take()), ((), []))

    # pages

    def test_pages_of_an_empty_store(self) -> None:
        self.assertEqual(self.pages(), [Page((), None)])

    def test_all_records_are_seen_once(self) -> None:
        wanted = set()
        for number in range(1234):
            aor = f"user{number}@example.org"
            records = [make_binding(f"r{number}", aor), make_binding(f"t{number}", aor, removed=True)][: 1 + number % 2]
            self.put(*records)
            wanted.update(records)
        seen = [binding for page in self.pages() for binding in page.bindings]
        self.assertEqual(len(seen), len(wanted))
        self.assertEqual(set(seen), wanted)

    def test_what_stays_is_seen_while_others_come_and_go(self) -> None:
        seed = 20240701
        chance = random.Random(seed)
        staying = {f"stay{number}@example.org" for number in range(700)}
        going = [f"go{number}@example.org" for number in range(900)]
        everyone = [*staying, *going]
        chance.shuffle(everyone)
        for aor in everyone:
            self.put(make_binding(aor, aor))
        seen: set[str] = set()
        cursor: PageCursor | None = None
        while True:
            page = self.successResultOf(self.store.pages(cursor))
            seen.update(binding.aor for binding in page.bindings)
            cursor = page.cursor
            if cursor is None:
                break
            for aor in chance.sample(going, 300):
                self.clear(aor)
            for number in range(100):
                self.put(make_binding(aor=f"new{chance.random()}-{number}@example.org"))
            for aor in chance.sample(sorted(staying), 50):
                self.put(make_binding(aor, aor, cseq=chance.randrange(2, 99)))
        self.assertEqual(staying - seen, set(), f"seed {seed}")
