"""
Subscriptions on the other nodes: each node tells the others of those that it has, so that one of them can go on with
them when it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from sipdmq.core.read_ahead import ReadAhead
from sipdmq.core.refusals import Refusals
from sipdmq.errors import DecodeError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.replication import (
    IBroadcaster,
    IMembership,
    INodeListener,
    IRepairer,
    IReplicator,
)
from sipdmq.presence.service import Subscriptions
from sipdmq.presence.subscriptions import Subscription
from sipdmq.presence.subscriptions_json import CONTENT_TYPE, SYNC_REQUEST, decode, encode, join
from sipdmq.presence.table import SubscriptionTable
from sipdmq.records import ChannelMessage, ChannelReply, ClusterNode, NodeName, NodeStatus

__all__ = ["CHANNEL", "SubscriptionReplicas"]

log = Logger()

CHANNEL: Final = "subscriptions"
PAGE: Final = 100
PAGE_PAUSE: Final = 0.02
"""Seconds between two pages of records for a node that was away."""
MAX_ERRANDS: Final = 64
"""Pages under way for other nodes at the same time; whoever comes then is repaired later."""


@implementer(IRepairer, INodeListener, IInspectable)
class SubscriptionReplicas:
    """
    Both directions of the channel. Only sipdmq nodes have it, and only they are sent to.
    """

    channel = CHANNEL
    batch_contacts = 50
    batch_bytes = 50_000

    def __init__(
        self,
        clock: IReactorTime,
        table: SubscriptionTable,
        subscriptions: Subscriptions,
        replicator: IReplicator,
        membership: IMembership,
        broadcaster: IBroadcaster,
    ) -> None:
        self._clock = IReactorTime(clock)
        self._table = table
        self._subscriptions = subscriptions
        self._local = subscriptions.local
        self._replicator = IReplicator(replicator)
        self._membership = IMembership(membership)
        self._broadcaster = IBroadcaster(broadcaster)
        self._serving: dict[int, IDelayedCall | None] = {}
        self._errands = 0
        self._is_stopped = False
        self._bodies = ReadAhead(decode)
        self._refusals = Refusals(clock, "a subscription")
        subscriptions.replicate = self.put
        subscriptions.handed = self._hand
        subscriptions.alive = self._alive
        membership.watch(self)

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {"subscriptions.refused": self._refusals.count, "subscriptions.syncs": len(self._serving)}

    def _others(self) -> list[ClusterNode]:
        return [
            node
            for node in self._membership.nodes()
            if node.is_sipdmq and not node.is_local and node.status is NodeStatus.ACTIVE
        ]

    # outward

    def put(self, record: Subscription, before: Subscription) -> None:
        """
        Tell all nodes of ours. One that is not active is put right when it is back (L{repair}). One of which it is not
        known yet what it is may be told, too: a Kamailio answers 404, as it has no such channel.
        """
        fragment = encode(record)
        for node in self._membership.nodes():
            if not node.is_local and (node.is_sipdmq or not node.release):
                self._replicator.put_for(node.name, CHANNEL, record.tag, fragment)

    def _hand(self, record: Subscription, successor: str) -> None:
        for node in self._others():
            if str(node.name) == successor:
                self._replicator.put_for(node.name, CHANNEL, record.tag, encode(record))

    def encode(self, change: bytes) -> bytes:
        """
        See L{IRepairer.encode}: a change is encoded when it is put.
        """
        return change

    def join(self, fragments: Sequence[bytes]) -> tuple[str, bytes]:
        """
        See L{IRepairer.join}.
        """
        return CONTENT_TYPE, join(fragments)

    # inward

    def keys_of(self, message: ChannelMessage) -> Sequence[str]:
        """
        See L{IRepairer.keys_of}: the tags.
        """
        try:
            records = self._bodies.read(message.body)
        except DecodeError:
            return ("",)
        return tuple([each.tag for each in records if isinstance(each, Subscription)]) or ("",)

    def message_received(self, message: ChannelMessage) -> ChannelReply:
        """
        See L{IRepairer.message_received}: 400 for what cannot be read as a whole. What a node says that does not
        count is answered with what does, by its outbox: the order of records is total, so that ends.
        """
        sender = message.sender
        if message.body == SYNC_REQUEST:
            if sender is not None:
                # Only nodes of ours speak here; the hello of this one may be on its way.
                self._begin(sender._replace(is_sipdmq=True), lambda record: True, 0.0)
            return ChannelReply(200)
        try:
            records = self._bodies.take(message.body)
        except DecodeError as error:
            self._refusals.add(message.source, error.reason)
            return ChannelReply(400)
        name = "" if sender is None else str(sender.name)
        for record in records:
            if isinstance(record, DecodeError):
                self._refusals.add(message.source, record.reason)
                continue
            answer = self._subscriptions.told(record, name)
            if answer is not None and sender is not None and sender.is_sipdmq:
                self._replicator.put_for(sender.name, CHANNEL, answer.tag, encode(answer))
        return ChannelReply(200)

    # nodes that come and go

    def _alive(self) -> frozenset[str]:
        return frozenset((self._local, *[str(node.name) for node in self._others()]))

    def node_up(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_up}: what it has missed it gets by L{repair}, or asks for itself.
        """

    def node_down(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_down}.
        """
        self._subscriptions.node_lost()

    def node_disabled(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_disabled}: it may have said farewell.
        """
        self._subscriptions.node_lost()

    def node_joined(self, node: ClusterNode) -> None:
        """
        See L{IRepairer.node_joined}: this node has just started, and asks another one for everything, also for what
        it had itself before.
        """
        if node.is_sipdmq and not node.is_local:
            self._ask(node, ())

    def _ask(self, node: ClusterNode, asked: tuple[NodeName, ...]) -> None:
        asking: Deferred[Any] = self._broadcaster.send(CHANNEL, node.name, SYNC_REQUEST, CONTENT_TYPE)
        asking.addCallbacks(
            lambda response: None if response.status < 300 else self._ask_another((*asked, node.name)),
            lambda _: self._ask_another((*asked, node.name)),
        )
        asking.addErrback(lambda failure: log.failure("no node was asked for subscriptions", failure))

    def _ask_another(self, asked: tuple[NodeName, ...]) -> None:
        for node in self._others():
            if node.name not in asked:
                self._ask(node, asked)
                return

    def repair(self, node: ClusterNode, age: float) -> None:
        """
        See L{IRepairer.repair}. It is told of all that we own: no record says when it was changed. One of which it is
        not known yet what it is, as it is new here, waits for that.
        """
        if node.release.startswith("sipdmq"):
            node = node._replace(is_sipdmq=True)
        elif not node.is_sipdmq and not node.release:
            self._replicator.owe(node.name, CHANNEL, age)
            return
        self._begin(node, lambda record: record.owner == self._local, age)

    def hand_over(self, node: ClusterNode, lost: str, age: float) -> None:
        """
        See L{IRepairer.hand_over}: what nobody has taken over yet.
        """
        self._begin(node, lambda record: record.owner == lost, age)

    def _begin(self, node: ClusterNode, is_wanted: Callable[[Subscription], bool], age: float) -> None:
        if not node.is_sipdmq or node.is_local:
            return
        if len(self._serving) >= MAX_ERRANDS:
            self._replicator.owe(node.name, CHANNEL, age)
            return
        self._errands += 1
        self._serve(self._errands, node, self._table.records(), is_wanted, age)

    def _serve(
        self,
        number: int,
        node: ClusterNode,
        records: Iterator[Subscription],
        is_wanted: Callable[[Subscription], bool],
        age: float,
    ) -> None:
        """
        Put one page of records, each as it is now; the next one after a pause, when there is room for it.
        """
        self._serving.pop(number, None)
        for seen in islice(records, PAGE):
            record = self._table.get(seen.tag)
            if record is not None and is_wanted(record):
                full = self._replicator.put_for(node.name, CHANNEL, record.tag, encode(record), age)
                if isinstance(full, Deferred):
                    self._serving[number] = None
                    full.addCallback(lambda _: self._pause(number, node, records, is_wanted, age))
                    return
        rest = next(records, None)
        if rest is not None:
            self._pause(number, node, chain((rest,), records), is_wanted, age)

    def _pause(self, number: int, *errand: Any) -> None:
        if not self._is_stopped:
            self._serving[number] = self._clock.callLater(PAGE_PAUSE, self._serve, number, *errand)

    def stop(self) -> None:
        """
        No more timers.
        """
        self._is_stopped = True
        for call in self._serving.values():
            if call is not None:
                call.cancel()
        self._serving.clear()
