"""
What can happen to a process of the simulated cluster, and what the node does then.
"""

from __future__ import annotations

import gc
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.cluster.clock import HeapClock
from tests.cluster.machine import Machine
from tests.cluster.network import Faults, Network
from tests.cluster.phones import Phone


class MachineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = HeapClock()
        self.network = Network(self.clock, Random(1))
        self.machines = [
            Machine(self.clock, self.network, number, tuple({1, 2, 3} - {number}), "1") for number in (1, 2, 3)
        ]
        self.phone = Phone(self.clock, self.network, Random(1), 1, "alice", False, lambda text: None)
        for machine in self.machines:
            machine.start()
        self.clock.advance(12)

    def tearDown(self) -> None:
        for machine in self.machines:
            machine.kill()

    def act(self, number: int, kind: str = "add", expires: int = 3600) -> None:
        self.phone.act(self.machines[number - 1].address, kind, expires)

    def known(self) -> list[int]:
        return [len(machine.records("alice@example.com")) for machine in self.machines]

    def test_a_process_that_stands_still_reads_later_what_has_arrived(self) -> None:
        self.machines[2].halt()
        self.act(1)
        self.clock.advance(3)
        self.assertEqual(self.known(), [1, 1, 0])
        self.machines[2].go_on()
        self.clock.advance(1)
        self.assertEqual(self.known(), [1, 1, 1])

    def test_a_killed_process_is_silent_and_a_new_one_knows_nothing(self) -> None:
        self.act(1)
        self.clock.advance(1)
        for machine in self.machines:
            machine.kill()
        self.network.sent.clear()
        self.clock.advance(60)
        self.assertEqual(self.network.sent, [])
        for machine in self.machines:
            machine.start()
        self.clock.advance(1)
        self.assertEqual(self.known(), [0, 0, 0])

    def test_a_cut_has_two_directions(self) -> None:
        self.network.cut([self.machines[0].address], [self.machines[2].address])
        self.act(1)
        self.clock.advance(1)
        self.assertEqual(self.known(), [1, 1, 0])
        self.network.heal()
        self.clock.advance(2)
        self.assertEqual(self.known(), [1, 1, 1])

    def test_loss_and_doubling(self) -> None:
        for faults, fate in ((Faults(loss=1.0), "lost"), (Faults(doubling=1.0), "doubled")):
            self.network.sent.clear()
            self.network.faults = faults
            self.clock.advance(6)
            self.assertEqual({sent.fate for sent in self.network.sent}, {fate})

    def test_a_node_that_stops_tells_what_it_has_confirmed_first(self) -> None:
        self.network.faults = Faults(least=0.1, most=0.1)
        self.act(3)
        self.clock.advance(0.01)
        self.machines[2].stop()
        self.clock.advance(3)
        self.assertEqual(self.known(), [1, 1, 0])
        self.assertFalse(self.machines[2].is_up)

    def test_a_node_stops_quietly_though_nobody_hears_it(self) -> None:
        self.machines[0].kill()
        self.machines[1].kill()
        self.act(3)
        self.clock.advance(0.1)
        self.machines[2].stop()
        self.clock.advance(10)
        self.assertEqual(self.phone.confirmed.keys(), {("alice1.1", 1)})
        del self.machines[:], self.clock, self.network, self.phone
        gc.collect()  # a failure that nobody has looked at is logged then, and fails this test
