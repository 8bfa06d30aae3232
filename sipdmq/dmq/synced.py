"""
What the channels have in common on which all nodes keep the same records: whoever joins gets all of them, and whoever
has missed some gets these. A channel beside that knows what its records are on the wire, and which one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, ClassVar, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from sipdmq.core.refusals import Refusals
from sipdmq.dmq.errands import (
    REPAIR,
    RESTORE,
    SYNC,
    SYNC_OF_OURS,
    Errand,
    SyncEnd,
    SyncRequest,
    Told,
    records_for,
    says_ours,
)
from sipdmq.dmq.kamailio_json import CONTENT_TYPE
from sipdmq.dmq.newcomer import Newcomer, Readiness
from sipdmq.dmq.restores import Restores
from sipdmq.interfaces.replication import IBroadcaster, IMembership, IReplicator, ISynced
from sipdmq.records import ChannelMessage, ChannelReply, ClusterNode, NodeName, NodeStatus

__all__ = ["ACTIVE", "BAD", "FAILED", "OK", "SyncedPeer"]

OK: Final = ChannelReply(200)
BAD: Final = ChannelReply(400)
FAILED: Final = ChannelReply(500)
ACTIVE: Final = NodeStatus.ACTIVE


class Giver(Protocol):
    """
    Who sends nodes what they lack: L{Donor<sipdmq.dmq.donor.Donor>} and others.
    """

    def __len__(self) -> int: ...

    def serve(self, node: ClusterNode, errand: Errand) -> None: ...

    def node_up(self, node: ClusterNode) -> None: ...

    def forgotten(self, name: NodeName) -> None: ...

    def stop(self) -> None: ...


@implementer(ISynced)
class SyncedPeer:
    """
    One of these channels, without its records. With C{encode}, C{join}, C{keys_of} and C{message_received}, and with a
    L{Giver} in C{_donor}, it is an L{IRepairer<sipdmq.interfaces.replication.IRepairer>}, and listens to the
    membership.

    @cvar numbers: what the names of its numbers begin with.
    @cvar record: a message of another node as the log calls it.
    @cvar sync_request: the body that asks a Kamailio for everything.
    @cvar sync_request_of_ours: the same for a node of ours.
    @cvar is_restored: a Kamailio takes for true what it hears last, be it old: when it was lost, one node puts it right
        for all (L{Restores}).
    @ivar channel: its name.
    @ivar readiness: whether this node has all records.
    @ivar newcomer: asks others for them.
    """

    channel: str
    numbers: ClassVar[str]
    record: ClassVar[str]
    sync_request: ClassVar[bytes]
    sync_request_of_ours: ClassVar[bytes]
    is_restored: ClassVar[bool] = False
    _donor: Giver

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        readiness: Readiness,
        replicator: IReplicator,
        membership: IMembership,
        broadcaster: IBroadcaster,
        asks: bool = True,
        init_with_single: bool = False,
        counted: Iterable[str] = (),
    ) -> None:
        """
        @param now: the time, seconds since the epoch.
        @param asks: whether others are asked for what they have.
        @param init_with_single: as in C{[dmq]}.
        @param counted: what is counted, besides what comes in.
        """
        self._clock = IReactorTime(clock)
        self._now = now
        self._replicator = IReplicator(replicator)
        self._membership = IMembership(membership)
        self._broadcaster = IBroadcaster(broadcaster)
        self._asks = asks
        self._counts = dict.fromkeys(("received", *counted), 0)
        self._refusals = Refusals(clock, self.record)
        self.readiness = readiness
        self.newcomer = Newcomer(clock, readiness, self._ask, self._others, self._give_all, init_with_single)
        self._restores = Restores(clock, self._ask, self._repair_restored, self._owe)

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot<sipdmq.interfaces.inspection.IInspectable.snapshot>}.
        """
        return {
            **{f"{self.numbers}.{name}": count for name, count in self._counts.items()},
            f"{self.numbers}.refused": self._refusals.count,
            f"{self.numbers}.syncs": len(self._donor),
            f"{self.numbers}.is_ready": int(self.readiness.is_ready),
        }

    def start(self, has_peers: bool) -> None:
        """
        Begin to replicate.

        @param has_peers: whether there are nodes to join.
        """
        self._membership.watch(self)
        self.newcomer.start(has_peers and self._asks)

    def stop(self) -> None:
        """
        No more timers.
        """
        self._donor.stop()
        self._restores.stop()
        self.newcomer.stop()

    # the other nodes

    def _others(self) -> Sequence[ClusterNode]:
        return [node for node in self._membership.nodes() if node.status is ACTIVE and not node.is_local]

    def _is_active(self, name: NodeName) -> bool:
        return any(node.name == name for node in self._others())

    def node_joined(self, node: ClusterNode) -> None:
        """
        See L{IChannelPeer.node_joined<sipdmq.interfaces.replication.IChannelPeer.node_joined>}.
        """
        if self._asks and not node.is_local and not self._restores.joined(node):
            self.newcomer.node_joined(node)

    def taken_back(self, node: ClusterNode) -> None:
        """
        See L{ISynced.taken_back}.
        """
        if self._asks and not node.is_local and not self._restores.joined(node):
            self.newcomer.taken_back(node)

    def node_up(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_up<sipdmq.interfaces.replication.INodeListener.node_up>}.
        """
        self._donor.node_up(node)
        self.newcomer.node_up(node)

    def older_met(self, node: ClusterNode, age: float) -> None:
        """
        See L{ISynced.older_met}.
        """
        if self._asks:
            self.newcomer.older_met(node, age)

    def forgotten(self, name: NodeName) -> None:
        """
        See L{ISynced.forgotten}.
        """
        self._donor.forgotten(name)
        self.newcomer.forgotten(name)
        self._restores.forgotten(name)

    def node_down(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_down<sipdmq.interfaces.replication.INodeListener.node_down>}.
        """
        self.newcomer.node_lost(node)
        self._restores.lost(node)

    def node_disabled(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_disabled<sipdmq.interfaces.replication.INodeListener.node_disabled>}.
        """
        self.node_down(node)

    # what they lack

    def repair(self, node: ClusterNode, age: float) -> None:
        """
        See L{IRepairer.repair<sipdmq.interfaces.replication.IRepairer.repair>}.
        """
        is_asked = self.is_restored and not says_ours(node)
        if is_asked and self._asks and self._membership.has_missed(node.name):
            self._restores.begin_asking(node, age)
            return
        restorer = self._membership.restorer_of(node.name) if is_asked else None
        if restorer is None:
            self._donor.serve(node, Errand(REPAIR, self._clock.seconds() - age))
        elif restorer == self._membership.local:
            self._restores.begin(node, age)

    def _repair_restored(self, node: ClusterNode, since: float, is_whole: bool) -> None:
        is_whole = is_whole or self._membership.passes_on(str(node.name))
        self._donor.serve(node, Errand(RESTORE if is_whole else REPAIR, since))

    def hand_over(self, node: ClusterNode, lost: str, age: float) -> None:
        """
        See L{IRepairer.hand_over<sipdmq.interfaces.replication.IRepairer.hand_over>}.
        """
        self._donor.serve(node, Errand(lost, self._clock.seconds() - age))

    def _sync_received(self, found: SyncRequest | SyncEnd, sender: ClusterNode | None) -> None:
        """
        A node wants everything, or has told it.
        """
        if sender is None or sender.is_local:
            return
        if isinstance(found, SyncEnd):
            self.newcomer.end_received(sender.name, found)
        else:
            self._donor.serve(sender, self._sync_for(sender, found.is_ours))

    def _sync_for(self, sender: ClusterNode, says_so: bool) -> Errand:
        """
        What a node is sent that wants everything.

        @param says_so: its request says that it is one of ours.
        """
        if says_so or says_ours(sender):
            return Errand(SYNC_OF_OURS)
        self._membership.wants_all(sender.name)
        self.newcomer.asked_by(sender)
        return Errand(SYNC)

    def _give_all(self, node: ClusterNode) -> None:
        self._donor.serve(node, Errand(SYNC))

    def _wants(self, node: ClusterNode, errand: Errand) -> Callable[[Any], bool]:
        """
        Which records an errand for a node is about, where they are L{Told}.
        """
        since = self._now() - (self._clock.seconds() - errand.since)
        wants: Callable[[Told], bool] = records_for(
            errand, since, self._membership.answers_for, self._membership.clock_difference
        )
        return wants

    def _put_end(self, node: ClusterNode, count: int) -> Any:
        """
        The last thing of a sync. C{encode} gets it like a record.
        """
        return self._replicator.put_for(node.name, self.channel, "", self.newcomer.end_of_sync(count))

    def _owe(self, node: ClusterNode, age: float) -> None:
        self._replicator.owe(node.name, self.channel, age)

    # what this node lacks

    def _ask(self, node: ClusterNode) -> Deferred[bool]:
        """
        Ask a node for everything.
        """
        is_ours = node.is_sipdmq
        request = self.sync_request_of_ours if is_ours else self.sync_request
        # A Kamailio answers when it has sent all, and sends all again for each copy of the question.
        asking: Deferred[Any] = self._broadcaster.send(
            self.channel, node.name, request, CONTENT_TYPE, is_slow=not is_ours
        )
        return asking.addCallbacks(lambda response: 200 <= response.status < 300, lambda _: False)

    def _records_received(self, sender: ClusterNode | None, count: int = 1) -> None:
        """
        Records came in that do not say when they were made.
        """
        if sender is not None:
            self.newcomer.records_received(sender.name, count)
            self._restores.records_received(sender.name, inf)

    def _refused(self, message: ChannelMessage, reason: str) -> None:
        self._refusals.add(message.source, reason)
