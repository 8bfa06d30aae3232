"""
What a routing policy is given: a request, and what the node can do with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred

from sipdmq.core import refuse
from sipdmq.core.auth import Authenticator, identity_of, remove_credentials, username_of
from sipdmq.core.domains import Domains, aor_in
from sipdmq.core.routes import DIALOG_METHODS
from sipdmq.errors import ParseError, RequestRefused
from sipdmq.interfaces.credentials import ICredentialStore
from sipdmq.interfaces.gateways import IGateways
from sipdmq.interfaces.location import ILocationStore
from sipdmq.interfaces.messages import IServerTransaction, ITransactionUser
from sipdmq.interfaces.publications import IPublisher, PublicationChange
from sipdmq.interfaces.routing import IProxy
from sipdmq.records import Binding, Destination, Protocol, Source
from sipdmq.sip.message import Request
from sipdmq.sip.uri import URI, SipURI, parse_request_uri

__all__ = ["SUPPORTED", "NodeFunctions", "RoutedRequest", "check_required"]

SUPPORTED: Final = ("path",)
"""The option tags that we have as a UAS: RFC 3327."""


def check_required(request: Request) -> None:
    """
    Whether we have what a request that ends here requires.

    @raise RequestRefused: 420.
    @see: RFC 3261 §8.2.2.3
    """
    if "require" in request.headers.first:
        unsupported = [tag for tag in request.tokens("require") if tag.lower() not in SUPPORTED]
        if unsupported:
            raise refuse.bad_extension(unsupported)


class RoutedRequest:
    """
    A request that somebody has to decide on: outside of any dialog that we know.

    @ivar message: the L{Request}, our own Routes taken out of it. Not to be changed: what is to go out otherwise is
        said to L{NodeFunctions.relay}.
    @ivar transaction: where it is answered.
    @ivar source: the L{Source} it came from.
    @ivar method: C{"INVITE"}
    @ivar uri: the Request-URI: L{SipURI<sipdmq.sip.uri.SipURI>} or L{OtherURI<sipdmq.sip.uri.OtherURI>}.
    @ivar user: C{"alice@example.org"} once L{NodeFunctions.authenticate} has found out who it is; empty before.
    @ivar has_route: a Route is left: the sender wants it to go a way of his own.
    @ivar is_decided: it was saved, relayed or refused.
    @ivar published: what L{NodeFunctions.handle_publish} has changed, if it did.
    """

    __slots__ = (
        "has_route",
        "is_decided",
        "is_suspended",
        "message",
        "method",
        "published",
        "realm",
        "source",
        "timeout",
        "transaction",
        "uri",
        "user",
    )

    def __init__(self, transaction: IServerTransaction, message: Request) -> None:
        self.transaction = transaction
        self.message = message
        self.source: Source = transaction.source
        self.method = message.method
        self.uri: URI = message.uri
        self.user = ""
        self.realm = ""
        self.has_route = "route" in message.headers.first
        self.is_decided = False
        self.is_suspended = False
        self.published: PublicationChange | None = None
        self.timeout: Any = None

    def __repr__(self) -> str:
        return f"<RoutedRequest {self.method} {self.uri}>"


class NodeFunctions:
    """
    The C{node} of L{IRoutingPolicy.route<sipdmq.interfaces.routing.IRoutingPolicy.route>}.

    @ivar dmq: L{sipdmq.dmq.functions.DMQFunctions}, the cluster; L{None} where the node is in none.
    @ivar tables: the shared tables of C{[htable NAME]}, L{ITable<sipdmq.interfaces.tables.ITable>} by NAME.
    @ivar subscriptions: L{ISubscriptionServer<sipdmq.interfaces.presence.ISubscriptionServer>}; L{None} where
        C{[presence] enable = 0}.
    @ivar lookup_elsewhere: asks the cluster for an AoR that this node does not know, while it still syncs; L{None}
        where the node is in none.
    @ivar publisher: L{IPublisher<sipdmq.interfaces.publications.IPublisher>}; L{None} where C{[presence] enable = 0}.
    @ivar dialogs: L{sipdmq.dialog.service.Dialogs}, the calls under way; L{None} where C{[dialog] enable = 0}.
    """

    def __init__(
        self,
        domains: Domains,
        store: ILocationStore,
        registrar: ITransactionUser,
        proxy: IProxy,
        gateways: IGateways,
        authenticator: Authenticator | None,
        credentials: ICredentialStore | None,
    ) -> None:
        """
        @param authenticator: L{None} where C{[auth] enable = no}; so for C{credentials}.
        """
        self._domains = domains
        self._store = ILocationStore(store)
        self._registrar = ITransactionUser(registrar)
        self._proxy = IProxy(proxy)
        self._gateways = IGateways(gateways)
        self._authenticator = authenticator
        self._credentials = None if credentials is None else ICredentialStore(credentials)
        self.dmq: Any = None
        self.dialogs: Any = None
        self.tables: Any = {}
        self.subscriptions: Any = None
        self.lookup_elsewhere: Callable[[str], Deferred[tuple[Binding, ...]]] | None = None
        self.publisher: IPublisher | None = None

    def is_ours(self, uri: URI) -> bool:
        """
        Whether a URI is in a domain of this node.
        """
        return self._domains.domain_of(uri) is not None

    def is_from_us(self, request: RoutedRequest) -> bool:
        """
        Whether From names a user of our domains, or passes for one: anybody can write that, L{authenticate} tells
        whether it is true.
        """
        return self._domains.is_claimed_by(request.message.from_.uri)

    def takes_publish(self, request: RoutedRequest) -> bool:
        """
        Whether a request is a PUBLISH that L{handle_publish} is for: for a user of ours, where presence is on.
        """
        return self.publisher is not None and request.method == "PUBLISH" and self.is_ours(request.uri)

    async def authenticate(self, request: RoutedRequest) -> str:
        """
        Find out who sent a request, by his password (RFC 3261 §22). A REGISTER speaks for whom To names, a PUBLISH that
        ends here for whom its Request-URI names, all others for whom From names.

        Found out once, it is not asked again: a policy may do this and then leave the rest to the built-in one. Nor is
        it for what we have relayed to ourselves (L{IProxy.caller_of<sipdmq.interfaces.routing.IProxy.caller_of>}).

        @return: C{"alice@example.org"}, also in C{request.user} from now on; empty where C{[auth] enable = no}, which
            lets everybody through, and for a copy of a REGISTER or PUBLISH: the node of the cluster that sent it has
            asked.
        @raise RequestRefused: 401 for what ends here, REGISTER and PUBLISH, and 407 for others with a challenge; 403
            for who speaks for somebody else than himself, or for a domain that is not ours.
        @raise WrongCredentials: 401 or 407 likewise, for who has answered a challenge wrongly.
        """
        authenticator = self._authenticator
        if authenticator is None:
            return ""
        if request.user:
            return request.user
        message = request.message
        is_publish = self.takes_publish(request)
        ends_here = is_publish or request.method == "REGISTER"
        if ends_here and self.dmq is not None and self.dmq.is_from_node(request):
            return ""
        speaks_for = message.uri if is_publish else identity_of(message)
        realm = authenticator.realm_of(speaks_for)
        if realm is None:
            raise refuse.forbidden("Not Our User")
        caller = "" if ends_here else self._proxy.caller_of(request.transaction.request)
        if not caller:
            found = authenticator.check(message, realm, not ends_here)
            name = found if isinstance(found, str) else await found
            if not authenticator.is_own_identity(name, realm, speaks_for):
                raise refuse.forbidden("Not Your Name")
            caller = f"{name}@{realm}"
        request.user = caller
        request.realm = realm
        return caller

    def save(self, request: RoutedRequest) -> None:
        """
        Hand a REGISTER to the registrar, which answers it (RFC 3261 §10.3).

        @raise RequestRefused: 404 for a domain that is not ours, 420, and what the registrar refuses.
        @raise RuntimeError: it was saved, relayed or refused before.
        """
        if request.is_decided:
            raise RuntimeError(f"{request} is decided already")
        check_required(request.message)
        self._registrar.request_received(request.transaction)
        request.is_decided = True

    def handle_publish(self, request: RoutedRequest) -> None:
        """
        Take a PUBLISH, as Kamailio's C{handle_publish()}, and answer it (RFC 3903 §6).

        @raise RequestRefused: 404 for a domain that is not ours, or where presence is off; 420, and what is wrong with
            the PUBLISH.
        @raise RuntimeError: it was saved, relayed or refused before.
        """
        if request.is_decided:
            raise RuntimeError(f"{request} is decided already")
        if self.publisher is None:
            raise refuse.not_found()
        check_required(request.message)
        request.published = self.publisher.publish(request.transaction, request.message)
        request.is_decided = True

    def takes_subscribe(self, request: RoutedRequest) -> bool:
        """
        Whether a request is a SUBSCRIBE that L{handle_subscribe} is for: for a user of ours and an event package that
        this node knows, or within the dialog of a subscription that it has.

        @raise ParseError: Event cannot be read.
        """
        if self.subscriptions is None or request.method != "SUBSCRIBE":
            return False
        serves: bool = self.subscriptions.serves(request.message)
        return serves

    def handle_subscribe(self, request: RoutedRequest) -> None:
        """
        Serve a SUBSCRIBE (RFC 6665) and answer it: Kamailio's C{handle_subscribe()}. The watcher is C{request.user}, or
        where nobody is asked for a password, who From says.

        @raise RequestRefused: 403 for who may not watch, 420, 489 where there is no presence, and what else
            L{ISubscriptionServer.subscribe<sipdmq.interfaces.presence.ISubscriptionServer.subscribe>} refuses.
        @raise RuntimeError: it was saved, relayed or refused before.
        """
        if request.is_decided:
            raise RuntimeError(f"{request} is decided already")
        if self.subscriptions is None:
            raise RequestRefused(489)
        check_required(request.message)
        watcher = request.user or self._name_of(request.message.from_.uri)
        self.subscriptions.subscribe(request.transaction, request.message, watcher)
        request.is_decided = True

    def _name_of(self, uri: URI) -> str:
        aor = self._domains.aor_of(uri)
        if aor is None:
            aor = aor_in(uri.host, uri) if isinstance(uri, SipURI) else None
        return aor or uri.text

    async def lookup(self, request: RoutedRequest, uri: URI | None = None) -> tuple[Destination, ...]:
        """
        Where a user of ours is registered now.

        @param uri: the user; by default the Request-URI.
        @return: not empty; a binding without C{q} counts as one with q=1.
        @raise RequestRefused: 404 if there is no such user, 480 if he is not registered; who is not authenticated is
            not told which: 480 for both.
        """
        uri = request.uri if uri is None else uri
        domain = self._domains.domain_of(uri)
        aor = None if domain is None else aor_in(domain, uri)
        if aor is None or domain is None or not isinstance(uri, SipURI):
            raise refuse.not_found()
        bindings: tuple[Binding, ...] = await self._store.lookup(aor)
        if not bindings and self.lookup_elsewhere is not None:
            bindings = await self.lookup_elsewhere(aor)
        if not bindings:
            if request.user and not await self._is_known(username_of(uri), domain):
                raise refuse.not_found()
            raise refuse.temporarily_unavailable()
        return tuple([_destination_of(binding) for binding in bindings])

    async def _is_known(self, user: str, domain: str) -> bool:
        if self._credentials is None or self._authenticator is None:
            return False
        for algorithm in self._authenticator.algorithms:
            if await self._credentials.ha1(user, domain, algorithm) is not None:
                return True
        return False

    def gateway(self, request: RoutedRequest, name: str) -> tuple[Destination, ...]:
        """
        The gateways of C{[gateway NAME]} that are alive, to be tried one after the other.

        @raise RequestRefused: 503 when none is.
        @raise LookupError: there is no such section.
        """
        destinations: tuple[Destination, ...] = self._gateways.group(name, request.uri)
        if not destinations:
            raise refuse.service_unavailable()
        return destinations

    def relay(self, request: RoutedRequest, to: str | Sequence[Destination] = "", record_route: bool = True) -> None:
        """
        Forward a request and answer it with what comes back (RFC 3261 §16).

        @param to: destinations, as L{lookup} and L{gateway} give them; or the URI to send it to instead of the
            Request-URI; by default the Request-URI. A Route that is left in the request is followed.
        @param record_route: whether the requests of the dialog that it begins shall come by us, too.
        @raise RequestRefused: nothing was sent: 403 for what is never relayed, 482 for a loop, 483, 440.
        @raise RuntimeError: it was saved, relayed or refused before.
        @raise ValueError: C{to} is no URI.
        """
        if request.is_decided:
            raise RuntimeError(f"{request} is decided already")
        message = request.message
        if request.realm and "proxy-authorization" in message.headers.first:
            message = message.copy()
            remove_credentials(message, request.realm)
        if isinstance(to, str):
            if to:
                try:
                    parse_request_uri(to)
                except ParseError as error:  # the policy's mistake, not the client's
                    raise ValueError(f"relay to '{to}': {error.reason}") from None
            to = (Destination(to or message.uri_text),)
        is_unproven = self._authenticator is not None and not request.user
        if is_unproven and request.source.protocol is Protocol.UDP:
            request.transaction.hold_small()
        self._proxy.relay(
            request.transaction,
            message,
            to,
            record_route=record_route and request.method in DIALOG_METHODS,
            caller=request.user,
        )
        request.is_decided = True


def _destination_of(binding: Binding) -> Destination:
    return Destination(binding.contact, 1000 if binding.q < 0 else binding.q, binding.path, binding)

