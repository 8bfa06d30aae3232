"""
Channel C{presence}: what phones published goes to the other nodes, and what they tell comes into the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from sipdmq.config import PresenceConfig
from sipdmq.dmq.errands import REPAIR, RESTORE, SYNC, Errand, records_for
from sipdmq.dmq.newcomer import Newcomer, Readiness
from sipdmq.dmq.presence_donor import PublicationDonor
from sipdmq.dmq.presence_form import PresenceForm
from sipdmq.dmq.presence_json import (
    CONTENT_TYPE,
    SYNC_REQUEST,
    Presence,
    PresentityMissing,
    PresentitySync,
    PresentitySyncEnd,
    PresentityUpdate,
    decode,
    encode,
    encode_sync_end,
    supersede,
)
from sipdmq.dmq.presence_merge import MergeLimits, merge
from sipdmq.dmq.restores import Restores
from sipdmq.dmq.usrloc_form import UNKNOWN
from sipdmq.errors import DecodeError, RequestRefused, UnreachableError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.publications import (
    IPublicationListener,
    IPublicationStore,
    Publication,
    PublicationChange,
)
from sipdmq.interfaces.replication import IBroadcaster, IMembership, INodeListener, IRepairer, IReplicator
from sipdmq.records import ChannelMessage, ChannelReply, ClusterNode, NodeName, NodeStatus, Origin

__all__ = ["EVENTS", "PresencePeer", "is_kamailio_5"]

log = Logger()

EVENTS: Final = ("presence", "dialog", "message-summary")
"""The event packages whose publications are replicated."""
_RECENT: Final = 30
"""Seconds in which two changes of one tag may be on their way at the same time."""
_KEPT_BODIES: Final = 64
LOG_INTERVAL: Final = 60.0
OK: Final = ChannelReply(200)


class _SyncEnd(NamedTuple):
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


@implementer(IRepairer, IPublicationListener, INodeListener, IInspectable)
class PresencePeer:
    """
    Both directions of the channel, and its syncs.

    @ivar channel: C{[presence] dmq_peer_id}.
    @ivar batch_contacts: Kamailio knows no messages with several changes here.
    @ivar supersede: see L{Outbox<sipdmq.dmq.outbox.Outbox>}.
    """

    batch_contacts = 1
    supersede = staticmethod(supersede)

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        store: IPublicationStore,
        form: PresenceForm,
        config: PresenceConfig,
        limits: MergeLimits,
        replicator: IReplicator,
        membership: IMembership,
        broadcaster: IBroadcaster,
    ) -> None:
        """
        @param now: the time, seconds since the epoch.
        """
        self.channel = config.dmq_peer_id
        self._clock = IReactorTime(clock)
        self._now = now
        self._store = IPublicationStore(store)
        self._form = form
        self._config = config
        self._limits = limits
        self._replicator = IReplicator(replicator)
        self._membership = IMembership(membership)
        self._broadcaster = IBroadcaster(broadcaster)
        self._bodies: dict[bytes, Presence | None] = {}
        self._counts = dict.fromkeys(("received", "refused", "answered"), 0)
        self._logged_at = float("-inf")
        self.readiness = Readiness("presence")
        self._donor = PublicationDonor(
            clock,
            store,
            self._wants,
            self._put_record,
            self._put_end,
            self._owe,
            self._is_active,
        )
        self._restores = Restores(clock, self._ask, self._repair_restored, self._owe)
        self.newcomer = Newcomer(clock, self.readiness, self._ask, self._others)

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        numbers: dict[str, int | float] = {f"presence.{name}": count for name, count in self._counts.items()}
        numbers["presence.syncs"] = len(self._donor)
        numbers["presence.is_ready"] = int(self.readiness.is_ready)
        return numbers

    def start(self, has_peers: bool) -> None:
        """
        Begin to replicate.

        @param has_peers: whether there are nodes to join.
        """
        self._store.watch_publications(self)
        self._membership.watch(self)
        self.newcomer.start(has_peers and self._config.enable_pres_sync_dmq)

    def stop(self) -> None:
        """
        No more timers.
        """
        self._donor.stop()
        self._restores.stop()
        self.newcomer.stop()

    # outward

    def publication_changed(self, change: PublicationChange) -> None:
        """
        See L{IPublicationListener.publication_changed}: what came from another node, it has told everybody itself; what
        expires, does so everywhere.
        """
        if change.origin is Origin.LOCAL:
            publication = change.publication
            self._replicator.put(self.channel, publication.ruid, self._form.update(publication))

    def encode(self, change: PresentityUpdate | _SyncEnd) -> bytes:
        """
        See L{IRepairer.encode}.
        """
        return encode_sync_end(*change) if isinstance(change, _SyncEnd) else encode(change)

    def join(self, fragments: Iterable[bytes]) -> tuple[str, bytes]:
        """
        See L{IRepairer.join}: there is only ever one.
        """
        (fragment,) = fragments
        return CONTENT_TYPE, fragment

    # inward

    def keys_of(self, message: ChannelMessage) -> Sequence[str]:
        """
        See L{IRepairer.keys_of}: the presentity.
        """
        try:
            found = decode(message.body, EVENTS)
        except DecodeError:
            return ("",)
        if len(self._bodies) >= _KEPT_BODIES:
            self._bodies.pop(next(iter(self._bodies)))
        self._bodies[message.body] = found
        return (f"{found.event} {found.user}@{found.domain}" if isinstance(found, PresentityUpdate) else "",)

    def message_received(self, message: ChannelMessage) -> ChannelReply:
        """
        See L{IRepairer.message_received}: 400 for what cannot be read, 500 for an update of nothing, else 200 (WIRE
        §13).
        """
        body = message.body
        try:
            found = self._bodies.pop(body) if body in self._bodies else decode(body, EVENTS)
        except DecodeError as error:
            self._refused(message, error.reason)
            return ChannelReply(400)
        sender = message.sender
        if isinstance(found, PresentityUpdate):
            self._counts["received"] += 1
            name = None if sender is None else sender.name
            self.newcomer.record_received(name)
            self._restores.record_received(name)
            self._merge(found, message)
        elif isinstance(found, PresentityMissing):
            self._refused(message, "no presentity")
            return ChannelReply(500)
        elif sender is not None and not sender.is_local:
            if isinstance(found, PresentitySync):
                self._donor.serve(sender, Errand(SYNC))
            elif isinstance(found, PresentitySyncEnd):
                self.newcomer.end_received(sender.name, found.records, found.is_partial)
        return OK

    def _merge(self, update: PresentityUpdate, message: ChannelMessage) -> None:
        sender = message.sender
        now = int(self._now())
        counts_from_now = sender is not None and is_kamailio_5(sender)
        teller = UNKNOWN if sender is None else str(sender.name)
        incoming = self._form.publication(update, now, counts_from_now, teller)
        # Kamailio: it tells no document with a refresh.
        has_body = bool(update.body)
        answer: Publication | None = None

        def decide(records: tuple[Publication, ...]) -> Sequence[Publication]:
            nonlocal answer
            merged = merge(records, incoming, has_body, now, self._limits)
            answer = merged.winner
            if merged.refused:
                self._refused(message, merged.refused)
            return merged.records

        try:
            changes = self._store.update(incoming.aor, incoming.event, decide, Origin.REPLICATED)
        except RequestRefused:
            self._refused(message, "too many publications on this node; see [presence] publications")
            return
        if answer is not None and sender is not None and not sender.is_local:
            self._tell(sender, answer, incoming)
        for change in changes:
            told_by, previous = change.publication.told_by, change.previous
            if told_by and self._membership.passes_on(told_by):
                self._pass_on(change.publication, sender, self._others())
            elif (
                told_by
                and previous is not None
                and not previous.told_by
                and previous.recv > now - _RECENT
                and change.publication.previous != previous.etag
            ):
                # Ours has just lost against another change of the same tag: a Kamailio that heard of ours first does
                # not find that tag any more.
                kamailios = [node for node in self._others() if not node.is_sipdmq]
                self._pass_on(change.publication, sender, kamailios, previous.etag)

    def _tell(self, sender: ClusterNode, winner: Publication, incoming: Publication) -> None:
        """
        Put the sender of a version right that does not count. A Kamailio finds the publication by the entity tag that
        it has told, and has none any more where it has told a removal.
        """
        self._counts["answered"] += 1
        if sender.is_sipdmq:
            told = self._form.update(winner, by=winner.told_by)
        elif incoming.removed:
            if winner.removed:
                return
            told = self._form.new(winner, int(self._now()))
        else:
            told = self._form.update(winner, known_as=incoming.etag)
        self._replicator.put_for(sender.name, self.channel, winner.ruid, told)

    def _pass_on(
        self, publication: Publication, sender: ClusterNode | None, others: Iterable[ClusterNode], known_as: str = ""
    ) -> None:
        """
        Tell others what this node has only heard of: what a lost node has told, and comes here late, so perhaps to
        them.

        @param known_as: as for L{PresenceForm.update}.
        """
        for node in others:
            if sender is None or node.name != sender.name:
                by = publication.told_by if node.is_sipdmq else ""
                told = self._form.update(publication, known_as, by)
                self._replicator.put_for(node.name, self.channel, publication.ruid, told)

    def _refused(self, message: ChannelMessage, reason: str) -> None:
        self._counts["refused"] += 1
        now = self._clock.seconds()
        if now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            log.warn(
                "a publication from {source} was refused: {reason}; refused so far: {count}",
                source=message.source.host,
                reason=reason,
                count=self._counts["refused"],
            )

    # syncs

    def node_joined(self, node: ClusterNode) -> None:
        """
        See L{IRepairer.node_joined}.
        """
        if self._config.enable_pres_sync_dmq and not node.is_local and not self._restores.joined(node):
            self.newcomer.node_joined(node)

    def node_up(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_up}.
        """
        self.newcomer.node_up(node)

    def node_down(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_down}.
        """
        self.newcomer.node_lost(node)
        self._restores.lost(node)

    def node_disabled(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_disabled}.
        """
        self.node_down(node)

    def repair(self, node: ClusterNode, age: float) -> None:
        """
        See L{IRepairer.repair}. A Kamailio that was lost is repaired by one node for all.
        """
        restorer = None if node.release.startswith("sipdmq") else self._membership.restorer_of(node.name)
        if restorer is None:
            self._donor.serve(node, Errand(REPAIR, self._clock.seconds() - age))
        elif restorer == self._membership.local:
            self._restores.begin(node, age)

    def _repair_restored(self, node: ClusterNode, since: float) -> None:
        is_heir = self._membership.passes_on(str(node.name))
        self._donor.serve(node, Errand(RESTORE if is_heir else REPAIR, since))

    def _owe(self, node: ClusterNode, age: float) -> None:
        self._replicator.owe(node.name, self.channel, age)

    def hand_over(self, node: ClusterNode, lost: str, age: float) -> None:
        """
        See L{IRepairer.hand_over}.
        """
        self._donor.serve(node, Errand(lost, self._clock.seconds() - age))

    def _wants(self, node: ClusterNode, errand: Errand) -> Callable[[Publication], bool]:
        if errand.kind == SYNC and is_kamailio_5(node):
            return self._is_for_newcomer
        since = self._now() - (self._clock.seconds() - errand.since)
        membership = self._membership
        return records_for(errand, since, node.is_sipdmq, membership.answers_for, membership.clock_difference)

    def _is_for_newcomer(self, publication: Publication) -> bool:
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

    def _put_record(self, node: ClusterNode, publication: Publication, age: float) -> Any:
        """
        @param age: 0 for a sync: the node has nothing yet.
        """
        if node.is_sipdmq:
            told = self._form.update(publication, by=publication.told_by)
        elif publication.removed:
            told = self._form.update(publication)
        elif age:
            return Deferred.fromCoroutine(self._put_right(node, publication, age))
        else:
            told = self._form.new(publication, int(self._now()))
        return self._replicator.put_for(node.name, self.channel, publication.ruid, told, age)

    async def _put_right(self, node: ClusterNode, publication: Publication, age: float) -> None:
        """
        Tell a Kamailio of a publication, whichever version of it it has: what it may have is removed first, and told
        anew when that was answered, since it keeps no order between two messages.
        """
        done: set[str] = set()
        while True:
            tags = {publication.previous, publication.etag if is_kamailio_5(node) else ""} - {""} - done
            for tag in sorted(tags):
                gone = encode(self._form.update(publication._replace(removed=True, body=b""), known_as=tag))
                try:
                    await self._broadcaster.send(self.channel, node.name, gone, CONTENT_TYPE)
                except (UnreachableError, ValueError):
                    self._owe(node, age)
                    return
            done |= tags
            records = self._store.records(publication.aor, publication.event)
            now = [each for each in records if each.ruid == publication.ruid and not each.removed]
            if not now:
                return  # it was removed meanwhile, and the node told so
            if now[0].etag == publication.etag:
                break
            publication = now[0]
        told = self._form.new(publication, int(self._now()))
        full = self._replicator.put_for(node.name, self.channel, publication.ruid, told, age)
        if isinstance(full, Deferred):
            await full

    def _put_end(self, node: ClusterNode, count: int) -> Any:
        return self._replicator.put_for(node.name, self.channel, "", _SyncEnd(count, not self.newcomer.is_complete))

    def _others(self) -> Sequence[ClusterNode]:
        return [
            node for node in self._membership.nodes() if not node.is_local and node.status is NodeStatus.ACTIVE
        ]

    def _is_active(self, name: NodeName) -> bool:
        return any(node.name == name for node in self._others())

    def _ask(self, node: ClusterNode) -> Deferred[bool]:
        """
        Ask a node for everything.
        """
        asking: Deferred[Any] = self._broadcaster.send(self.channel, node.name, SYNC_REQUEST, CONTENT_TYPE)
        return asking.addCallbacks(lambda response: 200 <= response.status < 300, lambda _: False)


def _is_ours(node: ClusterNode) -> bool:
    return node.is_sipdmq and node.status is NodeStatus.ACTIVE
