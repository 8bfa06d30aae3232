"""
A proxy over the real transaction layer, between phones that a test plays: what both sides send and receive is messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from sipdmq.core import refuse
from sipdmq.core.cookies import RouteCookies
from sipdmq.core.routes import RouteVerdict, preprocess
from sipdmq.core.targets import BindingTargets
from sipdmq.errors import ParseError, RequestRefused, UnreachableError
from sipdmq.interfaces.messages import IFlows, IServerTransaction, ITargetResolver, ITransactionUser
from sipdmq.interfaces.routing import ICallListener
from sipdmq.proxy.service import Proxy
from sipdmq.records import Binding, Destination, Listener, Protocol, Source, Target
from sipdmq.sip.message import Message, Request, Response, response_to
from sipdmq.sip.parser import parse_message
from sipdmq.sip.timers import TimerValues
from sipdmq.sip.uri import DEFAULT_PORT, SipURI
from sipdmq.sip.writer import format_message
from sipdmq.transaction.layer import TransactionLayer
from tests.fakes import PHONE, TCP, UDP, Events, FakeTransport, leftovers, make_ids, request_bytes

KEY = b"k" * 32
NODE = "192.0.2.1"
BOB = "198.51.100.20"
CAROL = "198.51.100.21"
DAVE = "198.51.100.22"


def is_ours(uri: SipURI) -> bool:
    """
    The node's addresses, and its domain.
    """
    if uri.host == "203.0.113.80":
        return uri.port == 5080
    return uri.host in (NODE, "example.org") and uri.port in (None, 5060)


def to(host: str, **changes: Any) -> Destination:
    """
    A phone that listens at a numeric address.
    """
    return Destination(f"sip:bob@{host}", **changes)


def binding(contact: str, aor: str = "bob@example.org", **changes: Any) -> Binding:
    """
    What the location store gives for a phone that registered over UDP.
    """
    plain = Binding(aor, "r1", contact, "", -1, 2**31, "rc1", 1, "", 0, "", "", str(UDP), "", "", 0)
    return plain._replace(**changes)


@implementer(ITargetResolver)
class FakeResolver:
    """
    Knows numeric hosts; a name has what the test gives it: targets, or a Deferred of them; else no address.
    """

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}

    def resolve(self, uri: SipURI) -> Deferred[tuple[Target, ...]]:
        known = self.names.get(uri.host)
        if isinstance(known, Deferred):
            return known
        if known is not None:
            return succeed(known)
        if not uri.host.replace(".", "").isdigit():
            return fail(UnreachableError(f"no address for {uri.host}"))
        protocol = Protocol.TCP if uri.params.get("transport") == "tcp" else Protocol.UDP
        if uri.scheme == "sips":
            protocol = Protocol.TLS
        return succeed((Target(protocol, uri.host, uri.port or DEFAULT_PORT),))


@implementer(IFlows)
class FakeFlows:
    """
    @ivar alive: tokens of open connections, and who is at their other end.
    """

    def __init__(self) -> None:
        self.alive: dict[str, tuple[str, int]] = {}

    def is_alive(self, flow: str) -> bool:
        return flow in self.alive

    def target_of(self, flow: str) -> Target | None:
        if flow not in self.alive:
            return None
        host, port = self.alive[flow]
        return Target(Protocol.TCP, host, port, True, flow, True, TCP)


@implementer(ICallListener)
class RecordingCalls:
    """
    Writes down what it hears of calls.
    """

    def __init__(self) -> None:
        self.events: Events = []

    def request_relayed(self, request: Request, caller: str, source: Source) -> None:
        self.events.append(("relayed", request.method, caller))

    def call_ringing(self, request: Request, response: Response) -> None:
        self.events.append(("ringing", response.status))

    def call_answered(self, request: Request, response: Response) -> None:
        self.events.append(("answered", response.status))

    def ack_relayed(self, request: Request) -> None:
        self.events.append(("ack", request.method))

    def call_failed(self, request: Request, status: int) -> None:
        self.events.append(("failed", status))

    def bye_relayed(self, request: Request) -> None:
        self.events.append(("bye", request.method))


@implementer(ITransactionUser)
class TinyDispatcher:
    """
    Stands for the dispatcher and its policy.

    @ivar destinations: given a verdict, where it goes.
    """

    proxy: Proxy

    def __init__(self, cookies: RouteCookies) -> None:
        self.cookies = cookies
        self.destinations: Callable[[RouteVerdict], Sequence[Destination]] = lambda verdict: ()
        self.record_route = True
        self.verdicts: list[RouteVerdict] = []

    def request_received(self, transaction: IServerTransaction) -> None:
        request = transaction.request
        try:
            verdict = preprocess(request, is_ours, self.cookies)
            self.verdicts.append(verdict)
            if verdict.is_in_dialog:
                self.proxy.follow(transaction, verdict, caller="")
                return
            destinations = self.destinations(verdict)
            if not destinations:
                raise refuse.not_found()
            self.proxy.relay(
                transaction, verdict.request, destinations, record_route=self.record_route, caller="alice"
            )
        except RequestRefused as refusal:
            transaction.respond_statelessly(refuse.answer(request, refusal, "tiny"))

    def malformed_request(self, error: ParseError, source: Source) -> None:
        pass

    def ack_received(self, request: Request, source: Source) -> None:
        self.proxy.ack_received(request, source)

    def cancelled(self, transaction: IServerTransaction) -> None:
        self.proxy.cancelled(transaction)

    def response_lost(self, transaction: IServerTransaction, reason: str) -> None:
        self.proxy.response_lost(transaction, reason)


class WideTransport(FakeTransport):
    """
    Knows what the listener of a target is called.
    """

    def sent_by(self, target: Target) -> str:
        if target.protocol in self.missing:
            raise UnreachableError(f"no {target.protocol.name} listener")
        listener = target.listener or (TCP if target.protocol is Protocol.TCP else UDP)
        return f"{listener.protocol.name} {listener.advertise_host}:{listener.advertise_port}"


class ProxyTestCase(SynchronousTestCase):
    """
    One proxy. Events: C{("send", status or method, target)}.
    """

    listeners: tuple[Listener, ...] = (UDP, TCP)

    def setUp(self) -> None:
        self.clock = Clock()
        self.events: Events = []
        self.transport = WideTransport(self.clock, self.events)
        ids = make_ids()
        self.layer = TransactionLayer(self.clock, ids, TimerValues(), 1000, 2**20)
        self.resolver = FakeResolver()
        self.flows = FakeFlows()
        self.cookies = RouteCookies(KEY)
        self.user = TinyDispatcher(self.cookies)
        self.calls = RecordingCalls()
        self.proxy = self.user.proxy = Proxy(
            self.clock,
            self.layer,
            self.resolver,
            BindingTargets(self.listeners, self.flows, self.resolver),
            self.flows,
            self.listeners,
            ids,
            self.cookies,
            is_ours,
        )
        self.proxy.watch_calls(self.calls)
        self.layer.connect(self.transport, self.user)

    def route_to(self, *destinations: Destination) -> None:
        """
        From now on requests outside of dialogs go there.
        """
        self.user.destinations = lambda verdict: destinations

    def receive(self, data: bytes | Message, source: Source = PHONE) -> None:
        """
        A message arrives.
        """
        message = parse_message(data if isinstance(data, bytes) else format_message(data))
        self.layer.message_received(message, source)

    def request(self, method: str = "INVITE", source: Source = PHONE, **changes: Any) -> None:
        """
        Alice's phone sends a request.
        """
        changes.setdefault("uri", "sip:bob@example.org")
        changes.setdefault("headers", ("Contact: <sip:alice@198.51.100.7:5062>",))
        self.receive(request_bytes(method, **changes), source)

    def taken(self) -> Events:
        """
        The events since this was asked last.
        """
        events, self.events[:] = self.events.copy(), []
        return events

    def sent(self, what: str | int, host: str = "") -> list[Any]:
        """
        All messages of a method or status that were sent, to one host; of what was sent again by a timer the first.
        """
        return [
            message
            for message, target in self._first_sent()
            if what == (message.status if isinstance(message, Response) else message.method)
            and host in ("", target.host)
        ]

    def _first_sent(self) -> list[tuple[Any, Target]]:
        sent = []
        seen = set()
        for message, target in self.transport.sent:
            data = format_message(message)
            is_2xx = isinstance(message, Response) and message.status < 300
            if is_2xx or data not in seen:
                seen.add(data)
                sent.append((message, target))
        return sent

    def last(self, what: str | int, host: str = "") -> Any:
        """
        The last of L{sent}.
        """
        return self.sent(what, host)[-1]

    def answer(
        self,
        status: int,
        host: str = BOB,
        method: str = "INVITE",
        to_tag: str = "t1",
        headers: Sequence[tuple[str, str]] = (),
        reason: str = "",
        body: bytes = b"",
    ) -> None:
        """
        A phone answers what it was sent last.
        """
        request = self.last(method, host)
        tag = to_tag if status > 100 else ""
        self.receive(response_to(request, status, tag, headers, reason, body), Source(Protocol.UDP, host, 5060, UDP))

    def upstream(self) -> list[int]:
        """
        What was answered to alice, by status.
        """
        return [
            message.status
            for message, target in self._first_sent()
            if isinstance(message, Response) and target.host == PHONE.host
        ]

    def cancel(self) -> None:
        """
        Alice's phone cancels its INVITE.
        """
        self.request("CANCEL", headers=())

    def pump(self, seconds: float, step: float = 0.5) -> None:
        """
        Let time pass.
        """
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def assert_nothing_left(self) -> None:
        """
        Nothing is remembered and no timer runs.
        """
        self.assertEqual(leftovers(self.layer), {})
        self.assertEqual(leftovers(self.layer.completed), {})
        self.assertEqual(self.proxy.snapshot()["proxy.contexts"], 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])
