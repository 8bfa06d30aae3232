"""
Stand-ins for what stands on both sides of the transactions and of the transports, and the messages that they exchange.

All of them append what happens to one list of events, so that a test reads as the order in which things happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from random import Random
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from sipdmq.errors import ParseError, UnreachableError
from sipdmq.interfaces.messages import IClientUser, IMessageReceiver, IServerTransaction, ITransactionUser, ITransport
from sipdmq.records import Listener, Protocol, Source, Target
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Message, Request, Response, response_to
from sipdmq.sip.parser import parse_message
from sipdmq.sip.timers import TimerValues
from sipdmq.sip.writer import format_message
from sipdmq.transaction.layer import TransactionLayer

UDP = Listener(Protocol.UDP, "192.0.2.1", 5060, "192.0.2.1", 5060)
TCP = Listener(Protocol.TCP, "192.0.2.1", 5060, "192.0.2.1", 5060)

PHONE = Source(Protocol.UDP, "198.51.100.7", 5062, UDP)
PHONE_TCP = Source(Protocol.TCP, "198.51.100.7", 40000, TCP, "flow1")

A = Target(Protocol.UDP, "198.51.100.10", 5060)
B = Target(Protocol.UDP, "198.51.100.11", 5060)
A_TCP = Target(Protocol.TCP, "198.51.100.10", 5060)

Events = list[tuple[Any, ...]]


def make_ids(seed: int = 1) -> Ids:
    """
    Names that are the same in every run.
    """
    return Ids(Random(seed).randbytes)


def pump(clock: Clock, seconds: float, step: float = 0.25) -> None:
    """
    Let time pass in steps: C{Clock.advance} jumps first and calls after.
    """
    for _ in range(round(seconds / step)):
        clock.advance(step)


def request_bytes(
    method: str = "OPTIONS",
    uri: str = "sip:example.org",
    via: str = "SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK1",
    from_: str = "<sip:alice@example.org>;tag=f1",
    to: str = "<sip:bob@example.org>",
    call_id: str = "c1",
    cseq: str = "",
    headers: Iterable[str] = (),
    body: bytes = b"",
) -> bytes:
    """
    A request as a phone writes it.

    @param cseq: all of it, or empty for number 1 and C{method}.
    @param headers: further lines, without CRLF.
    """
    lines = (
        f"{method} {uri} SIP/2.0",
        f"Via: {via}",
        "Max-Forwards: 70",
        f"From: {from_}",
        f"To: {to}",
        f"Call-ID: {call_id}",
        f"CSeq: {cseq or '1 ' + method}",
        *headers,
        f"Content-Length: {len(body)}",
        "\r\n",
    )
    return "\r\n".join(lines).encode() + body


def request(method: str = "OPTIONS", **changes: Any) -> Request:
    """
    L{request_bytes}, parsed.
    """
    message = parse_message(request_bytes(method, **changes))
    assert isinstance(message, Request)
    return message


def outgoing(method: str = "OPTIONS", body: bytes = b"") -> Request:
    """
    A request as a transaction user hands it over: without a Via of ours.
    """
    message = request(method, body=body)
    message.headers.remove("via")
    return message


def answer(to: Request, status: int, to_tag: str = "t1") -> Response:
    """
    A response as it comes from the network.
    """
    message = parse_message(format_message(response_to(to, status, to_tag if status > 100 else "")))
    assert isinstance(message, Response)
    return message


def what(message: Message) -> int | str:
    """
    How a message is called in the events: by status or method.
    """
    return message.status if isinstance(message, Response) else message.method  # type: ignore[attr-defined]


def leftovers(holder: object) -> dict[str, int]:
    """
    Every table, queue and set of an object that is not empty, with its length. What an object is given at its making
    (names, tuples) does not count.
    """
    names: Iterable[str]
    if hasattr(holder, "__dict__"):
        names = vars(holder)
    else:
        made = type(holder)
        names = getattr(made, "__slots__", None) or made.__mypyc_attrs__  # type: ignore[attr-defined]
    values = {name: getattr(holder, name) for name in names}
    return {
        name: len(value)
        for name, value in values.items()
        if isinstance(value, Sized) and not isinstance(value, (str, bytes, tuple)) and len(value)
    }


@implementer(ITransport)
class FakeTransport:
    """
    Sends nothing, remembers all.

    @ivar sent: C{(message, target)} in order.
    @ivar times: C{(seconds, status or method)} in order.
    @ivar unreadable: what was sent and is no message; in the events its status code has a question mark.
    @ivar missing: protocols for which there is no listener.
    """

    def __init__(self, clock: Clock, events: Events) -> None:
        self._clock = clock
        self._events = events
        self.sent: list[tuple[Any, Target]] = []
        self.times: list[tuple[float, int | str]] = []
        self.unreadable: list[bytes] = []
        self.missing: set[Protocol] = set()

    def send(self, data: bytes, target: Target) -> None:
        try:
            message = parse_message(data)
        except ParseError:
            self.unreadable.append(data)
            self._events.append(("send", f"?{data[8:11].decode()}", str(target)))
            return
        self.sent.append((message, target))
        self.times.append((self._clock.seconds(), what(message)))
        self._events.append(("send", what(message), str(target)))

    def is_reliable(self, target: Target) -> bool:
        return target.protocol.is_reliable

    def sent_by(self, target: Target) -> str:
        if target.protocol in self.missing:
            raise UnreachableError(f"no {target.protocol.name} listener")
        return f"{target.protocol.name} 192.0.2.1:5060"

    def response_target(self, request: Request, source: Source) -> Target:
        return Target(source.protocol, source.host, source.port, True, source.flow, False, source.listener)

    @property
    def last(self) -> Any:
        """
        The message that was sent last.
        """
        return self.sent[-1][0]


@implementer(ITransactionUser)
class RecordingUser:
    """
    A transaction user that does as it is told.

    @ivar transactions: all that it got, in order.
    @ivar react: called with each new transaction.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self.transactions: list[Any] = []
        self.react: Callable[[Any], object] = lambda transaction: None
        self.react_to_loss: Callable[[Any], object] = lambda transaction: None

    def request_received(self, transaction: IServerTransaction) -> None:
        self._events.append(("request", transaction.request.method))
        self.transactions.append(transaction)
        self.react(transaction)

    def malformed_request(self, error: ParseError, source: Source) -> None:
        self._events.append(("malformed", error.status, source.host))

    def ack_received(self, request: Request, source: Source) -> None:
        self._events.append(("ack", request.method))

    def cancelled(self, transaction: IServerTransaction) -> None:
        self._events.append(("cancelled", transaction.request.method))

    def response_lost(self, transaction: IServerTransaction, reason: str) -> None:
        self._events.append(("lost", transaction.request.method, reason))
        self.react_to_loss(transaction)


