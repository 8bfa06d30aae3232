"""
The channel notification_peer: messages as captured go in, lists and effects come out (WIRE §3, §13).
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.dmq.effects import Effect, NodeUp, SendList, Sync
from sipdmq.dmq.lines import name_of
from sipdmq.dmq.nodelist import NodeList
from sipdmq.dmq.notification import NotificationPeer
from sipdmq.interfaces.replication import IChannelPeer
from sipdmq.records import ChannelMessage, Listener, NodeName, NodeStatus, Protocol, Source
from sipdmq.sip.message import Request, Response
from sipdmq.sip.parser import parse_message
from sipdmq.sip.uri import SipURI

CAPTURES = Path(__file__).parent / "kamailio"


def captures(pattern: str) -> list[Path]:
    return sorted([*CAPTURES.glob(f"captures/{pattern}"), *CAPTURES.glob(f"captures-6.1/{pattern}")])


class NotificationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.effects: list[Effect] = []
        self.now = 100.0
        self.looked_up: list[str] = []
        self.restart(NodeName(Protocol.UDP, "127.101.1.1", 5060))

    def restart(self, us: NodeName, *configured: NodeName) -> None:
        self.us = us
        self.nodes = NodeList(us, configured)
        self.nodes.start(self.now)
        self.peer = NotificationPeer(self.nodes, lambda: self.now, self.effects.extend, self.find_host)

    def find_host(self, host: str) -> str | None:
        self.looked_up.append(host)
        return "127.101.1.7" if host == "seven.example" else None

    def message(self, request: Request, host: str = "") -> ChannelMessage:
        uri = request.from_.uri
        assert isinstance(uri, SipURI)
        name = name_of(uri)
        listener = Listener(name.protocol, self.us.host, self.us.port, self.us.host, self.us.port)
        source = Source(name.protocol, host or name.host, name.port, listener)
        first = request.headers.first
        return ChannelMessage(
            "notification_peer", self.nodes.find(name), source, first.get("content-type", ""), request.body,
            request.max_forwards or 0, name, first.get("user-agent", ""),
        )

    def parse(self, path: Path) -> Request | Response:
        return parse_message(path.read_bytes())

    def local_of(self, request: Request) -> NodeName:
        assert isinstance(request.uri, SipURI)
        return name_of(request.uri)

    def test_interface(self) -> None:
        verifyObject(IChannelPeer, self.peer)


class CaptureTests(NotificationTests):
    def test_every_request_of_both_releases_is_answered_with_a_list_of_lines_that_kamailio_reads(self) -> None:
        requests = [path for path in captures("*np-*.sip") if ".reply." not in path.name]
        self.assertGreater(len(requests), 30)
        for path in requests:
            with self.subTest(path=path.name):
                request = self.parse(path)
                assert isinstance(request, Request)
                self.restart(self.local_of(request))
                reply = self.peer.message_received(self.message(request))
                self.assertEqual((reply.status, reply.content_type), (200, "text/plain"))
                self.assertRegex(
                    reply.body.decode(), r"\A(sip:[0-9.]+:[0-9]+(;transport=(tcp|tls))?;status=active\r\n)+\Z"
                )
                self.assertIn(f"{self.us};status=active\r\n".encode(), reply.body)

    def test_every_reply_of_both_releases_makes_the_node_active_and_is_read(self) -> None:
        replies = captures("*np-*.reply.sip")
        self.assertGreater(len(replies), 30)
        for path in replies:
            with self.subTest(path=path.name):
                reply = self.parse(path)
                assert isinstance(reply, Response)
                kamailio = NodeName(Protocol.UDP, "127.99.0.1", 5060)
                self.restart(NodeName(Protocol.UDP, "127.99.0.2", 5060), kamailio)
                self.peer.reply_received(kamailio, 200, reply.body, reply.headers.first.get("server", ""))
                node = self.nodes.find(kamailio)
                assert node is not None
                self.assertEqual(node.status, NodeStatus.ACTIVE)
                if "server" in reply.headers.first:
                    self.assertIn(node.release, ("kamailio 5.6.3", "kamailio 6.1.4"))
                self.assertEqual(len(self.nodes.nodes()) - 2, len(set(reply.body.split(b"\r\n")) - {b""}))

    def test_the_join_of_a_kamailio(self) -> None:
        request = self.parse(CAPTURES / "captures/np-join.sip")
        assert isinstance(request, Request)
        self.restart(self.local_of(request))
        reply = self.peer.message_received(self.message(request))
        answer = self.parse(CAPTURES / "captures/np-join.reply.sip")
        self.assertEqual(reply.body, answer.body)
        self.assertEqual([type(effect) for effect in self.effects], [NodeUp, SendList])
        forwarded = self.effects[1]
        assert isinstance(forwarded, SendList)
        self.assertEqual((forwarded.hops, forwarded.body), (1, answer.body))

    def test_our_own_join(self) -> None:
        reply = self.parse(CAPTURES / "captures/np-join.reply.sip")
        first = NodeName(Protocol.UDP, "127.7.7.1", 5060)
        self.restart(NodeName(Protocol.UDP, "127.7.7.2", 5060), first)
        self.peer.reply_received(first, 200, reply.body, "kamailio (5.6.3 (x86_64/linux))")
        self.assertEqual([type(effect) for effect in self.effects], [NodeUp, Sync, SendList])


class SenderTests(NotificationTests):
    def from_(self, body: bytes, name: NodeName | None, host: str = "127.101.1.2", port: int = 5060) -> ChannelMessage:
        listener = Listener(Protocol.UDP, "127.101.1.1", 5060, "127.101.1.1", 5060)
        source = Source(Protocol.UDP, host, port, listener)
        sender = None if name is None else self.nodes.find(name)
        return ChannelMessage("notification_peer", sender, source, "text/plain", body, 1, name)

    def status(self, host: str) -> NodeStatus | None:
        node = self.nodes.find(NodeName(Protocol.UDP, host, 5060))
        return None if node is None else node.status

    def test_it_speaks_of_itself_from_its_own_address_only(self) -> None:
        name = NodeName(Protocol.UDP, "127.101.1.2", 5060)
        body = b"sip:127.101.1.2:5060;status=active\r\n"
        self.peer.message_received(self.from_(body, name, "127.101.1.3"))
        self.assertEqual(self.status("127.101.1.2"), NodeStatus.NOT_ACTIVE)
        self.peer.message_received(self.from_(body, name, "::ffff:127.101.1.2"))
        self.assertEqual(self.status("127.101.1.2"), NodeStatus.ACTIVE)

    def test_a_host_name_is_the_node_of_its_address(self) -> None:
        body = b"sip:seven.example:5060;status=active\r\nsip:eight.example:5060;status=active\r\n"
        name = NodeName(Protocol.UDP, "seven.example", 5060)
        self.peer.message_received(self.from_(body, name, "127.101.1.7"))
        self.assertEqual(self.status("127.101.1.7"), NodeStatus.ACTIVE)
        self.assertEqual(len(self.nodes.nodes()), 2)
        self.assertEqual(self.peer.refused_lines, 1)

    def test_without_a_readable_from_the_line_of_the_source_counts(self) -> None:
        body = b"sip:127.101.1.2:5060;status=active\r\nsip:127.101.1.2:5061;status=active\r\n"
        self.peer.message_received(self.from_(body, None))
        self.assertEqual(self.status("127.101.1.2"), NodeStatus.ACTIVE)
        self.peer.message_received(self.from_(b"sip:127.101.1.5:5060;status=active\r\n", None))
        self.assertIsNone(self.status("127.101.1.5"))

    def test_look_ups_are_bounded(self) -> None:
        body = b"".join(b"sip:host%d.example:5060;status=active\r\n" % number for number in range(900))
        self.peer.message_received(self.from_(body, None))
        self.assertEqual(len(self.looked_up), 32)

    def test_outcomes(self) -> None:
        name = NodeName(Protocol.UDP, "127.101.1.2", 5060)
        self.restart(self.us, name)
        self.peer.reply_received(name, 403)
        self.assertEqual(self.effects, [])
        self.peer.reply_received(name, 200)
        self.assertEqual(self.status(name.host), NodeStatus.ACTIVE)
        self.now += 1
        self.peer.reply_received(name, 408, sent_at=self.now)
        self.assertEqual(self.status(name.host), NodeStatus.NOT_ACTIVE)

    @settings(derandomize=True, max_examples=100, deadline=None, database=None)
    @given(st.binary(max_size=1500))
    def test_any_body_is_answered_with_our_list(self, body: bytes) -> None:
        self.restart(self.us)
        reply = self.peer.message_received(self.from_(body, NodeName(Protocol.UDP, "127.101.1.2", 5060)))
        self.assertIn(b"sip:127.101.1.1:5060;status=active\r\n", reply.body)
        self.peer.reply_received(self.us, 200, body)
