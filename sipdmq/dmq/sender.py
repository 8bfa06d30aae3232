"""
KDMQ requests of this node, and the answers to them.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from sipdmq.dmq.envelope import kdmq_request, length_limit, message_length
from sipdmq.errors import UnreachableError
from sipdmq.interfaces.messages import IClientUser, IRequestSender
from sipdmq.records import ClusterNode, Listener, NodeName, Target
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request, Response
from sipdmq.sip.timers import RequestTimers

__all__ = ["HEADERS_ROOM", "KdmqSender", "MessageTooLongError"]

HEADERS_ROOM: Final = 1000
"""Bytes that the headers of a message have at most, its Via counted: a message is told from its body by that."""

_USUAL_LENGTH: Final = 100
"""Characters of a content type that fits into this, too."""


SLOW: Final = RequestTimers(4.0, 8.0, 60.0)
"""For what takes seconds, and is done again for each copy."""


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
        if len(body) < limit - HEADERS_ROOM and len(content_type) <= _USUAL_LENGTH:
            return request
        length = message_length(request)
        if length >= limit:
            raise MessageTooLongError(f"{length} bytes for {node.name}, which reads less than {limit}")
        return request

    def send(
        self,
        node: ClusterNode,
        channel: str,
        body: bytes,
        content_type: str,
        max_forwards: int = 1,
        is_slow: bool = False,
    ) -> Deferred[Response]:
        """
        Send a message.

        @param is_slow: as for L{IBroadcaster.send<sipdmq.interfaces.replication.IBroadcaster.send>}.

        @return: fires with the final response, later; fails with UnreachableError when none comes in time, at once
            with MessageTooLongError when nothing was sent.
        """
        waiting = _Waiting()
        try:
            self.send_for(waiting, node, channel, body, content_type, max_forwards, is_slow)
        except MessageTooLongError as error:
            return fail(error)
        return waiting.answer

    def send_for(
        self,
        user: Any,
        node: ClusterNode,
        channel: str,
        body: bytes,
        content_type: str,
        max_forwards: int = 1,
        is_slow: bool = False,
    ) -> Any:
        """
        Send a message for somebody who waits for its answer himself.

        @param user: L{IClientUser}
        @return: L{IClientTransaction<sipdmq.interfaces.messages.IClientTransaction>}
        @raise MessageTooLongError: nothing was sent.
        """
        request = self._request(node, channel, body, content_type, max_forwards)
        self.sent += 1
        timers = SLOW if is_slow else self.timers
        return self._sender.send_request(request, (self.target_of(node.name),), user, timers=timers)

    def send_stateless(self, node: ClusterNode, channel: str, body: bytes, content_type: str) -> None:
        """
        Send a message once, whatever comes of it.

        @raise UnreachableError: it cannot be sent.
        """
        request = self._request(node, channel, body, content_type, 1)
        self.sent += 1
        self._sender.send_stateless(request, self.target_of(node.name))
