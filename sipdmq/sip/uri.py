"""
URIs: SIP and SIPS taken apart and compared (RFC 3261 §19.1), all others carried (RFC 3986, RFC 3966).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from sipdmq.errors import ParseError
from sipdmq.sip.grammar import HOST

__all__ = [
    "DEFAULT_PORT",
    "URI",
    "OtherURI",
    "SipURI",
    "canonical_escapes",
    "format_host",
    "is_plain_uri",
    "normalize_host",
    "parse_host_port",
    "parse_request_uri",
    "parse_sip_uri",
    "parse_uri",
    "parse_uri_params",
    "same_uri",
    "with_scheme",
]

DEFAULT_PORT: Final = 5060
"""What no port means for UDP and TCP (RFC 3261 §19.1.2)."""

# SIP-URI          = "sip:" [ userinfo ] hostport uri-parameters [ headers ]
# userinfo         = ( user / telephone-subscriber ) [ ":" password ] "@"
# user-unreserved  = "&" / "=" / "+" / "$" / "," / ";" / "?" / "/"
# param-unreserved = "[" / "]" / "/" / ":" / "&" / "+" / "$"
# ("#" is not in the rule, but phones send the dialled "*21#" as it is)
# hnv-unreserved   = "[" / "]" / "/" / "?" / ":" / "+" / "$"
_SIP_URI: Final = re.compile(
    r"([sS][iI][pP][sS]?):"
    r"(?:([A-Za-z0-9\-_.!~*'()%&=+$,;?/#]+)(?::([A-Za-z0-9\-_.!~*'()%&=+$,]*))?@)?"
    rf"({HOST.pattern})"
    r"(?::(0*[0-9]{1,5}))?"
    r"((?:;[A-Za-z0-9\-_.!~*'()%\[\]/:&+$]+(?:=[A-Za-z0-9\-_.!~*'()%\[\]/:&+$]*)?)*)"
    r"(\?[A-Za-z0-9\-_.!~*'()%\[\]/?:+$=&;,@]+)?"
)
# What nearly all phones register: an IPv4 address, and at most the transport and one parameter more.
_PLAIN_URI: Final = re.compile(
    r"sip:(?:[A-Za-z0-9\-_.+]+@)?[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
    r"(?::(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}))?"
    r"(?:;transport=[A-Za-z]+)?(?:;(?!transport)[a-z\-]+(?:=[A-Za-z0-9\-_.]+)?)?"
)
# absoluteURI = scheme ":" ( hier-part / opaque-part ); the right-hand side is checked for what would break out of <>
_OTHER_URI: Final = re.compile(r"([A-Za-z][A-Za-z0-9+\-.]*):([^\x00-\x20<>\"\x7f]+)")
# escaped = "%" HEXDIG HEXDIG
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!~*'()")
_HOST_PORT: Final = re.compile(
    rf"({HOST.pattern})"
    r"[ \t]*(?::[ \t]*(0*[0-9]{1,5}))?"
)

# §19.1.4: a parameter of these in one URI only makes the two different; others in one only do not count.
# transport is not in the sentence, but in its examples.
_NEVER_IGNORED: Final = ("user", "ttl", "method", "maddr", "transport")


def _unescape_unreserved(match: re.Match[str]) -> str:
    character = chr(int(match.group(1), 16))
    return character if character in _UNRESERVED else match.group().upper()


def canonical_escapes(text: str) -> str:
    """
    One spelling for all that §19.1.4 holds equal: what needs no escape is written without, other escapes in upper
    case. C{%40} stays, because an escaped reserved character is not the same as a plain one; so does C{%00}.
    """
    return _ESCAPE.sub(_unescape_unreserved, text) if "%" in text else text


def normalize_host(host: str) -> str:
    """
    A host as we compare it: lower case, an IPv6 reference without brackets and in its shortest form.

    @param host: matched by C{host} of RFC 3261 §25.1.
    @raise ParseError: brackets around something else than an IPv6 address.
    """
    if host[0] != "[":
        return host.lower()
    try:
        # Three colons before an embedded IPv4 address: the ABNF of RFC 3261 allowed them (RFC 5118 §4.10). Written as
        # the system writes the source of a packet, with which it is compared; ipaddress differs between Pythons.
        packed = socket.inet_pton(socket.AF_INET6, host[1:-1].replace(":::", "::"))
        return socket.inet_ntop(socket.AF_INET6, packed)
    except OSError:
        raise ParseError("Invalid IPv6 Reference") from None


def format_host(host: str) -> str:
    """
    The inverse of L{normalize_host}: brackets around an IPv6 address.
    """
    return f"[{host}]" if ":" in host else host


def _parse_port(port: str) -> int:
    number = int(port[-5:])
    if number > 65535:
        raise ParseError("Port Out Of Range")
    return number


def parse_host_port(text: str) -> tuple[str, int | None]:
    """
    Read C{hostport}, white space around the colon allowed as in C{sent-by}.

    @return: the host as L{normalize_host} gives it, and the port or C{None}.
    @raise ParseError: it is none.
    """
    return _read_host_port_kept(text) if len(text) <= _KEPT_LENGTH else _read_host_port(text)


def _read_host_port(text: str) -> tuple[str, int | None]:
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise ParseError("Invalid Host")
    host, port = match.groups()
    return normalize_host(host), None if port is None else _parse_port(port)


_read_host_port_kept = lru_cache(maxsize=1024)(_read_host_port)


class SipURI:
    """
    A C{sip:} or C{sips:} URI.

    @ivar text: as received, the whole of it.
    @ivar scheme: C{"sip"} or C{"sips"}.
    @ivar user: escapes as received; empty when there is none.
    @ivar password: C{None} when there is none.
    @ivar host: L{normalize_host}'s.
    @ivar port: C{None} when there is none.
    @ivar params: lower-case names to raw values, empty for a name alone.
    @ivar headers: the part behind C{?}, without it; C{None} when there is none.
    """

    __slots__ = ("headers", "host", "params", "password", "port", "scheme", "text", "user")

    def __init__(
        self,
        text: str,
        scheme: str,
        user: str,
        password: str | None,
        host: str,
        port: int | None,
        params: Mapping[str, str],
        headers: str | None,
    ) -> None:
        self.text = text
        self.scheme = scheme
        self.user = user
        self.password = password
        self.host = host
        self.port = port
        self.params = params
        self.headers = headers

    def __repr__(self) -> str:
        return f"<SipURI {self.text!r}>"

    def __str__(self) -> str:
        return self.text

    def param(self, name: str) -> str | None:
        """
        @param name: in lower case.
        @return: the raw value, empty for a name alone; C{None} when it is not there.
        """
        return self.params.get(name)

    @property
    def canonical_user(self) -> str:
        """
        The user as it is compared and stored (L{canonical_escapes}).
        """
        return canonical_escapes(self.user)


class OtherURI:
    """
    A URI of another scheme: C{tel:}, C{urn:}, C{im:} ... We carry it and understand nothing of it.

    @ivar scheme: in lower case.
    """

    __slots__ = ("scheme", "text")

    def __init__(self, text: str, scheme: str) -> None:
        self.text = text
        self.scheme = scheme

    def __repr__(self) -> str:
        return f"<OtherURI {self.text!r}>"

    def __str__(self) -> str:
        return self.text


URI = SipURI | OtherURI
_KEPT_LENGTH: Final = 100  # characters; longer ones are rare, and a stranger could fill the memory with them
_NO_PARAMS: Final[Mapping[str, str]] = {}
_KEPT_PARAMS_LENGTH: Final = 32


def parse_uri_params(text: str) -> Mapping[str, str]:
    """
    Read C{uri-parameters}. The few that phones send, as C{;transport=udp}, are kept: they are not to be changed.

    @param text: empty, or beginning with a semicolon; its characters are checked already.
    @raise ParseError: a name that stands there twice.
    """
    if not text:
        return _NO_PARAMS
    return _read_uri_params_kept(text) if len(text) <= _KEPT_PARAMS_LENGTH else _read_uri_params(text)


def _read_uri_params(text: str) -> Mapping[str, str]:
    params: dict[str, str] = {}
    for piece in text[1:].split(";"):
        name, _, value = piece.partition("=")
        name = canonical_escapes(name).lower()
        if name in params:
            raise ParseError("URI Parameter Given Twice")
        params[name] = value
    return params


_read_uri_params_kept = lru_cache(maxsize=256)(_read_uri_params)


def parse_uri(text: str) -> URI:
    """
    Read any URI.

    @param text: without C{<>} and without white space around it.
    @raise ParseError: it is none, or a SIP URI that breaks the grammar.
    @see: RFC 3261 §25.1 C{SIP-URI}, C{absoluteURI}
    """
    match = _SIP_URI.fullmatch(text)
    if match is None:
        other = _OTHER_URI.fullmatch(text)
        if other is None:
            raise ParseError("Invalid URI")
        scheme = other.group(1).lower()
        if scheme in ("sip", "sips"):
            raise ParseError("Invalid SIP URI")
        return OtherURI(text, scheme)
    scheme, user, password, host, port, params, headers = match.groups()
    if "%" in text and _BAD_ESCAPE.search(text):
        raise ParseError("Invalid Escape In URI")
    return SipURI(
        text,
        scheme.lower(),
        user or "",
        password,
        normalize_host(host),
        None if port is None else _parse_port(port),
        parse_uri_params(params),
        None if headers is None else headers[1:],
    )


_parse_uri_kept = lru_cache(maxsize=1024)(parse_uri)


def parse_request_uri(text: str) -> URI:
    """
    As L{parse_uri}: all phones of a domain send the same one, so the latest are kept and given again. They are not to
    be changed.
    """
    return _parse_uri_kept(text) if len(text) <= _KEPT_LENGTH else parse_uri(text)


def is_plain_uri(text: str) -> bool:
    """
    Whether a text is a SIP URI, seen at a glance: L{parse_sip_uri} takes what this takes, and much besides.
    """
    return _PLAIN_URI.fullmatch(text) is not None


def parse_sip_uri(text: str) -> SipURI:
    """
    Read a SIP or SIPS URI.

    @raise ParseError: it is none; status 416 for another scheme.
    """
    uri = parse_uri(text)
    if isinstance(uri, OtherURI):
        raise ParseError("Unsupported URI Scheme", 416)
    return uri


def _header_set(headers: str) -> list[tuple[str, str]]:
    pairs = []
    for piece in headers.split("&"):
        name, _, value = piece.partition("=")
        pairs.append((canonical_escapes(name).lower(), canonical_escapes(value)))
    return sorted(pairs)


def same_uri(one: URI, other: URI) -> bool:
    """
    Whether two URIs are equivalent. Not transitive, as the RFC defines it: C{<sip:a@b>} equals C{<sip:a@b;x=1>} and
    C{<sip:a@b;x=2>}, which differ.

    @see: RFC 3261 §19.1.4
    """
    if one.text == other.text:
        return True
    if isinstance(one, OtherURI) or isinstance(other, OtherURI):
        return one.scheme == other.scheme and one.text.partition(":")[2] == other.text.partition(":")[2]
    if one.scheme != other.scheme or one.host != other.host or one.port != other.port:
        return False
    if one.canonical_user != other.canonical_user:
        return False
    if (one.password is None) != (other.password is None):
        return False
    if canonical_escapes(one.password or "") != canonical_escapes(other.password or ""):
        return False
    for name in _NEVER_IGNORED:
        if (name in one.params) != (name in other.params):
            return False
    for name, value in one.params.items():
        theirs = other.params.get(name)
        if theirs is not None and canonical_escapes(value).lower() != canonical_escapes(theirs).lower():
            return False
    if one.headers is None or other.headers is None:
        return one.headers is other.headers
    return _header_set(one.headers) == _header_set(other.headers)


def with_scheme(uri: SipURI, scheme: str) -> SipURI:
    """
    The same URI with another scheme.

    @param scheme: C{"sip"} or C{"sips"}
    """
    if uri.scheme == scheme:
        return uri
    text = scheme + uri.text[len(uri.scheme) :]
    return SipURI(text, scheme, uri.user, uri.password, uri.host, uri.port, uri.params, uri.headers)
