"""
Which request goes to the server itself, to its dialog, or to the policy, and what is answered to the others, through
the transaction layer. What a policy may do is in C{test_core_dispatch_policy.py}.
"""

from __future__ import annotations

from typing import Any

from zope.interface.verify import verifyObject

from sipdmq.core import refuse
from sipdmq.errors import ParseError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import ITransactionUser
from sipdmq.sip.message import Response, response_to
from sipdmq.sip.parser import parse_message
from tests.dispatching import DispatchTestCase
from tests.fakes import PHONE, request, request_bytes, statuses


class DispatcherTestCase(DispatchTestCase):
    """
    The method PUBLISH has a service; the policy refuses all with 603.
    """

    def setUp(self) -> None:
        super().setUp()
        self.dispatcher.allow("REGISTER")
        self.dispatcher.add_service("PUBLISH", self.user)

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
        verifyObject(IInspectable, self.dispatcher)

    def test_a_service_of_another_kind_is_refused_at_the_door(self) -> None:
        self.assertRaises(TypeError, self.dispatcher.add_service, "PUBLISH", object())
        self.assertRaises(TypeError, self.dispatcher.connect, object(), object(), self.proxy)
        self.assertRaises(TypeError, self.dispatcher.connect, self.policy, object(), object())


class MethodTests(DispatcherTestCase):
    """
    RFC 3261 §8.2.1: "If the UAS recognizes but does not support the method of a request, it MUST generate a 405
    (Method Not Allowed) response. ... The UAS MUST also add an Allow header field to the 405 (Method Not Allowed)
    response."
    """

    def test_a_served_method_goes_to_its_service(self) -> None:
        self.receive(request("PUBLISH"))
        self.assertEqual(self.taken(), [("request", "PUBLISH")])

    def test_others_are_not_allowed(self) -> None:
        for method in ("INVITE", "MESSAGE", "register", "NEW"):
            response = self.ask(method)
            self.assertEqual((response.status, response.headers.get("allow")), (405, "OPTIONS, REGISTER, PUBLISH"))

    def test_of_no_dialog(self) -> None:
        """
        §12.2.2: "If the request has a tag in the To header field, but the dialog identifier does not match any existing
        dialogs ... it MUST respond with 481".
        """
        self.assertEqual(self.ask("BYE", to="<sip:example.org>;tag=x").status, 481)

    def test_a_service_may_refuse(self) -> None:
        def react(transaction: Any) -> None:
            raise refuse.interval_too_brief(60)

        self.user.react = react
        response = self.ask("PUBLISH")
        self.assertEqual((response.status, response.headers.get("min-expires")), (423, "60"))

    def test_a_service_that_refuses_a_merged_request_leaves_nothing_of_it(self) -> None:
        def react(transaction: Any) -> None:
            if transaction.is_merged():
                raise refuse.merged_request()
            transaction.respond(response_to(transaction.request, 200, "t"))

        self.user.react = react
        self.receive(request("PUBLISH"))
        self.receive(request("PUBLISH", via="SIP/2.0/UDP h;branch=z9hG4bK2"))
        self.assertEqual(statuses(self.transport.sent), [200, 482])

    def test_a_service_that_breaks_is_answered_for(self) -> None:
        def react(transaction: Any) -> None:
            raise ValueError

        self.user.react = react
        self.receive(request("PUBLISH"))
        self.assertEqual(statuses(self.transport.sent), [500])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_the_ack_of_a_refused_invite_is_the_proxy_s(self) -> None:
        self.ask("INVITE")
        self.taken()
        self.receive(request("ACK"))
        self.assertEqual(self.taken(), [("ack", "ACK")])
        self.assert_nothing_left()


