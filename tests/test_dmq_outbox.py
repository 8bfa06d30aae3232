"""
What waits for one node on one channel.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.changes import Batch, OutboxLimits, Outcome, Place
from sipdmq.dmq.outbox import Outbox

ROOM = 1000


def make(**limits: float) -> Outbox:
    return Outbox(OutboxLimits(**{"batch_window": 0.0, **limits}))  # type: ignore[arg-type]


def put_into(box: Outbox, key: str, fragment: bytes, since: float) -> bool:
    return box.put(key, box.change(key, fragment, since))


def keys(batch: Batch | None) -> tuple[str, ...]:
    return () if batch is None else batch.keys


class OneByOneTests(SynchronousTestCase):
    """
    Batches of one.
    """

    def test_what_is_put_leaves_at_once(self) -> None:
        box = make()
        put_into(box, "a", b"1", 0)
        batch = box.take(0, ROOM)
        self.assertEqual(batch, Batch(1, ("a",), (b"1",)))
        self.assertEqual((len(box), box.unanswered, box.size), (0, 1, 0))
        self.assertIsNone(box.take(0, ROOM))

    def test_the_newest_of_a_key_wins(self) -> None:
        box = make()
        for fragment in (b"1", b"2", b"3"):
            put_into(box, "a", fragment, 0)
        batch = box.take(0, ROOM)
        assert batch is not None
        self.assertEqual(batch.fragments, (b"3",))
        self.assertIsNone(box.take(0, ROOM))

    def test_a_key_waits_for_the_answer_to_what_was_sent_of_it(self) -> None:
        box = make()
        put_into(box, "a", b"1", 0)
        first = box.take(0, ROOM)
        assert first is not None
        put_into(box, "a", b"2", 0)
        put_into(box, "b", b"1", 0)
        self.assertEqual(keys(box.take(0, ROOM)), ("b",))
        self.assertIsNone(box.take(0, ROOM))
        box.done(first.number, Outcome.TAKEN, 0)
        self.assertEqual(keys(box.take(0, ROOM)), ("a",))

    def test_the_window(self) -> None:
        box = make(window=2)
        for key in "abc":
            put_into(box, key, b"", 0)
        numbers = [batch.number for batch in (box.take(0, ROOM), box.take(0, ROOM)) if batch]
        self.assertIsNone(box.take(0, ROOM))
        box.done(numbers[1], Outcome.TAKEN, 0)
        self.assertEqual(keys(box.take(0, ROOM)), ("c",))

    def test_one_that_is_refused_is_dropped_and_named(self) -> None:
        box = make()
        put_into(box, "a", b"1", 0)
        batch = box.take(0, ROOM)
        assert batch is not None
        self.assertEqual(box.done(batch.number, Outcome.REFUSED, 0), ("a",))
        self.assertEqual((len(box), box.is_dirty), (0, False))

    def test_404_stops_the_channel_until_the_node_returns(self) -> None:
        box = make()
        put_into(box, "a", b"1", 0)
        batch = box.take(0, ROOM)
        assert batch is not None
        put_into(box, "b", b"1", 0)
        box.done(batch.number, Outcome.NO_CHANNEL, 0)
        self.assertFalse(put_into(box, "c", b"1", 0))
        self.assertIsNone(box.take(0, ROOM))
        box.returned()
        self.assertTrue(put_into(box, "c", b"1", 0))
        self.assertEqual(keys(box.take(0, ROOM)), ("c",))

    def test_no_answer_makes_it_dirty_and_empty(self) -> None:
        box = make()
        put_into(box, "a", b"1", 0)
        batch = box.take(0, ROOM)
        assert batch is not None
        put_into(box, "b", b"1", 0)
        box.done(batch.number, Outcome.LOST, 0)
        self.assertEqual((len(box), box.size, box.is_dirty), (0, 0, True))

    def test_busy_is_tried_again_a_little_later(self) -> None:
        box = make()
        put_into(box, "a", b"1", 0)
        batch = box.take(0, ROOM)
        assert batch is not None
        box.done(batch.number, Outcome.BUSY, 10)
        self.assertIsNone(box.take(10, ROOM))
        at = box.next_at(10)
        assert at is not None
        self.assertGreater(at, 10)
        self.assertEqual(keys(box.take(at, ROOM)), ("a",))

    def test_busy_and_something_newer(self) -> None:
        box = make()
        put_into(box, "a", b"old", 0)
        batch = box.take(0, ROOM)
        assert batch is not None
        put_into(box, "a", b"new", 0)
        box.done(batch.number, Outcome.BUSY, 0)
        batch = box.take(5, ROOM)
        assert batch is not None
        self.assertEqual(batch.fragments, (b"new",))
        self.assertEqual((len(box), box.size), (0, 0))


class BoundTests(SynchronousTestCase):
    def test_too_many_changes(self) -> None:
        box = make(changes=2)
        put_into(box, "a", b"1", 0)
        put_into(box, "b", b"1", 0)
        self.assertTrue(put_into(box, "a", b"2", 0), "no more than before")
        self.assertFalse(put_into(box, "c", b"1", 0))
        self.assertEqual((len(box), box.size, box.is_dirty), (0, 0, True))

    def test_too_many_bytes(self) -> None:
        box = make(size=1000)
        self.assertFalse(put_into(box, "a", b"x" * 1000, 0))
        self.assertTrue(box.is_dirty)
        box.cleaned()
        self.assertTrue(put_into(box, "a", b"x" * 100, 0))

    def test_what_was_sent_stays_unanswered_when_the_rest_is_forgotten(self) -> None:
        box = make()
        put_into(box, "a", b"1", 0)
        batch = box.take(0, ROOM)
        assert batch is not None
        box.forget(0)
        box.cleaned()
        put_into(box, "a", b"repaired", 0)
        self.assertIsNone(box.take(0, ROOM), "an old retransmission may be on its way")
        box.done(batch.number, Outcome.LOST, 0)


class BatchTests(SynchronousTestCase):
    """
    The seam for larger ones.
    """

    def test_an_idle_box_sends_at_once_and_a_busy_one_gathers(self) -> None:
        box = make(batch_changes=3, batch_window=0.002)
        put_into(box, "a", b"1", 0)
        first = box.take(10, ROOM)
        self.assertEqual(keys(first), ("a",))
        box.done(first.number, Outcome.TAKEN, 10)
        put_into(box, "b", b"1", 0)
        self.assertIsNone(box.take(10, ROOM))
        self.assertEqual(box.next_at(10), 10.002)
        put_into(box, "c", b"1", 0)
        self.assertEqual(keys(box.take(10.002, ROOM)), ("b", "c"))

    def test_it_gathers_longer_while_the_node_has_not_answered(self) -> None:
        box = make(batch_changes=4, batch_window=0.002)
        put_into(box, "a", b"1", 0)
        first = box.take(10, ROOM)
        put_into(box, "b", b"1", 0)
        self.assertIsNone(box.take(10.007, ROOM))
        self.assertEqual(box.next_at(10.007), 10.008)
        box.done(first.number, Outcome.TAKEN, 10.007)
        self.assertEqual(keys(box.take(10.007, ROOM)), ("b",))
        put_into(box, "c", b"1", 0)
        self.assertEqual(keys(box.take(10.015, ROOM)), ("c",))

    def test_where_messages_are_lost_they_are_small(self) -> None:
        box = make(batch_changes=16, window=2, repeated_after=0.1)

        def sent(now: float, answered_after: float, outcome: Outcome = Outcome.TAKEN) -> list[int]:
            for number in range(40):
                put_into(box, f"k{number}", b"1", 0)
            batches = [box.take(now, ROOM), box.take(now, ROOM)]
            for batch in batches:
                box.done(batch.number, outcome, now + answered_after)
            return [len(batch.keys) for batch in batches]

        self.assertEqual(sent(1, 0.09), [16, 16])
        self.assertEqual(sent(2, 0.1), [16, 16])  # two of one trouble
        self.assertEqual(sent(3, 8, Outcome.LOST), [8, 8])
        for now, expected in ((12, 4), (14, 2), (16, 2)):
            self.assertEqual(sent(now, 1), [expected, expected])
        for now, expected in ((20, 2), (21, 3), (22, 4)):
            self.assertEqual(sent(now, 0.01), [expected, expected])
        box.returned()
        self.assertEqual(sent(30, 0.01), [16, 16])

    def test_one_change_is_no_sign_of_anything(self) -> None:
        box = make(batch_changes=16, repeated_after=0.1)
        for now in range(3):
            put_into(box, "a", b"1", 0)
            box.done(box.take(now, ROOM).number, Outcome.LOST, now + 0.9)
        for number in range(20):
            put_into(box, f"k{number}", b"1", 0)
        self.assertEqual(len(box.take(9, ROOM).keys), 16)

    def test_a_full_one_does_not_wait(self) -> None:
        box = make(batch_changes=2, batch_window=1)
        put_into(box, "a", b"1", 0)
        box.take(0, ROOM)
        put_into(box, "b", b"1", 0)
        put_into(box, "c", b"1", 0)
        self.assertEqual(keys(box.take(0, ROOM)), ("b", "c"))

    def test_the_room_of_a_message(self) -> None:
        box = make(batch_changes=9)
        for key in "abc":
            put_into(box, key, b"x" * 100, 0)
        self.assertEqual(keys(box.take(0, 240)), ("a", "b"))
        put_into(box, "d", b"x" * 1000, 0)
        self.assertEqual(keys(box.take(0, 240)), ("c",))
        self.assertEqual(keys(box.take(0, 240)), ("d",), "longer than the room, alone")

    def test_a_refused_one_is_halved_until_the_bad_record_is_alone(self) -> None:
        box = make(batch_changes=8)
        for key in "abcdefgh":
            put_into(box, key, key.encode(), 0)
        sent, dropped = [], []
        while (batch := box.take(0, ROOM)) is not None:
            sent.append("".join(batch.keys))
            outcome = Outcome.REFUSED if "f" in batch.keys else Outcome.TAKEN
            dropped += box.done(batch.number, outcome, 0)
        self.assertEqual(dropped, ["f"])
        self.assertEqual(sent[0], "abcdefgh")
        self.assertEqual(sorted("".join(sent[1:]))[0], "a")
        self.assertLessEqual(len(sent), 7)
        self.assertEqual((len(box), box.size), (0, 0))


def place_of(fragment: bytes) -> Place:
    """
    What the first byte says.
    """
    return {b"b": Place.BETWEEN, b"a": Place.ALONE}.get(fragment[:1], Place.BESIDE)


class PlaceTests(SynchronousTestCase):
    """
    Changes that cannot go with others, and those that concern all keys.
    """

    def make(self, **limits: float) -> Outbox:
        return Outbox(OutboxLimits(**{"batch_window": 0.0, "batch_changes": 10, **limits}), place_of=place_of)  # type: ignore[arg-type]

    def put(self, box: Outbox, *changes: str) -> None:
        """
        @param changes: C{"key fragment"}
        """
        for change in changes:
            key, _, fragment = change.partition(" ")
            self.assertTrue(put_into(box, key, fragment.encode(), 0))

    def take(self, box: Outbox, now: float = 0.0) -> Batch:
        batch = box.take(now, ROOM)
        assert batch is not None
        return batch

    def test_one_that_goes_alone(self) -> None:
        box = self.make()
        self.put(box, "k1 1", "k2 2", "k3 a", "k4 4", "k5 5")
        self.assertEqual([self.take(box).keys for _ in range(3)], [("k1", "k2"), ("k3",), ("k4", "k5")])

    def test_one_between_waits_for_all_before_it_and_all_behind_it_for_its_answer(self) -> None:
        box = self.make()
        self.put(box, "k1 1")
        first = self.take(box)
        self.put(box, "k2 2", "B b", "k3 3")
        second = self.take(box)
        self.assertEqual(second.keys, ("k2",))
        self.assertIsNone(box.take(0, ROOM))
        box.done(second.number, Outcome.TAKEN, 0)
        self.assertIsNone(box.take(0, ROOM))
        box.done(first.number, Outcome.TAKEN, 0)
        between = self.take(box)
        self.assertEqual(between.keys, ("B",))
        self.put(box, "k4 4")
        self.assertIsNone(box.take(0, ROOM))
        box.done(between.number, Outcome.REFUSED, 0)
        self.assertEqual(self.take(box).keys, ("k3", "k4"))

    def test_what_is_newer_belongs_behind_it(self) -> None:
        box = self.make()
        self.put(box, "k1 1", "k2 2", "B b", "k1 9")
        for expected in (("k2",), ("B",), ("k1",)):
            batch = self.take(box)
            self.assertEqual(batch.keys, expected)
            box.done(batch.number, Outcome.TAKEN, 0)
        self.assertEqual((len(box), box.size), (0, 0))

    def test_what_is_newer_stays_behind_it_when_the_older_one_is_put_back(self) -> None:
        for outcome in (Outcome.BUSY, Outcome.REFUSED):
            box = self.make()
            self.put(box, "k1 1", "k2 2", "k3 3")
            first = self.take(box)
            self.put(box, "B b", "k1 9")
            box.done(first.number, outcome, 0)
            sent: list[str] = []
            while len(box):
                batch = self.take(box, 10)
                sent.extend(batch.keys)
                box.done(batch.number, Outcome.TAKEN, 10)
            self.assertEqual(sent, ["k2", "k3", "B", "k1"], outcome)
            self.assertEqual(box.size, 0)

    def test_halves_of_what_was_put_anew_go_behind_it(self) -> None:
        box = self.make()
        self.put(box, "k1 1", "k2 2")
        first = self.take(box)
        box.done(first.number, Outcome.REFUSED, 0)
        self.put(box, "B b", "k1 9", "k2 9")
        sent = []
        while len(box):
            batch = self.take(box)
            sent.append(batch.keys)
            box.done(batch.number, Outcome.TAKEN, 0)
        self.assertEqual(sent, [("B",), ("k1", "k2")])

    def test_one_between_that_met_a_busy_node_comes_again_in_its_place(self) -> None:
        box = self.make()
        self.put(box, "B b", "k1 1")
        between = self.take(box)
        box.done(between.number, Outcome.BUSY, 0)
        again = self.take(box, 10)
        self.assertEqual(again.keys, ("B",))
        self.assertIsNone(box.take(10, ROOM))
        box.done(again.number, Outcome.TAKEN, 10)
        self.assertEqual(self.take(box, 10).keys, ("k1",))

    def test_forgetting_lets_go_of_it(self) -> None:
        box = self.make()
        self.put(box, "B b", "k1 1")
        between = self.take(box)
        box.forget(0)
        self.put(box, "k2 2")
        self.assertIsNone(box.take(0, ROOM))
        box.done(between.number, Outcome.LOST, 0)
        self.put(box, "k3 3", "C b", "k4 4")
        self.assertEqual(self.take(box).keys, ("k3",))

    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("put"), st.sampled_from("xyz"), st.sampled_from("01ab")),
                st.tuples(st.just("take"), st.just(""), st.just("")),
                st.tuples(st.just("done"), st.sampled_from("tbr"), st.integers(0, 5).map(str)),
            ),
            max_size=40,
        )
    )
    def test_a_receiver_that_works_in_any_order_ends_alike(self, steps: list[tuple[str, str, str]]) -> None:
        """
        x, y and z are cells; "b" under any key removes all of them.
        """
        box = self.make(window=4, batch_changes=2)
        here: dict[str, str] = {}
        there: dict[str, str] = {}
        on_the_way: list[Batch] = []
        now = count = 0

        def arrive(batch: Batch) -> None:
            for key, fragment in zip(batch.keys, batch.fragments):
                if fragment.startswith(b"b"):
                    there.clear()
                else:
                    there[key] = fragment.decode()

        def finish(place: int, outcome: Outcome) -> None:
            batch = on_the_way.pop(place)
            if outcome is Outcome.REFUSED and len(batch.keys) == 1:
                outcome = Outcome.TAKEN  # a good one is not refused for ever
            if outcome is Outcome.TAKEN:
                arrive(batch)
            box.done(batch.number, outcome, now)

        for what, key, value in steps:
            now += 1
            if what == "put":
                count += 1
                fragment = f"{value}{count}"
                if value == "b":
                    here.clear()
                    put_into(box, "remove", fragment.encode(), now)
                else:
                    here[key] = fragment
                    put_into(box, key, fragment.encode(), now)
            elif what == "take":
                batch = box.take(now, ROOM)
                if batch is not None:
                    on_the_way.append(batch)
            elif on_the_way:
                outcome = {"t": Outcome.TAKEN, "b": Outcome.BUSY, "r": Outcome.REFUSED}[key]
                finish(int(value) % len(on_the_way), outcome)
        while len(box) or on_the_way:
            now += 1
            batch = box.take(now, ROOM)
            if batch is not None:
                on_the_way.append(batch)
            elif on_the_way:
                finish(-1, Outcome.TAKEN)
        self.assertEqual(there, here)
        self.assertEqual(box.size, 0)


class PropertyTests(SynchronousTestCase):
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("put"), st.sampled_from("abcde")),
                st.tuples(st.just("take"), st.none()),
                st.tuples(st.just("done"), st.sampled_from([Outcome.TAKEN, Outcome.BUSY, Outcome.TAKEN])),
            ),
            max_size=60,
        ),
        st.integers(1, 3),
        st.integers(1, 4),
    )
    def test_the_last_of_each_key_arrives_last_and_no_key_is_sent_twice_at_once(
        self, steps: list[tuple[str, object]], window: int, batch: int
    ) -> None:
        box = make(window=window, batch_changes=batch)
        now = 0.0
        put: dict[str, bytes] = {}
        arrived: dict[str, bytes] = {}
        open_: list[Batch] = []

        def take() -> bool:
            found = box.take(now, ROOM)
            if found is None:
                return False
            self.assertTrue({key for each in open_ for key in each.keys}.isdisjoint(found.keys))
            open_.append(found)
            self.assertLessEqual(len(open_), window)
            return True

        def done(outcome: Outcome) -> None:
            if open_:
                found = open_.pop(0)
                if outcome is Outcome.TAKEN:
                    arrived.update(zip(found.keys, found.fragments))
                box.done(found.number, outcome, now)

        for number, (what, value) in enumerate(steps):
            now += 0.1
            if what == "put":
                put[str(value)] = str(number).encode()
                self.assertTrue(put_into(box, str(value), put[str(value)], 0))
            elif what == "take":
                take()
            else:
                done(value)  # type: ignore[arg-type]
        now += 10
        while take() or open_:
            done(Outcome.TAKEN)
        self.assertEqual(arrived, put)
        self.assertEqual((len(box), box.size, box.unanswered, box.is_dirty), (0, 0, 0, False))


class SupersedeTests(SynchronousTestCase):
    """
    Where a change does not say all there is to say.
    """

    def make(self) -> Outbox:
        return Outbox(OutboxLimits(batch_window=0.0), supersede=lambda waiting, newer: waiting + newer)

    def test_the_newer_one_takes_the_place_of_both(self) -> None:
        box = self.make()
        put_into(box, "a", b"1", 0)
        first = box.take(0, ROOM)
        assert first is not None
        put_into(box, "a", b"2", 0)
        put_into(box, "a", b"3", 0)
        box.done(first.number, Outcome.TAKEN, 0)
        batch = box.take(0, ROOM)
        assert batch is not None
        self.assertEqual((batch.fragments, box.size), ((b"23",), 0))

    def test_what_was_sent_and_not_taken_counts_as_not_sent(self) -> None:
        box = self.make()
        put_into(box, "a", b"1", 0)
        first = box.take(0, ROOM)
        assert first is not None
        put_into(box, "a", b"2", 0)
        box.done(first.number, Outcome.BUSY, 0)
        batch = box.take(10, ROOM)
        assert batch is not None
        self.assertEqual((batch.fragments, box.size), ((b"12",), 0))
