"""
Node lists together: what they agree on after joins, crashes, farewells, losses and partitions (WIRE §4, DESIGN §7).
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.effects import NodeDisabled, NodeDown, NodeListSettings, NodeUp, Warn
from sipdmq.records import NodeName, NodeStatus
from tests.dmq_model import KamailioNode, Network, OurNode, syncs_of, udp


class ClusterTests(SynchronousTestCase):
    def cluster(self, size: int, **settings: float) -> tuple[Network, list[OurNode]]:
        network = Network()
        first = udp(0)
        nodes = [OurNode(network, udp(index), [first], NodeListSettings()._replace(**settings))  # type: ignore[arg-type]
                 for index in range(size)]
        for node in nodes:
            node.start()
            network.run(1)
        return network, nodes

    def assertAgree(self, network: Network, *names: NodeName) -> None:
        for view in network.views():
            self.assertEqual(view, set(names))


class SipdmqTests(ClusterTests):
    def test_three_nodes_join_through_one_and_know_one_another_within_a_second(self) -> None:
        network, nodes = self.cluster(3)
        self.assertAgree(network, udp(0), udp(1), udp(2))
        self.assertEqual(network.effects(NodeDown) + network.effects(NodeDisabled), [])
        for node in nodes:
            self.assertEqual(len(network.effects(NodeUp, node=node.name)), 2)

    def test_each_asks_one_node_for_a_sync_at_its_first_contact(self) -> None:
        network, _ = self.cluster(3)
        network.run(200)
        self.assertEqual([syncs_of(network, udp(index)) for index in range(3)], [[udp(1)], [udp(0)], [udp(0)]])

    def test_all_started_at_once_find_one_another(self) -> None:
        network = Network(seed=7)
        everybody = [udp(index) for index in range(5)]
        for name in everybody:
            OurNode(network, name, everybody).start()
        network.run(5)
        self.assertAgree(network, *everybody)

    def test_who_joins_while_the_other_is_away_is_in_as_soon_as_that_is_back(self) -> None:
        network = Network()
        a, b = OurNode(network, udp(0), []), OurNode(network, udp(1), [udp(0)])
        b.start()
        network.run(31)
        a.start()
        network.run(11)
        self.assertAgree(network, udp(0), udp(1))

    def test_a_crashed_node_is_disabled_everywhere_and_not_brought_back_by_others(self) -> None:
        network, nodes = self.cluster(3, ping_interval=20)
        nodes[2].crash()
        network.run(60)
        self.assertAgree(network, udp(0), udp(1))
        since = network.now
        network.run(600)
        self.assertEqual(network.effects(NodeUp, since), [])
        self.assertEqual(nodes[0].status(udp(2)), NodeStatus.DISABLED)

    def test_a_dead_node_stays_dead_though_one_with_long_pings_still_lists_it(self) -> None:
        network = Network()
        quick = NodeListSettings(ping_interval=8)
        a = OurNode(network, udp(0), [], quick)
        slow = KamailioNode(network, udp(1), [udp(0)], ping_interval=300)
        c = OurNode(network, udp(2), [udp(0)], quick)
        for node in (a, slow, c):
            node.start()
            network.run(1)
        c.crash()
        network.run(30)
        self.assertIn(udp(2), slow.active())
        self.assertEqual(a.active(), {udp(0), udp(1)})
        since = network.now
        network.run(200)
        self.assertIn(udp(2), slow.active())
        self.assertEqual([effect for effect in network.effects(NodeUp, since) if effect.node.name == udp(2)], [])

    def test_a_crashed_node_is_back_as_soon_as_it_starts(self) -> None:
        network, nodes = self.cluster(3, ping_interval=20)
        nodes[2].crash()
        network.run(60)
        nodes[2].start()
        network.run(1)
        self.assertAgree(network, udp(0), udp(1), udp(2))

    def test_the_first_node_needs_no_address_to_be_found_again(self) -> None:
        network, nodes = self.cluster(3, ping_interval=20)
        nodes[0].crash()
        network.run(100)
        self.assertAgree(network, udp(1), udp(2))
        nodes[0].start()
        network.run(21)
        self.assertAgree(network, udp(0), udp(1), udp(2))

    def test_a_farewell_is_heard_at_once_and_a_quick_return_too(self) -> None:
        network, nodes = self.cluster(3)
        nodes[2].leave()
        network.run(1)
        self.assertAgree(network, udp(0), udp(1))
        nodes[2].start()
        network.run(1)
        self.assertAgree(network, udp(0), udp(1), udp(2))

    def test_a_partition_heals(self) -> None:
        network, _ = self.cluster(4)
        left, right = [udp(0), udp(1)], [udp(2), udp(3)]
        network.partition(left, right)
        network.run(90)
        self.assertEqual(network.views(), [set(left), set(left), set(right), set(right)])
        network.cut = set()
        network.run(70)
        self.assertAgree(network, *left, *right)

    def test_who_had_lost_everybody_syncs_again(self) -> None:
        network, _ = self.cluster(3)
        network.partition([udp(2)], [udp(0), udp(1)])
        network.run(90)
        since = network.now
        network.cut = set()
        network.run(90)
        self.assertEqual(len(syncs_of(network, udp(2), since)), 1)
        self.assertEqual(syncs_of(network, udp(0), since), [])

    def test_losses_delay_and_spoil_nothing(self) -> None:
        for seed in range(10):
            network = Network(seed, loss=0.3)
            everybody = [udp(index) for index in range(5)]
            for name in everybody:
                OurNode(network, name, everybody[:2], NodeListSettings(ping_interval=10)).start()
                network.run(3)
            network.run(300)
            network.loss = 0
            network.run(30)
            self.assertAgree(network, *everybody)

    def test_a_node_gone_for_good_is_forgotten(self) -> None:
        network, nodes = self.cluster(3, forget_after=7200)
        nodes[2].crash()
        network.run(7190)
        self.assertEqual(nodes[1].status(udp(2)), NodeStatus.DISABLED)
        network.run(180)
        self.assertEqual([node.status(udp(2)) for node in nodes[:2]], [None, None])


class KamailioAmongUsTests(ClusterTests):
    def mixed(self) -> tuple[Network, OurNode, KamailioNode, OurNode]:
        network = Network()
        a = OurNode(network, udp(0), [])
        kamailio = KamailioNode(network, udp(1), [udp(0)])
        c = OurNode(network, udp(2), [udp(1)])
        for node in (a, kamailio, c):
            node.start()
            network.run(1)
        return network, a, kamailio, c

    def test_it_joins_us_and_we_join_it(self) -> None:
        network, _, kamailio, _ = self.mixed()
        self.assertAgree(network, udp(0), udp(1), udp(2))
        network.run(600)
        self.assertAgree(network, udp(0), udp(1), udp(2))
        self.assertFalse(kamailio.is_frozen)

    def test_each_kind_is_asked_for_a_sync_once(self) -> None:
        network, *_ = self.mixed()
        network.run(200)
        self.assertEqual(syncs_of(network, udp(2)), [udp(0), udp(1)])
        self.assertEqual(syncs_of(network, udp(0)), [udp(1), udp(2)])

    def test_it_crashes_and_returns(self) -> None:
        network, _, kamailio, _ = self.mixed()
        kamailio.crash()
        network.run(90)
        self.assertAgree(network, udp(0), udp(2))
        kamailio.start()
        network.run(1)
        self.assertAgree(network, udp(0), udp(1), udp(2))

    def test_who_told_it_farewell_is_out_until_its_ping_and_then_syncs(self) -> None:
        network, _, kamailio, c = self.mixed()
        c.leave(everybody=True)
        network.run(2)
        self.assertEqual(kamailio.active(), {udp(0), udp(1)})
        c.start()
        started = network.now
        network.run(2)
        self.assertNotIn(udp(2), kamailio.active())
        self.assertEqual(syncs_of(network, udp(2), started), [udp(0)])
        network.run(120)
        self.assertAgree(network, udp(0), udp(1), udp(2))
        self.assertEqual(syncs_of(network, udp(2), started), [udp(0), udp(1)])

    def test_by_default_it_is_not_told_farewell_and_a_quick_return_is_not_noticed(self) -> None:
        network, _, kamailio, c = self.mixed()
        c.leave()
        network.run(2)
        self.assertIn(udp(2), kamailio.active())
        c.start()
        network.run(2)
        self.assertAgree(network, udp(0), udp(1), udp(2))

    def test_when_it_took_us_for_gone_and_takes_us_back_we_sync(self) -> None:
        network, a, kamailio, _ = self.mixed()
        network.run(10)
        since = network.now
        kamailio.nodes[udp(2)] = "disabled"
        network.run(200)
        self.assertIn(udp(2), kamailio.active())
        self.assertEqual(syncs_of(network, udp(2), since), [udp(1)])
        self.assertEqual(syncs_of(network, a.name, since), [])

    def test_forty_of_us_do_not_freeze_it(self) -> None:
        network = Network()
        everybody = [udp(index) for index in range(40)]
        nodes = [OurNode(network, name, [everybody[0]]) for name in everybody]
        kamailio = KamailioNode(network, udp(300), [everybody[3]])
        for index, node in enumerate(nodes):
            node.start()
            network.run(1)
            if index == 10:
                kamailio.start()
        network.run(300)
        self.assertFalse(kamailio.is_frozen)
        self.assertGreaterEqual(len(kamailio.active()), 26)
        for node in nodes:
            self.assertEqual(node.active(), {*everybody, udp(300)})
        self.assertTrue(network.effects(Warn))

    def test_one_that_is_full_is_not_frozen_by_who_joins_through_it(self) -> None:
        for count in range(24, 28):  # Kamailios: more of them freeze one another
            network = Network(seed=count)
            kamailios = [KamailioNode(network, udp(index), [udp(0)][:index]) for index in range(count)]
            for kamailio in kamailios:
                kamailio.start()
                network.run(1)
            nodes = [OurNode(network, udp(200 + index), [udp(index)]) for index in range(4)]
            for node in nodes:
                node.start()
                network.run(1)
            network.run(400)
            self.assertFalse(any(kamailio.is_frozen for kamailio in kamailios))
            self.assertTrue(network.effects(Warn))
            for node in nodes:
                self.assertGreaterEqual(node.active(), {udp(index) for index in range(count)})

    def test_of_those_that_join_a_nearly_full_one_at_once_as_many_get_in_as_there_is_room_for(self) -> None:
        """
        Each asks first, and all are told of the same room within the same milliseconds.
        """
        for seed in range(20):
            network = Network(seed)
            kamailio = KamailioNode(network, udp(0), [])
            kamailio.start()
            others = [udp(index) for index in range(1, 24)]
            kamailio.nodes = dict.fromkeys(others, "active")  # for as long as this takes
            nodes = [OurNode(network, udp(200 + index), [udp(0)]) for index in range(6)]
            for node in nodes:
                node.start()
            network.run(7)
            self.assertFalse(kamailio.is_frozen, seed)
            self.assertEqual(len(kamailio.active()), 26, seed)
            self.assertTrue(network.effects(Warn))

    def test_a_kamailio_that_comes_late_to_forty_of_us_is_not_frozen_either(self) -> None:
        network = Network(seed=3)
        everybody = [udp(index) for index in range(40)]
        for name in everybody:
            OurNode(network, name, [everybody[0]]).start()
        network.run(70)
        kamailio = KamailioNode(network, udp(300), [everybody[30]])
        kamailio.start()
        network.run(300)
        self.assertFalse(kamailio.is_frozen)
        self.assertGreaterEqual(len(kamailio.active()), 26)
        self.assertAgree_ours(network, {*everybody, udp(300)})

    def assertAgree_ours(self, network: Network, names: set[NodeName]) -> None:
        for node in network.nodes.values():
            if isinstance(node, OurNode):
                self.assertEqual(node.active(), names)
