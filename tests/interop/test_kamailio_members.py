"""
Who is in a cluster of sipdmq and Kamailio: joins, crashes, returns, farewells.
"""

from __future__ import annotations

from tests.interop.cluster import ClusterTestCase, wait_until


class JoinTests(ClusterTestCase):
    """
    All nodes come to the same list (WIRE §3, §4).
    """

    network = "127.104.1"

    def test_joins_two_kamailios(self) -> None:
        one = self.kamailio(1)
        two = self.kamailio(2, 1)
        three = self.member(3, 2)
        self.assert_nodes([one, two, three])
        self.assertIn(f"host: {three.host}", one.kamcmd("dmq.list_nodes"))

    def test_a_kamailio_joins_two_nodes(self) -> None:
        one = self.member(11)
        two = self.member(12, 11)
        three = self.kamailio(13, 12)
        self.assert_nodes([one, two, three])
        # What is registered last at the newcomer, and at each of the others, is known everywhere.
        for number, node in enumerate((three, one, two)):
            self.register(node, "alice", f"<sip:alice@127.0.0.1:700{number}>")
        everywhere = [f"<sip:alice@127.0.0.1:700{number}>" for number in range(3)]
        for node in (one, two):
            wait_until(lambda node=node: node.users("alice")["alice"] == everywhere, node.log)
        wait_until(lambda: sorted(uri for _, uri in three.contacts()) == [uri[1:-1] for uri in everywhere], three.log)

    def test_a_kamailio_that_joins_nobody_gets_everything(self) -> None:
        one = self.member(31, 32)  # it was there first, and asks until there is a Kamailio
        self.register(one, "alice", "<sip:alice@127.0.0.1:7000>")
        kam = self.kamailio(32)
        self.assert_nodes([one, kam])
        wait_until(lambda: kam.contacts(), kam.log)
        self.register(kam, "bob", "<sip:bob@127.0.0.1:7001>")
        wait_until(lambda: one.count == 2, one.log)

    def test_one_that_works_on_messages_at_once(self) -> None:
        kam = self.kamailio(21, definitions="WITH_PROCESS")  # dmq_process_message(): it wants another order of fields
        own = self.member(22, 21)
        self.assert_nodes([kam, own])
        self.register(own, "alice", "<sip:alice@127.0.0.1:7000>")
        self.register(kam, "bob", "<sip:bob@127.0.0.1:7001>")
        wait_until(lambda: own.count == len(kam.contacts()) == 2, own.log)


class ReturnTests(ClusterTestCase):
    """
    Nodes that crash, come back, or go in order.
    """

    network = "127.104.4"

    def test_a_kamailio_that_crashed_comes_back_and_knows_all(self) -> None:
        own = self.member(1)
        kam = self.kamailio(2, 1)
        self.register(kam, "alice", "<sip:alice@127.0.0.1:7001>")
        wait_until(lambda: own.users("alice")["alice"], own.log)
        known = kam.records()
        kam.kill()
        self.register(own, "alice", "<sip:alice@127.0.0.1:7002>")  # nobody has noticed yet
        wait_until(lambda: own.nodes() == {own.host: "active"}, own.nodes, 10.0)
        self.register(own, "bob", "<sip:bob@127.0.0.1:7003>")
        kam.start()
        self.assert_nodes([own, kam])
        wait_until(lambda: len(kam.records()) == 3, kam.records)
        self.assertEqual({key: kam.records().get(key) for key in known}, known)
        self.register(kam, "carol", "<sip:carol@127.0.0.1:7004>")
        wait_until(lambda: own.count == 4, own.log)

    def test_restarts_within_a_second(self) -> None:
        kam = self.kamailio(11)
        own = self.member(12, 11)
        self.assert_nodes([own, kam])
        self.register(kam, "alice", "<sip:alice@127.0.0.1:7001>")
        self.register(own, "bob", "<sip:bob@127.0.0.1:7002>")
        wait_until(lambda: own.count == len(kam.contacts()) == 2, own.log)
        for end, node in ((kam.kill, kam), (own.kill, own), (kam.stop, kam), (own.stop, own)):
            known = kam.records()
            end()
            node.start()
            if node is kam:
                # It was started without a node to join through: it hears of us when we ask it.
                wait_until(lambda known=known: kam.records() == known, kam.records, 10.0)
            wait_until(lambda: own.count == 2, lambda: own.count)
            self.assert_nodes([own, kam])
        # And changes go both ways again.
        self.register(kam, "carol", "<sip:carol@127.0.0.1:7003>")
        self.register(own, "dave", "<sip:dave@127.0.0.1:7004>")
        wait_until(lambda: own.count == len(kam.contacts()) == 4, own.log)

    def test_a_node_that_crashed_comes_back(self) -> None:
        kam = self.kamailio(21)
        own = self.member(22, 21)
        self.assert_nodes([own, kam])
        own.kill()
        wait_until(lambda: kam.nodes() != {kam.host: "active", own.host: "active"}, kam.nodes, 15.0)
        self.register(kam, "alice", "<sip:alice@127.0.0.1:7001>")
        own.start()
        self.assert_nodes([own, kam])
        wait_until(lambda: own.count == 1, own.log)
        self.register(own, "bob", "<sip:bob@127.0.0.1:7002>")
        self.register(kam, "carol", "<sip:carol@127.0.0.1:7003>")
        wait_until(lambda: own.count == len(kam.contacts()) == 3, own.log)

    def test_farewell(self) -> None:
        kam = self.kamailio(31)
        one = self.member(32, 31, dmq={"farewell": "all"})
        two = self.member(33, 31)
        self.assert_nodes([kam, one, two])
        one.stop()
        self.assertEqual(kam.nodes().get(one.host), "disabled")
        self.assertNotIn(one.host, two.nodes())
        two.stop()  # by default a Kamailio is not told
        self.assertEqual(kam.nodes()[two.host], "active")
        one.start()
        self.assert_nodes([one], also=[kam.host])
        wait_until(lambda: kam.nodes().get(one.host) == "active", kam.nodes, 15.0)
