"""
The cookies by which our Record-Route URIs vouch for a dialog, and for the way of each request in it.

A Record-Route URI of ours is C{<sip:HOST:PORT;transport=tcp;lr;c=COOKIE>}. Without any state here, its cookie says that
this dialog (Call-ID, From tag of the request that began it) was let through by us; where whoever shows it may send
requests; and, where that side cannot be reached by its Contact alone, by which connection or address it can (RFC 5626
§5.1, RFC 5658). Any node with the same key reads it.

The two sides hold different cookies. The callee gets his in the request; in the responses we put others in their place
(RFC 3261 §16.7 step 8), for the caller. So a cookie leads to the other side only: a stranger who has called one of ours
can neither pass for the callee nor send anything to anybody else.

It is ten bytes of keyed hash over all it says, six of another one over where the other side is, and the connections or
addresses, encrypted with a key stream made from the hash: so an address behind a NAT is not told to the other side, and
nothing in it can be changed, or moved to another dialog.
"""

from __future__ import annotations

import hashlib
import re
import socket
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from hmac import compare_digest
from typing import Final, NamedTuple

from sipdmq.sip.message import Request, Response
from sipdmq.sip.uri import DEFAULT_PORT, URI, SipURI

__all__ = [
    "COOKIE_PARAM",
    "MAX_MOVES",
    "DialogSide",
    "Opened",
    "RouteCookies",
    "Side",
    "contact_mark",
    "record_route_heads",
    "record_route_uri",
    "sender_of",
]

COOKIE_PARAM: Final = "c"
_MAC_BYTES: Final = 10
_MARK_BYTES: Final = 6
_HEAD_BYTES: Final = _MAC_BYTES + _MARK_BYTES
_NOWHERE: Final = bytes(_MARK_BYTES)
_MAX_SIDES: Final = 56  # bytes: what is left of the 100 characters, and less than the key stream of one hash
_COOKIE: Final = re.compile(r"[A-Za-z0-9_\-]{22,100}")
_NOTHING, _FLOW, _NAMED_FLOW, _IPV4, _IPV6 = range(5)

_KEPT: Final = 2_000
_KEPT_LENGTH: Final = 60

MAX_MOVES: Final = 5_000
"""So many sides of dialogs that have moved are remembered; the oldest are forgotten."""


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


class DialogSide(NamedTuple):
    """
    A side of a dialog.

    @ivar tag: the From tag of the request that began it.
    @ivar is_caller: the side that sent that one.
    """

    call_id: str
    tag: str
    is_caller: bool

    @property
    def other(self) -> DialogSide:
        """
        The other side.
        """
        return DialogSide(self.call_id, self.tag, not self.is_caller)


