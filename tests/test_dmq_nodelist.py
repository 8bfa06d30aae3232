"""
One node list and its events: who is asked, told, up, down, forgotten (WIRE §3, §4).
"""

from __future__ import annotations

from sipdmq.dmq.effects import (
    Effect,
    NodeDisabled,
    NodeDown,
    NodeForgotten,
    NodeRestarted,
    NodeUp,
    Recheck,
    SayHello,
    SendList,
    Sync,
    Warn,
)
from sipdmq.dmq.lines import format_line
from sipdmq.dmq.nodelist import NodeList
from sipdmq.records import ClusterNode, NodeName, NodeStatus, Protocol
from tests.dmq_nodes import (
    ACTIVE,
    DISABLED,
    KAMAILIO,
    NOT_ACTIVE,
    US,
    A,
    B,
    C,
    NodeListTests,
    body,
    kinds,
    lines,
    sent,
    udp,
)


class JoinTests(NodeListTests):
    """
    WIRE §4 "Start".
    """

    def test_each_configured_node_is_asked_whom_it_has_and_then_told_of_us(self) -> None:
        nodes = NodeList(US, [A, B])
        self.assertEqual(nodes.start(0.0), (SendList(A, 2, b""), SendList(B, 2, b"")))
        effects = nodes.answered(0.1, A, lines(A), KAMAILIO)
        self.assertEqual([each for each in effects if isinstance(each, SendList)], [SendList(A, 2, body(A, US))])
        self.assertEqual(sent(nodes.answered(0.2, A, lines(A, US), KAMAILIO)), [])

    def test_one_that_calls_itself_otherwise_or_says_nothing_is_joined_as_well(self) -> None:
        for told in (lines(C), []):
            nodes = self.make(A)
            self.assertIn((A, 2), sent(nodes.answered(0.1, A, told, KAMAILIO)))

    def test_one_that_is_full_is_not_joined_until_there_is_room(self) -> None:
        nodes = self.make(A)
        full = [A, *(udp(number) for number in range(20, 45))]  # 26 lines; one more would end its membership
        effects = nodes.answered(0.1, A, lines(*full), KAMAILIO)
        (told,) = [each.body for each in effects if isinstance(each, SendList) and each.name == A]
        self.assertNotIn(body(US), told)
        (warning,) = [each.text for each in effects if isinstance(each, Warn)]
        self.assertIn(f"it sends no changes to {US}", warning)
        nodes.answered(0.2, A, lines(*full), KAMAILIO)
        for at, room in ((60.0, 0), (120.0, 1)):
            (asked,) = [each for each in nodes.ping(at) if isinstance(each, SendList) and each.name == A]
            self.assertNotIn(body(US), asked.body)
            effects = nodes.answered(at + 0.1, A, lines(*full[: len(full) - room]), KAMAILIO)
            if room:
                nodes.ask_again(at + 2.6, A)
                effects = nodes.answered(at + 2.7, A, lines(*full[: len(full) - room]), KAMAILIO)
            (told,) = [each.body for each in effects if isinstance(each, SendList) and each.name == A]
            self.assertEqual(told.count(body(US)), room)
            nodes.answered(at + 2.8, A, lines(*full), KAMAILIO)

    def test_a_kamailio_that_knew_nobody_when_it_was_asked_is_given_everything(self) -> None:
        def mutual(effects: tuple[Effect, ...]) -> list[bool]:
            return [each.is_mutual for each in effects if isinstance(each, Sync)]

        for release, kind in ((KAMAILIO, "kamailio"), ("", "kamailio"), ("", "sipdmq")):
            nodes = self.make(A)
            nodes.answered(0.1, A, lines(A), release)
            effects = nodes.answered(0.2, A, lines(A, US), release)
            if not release:
                effects = nodes.hello(0.3, A, "sipdmq 1") if kind == "sipdmq" else nodes.no_hello(0.3, A)
            self.assertEqual(mutual(effects), [kind == "kamailio"], (release, kind))
            self.assertEqual(mutual(nodes.answered(60.0, A, lines(A, US), release)), [])
        nodes = self.make(A)
        nodes.answered(0.1, A, lines(A, B), KAMAILIO)  # it has asked B when it first heard of B
        self.assertEqual(mutual(nodes.answered(0.2, A, lines(A, B, US), KAMAILIO)), [False])

    def test_each_kamailio_that_knew_nobody_is_asked_though_another_was(self) -> None:
        """
        It is given what we have, so what it has must be here before.
        """
        nodes = self.make(A, B, init_with_single=True)
        nodes.answered(0.1, A, lines(A, C), KAMAILIO)
        nodes.answered(0.2, A, lines(A, C, US), KAMAILIO)
        nodes.answered(0.3, B, lines(B), KAMAILIO)
        syncs = [each for each in nodes.answered(0.4, B, lines(B, US), KAMAILIO) if isinstance(each, Sync)]
        self.assertEqual(syncs, [Sync(ClusterNode(B, ACTIVE, KAMAILIO), is_mutual=True)])

    def test_listing_ourselves_is_ignored_in_every_spelling(self) -> None:
        other = NodeName(Protocol.TCP, "192.0.2.1", 5060)
        nodes = NodeList(US, [US, other], also_local=[other])
        self.assertEqual(nodes.start(0.0), ())
        self.assertEqual(nodes.notified(1.0, other, True, 2, lines(other)), ())
        nodes.notified(1.0, A, True, 1, lines(A, other, US))
        self.assertEqual([node.name for node in nodes.nodes()], [US, A])

    def test_asked_again_while_alone(self) -> None:
        nodes = self.make(A)
        self.assertEqual(nodes.probe(4.0), ())  # that can still be answered
        nodes.timed_out(8.0, A)
        self.assertEqual(sent(nodes.probe(8.5)), [(A, 2)])
        nodes.answered(9.0, A, lines(A, US))
        self.assertEqual(nodes.probe(20.0), ())
        self.assertEqual(sent(nodes.ping(60.0)), [(A, 1)])

    def test_a_changed_set_of_addresses(self) -> None:
        nodes = self.with_kamailio(B)
        self.assertEqual(sent(nodes.configure(1.0, [A, C])), [(A, 1), (C, 1)])
        nodes.timed_out(100.0, B)
        self.assertEqual(self.status(nodes, B), DISABLED)

    def test_refused_by_one_that_has_not_heard_of_us_yet(self) -> None:
        nodes = self.make(A)
        nodes.refused(1.0, A)
        self.assertEqual(sent(nodes.probe(2.0)), [(A, 2)])
        self.assertEqual(self.status(nodes, A), NOT_ACTIVE)


