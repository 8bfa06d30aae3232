"""
The functions of Kamailio's module C{dmq}, with its names and arguments, for the operator's policy: C{node.dmq}.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CoroutineType
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from sipdmq.core.functions import RoutedRequest
from sipdmq.dmq.channels import Callback
from sipdmq.dmq.envelope import check_channel
from sipdmq.dmq.lines import name_of
from sipdmq.dmq.service import DMQService
from sipdmq.errors import ParseError, RequestRefused, UnreachableError
from sipdmq.interfaces.messages import IServerTransaction
from sipdmq.records import (
    ChannelMessage,
    ChannelReply,
    ClusterNode,
    Listener,
    NodeName,
    NodeStatus,
    Source,
)
from sipdmq.sip.message import Request
from sipdmq.sip.uri import parse_sip_uri

__all__ = ["DMQFunctions", "KDMQRequest", "MessageHandled"]

log = Logger()

_STATUSES: Final = {
    "active": NodeStatus.ACTIVE, "not_active": NodeStatus.NOT_ACTIVE, "disabled": NodeStatus.DISABLED,
}  # fmt: skip


class MessageHandled(Exception):
    """
    The message is in good hands and the policy goes no further, as C{dmq_handle_message()} without C{continue} ends a
    routing script. Raised for the node; a policy lets it through.
    """


class KDMQRequest(RoutedRequest):
    """
    A KDMQ that a policy has a look at.

    @ivar kdmq: the L{ChannelMessage}: its channel, sender, body.
    """

    __slots__ = ("kdmq",)

    def __init__(self, transaction: IServerTransaction, message: ChannelMessage) -> None:
        super().__init__(transaction, transaction.request)
        self.kdmq = message


def _bytes(body: str | bytes) -> bytes:
    return body.encode("utf-8", "surrogateescape") if isinstance(body, str) else body


class DMQFunctions:
    """
    What a policy finds as C{node.dmq}.

    A policy that wants to see KDMQ messages itself has a method C{route_kdmq(request, node)}, plain or C{async def}; it
    is given a L{KDMQRequest} from a node that may send. What it does not decide on is handled as if there were no such
    method. Without it every message is handled (L{handle_message}).
    """

    def __init__(
        self,
        service: DMQService,
        clock: IReactorTime,
        local: NodeName,
        listener: Listener,
        sl_send: bool,
        replicate: Callable[[RoutedRequest, bool], int],
        is_from_node: Callable[[Request, Source], bool],
    ) -> None:
        """
        @param sl_send: messages are sent once, without a transaction, and what is answered does not matter.
        @param replicate: what L{t_replicate} does.
        @param is_from_node: so for L{is_from_node}.
        """
        self._service = service
        self._clock = IReactorTime(clock)
        self._local = local
        self._here = Source(local.protocol, local.host, local.port, listener)
        self._sl_send = sl_send
        self._replicate = replicate
        self._is_from_node = is_from_node

    # messages from other nodes

    def handle_message(self, request: KDMQRequest, and_continue: bool = False) -> bool:
        """
        C{dmq_handle_message([continue])}: have a message worked on by its channel, which answers it.

        @param and_continue: return to the policy; else nothing behind this is done any more.
        @return: whether there is such a channel; if not, it has been answered with 404.
        @raise MessageHandled: without C{and_continue}: for the node, not to be caught.
        """
        return self._hand_over(request, self._service.handle, and_continue)

    def process_message(self, request: KDMQRequest, and_continue: bool = False) -> bool:
        """
        C{dmq_process_message([continue])}: the same at once, whatever waits in the queue.
        """
        return self._hand_over(request, self._service.process, and_continue)

    def _hand_over(
        self,
        request: KDMQRequest,
        how: Callable[[IServerTransaction, ChannelMessage], bool],
        and_continue: bool,
    ) -> bool:
        if request.is_decided:
            raise RuntimeError(f"{request} is decided already")
        request.is_decided = True
        found = how(request.transaction, request.kdmq)
        if not and_continue:
            raise MessageHandled
        return found

    def is_from_node(self, request: RoutedRequest) -> bool:
        """
        C{dmq_is_from_node()}: whether a request came from another node of the cluster, directly: from its address, and
        with its Via on top. A REGISTER or PUBLISH must be a copy of what a phone sent there: the next Via is no node's.
        """
        return self._is_from_node(request.transaction.request, request.source)

    def t_replicate(self, request: RoutedRequest, skip_loop_test: bool = False) -> int:
        """
        C{dmq_t_replicate([skip_loop_test])}: send a copy of a request, as it was received, to all active nodes; what
        they answer is dropped. Answer it first (L{NodeFunctions.save<sipdmq.core.functions.NodeFunctions.save>}).
        C{[dmq] replicate = REGISTER} does this by itself.

        @param skip_loop_test: also one that came from another node; only Max-Forwards ends the loop then.
        @return: to how many nodes.
        """
        return self._replicate(request, skip_loop_test)

    # messages to other nodes

    def send_message(
        self, channel: str, node: str, body: str | bytes, content_type: str = "text/plain"
    ) -> Deferred[bool]:
        """
        C{dmq_send_message(peer, node, body, content_type)}: to one node. The channel is known here from then on.

        @param node: its URI, C{"sip:192.0.2.2:5060"}.
        @return: a Deferred of whether it was taken: answered with 2xx.
        @raise LookupError: it is not in the list of nodes.
        @raise ValueError: there can be no such channel or URI.
        """
        self._service.channels.use(channel)
        found = self._find(node)
        if found is None:
            raise LookupError(f"{node} is not in the list of nodes")
        return self._send(channel, found, _bytes(body), content_type)

    def bcast_message(self, channel: str, body: str | bytes, content_type: str = "text/plain") -> Deferred[int]:
        """
        C{dmq_bcast_message(peer, body, content_type)}: to all active nodes.

        @return: a Deferred of how many have taken it.
        @raise ValueError: there can be no such channel.
        """
        self._service.channels.use(channel)
        if not self._sl_send:
            return self._service.broadcast(channel, _bytes(body), content_type)
        nodes = self._service.membership.active()
        return succeed(sum(self._send_once(channel, node, _bytes(body), content_type) for node in nodes))

    def _send(self, channel: str, node: ClusterNode, body: bytes, content_type: str) -> Deferred[bool]:
        if self._sl_send:
            return succeed(self._send_once(channel, node, body, content_type))
        sending = self._service.send(channel, node.name, body, content_type)
        return sending.addCallbacks(
            lambda response: response.status < 300, lambda failure: not failure.trap(UnreachableError)
        )

    def _send_once(self, channel: str, node: ClusterNode, body: bytes, content_type: str) -> bool:
        try:
            self._service.send_once(channel, node, body, content_type)
        except UnreachableError:
            return False
        return True

    # messages that were made here

    def process_custom(
        self, channel: str, from_: str, body: str | bytes, content_type: str = "text/plain"
    ) -> ChannelReply | Deferred[ChannelReply]:
        """
        C{dmq_process_custom(peer, from, body, content_type)}: give a channel of this node a message as if it had come
        from another one, now.

        @param from_: the URI of that node.
        @return: what the channel answers, or a Deferred of it; 404 where there is none.
        """
        return self._service.process_custom(self._message(channel, from_, body, content_type))

    def handle_custom(
        self, channel: str, from_: str, body: str | bytes, content_type: str = "text/plain"
    ) -> bool:
        """
        C{dmq_handle_custom(peer, from, body, content_type)}: the same by the queue.

        @return: whether it will be worked on.
        """
        return self._service.handle_custom(self._message(channel, from_, body, content_type))

    def _message(self, channel: str, from_: str, body: str | bytes, content_type: str) -> ChannelMessage:
        name = self._name(from_)
        sender = self._service.membership.find(name)
        return ChannelMessage(check_channel(channel), sender, self._here, content_type, _bytes(body), 1, name)

    def register_channel(self, channel: str, callback: Callback | None = None) -> None:
        """
        Have a channel of one's own.

        @param callback: called with each L{ChannelMessage}; returns a status code, a L{ChannelReply}, L{None} for 200,
            or a Deferred of these. Without one, messages are answered with 202.
        @raise ValueError: there can be no such channel, or it is the node's own.
        """
        self._service.channels.use(channel, callback)

    # the nodes

    def nodes(self) -> tuple[ClusterNode, ...]:
        """
        C{dmq.list_nodes}: all, this one first.
        """
        return self._service.membership.nodes()

    def _name(self, uri: str) -> NodeName:
        try:
            return name_of(parse_sip_uri(uri))
        except ParseError as error:
            raise ValueError(f"'{uri}': {error.reason}") from None

    def _find(self, uri: str) -> ClusterNode | None:
        return self._service.membership.find(self._name(uri))

    def _numeric(self, uri: str) -> NodeName:
        name = self._service.membership.numeric(self._name(uri))
        if name is None:
            raise LookupError(f"'{uri}': its address is not known yet")
        return name

    def add_node(self, uri: str) -> None:
        """
        C{dmq.add}: take in a node, and ask it.

        @raise ValueError: no URI of a node.
        @raise LookupError: its host name has no address, or is being looked up.
        """
        membership = self._service.membership
        membership.act(membership.nodelist.add(self._clock.seconds(), self._numeric(uri)))

    def remove_node(self, uri: str) -> None:
        """
        C{dmq.remove}: forget a node, until it or another speaks of it. One that is not there is no error.
        """
        membership = self._service.membership
        membership.act(membership.nodelist.remove(self._clock.seconds(), self._numeric(uri)))

    def change_status(self, uri: str, status: str) -> None:
        """
        C{dmq.change_status}: let a node be C{"active"}, C{"not_active"} or C{"disabled"}, until it is heard of.

        @raise ValueError: another word.
        """
        known = _STATUSES.get(status)
        if known is None:
            raise ValueError(f"'{status}' must be one of {', '.join(_STATUSES)}")
        membership = self._service.membership
        membership.act(membership.nodelist.change_status(self._clock.seconds(), self._numeric(uri), known))

    def leave(self) -> Deferred[Any]:
        """
        Tell all nodes that this one will be gone for long: a Kamailio then sends it no changes at once.

        @return: fires when they have heard it, or will not.
        """
        return self._service.leave()

    # for the node

    def route_by(self, policy: Any, node: Any) -> None:
        """
        Let a policy see the messages first.

        @param policy: has C{route_kdmq(request, node)}.
        """
        self._service.router = lambda transaction, message: self._route(policy, node, transaction, message)

    def _route(self, policy: Any, node: Any, transaction: IServerTransaction, message: ChannelMessage) -> bool:
        request = KDMQRequest(transaction, message)
        try:
            outcome = policy.route_kdmq(request, node)
        except MessageHandled:
            return True
        except RequestRefused:
            if request.is_decided:
                return True
            raise
        except Exception:  # noqa: BLE001 - the edge to the operator's own code
            log.failure("the policy broke on {request}", request=request)
            if request.is_decided:
                return True
            raise RequestRefused(500) from None
        if isinstance(outcome, CoroutineType):
            outcome = Deferred.fromCoroutine(outcome)
        if isinstance(outcome, Deferred):
            outcome.addCallbacks(self._routed, self._route_failed, (request,), {}, (request,), {})
            return True
        return request.is_decided

    def _routed(self, result: object, request: KDMQRequest) -> None:
        if not request.is_decided:
            self._service.handle(request.transaction, request.kdmq)

    def _route_failed(self, failure: Failure, request: KDMQRequest) -> None:
        if failure.check(MessageHandled):
            return
        status = 500
        if isinstance(failure.value, RequestRefused):
            status = failure.value.status
        else:
            log.failure("the policy broke on {request}", failure, request=request)
        if not request.is_decided:
            request.is_decided = True
            self._service.refuse(request.transaction, status)
