"""
The node connects to others by TLS, and looks at whom it has reached; with C{openssl s_server}.
"""

from __future__ import annotations

import socket
from typing import Any

from tests.interop.phone import Phone
from tests.interop.sipp import REALM
from tests.interop.tls import TIMEOUT, TlsPhone, TlsTestCase


class ClientTests(TlsTestCase):
    """
    A phone at the other end, by its name.
    """

    host = "127.87.5.1"
    callee_host = "127.0.0.1"  # what every name below localhost means

    def callee(self, name: str, authority: Any) -> TlsPhone:
        """
        Start a phone for C{bob.localhost}, which insists on being asked for by that name.

        @param name: in its certificate.
        """
        with socket.socket() as free:
            free.bind((self.callee_host, 0))
            port = free.getsockname()[1]
        insists = ("-servername", "bob.localhost", "-servername_fatal")
        phone = self.s_server(self.callee_host, port, authority, insists, dns=(name,))
        phone.uri = f"sip:bob@bob.localhost:{port};transport=tls"
        return phone

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


POLICY = """\
class Policy:
    def route(self, request, node):
        node.relay(request, node.gateway(request, "world"))
"""


class GatewayTests(TlsTestCase):
    """
    Two gateways, by their addresses.
    """

    host = "127.87.6.1"
    more = {
        "node": {"policy": "tls_routing:Policy"},
        "gateway world": {
            "target": "sip:127.87.6.11:5061;transport=tls priority 2\n    sip:127.87.6.12:5061;transport=tls",
            "probe_interval": "0",
        },
    }

    def prepare(self) -> None:
        """
        The policy, too.
        """
        super().prepare()
        (self.server.directory / "tls_routing.py").write_text(POLICY)

    def test_the_first_is_not_who_it_should_be(self) -> None:
        """
        The call goes to the second.
        """
        wrong = self.s_server("127.87.6.11", 5061, self.authority, addresses=("127.87.6.12",))
        right = self.s_server("127.87.6.12", 5061, self.authority, addresses=("127.87.6.12",))
        alice = self.phone("alice", "udp")
        alice.transmit(alice.make("INVITE", f"sip:123@{REALM}"))
        self.assertIn("INVITE sip:123@127.87.6.12:5061;transport=tls SIP/2.0", right.invite())
        right.respond("486 Busy Here")
        self.assertEqual(alice.final().status, 486)
        self.assertNotIn("INVITE", wrong.program.text)
        self.assert_well()
