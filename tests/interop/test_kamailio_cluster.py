"""
Other things that a cluster with Kamailio does: KDMQ over TCP, channels of one's own, more nodes than Kamailio can hold.
"""

from __future__ import annotations

from tests.interop.cluster import ClusterTestCase, Member, wait_until
from tests.interop.crowd import Crowd
from tests.interop.phone import Answer
from tests.interop.programs import CHECKOUT, ServerProcess


class TcpTests(ClusterTestCase):
    """
    KDMQ goes by the transport of the nodes' URIs (WIRE §1).
    """

    network = "127.104.5"

    def test_both_join_each_other(self) -> None:
        params = ";transport=tcp"
        one = self.kamailio(1, params=params)
        own = self.member(2, 1, params=params)
        two = self.kamailio(3, 2, params=params)
        self.assert_nodes([one, own, two])
        self.register(one, "alice", "<sip:alice@127.0.0.1:7001>")
        self.register(own, "bob", "<sip:bob@127.0.0.1:7002>")
        self.register(two, "carol", "<sip:carol@127.0.0.1:7003>")
        wait_until(lambda: own.count == 3, own.log)
        wait_until(lambda: len(one.records()) == 3, one.log)
        self.assertEqual(one.records(), two.records())
        self.assertGreaterEqual(own.snapshot()["transport.connections"], 2)
        # Both return: the kept connections do not hinder.
        for node in (own, two):
            node.stop()
            node.start()
            self.assert_nodes([one, own, two])
            wait_until(lambda: own.count == len(two.contacts()) == 3, own.log)


    def test_a_sync_fits_into_what_kamailio_reads_of_a_stream(self) -> None:
        params = ";transport=tcp"
        own = self.member(12, params=params, usrloc={"batch_msg_contacts": "150"})
        for number in range(4):  # 150 contacts of 350 bytes are three times what it reads
            contacts = [f"<sip:user{number}-{each}@127.0.0.1:{7000 + each}>" for each in range(40)]
            self.register(own, f"user{number}", *contacts)
        kam = self.kamailio(11, 12, params=params)
        wait_until(lambda: len(kam.contacts()) == 160, lambda: len(kam.contacts()))


