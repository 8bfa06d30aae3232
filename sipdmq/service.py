"""
The node as one service of Twisted: what is started, in which order all is stopped, and what it tells of itself.
"""

from __future__ import annotations

import gc
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from sipdmq import __version__
from sipdmq.calls.service import CallRecords
from sipdmq.core.dispatch import Dispatcher
from sipdmq.dialog.service import Dialogs
from sipdmq.gateways.service import Gateways
from sipdmq.htable.service import Tables
from sipdmq.interfaces.inspection import ICommands, IInspectable
from sipdmq.presence.publication_store import MemoryPublicationStore
from sipdmq.proxy.service import Proxy
from sipdmq.registrar.store import MemoryLocationStore
from sipdmq.transaction.layer import TransactionLayer
from sipdmq.transport.layer import TransportLayer

if TYPE_CHECKING:
    from sipdmq.cluster import Cluster
    from sipdmq.watching import Watching

__all__ = ["Node"]

log = Logger()

GC_THRESHOLDS: Final = (2_000, 3, 400)
"""
Bindings, messages and transactions hold no cycles, so collections find next to nothing and shall be short: 1 ms and
7 ms for the young generations. A full one walks over all bindings, 100 ms for 100,000 of them; it comes a hundred times
less often, for what does hold cycles (failures, closed connections).
"""


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
        proxy: Proxy,
        gateways: Gateways,
        calls: CallRecords,
        tables: Tables,
        dispatcher: Dispatcher,
        publications: MemoryPublicationStore | None,
        others: Sequence[IInspectable],
        cluster: Cluster | None = None,
        watching: Watching | None = None,
        dialogs: Dialogs | None = None,
        config_path: str = "",
    ) -> None:
        """
        @param sockets: bound, in the order of the transport's listeners.
        @param publications: L{None} where C{[presence]} is off.
        @param others: what has numbers to show, but is neither started nor stopped.
        @param cluster: L{None} where C{[dmq]} is off.
        @param watching: L{None} where C{[presence]} is off.
        @param dialogs: L{None} where C{[dialog]} is off.
        @param config_path: the INI file, for the log.
        """
        self._reactor = reactor
        self._config_path = config_path
        self._sockets = sockets
        self.transport = transport
        self.transactions = transactions
        self.store = store
        self.proxy = proxy
        self._gateways = gateways
        self._calls = calls
        self.tables = tables
        self._dispatcher = dispatcher
        self.publications = publications
        self.cluster = cluster
        if publications is not None:
            others = (*others, publications)
        self.dialogs = dialogs
        if dialogs is not None:
            others = (*others, dialogs)
        self.watching = watching
        if watching is not None:
            others = (*others, *watching.parts)
        if cluster is not None:
            others = (*others, *cluster.parts)
        parts = (transport, transactions, store, proxy, gateways, calls, tables, dispatcher, *others)
        self._parts = [IInspectable(part) for part in parts]
        self._signal: Any = None

    def snapshot(self) -> dict[str, int | float]:
        """
        The numbers of all parts (L{IInspectable}).
        """
        numbers: dict[str, int | float] = {}
        for part in self._parts:
            numbers.update(part.snapshot())
        return numbers

    def commands(self) -> dict[str, Callable[..., Any]]:
        """
        What operators can have the parts do (L{ICommands}).
        """
        found: dict[str, Callable[..., Any]] = {}
        for part in self._parts:
            if ICommands.providedBy(part):
                found.update(part.commands())
        return found

    def startService(self) -> None:
        """
        Begin to serve.
        """
        Service.startService(self)
        log.info("sipdmq {version} starts, configured by {path}", version=__version__, path=self._config_path)
        gc.collect()
        gc.freeze()  # what is there now stays: modules, tables, patterns
        gc.set_threshold(*GC_THRESHOLDS)
        self.transport.start(self._reactor, self._sockets)
        self._gateways.start()
        if self.cluster is not None:
            self.cluster.start()
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
        if self.cluster is not None:  # its farewell needs the rest for a moment
            return self.cluster.stop().addCallback(lambda _: self._stop())
        return self._stop()

    def _stop(self) -> Deferred[Any]:
        self._dispatcher.stop()
        if self.watching is not None:
            self.watching.stop()
        self._gateways.stop()
        self.proxy.stop()
        self._calls.stop()
        if self.dialogs is not None:
            self.dialogs.stop()
        self.tables.stop()
        self.store.stop()
        if self.publications is not None:
            self.publications.stop()
        self.transactions.stop()
        return self.transport.stop()
