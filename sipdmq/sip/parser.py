"""
One datagram or framed message to a L{Request} or L{Response}, every value that we rely on checked.

Strict where a lenient reading could differ from the next hop's: request lines, the fields that name the transaction,
numbers, URIs. What is refused is answered with 400, from as much of the request as could be read.
"""

from __future__ import annotations

from typing import Final, NamedTuple, cast

from sipdmq.errors import ParseError
from sipdmq.sip.grammar import MAX_DELTA_SECONDS, TOKEN, parse_number
from sipdmq.sip.headers import USUAL_KEYS, Headers, header_key
from sipdmq.sip.message import Message, Request, Response
from sipdmq.sip.uri import SipURI

__all__ = ["DEFAULT_LIMITS", "KNOWN_METHODS", "ParserLimits", "parse_message"]


class ParserLimits(NamedTuple):
    """
    What a message may be at most.

    @ivar message_size: bytes, all of it; more is 513.
    @ivar headers: header lines; more is 400.
    @ivar header_length: characters in one header line, with its folds; more is 400, for the start line 414.
    """

    message_size: int = 65535
    headers: int = 256
    header_length: int = 8192


DEFAULT_LIMITS: Final = ParserLimits()

KNOWN_METHODS: Final = frozenset(
    "REGISTER INVITE ACK BYE CANCEL OPTIONS PRACK SUBSCRIBE NOTIFY PUBLISH INFO REFER MESSAGE UPDATE KDMQ".split()
)

# "multi01": fields that have one value only (RFC 4475 §3.3.8, §3.3.9)
_SINGLE: Final = frozenset(
    "from to call-id cseq max-forwards content-length content-type expires min-expires date event subject "
    "mime-version priority retry-after user-agent server".split()
)


def parse_message(data: bytes, limits: ParserLimits = DEFAULT_LIMITS, is_stream: bool = False) -> Request | Response:
    """
    Read one message.

    @param data: a whole datagram, or what L{sipdmq.sip.framing} cut out of a stream; not empty. CRLFs before the
        start line are skipped (§7.5).
    @param is_stream: Content-Length must be there (§18.3); in a datagram the body may end with it, and what is
        behind C{Content-Length} bytes is dropped.
    @raise ParseError: with C{request} set if it is a request that can be answered: what its response copies is
        there, if not always readable.
    """
    size = len(data)
    start = 0
    while data.startswith(b"\r\n", start):
        start += 2
    end = data.find(b"\r\n\r\n", start)
    if end < 0:
        raise ParseError("No End Of Headers")
    text = data[start:end].decode("utf-8", "surrogateescape")
    lines = text.split("\r\n")
    breaks = len(lines) - 1
    if text.count("\n") != breaks or text.count("\r") != breaks:
        raise ParseError("Bare Line Break")
    start_line = lines.pop(0)
    headers, fault = _read_headers(lines, text, limits)
    message, line_fault = _read_start_line(start_line, headers, limits)
    message.size = size
    try:
        fault = line_fault or fault
        if fault is not None:
            raise fault
        if size > limits.message_size:
            raise ParseError("Message Too Large", 513)
        message.body = _read_body(headers, data, end + 4, is_stream)
        _check(message)
    except ParseError as error:
        if isinstance(message, Request) and message.method != "ACK" and "via" in headers:
            error.request = message
        raise
    finally:
        # A fault remembers this frame, and the frame the fault: that circle would wait for the garbage collector.
        fault = line_fault = None
    return message


def _read_headers(lines: list[str], text: str, limits: ParserLimits) -> tuple[Headers, ParseError | None]:
    """
    All header lines that can be read, and the first fault in one that cannot.

    @param lines: of the head, the start line gone; the list becomes that of the headers.
    """
    fault = None
    headers = _read_plain_headers(lines, text) if _is_short(lines, text, limits) else None
    if headers is None:
        headers, fault = _read_unusual_headers(lines, limits)
    surplus = len(headers) - len(headers.first)
    if surplus and surplus != headers.surplus_of("via") + headers.surplus_of("record-route"):
        for key in sorted(_SINGLE.intersection(headers.first)):
            if headers.is_repeated(key):
                fault = fault or ParseError(f"Repeated {key.title()}")
    return headers, fault


def _is_short(lines: list[str], text: str, limits: ParserLimits) -> bool:
    return len(text) <= limits.header_length and 0 < len(lines) <= limits.headers


def _read_plain_headers(lines: list[str], text: str) -> Headers | None:
    """
    As L{_read_headers}, if all lines read C{Name: value} in a usual spelling, without folds and other white space, as
    they nearly always do. Each step goes over all lines at once, which takes a third of the time.

    @return: C{None} if one line is not so.
    """
    if ":  " in text or " \r\n" in text or "\t" in text or text[-1] == " ":
        return None
    names, colons, values = zip(*[line.partition(": ") for line in lines])
    keys = list(map(USUAL_KEYS.get, names))
    if None in keys or "" in colons:
        return None
    first = dict(zip(keys, values))
    if len(first) != len(keys):  # of several lines with one name the first one counts
        first = dict(zip(reversed(keys), reversed(values)))
    return Headers(cast("list[str]", keys), lines, cast("dict[str, str]", first))


