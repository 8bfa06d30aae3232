"""
The composition root: the only place that knows every concrete class.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.logger import Logger
from twisted.names.client import createResolver

from sipdmq import __version__
from sipdmq.calls.file import record_path
from sipdmq.calls.service import CallRecords
from sipdmq.config import NodeConfig
from sipdmq.core.asserted import TrustDomain
from sipdmq.core.auth import Authenticator
from sipdmq.core.cookies import RouteCookies
from sipdmq.core.credentials import FileCredentials
from sipdmq.core.dispatch import Dispatcher
from sipdmq.core.domains import Domains
from sipdmq.core.functions import NodeFunctions
from sipdmq.core.keys import derive_key, read_secret
from sipdmq.core.load import load_policy
from sipdmq.core.policy import may_watch
from sipdmq.core.targets import BindingTargets
from sipdmq.dialog.service import Dialogs
from sipdmq.errors import ConfigError, UnreachableError
from sipdmq.gateways.service import Gateways
from sipdmq.htable.service import Tables
from sipdmq.presence.publication_store import MemoryPublicationStore
from sipdmq.presence.publications import PublicationLimits
from sipdmq.presence.publish import Publisher
from sipdmq.proxy.service import Proxy
from sipdmq.records import Listener, Protocol, Source
from sipdmq.registrar.bindings import RegisterLimits
from sipdmq.registrar.service import Registrar
from sipdmq.registrar.store import MemoryLocationStore
from sipdmq.service import Node
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request, Response
from sipdmq.sip.timers import TimerValues
from sipdmq.sip.uri import SipURI, format_host
from sipdmq.transaction.layer import TransactionLayer
from sipdmq.transport.bind import advertised, bind_listener, family_of
from sipdmq.transport.layer import TransportLayer
from sipdmq.transport.resolve import TargetResolver

if TYPE_CHECKING:
    from sipdmq.transport.tls import TlsContexts

__all__ = ["makeNode", "steady_epoch"]

log = Logger()


def steady_epoch() -> Callable[[], float]:
    """
    Seconds since the epoch that never jump: the wall clock is read once, then time passes as it does on the monotonic
    clock. So setting the clock expires no binding early.
    """
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


def _open(config: NodeConfig) -> tuple[list[Listener], list[socket.socket]]:
    """
    Bind all listeners.

    @raise ConfigError: one cannot be bound; the others are closed again.
    """
    listeners, sockets = [], []
    try:
        for listener in config.node.listen:
            listeners.append(advertised(listener))
            sockets.append(bind_listener(listener))
    except UnreachableError as error:
        for opened in sockets:
            opened.close()
        raise ConfigError(config.path, "node", "listen", error.reason) from None
    return listeners, sockets


def _tls_contexts(config: NodeConfig, reactor: Any) -> TlsContexts | None:
    """
    @raise ConfigError: a file cannot be used.
    """
    if not any(listener.protocol is Protocol.TLS for listener in config.node.listen):
        return None
    from sipdmq.transport.tls import TlsContexts  # OpenSSL and service_identity: only for who needs them

    return TlsContexts(config.path, config.tls, config.tls_domains, reactor)


def _credentials(config: NodeConfig, now: Callable[[], float]) -> FileCredentials | None:
    """
    The users and their passwords; L{None}: nobody is asked for one.

    @raise ConfigError: the file cannot be used.
    """
    if not config.auth.enable:
        return None
    try:
        return FileCredentials(config.beside(config.auth.users), now)
    except ConfigError as error:
        raise ConfigError(config.path, "auth", "users", str(error)) from None


def _presence(
    config: NodeConfig, reactor: Any, now: Callable[[], float], domains: Domains, ids: Ids, forget_after: int
) -> tuple[MemoryPublicationStore, Publisher]:
    """
    What C{[presence]} adds.
    """
    presence = config.presence
    store = MemoryPublicationStore(reactor, now, presence.publications, config.limits.tombstones, forget_after)
    limits = PublicationLimits(
        presence.min_expires,
        presence.default_expires,
        presence.max_expires,
        presence.max_body,
        presence.publications_per_presentity,
        forget_after,
    )
    return store, Publisher(store, domains, limits, ids, now)


def makeNode(config: NodeConfig, reactor: Any) -> MultiService:
    """
    Build a node and bind its ports.

    @param reactor: C{IReactorTime}, C{IReactorTCP}, C{IReactorSocket}, C{IReactorFromThreads}
    @return: a service to start and stop; its child C{"node"} is the L{Node}.
    @raise ConfigError: a port cannot be bound, a certificate or the users not be read, the policy not be loaded.
    """
    ids = Ids(os.urandom)
    now = steady_epoch()
    secret = read_secret(config.auth.secret, os.urandom)
    policy = load_policy(config)
    credentials = _credentials(config, now)
    calls_path = record_path(config)
    tls = _tls_contexts(config, reactor)
    listeners, sockets = _open(config)

    addresses = {(each.host, each.port) for each in listeners}
    addresses |= {(each.advertise_host, each.advertise_port) for each in listeners}
    domains = Domains(config.node.domains, dict(config.node.aliases), sorted(addresses))

    def is_ours(uri: SipURI) -> bool:
        return domains.domain_of(uri) is not None

    # transports and transactions
    transport = TransportLayer(reactor, reactor, ids, listeners, config.limits, tls)
    timers = TimerValues(config.timers.t1, config.timers.t2, config.timers.t4)
    transactions = TransactionLayer(
        reactor,
        ids,
        timers,
        config.limits.transactions,
        config.limits.completed_bytes,
        config.limits.transaction_bytes,
    )
    families = list(dict.fromkeys(family_of(each.host) for each in listeners))
    dns = createResolver(servers=list(config.dns.servers) or None)
    resolver = TargetResolver(dns, reactor, {each.protocol for each in listeners}, families, config.dns.timeout)

    # services
    cookies = RouteCookies(derive_key(secret, "record-route"))
    forget_after = int(config.dmq.forget_after) if config.dmq.is_enabled else 0
    store = MemoryLocationStore(reactor, now, config.limits.tombstones, forget_after)
    limits = config.registrar
    registrar = Registrar(
        store,
        domains,
        RegisterLimits(
            limits.min_expires, limits.default_expires, limits.max_expires, limits.max_contacts, forget_after
        ),
        ids,
        now,
    )
    publications = publisher = None
    if config.presence.enable:
        publications, publisher = _presence(config, reactor, now, domains, ids, forget_after)
    gateways = Gateways(
        reactor,
        config.gateways,
        transactions,
        resolver,
        ids,
        random.random,
        f"sip:{format_host(domains.main)}",
        f"sipdmq/{__version__}",
    )
    flows = transport.connections
    targets = BindingTargets(listeners, flows, resolver)
    hosts = {target.uri.host for group in config.gateways.values() for target in group.target}
    trusted = TrustDomain(config.node.trusted, hosts)
    proxy = Proxy(
        reactor,
        transactions,
        resolver,
        targets,
        flows,
        listeners,
        ids,
        cookies,
        is_ours,
        config.timers.c,
        trusted=trusted,
    )
    proxy.report_to(gateways)
    calls = CallRecords(reactor, now, config.calls, calls_path, getattr(policy, "call_finished", None))
    if calls_path or hasattr(policy, "call_finished"):
        proxy.watch_calls(calls)
    dialogs = None
    if config.dialog.enable:
        dialogs = Dialogs(reactor, now, config.dialog, os.urandom)
        proxy.watch_calls(dialogs)
        proxy.mark_routes(dialogs.mark)

    own = listeners[0]
    tables = Tables(
        reactor, now, config.htables, f"{format_host(own.advertise_host)}:{own.advertise_port}", config.dmq.forget_after
    )

    # what decides where a request goes
    others: list[Any] = []
    authenticator = None
    if credentials is not None:
        key = derive_key(secret, "nonce")
        authenticator = Authenticator(credentials, domains, key, config.auth, os.urandom, now)
        others += [credentials, authenticator]
    else:
        log.warn("[auth] enable = no: whoever reaches this node can register as any user")
    cluster = None
    if config.dmq.is_enabled:
        from sipdmq.cluster import make_cluster  # only for who needs it

        try:
            cluster = make_cluster(
                config,
                reactor,
                now,
                ids,
                secret,
                listeners,
                domains,
                store,
                tables,
                registrar,
                transactions,
                resolver,
                flows.has_shown,
                random.random,
                publications,
                publisher,
                dialogs,
            )
        except Exception:
            for opened in sockets:
                opened.close()
            raise
    taker = registrar if cluster is None else cluster.registrar
    functions = NodeFunctions(domains, store, taker, proxy, gateways, authenticator, credentials)
    functions.publisher = publisher if cluster is None else cluster.publisher

    functions.tables = tables
    functions.dialogs = dialogs

    def respond_to_source(request: Request, response: Response, source: Source) -> None:
        transactions.send_stateless(response, transport.response_target(request, source))

    dispatcher = Dispatcher(reactor, domains, ids, cookies, respond_to_source, authenticator is not None)
    dispatcher.allow("REGISTER")
    if publisher is not None:
        dispatcher.allow("PUBLISH")
    if cluster is not None:
        functions.dmq = cluster.functions
        trusted.believe_nodes(cluster.is_from_node)
        if cluster.lookup is not None:
            functions.lookup_elsewhere = cluster.lookup.find
        dispatcher.deliver_to(flows, cluster.tokens.read)
        if hasattr(policy, "route_kdmq"):
            cluster.functions.route_by(policy, functions)
        dispatcher.add_service("KDMQ", cluster.service)
    watching = None
    if config.presence.enable:
        from sipdmq.watching import make_watching

        name = None if cluster is None else cluster.name
        watching = make_watching(
            config.presence,
            reactor,
            now,
            ids,
            listeners,
            domains,
            store,
            transactions,
            resolver,
            targets,
            flows,
            name,
            getattr(policy, "may_watch", may_watch),
        )
        if publications is not None:
            watching.add(publications)
        functions.subscriptions = watching.server
        dispatcher.add_service("SUBSCRIBE", watching.server)
        if cluster is not None:
            cluster.share(watching)
    dispatcher.connect(policy, functions, proxy)
    transport.connect(transactions)
    transactions.connect(transport, dispatcher if cluster is None else cluster.screen(dispatcher))

    service = MultiService()
    node = Node(
        reactor,
        sockets,
        transport,
        transactions,
        store,
        proxy,
        gateways,
        calls,
        tables,
        dispatcher,
        publications,
        others,
        cluster,
        watching,
        dialogs,
        config.path,
    )
    node.setName("node")
    node.setServiceParent(service)
    return service
