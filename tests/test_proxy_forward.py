"""
What becomes of a request before it is forwarded: RFC 3261 §16.6.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.core.cookies import Side, contact_mark
from sipdmq.errors import ParseError, RequestRefused
from sipdmq.proxy.forward import (
    callee_side,
    caller_side,
    copy_for,
    is_looped,
    read_breadth,
    routing_seed,
    shares,
    strip_response,
)
from sipdmq.records import Destination, Protocol, Target
from sipdmq.sip.message import Request
from sipdmq.sip.uri import parse_sip_uri
from tests.fakes import PHONE, PHONE_TCP, answer, make_ids, request
from tests.proxy_network import BOB, binding, to


def invite(*headers: str, **changes: Any) -> Request:
    changes.setdefault("uri", "sip:bob@example.org")
    return request("INVITE", headers=headers, **changes)


class CopyTests(SynchronousTestCase):
    def test_the_original_stays(self) -> None:
        original = invite("Route: <sip:p1.example.net;lr>")
        before = (original.uri_text, list(original.headers))
        copy_for(original, to(BOB, path="<sip:p0.example.net;lr>"), 60)
        self.assertEqual((original.uri_text, list(original.headers)), before)

    def test_only_what_must_change_does(self) -> None:
        """
        §16.6 steps 1 and 2, 8: "The proxy MUST NOT ... modify the message body".
        """
        original = invite("x-A:  b ", "Subject: c", body=b"v=0")
        copy = copy_for(original, to(BOB), 60).request
        self.assertEqual(copy.start_line, f"INVITE sip:bob@{BOB} SIP/2.0")
        self.assertEqual(copy.body, b"v=0")
        changed = [line for line in copy.headers.lines() if line not in original.headers.lines()]
        self.assertEqual(changed, ["Max-Forwards: 69", "Max-Breadth: 60"])

    def test_max_forwards(self) -> None:
        """
        §16.6 step 3: "If the copy does not contain a Max-Forwards header field, the proxy MUST add one with a field
        value, which SHOULD be 70."
        """
        without = invite()
        without.headers.remove("max-forwards")
        self.assertEqual(copy_for(without, to(BOB), 60).request.max_forwards, 70)
        last = invite()
        last.headers.replace("Max-Forwards", "0")
        with self.assertRaises(RequestRefused) as caught:
            copy_for(last, to(BOB), 60)
        self.assertEqual(caught.exception.status, 483)

    def test_a_stream_needs_content_length(self) -> None:
        without = invite(body=b"abc")
        without.headers.remove("content-length")
        self.assertEqual(copy_for(without, to(BOB), 60).request.headers.get("content-length"), "3")

    def test_a_uri_that_is_none(self) -> None:
        for uri in ("sip:bob@a b", "sip:b@c\r\nX: y", "", "sip:"):
            self.assertRaises(ParseError, copy_for, invite(), Destination(uri), 60)


class NextHopTests(SynchronousTestCase):
    """
    §16.6 steps 6 and 7.
    """

    def hop(self, request: Request, destination: Destination) -> tuple[str, str, list[str]]:
        copy, next_hop = copy_for(request, destination, 60)
        return next_hop.text, copy.uri_text, copy.headers.get_all("route")

    def test_the_request_uri(self) -> None:
        self.assertEqual(self.hop(invite(), to(BOB)), (f"sip:bob@{BOB}", f"sip:bob@{BOB}", []))

    def test_the_top_route(self) -> None:
        route = "<sip:p1.example.net;lr>, <sip:p2.example.net;lr>"
        self.assertEqual(
            self.hop(invite(f"Route: {route}"), to(BOB)), ("sip:p1.example.net;lr", f"sip:bob@{BOB}", [route])
        )

    def test_a_path(self) -> None:
        """
        RFC 3327 §5.3: the Path of a binding is the preloaded route to it.
        """
        path = "<sip:e1.example.net;lr>, <sip:e2.example.net;lr>"
        self.assertEqual(
            self.hop(invite("Route: <sip:p1.example.net;lr>"), to(BOB, path=path)),
            ("sip:e1.example.net;lr", f"sip:bob@{BOB}", [path, "<sip:p1.example.net;lr>"]),
        )

    def test_a_strict_router(self) -> None:
        """
        §16.6 step 6: "place the Request-URI into the Route header field as the last value ... place the first Route
        header field value into the Request-URI and remove that value from the Route header field."
        """
        self.assertEqual(
            self.hop(invite("Route: <sip:strict.example.net;x=1>", "Route: <sip:p2.example.net;lr>"), to(BOB)),
            (
                "sip:strict.example.net;x=1",
                "sip:strict.example.net;x=1",
                [f"<sip:p2.example.net;lr>, <sip:bob@{BOB}>"],
            ),
        )

    def test_a_gateway(self) -> None:
        gateway = parse_sip_uri("sip:gw.example.net")
        destination = Destination("sip:900@example.org", next_hop=gateway)
        self.assertEqual(self.hop(invite(), destination), ("sip:gw.example.net", "sip:900@example.org", []))


class BreadthTests(SynchronousTestCase):
    """
    RFC 5393 §5.3.
    """

    def test_the_default(self) -> None:
        self.assertEqual(read_breadth(invite(), 60), 60)
        self.assertEqual(read_breadth(invite("Max-Breadth: 7"), 60), 7)
        self.assertEqual(read_breadth(invite("Max-Breadth: 4000"), 60), 60)
        self.assertRaises(ParseError, read_breadth, invite("Max-Breadth: x"), 60)

    def test_shares(self) -> None:
        self.assertEqual(shares(60, 1), [60])
        self.assertEqual(shares(60, 7), [9, 9, 9, 9, 8, 8, 8])
        self.assertEqual(shares(2, 2), [1, 1])
        for breadth, count in ((0, 1), (1, 2)):
            with self.assertRaises(RequestRefused) as caught:
                shares(breadth, count)
            self.assertEqual(caught.exception.status, 440)


class LoopTests(SynchronousTestCase):
    """
    RFC 5393 §4.2: what decides the route is in the branch.
    """

    def setUp(self) -> None:
        self.ids = make_ids()

    def part(self, request: Request, aor: str = "") -> str:
        return self.ids.loop_part(routing_seed(request, aor))

    def test_the_same_request_again(self) -> None:
        first = invite()
        branch = self.ids.branch(self.part(first))
        again = invite(f"Via: SIP/2.0/UDP x;branch={branch}", via="SIP/2.0/UDP y;branch=z9hG4bK2")
        self.assertTrue(is_looped(again, self.part(again)))
        self.assertFalse(is_looped(first, self.part(first)))

    def test_a_spiral_is_none(self) -> None:
        branch = self.ids.branch(self.part(invite()))
        for changed in (
            invite(uri="sip:carol@example.org", via=f"SIP/2.0/UDP x;branch={branch}"),
            invite("Route: <sip:p1;lr>", via=f"SIP/2.0/UDP x;branch={branch}"),
            invite("Proxy-Require: x", via=f"SIP/2.0/UDP x;branch={branch}"),
            invite("Proxy-Authorization: x", via=f"SIP/2.0/UDP x;branch={branch}"),
            invite(cseq="2 INVITE", via=f"SIP/2.0/UDP x;branch={branch}"),
            invite(call_id="c2", via=f"SIP/2.0/UDP x;branch={branch}"),
            invite(to="<sip:bob@example.org>;tag=t", via=f"SIP/2.0/UDP x;branch={branch}"),
        ):
            self.assertFalse(is_looped(changed, self.part(changed)))

    def test_what_the_location_store_does_not_look_at(self) -> None:
        one = self.part(invite(uri="sip:bob@example.org;x=1"), "bob@example.org")
        self.assertEqual(one, self.part(invite(uri="sip:bob@example.org;x=2"), "bob@example.org"))

    def test_nobody_else_can_make_one(self) -> None:
        other = make_ids(2)
        self.assertNotEqual(other.loop_part("x"), self.ids.loop_part("x"))


class SideTests(SynchronousTestCase):
    """
    When a Contact alone does not lead back.
    """

    contact = "Contact: <sip:alice@198.51.100.7:5062>"
    private = "Contact: <sip:alice@10.0.0.7:5062>"

    def test_the_caller(self) -> None:
        mark = contact_mark(parse_sip_uri("sip:x@10.0.0.7:5062"))
        self.assertIsNone(caller_side(invite(self.contact), PHONE))
        self.assertEqual(caller_side(invite(self.private), PHONE), Side("", PHONE.host, PHONE.port, mark))
        self.assertEqual(caller_side(invite(self.contact), PHONE_TCP), Side("flow1"))
        self.assertIsNone(caller_side(invite(), PHONE))

    def test_behind_another_proxy_it_is_that_proxys_business(self) -> None:
        self.assertIsNone(caller_side(invite(self.private, "Via: SIP/2.0/UDP b;branch=z9hG4bK2"), PHONE_TCP))
        self.assertIsNone(caller_side(invite(self.private, "Record-Route: <sip:p;lr>"), PHONE_TCP))
        vias = "SIP/2.0/UDP a;branch=z9hG4bK1, SIP/2.0/UDP b;branch=z9hG4bK2"
        self.assertIsNone(caller_side(invite(self.private, via=vias), PHONE_TCP))

    def test_the_callee(self) -> None:
        natted = binding("sip:bob@10.0.0.2", received="sip:198.51.100.20:40001")
        target = Target(Protocol.UDP, BOB, 40001)
        plain = Destination("sip:bob@10.0.0.2")
        mark = contact_mark(parse_sip_uri("sip:bob@10.0.0.2"))
        self.assertIsNone(callee_side(plain, target))
        self.assertEqual(callee_side(plain._replace(binding=natted), target), Side("", BOB, 40001, mark))
        self.assertIsNone(callee_side(plain._replace(binding=natted, path="<sip:e;lr>"), target))
        self.assertEqual(
            callee_side(plain._replace(binding=natted), target._replace(protocol=Protocol.TCP, flow="f")), Side("f")
        )
        here = binding("sip:bob@198.51.100.20:40001")
        self.assertIsNone(callee_side(Destination(here.contact, binding=here), target))


class StripTests(SynchronousTestCase):
    def test_content_length(self) -> None:
        response = answer(invite("Via: SIP/2.0/UDP b;branch=z9hG4bK2"), 180)
        response.headers.remove("content-length")
        self.assertTrue(strip_response(response))
        self.assertEqual(response.headers.get("content-length"), "0")
        self.assertEqual(response.top_via.host, "b")
        self.assertFalse(strip_response(response))