class NewsTests(NodeListTests):
    """
    WIRE §3 "Answering a request".
    """

    def test_a_node_speaks_of_itself(self) -> None:
        nodes = self.make()
        effects = nodes.notified(1.0, A, True, 1, lines(A))
        self.assertEqual(effects, (NodeUp(ClusterNode(A, ACTIVE)), SayHello(A)))
        self.assertEqual(nodes.list_for(A, 1.0), body(A, US))

    def test_news_goes_to_all_active_nodes_with_one_hop_less(self) -> None:
        nodes = self.with_kamailio()
        for hops, expected in ((2, [(A, 1), (B, 1)]), (70, [(A, 1), (C, 1), (B, 1)])):
            name = B if hops == 2 else C
            self.assertEqual(sorted(sent(nodes.notified(1.0, name, True, hops, lines(name)))), sorted(expected))

    def test_without_max_forwards_or_news_nothing_is_sent(self) -> None:
        nodes = self.with_kamailio()
        for hops in (0, 1):
            self.assertEqual(sent(nodes.notified(1.0, udp(10 + hops), True, hops, lines(udp(10 + hops)))), [])
        self.assertEqual(sent(nodes.notified(1.0, A, True, 2, lines(A, US))), [])

    def test_an_empty_list_is_a_harmless_question(self) -> None:
        nodes = self.with_kamailio()
        self.assertEqual(nodes.notified(1.0, B, True, 2, []), ())
        self.assertEqual(nodes.notified(1.0, None, False, 2, lines(B)), ())
        self.assertIsNone(nodes.find(B))
        self.assertEqual(nodes.list_for(B, 1.0), body(A, US))

    def test_of_another_node_it_is_only_asked(self) -> None:
        nodes = self.with_kamailio()
        effects = nodes.notified(1.0, A, True, 2, lines(A, US, B))
        self.assertEqual(effects[-1:], (SendList(B, 1, body(A, US)),))
        self.assertEqual(self.status(nodes, B), NOT_ACTIVE)
        self.assertEqual(nodes.notified(1.5, A, True, 1, lines(A, US, B)), ())
        effects = nodes.answered(2.0, B, lines(B, US), KAMAILIO)
        self.assertIn(NodeUp(ClusterNode(B, ACTIVE, KAMAILIO)), effects)
        self.assertEqual(sorted(sent(effects)), [(A, 1), (B, 1)])  # now it is news

    def test_nobody_is_talked_out_of_the_cluster(self) -> None:
        nodes = self.with_kamailio()
        nodes.notified(1.0, B, True, 1, lines(B))
        effects = nodes.notified(100.0, B, True, 1, [*lines(B), *lines(A, US, status=DISABLED)])
        self.assertEqual(sent(effects), [(A, 1)])
        self.assertEqual(self.status(nodes, A), ACTIVE)
        self.assertEqual(nodes.nodes()[0].status, ACTIVE)

    def test_who_sends_from_elsewhere_does_not_speak_of_himself(self) -> None:
        nodes = self.with_kamailio()
        nodes.notified(1.0, A, False, 1, lines(A, status=DISABLED))
        self.assertEqual(self.status(nodes, A), ACTIVE)
        self.assertEqual(sent(nodes.notified(1.0, B, False, 1, lines(B))), [(B, 1)])
        self.assertEqual(self.status(nodes, B), NOT_ACTIVE)

    def test_unknown_nodes_that_are_not_active_are_not_kept(self) -> None:
        nodes = self.with_kamailio()
        nodes.notified(1.0, A, True, 1, [*lines(A), *lines(B, status=DISABLED)])
        nodes.notified(1.0, C, True, 1, lines(C, status=DISABLED))
        self.assertEqual([node.name for node in nodes.nodes()], [US, A])


