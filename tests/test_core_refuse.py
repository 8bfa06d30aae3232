"""
Every answer to a request that is not served.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.core import refuse
from sipdmq.errors import ParseError, RequestRefused
from sipdmq.sip.message import Request, Response
from sipdmq.sip.parser import parse_message
from tests.fakes import request, request_bytes


def parse_error(*changes: tuple[bytes, bytes]) -> ParseError:
    """
    What the parser says to a changed OPTIONS.
    """
    data = request_bytes()
    for old, new in changes:
        assert old in data
        data = data.replace(old, new)
    try:
        parse_message(data)
    except ParseError as error:
        return error
    raise AssertionError("nothing wrong with it")


class RefusalTests(SynchronousTestCase):
    """
    The status of each refusal, and the header field that the RFC asks for with it.
    """

    def test_each_with_its_header(self) -> None:
        cases = (
            (refuse.bad_request("Missing To"), 400, ()),
            (refuse.forbidden("Relaying Denied"), 403, ()),
            (refuse.too_many_contacts(), 403, ()),
            (refuse.not_found(), 404, ()),
            (refuse.method_not_allowed(["OPTIONS", "REGISTER"]), 405, (("Allow", "OPTIONS, REGISTER"),)),
            (refuse.conditional_request_failed(), 412, ()),
            (refuse.too_large(), 413, ()),
            (refuse.unsupported_content(["a/b", "c/d"]), 415, (("Accept", "a/b, c/d"),)),
            (refuse.unsupported_scheme(), 416, ()),
            (refuse.bad_extension(["foo", "bar"]), 420, (("Unsupported", "foo, bar"),)),
            (refuse.interval_too_brief(60), 423, (("Min-Expires", "60"),)),
            (refuse.flow_failed(), 430, ()),
            (refuse.temporarily_unavailable(), 480, ()),
            (refuse.no_such_dialog(), 481, ()),
            (refuse.merged_request(), 482, ()),
            (refuse.too_many_hops(), 483, ()),
            (refuse.bad_event(["presence", "dialog"]), 489, (("Allow-Events", "presence, dialog"),)),
            (refuse.out_of_order(), 500, ()),
            (refuse.service_unavailable(), 503, ()),
        )
        for refusal, status, headers in cases:
            self.assertIsInstance(refusal, RequestRefused)
            self.assertEqual((refusal.status, refusal.headers), (status, headers))

    def test_every_public_name_is_tried_here(self) -> None:
        self.assertEqual(len(refuse.__all__), 19 + len(("answer", "answer_parse_error")))


class AnswerTests(SynchronousTestCase):
    """
    RFC 3261 §8.2.6.2: "if the To header field in the request did not contain a tag, the URI in the To header field in
    the response MUST equal the URI in the To header field; additionally, the UAS MUST add a tag".
    """

    def test_it_says_what_the_refusal_says(self) -> None:
        response = refuse.answer(request(), RequestRefused(420, [("Unsupported", "foo")]), "tag1")
        self.assertEqual((response.status, response.reason, response.to.tag), (420, "Bad Extension", "tag1"))
        self.assertEqual(response.headers.get("unsupported"), "foo")

    def test_a_reason_of_its_own_is_the_phrase(self) -> None:
        response = refuse.answer(request(), refuse.bad_request("Missing To"), "tag1")
        self.assertEqual(response.start_line, "SIP/2.0 400 Bad Request (Missing To)")

    def test_a_tag_that_is_there_stays(self) -> None:
        response = refuse.answer(request(to="<sip:b@example.org>;tag=theirs"), refuse.not_found(), "tag1")
        self.assertEqual(response.to.tag, "theirs")


class ParseErrorTests(SynchronousTestCase):
    """
    RFC 3261 §21.4.1: "The request could not be understood due to malformed syntax. The Reason-Phrase SHOULD identify
    the syntax problem in more detail". What the answer needs is copied as it came.
    """

    def answer(self, *changes: tuple[bytes, bytes]) -> Response:
        response = refuse.answer_parse_error(parse_error(*changes), "tag1")
        assert response is not None
        return response

    def test_what_is_wrong_stands_in_the_reason_phrase(self) -> None:
        response = self.answer((b"CSeq: 1 OPTIONS", b"CSeq: 1 INFO"))
        self.assertEqual((response.status, response.to.tag), (400, "tag1"))
        self.assertEqual(response.reason, "Bad Request (CSeq Method Mismatch)")

    def test_a_usual_phrase_is_not_said_twice(self) -> None:
        response = self.answer((b" SIP/2.0\r\nVia", b" SIP/7.0\r\nVia"))
        self.assertEqual((response.status, response.reason), (505, "Version Not Supported"))

    def test_a_to_that_cannot_be_read_is_copied_as_it_is(self) -> None:
        response = self.answer((b"To: <sip:bob@example.org>", b"To: <sip:bob@example.org"))
        self.assertEqual(response.headers.get("to"), "<sip:bob@example.org")

    def test_a_cseq_and_from_that_cannot_be_read_are_copied_as_they_are(self) -> None:
        response = self.answer((b"CSeq: 1 OPTIONS", b"CSeq: one"), (b"From: <sip", b'From: "<sip'))
        self.assertEqual(response.headers.get("cseq"), "one")
        self.assertEqual(response.headers.get("from"), '"<sip:alice@example.org>;tag=f1')

    def test_a_field_that_is_not_there_cannot_be_copied(self) -> None:
        response = self.answer((b"Call-ID: c1\r\n", b""), (b"To: <sip:bob@example.org>\r\n", b""))
        self.assertNotIn("call-id", response.headers)
        self.assertNotIn("to", response.headers)
        self.assertEqual(response.status, 400)

    def test_what_is_no_request_has_no_answer(self) -> None:
        self.assertIsNone(refuse.answer_parse_error(ParseError("No End Of Headers"), "tag1"))

    def test_an_ack_has_no_answer(self) -> None:
        """
        §17.1.1.3: nothing answers an ACK.
        """
        error = parse_error((b"OPTIONS sip", b"ACK sip"), (b"CSeq: 1 OPTIONS", b"CSeq: one"))
        self.assertIsNone(refuse.answer_parse_error(error, "tag1"))

    def test_a_request_without_via_has_no_answer(self) -> None:
        error = parse_error((b"Via: ", b"X-Via: "))
        self.assertIsNone(error.request)
        self.assertNotIsInstance(error.request, Request)
