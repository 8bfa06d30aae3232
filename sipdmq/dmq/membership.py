"""
This node among the others: joins, pings, asks what others are, and says farewell. What to do is decided by
L{sipdmq.dmq.nodelist.NodeList}.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from operator import methodcaller
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from sipdmq.dmq import hello
from sipdmq.dmq.changes import OutboxLimits
from sipdmq.dmq.channels import Channels
from sipdmq.dmq.effects import (
    AskLater,
    Effect,
    NodeDisabled,
    NodeDown,
    NodeForgotten,
    NodeRestarted,
    NodeUp,
    Recheck,
    SayHello,
    SendList,
    Sync,
    Warn,
)
from sipdmq.dmq.introductions import Introductions
from sipdmq.dmq.link import Link
from sipdmq.dmq.lists import SentLists
from sipdmq.dmq.names import NodeNames
from sipdmq.dmq.nodelist import NodeList
from sipdmq.dmq.notification import NotificationPeer
from sipdmq.dmq.repairs import VERB, Repairs
from sipdmq.dmq.rounds import Rounds
from sipdmq.dmq.sender import KdmqSender
from sipdmq.dmq.trust import Trust
from sipdmq.interfaces.replication import IMembership, INodeListener, IRestorer, ISynced
from sipdmq.records import ClusterNode, NodeName, NodeStatus, Source
from sipdmq.sip.message import Response

__all__ = ["PROBE_INTERVAL", "Membership"]

log = Logger()

PROBE_INTERVAL: Final = 2.0
"""Seconds: so often a node that owes us an answer is asked whether it is there."""
SILENCE: Final = 4.0
"""Seconds without an answer to a message after which a Kamailio is told nothing before it has answered a ping."""
YOUNG: Final = 60.0
"""Seconds after its start in which a node may still know others than its donor does."""


@implementer(IMembership)
class Membership:
    """
    The nodes of the cluster, and the way to each.

    @ivar nodelist: who they are.
    @ivar notification: the channel of the node lists.
    """

    def __init__(
        self,
        clock: IReactorTime,
        nodelist: NodeList,
        names: NodeNames,
        trust: Trust,
        sender: KdmqSender,
        channels: Channels,
        private: hello.PrivateChannel,
        limits: OutboxLimits,
        ping_interval: float,
        notification_channel: str,
    ) -> None:
        """
        @param names: the notification addresses.
        """
        self._clock = IReactorTime(clock)
        self.nodelist = nodelist
        self._names = names
        self._trust = trust
        self._sender = sender
        self._channels = channels
        self._limits = limits
        self._ping_interval = ping_interval
        self.introductions = Introductions(
            clock, self._ask_privately, private, self._introduced,
            lambda name, said: self.act(nodelist.hello_heard(self._clock.seconds(), name, said.start)),
        )  # fmt: skip
        self.repairs = Repairs(
            clock,
            nodelist.local,
            channels,
            self._ask_privately,
            nodelist.nodes,
            sender.timers.timeout,
            nodelist.forget_after,
        )
        private.add_verb(VERB, self.repairs.asked)
        self.notification = NotificationPeer(
            nodelist, self._clock.seconds, self.act, names.address_of, notification_channel
        )
        self._lists = SentLists(self._clock.seconds, sender, self.notification, self._list_answered)
        self._rounds = Rounds(clock, self.repairs.overslept)
        channels.add(self.notification)
        channels.add(private)
        self._links: dict[NodeName, Link] = {}
        self._listeners: list[INodeListener] = []
        self._is_running = False
        self._started_at = self._clock.seconds()
        self._new_ones: dict[NodeName, bool] = {}

    # for others

    @property
    def local(self) -> NodeName:
        """
        This node.
        """
        return self.nodelist.local

    def nodes(self) -> tuple[ClusterNode, ...]:
        """
        See L{IMembership.nodes}.
        """
        return self.nodelist.nodes()

    def is_from_node(self, source: Source) -> bool:
        """
        See L{IMembership.is_from_node}.
        """
        return self.nodelist.has_host(source.host)

    def watch(self, listener: INodeListener) -> None:
        """
        See L{IMembership.watch}.
        """
        self._listeners.append(INodeListener(listener))

    def answers_for(self, told_by: str) -> bool:
        """
        See L{IMembership.answers_for}.
        """
        return self.repairs.heirs.answers_for(told_by)

    def has_lost(self) -> bool:
        """
        See L{IMembership.has_lost}.
        """
        return bool(self.repairs.heirs)

    def passes_on(self, told_by: str) -> bool:
        """
        See L{IMembership.passes_on}.
        """
        return self.repairs.heirs.passes_on(told_by)

    def teller_to_all(self, told_by: str) -> NodeName | None:
        """
        See L{IMembership.teller_to_all}.
        """
        return self.repairs.heirs.teller_to_all(self._clock.seconds(), told_by)

    def restorer_of(self, node: NodeName) -> NodeName | None:
        """
        See L{IMembership.restorer_of}.
        """
        return self.repairs.heirs.restorer_of(str(node))

    def has_missed(self, node: NodeName) -> bool:
        """
        See L{IMembership.has_missed}.
        """
        link = self._links.get(node)
        return link is not None and link.has_missed

    def wants_all(self, node: NodeName) -> None:
        """
        See L{IMembership.wants_all}.
        """
        self.act(self.nodelist.wants_all(self._clock.seconds(), node))

    def clock_difference(self, told_by: str) -> float | None:
        """
        See L{IMembership.clock_difference}.
        """
        return self.introductions.clocks.difference(told_by)

    def find(self, name: NodeName) -> ClusterNode | None:
        """
        @param name: its host may be a host name.
        @return: the other node of that name.
        """
        address = self._names.numeric(name)
        return None if address is None else self.nodelist.find(address)

    def numeric(self, name: NodeName) -> NodeName | None:
        """
        @param name: its host may be a host name.
        @return: with its address; L{None}: not known now.
        """
        return self._names.numeric(name)

    def active(self) -> tuple[ClusterNode, ...]:
        """
        The other nodes that get changes.
        """
        return tuple(node for node in self.nodelist.nodes() if node.status is NodeStatus.ACTIVE and not node.is_local)

    def links(self) -> Iterator[Link]:
        """
        The ways to all nodes that were active at some time.
        """
        return iter(tuple(self._links.values()))

    def link(self, name: NodeName) -> Link | None:
        """
        The way to one.
        """
        return self._links.get(name)

    def snapshot(self) -> dict[str, int | float]:
        """
        The numbers of L{IInspectable.snapshot<sipdmq.interfaces.inspection.IInspectable.snapshot>}.
        """
        nodes = self.nodelist.nodes()[1:]
        links = self._links.values()
        return {
            "dmq.nodes": len(nodes),
            "dmq.nodes_active": sum(node.status is NodeStatus.ACTIVE for node in nodes),
            "dmq.nodes_sipdmq": sum(node.is_sipdmq for node in nodes),
            "dmq.outbox_changes": sum(link.waiting for link in links),
            "dmq.outbox_unanswered": sum(link.unanswered for link in links),
            "dmq.outbox_refused": sum(link.refused for link in links),
            "dmq.nodes_dirty": sum(link.is_dirty for link in links),
            "dmq.clock_difference": self.introductions.clocks.greatest(),
            "dmq.refused_lines": self.notification.refused_lines,
        }

    # life

    def start(self) -> None:
        """
        Join the cluster.
        """
        self._is_running = True
        self.act(self.nodelist.start(self._clock.seconds()))
        self._names.look_up(self._configure)
        self._rounds.every("ping", self._ping_interval, self._ping)
        self._rounds.every("probe", PROBE_INTERVAL, self._probe)

    def _configure(self, addresses: Iterable[NodeName]) -> None:
        if not self._is_running:
            return
        configured = tuple(addresses)
        for name in configured:
            host = self._names.host_of(name)
            if host:
                self._sender.know_as(name, host)
        self._trust.configure(configured)
        self.act(self.nodelist.configure(self._clock.seconds(), configured))

    def _ping(self) -> None:
        self._names.look_up(self._configure)
        self.act(self.nodelist.ping(self._clock.seconds()))
        for node in self.active():
            if node.is_sipdmq:  # for its clock, and whether it is still the same process
                self.introductions.say_hello(node.name)
        self.repairs.look(again=True)

    def _probe(self) -> None:
        if self.nodelist.is_alone:
            self._names.look_up(self._configure)
        for link in self.links():
            link.probe()
            link.hold_if_silent(SILENCE)
        troubled = [name for name, link in self._links.items() if link.is_troubled(PROBE_INTERVAL)]
        self.act(self.nodelist.probe(self._clock.seconds(), troubled))

    def leave(self, everybody: bool = False) -> Deferred[Any]:
        """
        Say farewell, to those who want to hear it or to all; and do nothing more.

        @return: fires when they have heard it, or will not.
        """
        self._rounds.stop()
        if self._is_running:
            self.act(self.nodelist.leave(self._clock.seconds(), everybody))
        self._is_running = False
        for link in self._links.values():
            link.stop()
        return self._lists.settled()

    # what was decided

    def act(self, effects: tuple[Effect, ...]) -> None:
        """
        Do what the node list asks for.
        """
        for effect in effects:
            if isinstance(effect, SendList):
                self._lists.send(self._node(effect.name), effect)
            elif isinstance(effect, AskLater):
                self._rounds.once(f"turn at {effect.name}", effect.delay, partial(self._ask_again, effect.name))
            elif isinstance(effect, NodeUp):
                self._node_up(effect.node, effect.is_newcomer)
            elif isinstance(effect, NodeDown):
                self._node_gone(effect.node, "node_down", "does not answer")
            elif isinstance(effect, NodeDisabled):
                self._node_gone(effect.node, "node_disabled", "is disabled")
            elif isinstance(effect, NodeRestarted):
                link = self._links.get(effect.node.name)
                if link is not None:
                    link.restarted()
                self.repairs.restarted(effect.node, self.nodelist.answered_at(effect.node.name))
                if link is not None:
                    link.owe_all(self._lately())
            elif isinstance(effect, NodeForgotten):
                self._sender.forget(effect.name)
                self.introductions.clocks.forget(effect.name)
                self._new_ones.pop(effect.name, None)
                self.repairs.forgotten(effect.name)
                self._channels.tell(methodcaller("forgotten", effect.name), ISynced)
                link = self._links.pop(effect.name, None)
                if link is not None:
                    link.stop()
            elif isinstance(effect, SayHello):
                self.introductions.say_hello(effect.name)
            elif isinstance(effect, Sync):
                if not effect.is_repair or self.restorer_of(effect.node.name) in (None, self.nodelist.local):
                    self._sync(effect)
            elif isinstance(effect, Recheck):
                self.repairs.recheck(effect.node, effect.age)
            elif isinstance(effect, Warn):
                log.warn("{text}", text=effect.text)

    def _ask_again(self, name: NodeName) -> None:
        self.act(self.nodelist.ask_again(self._clock.seconds(), name))

    def _refresh(self, name: NodeName) -> None:
        link = self._links.get(name)
        node = self.nodelist.find(name)
        if link is not None and node is not None:
            link.node = node

    def _node_up(self, node: ClusterNode, is_newcomer: bool) -> None:
        log.info("{node} is active", node=str(node.name))
        link = self._links.get(node.name)
        if link is None:
            link = self._links[node.name] = Link(
                self._clock, node, self._sender, self._channels, self._limits, True, self._data_lost
            )
            # A newcomer gets everything from one donor, who may not have heard yet what we have just told it; who was
            # there before us does not ask, and has nothing of what we were told while we were alone. And what was lost
            # before we were here, may be ours to repair.
            uptime = self._clock.seconds() - self._started_at
            link.owe_all(max(uptime if uptime < YOUNG else self._lately(), self.repairs.lost_for(node)))
            self._new_ones[node.name] = is_newcomer or uptime < YOUNG
        link.node = node
        self.repairs.returned(node)
        link.went_up()
        self._tell("node_up", node._replace(is_new=is_newcomer))

    def _lately(self) -> float:
        """
        How far back a newcomer's donor may lack something that we have told: seconds.
        """
        return max([self.repairs.reach, *[link.debt() for link in self._links.values()]])

    def _node_gone(self, node: ClusterNode, event: str, reason: str) -> None:
        log.info("{node} {reason}", node=str(node.name), reason=reason)
        link = self._links.get(node.name)
        if link is not None:
            link.node = node
            link.went_down()
        self.repairs.lost(node, self.nodelist.answered_at(node.name))
        self._tell(event, node)

    def _tell(self, event: str, node: ClusterNode) -> None:
        for listener in self._listeners:
            try:
                getattr(listener, event)(node)
            except Exception:  # noqa: BLE001 - the edge to the listeners, an operator's function among them
                log.failure("{event} broke a listener", event=event)

    def _sync(self, effect: Sync) -> None:
        node = effect.node
        self._refresh(node.name)
        if effect.is_again:
            self.repairs.missed(node, self._ping_interval)

        def tell(peer: Any) -> None:
            if effect.is_mutual and IRestorer.providedBy(peer):
                peer.exchange(node)
            elif (effect.is_again or effect.is_repair) and ISynced.providedBy(peer):
                peer.taken_back(node)
            else:
                peer.node_joined(node)

        self._channels.tell(tell)

    def _data_lost(self, name: NodeName, sent_at: float) -> None:
        self.act(self.nodelist.data_timed_out(self._clock.seconds(), name, sent_at))

    def data_lost(self, name: NodeName, sent_at: float) -> None:
        """
        A message that no outbox has sent was not answered.
        """
        self._data_lost(name, sent_at)

    def _node(self, name: NodeName) -> ClusterNode:
        return self.nodelist.find(name) or ClusterNode(name, NodeStatus.NOT_ACTIVE)

    def _list_answered(self, name: NodeName, is_taken: bool) -> None:
        self._refresh(name)
        link = self._links.get(name)
        if link is not None and is_taken:
            silent = link.release()
            if silent is not None:
                self.repairs.missed(link.node, silent)
                self.act(self.nodelist.was_silent(self._clock.seconds(), name, silent))

    def _ask_privately(self, name: NodeName, body: bytes) -> Deferred[Response]:
        return self._sender.send(self._node(name), hello.CHANNEL, body, hello.JSON)

    def _introduced(self, name: NodeName, said: hello.Hello | None) -> None:
        """
        What a node has said that it is; L{None}: none of ours.
        """
        now = self._clock.seconds()
        is_newcomer = self._new_ones.pop(name, True) or (said is not None and said.up < YOUNG)
        link = self._links.get(name)
        if link is not None and not is_newcomer:  # two clusters meet, or were cut from one another when one started
            link.owe_all(now - self._started_at)
        if said is None:
            self.act(self.nodelist.no_hello(now, name))
        else:
            self.act(self.nodelist.hello(now, name, f"sipdmq {said.version}", said.start))
        self._refresh(name)
        self.repairs.look()
        if link is not None and said is not None and said.up > now - self._started_at:
            self._channels.tell(methodcaller("older_met", link.node, said.up), ISynced)
