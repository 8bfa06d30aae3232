"""
One shared table, as policies use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from zope.interface import implementer

from sipdmq.htable.cells import check_key, check_value
from sipdmq.htable.tables import Table
from sipdmq.interfaces.tables import ITable
from sipdmq.records import CellRemoval, CellValue, Origin

if TYPE_CHECKING:
    from sipdmq.htable.service import Tables

__all__ = ["SharedTable"]


@implementer(ITable)
class SharedTable:
    """
    One table, for policies.

    @ivar name: of its section.
    """

    def __init__(self, tables: Tables, table: Table, now: Callable[[], float], node: str) -> None:
        """
        @param node: the name of this node in the keys of L{count}.
        """
        self.name = table.name
        self._tables = tables
        self._table = table
        self._now = now
        self._node = node

    def __repr__(self) -> str:
        return f"<SharedTable {self.name}: {len(self)} cells>"

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._table.find(key, self._now()) is not None

    def get(self, key: str, default: CellValue | None = None) -> CellValue | None:
        """
        See L{ITable.get}.
        """
        cell = self._table.find(key, self._now())
        if cell is not None:
            return cell.value
        initval = self._table.settings.initval
        return default if initval is None else initval

    def set(self, key: str, value: CellValue, expire: float | None = None) -> bool:
        """
        See L{ITable.set}.
        """
        change = self._table.set(check_key(key), check_value(value), self._now(), _lifetime(expire))
        if change is None:
            self._tables.complain(self.name)
            return False
        self._tables.changed(change)
        return True

    def expire(self, key: str, seconds: float) -> bool:
        """
        See L{ITable.expire}.
        """
        lifetime = _lifetime(seconds)
        assert lifetime is not None
        return self._tables.changed(self._table.expire(key, lifetime, self._now()))

    def delete(self, key: str) -> bool:
        """
        See L{ITable.delete}.
        """
        return self._tables.changed(self._table.delete(key, self._now()))

    def increment(self, key: str, by: int = 1, expire: float | None = None) -> int | None:
        """
        See L{ITable.increment}.
        """
        value = self.get(key, 0)
        if not isinstance(value, int):
            raise ValueError(f"'{key}' holds text")
        return value + by if self.set(key, value + by, expire) else None

    def count(self, key: str, by: int = 1, expire: float | None = None) -> int:
        """
        See L{ITable.count}.
        """
        own = f"{key}@{self._node}"
        cell = self._table.find(own, self._now())
        before = cell.value if cell is not None and isinstance(cell.value, int) else 0
        self.set(own, before + by, expire)
        return self.total(key)

    def total(self, key: str) -> int:
        """
        See L{ITable.total}.
        """
        now = self._now()
        found = [self._table.find(share, now) for share in self._table.shares(key)]
        return sum(cell.value for cell in found if cell is not None and isinstance(cell.value, int))

    def reset(self, key: str) -> None:
        """
        See L{ITable.reset}.
        """
        for share in self._table.shares(key):
            self.delete(share)

    def remove(
        self,
        *,
        name_re: str | None = None,
        value_re: str | None = None,
        name_prefix: str | None = None,
        value_prefix: str | None = None,
    ) -> Deferred[int]:
        """
        See L{ITable.remove}.
        """
        given = [
            CellRemoval(self.name, pattern, is_regex, of_values)
            for pattern, is_regex, of_values in (
                (name_re, True, False), (value_re, True, True), (name_prefix, False, False), (value_prefix, False, True)
            )
            if pattern is not None
        ]  # fmt: skip
        if len(given) != 1:
            raise ValueError("exactly one of name_re, value_re, name_prefix and value_prefix is to be given")
        return self._tables.remove_all(given[0], Origin.LOCAL)

    def items(self) -> Iterator[tuple[str, CellValue]]:
        """
        See L{ITable.items}.
        """
        for cell in self._table.live(self._now()):
            yield cell.key, cell.value


def _lifetime(expire: float | None) -> float | None:
    if expire is None:
        return None
    if not 0 < expire < 2**31:
        raise ValueError("a cell lives for more than 0 seconds, and less than 2^31")
    return float(expire)
