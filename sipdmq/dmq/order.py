"""
The order in which the records of one contact stand: a total one, the same on every node. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from sipdmq.records import Binding

__all__ = ["Encode", "compare", "is_removal", "rank"]

Encode = Callable[[Binding], bytes]
"""A record as all nodes write it, whatever else they know of it: the last thing that the order looks at."""

BriefRank = tuple[int, str, int, bool, int, str]
Rank = tuple[int, str, int, bool, int, str, bytes]


def is_removal(record: Binding) -> bool:
    """
    Whether a record says that its contact is gone; one that is only hidden does not.
    """
    return record.removed and not record.is_hidden


def rank(record: Binding, encode: Encode) -> Rank:
    """
    The place of a record in the order of its identity. Two removals that differ only in how the record was named, or
    in what was known of it, are the same.
    """
    return (*_brief_rank(record), b"" if is_removal(record) else encode(record))


def _brief_rank(record: Binding) -> BriefRank:
    is_gone = is_removal(record)
    return (
        record.last_modified,
        record.call_id,
        record.cseq,
        is_gone,
        record.server_id,
        "" if is_gone else record.ruid,
    )


def compare(one: Binding, other: Binding, encode: Encode) -> int:
    """
    As L{rank}, the encoding made only where it decides.

    @return: less than 0, 0, greater than 0.
    """
    first: tuple[object, ...] = _brief_rank(one)
    second: tuple[object, ...] = _brief_rank(other)
    if first == second:
        if first[3]:
            return 0
        first, second = (encode(one),), (encode(other),)
    return (first > second) - (first < second)
