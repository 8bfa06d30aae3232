"""
One TCP connection: bytes to messages, keep-alives, and a peer that does not read.

The transport is Twisted's own buffering without a socket, so pausing, closing and aborting are the real ones.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.config import LimitsConfig
from sipdmq.records import Protocol, Source, Target
from sipdmq.transport.connections import Connections
from sipdmq.transport.stream import MAX_TARGETS
from tests.fakes import PHONE_TCP, TCP, Events, FakeConnection, make_ids, pump, request_bytes

MESSAGE = request_bytes(via="SIP/2.0/TCP 198.51.100.7:5062;branch=z9hG4bK1")
TARGET = Target(Protocol.TCP, PHONE_TCP.host, PHONE_TCP.port)


class StreamTestCase(SynchronousTestCase):
    limits = LimitsConfig(write_buffer=2**17)

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.events: Events = []
        self.connections = Connections(
            self.reactor, self.reactor, make_ids(), self.limits, self.received, self.failed
        )
        self.stream = self.connections._stream(TCP, Protocol.TCP, PHONE_TCP.host, PHONE_TCP.port)
        self.connection = FakeConnection(self.reactor, self.stream)

    def received(self, data: bytes, source: Source) -> None:
        self.events.append(("received", data))
        self.react(data)

    def react(self, data: bytes) -> Any:
        """
        What stands above does this with a message.
        """

    def failed(self, target: Target, reason: str) -> None:
        self.events.append(("failed", str(target), reason))

    def send_unread(self, size: int, step: int = 1000) -> None:
        """
        Send to a peer that does not read.
        """
        self.connection.is_peer_reading = False
        for _ in range(size // step):
            self.stream.send(bytes(step), TARGET)


class InterfaceTests(StreamTestCase):
    def test_interface(self) -> None:
        verifyObject(IPushProducer, self.stream)


class MessageTests(StreamTestCase):
    """
    RFC 3261 §18.3: messages are cut by Content-Length, wherever the segments end.
    """

    def test_several_in_one_segment(self) -> None:
        self.connection.feed(MESSAGE * 3)
        self.assertEqual(self.events, [("received", MESSAGE)] * 3)

    def test_one_in_many_segments(self) -> None:
        self.connection.feed(*(MESSAGE[at : at + 1] for at in range(len(MESSAGE))))
        self.assertEqual(self.events, [("received", MESSAGE)])

    def test_what_is_raised_above_is_logged_and_ends_the_connection(self) -> None:
        def react(data: bytes) -> None:
            raise ZeroDivisionError

        self.react = react  # type: ignore[method-assign]
        self.connection.feed(MESSAGE)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(self.connection.is_aborted)

    def test_after_a_message_without_length_the_connection_is_closed(self) -> None:
        self.react = lambda data: self.stream.send(b"SIP/2.0 400 Bad Request\r\n", TARGET)  # type: ignore[method-assign]
        self.connection.feed(MESSAGE.replace(b"Content-Length", b"X-Length") + MESSAGE)
        self.assertEqual(self.connection.responses(), [400])
        self.assertTrue(self.connection.disconnected)
        self.assertEqual(len([event for event in self.events if event[0] == "received"]), 1)

    def test_a_peer_that_reads_late_gets_the_last_answer_and_then_the_end(self) -> None:
        """
        The closing waits for what is not yet written, not for ever.
        """
        self.react = lambda data: self.stream.send(bytes(100_000), TARGET)  # type: ignore[method-assign]
        self.connection.is_peer_reading = False
        self.connection.feed(MESSAGE.replace(b"Content-Length", b"X-Length"))
        self.connection.is_peer_reading = True
        self.connection.flush()
        self.assertEqual(len(self.connection.read_by_peer), 100_000)
        pump(self.reactor, 60, 1)
        self.assertTrue(self.connection.disconnected)


class KeepAliveTests(StreamTestCase):
    """
    RFC 5626 §3.5.1: "the client periodically sends a double-CRLF (the ping) then waits to receive a single CRLF (the
    pong)."
    """

    def test_a_pong_for_each_ping(self) -> None:
        self.connection.feed(b"\r\n\r\n")
        self.connection.feed(b"\r\n\r\n" * 2)
        self.assertEqual(self.connection.read_by_peer, b"\r\n" * 3)
        self.assertEqual(self.events, [])

    def test_between_messages(self) -> None:
        self.connection.feed(MESSAGE + b"\r\n\r\n" + MESSAGE)
        self.assertEqual(self.events, [("received", MESSAGE)] * 2)
        self.assertEqual(self.connection.read_by_peer, b"\r\n")

    def test_in_pieces(self) -> None:
        self.connection.feed(b"\r", b"\n\r", b"\n")
        self.assertEqual(self.connection.read_by_peer, b"\r\n")


class StalledTests(StreamTestCase):
    """
    A peer that owes us the rest of a message, or reading what we sent, is stalled.
    """

    def test_half_a_message(self) -> None:
        self.assertFalse(self.stream.is_stalled)
        self.connection.feed(MESSAGE[:50])
        self.assertTrue(self.stream.is_stalled)
        self.connection.feed(MESSAGE[50:])
        self.assertFalse(self.stream.is_stalled)

    def test_an_empty_line_behind_a_message_is_no_half_message(self) -> None:
        """
        RFC 3261 §7.5: "Implementations processing SIP messages over stream-oriented transports MUST ignore any CRLF
        appearing before the start-line": some send one behind each message.
        """
        self.connection.feed(MESSAGE + b"\r\n")
        self.assertFalse(self.stream.is_stalled)

    def test_unread_data(self) -> None:
        self.send_unread(70_000)
        self.assertTrue(self.stream.is_stalled)


class UnreadTests(StreamTestCase):
    """
    DESIGN §7: nothing grows without bound: what the peer does not read is bounded, and while it does not read neither
    do we.
    """

    def test_we_stop_reading_while_the_peer_does_not(self) -> None:
        self.send_unread(70_000)
        self.assertFalse(self.connection.is_reading)
        self.connection.is_peer_reading = True
        self.connection.flush()
        self.assertTrue(self.connection.is_reading)
        self.assertEqual(len(self.connection.read_by_peer), 70_000)

    def test_above_the_bound_the_connection_is_aborted(self) -> None:
        self.send_unread(2**16 + self.limits.write_buffer + 3000)
        self.assertTrue(self.connection.is_aborted)
        self.assertEqual(self.events, [])
        self.reactor.advance(0)
        self.assertEqual([event[:2] for event in self.events], [("failed", str(TARGET))])

    def test_what_waits_never_exceeds_it(self) -> None:
        self.send_unread(10 * self.limits.write_buffer)
        self.assertLessEqual(self.connection.unsent(), 2**16 + self.limits.write_buffer + 1000)

    def test_a_peer_that_reads_now_and_then_is_not_aborted(self) -> None:
        for _ in range(20):
            self.send_unread(100_000)
            self.connection.is_peer_reading = True
            self.connection.flush()
        self.assertFalse(self.connection.is_aborted)
        self.assertEqual(len(self.connection.read_by_peer), 2_000_000)


class LostTests(StreamTestCase):
    """
    Who sent over the connection is told when it is lost.
    """

    def test_each_target_once(self) -> None:
        other = TARGET._replace(fixed=True, port=1)
        for target in (TARGET, other, TARGET):
            self.stream.send(b"x", target)
        self.connection.abortConnection()
        self.reactor.advance(0)
        self.assertEqual([event[:2] for event in self.events], [("failed", str(TARGET)), ("failed", str(other))])

    def test_nobody_when_nothing_was_sent(self) -> None:
        self.connection.feed(b"\r\n\r\n")
        self.connection.abortConnection()
        self.reactor.advance(0)
        self.assertEqual(self.events, [])

    def test_the_targets_that_are_remembered_are_bounded(self) -> None:
        for port in range(1, MAX_TARGETS + 100):
            self.stream.send(b"x", TARGET._replace(port=port))
        self.connection.abortConnection()
        self.reactor.advance(0)
        self.assertEqual(len(self.events), MAX_TARGETS)
        self.assertEqual(self.events[-1][1], str(TARGET._replace(port=MAX_TARGETS + 99)))

    def test_a_target_in_use_is_not_the_one_that_is_forgotten(self) -> None:
        for port in range(1, MAX_TARGETS + 100):
            self.stream.send(b"x", TARGET._replace(port=port))
            self.stream.send(b"x", TARGET)
        self.connection.abortConnection()
        self.reactor.advance(0)
        self.assertIn(str(TARGET), [event[1] for event in self.events])
