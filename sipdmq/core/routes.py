"""
Route information preprocessing (RFC 3261 §16.4), and the cookies by which our Record-Route URIs vouch for a dialog.
Pure.

A Record-Route URI of ours is C{<sip:HOST:PORT;transport=tcp;lr;c=COOKIE>}. The cookie says two things, without any
state here: that this dialog (Call-ID, From tag of the request that began it) was let through by us, and, where a side
cannot be reached by its Contact alone, by which connection or address it can (RFC 5626 §5.1, RFC 5658). Any node with
the same key reads it.

It is ten bytes of keyed hash over both, then the second, encrypted with a key stream made from the hash: so an address
behind a NAT is not told to the other side, and nothing in it can be changed, or moved to another dialog.
"""

from __future__ import annotations

import hashlib
import re
import socket
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from hmac import compare_digest
from typing import Final, NamedTuple

from sipdmq.errors import ParseError
from sipdmq.sip.fields import parse_route
from sipdmq.sip.grammar import split_commas
from sipdmq.sip.message import Request
from sipdmq.sip.uri import DEFAULT_PORT, URI, SipURI, normalize_host, parse_uri

__all__ = [
    "DIALOG_METHODS",
    "FlowOf",
    "Opened",
    "RouteCookies",
    "RouteVerdict",
    "Side",
    "contact_mark",
    "preprocess",
    "record_route_uri",
]

DIALOG_METHODS: Final = frozenset(("INVITE", "SUBSCRIBE", "REFER", "NOTIFY"))
"""The methods that begin a dialog (RFC 3261 §12.1; RFC 6665 §4.3: NOTIFY, too; RFC 3515)."""

_PARAM: Final = "c"
_MAC_BYTES: Final = 10
_MAX_PLAIN: Final = 64  # bytes: the longest key stream of one hash
_COOKIE: Final = re.compile(r"[A-Za-z0-9_\-]{14,100}")
_NOTHING, _FLOW, _NAMED_FLOW, _IPV4, _IPV6 = range(5)


class Side(NamedTuple):
    """
    How one side of a dialog is reached, other than by its Contact.

    @ivar flow: the token of its connection; empty for an address.
    @ivar host: numeric, of UDP; empty for a connection.
    @ivar mark: L{contact_mark} of the Contact that C{host} and C{port} stand for: they do not for another one, which
        the side may name later.
    """

    flow: str = ""
    host: str = ""
    port: int = 0
    mark: int = 0


class Opened(NamedTuple):
    """
    What a right cookie says.

    @ivar is_from_caller: the request goes the way that the dialog's first request went.
    @ivar caller: how the side that began the dialog is reached; L{None}: by its Contact.
    """

    is_from_caller: bool
    caller: Side | None
    callee: Side | None

    @property
    def ahead(self) -> Side | None:
        """
        The side that the request is for.
        """
        return self.callee if self.is_from_caller else self.caller


class RouteVerdict(NamedTuple):
    """
    What preprocessing made of a request.

    @ivar request: to be routed further: the one that was given, or a changed copy.
    @ivar is_in_dialog: it has a To tag, and a Route of ours whose cookie is right.
    @ivar was_ours: a Route, or the Request-URI of a strict router, was ours and has been removed.
    @ivar side: how the next hop is reached, when no Route is left and its Contact will not do.
    @ivar facing: the last URI of ours that was removed: names the listener that faces the next hop.
    @ivar flow: the connection that a Route made by the cluster names: the request goes there and nowhere else. Empty
        for one that nobody made; L{None} if there is no such Route.
    """

    request: Request
    is_in_dialog: bool = False
    was_ours: bool = False
    is_from_caller: bool = False
    side: Side | None = None
    facing: SipURI | None = None
    flow: str | None = None


FlowOf = Callable[[SipURI], "str | None"]
"""From a Route of ours to the connection that it names, as C{RouteVerdict.flow}."""


def contact_mark(uri: URI) -> int:
    """
    Sixteen bits that say whether two Contacts have the same host and port.
    """
    if not isinstance(uri, SipURI):
        return 0
    return zlib.crc32(f"{uri.host}:{uri.port or DEFAULT_PORT}".encode("utf-8", "surrogateescape")) & 0xFFFF


