"""
The memory of answered requests: found again, forgotten in time, and bounded in bytes.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.sip.message import response_to
from sipdmq.transaction.completed import ENTRY_BYTES, CompletedTransactions
from tests.fakes import TransactionTestCase, leftovers, pump, request, statuses


class CompletedTests(SynchronousTestCase):
    """
    RFC 3261 §17.2.2: timer J. A completed transaction is its key and the bytes of its response.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.completed = CompletedTransactions(self.clock, 32.0, 10 * (ENTRY_BYTES + 100))

    def add(self, *numbers: int) -> None:
        """
        One entry a second for each number.
        """
        for number in numbers:
            self.completed.add(f"key{number}", number, bytes(100))
            self.clock.advance(1)

    def test_it_is_found_by_its_key(self) -> None:
        self.completed.add("key", 0, b"response")
        self.assertEqual(self.completed.get("key"), b"response")
        self.assertIsNone(self.completed.get("other"))
        self.assertEqual(len(self.completed), 1)

    def test_it_is_found_by_its_merge_key_if_it_has_one(self) -> None:
        self.completed.add("key", 77, b"response")
        self.completed.add("unasked", 0, b"response")
        self.assertEqual(self.completed.merged(77), "key")
        self.assertIsNone(self.completed.merged(0))

    def test_after_timer_j_nothing_is_left(self) -> None:
        self.add(1, 2, 3)
        pump(self.clock, 33)
        self.assertEqual((leftovers(self.completed), self.completed.size), ({}, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_all_of_it_costs_is_known(self) -> None:
        self.add(1, 2)
        self.assertEqual(self.completed.size, 2 * (ENTRY_BYTES + 100))

    def test_beyond_the_bound_the_oldest_goes(self) -> None:
        self.add(*range(1, 12))
        self.assertEqual(len(self.completed), 10)
        self.assertEqual((self.completed.get("key1"), self.completed.merged(1)), (None, None))
        self.assertEqual((self.completed.get("key2"), self.completed.merged(2)), (bytes(100), "key2"))

    def test_it_stays_within_the_bound_whatever_comes(self) -> None:
        for number in range(1000):
            self.completed.add(f"key{number}", number + 1, bytes(number % 300))
            self.assertLessEqual(self.completed.size, self.completed.max_bytes)
            if number % 7 == 0:
                self.clock.advance(0.1)
        pump(self.clock, 33)
        self.assertEqual((leftovers(self.completed), self.completed.size), ({}, 0))

    def test_one_that_is_larger_than_all_room_is_not_kept(self) -> None:
        self.completed.add("key", 1, bytes(100_000))
        self.assertEqual((len(self.completed), self.completed.size, self.completed.merged(1)), (0, 0, None))

    def test_one_key_twice_counts_once(self) -> None:
        """
        A count that drifted would one day say that an empty table is full.
        """
        for _ in range(2):
            self.completed.add("key", 0, bytes(100))
        pump(self.clock, 33)
        self.assertEqual((len(self.completed), self.completed.size), (0, 0))

    def test_stop_forgets_everything(self) -> None:
        self.add(1, 2)
        self.completed.stop()
        self.assertEqual((leftovers(self.completed), self.completed.size), ({}, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class FullTests(TransactionTestCase):
    """
    A flood of answered requests pushes out old answers; it never shuts the door on new requests.
    """

    max_completed_bytes = 65536

    def arrive(self, number: int) -> None:
        self.receive(request("REGISTER", via=f"SIP/2.0/UDP h:5062;branch=z9hG4bK{number}"))

    def test_a_thousand_requests_are_all_answered_and_few_remembered(self) -> None:
        self.user.react = lambda transaction: transaction.respond(response_to(transaction.request, 200, "t"))
        for number in range(1000):
            self.arrive(number)
            self.clock.advance(0.02)
        self.assertEqual(statuses(self.transport.sent), [200] * 1000)
        self.assertLessEqual(self.layer.completed.size, 65536)
        self.assertGreater(len(self.layer.completed), 50)
        self.taken()
        self.arrive(999)
        self.assertEqual([event[:2] for event in self.taken()], [("send", 200)])
        self.arrive(0)
        self.assertEqual([event[:2] for event in self.taken()], [("request", "REGISTER"), ("send", 200)])
        pump(self.clock, 33)
        self.assert_nothing_left()
