"""
Client transactions (RFC 3261 §17.1) on the clock, CANCEL (§9.1), and one request over all its targets (RFC 3263 §4.3).
"""

from __future__ import annotations

from typing import Any

from zope.interface.verify import verifyObject

from sipdmq.interfaces.messages import IClientTransaction
from sipdmq.records import Protocol, Target
from tests.fakes import A_TCP, A, B, TransactionTestCase, answer, outgoing, pump, statuses


class ClientTestCase(TransactionTestCase):
    def send(self, method: str, *targets: Target, body: bytes = b"") -> Any:
        """
        The user sends a request.
        """
        return self.layer.send_request(outgoing(method, body), targets or (A,), self.client_user)

    def answer(self, status: int, at: int = -1, to_tag: str = "t1") -> None:
        """
        A response arrives.

        @param at: to which of the messages that were sent.
        """
        self.receive(answer(self.transport.sent[at][0], status, to_tag))

    def seconds(self, name: int | str) -> list[float]:
        """
        When messages of this name were sent.
        """
        return [time for time, each in self.transport.times if each == name]


class InterfaceTests(ClientTestCase):
    """
    What who sends a request is given.
    """

    def test_interface(self) -> None:
        verifyObject(IClientTransaction, self.send("OPTIONS"))

    def test_request_and_target_are_those_that_were_sent_last(self) -> None:
        sending = self.send("OPTIONS", A, B)
        self.assertEqual((sending.target, sending.request.top_via.branch[:7]), (A, "z9hG4bK"))
        first = sending.request.top_via.branch
        pump(self.clock, 33)
        self.assertEqual(sending.target, B)
        self.assertNotEqual(sending.request.top_via.branch, first)

    def test_via_names_us_and_asks_for_rport(self) -> None:
        """
        RFC 3261 §18.1.1: "the client transport MUST insert a value of the sent-by field into the Via header field."
        RFC 3581 §3: the client includes an empty rport.
        """
        for target in (A, A_TCP):
            self.send("OPTIONS", target)
            via = self.transport.last.top_via
            self.assertEqual((via.transport, via.sent_by), (target.protocol.name, "192.0.2.1:5060"))
            self.assertIsNone(via.params["rport"])

    def test_the_users_request_is_not_changed(self) -> None:
        request = outgoing()
        self.layer.send_request(request, (A,), self.client_user)
        self.assertNotIn("via", request.headers)


class InviteClientTests(ClientTestCase):
    """
    RFC 3261 §17.1.1.2: "When timer A fires, the client transaction MUST retransmit the request by passing it to the
    transport layer, and MUST reset the timer with a value of 2*T1."
    """

    def test_timer_a_doubles_until_timer_b(self) -> None:
        self.send("INVITE")
        pump(self.clock, 33)
        self.assertEqual(self.seconds("INVITE"), [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5])
        self.assertEqual(self.events[-1], ("timed out",))
        self.assertEqual(len({message.top_via.branch for message, _ in self.transport.sent}), 1)
        self.assert_nothing_left()

    def test_no_retransmission_over_tcp_but_timer_b(self) -> None:
        self.send("INVITE", A_TCP)
        pump(self.clock, 33)
        self.assertEqual(self.seconds("INVITE"), [0])
        self.assertEqual(self.taken()[-1], ("timed out",))
        self.assert_nothing_left()

    def test_none_after_a_provisional_response_and_no_timeout(self) -> None:
        self.send("INVITE")
        self.answer(100)
        pump(self.clock, 200, 0.5)
        self.assertEqual(self.seconds("INVITE"), [0])
        self.answer(180)
        self.assertEqual(self.taken()[1:], [("response", 100), ("response", 180)])

    def test_a_final_response_is_acknowledged_for_timer_d(self) -> None:
        """
        "Any retransmissions of the final response that are received while in the Completed state MUST cause the ACK to
        be re-passed to the transport layer for retransmission, but the newly received response MUST NOT be passed up
        to the TU."
        """
        self.send("INVITE")
        self.answer(486, 0)
        pump(self.clock, 31.75)
        self.answer(486, 0)
        self.assertEqual(statuses(self.transport.sent), ["INVITE", "ACK", "ACK"])
        self.assertEqual(self.events.count(("response", 486)), 1)
        pump(self.clock, 0.5)
        self.answer(486, 0)
        self.assertEqual(statuses(self.transport.sent), ["INVITE", "ACK", "ACK"])
        self.assert_nothing_left()

    def test_over_tcp_timer_d_is_zero(self) -> None:
        self.send("INVITE", A_TCP)
        self.answer(486)
        self.assertEqual(self.taken()[1:], [("send", "ACK", str(A_TCP)), ("response", 486)])
        self.assertEqual(self.layer.snapshot()["transaction.clients"], 0)

    def test_the_ack_is_of_the_same_transaction(self) -> None:
        """
        §17.1.1.3: "The ACK MUST contain a single Via header field, and this MUST be equal to the top Via header field
        of the original request."
        """
        self.send("INVITE")
        self.answer(486, to_tag="theirs")
        invite, ack = (message for message, _ in self.transport.sent)
        self.assertEqual(ack.headers.get_all("via"), invite.headers.get_all("via")[:1])
        self.assertEqual((ack.to.tag, ack.cseq.number), ("theirs", invite.cseq.number))

    def test_an_ack_that_cannot_be_sent_is_no_reason_to_call_somebody_else(self) -> None:
        """
        §17.1.1.2: in Completed a transport error is told to the TU; the final response stands.
        """
        self.send("INVITE", A, B)
        self.answer(486)
        self.layer.transport_failed(A, "no route")
        pump(self.clock, 33)
        self.assertNotIn(("send", "INVITE", str(B)), self.events)
        self.assertIn(("response", 486), self.events)
        self.assertNotIn(("timed out",), self.events)


