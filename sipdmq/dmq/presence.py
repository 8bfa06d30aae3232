"""
Channel C{presence}: what phones published goes to the other nodes, and what they tell comes into the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from sipdmq.config import PresenceConfig
from sipdmq.dmq.newcomer import Readiness
from sipdmq.dmq.presence_form import PresenceForm
from sipdmq.dmq.presence_json import (
    CONTENT_TYPE,
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
from sipdmq.dmq.presence_syncs import PresenceSyncs, SyncEnd, is_kamailio_5
from sipdmq.dmq.usrloc_form import UNKNOWN
from sipdmq.errors import DecodeError, RequestRefused
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.publications import (
    IPublicationListener,
    IPublicationStore,
    Publication,
    PublicationChange,
)
from sipdmq.interfaces.replication import IBroadcaster, IMembership, INodeListener, IRepairer, IReplicator
from sipdmq.records import ChannelMessage, ChannelReply, ClusterNode, Origin

__all__ = ["EVENTS", "PresencePeer"]

log = Logger()

EVENTS: Final = ("presence", "dialog", "message-summary")
"""The event packages whose publications are replicated."""
_RECENT: Final = 30
"""Seconds in which two changes of one tag may be on their way at the same time."""
_KEPT_BODIES: Final = 64
LOG_INTERVAL: Final = 60.0
OK: Final = ChannelReply(200)


@implementer(IRepairer, IPublicationListener, INodeListener, IInspectable)
class PresencePeer:
    """
    Both directions of the channel, and its syncs.

    @ivar channel: C{[presence] dmq_peer_id}.
    @ivar batch_contacts: Kamailio knows no messages with several changes here.
    @ivar others_received: called with a message that is about no presentity: Kamailio's subscriptions.
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
        self.others_received: Callable[[ChannelMessage], object] = lambda message: None
        self.readiness = Readiness("presence")
        self._syncs = PresenceSyncs(
            clock, now, store, form, self.channel, self.readiness, replicator, membership, broadcaster
        )

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        numbers: dict[str, int | float] = {f"presence.{name}": count for name, count in self._counts.items()}
        numbers["presence.syncs"] = len(self._syncs)
        numbers["presence.is_ready"] = int(self.readiness.is_ready)
        return numbers

    def start(self, has_peers: bool) -> None:
        """
        Begin to replicate.

        @param has_peers: whether there are nodes to join.
        """
        self._store.watch_publications(self)
        self._membership.watch(self)
        self._syncs.newcomer.start(has_peers and self._config.enable_pres_sync_dmq)

    def stop(self) -> None:
        """
        No more timers.
        """
        self._syncs.stop()

    # outward

    def publication_changed(self, change: PublicationChange) -> None:
        """
        See L{IPublicationListener.publication_changed}: what came from another node, it has told everybody itself; what
        expires, does so everywhere.
        """
        if change.origin is Origin.LOCAL:
            publication = change.publication
            self._replicator.put(self.channel, publication.ruid, self._form.update(publication))

    def encode(self, change: PresentityUpdate | SyncEnd) -> bytes:
        """
        See L{IRepairer.encode}.
        """
        return encode_sync_end(*change) if isinstance(change, SyncEnd) else encode(change)

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
            self._syncs.record_received(None if sender is None else sender.name)
            self._merge(found, message)
        elif isinstance(found, PresentityMissing):
            self._refused(message, "no presentity")
            return ChannelReply(500)
        elif found is None:
            self.others_received(message)
        elif sender is not None and not sender.is_local:
            if isinstance(found, PresentitySync):
                self._syncs.serve(sender)
            elif isinstance(found, PresentitySyncEnd):
                self._syncs.newcomer.end_received(sender.name, found.records, found.is_partial)
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
                self._pass_on(change.publication, sender, self._syncs.others())
            elif (
                told_by
                and previous is not None
                and not previous.told_by
                and previous.recv > now - _RECENT
                and change.publication.previous != previous.etag
            ):
                # Ours has just lost against another change of the same tag: a Kamailio that heard of ours first does
                # not find that tag any more.
                kamailios = [node for node in self._syncs.others() if not node.is_sipdmq]
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
        if self._config.enable_pres_sync_dmq and not node.is_local:
            self._syncs.joined(node)

    def node_up(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_up}.
        """
        self._syncs.newcomer.node_up(node)

    def node_down(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_down}.
        """
        self._syncs.lost(node)

    def node_disabled(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_disabled}.
        """
        self._syncs.lost(node)

    def repair(self, node: ClusterNode, age: float) -> None:
        """
        See L{IRepairer.repair}.
        """
        self._syncs.repair(node, age)

    def hand_over(self, node: ClusterNode, lost: str, age: float) -> None:
        """
        See L{IRepairer.hand_over}.
        """
        self._syncs.hand_over(node, lost, age)
