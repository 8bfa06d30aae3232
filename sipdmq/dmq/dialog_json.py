"""
The JSON of channel C{dialog}, as Kamailio reads and writes it (WIRE §5, §9). Pure.

What is told of a dialog that is not over is all of it, as it is now: a change may take the place of one that was not
sent, and a Kamailio knows nothing of a dialog of which it got only the later one. What is ours alone (C{by}, C{ours},
action 5) goes to nodes of ours only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sipdmq.dmq.errands import SyncEnd, SyncRequest
from sipdmq.dmq.kamailio_json import checked, encoder, read, write
from sipdmq.errors import DecodeError
from sipdmq.interfaces.dialogs import MAX_MARKS, Leg, Profile

__all__ = [
    "SYNC_REQUEST",
    "SYNC_REQUEST_OF_OURS",
    "DialogGone",
    "DialogMessage",
    "DialogTold",
    "decode",
    "encode",
    "encode_gone",
    "encode_sync_end",
    "is_end",
]

SYNC_REQUEST: Final = b'{"action":4}'
SYNC_REQUEST_OF_OURS: Final = b'{"action":4,"ours":1}'

_UPDATE, _STATE, _RM, _SYNC, _SYNC_END = 1, 2, 3, 4, 5
_ENDS: Final = (b'{"action":%d,' % _STATE, b'{"action":%d,' % _RM)
_EARLY, _CONFIRMED, _DELETED = 2, 4, 5
_LONGEST: Final = 2048
_LONGEST_LIFETIME: Final = 1_000_000  # seconds
_STRINGS: Final = (
    *("callid", "from_uri", "to_uri", "req_uri", "tag1", "cseq1", "route_set1", "contact1"),
    *("tag2", "cseq2", "route_set2", "contact2", "profiles", "by"),
)


class DialogTold(NamedTuple):
    """
    A dialog is new, or went on.

    @ivar is_whole: all of it is told: action 1. Otherwise C{call_id} to C{req_uri}, C{variables} and C{profiles} say
        nothing.
    @ivar state: Kamailio's number, 1 to 5.
    @ivar by: between sipdmq nodes: the node that told it last, where that is not the sender.
    """

    h_entry: int
    h_id: int
    state: int
    is_whole: bool = False
    call_id: str = ""
    from_uri: str = ""
    to_uri: str = ""
    req_uri: str = ""
    caller: Leg = Leg()
    callee: Leg = Leg()
    init_ts: int = 0
    start_ts: int = 0
    lifetime: int = 0
    variables: tuple[tuple[str, str], ...] = ()
    profiles: tuple[Profile, ...] = ()
    by: str = ""


class DialogGone(NamedTuple):
    """
    A dialog is to be forgotten.
    """

    h_entry: int
    h_id: int


DialogMessage = DialogTold | DialogGone | SyncRequest | SyncEnd

# reading


def decode(body: bytes) -> DialogMessage | None:
    """
    Read the JSON of one C{dialog} message.

    @return: L{None} where there is nothing to do: an empty object, action 0, and one that is no number or that nobody
        knows.
    @raise DecodeError: it cannot be read, or would kill a Kamailio: nothing was applied.
    @see: WIRE §5, §9, §13, §14
    """
    document = read(body)
    if document == []:
        return None
    if not isinstance(document, dict):
        raise DecodeError("must be an object")
    for name in _STRINGS:
        _string(document, name)
    action = document.get("action", 0)
    if action == _SYNC:
        return SyncRequest(_number(document, "ours") == 1)
    if action == _SYNC_END:
        return SyncEnd.read(document)
    if isinstance(action, bool) or action not in (_UPDATE, _STATE, _RM):
        return None
    h_entry, h_id = _number(document, "h_entry"), _number(document, "h_id")
    return DialogGone(h_entry, h_id) if action == _RM else _told(document, h_entry, h_id, action == _UPDATE)


def _told(document: Mapping[str, Any], h_entry: int, h_id: int, is_whole: bool) -> DialogTold:
    told = DialogTold(
        h_entry,
        h_id,
        _number(document, "state") if "state" in document else 1,
        is_whole,
        caller=_leg(document, "1"),
        callee=_leg(document, "2"),
        start_ts=_number(document, "start_ts"),
        lifetime=min(_number(document, "lifetime"), _LONGEST_LIFETIME),
        by=_string(document, "by"),
    )
    if not is_whole:
        return told
    for name in ("callid", "from_uri", "to_uri", "req_uri", "tag1"):
        if name not in document:
            raise DecodeError(f"{name} is missing")
    return told._replace(
        call_id=_string(document, "callid"),
        from_uri=_string(document, "from_uri"),
        to_uri=_string(document, "to_uri"),
        req_uri=_string(document, "req_uri"),
        init_ts=_number(document, "init_ts"),
        variables=_variables(document.get("vars", {})),
        profiles=_profiles(_string(document, "profiles", 16 * _LONGEST)),
    )


def _leg(document: Mapping[str, Any], side: str) -> Leg:
    return Leg(*(_string(document, f"{name}{side}") for name in ("tag", "cseq", "route_set", "contact")))


def _variables(found: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(found, dict) or len(found) > MAX_MARKS:
        raise DecodeError("vars must be an object, and not too long")
    return tuple(sorted((_bounded(name, "vars"), _string(found, name)) for name in found))


def _profiles(text: str) -> tuple[Profile, ...]:
    """
    @param text: JSON of its own.
    """
    document = read(text.encode("utf-8", "surrogateescape")) if text else {}
    found = document.get("profiles", []) if isinstance(document, dict) else None
    if not isinstance(found, list) or len(found) > MAX_MARKS or not all(isinstance(each, dict) for each in found):
        raise DecodeError("profiles must be an array of objects, and not too long")
    profiles = [Profile(*(_string(each, name) for name in ("name", "value", "puid"))) for each in found]
    return tuple(each for each in profiles if each.name)


def _string(document: Mapping[str, Any], name: str, longest: int = 16 * _LONGEST) -> str:
    return _bounded(document.get(name, ""), name, longest)


def _bounded(value: object, name: str, longest: int = _LONGEST) -> str:
    text = checked(value, name)
    if len(text) > longest:
        raise DecodeError(f"{name} is too long")
    return text


def _number(document: Mapping[str, Any], name: str) -> int:
    value = document.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int):
        return 0  # as at a Kamailio
    if not 0 <= value < 2**40:
        raise DecodeError(f"{name} is out of range")
    return value


# writing


def encode(told: DialogTold) -> bytes:
    """
    All of a dialog that is not over, as a Kamailio 6.1.4 writes it in a sync, with both legs where it is confirmed.
    """
    values: dict[str, object] = {
        "action": _UPDATE,
        "h_entry": told.h_entry,
        "h_id": told.h_id,
        "init_ts": told.init_ts,
        "callid": told.call_id,
        "from_uri": told.from_uri,
        "to_uri": told.to_uri,
        "req_uri": told.req_uri,
        **_keys_of(told.caller, "1"),
    }
    if told.variables:
        values["vars"] = dict(told.variables)
    if told.profiles:
        found = [
            {name: value for name, value in each._asdict().items() if value or name == "puid"} for each in told.profiles
        ]
        values["profiles"] = encoder.encode({"profiles": found})
    values["state"] = told.state
    if told.state >= _EARLY:
        values["start_ts"] = told.start_ts
    values["lifetime"] = told.lifetime
    if told.state == _CONFIRMED:
        values.update(_keys_of(told.callee, "2"))
    if told.by:
        values["by"] = told.by
    return write(values)


def _keys_of(leg: Leg, side: str) -> dict[str, str]:
    return {f"{name}{side}": value for name, value in leg._asdict().items()}


def encode_gone(h_entry: int, h_id: int, is_forgotten: bool) -> bytes:
    """
    A dialog has ended, or is forgotten.
    """
    action = _RM if is_forgotten else _STATE
    return b'{"action":%d,"h_entry":%d,"h_id":%d,"state":%d}' % (action, h_entry, h_id, _DELETED)


def is_end(fragment: bytes) -> bool:
    """
    Whether something written here is the end of a dialog: what goes on is told whole.
    """
    return fragment.startswith(_ENDS)


def encode_sync_end(end: SyncEnd) -> bytes:
    """
    The last message of a sync between sipdmq nodes.
    """
    return end.encode(_SYNC_END)
