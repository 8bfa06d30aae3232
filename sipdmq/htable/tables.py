"""
The cells of one table: what a write makes of them, which of two writes counts, and when they expire. Pure: driven by
what happens and by C{now}.

Nodes that have heard the same writes of one another, in whatever order, have the same cells: of each key the greatest
by L{rank} is kept, deletions included, and that is a total order. A write of this node follows what it has seen,
whatever its clock says. A Kamailio does not tell when it wrote; what it says counts at once, and gets the least
C{last_modified} by which it follows what was there, which is the same on every node that had the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from sipdmq.htable.cells import Cells
from sipdmq.htable.removals import Matcher
from sipdmq.records import Cell, CellChange, CellRemoval, CellValue, Origin

__all__ = ["CLOCK_ERROR", "Table", "TableSettings", "rank"]

CLOCK_ERROR: Final = 86_400
"""Seconds that C{last_modified} of another node may lie ahead of our clock; more is refused, or it could never be
overwritten."""
_KEPT_REMOVALS: Final = 16


class TableSettings(NamedTuple):
    """
    C{[htable NAME]}, and what is left of deleted cells.

    @ivar autoexpire: seconds, 0 for never.
    @ivar updateexpire: whether a write without an own expiry begins C{autoexpire} anew.
    @ivar initval: what a cell that is not there counts as; L{None}: nothing.
    @ivar cells: live ones at most; as many deletions are remembered.
    @ivar size: bytes of all together.
    @ivar forget_after: seconds for which a deletion is remembered; 0: not at all.
    """

    autoexpire: int = 0
    updateexpire: bool = True
    initval: int | None = None
    cells: int = 100_000
    size: int = 64 * 2**20
    forget_after: float = 0


def rank(cell: Cell) -> tuple[int, bool, bool, CellValue]:
    """
    The place of a cell among all that were ever written under its key.
    """
    value = 0 if cell.removed else cell.value
    return (cell.last_modified, cell.removed, isinstance(value, str), value)


class Table:
    """
    One table. A change is returned, for whoever wants to hear of it; L{None} where nothing changed.

    @ivar floor: what is written from now on is later than this: milliseconds since the epoch.
    """

    def __init__(self, name: str, settings: TableSettings) -> None:
        self.name = name
        self.settings = settings
        self._cells = Cells(settings.cells, settings.size)
        self.floor = 0
        self.removals: deque[tuple[CellRemoval, Matcher]] = deque(maxlen=_KEPT_REMOVALS)

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def size(self) -> int:
        """
        Bytes, all counted.
        """
        return self._cells.size

    @property
    def tombstones(self) -> int:
        """
        Deletions that are remembered.
        """
        return self._cells.tombstones

    # reading

    def find(self, key: str, now: float) -> Cell | None:
        """
        The live cell of a key.
        """
        cell = self._cells.get(key)
        if cell is None or cell.removed or 0 < cell.expires_at <= now:
            return None
        return cell

    def stored(self, key: str) -> Cell | None:
        """
        What is known of a key, a deletion, too.
        """
        return self._cells.get(key)

    def keys(self) -> list[str]:
        """
        All keys of which something is known.
        """
        return self._cells.keys()

    def live(self, now: float) -> Iterator[Cell]:
        """
        All cells, each as it is at its turn.
        """
        for key in self._cells.keys():  # noqa: SIM118 - a list of its own, which no change disturbs
            cell = self.find(key, now)
            if cell is not None:
                yield cell

    def shares(self, key: str) -> list[str]:
        """
        The keys of the cells that nodes have for a counter.
        """
        return self._cells.shares(key)

    # this node's own writes

    def _stamp(self, previous: Cell | None, now: float) -> int:
        last = 0 if previous is None else previous.last_modified
        return max(int(now * 1000), last + 1, self.floor + 1)

    def set(self, key: str, value: CellValue, now: float, expire: float | None = None) -> CellChange | None:
        """
        Write a cell here.

        @param expire: seconds; L{None}: as the table has it.
        @return: L{None}: the table is full.
        """
        previous = self._cells.get(key)
        expires_at = self._expiry(previous, now) if expire is None else now + expire
        return self._put(Cell(self.name, key, value, expires_at, self._stamp(previous, now)), Origin.LOCAL, now)

    def expire(self, key: str, seconds: float, now: float) -> CellChange | None:
        """
        Let a live cell live so long from now on.
        """
        found = self.find(key, now)
        return None if found is None else self.set(key, found.value, now, seconds)

    def delete(self, key: str, now: float) -> CellChange | None:
        """
        Delete a live cell here.
        """
        found = self.find(key, now)
        if found is None:
            return None
        gone = found._replace(
            removed=True,
            told_by="",
            expires_at=now + self.settings.forget_after,
            last_modified=self._stamp(found, now),
        )
        return self._put(gone, Origin.LOCAL, now)

    def clear(self) -> int:
        """
        Forget all cells, and leave no trace of them.

        @return: how many there were.
        """
        count = len(self)
        for key in self._cells.keys():  # noqa: SIM118
            self._cells.drop(key)
        return count

    # writes of other nodes

    def merge(self, incoming: Cell, now: float) -> tuple[CellChange | None, bool]:
        """
        What a node of ours tells: the later write counts.

        @param incoming: with its C{last_modified}; C{expires_at} 0: as the table has it.
        @return: the change, and whether it could be considered at all: not if its time is absurd, or the table full.
        """
        if not 0 < incoming.last_modified <= (now + CLOCK_ERROR) * 1000:
            return None, False
        previous = self._cells.get(incoming.key)
        if previous is not None and rank(incoming) <= rank(previous):
            return None, True
        if not incoming.removed:
            if self._was_removed(incoming):
                return None, True
            if not incoming.expires_at:
                incoming = incoming._replace(expires_at=self._expiry(previous, now))
        if incoming.removed or 0 < incoming.expires_at <= now:
            # What has expired on its way is as good as deleted: an older write must not take its place.
            incoming = incoming._replace(removed=True, expires_at=now + self.settings.forget_after)
        change = self._put(incoming, Origin.REPLICATED, now)
        return change, change is not None

    def write(
        self,
        key: str,
        value: CellValue,
        told_by: str,
        expires_at: float | None,
        now: float,
        only_foreign: bool = False,
    ) -> tuple[CellChange | None, bool]:
        """
        What somebody tells who does not say when he wrote it: it counts.

        @param only_foreign: unless the cell was last changed here.
        @return: as L{merge}.
        """
        previous = self._cells.get(key)
        if only_foreign and previous is not None and not previous.told_by:
            return None, True
        if expires_at is None or expires_at <= now:
            expires_at = self._expiry(previous, now)
        cell = Cell(self.name, key, value, expires_at, self._after(previous), False, told_by)
        if previous is not None and not previous.removed and previous[2:4] == cell[2:4]:
            return None, True  # told once more
        change = self._put(cell, Origin.REPLICATED, now)
        return change, change is not None

    def _after(self, previous: Cell | None) -> int:
        return max(0 if previous is None else previous.last_modified, self.floor) + 1

    def expire_at(self, key: str, expires_at: float | None, told_by: str, now: float) -> CellChange | None:
        """
        Somebody else says how long a live cell lives.
        """
        found = self.find(key, now)
        if found is None:
            return None
        if expires_at is None or expires_at <= now:
            expires_at = self._expiry(None, now)
        return self._put(found._replace(expires_at=expires_at, told_by=told_by), Origin.REPLICATED, now)

    def forget(self, key: str, told_by: str, now: float) -> CellChange | None:
        """
        Somebody who does not say when has deleted a cell.
        """
        found = self.find(key, now)
        if found is None:
            return None
        gone = found._replace(
            removed=True,
            told_by=told_by,
            expires_at=now + self.settings.forget_after,
            last_modified=self._after(found),
        )
        return self._put(gone, Origin.REPLICATED, now)

    # removals by pattern

    def begin_removal(self, removal: CellRemoval, matcher: Matcher, now: float) -> CellRemoval:
        """
        All that matches, and was written up to now, is to go: it is remembered, so that none of it comes back by a
        message that is late. The cells themselves are taken by L{take}.

        @param removal: C{last_modified} 0: now.
        @return: with its time.
        """
        at = removal.last_modified
        if not 0 < at <= (now + CLOCK_ERROR) * 1000:
            at = max(int(now * 1000), self._cells.highest, self.floor)
        removal = removal._replace(last_modified=at)
        self.floor = max(self.floor, at)
        self.removals.append((removal, matcher))
        return removal

    def take(self, key: str, removal: CellRemoval, now: float) -> bool:
        """
        Remove a cell that matches, unless it was written later.

        @return: whether there was one.
        """
        found = self.find(key, now)
        if found is None or found.last_modified > removal.last_modified:
            return False
        self._put(
            found._replace(
                removed=True,
                told_by=removal.told_by,
                expires_at=now + self.settings.forget_after,
                last_modified=removal.last_modified,
            ),
            Origin.REPLICATED if removal.told_by else Origin.LOCAL,
            now,
        )
        return True

    def _was_removed(self, incoming: Cell) -> bool:
        if incoming.last_modified > self.floor:
            return False
        return any(
            incoming.last_modified <= removal.last_modified and matcher(incoming)
            for removal, matcher in self.removals
        )

    # time

    def _expiry(self, previous: Cell | None, now: float) -> float:
        settings = self.settings
        keeps = previous is not None and not settings.updateexpire and not previous.removed
        if previous is not None and keeps and not 0 < previous.expires_at <= now:
            return previous.expires_at
        return now + settings.autoexpire if settings.autoexpire else 0.0

    def due(self, now: float) -> Iterator[CellChange]:
        """
        Take the cells whose time is over. Deletions that were remembered long enough go without a word.
        """
        for cell in self._cells.due(now):
            if not cell.removed:
                yield CellChange(cell, cell, Origin.EXPIRED)

    def next_at(self) -> float | None:
        """
        When L{due} is to be called: seconds since the epoch; L{None}: nothing expires.
        """
        return self._cells.next_at()

    def _put(self, cell: Cell, origin: Origin, now: float) -> CellChange | None:
        previous = self._cells.get(cell.key)
        if cell.removed and (not self.settings.forget_after or not self.settings.cells):
            if previous is not None:
                self._cells.drop(cell.key)
            return CellChange(cell, previous, origin)
        cell = cell._replace(changed_at=now)
        return CellChange(cell, previous, origin) if self._cells.put(cell) else None
