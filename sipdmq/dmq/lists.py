"""
Node lists on their way to other nodes, and what these answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from sipdmq.dmq.effects import SendList
from sipdmq.dmq.notification import CONTENT_TYPE, NotificationPeer
from sipdmq.dmq.sender import KdmqSender
from sipdmq.errors import UnreachableError
from sipdmq.records import ClusterNode, NodeName
from sipdmq.sip.message import Response

__all__ = ["SentLists"]

log = Logger()


class SentLists:
    """
    Sends lists of nodes, and hands the answers to the channel of the lists.
    """

    def __init__(
        self,
        now: Callable[[], float],
        sender: KdmqSender,
        notification: NotificationPeer,
        answered: Callable[[NodeName, bool], object],
    ) -> None:
        """
        @param now: monotonic seconds.
        @param answered: told who has answered, and whether with a 2xx, after the channel has had the answer.
        """
        self._now = now
        self._sender = sender
        self._notification = notification
        self._answered = answered
        self._sending: list[Deferred[Any]] = []

    def send(self, node: ClusterNode, effect: SendList) -> None:
        """
        Send one; what comes of it the channel is told.
        """
        name = effect.name
        sent_at = self._now()
        content_type = CONTENT_TYPE if effect.body else ""
        sending = self._sender.send(node, self._notification.channel, effect.body, content_type, effect.hops)

        def answered(response: Response) -> None:
            first = response.headers.first
            # Kamailio: an answer without Content-Length is not looked into (WIRE §1)
            body = response.body if "content-length" in first else b""
            agent = first.get("server") or first.get("user-agent", "")
            self._notification.reply_received(name, response.status, body, agent, sent_at)
            self._answered(name, response.status < 300)

        def failed(failure: Failure) -> None:
            failure.trap(UnreachableError, CancelledError)  # cancelled: a stopping node waits no longer
            self._notification.reply_received(name, 408, sent_at=sent_at)

        sending.addCallbacks(answered, failed)
        sending.addErrback(lambda failure: log.failure("the node list broke", failure))
        self._sending = [earlier for earlier in self._sending if not earlier.called]
        self._sending.append(sending)

    def settled(self) -> Deferred[Any]:
        """
        @return: fires when all that is under way is answered, or will not be.
        """
        sending, self._sending = self._sending, []
        return gatherResults(sending)
