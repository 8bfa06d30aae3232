"""
A cluster in memory: node lists of ours, and a model of that of Kamailio 5.6.3, on one clock over a network that loses.

The Kamailio is a model after the rules of WIRE §3 and §4, as far as they concern the list of nodes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any, NamedTuple

from sipdmq.dmq.effects import AskLater, Effect, NodeListSettings, SayHello, SendList, Sync
from sipdmq.dmq.lines import NodeLine, read_lines
from sipdmq.dmq.nodelist import NodeList
from sipdmq.records import NodeName, NodeStatus, Protocol

TIMEOUT = 8.0
PROBE = 2.0
BUFFER = 1024
SPARE = 34


def udp(number: int) -> NodeName:
    """
    The node on the loopback address of that number.
    """
    return NodeName(Protocol.UDP, f"127.101.{number // 250}.{number % 250 + 1}", 5060)


class Notification(NamedTuple):
    """
    One on its way.
    """

    sender: NodeName
    hops: int
    body: bytes


class Network:
    """
    Carries notifications between nodes of either kind.

    @ivar log: C{(time, node, what)}: every effect of our nodes, and C{"sync"} of the Kamailios.
    @ivar loss: the chance that a request is never answered, after all its retransmissions.
    """

    def __init__(self, seed: int = 1, loss: float = 0.0) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self.loss = loss
        self.nodes: dict[NodeName, OurNode | KamailioNode] = {}
        self.cut: set[frozenset[NodeName]] = set()
        self.log: list[tuple[float, NodeName, Any]] = []
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def call_later(self, delay: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._calls, (self.now + delay, next(self._order), call))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._calls and self._calls[0][0] <= end:
            self.now, _, call = heapq.heappop(self._calls)
            call()
        self.now = end

    def _reaches(self, one: NodeName, other: NodeName) -> bool:
        node = self.nodes.get(other)
        return node is not None and node.is_up and frozenset((one, other)) not in self.cut

    def send(self, receiver: NodeName, message: Notification, done: Callable[[bytes | None], None]) -> None:
        """
        @param done: told of the body of the 200, or of C{None} when there was no answer.
        """
        sender = self.nodes[message.sender]
        life = sender.life

        def answer(body: bytes | None) -> None:
            if sender.is_up and sender.life == life:
                done(body)

        def arrive() -> None:
            reply = self.nodes[receiver].notified(message) if self._reaches(message.sender, receiver) else None
            if reply is None or not self._reaches(receiver, message.sender):
                self.call_later(TIMEOUT, lambda: answer(None))
            else:
                self.call_later(self.random.uniform(0.001, 0.02), lambda: answer(reply))

        if self.random.random() < self.loss:
            self.call_later(TIMEOUT, lambda: answer(None))
        else:
            self.call_later(self.random.uniform(0.001, 0.02), arrive)

    def effects(self, kind: type, since: float = 0.0, node: NodeName | None = None) -> list[Any]:
        """
        The effects of one kind, of one node or all.
        """
        return [what for at, who, what in self.log if isinstance(what, kind) and at >= since and node in (None, who)]

    def partition(self, one: list[NodeName], other: list[NodeName]) -> None:
        self.cut = {frozenset((a, b)) for a in one for b in other}

    def views(self) -> list[set[NodeName]]:
        """
        Whom each node that is up holds for active, itself included.
        """
        return [node.active() for node in self.nodes.values() if node.is_up]


class OurNode:
    """
    A sipdmq node: its L{NodeList} and what a service does with it.
    """

    is_sipdmq = True

    def __init__(
        self, network: Network, name: NodeName, configured: list[NodeName], settings: NodeListSettings | None = None
    ) -> None:
        self.name = name
        self._network = network
        self._configured = configured
        self._settings = settings or NodeListSettings()
        self.is_up = False
        self.life = 0
        network.nodes[name] = self

    def start(self) -> None:
        self.is_up = True
        self.life += 1
        self.list = NodeList(self.name, self._configured, self._settings, random=self._network.random.random)
        self._act(self.list.start(self._network.now))
        self._every(self._settings.ping_interval, lambda: self._act(self.list.ping(self._network.now)))
        self._every(PROBE, lambda: self._act(self.list.probe(self._network.now)))

    def _every(self, interval: float, call: Callable[[], None]) -> None:
        life = self.life

        def again() -> None:
            if self.is_up and self.life == life:
                call()
                self._network.call_later(interval, again)

        self._network.call_later(interval, again)

    def crash(self) -> None:
        self.is_up = False

    def leave(self, everybody: bool = False) -> None:
        self._act(self.list.leave(self._network.now, everybody))
        self._network.call_later(0.5, self.crash)

    def active(self) -> set[NodeName]:
        return {node.name for node in self.list.nodes() if node.status is NodeStatus.ACTIVE}

    def status(self, name: NodeName) -> NodeStatus | None:
        node = self.list.find(name)
        return None if node is None else node.status

    def notified(self, message: Notification) -> bytes | None:
        lines = read_lines(message.body).lines
        self._act(self.list.notified(self._network.now, message.sender, True, message.hops, lines))
        return self.list.list_for(message.sender, self._network.now)

    def _act(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            self._network.log.append((self._network.now, self.name, effect))
            if isinstance(effect, SendList):
                self._send(effect)
            elif isinstance(effect, SayHello):
                self._say_hello(effect.name)
            elif isinstance(effect, AskLater):
                self._ask_later(effect)

    def _ask_later(self, effect: AskLater) -> None:
        life = self.life

        def again() -> None:
            if self.is_up and self.life == life:
                self._act(self.list.ask_again(self._network.now, effect.name))

        self._network.call_later(effect.delay, again)

    def _send(self, effect: SendList) -> None:
        sent_at = self._network.now

        def done(body: bytes | None) -> None:
            now = self._network.now
            if body is None:
                self._act(self.list.timed_out(now, effect.name, sent_at))
            else:
                self._act(self.list.answered(now, effect.name, read_lines(body).lines))

        self._network.send(effect.name, Notification(self.name, effect.hops, effect.body), done)

    def _say_hello(self, name: NodeName) -> None:
        other = self._network.nodes.get(name)
        life = self.life

        def known() -> None:
            if other is None or not other.is_up or not self.is_up or self.life != life:
                return
            if isinstance(other, OurNode):
                self._act(self.list.hello(self._network.now, name, "sipdmq 0.1.0"))
                other._act(other.list.hello_heard(self._network.now, self.name))
            else:
                self._act(self.list.no_hello(self._network.now, name))

        self._network.call_later(0.01, known)


class KamailioNode:
    """
    The node list of Kamailio 5.6.3.

    @ivar is_frozen: more nodes were active than its buffer holds, at some time.
    """

    is_sipdmq = False

    def __init__(
        self, network: Network, name: NodeName, configured: list[NodeName], ping_interval: float = 60.0
    ) -> None:
        self.name = name
        self._network = network
        self._configured = configured
        self._ping_interval = ping_interval
        self.is_up = False
        self.life = 0
        self.is_frozen = False
        self.nodes: dict[NodeName, str] = {}
        network.nodes[name] = self

    def start(self) -> None:
        self.is_up = True
        self.life += 1
        self._first_contact = True
        self.nodes = {}
        self._request_lists()
        self._network.call_later(self._ping_interval, lambda life=self.life: self._ping(life))  # type: ignore[misc]

    def _request_lists(self) -> None:
        self._first_contact = True
        for name in self._configured:
            self.nodes.setdefault(name, "pending")
        for name in self.nodes:
            self._send(name, 2)

    def crash(self) -> None:
        self.is_up = False

    def active(self) -> set[NodeName]:
        return {self.name, *(name for name, status in self.nodes.items() if status == "active")}

    def _body(self) -> bytes | None:
        body = b""
        for name in [*reversed([name for name in self.nodes if self.nodes[name] == "active"]), self.name]:
            stored = len(str(name)) + (0 if name == self.name else len(";status=active"))
            if BUFFER - len(body) < stored + SPARE:
                self.is_frozen = True
                return None
            body += f"{name};status=active\r\n".encode()
        return body

    def _send(self, name: NodeName, hops: int) -> None:
        body = self._body()
        if body is not None:
            self._network.send(name, Notification(self.name, hops, body), lambda reply: self._done(name, reply))

    def _done(self, name: NodeName, reply: bytes | None) -> None:
        if reply is not None:
            self.nodes[name] = "active"
            self._read(reply)
            self._contact()
        elif name in self._configured:
            self.nodes[name] = "pending"
        elif self.nodes.get(name) == "disabled":
            del self.nodes[name]
        elif name in self.nodes:
            self.nodes[name] = "disabled"

    def _ping(self, life: int) -> None:
        if not self.is_up or life != self.life:
            return
        if self.nodes:
            for name in list(self.nodes):
                self._send(name, 1)
        else:
            self._request_lists()
        self._network.call_later(self._ping_interval, lambda: self._ping(life))

    def _read(self, body: bytes) -> bool:
        news = False
        lines: tuple[NodeLine, ...] = read_lines(body).lines
        for name, status in lines:
            if name == self.name:
                continue
            was = self.nodes.get(name)
            word = {NodeStatus.ACTIVE: "active", NodeStatus.DISABLED: "disabled"}[status]
            if was is None or (was not in (word, "disabled")):
                self.nodes[name] = word
                news = True
        return news

    def notified(self, message: Notification) -> bytes | None:
        news = self._read(message.body)
        body = self._body()
        if news and message.hops > 1:
            for name in self.active() - {self.name}:
                self._send(name, message.hops - 1)
        self._contact()
        return body

    def _contact(self) -> None:
        if self._first_contact:
            self._first_contact = False
            self._network.log.append((self._network.now, self.name, "sync"))


def syncs_of(network: Network, node: NodeName, since: float = 0.0) -> list[NodeName]:
    """
    Whom a node of ours has asked for a sync.
    """
    return [effect.node.name for effect in network.effects(Sync, since, node)]
