"""
A whole node with C{[dialog]}: a call through it is followed, and its routes say which one it is.
"""

from __future__ import annotations

import re
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.config import DialogConfig
from sipdmq.dialog.hashes import find_did
from sipdmq.interfaces.dialogs import DialogState
from tests.memory_node import MemoryNode
from tests.test_node import CONFIG

ALICE = ("192.0.2.7", 5062)
BOB = ("192.0.2.8", 5070)
HEADS = (
    "From: <sip:alice@example.org>;tag=1\r\nTo: <sip:bob@example.org>{tag}\r\nCall-ID: call1\r\n"
    "Max-Forwards: 70\r\n"
)


def message(method: str, user: str, uri: str, lines: str) -> bytes:
    host, port = ALICE if user == "alice" else BOB
    return (
        f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{user}{method}\r\n"
        f"Contact: <sip:{user}@{host}:{port}>\r\nCSeq: 1 {method}\r\n{lines}Content-Length: 0\r\n\r\n"
    ).encode()


def bobs_answer(invite: str, status: int) -> bytes:
    kept = re.findall(r"^(?:Via|Record-Route|From|Call-ID|CSeq): .*\r\n", invite, re.MULTILINE)
    return (
        f"SIP/2.0 {status} X\r\n{''.join(kept)}To: <sip:bob@example.org>;tag=2\r\n"
        f"Contact: <sip:bob@{BOB[0]}:{BOB[1]}>\r\nContent-Length: 0\r\n\r\n"
    ).encode()


class DialogNodeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.memory = MemoryNode(self, replace(CONFIG, dialog=DialogConfig(enable=True)))
        register = "From: <sip:bob@example.org>;tag=9\r\nTo: <sip:bob@example.org>\r\nCall-ID: r1\r\n"
        self.memory.receive(message("REGISTER", "bob", "sip:example.org", register), *BOB)

    def states(self) -> list[DialogState]:
        return [dialog.state for dialog in self.memory.node.dialogs.all()]

    def invite(self) -> str:
        """
        Alice calls.

        @return: what Bob gets.
        """
        data = message("INVITE", "alice", "sip:bob@example.org", HEADS.format(tag=""))
        (sent,) = [data for data, address in self.memory.receive(data, *ALICE) if address == BOB]
        return sent.decode()

    def answer(self, invite: str, status: int) -> str:
        """
        Bob answers.

        @return: what Alice gets.
        """
        (sent,) = [data for data, address in self.memory.receive(bobs_answer(invite, status), *BOB) if address == ALICE]
        return sent.decode()

    def test_a_call(self) -> None:
        invite = self.invite()
        (dialog,) = self.memory.node.dialogs.all()
        self.assertEqual(find_did(invite), dialog.id)
        states = self.states()
        self.answer(invite, 180)
        states += self.states()
        answered = self.answer(invite, 200)
        states += self.states()
        found = re.search(r"^Record-Route: (.*)\r\n", answered, re.MULTILINE)
        assert found is not None
        self.assertEqual(find_did(found[1]), dialog.id)
        self.assertNotIn(found[1], invite, "the caller has another cookie")
        for method in ("ACK", "BYE"):
            lines = f"Route: {found[1]}\r\n" + HEADS.format(tag=";tag=2")
            sent = self.memory.receive(message(method, "alice", f"sip:bob@{BOB[0]}:{BOB[1]}", lines), *ALICE)
            self.assertEqual([address for _, address in sent], [BOB])
            states += self.states()
        self.assertEqual(states, [DialogState(state) for state in (1, 2, 3, 4, 5)])
        self.memory.reactor.pump([0.5] * 12)
        self.assertEqual(self.states(), [])

    def test_its_numbers(self) -> None:
        self.invite()
        self.assertEqual(self.memory.node.snapshot()["dialog.dialogs"], 1)

    def test_stopping_leaves_no_timer(self) -> None:
        self.invite()
        self.successResultOf(self.memory.service.stopService())  # type: ignore[no-untyped-call]
        self.assertEqual(self.memory.reactor.getDelayedCalls(), [])

    def test_without_it(self) -> None:
        self.memory = MemoryNode(self, CONFIG)
        register = "From: <sip:bob@example.org>;tag=9\r\nTo: <sip:bob@example.org>\r\nCall-ID: r1\r\n"
        self.memory.receive(message("REGISTER", "bob", "sip:example.org", register), *BOB)
        self.assertIsNone(find_did(self.invite()))
        self.assertIsNone(self.memory.node.dialogs)
