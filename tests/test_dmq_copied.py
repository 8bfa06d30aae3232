"""
Copies of REGISTERs from other nodes, Kamailios among them, and what only looks like them (WIRE §12).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sipdmq.dmq.copied import received_of
from sipdmq.dmq.own_headers import read_published, read_registered
from sipdmq.records import Origin, Protocol, Source
from sipdmq.sip.fields import parse_via
from sipdmq.sip.message import Request, Response
from sipdmq.sip.parser import parse_message
from tests.digest_client import DigestClient, challenges_in
from tests.dmq_copies import OWN, PHONE, CopyTestCase, register
from tests.dmq_network import address
from tests.fakes import UDP
from tests.policy_network import write_users
from tests.usrloc_node import UsrlocTestCase, update


class ReceiverTests(CopyTestCase):
    """
    A Kamailio's copies, and what only looks like them.
    """

    def copy(self, *fields: str, vias: tuple[str, ...] = ("127.0.0.1:5060",), **changes: Any) -> bytes:
        return register(*fields, vias=vias, **changes)

    def origins(self) -> list[Origin]:
        return [change.origin for change in self.changes[2]]

    def test_from_a_kamailio(self) -> None:
        self.nodes(1, 2, 3)
        data = self.copy().replace(b"7:5062;", b"7:5062;received=203.0.113.5;rport=40001;")
        self.send(2, data, (address(1), 5060))
        (binding,) = self.bindings(2)
        self.assertEqual((binding.received, binding.cseq), ("sip:203.0.113.5:40001", 1))
        self.assertEqual(self.origins(), [Origin.REPLICATED])
        self.assertEqual(self.bindings(3), (), "and it is not passed on")

    def test_received(self) -> None:
        for via, expected in (
            ("SIP/2.0/UDP 10.0.0.1:5062;branch=z9hG4bK1", ""),
            ("SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1;received=10.0.0.1;rport=5060", ""),
            ("SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1;rport=5061", "sip:10.0.0.1:5061"),
            ("SIP/2.0/UDP pc.example;branch=z9hG4bK1;received=10.0.0.1", "sip:10.0.0.1:5060"),
            ("SIP/2.0/UDP [2001:db8::1];branch=z9hG4bK1;rport=7", "sip:[2001:db8::1]:7"),
            ("SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1;rport", ""),
            ("SIP/2.0/UDP pc.example;branch=z9hG4bK1", ""),
            ("SIP/2.0/TCP 10.0.0.1;branch=z9hG4bK1;rport=5061", ""),
        ):
            self.assertEqual(received_of(parse_via(via)), expected, via)

    def test_no_password(self) -> None:
        path = Path(self.mktemp())
        write_users(path, "alice@localhost")
        self.nodes(1, 2, users=str(path))
        self.send(2, self.copy(), (address(1), 5060))
        self.assertEqual(self.answers(address(1)), [200])
        for vias, source in (
            ((), PHONE),
            ((), (address(1), 5060)),  # a phone on the machine of a node
            (("127.0.0.1:5060",), PHONE),  # somebody who says that he is a node
            (("127.0.0.1:5060",), (address(1), 5080)),  # somebody on the machine of a node who says so
            (("127.0.0.1:5080",), (address(1), 5080)),  # a proxy there
            (("198.51.100.9:5060",), (address(1), 5060)),
            (("127.0.0.1:5060", "127.0.0.1:5060"), (address(1), 5060)),  # what a node had from a node
        ):
            with self.subTest(vias=vias, source=source):
                self.send(2, self.copy("X-Marker: 1", cseq=2, vias=vias), source)
                self.assertEqual(self.answers(source[0]), [401])

    def test_a_challenge_is_not_copied(self) -> None:
        path = Path(self.mktemp())
        write_users(path, "alice@localhost")
        self.nodes(1, 2, users=str(path))
        self.send(1, register())
        ((_, _, challenge),) = self.take(Response)
        client = DigestClient("alice", "alice", ("MD5",), "c")
        name, challenges = challenges_in(challenge)
        client.take(challenges)
        self.send(1, register(f"{name}: {client.credentials('REGISTER', 'sip:localhost')}", cseq=2))
        self.assertEqual([copy.cseq.number for _, _, copy in self.take()], [2])
        self.assertEqual(len(self.bindings(2)), 1)

    def test_tls_is_required(self) -> None:
        self.nodes(1, 2)
        senders = self.network.nodes[address(2)].node.cluster.registrar._senders
        senders._require_tls = True
        self.send(2, self.copy(), (address(1), 5060))
        self.assertEqual(self.origins(), [Origin.LOCAL])

    def test_who_has_shown_a_certificate(self) -> None:
        """
        Over TLS the certificate says who it is, whatever port the Via names; a node with a TLS address is none over
        anything else.
        """
        self.nodes(1, 2)
        senders = self.network.nodes[address(2)].node.cluster.registrar._senders
        request = parse_message(self.copy(vias=("127.0.0.1:5061",)))
        assert isinstance(request, Request)
        senders._is_shown = lambda flow, host: (flow, host) == ("flow-1", address(1))
        for protocol, host, flow, expected in (
            (Protocol.TLS, address(1), "flow-1", True), (Protocol.TLS, address(1), "flow-2", False),
            (Protocol.TLS, "198.51.100.9", "flow-1", False), (Protocol.TCP, address(1), "flow-1", False),
        ):  # fmt: skip
            source = Source(protocol, host, 33_333, UDP, flow)
            self.assertEqual(senders.is_copy(request, source), expected, source)

    def test_not_ours(self) -> None:
        self.nodes(1, 2)
        self.send(2, self.copy(uri="sip:elsewhere.example"), (address(1), 5060))
        self.send(2, self.copy(uri="sip:127.0.0.1:9999", cseq=2), (address(1), 5060))
        self.send(2, self.copy("Require: x", cseq=3), (address(1), 5060))
        self.send(2, self.copy(contact="<sip:a@h>;reg-id=x", cseq=4), (address(1), 5060))
        self.send(2, self.copy(cseq=5), (address(1), 5060))
        self.send(2, self.copy(cseq=4), (address(1), 5060))
        self.assertEqual(self.answers(address(1)), [404, 404, 420, 400, 200, 500])

    def test_nonsense_in_our_header(self) -> None:
        """
        What cannot be used is as if it were not there.
        """
        self.nodes(1, 2)
        for cseq, value in enumerate(
            ("", "x", "{}", "[]", '{"action":3}', '{"multi":{}}', '{"action":1}', "[" * 5000, '{"action":1,"aor":1}',
             '{"action":1,"aor":"x","ruid":"r","c":"no uri"}', "\0"), 1
        ):  # fmt: skip
            self.send(2, self.copy(f"{OWN}: {value}", cseq=cseq), (address(1), 5060))
            (binding,) = self.bindings(2)
            self.assertEqual((binding.cseq, binding.received), (cseq, ""), value)
        self.assertGreater(self.count(2, "refused"), 3)

    def test_ours_are_believed_of_nodes_only(self) -> None:
        self.nodes(1, 2)
        self.send(1, register())
        ((_, _, copy),) = self.take()
        (value,) = copy.headers.get_all(OWN.lower())
        bob = value.replace("198.51.100.7", "203.0.113.66")
        self.send(2, register(f"x-SIPDMQ-registered: {bob}", f"X-Sipdmq-Else: {bob}", cseq=7), PHONE)
        (binding,) = self.bindings(2)
        self.assertEqual((binding.contact, binding.cseq), ("sip:alice@198.51.100.7:5062", 7))
        (again,) = [message for _, to, message in self.take() if to == address(1)]
        self.assertEqual(len(again.headers.get_all(OWN.lower())), 1)
        self.assertNotIn("203.0.113.66", " ".join(again.headers.lines()))

    def test_they_do_not_reach_phones(self) -> None:
        self.nodes(1, 2)
        self.send(1, register())
        for number, vias, source in ((1, (), PHONE), (2, ("127.0.0.1:5060",), (address(1), 5060))):
            self.network.outside.clear()
            self.send(
                number,
                register(f"{OWN}: x", vias=vias, cseq=9 + number, method="INVITE", uri="sip:alice@localhost")
                .replace(b"sip:alice@alice@", b"sip:alice@"),
                source,
            )
            requests = [data for data, to in self.network.outside if data.startswith(b"INVITE")]
            self.assertEqual(len(requests), 1)
            self.assertNotIn(b"sipdmq-registered", requests[0].lower())


class OwnHeaderTests(UsrlocTestCase):
    """
    What stands in the header fields of our own, by whomever it was written.
    """

    def request(self, value: str) -> Request:
        lines = [f"{name}: {value}" for name in (OWN, "X-Sipdmq-Published")]
        message = parse_message(register(*lines, "Event: presence", vias=("127.0.0.1:5060",)))
        assert isinstance(message, Request)
        return message

    def check(self, value: str) -> None:
        """
        Each is a record of the AoR of the REGISTER, or a reason why not.
        """
        request = self.request(value)
        records, faults = read_registered(request, self.form, "alice@example.org")
        self.assertLessEqual({each.aor for each in records}, {"alice@example.org"})
        self.assertTrue(all(faults))
        read_published(request)

    @settings(deadline=None)
    @given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=60))
    def test_any_text(self, value: str) -> None:
        self.check(value)

    @settings(max_examples=300, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(("action", "aor", "ruid", "c", "received", "path", "callid", "instance", "expires", "cseq",
                             "q", "last_modified", "methods", "reg_id", "server_id", "by")),
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.none())),
            min_size=1,
            max_size=3,
        )
    )
    def test_wrong_values(self, changes: dict[str, Any]) -> None:
        self.check(json.dumps(json.loads(update(self.form, "k1")) | changes))
