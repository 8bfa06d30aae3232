"""
Syncs and repairs: what other nodes are sent of the location store, page by page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from sipdmq.dmq.errands import REPAIR, SYNC_OF_OURS, SYNCS, Errand, as_known, repeated
from sipdmq.interfaces.location import ILocationStore
from sipdmq.records import Binding, ClusterNode, NodeName, Origin, Page

__all__ = ["Donor"]

log = Logger()

PAGE_AORS = 250
"""Users that are put into the outbox at once: some milliseconds of work, then SIP is served again."""
PAGE_PAUSE: Final = 0.001
"""Seconds in between, at least: enough for what has arrived meanwhile. The reactor waits no less."""


class _Running:
    """
    An errand under way.

    @ivar steps: of L{Donor._run}.
    @ivar call: the next one; L{None}: it waits for room in the outbox.
    """

    __slots__ = ("call", "errand", "steps")

    def __init__(self, errand: Errand, steps: Iterator[Any]) -> None:
        self.errand = errand
        self.steps = steps
        self.call: IDelayedCall | None = None

    def stop(self) -> None:
        if self.call is not None:
            self.call.cancel()
            self.call = None


class Donor:
    """
    Sends the store to others, a few users at a time: one errand for each node, the others one after the other.

    @cvar store_interface: of the store.
    @cvar what: is sent, for the log.
    @cvar is_idempotent: a record that comes twice does no harm, so that a sync may take the place of a repair that has
        begun.
    """

    is_idempotent = True

    store_interface: Any = ILocationStore
    what = "contacts"

    def __init__(
        self,
        clock: IReactorTime,
        store: Any,
        wants: Callable[[ClusterNode, Errand], Callable[[Any], bool]],
        put: Callable[[ClusterNode, Any, float], Any],
        put_end: Callable[[ClusterNode, int], Any],
        owe: Callable[[ClusterNode, float], Any],
        is_active: Callable[[NodeName], bool],
        batch_size: int = 0,
        batch_usleep: int = 0,
    ) -> None:
        """
        @param store: provides L{store_interface}.
        @param wants: gives the test of records for an errand.
        @param put: hands a record to the outbox of a node, with the age of the errand. Where it returns a Deferred,
            that is waited for: the outbox is full.
        @param put_end: told at the end of a sync with a node of ours, with the number of records.
        @param owe: told of an errand that could not be ended, with its age: the node lacks something since then.
        @param is_active: whether it makes sense to go on.
        @param batch_size: contacts after which to pause, 0: as few as let SIP go first.
        @param batch_usleep: microseconds of that pause.
        """
        self._clock = IReactorTime(clock)
        self._store = self.store_interface(store)
        self._wants = wants
        self._put = put
        self._put_end = put_end
        self._owe = owe
        self._is_active = is_active
        self._batch_size = batch_size
        self._pause = batch_usleep / 1_000_000
        self._running: dict[NodeName, _Running] = {}
        self._nodes: dict[NodeName, ClusterNode] = {}  # those, as they were known when they were served last
        self._queues: dict[NodeName, dict[str, float]] = {}
        self._postponed: dict[NodeName, Errand] = {}
        self._served_at: dict[NodeName, float] = {}

    def served_since(self, name: NodeName) -> float:
        """
        How long ago a node was last sent something that was not new: seconds, 0: it is being sent.
        """
        if name in self._running:
            return 0.0
        return self._clock.seconds() - self._served_at.get(name, -inf)

    def __len__(self) -> int:
        return len(self._running)

    def serve(self, node: ClusterNode, errand: Errand) -> None:
        """
        Send a node all records of an errand, each once as it is at its turn. While another one for this node is under
        way it waits; two of a kind that wait are one, a sync under way is not begun again, and one takes the place of a
        repair.
        """
        errand = repeated(errand, node)
        running = self._running.get(node.name)
        self._nodes[node.name] = as_known(node, self._nodes.get(node.name))
        if running is None:
            self._begin(node.name, errand)
        elif errand.kind not in SYNCS or running.errand.kind not in SYNCS:
            queue = self._queues.setdefault(node.name, {})
            queue[errand.kind] = min(errand.since, queue.get(errand.kind, errand.since))
            if self.is_idempotent and running.errand.kind == REPAIR and errand.kind in SYNCS:
                queue[REPAIR] = min(running.errand.since, queue.get(REPAIR, inf))
                running.stop()
                self._go_to_next(node.name)

    def _begin(self, name: NodeName, errand: Errand) -> None:
        node = self._nodes[name]
        if errand.kind == SYNC_OF_OURS:
            node = self._nodes[name] = node._replace(is_sipdmq=True)  # before its hello has come
        running = self._running[name] = _Running(errand, self._run(node, errand))
        self._later(node, running, 0)

    def _go_to_next(self, name: NodeName) -> None:
        """
        Begin what waits, if anything does.
        """
        queue = self._queues.pop(name, {})
        self._running.pop(name, None)
        self._served_at[name] = self._clock.seconds()
        if not queue:
            del self._nodes[name]
            return
        kind = next(iter(queue))
        for each in SYNCS:  # it has all that a repair that waits would send, but for removals
            if self.is_idempotent and each in queue and REPAIR in queue:
                kind = each
                queue[kind] = queue.pop(REPAIR)
        since = queue.pop(kind)
        if queue:
            self._queues[name] = queue
        self._begin(name, Errand(kind, since))

    def _cut_short(self, node: ClusterNode, running: _Running) -> None:
        """
        The node is gone, or something broke.
        """
        del self._running[node.name], self._nodes[node.name]
        self._served_at[node.name] = self._clock.seconds()
        waiting = ((running.errand.kind, running.errand.since), *self._queues.pop(node.name, {}).items())
        owed = min(since for _, since in waiting)
        if owed != inf:
            self._owe(node, self._clock.seconds() - owed)
        for kind in SYNCS:
            if any(kind == each for each, _ in waiting):
                self._postponed[node.name] = Errand(kind)

    def node_up(self, node: ClusterNode) -> None:
        """
        A node is active: what it has asked for when it was not, or could not be sent to the end, it gets now.
        """
        errand = self._postponed.pop(node.name, None)
        if errand is not None:
            self.serve(node, errand)

    def forgotten(self, name: NodeName) -> None:
        """
        A node is in the list no more.
        """
        self._postponed.pop(name, None)
        self._served_at.pop(name, None)

    def stop(self) -> None:
        """
        Send no more.
        """
        for running in self._running.values():
            running.stop()
        self._running.clear()
        self._nodes.clear()
        self._queues.clear()
        self._postponed.clear()

    def _later(self, node: ClusterNode, running: _Running, delay: float) -> None:
        if self._running.get(node.name) is running:
            running.call = self._clock.callLater(delay, self._go_on, node, running)

    def _go_on(self, node: ClusterNode, running: _Running) -> None:
        running.call = None
        if not self._is_active(node.name):
            self._cut_short(node, running)
            return
        try:
            step = next(running.steps, self)
        except Exception:  # noqa: BLE001 - the timer's edge
            log.failure("the sync of {node} failed", node=str(node.name))
            self._cut_short(node, running)
            return
        if step is self:
            self._go_to_next(node.name)
        elif isinstance(step, Deferred):
            step.addBoth(lambda _: self._later(node, running, 0))
        else:
            self._later(node, running, max(self._pause if self._batch_size else 0, PAGE_PAUSE))

    def _run(self, node: ClusterNode, errand: Errand) -> Iterator[Any]:
        """
        The steps of one errand: between two of them others have their turn; a Deferred is waited for.
        """
        is_wanted = self._wants(node, errand)
        cursor = None
        count = since_pause = users = 0
        while True:
            pages: list[tuple[dict[Any, list[Any]], Any]] = []
            reading = self._page(cursor).addCallback(pages.append)
            if not pages:
                yield reading
            if not pages:
                return
            by_user, cursor = pages[0]
            is_current = reading.called
            for user, records in by_user.items():
                if not is_current:
                    # As they are now: what a phone has changed meanwhile is in the outbox already, and must not be
                    # followed by what was before.
                    again = self._read(user, records)
                    if isinstance(again, Deferred):
                        yield again
                users += 1
                for record in records:
                    if not is_wanted(record):
                        continue
                    full = self._put(node, record, self._age(errand))
                    count += 1
                    since_pause += 1
                    if isinstance(full, Deferred) and not full.called:
                        is_current = False
                        yield full
                if since_pause >= self._batch_size if self._batch_size else users >= PAGE_AORS:
                    since_pause = users = 0
                    is_current = False
                    yield None
            if cursor is None:
                break
        if errand.kind == SYNC_OF_OURS:
            self._put_end(node, count)
        if count:
            log.info("{node} was sent {count} {what}", node=str(node.name), count=count, what=self.what)

    def _age(self, errand: Errand) -> float:
        # What is lost of a sync is lost with all that others told: then the sync begins again.
        return inf if errand.kind in SYNCS else self._clock.seconds() - errand.since

    def _page(self, cursor: Any) -> Deferred[tuple[dict[Any, list[Any]], Any]]:
        """
        @return: the records of one page by their users, and the cursor of the next.
        """

        def by_aor(page: Page) -> tuple[dict[Any, list[Any]], Any]:
            found: dict[Any, list[Any]] = {}
            for binding in page.bindings:
                found.setdefault(binding.aor, []).append(binding)
            return found, page.cursor

        reading: Deferred[Page] = self._store.pages(cursor)
        return reading.addCallback(by_aor)

    def _read(self, aor: Any, found: list[Any]) -> Any:
        """
        Read the records of one user again.

        @param found: put here.
        @return: a Deferred if they are not there yet.
        """

        def look(records: tuple[Binding, ...]) -> tuple[Binding, ...]:
            found[:] = records
            return records

        return self._store.update(aor, look, Origin.REPLICATED)
