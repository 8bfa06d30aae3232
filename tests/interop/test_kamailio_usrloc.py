"""
Location state between sipdmq and Kamailio, both ways (WIRE §6).
"""

from __future__ import annotations

import re
import time

from tests.interop.cluster import ClusterTestCase, Kamailio, Member, wait_until
from tests.interop.phone import Phone

#: Seconds that a Kamailio may take to remove what has expired: it looks every 5 s.
EXPIRY = 8.0

#: Seconds by which the clock of time(2) may be behind that of Python, with a margin.
TICK = 0.05


class ChangeTests(ClusterTestCase):
    """
    What a phone does at one node is so at the other.
    """

    network = "127.104.2"

    def setUp(self) -> None:
        super().setUp()
        self.kam = self.kamailio(1)
        self.own = self.member(2, 1)
        self.assert_nodes([self.kam, self.own])

    def assert_both(self, user: str, *contacts: str) -> None:
        """
        Soon both nodes have these contacts of a user, and no others.
        """
        expected = sorted(contacts)
        for node in (self.kam, self.own):
            wait_until(lambda node=node: self.uris(node, user) == expected, lambda node=node: self.uris(node, user))

    def uris(self, node: Kamailio | Member, user: str) -> list[str]:
        """
        What a node has of a user.
        """
        if isinstance(node, Kamailio):
            return sorted(uri for name, uri in node.contacts() if name == user)
        return sorted(re.findall(r"<(sip:[^>]+)>", " ".join(node.bindings(user))))

    def test_what_was_registered_here_stands_there_key_by_key(self) -> None:
        self.register(
            self.own,
            "alice",
            '"Alice" <sip:alice@10.0.0.9:5062;transport=tcp;ob>;q=0.7;methods="INVITE,BYE,MESSAGE"'
            ';+sip.instance="<urn:uuid:00000000-0000-1000-8000-000A95A0E128>";reg-id=1',
            fields=(
                "Supported: path, outbound", "User-Agent: a phone/1.0 (\u00e9)",
                "Path: <sip:127.104.2.77:5070;lr>", "Expires: 600",
            ),
        )  # fmt: skip
        self.assert_both("alice", "sip:alice@10.0.0.9:5062;transport=tcp;ob")
        ((_, found),) = self.kam.contacts().items()
        expected = {
            "CSeq": 1,
            "User-Agent": "a phone/1.0 (\u00e9)",
            "Received": "[not set]",
            "Path": "<sip:127.104.2.77:5070;lr>",
            "Flags": 0,
            "CFlags": 0,
            "Q": 0.7,
            "Methods": 1 + 8 + 256,
            "Instance": "<urn:uuid:00000000-0000-1000-8000-000A95A0E128>",
            "Reg-Id": 1,
            "Server-Id": 0,
        }
        self.assertEqual({name: found[name] for name in expected}, expected)
        self.assertIn(found["Expires"], range(595, 602))

    def test_what_was_registered_there_stands_here(self) -> None:
        self.register(
            self.kam,
            "bob",
            '<sip:bob@10.0.0.9:5062;transport=tcp>;q=0.7;methods="INVITE,BYE"'
            ';+sip.instance="<urn:uuid:00000000-0000-1000-8000-000A95A0E128>";reg-id=1',
            fields=("Supported: path", "Path: <sip:127.104.2.77:5070;lr>", "Expires: 600"),
        )
        self.assert_both("bob", "sip:bob@10.0.0.9:5062;transport=tcp")
        contact = ",".join(self.own.bindings("bob"))
        self.assertIn(";q=0.7", contact)
        self.assertIn('+sip.instance="<urn:uuid:00000000-0000-1000-8000-000A95A0E128>"', contact)

    def test_a_life(self) -> None:
        for first, second in ((self.kam, self.own), (self.own, self.kam)):
            user = f"of-{first.program}"
            one, two, three = (f"sip:{user}@10.0.0.9:500{number}" for number in range(1, 4))
            phone = self.register(first, user, f"<{one}>;expires=100", f"<{two}>", f"<{three}>;expires=3000")
            self.assert_both(user, one, two, three)
            ruid = self.kam.contacts()[user, one]["Ruid"]
            # refreshed at the other node: the same record, longer alive, and then at the first again
            for node, expires in ((second, 300), (first, 500)):
                self.next_second(user, one)
                refresher = self.register(node, user, f"<{one}>;expires={expires}")
                self.assert_until(user, one, expires)
            self.assert_both(user, one, two, three)
            self.assertEqual(self.kam.contacts()[user, one]["Ruid"], ruid)
            # removed: one at the other node, then all by "*" where they came from
            self.next_second(user, two)
            self.register(second, user, f"<{two}>;expires=0")
            self.assert_both(user, one, three)
            self.next_second(user, one)
            self.remove_all(refresher)
            self.assert_both(user)
            self.next_second()
            self.register(second, user, f"<{one}>")
            self.assert_both(user, one)
            self.next_second(user, one)
            self.remove_all(phone)
            self.assert_both(user)

    def assert_until(self, user: str, uri: str, expires: int) -> None:
        """
        Soon both nodes let it live so long.
        """

        def told() -> list[int]:
            mine = next(each for each in self.own.bindings(user) if each.startswith(f"<{uri}>"))
            return [int(self.kam.contacts()[user, uri]["Expires"]), int(mine.partition(";expires=")[2].split(";")[0])]

        wait_until(lambda: all(expires - 3 <= each <= expires for each in told()), told)

    def next_second(self, user: str = "", uri: str = "") -> None:
        """
        Times are told in seconds, and of two changes of a contact within one, at different nodes, either may count: so
        wait until the time is one that nobody has written yet. Kamailio: its time(2) is that of the last tick of the
        kernel, so for some milliseconds it goes on writing the second before.
        """
        last = int(time.time()) + 1
        if user:
            last = self.kam.contacts()[user, uri]["Last-Modified"]
        wait_until(lambda: time.time() > last + 1 + TICK, "the next second")

    def remove_all(self, phone: Phone) -> None:
        """
        C{Contact: *}
        """
        answer = phone.send(phone.make("REGISTER", f"sip:{phone.domain}", ("Contact: *", "Expires: 0")))
        self.assertEqual(answer.status, 200, answer.text)

    def test_expiry(self) -> None:
        for number, node in enumerate((self.kam, self.own)):
            self.register(node, f"short{number}", f"<sip:short{number}@10.0.0.9:5060>;expires=3")
            self.assert_both(f"short{number}", f"sip:short{number}@10.0.0.9:5060")
        for user in ("short0", "short1"):
            wait_until(lambda user=user: not self.uris(self.own, user), self.own.log)
            wait_until(lambda user=user: not self.uris(self.kam, user), self.kam.log, EXPIRY)
        self.assertEqual(self.own.snapshot()["usrloc.refused"], 0)


