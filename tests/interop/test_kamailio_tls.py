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

#: A Kamailio that has no certificate where it is the client.
ANONYMOUS = """
[server:default]
method = TLSv1.2+
certificate = {folder}/node.pem
private_key = {folder}/node.key
ca_list = {folder}/ca.pem
[client:default]
method = TLSv1.2+
ca_list = {folder}/ca.pem
verify_certificate = yes
"""


class TlsTests(ClusterTestCase):
    """
    A certificate has the address of its node (C{[dmq] require_tls = 1}).
    """

    network = "127.104.10"

    def setUp(self) -> None:
        super().setUp()
        self.own = self.make_own(2)
        self.authority = write_authority(self.own.directory)
        write_pair(self.own.directory, "node", self.authority, addresses=(self.own.host,))

    def make_own(self, *numbers: int) -> Member:
        """
        The sipdmq node.

        @param numbers: of the addresses that it joins.
        """
        host = self.address(1)
        node = Member(
            host,
            *map(self.uri, numbers),
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
        self.addCleanup(self.assert_calm, node)
        self.addCleanup(node.clean_up)
        return node

    def uri(self, number: int) -> str:
        return f"sip:{self.address(number)}:5061{PARAMS}"

    def tls_kamailio(
        self, number: int, authority: Any, address: int, joins: bool = True, shows: bool = True
    ) -> Kamailio:
        """
        Start one.

        @param address: the number of the one in its certificate.
        @param joins: through our node; else it waits for that.
        @param shows: its certificate, also where it is the client.
        """
        node = Kamailio(self.address(number), *([self.uri(1)] if joins else []), params=PARAMS)
        self.addCleanup(node.clean_up)
        write_pair(node.directory, "node", authority, addresses=(self.address(address),))
        (node.directory / "ca.pem").write_bytes((self.own.directory / "ca.pem").read_bytes())
        if not shows:
            (node.directory / "tls.cfg").write_text(ANONYMOUS.format(folder=node.directory))
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

    def test_one_without_a_certificate_is_refused(self) -> None:
        self.own.start()
        kam = self.tls_kamailio(6, self.authority, 6, shows=False)
        wait_until(lambda: "its certificate is not that of" in self.own.log(), self.own.log)
        self.assert_stays_out(kam)

    def test_a_server_of_another_name_or_authority_is_told_nothing(self) -> None:
        stranger = write_authority(self.own.directory, "stranger")
        others = [
            self.tls_kamailio(7, self.authority, 8, joins=False),  # another name
            self.tls_kamailio(9, stranger, 9, joins=False),
        ]
        for other in others:
            self.assertEqual(other.nodes(), {other.host: "active"})
        known = (self.own.directory / "ca.pem").read_bytes()
        self.own = self.make_own(7, 9)
        (self.own.directory / "ca.pem").write_bytes(known)
        write_pair(self.own.directory, "node", self.authority, addresses=(self.own.host,))
        self.own.start()
        wait_until(lambda: self.own.snapshot()["transport.handshakes_failed"] >= 2, self.own.log)
        self.register(self.own, "alice", "<sip:alice@127.0.0.1:7001>")
        self.assertEqual(self.own.snapshot()["dmq.nodes_active"], 0)
        for other in others:
            self.assertEqual(other.nodes(), {other.host: "active"})
            self.assertEqual(other.contacts(), {})

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
