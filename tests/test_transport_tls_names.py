"""
C{sips:}, C{transport=tls} and what messages over TLS say of us, where a whole transport layer or resolver is needed.
"""

from __future__ import annotations

from sipdmq.config import TLSConfig, TLSDomainConfig
from sipdmq.errors import UnreachableError
from sipdmq.records import Listener, Protocol, Source, Target
from sipdmq.sip.uri import parse_sip_uri
from sipdmq.transport.layer import TransportLayer, stamp_source
from tests.fakes import TCP, UDP, request
from tests.test_config import ConfigTestCase
from tests.test_transport_resolve import ResolveTestCase, a, naptr, srv
from tests.tls_memory import TLS, TlsTestCase


class SipsTests(ResolveTestCase):
    """
    RFC 5630 §3, RFC 3261 §26.2.2: what is meant for C{sips:} goes over TLS and nothing else.
    """

    def setUp(self) -> None:
        super().setUp()
        self.with_tls()

    def test_numeric(self) -> None:
        for uri, expected in (
            ("sips:192.0.2.1", "tls:192.0.2.1:5061"),
            ("sips:192.0.2.1:5070", "tls:192.0.2.1:5070"),
            ("sips:192.0.2.1;transport=tcp", "tls:192.0.2.1:5061"),
            ("sips:192.0.2.1;transport=TLS", "tls:192.0.2.1:5061"),
            ("sip:192.0.2.1;transport=tls", "tls:192.0.2.1:5061"),
            ("sip:192.0.2.1;transport=tcp", "tcp:192.0.2.1:5060"),
            ("sip:192.0.2.1:5061", "udp:192.0.2.1:5061"),
        ):
            self.assertEqual(self.ask(uri), [expected], uri)

    def test_udp_is_refused(self) -> None:
        self.assertIn("no listener for this transport", self.refuse("sips:192.0.2.1;transport=udp"))

    def test_without_a_tls_listener_it_goes_nowhere(self) -> None:
        self.protocols = (Protocol.UDP, Protocol.TCP)
        for uri in ("sips:192.0.2.1", "sips:192.0.2.1;transport=tcp", "sip:192.0.2.1;transport=tls"):
            self.assertIn("no listener for this transport", self.refuse(uri))

    def test_srv(self) -> None:
        table = {
            "_sip._udp.one.example SRV": [srv(0, 0, 5060, "h.example")],
            "_sip._tcp.one.example SRV": [srv(0, 0, 5060, "h.example")],
            "_sips._tcp.one.example SRV": [srv(0, 0, 5071, "h.example")],
            "h.example A": [a("192.0.2.1")],
        }
        for uri in ("sips:one.example", "sips:one.example;transport=tcp", "sip:one.example;transport=tls"):
            (target,) = self.successResultOf(self.make(table).resolve(parse_sip_uri(uri)))
            self.assertEqual((str(target), target.name), ("tls:192.0.2.1:5071", "one.example"), uri)

    def test_naptr_that_names_no_sips_service_is_of_no_use(self) -> None:
        table = {
            "one.example NAPTR": [naptr(1, 1, "SIP+D2T", "_sip._tcp.one.example")],
            "_sip._tcp.one.example SRV": [srv(0, 0, 5060, "h.example")],
            "one.example A": [a("192.0.2.9")],
            "h.example A": [a("192.0.2.1")],
        }
        self.assertEqual(self.ask("sips:one.example", table), ["tls:192.0.2.9:5061"])

    def test_the_certificate_has_to_show_the_domain_and_not_the_host(self) -> None:
        """
        RFC 5922 §4: DNS is not trusted to say who the server is.
        """
        table = {"_sips._tcp.one.example SRV": [srv(0, 0, 5061, "evil.example")], "evil.example A": [a("192.0.2.6")]}
        (target,) = self.successResultOf(self.make(table).resolve(parse_sip_uri("sips:one.example")))
        self.assertEqual((target.host, target.name), ("192.0.2.6", "one.example"))


