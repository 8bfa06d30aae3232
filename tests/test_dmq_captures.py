"""
Every message that real Kamailios of two releases sent on the channels that we have, byte by byte to a whole node: it is
answered as by a Kamailio (WIRE §13), what it says is so afterwards, and we say the same in the same form.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.config import (
    AuthConfig,
    DialogConfig,
    DMQConfig,
    HtableConfig,
    NodeConfig,
    NodeSection,
    PresenceConfig,
    UsrlocConfig,
)
from sipdmq.dmq.usrloc_json import decode
from sipdmq.dmq.usrloc_records import UsrlocRecord
from sipdmq.records import Listener, Protocol
from sipdmq.sip.message import Message, Request, Response
from sipdmq.sip.parser import parse_message
from sipdmq.sip.uri import SipURI, parse_sip_uri
from sipdmq.sip.writer import format_message
from tests import memory_node
from tests.memory_node import MemoryNode

FOLDER = Path(__file__).parent / "kamailio"
TIME = 1_795_402_600
"""Before the first of them."""

#: Where Kamailio has sent no answer, or we do better.
STATUS = {
    "cu-no-user": 0,
    "hostile-ul-array": 400,
    "hostile-ul-empty-object": 400,
    "hostile-ul-no-aor": 400,
    "hostile-ul-null-string": 400,
    "hostile-ul-number": 400,
    "hostile-ul-number-for-string": 400,
}

#: Header fields whose values are everybody's own.
OWN = ("Via", "Call-ID", "User-Agent", "Server")


def captured(*patterns: str) -> list[Path]:
    """
    The requests.
    """
    return sorted(
        path
        for pattern in patterns
        for path in FOLDER.glob(f"*/{pattern}.sip")
        if ".reply." not in path.name and "-client-" not in path.name
    )


def request_of(path: Path) -> Request:
    message = parse_message(path.read_bytes())
    assert isinstance(message, Request)
    return message


def host_of(uri: Any) -> str:
    assert isinstance(uri, SipURI)
    return uri.host


def form(message: Message | None) -> tuple[str, list[str], bytes]:
    """
    A message without what everybody chooses for himself, its lines in no order.
    """
    assert message is not None
    head, _, body = format_message(message).partition(b"\r\n\r\n")
    first, *lines = re.sub(r";tag=[^;\r]*", ";tag=", head.decode()).split("\r\n")
    kept = [line.partition(":")[0] if line.startswith(OWN) else line for line in lines]
    return first, sorted(kept), body


class CaptureTestCase(SynchronousTestCase):
    def node(
        self, host: str, transport: str = "", replicate: bool = False, now: int = TIME, sections: Any = None
    ) -> MemoryNode:
        """
        A node that stands where the Kamailio stood.

        @param sections: of the configuration, in place of the usual ones.
        """
        self.patch(memory_node, "EPOCH", now)
        uri = f"sip:{host}:5060" + (f";transport={transport}" if transport else "")
        listen = tuple(Listener(protocol, host, 5060, host, 5060) for protocol in (Protocol.UDP, Protocol.TCP))
        config = NodeConfig(
            node=NodeSection(listen),
            auth=AuthConfig(secret="0" * 64, enable=False),
            dmq=DMQConfig(server_address=parse_sip_uri(uri), replicate=("REGISTER",) if replicate else ()),
            usrloc=replace(UsrlocConfig(), enable=not replicate),
        )
        return MemoryNode(self, replace(config, **(sections or {})))

    def node_for(self, request: Request, sections: Any = None) -> MemoryNode:
        assert isinstance(request.uri, SipURI)
        return self.node(host_of(request.uri), request.uri.params.get("transport", ""), sections=sections)

    def answer(self, node: MemoryNode, data: bytes, host: str, port: int = 5060) -> Response | None:
        """
        What is answered at once.
        """
        if b" SIP/2.0\r\nVia: SIP/2.0/TCP" in data:
            answers = [node.connect(host, 40_000).receive(data)]
        else:
            answers = [sent for sent, to in node.receive(data, host, port) if to[0] == host]
        for each in answers:
            message = parse_message(each) if each else None
            if isinstance(message, Response):
                return message
        return None

    def join(self, node: MemoryNode, local: str, host: str) -> list[Request]:
        """
        A Kamailio of 6.1 joins.

        @return: what it is sent by then.
        """
        data = (FOLDER / "captures-6.1" / "np-join.sip").read_bytes()
        body = f"sip:{local}:5060;status=active\r\nsip:{host}:5060;status=active\r\n"
        data = data.partition(b"\r\n\r\n")[0].replace(b"127.7.8.2", host.encode()).replace(b"127.7.8.1", local.encode())
        data = re.sub(rb"Content-Length: \d+", f"Content-Length: {len(body)}".encode(), data)
        sent = node.receive(data + b"\r\n\r\n" + body.encode(), host, 5060)
        messages = [parse_message(each) for each, to in sent if to == (host, 5060)]
        self.assertTrue(any(isinstance(each, Response) and each.status == 200 for each in messages))
        return [each for each in messages if isinstance(each, Request)]

    def sent_to(self, node: MemoryNode, host: str) -> list[Request]:
        messages = [parse_message(data) for data, to in node.take_sent() if to[0] == host]
        return [each for each in messages if isinstance(each, Request)]


class AnswerTests(CaptureTestCase):
    def test_each_is_answered_as_by_a_kamailio(self) -> None:
        paths = captured("*np-*", "*ul-*", "cu-*")
        self.assertGreater(len(paths), 90)
        for path in paths:
            request = request_of(path)
            node = self.node_for(request)
            channels = node.node.cluster.service.channels
            if path.name == "cu-bcast-known.sip":
                channels.use("mychan")  # as there: it had sent on that channel before
            reply = path.with_suffix(".reply.sip")
            captured_reply = parse_message(reply.read_bytes()) if reply.exists() else None
            assert captured_reply is None or isinstance(captured_reply, Response)
            channel = str(getattr(request.uri, "user", ""))
            expected = STATUS.get(path.stem, 200 if captured_reply is None else captured_reply.status)
            answer = self.answer(node, path.read_bytes(), request.top_via.host)
            self.assertEqual(0 if answer is None else answer.status, expected, path.name)
            is_list = channel == "notification_peer"
            by_kamailio = captured_reply is not None and "server" in captured_reply.headers.first  # not by a test tool
            if answer is not None and captured_reply is not None and by_kamailio and not is_list:
                self.assertEqual(form(answer), form(captured_reply), path.name)
            self.assertEqual(self.flushLoggedErrors(), [], path.name)


    def test_each_of_6_1_on_any_channel(self) -> None:
        """
        What it refuses of later releases is taken here, and what it would not survive refused.
        """
        differing = {"pr-subs-foreign-recv": 200, "pr-subscription-to-5.6.3": 200} | dict.fromkeys(
            ("malformed-ht-array", "malformed-ht-empty-object", "malformed-ht-null-str"), 400
        )
        everything = {
            "presence": PresenceConfig(enable=True),
            "htables": {name: HtableConfig(dmqreplicate=True) for name in ("t1", "tx", "tlong")},
            "dialog": DialogConfig(enable=True),
        }
        before = {"dl-state-confirmed": "dl-update-new-vars"}  # of the same call
        paths = [path for path in captured("*") if path.parent.name == "captures-6.1"]
        self.assertGreater(len(paths), 55)
        for path in paths:
            request = request_of(path)
            node = self.node_for(request, sections=everything)
            if path.stem in before:
                self.answer(node, (path.parent / f"{before[path.stem]}.sip").read_bytes(), request.top_via.host)
            answer = self.answer(node, path.read_bytes(), request.top_via.host)
            assert answer is not None, path.name
            reply = path.with_suffix(".reply.sip")
            captured_reply = parse_message(reply.read_bytes()) if reply.exists() else None
            assert captured_reply is None or isinstance(captured_reply, Response)
            expected = differing.get(path.stem, 200 if captured_reply is None else captured_reply.status)
            self.assertEqual(answer.status, expected, path.name)
            by_kamailio = captured_reply is not None and "server" in captured_reply.headers.first
            if by_kamailio and path.stem not in differing and not path.stem.startswith(("np-", "malformed-np-")):
                self.assertEqual(form(answer), form(captured_reply), path.name)
            self.assertEqual(self.flushLoggedErrors(), [], path.name)


class UsrlocTests(CaptureTestCase):
    def test_each_contact_is_stored_and_told_on_as_it_was(self) -> None:
        paths = captured("ul-insert-*", "ul-refresh*", "ul-sync-contact", "ul-sync-multi-*", "ul-sync-too-large",
                         "ul-sync-xavps", "tcp-ul-*")
        self.assertGreater(len(paths), 17)
        for path in paths:
            request = request_of(path)
            node = self.node_for(request)
            node.reactor.advance(max(each.last_modified for each in decode(request.body)) - TIME)  # type: ignore[union-attr]
            answer = self.answer(node, path.read_bytes(), host_of(request.from_.uri))
            self.assertEqual(None if answer is None else answer.status, 200)
            told = {each.ruid: each for each in decode(request.body) if isinstance(each, UsrlocRecord)}
            self.assertEqual(node.node.store.count(), len(told), path.name)
            wire = node.node.cluster.usrloc._form
            for record in told.values():
                (binding,) = [
                    each
                    for each in self.successResultOf(node.node.store.lookup(f"{record.aor}@{wire._domains.main}"))
                    if each.ruid == record.ruid
                ]
                (again,) = decode(wire.encode_update(binding, record.ruid))
                # Of sockets only our own are kept.
                self.assertEqual(again, record._replace(sock=""), path.name)

    def test_each_removal_removes(self) -> None:
        paths = captured("ul-delete*", "ul-expired")
        self.assertGreater(len(paths), 4)
        for path in paths:
            request = request_of(path)
            node = self.node_for(request)
            sender = host_of(request.from_.uri)
            record = json.loads(request.body)
            node.reactor.advance(record["last_modified"] - TIME)
            before = json.dumps(
                record | {"action": 1, "last_modified": record["last_modified"] - 1, "expires": TIME + 10_000}
            ).encode()
            head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(before), path.read_bytes())
            head = head.partition(b"\r\n\r\n")[0].replace(b";branch=z9hG4bK", b";branch=z9hG4bKbefore")
            self.answer(node, head + b"\r\n\r\n" + before, sender)
            self.assertEqual(node.node.store.count(), 1, path.name)
            self.answer(node, path.read_bytes(), sender)
            self.assertEqual(node.node.store.count(), 0, path.name)

    def test_what_we_tell_of_a_phone_has_the_form_of_what_kamailio_tells(self) -> None:
        """
        The same phone registers here: but for the names of records and calls, it is the same message.
        """
        expected = request_of(FOLDER / "captures" / "ul-insert-full.sip")
        node = self.node("127.7.7.1", now=1_795_402_694)
        self.join(node, "127.7.7.1", "127.7.7.2")
        register = (FOLDER / "captures" / "ul-client-register.sip").read_bytes()
        node.take_sent()
        node._port(0).protocol.datagramReceived(register, ("127.7.7.20", 5080))
        (told,) = self.sent_to(node, "127.7.7.2")
        ruid = json.loads(told.body)["ruid"]
        body = expected.body.replace(b"uloc-6b03abc3-5237-1", ruid.encode())
        # The script there had set a flag and received, as X-Nat asked for.
        for there, here in ((b'"received":"sip:127.7.7.20:5080"', b'"received":""'), (b'"cflags":64', b'"cflags":0')):
            body = body.replace(there, here)
        self.assertEqual(told.body, body)
        got, wanted = form(told), form(expected)
        self.assertEqual(got[0], wanted[0])
        self.assertEqual(got[1], sorted(
            f"Content-Length: {len(body)}" if line.startswith("Content-Length") else line for line in wanted[1]
        ))  # fmt: skip


class NotificationTests(CaptureTestCase):
    def test_our_join_has_the_form_of_kamailio_s(self) -> None:
        expected = request_of(FOLDER / "captures-6.1" / "np-join.sip")
        node = self.node("127.7.8.2")
        node.node.cluster.functions.add_node("sip:127.7.8.1:5060")
        (joined,) = self.sent_to(node, "127.7.8.1")
        own_line = b"sip:127.7.8.2:5060;status=active\r\n"
        self.assertEqual(joined.body, own_line)  # 6.1 names whom it asks, too
        got, wanted = form(joined), form(expected)
        self.assertEqual(got[0], wanted[0])
        differing = ("Content-Length", "Max-Forwards")
        self.assertEqual(*(
            [line.partition(":")[0] if line.startswith(differing) else line for line in each[1]]
            for each in (got, wanted)
        ))  # fmt: skip

    def test_the_answer_to_a_join_is_kamailio_s(self) -> None:
        for release, local in (("captures", "127.7.7.1"), ("captures-6.1", "127.7.8.1")):
            path = FOLDER / release / "np-join.sip"
            reply = parse_message(path.with_suffix(".reply.sip").read_bytes())
            answer = self.answer(self.node(local), path.read_bytes(), host_of(request_of(path).from_.uri))
            assert answer is not None
            self.assertEqual(form(answer), form(reply))


class CustomTests(CaptureTestCase):
    def test_a_message_of_a_policy_has_the_form_of_kamailio_s(self) -> None:
        for name in ("cu-bcast", "cu-send"):
            expected = request_of(FOLDER / "captures" / f"{name}.sip")
            local, other = host_of(expected.from_.uri), host_of(expected.uri)
            node = self.node(local)
            self.join(node, local, other)
            node.take_sent()
            dmq, content_type = node.node.cluster.functions, expected.headers.first["content-type"]
            channel = expected.uri.user  # type: ignore[union-attr]
            if name == "cu-bcast":
                dmq.bcast_message(channel, expected.body, content_type)
            else:
                dmq.send_message(channel, f"sip:{other}:5060", expected.body, content_type)
            (told,) = self.sent_to(node, other)
            self.assertEqual(form(told), form(expected))


class ReplicateTests(CaptureTestCase):
    """
    C{dmq_t_replicate} (WIRE §12).
    """

    def test_copies_are_stored_and_removed(self) -> None:
        node = self.node("127.7.7.2", replicate=True)
        self.join(node, "127.7.7.2", "127.7.7.1")
        for name, count in (("tr-register-copy", 1), ("tr-unregister-copy", 0)):
            data = (FOLDER / "captures" / f"{name}.sip").read_bytes()
            answer = self.answer(node, data, "127.7.7.1")
            assert answer is not None
            self.assertEqual((answer.status, node.node.store.count()), (200, count))

    def test_our_copy_is_kamailio_s(self) -> None:
        node = self.node("127.7.7.1", replicate=True)
        self.join(node, "127.7.7.1", "127.7.7.2")
        node.take_sent()
        data = (FOLDER / "captures" / "tr-client-register.sip").read_bytes()
        node._port(0).protocol.datagramReceived(data, ("127.7.7.20", 5080))
        (copy,) = self.sent_to(node, "127.7.7.2")
        expected = request_of(FOLDER / "captures" / "tr-register-copy.sip")
        self.assertEqual(form(copy), form(expected))
        self.assertEqual(copy.vias[1], expected.vias[1])