class SilenceTests(NodeListTests):
    """
    WIRE §4 "A node that does not answer".
    """

    def outcomes(self, nodes: NodeList, count: int) -> list[NodeStatus | None]:
        outcomes = []
        for index in range(1, count + 1):
            nodes.timed_out(100.0 * index, A)
            outcomes.append(self.status(nodes, A))
        return outcomes

    def test_by_default_a_configured_one_is_not_active_another_disabled(self) -> None:
        self.assertEqual(self.outcomes(self.with_kamailio(A), 3), [NOT_ACTIVE] * 3)
        self.assertEqual(self.outcomes(self.with_kamailio(), 3), [DISABLED] * 3)

    def test_without_remove_inactive_no_one_is_disabled(self) -> None:
        self.assertEqual(self.outcomes(self.with_kamailio(remove_inactive=False), 3), [NOT_ACTIVE] * 3)

    def test_with_fail_counts_both_alike(self) -> None:
        for configured in ((), (A,)):
            nodes = self.with_kamailio(
                *configured, fail_count_enabled=True, fail_count_threshold_not_active=1, fail_count_threshold_disabled=3
            )
            self.assertEqual(self.outcomes(nodes, 5), [ACTIVE, NOT_ACTIVE, NOT_ACTIVE, DISABLED, DISABLED])

    def test_lost_data_counts_while_it_is_active(self) -> None:
        nodes = self.with_kamailio(fail_count_enabled=True, fail_count_threshold_not_active=1,
                                   fail_count_threshold_disabled=3)
        self.assertEqual(sent(nodes.data_timed_out(100.0, A)), [(A, 1)])
        self.assertEqual(self.status(nodes, A), ACTIVE)
        for at in (101.0, 102.0, 103.0, 104.0):
            nodes.data_timed_out(at, A)
        self.assertEqual(self.status(nodes, A), NOT_ACTIVE)

    def test_lost_data_makes_us_ask_otherwise(self) -> None:
        nodes = self.with_kamailio()
        self.assertEqual(nodes.data_timed_out(100.0, A), (SendList(A, 1, body(A, US)),))
        self.assertEqual(self.status(nodes, A), ACTIVE)

    def test_an_answer_to_a_later_question_proves_more(self) -> None:
        nodes = self.with_kamailio()
        nodes.answered(100.0, A, lines(A, US))
        nodes.timed_out(105.0, A)
        nodes.timed_out(105.0, A, sent_at=99.0)
        self.assertEqual(self.status(nodes, A), ACTIVE)
        nodes.timed_out(105.0, A, sent_at=101.0)  # refused at once
        self.assertEqual(self.status(nodes, A), DISABLED)

    def test_what_listeners_hear(self) -> None:
        nodes = self.with_kamailio()
        self.assertEqual(kinds(nodes.timed_out(100.0, A)), [NodeDisabled])
        self.assertEqual(kinds(nodes.timed_out(200.0, A)), [])
        self.assertEqual(kinds(nodes.answered(201.0, A, lines(A, US))), [NodeUp, Sync])
        nodes = self.with_kamailio(A)
        self.assertEqual(kinds(nodes.timed_out(100.0, A)), [NodeDown])

    def test_a_disabled_node_is_pinged_not_listed_and_forgotten_after_a_day(self) -> None:
        nodes = self.with_kamailio()
        nodes.timed_out(100.0, A)
        self.assertEqual(nodes.ping(160.0), (SendList(A, 1, body(US)),))
        nodes.timed_out(86_499.0, A)
        self.assertEqual(kinds(nodes.ping(86_499.0)), [SendList])
        self.assertEqual(nodes.ping(86_500.0), (NodeForgotten(A),))
        self.assertFalse(nodes.has_host(A.host))

    def test_a_configured_node_is_never_forgotten(self) -> None:
        nodes = self.with_kamailio(A)
        nodes.notified(1.0, A, True, 1, lines(A, status=DISABLED))
        self.assertEqual(sent(nodes.ping(10**6)), [(A, 2)])

    def test_one_that_others_spoke_of_only_is_forgotten_soon(self) -> None:
        nodes = self.with_kamailio()
        nodes.notified(1.0, A, True, 1, lines(A, US, B))
        nodes.ping(500.0)
        self.assertIn(NodeForgotten(B), nodes.ping(601.0))

    def test_who_does_not_hear_us_is_asked_although_it_speaks(self) -> None:
        nodes = self.with_kamailio()
        nodes.timed_out(100.0, A)
        effects = nodes.notified(101.0, A, True, 1, lines(A, US))
        self.assertEqual(sent(effects), [(A, 1)])
        self.assertEqual(self.status(nodes, A), ACTIVE)

    def test_nodes_in_trouble_are_probed_every_two_seconds(self) -> None:
        nodes = self.with_kamailio()
        self.assertEqual(sent(nodes.probe(10.0, [A, B])), [(A, 1)])
        self.assertEqual(nodes.probe(12.0, [A]), ())  # not answered yet
        nodes.answered(12.5, A, lines(A, US))
        self.assertEqual(sent(nodes.probe(12.6, [A])), [(A, 1)])


    def test_over_connections_at_growing_intervals(self) -> None:
        for protocol, expected in ((Protocol.UDP, [2, 4, 6, 8, 10, 12, 14, 16]), (Protocol.TCP, [4, 12, 28])):
            name = A._replace(protocol=protocol)
            nodes = self.make(name)
            nodes.timed_out(0.0, name)
            asked = []
            for second in range(2, 61, 2):
                if nodes.probe(float(second)):
                    asked.append(second)
                    nodes.timed_out(float(second), name)
            self.assertEqual(asked[: len(expected)], expected)
            self.assertLess(len(asked), 31 if protocol is Protocol.UDP else 5)


