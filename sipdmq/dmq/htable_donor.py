"""
Syncs and repairs of the shared tables: what other nodes are sent, some cells at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import CooperativeTask, Cooperator, SchedulerStopped
from twisted.logger import Logger

from sipdmq.dmq.errands import REPAIR, SYNC, SYNC_OF_OURS, SYNCS, Errand, as_known
from sipdmq.interfaces.tables import ITables
from sipdmq.records import Cell, CellRemoval, ClusterNode, NodeName

__all__ = ["TableDonor"]

log = Logger()

PAGE_CELLS: Final = 50
"""Cells that are put into the outbox at once: a millisecond of work, then SIP is served again."""
PAGE_PAUSE: Final = 0.001
"""Seconds in between, at least: enough for what has arrived meanwhile."""
_MARGIN: Final = 2.0
"""Seconds that a repair reaches back further."""


class TableDonor:
    """
    Sends the tables that are shared: one errand for each node at a time, the others one after the other.
    """

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        tables: ITables,
        put: Callable[[ClusterNode, Cell, float], Deferred[None] | None],
        put_removal: Callable[[ClusterNode, CellRemoval, float], Any],
        put_end: Callable[[ClusterNode, int], Any],
        owe: Callable[[ClusterNode, float], Any],
        answers_for: Callable[[str], bool],
        is_active: Callable[[NodeName], bool],
    ) -> None:
        """
        @param put: hands a cell to the outbox of a node, with the age of the errand. Where it returns a Deferred, that
            is waited for: the outbox is full.
        @param put_removal: the same for a removal by pattern.
        @param put_end: told at the end of a sync, with the number of cells.
        @param owe: told of an errand that could not be ended, with its age: the node lacks something since then.
        @param answers_for: as L{IMembership.answers_for<sipdmq.interfaces.replication.IMembership.answers_for>}.
        @param is_active: whether it makes sense to go on.
        """
        self._clock = IReactorTime(clock)
        self._now = now
        self._tables = ITables(tables)
        self._put = put
        self._put_removal = put_removal
        self._put_end = put_end
        self._owe = owe
        self._answers_for = answers_for
        self._is_active = is_active
        self._cooperator = Cooperator(
            scheduler=lambda work: self._clock.callLater(PAGE_PAUSE, work),
            terminationPredicateFactory=lambda: lambda: True,
        )
        self._running: dict[NodeName, CooperativeTask[Any]] = {}
        self._nodes: dict[NodeName, ClusterNode] = {}  # those, as they were known when they were served last
        self._waiting: dict[NodeName, dict[tuple[str, str], float]] = {}
        self._postponed: dict[NodeName, dict[tuple[str, str], float]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def serve(self, node: ClusterNode, errand: Errand, table: str = "") -> None:
        """
        Send a node all cells of an errand, each as it is at its turn. While another one for this node is under way it
        waits; two of a kind that wait are one.

        @param table: of this table only.
        """
        queue = self._waiting.setdefault(node.name, {})
        kind = (errand.kind, table)
        queue[kind] = min(errand.since, queue.get(kind, errand.since))
        self._nodes[node.name] = as_known(node, self._nodes.get(node.name))
        if node.name not in self._running:
            self._next(node.name)

    def node_up(self, node: ClusterNode) -> None:
        """
        A node is active: the syncs that could not be sent to the end it gets now.
        """
        for kind, table in self._postponed.pop(node.name, {}):
            self.serve(node, Errand(kind), table)

    def forgotten(self, name: NodeName) -> None:
        """
        A node is in the list no more.
        """
        self._postponed.pop(name, None)

    def stop(self) -> None:
        """
        Send no more.
        """
        self._waiting.clear()
        self._postponed.clear()
        self._cooperator.stop()

    def _next(self, name: NodeName) -> None:
        queue = self._waiting.get(name)
        if not queue:
            self._waiting.pop(name, None)
            self._nodes.pop(name, None)
            return
        node = self._nodes[name]
        (kind, table) = next(iter(queue))
        errand = Errand(kind, queue.pop((kind, table)))
        task = self._cooperator.cooperate(self._run(node, errand, table))
        self._running[name] = task
        task.whenDone().addCallbacks(self._ended, self._failed, (node,), {}, (node, errand, table), {})

    def _ended(self, _: object, node: ClusterNode) -> None:
        self._running.pop(node.name, None)
        self._next(node.name)

    def _failed(self, failure: Any, node: ClusterNode, errand: Errand, table: str) -> None:
        """
        It could not be ended: what is left of it, and of those that wait, is owed.
        """
        self._running.pop(node.name, None)
        if failure.check(SchedulerStopped):
            return
        queue = self._waiting.pop(node.name, {})
        self._nodes.pop(node.name, None)
        queue[errand.kind, table] = errand.since
        ages = [since for (kind, _), since in queue.items() if kind not in SYNCS]
        if ages:
            self._owe(node, self._clock.seconds() - min(ages))
        syncs = {each: since for each, since in queue.items() if each[0] in SYNCS}
        if syncs:
            self._postponed.setdefault(node.name, {}).update(syncs)
        if not failure.check(_Gone):
            log.failure("the tables could not be sent to {node}", failure, node=str(node.name))

    def _wanted(self, node: ClusterNode, errand: Errand) -> Callable[[Cell], bool]:
        if errand.kind == SYNC:  # a Kamailio has no use for deletions of what it never had
            return lambda cell: not cell.removed
        if errand.kind == SYNC_OF_OURS:
            return lambda cell: True
        since = self._now() - (self._clock.seconds() - errand.since) - _MARGIN
        if errand.kind == REPAIR:
            return lambda cell: cell.changed_at >= since and self._answers_for(cell.told_by)
        lost = errand.kind
        return lambda cell: cell.changed_at >= since and cell.told_by == lost

    def _run(self, node: ClusterNode, errand: Errand, only: str) -> Iterator[Deferred[None] | None]:
        """
        The steps of one errand: between two of them others have their turn; a Deferred is waited for.
        """
        if errand.kind == SYNC_OF_OURS:
            node = node._replace(is_sipdmq=True)  # before its hello has come
        wants = self._wanted(node, errand)
        age = 0.0 if errand.kind in SYNCS else self._clock.seconds() - errand.since
        count = seen = 0
        for table in self._tables.names():
            if not self._tables.is_shared(table) or (only and only != table):
                continue
            if errand.kind == REPAIR and node.is_sipdmq:
                self._repeat_removals(node, table, age)
            for key in self._tables.keys(table):
                seen += 1
                if seen % PAGE_CELLS == 0:
                    yield None
                    if not self._is_active(node.name):
                        raise _Gone
                # As it is now: what has changed meanwhile is in the outbox already, and must not be followed by what
                # was before.
                cell = self._tables.stored(table, key)
                if cell is None or not wants(cell):
                    continue
                full = self._put(node, cell, age)
                count += 1
                if full is not None and not full.called:
                    yield full
        if errand.kind in SYNCS:
            self._put_end(node, count)
        if count:
            log.info("{node} was sent {count} cells", node=str(node.name), count=count)

    def _repeat_removals(self, node: ClusterNode, table: str, age: float) -> None:
        """
        A node of ours spares what was written later. A Kamailio would not: it is told of the cells that were removed.
        """
        since = (self._now() - age - _MARGIN) * 1000
        for removal in self._tables.removals(table):
            if not removal.told_by and removal.last_modified >= since:
                self._put_removal(node, removal, age)


class _Gone(Exception):
    """
    The node is not active any more.
    """
