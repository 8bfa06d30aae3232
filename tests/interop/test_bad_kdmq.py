"""
Nothing that a member of the cluster sends harms a node: what it cannot use it answers as WIRE §13 says, and goes on.
"""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.cluster import Member, wait_until
from tests.interop.crowd import Crowd

CAPTURES = Path(__file__).parents[1] / "kamailio"

#: Channel, then status: what is in error there, by name of the capture without its first word.
STATUS = {
    "usrloc": {
        200: ("ul-err-unknown-field", "hostile-ul-multi-empty", "hostile-ul-no-callid-first"),
        400: (
            *("ul-err-action-99", "ul-err-bad-json", "ul-err-empty", "ul-err-no-content-length"),
            *("hostile-ul-array", "hostile-ul-empty-object", "hostile-ul-no-aor", "hostile-ul-null-string"),
            *("hostile-ul-number", "hostile-ul-number-for-string"),
        ),
    },
    "notification_peer": {
        200: (
            *("malformed-np-bad-status", "malformed-np-blank-line", "malformed-np-garbage"),
            *("malformed-np-no-final-newline", "np-no-content-length", "np-blank-line", "np-no-final-newline"),
            *("np-pending", "np-not-active-known", "np-tls", "np-unresolvable", "np-one-too-many"),
            *("np-own-ip-other-port", "np-same-ip-other-port", "np-same-ip-other-port-status", "np-user-and-scheme"),
        ),
    },
    "htable": {
        200: (
            *("malformed-ht-no-value", "malformed-ht-cells-empty", "js-badutf8", "js-bigint", "js-dupkey", "js-esc"),
            *("js-float", "js-nul", "js-order", "js-pretty", "js-process-cl-first", "js-process-normal-order"),
            *("js-trail", "ht-value-50k", "ht-sync-cells-60k", "ht-foreign-cells", "ht-sync-request"),
            # Kamailio up to 6.1.4 refuses it; those to come have it, as nodes of ours have.
            "js-lastmod",
        ),
        400: (
            *("ht-err-bad-json", "ht-err-empty", "ht-err-no-content-length", "ht-err-unknown-field"),
            *("malformed-ht-array", "malformed-ht-empty-object", "malformed-ht-null-str"),
            # Kamailio: takes it and reads on; a datagram that is cut short is refused here (RFC 3261 §18.3), and one
            # that is too long is read as far as it says, as there.
            *("js-long-cl", "js-short-cl"),
        ),
        500: ("ht-err-action-99", "ht-err-unknown-table", "malformed-ht-no-htname"),
    },
    "dialog": {
        200: (
            *("dl-err-action-99", "dl-err-unknown-field", "malformed-dl-array", "malformed-dl-empty-object"),
            # A call without anything of its legs.
            "malformed-dl-update-no-leg",
        ),
        400: (
            *("dl-err-bad-json", "dl-err-empty", "malformed-dl-null", "malformed-dl-update-min"),
            "malformed-dl-vars-null",
        ),
        500: ("dl-err-state-unknown", "dl-foreign-bad-hash"),
    },
    # Channels that this node does not have.
    "others": {
        404: (
            *("cu-unknown", "pr-err-action-99", "pr-err-bad-json", "pr-err-empty"),
            *("pr-err-no-presentity", "pr-err-unknown-event", "pr-err-unknown-field"),
            *("malformed-pr-array", "malformed-pr-array-items", "malformed-pr-empty-object", "malformed-pr-null"),
        ),
        0: ("cu-no-user",),
    },
}


