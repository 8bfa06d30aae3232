"""
The transaction layer: its seams, its bounds, and what happens when a user of it breaks.
"""

from __future__ import annotations

from typing import Any

from zope.interface.verify import verifyObject

from sipdmq.errors import ParseError, TransactionStateError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import IMessageReceiver, IRequestSender
from sipdmq.sip.message import response_to
from sipdmq.sip.timers import TimerValues
from sipdmq.transaction.layer import TransactionLayer
from tests.fakes import PHONE, PHONE_TCP, A, TransactionTestCase, make_ids, outgoing, pump, request, statuses


class LayerTestCase(TransactionTestCase):
    def respond(self, status: int, to_tag: str = "t1") -> None:
        """
        The user answers the latest request.
        """
        transaction = self.user.transactions[-1]
        transaction.respond(response_to(transaction.request, status, to_tag))


class InterfaceTests(LayerTestCase):
    """
    The seams above and below.
    """

    def test_interfaces(self) -> None:
        for interface in (IMessageReceiver, IRequestSender, IInspectable):
            verifyObject(interface, self.layer)

    def test_snapshot_counts(self) -> None:
        self.receive(request("INVITE"))
        self.layer.send_request(outgoing(), (A,), self.client_user)
        self.receive(request("REGISTER", via="SIP/2.0/UDP h;branch=z9hG4bK2"))
        self.respond(200)
        numbers = self.layer.snapshot()
        self.assertEqual(numbers.pop("transaction.completed_bytes"), self.layer.completed.size)
        self.assertEqual(numbers.pop("transaction.open_bytes"), request("INVITE").size)
        self.assertEqual(
            numbers, {"transaction.servers": 1, "transaction.clients": 1, "transaction.completed": 1}
        )

    def test_a_user_of_another_kind_is_refused_at_the_door(self) -> None:
        self.assertRaises(TypeError, self.layer.send_request, outgoing(), (A,), object())
        self.assertRaises(TypeError, self.layer.connect, self.transport, object())

    def test_what_cannot_be_parsed_goes_straight_to_the_user(self) -> None:
        self.layer.malformed_request(ParseError("Missing To", request=request()), PHONE)
        self.assertEqual(self.taken(), [("malformed", 400, PHONE.host)])
        self.assert_nothing_left()

    def test_after_stop_nothing_is_left(self) -> None:
        self.receive(request("INVITE"))
        self.respond(486)
        self.receive(request("REGISTER"))
        self.respond(200)
        self.receive(request("OPTIONS"))
        self.user.transactions[-1].is_merged()
        self.layer.send_request(outgoing("INVITE"), (A,), self.client_user)
        self.layer.stop()
        self.assert_nothing_left()


class MergedTests(LayerTestCase):
    """
    RFC 3261 §8.2.2.2: "If the request has no tag in the To header field, the UAS core MUST check the request against
    ongoing transactions. If the From tag, Call-ID, and CSeq exactly match those associated with an ongoing
    transaction, but the request does not match that transaction (based on the matching rules in Section 17.2.3), the
    UAS core SHOULD generate a 482".
    """

    def copy(self, number: int, method: str = "REGISTER", **changes: Any) -> bool:
        self.receive(request(method, via=f"SIP/2.0/UDP p;branch=z9hG4bKcopy{number}", **changes))
        return self.user.transactions[-1].is_merged()

    def test_the_first_is_not_the_others_are(self) -> None:
        self.assertEqual([self.copy(number) for number in range(3)], [False, True, True])

    def test_asked_twice_it_says_the_same(self) -> None:
        for number in range(2):
            self.assertEqual(self.copy(number), self.user.transactions[-1].is_merged())

    def test_also_when_the_first_was_answered(self) -> None:
        self.copy(1)
        self.respond(200)
        pump(self.clock, 30)
        self.assertTrue(self.copy(2))

    def test_not_when_the_first_is_forgotten(self) -> None:
        self.copy(1)
        self.respond(200)
        pump(self.clock, 33)
        self.assertFalse(self.copy(2))

    def test_a_refused_copy_does_not_make_the_first_forgotten(self) -> None:
        self.copy(1)
        self.copy(2)
        self.user.transactions[-1].respond_statelessly(response_to(self.user.transactions[-1].request, 482, "t"))
        self.assertTrue(self.copy(3))

    def test_not_in_a_dialog(self) -> None:
        to = "<sip:bob@example.org>;tag=ours"
        self.assertEqual([self.copy(number, to=to) for number in range(2)], [False, False])

    def test_not_with_another_from_tag_call_id_or_cseq(self) -> None:
        self.copy(1)
        self.assertFalse(self.copy(2, from_="<sip:alice@example.org>;tag=f2"))
        self.assertFalse(self.copy(3, call_id="c2"))
        self.assertFalse(self.copy(4, cseq="2 REGISTER"))

    def test_nothing_of_it_is_left(self) -> None:
        for number, method in enumerate(("REGISTER", "INVITE")):
            self.copy(number, method, call_id=method)
            self.respond(486)
            self.copy(number + 10, method, call_id=method)
            self.respond(482)
        pump(self.clock, 40)
        self.assert_nothing_left()


