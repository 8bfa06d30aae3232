"""
What holds for any bytes, and for any well-formed message. Hypothesis runs derandomized: the same examples each time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv6Address
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import sipmessage
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import ParseError
from sipdmq.sip.fields import NameAddr
from sipdmq.sip.framing import Frame, StreamFramer
from sipdmq.sip.message import Request, Response, response_to
from sipdmq.sip.parser import ParserLimits, parse_message
from sipdmq.sip.uri import SipURI, parse_uri, same_uri
from sipdmq.sip.writer import format_message

TORTURE = Path(__file__).parent / "torture"
TORTURED = [(TORTURE / entry["file"]).read_bytes() for entry in json.loads((TORTURE / "index.json").read_text())]
# What a mutation puts in: the pieces on which readings of SIP differ.
PIECES = (
    b"\r\n |\r\n\t|"
    b'\r\n\r\n|\r\n|\r|\n|"|\\|\\"|<|>|;|;;|,|,,|:|=|@|?|%|%00|%zz|[|]|*|/| |  |\t|\x00|\xff|\xc2\xa0|\xd9\xa3'
    b"|\xc5\xbf|-1|0|4294967296|00000000000000000001|\r\nl: 1|\r\nContent-Length: -1|\r\nContent-Length|\r\nVia|\r\nv:"
    b"|\r\nSupported|\r\nTo: *|;tag|;tag=x|SIP/2.0|SIP/3.0 |sip:|tel:|\x0b|\x1c"
).split(b"|")

EXAMPLES = 80
bounded = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=EXAMPLES,
    phases=(Phase.explicit, Phase.generate),  # shrinking takes minutes; add Phase.shrink to look into a failure
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@st.composite
def mutations(draw: Callable[..., Any]) -> bytes:
    """
    A torture message, cut and patched in up to four places.
    """
    data: bytes = draw(st.sampled_from(TORTURED))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.sampled_from((0, 0, 1, 2, 10)))
        data = data[:at] + draw(st.sampled_from(PIECES) | st.binary(max_size=3)) + data[at + gone :]
    return data


# A URI that holds one of these is written in <> (RFC 3261 §20).
BRACKETS_NEEDED = str.maketrans(",;?", "___")


def words(alphabet: str, least: int = 1, most: int = 8) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=most)


ALPHANUM = "abcxyzABCXYZ0189"
TOKENS = words(ALPHANUM + "-.!*_+`'~")
TEXTS = words(ALPHANUM + "\u00e9\u5927.:;,<>@ ", 0, 12).map(str.strip).map(lambda text: " ".join(text.split()))
HOSTS = st.sampled_from(
    ("example.com", "A.Example", "x-y.z", "h", "192.0.2.1", "[2001:db8::1]", "[2001:DB8:0:0::A:1]", "example.org.")
)
PORTS = st.none() | st.integers(1, 65535)
USERS = words(ALPHANUM + "-_.!~*'()&=+$,;?/", 1, 12) | st.sampled_from(("%61lice", "a%20b", "x%40y", "%C3%A9", "%00"))


def named(names: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """
    C{;name=value} lists; no name twice.
    """
    params = st.dictionaries(st.sampled_from(names.split()), st.none() | values, max_size=3)
    return params.map(lambda found: "".join(f";{n}" if v is None else f";{n}={v}" for n, v in found.items()))


@st.composite
def uris(draw: Callable[..., Any], with_params: bool = True) -> str:
    user = draw(st.none() | USERS)
    password = draw(st.none() | words(ALPHANUM + "-_.!~*'()&=+$,")) if user else None
    text: str = draw(st.sampled_from(("sip:", "sips:")))
    if user:
        text += user + (f":{password}" if password else "") + "@"
    port = draw(PORTS)
    text += draw(HOSTS) + (f":{port}" if port else "")
    return text + (draw(named("lr transport ttl x-1 ob", words(ALPHANUM + "-_.!~*'()[]/:&+$"))) if with_params else "")


@st.composite
def addresses(draw: Callable[..., Any], tag: str = "") -> str:
    params: str = draw(named("a b-c q9 x", TOKENS)) + (f";tag={tag}" if tag else "")
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return str(draw(uris(with_params=False))).translate(BRACKETS_NEEDED) + params
    display = ("", f'"{draw(TEXTS)}" ', " ".join(draw(st.lists(TOKENS, min_size=1, max_size=3))) + " ")[kind - 1]
    return f"{display}<{draw(uris())}>{params}"


@st.composite
def well_formed(draw: Callable[..., Any], is_odd: bool = False) -> bytes:
    """
    @param is_odd: with folds, blanks and bytes that are no UTF-8, as few other parsers read them.
    """
    method = draw(TOKENS)
    vias = draw(
        st.lists(st.tuples(TOKENS, HOSTS, PORTS, named("ttl-x rport y z", words("0189", 1, 4))), min_size=1, max_size=4)
    )
    fields = [
        ("Via|v", f"SIP/2.0/{transport} {host}" + (f":{port}" if port else "") + f"{params};branch=z9hG4bK{number}")
        for number, (transport, host, port, params) in enumerate(vias)
    ]
    fields += [("From|f", draw(addresses("f1"))), ("To|t", draw(addresses(draw(st.sampled_from(("", "t1"))))))]
    fields += [("Call-ID|i|CALL-ID", draw(TOKENS)), ("CSeq|cseq", f"{draw(st.integers(0, 2**31 - 1))} {method}")]
    fields += [("Contact|m", draw(addresses())) for _ in range(draw(st.integers(0, 2)))]
    fields += [("X-Text", text) for text in draw(st.lists(TEXTS, max_size=3))]
    for name, most in (("Max-Forwards", 255), ("Expires", 2**32 - 1)):
        if draw(st.booleans()):
            fields.append((name, str(draw(st.integers(0, most)))))
    body: bytes = draw(st.binary(max_size=20))
    fields.append(("Content-Length|l", str(len(body))))
    fields = draw(st.permutations(fields))
    start = (
        f"{method} {draw(uris())} SIP/2.0"
        if draw(st.booleans())
        else f"SIP/2.0 {draw(st.integers(100, 699))} {draw(TEXTS)}"
    )
    lines = [start.encode()]
    for names, value in fields:
        name = draw(st.sampled_from(names.split("|")))
        colon = draw(st.sampled_from((": ", ":", " : ", ":\t", ":\r\n ", ": \r\n\t \r\n  "))) if is_odd else ": "
        end = draw(st.sampled_from((b"", b"", b" ", b"\t"))) if is_odd else b""
        lines.append(f"{name}{colon}{value}".encode() + (b"\xff\xfe" if is_odd and name == "X-Text" else b"") + end)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def look_at_everything(message: Request | Response) -> None:
    """
    Ask for each typed value, as services do.
    """
    for name in ("top_via", "vias", "from_", "to", "cseq", "call_id", "contacts", "expires", "uri", "max_forwards"):
        try:
            getattr(message, name, None)
        except ParseError:
            pass
    for key in ("require", "proxy-require", "supported", "allow", "route", "record-route", "path", "contact"):
        for read in (message.tokens, message.addresses):
            try:
                read(key)
            except ParseError:
                pass


class AnyBytesTests(SynchronousTestCase):
    """
    Any bytes give a message or L{ParseError}.
    """

    def check(self, data: bytes) -> None:
        for is_stream in (False, True):
            try:
                message = parse_message(data, is_stream=is_stream)
            except ParseError as error:
                self.assertIn(error.status, (400, 413, 414, 416, 505, 513))
                if error.request is not None:
                    look_at_everything(error.request)
                    format_message(error.request)
                continue
            look_at_everything(message)
            written = format_message(message)
            self.assertEqual(format_message(parse_message(written, is_stream=is_stream)), written)
            self.assertIn(written.partition(b"\r\n")[2], data)

    @bounded
    @given(st.binary(max_size=300))
    def test_any_bytes(self, data: bytes) -> None:
        self.check(data)

    @bounded
    @given(
        st.lists(
            st.sampled_from((*PIECES, b"\r\nTo: ", b"\r\nFrom: ", b"\r\nCSeq: 1 A", b"A sip:b SIP/2.0")), max_size=30
        )
    )
    def test_any_pieces(self, pieces: list[bytes]) -> None:
        self.check(b"".join(pieces))
        self.check(b"A sip:b SIP/2.0\r\nVia: SIP/2.0/UDP h" + b"".join(pieces) + b"\r\n\r\n")

    @settings(bounded, max_examples=3 * EXAMPLES)
    @given(mutations())
    def test_mutations_of_torture_messages(self, data: bytes) -> None:
        self.check(data)

    @bounded
    @given(mutations())
    def test_every_refused_request_can_be_answered(self, data: bytes) -> None:
        try:
            parse_message(data)
        except ParseError as error:
            if error.request is not None:
                format_message(response_to(error.request, error.status, "x"))

    @bounded
    @given(mutations())
    def test_a_plain_and_an_odd_line_beside_it_are_read_alike(self, data: bytes) -> None:
        """
        The parser has a short way for messages of plain lines: it must not read them otherwise.
        """
        end = data.find(b"\r\n\r\n")
        readings = []
        for extra in (b"\r\nX-Slow: y", b"\r\nX-Slow:\ty"):
            try:
                message = parse_message(data[:end] + extra + data[end:] if end > 0 else data)
                readings.append([(key, message.headers.get_all(key)) for key, _ in message.headers])
            except ParseError as error:
                readings.append([(str(error.status), [])])
        self.assertEqual(readings[0], readings[1])

    @bounded
    @given(st.text(max_size=30), st.text(max_size=30))
    def test_any_text_is_a_uri_or_none(self, one: str, other: str) -> None:
        found = []
        for text in (one, f"sip:{other}", f"sip:a@b{one}", f"sip:a@[{other}]"):
            try:
                found.append(parse_uri(text))
            except ParseError:
                pass
        for uri in found:
            self.assertEqual(uri.text, str(uri))
            for another in found:
                self.assertEqual(same_uri(uri, another), same_uri(another, uri))


class AnyStreamTests(SynchronousTestCase):
    def frames(self, chunks: list[bytes], limits: ParserLimits) -> list[Frame]:
        framer = StreamFramer(limits)
        return [frame for chunk in chunks for frame in framer.feed(chunk)]

    def check(self, data: bytes, cuts: list[int]) -> None:
        for limits in (ParserLimits(), ParserLimits(message_size=400)):
            whole = self.frames([data], limits)
            places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
            split = self.frames([data[a:b] for a, b in pairwise(places)], limits)
            self.assertEqual([frame.is_last for frame in split], [frame.is_last for frame in whole])
            for one, other in zip(split, whole):
                if not one.is_last:
                    self.assertEqual(one, other)
            for frame in whole:
                if frame.is_last:
                    self.assertRaises(ParseError, parse_message, frame.data, limits, True)
                elif frame.data:
                    try:
                        message = parse_message(frame.data, limits, True)
                    except ParseError:
                        continue
                    self.assertEqual(len(frame.data), frame.data.find(b"\r\n\r\n") + 4 + len(message.body))

    CUTS = st.lists(st.integers(0, 1500), max_size=6)

    @bounded
    @given(st.lists(st.sampled_from((*PIECES, b"l: 3", b"Content-Length: 0", b"abc")), max_size=40).map(b"".join), CUTS)
    def test_any_pieces(self, data: bytes, cuts: list[int]) -> None:
        self.check(data, cuts)

    @bounded
    @given(st.lists(mutations(), min_size=1, max_size=3).map(b"".join), CUTS)
    def test_mutations_of_torture_messages(self, data: bytes, cuts: list[int]) -> None:
        self.check(data, cuts)

    @bounded
    @given(st.lists(well_formed(is_odd=True), min_size=1, max_size=3), CUTS)
    def test_well_formed_messages_come_out_whole(self, messages: list[bytes], cuts: list[int]) -> None:
        self.assertEqual(self.frames([b"".join(messages)], ParserLimits()), [Frame(message) for message in messages])
        self.check(b"".join(messages), cuts)


class WellFormedTests(SynchronousTestCase):
    @bounded
    @given(well_formed(is_odd=True))
    def test_what_is_read_is_written_byte_for_byte(self, data: bytes) -> None:
        message = parse_message(data, is_stream=True)
        look_at_everything(message)
        self.assertEqual(format_message(message), data)

    @bounded
    @given(well_formed())
    def test_an_independent_parser_reads_the_same(self, data: bytes) -> None:
        ours, theirs = parse_message(data, is_stream=True), sipmessage.Message.parse(data)
        if isinstance(ours, Request):
            assert isinstance(theirs, sipmessage.Request)
            self.assertEqual(ours.method, theirs.method)
            self.same_uri_parts(ours.uri, theirs.uri)
            self.assertEqual(ours.max_forwards, theirs.max_forwards)
        else:
            assert isinstance(theirs, sipmessage.Response)
            self.assertEqual((ours.status, ours.reason), (theirs.code, theirs.phrase))
        self.assertEqual(
            [(via.transport, via.host, via.port, dict(via.params)) for via in ours.vias],
            [(via.transport.upper(), host_of(via.host), via.port, dict(via.parameters)) for via in theirs.via],
        )
        self.same_address(ours.from_, theirs.from_address)
        self.same_address(ours.to, theirs.to_address)
        self.assertEqual(len(ours.contacts), len(theirs.contact))
        for one, other in zip(ours.contacts, theirs.contact):
            self.same_address(one, other)
        self.assertEqual(tuple(ours.cseq), (theirs.cseq.sequence, theirs.cseq.method))
        self.assertEqual((ours.call_id, ours.expires, ours.body), (theirs.call_id, theirs.expires, theirs.body))
        self.assertEqual(ours.headers.get_all("x-text"), theirs.headers.getlist("X-Text"))

    def same_uri_parts(self, ours: object, theirs: sipmessage.URI) -> None:
        assert isinstance(ours, SipURI)
        self.assertEqual((ours.scheme, ours.host, ours.port), (theirs.scheme, host_of(theirs.host), theirs.port))
        self.assertEqual((unquote(ours.user), ours.password), (theirs.user or "", theirs.password))
        self.assertEqual(dict(ours.params), {name: value or "" for name, value in theirs.parameters.items()})

    def same_address(self, ours: NameAddr, theirs: sipmessage.Address) -> None:
        self.assertEqual((ours.display, dict(ours.params)), (theirs.name, dict(theirs.parameters)))
        self.same_uri_parts(ours.uri, theirs.uri)


def host_of(text: str) -> str:
    return str(IPv6Address(text[1:-1])) if text[0] == "[" else text.lower()
