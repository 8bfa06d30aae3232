"""
Users who are registered at one another or at the node itself, contacts and gateways that never answer: each call ends,
after a bounded number of copies and a bounded time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sipdmq.records import Destination
from sipdmq.sip.uri import parse_sip_uri
from tests.calls_in_memory import BOB, NODE, CallTestCase, field_of, fields_of, respond
from tests.proxy_network import BOB as GATEWAY
from tests.proxy_network import CAROL as NEXT_GATEWAY
from tests.proxy_network import ProxyTestCase

BREADTH = 60


class LoopTestCase(CallTestCase):
    """
    What the node sends to itself comes back to it.
    """

    def call(self, user: str, more: Sequence[str] = ()) -> tuple[list[str], int]:
        """
        @return: what the caller was answered, and how many INVITEs the node sent to itself.
        """
        self.passed.clear()
        sent = self.send(self.make(uri=f"sip:{user}@example.org", more=more))
        answers = self.statuses(sent)
        copies = sum(message.startswith(b"INVITE ") for message in self.passed)
        self.wait(100)
        self.assert_nothing_left()
        return answers, copies

    def at_us(self, user: str, params: str = "") -> str:
        """
        A contact that is a user of ours.
        """
        return f"<sip:{user}@{NODE[0]}>{params}"

    def register_all(self, count: int, *, one_after_the_other: bool) -> str:
        """
        So many users, each registered at all of them.

        @return: the first.
        """
        users = [f"u{count}x{number}" for number in range(count)]
        for user in users:
            contacts = [
                self.at_us(each, f";q=0.{number:02d}" if one_after_the_other else "")
                for number, each in enumerate(users)
            ]
            self.register(user, *contacts)
        return users[0]


class LoopTests(LoopTestCase):
    """
    RFC 5393 §4.2: a request that comes back to be routed as before is refused with 482.
    """

    def test_at_himself(self) -> None:
        self.register("bob", self.at_us("bob"))
        self.assertEqual(self.call("bob"), (["100", "482"], 1))

    def test_at_himself_with_many_parameters(self) -> None:
        """
        For the location store they are all the same.
        """
        self.register("bob", *[f"<sip:bob@{NODE[0]};x={number}>" for number in range(20)])
        self.assertEqual(self.call("bob"), (["100", "482"], 20))

    def test_at_one_another(self) -> None:
        self.register("alice", self.at_us("bob"))
        self.register("bob", self.at_us("alice"))
        self.assertEqual(self.call("bob"), (["100", "482"], 2))

    def test_a_path_through_ourselves(self) -> None:
        us = f"<sip:{NODE[0]};lr>"
        for path in (us, f"{us}, {us}", ", ".join([us] * 20)):
            self.register("bob", self.at_us("bob"), path=path)
            self.assertEqual(self.call("bob"), (["100", "482"], 1), path)

    def test_a_path_to_another_port_of_ours(self) -> None:
        """
        Who is there is not known: it goes out, once.
        """
        self.register("bob", self.at_us("bob"), path=f"<sip:{NODE[0]}:5061;lr>")
        sent = self.send(self.make())
        self.assertEqual([address for _, address in sent][1:], [(NODE[0], 5061)])
        self.wait(100)
        self.assert_nothing_left()

    def test_a_loop_with_max_forwards(self) -> None:
        self.register("bob", self.at_us("bob"))
        self.assertEqual(self.call("bob", ["Max-Forwards: 1"])[0], ["100", "483"])


class ForkTests(LoopTestCase):
    """
    RFC 5393 §3: forks that meet again, doubled with every round.
    """

    def test_two_who_fork_to_one_another(self) -> None:
        """
        The attack of §3, which makes 2**71 copies out of one request where nothing is done about it.
        """
        for user in ("alice", "bob"):
            self.register(user, self.at_us("alice"), self.at_us("bob"))
        self.assertEqual(self.call("bob"), (["100", "482"], 4))

    def test_many_at_the_same_time(self) -> None:
        """
        §5.3.3: Max-Breadth bounds the branches, whoever forks.
        """
        for count in (3, 5, 8, 20):
            first = self.register_all(count, one_after_the_other=False)
            answers, copies = self.call(first)
            self.assertEqual(len(answers), 2)
            self.assertLessEqual(copies, 2 * BREADTH, count)

    def test_many_one_after_the_other(self) -> None:
        """
        What one hunting group may have 60 of, groups within groups share: or these would be 20! copies.
        """
        for count in (3, 5, 8, 20):
            first = self.register_all(count, one_after_the_other=True)
            answers, copies = self.call(first)
            self.assertEqual(len(answers), 2)
            self.assertLessEqual(copies, count + count * count + count * BREADTH, count)

    def test_a_spiral_is_no_loop(self) -> None:
        """
        Bob has his calls go to alice, who has two phones, one after the other: that is served.
        """
        self.register("bob", self.at_us("alice"))
        self.register("alice", f"<sip:alice@{BOB[0]}>;q=0.9", f"<sip:alice@{BOB[0]}:5070>;q=0.1")
        sent = self.send(self.make())
        ((reached, address),) = [each for each in sent if each[0].startswith(b"INVITE ")]
        self.assertEqual((address, len(fields_of(reached, "Via")), field_of(reached, "Max-Breadth")), (BOB, 3, "30"))
        sent = self.send(respond(reached, 486), BOB)
        self.assertEqual([address[1] for message, address in sent if message.startswith(b"INVITE ")], [5070])
        self.wait(100)
        self.assert_nothing_left()


class DeadContactTests(CallTestCase):
    """
    Twenty contacts, one after the other, and nobody at any of them.
    """

    def test_they_take_64_t1_each(self) -> None:
        self.register("bob", *[f"<sip:bob@198.51.100.{100 + number}>;q=0.{number:02d}" for number in range(20)])
        self.send(self.make())
        counted: Counter[str] = Counter()
        for _ in range(19):
            counted.update(self.statuses(self.wait(32.5)))
            self.assertLessEqual(len(self.memory.reactor.getDelayedCalls()), 8)
            self.assertEqual(self.numbers["transaction.clients"], 1)
        self.assertEqual(counted, {})
        self.assertEqual(set(self.statuses(self.wait(35))), {"408"})
        self.wait(64)
        self.assert_nothing_left()


class SilentGatewayTests(ProxyTestCase):
    """
    A gateway that answers 100 and never more: the next one is not asked, since it has taken the call; timer C ends it.
    """

    def test_100_and_no_more(self) -> None:
        self.route_to(
            *[
                Destination(f"sip:+49@{host}", q, next_hop=parse_sip_uri(f"sip:{host}"), answer_timeout=5.0)
                for host, q in ((GATEWAY, 1000), (NEXT_GATEWAY, 999))
            ]
        )
        self.request()
        self.answer(100, GATEWAY)
        self.pump(184)
        self.assertEqual((self.upstream(), self.sent("INVITE", NEXT_GATEWAY)), ([100], []))
        self.pump(2)
        self.assertEqual(len(self.sent("CANCEL", GATEWAY)), 1)
        self.pump(33)
        self.pump(300)
        self.assertEqual(self.upstream()[:1], [100])
        self.assert_nothing_left()