def _read_unusual_headers(lines: list[str], limits: ParserLimits) -> tuple[Headers, ParseError | None]:
    """
    As L{_read_headers}, for lines in any spelling, with folds and white space.
    """
    reason = ""  # not the exception: that would hold this frame, and the frame it
    lines = _join_folds(lines)
    if len(lines) > limits.headers:
        del lines[limits.headers :]
        reason = "Too Many Headers"
    headers = Headers()
    for line in lines:
        name, colon, _ = line.partition(":")
        try:
            if not colon:
                raise ParseError("Header Without Colon")
            if len(line) > limits.header_length:
                raise ParseError("Header Too Long")
            headers.add_line(header_key(name), line)
        except ParseError as error:
            reason = reason or error.reason
    return headers, ParseError(reason) if reason else None


def _join_folds(lines: list[str]) -> list[str]:
    folded: list[list[str]] = []
    for line in lines:
        if line[:1] in (" ", "\t") and folded:
            folded[-1].append(line)
        else:
            folded.append([line])
    return ["\r\n".join(pieces) for pieces in folded]


def _read_start_line(
    line: str, headers: Headers, limits: ParserLimits
) -> tuple[Request | Response, ParseError | None]:
    if line[:4].isascii() and line[:4].upper() == "SIP/":
        return _read_status_line(line, headers, limits), None
    method, _, rest = line.partition(" ")
    uri, _, version = rest.rpartition(" ")
    fault = None
    if len(line) > limits.header_length:
        fault = ParseError("Request-URI Too Long", 414)
    elif version != "SIP/2.0" and not (version.isascii() and version.upper() == "SIP/2.0"):
        is_version = version.isascii() and version[:4].upper() == "SIP/" and " " not in uri
        fault = ParseError("Version Not Supported", 505) if is_version else ParseError("Invalid Request Line")
    elif not uri or " " in uri or (method not in KNOWN_METHODS and not TOKEN.fullmatch(method)):
        fault = ParseError("Invalid Request Line")
    return Request(method, uri, headers), fault


def _read_status_line(line: str, headers: Headers, limits: ParserLimits) -> Response:
    if line[4:8] != "2.0 ":
        raise ParseError("Version Not Supported", 505)
    if len(line) > limits.header_length:
        raise ParseError("Status Line Too Long")
    # "SIP/2.0 100 " with an empty phrase is right, "SIP/2.0 100" tolerated (RFC 4475 §3.1.1.13)
    code, _, reason = line[8:].partition(" ")
    if not (len(code) == 3 and code.isascii() and code.isdigit() and "1" <= code[0] <= "6"):
        raise ParseError("Invalid Status Code")
    return Response(int(code), reason, headers)


def _read_body(headers: Headers, data: bytes, start: int, is_stream: bool) -> bytes:
    length_text = headers.get("content-length")
    if length_text is None:
        if is_stream:
            raise ParseError("Missing Content-Length")
        return data[start:]
    if length_text == "0":
        return b""
    length = parse_number(length_text, 2**31, "Content-Length")
    if length > len(data) - start:
        raise ParseError("Content-Length Too Large")
    return data[start : start + length]


# Lists of addresses whose values are looked at in every message that has them.
_ADDRESS_LISTS: Final = ("route", "record-route", "path")


def _check(message: Message) -> None:
    """
    Whether all mandatory fields are there and all that routing and matching rely on can be read.

    @raise ParseError: the first that cannot.
    @see: RFC 3261 §8.1.1, §16.3 step 1
    """
    headers = message.headers
    message.check()
    first = headers.first
    if "contact" in first:
        for contact in message.contacts:
            if "expires" in contact.params:  # without a value it is none (§20.10: delta-seconds)
                parse_number(contact.params["expires"] or "", MAX_DELTA_SECONDS, "Expires")
    if isinstance(message, Request):
        if message.cseq.method != message.method:
            raise ParseError("CSeq Method Mismatch")
        uri = message.uri
        if isinstance(uri, SipURI) and uri.headers is not None:
            raise ParseError("Headers In Request-URI")  # §19.1.1, table 1; RFC 4475 §3.1.2.11
    if first.get("max-forwards", "70") != "70":  # which is what nearly all say
        parse_number(first["max-forwards"], 255, "Max-Forwards")
    if "expires" in first:
        parse_number(first["expires"], MAX_DELTA_SECONDS, "Expires")
    for key in _ADDRESS_LISTS:
        if key in first:
            message.addresses(key)
