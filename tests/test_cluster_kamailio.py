"""
The model of Kamailio 5.6.3 does what WIRE says of the real one.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.sip.message import Request
from sipdmq.sip.parser import parse_message
from tests.cluster.clock import HeapClock
from tests.cluster.kamailio import Crashed, Kamailio
from tests.cluster.machine import node_address
from tests.cluster.network import Address, Network
from tests.cluster.phones import Phone
from tests.location_store_tests import EPOCH

HERE, THERE = node_address(1), node_address(2)
RECORD = {
    "action": 1, "aor": "alice", "ruid": "r1", "c": "sip:alice@10.0.0.9", "received": "", "path": "", "callid": "a",
    "user_agent": "n/a", "instance": "", "expires": EPOCH + 3600, "cseq": 1, "flags": 0, "cflags": 0, "q": -1,
    "last_modified": EPOCH, "methods": 1, "reg_id": 0, "server_id": 0,
}  # fmt: skip


class KamailioTests(SynchronousTestCase):
    """
    The Kamailio is node 2, and joins through node 1, which is this test.
    """

    def setUp(self) -> None:
        self.clock = HeapClock()
        self.network = Network(self.clock, Random(1))
        self.network.attach(HERE, self)
        self.kamailio = Kamailio(self.clock, self.network, 2, (1,), "1")
        self.requests: list[Any] = []
        self.answers: list[Any] = []
        self.is_answering = True
        self.kamailio.start()
        self.clock.advance(0.1)

    def datagram_arrived(self, data: bytes, sender: Address) -> None:
        message: Any = parse_message(data)
        if not isinstance(message, Request):
            self.answers.append(message)
            return
        self.requests.append(message)
        if self.is_answering:
            body = f"sip:{HERE}:5060;status=active\r\n" if "notification" in message.uri_text else ""
            first = message.headers.first
            lines = ["SIP/2.0 200 OK", f"To: {first['to']};tag=1"]
            lines += [f"{name}: {first[name.lower()]}" for name in ("Via", "From", "Call-ID", "CSeq")]
            lines += [f"Content-Length: {len(body)}", "", body]
            self.network.send("\r\n".join(lines).encode(), (HERE, 5060), sender)

    def tell(self, channel: str, body: str, name: str = HERE, hops: int = 1) -> Any:
        """
        @return: the answer.
        """
        number = len(self.answers)
        data = (
            f"KDMQ sip:{channel}@{THERE}:5060 SIP/2.0\r\nVia: SIP/2.0/UDP {HERE}:5060;branch=z9hG4bK{number}\r\n"
            f"From: <sip:{channel}@{name}:5060>;tag=1\r\nTo: <sip:{channel}@{THERE}:5060>\r\nCall-ID: {number}\r\n"
            f"CSeq: 10 KDMQ\r\nMax-Forwards: {hops}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        self.network.send(data.encode(), (HERE, 5060), (THERE, 5060))
        self.clock.advance(0.01)
        return self.answers[-1]

    def change(self, **values: object) -> None:
        self.tell("usrloc", json.dumps({**RECORD, **values}))

    def contacts(self) -> list[tuple[str, str, int]]:
        records = self.kamailio.records("alice@example.com")
        return [(record.ruid, record.contact, record.cseq) for record in records]

    def bodies(self, channel: str) -> list[bytes]:
        """
        Of the requests since this was asked last.
        """
        found, self.requests = self.requests, []
        return [request.body for request in found if request.uri_text.startswith(f"sip:{channel}@")]

    # WIRE §4

    def test_it_joins_and_asks_for_everything(self) -> None:
        first, second = self.requests
        self.assertEqual((first.body, first.max_forwards), (b"sip:127.0.0.2:5060;status=active\r\n", 2))
        self.assertEqual(second.body, b'{"action":3}')
        self.assertEqual(self.kamailio.active(), {HERE, THERE})

    def test_who_does_not_answer_is_disabled_then_deleted_but_a_configured_one_never(self) -> None:
        self.tell("notification_peer", "sip:127.0.0.9:5060;status=active\r\n")
        nodes = self.kamailio.process.nodes  # type: ignore[union-attr]
        self.is_answering = False
        seen = []
        for _ in range(60):
            self.clock.advance(1)
            seen.append((nodes.get("127.0.0.9:5060"), nodes.get("127.0.0.1:5060")))
        self.assertEqual(
            list(dict.fromkeys(seen)),
            [("active", "active"), ("disabled", "pending"), (None, "pending")],
        )

    def test_what_a_list_says_of_a_disabled_node_does_not_count_but_its_answer_does(self) -> None:
        nodes = self.kamailio.process.nodes  # type: ignore[union-attr]
        self.tell("notification_peer", f"sip:{HERE}:5060;status=disabled\r\n")
        self.tell("notification_peer", f"sip:{HERE}:5060;status=active\r\n")
        self.assertEqual(nodes, {f"{HERE}:5060": "disabled"})
        self.clock.advance(5)
        self.assertEqual(nodes, {f"{HERE}:5060": "active"})

    def test_news_are_passed_on_while_there_are_hops(self) -> None:
        self.bodies("notification_peer")
        for hops, passed in ((2, 1), (1, 0)):
            self.tell("notification_peer", f"sip:127.0.0.{hops + 5}:5060;status=active\r\n", hops=hops)
            self.assertEqual(len(self.bodies("notification_peer")), passed)

    # WIRE §6

    def test_an_old_message_wins(self) -> None:
        self.change(cseq=5, last_modified=EPOCH + 100)
        self.change(cseq=2)
        self.assertEqual(self.contacts(), [("r1", RECORD["c"], 2)])

    def test_a_contact_under_another_ruid(self) -> None:
        self.change(cseq=5)
        self.change(ruid="r2", cseq=5)
        self.assertEqual(self.contacts(), [("r1", RECORD["c"], 5)], "the same Call-ID, no greater CSeq")
        self.change(ruid="r2", cseq=6)
        self.assertEqual(self.contacts(), [("r1", RECORD["c"], 6)], "it keeps its ruid")
        self.change(action=2, ruid="r2")
        self.assertEqual(len(self.contacts()), 1)
        self.change(action=2, ruid="r1")
        self.assertEqual(self.contacts(), [])

    def test_an_overwritten_record_keeps_its_contact_unless_it_has_an_instance(self) -> None:
        self.change()
        self.change(c="sip:alice@10.0.0.8", cseq=2)
        self.assertEqual(self.contacts(), [("r1", RECORD["c"], 2)])
        self.change(c="sip:alice@10.0.0.8", cseq=3, instance="<urn:x>")
        self.assertEqual(self.contacts(), [("r1", "sip:alice@10.0.0.8", 3)])

    def test_several_in_one_message(self) -> None:
        other = {**RECORD, "ruid": "r2", "c": "sip:alice@10.0.0.8"}
        self.tell("usrloc", json.dumps({"multi": {"1": RECORD, "2": other, "3": {**RECORD, "action": 2}}}))
        self.assertEqual(self.contacts(), [("r2", "sip:alice@10.0.0.8", 1)])

    def test_a_sync_is_answered_with_more_than_there_is(self) -> None:
        for number in range(3):
            self.change(ruid=f"r{number}", c=f"sip:alice@10.0.0.{number}")
        self.bodies("usrloc")
        self.tell("usrloc", '{"action":3}')
        self.clock.advance(0.1)
        self.assertEqual(len(self.bodies("usrloc")), 6)
        self.tell("usrloc", '{"action":3}', name="127.0.0.77")
        self.clock.advance(0.1)
        self.assertEqual(len(self.bodies("usrloc")), 6, "a stranger's goes to all")

    def test_contacts_expire_and_nobody_is_told(self) -> None:
        self.change(expires=EPOCH + 5)
        self.bodies("usrloc")
        self.clock.advance(6)
        self.assertEqual((self.contacts(), self.bodies("usrloc")), ([], []))

    def test_no_order_between_two_requests(self) -> None:
        kept = set()
        for number in range(30):
            for cseq in (1, 2):
                body = json.dumps({**RECORD, "cseq": cseq})
                data = (
                    f"KDMQ sip:usrloc@{THERE}:5060 SIP/2.0\r\nVia: SIP/2.0/UDP {HERE};branch=z9hG4bK{number}.{cseq}\r\n"
                    f"From: <sip:usrloc@{HERE}:5060>;tag=1\r\nTo: <sip:usrloc@{THERE}:5060>\r\nCall-ID: 1\r\n"
                    f"CSeq: 10 KDMQ\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                )
                self.network.send(data.encode(), (HERE, 5060), (THERE, 5060))
            self.clock.advance(0.01)
            kept.add(self.contacts()[0][2])
        self.assertEqual(kept, {1, 2})

    def test_what_would_kill_it(self) -> None:
        for channel, body in (
            ("usrloc", "{}"), ("usrloc", "[]"), ("usrloc", json.dumps({**RECORD, "c": None})),
            ("usrloc", '{"action":1,"ruid":"x"}'), ("notification_peer", f"sip:{HERE}:5060;status=active"),
            ("notification_peer", f"sip:{HERE}:5060;status=pending\r\n"),
        ):  # fmt: skip
            self.assertRaises(Crashed, self.tell, channel, body)

    def test_channels_that_it_does_not_have(self) -> None:
        self.assertEqual(self.tell("sipdmq", "{}").status, 404)

    # phones

    def test_a_phone_is_told_to_all_and_nothing_is_told_twice(self) -> None:
        heard = []
        self.kamailio.heard = lambda machine, record, previous, name: heard.append((record.removed, name))
        phone = Phone(self.clock, self.network, Random(1), 1, "alice", False, lambda text: None)
        self.bodies("usrloc")
        for kind in ("add", "add", "change", "wildcard"):
            phone.act(THERE, kind)
            self.clock.advance(1)
        actions = [json.loads(body) for body in self.bodies("usrloc")]
        self.assertEqual([action["action"] for action in actions], [1, 1, 2, 1, 2])
        self.assertEqual(len({action["ruid"] for action in actions[:3]}), 1)
        self.assertEqual([removed for removed, _ in heard], [False, False, True, False, True])
        self.assertEqual(len(phone.confirmed), 4)
        self.is_answering = False
        phone.act(THERE, "add")
        self.clock.advance(30)
        self.assertEqual(len(self.bodies("usrloc")), 6, "0, 0.5, 1.5, 3.5, 7.5, 11.5 s, and then it is lost")
