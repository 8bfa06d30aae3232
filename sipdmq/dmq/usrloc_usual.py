"""
The usual form of what is said on channel C{usrloc}: the keys in the order in which Kamailio and we write them, strings
of printable ASCII without escapes, whole numbers. One pattern reads a record, one format writes it. Pure.

What is not so goes the way of L{sipdmq.dmq.usrloc_json}, which reads all JSON. Both give the same, and refuse the same:
this pattern holds no value that is refused there.
"""

from __future__ import annotations

import re
from json.encoder import encode_basestring
from typing import Final

from sipdmq.dmq.usrloc_records import (
    REMOVE,
    UPDATE,
    Usrloc,
    UsrlocRecord,
)

__all__ = ["read_usual", "write_usual"]

_MULTI: Final = '{"multi":{'
_MAX_RECORDS: Final = 1000
"""As for all messages: what has more is not usual."""

# The greatest values that a receiver takes. The patterns have the same digits at most.
_UINT32: Final = 2**32 - 1
_INT31: Final = 2**31 - 1
_LATEST: Final = 2**40


def _string(name: str, longest: int, least: int = 0) -> str:
    return rf'"{name}":"([ !#-\[\]-~]{{{least},{longest}}})"'


def _number(name: str, digits: int) -> str:
    return rf'"{name}":(0|[1-9][0-9]{{0,{digits - 1}}})'


# The lengths are those of usrloc_json. Of flags and such nobody has more than nine digits.
_RECORD: Final = ",".join([
    rf'\{{"action":([{UPDATE}{REMOVE}])',
    _string("aor", 512, 1),
    _string("ruid", 256, 1),
    _string("c", 2048),
    _string("received", 512),
    _string("path", 4096),
    _string("callid", 2048),
    _string("user_agent", 8192),
    _string("instance", 512),
    _number("expires", 10),
    _number("cseq", 10),
    _number("flags", 9),
    _number("cflags", 9),
    r'"q":(-1|0|[1-9][0-9]{0,2}|1000)',
    _number("last_modified", 13),
    _number("methods", 10),
    _number("reg_id", 9),
    _number("server_id", 9) + rf'(?:,"xavps":\{{\}})?(?:,{_string("by", 128)})?\}}',
])
_SINGLE: Final = re.compile(_RECORD)
_MEMBER: Final = re.compile(rf'"[0-9]{{1,4}}":{_RECORD}(?:,|(\}}\}})\Z)')

_FORMAT: Final = (
    '{"action":%d,"aor":%s,"ruid":%s,"c":%s,"received":%s,"path":%s,"callid":%s,"user_agent":%s,"instance":%s,'
    '"expires":%d,"cseq":%d,"flags":%d,"cflags":%d,"q":%d,"last_modified":%d,"methods":%d,"reg_id":%d,"server_id":%d}'
)


def read_usual(body: bytes) -> tuple[Usrloc, ...] | None:
    """
    As L{decode<sipdmq.dmq.usrloc_json.decode>}.

    @return: L{None}: not in the usual form, whether it can be used or not.
    """
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        return None
    if not text.startswith(_MULTI):
        match = _SINGLE.fullmatch(text)
        one = None if match is None else _action(match)
        return None if one is None else (one,)
    found: list[Usrloc] = []
    match = None
    # Each match begins where the one before has ended: nothing stands in between.
    for match in iter(_MEMBER.scanner(text, len(_MULTI)).match, None):  # type: ignore[attr-defined]
        one = _action(match)
        if one is None:
            return None
        found.append(one)
    if match is None or match[20] is None or len(found) > _MAX_RECORDS:
        return None
    return tuple(found)


def _action(match: re.Match[str]) -> UsrlocRecord | None:
    """
    @return: L{None}: a number is too great.
    """
    groups = match.groups()
    expires, cseq, last_modified, methods = int(groups[9]), int(groups[10]), int(groups[14]), int(groups[15])
    if expires > _UINT32 or cseq > _INT31 or last_modified > _LATEST or methods > _UINT32:
        return None
    agent = groups[7]
    return UsrlocRecord._make((  # half of what so many arguments cost
        groups[1],
        groups[2],
        groups[3],
        groups[4],
        groups[5],
        groups[6],
        "" if agent == "n/a" else agent,
        groups[8],
        expires,
        cseq,
        int(groups[11]),
        int(groups[12]),
        int(groups[13]),
        last_modified,
        methods,
        int(groups[16]),
        int(groups[17]),
        "",
        "",
        groups[18] or "",
        groups[0] != "1",
    ))


def write_usual(record: UsrlocRecord) -> bytes:
    """
    As L{encode<sipdmq.dmq.usrloc_json.encode>}.

    @param record: without C{sock}, C{xavps} and C{by}.
    """
    quote = encode_basestring
    text = _FORMAT % (
        REMOVE if record.removed else UPDATE,
        quote(record.aor),
        quote(record.ruid),
        quote(record.c),
        quote(record.received),
        quote(record.path),
        quote(record.callid),
        quote(record.user_agent or "n/a"),
        quote(record.instance),
        record.expires,
        record.cseq,
        record.flags,
        record.cflags,
        record.q,
        record.last_modified,
        record.methods,
        record.reg_id,
        record.server_id,
    )
    return text.encode("utf-8", "surrogateescape")
