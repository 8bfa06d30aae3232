"""
Route information preprocessing (RFC 3261 §16.4) and the cookies of Record-Route.
"""

from __future__ import annotations

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.core import cookies
from sipdmq.core.cookies import (
    MAX_MOVES,
    DialogSide,
    RouteCookies,
    Side,
    contact_mark,
    record_route_heads,
    record_route_uri,
)
from sipdmq.core.routes import Faced, RouteVerdict, face_caller, preprocess
from sipdmq.errors import ParseError
from sipdmq.sip.message import response_to
from sipdmq.sip.uri import parse_sip_uri
from tests.fakes import request, watch_comparisons
from tests.proxy_network import KEY, is_ours

CALLER = Side("0123456789abcdef0123456789abcdef1")
CALLEE = Side("", "203.0.113.9", 40001, contact_mark(parse_sip_uri("sip:bob@10.0.0.2:5062")))


class RoutesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.cookies = RouteCookies(KEY)

    def run_on(self, *routes: str, tags: str = "f1 t1", **changes: Any) -> RouteVerdict:
        """
        Preprocess a request with these Route values, sent by who has the first tag to who has the second.
        """
        from_tag, _, to_tag = tags.partition(" ")
        changes.setdefault("uri", "sip:bob@10.0.0.2:5062")
        given = request(
            "BYE",
            from_=f"<sip:alice@example.org>;tag={from_tag}",
            to=f"<sip:bob@example.org>;tag={to_tag}" if to_tag else "<sip:bob@example.org>",
            headers=[f"Route: {route}" for route in routes],
            **changes,
        )
        before = list(given.headers)
        verdict = preprocess(given, is_ours, self.cookies)
        self.assertEqual(list(given.headers), before)
        return verdict

    def ours(
        self,
        caller: Side | None = None,
        callee: Side | None = None,
        protocol: str = "UDP",
        is_callers: bool = True,
        ahead: str = "sip:bob@10.0.0.2:5062",
    ) -> str:
        """
        A Record-Route of ours for the dialog c1, begun with From tag f1.

        @param ahead: where it leads.
        """
        mark = self.cookies.mark(parse_sip_uri(ahead))
        cookie = self.cookies.make("c1", "f1", mark, caller, callee, is_callers)
        return record_route_uri(f"{protocol} 192.0.2.1:5060", cookie)


class RouteTests(RoutesTestCase):
    """
    §16.4: "If the first value in the Route header field indicates this proxy, the proxy MUST remove that value from the
    request."
    """

    def test_no_route(self) -> None:
        verdict = self.run_on()
        self.assertFalse(verdict.was_ours or verdict.is_in_dialog)
        self.assertEqual(verdict.request.uri_text, "sip:bob@10.0.0.2:5062")

    def test_ours_is_removed(self) -> None:
        verdict = self.run_on("<sip:192.0.2.1;lr>")
        self.assertTrue(verdict.was_ours)
        self.assertFalse(verdict.is_in_dialog)
        self.assertNotIn("route", verdict.request.headers)

    def test_others_stay(self) -> None:
        verdict = self.run_on("<sip:192.0.2.1;lr>, <sip:p2.example.net;lr>", "<sip:192.0.2.1;lr>")
        self.assertEqual(
            verdict.request.headers.get_all("route"), ["<sip:p2.example.net;lr>, <sip:192.0.2.1;lr>"]
        )
        verdict = self.run_on("<sip:p2.example.net;lr>", "<sip:192.0.2.1;lr>")
        self.assertFalse(verdict.was_ours)
        self.assertTrue(verdict.request.headers.is_repeated("route"))

    def test_another_port_is_not_ours(self) -> None:
        self.assertFalse(self.run_on("<sip:192.0.2.1:5070;lr>").was_ours)

    def test_both_of_a_double_record_route_are_removed(self) -> None:
        """
        RFC 5658 §5.
        """
        verdict = self.run_on(self.ours(protocol="TCP"), self.ours(), "<sip:p2.example.net;lr>")
        self.assertEqual(verdict.request.headers.get_all("route"), ["<sip:p2.example.net;lr>"])
        assert verdict.facing is not None
        self.assertNotIn("transport", verdict.facing.params)

    def test_maddr_decides(self) -> None:
        self.assertFalse(self.run_on("<sip:192.0.2.1;maddr=203.0.113.1;lr>").was_ours)
        self.assertFalse(self.run_on("<sip:192.0.2.1;maddr;lr>").was_ours)
        self.assertTrue(self.run_on("<sip:203.0.113.1;maddr=192.0.2.1;lr>").was_ours)


