"""
KDMQ requests and their answers: what is around the body of a channel. Pure.

C{WIRE} in the comments of this package is the description of Kamailio's wire format by its captures.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from sipdmq.dmq.lines import name_of
from sipdmq.errors import ParseError
from sipdmq.records import ChannelMessage, ChannelReply, ClusterNode, NodeName, Source
from sipdmq.sip.headers import Headers
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request, Response, response_to
from sipdmq.sip.uri import URI, SipURI
from sipdmq.sip.writer import format_message

__all__ = [
    "FORWARD_ONCE",
    "KAMAILIO_STREAM_LIMIT",
    "KAMAILIO_UDP_LIMIT",
    "SIPDMQ_LIMIT",
    "answer",
    "check_channel",
    "is_channel",
    "kdmq_request",
    "length_limit",
    "message_length",
    "read_message",
]

KAMAILIO_UDP_LIMIT: Final = 32_000
"""Bytes of a whole message, to stay below: release 6 drops what has 32,767 unread (WIRE §1, §16.11)."""

KAMAILIO_STREAM_LIMIT: Final = 16_000
"""The same over TCP and TLS, where every release closes the connection at 16,384."""

SIPDMQ_LIMIT: Final = 60_000
"""The same among nodes of ours: C{batch_msg_size} of Kamailio at its most."""

FORWARD_ONCE: Final = 2
"""Max-Forwards of the first notification of a node: who gets it tells the others (WIRE §3)."""

_VIA_ROOM: Final = 200
"""Bytes to leave for the Via that the transaction puts on top; with its CRLF it has about 100."""

_CHANNEL: Final = re.compile(r"[A-Za-z0-9_.!~*'()+\-]{1,64}")
_REASONS: Final = {
    200: "OK", 202: "Accepted DMQ", 400: "Bad Request", 404: "User Not Found", 500: "Server Internal Error",
}  # fmt: skip
"""As Kamailio words them (WIRE §1, §11)."""


def is_channel(name: str) -> bool:
    """
    Whether this may be the name of a channel: the user part of a URI, without escapes.
    """
    return _CHANNEL.fullmatch(name) is not None


def check_channel(name: str) -> str:
    """
    @return: the name.
    @raise ValueError: it may not be that of a channel.
    """
    if not is_channel(name):
        raise ValueError(f"{name!r} cannot be the name of a channel: 1 to 64 letters, digits, and any of _.!~*'()+-")
    return name


def channel_uri(channel: str, node_uri: str) -> str:
    """
    @param node_uri: C{"sip:192.0.2.1:5060;transport=tcp"}
    @return: C{"sip:usrloc@192.0.2.1:5060;transport=tcp"}
    """
    return f"sip:{channel}@{node_uri.removeprefix('sip:')}"


def kdmq_request(
    channel: str,
    receiver: NodeName,
    sender: str,
    body: bytes,
    content_type: str,
    ids: Ids,
    agent: str = "",
    max_forwards: int = 1,
) -> Request:
    """
    A KDMQ, complete but for the Via that the transaction puts on top.

    Kamailio: C{dmq_process_message} of 5.6.3 has parsed the headers up to From only when it looks at Content-Length and
    Max-Forwards, so these stand before it (WIRE §1, §16.2).

    @param sender: the URI of this node in its one spelling, C{"sip:192.0.2.1:5060"} (WIRE §16.1).
    @param agent: for User-Agent; empty: none.
    @param max_forwards: never 0: a usual script of Kamailio refuses that.
    @raise ValueError: the channel cannot be named that, or the content type has a line break.
    """
    head = _head(channel, receiver, sender, content_type, agent, max(1, max_forwards))
    length, from_, call_id = str(len(body)), f"{head.from_};tag={ids.tag()}", ids.call_id()
    lines = [f"Content-Length: {length}", *head.before, f"From: {from_}", f"Call-ID: {call_id}", *head.behind]
    first = {**head.first, "content-length": length, "from": from_, "call-id": call_id}
    return Request("KDMQ", head.uri, Headers([*head.keys], lines, first), body)


class _Head(NamedTuple):
    """
    What is the same in all messages to one node on one channel.

    @ivar before: the lines between Content-Length and From.
    @ivar behind: those behind Call-ID.
    @ivar first: as L{Headers.first}.
    """

    uri: str
    from_: str
    keys: list[str]
    before: list[str]
    behind: list[str]
    first: dict[str, str]


@lru_cache(maxsize=256)
def _head(channel: str, receiver: NodeName, sender: str, content_type: str, agent: str, max_forwards: int) -> _Head:
    check_channel(channel)
    uri = channel_uri(channel, str(receiver))
    before = Headers()
    before.add("Max-Forwards", str(max_forwards))
    if content_type:
        before.add("Content-Type", content_type)
    before.add("To", f"<{uri}>")
    behind = Headers()
    behind.add("CSeq", "10 KDMQ")
    if agent:
        behind.add("User-Agent", agent)
    keys = ["content-length", *before.keys(), "from", "call-id", *behind.keys()]
    from_ = f"<{channel_uri(channel, sender)}>"
    return _Head(uri, from_, keys, before.lines(), behind.lines(), {**before.first, **behind.first})


def message_length(request: Request) -> int:
    """
    Bytes that a request of ours has on the wire, its Via counted, a little more rather than less.
    """
    return len(format_message(request)) + _VIA_ROOM


def length_limit(node: ClusterNode) -> int:
    """
    Below which number of bytes a whole message must stay for a node to read it.
    """
    if node.is_sipdmq:
        return SIPDMQ_LIMIT
    return KAMAILIO_STREAM_LIMIT if node.name.protocol.is_reliable else KAMAILIO_UDP_LIMIT


def read_message(
    request: Request, source: Source, find: Callable[[NodeName], ClusterNode | None]
) -> ChannelMessage | None:
    """
    What a KDMQ brings.

    @param find: the node of a name, whose host may be a host name.
    @return: L{None} where the Request-URI names no channel.
    @raise ParseError: From or Max-Forwards cannot be read.
    """
    uri = request.uri
    if not isinstance(uri, SipURI) or not uri.user:
        return None
    name = _name_in(request.from_.uri)
    first = request.headers.first
    return ChannelMessage(
        uri.user,
        None if name is None else find(name),
        source,
        first.get("content-type", ""),
        # Kamailio: what no Content-Length speaks of is not there, over UDP neither (WIRE §13)
        request.body if "content-length" in first else b"",
        request.max_forwards or 0,
        name,
        first.get("user-agent", ""),
    )


def _name_in(sender: URI) -> NodeName | None:
    try:
        return name_of(sender) if isinstance(sender, SipURI) else None
    except ParseError:
        return None


def answer(request: Request, reply: ChannelReply, to_tag: str, server: str = "") -> Response:
    """
    The response to a KDMQ. It has a Content-Length in any case: without one, Kamailio looks into no answer (WIRE §1).

    @param server: for Server; empty: none.
    """
    headers = []
    if reply.body:
        headers.append(("Content-Type", reply.content_type or "text/plain"))
    if server:
        headers.append(("Server", server))
    reason = reply.reason or _REASONS.get(reply.status, "")
    return response_to(request, reply.status, to_tag, headers, reason, reply.body)
