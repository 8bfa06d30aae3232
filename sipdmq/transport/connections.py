"""
All stream connections of the node: how many, how long idle, and which one leads where.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolFactory, IReactorTCP, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.config import LimitsConfig
from sipdmq.errors import UnreachableError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import IFlows
from sipdmq.records import Listener, Protocol, Source, Target
from sipdmq.sip.framing import StreamFramer
from sipdmq.sip.ids import Ids
from sipdmq.transport.stream import Address, SipStream, SipStreamFactory

if TYPE_CHECKING:
    from sipdmq.transport.tls import TlsContexts

__all__ = ["Connections"]

_TLS: Final = Protocol.TLS

_ACCEPTED: Final = "(accepted)"
"""
In the place of the name: the other end opened the connection, and has shown no certificate that would make it somebody
to whom requests for a name or an address may be sent.
"""


def _address_of(target: Target) -> Address:
    """
    A TCP connection leads to an address, a TLS one to an address that has proved to be a name.
    """
    return target.protocol, target.host, target.port, target.name if target.protocol is _TLS else ""


class _Opening:
    """
    A connection on its way, with TLS until its handshake is over, and what waits for it.
    """

    __slots__ = ("connecting", "size", "waiting")

    def __init__(self) -> None:
        self.waiting: list[tuple[bytes, Target]] = []
        self.size = 0
        self.connecting: Deferred[Any] | None = None


@implementer(IFlows, IInspectable)
class Connections:
    """
    The open connections, by flow token and by address. A connection is used both ways, whoever opened it
    (RFC 3261 §18: "connections be kept open").

    @ivar unsent: messages that could not be handed to any connection.
    """

    def __init__(
        self,
        clock: IReactorTime,
        connector: IReactorTCP,
        ids: Ids,
        limits: LimitsConfig,
        received: Callable[[bytes, Source], None],
        failed: Callable[[Target, str], None],
        tls: TlsContexts | None = None,
    ) -> None:
        """
        @param connector: opens connections.
        @param received: called with each whole message.
        @param failed: called with the target and the reason when something could not be sent; never from L{send}.
        @param tls: needed for listeners and targets that speak TLS.
        """
        self._tls = tls
        self._clock = IReactorTime(clock)
        self._connector = connector
        self._ids = ids
        self.limits = limits
        self.received = received
        self._failed = failed
        self._by_flow: dict[str, SipStream] = {}
        self._by_address: dict[Address, SipStream] = {}
        self._opening: dict[Address, _Opening] = {}
        self._waiting = 0  # bytes that wait for connections to open
        self._per_source: dict[str, int] = {}
        # In the order of the last activity, and of the begin of what must end: the first is the next to be closed.
        self._idle_since: dict[SipStream, float] = {}
        self._stalled_since: dict[SipStream, float] = {}
        self._shaking_since: dict[SipStream, float] = {}  # the hands, for TLS
        self._sweep: IDelayedCall | None = None
        self._is_stopped = False
        self._turned_away = 0
        self.unsent = 0
        self._closed_overdue = 0
        self._handshakes_failed = 0

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {
            "transport.connections": len(self._by_flow),
            "transport.stalled": len(self._stalled_since),
            "transport.opening": len(self._opening),
            "transport.handshakes": len(self._shaking_since),
            "transport.handshakes_failed": self._handshakes_failed,
            "transport.turned_away": self._turned_away,
            "transport.closed_overdue": self._closed_overdue,
        }

    def factory(self, listener: Listener) -> IProtocolFactory:
        """
        What accepts the connections of a listener.
        """
        factory = SipStreamFactory(lambda address: self._accept(listener, address))
        return self._with_tls.accepting(factory) if listener.protocol is _TLS else factory

    @property
    def _with_tls(self) -> TlsContexts:
        if self._tls is None:
            raise UnreachableError("TLS is not configured")
        return self._tls

    def _accept(self, listener: Listener, address: IAddress | None) -> SipStream | None:
        assert isinstance(address, (IPv4Address, IPv6Address))
        host = address.host
        limits = self.limits
        if self._is_full() or self._per_source.get(host, 0) >= limits.connections_per_source:
            self._turned_away += 1
            return None
        name = _ACCEPTED if listener.protocol is _TLS else ""
        return self._stream(listener, listener.protocol, host, address.port, name)

    def _is_full(self) -> bool:
        return len(self._opening) + len(self._by_flow) >= self.limits.connections

    def _stream(self, listener: Listener, protocol: Protocol, host: str, port: int, name: str = "") -> SipStream:
        source = Source(protocol, host, port, listener, self._ids.flow())
        return SipStream(self, source, StreamFramer(self.limits.parser), (protocol, host, port, name))

    # from the streams

    def opened(self, stream: SipStream) -> None:
        """
        A connection is there; with TLS its handshake begins.
        """
        source = stream.source
        self._per_source[source.host] = self._per_source.get(source.host, 0) + 1
        if source.protocol is _TLS:
            self._shaking_since[stream] = self._clock.seconds()
        # With TLS, one of ours counts as opening until the other end has proved who it is.
        if source.protocol is not _TLS or stream.leads_to[3] == _ACCEPTED:
            self._join(stream)
        if self._sweep is None:
            self._sweep = self._clock.callLater(1, self._close_overdue)

    def secured(self, stream: SipStream) -> None:
        """
        The TLS handshake of a connection is over.
        """
        address = stream.leads_to
        if stream not in self._shaking_since or address[3] == _ACCEPTED:
            self._shaking_since.pop(stream, None)
            return
        try:
            self._with_tls.check_peer(stream.transport, address[3] or address[1])
        except UnreachableError as error:
            stream.reject(error)
            return
        del self._shaking_since[stream]
        self._join(stream)
        self._send_waiting(stream, address)

    def _join(self, stream: SipStream) -> None:
        self._by_flow[stream.source.flow] = stream
        self._by_address[stream.leads_to] = stream
        self._idle_since[stream] = self._clock.seconds()

    def closed(self, stream: SipStream, targets: tuple[Target, ...], reason: str) -> None:
        """
        A connection is gone.

        @param targets: what it carried messages for.
        """
        source = stream.source
        address = stream.leads_to
        is_shaking = self._shaking_since.pop(stream, None) is not None
        self._handshakes_failed += is_shaking
        if self._by_flow.pop(source.flow, None) is not None:
            if self._by_address.get(address) is stream:
                del self._by_address[address]
        elif is_shaking:
            self._give_up(address, reason)
        else:
            return
        count = self._per_source[source.host] - 1
        if count:
            self._per_source[source.host] = count
        else:
            del self._per_source[source.host]
        self._idle_since.pop(stream, None)
        self._stalled_since.pop(stream, None)
        if not self._is_stopped:
            for target in targets:
                self._failed(target, reason)

    def active(self, stream: SipStream) -> None:
        """
        Something was read, or reading and writing have changed.
        """
        if stream.source.flow not in self._by_flow:
            return
        now = self._clock.seconds()
        self._idle_since.pop(stream, None)
        self._idle_since[stream] = now
        if not stream.is_stalled:
            self._stalled_since.pop(stream, None)
        elif stream not in self._stalled_since:
            self._stalled_since[stream] = now

    def progressed(self, stream: SipStream) -> None:
        """
        A message has become whole: what is partial now is another one.
        """
        if not stream.is_blocked:
            self._stalled_since.pop(stream, None)

    def _close_overdue(self) -> None:
        self._sweep = None
        now = self._clock.seconds()
        overdue: dict[SipStream, None] = {}
        for since, limit in (
            (self._stalled_since, self.limits.message_timeout),
            (self._idle_since, self.limits.idle_timeout),
            (self._shaking_since, self.limits.handshake_timeout),
        ):
            for stream, start in since.items():
                if start + limit > now:
                    break
                overdue[stream] = None
        self._closed_overdue += len(overdue)
        for stream in overdue:
            if stream in self._shaking_since:
                stream.reject(UnreachableError("the TLS handshake took too long"))
            else:
                stream.abort()
        if self._by_flow or self._shaking_since:
            self._sweep = self._clock.callLater(1, self._close_overdue)

    # for the layer

    def send(self, data: bytes, target: Target, listener: Listener) -> None:
        """
        Send over the connection of the target, over another one to its address, or over a new one.

        @param listener: for whom a new connection speaks.
        """
        stream = self._by_flow.get(target.flow) if target.flow else None
        if stream is None and not target.flow_only:
            stream = self._by_address.get(_address_of(target))
        if stream is not None:
            stream.send(data, target)
        elif target.flow_only:
            self._not_sent(target, "the connection is gone")
        else:
            self._open(data, target, listener)

    def _open(self, data: bytes, target: Target, listener: Listener) -> None:
        address = _address_of(target)
        opening = self._opening.get(address)
        if opening is None:
            if self._is_full():
                self._not_sent(target, "too many connections")
                return
            opening = self._opening[address] = _Opening()
            endpoint = TCP6ClientEndpoint if ":" in target.host else TCP4ClientEndpoint
            factory: IProtocolFactory = SipStreamFactory(lambda _: self._stream(listener, *address))
            if target.protocol is _TLS:
                factory = self._with_tls.connecting(factory, target.name)
            connecting = opening.connecting = endpoint(
                self._connector, target.host, target.port, self.limits.connect_timeout, (listener.host, 0)
            ).connect(factory)
            connecting.addCallbacks(self._connected, self._refused, callbackArgs=(address,), errbackArgs=(address,))
        size = len(data)
        if opening.size + size > self.limits.write_buffer or self._waiting + size > self.limits.opening_buffer:
            self._not_sent(target, "too much waits for connections")
            return
        opening.size += size
        self._waiting += size
        opening.waiting.append((data, target))

    def _opened(self, address: Address) -> list[tuple[bytes, Target]]:
        """
        What waited for a connection that waits no more.
        """
        opening = self._opening.pop(address)
        self._waiting -= opening.size
        return opening.waiting

    def _connected(self, stream: SipStream, address: Address) -> None:
        if address[0] is not _TLS:
            self._send_waiting(stream, address)
        elif address in self._opening:
            self._opening[address].connecting = None  # the handshake goes on

    def _send_waiting(self, stream: SipStream, address: Address) -> None:
        for data, target in self._opened(address):
            stream.send(data, target)

    def _refused(self, failure: Failure, address: Address) -> None:
        if address in self._opening:
            self._give_up(address, failure.getErrorMessage())

    def _give_up(self, address: Address, reason: str) -> None:
        waiting = self._opened(address)
        if not self._is_stopped:
            for target in dict.fromkeys(target for _, target in waiting):
                self._not_sent(target, reason)

    def _not_sent(self, target: Target, reason: str) -> None:
        self.unsent += 1
        self._clock.callLater(0, self._failed, target, reason)

    def has_shown(self, flow: str, name: str) -> bool:
        """
        Whether the other end of a connection, whoever opened it, has shown a certificate of that name, or address:
        valid by the authorities that we trust, and its own.
        """
        stream = self._by_flow.get(flow)
        if stream is None or stream in self._shaking_since or stream.source.protocol is not _TLS:
            return False
        try:
            self._with_tls.check_peer(stream.transport, name)
        except UnreachableError:
            return False
        return True

    def is_alive(self, flow: str) -> bool:
        """
        See L{IFlows.is_alive}.
        """
        return flow in self._by_flow

    def target_of(self, flow: str) -> Target | None:
        """
        See L{IFlows.target_of}.
        """
        stream = self._by_flow.get(flow)
        if stream is None:
            return None
        source = stream.source
        return Target(source.protocol, source.host, source.port, True, flow, True, source.listener)

    def flow_from(self, protocol: Protocol, host: str, port: int) -> str:
        """
        See L{IFlows.flow_from}.
        """
        stream = self._by_address.get((protocol, host, port, _ACCEPTED if protocol is _TLS else ""))
        return "" if stream is None or stream in self._shaking_since else stream.source.flow

    def stop(self) -> None:
        """
        Close all connections.
        """
        self._is_stopped = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for opening in tuple(self._opening.values()):
            if opening.connecting is not None:
                opening.connecting.cancel()
        for stream in (*self._by_flow.values(), *self._shaking_since):
            stream.abort()
