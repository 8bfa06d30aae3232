"""
Syncs and repairs of channel C{presence}: what newcomers, nodes that were away, and Kamailios that are back are sent of
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import inf
from typing import Any

from twisted.internet.defer import Deferred

from sipdmq.dmq.errands import says_ours
from sipdmq.dmq.kamailio_json import CONTENT_TYPE
from sipdmq.dmq.presence_form import PresenceForm
from sipdmq.dmq.presence_json import encode
from sipdmq.errors import UnreachableError
from sipdmq.interfaces.publications import IPublicationStore, Publication
from sipdmq.interfaces.replication import IBroadcaster, IMembership, IReplicator
from sipdmq.records import ClusterNode, NodeStatus

__all__ = ["PresenceSyncs", "is_kamailio_5"]


def is_kamailio_5(node: ClusterNode) -> bool:
    """
    Whether a node is a Kamailio 5, or one of which it is not known yet what it is (WIRE §8): it counts C{expires} from
    the arrival of a message, stores a publication twice that it is told twice as a new one, and never sends any when it
    is asked for them.
    """
    return not node.is_sipdmq and (not node.release or node.release.startswith("kamailio 5"))


class PresenceSyncs:
    """
    What a node is told in them of a publication, which it may have or not.
    """

    def __init__(
        self,
        now: Callable[[], float],
        store: IPublicationStore,
        form: PresenceForm,
        channel: str,
        replicator: IReplicator,
        membership: IMembership,
        broadcaster: IBroadcaster,
        others: Callable[[], Sequence[ClusterNode]],
        owe: Callable[[ClusterNode, float], Any],
    ) -> None:
        """
        @param now: the time, seconds since the epoch.
        @param others: the other active nodes.
        @param owe: told of one that could not be told all, with the age of what it lacks.
        """
        self._now = now
        self._store = IPublicationStore(store)
        self._form = form
        self._channel = channel
        self._replicator = IReplicator(replicator)
        self._membership = IMembership(membership)
        self._broadcaster = IBroadcaster(broadcaster)
        self._others = others
        self._owe = owe

    def is_for_newcomer(self, publication: Publication) -> bool:
        """
        Whether it is for us to tell a Kamailio 5 that has started: it asks everybody, and stores twice what it is told
        twice. So the node does that was the last to change it, or is its heir; for another Kamailio, which does not,
        one of ours, the same by the reckoning of all.
        """
        told_by = publication.told_by
        if publication.removed:
            return False
        if not any(str(node.name) == told_by and not node.is_sipdmq for node in self._others()):
            return bool(self._membership.answers_for(told_by))
        names = [str(node.name) for node in self._membership.nodes() if node.is_local or _is_ours(node)]
        chosen = max(names, key=lambda name: blake2b(f"{publication.etag} {name}".encode(), digest_size=8).digest())
        return any(node.is_local and str(node.name) == chosen for node in self._membership.nodes())

    def put(self, node: ClusterNode, publication: Publication, age: float) -> Any:
        """
        @param age: infinite for a sync: the node has nothing yet.
        """
        # What it is may have come out since the errand was begun.
        node = next((each for each in self._others() if each.name == node.name), node)
        if says_ours(node):
            told = self._form.update(publication, by=publication.told_by if node.is_sipdmq else "")
        elif publication.removed:
            told = self._form.update(publication)
        elif node.release and (age < inf or is_kamailio_5(node)):
            return Deferred.fromCoroutine(self._put_right(node, publication, age))
        else:
            told = self._form.new(publication, int(self._now()))
        return self._replicator.put_for(node.name, self._channel, publication.ruid, told, age)

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
                    await self._broadcaster.send(self._channel, node.name, encode(message), CONTENT_TYPE)
                except (UnreachableError, ValueError):
                    self._owe(node, age)
                    return
            records = self._store.records(publication.aor, publication.event)
            left = [each for each in records if each.ruid == publication.ruid and not each.removed]
            if not left or left[0].etag == publication.etag:
                return  # a removal has gone by its outbox
            publication = left[0]


def _is_ours(node: ClusterNode) -> bool:
    return node.is_sipdmq and node.status is NodeStatus.ACTIVE
