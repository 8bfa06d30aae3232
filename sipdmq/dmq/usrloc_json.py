"""
The JSON of channel C{usrloc}, as Kamailio reads and writes it (WIRE §5, §6). Pure.

Text is UTF-8 with surrogate escapes: bytes that are no UTF-8 go out as they came in. What is written has every key that
Kamailio reads, strings never as C{null}: it keeps what the message before had where one is missing, and dies of the
other. What is read is checked value by value, since whoever may speak on this channel speaks of every user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sipdmq.dmq.errands import SyncEnd, SyncRequest
from sipdmq.dmq.kamailio_json import ABSURD, encoder, read, read_number, read_string
from sipdmq.dmq.usrloc_records import (
    REMOVE,
    UPDATE,
    Usrloc,
    UsrlocRecord,
    UsrlocRefused,
)
from sipdmq.dmq.usrloc_usual import read_usual, write_usual
from sipdmq.errors import DecodeError

__all__ = [
    "SYNC_REQUEST",
    "SYNC_REQUEST_OF_OURS",
    "decode",
    "encode",
    "encode_sync_end",
    "join",
    "read_xavps",
]

SYNC_REQUEST: Final = b'{"action":3}'
SYNC_REQUEST_OF_OURS: Final = b'{"action":3,"ours":1}'
"""Between sipdmq nodes: the donor may not know yet what the newcomer is."""
_SYNC, _SYNC_END = 3, 4
_MAX_RECORDS: Final = 1000
"""In one message. Kamailio's limit is 150; what is beyond is refused."""
_MAX_XAVPS: Final = 4096
_MAX_XAVPS_DEPTH: Final = 8


def _names(count: int) -> list[bytes]:
    """
    What stands before each of so many records in a message, the comma between two of them included.
    """
    return [b'%b"%d":' % (b"," if number > 1 else b"", number) for number in range(1, count + 1)]


_NAMES: Final = _names(150)
"""Of as many as Kamailio has at most."""


# The greatest length of each string. Where Kamailio has a limit, not less than that.
_STRINGS: Final[Mapping[str, int]] = {
    "aor": 512, "ruid": 256, "c": 2048, "received": 512, "path": 4096, "callid": 2048, "user_agent": 8192,
    "instance": 512, "sock": 256, "by": 128,
}  # fmt: skip
# The least and the greatest value of each number. last_modified can be one more than the latest anywhere, for ever.
_NUMBERS: Final[Mapping[str, tuple[int, int]]] = {
    "expires": (0, 2**32 - 1), "cseq": (0, 2**31 - 1), "flags": (0, 2**32 - 1), "cflags": (0, 2**32 - 1),
    "q": (-1, 1000), "last_modified": (0, 2**40), "methods": (0, 2**32 - 1), "reg_id": (0, 2**31 - 1),
    "server_id": (0, 2**32 - 1),
}  # fmt: skip


# reading


def decode(body: bytes) -> tuple[Usrloc, ...]:
    """
    Read the JSON of one C{usrloc} message.

    @param body: one action object, or several under C{"multi"} as its first key, an object or an array.
    @return: in the order received; of several, each that cannot be used is a L{UsrlocRefused}; empty for action 0, and
        for an action that is no number, which Kamailio takes for 0.
    @raise DecodeError: not JSON, not an object or an empty one, an unknown action, or a single record that cannot be
        used: nothing was applied.
    @see: WIRE §5, §6, §13
    """
    usual = read_usual(body)
    return _decode_any(body) if usual is None else usual


def _decode_any(body: bytes) -> tuple[Usrloc, ...]:
    """
    As L{decode}, for JSON in any spelling.
    """
    document = read(body)
    if not isinstance(document, dict) or not document:
        raise DecodeError("must be an object that is not empty")
    first = next(iter(document))
    if first != "multi":
        return _single(document)
    multi = document["multi"]
    if isinstance(multi, dict):
        members: Iterable[Any] = multi.values()
    elif isinstance(multi, list):
        members = multi
    else:
        raise DecodeError("multi must be an object or an array")
    found: list[Usrloc] = []
    for member in members:
        if len(found) >= _MAX_RECORDS:
            found.append(UsrlocRefused(f"more than {_MAX_RECORDS} records in one message"))
            break
        try:
            if not isinstance(member, dict):
                raise DecodeError("must be an object")
            found.extend(_single(member))
        except DecodeError as error:
            found.append(UsrlocRefused(error.reason))
    return tuple(found)


