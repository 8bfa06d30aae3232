"""
Header field values as typed values. Each C{parse_x} takes one value, unfolded, and raises L{ParseError} for what
breaks the grammar of RFC 3261 §25.1.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from sipdmq.errors import ParseError
from sipdmq.sip.grammar import (
    MAX_CSEQ,
    QUOTED_STRING,
    TOKEN,
    TOKEN_CHARS,
    WHITE,
    parse_number,
    split_commas,
)
from sipdmq.sip.params import Params, parse_params, unquote
from sipdmq.sip.uri import URI, SipURI, format_host, parse_host_port, parse_uri, parse_uri_params

__all__ = [
    "CSeq",
    "NameAddr",
    "Via",
    "parse_cseq",
    "parse_name_addr",
    "parse_q",
    "parse_route",
    "parse_tokens",
    "parse_top_via",
    "parse_via",
    "parse_vias",
    "q_text",
]

MAGIC_COOKIE: Final = "z9hG4bK"
"""RFC 3261 §8.1.1.7: a branch that begins so is unique."""

# display-name = *(token LWS)/ quoted-string
_DISPLAY_TOKENS: Final = re.compile(rf"[{TOKEN_CHARS}]+(?:[ \t]+[{TOKEN_CHARS}]+)*")
# sent-protocol = protocol-name SLASH protocol-version SLASH transport, SLASH = SWS "/" SWS
_SENT_PROTOCOL: Final = re.compile(rf"[sS][iI][pP][ \t]*/[ \t]*2\.0[ \t]*/[ \t]*([{TOKEN_CHARS}]+)[ \t]+")
# What nearly every Via, From, To and Contact looks like: one match for all of it, at a third of the price of taking it
# apart. What does not match goes the way of the whole grammar; so does "received" with an IPv6 address.
_HOST_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9\-]*(?:\.[A-Za-z0-9\-]+)*"
_USUAL_VIA: Final = re.compile(
    rf"SIP/2\.0/(UDP|TCP|TLS) ({_HOST_NAME})(?::([1-5]?[0-9]{{1,4}}))?"
    rf"((?:;(?:(?!(?i:received))[{TOKEN_CHARS}]+(?:=[{TOKEN_CHARS}]+)?"
    r"|received=[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![^;])))*)"
)
_USUAL_PARAM: Final = re.compile(r";([^;=]+)=?([^;]*)")
_USUAL_ADDRESS: Final = re.compile(
    rf'(?:"([^"\\]*)" |([{TOKEN_CHARS}]+) )?'
    rf"<((sips?):(?:([A-Za-z0-9\-_.!~*'()&=+$,;?/]+)@)?({_HOST_NAME})(?::([1-5]?[0-9]{{1,4}}))?"
    r"((?:;[A-Za-z0-9\-_.!~*']+(?:=[A-Za-z0-9\-_.!~*':]+)?)*))>"
    rf"(?:;tag=([{TOKEN_CHARS}]+))?"
)
_NO_PARAMS: Final[Params] = {}
# qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )
_QVALUE: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
# via-received = "received" EQUAL (IPv4address / IPv6address), brackets tolerated (RFC 5118 §4.5)
_NUMERIC_HOST: Final = re.compile(
    r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*|\[[0-9A-Fa-f:.]+\]"
)


class Via(NamedTuple):
    """
    One value of Via (RFC 3261 §20.42).

    @ivar transport: in upper case, C{"UDP"}; any token.
    @ivar host: lower case, IPv6 without brackets.
    @ivar port: C{None} when there is none.
    """

    transport: str
    host: str
    port: int | None
    params: Params

    @property
    def branch(self) -> str:
        """
        The branch, empty when there is none.
        """
        return self.params.get("branch") or ""

    @property
    def is_unique(self) -> bool:
        """
        Whether the branch identifies the transaction: it begins with the magic cookie and goes on behind it
        (RFC 3261 §17.2.3; RFC 4475 §3.2.1 for the cookie alone).
        """
        branch = self.params.get("branch")
        return branch is not None and len(branch) > 7 and branch[:7].lower() == "z9hg4bk"

    @property
    def sent_by(self) -> str:
        """
        C{host[:port]} in one spelling.
        """
        host = format_host(self.host)
        return host if self.port is None else f"{host}:{self.port}"


def parse_via(value: str) -> Via:
    """
    Read one Via value.

    @raise ParseError: wrong protocol or version, no host, bad parameters.
    """
    usual = _USUAL_VIA.fullmatch(value)
    if usual is not None:
        transport, host, port, params = usual.groups()
        read = {name.lower(): token or None for name, token in _USUAL_PARAM.findall(params)}
        if len(read) == params.count(";") and read.get("branch", "z") is not None:
            rport = read.get("rport")
            if rport:
                parse_number(rport, 65535, "Via Rport")
            return Via(transport, host.lower(), int(port) if port else None, read)
    return _read_via(value)


def _read_via(value: str) -> Via:
    """
    As L{parse_via}, in any spelling.
    """
    match = _SENT_PROTOCOL.match(value)
    if match is None:
        raise ParseError("Invalid Via")
    sent_by, semicolon, params = value[match.end() :].partition(";")
    host, port = parse_host_port(sent_by.strip(WHITE))
    read = parse_params(";" + params) if semicolon else _NO_PARAMS
    if "received" in read and not _NUMERIC_HOST.fullmatch(read["received"] or ""):
        raise ParseError("Invalid Via Received")
    if "branch" in read and not TOKEN.fullmatch(read["branch"] or ""):
        raise ParseError("Invalid Branch")
    rport = read.get("rport")
    if rport:
        parse_number(rport, 65535, "Via Rport")
    return Via(match.group(1).upper(), host, port, read)


def parse_vias(values: list[str]) -> list[Via]:
    """
    All values of several Via lines, top first.
    """
    vias: list[Via] = []
    for value in values:
        if "," in value:
            vias.extend(parse_via(part) for part in split_commas(value))
        else:
            vias.append(parse_via(value))
    return vias


def parse_top_via(values: list[str]) -> Via:
    """
    The top one of several Via lines. The others are looked at, but not taken apart: nobody asks what they say.

    @raise ParseError: one of them is no Via.
    """
    if any("," in value for value in values):
        return parse_vias(values)[0]
    for value in values[1:]:
        if _USUAL_VIA.fullmatch(value) is None:
            parse_via(value)
    return parse_via(values[0])


class NameAddr(NamedTuple):
    """
    A value that is C{name-addr} or C{addr-spec} with parameters: From, To, Contact, Route, Path ...

    @ivar display: the display name, unquoted; empty when there is none.
    @ivar uri: parsed.
    @ivar params: of the header field, not of the URI.
    """

    display: str
    uri: URI
    params: Params

    @property
    def tag(self) -> str:
        """
        The tag, empty when there is none.
        """
        return self.params.get("tag") or ""


def parse_name_addr(value: str, known: URI | None = None) -> NameAddr:
    """
    Read C{( name-addr / addr-spec ) *( SEMI generic-param )}.

    Without C{<>} all parameters belong to the header field, and a URI with a question mark or comma is refused
    (RFC 3261 §20).

    @param known: a URI that is likely to stand here again, as From's in the To of a REGISTER; it is not parsed twice.
    @raise ParseError: an open quote or bracket, a display name that must be quoted, a bad URI, bad parameters.
    """
    usual = _USUAL_ADDRESS.fullmatch(value)
    if usual is not None:
        quoted, token, text, scheme, user, host, port, uri_params, tag = usual.groups()
        if known is None or known.text != text:
            read = parse_uri_params(uri_params)
            known = SipURI(text, scheme, user or "", None, host.lower(), int(port) if port else None, read, None)
        return NameAddr(quoted or token or "", known, {"tag": tag} if tag else _NO_PARAMS)
    if value[:1] == "<":
        display = ""
        text, bracket, rest = value[1:].partition(">")
        if not bracket:
            raise ParseError("Unterminated Angle Bracket")
    else:
        display, text, rest = _take_apart(value)
    uri = known if known is not None and known.text == text else parse_uri(text)
    if not rest:
        return NameAddr(display, uri, _NO_PARAMS)
    if rest[0] != ";":
        rest = rest.lstrip(WHITE)
        if rest[:1] != ";":
            raise ParseError("Invalid Name Address")
    params = parse_params(rest)
    if "tag" in params and not TOKEN.fullmatch(params["tag"] or ""):
        raise ParseError("Invalid Tag")
    return NameAddr(display, uri, params)


def parse_route(value: str) -> NameAddr:
    """
    As L{parse_name_addr}, for From, To, Route, Record-Route and Path: each value comes again in all messages of its
    dialog, so the latest are kept.
    """
    return _parse_kept(value) if len(value) <= _KEPT_LENGTH else parse_name_addr(value)


_KEPT_LENGTH: Final = 160  # characters; longer ones are rare, and a stranger could fill the memory with them
_parse_kept = lru_cache(maxsize=1024)(parse_name_addr)


def _take_apart(value: str) -> tuple[str, str, str]:
    """
    Display name, URI and parameters of a value that does not begin with C{<}.
    """
    if value[:1] == '"':
        quoted = QUOTED_STRING.match(value)
        if quoted is None:
            raise ParseError("Unterminated Quoted String")
        display = unquote(quoted.group())
        tail = value[quoted.end() :].lstrip(WHITE)
        if tail[:1] != "<":
            raise ParseError("Invalid Name Address")
        tail = tail[1:]
    else:
        name, bracket, tail = value.partition("<")
        if not bracket or ";" in name:
            text, semicolon, params = value.partition(";")
            text = text.rstrip(WHITE)
            if "?" in text or "," in text:
                raise ParseError("URI Needs Angle Brackets")
            return "", text, semicolon + params
        display = name.rstrip(WHITE)
        if not _DISPLAY_TOKENS.fullmatch(display):
            raise ParseError("Invalid Display Name")
    text, bracket, rest = tail.partition(">")
    if not bracket:
        raise ParseError("Unterminated Angle Bracket")
    return display, text, rest


class CSeq(NamedTuple):
    """
    A CSeq (RFC 3261 §20.16).

    @ivar number: 0 to 2**31 - 1.
    @ivar method: as received; methods are case-sensitive.
    """

    number: int
    method: str


def parse_cseq(value: str) -> CSeq:
    """
    Read C{1*DIGIT LWS Method}.

    @raise ParseError: no number, no method, or a number of 2**31 and more (§8.1.1.5).
    """
    return _read_cseq_kept(value) if len(value) <= _KEPT_CSEQ_LENGTH else _read_cseq(value)


_KEPT_CSEQ_LENGTH: Final = 40  # characters; as above


def _read_cseq(value: str) -> CSeq:
    number, _, method = value.partition(" ")
    if not TOKEN.fullmatch(method):
        number, _, method = value.replace("\t", " ").partition(" ")
        method = method.lstrip(" ")
        if not TOKEN.fullmatch(method):
            raise ParseError("Invalid CSeq")
    return CSeq(parse_number(number, MAX_CSEQ, "CSeq"), method)


_read_cseq_kept = lru_cache(maxsize=1024)(_read_cseq)


def parse_tokens(values: list[str]) -> list[str]:
    """
    Option tags, methods and other comma-separated tokens of all lines of a header field.

    @raise ParseError: one is no token.
    """
    tokens = []
    for value in values:
        if not value:
            continue  # Supported may be empty (§20.37)
        for token in split_commas(value):
            if not TOKEN.fullmatch(token):
                raise ParseError("Invalid Token")
            tokens.append(token)
    return tokens


def parse_q(text: str | None) -> int:
    """
    Read a C{qvalue}.

    @return: 0 to 1000 (q × 1000), -1 for C{None}.
    @raise ParseError: it is none.
    """
    if text is None:
        return -1
    if not _QVALUE.fullmatch(text):
        raise ParseError("Invalid Q Value")
    whole, _, fraction = text.partition(".")
    return int(whole) * 1000 + int((fraction + "000")[:3])


def q_text(q: int) -> str:
    """
    The inverse of L{parse_q}: C{"1"}, C{"0.5"}; C{q} is not -1.
    """
    return "1" if q >= 1000 else f"0.{q:03d}".rstrip("0").rstrip(".")
