"""
The proxy: makes response contexts, tells them what happens upstream, and forwards ACKs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.core.asserted import TrustDomain, has_assertions, remove_assertions
from sipdmq.core.cookies import DialogSide, RouteCookies, record_route_heads, sender_of
from sipdmq.core.refuse import flow_failed
from sipdmq.core.routes import Faced, RouteVerdict, face_caller, preprocess
from sipdmq.core.targets import BindingTargets
from sipdmq.errors import ParseError, RequestRefused, UnreachableError
from sipdmq.interfaces.gateways import IGateways
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import (
    IFlows,
    IRequestSender,
    IServerTransaction,
    ITargetResolver,
    ITransactionUser,
)
from sipdmq.interfaces.routing import ICallListener, IProxy
from sipdmq.proxy.branch import Branch
from sipdmq.proxy.context import ResponseContext
from sipdmq.proxy.forward import RecordRoute, check_hops, copy_for, is_looped, is_spiral, read_breadth, routing_seed
from sipdmq.records import Destination, Listener, Protocol, Source, Target
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request, Response, response_to
from sipdmq.sip.uri import DEFAULT_PORT, URI, SipURI, format_host, with_scheme

__all__ = ["Proxy"]

log = Logger()

MAX_BREADTH = 60
"""RFC 5393 §5.3.3: "The default value of Max-Breadth is 60"."""
TIMER_C = 185.0
"""RFC 3261 §16.6 step 11: seconds, more than three minutes."""

TARGET_REFRESHES: Final = frozenset(("INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY", "REFER"))
"""Within a dialog: by these a side may change its Contact (RFC 3261 §12.2, RFC 3311 §5, RFC 3515, RFC 6665 §4.1.2)."""


@implementer(IProxy, ITransactionUser, IInspectable)
class Proxy:
    """
    RFC 3261 §16.

    @ivar timer_c: seconds.
    @ivar trusted: whose P-Asserted-Identity is believed.
    @ivar gateways: L{IGateways} that is told how calls to gateways end, or L{None}.
    """

    def __init__(
        self,
        clock: IReactorTime,
        sender: IRequestSender,
        resolver: ITargetResolver,
        bindings: BindingTargets,
        flows: IFlows,
        listeners: Iterable[Listener],
        ids: Ids,
        cookies: RouteCookies,
        is_ours: Callable[[SipURI], bool],
        timer_c: float = TIMER_C,
        max_breadth: int = MAX_BREADTH,
        trusted: TrustDomain | None = None,
    ) -> None:
        """
        @param ids: the one that C{sender} makes branches with.
        @param is_ours: whether a URI's host and port mean this node.
        """
        self.clock = IReactorTime(clock)
        self.sender = IRequestSender(sender)
        self._resolver = ITargetResolver(resolver)
        self._bindings = bindings
        self._flows = IFlows(flows)
        self._listeners = {
            (each.protocol.name, each.advertise_host.lower(), each.advertise_port): each for each in listeners
        }
        self._heads = record_route_heads(
            f"{each.protocol.name} {format_host(each.advertise_host)}:{each.advertise_port}"
            for each in self._listeners.values()
        )
        self.ids = ids
        self._cookies = cookies
        self._is_ours = is_ours
        self.timer_c = timer_c
        self._max_breadth = max_breadth
        self._contexts: dict[IServerTransaction, ResponseContext] = {}
        self._call_listeners: list[Any] = []
        self._route_params: Callable[[Request], str] | None = None
        self.trusted = trusted or TrustDomain((), ())
        self.gateways: IGateways | None = None
        self._relayed = 0
        self._loops = 0
        self._dropped_acks = 0

    def watch_calls(self, listener: ICallListener) -> None:
        """
        Tell C{listener} of all calls from now on.
        """
        self._call_listeners.append(ICallListener(listener))

    def mark_routes(self, params_of: Callable[[Request], str]) -> None:
        """
        Write more into our Record-Routes, from now on.

        @param params_of: given a request as it was received, the parameters, C{";did=80d.bdd1"}, or an empty text. An
            INVITE was told to the listeners of calls before.
        """
        self._route_params = params_of

    def report_to(self, gateways: IGateways) -> None:
        """
        Tell C{gateways} how calls to them end, from now on.
        """
        self.gateways = IGateways(gateways)

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {
            "proxy.contexts": len(self._contexts),
            "proxy.relayed": self._relayed,
            "proxy.loops": self._loops,
            "proxy.dropped_acks": self._dropped_acks,
        }

    def stop(self) -> None:
        """
        Forget everything, stop every timer.
        """
        for context in self._contexts.values():
            context.stop()
        self._contexts.clear()

    # for the policy

    def relay(
        self,
        transaction: IServerTransaction,
        request: Request,
        destinations: Sequence[Destination],
        *,
        record_route: bool,
        caller: str,
    ) -> None:
        """
        See L{IProxy.relay}.
        """
        if transaction.is_cancelled:  # while the policy waited for something
            to_tag = transaction.to_tag or self.ids.tag()
            transaction.respond(response_to(transaction.request, 487, to_tag))
            return
        self._check_method(request)
        check_hops(request)
        binding = destinations[0].binding
        loop = self.ids.loop_part(routing_seed(request, "" if binding is None else binding.aor))
        if is_looped(request, loop):
            self._loops += 1
            raise RequestRefused(482)
        self._relay(transaction, request, destinations, record_route, caller, loop).start()

    def _relay(
        self,
        transaction: IServerTransaction,
        request: Request,
        destinations: Sequence[Destination],
        record_route: bool,
        caller: str,
        loop: str,
    ) -> ResponseContext:
        """
        @return: to be started.
        """
        received = transaction.request
        if has_assertions(request) and not self.trusted.may_assert(received, transaction.source):
            request = request.copy()
            remove_assertions(request)
        is_new_call = request.method == "INVITE" and not request.to.tag
        context = ResponseContext(
            self,
            transaction,
            request,
            destinations,
            RecordRoute(received, transaction.source, self._cookies, self._route_params) if record_route else None,
            read_breadth(request, self._max_breadth),
            len(destinations) > 1 and is_spiral(request, self.ids.branch_start),
            loop,
            is_new_call and bool(self._call_listeners),
        )
        context.caller = caller
        self._contexts[transaction] = context
        self._relayed += 1
        if request.method == "INVITE":
            transaction.respond(response_to(received, 100))
        if is_new_call:
            self.tell("request_relayed", received, caller, transaction.source)
        elif request.method == "BYE":
            self.tell("bye_relayed", received)
        return context

    def caller_of(self, request: Request) -> str:
        """
        See L{IProxy.caller_of}.
        """
        user = self.sender.user_of(request)
        return user.caller if isinstance(user, Branch) else ""

    def _check_method(self, request: Request) -> None:
        """
        What is never relayed, whoever asks: messages between the nodes of a cluster, which are trusted by where they
        come from, and registrations of our own users.
        """
        if request.method == "KDMQ":
            raise RequestRefused(403)
        if request.method == "REGISTER" and isinstance(request.uri, SipURI) and self._is_ours(request.uri):
            raise RequestRefused(403)

    def follow(self, transaction: IServerTransaction, verdict: RouteVerdict, *, caller: str) -> None:
        """
        See L{IProxy.follow}. It has one way only, so that Max-Forwards ends a loop (RFC 5393 §4.2 asks who forks).
        """
        request = verdict.request
        self._check_method(request)
        check_hops(request)
        destination = self.destination_of(verdict)
        context = self._relay(transaction, request, (destination,), False, caller, "")
        if request.method in TARGET_REFRESHES:
            context.dialog = sender_of(request, verdict.is_from_caller)
            self.moved(context.dialog, request)
        context.start()

    def moved(self, side: DialogSide, message: Request | Response) -> None:
        """
        A side of a dialog has said where it is from now on (RFC 3261 §12.2.1.2, §12.2.2).
        """
        contacts = message.contacts
        if contacts:
            self._cookies.move(side, contacts[0].uri)

    def destination_of(self, verdict: RouteVerdict) -> Destination:
        """
        Where a request within a dialog goes: over the connection or to the address that the cookie names, if these are
        still to be had, else by its route.

        @raise RequestRefused: 430, only the connection led to the other side, and it is gone.
        """
        uri = verdict.request.uri_text
        listener = self._listener_of(verdict.facing)
        side = verdict.side
        target = None
        if side is not None and side.flow:
            target = self._flows.target_of(side.flow)
            if target is None and verdict.is_side_only:
                raise flow_failed()
        elif side is not None and listener is not None and listener.protocol is Protocol.UDP:
            target = Target(Protocol.UDP, side.host, side.port, True, "", False, listener)
        return Destination(uri, target=target, listener=listener)

    def face_caller(self, response: Response, sent_to: str, before: Faced | None) -> Faced | None:
        """
        Make our Record-Route in a response the caller's (L{sipdmq.core.routes.face_caller}).
        """
        return face_caller(response, self._cookies, self._heads, self._is_written_here, sent_to, before)

    def _is_written_here(self, uri: SipURI) -> bool:
        return self._listener_of(uri) is not None

    def _listener_of(self, uri: SipURI | None) -> Listener | None:
        """
        The listener that a Record-Route of ours names.
        """
        if uri is None:
            return None
        protocol = "TLS" if uri.scheme == "sips" else (uri.params.get("transport") or "udp").upper()
        return self._listeners.get((protocol, uri.host, uri.port or DEFAULT_PORT))

    # for the contexts

    def find(
        self, destination: Destination, next_hop: URI, is_secure: bool = False
    ) -> tuple[Target, ...] | Deferred[tuple[Target, ...]]:
        """
        Where a copy of a request goes.

        @param next_hop: for a destination that does not say it otherwise.
        @param is_secure: by TLS, whatever a Route says (§16.6 step 7).
        @raise UnreachableError: nowhere; or the Deferred fails with it. ParseError likewise: a contact is no SIP URI.
        """
        if destination.target is not None:
            return (destination.target,)
        has_route = next_hop.text != destination.uri
        if destination.binding is not None and not has_route:
            reached: Deferred[tuple[Target, ...]] = self._bindings.resolve(destination.binding)
            return reached.result if reached.called and isinstance(reached.result, tuple) else reached
        if not isinstance(next_hop, SipURI):
            raise UnreachableError(f"{next_hop}: no SIP URI")
        uri = with_scheme(next_hop, "sips") if is_secure else next_hop
        found: Deferred[tuple[Target, ...]] = self._resolver.resolve(uri)
        listener = destination.listener
        if found.called and isinstance(found.result, tuple):  # a numeric address: nobody has to be called back
            return found.result if listener is None else _from_listener(found.result, listener, not has_route)
        if listener is not None:
            found.addCallback(_from_listener, listener, not has_route)
        return found

    def context_answered(self, transaction: IServerTransaction) -> None:
        """
        A final response was sent: what happens upstream does not matter any more.
        """
        self._contexts.pop(transaction, None)

    def tell(self, event: str, *arguments: object) -> None:
        """
        Tell all call listeners.

        @param event: a method of L{ICallListener}.
        """
        for listener in self._call_listeners:
            try:
                getattr(listener, event)(*arguments)
            except Exception:  # noqa: BLE001 - the edge to the listeners: a call goes on, whatever its record does
                log.failure("{listener} broke on {event}", listener=listener, event=event)

    # from the transactions, by way of the dispatcher

    def request_received(self, transaction: IServerTransaction) -> None:
        """
        Requests come by L{relay} and L{follow}.

        @raise RequestRefused: 501.
        """
        raise RequestRefused(501)

    def malformed_request(self, error: ParseError, source: Source) -> None:
        """
        Not the proxy's.
        """

    def ack_received(self, request: Request, source: Source) -> None:
        """
        Forward the ACK for a 2xx along the route of its dialog, without state (§16.11). One of a dialog that is none
        of ours, or that nobody can be sent, is dropped: an ACK is never answered.
        """
        try:
            verdict = preprocess(request, self._is_ours, self._cookies)
            if not verdict.is_in_dialog:  # or one for an answer of our own
                raise UnreachableError("no dialog of ours")
            destination = self.destination_of(verdict)
            copy, next_hop = copy_for(verdict.request, destination, read_breadth(request, self._max_breadth))
            found = self.find(destination, next_hop)
        except (ParseError, RequestRefused, UnreachableError):
            self._dropped_acks += 1
            return
        if isinstance(found, Deferred):
            found.addCallback(partial(self._send_ack, request, copy)).addErrback(self._drop_ack)
        else:
            self._send_ack(request, copy, found)

    def _send_ack(self, received: Request, ack: Request, targets: tuple[Target, ...]) -> None:
        try:
            self.sender.send_stateless(ack, targets[0])
        except UnreachableError:
            self._dropped_acks += 1
            return
        self.tell("ack_relayed", received)

    def _drop_ack(self, failure: Failure) -> None:
        self._dropped_acks += 1
        if not isinstance(failure.value, UnreachableError):
            log.failure("an ACK broke the resolver", failure)

    def cancelled(self, transaction: IServerTransaction) -> None:
        """
        See L{ITransactionUser.cancelled}.
        """
        context = self._contexts.get(transaction)
        if context is not None:
            context.cancel(transaction.cancel_reasons)

    def response_lost(self, transaction: IServerTransaction, reason: str) -> None:
        """
        See L{ITransactionUser.response_lost}: who cannot be told wants no answer any more.
        """
        self.cancelled(transaction)


def _from_listener(targets: tuple[Target, ...], listener: Listener, is_contact: bool) -> tuple[Target, ...]:
    """
    Targets of the listener's protocol and address family are sent to from there.

    @param is_contact: they are where a Contact leads, and no proxy's: whom the dialog has reached by UDP so far gets a
        long request so, too. The way is open; TCP (RFC 3261 §18.1.1) may be shut by a NAT.
    """
    is_ipv6 = ":" in listener.host
    return tuple(
        target._replace(listener=listener, fixed=target.fixed or is_contact)
        if target.protocol is listener.protocol and (":" in target.host) == is_ipv6 and target.listener is None
        else target
        for target in targets
    )
