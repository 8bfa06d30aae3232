"""
TLS: whom a certificate speaks for, the files, and what is shown to whom.
"""

from __future__ import annotations

import os
import stat
import sys
from io import StringIO
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.errors import ConfigError, UnreachableError
from sipdmq.transport import tls
from sipdmq.transport.identity import check_identity
from sipdmq.transport.tls import LOOK_INTERVAL
from tests.tls_memory import AUTHORITY, STRANGER, TlsTestCase, client, make_certs, pair


class IdentityTestCase(SynchronousTestCase):
    def is_of(self, name: str, common: str = "nobody", **names: Any) -> bool:
        """
        Whether a certificate with these names is taken for that of C{name}.
        """
        certificate = make_certs.make(common, AUTHORITY, **names).certificate
        try:
            check_identity(certificate, name)
        except UnreachableError:
            return False
        return True


class FindingTests(IdentityTestCase):
    """
    RFC 5922 §7.1, Finding SIP Identities in a Certificate.
    """

    def test_a_sip_uri_is_an_identity(self) -> None:
        self.assertTrue(self.is_of("one.example", uris=["sip:one.example"]))
        self.assertTrue(self.is_of("one.example", uris=["SIP:one.example"]))
        self.assertFalse(self.is_of("two.example", uris=["sip:one.example"]))

    def test_other_schemes_are_none(self) -> None:
        """
        "If the scheme of the URI is not "sip", then the implementation MUST NOT accept the value".
        """
        for uri in ("sips:one.example", "https://one.example", "xmpp:one.example", "urn:one.example"):
            self.assertFalse(self.is_of("one.example", uris=[uri]), uri)

    def test_a_user_is_no_domain(self) -> None:
        """
        "a value with a userpart identifies an individual user, not a domain"
        """
        for uri in ("sip:alice@one.example", "sip:alice:pw@one.example", "sip:@one.example"):
            self.assertFalse(self.is_of("one.example", uris=[uri]), uri)

    def test_dns_names_count_where_there_is_no_sip_uri(self) -> None:
        """
        "if and only if no other identity is found that matches the "sip" URI type"
        """
        self.assertTrue(self.is_of("one.example", dns=["one.example"]))
        self.assertTrue(self.is_of("one.example", dns=["one.example"], uris=["https://x.example", "sip:a@x.example"]))
        self.assertFalse(self.is_of("one.example", dns=["one.example"], uris=["sip:two.example"]))
        self.assertTrue(self.is_of("two.example", dns=["one.example"], uris=["sip:two.example"]))

    def test_the_common_name_counts_without_any_other_name(self) -> None:
        """
        "If and only if the subjectAltName does not appear in the certificate, the implementation MAY examine the CN".
        """
        self.assertTrue(self.is_of("one.example", "one.example"))
        self.assertFalse(self.is_of("one.example", "one.example", dns=["two.example"]))
        self.assertFalse(self.is_of("one.example", "one.example", addresses=["192.0.2.1"]))
        self.assertFalse(self.is_of("one.example", "The One Company"))

    def test_one_name_that_cannot_be_read_does_not_spoil_the_others(self) -> None:
        """
        service_identity's own C{extract_patterns} fails on these.
        """
        for uri in ("sip:x.example:5061", "urn:uuid:f81d4fae", "sip:[2001:db8::1]", "nothing", "sip:192.0.2.1"):
            self.assertTrue(self.is_of("one.example", uris=[uri, "sip:one.example"]), uri)
        self.assertTrue(self.is_of("one.example", dns=["192.0.2.1", "one.example"]))


