"""
How much a node list holds, and what it tells whom (WIRE §3).
"""

from __future__ import annotations

from sipdmq.dmq.effects import AskLater, Effect, NodeForgotten, NodeUp, SayHello, SendList, Warn
from sipdmq.dmq.lines import read_lines
from sipdmq.dmq.nodelist import NodeList
from sipdmq.dmq.roster import TURNS
from sipdmq.records import NodeName, Protocol
from tests.dmq_nodes import KAMAILIO, US, A, B, NodeListTests, body, kinds, lines, sent, udp


class BoundTests(NodeListTests):
    def test_no_more_nodes_than_allowed_and_one_warning(self) -> None:
        nodes = self.with_kamailio(max_nodes=20)
        effects = nodes.notified(1.0, A, True, 2, lines(A, *(udp(number) for number in range(10, 200))))
        self.assertEqual(len(nodes.nodes()), 21)
        self.assertEqual(kinds(effects).count(Warn), 1)

    def test_of_many_that_others_speak_of_some_are_asked_at_once(self) -> None:
        nodes = self.with_kamailio()
        many = [udp(number) for number in range(10, 110)]
        asked = sent(nodes.notified(1.0, A, True, 2, lines(A, US, *many)))
        self.assertEqual([name for name, _ in asked], many[:32])
        self.assertEqual(sent(nodes.ping(2.0)), [(A, 1)])
        self.assertIn((many[32], 1), sent(nodes.answered(2.0, many[0], lines(many[0], US))))
        self.assertIn((many[33], 1), sent(nodes.timed_out(3.0, many[1])))
        for at in (10.0, 20.0, 30.0):  # those that do not answer make room, too
            asked += sent(nodes.probe(at))
        self.assertEqual({name for name, _ in asked} - {A} | {many[32], many[33]}, set(many))

    def test_one_that_speaks_of_itself_takes_the_place_of_a_rumour(self) -> None:
        nodes = self.with_kamailio(max_nodes=5)
        nodes.notified(1.0, A, True, 2, lines(A, *(udp(number) for number in range(10, 200))))
        effects = nodes.notified(2.0, B, True, 1, lines(B))
        self.assertEqual(kinds(effects), [NodeForgotten, NodeUp, SayHello])
        self.assertEqual(len(nodes.nodes()), 6)


