"""
Requests and responses (RFC 3261 §7). What a header says is parsed when somebody asks, and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Final

from sipdmq.errors import ParseError
from sipdmq.sip.fields import (
    CSeq,
    NameAddr,
    Via,
    parse_cseq,
    parse_name_addr,
    parse_route,
    parse_tokens,
    parse_top_via,
    parse_via,
    parse_vias,
)
from sipdmq.sip.grammar import CALLID, MAX_DELTA_SECONDS, parse_number, split_commas
from sipdmq.sip.headers import Headers
from sipdmq.sip.status import reason_phrase
from sipdmq.sip.uri import URI, parse_request_uri

__all__ = ["Message", "Request", "Response", "response_to"]


class Message:
    """
    What requests and responses have in common.

    @ivar body: as received.
    @ivar size: the bytes of the whole message as it was received; 0 for one of our own.
    """

    __slots__ = ("_call_id", "_contacts", "_cseq", "_from", "_to", "_top_via", "body", "headers", "size")

    def __init__(self, headers: Headers, body: bytes = b"") -> None:
        self.headers = headers
        self.body = body
        self.size = 0
        self._top_via: Via | None = None
        self._from: NameAddr | None = None
        self._to: NameAddr | None = None
        self._cseq: CSeq | None = None
        self._contacts: list[NameAddr] | None = None
        self._call_id: str | None = None

    def check(self) -> None:
        """
        Read all that every message must have, and keep it.

        @raise ParseError: something is missing or breaks the grammar.
        @see: RFC 3261 §8.1.1
        """
        headers = self.headers
        get = headers.first.get
        via, from_, to, call_id, cseq = get("via"), get("from"), get("to"), get("call-id"), get("cseq")
        if via is None or from_ is None or to is None or call_id is None or cseq is None:
            names = ("Via", "From", "To", "Call-ID", "CSeq")
            missing = [name for name, value in zip(names, (via, from_, to, call_id, cseq)) if value is None]
            raise ParseError(f"Missing {missing[0]}")
        if "," in via or headers.is_repeated("via"):
            self._top_via = parse_top_via(headers.get_all("via"))
        else:
            self._top_via = parse_via(via)
        if cseq[-8:] == "REGISTER":  # its From comes once, and To names the same
            self._from = parse_name_addr(from_)
            self._to = parse_name_addr(to, self._from.uri)
        else:  # they come again in all messages of the call
            self._from = parse_route(from_)
            self._to = parse_route(to)
        if not CALLID.fullmatch(call_id):
            raise ParseError("Invalid Call-ID")
        self._call_id = call_id
        self._cseq = parse_cseq(cseq)

    @property
    def start_line(self) -> str:
        """
        The first line, without CRLF.
        """
        raise AttributeError("neither request nor response")

    def _required(self, key: str, name: str) -> str:
        value = self.headers.get(key)
        if value is None:
            raise ParseError(f"Missing {name}")
        return value

    @property
    def top_via(self) -> Via:
        """
        @raise ParseError: none, or not one; so for the other properties.
        """
        via = self._top_via
        if via is None:
            value = self._required("via", "Via")
            via = self._top_via = parse_via(split_commas(value)[0] if "," in value else value)
        return via

    @property
    def vias(self) -> list[Via]:
        """
        All Via values, top first.
        """
        return parse_vias(self.headers.get_all("via"))

    @property
    def from_(self) -> NameAddr:
        """
        The From.
        """
        value = self._from
        if value is None:
            value = self._from = parse_name_addr(self._required("from", "From"))
        return value

    @property
    def to(self) -> NameAddr:
        """
        The To.
        """
        value = self._to
        if value is None:
            value = self._to = parse_name_addr(self._required("to", "To"))
        return value

    @property
    def cseq(self) -> CSeq:
        """
        The CSeq.
        """
        value = self._cseq
        if value is None:
            value = self._cseq = parse_cseq(self._required("cseq", "CSeq"))
        return value

    @property
    def call_id(self) -> str:
        """
        The Call-ID; compared byte for byte (§20.8).
        """
        value = self._call_id
        if value is None:
            value = self._required("call-id", "Call-ID")
            if not CALLID.fullmatch(value):
                raise ParseError("Invalid Call-ID")
            self._call_id = value
        return value

    @property
    def has_wildcard_contact(self) -> bool:
        """
        Whether Contact is C{*} and nothing else.
        """
        return self.headers.first.get("contact") == "*" and not self.headers.is_repeated("contact")

    @property
    def contacts(self) -> list[NameAddr]:
        """
        All Contact values in order; none for C{*}.
        """
        contacts = self._contacts
        if contacts is None:
            value = self.headers.first.get("contact")
            if value is None or self.has_wildcard_contact:
                contacts = []
            elif "," not in value and not self.headers.is_repeated("contact"):
                # That of a call comes again in its messages and in the next call, that of a REGISTER in an hour.
                is_register = self.headers.first.get("cseq", "")[-8:] == "REGISTER"
                contacts = [parse_name_addr(value) if is_register else parse_route(value)]
            else:
                contacts = self.addresses("contact")
            self._contacts = contacts
        return contacts

    @property
    def expires(self) -> int | None:
        """
        Seconds in Expires, C{None} when there is none.
        """
        value = self.headers.first.get("expires")
        return None if value is None else parse_number(value, MAX_DELTA_SECONDS, "Expires")

    def addresses(self, key: str) -> list[NameAddr]:
        """
        All values of Route, Record-Route, Path or another list of addresses.

        @param key: lower case.
        """
        return [
            parse_route(part) for value in self.headers.get_all(key) for part in split_commas(value)
        ]

    def tokens(self, key: str) -> list[str]:
        """
        All values of Require, Supported, Allow or another list of tokens.

        @param key: lower case.
        """
        return parse_tokens(self.headers.get_all(key))

    def stamp_top_via(self, via: Via, text: str) -> None:
        """
        Replace the top Via value, leave the others: what RFC 3261 §18.2.1 has the server transport do.

        @param text: C{via} as it shall be written.
        """
        value = self._required("via", "Via")
        if "," in value:
            text = ", ".join([text, *split_commas(value)[1:]])
        self.headers.replace_first("Via", text)
        self._top_via = via


    def remove_top_via(self) -> bool:
        """
        Take the top Via value away, leave the others: what a proxy does with a response (RFC 3261 §16.7 step 3).

        @return: whether there is another one.
        """
        headers = self.headers
        value = self._required("via", "Via")
        self._top_via = None
        if "," in value:
            rest = split_commas(value)[1:]
            if rest:
                headers.replace_first("Via", ", ".join(rest))
                return True
        headers.remove_first("via")
        return "via" in headers.first


class Request(Message):
    """
    A request.

    @ivar method: as received; methods are case-sensitive (§7.1).
    @ivar uri_text: the Request-URI as received.
    """

    __slots__ = ("_uri", "method", "uri_text")

    def __init__(self, method: str, uri_text: str, headers: Headers, body: bytes = b"") -> None:
        Message.__init__(self, headers, body)
        self.method = method
        self.uri_text = uri_text
        self._uri: URI | None = None

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri_text!r}>"

    @property
    def start_line(self) -> str:
        return f"{self.method} {self.uri_text} SIP/2.0"

    @property
    def uri(self) -> URI:
        """
        The Request-URI.
        """
        uri = self._uri
        if uri is None:
            uri = self._uri = parse_request_uri(self.uri_text)
        return uri

    @property
    def max_forwards(self) -> int | None:
        """
        0 to 255 (§20.22), C{None} when there is none.
        """
        value = self.headers.first.get("max-forwards")
        return None if value is None else parse_number(value, 255, "Max-Forwards")

    def copy(self) -> Request:
        """
        A copy whose headers may be changed; for forwarding.
        """
        return Request(self.method, self.uri_text, self.headers.copy(), self.body)


class Response(Message):
    """
    A response.

    @ivar status: 100 to 699.
    @ivar reason: the reason phrase, perhaps empty.
    """

    __slots__ = ("reason", "status")

    def __init__(self, status: int, reason: str, headers: Headers, body: bytes = b"") -> None:
        super().__init__(headers, body)
        self.status = status
        self.reason = reason

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.reason!r}>"

    @property
    def start_line(self) -> str:
        return f"SIP/2.0 {self.status} {self.reason}"

    def copy(self) -> Response:
        """
        A copy whose headers may be changed; for forwarding.
        """
        return Response(self.status, self.reason, self.headers.copy(), self.body)


def response_to(
    request: Request,
    status: int,
    to_tag: str = "",
    headers: Sequence[tuple[str, str]] = (),
    reason: str = "",
    body: bytes = b"",
) -> Response:
    """
    A response to a request: Via, From, Call-ID and CSeq with the values that came, To with a tag.

    @param to_tag: added to a To that has none; empty for none (100 Trying). A To that cannot be read stays as it is.
    @param headers: C{(name, value)} pairs to add, names in their long form.
    @param reason: the reason phrase, or empty for the usual one.
    @param body: its Content-Type is the caller's to add.
    @see: RFC 3261 §8.2.6
    """
    try:
        via, from_, to, call_id, cseq = _copied(request.headers.first)
    except KeyError:  # a request that the parser refused
        keys, lines, values = _copied_if_there(request, to_tag)
    else:
        if to_tag and _lacks_tag(request):
            to = f"{to};tag={to_tag}"
        values = {"via": via, "from": from_, "to": to, "call-id": call_id, "cseq": cseq}
        keys = [*values]
        lines = [f"Via: {via}", f"From: {from_}", f"To: {to}", f"Call-ID: {call_id}", f"CSeq: {cseq}"]
        if request.headers.is_repeated("via"):
            vias = request.headers.get_all("via")
            keys[:1] = ["via"] * len(vias)
            lines[:1] = [f"Via: {via}" for via in vias]
    if status == 100 and "timestamp" in request.headers:  # §8.2.6.1
        headers = [*headers, ("Timestamp", request.headers.first["timestamp"])]
    for name, value in headers:
        if "\r" in value or "\n" in value:
            raise ValueError(f"line break in the value of {name}")
        key = name.lower()
        keys.append(key)
        lines.append(f"{name}: {value}")
        values.setdefault(key, value)
    values["content-length"] = length = str(len(body)) if body else "0"
    keys.append("content-length")
    lines.append(f"Content-Length: {length}")
    return Response(status, reason or reason_phrase(status), Headers(keys, lines, values), body)


_COPIED: Final = {"via": "Via", "from": "From", "to": "To", "call-id": "Call-ID", "cseq": "CSeq"}
_copied: Final = itemgetter(*_COPIED)


def _copied_if_there(request: Request, to_tag: str) -> tuple[list[str], list[str], dict[str, str]]:
    keys = []
    lines = []
    values: dict[str, str] = {}
    for key, name in _COPIED.items():
        for value in request.headers.get_all(key):
            if key == "to" and to_tag and _lacks_tag(request):
                value = f"{value};tag={to_tag}"
            keys.append(key)
            lines.append(f"{name}: {value}")
            values.setdefault(key, value)
    return keys, lines, values


def _lacks_tag(request: Request) -> bool:
    try:
        return "tag" not in request.to.params
    except ParseError:
        return False
