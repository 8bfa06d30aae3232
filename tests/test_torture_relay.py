"""
The torture messages that are to be relayed, over UDP and TCP: what a phone gets of them, and what comes back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sipdmq.config import AuthConfig, NodeConfig, NodeSection
from sipdmq.records import Listener, Protocol
from sipdmq.sip.message import Request, Response, response_to
from sipdmq.sip.parser import parse_message
from sipdmq.sip.writer import format_message
from tests.digest_client import DigestClient, challenges_in
from tests.memory_node import MemoryNode, MemoryStream
from tests.policy_network import write_users
from tests.test_torture import (
    EVERYWHERE,
    LISTENERS,
    OURS,
    REGISTERED,
    RELAYED,
    SENDER,
    TortureTestCase,
    status_of,
    unique,
)

PHONE = ("198.51.100.20", 5066)
CHANGED = frozenset(("via", "max-forwards", "max-breadth", "record-route", "route", "content-length"))
BARE = frozenset(("rfc4475/esc02",))  # no user in its Request-URI: nobody can be registered there


class RelayTestCase(TortureTestCase):
    """
    Everybody who is called is registered: a phone at L{PHONE}. The Routes of mpart01 and wsinv,
    C{sip:127.0.0.1:5080} and C{sip:services.example.com;lr}, name us.
    """

    section = NodeSection(
        listen=(*LISTENERS, Listener(Protocol.UDP, "127.0.0.1", 5080, "127.0.0.1", 5080)),
        domains=(*OURS.domains, "chair-dnrc.example.com", "services.example.com", "2001:db8::c000:201"),
    )

    def setUp(self) -> None:
        super().setUp()
        for name in [*sorted(set(RELAYED) - BARE), "rfc4475/zeromf"]:
            self.register(name)

    def registration(self, name: str, protocol: str) -> bytes:
        """
        Whoever is called in a message registers.
        """
        called = parse_message(unique(name)).uri_text
        text = (
            f"REGISTER sip:{called.rpartition('@')[2]} SIP/2.0\r\n"
            f"Via: SIP/2.0/{protocol} {PHONE[0]}:{PHONE[1]};branch=z9hG4bK-{name.partition('/')[2]}\r\n"
            f"From: <{called}>;tag=1\r\nTo: <{called}>\r\nCall-ID: register-{name}\r\nCSeq: 1 REGISTER\r\n"
            f"Contact: <sip:phone@{PHONE[0]}:{PHONE[1]}>\r\nContent-Length: 0\r\n\r\n"
        )
        return text.encode("utf-8", "surrogateescape")

    def register(self, name: str) -> None:
        ((answer, _),) = self.memory.receive(self.registration(name, "UDP"), *PHONE)
        self.assertEqual(status_of(answer), 200, name)

    def send(self, name: str) -> tuple[list[bytes], list[bytes]]:
        """
        @return: what the sender got, and what the phone got.
        """
        sent = self.memory.receive(unique(name), *SENDER)
        return self.sort(sent)

    def sort(self, sent: list[tuple[bytes, tuple[str, int]]]) -> tuple[list[bytes], list[bytes]]:
        self.assertEqual({address[0] for _, address in sent} - {SENDER[0], PHONE[0]}, set())
        answers = [data for data, address in sent if address[0] == SENDER[0]]
        copies = [data for data, address in sent if address == PHONE]
        return answers, copies

    def assert_copy(self, name: str, data: bytes) -> Request:
        """
        It is the request, but for what a proxy changes (RFC 3261 §16.6).
        """
        original = parse_message(unique(name))
        copy = parse_message(data)
        assert isinstance(original, Request) and isinstance(copy, Request)
        self.assertEqual((copy.method, copy.uri_text), (original.method, f"sip:phone@{PHONE[0]}:{PHONE[1]}"), name)
        self.assertEqual(copy.body, original.body, name)
        self.assertEqual(lines_of(copy), lines_of(original), name)
        vias, given = copy.headers.get_all("via"), original.headers.get_all("via")
        self.assertEqual(vias[2:], given[1:], name)
        self.assertTrue(vias[1].startswith(given[0]), name)
        hops = original.max_forwards
        self.assertEqual(copy.max_forwards, 70 if hops is None else hops - 1, name)
        self.assertNotIn("route", copy.headers, name)
        self.assertEqual("record-route" in copy.headers, original.method == "INVITE", name)
        return copy

    def assert_answered(self, name: str, answers: list[bytes]) -> None:
        """
        The phone's 200 came back, with what identifies the request.
        """
        (data,) = answers
        response, original = parse_message(data), parse_message(unique(name))
        assert isinstance(response, Response)
        self.assertEqual(response.status, 200, name)
        self.assertEqual(response.headers.get_all("via")[1:], original.headers.get_all("via")[1:], name)
        for key in ("from", "call-id", "cseq"):
            self.assertEqual(response.headers.get(key), original.headers.get(key), name)


def lines_of(request: Request) -> list[str]:
    """
    The header fields that a proxy leaves alone, in order.
    """
    lines = [line for key, line in request.headers if key not in CHANGED]
    assert lines  # From, To, Call-ID and CSeq at least
    return lines


class DatagramTests(RelayTestCase):
    def test_each_is_relayed_and_its_answer_too(self) -> None:
        for name in sorted(set(RELAYED) - BARE):
            answers, copies = self.send(name)
            self.assertEqual(len(copies), 1, name)
            copy = self.assert_copy(name, copies[0])
            self.assertEqual([status_of(answer) for answer in answers], [100] if copy.method == "INVITE" else [], name)
            reply = format_message(response_to(copy, 200, "" if copy.to.tag else "t"))
            answers, copies = self.sort(self.memory.receive(reply, *PHONE))
            self.assertEqual(copies, [], name)
            self.assert_answered(name, answers)

    def test_the_others_are_not(self) -> None:
        for name, status in {**EVERYWHERE, "rfc4475/zeromf": 483, "rfc4475/esc02": 403}.items():
            answers, copies = self.send(name)
            self.assertEqual(copies, [], name)
            self.assertEqual([status_of(answer) for answer in answers], [status] if status else [], name)

    def test_nothing_is_kept_when_the_phone_is_silent(self) -> None:
        for name in (*RELAYED, *EVERYWHERE):
            self.send(name)
        self.memory.reactor.pump([0.5] * 200)
        self.assertEqual(self.memory.node.snapshot()["proxy.contexts"], 0)
        self.assert_nothing_is_kept()


class StreamTests(RelayTestCase):
    """
    The sender's connection; the phone's is another one.
    """

    def setUp(self) -> None:
        super().setUp()
        self.sender = self.memory.connect(*SENDER)

    def test_each_is_relayed_and_its_answer_too(self) -> None:
        for name in sorted(set(RELAYED) - BARE - {"rfc4475/inv2543"}):  # that has no Content-Length
            self.memory.take_sent()
            answer = self.sender.receive(unique(name))
            self.assertEqual(answer[:12] in (b"", b"SIP/2.0 100 "), True, name)
            _, copies = self.sort(self.memory.take_sent())
            self.assertEqual(len(copies), 1, name)
            copy = self.assert_copy(name, copies[0])
            self.sender.transport.clear()
            self.memory.receive(format_message(response_to(copy, 200, "" if copy.to.tag else "t")), *PHONE)
            self.assert_answered(name, [self.sender.transport.value()])
        self.assertFalse(self.sender.is_closed)

    def test_the_others_are_not(self) -> None:
        for name in EVERYWHERE:
            self.memory.connect(SENDER[0], 5098).receive(unique(name))
            self.assertEqual(self.memory.take_sent(), [], name)


class StreamPhoneTests(RelayTestCase):
    """
    The phone has registered over a connection: it gets everything there.
    """

    def setUp(self) -> None:
        self.phone: MemoryStream | None = None
        super().setUp()

    def register(self, name: str) -> None:
        if self.phone is None:
            self.phone = self.memory.connect(*PHONE)
        self.assertEqual(status_of(self.phone.receive(self.registration(name, "TCP"))), 200, name)

    def test_each_is_relayed_and_its_answer_too(self) -> None:
        phone = self.phone
        assert phone is not None
        for name in sorted(set(RELAYED) - BARE):
            phone.transport.clear()
            answers, copies = self.send(name)
            self.assertEqual(copies, [], name)
            copy = self.assert_copy(name, phone.transport.value())
            self.memory.take_sent()
            phone.receive(format_message(response_to(copy, 200, "" if copy.to.tag else "t")))
            answers, _ = self.sort(self.memory.take_sent())
            self.assert_answered(name, answers)
        self.assertFalse(phone.is_closed)


class GuardedTests(TortureTestCase):
    """
    With authentication: who is of example.com has to prove it, and may then send to other domains; the others reach
    nobody there.
    """

    USERS = ("jdrosen", "mundane", "fluffy", "caller", "user", "resource", "watson", "j.user", "a.g.bell")
    FROM_US = (
        "rfc4475/intmeth", "rfc4475/esc02", "rfc4475/lwsdisp", "rfc4475/transports", "rfc4475/mpart01", "rfc4475/wsinv",
        "rfc5118/ipv6-in-sdp", "rfc5118/mult-ip-in-header", "rfc5118/mult-ip-in-sdp",
        "rfc5118/ipv6-bug-abnf-3-colons", "rfc5118/ipv6-correct-abnf-2-colons",
        "rfc5118/via-received-param-with-delim", "rfc5118/via-received-param-no-delim",
    )  # fmt: skip
    ELSEWHERE = ("registrar.example.com", "host.example.net", "services.example.com")

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        write_users(folder / "users", *(f"{user}@example.com" for user in self.USERS))
        (folder / "hosts").write_text("".join(f"{PHONE[0]} {name}\n" for name in self.ELSEWHERE))
        config = NodeConfig(
            str(folder / "node.ini"),
            node=NodeSection(listen=LISTENERS, domains=("example.com",)),
            auth=AuthConfig(enable=True),
        )
        self.memory = MemoryNode(self, config, hosts=str(folder / "hosts").encode())

    def test_who_is_ours_is_asked_for_a_password_before_anything_else(self) -> None:
        for name in self.FROM_US:
            self.assertEqual(self.ask(name), 407, name)
        for name in sorted(set(REGISTERED) - {"rfc5118/ipv6-good"}):
            self.assertEqual(self.ask(name), 401, name)

    def test_others_reach_our_users_alone(self) -> None:
        for name in sorted(set(RELAYED) - set(self.FROM_US)):
            is_for_us = parse_message(unique(name)).uri.host == "example.com"
            self.assertEqual(self.ask(name), 480 if is_for_us else 403, name)

    def test_what_is_refused_is_refused_all_the_same(self) -> None:
        self.assert_each({**EVERYWHERE, "rfc4475/zeromf": 483})

    def test_nobody_is_sent_more_than_three_times_what_he_sent(self) -> None:
        for name in (*RELAYED, *EVERYWHERE, *REGISTERED):
            sent = self.memory.receive(unique(name), *SENDER)
            self.assertLess(sum(len(data) for data, _ in sent), 3 * len(unique(name)), name)

    def test_with_the_password_they_are_relayed_to_other_domains(self) -> None:
        """
        esc02 has a method that looks like an escaped REGISTER: it is none.
        """
        for name in ("rfc4475/esc02", "rfc4475/wsinv", "rfc5118/mult-ip-in-header"):
            request = parse_message(unique(name))
            ((refused, _),) = self.memory.receive(unique(name), *SENDER)
            user = request.from_.uri.user
            client = DigestClient(user, user)
            header, challenges = challenges_in(parse_message(refused))
            client.take(challenges)
            line = f"{header}: {client.credentials(request.method, request.uri_text)}\r\n".encode()
            start, _, rest = unique(name).replace(b"branch=", b"branch=z9hG4bK2", 1).partition(b"\r\n")
            sent = self.memory.receive(start + b"\r\n" + line + rest, *SENDER)
            copies: list[Any] = [parse_message(data) for data, address in sent if address == (PHONE[0], 5060)]
            self.assertEqual([(each.method, each.uri_text) for each in copies], [(request.method, request.uri_text)])
            self.assertNotIn("proxy-authorization", copies[0].headers)
        self.assertEqual(self.memory.node.snapshot()["location.bindings"], 0)