class QuietKamailioTests(NodeListTests):
    def test_it_is_asked_before_it_gives_up_a_change(self) -> None:
        """
        C{fr_timer} is 30 s, C{ping_interval} may be 60.
        """
        nodes = self.with_kamailio()
        self.assertEqual(nodes.probe(5.0), ())
        self.assertEqual(sent(nodes.probe(11.0)), [(A, 1)])
        nodes.answered(11.1, A, lines(A, US), KAMAILIO)
        self.assertEqual(nodes.probe(13.0), ())


class SyncTests(NodeListTests):
    """
    WIRE §2: who is not in its list gets no answer to a sync.
    """

    def test_not_before_it_lists_us(self) -> None:
        nodes = self.make(A)
        effects = nodes.notified(1.0, A, True, 2, lines(A), KAMAILIO)
        self.assertNotIn(Sync, kinds(effects))
        effects = nodes.answered(1.1, A, lines(A, US), KAMAILIO)
        self.assertEqual([effect for effect in effects if isinstance(effect, Sync)],
                         [Sync(ClusterNode(A, ACTIVE, KAMAILIO))])
        self.assertNotIn(Sync, kinds(nodes.answered(2.0, A, lines(A, US), KAMAILIO)))

    def test_not_before_it_is_known_what_it_is(self) -> None:
        nodes = self.make(A)
        self.assertEqual(kinds(nodes.answered(1.0, A, lines(A, US))), [NodeUp, SayHello, SendList])
        self.assertEqual(nodes.no_hello(1.1, A), (Sync(ClusterNode(A, ACTIVE)),))

    def test_of_each_kind_once(self) -> None:
        nodes = self.with_kamailio()
        nodes.notified(1.0, B, True, 1, lines(B))
        self.assertIn(Sync(ClusterNode(B, ACTIVE, "sipdmq 0.1.0", True)), nodes.hello(1.1, B, "sipdmq 0.1.0"))
        nodes.notified(2.0, C, True, 1, lines(C, US), KAMAILIO)
        self.assertNotIn(Sync, kinds(nodes.answered(2.1, C, lines(C, US), KAMAILIO)))

    def test_with_init_with_single_once(self) -> None:
        nodes = self.with_kamailio(init_with_single=True)
        nodes.notified(1.0, B, True, 1, lines(B))
        self.assertNotIn(Sync, kinds(nodes.hello(1.1, B, "sipdmq 0.1.0")))
        nodes.notified(60.0, A, True, 1, lines(A), KAMAILIO)  # but one that took us for gone is asked again
        self.assertIn(Sync, kinds(nodes.notified(120.0, A, True, 1, lines(A, US), KAMAILIO)))

    def test_again_when_it_had_us_for_gone(self) -> None:
        nodes = self.with_kamailio()
        self.assertNotIn(Sync, kinds(nodes.notified(60.0, A, True, 1, lines(A), KAMAILIO)))
        effects = nodes.notified(120.0, A, True, 1, lines(A, US), KAMAILIO)
        self.assertIn(Sync(ClusterNode(A, ACTIVE, KAMAILIO), is_again=True), effects)

    def test_one_that_asks_for_everything_was_started_anew(self) -> None:
        """
        Its first notification was lost: it sends others without waiting for the answer.
        """
        nodes = self.with_kamailio()
        nodes.answered(1.0, A, lines(A, US), KAMAILIO)
        self.assertEqual(nodes.wants_all(9.0, A), ())  # it asks when it has just come
        effects = nodes.wants_all(60.0, A)
        self.assertEqual(kinds(effects), [NodeRestarted, SendList])
        self.assertEqual(nodes.wants_all(61.0, A), ())  # once more, or on another channel
        effects = nodes.answered(61.0, A, lines(A, US), KAMAILIO)
        self.assertIn(Sync(ClusterNode(A, ACTIVE, KAMAILIO), is_repair=True), effects)
        nodes.notified(90.0, A, True, 2, lines(A), KAMAILIO)
        self.assertEqual(nodes.wants_all(91.0, A), ())  # that has been noticed

    def test_one_that_was_cut_off_is_asked_again_when_what_it_told_meanwhile_has_failed(self) -> None:
        """
        It takes us for gone then, and our next ping for our return: nothing of that is to be seen here.
        """
        for lost, age in ((NodeList.timed_out, 34.0), (NodeList.data_timed_out, 45.0)):
            nodes = self.with_kamailio()
            nodes.answered(10.0, A, lines(A, US), KAMAILIO)
            lost(nodes, 20.0, A, 11.0)
            nodes.answered(21.0, A, lines(A, US), KAMAILIO)
            nodes.answered(25.0, A, lines(A, US), KAMAILIO)
            self.assertNotIn(Recheck, kinds(nodes.probe(54.9)))
            found = [each for each in nodes.probe(55.0) if isinstance(each, Recheck)]  # 32 s, and half of the next 4
            self.assertEqual(found, [Recheck(ClusterNode(A, ACTIVE, KAMAILIO), age)])
            self.assertNotIn(Recheck, kinds(nodes.probe(57.0)))

    def test_so_is_one_that_only_left_its_records_unanswered_for_a_while(self) -> None:
        nodes = self.with_kamailio()
        nodes.answered(21.0, A, lines(A, US), KAMAILIO)
        nodes.was_silent(21.0, A, 5.0)
        found = [each for each in nodes.probe(55.0) if isinstance(each, Recheck)]
        self.assertEqual(found, [Recheck(ClusterNode(A, ACTIVE, KAMAILIO), 39.0)])

    def test_not_one_that_is_gone_by_then_and_none_of_ours(self) -> None:
        nodes = self.with_kamailio()
        nodes.notified(1.0, B, True, 1, lines(B, US))
        nodes.hello(1.1, B, "sipdmq 0.1.0")
        for name in (A, B):
            nodes.timed_out(20.0, name, 20.0)
            nodes.answered(21.0, name, lines(name, US), "")
        nodes.hello(22.0, B, "sipdmq 0.1.0")
        nodes.notified(30.0, A, True, 1, lines(A, status=DISABLED), KAMAILIO)
        self.assertNotIn(Recheck, kinds(nodes.probe(60.0)))

    def test_one_that_has_us_when_we_start_is_asked_again_later(self) -> None:
        """
        We were here before: what it told us then may still come, true or not.
        """
        for knows_us in (True, False):
            nodes = self.make(A)
            nodes.answered(1.0, A, lines(A, B, *([US] if knows_us else [])), KAMAILIO)
            nodes.answered(2.0, A, lines(A, B, US), KAMAILIO)
            found = [each.age for each in nodes.probe(36.0) if isinstance(each, Recheck)]
            self.assertEqual(found, [35.0] if knows_us else [])

    def test_nor_one_that_is_silent_once_more(self) -> None:
        nodes = self.with_kamailio()
        nodes.data_timed_out(20.0, A, 12.0)
        nodes.answered(21.0, A, lines(A, US), KAMAILIO)
        nodes.data_timed_out(54.0, A, 46.0)
        self.assertNotIn(Recheck, kinds(nodes.probe(56.0)))
        nodes.answered(60.0, A, lines(A, US), KAMAILIO)
        (found,) = [each for each in nodes.probe(95.0) if isinstance(each, Recheck)]
        self.assertEqual(found.age, 95.0)

    def test_of_one_that_was_lost_what_is_older_than_its_return_is_no_matter(self) -> None:
        nodes = self.with_kamailio()
        nodes.timed_out(20.0, A)
        nodes.answered(3600.0, A, lines(A, US), KAMAILIO)
        self.assertEqual([each.age for each in nodes.probe(3635.0) if isinstance(each, Recheck)], [35.0])

    def test_an_answer_to_a_later_question_is_no_cut(self) -> None:
        """
        A question for everything takes a Kamailio long; who asks again for that would never end.
        """
        nodes = self.with_kamailio()
        nodes.answered(50.0, A, lines(A, US), KAMAILIO)
        for lost in (nodes.timed_out, nodes.data_timed_out):
            lost(60.0, A, 0.0)
        nodes.answered(61.0, A, lines(A, US), KAMAILIO)
        self.assertNotIn(Recheck, kinds(nodes.probe(100.0)))

    def test_one_that_is_cut_off_again_and_again_is_asked_seldom(self) -> None:
        nodes = self.with_kamailio()
        now, pauses = 0.0, []
        for _ in range(9):
            now += 20.0
            nodes.data_timed_out(now, A, now)
            begun = now = now + 1.0
            nodes.answered(now, A, lines(A, US), KAMAILIO)
            while Recheck not in kinds(nodes.probe(now)):
                now += 1.0
                nodes.answered(now, A, lines(A, US), KAMAILIO)
            pauses.append(now - begun)
        self.assertEqual(pauses, [34.0] * 3 + [66.0, 130.0, 258.0, 514.0, 514.0, 514.0])

    def test_a_nearly_full_one_is_asked_again_all_the_same(self) -> None:
        """
        It is asked each time before it is told of us.
        """
        nodes = self.with_kamailio(A)
        others = [udp(number) for number in range(10, 27)]
        listed = lines(A, US, *others)
        nodes.answered(1.0, A, listed, KAMAILIO)
        for name in others:
            nodes.notified(2.0, name, True, 1, lines(name), "")
        nodes.data_timed_out(20.0, A, 20.0)
        found = []
        for second in range(21, 70):
            found += [second for each in nodes.probe(second) if isinstance(each, Recheck)]
            nodes.answered(second + 0.5, A, listed, KAMAILIO)
        self.assertEqual(found, [56])

    def test_others_ask_for_everything_as_they_like(self) -> None:
        nodes = self.with_kamailio()
        nodes.notified(1.0, B, True, 1, lines(B))
        nodes.hello(1.1, B, "sipdmq 0.1.0")
        nodes.notified(1.0, C, True, 1, lines(C, US), KAMAILIO)  # it has answered nothing yet
        for name in (US, B, C):
            self.assertEqual(nodes.wants_all(60.0, name), (), name)
        nodes.timed_out(80.0, A)
        self.assertEqual(nodes.wants_all(81.0, A), ())

    def test_one_that_was_started_anew_is_asked_when_it_lists_us(self) -> None:
        """
        A phone may have registered there when nobody was in its list.
        """
        nodes = self.with_kamailio()
        effects = nodes.notified(60.0, A, True, 2, lines(A), KAMAILIO)
        self.assertIn(NodeRestarted, kinds(effects))
        self.assertNotIn(Sync, kinds(effects))
        self.assertIn(Sync, kinds(nodes.notified(61.0, A, True, 1, lines(A, US), KAMAILIO)))

    def test_what_it_is_is_asked_at_each_return(self) -> None:
        nodes = self.make()
        nodes.notified(1.0, A, True, 1, lines(A))
        nodes.hello(1.1, A, "sipdmq 0.1.0")
        nodes.timed_out(100.0, A)
        self.assertFalse(nodes.nodes()[1].is_sipdmq)
        self.assertIn(SayHello(A), nodes.notified(120.0, A, True, 1, lines(A)))