class ToldTests(NodeListTests):
    """
    WIRE §3: what a Kamailio holds, and what it has no transport for.
    """

    def many(self, count: int) -> NodeList:
        nodes = self.make()
        for number in range(20, 20 + count):
            nodes.notified(1.0, udp(number), True, 1, lines(udp(number), US))
            nodes.hello(1.0, udp(number), "sipdmq 0.1.0")
        return nodes

    def test_all_to_a_sipdmq_node(self) -> None:
        nodes = self.many(60)
        self.assertEqual(len(read_lines(nodes.list_for(udp(30), 2.0)).lines), 61)

    def test_one_that_may_be_a_kamailio_is_told_nothing_before_it_has_spoken(self) -> None:
        self.assertEqual(self.many(60).list_for(A, 2.0), b"")

    def test_a_kamailio_keeps_what_it_has_and_gets_what_fits_by_name(self) -> None:
        nodes = self.many(60)
        effects = nodes.notified(2.0, A, True, 1, lines(A, udp(75), udp(79)), KAMAILIO)
        told = [line.name for line in read_lines(nodes.list_for(A, 2.0)).lines]
        self.assertEqual(sorted(told), sorted([A, udp(75), udp(79), US, *(udp(number) for number in range(20, 42))]))
        self.assertLess(len(nodes.list_for(A, 2.0)), 993)
        self.assertNotIn(Warn, kinds(effects))
        warnings = [effect for effect in nodes.ping(2.0) if isinstance(effect, Warn)]
        self.assertEqual(len(warnings), 1)
        self.assertIn("127.101.1.42", warnings[0].text)
        self.assertNotIn(Warn, kinds(nodes.ping(2.0)))

    def test_a_kamailio_that_joins_through_us_has_us_and_perhaps_others_that_it_does_not_list(self) -> None:
        local = udp(90)  # the last by name, and still told first
        nodes = NodeList(local)
        nodes.start(0.0)
        for number in range(20, 80):
            nodes.notified(1.0, udp(number), True, 1, lines(udp(number), local))
        nodes.notified(2.0, A, True, 2, lines(A), KAMAILIO)
        told = [line.name for line in read_lines(nodes.list_for(A, 2.0)).lines]
        self.assertEqual(told, [A, *(udp(number) for number in range(20, 42)), local])
        nodes.answered(2.1, A, lines(*told), KAMAILIO)
        self.assertEqual(len(read_lines(nodes.list_for(A, 2.2)).lines), 26)

    def test_a_node_that_a_kamailio_has_twice_takes_room_twice(self) -> None:
        for length, count in ((0, 26), (990, 1)):
            nodes = self.many(60)
            nodes.notified(2.0, A, True, 1, lines(A), KAMAILIO, length)
            self.assertEqual(len(read_lines(nodes.list_for(A, 2.0)).lines), count)

    def test_nothing_new_is_told_before_it_was_asked_again(self) -> None:
        nodes = self.many(60)
        nodes.notified(2.0, A, True, 1, lines(A), KAMAILIO)
        first = nodes.list_for(A, 2.0)
        nodes.notified(30.1, udp(10), True, 1, lines(udp(10)))
        self.assertEqual(nodes.list_for(A, 60.0), first)
        nodes.notified(61.0, A, True, 1, lines(A), KAMAILIO)  # it has forgotten all of them
        nodes.list_for(A, 120.0)
        nodes.answered(120.1, A, lines(A), KAMAILIO)
        nodes.ask_again(122.6, A)
        effects = nodes.answered(122.7, A, lines(A), KAMAILIO)
        (again,) = [effect for effect in effects if isinstance(effect, SendList) and effect.name == A]
        self.assertIn(udp(10), [line.name for line in read_lines(again.body).lines])

    def test_each_of_us_waits_for_a_turn_of_its_own_and_asks_again(self) -> None:
        nodes = self.make(A)
        full = [A, *(udp(number) for number in range(20, 42))]

        def told(effects: tuple[Effect, ...]) -> list[bytes]:
            return [each.body for each in effects if isinstance(each, SendList) and each.name == A]

        effects = nodes.answered(0.5, A, lines(*full), KAMAILIO)
        self.assertEqual(told(effects), [])
        self.assertEqual([each for each in effects if isinstance(each, AskLater)], [AskLater(A, TURNS / 2)])
        # Neither in an answer to it nor in a ping meanwhile, though it was just heard what it has.
        self.assertNotIn(body(US), nodes.list_for(A, 1.0))
        nodes.ping(1.5)
        self.assertEqual(nodes.answered(1.6, A, lines(*full), KAMAILIO), (), "the turn is drawn once")
        (asked,) = told(nodes.ask_again(3.0, A))
        self.assertNotIn(body(US), asked)
        self.assertEqual([body(US) in each for each in told(nodes.answered(3.1, A, lines(*full), KAMAILIO))], [True])

    def test_whose_turn_comes_too_late_is_not_in(self) -> None:
        nodes = self.make(A)
        full = [A, *(udp(number) for number in range(20, 45))]
        nodes.answered(0.5, A, lines(*full[:-1]), KAMAILIO)
        nodes.ask_again(3.0, A)
        effects = nodes.answered(3.1, A, lines(*full), KAMAILIO)
        (told,) = [each.body for each in effects if isinstance(each, SendList) and each.name == A]
        self.assertNotIn(body(US), told)
        self.assertIn(Warn, kinds(effects))
        self.assertEqual(nodes.ask_again(4.0, A), (), "nothing is waited for any more")

    def test_a_turn_ends_with_the_node(self) -> None:
        nodes = self.make()
        nodes.notified(0.0, A, True, 1, lines(A), KAMAILIO)
        nodes.answered(0.1, A, lines(A, *(udp(number) for number in range(20, 42))), KAMAILIO)
        nodes.ping(10.0)
        nodes.answered(10.1, A, lines(A, *(udp(number) for number in range(20, 42))), KAMAILIO)
        nodes.timed_out(20.0, A)
        self.assertEqual(nodes.ask_again(21.0, A), ())
        nodes.remove(22.0, A)
        self.assertEqual(nodes.ask_again(23.0, A), ())

    def test_never_another_transport_than_its_own(self) -> None:
        nodes = self.with_kamailio()
        tls = NodeName(Protocol.TLS, "127.101.1.9", 5061)
        nodes.notified(1.0, tls, True, 1, lines(tls))
        self.assertEqual(nodes.list_for(A, 1.0), body(A, US))
        nodes.hello(1.0, tls, "sipdmq 0.1.0")
        self.assertEqual(nodes.list_for(tls, 1.0), body(A, tls, US))

    def test_after_hello_the_rest_is_told_at_once(self) -> None:
        nodes = self.many(40)
        nodes.notified(2.0, B, True, 1, lines(B))
        self.assertEqual(sent(nodes.hello(2.1, B, "sipdmq 0.1.0")), [(B, 1)])
