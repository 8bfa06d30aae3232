"""
Certificates made on the spot, and the other end of a TLS connection without any network.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.config import LimitsConfig, TLSConfig, TLSDomainConfig
from sipdmq.records import Listener, Protocol, Source, Target
from sipdmq.transport.connections import Connections
from sipdmq.transport.tls import TlsContexts
from tests.fakes import Events, FakeConnection, make_ids

_SCRIPT = Path(__file__).parents[1] / "etc" / "make_certs.py"
_spec = importlib.util.spec_from_file_location("make_certs", _SCRIPT)
assert _spec is not None and _spec.loader is not None
make_certs: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_certs)

TLS = Listener(Protocol.TLS, "192.0.2.1", 5061, "192.0.2.1", 5061)
PEER = Target(Protocol.TLS, "198.51.100.7", 5061, name="one.example")
AUTHORITY = make_certs.make("authority")
STRANGER = make_certs.make("another authority")


def pair(*dns: str, authority: Any = AUTHORITY, **more: Any) -> Any:
    """
    A certificate for DNS names, and its key.
    """
    return make_certs.make("test", authority, dns=dns, **more)


class Peer:
    """
    OpenSSL at the other end of a L{FakeConnection}.

    @ivar received: what it has read, decrypted.
    @ivar failed: why it gave up; empty while it has not.
    """

    def __init__(self, connection: FakeConnection, tls: SSL.Connection) -> None:
        self.connection = connection
        self.tls = tls
        self.received = b""
        self.failed = ""
        self.is_done = False
        self._taken = 0

    def exchange(self) -> None:
        """
        Bytes both ways until nobody has any more.
        """
        for _ in range(20):
            self._read()
            try:
                data = self.tls.bio_read(2**16)
            except SSL.WantReadError:
                if len(self.connection.read_by_peer) == self._taken:
                    return
                continue
            self.connection.feed(data)

    def _read(self) -> None:
        self.connection.flush()
        data = self.connection.read_by_peer[self._taken :]
        self._taken += len(data)
        if data:
            self.tls.bio_write(data)
        try:
            if not self.is_done:
                self.tls.do_handshake()
                self.is_done = True
            while True:
                self.received += self.tls.recv(2**14)
        except (SSL.WantReadError, SSL.ZeroReturnError):
            pass
        except SSL.Error as error:
            self.failed = str(error) or "failed"

    def send(self, data: bytes) -> None:
        """
        Encrypted, in one record.
        """
        self.connection.feed(self.seal(data))

    def seal(self, data: bytes) -> bytes:
        """
        The record, not sent.
        """
        self.tls.send(data)
        return self.tls.bio_read(2**16)


def client(trusts: Any = AUTHORITY, shows: Any = None, name: str = "", version: int = 0) -> SSL.Connection:
    """
    @param trusts: the authority; L{None}: anybody.
    @param shows: its own certificate.
    @param name: asked for.
    @param version: the only one that it speaks.
    """
    context = _context(trusts, shows, version)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    if name:
        connection.set_tlsext_host_name(name.encode())
    return connection


def server(shows: Any, version: int = 0) -> SSL.Connection:
    """
    Accepts anybody.
    """
    connection = SSL.Connection(_context(None, shows, version), None)
    connection.set_accept_state()
    return connection


def _context(trusts: Any, shows: Any, version: int) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    if version:
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")  # OpenSSL itself would refuse TLS 1.1
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    if trusts is not None:
        store = context.get_cert_store()
        assert store is not None
        store.add_cert(crypto.X509.from_cryptography(trusts.certificate))
        context.set_verify(SSL.VERIFY_PEER)
    if shows is not None:
        context.use_certificate(crypto.X509.from_cryptography(shows.certificate))
        context.use_privatekey(crypto.PKey.from_cryptography_key(shows.key))
    return context


class TlsTestCase(SynchronousTestCase):
    """
    The connections of a node that speaks TLS; its files lie in C{folder}.
    """

    limits = LimitsConfig(
        connections=5, connections_per_source=3, handshake_timeout=10.0, write_buffer=2**17, message_timeout=30.0
    )

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.reactor = MemoryReactorClock()
        self.events: Events = []
        self.sources: list[Source] = []
        self.own = pair("node.example", uses=("server", "client"))
        self.write("server", self.own)
        self.write("ca", AUTHORITY)
        self.connect()

    def write(self, name: str, made: Any) -> None:
        (self.folder / f"{name}.pem").write_bytes(made.certificate_pem)
        (self.folder / f"{name}.key").write_bytes(made.key_pem)

    def contexts(self, domains: Any = (), **keys: str) -> TlsContexts:
        config = TLSConfig(**{"certificate": "server.pem", "private_key": "server.key", "ca_list": "ca.pem", **keys})
        sections = {domain: TLSDomainConfig(f"{domain}.pem", f"{domain}.key") for domain in domains}
        return TlsContexts(str(self.folder / "node.ini"), config, sections, self.reactor)

    def connect(self, domains: Any = (), **keys: str) -> None:
        """
        Make the node's end anew.
        """
        self.tls = self.contexts(domains, **keys)
        self.connections = Connections(
            self.reactor, self.reactor, make_ids(), self.limits, self.received, self.failed, self.tls
        )
        self.factory = self.connections.factory(TLS)

    def received(self, data: bytes, source: Source) -> None:
        self.events.append(("received", data))
        self.sources.append(source)

    def failed(self, target: Target, reason: str) -> None:
        self.events.append(("failed", str(target), reason))

    def accept(self, tls: SSL.Connection | None = None, host: str = "198.51.100.7", port: int = 40000) -> Any:
        """
        A peer connects and shakes hands.

        @return: L{None} if it is turned away.
        """
        protocol = self.factory.buildProtocol(IPv4Address("TCP", host, port))
        if protocol is None:
            return None
        peer = Peer(FakeConnection(self.reactor, protocol), tls or client())
        peer.exchange()
        return peer

    def establish(self, shows: Any, attempt: int = -1, version: int = 0) -> Peer:
        """
        What we have been connecting to accepts, and shows a certificate.
        """
        protocol = self.reactor.tcpClients[attempt][2].buildProtocol(None)
        peer = Peer(FakeConnection(self.reactor, protocol), server(shows, version))
        peer.exchange()
        self.reactor.advance(0)
        return peer

    def send(self, target: Target = PEER, data: bytes = b"data") -> None:
        self.connections.send(data, target, TLS)
