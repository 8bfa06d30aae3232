"""
Bytes with TLS, in any pieces.
"""

from __future__ import annotations

import random

from OpenSSL import SSL
from twisted.internet.address import IPv4Address

from sipdmq.config import LimitsConfig
from sipdmq.transport.stream import SipStream
from tests.fakes import FakeConnection, leftovers, request_bytes
from tests.tls_memory import TlsTestCase, client

MESSAGE = request_bytes(via="SIP/2.0/TLS 198.51.100.7:5062;branch=z9hG4bK1")
VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)


class PieceTests(TlsTestCase):
    """
    Records and segments have nothing to do with one another, nor with messages.
    """

    limits = LimitsConfig()

    def test_a_record_in_one_segment(self) -> None:
        for version in VERSIONS:
            peer = self.accept(client(version=version))
            for _ in range(3):
                peer.send(MESSAGE)
            self.assertEqual(self.events, [("received", MESSAGE)] * 3)
            self.events.clear()

    def test_in_any_pieces(self) -> None:
        for version in VERSIONS:
            for seed in range(30):
                chance = random.Random(seed)
                peer = self.accept(client(version=version), port=1000 + seed)
                stream = b"".join(
                    peer.seal(MESSAGE[at : at + size])
                    for _ in range(6)
                    for size in (chance.choice((1, 7, 100, 1000)),)
                    for at in range(0, len(MESSAGE), size)
                )
                while stream:
                    size = chance.choice((1, 3, 5, 40, 400, 4000))
                    peer.connection.feed(stream[:size])
                    stream = stream[size:]
                for _ in range(3):
                    peer.send(MESSAGE)
                self.assertEqual(self.events, [("received", MESSAGE)] * 9, seed)
                self.events.clear()

    def test_what_looks_like_a_record_and_is_the_rest_of_one(self) -> None:
        """
        A segment that begins inside a record may have a header's bytes there, and the length of the segment in them.
        """
        peer = self.accept(client(version=SSL.TLS1_3_VERSION))
        got: list[bytes] = []
        self.patch(SipStream, "dataReceived", lambda _, data: got.append(data))
        payload, overhead = bytes(16_000), 22
        while True:
            record = peer.seal(payload)
            for at in range(10, len(record) - 5):
                size = int.from_bytes(record[at + 3 : at + 5], "big") + 5 - (len(record) - at) - overhead
                if record[at : at + 1] == b"\x17" and 1 <= size <= 16_000:
                    peer.connection.feed(record[:at])
                    peer.connection.feed(record[at:] + peer.seal(bytes(size)))
                    self.assertEqual([len(data) for data in got], [*[len(payload)] * (len(got) - 1), size])
                    return
            peer.connection.feed(record)

    def test_the_end_of_a_handshake_in_a_record_of_its_own(self) -> None:
        """
        RFC 8446 §D.4: the change of ciphers before it is for old middleboxes, and may be missing; then the client's
        last message looks like data.
        """
        tls = client(version=SSL.TLS1_3_VERSION)
        connection = FakeConnection(
            self.reactor, self.factory.buildProtocol(IPv4Address("TCP", "198.51.100.7", 40000))
        )
        self.assertRaises(SSL.WantReadError, tls.do_handshake)
        connection.feed(tls.bio_read(2**16))
        tls.bio_write(connection.read_by_peer)
        tls.do_handshake()
        flight = tls.bio_read(2**16)
        self.assertEqual(flight[:6], b"\x14\x03\x03\x00\x01\x01")
        connection.feed(flight[6:])
        self.assertEqual(self.connections.snapshot()["transport.handshakes"], 0)
        tls.send(MESSAGE)
        connection.feed(tls.bio_read(2**16))
        self.assertEqual(self.events, [("received", MESSAGE)])

    def test_a_record_that_was_changed_ends_the_connection(self) -> None:
        peer = self.accept()
        record = bytearray(peer.seal(MESSAGE))
        record[-1] ^= 1
        peer.connection.feed(bytes(record))
        self.reactor.advance(0)
        self.assertTrue(peer.connection.disconnected)
        self.assertEqual((self.events, leftovers(self.connections)), ([], {}))

    def test_a_good_bye(self) -> None:
        peer = self.accept()
        peer.tls.shutdown()
        peer.connection.feed(peer.tls.bio_read(2**16))
        self.reactor.advance(0)
        self.assertTrue(peer.connection.disconnected)