class BadInputTests(SynchronousTestCase):
    """
    A member sends it, from the address that it has in the list.

    @ivar before: who was registered, and who was in the list.
    """

    network = "127.104.8"

    def setUp(self) -> None:
        self.node = Member(f"{self.network}.1", settings={
            "dmq": {"allow": f"{self.network}.0/28"},
            "htable t1": {"dmqreplicate": "1"},
            "dialog": {"enable": "1"},
        })
        self.addCleanup(lambda: self.assertNotIn("Traceback", self.node.written))
        self.addCleanup(self.node.clean_up)
        self.node.start()
        self.peer = f"{self.network}.9"
        self.crowd = Crowd([self.peer])
        self.addCleanup(self.crowd.close)
        self.crowd.join(self.node.host)
        wait_until(lambda: self.peer in self.listed(), self.node.log)
        self.assertEqual(self.usrloc({"action": 1, **self.record("kept")}), 200)

    def listed(self) -> dict[str, str]:
        """
        The node list.
        """
        return dict(re.findall(r"sip:([0-9.]+):5060;status=(\w+)\r\n", self.node.notify(sender=self.peer)))

    def assert_unchanged(self) -> None:
        """
        The node is well, and knows what it knew.
        """
        self.assertTrue(self.node.ask(self.node.options()).startswith(b"SIP/2.0 200 "), self.node.log())
        wait_until(lambda: len(self.listed()) == 2, self.listed)  # a member that has spoken of itself is asked again
        self.assertEqual(self.listed(), {self.node.host: "active", self.peer: "active"})
        self.assertEqual(self.node.users("kept"), {"kept": ["<sip:kept@10.0.0.9:5060>"]})

    def record(self, user: str, **changes: object) -> dict[str, object]:
        """
        A contact.
        """
        return {
            "aor": user, "ruid": f"ruid-{user}", "c": f"sip:{user}@10.0.0.9:5060", "received": "", "path": "",
            "callid": f"call-{user}", "user_agent": "n/a", "instance": "", "expires": int(time.time()) + 600,
            "cseq": 1, "flags": 0, "cflags": 0, "q": -1, "last_modified": int(time.time()), "methods": 4294967295,
            "reg_id": 0, "server_id": 0, **changes,
        }  # fmt: skip

    def status(self, channel: str, body: str, sender: str = "") -> int:
        """
        Send a message.

        @return: its answer's status, 0 for none.
        """
        answer = self.node.kdmq(channel, body, sender or self.peer, "application/json")
        return int(answer.split()[1]) if answer else 0

    def usrloc(self, body: object, sender: str = "") -> int:
        return self.status("usrloc", json.dumps(body, ensure_ascii=False, separators=(",", ":")), sender)

    def adapted(self, path: Path) -> bytes:
        """
        A capture with the addresses of this test.
        """
        head, empty, body = path.read_bytes().partition(b"\r\n\r\n")
        network = f"{self.network}.".encode()
        ours = body.replace(b"127.7.7.", network)
        head = re.sub(
            rb"(?m)^(Content-Length: )(\d+)",
            lambda match: match[1] + str(int(match[2]) + len(ours) - len(body)).encode(),
            head.replace(b"127.7.7.", network),
        )
        head = re.sub(rb"(?m)^From: <(sip:[a-z_]+)@[0-9.]+", rb"From: <\1@" + self.peer.encode(), head)
        return re.sub(rb"(?m)^(Via: [^\r]*)", rb"\1;rport", head, count=1) + empty + ours

    def answered(self, request: bytes) -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((self.peer, 0))
            client.settimeout(1.0)
            client.sendto(request, (self.node.host, 5060))
            try:
                return int(client.recv(65535).split()[1])
            except TimeoutError:
                return 0

    def test_captures(self) -> None:
        for channel, by_status in STATUS.items():
            expected = {name: status for status, names in by_status.items() for name in names}
            found = {}
            for name in expected:
                paths = list(CAPTURES.glob(f"*/{name}.sip"))
                self.assertTrue(paths, name)
                for path in paths:
                    found[name] = self.answered(self.adapted(path))
                    if found[name] != expected[name]:
                        break
            self.assertEqual(found, expected, channel)
            self.assert_unchanged()
        # One of all these is a contact, and one a call, though many of their keys are missing.
        self.assertEqual((self.node.count, self.node.snapshot()["dialog.dialogs"]), (2, 1))

    def test_absurd_values(self) -> None:
        for changes in (
            {"expires": -5},
            {"cseq": 2**63},
            {"cseq": -1},
            {"last_modified": 2**63},
            {"expires": 2**70},
            {"c": "nonsense"},
            {"c": "sip:x@10.0.0.9\r\nRoute: <sip:evil>"},
            {"path": "<sip:x@[>"},
            {"received": "sip:"},
            {"ruid": ""},
            {"ruid": "r" * 30_000},
            {"aor": "x" * 30_000},
            {"aor": "x@elsewhere.example"},
            {"callid": "c" * 30_000},
            {"q": 10**9},
            {"reg_id": -1},
            {"expires": 1},
        ):
            status = self.usrloc({"action": 1, **self.record("absurd", **changes)})
            self.assertIn(status, (200, 400), changes)
            self.assertEqual(self.node.count, 1, {name: str(value)[:40] for name, value in changes.items()})
        # Together with good ones, each bad one costs itself only.
        records = {str(n): {"action": 1, **self.record(f"u{n}", cseq=2**63 if n % 2 else 1)} for n in range(20)}
        self.assertEqual(self.usrloc({"multi": records}), 200)
        self.assertEqual(self.node.count, 11)
        self.assert_unchanged()

    def test_lists_that_lie(self) -> None:
        own, peer = self.node.host, self.peer
        self.node.notify(f"sip:{own}:5060;status=disabled\r\nsip:{peer}:5060;status=active\r\n", peer)
        self.assert_unchanged()
        other = f"{self.network}.8"  # not in the list: it may join, but not speak of others
        self.node.notify(f"sip:{peer}:5060;status=disabled\r\n", other)
        self.assert_unchanged()
        many = "".join(f"sip:127.104.{80 + n // 250}.{n % 250 + 1}:5060;status=active\r\n" for n in range(1500))
        self.node.notify(many, peer)
        self.assert_unchanged()

    def test_nonsense_costs_little(self) -> None:
        began = time.monotonic()
        number = '{"a":' + "9" * 60_000 + "}"  # without an action: nothing to do
        for body in ("[" * 60_000, '{"multi":' * 6_000, number, '"' + "\\u0000" * 9_000, "\0" * 60_000):
            self.assertEqual(self.status("usrloc", body), 200 if body is number else 400, body[:10])
            self.node.notify(body, self.peer)
        self.assertLess(time.monotonic() - began, 2.0)
        self.assert_unchanged()

    def test_a_stranger_is_refused(self) -> None:
        stranger = f"{self.network}.77"
        joins = f"sip:{stranger}:5060;status=active\r\n"
        for channel, body in (("notification_peer", joins), ("usrloc", '{"action":3}'), ("sipdmq", ""), ("none", "")):
            self.assertEqual(self.status(channel, body, stranger), 403)
        self.assertEqual(self.usrloc({"action": 1, **self.record("stranger")}, stranger), 403)
        self.assertEqual(self.node.count, 1)
        self.assertEqual(self.node.snapshot()["dmq.nodes"], 1)
        self.assert_unchanged()
