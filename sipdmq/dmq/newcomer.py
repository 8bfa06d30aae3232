"""
A node that joins: it asks others for all that they have, and knows when it has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from math import inf
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from sipdmq.dmq.errands import SyncEnd
from sipdmq.records import ClusterNode, NodeName

__all__ = ["Newcomer", "Readiness", "SyncState"]

log = Logger()


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

    def __init__(self, what: str = "the node") -> None:
        """
        @param what: for the log.
        """
        self.state = SyncState.STARTING
        self._what = what
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
        log.info("{what} is {state}: {why}", what=self._what, state=state.value, why=why)
        for listener in tuple(self._listeners):
            try:
                listener(state)
            except Exception:  # noqa: BLE001 - the others shall hear of it
                log.failure("a listener failed on {state}", state=state.value)


class Newcomer:
    """
    Asks one node after the other for everything, until one has told it all.

    A sipdmq donor says when it has; a Kamailio has when it falls silent.
    """

    QUIET: Final = 2.0
    """Seconds without a record after which a donor has told all, or nothing."""
    LONGEST: Final = 60.0
    """Seconds after which a donor that has told something counts as done: changes of its phones never end."""
    WANTING: Final = 10.0
    """
    Seconds after the start in which somebody who has everything may still be heard of, where only newcomers are there:
    so long a node says of itself that it may not have everything.
    """
    RETRY: Final = 10.0
    """Seconds after which a donor is asked again that is there and has not sent everything."""
    ALONE: Final = 10.0
    """Seconds without any other node after which this one is alone."""
    MARGIN: Final = 5.0
    """Seconds by which two say differently when a node was started: they count whole ones, and messages take time."""

    def __init__(
        self,
        clock: IReactorTime,
        readiness: Readiness,
        ask: Callable[[ClusterNode], Deferred[bool]],
        candidates: Callable[[], Sequence[ClusterNode]],
        give: Callable[[ClusterNode], object],
        single: bool = False,
    ) -> None:
        """
        @param ask: sends the request; the Deferred says whether it was answered with 2xx.
        @param candidates: the other active nodes.
        @param give: sends a node all that this one has.
        @param single: one that takes the request is the only one, even if it has nothing (C{init_with_single}).
        """
        self._clock = IReactorTime(clock)
        self.readiness = readiness
        self._ask = ask
        self._candidates = candidates
        self._give = give
        self._single = single
        self._owed: set[NodeName] = set()  # they have asked this node when it did not have everything
        self._was_accepted = False
        self._donor: ClusterNode | None = None
        self._asked: set[NodeName] = set()
        self._older: dict[NodeName, float] = {}  # nodes of ours that were there before this one: since when
        self._again: set[NodeName] = set()
        self._asked_at = 0.0
        self._received = 0
        self._end: SyncEnd | None = None
        self._giving: IDelayedCall | None = None
        self._is_wanting = False
        self._has_ours = False  # one of ours has told all that it had
        self._failed: set[NodeName] = set()
        self._started_at = self._founded_at = self._clock.seconds()
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

    @property
    def is_complete(self) -> bool:
        """
        Whether this node has what there is, as far as it can know: one who had everything has sent it to the end. Where
        there are newcomers only, it has when nobody else has come for a while.
        """
        if not self.readiness.is_ready or self._failed_ones():
            return False
        return not self._is_wanting or self._clock.seconds() - self._started_at > self.WANTING

    def end_of_sync(self, count: int) -> SyncEnd:
        """
        What is said at the end of a sync of so many records.
        """
        return SyncEnd(count, not self.is_complete, int(self._clock.seconds() - self._founded_at))

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
        self._wait_no_more()
        if self._giving is not None:
            self._giving.cancel()
            self._giving = None

    def _wait_no_more(self) -> None:
        self._donor = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def asked_by(self, node: ClusterNode) -> None:
        """
        Another node wants everything, and gets what there is. A Kamailio asks nobody else: when this node has more, so
        has that one.
        """
        if not node.is_sipdmq and not self.is_complete:
            self._owed.add(node.name)

    def _give_owed(self) -> None:
        self._giving = None
        owed, self._owed = self._owed, set()
        for node in self._candidates():
            if node.name in owed and not node.is_sipdmq:
                self._give(node)

    def node_joined(self, node: ClusterNode) -> None:
        """
        A node is active: the first one is asked, and later the first Kamailio. A sipdmq node repairs what is missing by
        itself.
        """
        if self.readiness.state is SyncState.STARTING:
            self.readiness.become(SyncState.SYNCING, f"{node.name} is there")
            self._next(node)
        elif self.readiness.is_ready and (not self._asked or not node.is_sipdmq):
            self._asked.add(node.name)
            self._ask(node)

    def taken_back(self, node: ClusterNode) -> None:
        """
        A Kamailio that was lost to us, or we to it, is asked again, since it may have had changes that we did not get:
        not before the donor has told everything, which may be this one.
        """
        if self.readiness.state is SyncState.SYNCING:
            self._again.add(node.name)
        else:
            self.node_joined(node)

    def is_told_by(self, node: ClusterNode) -> None:
        """
        A node is asked for everything by somebody else: where nobody was asked before, it is the first donor.
        """
        if self.readiness.state is SyncState.STARTING:
            self.readiness.become(SyncState.SYNCING, f"{node.name} is there")
            self._take(node)
            self._was_accepted = True  # who asked sees to that

    def node_up(self, node: ClusterNode) -> None:
        """
        A node is there. Where nobody has sent everything so far, it may be the one who does, now.
        """
        is_idle = self._donor is None and self.readiness.is_ready
        lacks = self._is_wanting or self._failed
        is_due = node.name in self._failed or (node.name not in self._asked and not node.is_new)
        if is_idle and lacks and is_due:
            self._next(node)

    def older_met(self, node: ClusterNode, age: float) -> None:
        """
        A node of ours was there before this one: what others were given here was not everything, nor what this one has,
        where no node of ours has told it, or one that was new itself, or had it from none that is as old as that.

        @param age: seconds since that one was started.
        """
        self._older[node.name] = self._clock.seconds() - age
        lacks = node.name not in self._asked and (
            self._is_wanting or not self._has_ours or self._knows_more(node.name)
        )
        if self._donor is None and self.readiness.is_ready and (self._owed or lacks):
            self._asked.discard(node.name)
            self._next(node)

    def node_lost(self, node: ClusterNode) -> None:
        """
        A node is active no more.
        """
        if self._donor is not None and self._donor.name == node.name:
            log.warn("{node} went away while it was telling us everything", node=str(node.name))
            self._fail()

    def forgotten(self, name: NodeName) -> None:
        """
        A node is in the list no more.
        """
        for names in (self._owed, self._asked, self._again, self._failed):
            names.discard(name)
        self._older.pop(name, None)

    def records_received(self, sender: NodeName | None, count: int) -> None:
        """
        So many records came in.
        """
        if self._donor is not None and sender == self._donor.name:
            self._received += count
            self._total += count
            self._check(self._donor)

    def end_received(self, sender: NodeName | None, end: SyncEnd) -> None:
        """
        A sipdmq donor has sent all that it has. Where it is a newcomer itself, the next one is asked, too.
        """
        if self._donor is not None and sender == self._donor.name:
            self._end = end
            self._check(self._donor)

    def _check(self, donor: ClusterNode) -> None:
        end = self._end
        is_late = self._clock.seconds() - self._asked_at > self.LONGEST
        if end is not None and self._received >= end.records:
            self._has_all_of(donor, end)
        elif is_late and not self._is_patient():
            self._finish()
        else:
            self._wait(self.QUIET)

    def _has_all_of(self, donor: ClusterNode, end: SyncEnd) -> None:
        self._has_ours = True
        self._failed.discard(donor.name)
        self._is_wanting = end.is_partial
        if end.is_partial:
            self._next()
            return
        self._founded_at = min(self._founded_at, self._clock.seconds() - end.age)
        self._failed.clear()
        if self._owed and self._giving is None:
            # The donor may have told something else meanwhile, so that a record of the sync is still on its way.
            self._giving = self._clock.callLater(self.QUIET, self._give_owed)
        apart = [node for node in self._candidates() if self._knows_more(node.name)]
        if apart:
            self._next(apart[0])
        else:
            self._finish()

    def _knows_more(self, name: NodeName) -> bool:
        """
        Whether a node was there before the one from which this one has all: they were apart.
        """
        return name not in self._asked and self._older.get(name, inf) < self._founded_at - self.MARGIN

    def _is_patient(self) -> bool:
        """
        Whether the donor will say when it has sent all: it was asked as one of ours.
        """
        return self._donor is not None and self._donor.is_sipdmq

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
            elif self._failed:
                self._retry()
        elif self._is_patient():
            self._fail()  # it would have said that it has nothing, or no more
        elif self._received or (self._single and self._was_accepted):
            self._failed.clear()
            self._finish()
        elif not self._was_accepted:
            self._wait(self.QUIET)  # it has not answered yet; whether it does is told
        else:
            self._next()

    def _retry(self) -> None:
        """
        Of the donors that have failed one that is there.
        """
        failed = self._failed_ones()
        if failed:
            self._next(failed[0])

    def _failed_ones(self) -> list[ClusterNode]:
        """
        Those that are there: what others have is out of reach, until they are back.
        """
        return [node for node in self._candidates() if node.name in self._failed]

    def _fail(self) -> None:
        """
        The donor does not tell everything: the next one, or, when there is none, this one when it is back.
        """
        if self._donor is not None:
            self._failed.add(self._donor.name)
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
        self._take(donor)
        self._ask(donor).addBoth(self._answered, donor)

    def _take(self, donor: ClusterNode) -> None:
        self._donor = donor
        self._asked.add(donor.name)
        self._asked_at = self._clock.seconds()
        self._received = 0
        self._end = None
        self._was_accepted = False
        self._wait(self.QUIET)

    def _answered(self, was_accepted: object, donor: ClusterNode) -> None:
        if self._donor is not donor:
            return
        if was_accepted is not True:
            self._fail()
        else:
            self._was_accepted = True
            self._wait(self.QUIET)

    def _finish(self) -> None:
        self._wait_no_more()
        self.readiness.become(SyncState.READY, f"{self._total} records came in")
        again, self._again = self._again, set()
        for node in self._candidates():
            if node.name in again:
                self._ask(node)
        if self._failed:
            self._wait(self.RETRY)