def _single(document: Mapping[str, Any]) -> tuple[Usrloc, ...]:
    action = document.get("action", 0)
    if not isinstance(action, int) or isinstance(action, bool) or action == 0:
        return ()
    if action == _SYNC:
        return (SyncRequest(document.get("ours") == 1),)
    if action == _SYNC_END:
        return (SyncEnd.read(document),)
    if action in (UPDATE, REMOVE):
        return (_record(document, action == REMOVE),)
    raise DecodeError("unknown action")


def _record(document: Mapping[str, Any], removed: bool) -> UsrlocRecord:
    """
    @raise DecodeError: a value that cannot be, or no C{aor} or C{ruid}. A missing string is an empty one and a missing
        number 0, as Kamailio has it.
    """
    values: dict[str, Any] = {}
    for name, longest in _STRINGS.items():
        values[name] = read_string(document, name, longest)
    for name, (least, greatest) in _NUMBERS.items():
        values[name] = read_number(document, name, least, greatest)
    if not values["aor"] or not values["ruid"]:
        raise DecodeError("aor or ruid is missing")
    if values["user_agent"] == "n/a":
        values["user_agent"] = ""
    return UsrlocRecord(**values, xavps=read_xavps(document.get("xavps")), removed=removed)


def read_xavps(value: object) -> str:
    """
    @param value: what C{xavps} was: an object of names to strings, numbers or objects of the same; anything else is
        ignored, as by Kamailio.
    @return: compact JSON; empty for nothing of use.
    """
    if not isinstance(value, dict) or not value:
        return ""
    try:
        _check_xavps(value, _MAX_XAVPS_DEPTH)
        text = encoder.encode(value)
        size = len(text.encode("utf-8", "surrogateescape"))
    except (DecodeError, UnicodeEncodeError):
        return ""
    return text if size <= _MAX_XAVPS else ""


def _check_xavps(value: Mapping[str, object], depth: int) -> None:
    if depth == 0:
        raise DecodeError("too deep")
    for member in value.values():
        if isinstance(member, dict):
            _check_xavps(member, depth - 1)
        elif not isinstance(member, (str, int)) or isinstance(member, bool) or member == ABSURD:
            raise DecodeError("neither string nor number")


# writing


def encode(record: UsrlocRecord) -> bytes:
    """
    One contact as Kamailio writes it: the fragment of a message. C{sock}, C{xavps} and C{by} are left out when empty:
    5.6.3 logs a line about a key that it does not know each time.
    """
    if record.sock or record.xavps or record.by:
        return _encode_any(record)
    return write_usual(record)


def _encode_any(record: UsrlocRecord) -> bytes:
    """
    As L{encode}, for a record with whatever keys.
    """
    values: dict[str, object] = {
        "action": REMOVE if record.removed else UPDATE,
        "aor": record.aor,
        "ruid": record.ruid,
        "c": record.c,
        "received": record.received,
    }
    if record.sock:
        values["sock"] = record.sock
    values["path"] = record.path
    values["callid"] = record.callid
    values["user_agent"] = record.user_agent or "n/a"
    values["instance"] = record.instance
    values["expires"] = record.expires
    values["cseq"] = record.cseq
    values["flags"] = record.flags
    values["cflags"] = record.cflags
    values["q"] = record.q
    values["last_modified"] = record.last_modified
    values["methods"] = record.methods
    values["reg_id"] = record.reg_id
    values["server_id"] = record.server_id
    text = encoder.encode(values)
    if record.xavps:
        text = f'{text[:-1]},"xavps":{record.xavps}}}'
    if record.by:
        text = f'{text[:-1]},"by":{encoder.encode(record.by)}}}'
    return text.encode("utf-8", "surrogateescape")


def encode_sync_end(end: SyncEnd) -> bytes:
    """
    The last fragment of a sync between sipdmq nodes.
    """
    return end.encode(_SYNC_END)


def join(fragments: Iterable[bytes]) -> bytes:
    """
    Fragments as one body: one as it is, several numbered under C{"multi"}.
    """
    parts = list(fragments)
    count = len(parts)
    if count == 1:
        return parts[0]
    names = _NAMES[:count] if count <= len(_NAMES) else _names(count)
    pieces = [b""] * (2 * count)
    pieces[::2] = names
    pieces[1::2] = parts
    return b'{"multi":{%b}}' % b"".join(pieces)
