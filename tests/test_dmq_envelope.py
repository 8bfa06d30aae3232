"""
KDMQ requests and answers, held against the captures of Kamailio.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.envelope import (
    KAMAILIO_STREAM_LIMIT,
    KAMAILIO_UDP_LIMIT,
    SIPDMQ_LIMIT,
    answer,
    kdmq_request,
    length_limit,
    message_length,
    read_message,
)
from sipdmq.errors import ParseError
from sipdmq.records import ChannelReply, ClusterNode, NodeName, NodeStatus, Protocol
from sipdmq.sip.message import Request
from sipdmq.sip.parser import parse_message
from sipdmq.sip.writer import format_message
from tests.fakes import PHONE, A, TransactionTestCase, make_ids

HERE = NodeName(Protocol.UDP, "192.0.2.1", 5060)
THERE = NodeName(Protocol.UDP, "198.51.100.10", 5060)
THERE_TCP = NodeName(Protocol.TCP, "2001:db8::2", 5070)


def kdmq(body: bytes = b"hello", to: NodeName = THERE, channel: str = "usrloc", hops: int = 1) -> Request:
    return kdmq_request(channel, to, str(HERE), body, "text/plain", make_ids(), "sipdmq/1", hops)


def received(text: str) -> Request:
    message = parse_message(text.replace("\n", "\r\n").encode())
    assert isinstance(message, Request)
    return message


CAPTURED = """KDMQ sip:notification_peer@127.7.7.1:5060 SIP/2.0
Via: SIP/2.0/UDP 127.7.7.2;branch=z9hG4bK1ff9.25cb.0
To: <sip:notification_peer@127.7.7.1:5060>
From: <sip:notification_peer@127.7.7.2:5060>;tag=98f9a8
CSeq: 10 KDMQ
Call-ID: 1936e2965e163d85-19010@127.7.7.2
Content-Length: 34
User-Agent: kamailio (5.6.3 (x86_64/linux))
Max-Forwards: 2
Content-Type: text/plain

