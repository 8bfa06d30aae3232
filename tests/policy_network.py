"""
A whole node, authentication on, between phones that a test plays: alice and bob are its users, others are strangers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq import node as composition
from sipdmq.config import AuthConfig, GatewayConfig, NodeConfig, NodeSection, PresenceConfig
from sipdmq.records import Listener
from sipdmq.sip.message import Request, Response, response_to
from sipdmq.sip.parser import parse_message
from sipdmq.sip.writer import format_message
from tests.digest_client import NAMES, DigestClient, challenges_in, hash_of
from tests.fakes import TCP, UDP, request_bytes
from tests.memory_node import MemoryNode

__all__ = ["ALICE", "BOB", "CAROL", "NODE", "STRANGER", "PolicyTestCase", "Sent", "write_users"]

NODE = "192.0.2.1"
ALICE = ("198.51.100.7", 5062)
BOB = ("198.51.100.20", 5060)
CAROL = ("203.0.113.30", 5060)
"""A phone of nobody's domain."""
STRANGER = ("203.0.113.66", 5060)

Sent = list[tuple[Any, tuple[str, int]]]
"""Messages, each with the address it was sent to."""


def write_users(path: Path, *names: str) -> None:
    """
    A file of users, the password of each is his name.

    @param names: C{"alice@example.org"}
    """
    lines = []
    for name in names:
        user, _, realm = name.rpartition("@")
        lines += [f"{user}:{realm}:{each}:{hash_of(each, f'{user}:{realm}:{user}')}\n" for each in NAMES]
    path.write_text("".join(lines))


