"""
Subscriptions as sipdmq nodes tell one another of them: JSON on a channel of their own. Pure.

The names are those of Kamailio's action 3 on channel C{presence} (WIRE §8) where it has one. It would refuse a message
with any of the others (C{owner}, C{term}, C{received} ...), hence the own channel. A body is one object with the one
key C{subscriptions}, an array of objects.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from sys import intern
from typing import Any, Final

from sipdmq.errors import DecodeError, ParseError
from sipdmq.presence.subscriptions import MAX_ROUTE_SET, MAX_ROUTES, State, Subscription
from sipdmq.sip.fields import parse_name_addr
from sipdmq.sip.grammar import CALLID, TOKEN, split_commas
from sipdmq.sip.uri import parse_sip_uri

__all__ = ["CONTENT_TYPE", "SYNC_REQUEST", "decode", "encode", "join"]

CONTENT_TYPE: Final = "application/json"
SYNC_REQUEST: Final = b'{"sync":1}'
"""The body by which a node that has started asks for all subscriptions that there are."""

_MAX_RECORDS: Final = 200
_MAX_LENGTH: Final = 2000
"""Characters of one string."""
_STRINGS: Final[Mapping[str, str]] = {
    "to_tag": "tag", "pres_uri": "presentity", "event": "event", "event_id": "event_id", "watcher": "watcher",
    "callid": "call_id", "from": "remote", "to": "local", "contact": "contact", "record_route": "routes",
    "received": "received", "socket_info": "socket", "flow": "flow", "owner": "owner",
}  # fmt: skip
_NUMBERS: Final[Mapping[str, tuple[str, int]]] = {
    "status": ("state", 3), "expires": ("expires_at", 2**40), "remote_cseq": ("remote_cseq", 2**31 - 1),
    "local_cseq": ("local_cseq", 2**31 - 1), "version": ("version", 2**40), "term": ("term", 2**31 - 1),
}  # fmt: skip

_SHARED: Final = frozenset(("event", "socket_info", "owner"))
"""Of which thousands of records have the same: kept once."""

_encoder: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


def encode(record: Subscription) -> bytes:
    """
    One subscription, as a fragment for L{join}. What is empty is left out.
    """
    document: dict[str, Any] = {}
    for name, field in _STRINGS.items():
        text = getattr(record, field)
        if text:
            document[name] = text
    for name, (field, _) in _NUMBERS.items():
        document[name] = int(getattr(record, field))
    return _encoder.encode(document).encode("utf-8", "surrogateescape")


def join(fragments: Iterable[bytes]) -> bytes:
    """
    Fragments as the body of one message.
    """
    return b'{"subscriptions":[%b]}' % b",".join(fragments)


def decode(body: bytes) -> tuple[Subscription | DecodeError, ...]:
    """
    Read the body of a message.

    @return: in their order; for each record that cannot be used, why.
    @raise DecodeError: it is none, or has too many.
    """
    try:
        document = json.loads(body.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        raise DecodeError("not JSON") from None
    members = document.get("subscriptions") if isinstance(document, dict) else None
    if not isinstance(members, list) or len(document) != 1:
        raise DecodeError("must be an object with the one key subscriptions, an array")
    if len(members) > _MAX_RECORDS:
        raise DecodeError(f"more than {_MAX_RECORDS} subscriptions in one message")
    return tuple([_decode(member) for member in members])


def _decode(member: Any) -> Subscription | DecodeError:
    try:
        return _record(member)
    except DecodeError as error:
        return error
    except ParseError as error:
        return DecodeError(error.reason)


def _record(member: Any) -> Subscription:
    if not isinstance(member, dict):
        raise DecodeError("a subscription must be an object")
    values: dict[str, Any] = {}
    for name, field in _STRINGS.items():
        text = member.get(name, "")
        if not isinstance(text, str) or len(text) > _MAX_LENGTH or "\r" in text or "\n" in text or "\0" in text:
            raise DecodeError(f"{name} must be a string of one line")
        values[field] = intern(text) if name in _SHARED else text
    for name, (field, greatest) in _NUMBERS.items():
        number = member.get(name, 0)
        if type(number) is not int or not 0 <= number <= greatest:
            raise DecodeError(f"{name} must be a whole number up to {greatest}")
        values[field] = number
    if values["state"] not in (1, 2, 3):
        raise DecodeError("status must be 1, 2 or 3")
    values["state"] = State(values["state"])
    record = Subscription(**values)
    _check(record)
    return record


def _check(record: Subscription) -> None:
    """
    Whether a NOTIFY can be made of a record, and nothing but that.
    """
    if not TOKEN.fullmatch(record.tag):
        raise DecodeError("to_tag must be a tag")
    if record.state is State.TERMINATED:
        return
    if not record.presentity or not record.watcher or not TOKEN.fullmatch(record.event):
        raise DecodeError("pres_uri, watcher and event must be there")
    if record.event_id and not TOKEN.fullmatch(record.event_id):
        raise DecodeError("event_id must be a token")
    if not CALLID.fullmatch(record.call_id):
        raise DecodeError("callid must be a Call-ID")
    if not parse_name_addr(record.remote).tag or parse_name_addr(record.local).tag:
        raise DecodeError("from must have a tag, to none")
    parse_sip_uri(record.contact)
    if record.received:
        parse_sip_uri(record.received)
    if record.routes:
        routes = split_commas(record.routes)
        if len(routes) > MAX_ROUTES or len(record.routes) > MAX_ROUTE_SET + 2 * MAX_ROUTES:
            raise DecodeError("record_route is too long")
        for route in routes:
            parse_name_addr(route)
