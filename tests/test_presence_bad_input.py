"""
Watchers with passwords, watchers that mean harm, and what comes damaged.
"""

from __future__ import annotations

import random
from dataclasses import replace

from sipdmq.errors import ParseError
from sipdmq.sip.message import Request
from sipdmq.sip.parser import parse_message
from tests.fakes import request_bytes
from tests.mutations import Damage
from tests.policy_network import ALICE, BOB, STRANGER, PolicyTestCase
from tests.test_presence_node import WatchingTestCase
from tests.watchers import PRESENCE

SEED = 20261127


class PasswordTests(PolicyTestCase):
    """
    Who watches has to show who he is.
    """

    presence = PRESENCE

    def headers(self, user: str = "alice", event: str = "presence") -> list[str]:
        return [f"Event: {event}", f"Contact: <sip:{user}@{ALICE[0]}:{ALICE[1]}>", "Expires: 600"]

    def test_407_then_200_and_a_notify(self) -> None:
        sent = self.ask_with_password("SUBSCRIBE", "sip:bob@example.org", headers=self.headers())
        self.assertEqual(self.answers(sent, ALICE), [200])
        (notify,) = [each for each, _ in self.pump(0.25) if isinstance(each, Request)]
        self.assertEqual(notify.method, "NOTIFY")
        self.assertNotIn("proxy-authorization", notify.headers)

    def test_a_refresh_needs_none(self) -> None:
        """
        Whoever knows the tag of the dialog has been asked.
        """
        sent = self.ask_with_password("SUBSCRIBE", "sip:bob@example.org", headers=self.headers(), call_id="s")
        to = sent[0][0].headers.first["to"]
        again = {"to": to, "call_id": "s", "headers": self.headers(), "cseq": "3 SUBSCRIBE"}
        self.assertEqual(self.answers(self.ask("SUBSCRIBE", "sip:192.0.2.1:5060", **again), ALICE), [200])

    def test_the_watcher_is_who_has_shown_a_password(self) -> None:
        sent = self.ask_with_password("SUBSCRIBE", "sip:alice@example.org", headers=self.headers(event="reg"))
        self.assertEqual(self.answers(sent, ALICE), [200])
        sent = self.ask_with_password(
            "SUBSCRIBE", "sip:bob@example.org", headers=self.headers(event="reg"), call_id="other"
        )
        self.assertEqual(self.answers(sent, ALICE), [403])

    def test_a_stranger_is_refused_and_leaves_nothing(self) -> None:
        sent = self.ask(
            "SUBSCRIBE", "sip:bob@example.org", STRANGER, from_="<sip:m@evil.example>;tag=m", headers=self.headers()
        )
        self.assertEqual(self.answers(sent, STRANGER), [403])
        self.assertEqual((self.number("subscriptions.records"), self.number("transaction.servers")), (0, 0))

    def test_nobody_is_told_of_a_refusal_who_has_not_asked(self) -> None:
        sent = self.ask("SUBSCRIBE", "sip:bob@example.org", headers=self.headers())
        self.assertEqual([address for _, address in sent], [ALICE])
        self.assertEqual(self.answers(sent, BOB), [])


class FloodTests(WatchingTestCase):
    presence = replace(PRESENCE, subscriptions=200, subscriptions_per_watcher=50)

    def test_of_one_watcher(self) -> None:
        found = set()
        for number in range(2000):
            data = self.watcher(call_id=f"c{number}").subscribe()
            self._carry(self.memory.receive(data, "198.51.100.7", 5062))
            found.add(self.watchers["198.51.100.7", 5062].responses[0].status)
        self.assertEqual(found, {200, 403})
        self.assertEqual(self.number("subscriptions.live"), 50)

    def test_of_fetches(self) -> None:
        """
        Each is told once; no more are under way than there may be subscriptions.
        """
        found = []
        for number in range(2000):
            watcher = self.watcher(call_id=f"c{number}")
            watcher.answer = 0
            self._carry(self.memory.receive(watcher.subscribe(0), "198.51.100.7", 5062))
            found.append(watcher.responses[0].status)
        self.assertEqual((found.count(200), found.count(503)), (200, 1800))
        self.assertEqual(self.number("notify.watchers"), 200)
        self.pump(70)
        self.assertEqual(self.number("notify.watchers"), 0)

    def test_of_refreshes(self) -> None:
        """
        One NOTIFY is under way, however often a watcher asks.
        """
        watcher = self.watcher()
        self.send(watcher)
        watcher.answer = 0
        for _ in range(300):
            self._carry(self.memory.receive(watcher.subscribe(), *watcher.address))
        self.pump(0.25)
        self.assertEqual(len(watcher.notifies), 2)


class DamageTests(WatchingTestCase):
    """
    A good SUBSCRIBE, damaged a thousand times: each is refused or served, and what we send is well formed.
    """

    def test_damaged(self) -> None:
        damage = Damage(random.Random(SEED), lambda: request_bytes("PUBLISH", uri="sip:bob@example.org"))
        good = self.watcher()
        self.send(good)
        for number in range(1000):
            watcher = self.watcher(port=7000 + number, user=f"u{number}")
            data = damage(watcher.subscribe(headers=["Record-Route: <sip:203.0.113.5;lr>", "Accept: */*"]))
            for sent, _ in self.memory.receive(data, *watcher.address):
                self._check(sent, number)
            within = good.subscribe()
            for sent, _ in self.memory.receive(damage(within), *good.address):
                self._check(sent, number)
            if number % 50 == 0:
                self.state.set(str(number))
                self.memory.reactor.advance(0.3)
                for sent, _ in self.memory.take_sent():
                    self._check(sent, number)
        self.assertGreater(self.number("subscriptions.begun"), 50)
        self.pump(8000, 50)
        self.assertEqual(self.number("subscriptions.records"), 0)
        self.assertEqual(self.number("notify.watchers"), 0)

    def _check(self, data: bytes, number: int) -> None:
        try:
            message = parse_message(data)
        except ParseError as error:
            if not data.startswith(b"SIP/2.0 "):  # answers repeat what they are answers to
                self.fail(f"seed {SEED}, message {number}: {error} in {data!r}")
            return
        if isinstance(message, Request):
            self.assertIn(message.method, ("NOTIFY",))