class RoutingTests(DispatcherTestCase):
    """
    RFC 3261 §16.4, and §16.6: what is for the server itself, for its dialog, and for the policy.
    """

    def test_what_has_a_user_is_the_policy_s(self) -> None:
        for method in ("INVITE", "OPTIONS", "PUBLISH", "NEW"):
            self.assertEqual(self.ask(method, uri="sip:bob@example.org").status, 603)
        self.assertEqual(len(self.policy.requests), 4)

    def test_registrations_are_the_policy_s(self) -> None:
        self.assertEqual(self.ask("REGISTER").status, 603)

    def test_other_domains_are_the_policy_s(self) -> None:
        for uri in ("sip:other.example", "sip:bob@example.org:5070"):
            self.assertEqual(self.ask(uri=uri).status, 603)

    def test_our_routes_are_gone_when_the_policy_sees_it(self) -> None:
        self.ask("INVITE", uri="sip:bob@other.example", headers=["Route: <sip:192.0.2.1;lr>"])
        self.ask("INVITE", uri="sip:bob@other.example", headers=["Route: <sip:192.0.2.1;lr>, <sip:p.example;lr>"])
        one, two = self.policy.requests
        self.assertEqual((one.has_route, one.message.headers.get("route")), (False, None))
        self.assertEqual((two.has_route, two.message.headers.get("route")), (True, "<sip:p.example;lr>"))
        self.assertIn("route", one.transaction.request.headers)

    def test_what_the_policy_sees_of_a_request(self) -> None:
        self.ask("INVITE", uri="sip:bob@example.org")
        (asked,) = self.policy.requests
        self.assertEqual(
            (asked.method, str(asked.uri), asked.source, asked.user), ("INVITE", "sip:bob@example.org", PHONE, "")
        )
        self.assertEqual(repr(asked), "<RoutedRequest INVITE sip:bob@example.org>")

    def test_maddr_leads_to_us(self) -> None:
        self.ask("INVITE", uri="sip:bob@other.example;maddr=192.0.2.1")
        self.assertEqual(str(self.policy.requests[0].uri), "sip:bob@other.example")

    def test_a_route_through_the_server_to_the_server(self) -> None:
        self.assertEqual(self.ask(headers=["Route: <sip:192.0.2.1;lr>"]).status, 200)
        response = self.ask(headers=["Route: <sip:p.example;lr>"])
        self.assertEqual((response.status, response.reason), (403, "Forbidden (Preloaded Route)"))

    def test_within_a_dialog_that_we_vouch_for(self) -> None:
        self.receive(self.within("BYE"))
        self.assertEqual(self.taken(), [("follow", "BYE", "")])
        self.assertEqual(self.policy.requests, [])

    def test_a_registration_is_within_no_dialog(self) -> None:
        self.receive(self.within("REGISTER"))
        self.assertEqual(self.transport.last.status, 603)

    def test_what_the_proxy_refuses_within_a_dialog(self) -> None:
        self.proxy.refusal = refuse.too_many_hops()
        self.receive(self.within("BYE"))
        self.assertEqual(self.transport.last.status, 483)
        self.assert_nothing_left()

    def test_a_dialog_of_another_call(self) -> None:
        self.receive(self.within("BYE", call_id="c2"))
        self.assertEqual(self.transport.last.status, 603)

    def test_a_strict_router_s_mistake(self) -> None:
        headers = ["Route: <sip:x@198.51.100.9?Subject=a>"]
        self.receive(request("BYE", uri=self.cookie_uri, to="<sip:bob@example.org>;tag=t1", headers=headers))
        self.assertEqual(self.transport.last.reason, "Bad Request (Headers In Request-URI)")


class ClusterTests(DispatcherTestCase):
    """
    KDMQ ends here, whatever is asked for, before any policy.
    """

    CHANGES: tuple[dict[str, Any], ...] = (
        {}, {"uri": "sip:usrloc@example.org"}, {"uri": "sip:other.example"}, {"headers": ["Route: <sip:p.example;lr>"]},
    )  # fmt: skip

    def test_403_without_a_cluster(self) -> None:
        for changes in self.CHANGES:
            self.assertEqual(self.ask("KDMQ", **changes).status, 403)
        self.receive(self.within("KDMQ"))
        self.assertEqual(self.transport.last.status, 403)
        self.assertEqual(self.policy.requests, [])

    def test_its_service(self) -> None:
        self.dispatcher.add_service("KDMQ", self.user)
        for number, changes in enumerate(self.CHANGES):
            self.receive(request("KDMQ", via=f"SIP/2.0/UDP h;branch=z9hG4bK{number}", **changes))
        self.assertEqual(self.taken(), [("request", "KDMQ")] * 4)