class PolicyTestCase(SynchronousTestCase):
    """
    @ivar policy: in place of the default one.
    @ivar config: of the node.
    """

    is_guarded = True
    algorithms: tuple[str, ...] = ("MD5",)
    domains: tuple[str, ...] = ("example.org",)
    listeners: tuple[Listener, ...] = (UDP, TCP)
    policy: Any = None
    presence = PresenceConfig()
    trusted: tuple[Any, ...] = ()
    secret = ""
    gateways: Mapping[str, GatewayConfig] = {}

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        write_users(folder / "users", "alice@example.org", "bob@example.org", "a b@example.org")
        self.config = NodeConfig(
            str(folder / "node.ini"),
            node=NodeSection(listen=self.listeners, domains=self.domains, trusted=self.trusted),
            gateways=self.gateways,
            auth=AuthConfig(enable=self.is_guarded, algorithms=self.algorithms, secret=self.secret),
            presence=self.presence,
        )
        if self.policy is not None:
            self.patch(composition, "load_policy", lambda config: self.policy)
        self.memory = MemoryNode(self, self.config)
        self._branches = 0

    def number(self, name: str) -> float:
        """
        One of the node's numbers.
        """
        return self.memory.node.snapshot()[name]

    def receive(self, data: bytes, source: tuple[str, int]) -> Sent:
        """
        A datagram arrives.

        @return: what is sent at once.
        """
        return [(parse_message(sent), address) for sent, address in self.memory.receive(data, *source)]

    def pump(self, seconds: float) -> Sent:
        """
        Let time pass.

        @return: what is sent meanwhile.
        """
        self.memory.take_sent()
        self.memory.reactor.pump([0.25] * round(seconds * 4))
        return [(parse_message(sent), address) for sent, address in self.memory.take_sent()]

    def branch(self) -> str:
        """
        One that no request had yet.
        """
        self._branches += 1
        return f"z9hG4bK-{self._branches}"

    def build(
        self, method: str, uri: str, source: tuple[str, int] = ALICE, user: str = "alice", **changes: Any
    ) -> bytes:
        """
        A request with a branch of its own.

        @param user: who it says it is from.
        """
        given = {
            "via": f"SIP/2.0/UDP {source[0]}:{source[1]};branch={self.branch()}",
            "from_": f"<sip:{user}@example.org>;tag=f1",
            "to": f"<{uri}>",
            "headers": [f"Contact: <sip:{user}@{source[0]}:{source[1]}>"],
            **changes,
        }
        return request_bytes(method, uri=uri, **given)

    def ask(self, method: str, uri: str, source: tuple[str, int] = ALICE, **changes: Any) -> Sent:
        """
        A request arrives, without credentials.
        """
        return self.receive(self.build(method, uri, source, **changes), source)

    def ask_with_password(
        self, method: str, uri: str, source: tuple[str, int] = ALICE, username: str = "alice", **changes: Any
    ) -> Sent:
        """
        The same twice: a challenge, then credentials.
        """
        refused = self.ask(method, uri, source, **changes)
        self.assertIn(self.answers(refused, source), ([401], [407]))
        client = DigestClient(username, username, ("MD5", "SHA-256", "SHA-512-256"))
        name, challenges = challenges_in(refused[0][0])
        client.take(challenges)
        user = changes.get("user", "alice")
        headers = changes.pop("headers", [f"Contact: <sip:{user}@{source[0]}:{source[1]}>"])
        headers = [*headers, f"{name}: {client.credentials(method, uri)}"]
        return self.ask(method, uri, source, **{"cseq": f"2 {method}", **changes}, headers=headers)

    def register(self, user: str, source: tuple[str, int], **changes: Any) -> None:
        """
        A phone registers.
        """
        aor = f"<sip:{user}@example.org>"
        ask = self.ask_with_password if self.is_guarded else self.ask
        if self.is_guarded:
            changes["username"] = user
        changes["call_id"] = f"register-{user}"
        sent = ask("REGISTER", "sip:example.org", source, user=user, to=aor, **changes)
        self.assertEqual(self.answers(sent, source), [200])

    def invite_from_stranger(self, **changes: Any) -> Sent:
        """
        Carol, of elsewhere, calls bob.
        """
        given = {"from_": "<sip:carol@elsewhere.example>;tag=f1", **changes}
        return self.ask("INVITE", given.pop("uri", "sip:bob@example.org"), CAROL, user="carol", **given)

    def reply(
        self,
        sent: Sent,
        status: int,
        source: tuple[str, int] = BOB,
        to_tag: str = "t1",
        contact: str = f"sip:bob@{BOB[0]}",
    ) -> Sent:
        """
        A phone answers the request that it was just sent.
        """
        (request,) = (message for message, address in sent if isinstance(message, Request) and address == source)
        response = response_to(request, status, to_tag if status > 100 else "", [("Contact", f"<{contact}>")])
        for value in request.headers.get_all("record-route"):
            response.headers.add("Record-Route", value)
        return self.receive(format_message(response), source)

    def cookie_of(self, sent: Sent) -> str:
        """
        Our Record-Route URI in a request that was relayed.
        """
        (value,) = (
            message.headers.get_all("record-route")[0] for message, _ in sent if isinstance(message, Request)
        )
        match = re.fullmatch(r"<(.*)>", value)
        assert match is not None
        return match.group(1)

    @staticmethod
    def answers(sent: Sent, source: tuple[str, int]) -> list[int]:
        """
        The status codes that went to one address.
        """
        return [message.status for message, address in sent if isinstance(message, Response) and address == source]

    @staticmethod
    def relayed(sent: Sent) -> list[tuple[str, str, tuple[str, int]]]:
        """
        The requests: method, Request-URI, to where.
        """
        return [
            (message.method, message.uri_text, address) for message, address in sent if isinstance(message, Request)
        ]

    def assert_refused(self, sent: Sent, status: int, source: tuple[str, int] = ALICE, reason: str = "") -> None:
        """
        One answer, and nobody else hears anything.
        """
        self.assertEqual([address for _, address in sent], [source])
        response = sent[0][0]
        self.assertEqual(response.status, status)
        if reason:
            self.assertIn(reason, response.reason)

    def assert_relayed(self, sent: Sent, address: tuple[str, int], method: str = "INVITE") -> None:
        """
        One copy went there.
        """
        self.assertEqual([(each[0], each[2]) for each in self.relayed(sent)], [(method, address)])
