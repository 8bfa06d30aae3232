"""
The clock of the simulated cluster, as a reactor's.
"""

from __future__ import annotations

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.cluster.clock import HeapCall, HeapClock


class Process:
    """
    Owner of calls.
    """

    def __init__(self) -> None:
        self.is_dead = False
        self.is_halted = False
        self.late: list[HeapCall] = []

    def is_late(self, call: HeapCall) -> bool:
        if self.is_halted:
            self.late.append(call)
        return self.is_halted


class HeapClockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = HeapClock()
        self.called: list[tuple[float, str]] = []

    def note(self, name: str) -> None:
        self.called.append((self.clock.seconds(), name))

    def test_interfaces(self) -> None:
        verifyObject(IReactorTime, self.clock)
        verifyObject(IDelayedCall, self.clock.callLater(1, self.note, "a"))

    def test_each_call_at_its_time_and_in_order(self) -> None:
        for delay, name in ((2, "c"), (1, "a"), (1, "b")):
            self.clock.callLater(delay, self.note, name)
        self.clock.advance(1.5)
        self.assertEqual(self.called, [(1, "a"), (1, "b")])
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(1.5)
        self.assertEqual((self.called[2:], self.clock.now), ([(2, "c")], 3))

    def test_a_call_that_is_moved(self) -> None:
        earlier, later, both = (self.clock.callLater(2, self.note, name) for name in "abc")
        earlier.reset(1)
        later.delay(1)
        both.reset(5)
        both.reset(2.5)
        self.clock.advance(9)
        self.assertEqual(self.called, [(1, "a"), (2.5, "c"), (3, "b")])

    def test_what_is_over_cannot_be_cancelled(self) -> None:
        done, gone = (self.clock.callLater(1, self.note, name) for name in "ab")
        gone.cancel()
        self.clock.advance(1)
        self.assertEqual(self.called, [(1, "a")])
        self.assertRaises(AlreadyCalled, done.cancel)
        self.assertRaises(AlreadyCancelled, gone.reset, 1)
        self.assertFalse(done.active() or gone.active())

    def test_who_waits_for_the_last_bit_does_not_wait_for_ever(self) -> None:
        self.clock.advance(1000.1)

        def again() -> None:
            self.note("x")
            if len(self.called) < 9:
                self.clock.callLater(1e-17, again)

        again()
        self.clock.advance(0.1)
        self.assertEqual(len({at for at, _ in self.called}), 9)

    def test_the_calls_of_a_process_that_stands_still_are_late_and_can_still_be_cancelled(self) -> None:
        process = Process()
        first, second = (self.clock.call_for(process, 1, self.note, name) for name in "ab")
        process.is_halted = True
        self.clock.advance(5)
        second.cancel()
        process.is_halted = False
        self.clock.again(first)
        self.clock.advance(1)
        self.assertEqual(self.called, [(5, "a")])

    def test_the_calls_of_a_dead_process_never_happen(self) -> None:
        process = Process()
        self.clock.call_for(process, 1, self.note, "a")
        process.is_dead = True
        self.clock.advance(5)
        self.assertEqual(self.called, [])
