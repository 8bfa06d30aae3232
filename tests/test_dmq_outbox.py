"""
What waits for one node on one channel.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.outbox import Batch, Outbox, OutboxLimits, Outcome

ROOM = 1000


def make(**limits: float) -> Outbox:
    return Outbox(OutboxLimits(**{"batch_window": 0.0, **limits}))  # type: ignore[arg-type]


def keys(batch: Batch | None) -> tuple[str, ...]:
    return () if batch is None else batch.keys


class OneByOneTests(SynchronousTestCase):
    """
    Batches of one.
    """

    def test_what_is_put_leaves_at_once(self) -> None:
        box = make()
        box.put("a", b"1", 0)
        batch = box.take(0, ROOM)
        self.assertEqual(batch, Batch(1, ("a",), (b"1",)))
        self.assertEqual((len(box), box.unanswered, box.size), (0, 1, 0))
        self.assertIsNone(box.take(0, ROOM))

    def test_the_newest_of_a_key_wins(self) -> None:
        box = make()
        for fragment in (b"1", b"2", b"3"):
            box.put("a", fragment, 0)
        batch = box.take(0, ROOM)
        assert batch is not None
        self.assertEqual(batch.fragments, (b"3",))
        self.assertIsNone(box.take(0, ROOM))

    def test_a_key_waits_for_the_answer_to_what_was_sent_of_it(self) -> None:
        box = make()
        box.put("a", b"1", 0)
        first = box.take(0, ROOM)
        assert first is not None
        box.put("a", b"2", 0)
        box.put("b", b"1", 0)
        self.assertEqual(keys(box.take(0, ROOM)), ("b",))
        self.assertIsNone(box.take(0, ROOM))
        box.done(first.number, Outcome.TAKEN, 0)
        self.assertEqual(keys(box.take(0, ROOM)), ("a",))

    def test_the_window(self) -> None:
        box = make(window=2)
        for key in "abc":
            box.put(key, b"", 0)
        numbers = [batch.number for batch in (box.take(0, ROOM), box.take(0, ROOM)) if batch]
        self.assertIsNone(box.take(0, ROOM))
        box.done(numbers[1], Outcome.TAKEN, 0)
        self.assertEqual(keys(box.take(0, ROOM)), ("c",))

    def test_one_that_is_refused_is_dropped_and_named(self) -> None:
        box = make()
        box.put("a", b"1", 0)
        batch = box.take(0, ROOM)
        assert batch is not None
        self.assertEqual(box.done(batch.number, Outcome.REFUSED, 0), ("a",))
        self.assertEqual((len(box), box.is_dirty), (0, False))

    def test_404_stops_the_channel_until_the_node_returns(self) -> None:
        box = make()
        box.put("a", b"1", 0)
        batch = box.take(0, ROOM)
        assert batch is not None
        box.put("b", b"1", 0)
        box.done(batch.number, Outcome.NO_CHANNEL, 0)
        self.assertFalse(box.put("c", b"1", 0))
        self.assertIsNone(box.take(0, ROOM))
        box.returned()
        self.assertTrue(box.put("c", b"1", 0))
        self.assertEqual(keys(box.take(0, ROOM)), ("c",))

    def test_no_answer_makes_it_dirty_and_empty(self) -> None:
        box = make()
        box.put("a", b"1", 0)
        batch = box.take(0, ROOM)
        assert batch is not None
        box.put("b", b"1", 0)
        box.done(batch.number, Outcome.LOST, 0)
        self.assertEqual((len(box), box.size, box.is_dirty), (0, 0, True))

    def test_busy_is_tried_again_a_little_later(self) -> None:
        box = make()
        box.put("a", b"1", 0)
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
        box.put("a", b"old", 0)
        batch = box.take(0, ROOM)
        assert batch is not None
        box.put("a", b"new", 0)
        box.done(batch.number, Outcome.BUSY, 0)
        batch = box.take(5, ROOM)
        assert batch is not None
        self.assertEqual(batch.fragments, (b"new",))
        self.assertEqual((len(box), box.size), (0, 0))


class BoundTests(SynchronousTestCase):
    def test_too_many_changes(self) -> None:
        box = make(changes=2)
        box.put("a", b"1", 0)
        box.put("b", b"1", 0)
        self.assertTrue(box.put("a", b"2", 0), "no more than before")
        self.assertFalse(box.put("c", b"1", 0))
        self.assertEqual((len(box), box.size, box.is_dirty), (0, 0, True))

    def test_too_many_bytes(self) -> None:
        box = make(size=1000)
        self.assertFalse(box.put("a", b"x" * 1000, 0))
        self.assertTrue(box.is_dirty)
        box.cleaned()
        self.assertTrue(box.put("a", b"x" * 100, 0))

    def test_what_was_sent_stays_unanswered_when_the_rest_is_forgotten(self) -> None:
        box = make()
        box.put("a", b"1", 0)
        batch = box.take(0, ROOM)
        assert batch is not None
        box.forget(0)
        box.cleaned()
        box.put("a", b"repaired", 0)
        self.assertIsNone(box.take(0, ROOM), "an old retransmission may be on its way")
        box.done(batch.number, Outcome.LOST, 0)


class BatchTests(SynchronousTestCase):
    """
    The seam for larger ones.
    """

    def test_an_idle_box_sends_at_once_and_a_busy_one_gathers(self) -> None:
        box = make(batch_changes=3, batch_window=0.002)
        box.put("a", b"1", 0)
        self.assertEqual(keys(box.take(10, ROOM)), ("a",))
        box.put("b", b"1", 0)
        self.assertIsNone(box.take(10, ROOM))
        self.assertEqual(box.next_at(10), 10.002)
        box.put("c", b"1", 0)
        self.assertEqual(keys(box.take(10.002, ROOM)), ("b", "c"))

    def test_a_full_one_does_not_wait(self) -> None:
        box = make(batch_changes=2, batch_window=1)
        box.put("a", b"1", 0)
        box.take(0, ROOM)
        box.put("b", b"1", 0)
        box.put("c", b"1", 0)
        self.assertEqual(keys(box.take(0, ROOM)), ("b", "c"))

    def test_the_room_of_a_message(self) -> None:
        box = make(batch_changes=9)
        for key in "abc":
            box.put(key, b"x" * 100, 0)
        self.assertEqual(keys(box.take(0, 240)), ("a", "b"))
        box.put("d", b"x" * 1000, 0)
        self.assertEqual(keys(box.take(0, 240)), ("c",))
        self.assertEqual(keys(box.take(0, 240)), ("d",), "longer than the room, alone")

    def test_a_refused_one_is_halved_until_the_bad_record_is_alone(self) -> None:
        box = make(batch_changes=8)
        for key in "abcdefgh":
            box.put(key, key.encode(), 0)
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
                self.assertTrue(box.put(str(value), put[str(value)], 0))
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
        return Outbox(OutboxLimits(batch_window=0.0), None, lambda waiting, newer: waiting + newer)

    def test_the_newer_one_takes_the_place_of_both(self) -> None:
        box = self.make()
        box.put("a", b"1", 0)
        first = box.take(0, ROOM)
        assert first is not None
        box.put("a", b"2", 0)
        box.put("a", b"3", 0)
        box.done(first.number, Outcome.TAKEN, 0)
        batch = box.take(0, ROOM)
        assert batch is not None
        self.assertEqual((batch.fragments, box.size), ((b"23",), 0))

    def test_what_was_sent_and_not_taken_counts_as_not_sent(self) -> None:
        box = self.make()
        box.put("a", b"1", 0)
        first = box.take(0, ROOM)
        assert first is not None
        box.put("a", b"2", 0)
        box.done(first.number, Outcome.BUSY, 0)
        batch = box.take(10, ROOM)
        assert batch is not None
        self.assertEqual((batch.fragments, box.size), ((b"12",), 0))
