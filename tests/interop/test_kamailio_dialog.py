"""
Calls that one node relays are known to the others, by Kamailio's channel C{dialog} (WIRE §9): both ways.
"""

from __future__ import annotations

import shutil
from typing import Any

from tests.interop.cluster import Kamailio, Member, wait_until
from tests.interop.phone import Answer, Phone
from tests.interop.programs import CHECKOUT
from tests.interop.test_kamailio_calls import CallTestCase

SECTION = {"enable": "1", "profiles_with_value": "caller", "profiles_no_value": "inbound"}
FORGOTTEN = 15.0
"""Seconds until a call that is over is forgotten everywhere: each node remembers it for five."""


class DialogTests(CallTestCase):
    """
    A Kamailio and a node of sipdmq, and calls that only one of them sees.
    """

    network = "127.104.14"

    def setUp(self) -> None:
        super().setUp()
        self.kam = self.kamailio(1)
        self.own = Member(
            self.address(2),
            self.address(1),
            settings={"node": {"policy": "limit:Policy"}, "dialog": SECTION},
        )
        self.addCleanup(self.assert_calm, self.own)
        self.addCleanup(self.own.clean_up)
        shutil.copy(CHECKOUT / "etc" / "examples" / "limit.py", self.own.directory)
        self.own.start()
        self.assert_nodes([self.kam, self.own])

    def begin(self, node: Kamailio | Member, *fields: str) -> tuple[Phone, bytes, Answer]:
        """
        Alice calls Bob, who answers.
        """
        alice = self.phone(node, "alice")
        invite = alice.make("INVITE", f"sip:bob@{alice.domain}", fields)
        answer = alice.send(invite)
        if answer.status == 200:
            alice.transmit(self.within(alice, invite, answer, "ACK"))
        return alice, invite, answer

    def listed(self, node: Kamailio | None = None) -> list[tuple[str, int]]:
        """
        Call-ID and state of the dialogs that a Kamailio knows.
        """
        dialogs: list[dict[str, Any]] = (node or self.kam).rpc("dlg.list") or []
        return sorted((dialog["call-id"], dialog["state"]) for dialog in dialogs)

    def call_id(self, invite: bytes) -> str:
        """
        Of a request.
        """
        return invite.decode().partition("Call-ID: ")[2].partition("\r\n")[0]

    def count(self) -> int:
        """
        The dialogs that ours knows.
        """
        return int(self.own.snapshot()["dialog.dialogs"])

    def end(self, call: tuple[Phone, bytes, Answer]) -> None:
        """
        Alice hangs up.
        """
        self.assertEqual(call[0].send(self.within(*call, "BYE")).status, 200)

    def assert_forgotten(self) -> None:
        """
        Soon nobody knows of any call.
        """
        wait_until(lambda: self.listed() == [], self.listed, FORGOTTEN)
        wait_until(lambda: self.count() == 0, self.own.log, FORGOTTEN)
        self.assertEqual(self.own.snapshot()["dmq.outbox_refused"], 0, self.own.log())

    def test_a_call_of_kamailio(self) -> None:
        self.callee(self.own, "udp")
        call = self.begin(self.kam, "X-Dlg-Var: a note", "X-Dlg-Profile: gold")
        self.assertEqual(call[2].status, 200)
        wait_until(lambda: self.listed() == [(self.call_id(call[1]), 4)], self.listed)
        wait_until(lambda: self.count() == 1, self.own.log)
        self.end(call)
        self.assert_forgotten()

    def test_a_call_of_ours(self) -> None:
        self.callee(self.own, "udp")
        call = self.begin(self.own)
        self.assertEqual(call[2].status, 200)
        wait_until(lambda: self.listed() == [(self.call_id(call[1]), 4)], self.listed)
        third = self.kamailio(3, 2)  # a newcomer asks for all
        wait_until(lambda: self.listed(third) == [(self.call_id(call[1]), 4)], lambda: self.listed(third))
        self.end(call)
        wait_until(lambda: self.listed(third) == [], lambda: self.listed(third), FORGOTTEN)
        self.assert_forgotten()

    def test_calls_at_both_count(self) -> None:
        """
        etc/examples/limit.py: two for each, wherever.
        """
        self.callee(self.own, "udp")
        name = "alice@localhost"
        there = self.begin(self.kam, f"X-Dlg-Profile: {name}")
        wait_until(lambda: self.count() == 1, self.own.log)
        here = self.begin(self.own)
        self.assertEqual((there[2].status, here[2].status), (200, 200))
        self.assertEqual(self.begin(self.own)[2].status, 486)
        wait_until(lambda: self.kam.rpc("dlg.profile_get_size", "caller", name) == 2, self.kam.log)
        self.end(there)
        wait_until(lambda: self.own.snapshot()["dialog.dialogs"] == 1, self.own.log, FORGOTTEN)
        again = self.begin(self.own)
        self.assertEqual(again[2].status, 200)
        self.end(here)
        self.end(again)
        self.assert_forgotten()
