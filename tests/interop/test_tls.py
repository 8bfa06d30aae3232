"""
TLS, with OpenSSL's programs at the other end.
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import Any

from tests.interop.background import Background, wait_until_bound
from tests.interop.certificates import write_authority, write_pair
from tests.interop.phone import Phone, make_response
from tests.interop.programs import InteropTestCase, Output, ProgramFailed, run_program
from tests.interop.sipp import REALM, users_file

TIMEOUT = 10.0
PORT = 5061

#: What OpenSSL calls the alerts by which a server refuses.
ALERT = "alert (?:{}|number {})"


class TlsTestCase(InteropTestCase):
    """
    A node with a certificate for its address, and an authority that all trust.

    @cvar tls: more keys of C{[tls]}.
    @cvar more: more sections.
    """

    programs = ("openssl",)
    tls: dict[str, str] = {}
    more: dict[str, dict[str, str]] = {}

    def setUp(self) -> None:
        self.settings = {
            "node": {
                "listen": f"udp:{self.host}:5060\n    tcp:{self.host}:5060\n    tls:{self.host}:{PORT}",
                "domains": f"localhost {self.host} one.example two.example",
            },
            "tls": {
                "certificate": "peer/node.pem",
                "private_key": "peer/node.key",
                "ca_list": "peer/ca.pem",
                **self.tls,
            },
            **self.more,
        }
        super().setUp()

    def prepare(self) -> None:
        """
        Certificates of the node and of others.
        """
        self.not_kamailio("configured without TLS")
        self.authority = write_authority(self.directory)
        self.stranger = write_authority(self.directory, "stranger")
        write_pair(self.directory, "node", self.authority, addresses=(self.host,))
        write_pair(self.directory, "one", self.authority, dns=("one.example",))
        write_pair(self.directory, "two", self.authority, dns=("two.example",))
        write_pair(self.directory, "client", self.authority, dns=("client.example",))
        write_pair(self.directory, "forged", self.stranger, dns=("client.example",))
        (self.server.directory / "users").write_text(users_file("alice", "bob"))

    def context(self, certificate: str = "") -> ssl.SSLContext:
        """
        For a phone of our own, which trusts the authority.

        @param certificate: that it shows.
        """
        context = ssl.create_default_context(cafile=str(self.directory / "ca.pem"))
        if certificate:
            context.load_cert_chain(self.directory / f"{certificate}.pem", self.directory / f"{certificate}.key")
        return context

    def phone(self, user: str, protocol: str = "tls", password: str = "", **more: Any) -> Phone:
        """
        @param more: for L{Phone}.
        """
        port = PORT if protocol == "tls" else 5060
        context = self.context() if protocol == "tls" else None
        phone = Phone((self.host, port), user, REALM, password, protocol=protocol, tls=context, **more)
        self.addCleanup(phone.close)
        return phone

    def s_client(self, *options: str) -> Output:
        """
        Shake hands and go.
        """
        return run_program(
            ["openssl", "s_client", "-connect", f"{self.host}:{PORT}", "-CAfile", "ca.pem", *options],
            timeout=TIMEOUT,
            cwd=str(self.directory),
        )


class ServerTests(TlsTestCase):
    """
    What the node shows, and what it refuses.
    """

    host = "127.87.1.1"
    more = {
        "auth": {"enable": "yes"},
        "tls one.example": {"certificate": "peer/one.pem", "private_key": "peer/one.key"},
        "tls two.example": {"certificate": "peer/two.pem", "private_key": "peer/two.key"},
    }

    def shown(self, *options: str) -> str:
        """
        @return: the common name of the certificate that is shown, which is valid.
        """
        output = self.s_client("-verify_return_error", *options)
        self.assertEqual(output.status, 0, output.text)
        found = re.search(r"^subject=.*CN ?= ?(\S+)", output.text, re.MULTILINE)
        assert found is not None, output.text
        return found[1]

    def test_each_domain_has_its_certificate(self) -> None:
        """
        Server name indication; who names nobody, or a stranger, gets that of C{[tls]}.
        """
        for asked, name in (("one.example", "one"), ("two.example", "two"), ("TWO.example", "two"), ("x.org", "node")):
            self.assertEqual(self.shown("-servername", asked), name, asked)
        self.assertEqual(self.shown("-noservername"), "node")

    def test_versions(self) -> None:
        """
        1.2 and 1.3; what is older is refused by the node (RFC 8996), not by OpenSSL here.
        """
        for option, name in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
            output = self.s_client(option, "-verify_return_error")
            self.assertEqual(output.status, 0, output.text)
            self.assertIn(name, output.text)
        for option in ("-tls1_1", "-tls1"):
            output = self.s_client(option, "-cipher", "DEFAULT@SECLEVEL=0")
            self.assertNotEqual(output.status, 0)
            self.assertRegex(output.text, ALERT.format("protocol version", 70))
        self.assert_well()

    def test_without_forward_secrecy(self) -> None:
        """
        Is refused.
        """
        output = self.s_client("-tls1_2", "-cipher", "AES128-SHA")
        self.assertNotEqual(output.status, 0)
        self.assertRegex(output.text, ALERT.format("handshake failure", 40))

    def test_no_certificate_is_asked_for(self) -> None:
        """
        As it is by default.
        """
        self.assertIn("No client certificate CA names sent", self.s_client().text)

    def test_registers(self) -> None:
        """
        By password, from a connection that is good for more than one request; and the binding says how it came.
        """
        phone = self.phone("alice", password="alice-secret")
        self.assertEqual(phone.register().status, 200)
        (contact,) = phone.ask_challenged("REGISTER", f"sip:{REALM}").all("contact")
        self.assertIn("transport=tls", contact)
        self.assertEqual(phone.register(expires=0).all("contact"), [])
        self.assert_well()

    def test_one_who_does_not_speak_tls(self) -> None:
        """
        Is disconnected, and others are served.
        """
        with socket.create_connection((self.host, PORT), TIMEOUT) as plain:
            plain.sendall(self.server.options())
            received = plain.recv(65535)
            self.assertFalse(received.startswith(b"SIP/2.0"), received)
        self.assertEqual(self.shown("-noservername"), "node")
        self.assert_well()


class MinimumVersionTests(TlsTestCase):
    """
    C{[tls] minimum_version = 1.3}
    """

    host = "127.87.2.1"
    tls = {"minimum_version": "1.3"}

    def test_versions(self) -> None:
        """
        1.2 is refused.
        """
        self.assertEqual(self.s_client("-tls1_3", "-verify_return_error").status, 0)
        self.assertRegex(self.s_client("-tls1_2").text, ALERT.format("protocol version", 70))


class ClientCertificateTestCase(TlsTestCase):
    """
    Phones that show a certificate.
    """

    def is_served(self, certificate: str) -> bool:
        """
        Whether OPTIONS is answered.

        @param certificate: empty for none.
        """
        context = self.context(certificate)
        try:
            phone = Phone((self.host, PORT), "alice", REALM, protocol="tls", tls=context)
        except (ssl.SSLError, ConnectionError):
            return False
        try:
            # In TLS 1.3 the client has ended its handshake before the server says what it thinks of the certificate.
            return phone.send(phone.make("OPTIONS", f"sip:{self.host}")).status == 200
        except (ssl.SSLError, ConnectionError, ProgramFailed):
            return False
        finally:
            phone.close()

    def asks_for(self) -> str:
        """
        Which authorities' certificates the node says that it wants.
        """
        text = self.s_client().text
        return text[text.find("Acceptable client certificate CA names") :].partition("\nRequested")[0]


class OptionalCertificateTests(ClientCertificateTestCase):
    """
    C{[tls] verify_client = optional}
    """

    host = "127.87.3.1"
    tls = {"verify_client": "optional"}

    def test_a_wrong_one_is_refused(self) -> None:
        """
        None is good, and so is one of our authority.
        """
        self.assertIn("interop ca", self.asks_for())
        found = {certificate: self.is_served(certificate) for certificate in ("", "client", "forged")}
        self.assertEqual(found, {"": True, "client": True, "forged": False})
        self.assert_well()


class RequiredCertificateTests(ClientCertificateTestCase):
    """
    C{[tls] verify_client = require}
    """

    host = "127.87.4.1"
    tls = {"verify_client": "require"}

    def test_none_and_a_wrong_one_are_refused(self) -> None:
        """
        Only one of our authority is good.
        """
        found = {certificate: self.is_served(certificate) for certificate in ("", "client", "forged")}
        self.assertEqual(found, {"": False, "client": True, "forged": False})
        self.assert_well()


class TlsPhone:
    """
    C{openssl s_server} as a phone: it shows what it receives, and sends what it is given.
    """

    def __init__(self, program: Background, uri: str) -> None:
        self.program = program
        self.uri = uri

    def invite(self) -> str:
        """
        Wait for an INVITE.
        """
        return self.program.wait_for(r"(?s)^INVITE .*?\n\r?\n", TIMEOUT)

    def respond(self, status: str) -> None:
        """
        Answer the INVITE.
        """
        self.program.write(make_response(self.program.log.read_bytes(), status))


class ClientTests(TlsTestCase):
    """
    The node connects to others, and looks at whom it has reached.
    """

    host = "127.87.5.1"
    callee_host = "127.0.0.1"  # what every name below localhost means

    def callee(self, name: str, authority: Any, asked: str = "bob.localhost") -> TlsPhone:
        """
        Start a phone with a certificate for a name.

        @param asked: the name in its contact, and the one by which it wants to be asked for.
        """
        label = f"phone-{name}-{len(list(self.directory.iterdir()))}"
        write_pair(self.directory, label, authority, dns=(name,))
        with socket.socket() as free:
            free.bind((self.callee_host, 0))
            port = free.getsockname()[1]
        pair = (f"{label}.pem", f"{label}.key")
        program = Background(
            [
                *("openssl", "s_server", "-quiet", "-accept", f"{self.callee_host}:{port}"),
                *("-cert", pair[0], "-key", pair[1], "-cert2", pair[0], "-key2", pair[1]),
                *("-servername", asked, "-servername_fatal"),
            ],
            self.directory / f"{label}.output",
        )
        self.addCleanup(program.kill)
        wait_until_bound(program, self.callee_host, port, "tcp")
        return TlsPhone(program, f"sip:bob@{asked}:{port};transport=tls")

    def calling(self, contact: str, uri: str = "") -> Phone:
        """
        Bob is at that contact, and Alice has sent an INVITE.

        @param uri: the Request-URI.
        """
        self.assertEqual(self.phone("bob", "udp").register(contact).status, 200)
        alice = self.phone("alice", "tls" if uri.startswith("sips:") else "udp")
        alice.transmit(alice.make("INVITE", uri or f"sip:bob@{REALM}"))
        return alice

    def test_the_right_one(self) -> None:
        """
        The INVITE arrives, and what is answered to it.
        """
        bob = self.callee("bob.localhost", self.authority)
        alice = self.calling(bob.uri)
        self.assertIn("Via: SIP/2.0/TLS", bob.invite())
        bob.respond("486 Busy Here")
        self.assertEqual(alice.final().status, 486)
        self.assert_well()

    def assert_not_called(self, phone: TlsPhone, caller: Phone) -> None:
        """
        The call fails, the phone has seen nothing of it, and nothing came in the clear.
        """
        self.assertEqual(caller.final().status, 503)  # RFC 3261 §16.9
        self.assertNotIn("INVITE", phone.program.text)
        self.assert_well()

    def assert_refused(self, phone: TlsPhone) -> None:
        """
        Bob is called there, and not reached: not by UDP either, nor at the usual port.
        """
        port = int(phone.uri.partition(";")[0].rpartition(":")[2])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as same:
            same.bind((self.callee_host, port))
            same.settimeout(0.2)
            self.assert_not_called(phone, self.calling(phone.uri))
            with self.assertRaises(TimeoutError):
                same.recv(65535)

    def test_a_wrong_name(self) -> None:
        """
        RFC 5922 §7.3: a certificate of our authority, for somebody else.
        """
        self.assert_refused(self.callee("mallory.localhost", self.authority))

    def test_a_wildcard(self) -> None:
        """
        RFC 5922 §7.2: matches nothing.
        """
        self.assert_refused(self.callee("*.localhost", self.authority))

    def test_a_wrong_authority(self) -> None:
        """
        The right name, but who says so is nobody.
        """
        self.assert_refused(self.callee("bob.localhost", self.stranger))

    def test_one_who_does_not_speak_tls(self) -> None:
        """
        He sees a handshake, and no INVITE.
        """
        with socket.create_server((self.callee_host, 0)) as plain:
            plain.settimeout(TIMEOUT)
            alice = self.calling(f"sip:bob@bob.localhost:{plain.getsockname()[1]};transport=tls")
            connection, _ = plain.accept()
            with connection:
                received = connection.recv(65535)
                connection.sendall(b"SIP/2.0 200 OK\r\n\r\n")
            self.assertEqual(received[:1], b"\x16")  # RFC 8446 §5.1: handshake
            self.assertNotIn(b"INVITE", received)
            self.assertEqual(alice.final().status, 503)
        self.assert_well()

    def test_a_sips_call_to_a_phone_without_tls(self) -> None:
        """
        RFC 5630 §5.3: it does not ring.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bob:
            bob.bind((self.host, 0))
            bob.settimeout(0.2)
            alice = self.calling(f"sip:bob@{self.host}:{bob.getsockname()[1]}", f"sips:bob@{REALM}")
            self.assertEqual(alice.final().status, 480)
            with self.assertRaises(TimeoutError):
                bob.recv(65535)
        self.assert_well()

    def test_a_sips_call(self) -> None:
        """
        To a phone that has TLS.
        """
        bob = self.callee("bob.localhost", self.authority)
        alice = self.calling(bob.uri, f"sips:bob@{REALM}")
        self.assertIn("Record-Route: <sips:", bob.invite())
        bob.respond("603 Decline")
        self.assertEqual(alice.final().status, 603)
        self.assert_well()

    def test_of_two_phones_the_wrong_one_hears_nothing(self) -> None:
        """
        The other one rings.
        """
        wrong, right = self.callee("mallory.localhost", self.authority), self.callee("bob.localhost", self.authority)
        self.phone("bob", "udp").register(wrong.uri)
        alice = self.calling(right.uri)
        right.invite()
        right.respond("486 Busy Here")
        self.assertEqual(alice.final().status, 486)
        self.assertNotIn("INVITE", wrong.program.text)
        self.assert_well()