class Opened(NamedTuple):
    """
    What a right cookie says.

    @ivar is_from_caller: the request goes the way that the dialog's first request went.
    @ivar mark: L{RouteCookies.mark} of where its holder may send requests.
    @ivar caller: how the side that began the dialog is reached; L{None}: by its Contact. Only in the callee's cookie.
    """

    is_from_caller: bool
    mark: bytes
    caller: Side | None
    callee: Side | None

    @property
    def ahead(self) -> Side | None:
        """
        The side that the request is for.
        """
        return self.callee if self.is_from_caller else self.caller


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
    Makes and reads the cookies of Record-Route URIs; and remembers which sides of dialogs have moved, since a route set
    is never changed, but a Contact may be (RFC 3261 §12.2.1.2).
    """

    def __init__(self, key: bytes) -> None:
        """
        @param key: 16 to 64 bytes, the same on all nodes of the cluster (L{sipdmq.core.keys.derive_key}).
        """
        self._key = key
        self._marks: dict[str, bytes] = {}  # each is asked for five times in a call
        self._moves: dict[int, bytes] = {}  # by hash: a Call-ID may be as long as a message; oldest first

    def mark(self, uri: URI) -> bytes:
        """
        Where a URI leads to, so that nobody else can find another that leads elsewhere and has the same mark.
        """
        if isinstance(uri, SipURI):
            text = f"{uri.params.get('maddr') or uri.host}:{uri.port or DEFAULT_PORT}"
        else:
            text = uri.text
        mark = self._marks.get(text)
        if mark is None:
            data = text.encode("utf-8", "surrogateescape")
            mark = hashlib.blake2b(data, digest_size=_MARK_BYTES, key=self._key, person=b"mark").digest()
            if len(text) <= _KEPT_LENGTH:
                if len(self._marks) >= _KEPT:
                    self._marks.clear()
                self._marks[text] = mark
        return mark

    def _mac(self, call_id: str, tag: str, is_callers: bool, rest: bytes) -> bytes:
        # Neither Call-ID nor tag can hold a zero byte: two different quadruples never give the same bytes.
        data = f"{call_id}\0{tag}\0".encode("utf-8", "surrogateescape") + rest
        person = b"caller" if is_callers else b"callee"
        return hashlib.blake2b(data, digest_size=_MAC_BYTES, key=self._key, person=person).digest()

    def _crypt(self, mac: bytes, data: bytes) -> bytes:
        size = len(data)
        stream = hashlib.blake2b(mac, digest_size=size, key=self._key, person=b"side").digest()
        return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")

    def make(
        self,
        call_id: str,
        from_tag: str,
        mark: bytes | None = None,
        caller: Side | None = None,
        callee: Side | None = None,
        is_callers: bool = False,
    ) -> str:
        """
        A cookie for the dialog that a request begins.

        @param from_tag: of that request; may be empty (RFC 2543).
        @param mark: L{mark} of where the other side is; without, only a connection in C{caller} or C{callee} leads
            there.
        @param is_callers: it is for the caller; otherwise for the callee.
        @return: 22 characters, about 48 with one connection in it.
        """
        plain = b""
        if caller is not None or callee is not None:
            one, caller_bytes = _pack(caller)
            other, callee_bytes = _pack(callee)
            plain = bytes((one | other << 4,)) + caller_bytes + callee_bytes
            if len(plain) > _MAX_SIDES:  # no connection of ours has such a long name
                plain = b""
        if mark is None:
            mark = _NOWHERE
        mac = self._mac(call_id, from_tag, is_callers, mark + plain)
        raw = mac + mark + self._crypt(mac, plain) if plain else mac + mark
        return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")

    def _take(self, cookie: str) -> tuple[bytes, bytes, bytes] | None:
        """
        @return: keyed hash, mark, and the sides as bytes; L{None} for what we cannot have made.
        """
        if not _COOKIE.fullmatch(cookie):
            return None
        try:
            raw = urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
        except ValueError:
            return None
        mac, mark, crypted = raw[:_MAC_BYTES], raw[_MAC_BYTES:_HEAD_BYTES], raw[_HEAD_BYTES:]
        if len(crypted) > _MAX_SIDES:
            return None
        return mac, mark, self._crypt(mac, crypted) if crypted else b""

    def read(self, cookie: str, call_id: str, from_tag: str, to_tag: str) -> Opened | None:
        """
        Check a cookie against a request within the dialog: the caller's in one that the caller sends, the callee's in
        one that the callee sends.

        @param cookie: as received; anything.
        @return: L{None} if it is not one of ours for this dialog, or for the other side.
        """
        taken = self._take(cookie)
        if taken is None:
            return None
        mac, mark, plain = taken
        is_from_caller = compare_digest(mac, self._mac(call_id, from_tag, True, mark + plain))
        if not is_from_caller and not compare_digest(mac, self._mac(call_id, to_tag, False, mark + plain)):
            return None
        return self._opened(is_from_caller, mark, plain)

    @staticmethod
    def _opened(is_from_caller: bool, mark: bytes, plain: bytes) -> Opened:
        if not plain:
            return Opened(is_from_caller, mark, None, None)
        caller, rest = _unpack(plain[0] & 0xF, plain[1:])
        callee, _ = _unpack(plain[0] >> 4, rest)
        return Opened(is_from_caller, mark, caller, callee)

    def open(self, uri: SipURI, request: Request) -> Opened | None:
        """
        What a Route of ours says of the dialog of a request.

        @return: L{None} if the request is in none, or the URI is not one that we wrote: ours has C{lr} and no user.
        """
        cookie = uri.params.get(COOKIE_PARAM)
        to_tag = request.to.tag
        if not cookie or not to_tag or uri.user or "lr" not in uri.params:
            return None
        return self.read(cookie, request.call_id, request.from_.tag, to_tag)

    def exchange(self, cookie: str, response: Response, mark: bytes | None) -> str | None:
        """
        The caller's cookie for the callee's.

        @param cookie: of a Record-Route of ours in a response to the request that began the dialog.
        @param mark: as for L{make}.
        @return: L{None} if it is not one of this dialog.
        """
        taken = self._take(cookie)
        if taken is None:
            return None
        call_id, tag = response.call_id, response.from_.tag
        mac, theirs, plain = taken
        if not compare_digest(mac, self._mac(call_id, tag, False, theirs + plain)):
            return None
        callee = self._opened(False, theirs, plain).callee
        return self.make(call_id, tag, mark, None, callee, True)

    def move(self, side: DialogSide, contact: URI) -> None:
        """
        A side of a dialog has named its Contact, perhaps another one than before: there the other side may send now.
        """
        key = hash(side)
        self._moves.pop(key, None)
        self._moves[key] = self.mark(contact)
        if len(self._moves) > MAX_MOVES:
            del self._moves[next(iter(self._moves))]

    def leads_to(self, opened: Opened, request: Request, next_hop: URI) -> bool:
        """
        Whether a request goes where the holder of its cookie may send it.

        @param request: its tags and Call-ID count.
        """
        mark = self.mark(next_hop)
        if mark == opened.mark:
            return True
        return self._moves.get(hash(sender_of(request, opened.is_from_caller).other)) == mark


def sender_of(request: Request, is_from_caller: bool) -> DialogSide:
    """
    The side that sends a request within a dialog.
    """
    return DialogSide(request.call_id, (request.from_ if is_from_caller else request.to).tag, is_from_caller)


def record_route_uri(sent_by: str, cookie: str, is_secure: bool = False, params: str = "") -> str:
    """
    A Record-Route value of ours.

    @param sent_by: protocol and address of a listener, C{"UDP 192.0.2.1:5060"}, as in a Via.
    @param is_secure: the request is for a C{sips:} URI (RFC 5630 §5.3): then so is this, where the listener can.
    @param params: others, behind the cookie: C{";did=80d.bdd1"}.
    """
    protocol, _, address = sent_by.partition(" ")
    if is_secure and protocol == "TLS":
        return f"<sips:{address};lr;{COOKIE_PARAM}={cookie}{params}>"
    transport = "" if protocol == "UDP" else f";transport={protocol.lower()}"
    return f"<sip:{address}{transport};lr;{COOKIE_PARAM}={cookie}{params}>"


def record_route_heads(listeners: Iterable[str]) -> frozenset[str]:
    """
    What L{record_route_uri} writes in front of its cookies.

    @param listeners: each as C{sent_by} there.
    """
    uris = [record_route_uri(each, "", is_secure) for each in listeners for is_secure in (False, True)]
    return frozenset(uri.partition(f";{COOKIE_PARAM}=")[0] for uri in uris)
