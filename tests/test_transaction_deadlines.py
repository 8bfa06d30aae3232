"""
Fixed waits in one queue.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.transaction.deadlines import Deadlines
from tests.fakes import pump


class DeadlinesTests(SynchronousTestCase):
    """
    What was added is due one delay later: at most the granularity late, never early, in the order of adding.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.due: list[tuple[float, object]] = []
        self.deadlines: Deadlines[object] = Deadlines(self.clock, 32.0, self.note)

    def note(self, thing: object) -> None:
        self.due.append((self.clock.seconds(), thing))

    def test_never_early_and_at_most_a_quarter_of_a_second_late(self) -> None:
        for hundredth in range(200):
            self.deadlines.add(hundredth)
            self.clock.advance(0.01)
        pump(self.clock, 40, 0.01)
        self.assertEqual([thing for _, thing in self.due], list(range(200)))
        delays = [at - hundredth / 100 for at, hundredth in self.due]
        self.assertTrue(min(delays) > 31.999 and max(delays) < 32.27, (min(delays), max(delays)))

    def test_a_short_delay_is_less_late(self) -> None:
        deadlines: Deadlines[object] = Deadlines(self.clock, 0.2, self.note)
        deadlines.add("x")
        self.clock.advance(0.199)
        self.assertEqual(self.due, [])
        self.clock.advance(0.0261)
        self.assertEqual([thing for _, thing in self.due], ["x"])

    def test_no_delay_is_the_next_turn_of_the_reactor(self) -> None:
        deadlines: Deadlines[object] = Deadlines(self.clock, 0.0, self.note)
        deadlines.add("x")
        self.assertEqual(self.due, [])
        self.clock.advance(0)
        self.assertEqual([thing for _, thing in self.due], ["x"])

    def test_one_timer_for_all(self) -> None:
        for number in range(1000):
            self.deadlines.add(number)
            self.clock.advance(0.01)
        self.assertEqual(len(self.deadlines), 1000)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        pump(self.clock, 43)
        self.assertEqual(len(self.deadlines), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_after_a_pause_it_starts_again(self) -> None:
        for _ in range(2):
            self.deadlines.add("x")
            pump(self.clock, 33)
        self.assertEqual(len(self.due), 2)

    def test_a_clock_that_jumps_makes_all_of_them_due(self) -> None:
        self.deadlines.add(1)
        self.clock.advance(10)
        self.deadlines.add(2)
        self.clock.advance(1000)
        self.assertEqual([thing for _, thing in self.due], [1, 2])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_due_may_add_more(self) -> None:
        def again(thing: object) -> None:
            self.note(thing)
            if len(self.due) < 3:
                deadlines.add(thing)

        deadlines: Deadlines[object] = Deadlines(self.clock, 1.0, again)
        deadlines.add("x")
        pump(self.clock, 5)
        self.assertEqual(len(self.due), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_raises_does_not_take_the_others_with_it(self) -> None:
        """
        DESIGN §8: "except Exception only at the three edges (datagram, stream data, timer)": this is the third.
        """

        def break_on_two(thing: object) -> None:
            if thing == 2:
                raise ZeroDivisionError
            self.note(thing)

        deadlines: Deadlines[object] = Deadlines(self.clock, 1.0, break_on_two)
        for thing in (1, 2, 3):
            deadlines.add(thing)
        self.clock.advance(0.5)
        deadlines.add(4)
        for _ in range(8):
            try:
                self.clock.advance(0.25)
            except ZeroDivisionError:
                pass
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual([thing for _, thing in self.due], [1, 3, 4])


class OldestTests(SynchronousTestCase):
    """
    Who has no room takes out what would be due next.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.due: list[object] = []
        self.deadlines: Deadlines[object] = Deadlines(self.clock, 32.0, self.due.append)

    def test_the_oldest_come_out_in_order_and_are_not_due_any_more(self) -> None:
        self.deadlines.add(1)
        self.deadlines.add(2)
        self.clock.advance(1)
        self.deadlines.add(3)
        self.assertEqual([self.deadlines.pop_oldest(), self.deadlines.pop_oldest()], [1, 2])
        self.assertEqual(len(self.deadlines), 1)
        pump(self.clock, 40)
        self.assertEqual(self.due, [3])

    def test_of_nothing_nothing(self) -> None:
        self.assertIsNone(self.deadlines.pop_oldest())

    def test_emptied_and_filled_again_it_is_not_early(self) -> None:
        self.deadlines.add(1)
        self.deadlines.pop_oldest()
        self.clock.advance(20)
        self.deadlines.add(2)
        pump(self.clock, 31.75)
        self.assertEqual(self.due, [])
        pump(self.clock, 0.5)
        self.assertEqual(self.due, [2])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_forgets_all_and_stops_the_timer(self) -> None:
        self.deadlines.add(1)
        self.deadlines.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        pump(self.clock, 40)
        self.assertEqual((self.due, len(self.deadlines)), ([], 0))
        self.deadlines.stop()
