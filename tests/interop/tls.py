"""
A node with TLS, and OpenSSL's programs at the other end.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

from tests.interop.background import Background, wait_until_bound
from tests.interop.certificates import write_authority, write_pair
from tests.interop.phone import Phone, make_response
from tests.interop.programs import InteropTestCase, Output, run_program
from tests.interop.sipp import REALM, users_file

__all__ = ["PORT", "TIMEOUT", "TlsPhone", "TlsTestCase"]

#: Seconds that one of these programs may take.
TIMEOUT = 10.0

PORT = 5061


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
        self.settings: dict[str, dict[str, str]] = {
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
        }
        for section, keys in self.more.items():
            self.settings.setdefault(section, {}).update(keys)
        self._servers = 0
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

    def s_server(
        self, host: str, port: int, authority: Any, options: Sequence[str] = (), **names: Sequence[str]
    ) -> TlsPhone:
        """
        Somebody whom the node shall call.

        @param names: in its certificate: C{dns}, C{addresses}.
        """
        self._servers += 1
        label = f"server{self._servers}"
        write_pair(self.directory, label, authority, **names)
        program = Background(
            [
                *("openssl", "s_server", "-quiet", "-accept", f"{host}:{port}"),
                *("-cert", f"{label}.pem", "-key", f"{label}.key", "-cert2", f"{label}.pem", "-key2", f"{label}.key"),
                *options,
            ],
            self.directory / f"{label}.output",
        )
        self.addCleanup(program.kill)
        wait_until_bound(program, host, port, "tcp")
        return TlsPhone(program)


class TlsPhone:
    """
    C{openssl s_server} as a phone: it shows what it receives, and sends what it is given.

    @ivar uri: where it is registered.
    """

    def __init__(self, program: Background) -> None:
        self.program = program
        self.uri = ""

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
