"""
Messages made of others: responses, ACK, CANCEL, stamped Vias; and what a message says when asked.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import ParseError
from sipdmq.sip.derived import ack_for, cancel_for
from sipdmq.sip.fields import parse_via
from sipdmq.sip.message import Request, Response, response_to
from sipdmq.sip.parser import parse_message
from sipdmq.sip.writer import format_message

INVITE = (
    b"INVITE sip:bob@b.example;x=y SIP/2.0\r\n"
    b"v: SIP/2.0/UDP pc33.example;branch=z9hG4bK77;x=\"a,b\" , SIP/2.0/TCP second.example;branch=z9hG4bK78\r\n"
    b"Max-Forwards: 5\r\n"
    b"X-Odd: \xff\xfe\r\n"
    b"Route: <sip:p1.example;lr>,\r\n <sip:p2.example;lr>\r\n"
    b"t: \"Bob\"\r\n <sip:bob@b.example> \r\n"
    b"From : Alice <sip:alice@a.example>;tag=88sja8x\r\n"
    b"Via: SIP/2.0/UDP third.example;branch=z9hG4bK79\r\n"
    b"Contact: <sip:alice@192.0.2.1>\r\n"
    b"Require: 100rel\r\n"
    b"ROUTE: <sip:p3.example;lr>\r\n"
    b"i: 987asjd@192.0.2.1\r\n"
    b"CSeq:\t0986759  INVITE\r\n"
    b"Content-Type: text/plain\r\n"
    b"Content-Length: 3\r\n"
    b"\r\n"
    b"\x00\r\n"
)  # fmt: skip


def invite(*changes: tuple[bytes, bytes]) -> Request:
    data = INVITE
    for old, new in changes:
        assert old in data
        data = data.replace(old, new)
    message = parse_message(data)
    assert isinstance(message, Request)
    return message


class ResponseTests(SynchronousTestCase):
    """
    RFC 3261 §8.2.6.2: "The From field of the response MUST equal the From header field of the request. The Call-ID
    header field of the response MUST equal the Call-ID header field of the request. The CSeq header field of the
    response MUST equal the CSeq field of the request. The Via header field values in the response MUST equal the Via
    header field values in the request and MUST maintain the same ordering."
    """

    def test_what_must_be_equal_is_copied(self) -> None:
        response = response_to(invite(), 200, "x1", [("Contact", "<sip:bob@192.0.2.4>")], body=b"abc")
        self.assertEqual(
            format_message(response),
            b"SIP/2.0 200 OK\r\n"
            b'Via: SIP/2.0/UDP pc33.example;branch=z9hG4bK77;x="a,b" , SIP/2.0/TCP second.example;branch=z9hG4bK78\r\n'
            b"Via: SIP/2.0/UDP third.example;branch=z9hG4bK79\r\n"
            b"From: Alice <sip:alice@a.example>;tag=88sja8x\r\n"
            b'To: "Bob" <sip:bob@b.example>;tag=x1\r\n'
            b"Call-ID: 987asjd@192.0.2.1\r\n"
            b"CSeq: 0986759  INVITE\r\n"
            b"Contact: <sip:bob@192.0.2.4>\r\n"
            b"Content-Length: 3\r\n"
            b"\r\n"
            b"abc",
        )

    def test_a_response_can_be_read_again(self) -> None:
        response = parse_message(format_message(response_to(invite(), 404, "x1", reason="No \u0411\u043e\u0431")))
        assert isinstance(response, Response)
        self.assertEqual((response.status, response.reason, response.body), (404, "No \u0411\u043e\u0431", b""))
        self.assertEqual((response.to.tag, response.from_.tag), ("x1", "88sja8x"))
        self.assertEqual([via.host for via in response.vias], ["pc33.example", "second.example", "third.example"])

    def test_a_to_that_has_a_tag_keeps_it(self) -> None:
        """
        "If a request contained a To tag in the request, the To header field in the response MUST equal that of the
        request."
        """
        response = response_to(invite((b"b.example> \r\n", b"b.example>;Tag=a6c\r\n")), 200, "x1")
        self.assertEqual(response.headers.lines_of("to"), ['To: "Bob" <sip:bob@b.example>;Tag=a6c'])

    def test_of_several_lines_the_first_counts(self) -> None:
        response = response_to(invite(), 200, "x1", [("Contact", "<sip:a@h>"), ("Contact", "<sip:b@h>")])
        self.assertEqual(response.headers.get("contact"), "<sip:a@h>")
        self.assertEqual(response.headers.get_all("contact"), ["<sip:a@h>", "<sip:b@h>"])

    def test_a_request_that_lacks_a_field_gets_its_tag_all_the_same(self) -> None:
        request = invite()
        request.headers.remove("cseq")
        self.assertEqual(response_to(request, 400, "x1").to.tag, "x1")

    def test_a_100_needs_no_tag(self) -> None:
        response = response_to(invite(), 100)
        self.assertEqual((response.reason, response.to.tag), ("Trying", ""))

    def test_a_timestamp_is_copied_into_a_100(self) -> None:
        """
        RFC 3261 §8.2.6.1: "When a 100 (Trying) response is generated, any Timestamp header field present in the
        request MUST be copied into this 100 (Trying) response."
        """
        response = response_to(invite((b"Require: 100rel", b"Timestamp: 54")), 100)
        self.assertEqual(response.headers.get("timestamp"), "54")

    def test_a_header_cannot_bring_a_line_of_its_own(self) -> None:
        for value in ("a\r\nX: b", "a\n", "\r"):
            self.assertRaises(ValueError, response_to, invite(), 200, "x", [("X", value)])

    def test_headers_are_found_by_their_long_name(self) -> None:
        response = response_to(invite(), 200, "x", [("Contact", "<sip:a@b>"), ("Contact", "<sip:c@d>")])
        self.assertEqual([contact.uri.text for contact in response.contacts], ["sip:a@b", "sip:c@d"])
        self.assertEqual(response.headers.get("content-length"), "0")


class AckTests(SynchronousTestCase):
    """
    RFC 3261 §17.1.1.3: "The ACK request constructed by the client transaction MUST contain values for the Call-ID,
    From, and Request-URI that are equal to the values of those header fields in the request passed to the transport
    by the client transaction ... The To header field in the ACK MUST equal the To header field in the response being
    acknowledged ... The ACK MUST contain a single Via header field, and this MUST be equal to the top Via header field
    of the original request. The CSeq header field in the ACK MUST contain the same value for the sequence number as
    was present in the original request, but the method parameter MUST be equal to "ACK"."
    """

    def test_the_ack_is_of_the_transaction(self) -> None:
        request = invite()
        ack = ack_for(request, response_to(request, 486, "x1"))
        self.assertEqual(ack.start_line, "ACK sip:bob@b.example;x=y SIP/2.0")
        self.assertEqual(ack.headers.get_all("via"), ['SIP/2.0/UDP pc33.example;branch=z9hG4bK77;x="a,b"'])
        self.assertEqual(ack.headers.lines_of("to"), ['To: "Bob" <sip:bob@b.example>;tag=x1'])
        self.assertEqual(ack.headers.lines_of("from"), request.headers.lines_of("from"))
        self.assertEqual(ack.headers.lines_of("call-id"), request.headers.lines_of("call-id"))
        self.assertEqual(tuple(ack.cseq), (986759, "ACK"))
        self.assertEqual((ack.body, ack.headers.get("content-length")), (b"", "0"))

    def test_the_route_is_that_of_the_invite(self) -> None:
        """
        "If the INVITE request whose response is being acknowledged had Route header fields, those header fields MUST
        appear in the ACK."
        """
        request = invite()
        ack = ack_for(request, response_to(request, 486, "x1"))
        self.assertEqual(ack.headers.lines_of("route"), request.headers.lines_of("route"))
        self.assertEqual(
            [route.uri.text for route in ack.addresses("route")],
            ["sip:p1.example;lr", "sip:p2.example;lr", "sip:p3.example;lr"],
        )

    def test_nothing_else_is_in_it(self) -> None:
        request = invite()
        ack = ack_for(request, response_to(request, 486, "x1"))
        self.assertEqual(
            {key for key, _ in ack.headers},
            {"via", "route", "max-forwards", "from", "to", "call-id", "cseq", "content-length"},
        )
        self.assertIsInstance(parse_message(format_message(ack), is_stream=True), Request)


class CancelTests(SynchronousTestCase):
    """
    RFC 3261 §9.1: "The Request-URI, Call-ID, To, the numeric part of CSeq, and From header fields in the CANCEL request
    MUST be identical to those in the request being cancelled, including tags. A CANCEL constructed by a client MUST
    have only a single Via header field value matching the top Via value in the request being cancelled."
    """

    def test_the_cancel_is_of_the_transaction(self) -> None:
        request = invite()
        cancel = cancel_for(request)
        self.assertEqual(cancel.start_line, "CANCEL sip:bob@b.example;x=y SIP/2.0")
        for key in ("to", "from", "call-id", "route"):
            self.assertEqual(cancel.headers.lines_of(key), request.headers.lines_of(key))
        self.assertEqual(tuple(cancel.cseq), (986759, "CANCEL"))
        self.assertEqual([(via.branch, via.sent_by) for via in cancel.vias], [("z9hG4bK77", "pc33.example")])
        self.assertIsInstance(parse_message(format_message(cancel), is_stream=True), Request)

    def test_it_asks_for_no_extension(self) -> None:
        """
        "The CANCEL request MUST NOT contain any Require or Proxy-Require header fields."
        """
        cancel = cancel_for(invite((b"X-Odd: ", b"Proxy-Require: x")))  # and Require: 100rel is there
        self.assertFalse({"require", "proxy-require", "contact", "content-type"} & {key for key, _ in cancel.headers})


def stamp(request: Request, text: str) -> None:
    request.stamp_top_via(parse_via(text), text)


class StampTests(SynchronousTestCase):
    """
    RFC 3261 §18.2.1: "If the host portion of the "sent-by" parameter contains a domain name, or if it contains an IP
    address that differs from the packet source address, the server MUST add a "received" parameter to that Via header
    field value."
    """

    def test_only_the_top_value_changes(self) -> None:
        request = invite()
        others = request.vias[1:]
        stamp(request, "SIP/2.0/UDP pc33.example;branch=z9hG4bK77;received=192.0.2.9")
        self.assertEqual(request.top_via.params["received"], "192.0.2.9")
        self.assertEqual(request.vias[1:], others)
        self.assertEqual(len(request.headers.lines_of("via")), 2)
        again = parse_message(format_message(request))
        self.assertEqual(again.vias, request.vias)

    def test_a_single_value_alone_in_its_line(self) -> None:
        request = invite((b"v: ", b"X-Old: "))
        stamp(request, "SIP/2.0/UDP z")
        self.assertEqual([via.host for via in request.vias], ["z"])
        stamp(request, "SIP/2.0/UDP y")
        self.assertEqual((request.top_via.host, request.headers.get("via")), ("y", "SIP/2.0/UDP y"))

    def test_a_response_carries_what_was_stamped(self) -> None:
        request = invite()
        stamp(request, "SIP/2.0/UDP z;rport=5")
        self.assertEqual([via.host for via in response_to(request, 200).vias], ["z", "second.example", "third.example"])


class ReadTests(SynchronousTestCase):
    def test_typed_values(self) -> None:
        request = invite((b"Require: 100rel", b"Expires: 0060\r\nSupported: path, outbound\r\nSupported: gruu"))
        self.assertEqual((request.max_forwards, request.expires, request.call_id), (5, 60, "987asjd@192.0.2.1"))
        self.assertEqual(request.tokens("supported"), ["path", "outbound", "gruu"])
        self.assertEqual((request.tokens("require"), request.addresses("path")), ([], []))
        self.assertEqual((request.to.display, request.from_.display), ("Bob", "Alice"))
        self.assertEqual([contact.uri.text for contact in request.contacts], ["sip:alice@192.0.2.1"])
        self.assertFalse(request.has_wildcard_contact)

    def test_what_is_not_there(self) -> None:
        request = Request("OPTIONS", "sip:a@b", invite().copy().headers)
        for key in ("via", "from", "to", "cseq", "call-id", "max-forwards", "contact"):
            request.headers.remove(key)
        self.assertEqual((request.max_forwards, request.expires, request.contacts, request.vias), (None, None, [], []))
        for name in ("top_via", "from_", "to", "cseq", "call_id"):
            self.assertRaises(ParseError, getattr, request, name)

    def test_a_wildcard_stands_alone(self) -> None:
        for contact, expected in ((b"*", True), (b"\t* ", True)):
            request = invite((b"Contact: <sip:alice@192.0.2.1>", b"m:" + contact))
            self.assertEqual((request.has_wildcard_contact, request.contacts), (expected, []))
        for contact in (b"*,<sip:a@b>", b"*\r\nContact: <sip:a@b>", b"*\r\nContact: *", b"*;expires=0", b"<*>", b"**"):
            self.assertRaises(ParseError, invite, (b"Contact: <sip:alice@192.0.2.1>", b"Contact: " + contact))

    def test_a_copy_may_be_changed(self) -> None:
        request = invite()
        copy = request.copy()
        copy.headers.remove("via")
        copy.uri_text = "sip:other@h"
        self.assertEqual(format_message(request), INVITE)
        response = response_to(request, 200)
        response.copy().headers.remove("via")
        self.assertEqual(len(response.vias), 3)

    def test_the_top_via_alone_goes(self) -> None:
        response = response_to(invite(), 200)
        hosts = [via.host for via in response.vias]
        for left in range(len(hosts) - 1, 0, -1):
            self.assertTrue(response.remove_top_via())
            self.assertEqual([via.host for via in response.vias], hosts[-left:])
            self.assertEqual(response.top_via.host, hosts[-left])
        self.assertFalse(response.remove_top_via())
        self.assertRaises(ParseError, response.remove_top_via)
