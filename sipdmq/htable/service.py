"""
The shared tables at work: what policies use, what other nodes tell, expiry, and who hears of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from zope.interface import implementer

from sipdmq.config import HtableConfig
from sipdmq.core.complaints import Complaints
from sipdmq.errors import CommandError
from sipdmq.htable.commands import TableCommands
from sipdmq.htable.removals import Matcher, matcher_of
from sipdmq.htable.tables import Table, TableSettings
from sipdmq.htable.view import SharedTable
from sipdmq.interfaces.inspection import ICommands, IInspectable
from sipdmq.interfaces.tables import ITableListener, ITables
from sipdmq.records import Cell, CellChange, CellRemoval, CellValue, Origin

__all__ = ["Tables"]

log = Logger()

SCAN_CELLS: Final = 200
SCAN_BYTES: Final = 20_000
"""Cells, or bytes of what is looked at, that a removal goes through at once: a few milliseconds."""
SCAN_PAUSE: Final = 0.001
"""Seconds in between, at least."""
EXPIRY_TURN: Final = 500
"""Cells that expire at once; the others of that second a moment later."""


@implementer(ITables, ICommands, IInspectable)
class Tables:
    """
    All tables of a node.
    """

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        configs: Mapping[str, HtableConfig],
        node: str,
        forget_after: float = 0,
    ) -> None:
        """
        @param now: the time, seconds since the epoch; it must never jump.
        @param configs: by the names of the tables.
        @param node: the address and port of this node, C{"192.0.2.1:5060"}.
        @param forget_after: seconds for which the deletions of tables that are shared are remembered; 0 where there is
            no cluster.
        """
        self._clock = IReactorTime(clock)
        self._now = now
        self._configs = dict(configs)
        self._tables: dict[str, Table] = {}
        self._views: dict[str, SharedTable] = {}
        for name, config in self._configs.items():
            remembered = forget_after if config.dmqreplicate else 0
            table = self._tables[name] = Table(
                name,
                TableSettings(
                    config.autoexpire,
                    config.updateexpire,
                    config.initval,
                    config.max_cells,
                    config.max_bytes,
                    remembered,
                ),
            )
            self._views[name] = SharedTable(self, table, now, node)
        self._listeners: list[ITableListener] = []
        self._call: IDelayedCall | None = None
        self._call_at = 0.0
        # One step in each turn: SIP is served in between.
        self._cooperator = Cooperator(
            scheduler=lambda work: self._clock.callLater(SCAN_PAUSE, work),
            terminationPredicateFactory=lambda: lambda: True,
        )
        self._refused = 0
        self._complaints = Complaints(self._clock.seconds)

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        numbers: dict[str, int | float] = {"htable.refused": self._refused}
        for name, table in self._tables.items():
            numbers[f"htable.{name}.cells"] = len(table)
            numbers[f"htable.{name}.bytes"] = table.size
            numbers[f"htable.{name}.tombstones"] = table.tombstones
        return numbers

    def commands(self) -> dict[str, Callable[..., Any]]:
        """
        See L{ICommands.commands}: those of Kamailio's module C{htable}.
        """
        return TableCommands(self._configs, self._views, self._find, self._flush).all()

    def _find(self, name: str, key: str) -> Cell | None:
        return self._tables[name].find(key, self._now())

    def _flush(self, name: str) -> None:
        if name not in self._tables:
            raise CommandError(500, "No such htable")
        self._tables[name].clear()

    def stop(self) -> None:
        """
        No more timers.
        """
        self._cooperator.stop()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    # ITables

    def __getitem__(self, name: str) -> SharedTable:
        return self._views[name]

    def names(self) -> tuple[str, ...]:
        """
        See L{ITables.names}.
        """
        return tuple(self._tables)

    def is_shared(self, name: str) -> bool:
        """
        See L{ITables.is_shared}.
        """
        config = self._configs.get(name)
        return config is not None and config.dmqreplicate

    def autoexpire(self, name: str) -> int:
        """
        See L{ITables.autoexpire}.
        """
        return self._configs[name].autoexpire

    def watch(self, listener: ITableListener) -> None:
        """
        See L{ITables.watch}.
        """
        self._listeners.append(ITableListener(listener))

    def stored(self, table: str, key: str) -> Cell | None:
        """
        See L{ITables.stored}.
        """
        return self._tables[table].stored(key)

    def keys(self, table: str) -> list[str]:
        """
        See L{ITables.keys}.
        """
        return self._tables[table].keys()

    def removals(self, table: str) -> tuple[CellRemoval, ...]:
        """
        See L{ITables.removals}.
        """
        return tuple(removal for removal, _ in self._tables[table].removals)

    def merge(self, cell: Cell) -> bool:
        """
        See L{ITables.merge}.
        """
        change, was_considered = self._tables[cell.table].merge(cell, self._now())
        return self._written(cell.table, change, was_considered)

    def write(
        self,
        table: str,
        key: str,
        value: CellValue,
        told_by: str,
        expires_at: float | None = None,
        only_foreign: bool = False,
    ) -> bool:
        """
        See L{ITables.write}.
        """
        change, was_considered = self._tables[table].write(key, value, told_by, expires_at, self._now(), only_foreign)
        return self._written(table, change, was_considered)

    def _written(self, table: str, change: CellChange | None, was_considered: bool) -> bool:
        if not was_considered:
            self.complain(table)
        elif change is not None:
            self.changed(change)
        return was_considered

    def expire(self, table: str, key: str, expires_at: float | None, told_by: str) -> bool:
        """
        See L{ITables.expire}.
        """
        return self.changed(self._tables[table].expire_at(key, expires_at, told_by, self._now()))

    def delete(self, table: str, key: str, told_by: str) -> None:
        """
        See L{ITables.delete}.
        """
        self.changed(self._tables[table].forget(key, told_by, self._now()))

    def remove(self, removal: CellRemoval) -> Deferred[int]:
        """
        See L{ITables.remove}.
        """
        return self.remove_all(removal, Origin.REPLICATED)

    # for the views

    def complain(self, table: str) -> None:
        """
        A cell could not be stored.
        """
        self._refused += 1
        if self._complaints.is_due():
            log.warn(
                "a cell of table {table} was refused: it is full (see max_cells, max_bytes), or its time is absurd",
                table=table,
            )

    def changed(self, change: CellChange | None) -> bool:
        """
        A cell has changed.

        @return: whether there is a change at all.
        """
        if change is None:
            return False
        self._tell("cell_changed", change)
        expires_at = change.cell.expires_at
        if expires_at and (self._call is None or expires_at < self._call_at):
            self._wake()
        return True

    def _tell(self, event: str, *arguments: object) -> None:
        for listener in self._listeners:
            try:
                getattr(listener, event)(*arguments)
            except Exception:  # noqa: BLE001 - a write that took effect is no failure of who wrote
                log.failure("{event} broke a listener", event=event)

    # removals by pattern

    def remove_all(self, removal: CellRemoval, origin: Origin) -> Deferred[int]:
        """
        Find what matches, some cells at a time, and then remove it at once.

        @raise ValueError: the pattern is none.
        """
        matcher = matcher_of(removal)
        table = self._tables[removal.table]
        removal = table.begin_removal(removal, matcher, self._now())
        self._tell("cells_removed", removal, origin)
        found: list[str] = []
        steps = self._scan(table, matcher, removal, found)

        def take(_: object) -> int:
            now = self._now()
            return sum([table.take(key, removal, now) for key in found])

        try:
            next(steps)
        except StopIteration:
            return succeed(take(None))
        except ValueError:
            return fail()
        scanning: Deferred[Any] = self._cooperator.cooperate(steps).whenDone()
        return scanning.addCallback(take)

    def _scan(self, table: Table, matcher: Matcher, removal: CellRemoval, found: list[str]) -> Iterator[None]:
        cells = size = 0
        for key in table.keys():  # noqa: SIM118 - a list of its own, which no change disturbs
            cell = table.find(key, self._now())
            if cell is None:
                continue
            if matcher(cell):
                found.append(key)
            cells += 1
            size += len(cell.value) if removal.of_values and isinstance(cell.value, str) else len(key)
            if cells >= SCAN_CELLS or size >= SCAN_BYTES:
                cells = size = 0
                yield None

    # expiry

    def _wake(self, least: float = 0.0) -> None:
        """
        Come back when the next cell expires.

        @param least: seconds to wait in any case.
        """
        times = [at for at in (table.next_at() for table in self._tables.values()) if at is not None]
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if times:
            self._call_at = min(times)
            self._call = self._clock.callLater(max(least, self._call_at - self._now()), self._expire)

    def _expire(self) -> None:
        self._call = None
        room = EXPIRY_TURN
        for table in self._tables.values():
            for change in table.due(self._now()):
                self._tell("cell_changed", change)
                room -= 1
                if not room:
                    break
            if not room:
                break
        self._wake(0.0 if room else SCAN_PAUSE)
