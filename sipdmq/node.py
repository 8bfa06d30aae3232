"""
The composition root: the only place that knows every concrete class.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.names.client import createResolver

from sipdmq.config import NodeConfig
from sipdmq.core.dispatch import Dispatcher
from sipdmq.core.domains import Domains
from sipdmq.errors import ConfigError, UnreachableError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.records import Listener, Source
from sipdmq.registrar.bindings import RegisterLimits
from sipdmq.registrar.service import Registrar
from sipdmq.registrar.store import MemoryLocationStore
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request, Response
from sipdmq.sip.timers import TimerValues
from sipdmq.transaction.layer import TransactionLayer
from sipdmq.transport.bind import advertised, bind_listener, family_of
from sipdmq.transport.layer import TransportLayer
from sipdmq.transport.resolve import TargetResolver

__all__ = ["Node", "makeNode", "steady_epoch"]

log = Logger()

GC_THRESHOLDS: Final = (5_000, 5, 100)
"""
Bindings, messages and transactions hold no cycles, so collections find next to nothing and shall be short: 1 ms and
7 ms for the young generations. A full one walks over all bindings, 100 ms for 100,000 of them; it comes a hundred times
less often, for what does hold cycles (failures, closed connections).
"""


def steady_epoch() -> Callable[[], float]:
    """
    Seconds since the epoch that never jump: the wall clock is read once, then time passes as it does on the monotonic
    clock. So setting the clock expires no binding early.
    """
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


class Node(Service):
    """
    Everything that the node is made of, started and stopped together.
    """

    def __init__(
        self,
        reactor: Any,
        sockets: list[socket.socket],
        transport: TransportLayer,
        transactions: TransactionLayer,
        store: MemoryLocationStore,
        resolver: TargetResolver,
    ) -> None:
        """
        @param sockets: bound, in the order of the transport's listeners.
        """
        self._reactor = reactor
        self._sockets = sockets
        self.transport = transport
        self.transactions = transactions
        self.store = store
        self.resolver = resolver
        self._signal: Any = None

    def snapshot(self) -> dict[str, int | float]:
        """
        The numbers of all parts (L{IInspectable}).
        """
        numbers: dict[str, int | float] = {}
        for part in (self.transport, self.transactions, self.store):
            numbers.update(IInspectable(part).snapshot())
        return numbers

    def startService(self) -> None:
        """
        Begin to serve.
        """
        Service.startService(self)
        gc.collect()
        gc.freeze()  # what is there now stays: modules, tables, patterns
        gc.set_threshold(*GC_THRESHOLDS)
        self.transport.start(self._reactor, self._sockets)
        self._signal = signal.signal(signal.SIGUSR2, lambda *_: self._reactor.callFromThread(self.log_snapshot))

    def log_snapshot(self) -> None:
        """
        Write all numbers into the log: what SIGUSR2 asks for.
        """
        numbers = self.snapshot()
        log.info("snapshot: {numbers}", numbers=" ".join(f"{name}={numbers[name]}" for name in sorted(numbers)))

    def stopService(self) -> Deferred[Any]:
        """
        Stop serving.

        @return: fires when all ports are free.
        """
        Service.stopService(self)
        if self._signal is not None:
            signal.signal(signal.SIGUSR2, self._signal)
            self._signal = None
        self.store.stop()
        self.transactions.stop()
        return self.transport.stop()


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


def makeNode(config: NodeConfig, reactor: Any) -> MultiService:
    """
    Build a node and bind its ports.

    @param reactor: C{IReactorTime}, C{IReactorTCP}, C{IReactorSocket}, C{IReactorFromThreads}
    @return: a service to start and stop; its child C{"node"} is the L{Node}.
    @raise ConfigError: a port cannot be bound.
    """
    listeners, sockets = _open(config)
    ids = Ids(os.urandom)
    now = steady_epoch()
    limits = config.limits
    addresses = {(each.host, each.port) for each in listeners}
    addresses |= {(each.advertise_host, each.advertise_port) for each in listeners}
    domains = Domains(config.node.domains, dict(config.node.aliases), sorted(addresses))

    transport = TransportLayer(reactor, reactor, ids, listeners, limits)
    transactions = TransactionLayer(
        reactor,
        ids,
        TimerValues(config.timers.t1, config.timers.t2, config.timers.t4),
        limits.transactions,
        limits.completed_bytes,
    )

    def respond_to_source(request: Request, response: Response, source: Source) -> None:
        transactions.send_stateless(response, transport.response_target(request, source))

    dispatcher = Dispatcher(domains, ids, respond_to_source)
    store = MemoryLocationStore(reactor, now, limits.tombstones)
    registrar = config.registrar
    dispatcher.add_service(
        "REGISTER",
        Registrar(
            store,
            domains,
            RegisterLimits(
                registrar.min_expires, registrar.default_expires, registrar.max_expires, registrar.max_contacts
            ),
            ids,
            now,
        ),
    )
    transport.connect(transactions)
    transactions.connect(transport, dispatcher)
    families = list(dict.fromkeys(family_of(each.host) for each in listeners))
    resolver = TargetResolver(
        createResolver(servers=list(config.dns.servers) or None),
        reactor,
        {each.protocol for each in listeners},
        families,
        config.dns.timeout,
    )
    service = MultiService()
    node = Node(reactor, sockets, transport, transactions, store, resolver)
    node.setName("node")
    node.setServiceParent(service)
    return service
