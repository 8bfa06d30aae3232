"""
The way to one other node: requests and their answers, and the outboxes of its channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.dmq.channels import Channels
from sipdmq.dmq.envelope import kdmq_request, length_limit, message_length
from sipdmq.dmq.outbox import Batch, Outbox, OutboxLimits, Outcome
from sipdmq.errors import UnreachableError
from sipdmq.interfaces.messages import IClientUser, IRequestSender
from sipdmq.interfaces.replication import IRepairer
from sipdmq.records import ClusterNode, Listener, NodeName, Target
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request, Response
from sipdmq.sip.timers import RequestTimers

__all__ = ["KdmqSender", "Link", "MessageTooLongError"]

log = Logger()

HEADERS_ROOM: Final = 1000
"""Bytes that the headers of a message have at most, its Via counted: a message is told from its body by that."""

COMPLAINT_INTERVAL: Final = 60.0
"""Seconds between two lines in the log about records that a node refuses."""

BACKLOG: Final = 4
"""Windows full of messages that may wait before a sync or a repair pauses: more only costs memory."""


class MessageTooLongError(UnreachableError):
    """
    The receiver would not read a message of this length.
    """


@implementer(IClientUser)
class _Waiting:
    """
    Who waits for the answer to one request.
    """

    def __init__(self) -> None:
        self.answer: Deferred[Response] = Deferred()

    def response_received(self, response: Response) -> None:
        if response.status >= 200 and not self.answer.called:
            self.answer.callback(response)

    def timed_out(self) -> None:
        if not self.answer.called:
            self.answer.errback(UnreachableError("no answer"))

    def unreachable(self, reason: str) -> None:
        if not self.answer.called:
            self.answer.errback(UnreachableError(reason))


class KdmqSender:
    """
    Sends KDMQ requests from this node.

    @ivar sent: how many.
    @ivar timers: of each request.
    """

    def __init__(
        self,
        sender: IRequestSender,
        ids: Ids,
        local: NodeName,
        listener: Listener,
        timers: RequestTimers,
        agent: str,
    ) -> None:
        """
        @param local: how this node calls itself.
        @param listener: where it sends from, to nodes of the same transport.
        @param agent: for User-Agent.
        """
        self._sender = IRequestSender(sender)
        self._ids = ids
        self._local = str(local)
        self._listener = listener
        self.timers = timers
        self._agent = agent
        self._cert_names: dict[NodeName, str] = {}
        self.sent = 0

    def know_as(self, name: NodeName, host: str) -> None:
        """
        The URI of a node has a host name: that is what its certificate has to show.
        """
        self._cert_names[name] = host

    def forget(self, name: NodeName) -> None:
        """
        The inverse of L{know_as}.
        """
        self._cert_names.pop(name, None)

    def cert_name(self, name: NodeName) -> str:
        """
        What the certificate of a node has to show: the host of its URI.
        """
        return self._cert_names.get(name, name.host)

    def target_of(self, name: NodeName) -> Target:
        """
        Where a node is reached: by the transport of its URI, whatever the size, over one connection that is kept.
        """
        listener = self._listener if self._listener.protocol is name.protocol else None
        return Target(
            name.protocol, name.host, name.port, fixed=True, listener=listener, name=self._cert_names.get(name, "")
        )

    def _request(
        self, node: ClusterNode, channel: str, body: bytes, content_type: str, max_forwards: int
    ) -> Request:
        request = kdmq_request(
            channel, node.name, self._local, body, content_type, self._ids, self._agent, max_forwards
        )
        limit = length_limit(node)
        length = message_length(request)
        if length >= limit:
            raise MessageTooLongError(f"{length} bytes for {node.name}, which reads less than {limit}")
        return request

    def send(
        self, node: ClusterNode, channel: str, body: bytes, content_type: str, max_forwards: int = 1
    ) -> Deferred[Response]:
        """
        Send a message.

        @return: fires with the final response, later; fails with UnreachableError when none comes in time, at once
            with MessageTooLongError when nothing was sent.
        """
        try:
            request = self._request(node, channel, body, content_type, max_forwards)
        except MessageTooLongError as error:
            return fail(error)
        self.sent += 1
        waiting = _Waiting()
        self._sender.send_request(request, (self.target_of(node.name),), waiting, timers=self.timers)
        return waiting.answer

    def send_stateless(self, node: ClusterNode, channel: str, body: bytes, content_type: str) -> None:
        """
        Send a message once, whatever comes of it.

        @raise UnreachableError: it cannot be sent.
        """
        request = self._request(node, channel, body, content_type, 1)
        self.sent += 1
        self._sender.send_stateless(request, self.target_of(node.name))


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
        self._lost = lost
        self._boxes: dict[str, Outbox] = {}
        self._pumping: set[str] = set()
        self._calls: dict[str, IDelayedCall] = {}
        self._unanswered: dict[tuple[str, int], float] = {}  # since when, the oldest first
        self._pausing: dict[str, list[Deferred[None]]] = {}
        self._draining: list[Deferred[None]] = []
        self._complained_at = -COMPLAINT_INTERVAL
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
        for since in self._unanswered.values():
            return self._clock.seconds() - since >= patience
        return self.is_dirty

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
                self._limits._replace(batch_changes=batch),
                getattr(peer, "group_of", None),
                getattr(peer, "place_of", None),
            )
        return box

    def put(self, channel: str, key: str, fragment: bytes, age: float = 0.0) -> Deferred[None] | None:
        """
        Take a change, and send it as soon as it may.

        @param age: of what is sent again, seconds: if it is lost, so old is the oldest that the node lacks.
        @return: L{None}, or what fires when there is room for more: who has much to send waits for that.
        """
        box = self._box(channel)
        since = self._clock.seconds() - age
        if not self._is_up:
            box.forget(since)
            return None
        was_dirty = box.is_dirty
        if not box.put(key, fragment, since) and box.is_dirty and not was_dirty:
            log.warn("too many changes wait for {node}: it will be repaired", node=str(self.node.name))
        self._pump(channel)
        if len(box) < BACKLOG * box.capacity:
            return None
        waiting: Deferred[None] = Deferred()
        self._pausing.setdefault(channel, []).append(waiting)
        return waiting

    def is_under_way(self, channel: str, key: str) -> bool:
        """
        See L{Outbox.is_under_way}.
        """
        box = self._boxes.get(channel)
        return box is not None and box.is_under_way(key)

    def owe(self, channel: str, age: float) -> None:
        """
        The node lacks what was changed here in the last C{age} seconds: it is repaired.
        """
        self._box(channel).owe(self._clock.seconds() - age)

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
            if self._is_up and box.is_dirty and not box.unanswered and not len(box):
                self._repair(channel, box)

    def went_up(self) -> None:
        """
        The node is active: what it has missed is put right.
        """
        self._is_up = True
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
        now = self._clock.seconds()
        for peer in self._channels:
            if peer.channel in self._boxes or IRepairer.providedBy(peer):
                self._box(peer.channel).forget(now)
        for channel in tuple(self._pausing):
            self._resume(channel)
        self._drained()

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
        if channel in self._pausing and len(box) < BACKLOG * box.capacity // 2:
            self._resume(channel)
        self._drained()
        at = box.next_at(now)
        if at is not None and channel not in self._calls:
            self._calls[channel] = self._clock.callLater(max(0.0, at - now), self._again, channel)

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
        self._unanswered[channel, batch.number] = self._clock.seconds()
        sending = self._sender.send(self.node, channel, body, content_type)
        sending.addCallbacks(self._answered, self._failed, (channel, box, batch), {}, (channel, box, batch), {})

    def _answered(self, response: Response, channel: str, box: Outbox, batch: Batch) -> None:
        status = response.status
        if status < 300:
            outcome = Outcome.TAKEN
        elif status == 404:
            outcome = Outcome.NO_CHANNEL
            log.warn("{node} has no channel {channel}", node=str(self.node.name), channel=channel)
        elif status == 503:
            outcome = Outcome.BUSY
        else:
            outcome = Outcome.REFUSED
        self._done(channel, box, batch, outcome, f"{status} {response.reason}")
        self._pump(channel)

    def _failed(self, failure: Failure, channel: str, box: Outbox, batch: Batch) -> None:
        if failure.check(MessageTooLongError):
            self._done(channel, box, batch, Outcome.REFUSED, failure.getErrorMessage())
            return
        failure.trap(UnreachableError)
        sent_at = self._unanswered.get((channel, batch.number), 0.0)
        self._done(channel, box, batch, Outcome.LOST, "")
        self._lost(self.node.name, sent_at)
        self._pump(channel)

    def _done(self, channel: str, box: Outbox, batch: Batch, outcome: Outcome, reason: str) -> None:
        self._unanswered.pop((channel, batch.number), None)
        for key in box.done(batch.number, outcome, self._clock.seconds()):
            self.refused += 1
            now = self._clock.seconds()
            if now >= self._complained_at + COMPLAINT_INTERVAL:
                self._complained_at = now
                log.warn(
                    "{node} refuses {key} on channel {channel}: {reason}",
                    node=str(self.node.name), key=key, channel=channel, reason=reason,
                )

    def stop(self) -> None:
        """
        Send nothing more.
        """
        self._is_up = False
        for call in self._calls.values():
            call.cancel()
        self._calls.clear()
        for channel in tuple(self._pausing):
            self._resume(channel)
        self._drained()
