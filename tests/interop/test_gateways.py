"""
An operator's policy, and groups of gateways, one of which is always sipp.
"""

from __future__ import annotations

import re
import socket
import time

from tests.interop.programs import CHECKOUT
from tests.interop.sipp import CallTestCase


def policy_of_readme() -> str:
    """
    The worked example: 9000 to 9999 go to the gateways C{pstn}, others inside.
    """
    blocks = re.findall(r"```python\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    (policy,) = [block for block in blocks if "class Policy(" in block]
    return str(policy)


class GatewayTests(CallTestCase):
    """
    The README's policy beside the INI file, and a group of two gateways, the first of which is dead.
    """

    is_guarded = True
    host = "127.84.7.1"
    settings = {
        "calls": {"record_file": "calls.jsonl"},
        "auth": {"enable": "yes"},
        "node": {"policy": "routing:Policy"},
        "gateway pstn": {
            "target": "sip:127.84.7.9:5060 priority 10 weight 1\n    sip:127.84.7.11:5060;transport=udp",
            "answer_timeout": "0.5",
            "probe_interval": "0",
        },
    }

    def prepare(self) -> None:
        """
        The policy; and one who listens at the dead gateway's address, so that it is silent.
        """
        self.write_users("alice", "bob")
        (self.server.directory / "routing.py").write_text(policy_of_readme())
        self.dead = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.dead.bind(("127.84.7.9", 5060))
        self.addCleanup(self.dead.close)

    def test_the_second_gateway_takes_the_call(self) -> None:
        """
        When the first has not answered in time; the Request-URI names the gateway and keeps the number.
        """
        gateway = self.callee("callee", user="")
        self.call("caller_digest", user="9123")
        gateway.finish()
        (invite,) = gateway.seen("INVITE")
        self.assertRegex(invite, r"(?m)^INVITE sip:9123@127\.84\.7\.11")
        self.dead.settimeout(1)
        self.assertTrue(self.dead.recv(65535).startswith(b"INVITE sip:9123@127.84.7.9"))
        (record,) = self.records(1)
        self.assertEqual((record["status"], record["ended_by"]), (200, "caller"))
        self.assertIn(f"alice@localhost sip:9123@{self.host}", self.server.log())  # the policy's call_finished

    def test_a_refused_port_costs_no_time(self) -> None:
        """
        A gateway whose port is closed fails at once.
        """
        self.dead.close()
        gateway = self.callee("callee", user="")
        self.call("caller_digest", user="9123")
        gateway.finish()
        self.assertEqual(len(gateway.seen("INVITE")), 1)

    def test_others_go_to_the_phones_or_nowhere(self) -> None:
        """
        As the policy says.
        """
        bob = self.callee("callee")
        self.call("caller_digest")
        bob.finish()
        alice = self.phone("alice")
        self.assertEqual(alice.ask_challenged("INVITE", "sip:bob@192.0.2.1").status, 403)

    def test_all_are_dead(self) -> None:
        """
        The caller is told within twice the answer timeout.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.84.7.11", 5060))
            alice = self.phone("alice")
            answer = alice.ask_challenged("INVITE", f"sip:9123@{self.host}")
        self.assertIn(answer.status, (408, 500, 503, 504))
        self.assert_well()


class ProbedGatewayTests(CallTestCase):
    """
    Gateways that are asked by OPTIONS whether they are there.
    """

    host = "127.84.8.1"
    is_guarded = True
    settings = {
        **GatewayTests.settings,
        "timers": {"t1": "0.02"},
        "gateway pstn": {
            "target": "sip:127.84.8.9:5060 priority 10\n    sip:127.84.8.11:5060;transport=udp",
            "probe_interval": "1",
            "probe_threshold": "1",
        },
    }

    def prepare(self) -> None:
        """
        The policy and its users.
        """
        self.write_users("alice", "bob")
        (self.server.directory / "routing.py").write_text(policy_of_readme())

    def test_a_dead_one_is_left_out_until_it_answers(self) -> None:
        """
        No call goes to it before; then it gets them, being the first.
        """
        self.wait_for_log("gateway sip:127.84.8.9:5060 of pstn is out")
        second = self.callee("callee", user="")
        self.call("caller_digest", user="9123")
        second.finish()
        first = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(first.close)
        first.bind(("127.84.8.9", 5060))
        first.settimeout(5)
        probe, node = first.recvfrom(65535)
        self.assertTrue(probe.startswith(b"OPTIONS sip:127.84.8.9:5060 SIP/2.0\r\n"), probe)
        # 405 is a sign of life. What it needs is in the request, in an order that does not matter.
        head = probe.partition(b"\r\n\r\n")[0].split(b"\r\n")
        kept = [line for line in head if line.startswith((b"Via:", b"From:", b"To:", b"Call-ID:", b"CSeq:"))]
        lines = [b"SIP/2.0 405 Method Not Allowed", *kept, b"Content-Length: 0"]
        first.sendto(b"\r\n".join([*lines, b"", b""]), node)
        self.wait_for_log("gateway sip:127.84.8.9:5060 of pstn is back")
        alice = self.phone("alice")
        alice.ask_challenged("INVITE", f"sip:9123@{self.host}")
        self.assertTrue(first.recv(65535).startswith(b"INVITE sip:9123@127.84.8.9:5060"))

    def wait_for_log(self, text: str) -> None:
        """
        Wait until the node has logged it.
        """
        deadline = time.monotonic() + 10
        while text not in self.server.log():
            self.assertLess(time.monotonic(), deadline, self.server.log())
            time.sleep(0.05)
