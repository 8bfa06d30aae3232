"""
Channel C{htable}: what policies write into shared tables goes to the other nodes, and what they tell comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.core.read_ahead import ReadAhead
from sipdmq.dmq.changes import Place
from sipdmq.dmq.errands import SyncEnd
from sipdmq.dmq.htable_donor import TableDonor
from sipdmq.dmq.htable_json import (
    NO_CELLS,
    SYNC_REQUEST,
    SYNC_REQUEST_OF_OURS,
    HtableCells,
    HtableDelete,
    HtableExpire,
    HtableRemove,
    HtableSet,
    HtableSync,
    decode,
    encode_cell,
    encode_removal,
    encode_sync_end,
    join,
    place_of,
)
from sipdmq.dmq.htable_pairs import Pairs
from sipdmq.dmq.kamailio_json import CONTENT_TYPE
from sipdmq.dmq.newcomer import Readiness
from sipdmq.dmq.synced import BAD, FAILED, OK, SyncedPeer
from sipdmq.dmq.usrloc_form import UNKNOWN
from sipdmq.errors import DecodeError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.replication import (
    IBroadcaster,
    IMembership,
    INodeListener,
    IRepairer,
    IReplicator,
)
from sipdmq.interfaces.tables import ITableListener, ITables
from sipdmq.records import (
    Cell,
    CellChange,
    CellRemoval,
    ChannelMessage,
    ChannelReply,
    ClusterNode,
    NodeName,
    Origin,
)

__all__ = ["CHANNEL", "HtablePeer"]

CHANNEL: Final = "htable"
BATCH_CELLS: Final = 200
"""In one message."""
BATCH_BYTES: Final = 60_000
"""Of a body, as Kamailio; what its receiver reads may be less."""


def _key(table: str, key: str) -> str:
    return f"{table} {key}"


@implementer(IRepairer, ITableListener, INodeListener, IInspectable)
class HtablePeer(SyncedPeer):
    """
    Both directions of the channel, and its syncs.

    @ivar batch_contacts: how many changes one message may have.
    @ivar batch_bytes: how long its body may be.
    """

    channel = CHANNEL
    numbers = "htable"
    record = "a message on channel htable"
    sync_request = SYNC_REQUEST
    sync_request_of_ours = SYNC_REQUEST_OF_OURS
    batch_contacts = BATCH_CELLS
    batch_bytes = BATCH_BYTES

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        tables: ITables,
        local: NodeName,
        replicator: IReplicator,
        membership: IMembership,
        broadcaster: IBroadcaster,
    ) -> None:
        """
        @param now: the time, seconds since the epoch.
        """
        super().__init__(
            clock, now, Readiness("the store of shared tables"), replicator, membership, broadcaster
        )
        self._tables = ITables(tables)
        self._local = str(local)
        self._bodies = ReadAhead(decode)
        self._pairs = Pairs()
        self._donor: TableDonor = TableDonor(
            clock,
            now,
            tables,
            self._put_cell,
            self._put_removal,
            self._put_end,
            self._owe,
            membership.answers_for,
            self._is_active,
        )

    def start(self, has_peers: bool) -> None:
        """
        See L{SyncedPeer.start}.
        """
        self._tables.watch(self)
        super().start(has_peers)

    # outward

    def cell_changed(self, change: CellChange) -> None:
        """
        See L{ITableListener.cell_changed}: what came from another node, it has told everybody itself; what expires,
        everybody notices.
        """
        cell = change.cell
        if change.origin is Origin.LOCAL and self._tables.is_shared(cell.table):
            self._spread(_key(cell.table, cell.key), lambda for_ours: self._encode(cell, for_ours))

    def cells_removed(self, removal: CellRemoval, origin: Origin) -> None:
        """
        See L{ITableListener.cells_removed}.
        """
        if origin is Origin.LOCAL and self._tables.is_shared(removal.table):
            self._spread(_removal_key(removal), lambda for_ours: encode_removal(removal, for_ours))

    def _spread(self, key: str, encode: Callable[[bool], bytes]) -> None:
        """
        Into the outbox of every other node; encoded once for those of ours, and once for the others.
        """
        fragments: dict[bool, bytes] = {}
        for node in self._membership.nodes():
            if node.is_local:
                continue
            fragment = fragments.get(node.is_sipdmq)
            if fragment is None:
                fragment = fragments[node.is_sipdmq] = encode(node.is_sipdmq)
            self._replicator.put_for(node.name, CHANNEL, key, fragment)

    def _encode(self, cell: Cell, for_ours: bool) -> bytes:
        usual = self._tables.autoexpire(cell.table)
        has_expiry = bool(cell.expires_at) and abs(cell.expires_at - self._now() - usual) > 1
        return encode_cell(cell, for_ours, has_expiry)

    def encode(self, change: bytes) -> bytes:
        """
        See L{IChannelPeer.encode}: what is put is encoded already, as nodes of ours and Kamailios need it.
        """
        return change

    def place_of(self, fragment: bytes) -> Place:
        """
        What the outbox may do with a fragment.
        """
        return place_of(fragment)

    def join(self, fragments: Iterable[bytes]) -> tuple[str, bytes]:
        """
        See L{IChannelPeer.join}.
        """
        return CONTENT_TYPE, join(fragments)

    # inward

    def keys_of(self, message: ChannelMessage) -> Sequence[str]:
        """
        See L{IChannelPeer.keys_of}: the cells; a removal by pattern concerns all.
        """
        try:
            found = self._bodies.read(message.body)
        except DecodeError:
            return ("",)
        if isinstance(found, HtableRemove):
            return ()
        if isinstance(found, HtableCells):
            return [_key(cell.table, cell.key) for cell in found.cells] or ("",)
        if isinstance(found, (HtableSet, HtableDelete, HtableExpire)):
            return (_key(found.table, found.key),)
        return ("",)

    def message_received(self, message: ChannelMessage) -> ChannelReply | Deferred[ChannelReply]:
        """
        See L{IChannelPeer.message_received}, answered as WIRE §13 says: 400 for what cannot be read, 500 for what
        cannot be done, else 200.
        """
        try:
            found = self._bodies.take(message.body)
        except DecodeError as error:
            self._refused(message, error.reason)
            return BAD
        sender = message.sender
        told_by = UNKNOWN if sender is None else str(sender.name)
        if isinstance(found, HtableCells):
            return self._cells(found, message, told_by)
        if isinstance(found, HtableSync):
            if sender is not None and not sender.is_local:
                self._donor.serve(sender, self._sync_for(sender, found.is_ours), found.table)
            return OK
        if isinstance(found, SyncEnd):
            self._sync_received(found, sender)
            return OK
        if isinstance(found, HtableRemove):
            return self._remove(found.removal, message, told_by)
        if isinstance(found, HtableSet):
            return self._done(self._set(found, message, told_by), message)
        if isinstance(found, HtableDelete):
            return self._done(self._delete(found, told_by), message)
        if isinstance(found, HtableExpire):
            return self._done(self._expire(found, told_by), message)
        self._refused(message, found.reason)
        return FAILED

    def _done(self, was_done: bool, message: ChannelMessage) -> ChannelReply:
        if was_done:
            self._counts["received"] += 1
            return OK
        self._refused(message, "there is no such table that is shared, or it is full")
        return FAILED

    def _cells(self, found: HtableCells, message: ChannelMessage, told_by: str) -> ChannelReply:
        refused = found.refused
        for cell in found.cells:
            # Kamailio: an unknown table among them is skipped.
            if self._tables.is_shared(cell.table) and not self._set(cell, message, told_by, True):
                refused += 1
        self._counts["received"] += len(found.cells)
        self._records_received(message.sender, len(found.cells))
        if refused:
            self._refused(message, f"{refused} of the cells cannot be used")
        return OK

    def _set(self, found: HtableSet, message: ChannelMessage, told_by: str, is_sync: bool = False) -> bool:
        """
        @param is_sync: a Kamailio sends cells in this form only when it was asked for all that it has, perhaps after it
            was away: then they are older than what was changed here.
        """
        tables, table, key = self._tables, found.table, found.key
        if not tables.is_shared(table):
            return False
        if not found.last_modified:
            expires_at: float | None = found.expire or None
            if not is_sync:
                early = self._pairs.set_received(told_by, table, key, self._now())
                expires_at = expires_at if early is None else early
            return bool(tables.write(table, key, found.value, told_by, expires_at, is_sync))
        by = "" if found.by == self._local else found.by or told_by
        stored = tables.stored(table, key)
        cell = Cell(table, key, found.value, found.expire, found.last_modified, found.removed, by)
        if not tables.merge(cell):
            return False
        if stored is not None and stored.last_modified > cell.last_modified and self._answers_for(stored.told_by):
            self._put_right(stored)
        elif by and tables.stored(table, key) is not stored and self._membership.passes_on(by):
            self._pass_on(table, key, message.sender)
        return True

    def _answers_for(self, told_by: str) -> bool:
        return bool(self._membership.answers_for(told_by))

    def _put_right(self, winner: Cell) -> None:
        """
        Two nodes of ours have written at the same time. All of us know which counts; a Kamailio has what came last.
        """
        for node in self._others():
            if not node.is_sipdmq:
                self._put_cell(node, winner, 0.0)

    def _pass_on(self, table: str, key: str, sender: ClusterNode | None) -> None:
        """
        What a lost node has told, and this one hears only now: so may others.
        """
        cell = self._tables.stored(table, key)
        for node in self._others():
            if cell is not None and (sender is None or node.name != sender.name):
                self._put_cell(node, cell, 0.0)

    def _expire(self, found: HtableExpire, told_by: str) -> bool:
        if not self._tables.is_shared(found.table):
            return False
        now = self._now()
        self._pairs.expire_received(told_by, found.table, found.key, found.seconds, now)
        expires_at = now + found.seconds if found.seconds > 0 else None
        self._tables.expire(found.table, found.key, expires_at, told_by)
        return True  # Kamailio: whether there was a cell or not

    def _delete(self, found: HtableDelete, told_by: str) -> bool:
        if not self._tables.is_shared(found.table):
            return False
        self._tables.delete(found.table, found.key, told_by)
        return True

    def _remove(
        self, removal: CellRemoval, message: ChannelMessage, told_by: str
    ) -> ChannelReply | Deferred[ChannelReply]:
        if not self._tables.is_shared(removal.table):
            return self._done(False, message)

        def failed(failure: Failure) -> ChannelReply:
            failure.trap(ValueError)
            self._refused(message, failure.getErrorMessage())
            return FAILED

        try:
            removing: Deferred[Any] = self._tables.remove(removal._replace(told_by=told_by))
        except ValueError as error:
            self._refused(message, str(error))
            return FAILED
        self._counts["received"] += 1
        return removing.addCallbacks(lambda _: OK, failed)

    # syncs and repairs

    def _put_cell(self, node: ClusterNode, cell: Cell, age: float) -> Deferred[None] | None:
        by = cell.told_by if node.is_sipdmq else ""
        fragment = encode_cell(cell, node.is_sipdmq, bool(cell.expires_at), by)
        full: Deferred[None] | None = self._replicator.put_for(
            node.name, CHANNEL, _key(cell.table, cell.key), fragment, age
        )
        return full

    def _put_removal(self, node: ClusterNode, removal: CellRemoval, age: float) -> None:
        fragment = encode_removal(removal, node.is_sipdmq)
        self._replicator.put_for(node.name, CHANNEL, _removal_key(removal), fragment, age)

    def _put_end(self, node: ClusterNode, count: int) -> None:
        if node.is_sipdmq:
            end = encode_sync_end(self.newcomer.end_of_sync(count))
            self._replicator.put_for(node.name, CHANNEL, "", end)
        elif not count:
            self._replicator.put_for(node.name, CHANNEL, "", NO_CELLS)


def _removal_key(removal: CellRemoval) -> str:
    # No table is called so: nothing else has this key.
    return f"- {removal.table} {int(removal.is_regex)}{int(removal.of_values)} {removal.pattern}"
