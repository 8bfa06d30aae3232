"""
The two messages of a Kamailio that sets a cell and its expiry, in both orders.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.htable_pairs import MAX_OPEN, Pairs

SENDER, OTHER = "sip:192.0.2.2:5060", "sip:192.0.2.3:5060"


class PairsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pairs = Pairs()

    def test_in_order(self) -> None:
        self.assertIsNone(self.pairs.set_received(SENDER, "t", "k", 10.0))
        self.pairs.expire_received(SENDER, "t", "k", 60, 10.1)
        self.assertIsNone(self.pairs.set_received(SENDER, "t", "k", 10.2))  # that expiry was not for this one

    def test_the_wrong_way_round(self) -> None:
        self.pairs.expire_received(SENDER, "t", "k", 60, 10.0)
        self.assertEqual(self.pairs.set_received(SENDER, "t", "k", 10.5), 70.0)
        self.assertIsNone(self.pairs.set_received(SENDER, "t", "k", 10.6))

    def test_no_expiry_at_all(self) -> None:
        self.pairs.expire_received(SENDER, "t", "k", 0, 10.0)
        self.assertEqual(self.pairs.set_received(SENDER, "t", "k", 10.5), 0.0)

    def test_what_has_nothing_to_do_with_it(self) -> None:
        self.pairs.expire_received(SENDER, "t", "k", 60, 10.0)
        for arguments in ((OTHER, "t", "k"), (SENDER, "u", "k"), (SENDER, "t", "l")):
            self.assertIsNone(self.pairs.set_received(*arguments, 10.1))
        self.assertIsNone(self.pairs.set_received(SENDER, "t", "k", 11.1))  # too late

    def test_it_is_bounded(self) -> None:
        for number in range(MAX_OPEN + 100):
            self.pairs.set_received(SENDER, "t", f"k{number}", 10.0)
            self.pairs.expire_received(SENDER, "u", f"k{number}", 5, 10.0)
        self.assertLessEqual(len(self.pairs), 2 * MAX_OPEN + 2)
        self.pairs.set_received(SENDER, "t", "k", 20.0)
        self.assertEqual(len(self.pairs), 1)
