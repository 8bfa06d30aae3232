"""
Calls of our users that we relay to ourselves, since who is called has his calls go to another user of ours.
"""

from __future__ import annotations

from sipdmq.sip.message import Request, response_to
from sipdmq.sip.parser import parse_message
from sipdmq.sip.writer import format_message
from tests.policy_network import ALICE, BOB, CAROL, NODE, PolicyTestCase, Sent

US = (NODE, 5060)


class SpiralTests(PolicyTestCase):
    """
    The password is asked for once: what it was proved with is removed before the request comes back.
    """

    def forward(self, user: str, *users: str) -> None:
        """
        Have the calls of a user go to others.
        """
        self.register(user, BOB, headers=[f"Contact: <sip:{each}@{NODE};n={n}>" for n, each in enumerate(users)])

    def go_around(self, sent: Sent) -> tuple[Sent, int]:
        """
        What the node sends to itself arrives.

        @return: what it sent to others, and how many INVITEs it sent to itself.
        """
        waiting, others, copies = list(sent), [], 0
        while waiting:
            message, address = waiting.pop(0)
            if address == US:
                copies += isinstance(message, Request) and message.method == "INVITE"
                waiting += self.receive(format_message(message), US)
            else:
                others.append((message, address))
        return others, copies

    def test_calls_go_to_another_user(self) -> None:
        self.register("alice", CAROL)
        self.forward("bob", "alice")
        sent, copies = self.go_around(self.ask_with_password("INVITE", "sip:bob@example.org"))
        self.assert_relayed(sent, CAROL)
        self.assertEqual((self.answers(sent, ALICE), copies), ([100], 1))

    def test_who_called_is_told_more_than_strangers(self) -> None:
        """
        He is still an authenticated caller: 404 for a user that does not exist.
        """
        self.forward("bob", "nobody")
        sent, _ = self.go_around(self.ask_with_password("INVITE", "sip:bob@example.org"))
        self.assertEqual(self.answers(sent, ALICE), [100, 404])
        sent, _ = self.go_around(self.invite_from_stranger(call_id="c2"))
        self.assertEqual(self.answers(sent, CAROL), [100, 480])

    def loop(self) -> int:
        """
        Alice's call comes to nobody.

        @return: how many INVITEs the node sent to itself.
        """
        sent, copies = self.go_around(self.ask_with_password("INVITE", "sip:alice@example.org"))
        self.assertEqual(self.answers(sent, ALICE), [100, 482])
        return copies

    def test_a_loop_ends(self) -> None:
        self.forward("alice", "alice")
        self.assertEqual(self.loop(), 1)

    def test_forks_that_meet_again_end(self) -> None:
        """
        The attack of RFC 5393 §3.
        """
        self.forward("alice", "alice", "bob")
        self.forward("bob", "alice", "bob")
        self.assertEqual(self.loop(), 4)

    def copy_to_us(self, body: bytes = b"") -> bytes:
        """
        What the node sends to itself of alice's call to bob, who has his calls go to her other phone.
        """
        self.register("alice", CAROL)
        self.forward("bob", "alice")
        sent = self.ask_with_password("INVITE", "sip:bob@example.org", body=body)
        ((copy, _),) = ((message, address) for message, address in sent if address == US)
        return format_message(copy)

    def test_nothing_else_passes_for_it(self) -> None:
        """
        What differs from it in anything is not known.
        """
        data = self.copy_to_us(b"v=0")
        for old, new in (
            (b"INVITE sip:alice@", b"INVITE sip:bob@"),
            (b"Call-ID: ", b"Call-ID: x"),
            (b"Contact: <sip:alice@", b"Contact: <sip:eve@"),
            (b"Max-Forwards: 69", b"Max-Forwards: 70"),
            (b";branch=z9hG4bK", b";branch=z9hG4bKx"),
            (b"Via: SIP/2.0/UDP 192.0.2.1:5060", b"Via: SIP/2.0/UDP 192.0.2.1:5061"),
            (b"Via: SIP/2.0/UDP 192.0.2.1:5060", b"Via: SIP/2.0/UDP 192.0.2.2:5060"),
            (b"\r\n\r\n", b"\r\nSubject: x\r\n\r\n"),
            (b"v=0", b"v=1"),
        ):
            self.assertIn(old, data)
            self.assert_refused(self.receive(data.replace(old, new, 1), US), 407, US)
        self.assert_relayed(self.receive(data, US), CAROL)

    def test_nor_does_it_when_it_has_been_answered(self) -> None:
        data = self.copy_to_us()
        copy = parse_message(data)
        assert isinstance(copy, Request)
        self.receive(format_message(response_to(copy, 200, "t1")), US)
        self.assert_refused(self.receive(data, US), 407, US)
        self.pump(300)
        self.assert_refused(self.receive(data, US), 407, US)
