"""
The header fields of one message: ordered, each line kept as it came, looked up by name.
"""

from __future__ import annotations

from collections.abc import Iterator, KeysView
from typing import Final

from sipdmq.errors import ParseError
from sipdmq.sip.grammar import FOLD, TOKEN, WHITE

__all__ = ["USUAL_KEYS", "Headers", "format_line", "header_key", "unfold"]

# RFC 3261 §7.3.3 and the IANA registry of compact forms
_COMPACT: Final = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "d": "request-disposition",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "n": "identity-info",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
    "y": "identity",
}

USUAL_KEYS: Final = {
    name: name.lower()
    for name in (
        "Via From To Call-ID CSeq Contact Max-Forwards Content-Length Content-Type Expires User-Agent Server Allow "
        "Supported Require Proxy-Require Route Record-Route Path Authorization Proxy-Authorization Event Accept Date "
        "WWW-Authenticate Proxy-Authenticate Subscription-State SIP-ETag SIP-If-Match Min-Expires Unsupported Subject "
        "Call-Id Cseq Max-Breadth"
    ).split()
} | _COMPACT
"""
The spellings that nearly every message uses, with their L{header_key}s: one look-up does for them.
"""


def header_key(name: str) -> str:
    """
    The name by which a header field is looked up: long form, lower case.

    @param name: as received; white space before the colon may still be there.
    @raise ParseError: it is no token.
    """
    key = USUAL_KEYS.get(name)
    if key is None:
        name = name.rstrip(WHITE)
        if not TOKEN.fullmatch(name):
            raise ParseError("Invalid Header Name")
        key = name.lower()
        key = _COMPACT.get(key, key)
    return key


def unfold(value: str) -> str:
    """
    A value without its line folds: each becomes one space (RFC 3261 §7.3.1).
    """
    return FOLD.sub(" ", value) if "\r" in value else value


class Headers:
    """
    The fields of a message in their order.

    Each line is kept as it was received or shall be written, without its CRLF, with folds; beside it stands its key
    (L{header_key}). So what is not touched is written back byte for byte. Values are looked up unfolded, without
    white space around them.

    @ivar first: the value of the first line of each key. The cheapest way to read one; not to be changed.
    """

    __slots__ = ("_keys", "_lines", "first")

    def __init__(
        self,
        keys: list[str] | None = None,
        lines: list[str] | None = None,
        first: dict[str, str] | None = None,
    ) -> None:
        """
        @param keys: the key of each line; all of these become ours.
        @param lines: as many lines.
        @param first: the value of the first line of each key, if the caller has them already.
        """
        self._keys: list[str] = [] if keys is None else keys
        self._lines: list[str] = [] if lines is None else lines
        if first is None:
            first = {}
            for key, line in zip(self._keys, self._lines):
                if key not in first:
                    first[key] = _value(line)
        self.first: dict[str, str] = first

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """
        The C{(key, line)} pairs.
        """
        return zip(self._keys, self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, key: str) -> bool:
        return key in self.first

    def keys(self) -> KeysView[str]:
        """
        The keys that are there.
        """
        return self.first.keys()

    def lines(self) -> list[str]:
        """
        The lines in order, without CRLF at the end; not to be changed.
        """
        return self._lines

    def lines_of(self, key: str) -> list[str]:
        """
        The lines of one field in order, for copying it to another message.
        """
        return [line for field, line in zip(self._keys, self._lines) if field == key]

    def copy(self) -> Headers:
        """
        An independent copy.
        """
        return Headers(self._keys.copy(), self._lines.copy(), self.first.copy())

    def get(self, key: str) -> str | None:
        """
        The value of the first line with this key, or C{None}.

        @param key: long form, lower case.
        """
        return self.first.get(key)

    def get_all(self, key: str) -> list[str]:
        """
        The values of all lines with this key, in order; commas are not split.
        """
        value = self.first.get(key)
        if value is None:
            return []
        if self._keys.count(key) == 1:
            return [value]
        return [_value(line) for line in self.lines_of(key)]

    def is_repeated(self, key: str) -> bool:
        """
        Whether more than one line has this key.
        """
        return self._keys.count(key) > 1

    def surplus_of(self, key: str) -> int:
        """
        How many lines with this key there are besides the first one.
        """
        return self._keys.count(key) - 1 if key in self.first else 0

    def add(self, name: str, value: str) -> None:
        """
        Append a field.

        @raise ValueError: a line break in C{value}, which would begin a field of its own.
        """
        self.add_line(header_key(name), format_line(name, value))

    def add_line(self, key: str, line: str) -> None:
        """
        Append a line, perhaps of another message.
        """
        self._keys.append(key)
        self._lines.append(line)
        if key not in self.first:
            self.first[key] = _value(line)

    def prepend(self, name: str, value: str) -> None:
        """
        Put a field before all others of its name, on top when there is none.
        """
        key = header_key(name)
        at = self._keys.index(key) if key in self._keys else 0
        self._keys.insert(at, key)
        self._lines.insert(at, format_line(name, value))
        self.first[key] = value

    def replace(self, name: str, value: str) -> None:
        """
        Put C{value} where the first line of this name stands, remove its other lines; append when there is none.
        """
        key = header_key(name)
        line = format_line(name, value)
        if key not in self.first:
            self._keys.append(key)
            self._lines.append(line)
        else:
            at = self._keys.index(key)
            if self._keys.count(key) > 1:
                self.remove(key)
                self._keys.insert(at, key)
                self._lines.insert(at, line)
            else:
                self._lines[at] = line
        self.first[key] = value

    def replace_first(self, name: str, value: str) -> None:
        """
        Put C{value} where the first line of this name stands, leave its other lines.

        @raise ValueError: there is none.
        """
        key = header_key(name)
        self._lines[self._keys.index(key)] = format_line(name, value)
        self.first[key] = value

    def replace_lines(self, key: str, lines: list[str]) -> None:
        """
        Put other lines where those with this key stand.

        @param lines: as many as there are, not empty.
        """
        rest = iter(lines)
        self._lines = [next(rest) if field == key else line for field, line in self]
        self.first[key] = _value(lines[0])

    def remove_first(self, key: str) -> None:
        """
        Remove the first line with this key, leave the others.

        @raise ValueError: there is none.
        """
        at = self._keys.index(key)
        del self._keys[at], self._lines[at]
        if key in self._keys:
            self.first[key] = _value(self._lines[self._keys.index(key)])
        else:
            del self.first[key]

    def remove(self, key: str) -> None:
        """
        Remove all lines with this key.
        """
        if key not in self.first:
            return
        kept = [(field, line) for field, line in self if field != key]
        self._keys = [field for field, _ in kept]
        self._lines = [line for _, line in kept]
        self.first.pop(key, None)


def format_line(name: str, value: str) -> str:
    """
    C{name: value}.

    @raise ValueError: a line break in C{value}.
    """
    if "\r" in value or "\n" in value:
        raise ValueError(f"line break in the value of {name}")
    return f"{name}: {value}"


def _value(line: str) -> str:
    return unfold(line[line.index(":") + 1 :]).strip(WHITE)
