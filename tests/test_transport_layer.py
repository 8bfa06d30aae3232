"""
The transport layer: stamping, response targets, which listener sends, and what becomes of what cannot be parsed.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.config import LimitsConfig
from sipdmq.errors import ParseError, UnreachableError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import ITransport
from sipdmq.records import Listener, Protocol, Source, Target
from sipdmq.sip.message import response_to
from sipdmq.sip.parser import parse_message
from sipdmq.sip.writer import format_message
from sipdmq.transport.layer import TransportLayer, stamp_source
from tests.fakes import (
    PHONE,
    PHONE_TCP,
    TCP,
    UDP,
    A,
    Events,
    FakeConnection,
    RecordingReceiver,
    make_ids,
    request,
    request_bytes,
)
from tests.test_transport_udp import FakePort

UDP_2 = Listener(Protocol.UDP, "192.0.2.2", 5070, "sip.example.org", 15070)
UDP_6 = Listener(Protocol.UDP, "::", 5060, "2001:db8::1", 5060)


class FakeSocket:
    """
    A bound socket, as far as it is looked at.
    """

    is_closed = False

    def fileno(self) -> int:
        return 77

    def close(self) -> None:
        self.is_closed = True


class TransportTestCase(SynchronousTestCase):
    listeners = (UDP, UDP_2, UDP_6, TCP)
    limits = LimitsConfig(message_size=2000)

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.events: Events = []
        self.receiver = RecordingReceiver(self.events)
        self.layer = TransportLayer(self.reactor, self.reactor, make_ids(), self.listeners, self.limits)
        self.layer.connect(self.receiver)
        self.sockets = [FakeSocket() for _ in self.listeners]
        self.layer.start(self.reactor, self.sockets)  # type: ignore[arg-type]
        self.ports: dict[Listener, FakePort] = {}
        for listener, (_, _, protocol, *_) in zip(self.listeners, self.reactor.adoptedPorts):
            if listener.protocol is Protocol.UDP:
                self.ports[listener] = FakePort()
                protocol.makeConnection(self.ports[listener])

    def datagram(self, data: bytes, listener: Listener = UDP) -> None:
        """
        A datagram from the phone arrives.
        """
        adopted = dict(zip(self.listeners, self.reactor.adoptedPorts))
        adopted[listener][2].datagramReceived(data, (PHONE.host, PHONE.port))

    def connect_phone(self) -> FakeConnection:
        """
        The phone opens a connection.
        """
        factory = self.reactor.adoptedPorts[self.listeners.index(TCP)][2]
        protocol = factory.buildProtocol(IPv4Address("TCP", PHONE_TCP.host, PHONE_TCP.port))
        return FakeConnection(self.reactor, protocol)

    def taken(self) -> Events:
        events, self.events[:] = self.events.copy(), []
        return events


class InterfaceTests(TransportTestCase):
    def test_interfaces(self) -> None:
        verifyObject(ITransport, self.layer)
        verifyObject(IInspectable, self.layer)

    def test_sockets_are_adopted_and_our_copies_closed(self) -> None:
        self.assertEqual(len(self.reactor.adoptedPorts), len(self.listeners))
        self.assertEqual(self.reactor.adoptedPorts[2][1], socket.AF_INET6)
        self.assertTrue(all(each.is_closed for each in self.sockets))

    def test_stop_fires_when_the_ports_are_free(self) -> None:
        connection = self.connect_phone()
        self.successResultOf(self.layer.stop())
        self.reactor.advance(0)
        self.assertTrue(connection.disconnected)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class StampTests(SynchronousTestCase):
    """
    RFC 3261 §18.2.1: "If the host portion of the sent-by parameter contains a domain name, or if it contains an IP
    address that differs from the packet source address, the server MUST add a received parameter to that Via header
    field value. This parameter MUST contain the source address from which the packet was received."
    """

    def assert_stamped(self, via: str, stamped: str, source: Source = PHONE) -> None:
        """
        The order of the parameters is nobody's business; the rest is, to the letter.
        """
        message = request(via=via)
        stamp_source(message, source)
        written = parse_message(format_message(message))
        for read in (message, written):
            self.assertEqual((read.top_via, read.vias), (request(via=stamped).top_via, request(via=stamped).vias))
        text = written.headers.get("via") or ""
        self.assertEqual(sorted(text.split(",")[0].split(";")), sorted(stamped.split(",")[0].split(";")))
        self.assertEqual(text.partition(",")[2], stamped.partition(",")[2])

    def test_the_address_it_came_from_needs_no_stamp(self) -> None:
        via = "SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK1"
        self.assert_stamped(via, via)

    def test_another_address(self) -> None:
        self.assert_stamped(
            "SIP/2.0/UDP 10.0.0.9:5062;branch=z9hG4bK1",
            "SIP/2.0/UDP 10.0.0.9:5062;branch=z9hG4bK1;received=198.51.100.7",
        )

    def test_a_name(self) -> None:
        self.assert_stamped(
            "SIP/2.0/UDP Phone.Example;branch=z9hG4bK1",
            "SIP/2.0/UDP Phone.Example;branch=z9hG4bK1;received=198.51.100.7",
        )

    def test_a_received_of_the_strangers_own_is_overwritten(self) -> None:
        self.assert_stamped(
            "SIP/2.0/UDP 10.0.0.9;received=203.0.113.1;branch=z9hG4bK1",
            "SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1;received=198.51.100.7",
        )

    def test_even_where_none_is_needed(self) -> None:
        self.assert_stamped(
            "SIP/2.0/UDP 198.51.100.7;received=203.0.113.1;branch=z9hG4bK1",
            "SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK1",
        )

    def test_rport_gets_the_port_and_received_with_it(self) -> None:
        """
        RFC 3581 §4: "When a server compliant to this specification receives a request, it examines the topmost Via
        header field value. If this Via header field value contains an rport parameter with no value, it MUST set the
        value of the parameter to the source port of the request. ... the server MUST insert a received parameter
        containing the source IP address that the request came from, even if it is identical to the value of the
        sent-by component."
        """
        self.assert_stamped(
            "SIP/2.0/UDP 198.51.100.7:5060;rport;branch=z9hG4bK1",
            "SIP/2.0/UDP 198.51.100.7:5060;rport=5062;branch=z9hG4bK1;received=198.51.100.7",
        )

    def test_an_rport_of_the_strangers_own_is_overwritten(self) -> None:
        self.assert_stamped(
            "SIP/2.0/UDP 10.0.0.9;rport=9;branch=z9hG4bK1",
            "SIP/2.0/UDP 10.0.0.9;rport=5062;branch=z9hG4bK1;received=198.51.100.7",
        )

    def test_only_the_top_value_is_ours_to_stamp(self) -> None:
        self.assert_stamped(
            "SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1, SIP/2.0/UDP h;received=203.0.113.1",
            "SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1;received=198.51.100.7, SIP/2.0/UDP h;received=203.0.113.1",
        )

    def test_ipv6(self) -> None:
        source = PHONE._replace(host="2001:db8::7")
        self.assert_stamped(
            "SIP/2.0/UDP [2001:db8::9]:5062;branch=z9hG4bK1",
            "SIP/2.0/UDP [2001:db8::9]:5062;branch=z9hG4bK1;received=2001:db8::7",
            source,
        )

    def test_the_zone_of_a_link_local_address_stays_here(self) -> None:
        via = "SIP/2.0/UDP [fe80::1]:5062;branch=z9hG4bK1"
        self.assert_stamped(via, via, PHONE._replace(host="fe80::1%eth0"))


class ResponseTargetTests(TransportTestCase):
    """
    RFC 3261 §18.2.2, RFC 3581 §4: where a response goes.
    """

    def target(self, via: str, source: Source = PHONE) -> Target:
        message = request(via=via)
        stamp_source(message, source)
        return self.layer.response_target(message, source)

    def test_to_the_address_it_came_from_at_sent_bys_port(self) -> None:
        """
        "if the top Via has a received parameter, the response MUST be sent to the address in the received parameter,
        using the port indicated in the sent-by value, or using port 5060 if none is specified explicitly."
        """
        target = self.target("SIP/2.0/UDP 10.0.0.9:5099;branch=z9hG4bK1")
        self.assertEqual(target, Target(Protocol.UDP, PHONE.host, 5099, fixed=True, listener=UDP))
        self.assertEqual(self.target("SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1").port, 5060)

    def test_at_rports_port_if_that_was_asked_for(self) -> None:
        self.assertEqual(self.target("SIP/2.0/UDP 10.0.0.9:5099;rport;branch=z9hG4bK1").port, PHONE.port)

    def test_a_strangers_maddr_received_and_rport_lead_nobody_astray(self) -> None:
        target = self.target("SIP/2.0/UDP 10.0.0.9;maddr=203.0.113.1;received=203.0.113.1;rport=9;branch=z9hG4bK1")
        self.assertEqual((target.host, target.port), (PHONE.host, PHONE.port))

    def test_from_the_listener_that_received_it(self) -> None:
        source = PHONE._replace(listener=UDP_2)
        self.assertEqual(self.target("SIP/2.0/UDP h;branch=z9hG4bK1", source).listener, UDP_2)

    def test_over_the_connection_it_came_over(self) -> None:
        """
        "If the sent-protocol is a reliable transport protocol such as TCP or SCTP, or TLS over those, the response
        MUST be sent using the existing connection to the source of the original request".
        """
        target = self.target("SIP/2.0/TCP 10.0.0.9:5099;branch=z9hG4bK1", PHONE_TCP)
        self.assertEqual((target.protocol, target.flow, target.flow_only), (Protocol.TCP, "flow1", False))

    def test_when_the_connection_is_gone_a_new_one_goes_to_sent_bys_port(self) -> None:
        """
        "If that connection is no longer open, the server SHOULD open a connection to the IP address in the received
        parameter, if present, using the port in the sent-by value, or the default port for that transport, if no port
        is specified." Nobody listens at rport's; RFC 3581 §4 is for unreliable transports.
        """
        for via in ("SIP/2.0/TCP h:5099;branch=z9hG4bK1", "SIP/2.0/TCP h:5099;rport;branch=z9hG4bK1"):
            target = self.target(via, PHONE_TCP)
            self.assertEqual((target.host, target.port), (PHONE_TCP.host, 5099), via)

    def test_of_a_via_that_cannot_be_read_it_is_the_source(self) -> None:
        broken = request().copy()
        broken.headers.replace("Via", "nonsense")
        target = self.layer.response_target(broken, PHONE)
        self.assertEqual((target.host, target.port), (PHONE.host, PHONE.port))


class OutTests(TransportTestCase):
    """
    Which listener sends, how it names itself, and that failures come later.
    """

    def test_reliability_is_the_protocols(self) -> None:
        self.assertEqual([self.layer.is_reliable(A._replace(protocol=each)) for each in Protocol], [False, True, True])

    def test_sent_by_is_what_the_listener_advertises(self) -> None:
        cases = {
            Target(Protocol.UDP, "198.51.100.10", 5060): "UDP 192.0.2.1:5060",
            Target(Protocol.UDP, "198.51.100.10", 5060, listener=UDP_2): "UDP sip.example.org:15070",
            Target(Protocol.UDP, "2001:db8::7", 5060): "UDP [2001:db8::1]:5060",
            Target(Protocol.TCP, "198.51.100.10", 5060): "TCP 192.0.2.1:5060",
            Target(Protocol.TCP, "198.51.100.10", 5060, listener=UDP_2): "TCP 192.0.2.1:5060",
        }
        for target, sent_by in cases.items():
            self.assertEqual(self.layer.sent_by(target), sent_by)

    def test_without_a_listener_there_is_no_way(self) -> None:
        target = Target(Protocol.TCP, "2001:db8::7", 5060)
        self.assertRaises(UnreachableError, self.layer.sent_by, target)
        self.layer.send(b"data", target)
        self.assertEqual(self.taken(), [])
        self.reactor.advance(0)
        self.assertEqual([event[:2] for event in self.taken()], [("failed", str(target))])

    def test_a_datagram_leaves_from_the_listener_of_its_target(self) -> None:
        for target in (A, A._replace(listener=UDP_2)):
            self.layer.send(b"data", target)
        self.assertEqual([len(self.ports[each].sent) for each in (UDP, UDP_2, UDP_6)], [1, 1, 0])

    def test_a_datagram_that_the_kernel_refuses_is_told_later(self) -> None:
        self.ports[UDP].error = OSError(errno.ENETUNREACH, "x")
        self.layer.send(b"data", A)
        self.assertEqual(self.taken(), [])
        self.reactor.advance(0)
        self.assertEqual(self.taken(), [("failed", str(A), "Network is unreachable")])

    def test_a_listener_of_another_protocol_or_of_the_past_does_no_harm(self) -> None:
        """
        "Never raises": a binding may name a listener that is no longer in the configuration.
        """
        for listener in (TCP, UDP_2._replace(port=1)):
            self.layer.send(b"data", A._replace(listener=listener))
            self.reactor.advance(0)
        self.assertEqual(len(self.ports[UDP].sent) + len(self.taken()), 2)

    def test_a_connection_for_a_udp_listener_speaks_for_the_tcp_listener(self) -> None:
        """
        As of a long request to a binding over UDP: what comes back over it did not come to a UDP listener.
        """
        self.layer.send(b"data", Target(Protocol.TCP, "198.51.100.10", 5060, listener=UDP))
        protocol = self.reactor.tcpClients[0][2].buildProtocol(None)
        FakeConnection(self.reactor, protocol).feed(request_bytes())
        self.assertEqual(self.receiver.messages[0][1].listener, TCP)


class InTests(TransportTestCase):
    """
    DESIGN §7: nothing in a datagram or a stream raises past the transport.
    """

    def answer_errors(self) -> None:
        """
        Let malformed requests be answered as the dispatcher does.
        """

        def react(error: ParseError, source: Source) -> None:
            assert error.request is not None
            response = response_to(error.request, error.status, "t")
            self.layer.send(format_message(response), self.layer.response_target(error.request, source))

        self.receiver.react_to_error = react

    def test_a_request_arrives_stamped_with_its_source(self) -> None:
        self.datagram(request_bytes(via="SIP/2.0/UDP h;rport;branch=z9hG4bK1"), UDP_2)
        message, source = self.receiver.messages[0]
        self.assertEqual(message.top_via.params["rport"], str(PHONE.port))
        self.assertEqual(source, PHONE._replace(listener=UDP_2))

    def test_a_response_is_not_stamped(self) -> None:
        self.datagram(format_message(response_to(request(via="SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK1"), 200, "t")))
        self.assertNotIn("received", self.receiver.messages[0][0].top_via.params)

    def test_over_a_connection_too_and_the_answer_goes_back_over_it(self) -> None:
        def react(message: Any, source: Source) -> None:
            response = format_message(response_to(message, 200, "t"))
            self.layer.send(response, self.layer.response_target(message, source))

        self.receiver.react = react
        connection = self.connect_phone()
        connection.feed(request_bytes(via="SIP/2.0/TCP h:9;branch=z9hG4bK1"))
        self.assertEqual(connection.responses(), [200])
        self.assertEqual(self.reactor.tcpClients, [])

    def test_keep_alives_over_udp_are_nothing(self) -> None:
        for data in (b"\r\n\r\n", b"\r\n", b"\0", b"\0\0\0\0", b""):
            self.datagram(data)
        self.assertEqual((self.taken(), self.layer.snapshot()["transport.malformed"]), ([], 0))

    def test_garbage_is_counted_and_dropped(self) -> None:
        for data in (b"x" * 100, b"\r\n" * 100, bytes(range(256)), b"SIP/2.0 200 OK\r\n\r\n"):
            self.datagram(data)
        self.assertEqual((self.taken(), self.layer.snapshot()["transport.malformed"]), ([], 4))

    def test_a_malformed_request_is_handed_up_stamped(self) -> None:
        self.answer_errors()
        self.datagram(request_bytes(via="SIP/2.0/UDP h:9;rport;branch=z9hG4bK1", cseq="1 INFO"))
        self.assertEqual(self.taken(), [("malformed", 400, PHONE.host)])
        data, address = self.ports[UDP].sent[0]
        self.assertEqual(address, (PHONE.host, PHONE.port))
        self.assertIn(b"rport=5062;branch=z9hG4bK1;received=198.51.100.7", data)

    def test_one_whose_via_cannot_be_read_is_answered_to_its_source(self) -> None:
        self.answer_errors()
        self.datagram(request_bytes(via="nonsense"))
        self.assertEqual(self.ports[UDP].sent[0][1], (PHONE.host, PHONE.port))

    def test_a_framing_error_is_answered_and_the_connection_closed(self) -> None:
        self.answer_errors()
        connection = self.connect_phone()
        connection.feed(request_bytes().replace(b"Content-Length", b"X-Length"))
        self.assertEqual((connection.responses(), bool(connection.disconnected)), ([400], True))

    def test_a_fault_inside_its_frame_leaves_the_connection_open(self) -> None:
        self.answer_errors()
        connection = self.connect_phone()
        connection.feed(request_bytes(cseq="1 INFO") + request_bytes())
        self.assertEqual(connection.responses(), [400])
        self.assertEqual([event[0] for event in self.taken()], ["malformed", "received"])

    def test_a_message_that_is_too_large(self) -> None:
        self.answer_errors()
        connection = self.connect_phone()
        connection.feed(request_bytes(body=bytes(3000)))
        self.assertEqual((connection.responses(), bool(connection.disconnected)), ([513], True))
        self.datagram(request_bytes(body=bytes(3000)))
        self.assertIn(b"SIP/2.0 513 ", self.ports[UDP].sent[0][0])

    def test_what_is_raised_above_does_not_pass_the_transport(self) -> None:
        def react(message: Any, source: Source) -> None:
            raise ZeroDivisionError

        self.receiver.react = react
        self.datagram(request_bytes())
        connection = self.connect_phone()
        connection.feed(request_bytes())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertTrue(connection.is_aborted)
