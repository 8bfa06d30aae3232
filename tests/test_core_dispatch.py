"""
Which request goes to which service, and what is answered to the others, through the transaction layer.
"""

from __future__ import annotations

from typing import Any

from zope.interface.verify import verifyObject

from sipdmq.core import refuse
from sipdmq.core.dispatch import Dispatcher
from sipdmq.core.domains import Domains
from sipdmq.errors import ParseError
from sipdmq.interfaces.messages import ITransactionUser
from sipdmq.sip.message import Request, Response, response_to
from sipdmq.sip.parser import parse_message
from tests.fakes import PHONE, RecordingUser, TransactionTestCase, make_ids, request, request_bytes, statuses


class DispatcherTestCase(TransactionTestCase):
    def setUp(self) -> None:
        super().setUp()

        def respond_to_source(request: Request, response: Response, source: Any) -> None:
            self.layer.send_stateless(response, self.transport.response_target(request, source))

        self.dispatcher = Dispatcher(
            Domains(("example.org",), {}, [("192.0.2.1", 5060)]), make_ids(), respond_to_source
        )
        self.dispatcher.add_service("REGISTER", self.user)
        self.layer.connect(self.transport, self.dispatcher)

    def ask(self, method: str = "OPTIONS", **changes: Any) -> Response:
        """
        The answer to a request, which left nothing behind.
        """
        self.receive(request(method, **changes))
        self.assertEqual(len(self.transport.sent), 1)
        self.assert_nothing_left()
        return self.transport.sent.pop()[0]


class InterfaceTests(DispatcherTestCase):
    """
    It is the user that the transaction layer knows, and hands on to users.
    """

    def test_interface(self) -> None:
        verifyObject(ITransactionUser, self.dispatcher)

    def test_a_service_of_another_kind_is_refused_at_the_door(self) -> None:
        self.assertRaises(TypeError, self.dispatcher.add_service, "REGISTER", object())


class MethodTests(DispatcherTestCase):
    """
    RFC 3261 §8.2.1: "If the UAS recognizes but does not support the method of a request, it MUST generate a 405
    (Method Not Allowed) response. ... The UAS MUST also add an Allow header field to the 405 (Method Not Allowed)
    response."
    """

    def test_a_served_method_goes_to_its_service(self) -> None:
        self.receive(request("REGISTER"))
        self.assertEqual(self.taken(), [("request", "REGISTER")])

    def test_others_are_not_allowed(self) -> None:
        for method in ("INVITE", "MESSAGE", "register", "NEW"):
            response = self.ask(method, uri="sip:bob@example.org")
            self.assertEqual((response.status, response.headers.get("allow")), (405, "OPTIONS, REGISTER"))

    def test_a_service_may_refuse(self) -> None:
        def react(transaction: Any) -> None:
            raise refuse.interval_too_brief(60)

        self.user.react = react
        response = self.ask("REGISTER")
        self.assertEqual((response.status, response.headers.get("min-expires")), (423, "60"))

    def test_a_service_that_refuses_a_merged_request_leaves_nothing_of_it(self) -> None:
        def react(transaction: Any) -> None:
            if transaction.is_merged():
                raise refuse.merged_request()
            transaction.respond(response_to(transaction.request, 200, "t"))

        self.user.react = react
        self.receive(request("REGISTER"))
        self.receive(request("REGISTER", via="SIP/2.0/UDP h;branch=z9hG4bK2"))
        self.assertEqual(statuses(self.transport.sent), [200, 482])

    def test_the_ack_of_a_refused_invite_ends_here(self) -> None:
        self.ask("INVITE")
        self.receive(request("ACK"))
        self.assertEqual(self.transport.sent, [])
        self.assert_nothing_left()


class RequestUriTests(DispatcherTestCase):
    """
    RFC 3261 §8.2.2.1: "If the Request-URI uses a scheme not supported by the UAS, it SHOULD reject the request with a
    416 (Unsupported URI Scheme) response. If the Request-URI does not identify an address that the UAS is willing to
    accept requests for, it SHOULD reject the request with a 404 (Not Found) response."
    """

    def test_another_scheme(self) -> None:
        for method in ("OPTIONS", "REGISTER", "INVITE"):
            self.assertEqual(self.ask(method, uri="tel:+15550100").status, 416)

    def test_another_domain(self) -> None:
        for method in ("OPTIONS", "REGISTER"):
            self.assertEqual(self.ask(method, uri="sip:other.example").status, 404)

    def test_a_user_of_ours_is_not_the_server(self) -> None:
        self.assertEqual(self.ask(uri="sip:bob@example.org").status, 404)


class ExtensionTests(DispatcherTestCase):
    """
    RFC 3261 §8.2.2.3: "If a UAS does not understand an option-tag listed in a Require header field, it MUST respond by
    generating a response with status code 420 (Bad Extension). The UAS MUST add an Unsupported header field, and list
    in it those options it does not understand amongst those in the Require header field of the request."
    """

    def test_require(self) -> None:
        response = self.ask(headers=["Require: foo, path", "Require: bar"])
        self.assertEqual((response.status, response.headers.get("unsupported")), (420, "foo, bar"))

    def test_what_we_have_may_be_required_in_any_case_of_letters(self) -> None:
        self.assertEqual(self.ask(headers=["Require: PATH"]).status, 200)

    def test_for_a_service_too(self) -> None:
        response = self.ask("REGISTER", headers=["Require: outbound"])
        self.assertEqual((response.status, response.headers.get("unsupported")), (420, "outbound"))
        self.assertEqual(self.user.transactions, [])

    def test_proxy_require(self) -> None:
        """
        §16.3 step 5: "If the request contains a Proxy-Require header field with one or more option-tags this element
        does not understand, the element MUST return a 420 (Bad Extension) response."
        """
        response = self.ask("REGISTER", headers=["Proxy-Require: sec-agree"])
        self.assertEqual((response.status, response.headers.get("unsupported")), (420, "sec-agree"))

    def test_one_that_cannot_be_read_is_the_clients_fault(self) -> None:
        for name in ("Require", "Proxy-Require"):
            self.assertEqual(self.ask(headers=[f"{name}: a b"]).status, 400)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_an_empty_one_requires_nothing(self) -> None:
        self.assertEqual(self.ask(headers=["Require: "]).status, 200)


