"""
Publications between sipdmq and Kamailio, both ways, and to whoever comes late (WIRE §8).
"""

from __future__ import annotations

from tests.interop.cluster import ClusterTestCase, Kamailio, Member, wait_until
from tests.interop.phone import Answer
from tests.interop.publishing import Presentity, pidf, presentities, publish

ON = {"enable": "1", "min_expires": "1"}


class PresenceTestCase(ClusterTestCase):
    def put(
        self, node: Kamailio | Member, basic: str = "", etag: str = "", expires: int = 600, name: str = "t1"
    ) -> str:
        """
        A phone publishes at a node, or refreshes what it has published somewhere.

        @return: the new entity tag.
        """
        phone = self.phone(node, "alice")
        answer: Answer = publish(phone, pidf(basic, name) if basic else "", etag, expires)
        self.assertEqual(answer.status, 200, answer.text)
        return "".join(answer.all("sip-etag"))

    def assert_kamailios(self, *expected: Presentity) -> None:
        """
        Soon each has exactly these.
        """
        for node in self.kamailios:
            wait_until(
                lambda node=node: presentities(node) == sorted(expected),
                lambda node=node: (node.host, presentities(node), expected),
            )

    def assert_members(self, count: int) -> None:
        for node in self.members:
            wait_until(
                lambda node=node: node.snapshot()["presence.publications"] == count,
                lambda node=node: (node.host, node.snapshot()["presence.publications"], count),
            )

    kamailios: list[Kamailio]
    members: list[Member]


class LiveTests(PresenceTestCase):
    network = "127.104.40"

    def test_a_phone_goes_from_node_to_node(self) -> None:
        """
        The entity tag that one has given is good at all: Kamailio counts ours on, and we count Kamailio's.
        """
        first, second = self.kamailio(1), self.kamailio(2, 1)
        own = self.member(3, 1, presence=ON)
        self.kamailios, self.members = [first, second], [own]
        self.assert_nodes([first, second, own])
        tag = self.put(own, "open")
        self.assert_kamailios((tag, "open"))
        tag = self.put(own, etag=tag)
        self.assert_kamailios((tag, "open"))  # a refresh keeps the document
        tag = self.put(second, "closed", tag)
        self.assertRegex(tag, r"^a\..*\.2$")
        self.assert_kamailios((tag, "closed"))
        wait_until(lambda: own.snapshot()["presence.received"] == 1, own.log)
        tag = self.put(own, etag=tag)
        self.assertRegex(tag, r"\.3$")
        self.assert_kamailios((tag, "closed"))
        there = self.put(first, "open", name="t2")
        self.assert_members(2)
        self.assert_kamailios((tag, "closed"), (there, "open"))
        self.put(own, etag=there, expires=0)
        self.assert_kamailios((tag, "closed"))
        self.put(first, etag=tag, expires=0)
        self.assert_kamailios()
        self.assert_members(0)
        self.assertEqual([node.log().count("ERROR") for node in self.kamailios], [0, 0])


class LateTests(PresenceTestCase):
    network = "127.104.41"

    def test_newcomers_get_each_once_and_who_was_away_has_the_newest(self) -> None:
        """
        A Kamailio 5.6.3 asks all nodes for everything, and stores twice what it is told twice.
        """
        here, there = self.member(1, presence=ON), self.member(2, 1, presence=ON)
        self.members = [here, there]
        self.assert_nodes(self.members)
        kept = [self.put(self.members[number % 2], "open", name=f"t{number}") for number in range(6)]
        gone = self.put(here, "open", name="gone")
        self.assert_members(7)
        self.put(there, etag=gone, expires=0)
        newcomer = self.kamailio(3, 1)
        self.kamailios = [newcomer]
        self.members.append(self.member(4, 2, presence=ON))
        self.assert_nodes([*self.members, newcomer])
        self.assert_members(6)
        self.assert_kamailios(*[(tag, "open") for tag in kept])
        newcomer.kill()
        wait_until(lambda: newcomer.host not in self.active(here), here.log, 20)
        changed = self.put(here, "closed", kept[0], name="t0")
        newcomer.start()
        self.assert_nodes([*self.members, newcomer])
        self.assert_kamailios((changed, "closed"), *[(tag, "open") for tag in kept[1:]])

    def active(self, node: Member) -> list[str]:
        return [host for host, status in node.nodes().items() if status == "active"]
