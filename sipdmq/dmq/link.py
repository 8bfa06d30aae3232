"""
The way to one other node: the outboxes of its channels, and what becomes of the messages out of them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from sipdmq.core.complaints import Complaints
from sipdmq.dmq.changes import Batch, Change, OutboxLimits, Outcome
from sipdmq.dmq.channels import Channels
from sipdmq.dmq.envelope import length_limit
from sipdmq.dmq.errands import says_ours
from sipdmq.dmq.outbox import Outbox
from sipdmq.dmq.sender import HEADERS_ROOM, KdmqSender, MessageTooLongError
from sipdmq.dmq.sent import Sent, Unanswered
from sipdmq.interfaces.replication import IRepairer
from sipdmq.records import ClusterNode, NodeName
from sipdmq.sip.message import Response

__all__ = ["Link"]

log = Logger()

SETTLING: Final = 0.1
"""
Seconds after the answer of a Kamailio to a message that was repeated, until all copies have had their effect: each has
one, and who stood still finds them all at once, and takes them in any order. What is newer waits for that.
"""

_OUTCOMES: Final = {404: Outcome.NO_CHANNEL, 503: Outcome.BUSY}


class Link:
    """
    What one other node has to be told.

    @ivar node: as it is known now.
    """

    def __init__(
        self,
        clock: IReactorTime,
        node: ClusterNode,
        sender: KdmqSender,
        channels: Channels,
        limits: OutboxLimits,
        is_up: bool,
        lost: Callable[[NodeName, float], object],
    ) -> None:
        """
        @param lost: called with the name and the time of sending when a message was not answered.
        """
        self._clock = IReactorTime(clock)
        self.node = node
        self._sender = sender
        self._channels = channels
        self._limits = limits
        self._is_up = is_up
        self._repeated_after = inf if node.name.protocol.is_reliable else sender.timers.t1
        self._held_since: float | None = None
        self._lost = lost
        self._boxes: dict[str, Outbox] = {}
        self._pumping: set[str] = set()
        self._calls: dict[str, IDelayedCall] = {}
        self._unanswered = Unanswered()
        self._pausing: dict[str, list[Deferred[None]]] = {}
        self._missed: set[str] = set()  # channels
        self._draining: list[Deferred[None]] = []
        self._settling: set[IDelayedCall] = set()
        self._complaints = Complaints(self._clock.seconds)
        self.refused = 0

    @property
    def waiting(self) -> int:
        """
        Changes that wait, on all channels.
        """
        return sum(len(box) for box in self._boxes.values())

    @property
    def unanswered(self) -> int:
        """
        Messages out of the outboxes without an answer.
        """
        return len(self._unanswered)

    def is_troubled(self, patience: float) -> bool:
        """
        Whether it is to be asked if it is still there.

        @param patience: seconds to wait for the oldest answer before that.
        """
        return self._clock.seconds() - self._unanswered.since >= patience if self._unanswered else self.is_dirty

    @property
    def has_missed(self) -> bool:
        """
        Whether it has left messages without an answer, and was not repaired since.
        """
        return bool(self._missed)

    @property
    def is_dirty(self) -> bool:
        """
        Whether it does not have all changes.
        """
        return any(box.is_dirty for box in self._boxes.values())

    def _box(self, channel: str) -> Outbox:
        box = self._boxes.get(channel)
        if box is None:
            peer = self._channels.find(channel)
            batch = getattr(peer, "batch_contacts", self._limits.batch_changes)
            self._boxes[channel] = box = Outbox(
                self._limits._replace(batch_changes=batch, repeated_after=self._repeated_after),
                getattr(peer, "group_of", None),
                getattr(peer, "place_of", None),
                getattr(peer, "supersede", None),
            )
        return box

    def change(self, channel: str, key: str, fragment: bytes) -> Change:
        """
        Make what L{put_own} takes here and in the links to the other nodes.
        """
        return self._box(channel).change(key, fragment, self._clock.seconds())

    def put_own(self, channel: str, key: str, change: Change) -> None:
        """
        Take a change that was made here. A repair brings it, too: while one is due, the change is not kept.
        """
        box = self._boxes.get(channel)
        if box is None:
            box = self._box(channel)
        if box.dirty_since is None or not IRepairer.providedBy(self._channels.find(channel)):
            self._put(channel, box, key, change)

    def put(self, channel: str, key: str, fragment: bytes, age: float = 0.0) -> Deferred[None] | None:
        """
        Take a change, and send it as soon as it may.

        @param age: of what is sent again, seconds: if it is lost, so old is the oldest that the node lacks.
        @return: L{None}, or what fires when there is room for more: who has much to send waits for that.
        """
        box = self._boxes.get(channel)
        if box is None:
            box = self._box(channel)
        self._put(channel, box, key, box.change(key, fragment, self._clock.seconds() - age))
        if not self._is_up or len(box) < box.backlog:
            return None
        waiting: Deferred[None] = Deferred()
        self._pausing.setdefault(channel, []).append(waiting)
        return waiting

    def _put(self, channel: str, box: Outbox, key: str, change: Change) -> None:
        if not self._is_up:
            box.forget(change[1])
            return
        was_dirty = box.dirty_since is not None
        if not box.put(key, change) and not was_dirty and box.is_dirty:
            log.warn("too many changes wait for {node}: it will be repaired", node=str(self.node.name))
        if (channel not in self._calls or box.is_full) and not box.is_waiting:
            self._pump(channel)  # else it will be, with an answer or when the changes have gathered

    def is_under_way(self, channel: str, key: str) -> bool:
        """
        See L{Outbox.is_under_way}.
        """
        box = self._boxes.get(channel)
        return box is not None and box.is_under_way(key)

    def has_channel(self, channel: str) -> None:
        """
        The node speaks on a channel: so it has it, whatever it answered before.
        """
        box = self._boxes.get(channel)
        if box is not None:
            box.reopen()

    def restarted(self) -> None:
        """
        The node was started anew, and may have all channels.
        """
        for box in self._boxes.values():
            box.reopen()

    def owe(self, channel: str, age: float) -> None:
        """
        The node lacks what was changed here in the last C{age} seconds: it is repaired.
        """
        self._box(channel).owe(self._clock.seconds() - age)

    def debt(self) -> float:
        """
        How old the oldest change is that the node is not known to have: seconds, 0 where it has all, or is away.
        """
        if not self._is_up:
            return 0.0
        oldest = min([box.owed_since() for box in self._boxes.values()], default=inf)
        return max(0.0, self._clock.seconds() - oldest) if oldest > -inf else 0.0

    def owe_all(self, age: float) -> None:
        """
        The same for all channels.
        """
        for peer in self._channels:
            if IRepairer.providedBy(peer):
                self.owe(peer.channel, age)

    def probe(self) -> None:
        """
        From time to time: what was forgotten while the node was there all the time, is put right as soon as it has
        taken the rest.
        """
        for channel, box in list(self._boxes.items()):
            self._repair_idle(channel, box)

    def _repair_idle(self, channel: str, box: Outbox) -> None:
        if self._is_up and box.is_dirty and not box.unanswered and not len(box):
            self._repair(channel, box)

    def went_up(self) -> None:
        """
        The node is active: what it has missed is put right.
        """
        self._is_up = True
        self._held_since = None
        for channel, box in list(self._boxes.items()):
            box.returned()
            if box.is_dirty:
                self._repair(channel, box)
            self._pump(channel)

    def went_down(self) -> None:
        """
        The node is not active any more: what waits for it is forgotten, and from now on all that changes.
        """
        self._is_up = False
        self._held_since = None
        self._missed.clear()  # who repairs one that was lost, is agreed on by all who have lost it
        now = self._clock.seconds()
        for peer in self._channels:
            if peer.channel in self._boxes or IRepairer.providedBy(peer):
                self._box(peer.channel).lost(now)
        if not says_ours(self.node):
            self._abandon()
        for channel in tuple(self._pausing):
            self._resume(channel)
        self._drained()

    def hold_if_silent(self, patience: float) -> None:
        """
        A Kamailio that has not answered for a while may be cut off, and be back before anybody takes it for lost. Until
        it answers a ping, it is told nothing, and nothing is repeated.

        @param patience: seconds to wait for the oldest answer before that.
        """
        since = self._unanswered.since
        if self._is_up and not says_ours(self.node) and self._clock.seconds() - since >= patience:
            self.went_down()
            self._held_since = since
            self._missed.update(channel for channel, box in self._boxes.items() if box.is_dirty)

    def release(self) -> float | None:
        """
        The node has answered a ping: where it was held, it is put right.

        @return: for how many seconds it had answered nothing, at least; L{None}: it was not held.
        """
        since = self._held_since
        if since is None:
            return None
        self.went_up()
        return self._clock.seconds() - since

    def _abandon(self) -> None:
        """
        Repeat nothing any more: when a Kamailio is back, it would take that for newer than what it was told meanwhile.
        """
        for sent in self._unanswered.take_all():
            sent.sending.abandon()
            self._done(sent.channel, sent.box, sent.batch, Outcome.LOST, "")

    def drain(self) -> Deferred[None]:
        """
        @return: fires when the node has taken all that waits for it, or will not.
        """
        drained: Deferred[None] = Deferred()
        self._draining.append(drained)
        self._drained()
        return drained

    def _drained(self) -> None:
        if self._draining and not (self._is_up and (self._unanswered or self.waiting)):
            draining, self._draining = self._draining, []
            for drained in draining:
                drained.callback(None)

    def _resume(self, channel: str) -> None:
        for waiting in self._pausing.pop(channel, ()):
            waiting.callback(None)

    def _repair(self, channel: str, box: Outbox) -> None:
        peer = self._channels.find(channel)
        since = box.dirty_since
        box.cleaned()
        if since is not None and IRepairer.providedBy(peer):
            try:
                peer.repair(self.node, self._clock.seconds() - since)
            except Exception:  # noqa: BLE001 - the edge to the channels
                box.owe(since)
                log.failure("channel {channel} broke", channel=channel)
        self._missed.discard(channel)

    def _pump(self, channel: str) -> None:
        """
        Send what may be sent.
        """
        if channel in self._pumping or not self._is_up:
            return
        self._pumping.add(channel)
        box = self._boxes[channel]
        peer = self._channels.find(channel)
        room = min(length_limit(self.node), getattr(peer, "batch_bytes", length_limit(self.node))) - HEADERS_ROOM
        while True:
            now = self._clock.seconds()
            batch = box.take(now, room)
            if batch is None:
                break
            self._send(channel, box, peer, batch)
        self._pumping.discard(channel)
        if channel in self._pausing and len(box) < box.backlog // 2:
            self._resume(channel)
        self._drained()
        at = box.next_at(now)
        if at is None:
            return
        call = self._calls.get(channel)
        if call is None:
            self._calls[channel] = self._clock.callLater(max(0.0, at - now), self._again, channel)
        elif at < call.getTime():
            call.reset(max(0.0, at - now))

    def _again(self, channel: str) -> None:
        del self._calls[channel]
        self._pump(channel)

    def _send(self, channel: str, box: Outbox, peer: Any, batch: Batch) -> None:
        try:
            content_type, body = peer.join(batch.fragments)
        except Exception:  # noqa: BLE001 - the edge to the channels: what one makes nonsense of is refused
            log.failure("channel {channel} broke", channel=channel)
            self._done(channel, box, batch, Outcome.REFUSED, "it cannot be encoded")
            return
        sent = Sent(channel, box, batch, self._clock.seconds(), self._ended)
        try:
            sent.sending = self._sender.send_for(sent, self.node, channel, body, content_type)
        except MessageTooLongError as error:
            self._done(channel, box, batch, Outcome.REFUSED, error.reason)
        else:
            self._unanswered.add(sent)

    def _ended(self, sent: Sent, response: Response | None) -> None:
        if not self._unanswered.take(sent):
            return  # it is known already
        channel, box, batch = sent.channel, sent.box, sent.batch
        if response is None:
            self._missed.add(channel)
            self._done(channel, box, batch, Outcome.LOST, "")
            self._lost(self.node.name, sent.since)
        elif response.status < 300 or self._is_needless(channel, batch, response.status):
            if self._clock.seconds() - sent.since >= self._repeated_after and self._is_up and not says_ours(self.node):
                self._settle(sent)
                return
            self._done(channel, box, batch, Outcome.TAKEN, "")
            self._repair_idle(channel, box)
        else:
            outcome = _OUTCOMES.get(response.status, Outcome.REFUSED)
            if outcome is Outcome.NO_CHANNEL:
                log.warn("{node} has no channel {channel}", node=str(self.node.name), channel=channel)
            self._done(channel, box, batch, outcome, f"{response.status} {response.reason}")
        self._pump(channel)

    def _settle(self, sent: Sent) -> None:
        channel, box, batch = sent.channel, sent.box, sent.batch

        def settled() -> None:
            self._settling.discard(call)
            self._done(channel, box, batch, Outcome.TAKEN, "")
            self._repair_idle(channel, box)
            self._pump(channel)

        call = self._clock.callLater(SETTLING, settled)
        self._settling.add(call)

    def _is_needless(self, channel: str, batch: Batch, status: int) -> bool:
        is_needless = getattr(self._channels.find(channel), "is_needless", None)
        return is_needless is not None and bool(is_needless(batch.fragments, status))

    def _done(self, channel: str, box: Outbox, batch: Batch, outcome: Outcome, reason: str) -> None:
        for key in box.done(batch.number, outcome, self._clock.seconds()):
            self.refused += 1
            if self._complaints.is_due():
                log.warn(
                    "{node} refuses {key} on channel {channel}: {reason}",
                    node=str(self.node.name),
                    key=key,
                    channel=channel,
                    reason=reason,
                )

    def stop(self) -> None:
        """
        Send nothing more.
        """
        self._is_up = False
        for call in (*self._calls.values(), *self._settling):
            call.cancel()
        self._calls.clear()
        self._settling.clear()
        for channel in tuple(self._pausing):
            self._resume(channel)
        self._drained()