class MaddrTests(RoutesTestCase):
    """
    §16.4: "If the Request-URI contains a maddr parameter ... If the maddr ... is ours, the proxy MUST strip the maddr
    and any non-default port or transport parameter".
    """

    def test_ours_is_stripped(self) -> None:
        verdict = self.run_on(uri="sip:bob@example.net:5060;maddr=192.0.2.1;transport=udp;x=1")
        self.assertEqual(verdict.request.uri_text, "sip:bob@example.net;x=1")

    def test_of_others_stays(self) -> None:
        verdict = self.run_on(uri="sip:bob@example.org;maddr=203.0.113.1")
        self.assertEqual(verdict.request.uri_text, "sip:bob@example.org;maddr=203.0.113.1")


class StrictRouterTests(RoutesTestCase):
    """
    §16.4: "If the Request-URI of the request contains a value this proxy previously placed into a Record-Route header
    field, the proxy MUST replace the Request-URI in the request with the last value from the Route header field, and
    remove that value from the Route header field."
    """

    def test_undone(self) -> None:
        uri = self.ours(ahead="sip:p2.example.net")[1:-1]
        verdict = self.run_on("<sip:p2.example.net;lr>", "<sip:bob@10.0.0.2:5062>", uri=uri)
        self.assertTrue(verdict.was_ours and verdict.is_in_dialog)
        self.assertEqual(verdict.request.uri_text, "sip:bob@10.0.0.2:5062")
        self.assertEqual(verdict.request.headers.get_all("route"), ["<sip:p2.example.net;lr>"])

    def test_of_a_double_record_route(self) -> None:
        verdict = self.run_on(self.ours(), "<sip:bob@10.0.0.2:5062>", uri=self.ours(protocol="TCP")[1:-1])
        self.assertTrue(verdict.is_in_dialog)
        self.assertEqual(verdict.request.uri_text, "sip:bob@10.0.0.2:5062")
        self.assertNotIn("route", verdict.request.headers)

    def test_what_we_never_wrote_stays(self) -> None:
        for uri in ("sip:192.0.2.1:5060;lr", "sip:192.0.2.1:5060;lr;c=AAAAAAAAAAAAAA", "sip:alice@192.0.2.1"):
            verdict = self.run_on("<sip:bob@10.0.0.2:5062>", uri=uri)
            self.assertFalse(verdict.was_ours)
            self.assertEqual(verdict.request.uri_text, uri)

    def test_headers_are_no_part_of_a_request_uri(self) -> None:
        self.assertRaises(ParseError, self.run_on, "<sip:bob@10.0.0.2?Subject=x>", uri=self.ours()[1:-1])


