"""
Copies of whole requests for all nodes: Kamailio's C{dmq_t_replicate} (WIRE §12).
"""

from __future__ import annotations

from zope.interface import implementer

from sipdmq.core.functions import RoutedRequest
from sipdmq.dmq.links import KdmqSender
from sipdmq.dmq.membership import Membership
from sipdmq.interfaces.messages import IClientUser, IRequestSender
from sipdmq.sip.message import Request, Response

__all__ = ["RequestCopies"]


@implementer(IClientUser)
class _Nobody:
    """
    What a node answers to a copy matters to nobody.
    """

    def response_received(self, response: Response) -> None:
        """
        See L{IClientUser.response_received}.
        """

    def timed_out(self) -> None:
        """
        See L{IClientUser.timed_out}.
        """

    def unreachable(self, reason: str) -> None:
        """
        See L{IClientUser.unreachable}.
        """


class RequestCopies:
    """
    Sends them.
    """

    def __init__(self, sender: IRequestSender, membership: Membership, links: KdmqSender) -> None:
        """
        @param links: knows where a node is reached.
        """
        self._sender = IRequestSender(sender)
        self._membership = membership
        self._links = links

    def replicate(self, request: RoutedRequest, skip_loop_test: bool = False) -> int:
        """
        Send a request as it was received to every active node, with a Via of ours and one hop less.

        @param skip_loop_test: also if it came from a node; only Max-Forwards ends the loop then.
        @return: to how many nodes.
        """
        if not skip_loop_test and self._membership.is_from_node(request.source):
            return 0
        received: Request = request.transaction.request
        hops = received.max_forwards
        if hops == 0:
            return 0
        copy = received.copy()
        copy.headers.replace("Max-Forwards", str(70 if hops is None else hops - 1))
        nodes = self._membership.active()
        for node in nodes:
            self._sender.send_request(copy, (self._links.target_of(node.name),), _Nobody(), timers=self._links.timers)
        return len(nodes)
