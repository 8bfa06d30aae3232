"""
A dispatcher over the real transaction layer, between a policy and a proxy that do as a test tells them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from sipdmq.core.cookies import RouteCookies
from sipdmq.core.dispatch import Dispatcher
from sipdmq.core.domains import Domains
from sipdmq.core.functions import RoutedRequest
from sipdmq.core.routes import RouteVerdict
from sipdmq.errors import RequestRefused
from sipdmq.interfaces.messages import IServerTransaction, ITransactionUser
from sipdmq.interfaces.routing import IProxy, IRoutingPolicy
from sipdmq.records import Source
from sipdmq.sip.message import Request, Response, response_to
from sipdmq.sip.uri import parse_sip_uri
from tests.fakes import Events, RecordingUser, TransactionTestCase, make_ids, pump, request, statuses

__all__ = ["DispatchTestCase", "FakePolicy", "FakeProxy", "PolicyTestCase"]


@implementer(IProxy, ITransactionUser)
class FakeProxy(RecordingUser):
    """
    Relays nothing, remembers all.

    @ivar relays: the arguments of each C{relay}.
    @ivar refusal: raised by both, if any.
    """

    def __init__(self, events: Events) -> None:
        super().__init__(events)
        self.relays: list[tuple[Any, ...]] = []
        self.refusal: Exception | None = None

    def relay(
        self, transaction: IServerTransaction, request: Request, destinations: Any, *, record_route: bool, caller: str
    ) -> None:
        if self.refusal is not None:
            raise self.refusal
        self._events.append(("relay", request.method, caller))
        self.relays.append((request, tuple(destinations), record_route, caller))

    def caller_of(self, request: Request) -> str:
        return ""

    def follow(self, transaction: IServerTransaction, verdict: RouteVerdict, *, caller: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self._events.append(("follow", verdict.request.method, caller))


@implementer(IRoutingPolicy)
class FakePolicy:
    """
    @ivar requests: what it was asked, in order.
    @ivar decide: called for each, with what the node can do; what it returns is returned.
    """

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.decide: Callable[[Any, Any], Any] = self._decline

    @staticmethod
    def _decline(request: Any, node: Any) -> None:
        raise RequestRefused(603)

    def route(self, request: Any, node: Any) -> Any:
        self.requests.append(request)
        return self.decide(request, node)


class DispatchTestCase(TransactionTestCase):
    """
    @ivar cookie_uri: the caller's Record-Route for the dialog with bob of Call-ID c1 and From tag f1.
    """

    def setUp(self) -> None:
        super().setUp()

        def respond_to_source(request: Request, response: Response, source: Source) -> None:
            self.layer.send_stateless(response, self.transport.response_target(request, source))

        cookies = RouteCookies(b"k" * 32)
        mark = cookies.mark(parse_sip_uri("sip:bob@198.51.100.20"))
        self.cookie_uri = f"sip:192.0.2.1;lr;c={cookies.make('c1', 'f1', mark, is_callers=True)}"
        self.policy = FakePolicy()
        self.proxy = FakeProxy(self.events)
        self.domains = Domains(("example.org",), {}, [("192.0.2.1", 5060)])
        self.functions = self.make_functions()
        self.dispatcher = Dispatcher(self.clock, self.domains, make_ids(), cookies, respond_to_source)
        self.dispatcher.connect(self.policy, self.functions, self.proxy)
        self.layer.connect(self.transport, self.dispatcher)

    def make_functions(self) -> Any:
        """
        What the policy is given.
        """
        return object()

    def within(self, method: str, **changes: Any) -> Request:
        """
        A request within the dialog.
        """
        given = {
            "uri": "sip:bob@198.51.100.20",
            "to": "<sip:bob@example.org>;tag=t1",
            "headers": [f"Route: <{self.cookie_uri}>"],
            **changes,
        }
        return request(method, **given)

    def ask(self, method: str = "OPTIONS", **changes: Any) -> Response:
        """
        The answer to a request, which left nothing behind.
        """
        self.receive(request(method, **changes))
        self.assertEqual(len(self.transport.sent), 1)
        self.assert_nothing_left()
        response: Response = self.transport.sent.pop()[0]
        return response


class PolicyTestCase(DispatchTestCase):
    """
    The policies save with C{save(request)}: it is answered with 200.
    """

    def save(self, asked: RoutedRequest) -> None:
        if asked.is_decided:
            raise RuntimeError("decided already")
        asked.transaction.respond(response_to(asked.transaction.request, 200, "t"))
        asked.is_decided = True

    def invite(self, number: int = 1) -> None:
        self.receive(self.message(number))

    @staticmethod
    def message(number: int = 1, method: str = "INVITE") -> Any:
        via = f"SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK{number}"
        return request(method, uri="sip:bob@example.org", via=via, call_id=f"c{number}")

    def statuses(self) -> list[int | str]:
        """
        What was answered since this was asked last.
        """
        sent, self.transport.sent[:] = self.transport.sent.copy(), []
        return statuses(sent)

    def complaints(self) -> list[str]:
        """
        What the log says of policies that broke.
        """
        return [str(failure.value) for failure in self.flushLoggedErrors()]

    def assert_over(self) -> None:
        """
        No policy is waited for, and nothing is left of its request once its ACK, or the time for that, has come.
        """
        self.assertEqual(self.dispatcher.snapshot()["policy.waiting"], 0)
        pump(self.clock, 40)
        self.events.clear()
        self.assert_nothing_left()