class RequestUriTests(DispatcherTestCase):
    """
    RFC 3261 §8.2.2.1: "If the Request-URI uses a scheme not supported by the UAS, it SHOULD reject the request with a
    416 (Unsupported URI Scheme) response."
    """

    def test_another_scheme(self) -> None:
        for method in ("OPTIONS", "REGISTER", "INVITE", "KDMQ"):
            self.assertEqual(self.ask(method, uri="tel:+15550100").status, 416)

    def test_with_a_route_it_can_go_on(self) -> None:
        self.assertEqual(self.ask("INVITE", uri="tel:+15550100", headers=["Route: <sip:p.example;lr>"]).status, 603)
        self.assertEqual(self.ask("INVITE", uri="tel:+15550100", headers=["Route: <sip:192.0.2.1;lr>"]).status, 416)


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
        response = self.ask("PUBLISH", headers=["Require: outbound"])
        self.assertEqual((response.status, response.headers.get("unsupported")), (420, "outbound"))
        self.assertEqual(self.user.transactions, [])

    def test_what_is_relayed_requires_nothing_of_us(self) -> None:
        self.assertEqual(self.ask("INVITE", uri="sip:bob@example.org", headers=["Require: 100rel"]).status, 603)

    def test_proxy_require(self) -> None:
        """
        §16.3 step 5: "If the request contains a Proxy-Require header field with one or more option-tags this element
        does not understand, the element MUST return a 420 (Bad Extension) response."
        """
        for changes in ({}, {"uri": "sip:bob@example.org"}, {"uri": "sip:other.example"}):
            response = self.ask("INVITE", headers=["Proxy-Require: sec-agree"], **changes)
            self.assertEqual((response.status, response.headers.get("unsupported")), (420, "sec-agree"))
        self.receive(self.within("BYE", headers=[f"Route: <{self.cookie_uri}>", "Proxy-Require: sec-agree"]))
        self.assertEqual(self.transport.last.status, 420)

    def test_one_that_cannot_be_read_is_the_clients_fault(self) -> None:
        for name in ("Require", "Proxy-Require"):
            self.assertEqual(self.ask(headers=[f"{name}: a b"]).status, 400)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_an_empty_one_requires_nothing(self) -> None:
        for name in ("Require", "Proxy-Require"):
            self.assertEqual(self.ask(headers=[f"{name}: "]).status, 200)


class MaxForwardsTests(DispatcherTestCase):
    """
    RFC 3261 §16.3 step 3: "If the request was for OPTIONS, the element MAY act as the final recipient and respond per
    Section 11. Otherwise, the element MUST return a 483 (Too many hops) response."
    """

    def ask_with(self, max_forwards: str, uri: str = "sip:example.org", method: str = "OPTIONS") -> int:
        data = request_bytes(method, uri=uri).replace(b"Max-Forwards: 70", max_forwards.encode())
        self.layer.message_received(parse_message(data), PHONE)
        return int(self.transport.sent.pop()[0].status)

    def test_0_is_too_few_to_be_forwarded(self) -> None:
        for uri in ("sip:other.example", "sip:bob@example.org"):
            for method in ("OPTIONS", "INVITE"):
                self.assertEqual(self.ask_with("Max-Forwards: 0", uri, method), 483)
        self.assertEqual(self.policy.requests, [])

    def test_0_is_enough_for_us(self) -> None:
        self.assertEqual(self.ask_with("Max-Forwards: 0"), 200)
        self.assertEqual(self.ask_with("Max-Forwards: 0", method="REGISTER"), 603)

    def test_none_is_no_fault(self) -> None:
        self.assertEqual(self.ask_with("X-None: 1"), 200)


class OptionsTests(DispatcherTestCase):
    """
    RFC 3261 §11.2: "Allow, Accept, Accept-Encoding, Accept-Language, and Supported header fields SHOULD be present in
    a 200 (OK) response to an OPTIONS request."
    """

    def test_the_answer_says_what_we_can(self) -> None:
        response = self.ask()
        self.assertEqual(response.status, 200)
        self.assertEqual(response.headers.get("allow"), "OPTIONS, REGISTER, PUBLISH")
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
    What happens later to a transaction is told to the proxy, whoever has it.
    """

    def test_ack_cancel_and_loss(self) -> None:
        self.dispatcher.add_service("INVITE", self.user)
        self.receive(request("INVITE"))
        self.receive(request("CANCEL"))
        transaction = self.user.transactions[0]
        transaction.respond(response_to(transaction.request, 200, "t"))
        self.layer.transport_failed(self.transport.sent[-1][1], "no route")
        self.receive(request("ACK"))
        self.assertEqual(
            [event for event in self.taken() if event[0] != "send"],
            [("request", "INVITE"), ("cancelled", "INVITE"), ("lost", "INVITE", "no route"), ("ack", "ACK")],
        )
