"""
Channel C{presence}: what phones published goes to the other nodes, and what they tell comes into the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from sipdmq.config import PresenceConfig
from sipdmq.core.read_ahead import ReadAhead
from sipdmq.dmq.errands import SYNC, Errand, SyncEnd
from sipdmq.dmq.kamailio_json import CONTENT_TYPE
from sipdmq.dmq.newcomer import Readiness
from sipdmq.dmq.presence_donor import PublicationDonor
from sipdmq.dmq.presence_form import PresenceForm
from sipdmq.dmq.presence_json import (
    SYNC_REQUEST,
    PresentityMissing,
    PresentityUpdate,
    decode,
    encode,
    encode_sync_end,
    supersede,
)
from sipdmq.dmq.presence_merge import MergeLimits, merge
from sipdmq.dmq.presence_syncs import PresenceSyncs, is_kamailio_5
from sipdmq.dmq.synced import BAD, FAILED, OK, SyncedPeer
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
from sipdmq.records import ChannelMessage, ChannelReply, ClusterNode, NodeName, Origin

__all__ = ["EVENTS", "PresencePeer"]

EVENTS: Final = ("presence", "dialog", "message-summary")
"""The event packages whose publications are replicated."""
_RECENT: Final = 30
"""Seconds in which two changes of one tag may be on their way at the same time."""
STRANGE: Final = 30.0
"""Seconds for which a node that has not said what it is may wait for a repair."""


@implementer(IRepairer, IPublicationListener, INodeListener, IInspectable)
class PresencePeer(SyncedPeer):
    """
    Both directions of the channel, and its syncs.

    @ivar channel: C{[presence] dmq_peer_id}.
    @ivar batch_contacts: Kamailio knows no messages with several changes here.
    @ivar others_received: called with a message that is about no presentity: Kamailio's subscriptions.
    @ivar supersede: see L{Outbox<sipdmq.dmq.outbox.Outbox>}.
    """

    batch_contacts = 1
    numbers = "presence"
    record = "a publication"
    sync_request = sync_request_of_ours = SYNC_REQUEST
    is_restored = True
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
        super().__init__(
            clock,
            now,
            Readiness("presence"),
            replicator,
            membership,
            broadcaster,
            asks=config.enable_pres_sync_dmq,
            counted=("answered",),
        )
        self.channel = config.dmq_peer_id
        self._store = IPublicationStore(store)
        self._form = form
        self._limits = limits
        self._bodies = ReadAhead(lambda body: decode(body, EVENTS))
        self._strangers: dict[NodeName, float] = {}  # since when they wait: nodes that are in the list
        self.others_received: Callable[[ChannelMessage], object] = lambda message: None
        self._syncs = PresenceSyncs(
            now, store, form, self.channel, replicator, membership, broadcaster, self._others, self._owe
        )
        self._donor = PublicationDonor(
            clock, store, self._wants, self._syncs.put, self._put_end, self._owe, self._is_active
        )

    def start(self, has_peers: bool) -> None:
        """
        See L{SyncedPeer.start}.
        """
        self._store.watch_publications(self)
        super().start(has_peers)

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
        return encode_sync_end(change) if isinstance(change, SyncEnd) else encode(change)

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
            found = self._bodies.read(message.body)
        except DecodeError:
            return ("",)
        return (f"{found.event} {found.user}@{found.domain}" if isinstance(found, PresentityUpdate) else "",)

    def message_received(self, message: ChannelMessage) -> ChannelReply:
        """
        See L{IRepairer.message_received}: 400 for what cannot be read, 500 for an update of nothing, else 200 (WIRE
        §13).
        """
        try:
            found = self._bodies.take(message.body)
        except DecodeError as error:
            self._refused(message, error.reason)
            return BAD
        if isinstance(found, PresentityUpdate):
            self._counts["received"] += 1
            self._records_received(message.sender)
            self._merge(found, message)
        elif isinstance(found, PresentityMissing):
            self._refused(message, "no presentity")
            return FAILED
        elif found is None:
            self.others_received(message)
        else:
            self._sync_received(found, message.sender)
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

    # syncs

    def node_down(self, node: ClusterNode) -> None:
        """
        See L{SyncedPeer.node_down}.
        """
        self._strangers.pop(node.name, None)
        super().node_down(node)

    def repair(self, node: ClusterNode, age: float) -> None:
        """
        See L{SyncedPeer.repair}. One of which it is not known yet what it is, as it is new here, waits for that.
        """
        if not node.release and not node.is_sipdmq:
            now = self._clock.seconds()
            if now < self._strangers.setdefault(node.name, now) + STRANGE:
                self._owe(node, age)
                return
        self._strangers.pop(node.name, None)
        super().repair(node, age)

    def _wants(self, node: ClusterNode, errand: Errand) -> Callable[[Publication], bool]:
        if errand.kind == SYNC and is_kamailio_5(node):
            return self._syncs.is_for_newcomer
        return super()._wants(node, errand)