class AcceptedTests(ClientTestCase):
    """
    RFC 6026 §7.2 and §8.4: after a 2xx, timer M (64 × T1): each 2xx goes to the TU, which sends the ACK.
    """

    def test_every_2xx_is_passed_up_and_none_acknowledged_here(self) -> None:
        self.send("INVITE")
        for tag in ("one", "one", "two"):
            self.answer(200, to_tag=tag)
        self.assertEqual(self.taken()[1:], [("response", 200)] * 3)

    def test_until_timer_m(self) -> None:
        self.send("INVITE")
        self.answer(200)
        pump(self.clock, 31.75)
        self.answer(200)
        pump(self.clock, 0.5)
        self.answer(200)
        self.assertEqual(self.taken()[1:], [("response", 200)] * 2)
        self.assert_nothing_left()

    def test_over_tcp_too(self) -> None:
        self.send("INVITE", A_TCP)
        self.answer(200)
        pump(self.clock, 31.75)
        self.answer(200)
        self.assertEqual(self.taken()[1:], [("response", 200)] * 2)

    def test_other_responses_are_too_late(self) -> None:
        self.send("INVITE")
        self.answer(200)
        self.answer(180)
        self.answer(486)
        self.assertEqual(self.taken()[1:], [("response", 200)])


class NonInviteClientTests(ClientTestCase):
    """
    RFC 3261 §17.1.2.2: "If timer E fires while still in this [Trying] state, the timer is reset, but this time with a
    value of MIN(2*T1, T2). ... If Timer E fires while in the Proceeding state, the request MUST be passed to the
    transport layer for retransmission, and Timer E MUST be reset with a value of T2 seconds."
    """

    def test_timer_e_doubles_up_to_t2_until_timer_f(self) -> None:
        self.send("OPTIONS")
        pump(self.clock, 33)
        self.assertEqual(
            self.seconds("OPTIONS"), [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
        )
        self.assertEqual(self.events[-1], ("timed out",))
        self.assert_nothing_left()

    def test_in_proceeding_every_t2(self) -> None:
        self.send("OPTIONS")
        pump(self.clock, 1)
        self.answer(100)
        pump(self.clock, 10)
        self.assertEqual(self.seconds("OPTIONS"), [0, 0.5, 1.5, 5.5, 9.5])

    def test_a_provisional_response_does_not_stop_timer_f(self) -> None:
        self.send("OPTIONS")
        self.answer(100)
        pump(self.clock, 33)
        self.assertEqual(self.events[-1], ("timed out",))
        self.assert_nothing_left()

    def test_the_first_final_response_is_told_and_its_repetitions_absorbed_for_t4(self) -> None:
        self.send("OPTIONS")
        self.answer(200)
        pump(self.clock, 4.75)
        self.answer(200)
        self.assertEqual(self.taken(), [("send", "OPTIONS", str(A)), ("response", 200)])
        self.assertEqual(self.layer.snapshot()["transaction.clients"], 1)
        pump(self.clock, 0.5)
        self.assertEqual(self.layer.snapshot()["transaction.clients"], 0)
        pump(self.clock, 30)
        self.assert_nothing_left()

    def test_over_tcp_timer_k_is_zero(self) -> None:
        self.send("OPTIONS", A_TCP)
        self.answer(200)
        self.assertEqual(self.layer.snapshot()["transaction.clients"], 0)


class CancelTests(ClientTestCase):
    """
    RFC 3261 §9.1: "If no provisional response has been received, the CANCEL request MUST NOT be sent; rather, the
    client MUST wait for the arrival of a provisional response before sending the request."
    """

    def test_after_a_provisional_response_at_once(self) -> None:
        sending = self.send("INVITE")
        self.answer(180)
        sending.cancel()
        invite, cancel = (message for message, _ in self.transport.sent)
        self.assertEqual(cancel.method, "CANCEL")
        self.assertEqual(cancel.uri_text, invite.uri_text)
        self.assertEqual(cancel.top_via.branch, invite.top_via.branch)
        self.assertEqual(cancel.cseq, (1, "CANCEL"))
        self.assertEqual(self.transport.sent[1][1], A)

    def test_before_it_waits(self) -> None:
        sending = self.send("INVITE")
        sending.cancel()
        pump(self.clock, 1)
        self.assertEqual(statuses(self.transport.sent), ["INVITE", "INVITE"])
        self.answer(100)
        self.assertEqual(statuses(self.transport.sent)[2:], ["CANCEL"])
        self.answer(180, 0)
        self.assertEqual(statuses(self.transport.sent)[3:], [])

    def test_not_after_a_final_response(self) -> None:
        sending = self.send("INVITE")
        self.answer(200)
        sending.cancel()
        self.assertEqual(statuses(self.transport.sent), ["INVITE"])

    def test_a_final_response_before_any_provisional_one_makes_it_needless(self) -> None:
        sending = self.send("INVITE")
        sending.cancel()
        self.answer(200)
        self.assertEqual(self.taken()[1:], [("response", 200)])

    def test_twice_is_once(self) -> None:
        sending = self.send("INVITE")
        self.answer(180)
        sending.cancel()
        self.answer(200)
        pump(self.clock, 6)
        sending.cancel()
        self.assertEqual(statuses(self.transport.sent), ["INVITE", "CANCEL"])

    def test_it_is_retransmitted_and_its_own_answer_told_to_nobody(self) -> None:
        sending = self.send("INVITE")
        self.answer(180)
        sending.cancel()
        pump(self.clock, 1.5)
        self.assertEqual(self.seconds("CANCEL"), [0, 0.5, 1.5])
        self.answer(200)
        self.answer(487, 0)
        self.assertEqual(
            [event for event in self.taken() if event[0] == "response"], [("response", 180), ("response", 487)]
        )

    def test_an_invite_that_stays_without_final_response_is_given_up(self) -> None:
        """
        "If there is no final response for the original request in 64*T1 seconds ... the client SHOULD then consider
        the original transaction cancelled and SHOULD destroy the client transaction".
        """
        sending = self.send("INVITE", A, B)
        self.answer(180)
        sending.cancel()
        self.answer(200)
        pump(self.clock, 33)
        self.assertEqual(self.taken()[-1], ("timed out",))
        self.assertNotIn(("send", "INVITE", str(B)), self.events)
        self.assert_nothing_left()

    def test_a_cancelled_invite_goes_to_no_other_target(self) -> None:
        sending = self.send("INVITE", A, B)
        sending.cancel()
        pump(self.clock, 33)
        self.assertEqual(self.taken()[-1], ("timed out",))
        self.assertEqual({str(target) for _, target in self.transport.sent}, {str(A)})

    def test_without_effect_for_other_methods(self) -> None:
        """
        "A CANCEL request SHOULD NOT be sent to cancel a request other than INVITE."
        """
        sending = self.send("OPTIONS", A, B)
        self.answer(100)
        sending.cancel()
        self.assertEqual(statuses(self.transport.sent), ["OPTIONS"])
        self.layer.transport_failed(A, "no route")
        self.assertEqual(self.transport.sent[-1][1], B)


class TransportErrorTests(ClientTestCase):
    """
    RFC 3261 §17.1.4: a transport error is told to the TU.
    """

    def test_when_there_is_no_other_target(self) -> None:
        for method in ("OPTIONS", "INVITE"):
            self.send(method)
            self.layer.transport_failed(A, "no route")
            self.assertEqual(self.taken()[1:], [("unreachable", "no route")])
        pump(self.clock, 33)
        self.assert_nothing_left()

    def test_of_another_target_is_not_ours(self) -> None:
        self.send("OPTIONS")
        self.layer.transport_failed(B, "no route")
        self.assertEqual(self.taken()[1:], [])

    def test_the_user_is_told_when_it_has_the_transaction_in_hand(self) -> None:
        """
        Not within C{send_request}, which has not yet returned what it may want to look up.
        """
        self.transport.missing = {Protocol.UDP}
        self.send("OPTIONS")
        self.assertEqual(self.taken(), [])
        self.clock.advance(0)
        self.assertEqual(self.taken(), [("unreachable", "no UDP listener")])
        self.assert_nothing_left()