class DialogTests(RoutesTestCase):
    """
    Requests in a dialog are known by the cookie in our Record-Route URI.
    """

    def test_from_the_caller(self) -> None:
        verdict = self.run_on(self.ours())
        self.assertTrue(verdict.is_in_dialog and verdict.is_from_caller)

    def test_from_the_callee(self) -> None:
        verdict = self.run_on(self.ours(is_callers=False), tags="t1 f1")
        self.assertTrue(verdict.is_in_dialog)
        self.assertFalse(verdict.is_from_caller)

    def test_another_node_with_the_same_key(self) -> None:
        route = self.ours()
        self.cookies = RouteCookies(KEY)
        self.assertTrue(self.run_on(route).is_in_dialog)
        self.cookies = RouteCookies(b"x" * 32)
        verdict = self.run_on(route)
        self.assertFalse(verdict.is_in_dialog)
        self.assertTrue(verdict.was_ours)

    def test_not_without_a_to_tag(self) -> None:
        self.assertFalse(self.run_on(self.ours(), tags="f1").is_in_dialog)

    def test_not_in_another_dialog(self) -> None:
        self.assertFalse(self.run_on(self.ours(), tags="f2 t2").is_in_dialog)
        self.assertFalse(self.run_on(self.ours(), call_id="c2").is_in_dialog)

    def test_not_with_another_cookie(self) -> None:
        route = self.ours(CALLER, CALLEE)
        cookie = route.partition(";c=")[2][:-1]
        raw = urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
        for at in range(len(raw)):
            forged = raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :]
            text = urlsafe_b64encode(forged).rstrip(b"=").decode()
            self.assertFalse(self.run_on(route.replace(cookie, text)).is_in_dialog)
        for text in ("", "x", cookie[:-1], cookie[:22], cookie + "A", "A" * 99, "A" * 22, "A" * 101, "%41" * 10):
            self.assertFalse(self.run_on(route.replace(cookie, text)).is_in_dialog)

    def test_how_much_of_a_cookie_is_right_cannot_be_measured(self) -> None:
        """
        Its keyed hash is compared in constant time.
        """
        compared = watch_comparisons(self, cookies)
        for is_callers, tags in ((True, "f1 t1"), (False, "t1 f1")):
            self.assertTrue(self.run_on(self.ours(is_callers=is_callers), tags=tags).is_in_dialog)
            self.assertFalse(self.run_on(self.ours(is_callers=is_callers), tags="f2 t2").is_in_dialog)
        self.assertEqual([len(each) for each in compared], [10] * 7)

    def test_not_where_a_user_or_no_lr_shows_that_it_is_not_what_we_wrote(self) -> None:
        route = self.ours()
        self.assertFalse(self.run_on(route.replace("sip:", "sip:bob@")).is_in_dialog)
        self.assertFalse(self.run_on(route.replace(";lr", "")).is_in_dialog)

    def test_not_by_a_cookie_further_down(self) -> None:
        verdict = self.run_on("<sip:192.0.2.1;lr>", self.ours())
        self.assertFalse(verdict.is_in_dialog)
        self.assertFalse(self.run_on("<sip:p2.example.net;lr>", self.ours()).is_in_dialog)

    def test_an_empty_from_tag(self) -> None:
        cookie = self.cookies.make("c1", "")  # the callee's
        opened = self.cookies.read(cookie, "c1", "t1", "")
        assert opened is not None
        self.assertFalse(opened.is_from_caller)


