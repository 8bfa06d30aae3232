"""
The clocks of other nodes.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.clocks import Clocks
from tests.dmq_nodes import udp

A, B = udp(1), udp(2)


class ClockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clocks = Clocks()

    def test_two_seconds_are_tolerated(self) -> None:
        self.assertIsNone(self.clocks.heard(A, 2.0, 0.01))
        self.assertIsNone(self.clocks.heard(A, -2.0, 0.01))
        self.assertEqual(self.clocks.difference(str(A)), -2.0)

    def test_more_is_told_once_until_it_is_right_again(self) -> None:
        self.assertEqual(self.clocks.heard(A, -2.5, 0.01), -2.5)
        self.assertIsNone(self.clocks.heard(A, -2.6, 0.01))
        self.assertEqual(self.clocks.heard(B, 300.0, 0.01), 300.0)
        self.clocks.heard(A, 0.1, 0.01)
        self.assertEqual(self.clocks.heard(A, 2.7, 0.01), 2.7)

    def test_a_slow_answer_proves_nothing(self) -> None:
        self.assertIsNone(self.clocks.heard(A, 2.5, 1.2), "it may be 1.9")
        self.assertIsNone(self.clocks.heard(B, 8.0, 7.0))
        self.assertIsNone(self.clocks.difference(str(B)))

    def test_the_greatest_is_a_number_to_watch(self) -> None:
        self.assertEqual(self.clocks.greatest(), 0.0)
        self.clocks.heard(A, 1.0, 0)
        self.clocks.heard(B, -7.0, 0)
        self.assertEqual(self.clocks.greatest(), 7.0)
        self.clocks.forget(B)
        self.assertEqual(self.clocks.greatest(), 1.0)
