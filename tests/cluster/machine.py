"""
A machine with a sipdmq on it: joined as L{sipdmq.node} joins it, started, stopped, killed and halted by a schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from twisted.names.hosts import Resolver as HostsResolver

from sipdmq import node as composition
from sipdmq import service
from sipdmq.config import AuthConfig, DMQConfig, NodeConfig, NodeSection, RegistrarConfig
from sipdmq.records import Binding, Listener, Origin, Protocol
from sipdmq.sip.uri import parse_sip_uri
from tests.cluster.clock import HeapCall, HeapClock
from tests.cluster.network import Address, Network
from tests.location_store_tests import EPOCH
from tests.memory_node import FakeSocket, MemoryReactor

__all__ = ["DOMAIN", "PORT", "Machine", "NodeProcess", "node_address"]

DOMAIN = "example.com"
PORT = 5060
BUFFER = 256
"""Datagrams that wait for a process that stands still; what comes on top is lost, as in a kernel."""


def node_address(number: int) -> str:
    """
    Of a node: C{"127.0.0.1"}.
    """
    return f"127.0.0.{number}"


class _Socket(FakeSocket):
    """
    What stands for a bound socket.
    """

    def __init__(self, listener: Listener, send: Callable[[bytes, Address], None]) -> None:
        super().__init__(listener)
        self._send = send

    def sendto(self, data: bytes, address: Address) -> int:
        self._send(data, address)
        return len(data)


class NodeProcess(MemoryReactor):
    """
    One life of a sipdmq process: its reactor, and what is on it.

    @ivar node: the L{sipdmq.service.Node}.
    """

    def __init__(self, machine: Machine, life: int) -> None:
        super().__init__()
        self._machine = machine
        self._clock = machine.clock
        # Monotonic clocks begin anywhere, and each wall clock is wrong in its own way.
        self._offset = -machine.clock.now if life % 2 else 1000.0 * machine.number
        self._epoch = EPOCH + machine.skew + machine.clock.now - self.seconds()
        self.is_dead = False
        self.is_halted = False
        self._late: list[HeapCall] = []
        self._buffer: list[tuple[bytes, Address]] = []
        with self._in_place(Random(f"{machine.seed} {machine.number} {life}")):
            self.service: Any = composition.makeNode(machine.config, self)
            self.service.startService()
        self.node: Any = self.service.getServiceNamed("node")

    @contextmanager
    def _in_place(self, random: Random) -> Iterator[None]:
        """
        While this process is made, what belongs to a process is its own.
        """
        with patch.multiple(
            composition,
            bind_listener=lambda listener: self.bind(listener),
            steady_epoch=lambda: self.epoch,
            createResolver=lambda servers: HostsResolver(b"/dev/null"),
            os=SimpleNamespace(urandom=random.randbytes),
            random=SimpleNamespace(random=random.random),
        ), patch.multiple(
            service,
            gc=SimpleNamespace(collect=lambda: 0, freeze=lambda: None, set_threshold=lambda *thresholds: None),
            signal=SimpleNamespace(SIGUSR2=12, signal=lambda number, handler: None),
        ):
            yield

    def epoch(self) -> float:
        """
        The time of day, as this process believes.
        """
        return self._epoch + self.seconds()

    # the reactor

    def seconds(self) -> float:
        return self._clock.now + self._offset

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kw: object) -> HeapCall:  # type: ignore[override]
        return self._clock.call_for(self, delay, callable, *args, **kw)

    def getDelayedCalls(self) -> list[HeapCall]:  # type: ignore[override]
        return [call for call in self._clock.getDelayedCalls() if call.owner is self]

    def bind(self, listener: Listener) -> FakeSocket:
        opened = _Socket(listener, self._send)
        self.sockets[opened.fileno()] = opened
        return opened

    def _send(self, data: bytes, address: Address) -> None:
        if not self.is_dead:
            self._machine.network.send(data, (self._machine.address, PORT), address)

    # what happens to a process

    def is_late(self, call: HeapCall) -> bool:
        """
        See L{tests.cluster.clock.Owner.is_late}.
        """
        if self.is_halted:
            self._late.append(call)
        return self.is_halted

    def halt(self) -> None:
        """
        SIGSTOP.
        """
        self.is_halted = True

    def go_on(self) -> None:
        """
        SIGCONT: what was due is done now, and what has arrived is read.
        """
        self.is_halted = False
        late, self._late = self._late, []
        for call in late:
            self._clock.again(call)
        self._clock.call_for(self, 0, self._read)

    def _read(self) -> None:
        waiting, self._buffer = self._buffer, []
        for data, sender in waiting:
            self.receive(data, sender)

    def receive(self, data: bytes, sender: Address) -> None:
        """
        A datagram is there.
        """
        if self.is_dead:
            return
        if not self.is_halted:
            self.ports[0].protocol.datagramReceived(data, sender)
        elif len(self._buffer) < BUFFER:
            self._buffer.append((data, sender))

    def records(self, aor: str) -> tuple[Binding, ...]:
        """
        What the process has of an AoR, removed ones too.
        """
        found: list[tuple[Binding, ...]] = []

        def look(records: tuple[Binding, ...]) -> tuple[Binding, ...]:
            found.append(records)
            return records

        self.node.store.update(aor, look, Origin.REPLICATED)
        return found[0]


class Machine:
    """
    One machine of the cluster, with a sipdmq that may be running.

    @ivar process: L{None} while there is none.
    @ivar config: of the next process.
    @ivar skew: seconds that its clock is ahead.
    """

    is_sipdmq = True

    def __init__(
        self, clock: HeapClock, network: Network, number: int, peers: tuple[int, ...], seed: str, skew: float = 0.0,
        sections: Mapping[str, Any] = {}, **keys: Any,
    ) -> None:
        """
        @param peers: the numbers of the nodes to join through.
        @param sections: further ones of the configuration, by their names in L{NodeConfig}.
        @param keys: of C{[dmq]}.
        """
        self.clock = clock
        self.network = network
        self.number = number
        self.seed = seed
        self.skew = skew
        self.address = node_address(number)
        self._life = 0
        self.process: NodeProcess | None = None
        dmq = DMQConfig(
            server_address=parse_sip_uri(f"sip:{self.address}:{PORT}"),
            notification_address=tuple(parse_sip_uri(f"sip:{node_address(peer)}:{PORT}") for peer in peers),
            **{"ping_interval": 5.0, **keys},
        )
        self.config = NodeConfig(
            node=NodeSection((Listener(Protocol.UDP, self.address, PORT, self.address, PORT),), domains=(DOMAIN,)),
            registrar=RegistrarConfig(min_expires=1),
            auth=AuthConfig(enable=False, secret="0" * 64),
            dmq=dmq,
            **sections,
        )
        network.attach(self.address, self)

    @property
    def is_up(self) -> bool:
        """
        Whether there is a process, halted or not.
        """
        return self.process is not None

    @property
    def is_halted(self) -> bool:
        """
        Whether it stands still.
        """
        return self.process is not None and self.process.is_halted

    def start(self) -> None:
        """
        A new process, that knows nothing.
        """
        assert self.process is None
        self._life += 1
        self.process = NodeProcess(self, self._life)

    def kill(self) -> None:
        """
        SIGKILL: what it knew is lost.
        """
        if self.process is not None:
            self.process.is_dead = True
            self.process = None

    def stop(self) -> None:
        """
        SIGTERM: it says farewell, and is gone a second later.
        """
        if self.process is not None:
            self.process.service.stopService()
            self.clock.callLater(1.5, self.kill)

    def halt(self) -> None:
        """
        SIGSTOP.
        """
        if self.process is not None:
            self.process.halt()

    def go_on(self) -> None:
        """
        SIGCONT.
        """
        if self.is_halted:
            assert self.process is not None
            self.process.go_on()

    def datagram_arrived(self, data: bytes, sender: Address) -> None:
        """
        See L{tests.cluster.network.Host}.
        """
        if self.process is not None:
            self.process.receive(data, sender)

    def records(self, aor: str) -> tuple[Binding, ...]:
        """
        All records of an AoR that the process has; nothing, if there is none.
        """
        return () if self.process is None else self.process.records(aor)

    def active(self) -> set[str]:
        """
        The addresses of whom it holds for active, itself included.
        """
        if self.process is None:
            return set()
        nodes = self.process.node.cluster.service.membership.active()
        return {self.address, *(node.name.host for node in nodes)}