class SideTests(RoutesTestCase):
    """
    A side that its Contact alone does not lead to: RFC 5626 §5.1, without state.
    """

    def test_each_direction_has_its_own(self) -> None:
        self.assertEqual(self.run_on(self.ours(CALLER, CALLEE)).side, CALLEE)
        self.assertEqual(self.run_on(self.ours(CALLER, CALLEE, is_callers=False), tags="t1 f1").side, CALLER)

    def test_of_a_double_record_route_the_last_one_faces_the_next_hop(self) -> None:
        inward, outward = self.ours(CALLER, None, "TCP"), self.ours(None, CALLEE)
        verdict = self.run_on(inward, outward)
        self.assertEqual(verdict.side, CALLEE)
        inward, outward = (
            self.ours(CALLER, None, "TCP", is_callers=False),
            self.ours(None, CALLEE, is_callers=False),
        )
        verdict = self.run_on(outward, inward, tags="t1 f1")
        self.assertEqual(verdict.side, CALLER)
        assert verdict.facing is not None
        self.assertEqual(verdict.facing.params["transport"], "tcp")

    def test_not_while_a_route_is_left(self) -> None:
        route = self.ours(CALLER, CALLEE, ahead="sip:p2.example.net")
        verdict = self.run_on(route, "<sip:p2.example.net;lr>")
        self.assertTrue(verdict.is_in_dialog)
        self.assertIsNone(verdict.side)

    def test_an_address_is_for_its_contact_only(self) -> None:
        route = self.ours(None, CALLEE)
        self.assertIsNone(self.run_on(route, uri="sip:bob@10.0.0.3:5062").side)
        self.assertIsNone(self.run_on(route, uri="tel:+123").side)
        moved = self.run_on(self.ours(None, CALLEE, ahead="sip:bob@10.0.0.3"), uri="sip:bob@10.0.0.3")
        self.assertTrue(moved.is_in_dialog)
        self.assertIsNone(moved.side)
        self.assertEqual(self.run_on(route, uri="sip:robert@10.0.0.2:5062;x=1").side, CALLEE)

    def test_all_kinds(self) -> None:
        for side in (
            CALLER,
            Side("0123456789abcdef0123456789abcdef12"),
            Side("flow1"),
            CALLEE,
            Side("", "2001:db8::7", 5060, 65535),
        ):
            for caller, callee in ((side, None), (None, side), (side, side)):
                cookie = self.cookies.make("c1", "f1", b"123456", caller, callee)
                opened = self.cookies.read(cookie, "c1", "t1", "f1")
                self.assertEqual(opened, (False, b"123456", caller, callee))

    def test_what_is_too_long_is_left_out(self) -> None:
        for length in (62, 64, 300):
            cookie = self.cookies.make("c1", "f1", None, Side("x" * length))
            self.assertLessEqual(len(cookie), 100)
            self.assertIsNotNone(self.cookies.read(cookie, "c1", "t1", "f1"))

    def test_nothing_of_it_can_be_read(self) -> None:
        one = self.cookies.make("c1", "f1", None, None, CALLEE)
        other = self.cookies.make("c1", "f1", None, None, CALLEE._replace(port=40002))
        self.assertNotEqual(one, other)
        raw = urlsafe_b64decode(one + "=" * (-len(one) % 4))
        self.assertNotIn(bytes((203, 0, 113, 9)), raw)

    def test_how_long_a_route_is(self) -> None:
        self.assertEqual(len(self.cookies.make("c1", "f1")), 22)
        self.assertLessEqual(len(self.cookies.make("c1", "f1", None, CALLER, CALLER)), 73)


class OtherSideTests(RoutesTestCase):
    """
    A cookie leads to the other side of its dialog, and it is each side's own.
    """

    def test_nowhere_else(self) -> None:
        for uri in (
            "sip:bob@10.0.0.3:5062", "sip:bob@10.0.0.2", "sip:bob@10.0.0.2:5062;maddr=10.0.0.3", "tel:+123",
            "sip:bob@example.org", "sip:bob@bob.example.net:5062",
        ):  # fmt: skip
            verdict = self.run_on(self.ours(), uri=uri)
            self.assertTrue(verdict.was_ours)
            self.assertFalse(verdict.is_in_dialog, uri)
        verdict = self.run_on(self.ours(), "<sip:10.0.0.3;lr>")
        self.assertFalse(verdict.is_in_dialog)

    def test_the_user_and_the_parameters_do_not_matter(self) -> None:
        self.assertTrue(self.run_on(self.ours(), uri="sip:robert@10.0.0.2:5062;transport=tcp").is_in_dialog)

    def test_the_caller_s_is_not_the_callee_s(self) -> None:
        self.assertFalse(self.run_on(self.ours(), tags="t1 f1").is_in_dialog)
        self.assertFalse(self.run_on(self.ours(is_callers=False)).is_in_dialog)

    def test_the_last_of_ours_counts(self) -> None:
        """
        A Route of ours that nobody made leads nowhere.
        """
        for route in ("<sip:192.0.2.1;lr>", self.ours(ahead="sip:bob@10.0.0.9"), self.ours(is_callers=False)):
            self.assertFalse(self.run_on(self.ours(), route).is_in_dialog)

    def test_a_connection_leads_nowhere_but_to_its_other_end(self) -> None:
        """
        Whatever the request names: it is not followed when the connection is gone.
        """
        verdict = self.run_on(self.ours(None, Side("flow1")), uri="sip:bob@10.0.0.9")
        self.assertTrue(verdict.is_in_dialog and verdict.is_side_only)
        self.assertFalse(self.run_on(self.ours(None, Side("flow1"))).is_side_only)
        self.assertFalse(self.run_on(self.ours(None, Side("flow1")), "<sip:10.0.0.9;lr>").is_in_dialog)

    def test_a_side_that_has_moved(self) -> None:
        """
        RFC 3261 §12.2.1.2: a target refresh changes the Contact, and never the route set.
        """
        self.cookies.move(DialogSide("c1", "f1", False), parse_sip_uri("sip:bob@10.0.0.3:5062"))
        self.assertTrue(self.run_on(self.ours(), uri="sip:bob@10.0.0.3:5062").is_in_dialog)
        self.assertTrue(self.run_on(self.ours()).is_in_dialog)
        callees = self.ours(is_callers=False, ahead="sip:alice@10.0.0.1")
        self.assertFalse(self.run_on(callees, tags="t1 f1", uri="sip:bob@10.0.0.3:5062").is_in_dialog)
        self.assertFalse(self.run_on(self.ours(), uri="sip:bob@10.0.0.4:5062").is_in_dialog)

    def test_the_oldest_moves_are_forgotten(self) -> None:
        contact = parse_sip_uri("sip:bob@10.0.0.3:5062")
        self.cookies.move(DialogSide("c1", "f1", False), contact)
        for number in range(MAX_MOVES):
            self.cookies.move(DialogSide(f"other{number}", "f1", False), contact)
        self.assertFalse(self.run_on(self.ours(), uri="sip:bob@10.0.0.3:5062").is_in_dialog)
        self.assertEqual(len(self.cookies._moves), MAX_MOVES)


