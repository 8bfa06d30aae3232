"""
Nodes in a cluster: joining, pings, custom channels, strangers, crash and return.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import ITransactionUser
from sipdmq.interfaces.replication import IBroadcaster, IChannelPeer, IReplicator
from sipdmq.records import ChannelReply, NodeName, Protocol
from sipdmq.sip.message import Response
from sipdmq.sip.parser import parse_message
from tests.dmq_network import DMQNetwork, address
from tests.fakes import leftovers

STRANGER = "203.0.113.66"
NODE_1 = NodeName(Protocol.UDP, address(1), 5060)
NODE_2 = NodeName(Protocol.UDP, address(2), 5060)
NODE_3 = NodeName(Protocol.UDP, address(3), 5060)


def kdmq(channel: str = "mychan", body: bytes = b"x", branch: str = "1", from_: str = "127.0.0.9:5060") -> bytes:
    return (
        f"KDMQ sip:{channel}@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP {from_};branch=z9hG4bK{branch}\r\n"
        f"To: <sip:{channel}@127.0.0.1:5060>\r\nFrom: <sip:{channel}@{from_}>;tag=1\r\nCSeq: 10 KDMQ\r\n"
        f"Call-ID: {branch}\r\nContent-Length: {len(body)}\r\nMax-Forwards: 1\r\n\r\n"
    ).encode() + body


class ServiceTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = DMQNetwork(self)

    def ask(self, number: int, data: bytes, host: str = "127.0.0.9") -> Response | None:
        """
        A KDMQ from somewhere, and what is answered at once.
        """
        sent = self.network.nodes[address(number)].receive(data, host, 5060)
        for datagram, to in sent:
            message = parse_message(datagram)
            if isinstance(message, Response) and to[0] == host:
                return message
        return None


class MembershipTests(ServiceTestCase):
    def test_interfaces(self) -> None:
        self.network.add(1)
        service = self.network.nodes[address(1)].node.cluster.service
        for interface in (ITransactionUser, IReplicator, IBroadcaster, IInspectable):
            verifyObject(interface, service)
        for peer in service.channels:
            verifyObject(IChannelPeer, peer)

    def test_two_nodes_find_each_other(self) -> None:
        self.network.add(1)
        self.network.add(2, 1)
        self.network.pump(1)
        for number in (1, 2):
            (other,) = self.network.dmq(number).nodes()[1:]
            self.assertEqual((other.status.name, other.is_sipdmq), ("ACTIVE", True))
            self.assertRegex(other.release, r"^sipdmq \d")

    def test_the_third_is_told_of_the_second(self) -> None:
        for number in (1, 2, 3):
            self.network.add(number, 1)
        self.network.pump(1)
        for number in (1, 2, 3):
            self.assertEqual(self.network.statuses(number), ["ACTIVE", "ACTIVE"])

    def test_the_first_notification_is_to_be_passed_on(self) -> None:
        """
        WIRE §4: "Max-Forwards 2".
        """
        self.network.add(1)
        self.network.add(2, 1)
        self.network.deliver()
        asked, joined = (
            message
            for sender, to, message in self.network.seen
            if (sender, to) == (address(2), address(1)) and "notification_peer" in getattr(message, "uri_text", "")
        )
        self.assertEqual(asked.body, b"")  # whom it has is asked first
        self.assertEqual(joined.headers.get("max-forwards"), "2")
        self.assertIn(b"sip:127.0.0.2:5060;status=active\r\n", joined.body)

    def test_pings(self) -> None:
        self.network.add(1, ping_interval=5.0)
        self.network.add(2, 1, ping_interval=60.0)
        self.network.pump(1)
        self.network.take_requests()
        self.network.pump(10)
        pings = self.network.take_requests("notification_peer")
        self.assertEqual([(host, to) for host, to, _ in pings], [(address(1), address(2))] * 2)
        self.assertEqual(pings[0][2].count(b"status=active"), 2)

    def test_a_crash_and_the_return(self) -> None:
        self.network.add(1, 2, ping_interval=5.0)
        self.network.add(2, 1, ping_interval=5.0)
        self.network.pump(1)
        self.network.dead.add(address(2))
        self.network.pump(15)
        self.assertEqual(self.network.statuses(1), ["NOT_ACTIVE"])
        self.network.dead.clear()
        self.network.pump(10)
        self.assertEqual(self.network.statuses(1), ["ACTIVE"])

    def test_a_farewell(self) -> None:
        self.network.add(1)
        node = self.network.add(2, 1)
        self.network.pump(1)
        stopping: Any = node.node.cluster.stop()
        self.network.deliver()
        self.assertEqual(self.network.statuses(1), ["DISABLED"])
        self.assertTrue(stopping.called)

    def test_without_a_farewell(self) -> None:
        self.network.add(1)
        node = self.network.add(2, 1, farewell="none")
        self.network.pump(1)
        self.successResultOf(node.node.cluster.stop())
        self.network.deliver()
        self.assertEqual(self.network.statuses(1), ["ACTIVE"])

    def test_a_farewell_that_nobody_hears_keeps_nobody_waiting(self) -> None:
        self.network.add(1)
        node = self.network.add(2, 1)
        self.network.pump(1)
        self.network.dead.add(address(1))
        stopping: Any = node.node.cluster.stop()
        self.network.pump(1.5)
        self.assertTrue(stopping.called)

    def test_nothing_is_left_when_it_has_stopped(self) -> None:
        self.network.add(1)
        node = self.network.add(2, 1)
        self.network.pump(1)
        node.service.stopService()  # type: ignore[no-untyped-call]
        self.network.deliver()
        self.network.dead.add(address(2))
        self.network.pump(2)
        self.assertEqual(node.reactor.getDelayedCalls(), [])
        self.assertEqual(leftovers(node.node.cluster.service._workers), {})


class LiarTests(ServiceTestCase):
    """
    Over UDP whoever can forge the address of a node can say what he likes: it does not last.
    """

    def setUp(self) -> None:
        super().setUp()
        self.network.add(1)
        self.network.add(2, 1)
        self.network.pump(1)
        self.network.seen.clear()

    def test_a_farewell_in_the_name_of_another(self) -> None:
        farewell = kdmq("notification_peer", b"sip:127.0.0.2:5060;status=disabled\r\n", "f", "127.0.0.2:5060")
        self.ask(1, farewell, address(2))
        self.assertEqual(self.network.statuses(1), ["DISABLED"])
        self.network.pump(2.5)
        self.assertEqual(self.network.statuses(1), ["ACTIVE"])

    def test_a_hello_in_the_name_of_another_makes_us_ask_that_one(self) -> None:
        self.network.add(3, 1)
        self.network.pump(1)
        kamailio = self.network.nodes[address(3)].node.cluster.service
        kamailio.channels._peers.pop("sipdmq")  # so it answers as a Kamailio would
        nodelist = self.network.nodes[address(1)].node.cluster.service.membership.nodelist
        nodelist.no_hello(1.0, NODE_3)
        self.network.pump(3)
        self.network.take_requests()
        hello = b'{"hello":{"version":"9","features":[],"time":1}}'
        self.ask(1, kdmq("sipdmq", hello, "h", "127.0.0.3:5060"), address(3))
        self.assertFalse(nodelist.find(NODE_3).is_sipdmq)
        self.network.pump(1)
        self.assertFalse(nodelist.find(NODE_3).is_sipdmq)

    def test_a_list_of_many_addresses(self) -> None:
        lines = "".join(f"sip:198.51.100.{number}:5060;status=active\r\n" for number in range(1, 251))
        self.ask(1, kdmq("notification_peer", lines.encode(), "l", "127.0.0.2:5060"), address(2))
        self.network.pump(7.5)
        asked = {to for _, to, _ in self.network.take_requests("notification_peer")} - {address(2)}
        self.assertEqual(len(asked), 32)


class StrangerTests(ServiceTestCase):
    """
    DESIGN §7: nobody else: 403, nothing changed.
    """

    def test_he_is_refused_and_logged_once_a_minute(self) -> None:
        self.network.add(1)
        for number in range(3):
            body = b"sip:203.0.113.66:5060;status=active\r\n"
            response = self.ask(1, kdmq("notification_peer", body, f"s{number}"), STRANGER)
            assert response is not None
            self.assertEqual(response.status, 403)
        node = self.network.nodes[address(1)].node
        self.assertEqual((self.network.dmq(1).nodes()[1:], node.snapshot()["dmq.refused"]), ((), 3))
        self.assertEqual(node.snapshot()["transaction.completed"], 0, "no state is kept for him")

    def test_whoever_says_tls_and_comes_over_udp(self) -> None:
        self.network.add(1)
        data = kdmq().replace(b"@127.0.0.9:5060>;tag", b"@127.0.0.9:5060;transport=tls>;tag")
        response = self.ask(1, data)
        assert response is not None
        self.assertEqual(response.status, 403)


class ChannelTests(ServiceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.network.add(1)
        self.network.add(2, 1)
        self.network.pump(1)
        self.got: list[bytes] = []

    def answer(self, reply: Any) -> None:
        self.network.dmq(1).register_channel("mychan", lambda message: self.got.append(message.body) or reply)

    def test_one_that_nobody_has(self) -> None:
        response = self.ask(1, kdmq("nobody"))
        assert response is not None
        self.assertEqual((response.status, response.reason), (404, "User Not Found"))

    def test_no_channel_at_all_gets_no_answer(self) -> None:
        """
        WIRE §13: "R-URI without user: no reply".
        """
        self.assertIsNone(self.ask(1, kdmq().replace(b"KDMQ sip:mychan@", b"KDMQ sip:")))

    def test_a_retransmission_gets_the_same_answer_and_is_not_executed_again(self) -> None:
        self.answer(None)
        answers = [self.ask(1, kdmq(branch="r")) for _ in range(3)]
        self.assertEqual(self.got, [b"x"])
        self.assertEqual(len({None if each is None else each.to.tag for each in answers}), 1)

    def test_what_a_callback_returns(self) -> None:
        for number, (reply, status, body) in enumerate((
            (None, 200, b""), (202, 202, b""), (ChannelReply(200, b"no node list", "text/plain"), 200, b""),
            (ChannelReply(488, b"why"), 488, b"why"), (17, 500, b""),
        )):  # fmt: skip
            self.answer(reply)
            response = self.ask(1, kdmq(branch=f"c{number}"))
            assert response is not None
            self.assertEqual((response.status, response.body), (status, body))

    def test_a_callback_that_breaks(self) -> None:
        self.answer("nonsense")
        response = self.ask(1, kdmq())
        assert response is not None
        self.assertEqual((response.status, response.reason), (500, "Server Internal Error"))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_a_callback_that_takes_its_time(self) -> None:
        waiting: Deferred[int] = Deferred()
        self.answer(waiting)
        self.assertIsNone(self.ask(1, kdmq()))
        waiting.callback(202)
        ((data, _),) = self.network.nodes[address(1)].take_sent()
        self.assertIn(b"SIP/2.0 202 Accepted DMQ", data)

    def test_one_that_never_comes_back(self) -> None:
        self.answer(Deferred())
        self.ask(1, kdmq())
        self.network.pump(31, 0.5)
        self.assertEqual(self.network.nodes[address(1)].node.snapshot()["dmq.jobs"], 0)
        self.assertIn(500, [getattr(message, "status", 0) for _, _, message in self.network.seen])

    def test_the_node_s_own_cannot_be_taken(self) -> None:
        for name in ("notification_peer", "sipdmq"):
            self.assertRaises(ValueError, self.network.dmq(1).register_channel, name, print)

    def test_to_one_and_to_all(self) -> None:
        self.answer(None)
        one = self.network.dmq(2).send_message("mychan", "sip:127.0.0.1:5060", "to one", "text/plain")
        every = self.network.dmq(2).bcast_message("mychan", b"to all", "text/plain")
        self.network.deliver()
        self.assertEqual((self.successResultOf(one), self.successResultOf(every)), (True, 1))
        self.assertEqual(self.got, [b"to one", b"to all"])

    def test_whoever_uses_a_channel_has_it(self) -> None:
        """
        WIRE §11: 404 before, 202 from then on.
        """
        sending = self.network.dmq(2).bcast_message("new", b"")
        self.network.deliver()
        self.assertEqual(self.successResultOf(sending), 0)
        response = self.ask(2, kdmq("new"))
        assert response is not None
        self.assertEqual((response.status, response.reason), (202, "Accepted DMQ"))

    def test_one_that_does_not_answer(self) -> None:
        self.network.dead.add(address(1))
        sending = self.network.dmq(2).send_message("mychan", "sip:127.0.0.1:5060", "x")
        self.network.pump(9)
        self.assertIs(self.successResultOf(sending), False)

    def test_what_nobody_would_read_is_not_sent(self) -> None:
        sending = self.network.dmq(2).send_message("mychan", "sip:127.0.0.1:5060", "x" * 60_000)
        self.assertIs(self.successResultOf(sending), False)
        self.assertEqual(self.network.nodes[address(2)].take_sent(), [])

    def test_a_full_queue_over_udp_is_silent(self) -> None:
        service = self.network.nodes[address(1)].node.cluster.service
        service._workers._limit = 0
        self.answer(None)
        self.assertIsNone(self.ask(1, kdmq(branch="q")))
        service._workers._limit = 10**6
        response = self.ask(1, kdmq(branch="q"))
        assert response is not None
        self.assertEqual((response.status, self.got), (200, [b"x"]))


class HelloTests(ServiceTestCase):
    """
    The channel C{sipdmq}.
    """

    def test_a_body_goes_only_to_who_speaks_its_language(self) -> None:
        self.network.add(1)
        hello = b'{"hello":{"version":"9","features":[],"time":1}}'
        for number, (body, status) in enumerate((
            (hello, 200), (b"", 400), (b"sip:1.2.3.4:5060;status=active\r\n", 400), (b"{}", 400), (b"[1]", 400),
            (b'{"hello":1}', 400), (b'{"hello":{}}', 404), (b'{"other":{}}', 404), (b"[" * 3000, 400),
            (b'{"hello":{"version":null,"features":[],"time":1}}', 404), (b"\xff\xfe", 400),
        )):  # fmt: skip
            response = self.ask(1, kdmq("sipdmq", body, f"h{number}"))
            assert response is not None
            self.assertEqual((response.status, bool(response.body)), (status, status == 200), body)
