"""
The JSON of channel C{htable}, as Kamailio reads and writes it (WIRE §5, §7). Pure.

A set goes out in the form of a sync, C{{"cells":[...]}}: that takes many at once, and the value together with its
expiry, which Kamailio itself tells in two messages that its receivers work on in any order. One that has no expiry of
its own goes alone in Kamailio's plain form.

Between nodes of ours a cell also has C{last_modified}, in milliseconds, and C{removed} for a deletion. A Kamailio of
any release up to 6.1.4 refuses the first (WIRE §15).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring
from math import ceil
from typing import Any, Final, NamedTuple

from sipdmq.dmq.changes import Place
from sipdmq.dmq.errands import SyncEnd
from sipdmq.dmq.kamailio_json import checked, read
from sipdmq.errors import DecodeError
from sipdmq.records import Cell, CellRemoval, CellValue

__all__ = [
    "NO_CELLS",
    "SYNC_REQUEST",
    "SYNC_REQUEST_OF_OURS",
    "Htable",
    "HtableCells",
    "HtableDelete",
    "HtableExpire",
    "HtableRefused",
    "HtableRemove",
    "HtableSet",
    "HtableSync",
    "decode",
    "encode_cell",
    "encode_removal",
    "encode_sync_end",
    "join",
    "place_of",
]

SYNC_REQUEST: Final = b'{"action":1}'
SYNC_REQUEST_OF_OURS: Final = b'{"action":1,"ours":1}'
"""Between nodes of ours: the donor may not know yet what the newcomer is."""
NO_CELLS: Final = b'{"cells":[]}'
"""What a Kamailio without cells answers to that."""

_SYNC, _SET, _EXPIRE, _DELETE, _REMOVE_RE, _REMOVE_PREFIX = 1, 2, 3, 4, 5, 6
_SYNC_END: Final = 64
"""Ours: far from the numbers that Kamailio may come to use."""
_TEXT: Final = 2
"""The bit of C{type} that says so."""
_MAX_CELLS: Final = 5_000
"""In one message; what is beyond is refused."""
_MAX_TABLE: Final = 64
_MAX_NODE: Final = 256
_MAX_KEY: Final = 1_000
_MAX_TEXT: Final = 64_000
_KEYS: Final = frozenset(
    (
        *("action", "htname", "cname", "type", "strval", "intval", "mode", "last_modified", "removed"),
        *("count", "ours", "partial", "age"),
    )
)
_CELL_KEYS: Final = frozenset(("htname", "cname", "type", "strval", "intval", "expire"))


class HtableSet(NamedTuple):
    """
    A cell was written, or deleted by a node of ours.

    @ivar expire: seconds since the epoch; 0: as the table has it.
    @ivar last_modified: milliseconds since the epoch, 0: not told.
    @ivar by: the node that did it, where that is not the sender; empty: the sender.
    """

    table: str
    key: str
    value: CellValue
    expire: int = 0
    last_modified: int = 0
    removed: bool = False
    by: str = ""


class HtableCells(NamedTuple):
    """
    Several cells, as the answer to a sync has them.

    @ivar refused: how many could not be used, beside those.
    """

    cells: tuple[HtableSet, ...]
    refused: int = 0


class HtableExpire(NamedTuple):
    """
    A cell lives for C{seconds} from now on.
    """

    table: str
    key: str
    seconds: int


class HtableDelete(NamedTuple):
    """
    A cell was deleted.
    """

    table: str
    key: str


class HtableRemove(NamedTuple):
    """
    All cells that match were removed.
    """

    removal: CellRemoval


class HtableSync(NamedTuple):
    """
    The sender wants everything.

    @ivar table: of that table; empty: of all.
    @ivar is_ours: it is a node of ours: it has a use for deletions, and wants to hear of the end.
    """

    table: str = ""
    is_ours: bool = False


class HtableRefused(NamedTuple):
    """
    It can be read, and nothing can be done: answered with 500.
    """

    reason: str


Htable = (
    HtableSet | HtableCells | HtableExpire | HtableDelete | HtableRemove | HtableSync | SyncEnd | HtableRefused
)


# reading


def decode(body: bytes) -> Htable:
    """
    Read the JSON of one C{htable} message.

    @param body: one action, or C{{"cells": [...]}} with that as its first key; it ends at the first NUL, and what
        stands behind the document does not count.
    @raise DecodeError: not JSON, not an object or an empty one, an unknown key, or a value of the wrong kind: it is to
        be answered with 400, and nothing was applied.
    @see: WIRE §5, §7, §13
    """
    document = read(body)
    if not isinstance(document, dict) or not document:
        raise DecodeError("must be an object that is not empty")
    if next(iter(document)) == "cells":
        return _cells(document["cells"])
    unknown = next((key for key in document if key not in _KEYS), None)
    if unknown is not None:
        raise DecodeError("an unknown key")
    return _action(document)


def _action(document: Mapping[str, Any]) -> Htable:
    # Everything is read first: a wrong value is answered with 400, whatever the action.
    action = _whole(document, "action")
    table = _text(document, "htname", _MAX_TABLE)
    key = _text(document, "cname", _MAX_KEY)
    value = _value(document)
    if action == _SYNC:
        return HtableSync(table, _whole(document, "ours") == 1)
    if action == _SYNC_END:
        return SyncEnd.read(document)
    if action not in (_SET, _EXPIRE, _DELETE, _REMOVE_RE, _REMOVE_PREFIX):
        return HtableRefused("unknown action")  # Kamailio: 7 and 8, suffix and substring, too
    if not table:
        return HtableRefused("htname is missing")
    if action in (_REMOVE_RE, _REMOVE_PREFIX):
        pattern = _text(document, "strval", _MAX_TEXT)
        of_values = _whole(document, "mode") != 0
        return HtableRemove(
            CellRemoval(table, pattern, action == _REMOVE_RE, of_values, max(0, _whole(document, "last_modified")))
        )
    if not key:
        return HtableRefused("cname is missing")
    if action == _DELETE:
        return HtableDelete(table, key)
    if action == _EXPIRE:
        return HtableExpire(table, key, _clamped(_whole(document, "intval")))
    return HtableSet(table, key, value, 0, max(0, _whole(document, "last_modified")))


def _cells(members: object) -> HtableCells:
    if not isinstance(members, list):
        raise DecodeError("cells must be an array")
    found: list[HtableSet] = []
    refused = 0
    before: dict[str, Any] = {}
    for number, member in enumerate(members):
        if number >= _MAX_CELLS:
            refused += len(members) - number
            break
        try:
            if not isinstance(member, dict):
                raise DecodeError("a cell must be an object")
            # Kamailio: what one cell does not say is as in the cell before it; unknown keys are skipped.
            before.update((key, value) for key, value in member.items() if key in _CELL_KEYS)
            found.append(_cell(before, member))
        except DecodeError:
            refused += 1
    return HtableCells(tuple(found), refused)


def _cell(document: Mapping[str, Any], member: Mapping[str, Any]) -> HtableSet:
    table = _text(document, "htname", _MAX_TABLE)
    key = _text(document, "cname", _MAX_KEY)
    if not table or not key:
        raise DecodeError("htname or cname is missing")
    expire = _whole(document, "expire")
    return HtableSet(
        table,
        key,
        _value(document),
        expire if 0 < expire < 2**40 else 0,
        max(0, _whole(member, "last_modified")),
        _whole(member, "removed") != 0,
        _text(member, "by", _MAX_NODE),
    )


def _value(document: Mapping[str, Any]) -> CellValue:
    text = _text(document, "strval", _MAX_TEXT)
    number = _clamped(_whole(document, "intval"))
    return text if _whole(document, "type") & _TEXT else number


def _text(document: Mapping[str, Any], name: str, longest: int) -> str:
    value = checked(document.get(name, ""), name)
    length = len(value) if value.isascii() else len(value.encode("utf-8", "surrogateescape"))
    if length > longest:
        raise DecodeError(f"{name} is too long")
    return value


def _whole(document: Mapping[str, Any], name: str) -> int:
    """
    Kamailio: what is no number is 0 where one is expected.
    """
    value = document.get(name, 0)
    return value if type(value) is int else 0


def _clamped(number: int) -> int:
    return max(-(2**31), min(number, 2**31 - 1))


# writing


def encode_cell(cell: Cell, for_ours: bool, has_expiry: bool, by: str = "") -> bytes:
    """
    A cell, or its deletion, as the fragment of a message.

    @param for_ours: for a node of ours; else for a Kamailio.
    @param has_expiry: it has another expiry than what the table gives it from now on.
    @param by: the node that did it, where that is not this one.
    """
    table, key = encode_basestring(cell.table), encode_basestring(cell.key)
    if cell.removed and not for_ours:
        text = f'{{"action":4,"htname":{table},"cname":{key},"mode":0}}'
        return text.encode("utf-8", "surrogateescape")
    if isinstance(cell.value, str):
        value = '"type":2,"strval":' + encode_basestring("" if cell.removed else cell.value)
    else:
        value = f'"type":0,"intval":{cell.value}'
    expire = ceil(cell.expires_at) if for_ours or has_expiry else 0
    text = f'{{"htname":{table},"cname":{key},{value},"expire":{expire}'
    if for_ours:
        text += f',"last_modified":{cell.last_modified}'
        if cell.removed:
            text += ',"removed":1'
        if by:
            text += ',"by":' + encode_basestring(by)
    return (text + "}").encode("utf-8", "surrogateescape")


def encode_removal(removal: CellRemoval, for_ours: bool) -> bytes:
    """
    A removal by pattern, as a fragment that goes alone.
    """
    action = _REMOVE_RE if removal.is_regex else _REMOVE_PREFIX
    table, pattern = encode_basestring(removal.table), encode_basestring(removal.pattern)
    text = f'{{"action":{action},"htname":{table},"type":2,"strval":{pattern},"mode":{int(removal.of_values)}'
    if for_ours:
        text += f',"last_modified":{removal.last_modified}'
    return (text + "}").encode("utf-8", "surrogateescape")


def encode_sync_end(end: SyncEnd) -> bytes:
    """
    The last fragment of a sync between nodes of ours.
    """
    return end.encode(_SYNC_END)


def place_of(fragment: bytes) -> Place:
    """
    Only cells go together; a removal by pattern stands between what was put before it and what was put after it.
    """
    if fragment.startswith(b'{"htname":'):
        return Place.BESIDE
    return Place.BETWEEN if fragment.startswith((b'{"action":5,', b'{"action":6,')) else Place.ALONE


def join(fragments: Iterable[bytes]) -> bytes:
    """
    Fragments as one body. One cell that says nothing but its value has Kamailio's plain form.
    """
    parts = list(fragments)
    if len(parts) == 1:
        (part,) = parts
        if not part.startswith(b'{"htname":'):
            return part
        if part.endswith(b',"expire":0}'):
            return b'{"action":2,' + part[1 : -len(b'"expire":0}')] + b'"mode":1}'
    return b'{"cells":[' + b",".join(parts) + b"]}"