class ComparingTests(IdentityTestCase):
    """
    RFC 5922 §7.2, Comparing SIP Identities.
    """

    def test_case_does_not_count(self) -> None:
        self.assertTrue(self.is_of("One.Example", uris=["sip:oNE.eXAMPLE"]))
        self.assertTrue(self.is_of("one.example", dns=["ONE.example"]))

    def test_port_and_parameters_do_not_count(self) -> None:
        """
        "an implementation MUST NOT use any scheme or parameters in the comparison"
        """
        self.assertTrue(self.is_of("one.example", uris=["sip:one.example:5061;transport=tls"]))

    def test_no_wildcards(self) -> None:
        """
        "Implementations MUST NOT match any form of wildcard, such as a leading "." or "*.""
        """
        for name in ("*.one.example", ".one.example", "*.example"):
            self.assertFalse(self.is_of("sip.one.example", dns=[name]), name)
        self.assertFalse(self.is_of("sip.one.example", "*.one.example"))

    def test_no_suffixes(self) -> None:
        self.assertFalse(self.is_of("sip.one.example", uris=["sip:one.example"], dns=["one.example"]))
        self.assertFalse(self.is_of("one.example", dns=["sip.one.example"]))

    def test_addresses(self) -> None:
        """
        Beyond RFC 5922: who is named by his address has to have that in his certificate.
        """
        addresses = ["192.0.2.1", "2001:db8::1"]
        self.assertTrue(self.is_of("192.0.2.1", addresses=addresses))
        self.assertTrue(self.is_of("2001:DB8:0::1", addresses=addresses, uris=["sip:one.example"]))
        self.assertFalse(self.is_of("192.0.2.2", addresses=addresses))
        self.assertFalse(self.is_of("192.0.2.1", dns=["192.0.2.1"]))
        self.assertFalse(self.is_of("192.0.2.1", "192.0.2.1"))

    def test_a_name_that_is_none_is_nobodys(self) -> None:
        for name in ("", "a b", "one.example\0", "*"):
            self.assertFalse(self.is_of(name, dns=["one.example"]), name)


class FileTests(TlsTestCase):
    """
    What is wrong with a file is told at start, with the section and key that name it.
    """

    def refused(self, domains: Any = (), **keys: str) -> str:
        error = self.assertRaises(ConfigError, self.contexts, domains, **keys)
        return str(error).partition("node.ini: ")[2]

    def test_interface(self) -> None:
        verifyObject(IOpenSSLServerConnectionCreator, self.tls)

    def test_missing(self) -> None:
        for key in ("certificate", "private_key", "ca_list"):
            self.assertEqual(
                self.refused(**{key: "no.pem"}), f"[tls] {key}: 'no.pem' cannot be read: No such file or directory"
            )

    def test_without_what_it_should_have(self) -> None:
        (self.folder / "empty").write_bytes(b"")
        broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        (self.folder / "broken").write_bytes(broken)
        for key in ("certificate", "ca_list"):
            self.assertIn(f"[tls] {key}: 'empty' has no certificate", self.refused(**{key: "empty"}))
            self.assertIn(f"[tls] {key}: 'broken' has a certificate that cannot", self.refused(**{key: "broken"}))
        self.assertIn("[tls] private_key: 'empty' has no private key", self.refused(private_key="empty"))
        self.assertIn("[tls] private_key: 'server.pem' has no private key", self.refused(private_key=""))

    def test_a_key_with_a_passphrase_asks_nobody(self) -> None:
        pem = self.own.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        (self.folder / "locked").write_bytes(pem)
        self.assertIn("without a passphrase", self.refused(private_key="locked"))

    def test_the_key_of_another_certificate(self) -> None:
        self.write("other", pair("x.example"))
        self.assertEqual(self.refused(private_key="other.key"), "[tls] private_key: does not belong to the certificate")

    def test_of_a_domain(self) -> None:
        self.assertIn("[tls one.example] certificate: 'one.example.pem' cannot be read", self.refused(["one.example"]))

    def test_ciphers_that_openssl_does_not_know(self) -> None:
        for ciphers in ("NOTHING", "caf\u00e9"):
            self.assertEqual(
                self.refused(ciphers=ciphers), f"[tls] ciphers: '{ciphers}': OpenSSL knows no such ciphers"
            )

    def test_key_and_certificate_in_one_file(self) -> None:
        (self.folder / "both").write_bytes(self.own.key_pem + self.own.certificate_pem)
        self.contexts(certificate="both", private_key="")


