"""
Two real phones register by password and call each other.
"""

from __future__ import annotations

import re

from tests.interop.baresip import Baresip, write_tone
from tests.interop.certificates import write_authority, write_pair
from tests.interop.sipp import REALM, CallTestCase


class BaresipCallTests(CallTestCase):
    """
    Alice calls Bob, who answers by himself.
    """

    programs = ("baresip", "stdbuf")
    host = "127.86.1.1"
    is_guarded = True
    settings = {
        "node": {"listen": "udp:127.86.1.1:5060\n    tcp:127.86.1.1:5060\n    tls:127.86.1.1:5061"},
        "auth": {"enable": "yes"},
        "calls": {"record_file": "calls.jsonl"},
        "tls": {"certificate": "peer/node.pem", "private_key": "peer/node.key", "ca_list": "peer/ca.pem"},
    }

    def prepare(self) -> None:
        """
        Users, certificates for the node and both phones, and what these say to each other.
        """
        self.write_users("alice", "bob")
        write_tone(self.directory / "tone.wav")
        self.authority = write_authority(self.directory)
        write_pair(self.directory, "node", self.authority, addresses=(self.host,))
        for user in ("alice", "bob"):
            write_pair(self.directory, f"{user}-phone", self.authority, dns=(f"{user}.example",), is_one_file=True)

    def start(self, user: str, number: int, transport: str) -> Baresip:
        """
        @param number: of its address.
        """
        node = f"{self.host}:5061" if transport == "tls" else self.host
        phone = Baresip(
            self.directory, user, self.address(number), node, transport, f"{user}-secret", answers=user == "bob"
        )
        self.addCleanup(phone.program.kill)
        return phone

    def call_and_hang_up(self, transport: str, who_ends: str) -> None:
        """
        A call with sound in both directions, though both are behind their connections only (TCP, TLS).
        """
        phones = {"alice": self.start("alice", 2, transport), "bob": self.start("bob", 3, transport)}
        for phone in phones.values():
            phone.wait_until_registered()
        alice, bob = phones["alice"], phones["bob"]
        # Its account's ;transport= it appends by itself.
        alice.tell("dial", f"sip:bob@{self.host}" + (":5061" if transport == "tls" else ""))
        for phone in phones.values():
            phone.wait_for(r"Call established")
        for phone in phones.values():
            phone.wait_for(r"incoming rtp for 'audio' established")
        phones[who_ends].tell("hangup")
        (record,) = self.records(1)
        self.assertEqual((record["status"], record["ended_by"]), (200, "caller" if who_ends == "alice" else "callee"))
        self.assertEqual(record["user"], f"alice@{REALM}")
        self.assertTrue(record["contact"].startswith("sip:bob-"), record["contact"])
        self.assertTrue(record["source"].startswith(f"{transport}:"), record["source"])
        for phone in phones.values():
            phone.quit()
        # The INVITE reached Bob by way of the node, over the transport that he registered by.
        self.assertRegex(bob.program.text, rf"(?m)^Via: SIP/2\.0/{transport.upper()} {re.escape(self.host)}[:;]")
        self.assert_well()

    def test_over_udp_the_caller_hangs_up(self) -> None:
        """
        Alice.
        """
        self.call_and_hang_up("udp", "alice")

    def test_over_udp_the_callee_hangs_up(self) -> None:
        """
        Bob.
        """
        self.call_and_hang_up("udp", "bob")

    def test_over_tcp_the_caller_hangs_up(self) -> None:
        """
        Alice.
        """
        self.call_and_hang_up("tcp", "alice")

    def test_over_tcp_the_callee_hangs_up(self) -> None:
        """
        Bob.
        """
        self.call_and_hang_up("tcp", "bob")

    def test_over_tls_the_caller_hangs_up(self) -> None:
        """
        Alice.
        """
        self.call_and_hang_up("tls", "alice")

    def test_over_tls_the_callee_hangs_up(self) -> None:
        """
        Bob.
        """
        self.call_and_hang_up("tls", "bob")
