"""
KDMQ over TLS, both sides with certificates.
"""

from __future__ import annotations

import os
import ssl
from typing import Any

from tests.interop.certificates import write_authority, write_pair
from tests.interop.cluster import ClusterTestCase, Kamailio, Member, wait_until
from tests.interop.phone import TIMEOUT, Phone
from tests.interop.programs import ProgramFailed

PARAMS = ";transport=tls"


class TlsTests(ClusterTestCase):
    """
    A certificate has the address of its node (C{[dmq] require_tls = 1}).
    """

    network = "127.104.10"

    def setUp(self) -> None:
        super().setUp()
        host = self.address(1)
        self.own = Member(
            host,
            self.uri(2),
            settings={
                "node": {"listen": f"udp:{host}:5060\n    tcp:{host}:5060\n    tls:{host}:5061"},
                "tls": {
                    "certificate": "node.pem",
                    "private_key": "node.key",
                    "ca_list": "ca.pem",
                    "verify_client": "optional",
                },
                "dmq": {"server_address": self.uri(1), "require_tls": "1"},
            },
        )
        self.authority = write_authority(self.own.directory)
        write_pair(self.own.directory, "node", self.authority, addresses=(host,))
        self.addCleanup(self.assert_calm, self.own)
        self.addCleanup(self.own.clean_up)

    def uri(self, number: int) -> str:
        return f"sip:{self.address(number)}:5061{PARAMS}"

    def tls_kamailio(self, number: int, authority: Any, address: int) -> Kamailio:
        """
        Start one.

        @param address: the number of the one in its certificate.
        """
        node = Kamailio(self.address(number), self.uri(1), params=PARAMS)
        self.addCleanup(node.clean_up)
        write_pair(node.directory, "node", authority, addresses=(self.address(address),))
        (node.directory / "ca.pem").write_bytes((self.own.directory / "ca.pem").read_bytes())
        node.environment = {"TLS_DIR": str(node.directory), "DMQ_PORT": "5061"}
        node.start()
        return node

    def test_changes_both_ways(self) -> None:
        kam = self.tls_kamailio(2, self.authority, 2)
        self.register(kam, "alice", "<sip:alice@127.0.0.1:7001>")
        self.own.start()
        wait_until(lambda: kam.nodes().get(self.own.host) == "active", kam.nodes)
        wait_until(lambda: self.own.count == 1, self.own.log)
        self.register(self.own, "bob", "<sip:bob@127.0.0.1:7002>")
        self.register(kam, "carol", "<sip:carol@127.0.0.1:7003>")
        wait_until(lambda: self.own.count == len(kam.contacts()) == 3, kam.contacts)
        self.assertEqual(self.own.kdmq("usrloc", '{"action":3}').split()[1], "403")  # not over TLS

    def test_another_name_is_refused(self) -> None:
        self.own.start()
        kam = self.tls_kamailio(3, self.authority, 4)
        wait_until(lambda: "its certificate is not that of" in self.own.log(), self.own.log)
        self.assert_stays_out(kam)

    def test_another_authority_is_refused(self) -> None:
        stranger = write_authority(self.own.directory, "stranger")
        self.own.start()
        kam = self.tls_kamailio(5, stranger, 5)
        wait_until(lambda: self.own.snapshot()["transport.handshakes_failed"], self.own.log)
        self.assert_stays_out(kam)

    def assert_stays_out(self, kam: Kamailio) -> None:
        """
        What is registered there does not come here.
        """
        self.register(kam, "mallory", "<sip:mallory@127.0.0.1:7001>")
        self.assertEqual(self.own.snapshot()["dmq.nodes_active"], 0)
        self.assertEqual(self.own.count, 0)

    def test_no_certificate_is_refused(self) -> None:
        self.own.start()
        context = ssl.create_default_context(cafile=os.fspath(self.own.directory / "ca.pem"))
        try:
            phone = Phone((self.own.host, 5061), "x", "localhost", protocol="tls", tls=context)
            self.addCleanup(phone.close)
            answer = phone.send(phone.make("KDMQ", f"sip:usrloc@{self.own.host}:5061{PARAMS}"))
            self.assertEqual(answer.status, 403)
        except (OSError, ProgramFailed) as error:
            raise AssertionError(f"no answer within {TIMEOUT} s") from error
