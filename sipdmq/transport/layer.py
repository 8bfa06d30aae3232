"""
The transport layer (RFC 3261 §18): parses what comes in and stamps its source, and finds the way out.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IReactorSocket, IReactorTCP, IReactorTime
from twisted.logger import Logger
from zope.interface import classImplements

from sipdmq.config import LimitsConfig
from sipdmq.errors import ParseError, UnreachableError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import IMessageReceiver, ITransport
from sipdmq.records import Listener, Protocol, Source, Target
from sipdmq.sip.fields import Via
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request
from sipdmq.sip.params import format_params
from sipdmq.sip.parser import parse_message
from sipdmq.sip.uri import format_host
from sipdmq.transport.bind import family_of, is_numeric
from sipdmq.transport.connections import Connections
from sipdmq.transport.udp import SipDatagrams

if TYPE_CHECKING:
    from sipdmq.transport.tls import TlsContexts

__all__ = ["TransportLayer", "stamp_source"]

log = Logger()

_UDP: Final = Protocol.UDP  # for the path of each message: a member of an Enum is slow to look up
_TLS: Final = Protocol.TLS


def stamp_source(request: Request, source: Source) -> None:
    """
    Write into the top Via where a request came from: C{received} if that is not its sent-by or if C{rport} was asked
    for, the port into C{rport}. What a stranger wrote there himself is overwritten: it is no word of ours.

    @see: RFC 3261 §18.2.1, RFC 3581 §4
    """
    via = request.top_via
    params = via.params
    host = source.host.partition("%")[0] if "%" in source.host else source.host  # a zone means nothing elsewhere
    has_rport = "rport" in params
    if via.host == host and not has_rport and "received" not in params:
        return
    # The sent-by stays as it was written: some clients compare it with theirs letter by letter.
    text = request.headers.first["via"]
    at = text.find(";rport;") if text[-6:] != ";rport" else len(text) - 6
    if at > 0 and "received" not in params and "," not in text and '"' not in text:
        # Nearly always: all of it stays but for what is added.
        port = str(source.port)
        params = {**params, "rport": port, "received": host}
        text = f"{text[:at]};rport={port}{text[at + 6:]};received={host}"
        request.stamp_top_via(Via(via.transport, via.host, via.port, params), text)
        return
    stamped = dict(params)
    if has_rport:
        stamped["rport"] = str(source.port)
    if has_rport or via.host != host:
        stamped["received"] = host
    else:
        del stamped["received"]
    text = f"{text.partition(',')[0].partition(';')[0]}{format_params(stamped)}"
    request.stamp_top_via(Via(via.transport, via.host, via.port, stamped), text)


class TransportLayer:
    """
    All listeners and connections of the node.
    """

    receiver: IMessageReceiver

    def __init__(
        self,
        clock: IReactorTime,
        connector: IReactorTCP,
        ids: Ids,
        listeners: Sequence[Listener],
        limits: LimitsConfig,
        tls: TlsContexts | None = None,
    ) -> None:
        """
        @param listeners: each with something to advertise (L{sipdmq.transport.bind.advertised}).
        @param tls: needed if a listener speaks TLS.
        """
        self._clock = IReactorTime(clock)
        self.listeners = tuple(listeners)
        self._limits = limits.parser
        self._datagrams = {
            listener: SipDatagrams(listener, self._datagram_received)
            for listener in listeners
            if listener.protocol is Protocol.UDP
        }
        self.connections = Connections(
            self._clock, connector, ids, limits, self._frame_received, self._failed, tls
        )
        # The first listener of a protocol and address family speaks for all that name none.
        self._defaults: dict[tuple[Protocol, socket.AddressFamily], Listener] = {}
        for listener in listeners:
            self._defaults.setdefault((listener.protocol, family_of(listener.host)), listener)
        self._ports: list[Any] = []
        self._malformed = 0
        self._unsent = 0

    def connect(self, receiver: IMessageReceiver) -> None:
        """
        Join the layer with the one above, once.
        """
        self.receiver = IMessageReceiver(receiver)

    def start(self, reactor: IReactorSocket, sockets: Sequence[socket.socket]) -> None:
        """
        Begin to receive.

        @param sockets: bound, in the order of the listeners; closed when this returns, as the reactor keeps its own.
        """
        for listener, opened in zip(self.listeners, sockets):
            family = family_of(listener.host)
            if listener.protocol is Protocol.UDP:
                port = reactor.adoptDatagramPort(
                    opened.fileno(), family, self._datagrams[listener], maxPacketSize=65535
                )
            else:
                factory: Any = self.connections.factory(listener)
                port = reactor.adoptStreamPort(opened.fileno(), family, factory)
            opened.close()
            self._ports.append(port)
            log.info("listening on {listener}", listener=str(listener))

    def stop(self) -> Deferred[Any]:
        """
        Stop listening, close all connections.

        @return: fires when the ports are free.
        """
        self.connections.stop()
        ports, self._ports = self._ports, []
        return gatherResults([maybeDeferred(port.stopListening) for port in ports])

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        numbers = {"transport.malformed": self._malformed, "transport.unsent": self._unsent + self.connections.unsent}
        return {**numbers, **self.connections.snapshot()}

    # in

    def _datagram_received(self, data: bytes, source: Source) -> None:
        if len(data) >= 20 or data.strip(b"\r\n\0"):  # else a keep-alive through a NAT
            self._received(data, source, False)

    def _frame_received(self, data: bytes, source: Source) -> None:
        self._received(data, source, True)

    def _received(self, data: bytes, source: Source, is_stream: bool) -> None:
        try:
            message = parse_message(data, self._limits, is_stream)
        except ParseError as error:
            self._malformed += 1
            if error.request is not None:
                try:
                    stamp_source(error.request, source)
                except ParseError:
                    pass  # answered to where it came from all the same
                self.receiver.malformed_request(error, source)
            return
        if isinstance(message, Request):
            stamp_source(message, source)
        self.receiver.message_received(message, source)

    def response_target(self, request: Request, source: Source) -> Target:
        """
        See L{ITransport.response_target}.
        """
        name = ""
        try:
            via = request.top_via
            is_asked_for = "rport" in via.params and source.protocol is _UDP
            port = source.port if is_asked_for else via.port or source.protocol.default_port
            if source.protocol is _TLS and not is_numeric(via.host):
                name = via.host  # where the connection is gone: who a new one has to lead to
        except ParseError:
            port = source.port
        return Target(source.protocol, source.host, port, True, source.flow, False, source.listener, name)

    # out

    def is_reliable(self, target: Target) -> bool:
        """
        See L{ITransport.is_reliable}.
        """
        return target.protocol.is_reliable

    def _listener_for(self, target: Target) -> Listener | None:
        listener = target.listener
        if listener is not None and listener.protocol is target.protocol and listener in self.listeners:
            return listener
        return self._defaults.get((target.protocol, family_of(target.host)))

    def sent_by(self, target: Target) -> str:
        """
        See L{ITransport.sent_by}.
        """
        listener = self._listener_for(target)
        if listener is None:
            raise UnreachableError(f"no {target.protocol.name} listener for {target.host}")
        return f"{listener.protocol.name} {format_host(listener.advertise_host)}:{listener.advertise_port}"

    def send(self, data: bytes, target: Target) -> None:
        """
        See L{ITransport.send}.
        """
        listener = self._listener_for(target)
        if listener is None:
            self._not_sent(target, f"no listener to reach {target} from")
        elif target.protocol is _UDP:
            reason = self._datagrams[listener].send(data, target.host, target.port)
            if reason:
                self._not_sent(target, reason)
        else:
            self.connections.send(data, target, listener)

    def _not_sent(self, target: Target, reason: str) -> None:
        self._unsent += 1
        self._clock.callLater(0, self._failed, target, reason)

    def _failed(self, target: Target, reason: str) -> None:
        self.receiver.transport_failed(target, reason)


classImplements(TransportLayer, ITransport, IInspectable)
