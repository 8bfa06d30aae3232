"""
From bytes to messages and back: start lines, limits, bodies, and what is refused with which code.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import ParseError
from sipdmq.sip.message import Request, Response, response_to
from sipdmq.sip.parser import ParserLimits, parse_message
from sipdmq.sip.writer import format_message

HEAD = (
    b"Via: SIP/2.0/UDP h;branch=z9hG4bKx\r\n"
    b"Max-Forwards: 70\r\n"
    b"From: <sip:a@b>;tag=1\r\n"
    b"To: <sip:a@b>\r\n"
    b"Call-ID: id\r\n"
    b"CSeq: 1 OPTIONS\r\n"
    b"%sContent-Length: 0\r\n"
    b"\r\n"
)


def make(start: bytes = b"OPTIONS sip:b SIP/2.0", extra: bytes = b"", *changes: tuple[bytes, bytes]) -> bytes:
    data = start + b"\r\n" + HEAD.replace(b"%s", extra)
    for old, new in changes:
        assert old in data, old
        data = data.replace(old, new)
    return data


class ParserTestCase(SynchronousTestCase):
    def refused(self, data: bytes, status: int = 400, *, limits: ParserLimits | None = None) -> ParseError:
        error = self.assertRaises(ParseError, parse_message, data, limits or ParserLimits())
        assert isinstance(error, ParseError)
        self.assertEqual(error.status, status, data[:200])
        return error

    def request(self, data: bytes) -> Request:
        message = parse_message(data)
        assert isinstance(message, Request)
        return message

    def same(self, data: bytes) -> None:
        for is_stream in (False, True):
            self.assertEqual(format_message(parse_message(data, is_stream=is_stream)), data)


class RequestLineTests(ParserTestCase):
    """
    RFC 3261 §7.1: "Method SP Request-URI SP SIP-Version CRLF"; "No CR or LF are allowed except in the end-of-line CRLF
    sequence. No linear whitespace (LWS) is allowed in any of the elements."
    """

    def test_requests_are_read(self) -> None:
        request = self.request(make(b"OPTIONS sip:a@b;x SIP/2.0"))
        self.assertEqual((request.method, request.uri_text, request.uri.text), ("OPTIONS", "sip:a@b;x", "sip:a@b;x"))
        self.same(make())

    def test_the_version_is_case_insensitive_and_sent_in_upper_case(self) -> None:
        """
        "The SIP-Version string is case-insensitive, but implementations MUST send upper-case."
        """
        self.assertEqual(format_message(parse_message(make(b"OPTIONS sip:b sIp/2.0"))), make())

    def test_methods_are_case_sensitive(self) -> None:
        for method in (b"options", b"Options", b"RE%47IST%45R", b"x", b"!-.%*_+`'~"):
            data = make(method + b" sip:b SIP/2.0", b"", (b"1 OPTIONS", b"1 " + method))
            self.assertEqual(self.request(data).method, method.decode())
            self.same(data)
        self.refused(make(b"options sip:b SIP/2.0"))

    def test_other_versions_are_505(self) -> None:
        for version in (b"SIP/7.0", b"SIP/2.1", b"sip/3.0", b"SIP/1.0"):
            error = self.refused(make(b"OPTIONS sip:b " + version), 505)
            self.assertEqual(error.request and error.request.method, "OPTIONS")

    def test_malformed_lines_are_400(self) -> None:
        for line in (
            b"", b"OPTIONS", b"OPTIONS ", b"OPTIONS sip:b", b"OPTIONS SIP/2.0", b"OPTIONS  SIP/2.0",
            b"OPTIONS  sip:b SIP/2.0", b"OPTIONS sip:b  SIP/2.0", b"OPTIONS sip:b SIP/2.0 ", b" OPTIONS sip:b SIP/2.0",
            b"OPTIONS sip:b;a b SIP/2.0", b"OPTIONS <sip:b> SIP/2.0", b"OPTIONS\tsip:b SIP/2.0",
            b"OPTIONS sip:b\tSIP/2.0", b"OPT/IONS sip:b SIP/2.0", b"OPT\xc3\x8fONS sip:b SIP/2.0",
            b"OPTIONS sip: SIP/2.0",
            b"OPTIONS b SIP/2.0", b"OPTIONS * SIP/2.0", b"OPTIONS sip:b HTTP/1.1", b"OPTIONS sip:b \xc5\xbfIP/2.0",
            b"OPTIONS sip:b S\xc4\xb1P/2.0", b"OPTIONS sip:b\x00 SIP/2.0", b"OPTIONS sip:b?X=y SIP/2.0",
            b"OPTIONS sip:a@b?Route=%3Csip:c%3E SIP/2.0", b"OPTIONS sip:b\xff SIP/2.0", b"OPTIONS\r\n sip:b SIP/2.0",
        ):  # fmt: skip
            self.refused(make(line))

    def test_other_schemes_are_read(self) -> None:
        for uri in (b"tel:+1", b"soap.beep://192.0.2.103:3002", b"nobodyKnowsThisScheme:totallyopaquecontent"):
            self.assertEqual(self.request(make(b"OPTIONS " + uri + b" SIP/2.0")).uri.text, uri.decode())

    def test_line_breaks_before_the_start_line_are_skipped(self) -> None:
        """
        §7.5: "Implementations processing SIP messages over stream-oriented transports MUST ignore any CRLF appearing
        before the start-line".
        """
        self.assertEqual(format_message(parse_message(b"\r\n\r\n\r\n" + make())), make())
        for data in (b"", b"\r\n", b"\r\n\r\n", b"\r\n" * 3000, b"\n" + make(), b"\r" + make()):
            self.refused(data)


class StatusLineTests(ParserTestCase):
    """
    RFC 3261 §7.2: "SIP-Version SP Status-Code SP Reason-Phrase CRLF"; "The Status-Code is a 3-digit integer result
    code".
    """

    def test_responses_are_read(self) -> None:
        for line, status, reason in (
            (b"SIP/2.0 200 OK", 200, "OK"),
            (b"SIP/2.0 100 ", 100, ""),
            (b"SIP/2.0 699 a  b ", 699, "a  b "),
            ("SIP/2.0 200 \u043d\u043e".encode(), 200, "\u043d\u043e"),
            (b"SIP/2.0 200 \xff", 200, "\udcff"),
        ):
            message = parse_message(make(line))
            assert isinstance(message, Response)
            self.assertEqual((message.status, message.reason), (status, reason))
            self.same(make(line))

    def test_a_missing_space_before_no_phrase_is_mended(self) -> None:
        self.assertEqual(format_message(parse_message(make(b"SIP/2.0 100"))), make(b"SIP/2.0 100 "))

    def test_malformed_lines_are_refused_and_never_answered(self) -> None:
        """
        A response is not answered, not even one of another version or one that can hardly be told from a request.
        """
        for line in (
            b"SIP/2.0 4294967301 x", b"SIP/2.0 99 x", b"SIP/2.0 099 x", b"SIP/2.0 700 x", b"SIP/2.0 20 OK",
            b"SIP/2.0 2000 OK", b"SIP/2.0 -20 OK", b"SIP/2.0 2x0 OK", b"SIP/2.0  200 OK",
            b"SIP/2.0 \xd9\xa2\xd9\xa0\xd9\xa0 x",
            b"SIP/2.0 200\tOK", b"SIP/3.0 200 OK", b"SIP/2.00 200 OK", b"SIP/2.0", b"SIP/2.0\t200 OK",
            b"SIP/7.0 200 OK",
        ):  # fmt: skip
            error = self.assertRaises(ParseError, parse_message, make(line))
            self.assertIsNone(error.request, line)
        for line in (b"\xc5\xbfIP/2.0 200 OK", b"S\xc4\xb1P/2.0 200 OK"):
            self.refused(make(line))

    def test_a_malformed_response_is_never_answered(self) -> None:
        error = self.refused(make(b"SIP/2.0 200 OK", b"", (b"1 OPTIONS", b"x")))
        self.assertIsNone(error.request)


class HeaderTests(ParserTestCase):
    def test_unknown_fields_stay_in_order_and_as_they_came(self) -> None:
        extra = (
            b"X-b : 1\r\nx-A:2\r\nX-B:\t3 \r\nEmpty:\r\nUnknownHeaderWithUnusualValue: ;;,,;;,;\r\n"
            b"Folded:\r\n  a\r\n\tb \r\n   \r\nNull: \x00\r\nBytes: \xff\xfe\xc3\r\nUtf: \xef\xbb\xbf\xe5\xa4\xa7\r\n"
        )
        data = make(extra=extra)
        headers = self.request(data).headers
        self.assertEqual(headers.get_all("x-b"), ["1", "3"])
        self.assertEqual([headers.get(name) for name in ("x-a", "empty", "null")], ["2", "", "\x00"])
        self.assertEqual((headers.get("bytes"), headers.get("utf")), ("\udcff\udcfe\udcc3", "\ufeff\u5927"))
        self.assertEqual((headers.get("folded") or "").split(), ["a", "b"])
        self.same(data)

    def test_malformed_lines_are_refused(self) -> None:
        for extra in (
            b"NoColon\r\n", b": x\r\n", b" : x\r\n", b"X y: z\r\n", b"X\xff: y\r\n", b"X\x00: y\r\n", b"X@: y\r\n",
            b"X\r\n : y\r\n", b"Supported\r\n", b"User-Agent\r\n", b"Contact\r\n", b"Supported\r\nSupported: x\r\n",
            b"Via\r\n", b"Content-Type\r\n", b"m\r\n",
        ):  # fmt: skip
            for spaced in (extra, extra + b"X:  y\r\n"):
                error = self.refused(make(extra=spaced))
                self.assertIsNotNone(error.request)
                self.refused(make(b"SIP/2.0 200 OK", spaced))

    def test_bare_line_breaks_are_refused(self) -> None:
        """
        RFC 3261 §7: "The start-line, each message-header line, and the empty line MUST be terminated by a
        carriage-return line-feed sequence (CRLF)."
        """
        for extra in (
            b"X: a\nY: b\r\n",
            b"X: a\rY: b\r\n",
            b"X: a\n b\r\n",
            b"X: a\r\r\n",
            b"X: a\n\r\n",
            b"\nX: a\r\n",
        ):
            self.assertIsNone(self.refused(make(extra=extra)).request)
        self.refused(make().replace(b"\r\n", b"\n"))
        self.refused(make(b"OPTIONS sip:b SIP/2.0\n"))

    def test_the_end_of_the_headers_must_be_there(self) -> None:
        for cut in range(1, 5):
            self.refused(make()[:-cut])

    def test_mandatory_fields_must_be_there(self) -> None:
        for line in (b"Via: SIP/2.0/UDP h;branch=z9hG4bKx", b"From: <sip:a@b>;tag=1", b"To: <sip:a@b>", b"Call-ID: id",
                     b"CSeq: 1 OPTIONS"):  # fmt: skip
            error = self.refused(make(b"OPTIONS sip:b SIP/2.0", b"", (line, b"X: y")))
            self.assertEqual(error.request is None, line.startswith(b"Via"))

    def test_fields_of_one_value_stand_there_once(self) -> None:
        for line in (
            b"f: <sip:a@b>;tag=1",
            b"t: <sip:a@b>",
            b"i: id",
            b"CSEQ: 1 OPTIONS",
            b"max-forwards: 70",
            b"l: 0",
        ):
            self.refused(make(extra=line + b"\r\n"))
        for line in (b"Expires: 1", b"Content-Type: a/b", b"Date: x"):
            self.refused(make(extra=line + b"\r\n" + line + b"\r\n"))

    def test_values_are_checked(self) -> None:
        for old, new in (
            (b"UDP h", b"UDP h h"), (b"SIP/2.0/UDP", b"SIP/7.0/UDP"), (b"<sip:a@b>;tag=1", b"sip:a@b?x=y;tag=1"),
            (b"To: <sip:a@b>", b"To: < sip:a@b>"), (b"To: <sip:a@b>", b'To: "a <sip:a@b>'), (b": id", b": a b"),
            (b"1 OPTIONS", b"1 INVITE"), (b"1 OPTIONS", b"1 options"), (b"1 OPTIONS", b"OPTIONS"), (b": 70", b": 256"),
            (b": 70", b": 300"), (b": 70", b": -1"), (b": 70", b": 4294967366"), (b": 70", b":"), (b"1 OPT",
            b"2147483648 OPT"),
            (b"1 OPT", b"4294967297 OPT"), (b"1 OPT", b"36893488147419103232 OPT"), (b"h;branch", b"h;;branch"),
            (b"1 OPTIONS", b"1\xc2\xa0OPTIONS"), (b"To: <sip:a@b>", b"To: <sip:a@b>;tag"),
        ):  # fmt: skip
            self.assertIsNotNone(self.refused(make(b"OPTIONS sip:b SIP/2.0", b"", (old, new))).request)

    def test_values_of_optional_fields_are_checked(self) -> None:
        for line in (
            b"Expires: 4294967296", b"Expires: 18446744073709551617", b"Expires: -1", b"Expires: x", b"Expires:",
            b"Contact: <sip:a@b>;expires=4294967296", b"Contact: <sip:a@b>;expires=-1",
            b"m: <sip:a@b>,", b"Contact:", b"Contact: Joe <sip:a@b>;;;;", b"Contact: sip:a@b?Route=x", b"Contact: *, *",
            b"Route: <sip:a@b", b"Route: sip:a@b,,sip:c@d", b"Record-Route: x", b"Path: <sip:a@b> x", b"Route:",
            b"Via: SIP/2.0/UDP", b"Via:", b"Via: SIP/2.0/UDP a,", b"Contact: <sip:a@b:99999>",
        ):  # fmt: skip
            self.assertIsNotNone(self.refused(make(extra=line + b"\r\n")).request)
        for line in (b"Expires: 4294967295", b"Contact: <sip:a@b>;expires=4294967295", b"Expires: 0000000000000000060"):
            self.request(make(extra=line + b"\r\n"))

    def test_every_refused_request_can_be_answered(self) -> None:
        """
        The answer copies what the request says, readable or not: one To tag more, and no exception.
        """
        for old, new in (
            (b"To: <sip:a@b>", b"To: <sip:a@b"),
            (b"To: <sip:a@b>", b"To:"),
            (b"From: <sip:a", b"From: <<"),
        ):
            request = self.refused(make(b"OPTIONS sip:b SIP/2.0", b"", (old, new))).request
            assert request is not None
            self.assertEqual(response_to(request, 400, "x").status, 400)

    def test_an_ack_is_never_answered(self) -> None:
        error = self.refused(make(b"ACK sip:b SIP/2.0"))
        self.assertIsNone(error.request)


class LimitTests(ParserTestCase):
    LIMITS = ParserLimits(message_size=2000, headers=20, header_length=300)

    def test_a_message_too_large_is_513(self) -> None:
        """
        RFC 3261 §21.5.7: "The server was unable to process the request since the message length exceeded its
        capabilities."
        """
        error = self.refused(make() + bytes(2000), 513, limits=self.LIMITS)
        self.assertEqual(error.request and error.request.call_id, "id")
        data = make(b"OPTIONS sip:b SIP/2.0", b"", (b"th: 0", b"th: 1600"))
        parse_message(data + bytes(1600), self.LIMITS)
        self.refused(make() + bytes(66000), 513)

    def test_a_request_uri_too_long_is_414(self) -> None:
        """
        RFC 3261 §21.4.12: "The server is refusing to service the request because the Request-URI is longer than the
        server is willing to interpret."
        """
        error = self.refused(make(b"OPTIONS sip:" + b"b" * 300 + b" SIP/2.0"), 414, limits=self.LIMITS)
        self.assertIsNotNone(error.request)
        self.refused(make(b"OPTIONS sip:" + b"b" * 9000 + b" SIP/2.0"), 414)
        parse_message(make(b"OPTIONS sip:" + b"b" * 250 + b" SIP/2.0"), self.LIMITS)

    def test_a_header_too_long_is_400(self) -> None:
        for line in (b"X: " + b"a" * 300, b"X: " + b"a\r\n " * 100, b"Contact: <sip:a@" + b"b" * 300 + b">"):
            self.assertIsNotNone(self.refused(make(extra=line + b"\r\n"), limits=self.LIMITS).request)
            self.refused(make(extra=line.ljust(8200, b"x") + b"\r\n"))
        parse_message(make(extra=b"X: " + b"a" * 250 + b"\r\n"), self.LIMITS)

    def test_too_many_headers_are_400(self) -> None:
        for extra in (b"X: y\r\n" * 20, b"Supported: y\r\n" * 20, b"X:  y\r\n" * 20):
            self.assertIsNotNone(self.refused(make(extra=extra), limits=self.LIMITS).request)
        parse_message(make(extra=b"X: y\r\n" * 13), self.LIMITS)
        self.refused(make(extra=b"X: y\r\n" * 13 + b"Supported: a\r\n"), limits=self.LIMITS)
        self.refused(make(extra=b"X: y\r\n" * 257))


class BodyTests(ParserTestCase):
    """
    RFC 3261 §18.3: "If there are additional bytes in the transport packet beyond the end of the body, they MUST be
    discarded. If the transport packet ends before the end of the message body, this is considered an error."
    """

    BODY = b"v=0\r\n\r\n\x00\xff\n\rINVITE"

    def make_body(self, length: bytes) -> bytes:
        return make(b"OPTIONS sip:b SIP/2.0", b"", (b"Content-Length: 0\r\n", length)) + self.BODY

    def test_the_body_is_kept_byte_for_byte(self) -> None:
        for line in (b"Content-Length: 17\r\n", b"l:17\r\n", b"CONTENT-length : 00017 \r\n", b"l:\r\n 17\r\n"):
            data = self.make_body(line)
            self.assertEqual(parse_message(data).body, self.BODY)
            self.same(data)

    def test_in_a_datagram_the_body_may_end_with_it(self) -> None:
        data = self.make_body(b"")
        self.assertEqual(parse_message(data).body, self.BODY)
        self.assertEqual(format_message(parse_message(data)), data)

    def test_in_a_stream_content_length_must_be_there(self) -> None:
        error = self.assertRaises(ParseError, parse_message, self.make_body(b""), is_stream=True)
        self.assertIsNotNone(error.request)

    def test_what_is_behind_the_body_is_dropped(self) -> None:
        for length, body in ((b"0", b""), (b"3", b"v=0"), (b"16", self.BODY[:-1])):
            self.assertEqual(parse_message(self.make_body(b"l: " + length + b"\r\n")).body, body)

    def test_a_length_that_is_none_is_refused(self) -> None:
        for length in (
            b"18", b"-1", b"-999", b"+17", b"1 7", b"17,17", b"0x11", b"", b"17;", b"1e1", b"4294967313", b"2147483649",
            b"18446744073709551633", b"\xd9\xa1", b"1\r\n 7", b"9" * 5000,
        ):  # fmt: skip
            self.refused(self.make_body(b"Content-Length: " + length + b"\r\n"))
        for line in (b"l: 17\r\nl: 17\r\n", b"Content-Length: 0\r\nl: 17\r\n"):
            self.refused(self.make_body(line))
