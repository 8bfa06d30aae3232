"""
DMQ at work: KDMQ requests come in to the channels, changes and messages go out to the other nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.core import refuse
from sipdmq.core.complaints import Complaints
from sipdmq.dmq.changes import Change
from sipdmq.dmq.channels import Channels
from sipdmq.dmq.envelope import answer, read_message
from sipdmq.dmq.membership import Membership
from sipdmq.dmq.sender import KdmqSender
from sipdmq.dmq.trust import Trust
from sipdmq.dmq.workers import Workers
from sipdmq.errors import ParseError, UnreachableError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import IServerTransaction, ITransactionUser
from sipdmq.interfaces.replication import IBroadcaster, IReplicator
from sipdmq.records import ChannelMessage, ChannelReply, ClusterNode, NodeName, Protocol, Source
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request, Response

__all__ = ["JOB_TIMEOUT", "DMQService"]

log = Logger()

JOB_TIMEOUT: Final = 30.0
"""Seconds that a channel may take for one message; then it is answered with 500, and the worker is free again."""

_MAX_SHOWN: Final = 1000

Router = Callable[[IServerTransaction, ChannelMessage], bool]
"""Of an operator's policy: whether it takes care of a message itself."""


@implementer(ITransactionUser, IReplicator, IBroadcaster, IInspectable)
class DMQService:
    """
    The node's part in the cluster.

    @ivar channels: what it speaks on.
    @ivar membership: who is in it.
    @ivar router: asked before a message is queued.
    """

    def __init__(
        self,
        clock: IReactorTime,
        membership: Membership,
        channels: Channels,
        workers: Workers,
        trust: Trust,
        sender: KdmqSender,
        ids: Ids,
        agent: str,
        require_tls: bool,
        has_shown: Callable[[str, str], bool],
    ) -> None:
        """
        @param agent: for Server.
        @param require_tls: whether KDMQ that came over anything else is refused.
        @param has_shown: whether the other end of a connection, given its flow token, has a certificate of that host.
        """
        self._clock = IReactorTime(clock)
        self.membership = membership
        self.channels = channels
        self._workers = workers
        self._trust = trust
        self._sender = sender
        self._ids = ids
        self._agent = agent
        self._require_tls = require_tls
        self._has_shown = has_shown
        self._shown: dict[tuple[str, str], None] = {}
        self.router: Router | None = None
        self._complaints = Complaints(self._clock.seconds)
        self._received = 0
        self._is_stopped = False

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {
            "dmq.received": self._received,
            "dmq.sent": self._sender.sent,
            "dmq.refused": self._trust.refused,
            **self._workers.snapshot(),
            **self.membership.snapshot(),
        }

    def start(self) -> None:
        """
        Join the cluster.
        """
        self.membership.start()

    def leave(self) -> Deferred[Any]:
        """
        Say farewell to all nodes: this one will not be back soon.

        @return: fires when they have heard it, or will not.
        """
        return self.membership.leave(everybody=True)

    def drain(self) -> Deferred[Any]:
        """
        @return: fires when the other nodes have taken all that waits for them, or will not.
        """
        return gatherResults([link.drain() for link in self.membership.links()], consumeErrors=True)

    def stop(self) -> Deferred[Any]:
        """
        Say farewell as configured.

        @return: fires when it was heard, or will not be.
        """
        self._is_stopped = True
        self._workers.stop()
        return self.membership.leave()

    # requests

    def request_received(self, transaction: IServerTransaction) -> None:
        """
        See L{ITransactionUser.request_received}. Refusals and what concerns no channel of ours leave no state.
        """
        request: Request = transaction.request
        source = transaction.source
        self._check_sender(request, source)
        self._received += 1
        message = read_message(request, source, self.membership.find)
        if message is None:
            transaction.drop()  # Kamailio: a KDMQ to no channel gets no answer (WIRE §13)
        elif self.router is None or not self.router(transaction, message):
            self.handle(transaction, message)

    def _check_sender(self, request: Request, source: Source) -> None:
        """
        @raise RequestRefused: 403: he may not send KDMQ here.
        """
        if not self._trust.is_allowed(source.host):
            self._refuse(source, "not from a node that may join; see [dmq] allow")
        uri = request.from_.uri
        host = getattr(uri, "host", "")
        says_tls = getattr(uri, "params", {}).get("transport", "").lower() == "tls"
        if source.protocol is Protocol.TLS:
            if not self.is_shown(source.flow, host):
                self._refuse(source, f"its certificate is not that of {host!r}, as its From says")
        elif self._require_tls or says_tls:
            self._refuse(source, "not over TLS")

    def is_shown(self, flow: str, host: str) -> bool:
        """
        Whether the other end of a connection has a certificate of that host.
        """
        if (flow, host) in self._shown:
            return True
        if not host or not self._has_shown(flow, host):
            return False
        if len(self._shown) >= _MAX_SHOWN:
            self._shown.clear()
        self._shown[flow, host] = None
        return True

    def _refuse(self, source: Source, reason: str) -> None:
        if self._trust.should_log(source.host, self._clock.seconds()):
            log.warn("KDMQ from {host} is refused: {reason}", host=source.host, reason=reason)
        raise refuse.forbidden("Not A Node")

    def handle(self, transaction: IServerTransaction, message: ChannelMessage) -> bool:
        """
        Queue a message, as Kamailio's C{dmq_handle_message}. Node lists are read at once: pings shall be answered
        whatever else there is to do.

        @return: whether there is such a channel.
        """
        peer = self.channels.find(message.channel)
        if peer is None:
            self._answer_statelessly(transaction, ChannelReply(404))
            return False
        if peer is self.membership.notification:
            return self.process(transaction, message)
        link = None if message.sender is None else self.membership.link(message.sender.name)
        if link is not None:
            link.has_channel(message.channel)
        is_taken = self._workers.submit(
            message.channel,
            lambda: self._keys(peer, message),
            lambda: self._work(peer, transaction, message),
            len(message.body),
        )
        if not is_taken:
            self._turn_away(transaction)
        return True

    def _turn_away(self, transaction: IServerTransaction) -> None:
        """
        There is too much to do already. Over UDP that is not answered: its sender repeats the message, while a
        Kamailio forgets what it got any answer to (WIRE §1). Over a connection nothing is repeated: there is a 503,
        and a node of ours sends it again.
        """
        if self._complaints.is_due():
            log.warn("the queue of KDMQ jobs is full; see [limits] kdmq_jobs_bytes")
        if transaction.source.protocol.is_reliable:
            self._answer_statelessly(transaction, ChannelReply(503))
        else:
            transaction.drop()

    def process(self, transaction: IServerTransaction, message: ChannelMessage) -> bool:
        """
        Work on a message now, whatever waits, as Kamailio's C{dmq_process_message}.

        @return: whether there is such a channel.
        """
        peer = self.channels.find(message.channel)
        if peer is None:
            self._answer_statelessly(transaction, ChannelReply(404))
            return False
        self._work(peer, transaction, message)
        return True

    def refuse(self, transaction: IServerTransaction, status: int) -> None:
        """
        Answer a message that no channel gets.
        """
        transaction.respond(answer(transaction.request, ChannelReply(status), self._ids.tag(), self._agent))

    def _keys(self, peer: Any, message: ChannelMessage) -> tuple[str, ...]:
        try:
            return tuple(peer.keys_of(message))
        except Exception:  # noqa: BLE001 - the edge to the channels
            log.failure("channel {channel} broke", channel=message.channel)
            return ()

    def _work(self, peer: Any, transaction: IServerTransaction, message: ChannelMessage) -> Deferred[Any] | None:
        result = self._run(peer, message)
        if isinstance(result, Deferred):
            return result.addCallback(self._answer, transaction)
        self._answer(result, transaction)
        return None

    def _run(self, peer: Any, message: ChannelMessage) -> ChannelReply | Deferred[ChannelReply]:
        """
        @return: never fails.
        """
        try:
            result = peer.message_received(message)
        except Exception:  # noqa: BLE001 - the edge to the channels
            return self._broke(Failure(), message)
        if isinstance(result, Deferred):
            result.addTimeout(JOB_TIMEOUT, self._clock)
            return result.addErrback(self._broke, message)
        reply: ChannelReply = result
        return reply

    def _broke(self, failure: Failure, message: ChannelMessage) -> ChannelReply:
        if failure.check(TimeoutError, CancelledError):
            log.warn("channel {channel} took too long", channel=message.channel)
        else:
            log.failure("channel {channel} broke", failure, channel=message.channel)
        return ChannelReply(500)

    def _answer(self, reply: ChannelReply, transaction: IServerTransaction) -> None:
        if not self._is_stopped:
            transaction.respond(answer(transaction.request, reply, self._ids.tag(), self._agent))

    def _answer_statelessly(self, transaction: IServerTransaction, reply: ChannelReply) -> None:
        first = transaction.request.headers.first
        tag = self._ids.stateless_tag(f"{first.get('via')} {first.get('call-id')}")
        transaction.respond_statelessly(answer(transaction.request, reply, tag, self._agent))

    # messages that were made here

    def process_custom(self, message: ChannelMessage) -> ChannelReply | Deferred[ChannelReply]:
        """
        Give a channel a message that did not come over the network, now.

        @return: what it answers; 404 where there is none.
        """
        peer = self.channels.find(message.channel)
        return ChannelReply(404) if peer is None else self._run(peer, message)

    def handle_custom(self, message: ChannelMessage) -> bool:
        """
        The same by the queue.

        @return: whether it will be worked on.
        """
        peer = self.channels.find(message.channel)
        if peer is None:
            return False
        return self._workers.submit(
            message.channel, lambda: self._keys(peer, message), lambda: self._run(peer, message), len(message.body)
        )

    # the rest of ITransactionUser

    def malformed_request(self, error: ParseError, source: Source) -> None:
        """
        See L{ITransactionUser.malformed_request}: the dispatcher's.
        """

    def ack_received(self, request: Request, source: Source) -> None:
        """
        See L{ITransactionUser.ack_received}: there is none for a KDMQ.
        """

    def cancelled(self, transaction: IServerTransaction) -> None:
        """
        See L{ITransactionUser.cancelled}: a KDMQ cannot be.
        """

    def response_lost(self, transaction: IServerTransaction, reason: str) -> None:
        """
        See L{ITransactionUser.response_lost}.
        """

    # IReplicator

    def put(self, channel: str, key: str, change: Any) -> None:
        """
        See L{IReplicator.put}. A change is encoded once for all nodes.
        """
        made: Change | None = None
        for link in self.membership.links():
            if made is None:
                made = link.change(channel, key, self.channels.find(channel).encode(change))
            link.put_own(channel, key, made)

    def put_for(self, node: NodeName, channel: str, key: str, change: Any, age: float = 0.0) -> Deferred[None] | None:
        """
        See L{IReplicator.put_for}. A node that is in no list gets nothing.
        """
        link = self.membership.link(node)
        return None if link is None else link.put(channel, key, self.channels.find(channel).encode(change), age)

    def is_under_way(self, node: NodeName, channel: str, key: str) -> bool:
        """
        See L{IReplicator.is_under_way}.
        """
        link = self.membership.link(node)
        return link is not None and link.is_under_way(channel, key)

    def owe(self, node: NodeName, channel: str, age: float) -> None:
        """
        See L{IReplicator.owe}.
        """
        link = self.membership.link(node)
        if link is not None:
            link.owe(channel, age)

    # IBroadcaster

    def broadcast(self, channel: str, body: bytes, content_type: str) -> Deferred[int]:
        """
        See L{IBroadcaster.broadcast}.
        """
        sending = [
            self.send(channel, node.name, body, content_type).addCallbacks(
                lambda response: int(response.status < 300), lambda failure: 0
            )
            for node in self.membership.active()
        ]
        return gatherResults(sending).addCallback(sum)

    def send(
        self,
        channel: str,
        node: NodeName,
        body: bytes,
        content_type: str,
        max_forwards: int = 1,
        is_slow: bool = False,
    ) -> Deferred[Response]:
        """
        See L{IBroadcaster.send}.

        @raise ValueError: no channel can have that name, or it is not a node of the list.
        """
        found = self.membership.nodelist.find(node)
        if found is None:
            raise ValueError(f"{node} is not in the list of nodes")
        sent_at = self._clock.seconds()
        sending = self._sender.send(found, channel, body, content_type, max_forwards, is_slow)
        return sending.addErrback(self._lost, node, sent_at)

    def _lost(self, failure: Failure, node: NodeName, sent_at: float) -> Failure:
        if failure.type is UnreachableError:  # not: too long to be sent at all
            self.membership.data_lost(node, sent_at)
        return failure

    def send_once(self, channel: str, node: ClusterNode, body: bytes, content_type: str) -> None:
        """
        Send without a transaction, whatever comes of it (C{sl_send}).

        @raise UnreachableError: it cannot be sent.
        """
        self._sender.send_stateless(node, channel, body, content_type)
