"""
Header parameters: C{;name=value} lists and quoted strings (RFC 3261 §7.3.1, §25.1 C{generic-param}).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from sipdmq.errors import ParseError
from sipdmq.sip.grammar import QUOTED_STRING, TOKEN, TOKEN_CHARS, WHITE, split_semicolons

__all__ = ["Params", "format_params", "parse_params", "quote", "unquote"]

Params = Mapping[str, "str | None"]
"""Lower-case names to raw values, quotes included; C{None} where there is no C{=}."""

_NO_PARAMS: Final[Params] = {}

# generic-param = token [ EQUAL gen-value ];  gen-value = token / host / quoted-string
# An IPv6 address comes with and without its brackets (RFC 5118 §4.5). "/" and "@" are not in the rule but in use
# (flow tokens, cookies in parameters), and do no harm.
_VALUE = rf"[{TOKEN_CHARS}\[\]:/@]+"
_VALUE_ONLY: Final = re.compile(_VALUE)
_SIMPLE: Final = re.compile(rf"(?:;[{TOKEN_CHARS}]+(?:={_VALUE})?)*")

_QUOTED_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)


def parse_params(text: str) -> Params:
    """
    Read C{*( SEMI generic-param )}.

    @param text: empty, or beginning with a semicolon.
    @raise ParseError: an empty parameter, characters outside the grammar, or a name that stands there twice.
    """
    if not text:
        return _NO_PARAMS
    if _SIMPLE.fullmatch(text):
        pieces = text[1:].split(";")
    else:
        pieces = split_semicolons(text)
        if pieces.pop(0):
            raise ParseError("Invalid Parameters")
        pieces = [_trimmed(piece) for piece in pieces]
    params: dict[str, str | None] = {}
    for piece in pieces:
        name, equals, value = piece.partition("=")
        params[name.lower()] = value if equals else None
    if len(params) != len(pieces):
        raise ParseError("Parameter Given Twice")
    return params


def _trimmed(piece: str) -> str:
    """
    One parameter without the white space that may stand around its C{=}.
    """
    name, equals, value = piece.partition("=")
    name = name.rstrip(WHITE)
    if not TOKEN.fullmatch(name):
        raise ParseError("Invalid Parameter Name")
    if not equals:
        return name
    value = value.lstrip(WHITE)
    if not _VALUE_ONLY.fullmatch(value) and not QUOTED_STRING.fullmatch(value):
        raise ParseError("Invalid Parameter Value")
    return f"{name}={value}"


def format_params(params: Params) -> str:
    """
    The inverse of L{parse_params}.
    """
    # a list, not a generator: half the price for the three or four of a Via
    return "".join([f";{name}" if value is None else f";{name}={value}" for name, value in params.items()])


def unquote(value: str) -> str:
    """
    What a quoted string says; any other value as it is.
    """
    if len(value) >= 2 and value[0] == '"' == value[-1]:
        value = value[1:-1]
        return _QUOTED_PAIR.sub(r"\1", value) if "\\" in value else value
    return value


def quote(text: str) -> str:
    """
    C{text} as a quoted string. It holds no CR or LF: those cannot be quoted.
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
