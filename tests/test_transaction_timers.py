"""
Requests with timers of their own (RFC 3261 §17.1.1.1: smaller values inside a private network).
"""

from __future__ import annotations

from sipdmq.records import Protocol
from sipdmq.sip.timers import RequestTimers
from tests.fakes import A, TransactionTestCase, answer, outgoing, pump

TIMERS = RequestTimers(0.125, 1.0, 8.0)
TARGET = A._replace(fixed=True)


class OwnTimersTests(TransactionTestCase):
    def test_retransmissions(self) -> None:
        self.layer.send_request(outgoing(), (TARGET,), self.client_user, timers=TIMERS)
        pump(self.clock, 4, 0.0625)  # a binary fraction: no step is late by a rounding
        times = [time for time, _ in self.transport.times]
        self.assertEqual(times, [0.0, 0.125, 0.375, 0.875, 1.875, 2.875, 3.875])

    def test_it_is_given_up_after_its_timeout(self) -> None:
        self.layer.send_request(outgoing(), (TARGET,), self.client_user, timers=TIMERS)
        pump(self.clock, 7.9, 0.05)
        self.assertNotIn(("timed out",), self.events)
        pump(self.clock, 0.6, 0.05)
        self.assertIn(("timed out",), self.events)

    def test_so_over_a_connection(self) -> None:
        target = TARGET._replace(protocol=Protocol.TCP)
        self.layer.send_request(outgoing(), (target,), self.client_user, timers=TIMERS)
        pump(self.clock, 8.5, 0.05)
        self.assertEqual(self.events, [("send", "OPTIONS", str(target)), ("timed out",)])

    def test_others_keep_theirs(self) -> None:
        self.layer.send_request(outgoing(), (TARGET,), self.client_user, timers=TIMERS)
        self.layer.send_request(outgoing(), (TARGET,), self.client_user)
        pump(self.clock, 31, 0.25)
        self.assertEqual(self.events.count(("timed out",)), 1)
        pump(self.clock, 2, 0.25)
        self.assertEqual(self.events.count(("timed out",)), 2)

    def test_an_answered_one_leaves_nothing_that_fires(self) -> None:
        self.layer.send_request(outgoing(), (TARGET,), self.client_user, timers=TIMERS)
        self.receive(answer(self.transport.last, 200))
        pump(self.clock, 10, 0.25)
        self.assertEqual([event for event in self.events if event[0] != "send"], [("response", 200)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_long_one_stays_on_udp_where_that_is_fixed(self) -> None:
        self.layer.send_request(outgoing(body=b"x" * 20_000), (TARGET,), self.client_user, timers=TIMERS)
        self.assertEqual(self.transport.sent[0][1], TARGET)