sip:127.7.7.2:5060;status=active
"""


class RequestTests(TransactionTestCase):
    """
    WIRE §1 and §16.2.
    """

    def test_the_order_of_its_headers_when_it_is_sent(self) -> None:
        self.layer.send_request(kdmq(), (A._replace(fixed=True),), self.client_user)
        lines = format_message(self.transport.last).decode().split("\r\n")
        self.assertEqual(lines[0], "KDMQ sip:usrloc@198.51.100.10:5060 SIP/2.0")
        names = "Via Content-Length Max-Forwards Content-Type To From Call-ID CSeq User-Agent"
        self.assertEqual(" ".join(line.partition(":")[0] for line in lines[1:10]), names)
        self.assertEqual(lines[2:4], ["Content-Length: 5", "Max-Forwards: 1"])
        self.assertEqual(lines[5], "To: <sip:usrloc@198.51.100.10:5060>")
        self.assertTrue(lines[6].startswith("From: <sip:usrloc@192.0.2.1:5060>;tag="))
        self.assertEqual(lines[8], "CSeq: 10 KDMQ")

    def test_other_transports_stand_in_both_uris(self) -> None:
        request = kdmq_request("x", THERE_TCP, "sip:[2001:db8::1]:5060;transport=tcp", b"", "", make_ids())
        self.assertEqual(request.uri_text, "sip:x@[2001:db8::2]:5070;transport=tcp")
        self.assertEqual(request.to.uri.text, request.uri_text)
        self.assertEqual(request.from_.uri.text, "sip:x@[2001:db8::1]:5060;transport=tcp")
        self.assertEqual(request.headers.get("content-length"), "0")

    def test_each_has_names_of_its_own(self) -> None:
        ids = make_ids()
        one, other = (kdmq_request("x", THERE, str(HERE), b"", "", ids) for _ in range(2))
        self.assertNotEqual(one.call_id, other.call_id)
        self.assertNotEqual(one.from_.tag, other.from_.tag)

    def test_max_forwards_is_never_0(self) -> None:
        self.assertEqual(kdmq(hops=0).max_forwards, 1)
        self.assertEqual(kdmq(hops=2).max_forwards, 2)

    def test_what_can_be_no_channel(self) -> None:
        for name in ("", "a b", "a@b", "a\r\nX: y", "é", "x" * 65, "a;b", "%41"):
            self.assertRaises(ValueError, kdmq, channel=name)

    def test_the_length_is_not_less_than_what_is_sent(self) -> None:
        request = kdmq(b"x" * 1000, THERE_TCP)
        length = message_length(request)
        self.layer.send_request(request, (A._replace(fixed=True, protocol=Protocol.TCP),), self.client_user)
        self.assertLessEqual(len(format_message(self.transport.last)), length)

    def test_limits(self) -> None:
        """
        WIRE §1 "Sizes": a Kamailio 6 reads 32,766 bytes of a datagram, any Kamailio 16,383 of a stream.
        """
        node = ClusterNode(THERE, NodeStatus.ACTIVE)
        self.assertEqual(length_limit(node), KAMAILIO_UDP_LIMIT)
        self.assertEqual(length_limit(node._replace(name=THERE_TCP)), KAMAILIO_STREAM_LIMIT)
        self.assertEqual(length_limit(node._replace(name=THERE_TCP, is_sipdmq=True)), SIPDMQ_LIMIT)


class ReadTests(SynchronousTestCase):
    def test_a_captured_one(self) -> None:
        node = ClusterNode(NodeName(Protocol.UDP, "127.7.7.2", 5060), NodeStatus.ACTIVE)
        message = read_message(received(CAPTURED), PHONE, {node.name: node}.get)
        assert message is not None
        self.assertEqual((message.channel, message.sender, message.hops), ("notification_peer", node, 2))
        self.assertEqual(message.content_type, "text/plain")
        self.assertEqual(message.body, b"sip:127.7.7.2:5060;status=active\r\n")
        self.assertEqual(message.agent, "kamailio (5.6.3 (x86_64/linux))")

    def test_one_that_we_do_not_know(self) -> None:
        message = read_message(received(CAPTURED), PHONE, {}.get)
        assert message is not None
        self.assertIsNone(message.sender)
        self.assertEqual(message.name, NodeName(Protocol.UDP, "127.7.7.2", 5060))

    def test_what_no_content_length_speaks_of_is_not_there(self) -> None:
        """
        WIRE §13: "no Content-Length (UDP): 200 + list, body ignored".
        """
        message = read_message(received(CAPTURED.replace("Content-Length: 34\n", "")), PHONE, {}.get)
        assert message is not None
        self.assertEqual(message.body, b"")

    @given(
        st.sampled_from(("sip:usrloc@192.0.2.1", "sip:192.0.2.1", "tel:1", "sip:%00@[::1]:5060", "sips:a@b")),
        st.sampled_from(("<sip:a@", "<sip:", "<tel:", "a <sip:%41@", "")),
        st.text(st.characters(blacklist_characters="\r\n"), max_size=12),
        st.sampled_from(("1", "0", "255", "256", "-1", "x", "", "9" * 400)),
    )
    def test_whatever_stands_there(self, uri: str, before: str, sender: str, hops: str) -> None:
        """
        A message, or none, or a refusal that says why.
        """
        text = CAPTURED.replace("sip:notification_peer@127.7.7.1:5060 SIP", f"{uri} SIP")
        text = text.replace("<sip:notification_peer@127.7.7.2:5060>", f"{before}{sender}>")
        text = text.replace("Max-Forwards: 2", f"Max-Forwards: {hops}")
        try:
            message = parse_message(text.replace("\n", "\r\n").encode("utf-8", "surrogatepass"))
            assert isinstance(message, Request)
            found = read_message(message, PHONE, lambda name: None)
        except ParseError:
            return
        if found is not None:
            self.assertTrue(0 <= found.hops <= 255)
            self.assertTrue(found.channel)

    def test_one_to_no_channel(self) -> None:
        request = received(CAPTURED.replace("KDMQ sip:notification_peer@", "KDMQ sip:"))
        self.assertIsNone(read_message(request, PHONE, {}.get))

    def test_a_from_that_is_no_node(self) -> None:
        for uri in ("tel:+49", "sip:a@127.7.7.2;transport=sctp", "sip:a@0.0.0.0"):
            text = CAPTURED.replace("<sip:notification_peer@127.7.7.2:5060>;tag", f"<{uri}>;tag")
            message = read_message(received(text), PHONE, {}.get)
            assert message is not None
            self.assertEqual((message.sender, message.name), (None, None))


class AnswerTests(SynchronousTestCase):
    """
    WIRE §1 "The reply".
    """

    def test_reasons_are_kamailio_s_and_the_length_is_always_there(self) -> None:
        for status, line in (
            (200, "SIP/2.0 200 OK"),
            (202, "SIP/2.0 202 Accepted DMQ"),
            (400, "SIP/2.0 400 Bad Request"),
            (404, "SIP/2.0 404 User Not Found"),
            (500, "SIP/2.0 500 Server Internal Error"),
        ):
            response = answer(received(CAPTURED), ChannelReply(status), "t", "sipdmq/1")
            self.assertEqual(response.start_line, line)
            self.assertEqual(response.headers.get("content-length"), "0")
            self.assertIsNone(response.headers.get("content-type"))
            self.assertEqual(response.headers.get("server"), "sipdmq/1")
            self.assertEqual(response.to.tag, "t")

    def test_a_body(self) -> None:
        response = answer(received(CAPTURED), ChannelReply(200, b"list\r\n", "text/plain"), "t")
        self.assertEqual(response.headers.get("content-type"), "text/plain")
        self.assertEqual((response.headers.get("content-length"), response.body), ("6", b"list\r\n"))