class LayerTests(TlsTestCase):
    def setUp(self) -> None:
        super().setUp()
        advertised = Listener(Protocol.TLS, "192.0.2.1", 5061, "sip.example.org", 15061)
        self.layer = TransportLayer(
            self.reactor, self.reactor, self.connections._ids, (UDP, TCP, advertised), self.limits, self.tls
        )

    def target(self, via: str) -> Target:
        source = Source(Protocol.TLS, "198.51.100.7", 40000, TLS, "flow1")
        message = request(via=f"SIP/2.0/TLS {via};branch=z9hG4bK1")
        stamp_source(message, source)
        return self.layer.response_target(message, source)

    def test_sent_by(self) -> None:
        self.assertEqual(self.layer.sent_by(Target(Protocol.TLS, "198.51.100.7", 5061)), "TLS sip.example.org:15061")
        self.assertRaises(UnreachableError, self.layer.sent_by, Target(Protocol.TLS, "2001:db8::1", 5061))

    def test_a_response_goes_over_the_connection(self) -> None:
        target = self.target("10.0.0.9:5099")
        self.assertEqual((target.protocol, target.flow, target.port, target.name), (Protocol.TLS, "flow1", 5099, ""))

    def test_where_it_is_gone_a_new_one_has_to_lead_to_the_sent_by(self) -> None:
        """
        RFC 3261 §18.2.2, with the default port of TLS.
        """
        target = self.target("proxy.example.org;rport")
        self.assertEqual((target.host, target.port, target.name), ("198.51.100.7", 5061, "proxy.example.org"))
        self.assertEqual(self.target("[2001:db8::9]").name, "")

    def test_it_is_reliable(self) -> None:
        self.assertTrue(self.layer.is_reliable(Target(Protocol.TLS, "198.51.100.7", 5061)))


class ConfigTests(ConfigTestCase):
    """
    C{[tls]} and C{[tls DOMAIN]}.
    """

    NODE = "[node]\nlisten = tls:127.0.0.1\n[tls]\ncertificate = a.pem\n"

    def test_default_port(self) -> None:
        (listener,) = self.load(self.NODE.replace("127.0.0.1", "127.0.0.1 advertise sip.example.org")).node.listen
        self.assertEqual(listener, Listener(Protocol.TLS, "127.0.0.1", 5061, "sip.example.org", 5061))

    def test_values(self) -> None:
        loaded = self.load(
            self.NODE + "private_key = a.key\nca_list = ca.pem\nminimum_version = 1.3\nciphers = ECDHE\n"
            "verify_client = require\n[tls One.Example]\ncertificate = one.pem\nprivate_key = one.key\n"
        )
        self.assertEqual(loaded.tls, TLSConfig("a.pem", "a.key", "ca.pem", "1.3", "ECDHE", "require"))
        self.assertEqual(loaded.tls_domains, {"one.example": TLSDomainConfig("one.pem", "one.key")})

    def test_what_is_wrong(self) -> None:
        for text, expected in (
            ("[node]\nlisten = tls:127.0.0.1\n", "[tls] certificate: is missing; the listener tls:127.0.0.1:5061"),
            (self.NODE + "verify_client = optional\n", "[tls] ca_list: is missing; 'verify_client = optional' needs"),
            (self.NODE + "verify_client = yes\n", "[tls] verify_client: 'yes': must be one of none, optional, require"),
            (self.NODE + "minimum_version = 1.1\n", "[tls] minimum_version: '1.1': must be one of 1.2, 1.3"),
            (self.NODE + "[tls one.example]\n", "[tls one.example] certificate: is missing"),
            ("[tls one.example]\ncertificate = a\n", "[tls] certificate: is missing; who asks for no domain needs one"),
            (self.NODE + "[tls 192.0.2.1]\n", "[tls 192.0.2.1]: must read [tls DOMAIN], as [tls example.org]"),
            (self.NODE + "[tls a b]\n", "[tls a b]: must read [tls DOMAIN]"),
            (self.NODE + "[tls  a]\n", "[tls  a]: must read [tls DOMAIN]"),
            (self.NODE + "[tls A.B]\ncertificate=x\n[tls a.b]\n", "[tls a.b]: the section is there twice"),
            (self.NODE + "[tls a.b]\nciphers = x\n", "[tls a.b] ciphers: unknown key; the keys of [tls a.b] are"),
        ):
            self.assertTrue(self.refused(text).startswith(expected), self.refused(text))
