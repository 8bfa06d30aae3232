"""
Channel C{htable}: what policies write into shared tables goes to the other nodes, and what they tell comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.dmq.errands import REPAIR, SYNC, SYNC_OF_OURS, Errand
from sipdmq.dmq.htable_donor import TableDonor
from sipdmq.dmq.htable_json import (
    CONTENT_TYPE,
    NO_CELLS,
    SYNC_REQUEST,
    SYNC_REQUEST_OF_OURS,
    Htable,
    HtableCells,
    HtableDelete,
    HtableExpire,
    HtableRemove,
    HtableSet,
    HtableSync,
    HtableSyncEnd,
    decode,
    encode_cell,
    encode_removal,
    encode_sync_end,
    join,
    place_of,
)
from sipdmq.dmq.htable_pairs import Pairs
from sipdmq.dmq.newcomer import Newcomer, Readiness
from sipdmq.dmq.outbox import Place
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
    NodeStatus,
    Origin,
)

__all__ = ["CHANNEL", "HtablePeer"]

log = Logger()

CHANNEL: Final = "htable"
BATCH_CELLS: Final = 200
"""In one message."""
BATCH_BYTES: Final = 60_000
"""Of a body, as Kamailio; what its receiver reads may be less."""
_KEPT_BODIES: Final = 64
"""Bodies that were read for their keys and wait for their turn."""
LOG_INTERVAL: Final = 60.0
UNKNOWN: Final = "?"
"""In C{told_by}: a node that is in no list."""
OK: Final = ChannelReply(200)
BAD: Final = ChannelReply(400)
FAILED: Final = ChannelReply(500)


def _key(table: str, key: str) -> str:
    return f"{table} {key}"


@implementer(IRepairer, ITableListener, INodeListener, IInspectable)
class HtablePeer:
    """
    Both directions of the channel, and its syncs.

    @ivar batch_contacts: how many changes one message may have.
    @ivar batch_bytes: how long its body may be.
    @ivar newcomer: asks others for all cells.
    """

    channel = CHANNEL
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
        self._clock = IReactorTime(clock)
        self._now = now
        self._tables = ITables(tables)
        self._local = str(local)
        self._replicator = IReplicator(replicator)
        self._membership = IMembership(membership)
        self._broadcaster = IBroadcaster(broadcaster)
        self._bodies: dict[bytes, Htable] = {}
        self._pairs = Pairs()
        self._counts = dict.fromkeys(("received", "refused"), 0)
        self._logged_at = float("-inf")
        self._donor = TableDonor(
            clock,
            now,
            tables,
            self._put_cell,
            self._put_removal,
            self._put_end,
            lambda node, age: replicator.owe(node.name, CHANNEL, age),
            membership.answers_for,
            self._is_active,
        )
        self.readiness = Readiness("the store of shared tables")
        self.newcomer = Newcomer(clock, self.readiness, self._ask, self._others)

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {
            **{f"htable.{name}": count for name, count in self._counts.items()},
            "htable.syncs": len(self._donor),
            "htable.is_ready": int(self.readiness.is_ready),
        }

    def start(self, has_peers: bool) -> None:
        """
        Begin to replicate.

        @param has_peers: whether there are nodes to join.
        """
        self._tables.watch(self)
        self._membership.watch(self)
        self.newcomer.start(has_peers)

    def stop(self) -> None:
        """
        No more timers.
        """
        self._donor.stop()
        self.newcomer.stop()

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
            found = decode(message.body)
        except DecodeError:
            return ("",)
        if len(self._bodies) >= _KEPT_BODIES:
            self._bodies.pop(next(iter(self._bodies)))
        self._bodies[message.body] = found
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
            found = self._bodies.pop(message.body, None) or decode(message.body)
        except DecodeError as error:
            self._refused(message, error.reason)
            return BAD
        sender = message.sender
        told_by = UNKNOWN if sender is None else str(sender.name)
        if isinstance(found, HtableCells):
            return self._cells(found, message, told_by)
        if isinstance(found, HtableSync):
            if sender is not None and not sender.is_local:
                self._donor.serve(sender, Errand(SYNC_OF_OURS if found.is_ours else SYNC), found.table)
            return OK
        if isinstance(found, HtableSyncEnd):
            if sender is not None:
                self.newcomer.end_received(sender.name, found.cells, found.is_partial)
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
        name = None if message.sender is None else message.sender.name
        refused = found.refused
        for cell in found.cells:
            # Kamailio: an unknown table among them is skipped.
            if self._tables.is_shared(cell.table) and not self._set(cell, message, told_by, True):
                refused += 1
        self._counts["received"] += len(found.cells)
        self.newcomer.records_received(name, len(found.cells))
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

    def _refused(self, message: ChannelMessage, reason: str) -> None:
        self._counts["refused"] += 1
        now = self._clock.seconds()
        if now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            log.warn(
                "a message from {source} on channel htable was refused: {reason}; refused so far: {count}",
                source=message.source.host,
                reason=reason,
                count=self._counts["refused"],
            )

    # syncs and repairs

    def node_joined(self, node: ClusterNode) -> None:
        """
        See L{IChannelPeer.node_joined}.
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
            end = encode_sync_end(count, not self.newcomer.is_complete)
            self._replicator.put_for(node.name, CHANNEL, "", end)
        elif not count:
            self._replicator.put_for(node.name, CHANNEL, "", NO_CELLS)

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
        request = SYNC_REQUEST_OF_OURS if node.is_sipdmq else SYNC_REQUEST
        asking: Deferred[Any] = self._broadcaster.send(CHANNEL, node.name, request, CONTENT_TYPE)
        return asking.addCallbacks(lambda response: 200 <= response.status < 300, lambda _: False)


def _removal_key(removal: CellRemoval) -> str:
    # No table is called so: nothing else has this key.
    return f"- {removal.table} {int(removal.is_regex)}{int(removal.of_values)} {removal.pattern}"
