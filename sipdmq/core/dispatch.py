"""
Which request goes where: to the server itself, along the route of its dialog, or to the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, Final, TypeGuard

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.core import refuse
from sipdmq.core.auth import fit_answer
from sipdmq.core.complaints import Complaints
from sipdmq.core.cookies import RouteCookies
from sipdmq.core.coroutines import close_coroutine, wait_for
from sipdmq.core.domains import Domains
from sipdmq.core.functions import SUPPORTED, NodeFunctions, RoutedRequest, check_required
from sipdmq.core.routes import DIALOG_METHODS, FlowOf, RouteVerdict, preprocess
from sipdmq.errors import ParseError, RequestRefused
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import IFlows, IServerTransaction, ITransactionUser
from sipdmq.interfaces.routing import IProxy, IRoutingPolicy
from sipdmq.records import Destination, Protocol, Source
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request, Response, response_to
from sipdmq.sip.uri import URI, SipURI

__all__ = ["POLICY_TIMEOUT", "Dispatcher"]

log = Logger()

POLICY_TIMEOUT: Final = 60.0
"""Seconds that a policy may wait for something of its own; then the request is answered with 500."""
_UDP: Final = Protocol.UDP


@implementer(ITransactionUser, IInspectable)
class Dispatcher:
    """
    The transaction user that the transaction layer knows.
    """

    _policy: IRoutingPolicy
    _functions: NodeFunctions
    _proxy: Any
    _flows: Any

    def __init__(
        self,
        clock: IReactorTime,
        domains: Domains,
        ids: Ids,
        cookies: RouteCookies,
        respond_to_source: Callable[[Request, Response, Source], None],
        is_guarded: bool = False,
    ) -> None:
        """
        @param respond_to_source: sends a response to where a request came from, without a transaction.
        @param is_guarded: requests are authenticated: then refusals to UDP sources are held small
            (L{sipdmq.core.auth.fit_answer}).
        """
        self._clock = IReactorTime(clock)
        self._domains = domains
        self._ids = ids
        self._cookies = cookies
        self._respond_to_source = respond_to_source
        self._is_guarded = is_guarded
        self._services: dict[str, ITransactionUser] = {}
        self._flow_of: FlowOf | None = None
        self._allowed = ["OPTIONS"]
        self._complaints = Complaints(self._clock.seconds)
        self._broken = 0
        self._waiting: dict[RoutedRequest, None] = {}

    def connect(self, policy: IRoutingPolicy, functions: NodeFunctions, proxy: IProxy) -> None:
        """
        Join the dispatcher with what decides and what relays, once.

        @param proxy: L{IProxy} and L{ITransactionUser}
        """
        self._policy = IRoutingPolicy(policy)
        self._functions = functions
        self._proxy = ITransactionUser(IProxy(proxy))

    def deliver_to(self, flows: IFlows, flow_of: FlowOf) -> None:
        """
        In a cluster: requests whose Route names a connection of ours go there, without asking the policy: a member has
        got that Route from us, for a phone that only we can reach.

        @param flow_of: as for L{preprocess<sipdmq.core.routes.preprocess>}.
        """
        self._flows = IFlows(flows)
        self._flow_of = flow_of

    def add_service(self, method: str, service: ITransactionUser) -> None:
        """
        Requests of one method to the server itself go to C{service} from now on, without asking the policy.
        """
        self._services[method] = ITransactionUser(service)
        self.allow(method)

    def allow(self, method: str) -> None:
        """
        Name a method in Allow.
        """
        self._allowed.append(method)

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {"policy.broken": self._broken, "policy.waiting": len(self._waiting)}

    def stop(self) -> None:
        """
        Wait for no policy any more, without a word.
        """
        for request in tuple(self._waiting):
            self._wake(request)

    def request_received(self, transaction: IServerTransaction) -> None:
        """
        See L{ITransactionUser.request_received}.
        """
        request: Request = transaction.request
        try:
            uri = request.uri
            first = request.headers.first
            if not isinstance(uri, SipURI) and "route" not in first:
                raise refuse.unsupported_scheme()
            if "proxy-require" in first:
                unsupported = request.tokens("proxy-require")
                if unsupported:
                    raise refuse.bad_extension(unsupported)
            if request.method == "KDMQ":
                self._serve_cluster(transaction)
                return
            if "route" in first or (isinstance(uri, SipURI) and "maddr" in uri.params):
                verdict = preprocess(request, self._is_ours, self._cookies, self._flow_of)
                if verdict.flow is not None and request.method != "REGISTER":
                    self._deliver(transaction, verdict)
                    return
                if verdict.is_in_dialog and request.method != "REGISTER":
                    self._proxy.follow(transaction, verdict, caller="")
                    return
                request = verdict.request
                uri = request.uri
                if not isinstance(uri, SipURI) and "route" not in request.headers.first:
                    raise refuse.unsupported_scheme()
            if request.method != "REGISTER":
                if self._is_ours(uri) and not uri.user:
                    self._serve(transaction, request)
                    return
                if request.max_forwards == 0:  # §16.3 step 3, before anybody is asked for a password
                    raise refuse.too_many_hops()
            self._decide(RoutedRequest(transaction, request))
        except RequestRefused as refusal:
            self._refuse(transaction, refusal)
        except ParseError as error:  # in a field that is looked at here for the first time
            self._refuse(transaction, refuse.bad_request(error.reason))

    def _is_ours(self, uri: URI) -> TypeGuard[SipURI]:
        return self._domains.domain_of(uri) is not None

    def _deliver(self, transaction: IServerTransaction, verdict: RouteVerdict) -> None:
        """
        To the phone at the other end of a connection of ours, or to nobody.
        """
        target = self._flows.target_of(verdict.flow) if verdict.flow else None
        if target is None:
            raise refuse.flow_failed()
        request = verdict.request
        self._proxy.relay(
            transaction,
            request,
            (Destination(request.uri_text, target=target),),
            record_route=request.method in DIALOG_METHODS,
            caller="",
        )

    def _serve_cluster(self, transaction: IServerTransaction) -> None:
        """
        KDMQ is as strong as the whole location table: it ends here, whatever its Request-URI and Route say.
        """
        service = self._services.get("KDMQ")
        if service is None:
            raise refuse.forbidden("Never Relayed")
        service.request_received(transaction)

    def _serve(self, transaction: IServerTransaction, request: Request) -> None:
        """
        A request to the server itself (RFC 3261 §8.2).
        """
        if "route" in request.headers.first:
            raise refuse.forbidden("Preloaded Route")
        service = self._services.get(request.method)
        if service is not None:
            check_required(request)
            service.request_received(transaction)
        elif request.method == "OPTIONS":
            check_required(request)
            self._answer_statelessly(transaction, self._capabilities(transaction.request))
        elif request.to.tag:
            raise refuse.no_such_dialog()
        else:
            raise refuse.method_not_allowed(self._allowed)

    def _capabilities(self, request: Request) -> Response:
        """
        The answer to OPTIONS (RFC 3261 §11.2).
        """
        headers = [("Allow", ", ".join(self._allowed)), ("Accept", "*/*"), ("Supported", ", ".join(SUPPORTED))]
        return response_to(request, 200, self._tag(request), headers)

    # the policy

    def _decide(self, request: RoutedRequest) -> None:
        """
        @raise RequestRefused: the policy says so at once; so for ParseError.
        """
        try:
            outcome = self._policy.route(request, self._functions)
        except (RequestRefused, ParseError) as refusal:
            if not request.is_decided:
                raise
            self._failed(request, Failure(refusal))
            return
        except Exception:  # noqa: BLE001 - the edge to the operator's own code
            self._broke(request, Failure())
            return
        if type(outcome) is CoroutineType:
            self._go_on(outcome, request)
        elif isinstance(outcome, Deferred):
            self._go_on(wait_for(outcome), request)
        else:
            self._finished(request)

    def _go_on(
        self, coroutine: Coroutine[Any, Any, Any], request: RoutedRequest, failure: BaseException | None = None
    ) -> None:
        """
        Let a policy go on until it waits or is done. Most never wait: their Deferreds have fired already, and then this
        costs no Deferred of its own.

        @param failure: of what it has waited for.
        """
        try:
            awaited = coroutine.send(None) if failure is None else coroutine.throw(failure)
        except StopIteration:
            self._finished(request)
        except (RequestRefused, ParseError) as refusal:
            if not request.is_suspended and not request.is_decided:
                raise
            self._failed(request, Failure(refusal))
        except Exception:  # noqa: BLE001 - as above
            self._failed(request, Failure())
        else:
            if not isinstance(awaited, Deferred):
                close_coroutine(coroutine)
                self._failed(request, Failure(TypeError(f"a policy can await Deferreds only, not {awaited!r}")))
                return
            if not request.is_suspended:
                request.is_suspended = True
                self._waiting[request] = None
                request.timeout = self._clock.callLater(POLICY_TIMEOUT, self._took_too_long, coroutine, request)
            awaited.addBoth(self._has_come, coroutine, request)

    def _has_come(self, result: object, coroutine: Coroutine[Any, Any, Any], request: RoutedRequest) -> None:
        """
        What a policy waits for is there. A result it takes from its Deferred, a failure it is given: while callbacks
        run, a Deferred does not raise it.
        """
        if request.timeout is not None:
            self._go_on(coroutine, request, result.value if isinstance(result, Failure) else None)

    def _took_too_long(self, coroutine: Coroutine[Any, Any, Any], request: RoutedRequest) -> None:
        self._wake(request)
        close_coroutine(coroutine)
        self._broke(request, Failure(TimeoutError(f"the policy waited for more than {POLICY_TIMEOUT:g} s")))

    def _wake(self, request: RoutedRequest) -> None:
        if request.timeout is not None:
            if request.timeout.active():
                request.timeout.cancel()
            request.timeout = None
            del self._waiting[request]

    def _finished(self, request: RoutedRequest) -> None:
        self._wake(request)
        if not request.is_decided:
            self._broke(request, Failure(RuntimeError("the policy neither saved, relayed nor refused it")))

    def _failed(self, request: RoutedRequest, failure: Failure) -> None:
        self._wake(request)
        error = failure.value
        if isinstance(error, ParseError):
            error = refuse.bad_request(error.reason)
        if isinstance(error, RequestRefused) and not request.is_decided:
            request.is_decided = True
            self._refuse_decided(request, error)
        else:
            self._broke(request, failure)

    def _broke(self, request: RoutedRequest, failure: Failure) -> None:
        self._broken += 1
        if self._complaints.is_due():
            log.failure("the policy broke on {request}", failure, request=request)
        if not request.is_decided:
            request.is_decided = True  # whatever of the policy goes on all the same, comes too late
            self._refuse_decided(request, RequestRefused(500))

    # answers

    def _refuse(self, transaction: IServerTransaction, refusal: RequestRefused) -> None:
        request = transaction.request
        self._answer_statelessly(transaction, refuse.answer(request, refusal, self._tag(request)))

    def _refuse_decided(self, request: RoutedRequest, refusal: RequestRefused) -> None:
        """
        What the policy refused, perhaps after it had waited: then 100 may have been sent.
        """
        transaction = request.transaction
        if not request.is_suspended:
            self._refuse(transaction, refusal)
            return
        if transaction.is_cancelled:
            refusal = RequestRefused(487)
        response = refuse.answer(transaction.request, refusal, transaction.to_tag or self._ids.tag())
        if self._is_guarded and not request.user and transaction.source.protocol is _UDP:
            # A transaction would repeat it, to somebody who may not have asked for it.
            transaction.drop()
            self._respond_fitting(transaction.request, response, transaction.source)
        else:
            transaction.respond(response)

    def _answer_statelessly(self, transaction: IServerTransaction, response: Response) -> None:
        if self._is_guarded and transaction.source.protocol is _UDP:
            fitting = fit_answer(response, transaction.request.size)
            if fitting is None:
                transaction.drop()
                return
            response = fitting
        transaction.respond_statelessly(response)

    def _tag(self, request: Request) -> str:
        first = request.headers.first
        return self._ids.stateless_tag(f"{first.get('via')} {first.get('call-id')}")

    def malformed_request(self, error: ParseError, source: Source) -> None:
        """
        See L{ITransactionUser.malformed_request}.
        """
        request = error.request
        if request is None:
            return
        response = refuse.answer_parse_error(error, self._tag(request))
        if response is not None:
            self._respond_fitting(request, response, source)

    def _respond_fitting(self, request: Request, response: Response, source: Source) -> None:
        fitting: Response | None = response
        if self._is_guarded and source.protocol is _UDP:
            fitting = fit_answer(response, request.size)
        if fitting is not None:
            self._respond_to_source(request, fitting, source)

    # what happens later to what was relayed

    def ack_received(self, request: Request, source: Source) -> None:
        """
        See L{ITransactionUser.ack_received}. An ACK for a refusal that we did not keep ends here.
        """
        self._proxy.ack_received(request, source)

    def cancelled(self, transaction: IServerTransaction) -> None:
        """
        See L{ITransactionUser.cancelled}.
        """
        self._proxy.cancelled(transaction)

    def response_lost(self, transaction: IServerTransaction, reason: str) -> None:
        """
        See L{ITransactionUser.response_lost}.
        """
        self._proxy.response_lost(transaction, reason)