class MaxForwardsTests(DispatcherTestCase):
    """
    RFC 3261 §16.3 step 3: "If the request contains a Max-Forwards header field with a field value of zero (0), the
    element MUST NOT forward the request. If the request was for OPTIONS, the element MAY act as the final recipient
    and respond per Section 11. Otherwise, the element MUST return a 483 (Too many hops) response."
    """

    def ask_with(self, max_forwards: str, uri: str, method: str = "OPTIONS") -> int:
        data = request_bytes(method, uri=uri).replace(b"Max-Forwards: 70", max_forwards.encode())
        self.layer.message_received(parse_message(data), PHONE)
        return self.transport.sent.pop()[0].status

    def test_0_is_too_few_to_be_forwarded(self) -> None:
        self.assertEqual(self.ask_with("Max-Forwards: 0", "sip:other.example"), 483)

    def test_0_is_enough_for_us(self) -> None:
        self.assertEqual(self.ask_with("Max-Forwards: 0", "sip:example.org"), 200)

    def test_none_is_no_fault(self) -> None:
        self.assertEqual(self.ask_with("X-None: 1", "sip:example.org"), 200)


class OptionsTests(DispatcherTestCase):
    """
    RFC 3261 §11.2: "Allow, Accept, Accept-Encoding, Accept-Language, and Supported header fields SHOULD be present in
    a 200 (OK) response to an OPTIONS request."
    """

    def test_the_answer_says_what_we_can(self) -> None:
        response = self.ask()
        self.assertEqual(response.status, 200)
        self.assertEqual(response.headers.get("allow"), "OPTIONS, REGISTER")
        self.assertEqual(response.headers.get("supported"), "path")
        self.assertIn("accept", response.headers)

    def test_by_address_too(self) -> None:
        self.assertEqual(self.ask(uri="sip:192.0.2.1:5060").status, 200)

    def test_a_service_may_have_it(self) -> None:
        self.dispatcher.add_service("OPTIONS", self.user)
        self.receive(request())
        self.assertEqual(self.taken(), [("request", "OPTIONS")])


class StatelessTagTests(DispatcherTestCase):
    """
    RFC 3261 §8.2.7: "To header tags MUST be generated for responses in a stateless manner - in a manner that will
    generate the same tag for the same request consistently."
    """

    def test_a_retransmission_gets_the_same_tag(self) -> None:
        for method in ("OPTIONS", "INVITE"):
            one, two = self.ask(method), self.ask(method)
            self.assertEqual(one.to.tag, two.to.tag)
            self.assertGreaterEqual(len(one.to.tag), 8)

    def test_another_request_gets_another(self) -> None:
        tags = {
            self.ask().to.tag,
            self.ask(call_id="c2").to.tag,
            self.ask(via="SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK2").to.tag,
        }
        self.assertEqual(len(tags), 3)


class MalformedTests(DispatcherTestCase):
    """
    What did not pass the parser is answered to where it came from, without a transaction.
    """

    def refuse(self, old: bytes, new: bytes) -> list[Any]:
        data = request_bytes()
        assert old in data
        try:
            parse_message(data.replace(old, new))
        except ParseError as error:
            self.layer.malformed_request(error, PHONE)
        else:
            raise AssertionError("nothing wrong with it")
        self.assert_nothing_left()
        return self.taken()

    def test_with_readable_fields(self) -> None:
        events = self.refuse(b"CSeq: 1 OPTIONS", b"CSeq: 1 INFO")
        self.assertEqual(events, [("send", 400, "udp:198.51.100.7:5062")])
        self.assertEqual(self.transport.last.reason, "Bad Request (CSeq Method Mismatch)")

    def test_with_an_unreadable_to(self) -> None:
        events = self.refuse(b"To: <sip:bob@example.org>", b"To: <sip:bob@example.org")
        self.assertEqual([event[:2] for event in events], [("send", "?400")])
        self.assertIn(b"To: <sip:bob@example.org\r\n", self.transport.unreadable[0])

    def test_with_an_unreadable_via(self) -> None:
        events = self.refuse(b"Via: SIP/2.0/UDP", b"Via: nonsense")
        self.assertEqual([event[:2] for event in events], [("send", "?400")])

    def test_what_is_no_request_is_dropped(self) -> None:
        self.layer.malformed_request(ParseError("No End Of Headers"), PHONE)
        self.assertEqual(self.taken(), [])


class HandedOnTests(DispatcherTestCase):
    """
    What happens to a transaction is told to the service of its method.
    """

    def setUp(self) -> None:
        super().setUp()
        self.calls = RecordingUser(self.events)
        self.dispatcher.add_service("INVITE", self.calls)

    def test_ack_cancel_and_loss(self) -> None:
        self.receive(request("INVITE"))
        self.receive(request("CANCEL"))
        transaction = self.calls.transactions[0]
        transaction.respond(response_to(transaction.request, 200, "t"))
        self.layer.transport_failed(self.transport.sent[-1][1], "no route")
        self.receive(request("ACK"))
        self.assertEqual(
            [event for event in self.taken() if event[0] != "send"],
            [("request", "INVITE"), ("cancelled", "INVITE"), ("lost", "INVITE", "no route"), ("ack", "ACK")],
        )
