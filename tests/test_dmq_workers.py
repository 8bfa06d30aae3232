"""
The queue of KDMQ jobs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.dmq.workers import JOB_SIZE, REST, TURN, TURN_TIME, Workers
from sipdmq.interfaces.inspection import IInspectable


def submit(workers: Workers, group: str, keys: list[str], run: Callable[[], Any], size: int) -> bool:
    return workers.submit(group, lambda: keys, run, size)


class WorkersTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[str] = []
        self.open: dict[str, Deferred[Any]] = {}

    def make(self, num_workers: int = 2, usleep: int = 0, limit: int = 10**6) -> Workers:
        return Workers(self.clock, num_workers, usleep, limit)

    def slow(self, name: str) -> Callable[[], Deferred[Any]]:
        """
        A job that lasts until L{finish}.
        """
        def run() -> Deferred[Any]:
            self.events.append(name)
            self.open[name] = Deferred()
            return self.open[name]

        return run

    def quick(self, name: str) -> Callable[[], Any]:
        return lambda: self.events.append(name)

    def finish(self, name: str) -> None:
        self.open.pop(name).callback(None)


class OrderTests(WorkersTestCase):
    def test_interface(self) -> None:
        verifyObject(IInspectable, self.make())

    def test_a_job_is_begun_at_once(self) -> None:
        workers = self.make()
        submit(workers, "c", ["a"], self.quick("1"), 0)
        self.assertEqual(self.events, ["1"])
        self.assertEqual(workers.snapshot()["dmq.jobs_bytes"], 0)

    def test_num_workers_are_at_work_at_once(self) -> None:
        workers = self.make(2)
        for name in "123":
            submit(workers, "c", [name], self.slow(name), 0)
        self.assertEqual(self.events, ["1", "2"])
        self.finish("2")
        self.assertEqual(self.events, ["1", "2", "3"])

    def test_jobs_of_one_key_stay_in_order(self) -> None:
        workers = self.make(3)
        for name, keys in (("1", "a"), ("2", "ab"), ("3", "b"), ("4", "c")):
            submit(workers, "c", list(keys), self.slow(name), 0)
        self.assertEqual(self.events, ["1", "4"])
        self.finish("1")
        self.assertEqual(self.events, ["1", "4", "2"])
        self.finish("2")
        self.assertEqual(self.events, ["1", "4", "2", "3"])

    def test_the_same_key_of_another_channel_is_another(self) -> None:
        workers = self.make()
        submit(workers, "c", ["a"], self.slow("1"), 0)
        submit(workers, "d", ["a"], self.slow("2"), 0)
        self.assertEqual(self.events, ["1", "2"])

    def test_one_without_keys_waits_for_all_and_all_for_it(self) -> None:
        workers = self.make(9)
        for name, keys in (("1", "a"), ("2", "b"), ("sync", ""), ("3", "a"), ("sync2", ""), ("4", "z")):
            submit(workers, "c", list(keys), self.slow(name), 0)
        submit(workers, "d", ["a"], self.quick("other"), 0)
        self.assertEqual(self.events, ["1", "2", "other"])
        self.finish("1")
        self.finish("2")
        self.assertEqual(self.events[3:], ["sync"])
        self.finish("sync")
        self.finish("3")
        self.finish("sync2")
        self.assertEqual(self.events[3:], ["sync", "3", "sync2", "4"])

    def test_one_that_breaks_stops_no_other(self) -> None:
        workers = self.make()

        def broken() -> None:
            raise ValueError("x")

        def fails() -> Deferred[Any]:
            failing: Deferred[Any] = Deferred()
            failing.errback(KeyError("y"))
            return failing

        submit(workers, "c", ["a"], broken, 0)
        submit(workers, "c", ["a"], fails, 0)
        submit(workers, "c", ["a"], self.quick("3"), 0)
        self.assertEqual(self.events, ["3"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError, KeyError)), 2)


class BoundTests(WorkersTestCase):
    def test_what_is_too_much_is_turned_away(self) -> None:
        workers = self.make(1, limit=2 * JOB_SIZE + 500)
        self.assertTrue(submit(workers, "c", ["a"], self.slow("1"), 400))
        self.assertFalse(submit(workers, "c", ["b"], self.slow("2"), 400))
        self.assertTrue(submit(workers, "c", ["b"], self.slow("3"), 100))
        self.finish("1")
        self.finish("3")
        numbers = workers.snapshot()
        self.assertEqual((numbers["dmq.jobs_turned_away"], numbers["dmq.jobs_done"], numbers["dmq.jobs"]), (1, 2, 0))
        self.assertEqual(workers._groups, {})

    def test_many_barriers_cost_little(self) -> None:
        """
        Each waits for the one before, and not for everything.
        """
        workers = self.make(1, limit=10**9)
        submit(workers, "c", ["a"], self.slow("1"), 0)
        for _ in range(20_000):
            submit(workers, "c", [], self.quick("b"), 0)
        self.finish("1")
        self.clock.pump([0] * 1000)
        self.assertEqual(len(self.events), 20_001)

    def test_a_turn_ends(self) -> None:
        workers = self.make(1)
        submit(workers, "c", ["a"], self.slow("1"), 0)
        for number in range(2 * TURN):
            submit(workers, "c", [str(number)], self.quick("x"), 0)
        self.finish("1")
        self.assertEqual(len(self.events), 1 + TURN)
        self.clock.advance(0)
        self.assertEqual(len(self.events), 1 + 2 * TURN)

    def test_what_takes_long_lets_others_go_first(self) -> None:
        """
        Nobody looks into what comes after it before that.
        """
        workers = self.make()

        def takes(seconds: float, name: str) -> None:
            def run() -> None:
                self.events.append(name)
                self.clock.rightNow += seconds

            submit(workers, "c", ["a"], run, 0)

        for number in range(5):
            takes(0.7 * TURN_TIME, str(number))
        self.assertEqual(self.events, ["0", "1"])
        self.clock.callLater(0, self.events.append, "others")
        self.clock.advance(0)
        self.assertEqual(self.events, ["0", "1", "2", "3", "others", "4"])
        self.clock.advance(2 * REST)
        takes(0, "after a rest")
        self.assertEqual(self.events[6:], ["after a rest"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_done_at_once_is_not_asked_for_its_keys(self) -> None:
        workers = self.make()
        asked: list[str] = []

        def find(name: str) -> Callable[[], list[str]]:
            return lambda: asked.append(name) or ["a"]  # type: ignore[func-returns-value]

        workers.submit("c", find("1"), self.quick("1"), 0)
        self.assertEqual((self.events, asked), (["1"], []))
        workers.submit("c", find("2"), self.slow("2"), 0)
        workers.submit("c", find("3"), self.quick("3"), 0)
        self.assertEqual((self.events, asked), (["1", "2"], ["2", "3"]))
        self.finish("2")
        self.assertEqual(self.events, ["1", "2", "3"])
        self.assertEqual(workers.snapshot()["dmq.jobs"], 0)

    def test_usleep(self) -> None:
        workers = self.make(2, usleep=1000)
        submit(workers, "c", ["a"], self.quick("1"), 0)
        self.clock.advance(0.0005)
        submit(workers, "c", ["a"], self.quick("2"), 0)
        self.assertEqual(self.events, [])
        self.clock.advance(0.0006)
        self.clock.advance(0.001)
        self.assertEqual(self.events, ["1", "2"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped(self) -> None:
        workers = self.make(1, usleep=1000)
        submit(workers, "c", ["a"], self.quick("1"), 0)
        workers.stop()
        self.assertFalse(submit(workers, "c", ["a"], self.quick("2"), 0))
        self.clock.advance(1)
        self.assertEqual((self.events, self.clock.getDelayedCalls()), ([], []))