@implementer(IClientUser)
class RecordingClientUser:
    """
    Waits for what becomes of a request.

    @ivar react: called with each response.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self.react: Callable[[Response], object] = lambda response: None

    def response_received(self, response: Response) -> None:
        self._events.append(("response", response.status))
        self.react(response)

    def timed_out(self) -> None:
        self._events.append(("timed out",))

    def unreachable(self, reason: str) -> None:
        self._events.append(("unreachable", reason))


@implementer(IMessageReceiver)
class RecordingReceiver:
    """
    What stands above the transports.

    @ivar messages: C{(message, source)} in order.
    @ivar react: called with each message and its source.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self.messages: list[tuple[Any, Source]] = []
        self.react: Callable[[Message, Source], object] = lambda message, source: None
        self.react_to_error: Callable[[ParseError, Source], object] = lambda error, source: None

    def message_received(self, message: Message, source: Source) -> None:
        self._events.append(("received", what(message), source.host))
        self.messages.append((message, source))
        self.react(message, source)

    def malformed_request(self, error: ParseError, source: Source) -> None:
        self._events.append(("malformed", error.status, source.host))
        self.react_to_error(error, source)

    def transport_failed(self, target: Target, reason: str) -> None:
        self._events.append(("failed", str(target), reason))


class FakeConnection(FileDescriptor):
    """
    A TCP connection whose peer reads only when told to: Twisted's own buffering, pausing and closing, no socket.

    @ivar read_by_peer: what the peer has read so far.
    @ivar is_peer_reading: when false, nothing more gets through.
    """

    def __init__(self, reactor: MemoryReactorClock, protocol: StreamProtocol) -> None:
        FileDescriptor.__init__(self, reactor)
        self.connected = 1
        self.protocol = protocol
        self.read_by_peer = b""
        self.is_peer_reading = True
        self.is_aborted = False
        self.startReading()
        protocol.makeConnection(self)

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def writeSomeData(self, data: bytes) -> int:
        if not self.is_peer_reading:
            return 0
        self.read_by_peer += bytes(data)
        return len(data)

    @property
    def is_reading(self) -> bool:
        return self in self.reactor.getReaders()

    def unsent(self) -> int:
        """
        Bytes that wait in memory.
        """
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    def feed(self, *segments: bytes) -> None:
        """
        The peer sends, while we read.
        """
        for segment in segments:
            if self.is_reading:
                self.protocol.dataReceived(segment)
        self.flush()

    def flush(self) -> None:
        """
        Write while the peer reads.
        """
        while self.is_peer_reading and self in self.reactor.getWriters():
            gone = self.doWrite()
            if gone is not None:
                self.connectionLost(Failure(gone))

    def abortConnection(self) -> None:
        if self.disconnected or self.is_aborted:
            return
        self.is_aborted = True
        self.stopReading()
        self.stopWriting()
        self.reactor.callLater(0, self.connectionLost, Failure(ConnectionAborted()))

    def connectionLost(self, reason: Failure) -> None:
        FileDescriptor.connectionLost(self, reason)
        self.protocol.connectionLost(reason)

    def responses(self) -> list[int]:
        """
        The status codes of what the peer has read.
        """
        return [int(line[8:11]) for line in self.read_by_peer.split(b"\r\n") if line.startswith(b"SIP/2.0 ")]


