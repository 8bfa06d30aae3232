"""
Node lists as text: reading what a node says of the cluster, and which lines one may be told. Pure.

A Kamailio is told less than a sipdmq node: no more nodes than it can hold, and none that it may have no way to reach
(WIRE §3).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple

from sipdmq.errors import ParseError
from sipdmq.records import NodeName, NodeStatus, Protocol
from sipdmq.sip.uri import SipURI, parse_sip_uri

__all__ = [
    "KAMAILIO_ROOM",
    "MAX_LINES",
    "NodeLine",
    "Reading",
    "fitting",
    "format_line",
    "line_length",
    "name_of",
    "numeric_host",
    "read_lines",
    "read_release",
]

MAX_LINES: Final = 1000
"""Of one list; what follows is not looked at."""

KAMAILIO_ROOM: Final = 992
"""
Bytes of lines that surely fit into the 1024 of a Kamailio, whatever their order: to add a line it wants the stored URI,
which is the line without its CRLF, and 34 more bytes free (WIRE §3). Tried with 5.6.3.
"""

_MAX_LENGTH: Final = 200  # bytes of a line; the longest that we know have 100
_PROTOCOLS: Final = {"": Protocol.UDP, "udp": Protocol.UDP, "tcp": Protocol.TCP, "tls": Protocol.TLS}
_STATUS: Final = {
    "active": NodeStatus.ACTIVE,
    "disabled": NodeStatus.DISABLED,
    # Kamailio: words of one release or another that never leave it; read, but not sent (WIRE §3)
    "not_active": NodeStatus.NOT_ACTIVE,
    "pending": NodeStatus.NOT_ACTIVE,
    "timeout": NodeStatus.NOT_ACTIVE,
}
_WORDS: Final = {NodeStatus.ACTIVE: "active", NodeStatus.NOT_ACTIVE: "not_active", NodeStatus.DISABLED: "disabled"}
_RELEASE: Final = re.compile(r"(kamailio|sipdmq)[ /]\(?([0-9][0-9A-Za-z.\-+~]{0,30})", re.IGNORECASE)


_KEPT_LENGTH: Final = 64  # characters: no address is longer, and a stranger could fill the memory with names


class NodeLine(NamedTuple):
    """
    One line of a node list.

    @ivar name: its host may be a name, in lower case: see L{numeric_host}.
    """

    name: NodeName
    status: NodeStatus


class Reading(NamedTuple):
    """
    What a list says.

    @ivar lines: in order, each node once: its first line counts.
    @ivar refused: how many lines could not be used.
    """

    lines: tuple[NodeLine, ...]
    refused: int


def numeric_host(host: str) -> str | None:
    """
    An address in its one spelling. Those of the nodes are asked for all day.

    @param host: as L{sipdmq.sip.uri.normalize_host} gives it.
    @return: L{None} where it is a name, C{""} where it is the address of nobody in particular.
    """
    return _numeric_host_kept(host) if len(host) <= _KEPT_LENGTH else _numeric_host(host)


def _numeric_host(host: str) -> str | None:
    try:
        address = ip_address(host)
    except ValueError:
        # Digits and dots alone are no name: a resolver would read 127.1 as an address.
        return None if host[-1:].isalpha() or host[-1:] == "." else ""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
        host = str(address)
    if address.is_multicast or address.is_unspecified or host == "255.255.255.255":
        return ""
    return host


_numeric_host_kept = lru_cache(maxsize=1024)(_numeric_host)


def name_of(uri: SipURI) -> NodeName:
    """
    The node that a URI names (WIRE §2): no port is the default one, no transport is UDP. User, C{sips:} and other
    parameters do not count, as with Kamailio.

    @return: its host may be a name, in lower case.
    @raise ParseError: it can be none.
    """
    protocol = _PROTOCOLS.get(uri.params.get("transport", "").lower())
    if protocol is None:
        raise ParseError("Unknown Transport Of A Node")
    host = numeric_host(uri.host)
    port = protocol.default_port if uri.port is None else uri.port
    if host == "" or not port:
        raise ParseError("Not The Address Of A Node")
    return NodeName(protocol, uri.host if host is None else host, port)


@lru_cache(maxsize=2048)  # the same few lines all day, from members only
def _read_line(text: str) -> NodeLine | None:
    try:
        uri = parse_sip_uri(text.replace(":;", ";", 1))  # Kamailio: "sip:host:;status=active", one without port
        name = name_of(uri)
    except ParseError:
        return None
    status = _STATUS.get(uri.params.get("status", "active"))
    return None if status is None else NodeLine(name, status)


def read_lines(body: bytes) -> Reading:
    """
    Read a list, of a request or of the answer to one. A bad line costs itself only.

    @param body: anything; none is no list, which is harmless.
    @see: WIRE §3 "Reading a list"
    """
    pieces = body.split(b"\n", MAX_LINES)
    refused = 0
    if len(pieces) > MAX_LINES:
        refused += bool(pieces.pop())
    elif not pieces[-1].strip(b"\r \t\0"):
        pieces.pop()
    lines: dict[NodeName, NodeLine] = {}
    for piece in pieces:
        piece = piece.strip(b"\r \t\0")
        line = _read_line(piece.decode("utf-8", "surrogateescape")) if len(piece) <= _MAX_LENGTH else None
        if line is None:
            refused += 1
        else:
            lines.setdefault(line.name, line)
    return Reading(tuple(lines.values()), refused)


def format_line(name: NodeName, status: NodeStatus) -> bytes:
    """
    One line, its end included. Of the words only C{active} and C{disabled} are for sending (WIRE §3).

    @param name: with a numeric host.
    """
    return f"{name};status={_WORDS[status]}\r\n".encode()


def line_length(name: NodeName) -> int:
    """
    How much of L{KAMAILIO_ROOM} an active node takes.
    """
    return len(str(name)) + 16  # ;status=active and CRLF


def fitting(ranked: Iterable[NodeName], room: int = KAMAILIO_ROOM) -> Collection[NodeName]:
    """
    Which nodes a Kamailio can be told of.

    @param ranked: those that matter most first.
    @param room: bytes.
    """
    chosen: dict[NodeName, None] = {}
    for name in ranked:
        length = line_length(name)
        if length <= room:
            chosen[name] = None
            room -= length
    return chosen.keys()


def read_release(agent: str) -> str:
    """
    What runs at a node, by its Server or User-Agent.

    @return: C{"kamailio 5.6.3"}, C{"sipdmq 0.1.0"}; empty where it does not say so.
    """
    match = _RELEASE.match(agent)
    return f"{match[1].lower()} {match[2]}" if match else ""
