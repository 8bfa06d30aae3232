"""
The composition of the cluster part of a node: what L{sipdmq.node} adds where C{[dmq]} is on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from sipdmq import __version__
from sipdmq.config import NodeConfig
from sipdmq.config.dmq import listener_of, protocol_of
from sipdmq.core.domains import Domains
from sipdmq.core.keys import derive_key
from sipdmq.dialog.service import Dialogs
from sipdmq.dmq.changes import OutboxLimits
from sipdmq.dmq.channels import Channels
from sipdmq.dmq.conflict import Limits
from sipdmq.dmq.copied import CopyReceiver
from sipdmq.dmq.copies import RequestCopies
from sipdmq.dmq.dialog import DialogPeer
from sipdmq.dmq.effects import NodeListSettings
from sipdmq.dmq.events import EventCallback, load_event_callback
from sipdmq.dmq.functions import DMQFunctions
from sipdmq.dmq.hello import PrivateChannel
from sipdmq.dmq.htable import HtablePeer
from sipdmq.dmq.lines import numeric_host
from sipdmq.dmq.lookup import VERB, RemoteLookup
from sipdmq.dmq.membership import PROBE_INTERVAL, Membership
from sipdmq.dmq.names import NodeNames
from sipdmq.dmq.nodelist import NodeList
from sipdmq.dmq.owner import FlowTokens
from sipdmq.dmq.presence import PresencePeer
from sipdmq.dmq.presence_copied import PublishCopyReceiver
from sipdmq.dmq.presence_form import PresenceForm
from sipdmq.dmq.presence_merge import MergeLimits
from sipdmq.dmq.screen import Screen, Senders
from sipdmq.dmq.sender import KdmqSender
from sipdmq.dmq.service import DMQService
from sipdmq.dmq.trust import Trust, allowed_networks
from sipdmq.dmq.usrloc import UsrlocPeer
from sipdmq.dmq.usrloc_form import UsrlocForm
from sipdmq.dmq.workers import Workers
from sipdmq.interfaces.location import ILocationStore
from sipdmq.interfaces.messages import IRequestSender, ITargetResolver, ITransactionUser
from sipdmq.interfaces.publications import IPublicationStore, IPublisher
from sipdmq.interfaces.replication import IRegistrar
from sipdmq.interfaces.tables import ITables
from sipdmq.records import Listener, NodeName, Protocol, Source
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request
from sipdmq.sip.timers import RequestTimers
from sipdmq.transport.bind import advertised

if TYPE_CHECKING:
    from sipdmq.watching import Watching

__all__ = ["Cluster", "local_name", "make_cluster"]

log = Logger()

FAREWELL_TIME: Final = 1.0
"""Seconds that a stopping node waits for its farewell to be heard."""
DRAIN_TIME: Final = 1.0
"""Seconds that it gives the others before that, to take what it has confirmed to phones."""


class Cluster:
    """
    What there is of the cluster in this node.

    @ivar name: of this node.
    @ivar service: L{DMQService}.
    @ivar functions: what policies get as C{node.dmq}.
    @ivar tokens: of the connections that only this node can reach.
    @ivar usrloc: L{None} where C{[usrloc] enable = 0}.
    @ivar presence: L{None} where C{[presence]} is off, or its C{enable_dmq = 0}.
    @ivar lookup: L{None} where C{usrloc} is.
    @ivar htable: L{None} where no table is shared.
    @ivar dialog: L{None} where C{[dialog]} is off, or its C{enable_dmq = 0}.
    @ivar registrar: takes copies of REGISTERs, and leaves all others to the node's.
    @ivar publisher: the same of PUBLISHes; L{None} where C{[presence]} is off.
    @ivar copies: sends them.
    @ivar is_from_node: whether a request, as it was received, came from another node.
    """

    def __init__(
        self,
        clock: Any,
        name: NodeName,
        service: DMQService,
        functions: DMQFunctions,
        tokens: FlowTokens,
        has_peers: bool,
        usrloc: UsrlocPeer | None,
        presence: PresencePeer | None,
        lookup: RemoteLookup | None,
        htable: HtablePeer | None,
        registrar: CopyReceiver,
        publisher: PublishCopyReceiver | None,
        dialog: DialogPeer | None,
        copies: RequestCopies,
        screen: Callable[[ITransactionUser], Screen],
        is_from_node: Callable[[Request, Source], bool],
    ) -> None:
        self._clock = clock
        self.name = name
        self.service = service
        self.functions = functions
        self.tokens = tokens
        self._has_peers = has_peers
        self.usrloc = usrloc
        self.presence = presence
        self.lookup = lookup
        self.htable = htable
        self.registrar = registrar
        self.publisher = publisher
        self.dialog = dialog
        self.copies = copies
        self.screen = screen
        self.is_from_node = is_from_node

    @property
    def parts(self) -> tuple[Any, ...]:
        """
        What has numbers to show.
        """
        parts = (self.service, self.copies, self.registrar, *self._peers)
        return parts if self.publisher is None else (*parts, self.publisher)

    @property
    def _peers(self) -> list[Any]:
        return [peer for peer in (self.usrloc, self.presence, self.htable, self.dialog) if peer is not None]

    def share(self, watching: Watching) -> None:
        """
        Replicate subscriptions.
        """
        service = self.service
        received = watching.join(service.channels.add, service, service.membership, service)
        if received is not None and self.presence is not None:
            self.presence.others_received = received

    def start(self) -> None:
        """
        Join.
        """
        for peer in self._peers:
            peer.start(self._has_peers)
        self.service.start()

    def stop(self) -> Deferred[Any]:
        """
        Leave.

        @return: fires when the others have heard it, or when that takes too long.
        """
        for peer in self._peers:
            peer.stop()
        draining = self.service.drain()
        if not draining.called:
            draining.addTimeout(DRAIN_TIME, self._clock)
        return draining.addErrback(lambda _: None).addCallback(lambda _: self._leave())

    def _leave(self) -> Deferred[Any]:
        leaving = self.service.stop()
        if not leaving.called:
            leaving.addTimeout(FAREWELL_TIME, self._clock)
        return leaving.addErrback(lambda _: None)


def local_name(config: NodeConfig, listener: Listener) -> NodeName:
    """
    This node in its one spelling: numeric, with a port (WIRE §16.1).

    @param listener: where it gets KDMQ.
    @raise UnreachableError: it listens on all addresses, and none of them reaches the world.
    """
    uri = config.dmq.server_address
    assert uri is not None
    protocol = protocol_of(uri)
    host = numeric_host(uri.host)
    if not host:
        host = listener.host if numeric_host(listener.host) else ""
    if not host:
        host = advertised(listener._replace(advertise_host=listener.host)).advertise_host
    return NodeName(protocol, host, uri.port or protocol.default_port)


def make_cluster(
    config: NodeConfig,
    clock: Any,
    now: Callable[[], float],
    ids: Ids,
    secret: bytes,
    listeners: list[Listener],
    domains: Domains,
    store: ILocationStore,
    tables: ITables,
    registrar: IRegistrar,
    sender: IRequestSender,
    resolver: ITargetResolver,
    has_shown: Callable[[str, str], bool],
    random: Callable[[], float],
    publications: IPublicationStore | None = None,
    publisher: IPublisher | None = None,
    dialogs: Dialogs | None = None,
) -> Cluster:
    """
    @param listeners: in the order of C{[node] listen}, each with something to advertise.
    @param has_shown: as for L{DMQService}.
    @param random: as for L{NodeList}.
    @param publications: L{None} where C{[presence]} is off; so for C{publisher}.
    @param dialogs: L{None} where C{[dialog]} is off.
    @raise ConfigError: something in C{[dmq]} cannot be used.
    """
    if not config.auth.secret:
        log.warn("[auth] secret is empty: other nodes of the cluster cannot check nonces and dialogs of this one")
    dmq, usrloc = config.dmq, config.usrloc
    listener = listeners[config.node.listen.index(listener_of(config))]
    callback = load_event_callback(config)
    local = local_name(config, listener)
    agent = f"sipdmq/{__version__}"
    others = [
        NodeName(each.protocol, host, port)
        for each in listeners
        for host, port in ((each.host, each.port), (each.advertise_host, each.advertise_port))
        if numeric_host(host)
    ]
    names = NodeNames(clock, resolver, dmq.notification_address, dmq.multi_notify)
    nodelist = NodeList(
        local,
        names.known(),
        NodeListSettings(
            dmq.ping_interval,
            dmq.timeout,
            PROBE_INTERVAL,
            dmq.remove_inactive,
            dmq.fail_count_enabled,
            dmq.fail_count_threshold_not_active,
            dmq.fail_count_threshold_disabled,
            dmq.forget_after,
            dmq.init_with_single,
            dmq.farewell,
        ),
        others,
        f"sipdmq {__version__}",
        random,
    )
    trust = Trust(allowed_networks(local.host, dmq.allow), names.known(), nodelist.has_host)
    channels = Channels()
    private = PrivateChannel(__version__, now, ids.tag())
    links = KdmqSender(sender, ids, local, listener, RequestTimers(dmq.t1, dmq.t2, dmq.timeout), agent)
    limits = OutboxLimits(
        dmq.window, 1, dmq.batch_window, config.limits.outbox_changes, config.limits.outbox_bytes
    )
    membership = Membership(
        clock, nodelist, names, trust, links, channels, private, limits, dmq.ping_interval, dmq.notification_channel
    )
    workers = Workers(clock, dmq.num_workers, dmq.worker_usleep, config.limits.kdmq_jobs_bytes)
    service = DMQService(
        clock, membership, channels, workers, trust, links, ids, agent, dmq.require_tls, has_shown
    )
    if callback is not None:
        membership.watch(EventCallback(callback))
    tokens = FlowTokens(derive_key(secret, "flow"), local)
    form = UsrlocForm(
        domains,
        tokens,
        usrloc.use_domain,
        usrloc.replicate_socket_info,
        usrloc.replicate_cflags,
        [str(each) for each in listeners],
        str(listener),
    )
    bounds = Limits(config.limits.contacts_per_aor, int(dmq.forget_after))
    senders = Senders(membership, links, service.is_shown, dmq.require_tls)
    presence_form = PresenceForm(domains, senders.is_node_at, str(local))
    presence_bounds = MergeLimits(forget_after=int(dmq.forget_after))
    copies = RequestCopies(clock, sender, membership, senders, links, store, domains, form, presence_form)
    copied = CopyReceiver(clock, now, registrar, domains, senders, form, bounds)
    functions = DMQFunctions(
        service, clock, local, listener, dmq.sl_send, copies.replicate, senders.is_from_node
    )
    takers: dict[str, ITransactionUser] = {}
    if "REGISTER" in dmq.replicate:
        registrar.registered = copies.registered
        takers["REGISTER"] = copied
    copied_publications = None
    if publisher is not None:
        copied_publications = PublishCopyReceiver(now, publisher, domains, senders, presence_form, presence_bounds)
        if "PUBLISH" in dmq.replicate:
            publisher.published = copies.published
            takers["PUBLISH"] = copied_publications

    def screen(user: ITransactionUser) -> Screen:
        return Screen(user, senders, ids, takers)

    peer = lookup = None
    if usrloc.enable:
        peer = UsrlocPeer(
            clock, now, store, form, usrloc, bounds, service, membership, service, dmq.init_with_single
        )
        channels.add(peer)
        here = Source(Protocol(local.protocol), local.host, local.port, listener)
        lookup = RemoteLookup(clock, store, form, peer, service, here)
        private.add_verb(VERB, lookup.answer)
    presence = None
    if publications is not None and config.presence.enable_dmq:
        presence = PresencePeer(
            clock,
            now,
            publications,
            presence_form,
            config.presence,
            presence_bounds,
            service,
            membership,
            service,
        )
        channels.add(presence)
    shared = None
    if any(tables.is_shared(name) for name in tables.names()):
        shared = HtablePeer(clock, now, tables, local, service, membership, service)
        channels.add(shared)
    dialog = None
    if dialogs is not None and config.dialog.enable_dmq:
        dialog = DialogPeer(clock, now, dialogs, service, membership, service)
        channels.add(dialog)
        dialogs.connect(membership.answers_for)
    has_peers = any(name != local and name not in others for name in names.known()) or len(names.known()) < len(
        dmq.notification_address
    )
    return Cluster(
        clock,
        local,
        service,
        functions,
        tokens,
        has_peers,
        peer,
        presence,
        lookup,
        shared,
        copied,
        copied_publications,
        dialog,
        copies,
        screen,
        senders.is_from_node,
    )