def _pack(side: Side | None) -> tuple[int, bytes]:
    """
    @return: the kind, and what it needs.
    """
    if side is None:
        return _NOTHING, b""
    if side.flow:
        try:
            packed = bytes.fromhex(side.flow + "0" * (len(side.flow) % 2))
        except ValueError:
            packed = side.flow.encode("utf-8", "surrogateescape")
            return _NAMED_FLOW, bytes((len(packed) & 0xFF,)) + packed
        return _FLOW, bytes((len(side.flow) & 0xFF,)) + packed
    rest = side.port.to_bytes(2, "big") + side.mark.to_bytes(2, "big")
    if ":" in side.host:
        return _IPV6, socket.inet_pton(socket.AF_INET6, side.host.partition("%")[0]) + rest
    return _IPV4, socket.inet_aton(side.host) + rest


def _unpack(kind: int, data: bytes) -> tuple[Side | None, bytes]:
    """
    The inverse of L{_pack}, of bytes that we packed.

    @return: the side, and the bytes behind it.
    """
    if kind == _NOTHING:
        return None, data
    if kind in (_FLOW, _NAMED_FLOW):
        length = data[0]
        end = 1 + (length if kind == _NAMED_FLOW else (length + 1) // 2)
        packed = data[1:end]
        flow = packed.decode("utf-8", "surrogateescape") if kind == _NAMED_FLOW else packed.hex()[:length]
        return Side(flow), data[end:]
    size, family = (16, socket.AF_INET6) if kind == _IPV6 else (4, socket.AF_INET)
    host = socket.inet_ntop(family, data[:size])
    port = int.from_bytes(data[size : size + 2], "big")
    mark = int.from_bytes(data[size + 2 : size + 4], "big")
    return Side("", host, port, mark), data[size + 4 :]


class RouteCookies:
    """
    Makes and reads the cookies of Record-Route URIs.
    """

    def __init__(self, key: bytes) -> None:
        """
        @param key: 16 to 64 bytes, the same on all nodes of the cluster (L{sipdmq.core.keys.derive_key}).
        """
        self._key = key

    def _mac(self, call_id: str, tag: str, plain: bytes) -> bytes:
        # Neither Call-ID nor tag can hold a zero byte: two different triples never give the same bytes.
        data = f"{call_id}\0{tag}\0".encode("utf-8", "surrogateescape") + plain
        return hashlib.blake2b(data, digest_size=_MAC_BYTES, key=self._key, person=b"cookie").digest()

    def _crypt(self, mac: bytes, data: bytes) -> bytes:
        size = len(data)
        stream = hashlib.blake2b(mac, digest_size=size, key=self._key, person=b"side").digest()
        return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")

    def make(self, call_id: str, from_tag: str, caller: Side | None = None, callee: Side | None = None) -> str:
        """
        A cookie for the dialog that a request begins.

        @param from_tag: of that request; may be empty (RFC 2543).
        @return: 14 characters, about 40 with one connection in it.
        """
        plain = b""
        if caller is not None or callee is not None:
            one, caller_bytes = _pack(caller)
            other, callee_bytes = _pack(callee)
            plain = bytes((one | other << 4,)) + caller_bytes + callee_bytes
            if len(plain) > _MAX_PLAIN:  # no connection of ours has such a long name
                plain = b""
        mac = self._mac(call_id, from_tag, plain)
        raw = mac + self._crypt(mac, plain) if plain else mac
        return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")

    def read(self, cookie: str, call_id: str, from_tag: str, to_tag: str) -> Opened | None:
        """
        Check a cookie against a request within the dialog, of either side.

        @param cookie: as received; anything.
        @return: L{None} if it is not one of ours for this dialog.
        """
        if not _COOKIE.fullmatch(cookie):
            return None
        try:
            raw = urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
        except ValueError:
            return None
        mac, crypted = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if len(crypted) > _MAX_PLAIN:
            return None
        plain = self._crypt(mac, crypted) if crypted else b""
        is_from_caller = compare_digest(mac, self._mac(call_id, from_tag, plain))
        if not is_from_caller and not compare_digest(mac, self._mac(call_id, to_tag, plain)):
            return None
        if not plain:
            return Opened(is_from_caller, None, None)
        caller, rest = _unpack(plain[0] & 0xF, plain[1:])
        callee, _ = _unpack(plain[0] >> 4, rest)
        return Opened(is_from_caller, caller, callee)

    def open(self, uri: SipURI, request: Request) -> Opened | None:
        """
        What a Route of ours says of the dialog of a request.

        @return: L{None} if the request is in none, or the URI is not one that we wrote: ours has C{lr} and no user.
        """
        cookie = uri.params.get(_PARAM)
        to_tag = request.to.tag
        if not cookie or not to_tag or uri.user or "lr" not in uri.params:
            return None
        return self.read(cookie, request.call_id, request.from_.tag, to_tag)


def record_route_uri(sent_by: str, cookie: str, is_secure: bool = False) -> str:
    """
    A Record-Route value of ours.

    @param sent_by: protocol and address of a listener, C{"UDP 192.0.2.1:5060"}, as in a Via.
    @param is_secure: the request is for a C{sips:} URI (RFC 5630 §5.3): then so is this, where the listener can.
    """
    protocol, _, address = sent_by.partition(" ")
    if is_secure and protocol == "TLS":
        return f"<sips:{address};lr;{_PARAM}={cookie}>"
    transport = "" if protocol == "UDP" else f";transport={protocol.lower()}"
    return f"<sip:{address}{transport};lr;{_PARAM}={cookie}>"


def _is_led_to_us(uri: URI, is_ours: Callable[[SipURI], bool]) -> bool:
    """
    Whether a URI means this node: with C{maddr} it is that address which must be ours, whatever the host says.
    """
    if not isinstance(uri, SipURI):
        return False
    maddr = uri.params.get("maddr")
    if maddr is None:
        return is_ours(uri)
    try:
        host = normalize_host(maddr) if maddr else ""
    except ParseError:
        return False
    led = SipURI(uri.text, uri.scheme, uri.user, uri.password, host, uri.port, uri.params, uri.headers)
    return bool(host) and is_ours(led)


def _without_maddr(uri: SipURI) -> str:
    """
    The URI without C{maddr}, port and transport.
    """
    head, _, _ = uri.text.partition("@") if uri.user else (uri.scheme + ":", "", "")
    host = f"[{uri.host}]" if ":" in uri.host else uri.host
    params = "".join(
        f";{name}={value}" if value else f";{name}"
        for name, value in uri.params.items()
        if name not in ("maddr", "transport", "ttl")
    )
    return f"{head}@{host}{params}" if uri.user else f"{head}{host}{params}"


def preprocess(
    request: Request, is_ours: Callable[[SipURI], bool], cookies: RouteCookies, flow_of: FlowOf | None = None
) -> RouteVerdict:
    """
    Take ourselves out of a request's route.

    What a strict router made of it is undone; our own Routes on top are removed, both of a double Record-Route
    (RFC 5658), and all that follow one another: a spiral through us is run through at once.

    @param request: not changed.
    @param is_ours: whether a URI's host and port are this node.
    @param flow_of: reads the Routes that only nodes of the cluster can make; L{None} outside of one.
    @raise ParseError: the Request-URI that a strict router put into Route has headers, which none may.
    @see: RFC 3261 §16.4
    """
    uri = request.uri
    has_route = "route" in request.headers.first
    if not has_route and not (isinstance(uri, SipURI) and "maddr" in uri.params):
        return RouteVerdict(request)  # nearly all requests that begin a dialog
    routes = [part for value in request.headers.get_all("route") for part in split_commas(value)]
    opened: Opened | None = None  # of the last URI of ours
    facing: SipURI | None = None
    is_in_dialog = False
    target = request.uri_text
    if has_route and isinstance(uri, SipURI) and _is_led_to_us(uri, is_ours):
        opened = cookies.open(uri, request)
        if opened is not None:
            is_in_dialog = True
            facing = uri
            last = parse_route(routes.pop()).uri
            if isinstance(last, SipURI) and last.headers is not None:
                raise ParseError("Headers In Request-URI")
            target = last.text
            uri = last
    if isinstance(uri, SipURI) and "maddr" in uri.params and _is_led_to_us(uri, is_ours):
        target = _without_maddr(uri)
    passed = 0
    flow: str | None = None
    for value in routes:
        route = parse_route(value).uri
        if not isinstance(route, SipURI) or not _is_led_to_us(route, is_ours):
            break
        passed += 1
        if flow_of is not None and route.user:
            flow = flow_of(route)
            if flow is not None:
                facing = route
                break
        opened = cookies.open(route, request)
        if facing is None:
            is_in_dialog = opened is not None
        facing = route
    if facing is None and target == request.uri_text:
        return RouteVerdict(request)
    routed = request.copy()
    routed.uri_text = target
    rest = routes[passed:]
    if rest:
        routed.headers.replace("Route", ", ".join(rest))
    elif has_route:
        routed.headers.remove("route")
    if flow is not None:
        return RouteVerdict(routed, False, True, False, None, facing, flow)
    if not is_in_dialog or opened is None:
        return RouteVerdict(routed, is_in_dialog, facing is not None, False, None, facing)
    side = None if rest else opened.ahead
    if side is not None and not side.flow and side.mark != contact_mark(parse_uri(target)):
        side = None
    return RouteVerdict(routed, True, True, opened.is_from_caller, side, facing)
