"""
The JSON of channel C{presence}, as Kamailio reads and writes it (WIRE §5, §8). Pure.

A message holds one action. Kamailio up to 6.1.4 refuses one with a key that it does not know, so what is ours alone
(C{by}, action 5) goes to nodes of ours only. A refresh repeats the document: a Kamailio keeps none that it is not told
again.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from typing import Any, Final, NamedTuple

from sipdmq.dmq.errands import SyncEnd, SyncRequest
from sipdmq.dmq.kamailio_json import checked, read, read_number, read_string, write
from sipdmq.errors import DecodeError
from sipdmq.sip.grammar import TOKEN

__all__ = [
    "SYNC_REQUEST",
    "Presence",
    "PresentityMissing",
    "PresentityUpdate",
    "decode",
    "encode",
    "encode_sync_end",
    "supersede",
]

SYNC_REQUEST: Final = b'{"action":2}'
HARD_STATE: Final = -1
"""C{expires} of what never expires."""

_UPDATE, _SYNC, _SYNC_END = 1, 2, 5
_MAX_BODY: Final = 60_000

_KEYS: Final = frozenset(
    (
        *("action", "presentity", "t_new", "cur_etag", "sphere", "ruid", "body", "subscription", "by"),
        *("count", "partial", "age"),
    )
)
_PRESENTITY_KEYS: Final = frozenset(("domain", "user", "etag", "expires", "recv", "sender", "event"))
_SUBSCRIPTION_KEYS: Final = frozenset(
    (
        *("pres_uri", "contact", "local_contact", "watcher_domain", "watcher_user", "from_domain", "from_user"),
        *("to_domain", "to_user", "from_tag", "to_tag", "user_agent", "callid", "reason", "socket_info"),
        *("record_route", "event_id", "event", "local_cseq", "remote_cseq", "expires", "flags", "status", "version"),
        *("updated", "updated_winfo", "recv"),
    )
)


class PresentityUpdate(NamedTuple):
    """
    A publication was made, changed or removed.

    @ivar etag: of a new one its tag, else the tag that it had before.
    @ivar cur_etag: the tag that it has now; empty for a new one and for a removal.
    @ivar expires: seconds from C{recv}; 0: it is removed; -1: it never expires.
    @ivar recv: seconds since the epoch, when the PUBLISH came; 0: not told.
    @ivar is_new: Kamailio's C{t_new}.
    @ivar body: L{None}: not told.
    @ivar by: between sipdmq nodes: the node that changed it last, where that is not the sender.
    """

    domain: str
    user: str
    event: str
    etag: str
    expires: int
    recv: int
    is_new: bool
    cur_etag: str = ""
    ruid: str = ""
    body: bytes | None = None
    sender: str = ""
    by: str = ""


class PresentityMissing(NamedTuple):
    """
    An update of nothing. Kamailio answers it with 500.
    """


Presence = PresentityUpdate | SyncRequest | SyncEnd | PresentityMissing

# reading


def decode(body: bytes, events: Container[str]) -> Presence | None:
    """
    Read the JSON of one C{presence} message.

    @param events: the event packages that this node has.
    @return: L{None} where there is nothing to do: an empty object, action 0, one that is no number or that nobody
        knows, and subscriptions of Kamailios, who notify their watchers themselves.
    @raise DecodeError: it cannot be read, has an unknown key, or is about an event package that this node has not:
        nothing was applied.
    @see: WIRE §5, §8, §13
    """
    document = read(body)
    if document == []:
        return None
    if not isinstance(document, dict):
        raise DecodeError("must be an object")
    _check_keys(document, _KEYS)
    for name, keys in (("presentity", _PRESENTITY_KEYS), ("subscription", _SUBSCRIPTION_KEYS)):
        if name in document:
            if not isinstance(document[name], dict):
                raise DecodeError(f"{name} must be an object")
            _check_keys(document[name], keys)
    for name in ("cur_etag", "sphere", "ruid", "by"):
        read_string(document, name, 512)
    action = document.get("action", 0)
    if not isinstance(action, int) or isinstance(action, bool):
        return None
    if action == _SYNC:
        return SyncRequest()
    if action == _SYNC_END:
        return SyncEnd.read(document)
    if action != _UPDATE:
        return None
    if "presentity" not in document:
        return PresentityMissing()
    return _update(document, document["presentity"], events)


def _check_keys(document: Mapping[str, Any], known: Container[str]) -> None:
    for name in document:
        if name not in known:
            raise DecodeError("unknown key")


def _update(document: Mapping[str, Any], presentity: Mapping[str, Any], events: Container[str]) -> PresentityUpdate:
    event = read_string(presentity, "event", 64)
    if event not in events:
        raise DecodeError("unknown event package")
    user, domain = read_string(presentity, "user", 256), read_string(presentity, "domain", 256)
    if not user or not domain or not _is_name(user) or not _is_name(domain):
        raise DecodeError("user or domain is none")
    etag, cur_etag = read_string(presentity, "etag", 200), read_string(document, "cur_etag", 200)
    if not TOKEN.fullmatch(etag) or (cur_etag and not TOKEN.fullmatch(cur_etag)):
        raise DecodeError("etag must be a token")
    return PresentityUpdate(
        domain,
        user,
        event,
        etag,
        read_number(presentity, "expires", HARD_STATE, 2**32 - 1),
        read_number(presentity, "recv", 0, 2**40),
        read_number(document, "t_new", 0, 2**31) == 1,
        cur_etag,
        read_string(document, "ruid", 128),
        _read_body(document),
        read_string(presentity, "sender", 512),
        read_string(document, "by", 128),
    )


def _is_name(text: str) -> bool:
    """
    Whether a text can be one half of an AoR.
    """
    return not any(character in " @<>\"'" for character in text)


def _read_body(document: Mapping[str, Any]) -> bytes | None:
    if "body" not in document:
        return None
    body = checked(document["body"], "body").encode("utf-8", "surrogateescape")
    if len(body) > _MAX_BODY:
        raise DecodeError("body is too long")
    return body


# writing


def encode(update: PresentityUpdate) -> bytes:
    """
    One publication as a Kamailio 5.6.3 writes it.
    """
    presentity: dict[str, object] = {
        "domain": update.domain,
        "user": update.user,
        "etag": update.etag,
        "expires": update.expires,
        "recv": update.recv,
    }
    if update.sender:
        presentity["sender"] = update.sender
    presentity["event"] = update.event
    values: dict[str, object] = {
        "action": _UPDATE,
        "presentity": presentity,
        "t_new": int(update.is_new),
        "cur_etag": update.cur_etag,
        "ruid": update.ruid,
        "body": (update.body or b"").decode("utf-8", "surrogateescape"),
    }
    if update.by:
        values["by"] = update.by
    return write(values)


def encode_sync_end(end: SyncEnd) -> bytes:
    """
    The last message of a sync between sipdmq nodes.
    """
    return end.encode(_SYNC_END)


def supersede(waiting: bytes, newer: bytes) -> bytes:
    """
    A change in the place of an earlier one that was not sent: a Kamailio finds a publication by the entity tag that it
    was told last, so the change begins there.

    @param waiting: L{encode}d; so C{newer}, of the same publication.
    """
    old, new = _document(waiting), _document(newer)
    if old is None or new is None or new["t_new"]:
        return newer
    if not old["t_new"]:
        new["presentity"]["etag"] = old["presentity"]["etag"]
    elif new["cur_etag"]:
        new["t_new"] = 1
        new["presentity"]["etag"] = new["cur_etag"]
        new["cur_etag"] = ""
    return write(new)


def _document(fragment: bytes) -> Any:
    document = json.loads(fragment.decode("utf-8", "surrogateescape"))
    return document if "presentity" in document else None
