"""
What expires, second by second.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.core.expiry import Expiry
from tests.location_store_tests import EPOCH


class ExpiryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(0.25)
        self.expiry = Expiry(self.clock, lambda: EPOCH + self.clock.seconds(), self.expired)
        self.due: dict[str, int] = {}
        self.gone: list[tuple[str, float]] = []

    def expired(self, name: str) -> None:
        self.gone.append((name, self.clock.seconds()))
        self.expiry.move(name, self.due.pop(name), 0)

    def put(self, name: str, second: int) -> None:
        due = int(EPOCH) + second
        self.expiry.move(name, self.due.get(name, 0), due)
        self.due[name] = due

    def test_each_in_its_second(self) -> None:
        for name, second in (("b", 3), ("a", 2), ("c", 3)):
            self.put(name, second)
        self.clock.pump([0.25] * 20)
        self.assertEqual(sorted(self.gone), [("a", 2.0), ("b", 3.0), ("c", 3.0)])
        self.assertEqual(self.clock.getDelayedCalls(), [], "nothing to wait for")

    def test_what_is_moved_is_in_one_second_only(self) -> None:
        for second in (2, 9, 5):
            self.put("a", second)
        self.clock.pump([0.25] * 40)
        self.assertEqual(self.gone, [("a", 5.0)])

    def test_what_is_gone_does_not_expire(self) -> None:
        self.put("a", 2)
        self.expiry.move("a", self.due["a"], 0)
        self.clock.pump([0.25] * 20)
        self.assertEqual(self.gone, [])

    def test_all_that_was_due_in_a_pause(self) -> None:
        for number in range(50):
            self.put(str(number), 2 + number)
        self.clock.advance(30)
        self.assertEqual(len(self.gone), 29)
        self.clock.pump([0.25] * 100)
        self.assertEqual(len(self.gone), 50)

    def test_one_that_fails_is_tried_again(self) -> None:
        self.put("a", 2)
        self.put("b", 3)
        due = self.due.pop("a")
        self.assertRaises(KeyError, self.clock.advance, 2)
        self.due["a"] = due
        self.clock.pump([0.25] * 20)
        self.assertEqual([name for name, _ in self.gone], ["a", "a", "b"])

    def test_stopped(self) -> None:
        self.put("a", 2)
        self.expiry.stop()
        self.put("b", 2)
        self.clock.pump([0.25] * 20)
        self.assertEqual((self.gone, self.clock.getDelayedCalls()), ([], []))
