"""
Calls through the node over IPv6, and between IPv4 and IPv6, with sipp at both ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tests.interop.background import Background, wait_until_bound
from tests.interop.programs import Output, require_ipv6
from tests.interop.sipp import Callee, CallTestCase

LOOPBACK = "::1"
"""The only IPv6 address that every machine has; so the ports differ."""
NODE_PORT = 5090
CALLEE_PORT = 5091


class Ipv6CallTests(CallTestCase):
    """
    INVITE–180–200–ACK–BYE–200. The node listens on IPv4 and on IPv6.
    """

    host = "127.84.8.1"
    settings = {
        "node": {
            "listen": "".join(
                f"\n    {protocol}:{address}"
                for address in ("127.84.8.1:5060", f"[{LOOPBACK}]:{NODE_PORT}")
                for protocol in ("udp", "tcp")
            )
        },
        "calls": {"record_file": "calls.jsonl"},
    }

    def setUp(self) -> None:
        require_ipv6()
        super().setUp()

    def command(self, scenario: str, host: str, transport: str, label: str, options: Sequence[str]) -> list[str]:
        """
        As for IPv4; to the node's address of the same family.
        """
        command = super().command(scenario, host, transport, label, options)
        if ":" in host:
            command[1] = f"[{LOOPBACK}]:{NODE_PORT}"
        return command

    def register_with_sipp(self, transport: str) -> Output:
        """
        Bob's phone, from its own address.
        """
        output = self.sipp(
            "register_callee", "-s", "bob", "-key", "contact_port", str(CALLEE_PORT),
            transport="u1" if transport == "udp" else "t1",
        )  # fmt: skip
        self.assert_passed(output)
        return output

    def wait_for_calls(self, host: str, transport: str, calls: int) -> Callee:
        """
        As L{callee}, at that address.
        """
        extra = ("-p", str(CALLEE_PORT), "-m", str(calls), "-s", "bob")
        command = self.command("callee", host, "u1" if transport == "udp" else "t1", "callee-", extra)
        program = Background(command, self.directory / "callee-output")
        self.addCleanup(program.kill)
        wait_until_bound(program, host, CALLEE_PORT, transport)
        self.phone_host = host
        self.register_with_sipp(transport)
        written = f"[{host}]" if ":" in host else host
        uri = f"sip:bob@{written}:{CALLEE_PORT};transport={transport}"
        return Callee(program, uri, self.directory / "callee-messages", self.directory / "callee-errors")

    def calls_between(self, caller: tuple[str, str], callee: tuple[str, str], calls: int = 10) -> None:
        """
        Alice calls Bob, who answers, and hangs up after a tenth of a second.

        @param caller: protocol and address.
        """
        bob = self.wait_for_calls(callee[1], callee[0], calls)
        self.phone_host = caller[1]
        self.call("caller", transport=caller[0], calls=calls)
        bob.finish()
        for method in ("INVITE", "ACK", "BYE"):
            self.assertEqual(len(bob.seen(method)), calls, method)
        invite = bob.seen("INVITE")[0]
        routes = re.findall(r"^Record-Route: <sip:(\S+?)(?:;transport=tcp)?;lr;", invite, re.MULTILINE)
        written = {":": f"[{LOOPBACK}]:{NODE_PORT}", ".": f"{self.host}:5060"}
        ends = [written[":" if ":" in end[1] else "."] for end in (callee, caller)]
        self.assertEqual(routes, ends[:1] if caller[0] == callee[0] and ends[0] == ends[1] else ends)
        vias = re.findall(r"^Via: SIP/2.0/\S+ (\S+?);", invite, re.MULTILINE)
        self.assertEqual(vias[0], ends[0])
        for record in self.records(calls):
            self.assertEqual((record["status"], record["ended_by"]), (200, "caller"))
            self.assertEqual(record["contact"].partition(";")[0], bob.uri.partition(";")[0])
            source = f"[{caller[1]}]" if ":" in caller[1] else caller[1]
            self.assertTrue(record["source"].startswith(f"{caller[0]}:{source}:"), record["source"])

    def test_udp(self) -> None:
        """
        Both over UDP and IPv6: one Record-Route.
        """
        self.calls_between(("udp", LOOPBACK), ("udp", LOOPBACK))

    def test_tcp(self) -> None:
        """
        Both over TCP and IPv6.
        """
        self.calls_between(("tcp", LOOPBACK), ("tcp", LOOPBACK))

    def test_from_udp_to_tcp(self) -> None:
        """
        Two Record-Routes of one address.
        """
        self.calls_between(("udp", LOOPBACK), ("tcp", LOOPBACK))

    def test_from_ipv4_to_ipv6(self) -> None:
        """
        Two Record-Routes (RFC 5658 §3.1): each side meets us at an address that it can reach.
        """
        self.calls_between(("udp", self.address(2)), ("udp", LOOPBACK))

    def test_from_ipv6_to_ipv4(self) -> None:
        """
        The other way round.
        """
        self.calls_between(("udp", LOOPBACK), ("udp", self.address(11)))

    def test_from_ipv4_over_tcp_to_ipv6_over_udp(self) -> None:
        """
        Both differ.
        """
        self.calls_between(("tcp", self.address(2)), ("udp", LOOPBACK))
