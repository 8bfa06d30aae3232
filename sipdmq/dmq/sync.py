"""
Syncs: what a newcomer gets, page by page, and how it knows that it has it all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from sipdmq.interfaces.location import ILocationStore
from sipdmq.records import Binding, ClusterNode, NodeName, Origin, Page, Update

__all__ = ["Readiness", "SyncDonor", "SyncNewcomer", "SyncState"]

log = Logger()

PAGE_AORS: Final = 50
"""Users that are put into the outbox at once: a millisecond of work, then SIP is served again."""
PAGE_PAUSE: Final = 0.001
"""Seconds in between, at least: enough for what has arrived meanwhile."""


class SyncState(Enum):
    """
    How much a node knows.
    """

    STARTING = "starting"
    """Nobody was asked yet."""
    SYNCING = "syncing"
    """Somebody is telling us everything: a user that we do not know may be known elsewhere."""
    READY = "ready"


class Readiness:
    """
    The state of a node, for whoever wants to know.
    """

    def __init__(self) -> None:
        self.state = SyncState.STARTING
        self._listeners: list[Callable[[SyncState], object]] = []

    def __repr__(self) -> str:
        return f"<Readiness {self.state.value}>"

    @property
    def is_ready(self) -> bool:
        """
        Whether an unknown user is one that the cluster does not know.
        """
        return self.state is SyncState.READY

    def watch(self, listener: Callable[[SyncState], object]) -> None:
        """
        @param listener: called with each new L{SyncState} from now on.
        """
        self._listeners.append(listener)

    def become(self, state: SyncState, why: str) -> None:
        """
        @param why: for the log.
        """
        if state is self.state:
            return
        self.state = state
        log.info("the node is {state}: {why}", state=state.value, why=why)
        for listener in tuple(self._listeners):
            try:
                listener(state)
            except Exception:  # noqa: BLE001 - the others shall hear of it
                log.failure("a listener failed on {state}", state=state.value)


class SyncDonor:
    """
    Sends the store to others, a few users at a time.
    """

    def __init__(
        self,
        clock: IReactorTime,
        store: ILocationStore,
        put: Callable[[ClusterNode, Binding], Any],
        put_end: Callable[[ClusterNode, int], Any],
        is_active: Callable[[NodeName], bool],
        batch_size: int = 0,
        batch_usleep: int = 0,
    ) -> None:
        """
        @param put: hands a record to the outbox of a node. Where it returns a Deferred, that is waited for: the outbox
            is full.
        @param put_end: told at the end, with the number of records.
        @param is_active: whether it makes sense to go on.
        @param batch_size: contacts after which to pause, 0: as few as let SIP go first.
        @param batch_usleep: microseconds of that pause.
        """
        self._clock = IReactorTime(clock)
        self._store = ILocationStore(store)
        self._put = put
        self._put_end = put_end
        self._is_active = is_active
        self._batch_size = batch_size
        self._pause = batch_usleep / 1_000_000
        self._running: dict[NodeName, IDelayedCall | None] = {}

    def __len__(self) -> int:
        return len(self._running)

    def serve(self, node: ClusterNode, is_wanted: Callable[[Binding], bool], has_end: bool) -> bool:
        """
        Send a node all records that it wants, each once as it is at its turn.

        @return: whether it begins; C{False}: one is under way already.
        """
        if node.name in self._running:
            return False
        self._running[node.name] = None
        run = self._run(node, is_wanted, has_end)
        self._later(node, run, 0)
        return True

    def stop(self) -> None:
        """
        Send no more.
        """
        for call in self._running.values():
            if call is not None:
                call.cancel()
        self._running.clear()

    def _later(self, node: ClusterNode, run: Iterator[Any], delay: float) -> None:
        if node.name in self._running:
            self._running[node.name] = self._clock.callLater(delay, self._go_on, node, run)

    def _go_on(self, node: ClusterNode, run: Iterator[Any]) -> None:
        if node.name not in self._running:
            return
        self._running[node.name] = None
        try:
            step = next(run, self) if self._is_active(node.name) else self
        except Exception:  # noqa: BLE001 - the timer's edge
            log.failure("the sync of {node} failed", node=str(node.name))
            step = self
        if step is self:
            self._running.pop(node.name, None)
        elif isinstance(step, Deferred):
            step.addBoth(lambda _: self._later(node, run, 0))
        else:
            self._later(node, run, max(self._pause if self._batch_size else 0, PAGE_PAUSE))

    def _run(self, node: ClusterNode, is_wanted: Callable[[Binding], bool], has_end: bool) -> Iterator[Any]:
        """
        The steps of one sync: between two of them others have their turn; a Deferred is waited for.
        """
        cursor = None
        count = since_pause = users = 0
        while True:
            pages: list[Page] = []
            reading = self._store.pages(cursor).addCallback(pages.append)
            if not pages:
                yield reading
            if not pages:
                return
            page = pages[0]
            for aor in dict.fromkeys(binding.aor for binding in page.bindings):
                # As they are now: what a phone has changed meanwhile is in the outbox already, and must not be
                # followed by what was before.
                records: list[Binding] = []
                reading = self._read(aor, records)
                if not reading.called:
                    yield reading
                users += 1
                for record in records:
                    if not is_wanted(record):
                        continue
                    full = self._put(node, record)
                    count += 1
                    since_pause += 1
                    if isinstance(full, Deferred) and not full.called:
                        yield full
                if since_pause >= self._batch_size if self._batch_size else users >= PAGE_AORS:
                    since_pause = users = 0
                    yield None
            cursor = page.cursor
            if cursor is None:
                break
        if has_end:
            self._put_end(node, count)
        log.info("{node} was sent {count} contacts", node=str(node.name), count=count)

    def _read(self, aor: str, found: list[Binding]) -> Deferred[Update]:
        def look(records: tuple[Binding, ...]) -> tuple[Binding, ...]:
            found[:] = records
            return records

        reading: Deferred[Update] = self._store.update(aor, look, Origin.REPLICATED)
        return reading


class SyncNewcomer:
    """
    Asks one node after the other for everything, until one has told it all.

    A sipdmq donor says when it has; a Kamailio has when it falls silent.
    """

    QUIET: Final = 2.0
    """Seconds without a record after which a donor has told all, or nothing."""
    LONGEST: Final = 60.0
    """Seconds after which a donor that has told something counts as done: changes of its phones never end."""
    ALONE: Final = 10.0
    """Seconds without any other node after which this one is alone."""

    def __init__(
        self,
        clock: IReactorTime,
        readiness: Readiness,
        ask: Callable[[ClusterNode], Deferred[bool]],
        candidates: Callable[[], Sequence[ClusterNode]],
    ) -> None:
        """
        @param ask: sends the request; the Deferred says whether it was answered with 2xx.
        @param candidates: the other active nodes.
        """
        self._clock = IReactorTime(clock)
        self.readiness = readiness
        self._ask = ask
        self._candidates = candidates
        self._donor: ClusterNode | None = None
        self._asked: set[NodeName] = set()
        self._asked_at = 0.0
        self._received = 0
        self._expected: int | None = None
        self._total = 0
        self._call: IDelayedCall | None = None

    @property
    def donor(self) -> ClusterNode | None:
        """
        Who is telling us everything, as it is known now: what it is may have come out since it was asked.
        """
        donor = self._donor
        if donor is None:
            return None
        return next((node for node in self._candidates() if node.name == donor.name), donor)

    def start(self, has_peers: bool) -> None:
        """
        @param has_peers: whether this node is to join others, or to wait for them.
        """
        if not has_peers:
            self.readiness.become(SyncState.READY, "it is the first")
        else:
            self._wait(self.ALONE)

    def stop(self) -> None:
        """
        Wait for nobody any more.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def node_joined(self, node: ClusterNode) -> None:
        """
        A node is active: the first one is asked; later a Kamailio that was lost to us, or we to it, is asked again,
        since it may have had changes that we did not get. A sipdmq node repairs that by itself.
        """
        if self.readiness.state is SyncState.STARTING:
            self.readiness.become(SyncState.SYNCING, f"{node.name} is there")
            self._next(node)
        elif self.readiness.is_ready and (not self._asked or not node.is_sipdmq):
            self._asked.add(node.name)
            self._ask(node)

    def node_lost(self, node: ClusterNode) -> None:
        """
        A node is active no more.
        """
        if self._donor is not None and self._donor.name == node.name:
            log.warn("{node} went away while it was telling us everything", node=str(node.name))
            self._next()

    def record_received(self, sender: NodeName | None) -> None:
        """
        A record came in.
        """
        if self._donor is None or sender != self._donor.name:
            return
        self._received += 1
        self._total += 1
        self._check()

    def end_received(self, sender: NodeName | None, count: int) -> None:
        """
        A sipdmq donor has sent all.
        """
        if self._donor is not None and sender == self._donor.name:
            self._expected = count
            self._check()

    def _check(self) -> None:
        has_all = self._expected is not None and self._received >= self._expected
        is_late = self._clock.seconds() - self._asked_at > self.LONGEST
        if has_all or (is_late and not self._is_patient()):
            self._finish()
        else:
            self._wait(self.QUIET)

    def _is_patient(self) -> bool:
        """
        Whether the donor will say when it has sent all.
        """
        donor = self.donor
        return donor is not None and donor.is_sipdmq

    def _wait(self, seconds: float) -> None:
        if self._call is not None and self._call.active():
            self._call.reset(seconds)
        else:
            self._call = self._clock.callLater(seconds, self._silent)

    def _silent(self) -> None:
        self._call = None
        if self._donor is None:
            if self.readiness.state is SyncState.STARTING:
                self.readiness.become(SyncState.READY, "no other node is there")
        elif self._received and (self._expected is not None or not self._is_patient()):
            self._finish()
        else:
            self._next()

    def _next(self, first: ClusterNode | None = None) -> None:
        """
        Ask the next one, a sipdmq node if there is one.
        """
        others = [node for node in self._candidates() if node.name not in self._asked]
        if first is not None and first.name not in {node.name for node in others}:
            others.append(first)
        if not others:
            self._finish()
            return
        donor = min(others, key=lambda node: (not node.is_sipdmq, node is not first, str(node.name)))
        self._donor = donor
        self._asked.add(donor.name)
        self._asked_at = self._clock.seconds()
        self._received = 0
        self._expected = None
        self._wait(self.QUIET)
        self._ask(donor).addBoth(self._answered, donor)

    def _answered(self, was_accepted: object, donor: ClusterNode) -> None:
        if self._donor is not donor:
            return
        if was_accepted is not True:
            self._next()
        else:
            self._wait(self.QUIET)

    def _finish(self) -> None:
        self._donor = None
        self.stop()
        self.readiness.become(SyncState.READY, f"{self._total} records came in")
