"""
Channel C{dialog}: the calls that this node follows go to the other nodes, and what they tell comes into its table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from sipdmq.dmq.dialog_donor import DialogDonor
from sipdmq.dmq.dialog_json import (
    CONTENT_TYPE,
    SYNC_REQUEST,
    SYNC_REQUEST_OF_OURS,
    DialogGone,
    DialogMessage,
    DialogSync,
    DialogSyncEnd,
    DialogTold,
    decode,
    encode,
    encode_gone,
    encode_sync_end,
)
from sipdmq.dmq.errands import REPAIR, SYNC, SYNC_OF_OURS, Errand, records_for
from sipdmq.dmq.newcomer import Newcomer, Readiness
from sipdmq.dmq.usrloc_form import UNKNOWN
from sipdmq.errors import DecodeError
from sipdmq.interfaces.dialogs import Dialog, DialogId, DialogState, IDialogListener, IDialogs
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.replication import IBroadcaster, IMembership, INodeListener, IRepairer, IReplicator
from sipdmq.records import ChannelMessage, ChannelReply, ClusterNode, NodeName, NodeStatus, Origin

__all__ = ["DialogPeer"]

log = Logger()

LOG_INTERVAL: Final = 60.0
OK: Final = ChannelReply(200)
BAD: Final = ChannelReply(400)
UNKNOWN_DIALOG: Final = ChannelReply(500)
_KEPT_BODIES: Final = 64
_TOLD_STATES: Final = (DialogState.EARLY, DialogState.CONFIRMED, DialogState.DELETED)


class _SyncEnd(NamedTuple):
    """
    All of a sync was put.
    """

    records: int
    is_partial: bool


class _Gone(NamedTuple):
    """
    A dialog is over, or C{is_forgotten}.
    """

    id: DialogId
    is_forgotten: bool


@implementer(IRepairer, IDialogListener, INodeListener, IInspectable)
class DialogPeer:
    """
    Both directions of the channel, and its syncs.

    @ivar channel: Kamailio's module C{dialog} has no other.
    @ivar batch_contacts: Kamailio knows no messages with several changes here.
    """

    channel = "dialog"
    batch_contacts = 1

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        dialogs: IDialogs,
        replicator: IReplicator,
        membership: IMembership,
        broadcaster: IBroadcaster,
    ) -> None:
        """
        @param now: the time, seconds since the epoch.
        """
        self._clock = IReactorTime(clock)
        self._now = now
        self._dialogs = IDialogs(dialogs)
        self._replicator = IReplicator(replicator)
        self._membership = IMembership(membership)
        self._broadcaster = IBroadcaster(broadcaster)
        self._bodies: dict[bytes, DialogMessage | None] = {}
        self._counts = dict.fromkeys(("received", "refused", "unknown"), 0)
        self._logged_at = float("-inf")
        self.readiness = Readiness("dialog")
        self.newcomer = Newcomer(clock, self.readiness, self._ask, self._others)
        self._donor = DialogDonor(
            clock, dialogs, self._wants, self._put_record, self._put_end, self._owe, self._is_active
        )

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        numbers: dict[str, int | float] = {f"dmq_dialog.{name}": count for name, count in self._counts.items()}
        numbers["dmq_dialog.syncs"] = len(self._donor)
        numbers["dmq_dialog.is_ready"] = int(self.readiness.is_ready)
        return numbers

    def start(self, has_peers: bool) -> None:
        """
        Begin to replicate.

        @param has_peers: whether there are nodes to join.
        """
        self._dialogs.watch(self)
        self._membership.watch(self)
        self.newcomer.start(has_peers)

    def stop(self) -> None:
        """
        No more timers.
        """
        self._donor.stop()
        self.newcomer.stop()

    # outward

    def dialog_changed(self, dialog: Dialog, origin: Origin) -> None:
        """
        See L{IDialogListener.dialog_changed}: what came from another node, it has told everybody itself.
        """
        if origin is Origin.LOCAL:
            self._replicator.put(self.channel, _key(dialog.id), _told_of(dialog))

    def dialog_forgotten(self, dialog: Dialog, origin: Origin) -> None:
        """
        See L{IDialogListener.dialog_forgotten}.
        """
        if origin is Origin.LOCAL:
            self._replicator.put(self.channel, _key(dialog.id), _Gone(dialog.id, True))

    def encode(self, change: DialogTold | _Gone | _SyncEnd) -> bytes:
        """
        See L{IRepairer.encode}.
        """
        if isinstance(change, _SyncEnd):
            return encode_sync_end(*change)
        return encode_gone(*change.id, change.is_forgotten) if isinstance(change, _Gone) else encode(change)

    def join(self, fragments: Iterable[bytes]) -> tuple[str, bytes]:
        """
        See L{IRepairer.join}: there is only ever one.
        """
        (fragment,) = fragments
        return CONTENT_TYPE, fragment

    # inward

    def keys_of(self, message: ChannelMessage) -> Sequence[str]:
        """
        See L{IRepairer.keys_of}: the dialog.
        """
        try:
            found = decode(message.body)
        except DecodeError:
            return ("",)
        if len(self._bodies) >= _KEPT_BODIES:
            self._bodies.pop(next(iter(self._bodies)))
        self._bodies[message.body] = found
        return (_key(DialogId(found.h_entry, found.h_id)) if isinstance(found, DialogTold | DialogGone) else "",)

    def message_received(self, message: ChannelMessage) -> ChannelReply:
        """
        See L{IRepairer.message_received}: 400 for what cannot be read, 500 for what is said of an unknown dialog or of
        one whose hash is another, else 200 (WIRE §13).
        """
        body = message.body
        try:
            found = self._bodies.pop(body) if body in self._bodies else decode(body)
        except DecodeError as error:
            self._refused(message, error.reason)
            return BAD
        sender = message.sender
        if isinstance(found, DialogTold):
            self._counts["received"] += 1
            self.newcomer.records_received(None if sender is None else sender.name, 1)
            return self._merge(found, message)
        if isinstance(found, DialogGone):
            return OK if self._dialogs.remove(DialogId(found.h_entry, found.h_id)) else self._unknown()
        if sender is not None and not sender.is_local:
            if isinstance(found, DialogSync):
                is_ours = found.is_ours or sender.is_sipdmq
                self._donor.serve(sender, Errand(SYNC_OF_OURS if is_ours else SYNC))
            elif isinstance(found, DialogSyncEnd):
                self.newcomer.end_received(sender.name, found.records, found.is_partial)
        return OK

    def _merge(self, told: DialogTold, message: ChannelMessage) -> ChannelReply:
        sender = message.sender
        name = DialogId(told.h_entry, told.h_id)
        stored = self._dialogs.get(name)
        if stored is None and not told.is_whole:
            if told.state == DialogState.DELETED:
                self._dialogs.remove(name)  # an older message that comes after this one is not to bring it up
            return self._unknown()
        if told.is_whole and not self._is_named_rightly(told):
            self._refused(message, "its hash is not that of its Call-ID; see [dialog] hash_size")
            return UNKNOWN_DIALOG
        if told.state not in _TOLD_STATES and not (told.is_whole and told.state == DialogState.UNCONFIRMED):
            self._refused(message, "there is no such state")
            return UNKNOWN_DIALOG
        told_by = UNKNOWN if sender is None else str(sender.name)
        if told.by and sender is not None and sender.is_sipdmq:
            told_by = told.by
        if not self._dialogs.merge(self._dialog(told, stored, told_by)):
            self._refused(message, "too many dialogs on this node; see [dialog] max_dialogs")
            return UNKNOWN_DIALOG
        now_stored = self._dialogs.get(name)
        if now_stored is not None and now_stored is not stored and self._membership.passes_on(told_by):
            for node in self._others():
                if sender is None or node.name != sender.name:
                    self._put_record(node, now_stored, 0.0)
        return OK

    def _is_named_rightly(self, told: DialogTold) -> bool:
        return 0 < told.h_id < 2**32 and told.h_entry == self._dialogs.hash_of(told.call_id)

    def _dialog(self, told: DialogTold, stored: Dialog | None, told_by: str) -> Dialog:
        now = self._now()
        start = min(told.start_ts, int(now))
        state = DialogState(told.state)
        caller, callee = told.caller, told.callee
        if stored is not None and not (told.is_whole and told.call_id == stored.call_id):
            return stored._replace(
                caller=caller, callee=callee, state=state, start_ts=start, lifetime=told.lifetime, variables=(),
                profiles=(), told_by=told_by, changed_at=now,
            )  # fmt: skip
        return Dialog(
            DialogId(told.h_entry, told.h_id),
            told.call_id,
            told.from_uri,
            told.to_uri,
            told.req_uri,
            caller,
            callee,
            state,
            min(told.init_ts or int(now), int(now)),
            start,
            told.lifetime,
            told.variables,
            told.profiles,
            told_by,
            now,
        )

    def _unknown(self) -> ChannelReply:
        """
        What ends may never have come here, or be told by several: that is nothing to write of.
        """
        self._counts["unknown"] += 1
        return UNKNOWN_DIALOG

    def _refused(self, message: ChannelMessage, reason: str) -> None:
        self._counts["refused"] += 1
        now = self._clock.seconds()
        if now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            log.warn(
                "a dialog from {source} was refused: {reason}; refused so far: {count}",
                source=message.source.host,
                reason=reason,
                count=self._counts["refused"],
            )

    # syncs

    def node_joined(self, node: ClusterNode) -> None:
        """
        See L{IRepairer.node_joined}.
        """
        if not node.is_local:
            self.newcomer.node_joined(node)

    def node_up(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_up}.
        """
        self._donor.node_up(node)
        self.newcomer.node_up(node)

    def node_down(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_down}.
        """
        self.newcomer.node_lost(node)

    def node_disabled(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_disabled}.
        """
        self.newcomer.node_lost(node)

    def repair(self, node: ClusterNode, age: float) -> None:
        """
        See L{IRepairer.repair}.
        """
        self._donor.serve(node, Errand(REPAIR, self._clock.seconds() - age))

    def hand_over(self, node: ClusterNode, lost: str, age: float) -> None:
        """
        See L{IRepairer.hand_over}.
        """
        self._donor.serve(node, Errand(lost, self._clock.seconds() - age))

    def _wants(self, node: ClusterNode, errand: Errand) -> Callable[[Dialog], bool]:
        since = self._now() - (self._clock.seconds() - errand.since)
        membership = self._membership
        return records_for(errand, since, membership.answers_for, membership.clock_difference)

    def _put_record(self, node: ClusterNode, dialog: Dialog, age: float) -> Any:
        told = _told_of(dialog, dialog.told_by if node.is_sipdmq else "")
        return self._replicator.put_for(node.name, self.channel, _key(dialog.id), told, age)

    def _put_end(self, node: ClusterNode, count: int) -> Any:
        return self._replicator.put_for(node.name, self.channel, "", _SyncEnd(count, not self.newcomer.is_complete))

    def _owe(self, node: ClusterNode, age: float) -> None:
        self._replicator.owe(node.name, self.channel, age)

    def _others(self) -> Sequence[ClusterNode]:
        return [node for node in self._membership.nodes() if not node.is_local and node.status is NodeStatus.ACTIVE]

    def _is_active(self, name: NodeName) -> bool:
        return any(node.name == name for node in self._others())

    def _ask(self, node: ClusterNode) -> Deferred[bool]:
        """
        Ask a node for everything.
        """
        request = SYNC_REQUEST_OF_OURS if node.is_sipdmq else SYNC_REQUEST
        asking: Deferred[Any] = self._broadcaster.send(self.channel, node.name, request, CONTENT_TYPE)
        return asking.addCallbacks(lambda response: 200 <= response.status < 300, lambda _: False)


def _key(dialog: DialogId) -> str:
    return f"{dialog.h_entry}:{dialog.h_id}"


def _told_of(dialog: Dialog, by: str = "") -> DialogTold | _Gone:
    """
    What others are told of a dialog as it is now. State 3 is never told: without an ACK it is an early one.
    """
    if dialog.is_over:
        return _Gone(dialog.id, False)
    is_early = dialog.state is DialogState.CONFIRMED_NA
    return DialogTold(
        dialog.id.h_entry,
        dialog.id.h_id,
        DialogState.EARLY if is_early else dialog.state,
        True,
        dialog.call_id,
        dialog.from_uri,
        dialog.to_uri,
        dialog.req_uri,
        dialog.caller,
        dialog.callee,
        dialog.init_ts,
        0 if is_early else dialog.start_ts,
        dialog.lifetime,
        dialog.variables,
        dialog.profiles,
        by,
    )
