"""
SIP over TCP and TLS: one connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IAddress, IHandshakeListener, IPushProducer, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.errors import UnreachableError
from sipdmq.records import Protocol, Source, Target
from sipdmq.sip.framing import StreamFramer

if TYPE_CHECKING:
    from sipdmq.transport.connections import Connections

__all__ = ["Address", "SipStream", "SipStreamFactory"]

log = Logger()

MAX_TARGETS = 256
"""Targets that a connection remembers having carried messages for, to tell them when it is lost."""


Address = tuple[Protocol, str, int, str]
"""Protocol, host, port, and with TLS the name that the certificate has to show, empty for the host itself."""


@implementer(IPushProducer, IHandshakeListener)
class SipStream(StreamProtocol):
    """
    A connection, whoever opened it. What comes in is cut into messages; what goes out and is not read by the peer is
    bounded: while the peer does not read, neither do we, and above the bound the connection is aborted.
    """

    # Thousands of these wait idle: no dict for each.
    __slots__ = ("_framer", "_is_closing", "_targets", "_unread", "connections", "is_blocked", "leads_to", "source")

    def __init__(
        self, connections: Connections, source: Source, framer: StreamFramer, leads_to: Address
    ) -> None:
        """
        @param source: where its messages come from; with the flow token.
        @param leads_to: for which targets it may be used, beside that of its flow.
        """
        self.connections = connections
        self.source = source
        self.leads_to = leads_to
        self._framer = framer
        self._targets: dict[Target, None] | None = None
        self._unread = 0
        self.is_blocked = False
        self._is_closing = False

    @property
    def is_stalled(self) -> bool:
        """
        Whether the peer owes us something: the rest of a message, reading what we sent, or with TLS the answer to our
        good-bye.
        """
        return self.is_blocked or self._framer.is_partial or self._is_closing

    def connectionMade(self) -> None:
        transport = cast(ITCPTransport, self.transport)
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        transport.registerProducer(self, True)  # type: ignore[attr-defined]
        self.connections.opened(self)

    def handshakeCompleted(self) -> None:
        """
        From TLS: its handshake is over. Before that nothing is read or written.
        """
        self.connections.secured(self)

    def connectionLost(self, reason: Failure | None = None) -> None:
        targets = tuple(self._targets or ())
        self._targets = None
        self.connections.closed(self, targets, "connection lost" if reason is None else reason.getErrorMessage())

    def dataReceived(self, data: bytes) -> None:
        try:
            pings = 0
            frames = self._framer.feed(data)
            if frames:
                self.connections.progressed(self)
            for frame in frames:
                if frame.data:
                    self.connections.received(frame.data, self.source)
                else:
                    pings += 1
                if frame.is_last:
                    self.close()
            if pings:
                self.write(b"\r\n" * pings)  # RFC 5626 §3.5.1: a pong for each ping
            self.connections.active(self)
        except Exception:  # noqa: BLE001 - the edge of stream data
            log.failure("a stream from {source.host}:{source.port} broke us", source=self.source)
            self.abort()

    def send(self, data: bytes, target: Target) -> None:
        """
        Write a message.

        @param target: told if the connection is lost.
        """
        targets = self._targets
        if targets is None:
            targets = self._targets = {}
        if target not in targets:
            if len(targets) >= MAX_TARGETS:
                del targets[next(iter(targets))]
            targets[target] = None
        self.write(data)

    def write(self, data: bytes) -> None:
        """
        Write, and abort the connection when too much of what was written stays unread.
        """
        if self.is_blocked:
            self._unread += len(data)
            if self._unread > self.connections.limits.write_buffer:
                self.abort()
                return
        self.transport.write(data)  # type: ignore[union-attr]

    def close(self) -> None:
        """
        Close when all is written. A blocked transport would write it and then wait for its producer for ever.
        """
        self._is_closing = True
        if not self.is_blocked:
            self.transport.unregisterProducer()  # type: ignore[union-attr]
            self.transport.loseConnection()  # type: ignore[union-attr]

    def abort(self) -> None:
        """
        Close without waiting for the peer.
        """
        cast(ITCPTransport, self.transport).abortConnection()

    def reject(self, reason: UnreachableError) -> None:
        """
        Close a TLS connection whose other end is not who it should be, or takes too long to tell.

        @param reason: what those are told who wanted to send over it.
        """
        self.transport.failVerification(Failure(reason))  # type: ignore[union-attr]

    def pauseProducing(self) -> None:
        """
        From the transport: its buffer is full. A peer that does not read our answers need not ask further questions.
        """
        # Twisted calls this at every write while its buffer is full, not once.
        if self.is_blocked:
            return
        self.is_blocked = True
        self._unread = 0
        self.transport.pauseProducing()  # type: ignore[union-attr]
        self.connections.active(self)

    def resumeProducing(self) -> None:
        """
        From the transport: its buffer is empty.
        """
        self.is_blocked = False
        if self._is_closing:
            self.close()
            return
        self.transport.resumeProducing()  # type: ignore[union-attr]
        self.connections.active(self)

    def stopProducing(self) -> None:
        """
        From the transport: the connection is lost.
        """


class SipStreamFactory(Factory):
    """
    Makes a L{SipStream} for each accepted connection, or none where there are too many.
    """

    noisy = False

    def __init__(self, build: Callable[[IAddress | None], SipStream | None]) -> None:
        """
        @param build: from the peer's address to a L{SipStream}, or to C{None} to close the connection at once.
        """
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> SipStream | None:
        return self._build(addr)
