"""
Messages cut out of a stream, however it comes.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import ParseError
from sipdmq.sip.framing import Frame, StreamFramer
from sipdmq.sip.parser import ParserLimits, parse_message

HEAD = (
    b"OPTIONS sip:b SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKx\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\n"
    b"To: <sip:a@b>\r\nCall-ID: id\r\nCSeq: 1 OPTIONS\r\n"
)
KEEP_ALIVE = Frame(b"")


def message(body: bytes = b"", line: bytes = b"", extra: bytes = b"") -> bytes:
    return HEAD + (line or b"Content-Length: %d" % len(body)) + b"\r\n" + extra + b"\r\n" + body


PLAIN = message()
WITH_BODY = message(b"\r\n\r\nl: 5\r\n\r\n\x00\xff", extra=b"X: y\r\n")


class FramingTestCase(SynchronousTestCase):
    limits = ParserLimits()

    def feed(self, *chunks: bytes) -> list[Frame]:
        framer = StreamFramer(self.limits)
        frames: list[Frame] = []
        for chunk in chunks:
            frames += framer.feed(chunk)
        return frames

    def check(self, data: bytes, *expected: bytes | Frame) -> None:
        """
        The same frames whole, byte by byte, and in two at each place.
        """
        frames = [frame if isinstance(frame, Frame) else Frame(frame) for frame in expected]
        self.assertEqual(self.feed(data), frames)
        self.assertEqual(self.feed(*(data[at : at + 1] for at in range(len(data)))), frames)
        for at in range(len(data)):
            self.assertEqual(self.feed(data[:at], data[at:]), frames, at)

    def check_ended(self, data: bytes) -> None:
        """
        One last frame, which the parser refuses, and nothing from what follows.
        """
        framer = StreamFramer(self.limits)
        frames = framer.feed(data)
        self.assertEqual([frame.is_last for frame in frames], [True], data[-80:])
        self.assertRaises(ParseError, parse_message, frames[0].data, self.limits, True)
        self.assertEqual((framer.feed(PLAIN), framer.is_partial), ([], False))
        by_byte = self.feed(*(data[at : at + 1] for at in range(len(data))))
        self.assertEqual([frame.is_last for frame in by_byte], [True])


class ContentLengthTests(FramingTestCase):
    """
    RFC 3261 §18.3: "The Content-Length header field value is used to locate the end of each SIP message in a stream. It
    will always be present when SIP messages are sent over stream-oriented transports."
    """

    def test_a_message_ends_where_it_says(self) -> None:
        for data in (PLAIN, WITH_BODY, message(b"x" * 300)):
            self.check(data, data)

    def test_content_length_in_any_spelling(self) -> None:
        for line in (
            b"l:3", b"L: 3", b"CONTENT-LENGTH: 3", b"content-length \t :\t3 ", b"Content-Length:\r\n 3",
            b"Content-Length: \r\n\t\r\n 3", b"l: 0003", b"l: 0000000000000000003", b"l: 3\r\n ",
        ):  # fmt: skip
            data = message(line=line) + b"abc"
            self.check(data, data)
            self.assertEqual(parse_message(data, is_stream=True).body, b"abc")

    def test_leading_zeros_are_no_fault_however_many(self) -> None:
        data = message(line=b"l: " + b"0" * 5000 + b"3") + b"abc"
        self.assertEqual(self.feed(data + PLAIN), [Frame(data), Frame(PLAIN)])

    def test_what_only_looks_like_content_length(self) -> None:
        for extra in (b"X: a\r\n l: 9\r\n", b"X-Content-Length: 9\r\n", b"ll: 9\r\n", b"X: Content-Length: 9\r\n"):
            data = message(b"abc", extra=extra)
            self.check(data, data)

    def test_several_messages_in_a_segment(self) -> None:
        self.check(PLAIN + WITH_BODY + PLAIN, PLAIN, WITH_BODY, PLAIN)

    def test_the_rest_waits(self) -> None:
        framer = StreamFramer()
        self.assertEqual(framer.feed(PLAIN + WITH_BODY[:50]), [Frame(PLAIN)])
        self.assertTrue(framer.is_partial)
        self.assertEqual(framer.feed(WITH_BODY[50:]), [Frame(WITH_BODY)])
        self.assertFalse(framer.is_partial)
        self.check(WITH_BODY[:-1])

    def test_a_length_that_is_missing_or_none_or_twice_ends_the_stream(self) -> None:
        for line in (
            b"X: y", b"Content-Length: -1", b"Content-Length: +1", b"Content-Length:", b"Content-Length: x",
            b"Content-Length: 1.0", b"Content-Length: 0x1", b"l: 1, 1", b"l: 0\r\nl: 0", b"l: 0\r\nContent-Length: 0",
            b"l: 3\r\nX: y\r\nL: 4", b"l: 3;", b"l : \xd9\xa3", b"Content-Length\r\n : 3", b" l: 3", b"Content-Length",
        ):  # fmt: skip
            self.check_ended(message(line=line) + b"abc" + PLAIN)

    def test_a_number_in_pieces_ends_the_stream(self) -> None:
        """
        What the parser reads as no number is no length: another element might read another.
        """
        for line in (
            b"l: 1 2",
            b"l: 1\r\n 2",
            b"l: 1\t2",
            b"l: 1\x0b2",
            b"l: 1\x0c",
            b"l: 1\r2",
            b"l: 1\n2",
            b"l: 1\n",
        ):
            self.check_ended(message(line=line) + b"abcdefghijkl" + PLAIN)

    def test_a_number_out_of_range_is_never_wrapped(self) -> None:
        for number in (2**31, 2**32, 2**32 + 3, 2**64 + 3, 10**30):
            self.check_ended(message(line=b"l: %d" % number) + b"abc")
        self.check_ended(message(line=b"l: " + b"1" * 5000) + b"abc")

    def test_what_the_parser_refuses_within_its_length_is_no_end(self) -> None:
        data = message(b"abc", extra=b"no colon\r\n")
        self.check(data + PLAIN, data, PLAIN)


class KeepAliveTests(FramingTestCase):
    """
    RFC 5626 §3.5.1: "When a server receives a double CRLF sequence between SIP messages on a connection-oriented
    transport such as TCP or SCTP, it MUST immediately respond with a single CRLF over the same connection."
    """

    def test_a_double_crlf_is_a_keep_alive(self) -> None:
        for data, *expected in (
            (b"\r\n\r\n", KEEP_ALIVE),
            (b"\r\n\r\n\r\n\r\n", KEEP_ALIVE, KEEP_ALIVE),
            (b"\r\n\r\n" + PLAIN, KEEP_ALIVE, PLAIN),
            (PLAIN + b"\r\n\r\n" + WITH_BODY + b"\r\n\r\n", PLAIN, KEEP_ALIVE, WITH_BODY, KEEP_ALIVE),
        ):
            self.check(data, *expected)

    def test_a_single_crlf_before_a_message_is_skipped(self) -> None:
        """
        RFC 3261 §7.5: "Implementations processing SIP messages over stream-oriented transports MUST ignore any CRLF
        appearing before the start-line".
        """
        self.check(b"\r\n" + PLAIN, PLAIN)
        self.check(PLAIN + b"\r\n" + PLAIN + b"\r\n", PLAIN, PLAIN)
        self.check(b"\r\n\r\n\r\n" + PLAIN, KEEP_ALIVE, PLAIN)

    def test_nothing_and_line_breaks_are_not_half_a_message(self) -> None:
        """
        A single CRLF is a pong (RFC 5626 §4.4.1): whoever sends one and falls silent has not stalled in a message.
        """
        framer = StreamFramer()
        self.assertFalse(framer.is_partial)
        for data in (b"", b"\r\n\r\n", PLAIN, b"\r\n"):
            framer.feed(data)
            self.assertFalse(framer.is_partial, data)
        framer.feed(b"O")
        self.assertTrue(framer.is_partial)

    def test_a_body_of_line_breaks_is_a_body(self) -> None:
        data = message(b"\r\n\r\n\r\n\r\n")
        self.check(data + b"\r\n\r\n", data, KEEP_ALIVE)


class BoundTests(FramingTestCase):
    """
    A peer decides what it sends, not what we hold.
    """

    limits = ParserLimits(message_size=1000)

    def test_headers_without_end_end_the_stream(self) -> None:
        self.check_ended(b"OPTIONS sip:b SIP/2.0\r\nX: " + b"a" * 1000)
        self.check_ended(b"\x00" * 1001)
        self.check_ended(HEAD + b"X: y\r\n" * 200)

    def test_a_body_too_large_ends_the_stream_before_it_comes(self) -> None:
        data = message(line=b"l: 900")
        frames = self.feed(data)
        self.assertEqual([frame.is_last for frame in frames], [True])
        error = self.assertRaises(ParseError, parse_message, frames[0].data, self.limits, True)
        self.assertEqual((error.status, error.request and error.request.call_id), (513, "id"))

    def test_the_largest_message_allowed(self) -> None:
        data = message(line=b"l: %d" % (1000 - len(message(line=b"l: 000"))))
        data += b"x" * (1000 - len(data))
        self.check(data + PLAIN, data, PLAIN)

    def test_no_more_than_one_message_is_held(self) -> None:
        for piece in (b"a", b"\r", b"\n", b"\r\n", b"\r\nl: 1", b"l:\r\n ", WITH_BODY, WITH_BODY[:-1]):
            framer = StreamFramer(self.limits)
            for _ in range(4000 // len(piece)):
                framer.feed(piece)
                self.assertLessEqual(len(framer._buffer), 1000 + len(piece))

    def test_after_the_end_nothing_is_held(self) -> None:
        framer = StreamFramer(self.limits)
        framer.feed(message(line=b"X: y") + bytes(5000))
        framer.feed(bytes(5000))
        self.assertFalse(framer.is_partial)
