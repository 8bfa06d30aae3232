"""
The timers by their letters, held against RFC 3261 table 4, RFC 6026 and RFC 4320.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.sip.timers import TimerValues


class Table4Tests(SynchronousTestCase):
    """
    RFC 3261 appendix A: "T1 500ms default; T2 4s; T4 5s; Timer B, F, H, J 64*T1; Timer D > 32s for UDP; Timer I, K T4
    for UDP."
    """

    def test_the_defaults_are_those_of_the_rfc(self) -> None:
        self.assertEqual(TimerValues(), (0.5, 4.0, 5.0))

    def test_the_lifetime_is_64_times_t1(self) -> None:
        self.assertEqual(TimerValues().lifetime, 32.0)
        self.assertEqual(TimerValues(t1=0.1).lifetime, 6.4)

    def test_timer_d_is_32_seconds_however_short_t1_is(self) -> None:
        self.assertEqual(TimerValues().d, 32.0)
        self.assertEqual(TimerValues(t1=0.1, t2=1.0).d, 32.0)

    def test_timer_d_outlives_the_servers_timer_h(self) -> None:
        """
        §17.1.1.2: "Timer D reflects the amount of time that the server transaction can remain in the Completed state
        when unreliable transports are used. This is equal to Timer H in the INVITE server transaction".
        """
        self.assertEqual(TimerValues(t1=1.0).d, 64.0)


class TryingTests(SynchronousTestCase):
    """
    RFC 3261 §17.2.1: "The server transaction MUST generate a 100 (Trying) response unless it knows that the TU will
    generate a provisional or final response within 200 ms".
    """

    def test_an_invite_waits_200_ms_whatever_t1_is(self) -> None:
        self.assertEqual([TimerValues(t1=t1).trying for t1 in (0.1, 0.5, 2.0)], [0.2] * 3)


class NonInviteTryingTests(SynchronousTestCase):
    """
    RFC 4320 §4.1: "An SIP element MUST NOT respond to a non-INVITE request with a Status-Code of 100 over any
    unreliable transport, such as UDP, before the amount of time it takes a client transaction's Timer E to be reset to
    T2."
    """

    def test_timer_e_reaches_t2_after_half_a_second_one_and_two(self) -> None:
        self.assertEqual(TimerValues().trying_non_invite, 0.5 + 1 + 2)

    def test_it_is_reached_by_the_doubling_that_would_pass_t2(self) -> None:
        self.assertEqual(TimerValues(t1=0.5, t2=3.0).trying_non_invite, 0.5 + 1 + 2)

    def test_there_is_nothing_to_wait_for_when_t1_is_t2(self) -> None:
        self.assertEqual(TimerValues(t1=4.0, t2=4.0).trying_non_invite, 0.0)
