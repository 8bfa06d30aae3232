"""
Two real phones register by password and call each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from unittest import SkipTest

from tests.interop.baresip import CONTROL_PORT, Baresip, write_tone
from tests.interop.certificates import write_authority, write_pair
from tests.interop.programs import require_ipv6
from tests.interop.sipp import REALM, CallTestCase

LOOPBACK = "::1"
"""Where the node and both phones are in the tests of IPv6: every machine that has IPv6 has it."""
NODE_PORT = 5092


def settings_for(*listeners: str) -> dict[str, dict[str, str]]:
    """
    @return: of a node that listens there.
    """
    return {
        "node": {"listen": "".join(f"\n    {each}" for each in listeners)},
        "auth": {"enable": "yes"},
        "calls": {"record_file": "calls.jsonl"},
        "tls": {"certificate": "peer/node.pem", "private_key": "peer/node.key", "ca_list": "peer/ca.pem"},
    }


class BaresipCallTestCase(CallTestCase):
    """
    Alice calls Bob, who answers by himself.
    """

    programs = ("baresip", "stdbuf")
    is_guarded = True

    def prepare(self) -> None:
        """
        Users, certificates for the node and both phones, and what these say to each other.
        """
        self.write_users("alice", "bob")
        write_tone(self.directory / "tone.wav")
        self.authority = write_authority(self.directory)
        write_pair(self.directory, "node", self.authority, addresses=(self.host, LOOPBACK))
        for user in ("alice", "bob"):
            write_pair(self.directory, f"{user}-phone", self.authority, dns=(f"{user}.example",), is_one_file=True)

    def node(self, transport: str) -> str:
        """
        @return: host and port at which the phones meet the node, as a URI has them.
        """
        return f"{self.host}:5061" if transport == "tls" else self.host

    def place(self, number: int) -> tuple[str, int]:
        """
        @param number: of a phone.
        @return: its address, and its port there for what it is told.
        """
        return self.address(number), CONTROL_PORT

    def start(self, user: str, number: int, transport: str) -> Baresip:
        """
        @param number: as for L{place}.
        """
        host, control_port = self.place(number)
        secret = f"{user}-secret"
        answers = user == "bob"
        phone = Baresip(self.directory, user, host, self.node(transport), transport, secret, answers, control_port)
        self.addCleanup(phone.program.kill)
        if not phone.has_address:
            raise SkipTest("baresip wants an address of that family that is no loopback one, and this machine has none")
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
        alice.tell("dial", f"sip:bob@{self.node(transport)}")
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
        via = rf"(?m)^Via: SIP/2\.0/{transport.upper()} {re.escape(self.node(transport))}[:;]"
        self.assertRegex(bob.program.text, via)
        self.assert_well()


class OverUdp:
    """
    Over either version of IP.
    """

    call_and_hang_up: Callable[[str, str], None]

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


class BaresipCallTests(OverUdp, BaresipCallTestCase):
    """
    Over IPv4, each phone at an address of its own.
    """

    host = "127.86.1.1"
    settings = settings_for(f"udp:{host}:5060", f"tcp:{host}:5060", f"tls:{host}:5061")

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


class Ipv6BaresipCallTests(OverUdp, BaresipCallTestCase):
    """
    Over IPv6: node and phones are all at ::1. (Only their sound is not: baresip wants another address for it.)
    """

    host = "127.86.2.1"
    settings = settings_for(
        f"udp:{host}:5060", *(f"{each}:[{LOOPBACK}]:{NODE_PORT + (each == 'tls')}" for each in ("udp", "tcp", "tls"))
    )

    def setUp(self) -> None:
        require_ipv6()
        super().setUp()

    def node(self, transport: str) -> str:
        """
        At its ports for IPv6.
        """
        return f"[{LOOPBACK}]:{NODE_PORT + (transport == 'tls')}"

    def place(self, number: int) -> tuple[str, int]:
        """
        Both at one address.
        """
        return LOOPBACK, CONTROL_PORT + number

    def test_over_tcp(self) -> None:
        """
        The caller hangs up.
        """
        self.call_and_hang_up("tcp", "alice")

    def test_over_tls(self) -> None:
        """
        The callee hangs up.
        """
        self.call_and_hang_up("tls", "bob")
