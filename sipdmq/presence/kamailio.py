"""
Subscriptions on Kamailio nodes of release 6 and later (C{enable_subs_dmq}): each can take the next SUBSCRIBE of a
dialog.

This node stays the owner: a Kamailio that has taken a refresh says so, and NOTIFYs go on here. It has to have
C{skip_notify_dmq=1}, or it tells the watcher of every change, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from sipdmq.errors import DecodeError, ParseError, UnreachableError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.replication import IBroadcaster, IMembership
from sipdmq.presence.kamailio_form import decode, encode, takes_subscriptions
from sipdmq.presence.notifier import Contacts
from sipdmq.presence.service import Subscriptions
from sipdmq.presence.subscriptions import State, Subscription
from sipdmq.presence.table import SubscriptionTable
from sipdmq.records import ChannelMessage, ClusterNode, NodeStatus

__all__ = ["KamailioSubscriptions"]

CONTENT_TYPE: Final = "application/json"
PAGE: Final = 20
PAGE_PAUSE: Final = 0.02


@implementer(IInspectable)
class KamailioSubscriptions:
    """
    What such nodes are told, and what they tell. As among Kamailios, a message that is lost is not sent again.
    """

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        table: SubscriptionTable,
        subscriptions: Subscriptions,
        contacts: Contacts,
        membership: IMembership,
        broadcaster: IBroadcaster,
        channel: str,
    ) -> None:
        """
        @param channel: where Kamailio expects them: C{[presence] dmq_peer_id}.
        """
        self._clock = IReactorTime(clock)
        self._now = now
        self._table = table
        self._subscriptions = subscriptions
        self._contacts = contacts
        self._membership = IMembership(membership)
        self._broadcaster = IBroadcaster(broadcaster)
        self._channel = channel
        self._serving: dict[str, IDelayedCall] = {}
        self._counts = dict.fromkeys(("told", "received"), 0)

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {f"subscriptions.kamailio_{name}": count for name, count in self._counts.items()}

    def put(self, record: Subscription, before: Subscription) -> None:
        """
        Tell them of a subscription of ours.

        @param record: perhaps the memory of its end.
        @param before: as it was while it lived.
        """
        nodes = [
            node
            for node in self._membership.nodes()
            if node.status is NodeStatus.ACTIVE and takes_subscriptions(node)
        ]
        if nodes and record.owner == self._subscriptions.local:
            self._tell(nodes, before, record.state is State.TERMINATED)

    def _tell(self, nodes: list[ClusterNode], record: Subscription, is_over: bool) -> None:
        try:
            body = encode(record, self._contacts.of(record), is_over)
        except ParseError:
            return  # From or To cannot be taken apart: it is nothing for a Kamailio
        for node in nodes:
            self._counts["told"] += 1
            sending = self._broadcaster.send(self._channel, node.name, body, CONTENT_TYPE)
            sending.addErrback(lambda failure: failure.trap(UnreachableError))

    def message_received(self, message: ChannelMessage) -> None:
        """
        A message of channel C{presence} that is not about presentities.
        """
        sender = message.sender
        if sender is None or not takes_subscriptions(sender):
            return
        try:
            found = decode(message.body)
        except DecodeError:
            return
        if found is True:
            self._serve(sender, self._table.records())
        elif not isinstance(found, bool):
            record = self._table.get(found.tag)
            if record is None or record.owner != self._subscriptions.local or record.state is State.TERMINATED:
                return  # one of its own watchers', or another node's
            if not record.is_of(found.call_id, found.remote_tag) or found.remote_cseq <= record.remote_cseq:
                return
            self._counts["received"] += 1
            moved = record._replace(
                contact=found.contact or record.contact,
                remote_cseq=found.remote_cseq,
                local_cseq=max(record.local_cseq, found.local_cseq),
                version=max(record.version, found.version),
                expires_at=found.expires_at or record.expires_at,
            )
            self._subscriptions.moved(moved, is_over=not found.expires_at)

    def _serve(self, node: ClusterNode, records: Iterator[Subscription]) -> None:
        """
        One that has started is told of all that are ours; each node of ours does so.
        """
        name = str(node.name)
        call = self._serving.pop(name, None)
        if call is not None and call.active():
            call.cancel()
        for seen in islice(records, PAGE):
            record = self._table.get(seen.tag)
            is_live = record is not None and record.state is not State.TERMINATED
            if record is not None and is_live and record.owner == self._subscriptions.local:
                self._tell([node], record, False)
        rest = next(records, None)
        if rest is not None:
            again = chain((rest,), records)
            self._serving[name] = self._clock.callLater(PAGE_PAUSE, self._serve, node, again)

    def stop(self) -> None:
        """
        No more timers.
        """
        for call in self._serving.values():
            if call.active():
                call.cancel()
        self._serving.clear()
