"""
C{[dmq] replicate}: copies of REGISTERs to all nodes (WIRE §12).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zope.interface.verify import verifyObject

from sipdmq.core.policy import DefaultPolicy
from sipdmq.dmq.copies import MAX_UNANSWERED
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import ITransactionUser
from sipdmq.interfaces.replication import IRegistrar
from sipdmq.records import Binding, Origin
from sipdmq.sip.parser import parse_message
from tests.dmq_copies import BEHIND_NAT, OWN, PHONE, CopyTestCase, register
from tests.dmq_network import address
from tests.policy_network import write_users


class OneRecordTests(CopyTestCase):
    """
    "Between sipdmq nodes a header of our own carries the phone's source address, ruid and last_modified, so that all
    nodes hold one record."
    """

    def assert_same(self, *numbers: int) -> Binding:
        """
        All nodes have one and the same live binding, but for what only some of it means elsewhere.
        """
        found = []
        for number in numbers:
            (binding,) = self.bindings(number)
            found.append(binding._replace(socket="", flow="", owner="", methods=-1, known_until=0, told_by=""))
        self.assertEqual(len(set(found)), 1, found)
        return found[0]

    def test_all_nodes_have_it(self) -> None:
        self.nodes(1, 2, 3)
        contact = "<sip:alice@198.51.100.7:5062>;q=0.5;expires=600;audio;+sip.instance=\"<urn:x>\";methods=\"INVITE\""
        self.send(1, register(contact=contact))
        copies = self.take()
        self.assertEqual({to for _, to, _ in copies}, {address(2), address(3)})
        binding = self.assert_same(1, 2, 3)
        self.assertEqual(binding.params, ';audio;+sip.instance="<urn:x>";methods="INVITE"')
        for number in (2, 3):
            self.assertEqual([change.origin for change in self.changes[number]], [Origin.REPLICATED])
            self.assertEqual((self.count(number, "received"), self.count(number, "sent")), (1, 0))
        self.assertEqual((self.count(1, "sent"), self.count(1, "unanswered")), (2, 0))

    def test_only_one_via_and_one_hop_less(self) -> None:
        """
        WIRE §12: "everything as received plus one Via on top and Max-Forwards - 1; R-URI unchanged".
        """
        self.nodes(1, 2)
        self.send(1, register("X-Nat: 1", "Route: <sip:127.0.0.1;lr>", "Subject: as it is "))
        ((_, _, copy),) = self.take()
        kept = [line for key, line in copy.headers if key != OWN.lower()]
        as_received = parse_message(register("X-Nat: 1", "Route: <sip:127.0.0.1;lr>", "Subject: as it is ", hops=
                                             "Max-Forwards: 69")).headers.lines()
        self.assertEqual(kept[1:], as_received)
        self.assertEqual((copy.uri_text, copy.vias[0].host), ("sip:localhost", address(1)))

    def test_the_phone_was_answered_before(self) -> None:
        self.nodes(1, 2)
        sent = self.network.nodes[address(1)].receive(register(), *PHONE)
        self.assertEqual([data.split()[0] for data, _ in sent], [b"SIP/2.0", b"REGISTER"])

    def test_where_it_came_from(self) -> None:
        self.nodes(1, 2)
        self.send(1, register(), BEHIND_NAT)
        self.assertEqual(self.assert_same(1, 2).received, "sip:203.0.113.5:40001")

    def test_refreshed_and_removed_at_another_node(self) -> None:
        self.nodes(1, 2, 3)
        for number, cseq in ((1, 1), (2, 2), (3, 3)):
            self.send(number, register(cseq=cseq))
            self.assertEqual(self.assert_same(1, 2, 3).cseq, cseq)
        self.send(2, register("Expires: 0", cseq=4, contact="*"))
        self.assertEqual([self.bindings(number) for number in (1, 2, 3)], [(), (), ()])
        stones = set()
        for number in (1, 2, 3):
            node = self.network.nodes[address(number)].node
            self.assertEqual(node.store.snapshot()["location.tombstones"], 1)
            (stone,) = self.successResultOf(node.store.pages(None)).bindings
            stones.add((stone.ruid, stone.last_modified, stone.cseq, stone.call_id, stone.expires_at))
        self.assertEqual(len(stones), 1, stones)

    def test_one_contact_comes_and_one_goes(self) -> None:
        self.nodes(1, 2)
        self.send(1, register(contact="<sip:a@198.51.100.7>, <sip:b@198.51.100.7>"))
        self.send(1, register(cseq=2, contact="<sip:a@198.51.100.7>;expires=0, <sip:c@198.51.100.7>"))
        here, there = ({(each.contact, each.ruid) for each in self.bindings(number)} for number in (1, 2))
        self.assertEqual(here, there)
        self.assertEqual({contact for contact, _ in there}, {"sip:b@198.51.100.7", "sip:c@198.51.100.7"})

    def test_an_older_copy_changes_nothing(self) -> None:
        self.nodes(1, 2)
        self.send(1, register())
        ((_, _, copy),) = self.take()
        self.send(1, register("Expires: 0", cseq=2, contact="*"))
        late = "\r\n".join([copy.start_line, *copy.headers.lines(), "", ""]).replace("branch=", "branch=z9hG4bKlate")
        self.send(2, late.replace("call-1", "call-1").encode(), (address(1), 5060))
        self.assertEqual(self.bindings(2), ())

    def test_a_phone_on_a_connection(self) -> None:
        """
        The copy names the node that has it, as channel usrloc does.
        """
        self.nodes(1, 2)
        stream = self.network.nodes[address(1)].connect(*PHONE)
        self.assertTrue(stream.receive(register().replace(b"UDP", b"TCP")).startswith(b"SIP/2.0 200"))
        self.network.deliver()
        (binding,) = self.bindings(2)
        self.assertEqual((binding.owner, binding.flow), ("sip:127.0.0.1:5060", ""), binding.path)
        self.assertEqual(binding.received, "sip:198.51.100.7:5062;transport=tcp")

    def test_registered_by_the_address_of_a_node(self) -> None:
        self.nodes(1, 2)
        self.send(1, register(uri=f"sip:{address(1)}"))
        self.assert_same(1, 2)

    def test_our_limits_are_for_phones(self) -> None:
        self.nodes(1, 2)
        for number in range(25):
            source = (address(1), 5060)
            contact = f"<sip:{number}@h>;expires=5"
            self.send(2, register(cseq=number + 1, vias=("127.0.0.1:5060",), contact=contact), source)
        self.assertEqual(len(self.bindings(2)), 25)
        self.assertEqual(self.answers(address(1)), [200] * 25)


class NotCopiedTests(CopyTestCase):
    def test_what_is_not_stored(self) -> None:
        """
        Refused ones, questions.
        """
        self.nodes(1, 2)
        self.send(1, register(contact="<sip:a@h>;expires=1"))
        self.send(1, register(contact="", cseq=2))
        self.send(1, register(cseq=3, uri="sip:elsewhere.example"))
        self.assertEqual(self.take(), [])

    def test_without_replicate(self) -> None:
        self.nodes(1, 2, replicate=())
        self.send(1, register())
        self.assertEqual((self.answers(), self.bindings(2)), ([200], ()))

    def test_the_last_hop(self) -> None:
        self.nodes(1, 2)
        self.send(1, register(hops="Max-Forwards: 0"))
        self.assertEqual(self.take(), [])
        self.send(1, register(cseq=2, hops=""))
        ((_, _, copy),) = self.take()
        self.assertEqual(copy.max_forwards, 70)

    def test_a_node_that_is_not_active(self) -> None:
        self.nodes(1, 2)
        self.network.dmq(1).change_status("sip:127.0.0.2:5060", "not_active")
        self.network.seen.clear()
        self.send(1, register())
        self.assertEqual([each for each in self.take() if each[2].method == "REGISTER"], [])

    def test_a_silent_node(self) -> None:
        """
        It is asked whether it is there, and gets no more; what waits for it is bounded.
        """
        self.nodes(1, 2, timeout=1.0)
        self.network.dead.add(address(2))
        copies = self.network.nodes[address(1)].node.cluster.copies
        copies._unanswered.update(dict.fromkeys(copies._unanswered or [self.network.dmq(1).nodes()[1].name],
                                                MAX_UNANSWERED - 1))
        self.send(1, register())
        self.send(1, register(cseq=2))
        self.assertEqual((self.count(1, "sent"), self.count(1, "dropped")), (1, 1))
        self.network.pump(5)
        self.assertNotEqual(self.network.statuses(1), ["ACTIVE"])
        self.assertEqual(self.count(1, "unanswered"), MAX_UNANSWERED - 1)

    def test_more_than_a_kamailio_reads(self) -> None:
        self.nodes(1, 2)
        node = self.network.nodes[address(1)].node
        (name,) = [each.name for each in self.network.dmq(1).nodes()[1:]]
        node.cluster.service.membership.nodelist.no_hello(0, name)
        self.patch(node.cluster.service.membership, "active", lambda: tuple(
            each._replace(is_sipdmq=False) for each in self.network.dmq(1).nodes()[1:]
        ))  # fmt: skip
        self.send(1, register(*[f"X-{number}: {'x' * 7000}" for number in range(5)]))
        self.assertEqual((self.count(1, "sent"), self.count(1, "dropped")), (0, 1))
        self.send(1, register(cseq=2))
        ((_, _, copy),) = [each for each in self.take() if each[1] == address(2)]
        self.assertNotIn(OWN.lower(), copy.headers)


class PolicyTests(CopyTestCase):
    """
    C{node.dmq.t_replicate} and C{is_from_node}, where C{replicate} is not set.
    """

    def test_the_loop_test(self) -> None:
        class Policy(DefaultPolicy):
            skip = False

            async def route(self, request: Any, node: Any) -> None:
                seen.append(node.dmq.is_from_node(request))
                await super().route(request, node)
                sent.append(node.dmq.t_replicate(request, self.skip))

        seen: list[bool] = []
        sent: list[int] = []
        path = Path(self.mktemp())
        write_users(path)
        policy = Policy()
        self.nodes(1, 2, 3, policy=policy, replicate=())
        self.send(1, register())
        self.assertEqual((seen, sent), ([False, True, True], [2, 0, 0]))
        self.assertEqual(len({self.bindings(number)[0].ruid for number in (1, 2, 3)}), 1)
        policy.skip = True
        self.send(1, register(cseq=2, hops="Max-Forwards: 3"))
        copies = [copy for _, _, copy in self.take() if copy.cseq.number == 2]
        self.assertGreater(len(copies), 2)
        self.assertLessEqual(len(copies), 2 + 4 + 8)
        self.assertTrue(all(copy.max_forwards is not None and copy.max_forwards <= 2 for copy in copies))


class InterfaceTests(CopyTestCase):
    def test_interfaces(self) -> None:
        self.nodes(1)
        cluster = self.network.nodes[address(1)].node.cluster
        verifyObject(ITransactionUser, cluster.registrar)
        verifyObject(IInspectable, cluster.registrar)
        verifyObject(IInspectable, cluster.copies)
        verifyObject(IRegistrar, cluster.registrar._registrar)
        verifyObject(ITransactionUser, cluster.screen(cluster.registrar))
