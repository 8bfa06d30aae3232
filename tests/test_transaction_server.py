"""
Server transactions (RFC 3261 §17.2) on the clock: retransmissions, timers, and what is sent of its own accord.
"""

from __future__ import annotations

from typing import Any

from zope.interface.verify import verifyObject

from sipdmq.errors import TransactionStateError
from sipdmq.interfaces.messages import IServerTransaction
from sipdmq.records import Source
from sipdmq.sip.message import response_to
from tests.fakes import PHONE, PHONE_TCP, TransactionTestCase, leftovers, pump, request, statuses

WHERE = "udp:198.51.100.7:5062"
TABLES = ("completed", "_servers", "_by_target", "_live_merges")


class ServerTestCase(TransactionTestCase):
    def start(self, method: str, source: Source = PHONE, **changes: Any) -> Any:
        """
        A new request arrives, and its user waits.
        """
        self.request = request(method, **changes)
        self.receive(self.request, source)
        self.taken()
        return self.user.transactions[-1]

    def respond(self, transaction: Any, status: int, to_tag: str = "t1") -> None:
        """
        Its user answers.
        """
        transaction.respond(response_to(transaction.request, status, to_tag if status > 100 else ""))


class InterfaceTests(ServerTestCase):
    """
    What services are given.
    """

    def test_interface(self) -> None:
        verifyObject(IServerTransaction, self.start("OPTIONS"))
        verifyObject(IServerTransaction, self.start("INVITE"))

    def test_request_and_source_are_what_was_received(self) -> None:
        transaction = self.start("OPTIONS")
        self.assertIs(transaction.request, self.request)
        self.assertEqual(transaction.source, PHONE)


class InviteServerTests(ServerTestCase):
    """
    RFC 3261 §17.2.1: "The server transaction MUST generate a 100 (Trying) response unless it knows that the TU will
    generate a provisional or final response within 200 ms".
    """

    def test_100_is_sent_after_200_ms_of_silence(self) -> None:
        self.start("INVITE")
        self.clock.advance(0.19)
        self.assertEqual(self.transport.times, [])
        self.clock.advance(0.035)
        self.assertEqual(self.transport.times, [(0.225, 100)])
        self.assertEqual(self.transport.last.to.tag, "")

    def test_no_100_after_a_provisional_response(self) -> None:
        self.respond(self.start("INVITE"), 180)
        pump(self.clock, 40)
        self.assertEqual(statuses(self.transport.sent), [180])

    def test_a_retransmission_gets_the_latest_provisional_response(self) -> None:
        """
        "If a request retransmission is received while in the Proceeding state, the most recent provisional response
        that was received from the TU MUST be passed to the transport layer for retransmission."
        """
        transaction = self.start("INVITE")
        self.receive(self.request)
        self.assertEqual(self.taken(), [])
        self.respond(transaction, 180)
        self.respond(transaction, 183)
        self.receive(self.request)
        self.assertEqual(statuses(self.transport.sent), [180, 183, 183])
        self.assertEqual(len(self.user.transactions), 1)

    def test_a_large_one_is_not_repeated_to_who_sends_small_ones(self) -> None:
        """
        The source of a datagram may be somebody else's address.
        """
        for source, expected in ((PHONE, 100), (PHONE_TCP, 183)):
            transaction = self.start("INVITE", source, via=f"SIP/2.0/UDP h:5062;branch=z9hG4bK{expected}")
            headers = [("Content-Type", "text/plain")]
            transaction.respond(response_to(transaction.request, 183, "t1", headers, body=b"x" * 4000))
            self.receive(self.request, source)
            self.assertEqual(statuses(self.transport.sent[-2:]), [183, expected])


