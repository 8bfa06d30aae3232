"""
Compiled patterns under the rule names of RFC 3261 §25.1, each with its ABNF above it.

Text here is what a message's bytes give when decoded as UTF-8 with C{surrogateescape}: bytes that are no UTF-8 become
lone surrogates and are written back as they came. C{str.isdigit}, C{str.strip} and C{\\s} accept far more than SIP does
in such text, so none of them is used on it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from sipdmq.errors import ParseError

__all__ = [
    "CALLID",
    "FOLD",
    "HOST",
    "MAX_CSEQ",
    "MAX_DELTA_SECONDS",
    "QUOTED_STRING",
    "TOKEN",
    "TOKEN_CHARS",
    "WHITE",
    "parse_number",
    "split_commas",
    "split_semicolons",
]

WHITE: Final = " \t"
"""What LWS is made of once folded lines are joined."""

# token = 1*(alphanum / "-" / "." / "!" / "%" / "*" / "_" / "+" / "`" / "'" / "~" )
TOKEN_CHARS: Final = r"A-Za-z0-9\-.!%*_+`'~"
TOKEN: Final = re.compile(rf"[{TOKEN_CHARS}]+")

# LWS = [*WSP CRLF] 1*WSP, from its CRLF on: blanks before it stay, so that the search is linear
FOLD: Final = re.compile(r"\r\n[ \t]+")

# quoted-string = SWS DQUOTE *(qdtext / quoted-pair ) DQUOTE
# quoted-pair   = "\" (%x00-09 / %x0B-0C / %x0E-7F)
QUOTED_STRING: Final = re.compile(r'"(?:[^"\\\r\n]|\\[\x00-\x09\x0b\x0c\x0e-\x7f])*"')

# callid = word [ "@" word ]
_WORD = r"[A-Za-z0-9\-.!%*_+`'~()<>:\\\"/\[\]?{}]+"
CALLID: Final = re.compile(rf"{_WORD}(?:@{_WORD})?")

# host          = hostname / IPv4address / IPv6reference
# IPv6reference = "[" IPv6address "]"
# The underscore is no part of the rule, but of many a host name in use. An empty label, as in "a..b", is refused.
HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_\-]|\.(?!\.))*|\[[0-9A-Fa-f:.]+\]")

MAX_CSEQ: Final = 2**31 - 1
"""RFC 3261 §8.1.1.5: the sequence number is less than 2**31."""

MAX_DELTA_SECONDS: Final = 2**32 - 1
"""RFC 3261 §20.19: between 0 and (2**32)-1."""

# What may stand in a comma or semicolon separated list and hide a separator.
_LIST_PART = re.compile(r'"(?:[^"\\]|\\.)*"|<[^>]*>|[,;"<]', re.DOTALL)


def parse_number(text: str, limit: int, what: str) -> int:
    """
    Read C{1*DIGIT}; leading zeros are allowed.

    @param text: without white space around it.
    @param limit: the greatest value allowed.
    @param what: the name of the field, for the error.
    @raise ParseError: not digits, or greater than C{limit}.
    """
    # Eleven digits hold any limit that SIP knows; what is longer may only be so by leading zeros.
    if len(text) > 11:
        text = text[:-11].lstrip("0") + text[-11:]
        if len(text) > 11:
            raise ParseError(f"Invalid {what}")
    return _read_number(text, limit, what)


@lru_cache(maxsize=1024)
def _read_number(text: str, limit: int, what: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ParseError(f"Invalid {what}")
    number = int(text)
    if number > limit:
        raise ParseError(f"{what} Out Of Range")
    return number


def _split(value: str, separator: str) -> list[str]:
    parts = []
    start = 0
    for match in _LIST_PART.finditer(value):
        part = match.group()
        if part == separator:
            parts.append(value[start : match.start()].strip(WHITE))
            start = match.end()
        elif part in ('"', "<"):
            raise ParseError("Unbalanced Quote Or Bracket")
    parts.append(value[start:].strip(WHITE))
    return parts


def split_commas(value: str) -> list[str]:
    """
    The values of a header field that is a comma-separated list; commas in quoted strings and in C{<>} do not count.

    @raise ParseError: an empty value, or a quote or bracket that is not closed.
    @see: RFC 3261 §7.3.1
    """
    parts = _split(value, ",") if "," in value else [value.strip(WHITE)]
    if "" in parts:
        raise ParseError("Empty List Element")
    return parts


def split_semicolons(value: str) -> list[str]:
    """
    The pieces between semicolons; those in quoted strings and in C{<>} do not count. Pieces may be empty.

    @raise ParseError: a quote or bracket is not closed.
    """
    return _split(value, ";")