class StatelessAnswerTests(LayerTestCase):
    """
    RFC 3261 §8.2.7 and §26.3.2.4: a refusal that is cheaper to decide again than to remember leaves no state.
    """

    def refuse(self, transaction: Any) -> None:
        transaction.respond_statelessly(response_to(transaction.request, 405, "t"))

    def test_it_is_sent_and_forgotten(self) -> None:
        self.user.react = self.refuse
        for method in ("REGISTER", "INVITE"):
            self.receive(request(method))
            self.assertEqual(
                self.taken(), [("request", method), ("send", 405, "udp:198.51.100.7:5062")]
            )
            self.assert_nothing_left()

    def test_a_retransmission_is_a_new_request(self) -> None:
        self.user.react = self.refuse
        for _ in range(2):
            self.receive(request())
        self.assertEqual(len(self.user.transactions), 2)

    def test_not_after_another_response(self) -> None:
        for method, status in (("INVITE", 180), ("INFO", 200)):
            self.receive(request(method))
            self.respond(status)
            self.assertRaises(TransactionStateError, self.refuse, self.user.transactions[-1])
        self.assertEqual(statuses(self.transport.sent), [180, 200])


class StatelessSendingTests(LayerTestCase):
    """
    RFC 3261 §13.2.2.4: the ACK for a 2xx is passed to the transport at once.
    """

    def test_an_ack_gets_a_via_of_its_own(self) -> None:
        self.layer.send_stateless(outgoing("ACK"), A)
        self.layer.send_stateless(outgoing("ACK"), A)
        one, two = (message.top_via for message, _ in self.transport.sent)
        self.assertEqual((one.sent_by, one.is_unique), ("192.0.2.1:5060", True))
        self.assertNotEqual(one.branch, two.branch)
        self.assert_nothing_left()

    def test_a_response_goes_as_it_is(self) -> None:
        self.layer.send_stateless(response_to(request(), 400, "t"), A)
        self.assertEqual(self.transport.last.headers.get_all("via"), request().headers.get_all("via"))


class BoundTests(LayerTestCase):
    """
    No more than so many requests wait for their answer; what comes beyond is told to come later.
    """

    max_transactions = 3

    def arrive(self, number: int, method: str = "REGISTER") -> None:
        self.receive(request(method, via=f"SIP/2.0/UDP h:5062;branch=z9hG4bK{number}"))

    def test_the_fourth_is_answered_503_and_leaves_nothing(self) -> None:
        for number in range(3):
            self.arrive(number)
        self.taken()
        self.arrive(4)
        self.arrive(5, "INVITE")
        self.assertEqual([event[:2] for event in self.taken()], [("send", 503)] * 2)
        self.assertIsNotNone(self.transport.last.headers.get("retry-after"))
        self.assertEqual(self.layer.snapshot()["transaction.servers"], 3)

    def test_large_ones_take_more_room(self) -> None:
        self.layer = TransactionLayer(self.clock, make_ids(), TimerValues(), 1000, 2**20, max_open_bytes=20_000)
        self.layer.connect(self.transport, self.user)
        for number in range(4):
            self.receive(request("INVITE", via=f"SIP/2.0/UDP h:5062;branch=z9hG4bK{number}", body=b"x" * 9000))
        self.assertEqual(statuses(self.transport.sent), [503])
        for transaction in self.user.transactions:
            transaction.respond(response_to(transaction.request, 486, "t"))
        pump(self.clock, 40)
        self.assertEqual(self.layer.snapshot()["transaction.open_bytes"], 0)
        self.arrive(9)
        self.assertEqual(len(self.user.transactions), 4)

    def test_a_retransmission_needs_no_room(self) -> None:
        for number in range(3):
            self.arrive(number, "INVITE")
        self.respond(180)
        self.arrive(2, "INVITE")
        self.assertEqual(statuses(self.transport.sent), [180, 180])

    def test_answered_requests_make_room(self) -> None:
        for number in range(20):
            self.arrive(number)
            self.respond(200)
        self.assertEqual(statuses(self.transport.sent), [200] * 20)


class BrokenUserTests(LayerTestCase):
    """
    A service that breaks gets a 500 sent: the client shall not wait for it.
    """

    def break_after(self, *answers: int) -> None:
        def react(transaction: Any) -> None:
            for status in answers:
                transaction.respond(response_to(transaction.request, status, "t"))
            raise ZeroDivisionError

        self.user.react = react

    def test_before_it_answered(self) -> None:
        self.break_after()
        for method in ("REGISTER", "INVITE"):
            self.receive(request(method))
        self.assertEqual(statuses(self.transport.sent), [500, 500])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_after_a_provisional_response(self) -> None:
        self.break_after(180)
        self.receive(request("INVITE"))
        self.assertEqual(statuses(self.transport.sent), [180, 500])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_after_its_final_response(self) -> None:
        self.break_after(200)
        for method in ("REGISTER", "INVITE"):
            self.receive(request(method))
        self.assertEqual(statuses(self.transport.sent), [200, 200])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_one_that_breaks_on_a_transport_error_does_not_keep_it_from_the_others(self) -> None:
        def react(transaction: Any) -> None:
            raise ZeroDivisionError

        self.user.react_to_loss = react
        for number in range(3):
            self.receive(request("INVITE", via=f"SIP/2.0/UDP h;branch=z9hG4bK{number}"))
            self.respond(180)
        try:
            self.layer.transport_failed(self.transport.sent[0][1], "no route")
        except ZeroDivisionError:
            pass
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(self.events.count(("lost", "INVITE", "no route")), 3)

    def test_one_that_breaks_on_a_timer_does_not_stop_the_others(self) -> None:
        def react(transaction: Any) -> None:
            raise ZeroDivisionError

        self.user.react_to_loss = react
        for number in range(3):
            self.receive(request("INVITE", via=f"SIP/2.0/UDP h;branch=z9hG4bK{number}"), PHONE_TCP)
            self.respond(486)
        for _ in range(4):
            try:
                pump(self.clock, 33)
            except ZeroDivisionError:
                pass
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(self.events.count(("lost", "INVITE", "no ACK")), 3)
        self.assert_nothing_left()
