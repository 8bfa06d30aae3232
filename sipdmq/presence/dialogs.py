"""
The dialog of a subscription: the NOTIFY within it, and where that goes (RFC 3261 §12.2.1.1). Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sipdmq.presence.subscriptions import Subscription
from sipdmq.records import EventDocument
from sipdmq.sip.fields import parse_route
from sipdmq.sip.grammar import split_commas
from sipdmq.sip.headers import Headers
from sipdmq.sip.message import Request
from sipdmq.sip.uri import URI

__all__ = ["NO_DOCUMENT", "Notify", "notify"]

NO_DOCUMENT: Final = EventDocument("", b"")
"""Of a subscription that nobody has allowed yet: it tells nothing."""


class Notify(NamedTuple):
    """
    A NOTIFY, ready but for its Via.

    @ivar next_hop: of a dialog with a route set: the URI to resolve to targets. L{None}: the watcher himself is the
        next hop.
    """

    request: Request
    next_hop: URI | None


def notify(record: Subscription, contact: str, state: str, document: EventDocument, agent: str) -> Notify:
    """
    The NOTIFY that tells a watcher of a document.

    @param record: its C{local_cseq} is the NOTIFY's, its C{version} counts this document.
    @param contact: our own, C{"<sip:192.0.2.1:5060>"}.
    @param state: Subscription-State.
    @raise ParseError: a Route of the record cannot be read.
    """
    uri = record.contact
    event = f"{record.event};id={record.event_id}" if record.event_id else record.event
    body = document.body
    if document.version_at >= 0:
        at = document.version_at
        body = b"%b%d%b" % (body[:at], record.version - 1, body[at + 1 :])  # RFC 3680 §5: from 0
    length = str(len(body))
    from_ = f"{record.local};tag={record.tag}"
    cseq = f"{record.local_cseq} NOTIFY"
    first = {
        "max-forwards": "70", "from": from_, "to": record.remote, "call-id": record.call_id, "cseq": cseq,
        "contact": contact, "event": event, "subscription-state": state, "user-agent": agent,
    }  # fmt: skip
    lines = [
        "Max-Forwards: 70",
        f"From: {from_}",
        f"To: {record.remote}",
        f"Call-ID: {record.call_id}",
        f"CSeq: {cseq}",
        f"Contact: {contact}",
        f"Event: {event}",
        f"Subscription-State: {state}",
        f"User-Agent: {agent}",
    ]
    next_hop: URI | None = None
    if record.routes:
        values = split_commas(record.routes)
        next_hop = parse_route(values[0]).uri
        if "lr" not in getattr(next_hop, "params", ()):
            # a strict router: it gets its own URI as Request-URI, the target is the last Route
            values = [*values[1:], f"<{uri}>"]
            uri = next_hop.text
        first["route"] = routes = ", ".join(values)
        lines.append(f"Route: {routes}")
    if body:
        first["content-type"] = document.content_type
        lines.append(f"Content-Type: {document.content_type}")
    first["content-length"] = length
    lines.append(f"Content-Length: {length}")
    return Notify(Request("NOTIFY", uri, Headers([*first], lines, first), body), next_hop)
