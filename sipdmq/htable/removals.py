"""
What a removal of many cells takes: those whose key or text matches.
"""

from __future__ import annotations

from collections.abc import Callable

from sipdmq.htable.patterns import MAX_PATTERN, Pattern
from sipdmq.records import Cell, CellRemoval

__all__ = ["Matcher", "matcher_of"]

Matcher = Callable[[Cell], bool]
"""Whether a cell is one of those that a L{CellRemoval} takes."""


def matcher_of(removal: CellRemoval) -> Matcher:
    """
    @raise ValueError: see L{Pattern}.
    """
    if removal.is_regex:
        matches = Pattern(removal.pattern).matches
    else:
        if len(removal.pattern) > MAX_PATTERN:
            raise ValueError(f"a prefix may have {MAX_PATTERN} characters")
        prefix = removal.pattern

        def matches(text: str) -> bool:
            return text.startswith(prefix)

    if not removal.of_values:
        return lambda cell: matches(cell.key)
    return lambda cell: isinstance(cell.value, str) and matches(cell.value)
