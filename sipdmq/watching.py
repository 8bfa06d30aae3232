"""
The composition of what serves watchers: what L{sipdmq.node} adds where C{[presence]} is on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sipdmq import __version__
from sipdmq.config import PresenceConfig
from sipdmq.core.domains import Domains
from sipdmq.core.targets import BindingTargets
from sipdmq.interfaces.location import ILocationStore
from sipdmq.interfaces.messages import IFlows, IRequestSender, ITargetResolver
from sipdmq.interfaces.presence import IEventState
from sipdmq.interfaces.replication import IBroadcaster, IChannelPeer, IMembership, IReplicator
from sipdmq.presence.kamailio import KamailioSubscriptions
from sipdmq.presence.notifier import Contacts, Notifier
from sipdmq.presence.reginfo import PACKAGE as REG
from sipdmq.presence.reginfo import RegistrationState
from sipdmq.presence.replicas import SubscriptionReplicas
from sipdmq.presence.service import Subscriptions
from sipdmq.presence.states import EventStates
from sipdmq.presence.subscribe import SubscriptionServer
from sipdmq.presence.subscriptions import SubscribeLimits, Subscription
from sipdmq.presence.table import SubscriptionTable, TableLimits
from sipdmq.presence.winfo import WatcherInformation
from sipdmq.records import ChannelMessage, Listener, NodeName
from sipdmq.sip.ids import Ids

__all__ = ["Watching", "make_watching"]


class Watching:
    """
    What serves watchers in this node.

    @ivar server: takes SUBSCRIBE.
    @ivar table: all subscriptions.
    @ivar states: what watchers are told.
    """

    def __init__(
        self,
        clock: Any,
        table: SubscriptionTable,
        states: EventStates,
        notifier: Notifier,
        subscriptions: Subscriptions,
        server: SubscriptionServer,
        contacts: Contacts,
        config: PresenceConfig,
        now: Callable[[], float],
    ) -> None:
        self._clock = clock
        self.table = table
        self.states = states
        self._notifier = notifier
        self._subscriptions = subscriptions
        self.server = server
        self._contacts = contacts
        self._config = config
        self._now = now
        self._replicas: SubscriptionReplicas | None = None
        self._kamailio: KamailioSubscriptions | None = None

    @property
    def parts(self) -> tuple[Any, ...]:
        """
        What has numbers to show.
        """
        others = (self._replicas, self._kamailio)
        return (self._notifier, self._subscriptions, *[part for part in others if part is not None])

    def add(self, state: IEventState) -> None:
        """
        Serve the packages of C{state}, too.

        @raise ValueError: one of them is served already.
        """
        self.states.add(state, self._notifier)

    def join(
        self,
        add: Callable[[IChannelPeer], object],
        replicator: IReplicator,
        membership: IMembership,
        broadcaster: IBroadcaster,
    ) -> Callable[[ChannelMessage], None] | None:
        """
        Share the subscriptions with the nodes of a cluster.

        @param add: takes one more channel.
        @return: takes what Kamailios tell of subscriptions on their channel; L{None}: nobody does.
        """
        self._replicas = SubscriptionReplicas(
            self._clock, self.table, self._subscriptions, replicator, membership, broadcaster
        )
        add(self._replicas)
        if not self._config.enable_subs_dmq:
            return None
        replicas = self._replicas
        kamailio = self._kamailio = KamailioSubscriptions(
            self._clock,
            self._now,
            self.table,
            self._subscriptions,
            self._contacts,
            membership,
            broadcaster,
            self._config.dmq_peer_id,
        )

        def put(record: Subscription, before: Subscription) -> None:
            replicas.put(record, before)
            kamailio.put(record, before)

        self._subscriptions.replicate = put
        return kamailio.message_received

    def stop(self) -> None:
        """
        Tell nobody anything any more.
        """
        for part in (self._replicas, self._kamailio):
            if part is not None:
                part.stop()
        self._subscriptions.stop()


def make_watching(
    config: PresenceConfig,
    clock: Any,
    now: Callable[[], float],
    ids: Ids,
    listeners: Sequence[Listener],
    domains: Domains,
    store: ILocationStore,
    sender: IRequestSender,
    resolver: ITargetResolver,
    targets: BindingTargets,
    flows: IFlows,
    name: NodeName | None,
    may_watch: Callable[[str, str, str], object],
) -> Watching:
    """
    @param name: of this node in its cluster; L{None} outside of one.
    @param may_watch: as for L{SubscriptionServer}.
    """
    local = "" if name is None else str(name)
    table = SubscriptionTable(
        TableLimits(config.subscriptions, config.watchers_per_presentity, config.subscriptions_per_watcher)
    )
    states = EventStates()
    contacts = Contacts(listeners)
    notifier = Notifier(
        clock,
        now,
        table,
        states,
        sender,
        resolver,
        targets,
        contacts,
        local,
        config.min_notify_interval,
        f"sipdmq/{__version__}",
    )
    subscriptions = Subscriptions(clock, now, table, notifier, flows, local, config.max_expires_subscribe)
    limits = SubscribeLimits(
        config.min_expires_subscribe, config.default_expires_subscribe, config.max_expires_subscribe
    )
    server = SubscriptionServer(
        table, subscriptions, notifier, states, contacts, domains, limits, ids, now, may_watch
    )
    watching = Watching(clock, table, states, notifier, subscriptions, server, contacts, config, now)
    watchers = WatcherInformation(table)
    subscriptions.changed = watchers.changed
    watching.add(watchers)
    watching.add(RegistrationState(store, now, lambda aor: table.of(aor, REG)))
    return watching
