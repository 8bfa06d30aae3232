"""
What is done every few seconds, and what once, later.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.rounds import OVERSLEPT, Rounds


class RoundsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[object] = []
        self.rounds = Rounds(self.clock, lambda late: self.events.append(("overslept", late)))

    def do(self) -> None:
        self.events.append(self.clock.seconds())

    def broken(self) -> None:
        self.do()
        raise ValueError("broken")

    def test_again_and_again(self) -> None:
        self.rounds.every("ping", 5, self.do)
        self.clock.pump([1] * 16)
        self.assertEqual(self.events, [5, 10, 15])

    def test_what_breaks_comes_again(self) -> None:
        self.rounds.every("ping", 5, self.broken)
        self.rounds.once("turn", 6, self.broken)
        self.clock.pump([1] * 11)
        self.assertEqual(self.events, [5, 6, 10])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 3)

    def test_a_process_that_stood_still_notices_before_it_goes_on(self) -> None:
        self.rounds.every("ping", 5, self.do)
        self.clock.advance(5 + OVERSLEPT)
        self.assertEqual(self.events, [7])
        self.clock.advance(5 + OVERSLEPT + 1)
        self.assertEqual(self.events, [7, ("overslept", 3), 15])

    def test_the_last_of_one_name_counts(self) -> None:
        self.rounds.once("turn", 3, lambda: self.events.append("first"))
        self.rounds.once("turn", 5, lambda: self.events.append("second"))
        self.rounds.once("another", 4, self.do)
        self.clock.pump([1] * 10)
        self.assertEqual(self.events, [4, "second"])
        self.rounds.once("turn", 1, lambda: self.events.append("third"))
        self.clock.advance(1)
        self.assertEqual(self.events[-1], "third")

    def test_stopped(self) -> None:
        self.rounds.every("ping", 5, self.do)
        self.rounds.once("turn", 3, self.do)
        self.rounds.stop()
        self.clock.pump([1] * 10)
        self.assertEqual((self.events, self.clock.getDelayedCalls()), ([], []))
