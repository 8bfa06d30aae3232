"""
Channel C{dialog}: the calls that this node follows go to the other nodes, and what they tell comes into its table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from sipdmq.core.read_ahead import ReadAhead
from sipdmq.dmq.dialog_donor import DialogDonor
from sipdmq.dmq.dialog_json import (
    SYNC_REQUEST,
    SYNC_REQUEST_OF_OURS,
    DialogGone,
    DialogTold,
    decode,
    encode,
    encode_gone,
    encode_sync_end,
    is_end,
)
from sipdmq.dmq.errands import SYNC, Errand, SyncEnd, says_ours
from sipdmq.dmq.kamailio_json import CONTENT_TYPE
from sipdmq.dmq.newcomer import Readiness
from sipdmq.dmq.synced import BAD, FAILED, OK, SyncedPeer
from sipdmq.dmq.usrloc_form import UNKNOWN
from sipdmq.errors import DecodeError
from sipdmq.interfaces.dialogs import Dialog, DialogId, DialogState, EndedDialog, IDialogListener, IDialogs
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.replication import IBroadcaster, IMembership, INodeListener, IRepairer, IReplicator
from sipdmq.records import ChannelMessage, ChannelReply, ClusterNode, Origin

__all__ = ["DialogPeer"]

_ASKS_ALL: Final = ("kamailio 5", "kamailio 6.0", "kamailio 6.1")
"""Releases that ask all nodes for what they have (WIRE §15); of later ones not all do."""
_TOLD_STATES: Final = (DialogState.EARLY, DialogState.CONFIRMED, DialogState.DELETED)


class _Gone(NamedTuple):
    """
    A dialog is over, or C{is_forgotten}.
    """

    id: DialogId
    is_forgotten: bool


@implementer(IRepairer, IDialogListener, INodeListener, IInspectable)
class DialogPeer(SyncedPeer):
    """
    Both directions of the channel, and its syncs.

    @ivar channel: Kamailio's module C{dialog} has no other.
    @ivar batch_contacts: Kamailio knows no messages with several changes here.
    """

    channel = "dialog"
    batch_contacts = 1
    numbers = "dmq_dialog"
    record = "a dialog"
    sync_request = SYNC_REQUEST
    sync_request_of_ours = SYNC_REQUEST_OF_OURS

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
        super().__init__(
            clock, now, Readiness("dialog"), replicator, membership, broadcaster, counted=("unknown",)
        )
        self._dialogs = IDialogs(dialogs)
        self._bodies = ReadAhead(decode)
        self._donor = DialogDonor(
            clock, dialogs, self._wants, self._put_record, self._put_end, self._owe, self._is_active
        )

    def start(self, has_peers: bool) -> None:
        """
        See L{SyncedPeer.start}.
        """
        self._dialogs.watch(self)
        super().start(has_peers)

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

    def encode(self, change: DialogTold | _Gone | SyncEnd) -> bytes:
        """
        See L{IRepairer.encode}.
        """
        if isinstance(change, SyncEnd):
            return encode_sync_end(change)
        return encode_gone(*change.id, change.is_forgotten) if isinstance(change, _Gone) else encode(change)

    def join(self, fragments: Iterable[bytes]) -> tuple[str, bytes]:
        """
        See L{IRepairer.join}: there is only ever one.
        """
        (fragment,) = fragments
        return CONTENT_TYPE, fragment

    @staticmethod
    def is_needless(fragments: Sequence[bytes], status: int) -> bool:
        """
        See L{IRepairer}: the end of a dialog that the receiver does not know, or not any more (WIRE §9).
        """
        return status == FAILED.status and all(map(is_end, fragments))

    # inward

    def keys_of(self, message: ChannelMessage) -> Sequence[str]:
        """
        See L{IRepairer.keys_of}: the dialog.
        """
        try:
            found = self._bodies.read(message.body)
        except DecodeError:
            return ("",)
        return (_key(DialogId(found.h_entry, found.h_id)) if isinstance(found, DialogTold | DialogGone) else "",)

    def message_received(self, message: ChannelMessage) -> ChannelReply:
        """
        See L{IRepairer.message_received}: 400 for what cannot be read, 500 for what is said of an unknown dialog or of
        one whose hash is another, else 200 (WIRE §13).
        """
        try:
            found = self._bodies.take(message.body)
        except DecodeError as error:
            self._refused(message, error.reason)
            return BAD
        if isinstance(found, DialogTold):
            self._counts["received"] += 1
            self._records_received(message.sender)
            return self._merge(found, message)
        if isinstance(found, DialogGone):
            self._records_received(message.sender)
            name = DialogId(found.h_entry, found.h_id)
            return OK if self._dialogs.remove(name, self._teller(message)) else self._unknown()
        if found is not None:
            self._sync_received(found, message.sender)
        return OK

    def _merge(self, told: DialogTold, message: ChannelMessage) -> ChannelReply:
        sender = message.sender
        name = DialogId(told.h_entry, told.h_id)
        stored = self._dialogs.get(name)
        if stored is None and not told.is_whole:
            if told.state == DialogState.DELETED:
                # An older message that comes after this one is not to bring it up.
                self._dialogs.remove(name, self._teller(message))
            return self._unknown()
        if told.is_whole and not self._is_named_rightly(told):
            self._refused(message, "its hash is not that of its Call-ID; see [dialog] hash_size")
            return FAILED
        if told.state not in _TOLD_STATES and not (told.is_whole and told.state == DialogState.UNCONFIRMED):
            self._refused(message, "there is no such state")
            return FAILED
        told_by = self._teller(message, told.by)
        if not self._dialogs.merge(self._dialog(told, stored, told_by)):
            self._refused(message, "too many dialogs on this node; see [dialog] max_dialogs")
            return FAILED
        now_stored = self._dialogs.get(name)
        if now_stored is not None and now_stored is not stored and self._membership.passes_on(told_by):
            for node in self._others():
                if sender is None or node.name != sender.name:
                    self._put_record(node, now_stored, 0.0)
        return OK

    def _teller(self, message: ChannelMessage, by: str = "") -> str:
        """
        Whose word a message is, as in L{Dialog.told_by}: of what this node has told before it was started anew, its
        own.

        @param by: see L{DialogTold.by}.
        """
        sender = message.sender
        if sender is None:
            return UNKNOWN
        if not by or not says_ours(sender):
            return str(sender.name)
        return "" if by == str(self._membership.local) else by

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
        return FAILED

    # syncs

    def _wants(self, node: ClusterNode, errand: Errand) -> Callable[[Any], bool]:
        """
        See L{SyncedPeer._wants}. A Kamailio that asks everybody gets each dialog from the node that answers for it:
        only what that one says of it comes in order. From another it might come after its end, and stay for ever.
        """
        if errand.kind == SYNC and node.release.startswith(_ASKS_ALL):
            return lambda record: not record.removed and bool(self._membership.answers_for(record.told_by))
        return super()._wants(node, errand)

    def _put_record(self, node: ClusterNode, record: Dialog | EndedDialog, age: float) -> Any:
        if isinstance(record, EndedDialog):
            told: DialogTold | _Gone = _Gone(record.id, True)
        else:
            told = _told_of(record, record.told_by if says_ours(node) else "")
        return self._replicator.put_for(node.name, self.channel, _key(record.id), told, age)


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
