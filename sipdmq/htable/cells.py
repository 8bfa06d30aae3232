"""
The cells of one table as they lie in memory: within bounds, by key, by counter and by the second in which they expire.
Nothing ever scans the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from math import ceil
from typing import Final

from sipdmq.records import Cell, CellValue

__all__ = ["Cells", "check_key", "check_value"]

MAX_KEY: Final = 1_000
MAX_VALUE: Final = 58_000
"""Bytes: what fits into one message among nodes of ours."""
_OVERHEAD: Final = 400
"""Bytes to count for a cell beside its key and text: what Python needs to hold it."""
_SPARE_SECONDS: Final = 64
"""Empty buckets that may stand among the others, beside as many as there are of these."""


def check_key(key: object) -> str:
    """
    @raise TypeError: it is no C{str}.
    @raise ValueError: it is empty, too long, or no text.
    """
    if not isinstance(key, str):
        raise TypeError(f"a key must be a str, not {type(key).__name__}")
    if not 0 < _length(key) <= MAX_KEY:
        raise ValueError(f"a key must have 1 to {MAX_KEY} bytes")
    return key


def check_value(value: object) -> CellValue:
    """
    @raise TypeError: it is neither C{int} nor C{str}.
    @raise ValueError: it does not fit.
    """
    if isinstance(value, str):
        if _length(value) > MAX_VALUE:
            raise ValueError(f"a value may have {MAX_VALUE} bytes")
        return value
    if not isinstance(value, int):
        raise TypeError(f"a value must be an int or a str, not {type(value).__name__}")
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"{value} needs more than 32 bits")
    return int(value)


def _length(text: str) -> int:
    """
    Bytes; of text that is not UTF-8 with surrogate escapes a ValueError.
    """
    if "\0" in text:
        raise ValueError("a table holds no NUL: Kamailio would cut the text there")
    return len(text.encode("utf-8", "surrogateescape"))


def _shared_key(key: str) -> str:
    """
    What a cell counts for together with those of other nodes: C{"x"} of C{"x@192.0.2.1:5060"}; empty: for itself.
    """
    base, _, node = key.rpartition("@")
    return base if node and node[-1].isdigit() and ":" in node else ""


def _size_of(cell: Cell) -> int:
    return len(cell.key) + (len(cell.value) if isinstance(cell.value, str) else 0) + _OVERHEAD


class Cells:
    """
    Live cells, and deletions that are remembered. These make room for live ones, the oldest first.

    @ivar size: bytes, all counted.
    @ivar highest: the greatest C{last_modified} that there ever was.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        """
        @param most: live ones, and as many deletions.
        @param most_bytes: of all together.
        """
        self._most = most
        self._most_bytes = most_bytes
        self._cells: dict[str, Cell] = {}
        self._tombstones: dict[str, None] = {}  # the oldest first
        self._shares: dict[str, dict[str, None]] = {}  # of each counter, the keys of the nodes
        self._buckets: dict[int, dict[str, None]] = {}
        self._seconds: list[int] = []  # a heap of the buckets
        self.size = 0
        self.highest = 0

    def __len__(self) -> int:
        """
        The live ones.
        """
        return len(self._cells) - len(self._tombstones)

    @property
    def tombstones(self) -> int:
        """
        Deletions that are remembered.
        """
        return len(self._tombstones)

    def get(self, key: str) -> Cell | None:
        """
        What is known of a key, a deletion, too.
        """
        return self._cells.get(key)

    def keys(self) -> list[str]:
        """
        All keys of which something is known.
        """
        return list(self._cells)

    def shares(self, key: str) -> list[str]:
        """
        The keys of the cells that nodes have for a counter.
        """
        return list(self._shares.get(key, ()))

    def put(self, cell: Cell) -> bool:
        """
        Store a cell in place of the one of its key.

        @return: whether there was room; there is for a deletion, which may be forgotten at once.
        """
        previous = self._cells.get(cell.key)
        size = _size_of(cell)
        if not cell.removed and not self._has_room(cell, previous, size):
            return False
        if previous is not None:
            self.drop(cell.key)
        self._cells[cell.key] = cell
        self.size += size
        self.highest = max(self.highest, cell.last_modified)
        if cell.removed:
            self._tombstones[cell.key] = None
        else:
            share = _shared_key(cell.key)
            if share:
                self._shares.setdefault(share, {})[cell.key] = None
        if cell.expires_at:
            self._expect(cell)
        if cell.removed and (len(self._tombstones) > self._most or self.size > self._most_bytes):
            self.drop(next(iter(self._tombstones)))  # perhaps this very one
        return True

    def _has_room(self, cell: Cell, previous: Cell | None, size: int) -> bool:
        growth = size - (0 if previous is None else _size_of(previous))
        while self._tombstones and self.size + growth > self._most_bytes:
            oldest = next(iter(self._tombstones))
            if oldest == cell.key:
                break
            self.drop(oldest)
        is_new = previous is None or previous.removed
        return not (is_new and len(self) >= self._most) and self.size + growth <= self._most_bytes

    def drop(self, key: str) -> Cell:
        """
        Forget a cell that is there.
        """
        cell = self._cells.pop(key)
        self.size -= _size_of(cell)
        if cell.removed:
            self._tombstones.pop(key, None)
        else:
            share = _shared_key(key)
            if share and share in self._shares:
                self._shares[share].pop(key, None)
                if not self._shares[share]:
                    del self._shares[share]
        if cell.expires_at:
            self._expect_no_more(cell)
        return cell

    # time

    def _expect(self, cell: Cell) -> None:
        second = ceil(cell.expires_at)
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = {}
            heappush(self._seconds, second)
        bucket[cell.key] = None

    def _expect_no_more(self, cell: Cell) -> None:
        second = ceil(cell.expires_at)
        bucket = self._buckets.get(second)
        if bucket is None:
            return
        bucket.pop(cell.key, None)
        if not bucket:
            del self._buckets[second]
            if len(self._seconds) > 2 * len(self._buckets) + _SPARE_SECONDS:
                self._seconds = list(self._buckets)
                heapify(self._seconds)

    def due(self, now: float) -> Iterator[Cell]:
        """
        Take what expires up to now, deletions that were remembered long enough, too.
        """
        while self._seconds and self._seconds[0] <= now:
            second = self._seconds[0]
            for key in list(self._buckets.get(second, ())):
                yield self.drop(key)
            if self._seconds and self._seconds[0] == second and second not in self._buckets:
                heappop(self._seconds)

    def next_at(self) -> float | None:
        """
        When L{due} is to be called: seconds since the epoch; L{None}: nothing expires.
        """
        return self._seconds[0] if self._seconds else None
