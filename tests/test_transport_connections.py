"""
All connections together: reuse, opening, limits, timeouts, flows.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.config import LimitsConfig
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import IFlows
from sipdmq.records import Protocol, Source, Target
from sipdmq.transport.connections import Connections
from tests.fakes import TCP, Events, FakeConnection, leftovers, make_ids, pump, request_bytes

MESSAGE = request_bytes(via="SIP/2.0/TCP 198.51.100.7:5062;branch=z9hG4bK1")
PEER = Target(Protocol.TCP, "198.51.100.7", 5060)


class ConnectionsTestCase(SynchronousTestCase):
    limits = LimitsConfig(
        connections=5,
        connections_per_source=3,
        idle_timeout=100.0,
        message_timeout=30.0,
        connect_timeout=5.0,
        write_buffer=2**16,
    )

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.events: Events = []
        self.sources: list[Source] = []
        self.connections = Connections(
            self.reactor, self.reactor, make_ids(), self.limits, self.received, self.failed
        )
        self.factory = self.connections.factory(TCP)

    def received(self, data: bytes, source: Source) -> None:
        self.sources.append(source)

    def failed(self, target: Target, reason: str) -> None:
        self.events.append(("failed", str(target), reason))

    def accept(self, host: str = "198.51.100.7", port: int = 40000) -> FakeConnection | None:
        """
        A peer connects.

        @return: C{None} if it is turned away.
        """
        address = IPv6Address if ":" in host else IPv4Address
        protocol = self.factory.buildProtocol(address("TCP", host, port))
        return None if protocol is None else FakeConnection(self.reactor, protocol)

    def accepted(self, host: str = "198.51.100.7", port: int = 40000) -> Any:
        connection = self.accept(host, port)
        self.assertIsNotNone(connection)
        return connection

    def flow_of(self, connection: Any) -> str:
        """
        The token with which messages of a connection come.
        """
        connection.feed(MESSAGE)
        return self.sources[-1].flow

    def send(self, target: Target = PEER, data: bytes = b"data") -> None:
        self.connections.send(data, target, TCP)

    def establish(self, attempt: int = -1) -> FakeConnection:
        """
        What we have been connecting to accepts.
        """
        protocol = self.reactor.tcpClients[attempt][2].buildProtocol(None)
        return FakeConnection(self.reactor, protocol)

    def refuse(self, attempt: int = -1) -> None:
        factory = self.reactor.tcpClients[attempt][2]
        factory.clientConnectionFailed(self.reactor.connectors[attempt], Failure(Refused("no")))


class InterfaceTests(ConnectionsTestCase):
    def test_interfaces(self) -> None:
        verifyObject(IFlows, self.connections)
        verifyObject(IInspectable, self.connections)


class ReuseTests(ConnectionsTestCase):
    """
    RFC 3261 §18: "it is RECOMMENDED that connections be kept open for some implementation-defined duration after the
    last message was sent or received over that connection"; both ways, whoever opened it.
    """

    def test_a_request_goes_over_the_connection_that_its_target_opened(self) -> None:
        connection = self.accepted(PEER.host, PEER.port)
        self.send()
        connection.flush()
        self.assertEqual(connection.read_by_peer, b"data")
        self.assertEqual(self.reactor.tcpClients, [])

    def test_what_comes_over_a_connection_of_ours_is_received(self) -> None:
        self.send()
        connection = self.establish()
        connection.feed(MESSAGE)
        self.assertEqual(self.sources[0][:4], (Protocol.TCP, PEER.host, PEER.port, TCP))
        self.assertTrue(self.connections.is_alive(self.sources[0].flow))

    def test_one_connection_carries_all(self) -> None:
        for _ in range(3):
            self.send()
        connection = self.establish()
        self.send()
        connection.flush()
        self.assertEqual(connection.read_by_peer, b"data" * 4)
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_of_two_from_one_address_the_end_of_the_older_leaves_the_newer(self) -> None:
        older, newer = (self.accepted(PEER.host, PEER.port) for _ in range(2))
        older.abortConnection()
        self.reactor.advance(0)
        self.send()
        newer.flush()
        self.assertEqual(newer.read_by_peer, b"data")


class OpeningTests(ConnectionsTestCase):
    """
    Where there is no connection, one is opened; what waits for it is bounded, and told when it comes to nothing.
    """

    def test_it_is_opened_from_the_listeners_address_with_a_timeout(self) -> None:
        self.send()
        host, port, _, timeout, bind = self.reactor.tcpClients[0]
        self.assertEqual((host, port, timeout, bind), (PEER.host, PEER.port, 5.0, (TCP.host, 0)))

    def test_by_ipv6_too(self) -> None:
        self.send(Target(Protocol.TCP, "2001:db8::7", 5060))
        self.assertEqual(self.reactor.tcpClients[0][0], "2001:db8::7")

    def test_a_refusal_is_told_to_each_target_and_nothing_is_left(self) -> None:
        other = PEER._replace(fixed=True)
        for target in (PEER, other, PEER):
            self.send(target)
        self.refuse()
        self.assertEqual(self.events, [])
        self.reactor.advance(0)
        self.assertEqual([event[:2] for event in self.events], [("failed", str(PEER)), ("failed", str(other))])
        self.assertEqual(leftovers(self.connections), {})
        self.send()
        self.assertEqual(len(self.reactor.tcpClients), 2)

    def test_what_waits_is_bounded_in_bytes(self) -> None:
        for _ in range(66):
            self.send(data=bytes(1000))
        self.assertEqual(self.events, [])
        self.reactor.advance(0)
        self.assertEqual(self.events, [("failed", str(PEER), "too much waits for connections")])
        connection = self.establish()
        connection.flush()
        self.assertEqual(len(connection.read_by_peer), 65_000)

    def test_opening_counts_as_a_connection(self) -> None:
        for port in range(6):
            self.send(PEER._replace(port=port + 1))
        self.assertEqual(len(self.reactor.tcpClients), 5)
        self.reactor.advance(0)
        self.assertEqual(self.events, [("failed", "tcp:198.51.100.7:6", "too many connections")])

    def test_a_peer_that_hangs_up_at_once_is_told_to_its_target(self) -> None:
        self.send()
        self.establish().abortConnection()
        self.reactor.advance(0)
        self.assertEqual([event[:2] for event in self.events], [("failed", str(PEER))])


class FlowTests(ConnectionsTestCase):
    """
    RFC 5626: a flow is one connection, named by a token; what is for that flow only goes over no other.
    """

    def test_a_flow_has_a_target_while_it_is_alive(self) -> None:
        connection = self.accepted()
        flow = self.flow_of(connection)
        target = self.connections.target_of(flow)
        self.assertEqual(target, Target(Protocol.TCP, "198.51.100.7", 40000, True, flow, True, TCP))
        self.assertTrue(self.connections.is_alive(flow))
        connection.abortConnection()
        self.reactor.advance(0)
        self.assertFalse(self.connections.is_alive(flow))
        self.assertIsNone(self.connections.target_of(flow))

    def test_the_flow_counts_and_not_the_address(self) -> None:
        one, two = self.accepted(port=1), self.accepted(port=2)
        self.send(Target(Protocol.TCP, "203.0.113.9", 9, flow=self.flow_of(one)))
        for connection in (one, two):
            connection.flush()
        self.assertEqual((one.read_by_peer, two.read_by_peer), (b"data", b""))

    def test_a_flow_only_target_whose_connection_is_gone_fails(self) -> None:
        connection = self.accepted()
        target = self.connections.target_of(self.flow_of(connection))
        assert target is not None
        connection.abortConnection()
        self.reactor.advance(0)
        another = self.accepted()
        self.send(target)
        self.assertEqual(self.events, [])
        self.reactor.advance(0)
        another.flush()
        self.assertEqual(self.events, [("failed", str(target), "the connection is gone")])
        self.assertEqual((another.read_by_peer, self.reactor.tcpClients), (b"", []))

    def test_another_target_is_connected_to_when_its_flow_is_gone(self) -> None:
        """
        RFC 3261 §18.2.2: "If that connection is no longer open, the server SHOULD open a connection".
        """
        self.send(PEER._replace(flow="gone"))
        self.assertEqual(self.reactor.tcpClients[0][:2], (PEER.host, PEER.port))

    def test_tokens_are_never_the_same(self) -> None:
        flows = {self.flow_of(self.accepted(f"192.0.2.{number}")) for number in range(5)}
        self.assertEqual(len(flows), 5)


class LimitTests(ConnectionsTestCase):
    """
    DESIGN §7: connections and connections of one source are limited; one too many is closed at once.
    """

    def test_of_one_source(self) -> None:
        connections = [self.accept(port=port) for port in range(4)]
        self.assertIsNone(connections[3])
        self.assertIsNotNone(self.accept("198.51.100.8"))
        self.assertEqual(self.connections.snapshot()["transport.turned_away"], 1)

    def test_a_closed_one_makes_room(self) -> None:
        connections = [self.accepted(port=port) for port in range(3)]
        connections[0].abortConnection()
        self.assertIsNone(self.accept(port=8))
        self.reactor.advance(0)
        self.assertIsNotNone(self.accept(port=9))

    def test_of_all(self) -> None:
        for number in range(5):
            self.accepted(f"192.0.2.{number}")
        self.assertIsNone(self.accept("198.51.100.7"))
        self.send(PEER)
        self.reactor.advance(0)
        self.assertEqual(self.events, [("failed", str(PEER), "too many connections")])

    def test_those_on_their_way_count_for_those_that_come(self) -> None:
        for port in range(5):
            self.send(PEER._replace(port=port + 1))
        self.assertIsNone(self.accept("192.0.2.9"))


class TimeoutTests(ConnectionsTestCase):
    """
    Half a message is closed after C{message_timeout}, silence after C{idle_timeout}, swept once a second.
    """

    def pump(self, seconds: float) -> None:
        pump(self.reactor, seconds, 0.5)

    def test_half_a_message(self) -> None:
        connection = self.accepted()
        connection.feed(MESSAGE[:50])
        self.pump(29)
        self.assertFalse(connection.is_aborted)
        self.pump(2)
        self.assertTrue(connection.is_aborted)
        self.assertEqual(self.connections.snapshot()["transport.closed_overdue"], 1)

    def test_one_that_trickles_in_gains_no_time(self) -> None:
        connection = self.accepted()
        for at in range(31):
            connection.feed(MESSAGE[at : at + 1])
            self.pump(1)
        self.assertTrue(connection.is_aborted)

    def test_the_rest_in_time_ends_the_wait(self) -> None:
        connection = self.accepted()
        connection.feed(MESSAGE[:50])
        self.pump(20)
        connection.feed(MESSAGE[50:])
        self.pump(20)
        self.assertFalse(connection.is_aborted)

    def test_a_busy_peer_whose_segments_end_inside_messages_is_not_stalled(self) -> None:
        """
        Each segment brings the rest of one message and the beginning of the next, as a full pipe does.
        """
        connection = self.accepted()
        connection.feed(MESSAGE[:50])
        for _ in range(60):
            self.pump(1)
            connection.feed(MESSAGE[50:] + MESSAGE[:50])
        self.assertEqual(len(self.sources), 60)
        self.assertFalse(connection.is_aborted)

    def test_silence(self) -> None:
        connection = self.accepted()
        self.pump(50)
        connection.feed(b"\r\n\r\n")
        self.pump(99)
        self.assertFalse(connection.is_aborted)
        self.pump(2)
        self.assertTrue(connection.is_aborted)

    def test_only_those_that_are_overdue(self) -> None:
        idle = self.accepted(port=1)
        self.pump(60)
        half = self.accepted(port=2)
        half.feed(MESSAGE[:50])
        busy = self.accepted(port=3)
        self.pump(41)
        self.assertEqual([each.is_aborted for each in (idle, half, busy)], [True, True, False])

    def test_a_peer_that_does_not_read(self) -> None:
        connection = self.accepted(PEER.host, PEER.port)
        connection.is_peer_reading = False
        for _ in range(7):
            self.send(data=bytes(10_000))
        self.pump(29)
        self.assertFalse(connection.is_aborted)
        self.pump(2)
        self.assertTrue(connection.is_aborted)

    def test_when_all_are_closed_no_timer_runs(self) -> None:
        self.accepted().feed(MESSAGE[:50])
        self.pump(40)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(leftovers(self.connections), {})


class StopTests(ConnectionsTestCase):
    """
    At the end nothing is left, and nobody is told.
    """

    def test_connections_are_closed(self) -> None:
        connection = self.accepted(PEER.host, PEER.port)
        self.send()
        self.connections.stop()
        self.reactor.advance(0)
        self.assertTrue(connection.disconnected)
        self.assertEqual(self.events, [])
        self.assertEqual(leftovers(self.connections), {})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_those_on_their_way_are_given_up(self) -> None:
        self.send()
        self.connections.stop()
        self.reactor.advance(0)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.assertEqual((self.events, leftovers(self.connections)), ([], {}))
