"""
Syncs and repairs of channel C{presence}: what newcomers, nodes that were away, and Kamailios that are back are sent of
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import inf
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from sipdmq.dmq.errands import REPAIR, RESTORE, SYNC, SYNC_OF_OURS, Errand, records_for
from sipdmq.dmq.newcomer import Newcomer, Readiness
from sipdmq.dmq.presence_donor import PublicationDonor
from sipdmq.dmq.presence_form import PresenceForm
from sipdmq.dmq.presence_json import CONTENT_TYPE, SYNC_REQUEST, encode
from sipdmq.dmq.restores import Restores
from sipdmq.errors import UnreachableError
from sipdmq.interfaces.publications import IPublicationStore, Publication
from sipdmq.interfaces.replication import IBroadcaster, IMembership, IReplicator
from sipdmq.records import ClusterNode, NodeName, NodeStatus

__all__ = ["PresenceSyncs", "SyncEnd", "is_kamailio_5"]


STRANGE: Final = 30.0
"""Seconds for which a node that has not said what it is may wait for a repair."""


class SyncEnd(NamedTuple):
    """
    All of a sync was put; see L{PresentitySyncEnd}.
    """

    records: int
    is_partial: bool


def is_kamailio_5(node: ClusterNode) -> bool:
    """
    Whether a node is a Kamailio 5, or one of which it is not known yet what it is (WIRE §8): it counts C{expires} from
    the arrival of a message, stores a publication twice that it is told twice as a new one, and never sends any when it
    is asked for them.
    """
    return not node.is_sipdmq and (not node.release or node.release.startswith("kamailio 5"))


class PresenceSyncs:
    """
    What is sent besides what phones do now.

    @ivar newcomer: this node, as long as it is one.
    """

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        store: IPublicationStore,
        form: PresenceForm,
        channel: str,
        readiness: Readiness,
        replicator: IReplicator,
        membership: IMembership,
        broadcaster: IBroadcaster,
    ) -> None:
        """
        @param now: the time, seconds since the epoch.
        """
        self.channel = channel
        self._clock = IReactorTime(clock)
        self._now = now
        self._store = IPublicationStore(store)
        self._form = form
        self._replicator = IReplicator(replicator)
        self._membership = IMembership(membership)
        self._broadcaster = IBroadcaster(broadcaster)
        self._donor = PublicationDonor(
            clock, store, self._wants, self._put_record, self._put_end, self._owe, self._is_active
        )
        self._restores = Restores(clock, self._ask, self._repair_restored, self._owe)
        self._strangers: dict[NodeName, float] = {}  # since when they wait: nodes that are in the list
        self.newcomer = Newcomer(clock, readiness, self._ask, self.others)

    def __len__(self) -> int:
        return len(self._donor)

    def stop(self) -> None:
        """
        No more timers.
        """
        self._donor.stop()
        self._restores.stop()
        self.newcomer.stop()

    def record_received(self, sender: NodeName | None) -> None:
        """
        A publication came in.
        """
        self.newcomer.records_received(sender, 1)
        if sender is not None:
            self._restores.records_received(sender, inf)  # it does not say when it was made

    def joined(self, node: ClusterNode) -> None:
        """
        A node can be asked.
        """
        if not self._restores.joined(node):
            self.newcomer.node_joined(node)

    def lost(self, node: ClusterNode) -> None:
        """
        A node is active no more.
        """
        self._strangers.pop(node.name, None)
        self.newcomer.node_lost(node)
        self._restores.lost(node)

    def serve(self, node: ClusterNode) -> None:
        """
        A node wants everything.
        """
        self._donor.serve(node, Errand(SYNC_OF_OURS if _says_ours(node) else SYNC))

    def repair(self, node: ClusterNode, age: float) -> None:
        """
        See L{IRepairer.repair<sipdmq.interfaces.replication.IRepairer.repair>}. A Kamailio that was lost is repaired by
        one node for all; one of which it is not known yet what it is, as it is new here, when that is known.
        """
        if not node.release and not node.is_sipdmq:
            now = self._clock.seconds()
            if now < self._strangers.setdefault(node.name, now) + STRANGE:
                self._owe(node, age)
                return
        self._strangers.pop(node.name, None)
        restorer = None if node.release.startswith("sipdmq") else self._membership.restorer_of(node.name)
        if restorer is None:
            self._donor.serve(node, Errand(REPAIR, self._clock.seconds() - age))
        elif restorer == self._membership.local:
            self._restores.begin(node, age)

    def _repair_restored(self, node: ClusterNode, since: float, is_whole: bool) -> None:
        is_whole = is_whole or self._membership.passes_on(str(node.name))
        self._donor.serve(node, Errand(RESTORE if is_whole else REPAIR, since))

    def _owe(self, node: ClusterNode, age: float) -> None:
        self._replicator.owe(node.name, self.channel, age)

    def hand_over(self, node: ClusterNode, lost: str, age: float) -> None:
        """
        See L{IRepairer.hand_over<sipdmq.interfaces.replication.IRepairer.hand_over>}.
        """
        self._donor.serve(node, Errand(lost, self._clock.seconds() - age))

    def _wants(self, node: ClusterNode, errand: Errand) -> Callable[[Publication], bool]:
        if errand.kind == SYNC and is_kamailio_5(node):
            return self._is_for_newcomer
        since = self._now() - (self._clock.seconds() - errand.since)
        membership = self._membership
        return records_for(errand, since, membership.answers_for, membership.clock_difference)

    def _is_for_newcomer(self, publication: Publication) -> bool:
        """
        Whether it is for us to tell a Kamailio 5 that has started: it asks everybody, and stores twice what it is told
        twice. So the node does that was the last to change it, or is its heir; for another Kamailio, which does not,
        one of ours, the same by the reckoning of all.
        """
        told_by = publication.told_by
        if publication.removed:
            return False
        if not any(str(node.name) == told_by and not node.is_sipdmq for node in self.others()):
            return bool(self._membership.answers_for(told_by))
        names = [str(node.name) for node in self._membership.nodes() if node.is_local or _is_ours(node)]
        chosen = max(names, key=lambda name: blake2b(f"{publication.etag} {name}".encode(), digest_size=8).digest())
        return any(node.is_local and str(node.name) == chosen for node in self._membership.nodes())

    def _put_record(self, node: ClusterNode, publication: Publication, age: float) -> Any:
        """
        @param age: infinite for a sync: the node has nothing yet.
        """
        # What it is may have come out since the errand was begun.
        node = next((each for each in self.others() if each.name == node.name), node)
        if _says_ours(node):
            told = self._form.update(publication, by=publication.told_by if node.is_sipdmq else "")
        elif publication.removed:
            told = self._form.update(publication)
        elif node.release and (age < inf or is_kamailio_5(node)):
            return Deferred.fromCoroutine(self._put_right(node, publication, age))
        else:
            told = self._form.new(publication, int(self._now()))
        return self._replicator.put_for(node.name, self.channel, publication.ruid, told, age)

    async def _put_right(self, node: ClusterNode, publication: Publication, age: float) -> None:
        """
        Tell a Kamailio of a publication, whichever version of it it has: what it may have is removed first, and told
        anew when that was answered, since it keeps no order between two messages. A repair and a sync may both tell of
        one publication; and it may change meanwhile: then it all begins anew.

        Never to a node of ours: there a removal is one.
        """
        while True:
            tags = {publication.previous, publication.etag if is_kamailio_5(node) else ""} - {""}
            messages = [
                self._form.update(publication._replace(removed=True, body=b""), known_as=tag) for tag in sorted(tags)
            ]
            messages.append(self._form.new(publication, int(self._now())))
            for message in messages:
                try:
                    await self._broadcaster.send(self.channel, node.name, encode(message), CONTENT_TYPE)
                except (UnreachableError, ValueError):
                    self._owe(node, age)
                    return
            records = self._store.records(publication.aor, publication.event)
            left = [each for each in records if each.ruid == publication.ruid and not each.removed]
            if not left or left[0].etag == publication.etag:
                return  # a removal has gone by its outbox
            publication = left[0]

    def _put_end(self, node: ClusterNode, count: int) -> Any:
        return self._replicator.put_for(node.name, self.channel, "", SyncEnd(count, not self.newcomer.is_complete))

    def others(self) -> Sequence[ClusterNode]:
        """
        The other active nodes.
        """
        return [
            node for node in self._membership.nodes() if not node.is_local and node.status is NodeStatus.ACTIVE
        ]

    def _is_active(self, name: NodeName) -> bool:
        return any(node.name == name for node in self.others())

    def _ask(self, node: ClusterNode) -> Deferred[bool]:
        """
        Ask a node for everything.
        """
        asking: Deferred[Any] = self._broadcaster.send(self.channel, node.name, SYNC_REQUEST, CONTENT_TYPE)
        return asking.addCallbacks(lambda response: 200 <= response.status < 300, lambda _: False)


def _is_ours(node: ClusterNode) -> bool:
    return node.is_sipdmq and node.status is NodeStatus.ACTIVE


def _says_ours(node: ClusterNode) -> bool:
    """
    Whether a node is one of ours, or its first message says so.
    """
    return node.is_sipdmq or node.release.startswith("sipdmq")
