"""
Subscriptions on Kamailio 6, by messages that one has sent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.errors import DecodeError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.presence.kamailio import KamailioSubscriptions
from sipdmq.presence.kamailio_form import KamailioSubscription, decode, encode, takes_subscriptions
from sipdmq.presence.notifier import Contacts
from sipdmq.presence.subscriptions import State
from sipdmq.records import ChannelMessage, ClusterNode, Protocol, Source
from tests.fakes import TCP, UDP
from tests.test_presence_service import ServiceTestCase, node
from tests.test_presence_subscriptions import NOW, make

CAPTURES = Path(__file__).parent / "kamailio" / "captures-6.1"
KAMAILIO = node(6, is_sipdmq=False, release="kamailio 6.1.4")


def captured(name: str) -> bytes:
    """
    The body of a message that was seen.
    """
    return (CAPTURES / f"{name}.sip").read_bytes().partition(b"\r\n\r\n")[2]


class FormTests(SynchronousTestCase):
    def test_the_keys_and_their_types_are_those_that_were_seen(self) -> None:
        seen = json.loads(captured("pr-subscription"))["subscription"]
        ours = json.loads(encode(make(), "<sip:192.0.2.1:5060>", False))
        self.assertEqual(list(ours), ["action", "subscription"])
        self.assertEqual(
            {name: type(value) for name, value in ours["subscription"].items()},
            {name: type(value) for name, value in seen.items()},
        )

    def test_a_record(self) -> None:
        ours = json.loads(encode(make(local_cseq=2), "<sip:192.0.2.1:5060>", False))["subscription"]
        self.assertEqual(
            (ours["pres_uri"], ours["watcher_user"], ours["local_contact"], ours["status"], ours["local_cseq"]),
            ("sip:bob@example.org", "alice", "sip:192.0.2.1:5060", 1, 1002),
        )
        over = json.loads(encode(make(), "<sip:192.0.2.1:5060>", True))["subscription"]
        self.assertEqual((over["expires"], over["status"], over["reason"]), (0, 3, "timeout"))

    def test_what_was_seen(self) -> None:
        found = decode(captured("pr-subscription"))
        self.assertEqual(
            found,
            KamailioSubscription(
                "c6e59c15548133c40ddb1d7dabb179f0-de105b50", "sub-1", "wb1", "sip:bob@127.7.8.40:5080", 1, 1, 1,
                1795408153,
            ),
        )  # fmt: skip
        over = decode(captured("pr-subscription-end"))
        assert isinstance(over, KamailioSubscription)
        self.assertEqual((over.expires_at, over.remote_cseq), (0, 3))
        self.assertIs(decode(captured("pr-subs-sync-request")), True)
        self.assertIs(decode(captured("pr-sync-record")), False)

    def test_60_kb(self) -> None:
        document = json.loads(captured("pr-subscription"))
        for value in ("x" * 59_000, [[]] * 15_000):
            for name in ("to_tag", "contact", "callid"):
                body = json.dumps({**document, "subscription": {**document["subscription"], name: value}}).encode()
                self.assertRaises(DecodeError, decode, body)
        for body in (b"[" * 60_000, b'{"action":3,"subscription":' * 2_000, b'{"action":%b}' % (b"9" * 60_000)):
            self.assertRaises(DecodeError, decode, body)

    @given(st.binary(max_size=100))
    def test_any_bytes(self, body: bytes) -> None:
        try:
            decode(body)
        except DecodeError:
            pass

    @given(
        st.dictionaries(
            st.sampled_from("to_tag callid from_tag contact remote_cseq local_cseq version expires status".split()),
            st.one_of(st.text(max_size=10), st.integers(), st.none(), st.booleans(), st.floats(), st.lists(st.none())),
        )
    )
    def test_wrong_values(self, changes: dict[str, Any]) -> None:
        document = json.loads(captured("pr-subscription"))
        document["subscription"].update(changes)
        try:
            found = decode(json.dumps(document).encode())
        except DecodeError:
            return
        assert isinstance(found, KamailioSubscription)
        self.assertTrue(all(0 <= number < 2**41 for number in found[4:]))

    def test_who_takes_them(self) -> None:
        for release, expected in (
            ("kamailio 6.1.4", True), ("kamailio 6.2.0-dev1", True), ("kamailio 10.0", True),
            ("kamailio 5.6.3", False), ("kamailio", False), ("kamailio x", False), ("", False), ("opensips 6.1", False),
        ):  # fmt: skip
            self.assertIs(takes_subscriptions(node(6, is_sipdmq=False, release=release)), expected, release)
        self.assertFalse(takes_subscriptions(node(6, release="kamailio 6.1.4")))


class KamailioTests(ServiceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.cluster.members = [node(2), node(5, is_sipdmq=False, release="kamailio 5.6.3"), KAMAILIO]
        self.kamailio = KamailioSubscriptions(
            self.clock, self.now, self.table, self.service, Contacts([UDP, TCP]), self.cluster, self.cluster, "presence"
        )
        self.service.replicate = self.kamailio.put
        self.addCleanup(self.kamailio.stop)

    def sent_to_kamailio(self) -> list[dict[str, Any]]:
        asked, self.cluster.asked = self.cluster.asked, []
        self.assertEqual({(channel, name.host) for channel, name, _, _ in asked} - {("presence", "192.0.2.6")}, set())
        return [json.loads(body)["subscription"] for _, _, body, _ in asked]

    def tell(self, body: bytes, sender: ClusterNode | None = KAMAILIO) -> None:
        source = Source(Protocol.UDP, "192.0.2.6", 5060, UDP)
        self.kamailio.message_received(ChannelMessage("presence", sender, source, "", body))

    def refresh(self, **changes: Any) -> bytes:
        document = json.loads(encode(make(remote_cseq=2, local_cseq=7), "<sip:192.0.2.6:5060>", False))
        document["subscription"].update(expires=NOW + 900, **changes)
        return json.dumps(document).encode()

    def test_interface(self) -> None:
        verifyObject(IInspectable, self.kamailio)

    def test_only_release_6_is_told(self) -> None:
        self.service.begun(make())
        self.assertEqual([told["to_tag"] for told in self.sent_to_kamailio()], ["t1"])
        self.service.ended(self.record(), "timeout")
        (told,) = self.sent_to_kamailio()
        self.assertEqual((told["expires"], told["callid"], told["event"]), (0, make().call_id, "presence"))

    def test_what_another_node_of_ours_has_is_for_that_to_tell(self) -> None:
        self.kamailio.put(make(owner="sip:192.0.2.2:5060"), make())
        self.assertEqual(self.sent_to_kamailio(), [])

    def test_a_refresh_there_goes_on_here(self) -> None:
        self.service.begun(make())
        self.clock.advance(0)
        self.answer(200)
        self.sent_to_kamailio()
        self.tell(self.refresh(contact="sip:alice@192.0.2.8"))
        record = self.record()
        self.assertEqual(
            (record.remote_cseq, record.local_cseq, record.expires_at, record.contact),
            (2, 1007, NOW + 900, "sip:alice@192.0.2.8"),
        )
        self.clock.advance(2)
        self.assertEqual(len(self.sender.sent), 1)  # it has told the watcher itself
        self.state.set("x", "bob@example.org")
        self.clock.advance(0)
        self.assertEqual(self.sender.sent[-1][0].cseq.number, 1008)

    def test_an_end_there_is_the_end(self) -> None:
        self.service.begun(make())
        self.tell(self.refresh(status=3))
        self.assertIs(self.record().state, State.TERMINATED)

    def test_what_is_not_believed(self) -> None:
        self.service.begun(make())
        before = self.record()
        self.tell(self.refresh(), None)
        self.tell(self.refresh(), node(5, is_sipdmq=False, release="kamailio 5.6.3"))
        self.tell(self.refresh(remote_cseq=1))
        self.tell(self.refresh(from_tag="another"))
        self.tell(self.refresh(callid="another"))
        self.tell(self.refresh(to_tag="unknown"))
        self.tell(b"{")
        self.assertEqual(self.record(), before)

    def test_who_asks_is_told_of_ours(self) -> None:
        for number in range(50):
            self.table.put(make(f"t{number}", owner=("sip:192.0.2.1:5060", "sip:192.0.2.2:5060")[number % 2]))
        self.tell(captured("pr-subs-sync-request"))
        self.clock.pump([0.03] * 4)
        self.assertEqual(len(self.sent_to_kamailio()), 25)