class FarewellTests(NodeListTests):
    """
    WIRE §4 "Orderly shutdown".
    """

    def mixed(self, farewell: str) -> NodeList:
        nodes = self.make()
        nodes._settings = nodes._settings._replace(farewell=farewell)
        nodes.notified(1.0, A, True, 1, lines(A, US), KAMAILIO)
        nodes.notified(1.0, B, True, 1, lines(B, US))
        nodes.hello(1.0, B, "sipdmq 0.1.0")
        return nodes

    def test_whom_it_goes_to(self) -> None:
        goodbye = format_line(US, DISABLED)
        for farewell, everybody, expected in (
            ("sipdmq", False, [B]), ("all", False, [A, B]), ("none", False, []), ("none", True, [A, B]),
        ):
            effects = self.mixed(farewell).leave(2.0, everybody)
            self.assertEqual(effects, tuple(SendList(name, 1, goodbye) for name in expected))

    def test_afterwards_answers_say_so_too_and_nothing_is_asked(self) -> None:
        nodes = self.mixed("sipdmq")
        nodes.leave(2.0)
        self.assertIn(format_line(US, DISABLED), nodes.list_for(B, 3.0))
        self.assertIn(format_line(US, ACTIVE), nodes.list_for(A, 3.0))
        for effects in (nodes.ping(60.0), nodes.probe(60.0, [A]), nodes.notified(60.0, C, True, 2, lines(C)),
                        nodes.answered(60.0, A, lines(A)), nodes.timed_out(60.0, A), nodes.leave(60.0)):
            self.assertEqual(effects, ())

    def test_a_farewell_that_is_heard(self) -> None:
        nodes = self.with_kamailio()
        effects = nodes.notified(1.0, A, True, 1, lines(A, status=DISABLED))
        self.assertEqual(effects, (NodeDisabled(ClusterNode(A, DISABLED, KAMAILIO)),))
        self.assertEqual(sent(nodes.notified(1.5, B, True, 1, lines(B, A))), [(A, 1)])
        self.assertEqual(self.status(nodes, A), DISABLED)
        nodes.answered(1.6, A, lines(A, status=DISABLED))
        self.assertEqual(self.status(nodes, A), DISABLED)
        self.assertIn(NodeUp, kinds(nodes.notified(2.0, A, True, 2, lines(A))))


class OperatorTests(NodeListTests):
    def test_add_remove_and_change_status(self) -> None:
        nodes = self.make()
        self.assertEqual(nodes.add(1.0, A), (SendList(A, 1, body(US)),))
        self.assertEqual(nodes.add(1.0, US), ())
        self.assertEqual(kinds(nodes.change_status(1.0, A, ACTIVE)), [NodeUp, SayHello])
        self.assertEqual(kinds(nodes.change_status(1.0, A, NOT_ACTIVE)), [NodeDown])
        self.assertEqual(kinds(nodes.remove(2.0, A)), [NodeDisabled, NodeForgotten])
        for effects in (nodes.remove(2.0, A), nodes.change_status(2.0, A, ACTIVE)):
            self.assertEqual(effects, ())
        self.assertEqual(len(nodes.nodes()), 1)

    def test_late_words_of_a_forgotten_node(self) -> None:
        nodes = self.make()
        for effects in (nodes.answered(1.0, A, lines(A, B)), nodes.timed_out(1.0, A), nodes.refused(1.0, A),
                        nodes.hello(1.0, A, "x"), nodes.no_hello(1.0, A), nodes.data_timed_out(1.0, A)):
            self.assertEqual(effects, ())