class TransactionTestCase(SynchronousTestCase):
    """
    A transaction layer between a fake transport and a recording user.
    """

    max_transactions = 1000
    max_completed_bytes = 2**20

    def setUp(self) -> None:
        self.clock = Clock()
        self.events: Events = []
        self.transport = FakeTransport(self.clock, self.events)
        self.user = RecordingUser(self.events)
        self.client_user = RecordingClientUser(self.events)
        self.layer = TransactionLayer(
            self.clock, make_ids(), TimerValues(), self.max_transactions, self.max_completed_bytes
        )
        self.layer.connect(self.transport, self.user)

    def receive(self, message: Message, source: Source = PHONE) -> None:
        """
        A message arrives.
        """
        self.layer.message_received(message, source)

    def taken(self) -> Events:
        """
        The events since this was asked last.
        """
        events, self.events[:] = self.events.copy(), []
        return events

    def assert_nothing_left(self) -> None:
        """
        Nothing is remembered and no timer runs.
        """
        self.assertEqual(leftovers(self.layer), {})
        self.assertEqual(leftovers(self.layer.completed), {})
        self.assertEqual(self.clock.getDelayedCalls(), [])


def statuses(sent: Sequence[tuple[Any, Target]]) -> list[int | str]:
    """
    What was sent, by status or method.
    """
    return [what(message) for message, _ in sent]


def watch_comparisons(test: SynchronousTestCase, module: Any) -> list[Any]:
    """
    See what is compared with C{compare_digest}, in a time that does not tell how much of it is right.

    @param module: which imports it, or C{hmac} itself.
    @return: grows by the second value of each comparison.
    """
    compared: list[Any] = []

    def compare(one: Any, other: Any) -> bool:
        compared.append(other)
        return bool(one == other)

    test.patch(module, "compare_digest", compare)
    return compared
