"""
Which request goes to which service.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from zope.interface import implementer

from sipdmq.core import refuse
from sipdmq.core.domains import Domains
from sipdmq.errors import ParseError, RequestRefused
from sipdmq.interfaces.messages import IServerTransaction, ITransactionUser
from sipdmq.records import Source
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request, Response, response_to
from sipdmq.sip.uri import SipURI

__all__ = ["Dispatcher"]

SUPPORTED: Final = ("path",)
"""The option tags that we have as a UAS: RFC 3327."""


@implementer(ITransactionUser)
class Dispatcher:
    """
    The transaction user that the transaction layer knows: checks what is the same for all requests, answers what is
    meant for the server itself, and hands the rest to the service of its method.
    """

    def __init__(
        self,
        domains: Domains,
        ids: Ids,
        respond_to_source: Callable[[Request, Response, Source], None],
    ) -> None:
        """
        @param respond_to_source: sends a response to where a request came from, without a transaction.
        """
        self._domains = domains
        self._ids = ids
        self._respond_to_source = respond_to_source
        self._services: dict[str, ITransactionUser] = {}

    def add_service(self, method: str, service: ITransactionUser) -> None:
        """
        All requests of one method, for our domains, go to C{service} from now on.
        """
        self._services[method] = ITransactionUser(service)

    @property
    def allowed(self) -> list[str]:
        """
        The methods that are served, for Allow.
        """
        return ["OPTIONS", *self._services]

    def request_received(self, transaction: IServerTransaction) -> None:
        """
        See L{ITransactionUser.request_received}.
        """
        request: Request = transaction.request
        try:
            self._check(request)
            service = self._services.get(request.method)
            if service is not None:
                self._check_target(request, transaction)
                service.request_received(transaction)
            elif request.method == "OPTIONS":
                self._check_target(request, transaction)
                transaction.respond_statelessly(self._capabilities(request))
            else:
                raise refuse.method_not_allowed(self.allowed)
        except RequestRefused as refusal:
            self._refuse(transaction, refusal)
        except ParseError as error:  # in a field that is looked at here for the first time
            self._refuse(transaction, refuse.bad_request(error.reason))

    def _refuse(self, transaction: IServerTransaction, refusal: RequestRefused) -> None:
        request = transaction.request
        transaction.respond_statelessly(refuse.answer(request, refusal, self._tag(request)))

    def _check(self, request: Request) -> None:
        """
        RFC 3261 §16.3, steps 2, 3 and 5.
        """
        if not isinstance(request.uri, SipURI):
            raise refuse.unsupported_scheme()
        if request.max_forwards == 0 and self._domains.domain_of(request.uri) is None:
            raise refuse.too_many_hops()
        if "proxy-require" in request.headers.first:
            unsupported = request.tokens("proxy-require")
            if unsupported:
                raise refuse.bad_extension(unsupported)

    def _check_target(self, request: Request, transaction: IServerTransaction) -> None:
        """
        RFC 3261 §8.2.2, for requests that we answer as the UAS.
        """
        if self._domains.domain_of(request.uri) is None:
            raise refuse.not_found()
        if request.method == "OPTIONS" and isinstance(request.uri, SipURI) and request.uri.user:
            raise refuse.not_found()
        if "require" in request.headers.first:
            unsupported = [tag for tag in request.tokens("require") if tag.lower() not in SUPPORTED]
            if unsupported:
                raise refuse.bad_extension(unsupported)

    def _capabilities(self, request: Request) -> Response:
        """
        The answer to OPTIONS (RFC 3261 §11.2).
        """
        headers = [("Allow", ", ".join(self.allowed)), ("Accept", "*/*"), ("Supported", ", ".join(SUPPORTED))]
        return response_to(request, 200, self._tag(request), headers)

    def _tag(self, request: Request) -> str:
        return self._ids.stateless_tag(f"{request.headers.get('via')} {request.headers.get('call-id')}")

    def malformed_request(self, error: ParseError, source: Source) -> None:
        """
        See L{ITransactionUser.malformed_request}.
        """
        if error.request is None:
            return
        response = refuse.answer_parse_error(error, self._tag(error.request))
        if response is not None:
            self._respond_to_source(error.request, response, source)

    def ack_received(self, request: Request, source: Source) -> None:
        """
        See L{ITransactionUser.ack_received}. An ACK for a refusal that we did not keep ends here.
        """
        service = self._services.get("INVITE")
        if service is not None:
            service.ack_received(request, source)

    def cancelled(self, transaction: IServerTransaction) -> None:
        """
        See L{ITransactionUser.cancelled}.
        """
        service = self._services.get(transaction.request.method)
        if service is not None:
            service.cancelled(transaction)

    def response_lost(self, transaction: IServerTransaction, reason: str) -> None:
        """
        See L{ITransactionUser.response_lost}.
        """
        service = self._services.get(transaction.request.method)
        if service is not None:
            service.response_lost(transaction, reason)
