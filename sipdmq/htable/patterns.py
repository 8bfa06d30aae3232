"""
Regular expressions that cannot hang a node: POSIX extended, ignoring case, as Kamailio's C{htable} uses them. Pure.

They come over the wire, and Python's C{re} may need longer than the universe for a short one. So an expression becomes
an automaton of positions (Glushkov): each character of it is a place where a match may stand, all places at once are
the bits of one number, and each byte of a text is one step. The steps are kept in a table as they are first made, at
most L{MAX_STEPS} of them: whoever needs more is refused. So the cost of a text is its length.

Text is bytes, as in the POSIX locale that Kamailio runs in: C{.} is one byte, and only ASCII letters have two cases.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["MAX_PATTERN", "MAX_STEPS", "Pattern", "PatternTooCostlyError"]

MAX_PATTERN: Final = 256
"""Bytes of a pattern."""
MAX_POSITIONS: Final = 256
"""Characters of an expression, its repetitions counted: C{(ab){3}} has 6."""
MAX_PARTS: Final = 2_000
"""The same for all that an expression is made of: an empty group has no character, and may be repeated."""
MAX_DEPTH: Final = 30
"""Parentheses within parentheses."""
MAX_STEPS: Final = 10_000
"""Different steps in all texts together; usual expressions take some hundreds. At most a quarter of a second."""
_MAX_REPEAT: Final = 255  # RE_DUP_MAX

_ALL: Final = frozenset(range(256))
_WORD: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_BLANK: Final = frozenset(b" \t\n\r\f\v")
_CLASSES: Final = {
    b"alpha": frozenset(byte for byte in _WORD if chr(byte).isalpha()),
    b"digit": frozenset(b"0123456789"),
    b"alnum": _WORD - {ord("_")},
    b"upper": frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    b"lower": frozenset(b"abcdefghijklmnopqrstuvwxyz"),
    b"space": _BLANK,
    b"blank": frozenset(b" \t"),
    b"punct": frozenset(byte for byte in range(33, 127) if byte not in _WORD or byte == ord("_")),
    b"print": frozenset(range(32, 127)),
    b"graph": frozenset(range(33, 127)),
    b"cntrl": frozenset(range(32)) | {127},
    b"xdigit": frozenset(b"0123456789abcdefABCDEF"),
}
_ESCAPED: Final = {ord("w"): _WORD, ord("W"): _ALL - _WORD, ord("s"): _BLANK, ord("S"): _ALL - _BLANK}
_BEGIN: Final = 256
_END: Final = 257
_INTERVAL: Final = re.compile(rb"\{([0-9]{1,3})(?:(,)([0-9]{0,3}))?\}")


class PatternTooCostlyError(ValueError):
    """
    A text needs more steps than any usual expression.
    """


class _Node(NamedTuple):
    """
    A part of an expression.

    @ivar kind: C{"set"} (C{symbols}), C{"cat"} and C{"or"} (of C{parts}), C{"repeat"} (the first of C{parts}, from
        C{least} to C{most} times, -1 for without end).
    """

    kind: str
    parts: tuple[_Node, ...] = ()
    symbols: frozenset[int] = frozenset()
    least: int = 0
    most: int = -1


class _Parser:
    """
    From the text of an expression to its parts.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0

    def parse(self) -> _Node:
        """
        @raise ValueError: it is none, or has what nobody can match in bounded time (references to what was matched).
        """
        node = self._alternatives(0)
        if self._at < len(self._text):
            raise ValueError("a ')' without its '('")
        return node

    def _peek(self) -> int:
        return self._text[self._at] if self._at < len(self._text) else -1

    def _alternatives(self, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} parentheses within one another")
        branches = [self._branch(depth)]
        while self._peek() == ord("|"):
            self._at += 1
            branches.append(self._branch(depth))
        return branches[0] if len(branches) == 1 else _Node("or", tuple(branches))

    def _branch(self, depth: int) -> _Node:
        pieces = []
        while self._peek() not in (-1, ord("|"), ord(")")):
            pieces.append(self._piece(depth))
        if self._peek() == ord(")") and depth == 0:
            raise ValueError("a ')' without its '('")
        return _Node("cat", tuple(pieces))

    def _piece(self, depth: int) -> _Node:
        node = self._atom(depth)
        for _ in range(4):  # "a**" means "a*", but nobody needs a hundred of them
            found = self._peek()
            if found == ord("*"):
                node = _Node("repeat", (node,))
            elif found == ord("+"):
                node = _Node("repeat", (node,), least=1)
            elif found == ord("?"):
                node = _Node("repeat", (node,), most=1)
            else:
                interval = _INTERVAL.match(self._text, self._at)
                if interval is None:
                    return node
                least = int(interval[1])
                most = least if interval[2] is None else int(interval[3]) if interval[3] else -1
                if max(least, most) > _MAX_REPEAT or -1 < most < least:
                    raise ValueError(f"{interval[0].decode()} is no number of repetitions")
                node = _Node("repeat", (node,), least=least, most=most)
                self._at = interval.end() - 1
            self._at += 1
        raise ValueError("too many repetitions of repetitions")

    def _atom(self, depth: int) -> _Node:
        found = self._peek()
        self._at += 1
        if found == ord("("):
            node = self._alternatives(depth + 1)
            if self._peek() != ord(")"):
                raise ValueError("a '(' without its ')'")
            self._at += 1
            return node
        if found == ord("["):
            return _Node("set", symbols=self._bracket())
        if found == ord("."):
            return _Node("set", symbols=_ALL)
        if found == ord("^"):
            return _Node("set", symbols=frozenset((_BEGIN,)))
        if found == ord("$"):
            return _Node("set", symbols=frozenset((_END,)))
        if found in b"*+?":
            raise ValueError(f"nothing before '{chr(found)}' to repeat")
        if found == ord("\\"):
            found = self._peek()
            self._at += 1
            if found == -1:
                raise ValueError("a '\\' at the end")
            if found in _ESCAPED:
                return _Node("set", symbols=_ESCAPED[found])
            if found in b"123456789bB<>`'":
                raise ValueError(f"'\\{chr(found)}' is not supported")
        return _Node("set", symbols=_both_cases(frozenset((found,))))

    def _bracket(self) -> frozenset[int]:
        is_negated = self._peek() == ord("^")
        self._at += is_negated
        symbols: frozenset[int] = frozenset()
        is_first = True
        while is_first or self._peek() != ord("]"):
            if self._peek() == -1:
                raise ValueError("a '[' without its ']'")
            is_first = False
            if self._text.startswith(b"[:", self._at):
                end = self._text.find(b":]", self._at)
                named = _CLASSES.get(self._text[self._at + 2 : end]) if end > 0 else None
                if named is None:
                    raise ValueError("an unknown class in '[]'")
                symbols |= named
                self._at = end + 2
                continue
            if self._text[self._at : self._at + 2] in (b"[.", b"[="):
                raise ValueError("'[.' and '[=' are not supported")
            first = last = self._peek()
            self._at += 1
            if self._peek() == ord("-") and self._text[self._at + 1 : self._at + 2] not in (b"]", b""):
                last = self._text[self._at + 1]
                self._at += 2
                if last < first:
                    raise ValueError("a range in '[]' that runs backwards")
            symbols |= frozenset(range(first, last + 1))
        self._at += 1
        symbols = _both_cases(symbols)
        return _ALL - symbols if is_negated else symbols