class ChangingFileTests(TlsTestCase):
    """
    Files are read again when they have changed; a connection that exists keeps what it was made with.
    """

    def shown(self) -> Any:
        """
        The certificate that a new connection is shown.
        """
        peer = self.accept(client(None))
        certificate = peer.tls.get_peer_certificate().to_cryptography()
        peer.connection.abortConnection()
        self.reactor.advance(0)
        return certificate

    def test_a_new_certificate(self) -> None:
        old = self.accept()
        new = pair("node.example")
        self.write("server", new)
        self.assertEqual(self.shown(), self.own.certificate)
        self.reactor.advance(LOOK_INTERVAL)
        self.assertEqual(self.shown(), new.certificate)
        old.send(b"\r\n\r\n")
        old.exchange()
        self.assertEqual(old.received, b"\r\n")

    def test_a_broken_one_leaves_the_old_and_is_told_once(self) -> None:
        messages: list[str] = []

        class Log:
            def error(self, text: str, **fields: Any) -> None:
                messages.append(text.format(**fields))

            def info(self, text: str, **fields: Any) -> None:
                messages.append("read again")

            warn = error

        self.patch(tls, "log", Log())
        new = pair("node.example")
        (self.folder / "server.pem").write_bytes(new.certificate_pem)  # its key has not arrived yet
        for _ in range(3):
            self.reactor.advance(LOOK_INTERVAL)
            self.assertEqual(self.shown(), self.own.certificate)
        self.assertEqual(len(messages), 1)
        self.assertIn("[tls] private_key: does not belong to the certificate", messages[0])
        (self.folder / "server.key").write_bytes(new.key_pem)
        self.reactor.advance(LOOK_INTERVAL)
        self.assertEqual(self.shown(), new.certificate)
        self.assertEqual(messages[1:], ["read again"])

    def test_a_file_that_disappears(self) -> None:
        (self.folder / "server.key").unlink()
        self.reactor.advance(LOOK_INTERVAL)
        self.assertEqual(self.shown(), self.own.certificate)


class ServerNameTests(TlsTestCase):
    """
    RFC 6066 §3: a certificate for each domain; C{[tls]}'s for all others.
    """

    def shown(self, name: str) -> Any:
        return self.accept(client(name=name), host=f"192.0.2.{len(name)}").tls.get_peer_certificate().to_cryptography()

    def test_each_gets_its_own(self) -> None:
        made = {domain: pair(domain) for domain in ("one.example", "b.example")}
        for domain, each in made.items():
            self.write(domain, each)
        self.connect(made)
        for name, expected in (
            ("one.example", made["one.example"]), ("B.EXAMPLE", made["b.example"]),
            ("", self.own), ("sip.one.example", self.own),
        ):  # fmt: skip
            self.assertEqual(self.shown(name), expected.certificate, name)


class VersionTests(TlsTestCase):
    """
    RFC 8996: "TLS 1.0 MUST NOT be used", nor 1.1.
    """

    def works(self, version: int) -> bool:
        peer = self.accept(client(version=version))
        done = peer.is_done and not peer.failed
        peer.connection.abortConnection()
        self.reactor.advance(0)
        return done

    def test_from_1_2(self) -> None:
        versions = (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION, SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)
        self.assertEqual([self.works(version) for version in versions], [False, False, True, True])

    def test_1_3_alone(self) -> None:
        self.connect(minimum_version="1.3")
        self.assertEqual([self.works(version) for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)], [False, True])


class ClientCertificateTests(TlsTestCase):
    """
    C{verify_client}: with TLS 1.3 the client hears only after its handshake that it is refused.
    """

    def test_who_is_let_in(self) -> None:
        good = make_certs.make("c", AUTHORITY, dns=["c.example"], uses=["client"])
        wrong = make_certs.make("c", STRANGER, dns=["c.example"], uses=["client"])
        expired = make_certs.make("c", AUTHORITY, dns=["c.example"], uses=["client"], days=-1)
        for setting, expected in (
            ("none", (True, True, True, True)),
            ("optional", (True, True, False, False)),
            ("require", (False, True, False, False)),
        ):
            self.connect(verify_client=setting)
            for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
                let_in = []
                for shows in (None, good, wrong, expired):
                    peer = self.accept(client(shows=shows, version=version))
                    self.reactor.advance(0)
                    let_in.append(not peer.failed and not peer.connection.disconnected)
                    peer.connection.abortConnection()
                    self.reactor.advance(0)
                self.assertEqual(tuple(let_in), expected, (setting, version))


class MakeCertsTests(SynchronousTestCase):
    """
    C{make certs}.
    """

    def test_files(self) -> None:
        self.patch(sys, "stdout", StringIO())
        folder = Path(self.mktemp())
        self.assertEqual(make_certs.main([str(folder)]), 0)
        names = ("ca", "client", "one.example", "server", "two.example")
        self.assertEqual(
            sorted(os.listdir(folder)), sorted(f"{name}.{end}" for name in names for end in ("key", "pem"))
        )
        for name in names:
            self.assertEqual(stat.S_IMODE((folder / f"{name}.key").stat().st_mode), 0o600)
        before = (folder / "ca.pem").read_bytes()
        self.assertEqual(make_certs.main([str(folder)]), 0)
        self.assertEqual((folder / "ca.pem").read_bytes(), before)