class TimerGTests(ServerTestCase):
    """
    RFC 3261 §17.2.1: "If timer G fires, the response is passed to the transport layer once more for retransmission,
    and timer G is set to fire in MIN(2*T1, T2) seconds. From then on, when timer G fires, the response is passed to
    the transport again for transmission, and timer G is reset with a value that doubles, unless that value exceeds T2,
    in which case it is reset with the value of T2."
    """

    def test_a_final_response_is_repeated_until_the_ack(self) -> None:
        self.respond(self.start("INVITE"), 486)
        pump(self.clock, 12)
        self.receive(request("ACK"))
        pump(self.clock, 30)
        self.assertEqual([time for time, _ in self.transport.times], [0, 0.5, 1.5, 3.5, 7.5, 11.5])

    def test_a_retransmitted_invite_gets_it_too(self) -> None:
        self.respond(self.start("INVITE"), 486)
        self.receive(self.request)
        self.assertEqual(self.transport.times, [(0, 486), (0, 486)])

    def test_over_tcp_nothing_is_repeated(self) -> None:
        self.respond(self.start("INVITE", PHONE_TCP), 486)
        pump(self.clock, 40)
        self.assertEqual(self.transport.times, [(0, 486)])


class TimerHTests(ServerTestCase):
    """
    RFC 3261 §17.2.1: "If timer H fires while in the Completed state, it implies that the ACK was never received. In
    this case, the server transaction MUST transition to the Terminated state, and MUST indicate to the TU that a
    transaction failure has occurred."
    """

    def assert_lost_at_32_s(self, source: Source) -> None:
        self.respond(self.start("INVITE", source), 486)
        pump(self.clock, 31.75)
        self.assertNotIn(("lost", "INVITE", "no ACK"), self.events)
        pump(self.clock, 0.5)
        self.assertEqual(self.taken()[-1], ("lost", "INVITE", "no ACK"))
        self.assert_nothing_left()

    def test_the_user_is_told_after_64_times_t1(self) -> None:
        self.assert_lost_at_32_s(PHONE)

    def test_over_tcp_too(self) -> None:
        self.assert_lost_at_32_s(PHONE_TCP)

    def test_the_transaction_is_over_even_if_its_user_breaks_on_the_news(self) -> None:
        def raise_(transaction: Any) -> None:
            raise ZeroDivisionError

        self.user.react_to_loss = raise_
        self.respond(self.start("INVITE"), 486)
        try:
            pump(self.clock, 33)
        except ZeroDivisionError:
            pump(self.clock, 33)
        self.flushLoggedErrors(ZeroDivisionError)
        self.assert_nothing_left()


class TimerITests(ServerTestCase):
    """
    RFC 3261 §17.2.1: "timer I is set to fire in T4 seconds for unreliable transports, and zero seconds for reliable
    transports. Once timer I fires, the server MUST transition to the Terminated state."
    """

    def test_acks_are_absorbed_for_t4(self) -> None:
        self.respond(self.start("INVITE"), 486)
        self.taken()
        self.receive(request("ACK"))
        pump(self.clock, 4.75)
        self.receive(request("ACK"))
        self.receive(self.request)
        self.assertEqual(self.taken(), [])
        pump(self.clock, 0.5)
        self.assertEqual(self.layer.snapshot()["transaction.servers"], 0)

    def test_over_tcp_the_ack_ends_it_at_once(self) -> None:
        self.respond(self.start("INVITE", PHONE_TCP), 486)
        self.receive(request("ACK"), PHONE_TCP)
        self.assertEqual(self.layer.snapshot()["transaction.servers"], 0)

    def test_a_new_transaction_of_the_same_name_has_its_own_timers(self) -> None:
        """
        The INVITE comes again, late, and is answered again: timer H of the first time is no timer of the second.
        """
        self.respond(self.start("INVITE"), 486)
        self.receive(request("ACK"))
        pump(self.clock, 10)
        self.receive(self.request)
        self.assertEqual(len(self.user.transactions), 2)
        self.respond(self.user.transactions[-1], 486)
        pump(self.clock, 25)
        self.assertNotIn(("lost", "INVITE", "no ACK"), self.events)
        self.assertEqual(self.layer.snapshot()["transaction.servers"], 1)


