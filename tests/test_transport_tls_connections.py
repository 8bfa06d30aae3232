"""
Connections with TLS: who may be sent what over which, and handshakes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from OpenSSL import SSL
from twisted.internet.address import IPv4Address

import sipdmq
from sipdmq.records import Protocol, Target
from tests.fakes import FakeConnection, leftovers, pump, request_bytes
from tests.tls_memory import AUTHORITY, PEER, STRANGER, TLS, TlsTestCase, client, make_certs, pair

MESSAGE = request_bytes(via="SIP/2.0/TLS 198.51.100.7:5062;branch=z9hG4bK1")
VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)
NUMERIC = PEER._replace(name="")


class PeerIdentityTests(TlsTestCase):
    """
    RFC 5922 §7.3: a server that is not authenticated for the domain that was asked for gets nothing.
    """

    def failure(self, target: Target = PEER, **shown: object) -> str:
        """
        Send to a server that shows a certificate.

        @return: why it failed; empty if the server got it.
        """
        self.events.clear()
        self.send(target, b"secret")
        authority = shown.pop("authority", AUTHORITY)
        peer = self.establish(make_certs.make("x", authority, **shown))
        if self.events:
            self.assertEqual(self.events[0][:2], ("failed", str(target)))
            self.assertEqual(peer.received, b"")
            self.assertTrue(peer.connection.disconnected)
            self.assertEqual(leftovers(self.connections), {})
            return str(self.events[0][2])
        self.assertEqual(peer.received, b"secret")
        peer.connection.abortConnection()
        self.reactor.advance(0)
        return ""

    def test_the_right_one(self) -> None:
        self.assertEqual(self.failure(uris=["sip:one.example"]), "")
        self.assertEqual(self.failure(dns=["one.example"]), "")
        self.assertEqual(self.failure(NUMERIC, addresses=[PEER.host]), "")

    def test_another_name(self) -> None:
        reason = "TLS: the certificate is not that of one.example"
        self.assertEqual(self.failure(uris=["sip:two.example"]), reason)
        self.assertEqual(self.failure(dns=["one.example"], uris=["sip:two.example"]), reason)
        self.assertEqual(self.failure(dns=["*.example"]), reason)
        self.assertEqual(self.failure(addresses=[PEER.host]), reason)

    def test_another_address(self) -> None:
        self.assertEqual(
            self.failure(NUMERIC, dns=["one.example"]), f"TLS: the certificate is not that of {PEER.host}"
        )

    def test_one_that_nobody_vouches_for(self) -> None:
        reason = "TLS: certificate verify failed"
        self.assertEqual(self.failure(dns=["one.example"], authority=STRANGER), reason)
        self.assertEqual(self.failure(dns=["one.example"], authority=None), reason)
        self.assertEqual(self.failure(dns=["one.example"], days=-1), reason)

    def test_one_that_is_for_clients_only(self) -> None:
        """
        RFC 5922 §7.1: "implementations MUST check for restrictions on certificate usage".
        """
        self.assertEqual(self.failure(dns=["one.example"], uses=["client"]), "TLS: certificate verify failed")

    def test_the_domain_is_asked_for(self) -> None:
        for target, expected in ((PEER, b"one.example"), (NUMERIC, None)):
            self.send(target)
            self.assertEqual(self.establish(pair("one.example")).tls.get_servername(), expected)

    def test_our_certificate_is_shown_if_it_is_for_clients(self) -> None:
        for uses, expected in ((("server", "client"), True), ((), True), (("server",), False)):
            self.write("server", pair("node.example", uses=uses))
            self.connect()
            self.send()
            protocol = self.reactor.tcpClients[-1][2].buildProtocol(None)
            context = self.tls.current().client
            self.assertEqual(SSL.Connection(context, None).get_certificate() is not None, expected)
            self.assertIsNotNone(protocol)


class ReuseTests(TlsTestCase):
    """
    A connection with TLS leads to whom its certificate named, and to nobody else at that address.
    """

    def test_for_the_same_name(self) -> None:
        self.send()
        peer = self.establish(pair("one.example"))
        self.send(data=b"more")
        peer.exchange()
        self.assertEqual((peer.received, len(self.reactor.tcpClients)), (b"datamore", 1))

    def test_another_name_at_the_same_address_has_its_own(self) -> None:
        self.send()
        first = self.establish(pair("one.example", "two.example"))
        for target in (PEER._replace(name="two.example"), NUMERIC, PEER._replace(protocol=Protocol.TCP)):
            before = len(self.reactor.tcpClients)
            self.send(target)
            self.assertEqual(len(self.reactor.tcpClients), before + 1, target)
        first.exchange()
        self.assertEqual(first.received, b"data")

    def test_nothing_is_sent_to_an_address_over_an_accepted_one(self) -> None:
        self.accept(host=PEER.host, port=PEER.port)
        for target in (PEER, NUMERIC):
            before = len(self.reactor.tcpClients)
            self.send(target)
            self.assertEqual(len(self.reactor.tcpClients), before + 1)

    def test_an_accepted_one_is_used_for_its_flow(self) -> None:
        peer = self.accept()
        peer.send(MESSAGE)
        source = self.sources[0]
        self.assertEqual(source[:4], (Protocol.TLS, "198.51.100.7", 40000, TLS))
        target = self.connections.target_of(source.flow)
        self.assertEqual(target, Target(Protocol.TLS, "198.51.100.7", 40000, True, source.flow, True, TLS))
        assert target is not None
        self.send(target)
        peer.exchange()
        self.assertEqual(peer.received, b"data")

    def test_the_flow_from_an_address(self) -> None:
        self.assertEqual(self.connections.flow_from(Protocol.TLS, "198.51.100.7", 40000), "")
        peer = self.accept()
        peer.send(MESSAGE)
        flow = self.sources[0].flow
        self.assertEqual(self.connections.flow_from(Protocol.TLS, "198.51.100.7", 40000), flow)
        self.assertEqual(self.connections.flow_from(Protocol.TCP, "198.51.100.7", 40000), "")
        peer.connection.abortConnection()
        self.reactor.advance(0)
        self.assertEqual(self.connections.flow_from(Protocol.TLS, "198.51.100.7", 40000), "")

    def test_none_before_the_handshake_is_over(self) -> None:
        FakeConnection(self.reactor, self.factory.buildProtocol(IPv4Address("TCP", "198.51.100.7", 40000)))
        self.assertEqual(self.connections.snapshot()["transport.handshakes"], 1)
        self.assertEqual(self.connections.flow_from(Protocol.TLS, "198.51.100.7", 40000), "")

    def test_one_of_ours_is_no_flow_from_there(self) -> None:
        self.send()
        self.establish(pair("one.example"))
        self.assertEqual(self.connections.flow_from(Protocol.TLS, PEER.host, PEER.port), "")


class HandshakeTests(TlsTestCase):
    """
    Until it is over nothing is sent, and one that stalls is closed; it counts as a connection all the time.
    """

    def silent(self, port: int = 40000) -> FakeConnection | None:
        """
        Somebody connects and says nothing.
        """
        protocol = self.factory.buildProtocol(IPv4Address("TCP", "198.51.100.7", port))
        return None if protocol is None else FakeConnection(self.reactor, protocol)

    def test_one_that_says_nothing_is_closed(self) -> None:
        connection = self.silent()
        assert connection is not None
        pump(self.reactor, 9, 0.5)
        self.assertFalse(connection.is_aborted)
        pump(self.reactor, 2, 0.5)
        self.assertTrue(connection.is_aborted)
        self.assertEqual(leftovers(self.connections), {})
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.connections.snapshot()["transport.handshakes_failed"], 1)

    def test_one_that_trickles_in_gains_no_time(self) -> None:
        connection = self.silent()
        assert connection is not None
        tls = client()
        self.assertRaises(SSL.WantReadError, tls.do_handshake)
        hello = tls.bio_read(2**16)
        for at in range(12):
            connection.feed(hello[at : at + 1])
            pump(self.reactor, 1, 0.5)
        self.assertTrue(connection.is_aborted)

    def test_what_is_no_tls_is_closed(self) -> None:
        connection = self.silent()
        assert connection is not None
        connection.feed(MESSAGE)
        self.reactor.advance(0)
        self.assertTrue(connection.disconnected)
        self.assertEqual((self.events, leftovers(self.connections)), ([], {}))

    def test_a_finished_one_stays(self) -> None:
        peer = self.accept()
        pump(self.reactor, 60, 1)
        self.assertFalse(peer.connection.is_aborted)
        self.assertEqual(self.connections.snapshot()["transport.handshakes"], 0)

    def test_a_server_that_says_nothing_is_told_to_who_waits(self) -> None:
        self.send()
        self.send()
        FakeConnection(self.reactor, self.reactor.tcpClients[0][2].buildProtocol(None))
        self.assertEqual(self.connections.snapshot()["transport.opening"], 1)
        pump(self.reactor, 12, 0.5)
        self.assertEqual(self.events, [("failed", str(PEER), "the TLS handshake took too long")])
        self.assertEqual(leftovers(self.connections), {})

    def test_what_waits_for_it_is_bounded(self) -> None:
        for _ in range(140):
            self.send(data=bytes(1000))
        self.reactor.advance(0)
        self.assertIn(("failed", str(PEER), "too much waits for connections"), self.events)
        peer = self.establish(pair("one.example"))
        peer.exchange()
        self.assertEqual(len(peer.received), 131_000)

    def test_it_counts_for_its_source_and_for_all(self) -> None:
        self.assertIsNotNone(self.silent(1))
        for port in (2, 3):
            self.assertIsNotNone(self.accept(port=port))
        self.assertIsNone(self.accept(port=4))
        for number in range(2):
            self.assertIsNotNone(self.accept(host=f"192.0.2.{number}"))
        self.assertIsNone(self.accept(host="192.0.2.9"))

    def test_one_of_ours_counts_once(self) -> None:
        self.send()
        FakeConnection(self.reactor, self.reactor.tcpClients[0][2].buildProtocol(None))
        for number in range(4):
            self.assertIsNotNone(self.accept(host=f"192.0.2.{number}"))
        self.assertIsNone(self.accept(host="192.0.2.9"))

    def test_stopping_in_the_middle_leaves_nothing(self) -> None:
        self.silent()
        self.send()
        FakeConnection(self.reactor, self.reactor.tcpClients[-1][2].buildProtocol(None))
        self.connections.stop()
        self.reactor.advance(0)
        self.assertEqual((self.events, leftovers(self.connections)), ([], {}))
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class UnreadTests(TlsTestCase):
    """
    DESIGN §7, as over TCP: what a peer does not read is bounded, and he is not read meanwhile.
    """

    def test_bounded(self) -> None:
        peer = self.accept()
        peer.send(MESSAGE)
        target = self.connections.target_of(self.sources[0].flow)
        assert target is not None
        peer.connection.is_peer_reading = False
        most = 0
        for _ in range(1000):
            self.send(target, bytes(1000))
            most = max(most, peer.connection.unsent())
        self.assertTrue(peer.connection.is_aborted)
        self.assertFalse(peer.connection.is_reading)
        self.assertLess(most, 2**16 + self.limits.write_buffer + 20_000)

    def test_going_on_when_he_reads(self) -> None:
        peer = self.accept()
        peer.send(MESSAGE)
        target = self.connections.target_of(self.sources[0].flow)
        assert target is not None
        peer.connection.is_peer_reading = False
        for _ in range(100):
            self.send(target, bytes(1000))
        self.assertFalse(peer.connection.is_reading)
        peer.connection.is_peer_reading = True
        peer.exchange()
        self.assertEqual(len(peer.received), 100_000)
        self.assertTrue(peer.connection.is_reading)

    def test_who_never_answers_our_good_bye_is_closed(self) -> None:
        peer = self.accept()
        peer.send(MESSAGE.replace(b"Content-Length", b"X-Length"))
        self.assertFalse(peer.connection.disconnected)
        pump(self.reactor, 32, 0.5)
        self.assertTrue(peer.connection.is_aborted)


class ImportTests(TlsTestCase):
    """
    Without TLS configured nothing of it is imported: nothing by us, and nothing of it is needed. Twisted itself imports
    OpenSSL and service_identity with its reactor, wherever they are installed.
    """

    SCRIPT = """
import sys
for name in {missing}: sys.modules[name] = None
import twisted.internet.reactor
import twisted.names.client, twisted.application.service
before = set(sys.modules)
from sipdmq import node, config
from sipdmq.records import Listener, Protocol
listen = (Listener(Protocol.TCP, "127.0.0.1", 0, "127.0.0.1", 5060),)
node.makeNode(config.NodeConfig(node=config.NodeSection(listen)), twisted.internet.reactor)
words = ("tls", "ssl", "identity", "cryptography")
print(sorted(m for m in set(sys.modules) - before if any(word in m.lower() for word in words)))
"""

    def run_without(self, *missing: str) -> str:
        folder = str(Path(sipdmq.__file__).parents[1])
        script = f"import sys; sys.path.insert(0, {folder!r})" + self.SCRIPT.format(missing=missing)
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
        return ran.stdout + ran.stderr

    def test_nothing_is_imported_by_us(self) -> None:
        self.assertEqual(self.run_without(), "[]\n")

    def test_nothing_is_needed(self) -> None:
        self.assertEqual(self.run_without("OpenSSL", "service_identity"), "[]\n")
