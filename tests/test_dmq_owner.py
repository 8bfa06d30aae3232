"""
The owner of a contact, in front of its path.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.owner import FlowTokens, Owned
from sipdmq.records import NodeName, Protocol
from sipdmq.sip.fields import parse_route
from sipdmq.sip.uri import SipURI
from tests.fakes import make_ids

A = NodeName(Protocol.UDP, "192.0.2.1", 5060)
B = NodeName(Protocol.TLS, "2001:db8::2", 5061)
TOKENS = FlowTokens(b"k" * 32, A)


def route(value: str) -> SipURI:
    uri = parse_route(value).uri
    assert isinstance(uri, SipURI)
    return uri


class TokenTests(SynchronousTestCase):
    def test_the_owner_reads_what_it_made(self) -> None:
        for node in (A, B, NodeName(Protocol.TCP, "192.0.2.3", 5070)):
            tokens = FlowTokens(b"k" * 32, node)
            flow = make_ids().flow()
            uri = route(tokens.make(flow))
            self.assertEqual((tokens.read(uri), uri.host, uri.port), (flow, node.host, node.port))
            self.assertIn("lr", uri.params)

    def test_nobody_else_can_make_it(self) -> None:
        """
        Another key, another node, another connection, another place for the same MAC.
        """
        made = TOKENS.make("abc1")
        for other in (
            FlowTokens(b"x" * 32, A).make("abc1"), FlowTokens(b"k" * 32, B).make("abc1"), made.replace("abc1", "abc2"),
            made.replace(";lr", ""), made.replace("@", ":pw@"), made.replace("sip:", "sip:x"),
            "<sip:abc1@192.0.2.1;lr>",
            "<sip:192.0.2.1;lr>", "<sip:abc1.@192.0.2.1;lr>", "<sip:abc1." + 16 * "A" + "@192.0.2.1;lr>",
        ):  # fmt: skip
            self.assertFalse(TOKENS.read(route(other)), other)

    def test_what_looks_like_one_is_no_ordinary_route(self) -> None:
        self.assertEqual(TOKENS.read(route("<sip:abc1." + 16 * "A" + "@192.0.2.1;lr>")), "")
        for ordinary in ("<sip:192.0.2.1;lr>", "<sip:abc1@192.0.2.1;lr>", TOKENS.make("abc1").replace(";lr", "")):
            self.assertIsNone(TOKENS.read(route(ordinary)))

    def test_all_nodes_read_who_the_owner_is(self) -> None:
        reader = FlowTokens(b"k" * 32, NodeName(Protocol.UDP, "192.0.2.9", 5060))
        for node in (A, B):
            made = FlowTokens(b"k" * 32, node)
            for path in ("", "<sip:edge;lr>", "<sip:edge;lr>, <sip:other;lr>"):
                self.assertEqual(reader.split(made.with_owner("f1", path)), Owned(node, "f1", path))

    def test_other_paths_have_no_owner(self) -> None:
        for path in ("", "<sip:edge.example.org;lr>", "<sip:a.b@192.0.2.1;lr>", "<tel:1.2>", "<", "x.y",
                     "<sips:a.b@h;lr>", "<sip:a.b@h;transport=sctp;lr>", FlowTokens(b"x" * 32, A).make("f1"),
                     "<sip:edge;lr>, " + TOKENS.make("f1")):
            self.assertIsNone(TOKENS.split(path), path)

    def test_what_any_node_can_reach_stays_as_it_is(self) -> None:
        self.assertEqual(TOKENS.with_owner("", "<sip:edge;lr>"), "<sip:edge;lr>")

    @given(st.text(max_size=60))
    def test_any_path(self, path: str) -> None:
        self.assertIsNone(TOKENS.split(path))