class AcceptedTests(ServerTestCase):
    """
    RFC 6026 §7.1 and §8.5: after a 2xx the transaction stays in Accepted for timer L (64 × T1), absorbs the INVITE's
    retransmissions, sends what further 2xx the TU gives, and passes ACKs to it.
    """

    def test_the_2xx_is_sent_once_and_the_invite_absorbed(self) -> None:
        self.respond(self.start("INVITE"), 200)
        pump(self.clock, 20)
        self.receive(self.request)
        pump(self.clock, 5)
        self.assertEqual(self.taken(), [("send", 200, WHERE)])

    def test_the_user_repeats_it(self) -> None:
        transaction = self.start("INVITE")
        self.respond(transaction, 200)
        self.respond(transaction, 200)
        self.assertEqual(statuses(self.transport.sent), [200, 200])

    def test_an_ack_of_the_same_branch_goes_to_the_user(self) -> None:
        self.respond(self.start("INVITE"), 200)
        self.taken()
        self.receive(request("ACK"))
        self.receive(request("ACK"))
        self.assertEqual(self.taken(), [("ack", "ACK")] * 2)

    def test_it_ends_with_timer_l_over_any_transport(self) -> None:
        for source in (PHONE, PHONE_TCP):
            self.respond(self.start("INVITE", source), 200)
            pump(self.clock, 31.75)
            self.assertEqual(self.layer.snapshot()["transaction.servers"], 1)
            pump(self.clock, 0.5)
            self.assert_nothing_left()

    def test_nothing_else_can_be_said_after_it(self) -> None:
        transaction = self.start("INVITE")
        self.respond(transaction, 200)
        for status in (180, 486):
            self.assertRaises(TransactionStateError, self.respond, transaction, status)


class NonInviteServerTests(ServerTestCase):
    """
    RFC 3261 §17.2.2.
    """

    def test_a_retransmission_before_any_answer_is_discarded(self) -> None:
        self.start("REGISTER")
        self.receive(self.request)
        self.assertEqual(self.taken(), [])

    def test_a_retransmission_gets_the_final_response_for_timer_j(self) -> None:
        """
        "While in the Completed state, the server transaction MUST pass the final response to the transport layer for
        retransmission whenever a retransmission of the request is received."
        """
        self.respond(self.start("REGISTER"), 200)
        pump(self.clock, 31.75)
        self.receive(self.request)
        self.assertEqual(self.taken(), [("send", 200, WHERE)] * 2)
        self.assertEqual(*(message.to.tag for message, _ in self.transport.sent))
        pump(self.clock, 0.5)
        self.assert_nothing_left()

    def test_over_tcp_timer_j_is_zero(self) -> None:
        self.user.react = lambda transaction: self.respond(transaction, 200)
        self.start("REGISTER", PHONE_TCP)
        self.assertEqual(statuses(self.transport.sent), [200])
        self.assert_nothing_left()

    def test_a_second_final_response_is_the_users_mistake(self) -> None:
        transaction = self.start("REGISTER")
        self.respond(transaction, 200)
        self.assertRaises(TransactionStateError, self.respond, transaction, 200)
        self.assertRaises(
            TransactionStateError, transaction.respond_statelessly, response_to(self.request, 404, "t")
        )
        self.assertEqual(statuses(self.transport.sent), [200])

    def test_an_answer_without_a_provisional_one_before_leaves_only_its_bytes(self) -> None:
        self.respond(self.start("REGISTER"), 200)
        tables = {name: count for name, count in leftovers(self.layer).items() if name in TABLES}
        self.assertEqual(tables, {"completed": 1})

    def test_a_provisional_answer_before_leaves_no_more(self) -> None:
        transaction = self.start("REGISTER")
        self.respond(transaction, 100)
        self.respond(transaction, 200)
        pump(self.clock, 33)
        self.assert_nothing_left()