class ChannelTests(ClusterTestCase):
    """
    The example policy of C{etc/cluster} beside a Kamailio (WIRE §11).
    """

    network = "127.104.6"

    def set_up(self, policy_class: str, definitions: str = "", **settings: dict[str, str]) -> None:
        """
        @param definitions: of the Kamailio.
        """
        self.kam = self.kamailio(2, definitions=definitions)
        settings = {"node": {"policy": f"policy:{policy_class}"}, **settings}
        self.own = Member(self.address(1), self.address(2), settings=settings)
        policy = (CHECKOUT / "etc" / "cluster" / "policy.py").read_text().replace("127.0.0.", f"{self.network}.")
        (self.own.directory / "policy.py").write_text(policy)
        self.addCleanup(self.assert_calm, self.own)
        self.addCleanup(self.own.clean_up)
        self.own.start()
        self.assert_nodes([self.kam, self.own])

    def message(self, node: ServerProcess, user: str, body: str, *fields: str) -> Answer:
        """
        Send a MESSAGE to a node itself.
        """
        phone = self.phone(node, "admin")
        head, _, _ = phone.make("MESSAGE", f"sip:{user}@{node.host}", fields).decode().rpartition("Content-Length: 0")
        return phone.send(f"{head}Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    def say(self, command: str, body: str = "") -> str:
        """
        @return: what the policy answers to a command.
        """
        return self.message(self.own, f"cluster-{command}", body).text.split("\r\n")[0].partition(" 480 ")[2]

    def kam_says(self, body: str, *fields: str, command: str = "cmd-bcast") -> None:
        """
        Have the Kamailio send on channel "word".
        """
        answer = self.message(self.kam, command, body, "X-Channel: word", "X-Type: text/plain", *fields)
        self.assertEqual(answer.status, 200, answer.text)

    def assert_word(self, word: str) -> None:
        """
        Soon the policy has heard it.
        """
        wait_until(lambda: self.say("word") == f"the word is {word}", lambda: self.say("word"))

    def test_functions(self) -> None:
        self.set_up("Policy")
        self.assertEqual(self.say("tell", "too early"), "0 nodes have it")  # 404: no such channel there yet
        self.kam_says("nobody listens")  # now there is
        self.assertEqual(self.say("tell", "good morning"), "1 nodes have it")
        self.assertEqual(self.say("tell-2", "good evening"), "taken")
        for word in ("too early", "good morning", "good evening"):
            self.assertIn(f"channel word from {self.own.host}: {word}", self.kam.log())

        self.assertEqual(self.say("listen"), "the word is none yet")
        self.kam_says("to all")
        self.assert_word("to all")
        self.kam_says("to one", f"X-Node: sip:{self.own.host}:5060", command="cmd-send")
        self.assert_word("to one")
        self.assertEqual(self.say("count"), "3 messages from other nodes")
        self.say("here", "from here")
        self.assert_word("from here")
        answer = self.own.kdmq("word", "by a stranger", self.address(77))
        self.assertEqual(answer.split()[1], "403")  # allowed to join, but it has not
        self.assert_word("from here")

        # It was told nothing that it does not understand.
        self.assertEqual(self.kam.nodes(), {self.kam.host: "active", self.own.host: "active"})
        # What the policy hands to the queue is worked on.
        self.register(self.kam, "alice", "<sip:alice@127.0.0.1:7001>")
        wait_until(lambda: self.own.count == 1, self.own.log)
        self.assertEqual(self.say("leave"), "gone")
        self.assertEqual(self.kam.nodes()[self.own.host], "disabled")

    def test_nodes(self) -> None:
        self.set_up("Policy")
        other = self.kamailio(4)  # knows nobody
        self.assertEqual(self.status_of(other), "")
        self.say("add")
        wait_until(lambda: self.status_of(other) == "ACTIVE", lambda: self.say("nodes"))
        self.assert_nodes([self.kam, self.own, other])
        self.say("disable")
        self.assertEqual(self.status_of(other), "DISABLED")
        wait_until(lambda: self.status_of(other) == "ACTIVE", lambda: self.say("nodes"))  # it is heard of
        other.kill()
        self.say("remove")
        self.assertEqual(self.status_of(other), "")
        self.assertEqual(self.status_of(self.kam), "ACTIVE")

    def status_of(self, node: ServerProcess) -> str:
        """
        What the policy says of a node; empty: it is not in its list.
        """
        words = (word.partition("=") for word in self.say("nodes").split())
        return {name: status for name, _, status in words}.get(f"sip:{node.host}:5060", "")

    def test_copies(self) -> None:
        self.set_up("HubPolicy", "WITH_TREPL WITH_NO_PRES WITH_NO_DLG", usrloc={"enable": "0"})
        self.register(self.own, "alice", "<sip:alice@127.0.0.1:7001>")
        wait_until(lambda: ("alice", "sip:alice@127.0.0.1:7001") in self.kam.contacts(), self.kam.log)
        self.register(self.kam, "bob", "<sip:bob@127.0.0.1:7002>")
        # Alice's, and Bob's, which was passed on and ended there.
        copy = f"replicated REGISTER from {self.own.host}:5060"
        wait_until(lambda: self.kam.log().count(copy) == 2, self.kam.log)
        self.assertEqual(self.own.snapshot()["dmq.copies_sent"], 2)
        self.assertEqual(self.own.users("bob"), {"bob": ["<sip:bob@127.0.0.1:7002>"]})


class CrowdTests(ClusterTestCase):
    """
    More nodes than a Kamailio can list (WIRE §3).
    """

    network = "127.104.7"

    def test_thirty_nodes(self) -> None:
        kam = self.kamailio(1)
        own = self.member(2, 1)
        self.assert_nodes([kam, own])
        crowd = Crowd([self.address(100 + number) for number in range(30)])
        self.addCleanup(crowd.close)
        crowd.join(own.host)
        wait_until(lambda: own.snapshot()["dmq.nodes_active"] == 31, own.log, 10.0)
        wait_until(lambda: len(kam.nodes()) >= 20, kam.nodes, 15.0)
        late = self.kamailio(3, 2)  # one that joins when there is no room
        wait_until(lambda: late.nodes().get(own.host) == "active", late.nodes)
        wait_until(lambda: kam.notify(), kam.nodes)
        for each in (kam, late):
            self.assertLessEqual(len(each.nodes()), 29)
            self.assertIn(f"sip:{own.host}:5060;status=active\r\n", each.notify())
        for number, each in enumerate((kam, own, late)):
            self.register(each, "alice", f"<sip:alice@127.0.0.1:700{number}>")
        wait_until(lambda: own.count == 3, own.log)
        wait_until(lambda: len(kam.contacts()) == 3, kam.nodes)
        # The first Kamailio has no room for the late one, so it sends it nothing; the others do.
        wait_until(lambda: {uri[-1] for _, uri in late.contacts()} >= {"1", "2"}, late.contacts)

    def test_one_that_is_full_is_not_joined(self) -> None:
        kam = self.kamailio(11)
        crowd = Crowd([self.address(200 + number) for number in range(25)])
        self.addCleanup(crowd.close)
        crowd.join(kam.host)
        wait_until(lambda: len(kam.nodes()) == 26, kam.nodes)
        own = self.member(12, 11)
        wait_until(lambda: f"it sends no changes to sip:{own.host}:5060" in own.log(), own.log)
        self.register(own, "alice", "<sip:alice@127.0.0.1:7001>")  # but it gets ours
        wait_until(lambda: kam.contacts(), kam.log)
        self.assertNotIn(own.host, kam.nodes())
        self.assertEqual(kam.notify().count("\r\n"), 26)  # it still answers: its membership goes on
