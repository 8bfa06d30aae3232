"""
What the node shows over TLS, and what it refuses; with C{openssl s_client}.
"""

from __future__ import annotations

import re
import socket
import ssl

from tests.interop.phone import Phone
from tests.interop.programs import ProgramFailed, run_program
from tests.interop.sipp import REALM
from tests.interop.tls import PORT, TIMEOUT, TlsTestCase

#: What OpenSSL calls the alerts by which a server refuses.
ALERT = "alert (?:{}|number {})"


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

    def test_no_renegotiation(self) -> None:
        """
        Of TLS 1.2: a handshake costs us more than who asks for it, so there is one for each connection.
        """
        output = run_program(
            ["openssl", "s_client", "-connect", f"{self.host}:{PORT}", "-CAfile", "ca.pem", "-tls1_2"],
            timeout=TIMEOUT,
            cwd=str(self.directory),
            text="R\n",
        )
        self.assertIn("RENEGOTIATING", output.text)
        self.assertRegex(output.text, "no renegotiation|unexpected eof|handshake failure")
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
