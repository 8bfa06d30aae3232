"""
JSON as Kamailio reads and writes it, on all channels (WIRE §5). Pure.

Text is UTF-8 with surrogate escapes: bytes that are no UTF-8 go out as they came in. A string holds no C{"\\u0000"}:
Kamailio drops it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from sipdmq.errors import DecodeError

__all__ = ["ABSURD", "CONTENT_TYPE", "checked", "encoder", "read", "read_number", "read_string", "write"]

CONTENT_TYPE: Final = "application/json"
ABSURD: Final = 2**63
"""What a number too long to be read is read as: greater than all that is allowed."""
_LONGEST_NUMBER: Final = 18  # digits

encoder: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)
"""For what is put together of several texts; else see L{write}."""


def _number(text: str) -> int:
    return int(text) if len(text) <= _LONGEST_NUMBER else ABSURD


def _fraction(text: str) -> int:
    """
    Kamailio: numbers are doubles cut to whole ones, C{1.5e2} is 150.
    """
    number = float(text) if len(text) <= 2 * _LONGEST_NUMBER else float("inf")
    return int(number) if abs(number) < ABSURD else ABSURD


def _constant(text: str) -> object:
    raise DecodeError(f"{text} is no number")


_decoder: Final = json.JSONDecoder(
    parse_int=_number, parse_float=_fraction, parse_constant=_constant, strict=False
)


def read(body: bytes) -> Any:
    """
    @param body: a C string: it ends at the first NUL. What stands behind the document does not count.
    @return: of any type of JSON; all numbers are whole ones.
    @raise DecodeError: it is none.
    """
    text = body.partition(b"\0")[0].decode("utf-8", "surrogateescape").lstrip(" \t\r\n")
    try:
        return _decoder.raw_decode(text)[0]
    except (ValueError, RecursionError):
        raise DecodeError("no JSON") from None


def checked(value: object, name: str) -> str:
    """
    @param name: of a key, for the error.
    @return: a string without NULs.
    @raise DecodeError: it is none, or has half a surrogate pair: no text, while a byte that is no UTF-8, which looks
        like one, is passed on.
    """
    if not isinstance(value, str):
        raise DecodeError(f"{name} must be a string")
    if "\0" in value:
        value = value.replace("\0", "")
    if not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise DecodeError(f"{name} has half a character") from None
    return value


def read_string(document: Mapping[str, Any], name: str, longest: int) -> str:
    """
    A string that may go into a header field, where a line end would break out of it.

    @param longest: characters.
    @return: empty where the key is missing.
    @raise DecodeError: another type, too long, a control character, or no text.
    """
    value = checked(document.get(name, ""), name)
    if len(value) > longest:
        raise DecodeError(f"{name} is too long")
    if not value.isprintable() and any(character < " " or character == "\x7f" for character in value):
        raise DecodeError(f"{name} has a control character")
    return value


def read_number(document: Mapping[str, Any], name: str, least: int, greatest: int) -> int:
    """
    @return: 0 where the key is missing.
    @raise DecodeError: another type, which Kamailio would take for 0, or out of range.
    """
    value = document.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DecodeError(f"{name} must be a number")
    if not least <= value <= greatest:
        raise DecodeError(f"{name} is out of range")
    return value


def write(values: Mapping[str, object]) -> bytes:
    """
    An object, its keys in their order.
    """
    return encoder.encode(values).encode("utf-8", "surrogateescape")
