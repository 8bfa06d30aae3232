"""
Shared tables over whole nodes in memory; and the policy of etc/examples/ban.py.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.config import HtableConfig
from sipdmq.interfaces.routing import IRoutingPolicy
from sipdmq.sip.message import Response
from tests.digest_client import DigestClient, challenges_in
from tests.dmq_copies import PHONE, CopyTestCase, register
from tests.dmq_network import DMQNetwork, address
from tests.policy_network import write_users

EXAMPLE = Path(__file__).parents[1] / "etc" / "examples" / "ban.py"
SHARED = {"t": HtableConfig(dmqreplicate=True), "short": HtableConfig(autoexpire=5, dmqreplicate=True)}


class ClusterTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = DMQNetwork(self)

    def table(self, number: int, name: str = "t") -> Any:
        return self.network.nodes[address(number)].node.tables[name]

    def assert_alike(self, expected: dict[str, Any], *numbers: int) -> None:
        for number in numbers:
            self.assertEqual(dict(self.table(number).items()), expected, number)


class ReplicationTests(ClusterTestCase):
    def setUp(self) -> None:
        super().setUp()
        for number in (1, 2, 3):
            self.network.add(number, *range(1, number), htables=SHARED)
        self.network.pump(3)
        self.network.seen.clear()

    def test_what_one_writes_the_others_read(self) -> None:
        self.table(1).set("a", 1)
        self.table(2).set("b", "x")
        self.network.pump(0.1, 0.01)
        self.assert_alike({"a": 1, "b": "x"}, 1, 2, 3)
        self.table(3).delete("a")
        self.table(3).increment("n")
        self.network.pump(0.1, 0.01)
        self.assert_alike({"b": "x", "n": 1}, 1, 2, 3)

    def test_a_busy_node_sends_many_in_one_message(self) -> None:
        for number in range(150):
            self.table(1).set(f"k{number}", number)
        self.network.pump(0.1, 0.01)
        bodies = self.network.take_requests("htable")
        self.assertEqual(len(bodies), 4, "the first at once, the others together; to two nodes")
        self.assert_alike({f"k{number}": number for number in range(150)}, 1, 2, 3)

    def test_a_removal_keeps_its_place(self) -> None:
        for number in range(50):
            self.table(1).set(f"x{number}", number)
        self.table(1).set("y", 1)
        self.successResultOf(self.table(1).remove(name_re="^x"))
        self.table(1).set("x7", "after")
        self.network.pump(0.5, 0.01)
        self.assert_alike({"y": 1, "x7": "after"}, 1, 2, 3)

    def test_two_that_write_at_the_same_time_agree(self) -> None:
        self.table(1).set("k", "one")
        self.table(2).set("k", "two")
        self.table(3).set("k", 3)
        self.network.pump(0.2, 0.01)
        self.assert_alike({"k": "two"}, 1, 2, 3)

    def test_two_that_count_at_the_same_time_lose_nothing(self) -> None:
        for _ in range(5):
            for number in (1, 2, 3):
                self.table(number).count("x")
        self.network.pump(0.2, 0.01)
        self.assertEqual([self.table(number).total("x") for number in (1, 2, 3)], [15, 15, 15])

    def test_expiry_is_told_nobody_and_happens_everywhere(self) -> None:
        self.table(1, "short").set("k", 1)
        self.network.pump(0.1, 0.01)
        self.assertEqual([len(self.table(number, "short")) for number in (1, 2, 3)], [1, 1, 1])
        self.network.take_requests("htable")
        self.network.pump(6)
        self.assertEqual([len(self.table(number, "short")) for number in (1, 2, 3)], [0, 0, 0])
        self.assertEqual(self.network.take_requests("htable"), [])

    def test_a_node_that_was_away_is_repaired_and_brings_nothing_back(self) -> None:
        self.table(1).set("a", 1)
        self.table(1).set("gone", 1)
        self.network.pump(0.1, 0.01)
        self.network.dead.add(address(3))
        self.table(1).delete("gone")
        self.table(2).set("b", 2)
        self.table(3).set("c", 3)
        self.network.pump(30)
        self.network.dead.clear()
        self.network.pump(90)
        self.assert_alike({"a": 1, "b": 2, "c": 3}, 1, 2, 3)

    def test_a_newcomer_gets_all_from_one(self) -> None:
        for number in range(300):
            self.table(1).set(f"k{number}", number)
        self.network.pump(0.2, 0.01)
        self.network.take_requests()
        self.network.add(4, 1, htables=SHARED)
        self.network.pump(4, 0.01)
        self.assert_alike({f"k{number}": number for number in range(300)}, 4)
        asked = [to for host, to, body in self.network.take_requests("htable") if body == b'{"action":1,"ours":1}']
        self.assertEqual(len(asked), 1)
        self.assertEqual(self.network.nodes[address(4)].node.snapshot()["htable.is_ready"], 1)

    def test_commands(self) -> None:
        commands = self.network.nodes[address(1)].node.commands()
        commands["htable.sets"]("t", "k", "v")
        self.network.pump(0.1, 0.01)
        self.assert_alike({"k": "v"}, 1, 2, 3)


class AloneTests(ClusterTestCase):
    def test_a_node_without_tables_has_no_such_channel(self) -> None:
        node = self.network.add(1)
        self.network.pump(1)
        self.assertIsNone(node.node.cluster.htable)
        self.assertEqual(node.node.tables.names(), ())


class BanTests(CopyTestCase):
    """
    Ten wrong passwords, at any nodes.
    """

    def setUp(self) -> None:
        super().setUp()
        spec = importlib.util.spec_from_file_location("ban", EXAMPLE)
        assert spec is not None and spec.loader is not None
        self.example = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.example)
        users = Path(self.mktemp())
        write_users(users, "alice@localhost")
        tables = {
            "ban": HtableConfig(autoexpire=600, dmqreplicate=True),
            "failures": HtableConfig(autoexpire=300, dmqreplicate=True),
        }
        self.cseq = 0
        policy = self.example.Policy()
        self.assertTrue(IRoutingPolicy.providedBy(policy))
        self.nodes(1, 2, users=str(users), htables=tables, policy=policy, replicate=())

    def attempt(self, number: int, password: str) -> int:
        """
        Register at a node: without a password, and then with one.

        @return: the last status.
        """
        self.cseq += 1
        self.send(number, register(cseq=self.cseq))
        (answer,) = [message for _, host, message in self.take(Response) if host == PHONE[0]]
        if answer.status != 401:
            return int(answer.status)
        client = DigestClient("alice", password)
        name, challenges = challenges_in(answer)
        client.take(challenges)
        self.cseq += 1
        self.send(number, register(f"{name}: {client.credentials('REGISTER', 'sip:localhost')}", cseq=self.cseq))
        self.network.pump(0.02, 0.01)
        return next(message.status for _, host, message in self.take(Response) if host == PHONE[0])

    def test_ten_wrong_passwords_at_two_nodes_ban_an_address_from_both(self) -> None:
        for number in range(9):
            self.assertEqual(self.attempt(1 + number % 2, "guess"), 401)
        self.assertEqual(self.attempt(1, "alice"), 200, "the right one is right until then")
        self.assertEqual(self.attempt(2, "guess"), 401)
        self.network.pump(0.1, 0.01)
        self.assertEqual([self.attempt(number, "alice") for number in (1, 2)], [403, 403])
        self.network.pump(601)
        self.assertEqual(self.attempt(1, "alice"), 200)

    def test_who_fails_seldom_is_not_banned(self) -> None:
        for _ in range(9):
            self.attempt(1, "guess")
        self.network.pump(301)
        for _ in range(9):
            self.attempt(2, "guess")
        self.assertEqual(self.attempt(1, "alice"), 200)

    def test_who_is_trusted_is_not_banned(self) -> None:
        self.patch(self.example, "TRUSTED", (PHONE[0],))
        for _ in range(12):
            self.assertEqual(self.attempt(1, "guess"), 401)
        self.assertEqual(self.attempt(1, "alice"), 200)