class SyncTests(ClusterTestCase):
    """
    A newcomer of either kind gets everything: 1,000 contacts, of users with several, too.
    """

    network = "127.104.3"

    def check(self, batch: int, base: int) -> None:
        """
        A Kamailio that knows much is joined by a sipdmq node and goes; that one is joined by a Kamailio, which then
        knows what the first one did.

        @param batch: contacts in a message.
        @param base: of the addresses.
        """
        first = self.kamailio(base + 1, definitions=f"UL_BATCH={batch}")
        self.fill(first)
        known = first.records()
        self.assertEqual(len(known), 1000)
        own = self.member(base + 2, base + 1, usrloc={"batch_msg_contacts": str(batch)})
        wait_until(lambda: own.count == 1000, lambda: own.count, 15.0)
        first.kill()
        second = self.kamailio(base + 3, base + 2)
        wait_until(lambda: len(second.contacts()) == 1000, lambda: len(second.contacts()), 15.0)
        self.assertEqual(second.records(), known)
        self.assertEqual(own.snapshot()["usrloc.refused"], 0)
        third = self.member(base + 4, base + 2)
        wait_until(lambda: third.count == 1000, lambda: third.count, 15.0)

    def fill(self, node: Kamailio) -> None:
        """
        Users with one, two, three and four contacts, 100 of each.
        """
        phone = self.phone(node, "filler")
        for number in range(400):
            user = f"user{number}"
            contacts = [f"Contact: <sip:{user}@10.0.{number % 250}.9:{5060 + each}>" for each in range(number % 4 + 1)]
            request = phone.make("REGISTER", f"sip:{node.host}", contacts, to=f"sip:{user}@{node.host}")
            self.assertEqual(phone.send(request).status, 200)

    def test_one_by_one(self) -> None:
        self.check(1, 0)

    def test_fifty_in_a_message(self) -> None:
        self.check(50, 10)