def _both_cases(symbols: frozenset[int]) -> frozenset[int]:
    letters = bytes(byte for byte in symbols if byte < 128)
    return symbols | frozenset(letters.lower()) | frozenset(letters.upper())


class _Row(dict[int, "_Row"]):
    """
    Where a match may stand now, and where each next symbol leads.

    @ivar places: a bit for each position.
    """

    __slots__ = ("places",)

    def __init__(self, places: int) -> None:
        super().__init__()
        self.places = places


class _Part(NamedTuple):
    """
    @ivar first: the positions where it may begin, as bits.
    @ivar last: where it may end.
    """

    is_nullable: bool
    first: int
    last: int


class Pattern:
    """
    One expression, ready to look for matches anywhere in texts.
    """

    def __init__(self, text: str) -> None:
        """
        @raise ValueError: it is no expression that can be matched; see L{MAX_PATTERN} and so on.
        """
        raw = text.encode("utf-8", "surrogateescape")
        if len(raw) > MAX_PATTERN:
            raise ValueError(f"a pattern may have {MAX_PATTERN} bytes")
        self._symbols: list[frozenset[int]] = []
        self._follow: list[int] = []
        self._built = 0
        whole = self._build(_Parser(raw).parse())
        self._first = whole.first
        self._last = whole.last
        self._matches_all = whole.is_nullable
        self._masks = [
            sum(1 << place for place, symbols in enumerate(self._symbols) if symbol in symbols)
            for symbol in range(_END + 1)
        ]
        self._rows: dict[int, _Row] = {}
        self._found = _Row(0)
        self._begin = self._row(0)
        self._steps = 0

    def _build(self, node: _Node) -> _Part:
        self._built += 1
        if self._built > MAX_PARTS:
            raise ValueError(f"a pattern may have {MAX_PARTS} parts, repetitions counted")
        if node.kind == "set":
            if len(self._symbols) >= MAX_POSITIONS:
                raise ValueError(f"a pattern may have {MAX_POSITIONS} characters, repetitions counted")
            place = 1 << len(self._symbols)
            self._symbols.append(node.symbols)
            self._follow.append(0)
            return _Part(False, place, place)
        if node.kind == "or":
            parts = [self._build(part) for part in node.parts]
            first = last = 0
            for part in parts:
                first |= part.first
                last |= part.last
            return _Part(any(part.is_nullable for part in parts), first, last)
        whole = _Part(True, 0, 0)
        if node.kind == "cat":
            for each in node.parts:
                whole = self._join(whole, self._build(each))
            return whole
        (inner,) = node.parts
        for _ in range(node.least):
            whole = self._join(whole, self._build(inner))
        if node.most < 0:
            part = self._build(inner)
            self._lead(part.last, part.first)
            return self._join(whole, part._replace(is_nullable=True))
        for _ in range(node.most - node.least):
            whole = self._join(whole, self._build(inner)._replace(is_nullable=True))
        return whole

    def _lead(self, last: int, first: int) -> None:
        for place in _bits(last):
            self._follow[place] |= first

    def _join(self, one: _Part, other: _Part) -> _Part:
        self._lead(one.last, other.first)
        return _Part(
            one.is_nullable and other.is_nullable,
            one.first | (other.first if one.is_nullable else 0),
            other.last | (one.last if other.is_nullable else 0),
        )

    def _row(self, places: int) -> _Row:
        row = self._rows.get(places)
        if row is None:
            row = self._rows[places] = _Row(places)
        return row

    def _step(self, row: _Row, symbol: int) -> _Row:
        if self._steps >= MAX_STEPS:
            raise PatternTooCostlyError("the pattern takes too long")
        self._steps += 1
        reached = self._first  # a match may begin anywhere
        for place in _bits(row.places):
            reached |= self._follow[place]
        reached &= self._masks[symbol]
        following = row[symbol] = self._found if reached & self._last else self._row(reached)
        return following

    def matches(self, text: str) -> bool:
        """
        Whether a text has a match in it.

        @raise PatternTooCostlyError: see L{MAX_STEPS}.
        """
        if self._matches_all:
            return True
        row, found = self._begin, self._found
        following = row.get(_BEGIN)
        row = self._step(row, _BEGIN) if following is None else following
        for symbol in text.encode("utf-8", "surrogateescape"):
            if row is found:
                return True
            following = row.get(symbol)
            row = self._step(row, symbol) if following is None else following
        if row is not found:
            following = row.get(_END)
            row = self._step(row, _END) if following is None else following
        return row is found


def _bits(number: int) -> list[int]:
    """
    The places of the bits that are set.
    """
    places = []
    while number:
        lowest = number & -number
        places.append(lowest.bit_length() - 1)
        number ^= lowest
    return places
