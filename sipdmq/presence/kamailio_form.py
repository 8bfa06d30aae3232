"""
Subscriptions as Kamailio 6 replicates them: action 3 of channel C{presence} (WIRE §8). Pure.

Every key that 6.1.4 writes, and no other: it refuses a message with one that it does not know.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from sipdmq.errors import DecodeError, ParseError
from sipdmq.presence.subscriptions import CSEQ_STEP, State, Subscription
from sipdmq.records import ClusterNode
from sipdmq.sip.fields import parse_name_addr
from sipdmq.sip.grammar import MAX_CSEQ
from sipdmq.sip.uri import SipURI, format_host, parse_sip_uri

__all__ = ["KamailioSubscription", "decode", "encode", "takes_subscriptions"]

_UPDATE, _SYNC = 3, 4
_MAX_BODY: Final = 32_768
_encoder: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


class KamailioSubscription(NamedTuple):
    """
    What a Kamailio tells of a subscription that it has taken a SUBSCRIBE for.

    @ivar expires_at: seconds since the epoch; 0: it is over.
    """

    tag: str
    call_id: str
    remote_tag: str
    contact: str
    remote_cseq: int
    local_cseq: int
    version: int
    expires_at: int


def takes_subscriptions(node: ClusterNode) -> bool:
    """
    Whether a node is a Kamailio that knows action 3: release 6 or later, by its own word.
    """
    name, _, release = node.release.partition(" ")
    major = release.partition(".")[0]
    return not node.is_sipdmq and name == "kamailio" and major.isascii() and major.isdigit() and int(major) >= 6


def _user_and_domain(value: str) -> tuple[str, str]:
    uri = parse_name_addr(value).uri
    return (uri.user, format_host(uri.host)) if isinstance(uri, SipURI) else ("", "")


def encode(record: Subscription, contact: str, is_over: bool) -> bytes:
    """
    One subscription as the body of a message.

    @param contact: our own, C{"<sip:192.0.2.1:5060>"}.
    @param is_over: it has ended.
    @return: its numbers are ahead of ours, so that NOTIFYs of a Kamailio that takes the next SUBSCRIBE follow all of
        ours.
    """
    watcher = record.watcher.rpartition("@")
    from_, to = _user_and_domain(record.remote), _user_and_domain(record.local)
    document = {
        "action": _UPDATE,
        "subscription": {
            "pres_uri": f"sip:{record.presentity}",
            "contact": record.contact,
            "local_contact": contact.strip("<>"),
            "watcher_domain": watcher[2],
            "watcher_user": watcher[0],
            "from_domain": from_[1],
            "from_user": from_[0],
            "to_domain": to[1],
            "to_user": to[0],
            "from_tag": parse_name_addr(record.remote).tag,
            "to_tag": record.tag,
            "user_agent": "",
            "callid": record.call_id,
            "reason": "timeout" if is_over else "",
            "socket_info": record.socket,
            "record_route": record.routes,
            "event_id": record.event_id,
            "event": record.event,
            "local_cseq": min(record.local_cseq + CSEQ_STEP, MAX_CSEQ),
            "remote_cseq": record.remote_cseq,
            "expires": 0 if is_over else record.expires_at,
            "flags": 0,
            "status": int(State.TERMINATED if is_over else record.state),
            "version": min(record.version + CSEQ_STEP, MAX_CSEQ),
            "updated": -1,
            "updated_winfo": -1,
        },
    }
    return _encoder.encode(document).encode("utf-8", "surrogateescape")


def decode(body: bytes) -> KamailioSubscription | bool:
    """
    Read a message of channel C{presence}.

    @return: true: a request for all subscriptions; false: about something else.
    @raise DecodeError: it cannot be used.
    """
    try:
        document = json.loads(body[:_MAX_BODY].decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        raise DecodeError("not JSON") from None
    action = document.get("action") if isinstance(document, dict) else None
    if type(action) is not int or action not in (_UPDATE, _SYNC):
        return False
    if action == _SYNC:
        return True
    value = document.get("subscription")
    if not isinstance(value, dict):
        raise DecodeError("subscription must be an object")
    contact = _text(value, "contact")
    if contact:
        try:
            parse_sip_uri(contact)
        except ParseError as error:
            raise DecodeError(error.reason) from None
    expires_at = _number(value, "expires", 2**40)
    return KamailioSubscription(
        _text(value, "to_tag"),
        _text(value, "callid"),
        _text(value, "from_tag"),
        contact,
        _number(value, "remote_cseq", MAX_CSEQ),
        _number(value, "local_cseq", MAX_CSEQ),
        _number(value, "version", MAX_CSEQ),
        0 if value.get("status") == State.TERMINATED else expires_at,
    )


def _text(value: dict[str, Any], name: str) -> str:
    text = value.get(name, "")
    if not isinstance(text, str) or len(text) > 2000:
        raise DecodeError(f"{name} must be a string")
    return text


def _number(value: dict[str, Any], name: str, limit: int) -> int:
    number = value.get(name, 0)
    if type(number) is not int or not 0 <= number <= limit:
        raise DecodeError(f"{name} must be a whole number up to {limit}")
    return number