class FaceCallerTests(RoutesTestCase):
    """
    RFC 3261 §16.7 step 8: what the callee was given is not what the caller gets.
    """

    before: Faced | None = None

    def answered(self, *values: str, contact: str = "<sip:bob@10.0.0.2:5062>", call_id: str = "c1") -> list[str]:
        """
        Record-Route of a response, for the caller.
        """
        headers = [("Record-Route", value) for value in values]
        if contact:
            headers.append(("Contact", contact))
        given = request("INVITE", from_="<sip:alice@example.org>;tag=f1", call_id=call_id)
        response = response_to(given, 200, "t1", headers)
        heads = record_route_heads(f"{protocol} 192.0.2.1:5060" for protocol in ("UDP", "TCP", "TLS"))
        self.before = face_caller(response, self.cookies, heads, is_ours, "sip:bob@10.0.0.2:5062", self.before)
        return response.headers.get_all("record-route")

    def callees(self, **changes: Any) -> str:
        return self.ours(**{"is_callers": False, "ahead": "sip:alice@10.0.0.1", **changes})

    def test_ours_is_exchanged(self) -> None:
        self.assertEqual(self.answered(self.callees()), [self.ours()])

    def test_the_next_response_of_a_call(self) -> None:
        """
        The same from the same callee is not computed again; another callee, or another route, is another answer.
        """
        given, expected = self.callees(), [self.ours()]
        self.assertEqual(self.answered(given), expected)
        cookies, self.cookies = self.cookies, RouteCookies(bytes(32))  # by these it is none of ours
        self.assertEqual(self.answered(given), expected)
        self.before = None
        self.assertNotEqual(self.answered(given), expected)
        self.cookies = cookies
        other = self.answered(self.callees(), contact="<sip:bob@10.0.0.9:5062>")
        self.assertEqual(other, [self.ours(ahead="sip:bob@10.0.0.9:5062")])
        self.assertEqual(self.answered(self.callees(callee=CALLEE), contact="<sip:bob@10.0.0.9:5062>"), [
            self.ours(None, CALLEE, ahead="sip:bob@10.0.0.9:5062")
        ])  # fmt: skip
        self.assertEqual(self.answered(), [])
        self.assertEqual(self.answered(self.callees()), [self.ours()])

    def test_without_contact_it_leads_where_the_request_went(self) -> None:
        self.assertEqual(self.answered(self.callees(), contact=""), [self.ours()])

    def test_the_sides_go_with_it_to_whom_they_concern(self) -> None:
        given = self.callees(caller=CALLER, callee=CALLEE)
        self.assertEqual(self.answered(given), [self.ours(None, CALLEE)])

    def test_what_else_is_in_it_stays(self) -> None:
        did = ";did=80d.bdd1>"
        self.assertEqual(self.answered(self.callees()[:-1] + did), [self.ours()[:-1] + did])

    def test_written_otherwise(self) -> None:
        """
        By a phone that puts a URI together anew.
        """
        head, _, cookie = self.ours()[:-1].partition(";lr;c=")
        (value,) = self.answered(self.callees().replace(";lr;c=", ";LR;x=1;c="))
        self.assertEqual(value, f"{head};LR;x=1;c={cookie}>")

    def test_both_of_two(self) -> None:
        given = (self.callees(callee=CALLEE), self.callees(caller=CALLER, protocol="TCP"))
        self.assertEqual(self.answered(*given), [self.ours(None, CALLEE), self.ours(protocol="TCP")])
        self.assertEqual(self.answered(", ".join(given)), [f"{self.ours(None, CALLEE)}, {self.ours(protocol='TCP')}"])

    def test_behind_another_proxy(self) -> None:
        """
        That one is where the caller's requests go from here.
        """
        other = "<sip:p2.example.net;lr>"
        self.assertEqual(
            self.answered(other, self.callees(), "<sip:p0.example.net;lr>"),
            [other, self.ours(ahead="sip:p2.example.net"), "<sip:p0.example.net;lr>"],
        )

    def test_another_pass_through_us_sees_to_its_own(self) -> None:
        between = "<sip:p2.example.net;lr>"
        inner = self.answered(self.callees(ahead="sip:p2.example.net"), between, self.callees())
        self.assertEqual(inner, [self.ours(), between, self.callees()])
        self.assertEqual(self.answered(*inner), [self.ours(), between, self.ours(ahead="sip:p2.example.net")])

    def test_a_great_many(self) -> None:
        """
        As many as a callee can write into one message, all of them good: still no work for seconds.
        """
        before = time.process_time()
        self.assertEqual(self.answered(*[self.callees()] * 1000), [self.ours()] * 1000)
        self.assertLess(time.process_time() - before, 0.5)

    def test_what_is_not_ours_stays(self) -> None:
        for value in (
            self.callees().replace("192.0.2.1", "192.0.2.2"),  # another node with our key
            "<sip:192.0.2.1;lr>", "<sip:192.0.2.1;lr;c=AAAAAAAAAAAAAAAAAAAAAA>", "<sip:192.0.2.1;lr;c>", "<tel:1>",
        ):  # fmt: skip
            self.assertEqual(self.answered(value), [value])
        (nonsense, other) = self.answered("nonsense", self.callees())
        self.assertEqual(nonsense, "nonsense")
        self.assertFalse(self.run_on(other).is_in_dialog)  # nobody knows where it would lead
        self.assertEqual(self.answered(self.callees(), call_id="c2"), [self.callees()])
        self.assertEqual(self.answered(), [])


class RecordRouteUriTests(RoutesTestCase):
    """
    RFC 3261 §16.6 step 4: a SIP or SIPS URI with lr, whose transport is ours; RFC 5630 for C{sips:}.
    """

    def test_each_transport(self) -> None:
        self.assertEqual(record_route_uri("UDP 192.0.2.1:5060", "x"), "<sip:192.0.2.1:5060;lr;c=x>")
        self.assertEqual(record_route_uri("TCP [2001:db8::1]:5", "x"), "<sip:[2001:db8::1]:5;transport=tcp;lr;c=x>")
        self.assertEqual(record_route_uri("TLS a.b:5061", "x"), "<sip:a.b:5061;transport=tls;lr;c=x>")
        self.assertEqual(record_route_uri("TLS a.b:5061", "x", True), "<sips:a.b:5061;lr;c=x>")

    def test_more_parameters(self) -> None:
        for is_secure, head in ((False, "<sip:a.b:5061;transport=tls"), (True, "<sips:a.b:5061")):
            uri = record_route_uri("TLS a.b:5061", "x", is_secure, ";did=80d.bdd1")
            self.assertEqual(uri, f"{head};lr;c=x;did=80d.bdd1>")
