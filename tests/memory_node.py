"""
A whole node in one process without sockets: joined as L{sipdmq.node} joins it, on a clock that a test moves.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorFromThreads,
    IReactorSocket,
    IReactorTCP,
    IReactorTime,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.names.hosts import Resolver as HostsResolver
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from sipdmq import node as composition
from sipdmq import service
from sipdmq.config import NodeConfig
from sipdmq.records import Listener
from tests.location_store_tests import EPOCH

__all__ = ["FakeSocket", "MemoryNode", "MemoryReactor", "MemoryStream"]


class _NoGarbageCollector:
    """
    In the place of the module C{gc}.
    """

    @staticmethod
    def collect() -> int:
        return 0

    @staticmethod
    def freeze() -> None:
        """
        Nothing becomes permanent.
        """

    @staticmethod
    def set_threshold(*thresholds: int) -> None:
        """
        They stay.
        """


class FakeSocket:
    """
    What stands for a bound socket. Its datagrams are in C{sent}.
    """

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.is_closed = False
        self.sent: list[tuple[bytes, tuple[str, int]]] = []

    def fileno(self) -> int:
        return id(self)

    def close(self) -> None:
        self.is_closed = True

    def sendto(self, data: bytes, address: tuple[str, int]) -> int:
        self.sent.append((data, address))
        return len(data)


@implementer(IListeningPort)
class FakePort:
    """
    An adopted port; for datagrams also the protocol's transport.
    """

    def __init__(self, opened: FakeSocket, protocol: Any) -> None:
        self.opened = opened
        self.protocol = protocol
        self.is_listening = True

    def getHandle(self) -> FakeSocket:
        return self.opened

    def write(self, data: bytes, address: tuple[str, int]) -> None:
        self.opened.sendto(data, address)

    def getHost(self) -> Any:
        return IPv4Address("UDP", self.opened.listener.host, self.opened.listener.port)

    def startListening(self) -> None:
        """
        It does.
        """

    def stopListening(self) -> Deferred[None]:
        self.is_listening = False
        return succeed(None)


@implementer(IReactorTime, IReactorTCP, IReactorSocket, IReactorFromThreads)
class MemoryReactor(Clock):
    """
    A clock that adopts L{FakeSocket}s and connects to nobody.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sockets: dict[int, FakeSocket] = {}
        self.ports: list[FakePort] = []

    def bind(self, listener: Listener) -> FakeSocket:
        """
        In the place of L{sipdmq.transport.bind.bind_listener}.
        """
        opened = FakeSocket(listener)
        self.sockets[opened.fileno()] = opened
        return opened

    def adoptDatagramPort(self, fileno: int, family: int, protocol: Any, maxPacketSize: int = 8192) -> FakePort:
        port = FakePort(self.sockets[fileno], protocol)
        self.ports.append(port)
        protocol.makeConnection(port)
        return port

    def adoptStreamPort(self, fileno: int, family: int, factory: Any) -> FakePort:
        port = FakePort(self.sockets[fileno], factory)
        self.ports.append(port)
        return port

    def adoptStreamConnection(self, fileno: int, family: int, factory: Any) -> None:
        raise NotImplementedError

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        raise NotImplementedError

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        raise NotImplementedError

    def callFromThread(self, callable: Any, *args: Any, **kwargs: Any) -> None:
        callable(*args, **kwargs)


class MemoryStreamTransport(StringTransport):
    """
    A TCP transport that goes nowhere.
    """

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        Nothing waits here.
        """

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """
        Nobody dies here.
        """


class MemoryStream:
    """
    A connection of a phone to the node.
    """

    def __init__(self, factory: Any, host: str, port: int) -> None:
        address = (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)
        self.transport = MemoryStreamTransport(peerAddress=address)
        self._protocol = factory.buildProtocol(address)
        self._protocol.makeConnection(self.transport)

    @property
    def is_closed(self) -> bool:
        """
        Whether the node has closed it.
        """
        return bool(self.transport.disconnecting or self.transport.disconnected)

    def receive(self, data: bytes) -> bytes:
        """
        The node receives C{data}.

        @return: what it wrote at once.
        """
        self.transport.clear()
        self._protocol.dataReceived(data)
        return self.transport.value()


class MemoryNode:
    """
    A started node.

    @ivar reactor: its clock and its ports.
    @ivar service: what C{twistd} would hold.
    @ivar node: the L{sipdmq.service.Node} in it.
    """

    def __init__(self, case: SynchronousTestCase, config: NodeConfig, hosts: bytes = b"/dev/null") -> None:
        """
        @param case: the node is stopped when it ends.
        @param hosts: the path of a file of addresses and names, all that DNS knows.
        """
        self.reactor = MemoryReactor()
        case.patch(composition, "bind_listener", self.reactor.bind)
        case.patch(composition, "steady_epoch", lambda: lambda: EPOCH + self.reactor.seconds())
        case.patch(composition, "createResolver", lambda servers: HostsResolver(hosts))
        # It is the process's, not the node's: for the tests it shall stay as it is.
        case.patch(service, "gc", _NoGarbageCollector)
        self.service = composition.makeNode(config, self.reactor)
        self.node: Any = self.service.getServiceNamed("node")  # type: ignore[no-untyped-call]
        self.service.startService()  # type: ignore[no-untyped-call]
        case.addCleanup(self.service.stopService)

    def _port(self, number: int) -> FakePort:
        return self.reactor.ports[number]

    def receive(self, data: bytes, host: str, port: int, listener: int = 0) -> list[tuple[bytes, tuple[str, int]]]:
        """
        The node receives a datagram.

        @param listener: the number of the listener.
        @return: the datagrams that it sent at once, each with its address.
        """
        self.take_sent()
        self._port(listener).protocol.datagramReceived(data, (host, port))
        return self.take_sent()

    def take_sent(self) -> list[tuple[bytes, tuple[str, int]]]:
        """
        The datagrams that were sent since they were asked for last.
        """
        sent = []
        for port in self.reactor.ports:
            sent += port.opened.sent
            port.opened.sent = []
        return sent

    def connect(self, host: str, port: int, listener: int = 1) -> MemoryStream:
        """
        A phone opens a connection.
        """
        return MemoryStream(self._port(listener).protocol, host, port)