class TryingNonInviteTests(ServerTestCase):
    """
    RFC 4320 §4.1: "An SIP element MUST NOT send any provisional response with a Status-Code other than 100 to a
    non-INVITE request. An SIP element MUST NOT respond to a non-INVITE request with a Status-Code of 100 over any
    unreliable transport, such as UDP, before the amount of time it takes a client transaction's Timer E to be reset to
    T2. ... Without regard to transport, an SIP element MUST respond to a non-INVITE request with a Status-Code of 100
    if it has not otherwise responded after the amount of time it takes a client transaction's Timer E to be reset to
    T2."
    """

    def test_100_is_sent_after_three_and_a_half_seconds(self) -> None:
        for source in (PHONE, PHONE_TCP):
            self.start("REGISTER", source, via=f"SIP/2.0/UDP h;branch=z9hG4bK{source.port}")
            begin = self.clock.seconds()
            pump(self.clock, 10)
            (time, status), *others = self.transport.times
            self.assertEqual((status, others), (100, []))
            self.assertTrue(3.5 <= time - begin <= 3.75, time)
            self.transport.times.clear()

    def test_a_retransmission_after_it_gets_100_and_none_before(self) -> None:
        self.start("REGISTER")
        pump(self.clock, 3.25)
        self.receive(self.request)
        self.assertEqual(self.taken(), [])
        pump(self.clock, 1)
        self.receive(self.request)
        self.assertEqual(statuses(self.transport.sent), [100, 100])

    def test_no_other_provisional_response_leaves(self) -> None:
        transaction = self.start("REGISTER")
        self.respond(transaction, 183)
        self.assertEqual(self.taken(), [])
        self.respond(transaction, 200)
        self.assertEqual(self.taken(), [("send", 200, WHERE)])


class LateAnswerTests(ServerTestCase):
    """
    RFC 4320 §4.2: "A transaction-stateful SIP element MUST NOT send a response with Status-Code of 408 to a non-INVITE
    request. As a consequence, an element that cannot respond before the transaction expires will not send a final
    response at all."
    """

    def test_no_408_to_a_register(self) -> None:
        self.respond(self.start("REGISTER"), 408)
        self.assertEqual(self.taken(), [])
        pump(self.clock, 33)
        self.assertEqual(self.taken(), [])
        self.assert_nothing_left()

    def test_408_to_an_invite(self) -> None:
        self.respond(self.start("INVITE"), 408)
        self.assertEqual(statuses(self.transport.sent), [408])

    def test_after_timer_f_nothing_is_left(self) -> None:
        self.start("REGISTER")
        pump(self.clock, 33)
        self.assertEqual(statuses(self.transport.sent), [100])
        self.assert_nothing_left()

    def test_an_answer_after_timer_f_is_no_mistake_and_goes_nowhere(self) -> None:
        """
        The user could not know: a store that took 33 s is late, not wrong.
        """
        transaction = self.start("REGISTER")
        pump(self.clock, 33)
        self.taken()
        self.respond(transaction, 200)
        self.assertEqual(self.taken(), [])
        self.assert_nothing_left()


class TransportErrorTests(ServerTestCase):
    """
    RFC 3261 §17.2.4, RFC 6026 §8.5: the TU is informed, and the transaction stays: a retransmission may be answered.
    """

    def test_of_an_invite_in_each_state(self) -> None:
        transaction = self.start("INVITE")
        for status in (180, 486):
            self.respond(transaction, status)
            self.taken()
            self.layer.transport_failed(self.transport.sent[-1][1], "no route")
            self.assertEqual(self.taken(), [("lost", "INVITE", "no route")])
            self.receive(self.request)
            self.assertEqual(self.taken(), [("send", status, WHERE)])

    def test_of_a_2xx(self) -> None:
        self.respond(self.start("INVITE"), 200)
        self.taken()
        self.layer.transport_failed(self.transport.sent[-1][1], "no route")
        self.assertEqual(self.taken(), [("lost", "INVITE", "no route")])

    def test_not_told_of_the_final_response_to_another_method(self) -> None:
        self.respond(self.start("REGISTER"), 200)
        self.taken()
        self.layer.transport_failed(self.transport.sent[-1][1], "no route")
        self.assertEqual(self.taken(), [])

    def test_nobody_is_told_after_the_end(self) -> None:
        self.respond(self.start("INVITE"), 486)
        pump(self.clock, 33)
        self.taken()
        self.layer.transport_failed(self.transport.sent[-1][1], "no route")
        self.assertEqual(self.taken(), [])
