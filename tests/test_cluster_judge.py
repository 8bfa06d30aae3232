"""
The judge of the simulated cluster finds what is wrong, and only that.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.records import Binding
from tests.cluster.clock import HeapClock
from tests.cluster.judge import Judge
from tests.cluster.machine import node_address
from tests.cluster.network import Network
from tests.cluster.phones import Phone
from tests.location_store_tests import EPOCH, make_binding

AOR = "alice@example.com"


class FakeMachine:
    """
    Has what a test says.
    """

    is_up = True
    is_sipdmq = True

    def __init__(self, number: int) -> None:
        self.address = node_address(number)
        self.has: list[Binding] = []

    def records(self, aor: str) -> tuple[Binding, ...]:
        return tuple(record for record in self.has if record.aor == aor)


class JudgeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = HeapClock()
        self.machines = [FakeMachine(1), FakeMachine(2)]
        network = Network(self.clock, Random(1))
        self.phone = Phone(self.clock, network, Random(1), 1, "alice", False, lambda text: None)
        self.judge = Judge(self.clock, self.machines, [self.phone], skew=0.0)

    def write(self, cseq: int, removed: bool = False, confirmed: bool = True, previous: Any = None) -> Binding:
        """
        A change at node 1, now; then ten seconds pass.
        """
        record = make_binding(
            "r", aor=AOR, contact="sip:alice@10.0.0.1:5060", cseq=cseq, call_id="c", removed=removed,
            last_modified=EPOCH + int(self.clock.now), expires_in=3600,
        )
        self.judge.written(self.machines[0].address, record, previous)
        if confirmed:
            self.phone.confirmed["c", cseq] = self.clock.now
        self.clock.advance(10)
        return record

    def everywhere(self, *records: Binding) -> list[str]:
        for machine in self.machines:
            machine.has = list(records)
        return [problem.partition(":")[0] for problem in self.judge.equal() + self.judge.right()]

    def test_all_is_well(self) -> None:
        self.write(1)
        record = self.write(2)
        self.assertEqual(self.everywhere(record), [])
        self.assertEqual(self.everywhere(record._replace(ruid="other", told_by="x", methods=7)), [])

    def test_nodes_that_differ(self) -> None:
        record = self.write(1)
        self.everywhere(record)
        self.machines[1].has = [record._replace(q=500)]
        self.assertEqual([problem[:9] for problem in self.judge.equal()], ["not equal"])
        self.machines[1].has = []
        self.assertEqual([problem[:7] for problem in self.judge.right()], ["missing"])

    def test_lost_old_and_back(self) -> None:
        first = self.write(1)
        self.assertEqual(self.everywhere(), ["missing"] * 2)
        self.write(2)
        self.assertEqual(self.everywhere(first), ["old"] * 2)
        self.write(3, removed=True)
        self.assertEqual(self.everywhere(first), ["back"] * 2)
        self.assertEqual(self.everywhere(), [])

    def test_what_no_200_has_confirmed_may_count_or_not(self) -> None:
        first = self.write(1)
        second = self.write(2, confirmed=False)
        self.assertEqual(self.everywhere(first) + self.everywhere(second), [])
        self.assertEqual(self.everywhere(), ["missing"] * 2)

    def test_what_has_expired_may_be_gone(self) -> None:
        self.write(1)
        self.clock.advance(3600)
        self.assertEqual(self.everywhere(), [])

    def test_changes_within_two_seconds_count_in_either_order_unless_one_has_seen_the_other(self) -> None:
        first = self.write(1)
        self.clock.now -= 9
        self.write(2)
        self.assertEqual(self.everywhere(first), [])
        self.clock.now -= 9
        third = self.write(3, previous=first)
        self.assertEqual(self.everywhere(first), ["old"] * 2)
        self.assertEqual(self.everywhere(third), [])

    def test_what_only_a_killed_node_had_may_be_lost(self) -> None:
        record = self.write(1)
        self.everywhere(record)
        self.judge.killing(self.machines[0])
        self.assertEqual(self.everywhere(), ["missing"] * 2, "the other one had it")
        second = self.write(2)
        self.machines[0].has = [second]
        self.machines[1].has = [record]
        self.judge.killing(self.machines[0])
        self.assertEqual(self.everywhere(record) + self.everywhere(second), [])
        self.assertEqual(self.everywhere(), ["missing"] * 2)

    def test_a_removal_where_nobody_knew_of_it(self) -> None:
        record = self.write(1)
        operation = self.phone.act(self.machines[1].address, "remove")
        self.assertEqual(self.everywhere(record), [])
        self.phone.confirmed[operation.call_id, operation.cseq] = self.clock.now
        self.assertEqual(self.everywhere(record), ["back"] * 2)
        gone = record._replace(removed=True, call_id=operation.call_id, cseq=operation.cseq, last_modified=EPOCH + 10)
        self.judge.written(self.machines[1].address, gone, None)
        self.assertEqual(self.everywhere(gone), [])
