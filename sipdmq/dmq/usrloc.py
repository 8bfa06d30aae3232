"""
Channel C{usrloc}: what phones registered goes to the other nodes, and what they tell comes into the location store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.config import UsrlocConfig
from sipdmq.core.read_ahead import ReadAhead
from sipdmq.dmq.conflict import Answer, Limits, Merged
from sipdmq.dmq.donor import Donor
from sipdmq.dmq.errands import SyncEnd, SyncRequest, says_ours
from sipdmq.dmq.kamailio_json import CONTENT_TYPE
from sipdmq.dmq.merging import merge_all
from sipdmq.dmq.newcomer import Readiness
from sipdmq.dmq.restores import CLOCKS
from sipdmq.dmq.synced import ACTIVE, BAD, OK, SyncedPeer
from sipdmq.dmq.usrloc_changes import UsrlocChange, key_of, told_of
from sipdmq.dmq.usrloc_form import UNKNOWN, UsrlocForm
from sipdmq.dmq.usrloc_json import SYNC_REQUEST, SYNC_REQUEST_OF_OURS, decode, encode_sync_end, join
from sipdmq.dmq.usrloc_records import Usrloc, UsrlocRecord, UsrlocRefused
from sipdmq.errors import DecodeError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.location import IBindingListener, ILocationStore
from sipdmq.interfaces.replication import (
    IBroadcaster,
    IChannelPeer,
    IMembership,
    INodeListener,
    IRepairer,
    IReplicator,
    IRestorer,
)
from sipdmq.records import (
    Binding,
    BindingChange,
    ChannelMessage,
    ChannelReply,
    ClusterNode,
    NodeName,
    Origin,
    Update,
)

__all__ = ["UsrlocPeer"]

log = Logger()

_UNDER_WAY: Final = 30
"""Seconds in which a change may still reach some node."""
_RECENT: Final = 1
"""
Seconds before a sync in which a change of a Kamailio counts as made before it: no more, since each such change goes to
the newcomer once more from each who gave it something.
"""
_YOUNG: Final = 60
"""Seconds after its start in which a node gets back what it had told before, in as many seconds."""


@implementer(IChannelPeer, IRepairer, IRestorer, IBindingListener, INodeListener, IInspectable)
class UsrlocPeer(SyncedPeer):
    """
    Both directions of the channel, and its syncs.

    @ivar channel: C{[usrloc] dmq_peer_id}.
    @ivar batch_contacts: how many changes one message may have.
    @ivar batch_bytes: how long its body may be.
    """

    _donor: Donor

    numbers = "usrloc"
    record = "a record"
    sync_request = SYNC_REQUEST
    sync_request_of_ours = SYNC_REQUEST_OF_OURS
    is_restored = True

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        store: ILocationStore,
        form: UsrlocForm,
        config: UsrlocConfig,
        limits: Limits,
        replicator: IReplicator,
        membership: IMembership,
        broadcaster: IBroadcaster,
        init_with_single: bool = False,
    ) -> None:
        """
        @param now: the time, seconds since the epoch.
        @param init_with_single: as in C{[dmq]}.
        """
        super().__init__(
            clock,
            now,
            Readiness(),
            replicator,
            membership,
            broadcaster,
            asks=config.sync,
            init_with_single=init_with_single,
            counted=("answered",),
        )
        self.channel = config.dmq_peer_id
        self.batch_contacts = config.batch_msg_contacts
        self.batch_bytes = config.batch_msg_size
        self._store = ILocationStore(store)
        self._form = form
        self._config = config
        self._limits = limits
        self._bodies = ReadAhead(decode)
        self._started_at = now()
        self._asked_first: set[NodeName] = set()
        self._donor = Donor(
            clock,
            store,
            self._wants,
            self._put_record,
            self._put_end,
            self._owe,
            self._is_active,
            config.batch_size,
            config.batch_usleep,
        )

    def start(self, has_peers: bool) -> None:
        """
        See L{SyncedPeer.start}.
        """
        self._store.watch(self)
        super().start(has_peers)

    # outward

    def binding_changed(self, change: BindingChange) -> None:
        """
        See L{IBindingListener.binding_changed}: what came from another node, it has told everybody itself.
        """
        if change.origin is Origin.LOCAL:
            if change.is_gone and not self._config.usrloc_delete:
                return
        elif change.origin is not Origin.EXPIRED or not self._config.usrloc_delete_expired:
            return
        binding = change.binding
        if not change.is_gone:
            ruid = binding.ruid
            self._replicator.put(self.channel, key_of(binding, ruid), UsrlocChange(binding, ruid, False))
            return
        for key, told in told_of(binding, True):
            self._replicator.put(self.channel, key, told)

    def encode(self, change: UsrlocChange | SyncEnd) -> bytes:
        """
        See L{IChannelPeer.encode}.
        """
        if isinstance(change, SyncEnd):
            return encode_sync_end(change)
        if change.is_gone:
            return self._form.encode_remove(change.binding, change.ruid, change.by)
        return self._form.encode_update(change.binding, change.ruid, change.by)

    def join(self, fragments: Iterable[bytes]) -> tuple[str, bytes]:
        """
        See L{IChannelPeer.join}.
        """
        return CONTENT_TYPE, join(fragments)

    # inward

    @staticmethod
    def group_of(key: str) -> str:
        """
        See L{IChannelPeer}: the AoR. A Kamailio finds a contact by its URI, too, and a removal by one name of a record
        may undo what was told under another.
        """
        return key.partition(" ")[0]

    def keys_of(self, message: ChannelMessage) -> Sequence[str]:
        """
        See L{IChannelPeer.keys_of}: the AoRs, as they are on the wire.
        """
        try:
            actions = self._bodies.read(message.body)
        except DecodeError:
            return ("",)
        aors = {each.aor: None for each in actions if isinstance(each, UsrlocRecord)}
        return tuple(aors) or ("",)

    def message_received(self, message: ChannelMessage) -> ChannelReply | Deferred[ChannelReply]:
        """
        See L{IChannelPeer.message_received}: 400 and nothing applied for what cannot be read, else 200 when all is
        stored (WIRE §13).
        """
        try:
            actions = self._bodies.take(message.body)
        except DecodeError as error:
            self._refused(message, error.reason)
            return BAD
        storing = self.apply(actions, message)
        return OK if storing is None else storing.addCallback(lambda _: OK)

    def apply(self, actions: Sequence[Usrloc], message: ChannelMessage) -> Deferred[Any] | None:
        """
        Do what another node says.

        @param message: where it comes from.
        @return: fires when all is stored; L{None}: it is already.
        """
        by_aor, received = self._read(actions, message)
        now = int(self._now())
        waiting: list[Deferred[Any]] = []
        kamailios = [
            node
            for node in self._membership.nodes()
            if not (node.is_sipdmq or node.is_local) and node.status is ACTIVE
        ]
        # Nearly always nobody has to hear of what was merged.
        is_quiet = not (kamailios or self._restores or self._membership.has_lost()) and (
            now >= self._started_at + _YOUNG
            or all(binding.told_by for records in by_aor.values() for binding in records)
        )
        for aor, records in by_aor.items():
            outcomes: list[Merged] = []
            decide = partial(merge_all, records, now, self._limits, self._form.content, outcomes)
            done = self._store.update(aor, decide, Origin.REPLICATED)
            if isinstance(done, Update):
                if outcomes or not is_quiet:
                    self._merged(done, outcomes, message, kamailios)
            else:
                done.addCallback(self._merged, outcomes, message, kamailios)
                waiting.append(done.addErrback(_failed, message))
        sender = message.sender
        if received and sender is not None:
            self.newcomer.records_received(sender.name, received)
            if self._restores and by_aor:  # which of them a Kamailio's answer is made of: the old ones
                oldest = min(binding.last_modified for records in by_aor.values() for binding in records)
                self._restores.records_received(sender.name, now - oldest)
        return gatherResults(waiting) if waiting else None

    def _read(self, actions: Sequence[Usrloc], message: ChannelMessage) -> tuple[dict[str, list[Binding]], int]:
        """
        @return: the records that can be used, by their AoRs, and how many there were with those that cannot. Whatever
            else is said is done.
        """
        by_aor: dict[str, list[Binding]] = {}
        sender = message.sender
        teller = UNKNOWN if sender is None else str(sender.name)
        received = 0
        read = self._form.binding
        for each in actions:
            if isinstance(each, UsrlocRecord):
                received += 1
                try:
                    incoming = read(each, teller)
                except DecodeError as error:
                    self._refused(message, error.reason)
                    continue
                others = by_aor.get(incoming.aor)
                if others is None:
                    by_aor[incoming.aor] = [incoming]
                else:
                    others.append(incoming)
            elif isinstance(each, (SyncRequest, SyncEnd)):
                self._sync_received(each, sender)
            elif isinstance(each, UsrlocRefused):
                self._refused(message, each.reason)
        self._counts["received"] += received
        return by_aor, received

    def _merged(
        self, update: Update, outcomes: list[Merged], message: ChannelMessage, kamailios: Sequence[ClusterNode]
    ) -> None:
        for outcome in outcomes:
            if outcome.answer is not None:
                self._tell(message.sender, outcome.answer)
            if outcome.refused:
                self._refused(message, outcome.refused)
        for change in update.changes:
            told_by, previous = change.binding.told_by, change.previous
            if change.binding.is_hidden:  # its name is that of another record
                continue
            if not told_by:
                if self._was_told_before(change):
                    self._ask_first(kamailios)
                    self._pass_on(change, message.sender, self._others())
                continue
            if self._membership.passes_on(told_by):
                self._pass_on(change, message.sender, self._others())
                continue
            if message.sender is not None and self._restores.is_for_all(message.sender.name):
                ours = [node for node in self._others() if node.is_sipdmq]
                self._pass_on(change, message.sender, [*ours, *kamailios])
                continue
            heir = self._membership.teller_to_all(told_by)
            if heir is not None:
                self._pass_on(change, message.sender, [node for node in self._others() if node.name == heir])
            if kamailios:
                if any(told_by == str(node.name) and not says_ours(node) for node in kamailios):
                    self._complete(change, message.sender)
                if previous is not None:
                    self._overtake(change, previous, kamailios)

    def _was_told_before(self, change: BindingChange) -> bool:
        """
        Whether a change that others bring is one of this node, of shortly before it was started: then perhaps not all
        have heard of it.
        """
        binding, previous = change.binding, change.previous
        is_news = previous is None or previous.last_modified < binding.last_modified
        return is_news and self._started_at - _YOUNG < binding.last_modified <= self._started_at + CLOCKS

    def _ask_first(self, kamailios: Iterable[ClusterNode]) -> None:
        """
        A Kamailio may have what is newer than what this node gets back of its own changes, and nobody else: this node
        had told it, and was killed then.
        """
        for node in kamailios:
            if node.name not in self._asked_first and not says_ours(node):
                self._asked_first.add(node.name)
                self.restore(node, self._now() - self._started_at + _YOUNG)

    def _told_since(self, now: float) -> float:
        """
        When the oldest change of this node was made that it may have told others lately, seconds since the epoch: what
        it gets back of those from before its start it tells once more.
        """
        return self._started_at - _YOUNG if now < self._started_at + _YOUNG else now - _UNDER_WAY

    def _complete(self, change: BindingChange, sender: ClusterNode | None) -> None:
        """
        A Kamailio tells a change once, to those whom it lists by then. Where it comes here late, this node has just
        given a newcomer everything without it.
        """
        late = min(self._now() + _RECENT - change.binding.last_modified, _UNDER_WAY)
        newcomers = [
            node for node in self._others() if node.is_sipdmq and self._donor.served_since(node.name) <= late
        ]
        self._pass_on(change, sender, newcomers)

    def _overtake(self, change: BindingChange, previous: Binding, kamailios: Sequence[ClusterNode]) -> None:
        """
        What has just lost here may reach a Kamailio after what it has lost against, and count there: even the one that
        told it, as it has not heard of ours yet. Or it has done so: in a repair or a sync of ours, made in ignorance of
        what wins.
        """
        now = self._now()
        is_recent = not previous.told_by and previous.last_modified > self._told_since(now)
        key = key_of(previous, previous.ruid)
        under_way = [
            node
            for node in kamailios
            if is_recent
            or self._replicator.is_under_way(node.name, self.channel, key)
            or change.binding.last_modified <= now - self._donor.served_since(node.name) + CLOCKS
        ]
        self._pass_on(change, None, under_way)

    def _tell(self, sender: ClusterNode | None, answer: Answer) -> None:
        """
        Put the sender of a record right. A Kamailio finds its record by the name that it used, and does not mind
        under which name others have it.
        """
        if sender is None or sender.is_local or (answer.is_by_name and not sender.is_sipdmq):
            return
        self._counts["answered"] += 1
        winner = answer.winner
        ruid = winner.ruid if sender.is_sipdmq else answer.ruid
        change = UsrlocChange(winner, ruid, winner.removed, winner.told_by if sender.is_sipdmq else "")
        self._replicator.put_for(sender.name, self.channel, key_of(winner, ruid), change)

    def _pass_on(self, change: BindingChange, sender: ClusterNode | None, others: Iterable[ClusterNode]) -> None:
        """
        Tell others what this node has only heard of: what a lost node has told, and comes here late, so perhaps to
        them. A record that came from it itself comes here, too, and goes back to it: it may have told that before it
        was started anew.
        """
        age = max(0.0, self._now() - change.binding.last_modified)  # if it is lost, the node lacks what is so old
        for node in others:
            if not node.is_sipdmq and self._restores.defers(node.name):
                continue
            if sender is None or node.name != sender.name or str(node.name) == change.binding.told_by:
                for key, told in told_of(change.binding, change.is_gone, node):
                    self._replicator.put_for(node.name, self.channel, key, told, age)

    # syncs

    def forgotten(self, name: NodeName) -> None:
        """
        See L{ISynced.forgotten}.
        """
        self._asked_first.discard(name)
        super().forgotten(name)

    def restore(self, node: ClusterNode, age: float, is_for_all: bool = False) -> None:
        """
        See L{IRestorer.restore}.
        """
        if self._config.sync:
            self._restores.begin_asking(node, age, is_whole=True, is_for_all=is_for_all)
        else:  # not asked, it is told nothing of others': it may know better
            self._restores.begin(node, age)

    def exchange(self, node: ClusterNode) -> None:
        """
        See L{IRestorer.exchange}. It may know better what we know of its phones: it was cut off from who told us.
        """
        if self._config.sync:
            self.newcomer.is_told_by(node)
            self._restores.begin_asking(node, inf, is_whole=True)

    def _put_record(self, node: ClusterNode, binding: Binding, age: float) -> Any:
        full = None
        for key, told in told_of(binding, binding.removed, node):
            full = self._replicator.put_for(node.name, self.channel, key, told, age) or full
        return full


def _failed(failure: Failure, message: ChannelMessage) -> None:
    log.failure("a record of {sender} could not be stored", failure, sender=message.source.host)
