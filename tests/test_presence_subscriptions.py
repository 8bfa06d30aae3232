"""
What a SUBSCRIBE and the answers to NOTIFYs do, sentence by sentence; and records among nodes.
"""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import DecodeError, ParseError, RequestRefused
from sipdmq.presence.dialogs import notify
from sipdmq.presence.subscriptions import (
    State,
    SubscribeLimits,
    Subscription,
    Verdict,
    Way,
    accepts,
    begin,
    judge,
    read_routes,
    read_subscribe,
    refresh,
    state_value,
)
from sipdmq.presence.subscriptions_json import decode, encode, join
from sipdmq.presence.succession import after_rival, end, heir, is_newer, taken_over
from sipdmq.presence.table import SubscriptionTable, TableLimits
from sipdmq.records import EventDocument
from sipdmq.sip.message import response_to
from sipdmq.sip.parser import parse_message
from sipdmq.sip.writer import format_message
from tests.fakes import request

NOW = 1_700_000_000
A, B, C = (f"sip:192.0.2.{number}:5060" for number in (1, 2, 3))
LIMITS = SubscribeLimits()


def subscribe_request(*headers: str, **changes: Any) -> Any:
    return request("SUBSCRIBE", headers=["Contact: <sip:alice@192.0.2.7>", "Event: presence", *headers], **changes)


def make(tag: str = "t1", **changes: Any) -> Subscription:
    message = subscribe_request("Expires: 600")
    subscribe = read_subscribe(message, ("presence",), LIMITS)
    record = begin(
        message, subscribe, "bob@example.org", "alice@example.org", State.ACTIVE, tag, Way("", "udp:192.0.2.1:5060"),
        NOW, A,
    )  # fmt: skip
    return record._replace(**changes)


class ReadTests(SynchronousTestCase):
    def test_the_fields(self) -> None:
        subscribe = read_subscribe(subscribe_request("Expires: 600"), ("presence",), LIMITS)
        self.assertEqual(subscribe, (("presence", ""), 600, "sip:alice@192.0.2.7", 1))

    def test_zero_is_never_too_brief(self) -> None:
        self.assertEqual(read_subscribe(subscribe_request("Expires: 0"), ("presence",), LIMITS).expires_in, 0)

    def test_within_a_dialog_the_target_may_stay(self) -> None:
        to = "<sip:bob@example.org>;tag=t1"
        message = request("SUBSCRIBE", headers=["Event: presence"], to=to, cseq="2 SUBSCRIBE")
        record = refresh(make(), read_subscribe(message, ("presence",), LIMITS), State.ACTIVE, Way(), NOW, A)
        self.assertEqual(record.contact, "sip:alice@192.0.2.7")
        self.assertEqual((record.local_cseq, record.remote_cseq, record.expires_at), (0, 2, NOW + 3600))

    def test_another_node_goes_on_behind_the_numbers_of_the_first(self) -> None:
        message = subscribe_request(to="<sip:bob@example.org>;tag=t1", cseq="2 SUBSCRIBE")
        subscribe = read_subscribe(message, ("presence",), LIMITS)
        record = refresh(make(local_cseq=7, version=7), subscribe, State.ACTIVE, Way(), NOW, B)
        self.assertEqual((record.local_cseq, record.version, record.owner), (1007, 1007, B))

    def test_a_route_set_in_its_order(self) -> None:
        message = subscribe_request("Record-Route: <sip:p1;lr>, <sip:p2;lr>", "Record-Route: <sip:p3;lr>")
        self.assertEqual(read_routes(message), "<sip:p1;lr>, <sip:p2;lr>, <sip:p3;lr>")

    def test_accept(self) -> None:
        for values, expected in (
            ([], True), (["application/pidf+xml"], True), (["text/plain, Application/PIDF+XML;q=0.5"], True),
            (["*/*"], True), (["text/*"], False), (["text/plain"], False), ([""], False),
        ):  # fmt: skip
            message = subscribe_request(*[f"Accept: {value}" for value in values])
            self.assertIs(accepts(message, "application/pidf+xml"), expected, values)

    @settings(max_examples=150)
    @given(st.lists(st.sampled_from((
        "Event: presence", "Event: ", "Event: dialog;id=1", "o: presence", "Contact: <sip:a@b>", "m: *", "Contact: x",
        "Expires: 0", "Expires: 5", "Expires: 99999999999", "Expires: -1", "Record-Route: <sip:x;lr>",
        "Record-Route: ,", "Accept: ,", "Contact: <sip:a@b?x=y>",
    )), max_size=6))  # fmt: skip
    def test_whatever_stands_there(self, headers: list[str]) -> None:
        try:
            message = request("SUBSCRIBE", headers=headers)
        except ParseError:
            return
        try:
            subscribe = read_subscribe(message, ("presence", "dialog"), LIMITS)
            accepts(message, "application/pidf+xml")
            record = begin(message, subscribe, "b@x", "a@x", State.ACTIVE, "t1", Way(), NOW, A)
        except (RequestRefused, ParseError):
            return
        built = notify(record, "<sip:us>", state_value(record, NOW), EventDocument("a/b", b"x"), "agent").request
        built.headers.prepend("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1")
        parse_message(format_message(built))
        self.assertEqual(decode(join([encode(record)])), (record,))


class JudgeTests(SynchronousTestCase):
    """
    RFC 6665 §4.2.2: what the answer to a NOTIFY means.
    """

    def answer(self, status: int, *headers: tuple[str, str]) -> Any:
        return judge(response_to(request("NOTIFY"), status, "t", headers))

    def test_taken(self) -> None:
        for status in (200, 202):
            self.assertEqual(self.answer(status).verdict, Verdict.TAKEN)

    def test_the_codes_that_end_a_subscription_whatever_else_is_said(self) -> None:
        for status in (404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604):
            self.assertEqual(self.answer(status, ("Retry-After", "5")).verdict, Verdict.GONE, status)

    def test_retry_after(self) -> None:
        for value, seconds in (("5", 5), ("0", 1), ("99999", 3600), ("18000;duration=3600", 3600), ("7 (tea)", 7)):
            self.assertEqual(self.answer(503, ("Retry-After", value)), (Verdict.LATER, seconds))
        self.assertEqual(self.answer(503, ("Retry-After", "soon")).verdict, Verdict.GONE)

    def test_a_challenge_is_nothing_we_can_answer(self) -> None:
        for status in (401, 407, 302, 500, 603):
            self.assertEqual(self.answer(status).verdict, Verdict.GONE)


class OrderTests(SynchronousTestCase):
    """
    Which record of a subscription counts.
    """

    def variants(self) -> list[Subscription]:
        return [
            make(remote_cseq=cseq, term=term, owner=owner, local_cseq=local)
            for cseq, term, owner, local in itertools.product((1, 2), (0, 1), (A, B), (5, 6))
        ] + [end(make(remote_cseq=cseq, term=0), NOW) for cseq in (1, 2)]

    def test_it_is_total(self) -> None:
        for one, other in itertools.product(self.variants(), repeat=2):
            self.assertEqual(is_newer(one, other) + is_newer(other, one), int(one != other), (one, other))

    def test_all_orders_of_arrival_end_alike(self) -> None:
        dice = random.Random(7)
        records = self.variants()
        found = set()
        for _ in range(50):
            dice.shuffle(records)
            stored = records[0]
            for record in records[1:]:
                stored = record if is_newer(record, stored) else stored
            found.add(stored)
        self.assertEqual(len(found), 1)

    def test_a_takeover_counts_more_than_what_was_before(self) -> None:
        record = make(local_cseq=3)
        taken = taken_over(record, B)
        self.assertTrue(is_newer(taken, record))
        self.assertEqual((taken.local_cseq, taken.call_id, taken.routes), (1003, record.call_id, record.routes))

    def test_what_the_watcher_says_counts_more_than_a_takeover(self) -> None:
        self.assertTrue(is_newer(make(remote_cseq=2), taken_over(make(), B)))

    def test_an_end_counts_more_than_what_was_before_and_less_than_a_refresh(self) -> None:
        over = end(make(), NOW)
        self.assertTrue(is_newer(over, make()))
        self.assertTrue(is_newer(make(remote_cseq=2), over))

    def test_an_owner_that_meets_a_rival_goes_on_behind_it(self) -> None:
        ours = make(remote_cseq=2, local_cseq=10)
        rival = taken_over(make(local_cseq=8), B)
        higher = after_rival(ours, rival)
        assert higher is not None
        self.assertEqual((higher.owner, higher.local_cseq), (A, 2008))
        self.assertTrue(is_newer(higher, ours))
        self.assertIsNone(after_rival(higher, rival))

    def test_heirs_share(self) -> None:
        tags = [f"tag{number}" for number in range(3000)]
        counts = {node: sum(heir(tag, (A, B, C)) == node for tag in tags) for node in (A, B, C)}
        self.assertGreater(min(counts.values()), 900)

    def test_nothing_moves_but_what_was_the_lost_one_s(self) -> None:
        for number in range(300):
            before = heir(f"tag{number}", (A, B, C))
            if before != C:
                self.assertEqual(heir(f"tag{number}", (B, A)), before)


class CodecTests(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        full = make(
            routes="<sip:p1;lr>, <sip:p2;lr>", received="sip:192.0.2.9:1", flow="f1", event_id="7", term=3, version=9
        )
        for record in (make(), full, end(full, NOW + 60)):
            self.assertEqual(decode(join([encode(record)])), (record,))

    def test_one_bad_record_leaves_the_others(self) -> None:
        found = decode(join([encode(make("t1")), b'{"to_tag":7}', encode(make("t2"))]))
        self.assertEqual([isinstance(each, DecodeError) for each in found], [False, True, False])

    def test_what_is_no_body(self) -> None:
        for body in (b"", b"{}", b"[]", b"7", b'{"subscriptions":{}}', b'{"subscriptions":[],"x":1}', b"[" * 100_000):
            self.assertRaises(DecodeError, decode, body)
        self.assertRaises(DecodeError, decode, join([b"{}"] * 201))
        self.assertRaises(DecodeError, decode, join([b'{"to_tag":%b}' % (b"9" * 60_000)]))

    def test_what_no_notify_can_be_made_of(self) -> None:
        good = json.loads(encode(make()))
        for name, value in (
            ("contact", "tel:+1"), ("contact", "sip:a@b\r\nX: y"), ("from", "<sip:a@b>"), ("to", "<sip:b@b>;tag=x"),
            ("callid", "a b"), ("record_route", "<sip:x"), ("record_route", "<sip:x>," * 20), ("event", "a b"),
            ("to_tag", ""), ("to_tag", "a;b"), ("status", 0), ("status", True), ("expires", -1), ("expires", 1.5),
            ("local_cseq", 2**31), ("watcher", "x" * 2001), ("received", "nowhere"), ("owner", None),
        ):  # fmt: skip
            body = join([json.dumps({**good, name: value}).encode()])
            self.assertIsInstance(decode(body)[0], DecodeError, (name, value))

    @given(st.binary(max_size=200))
    def test_any_bytes(self, body: bytes) -> None:
        try:
            decode(body)
        except DecodeError:
            pass

    @settings(max_examples=200)
    @given(
        st.dictionaries(
            st.sampled_from(sorted(json.loads(encode(make(routes="<sip:x;lr>", flow="f"))))),
            st.one_of(st.text(max_size=20), st.integers(), st.none(), st.booleans(), st.floats(), st.lists(st.none())),
            min_size=1,
            max_size=3,
        )
    )
    def test_wrong_values(self, changes: dict[str, Any]) -> None:
        """
        A record is refused, or a NOTIFY can be made of it.
        """
        good = json.loads(encode(make()))
        (found,) = decode(join([json.dumps({**good, **changes}).encode()]))
        if isinstance(found, Subscription) and found.state is not State.TERMINATED:
            built = notify(found, "<sip:us>", state_value(found, NOW), EventDocument("a/b", b"x"), "agent").request
            built.headers.prepend("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1")
            parse_message(format_message(built))


class StateTests(SynchronousTestCase):
    """
    RFC 6665 §8.2.3.
    """

    def test_the_values(self) -> None:
        record = make()
        for expected, value in (
            ("active;expires=590", state_value(record, NOW + 10)),
            ("active;expires=0", state_value(record, NOW + 1000)),
            ("pending;expires=600", state_value(record._replace(state=State.PENDING), NOW)),
            ("terminated;reason=timeout", state_value(record, NOW, "timeout")),
            ("terminated;reason=probation;retry-after=30", state_value(record, NOW, "probation", 30)),
        ):
            self.assertEqual(value, expected)


class TableTests(SynchronousTestCase):
    def test_by_presentity_and_by_time(self) -> None:
        table = SubscriptionTable(TableLimits())
        table.put(make("t1"))
        table.put(make("t2", expires_at=NOW + 5))
        self.assertEqual(table.of("bob@example.org", "presence"), ("t1", "t2"))
        self.assertEqual(table.expired(NOW + 4), [])
        self.assertEqual([record.tag for record in table.expired(NOW + 5)], ["t2"])
        table.put(make("t2", expires_at=NOW + 700))
        self.assertEqual([record.tag for record in table.expired(NOW + 650)], ["t1"])

    def test_one_that_is_over_is_remembered_and_counts_nowhere(self) -> None:
        table = SubscriptionTable(TableLimits(per_watcher=1))
        table.put(make("t1"))
        self.assertRaises(RequestRefused, table.check_room, "x", "presence", "alice@example.org")
        table.put(end(make("t1"), NOW + 60))
        self.assertEqual((len(table), table.live, table.of("bob@example.org", "presence")), (1, 0, ()))
        table.check_room("x", "presence", "alice@example.org")

    @settings(max_examples=100)
    @given(
        st.lists(
            st.tuples(st.sampled_from("put end remove expire".split()), st.integers(0, 4), st.integers(0, 9)),
            max_size=40,
        )
    )
    def test_nothing_is_left_when_all_are_gone(self, steps: list[tuple[str, int, int]]) -> None:
        table = SubscriptionTable(TableLimits())
        for step, number, second in steps:
            record = make(f"t{number}", expires_at=NOW + second, watcher=f"w{number % 2}")
            if step == "put":
                table.put(record)
            elif step == "end":
                table.put(end(record, NOW + second))
            elif step == "remove":
                table.remove(record.tag)
            else:
                for each in table.expired(NOW + second):
                    table.remove(each.tag)
            live = [each for each in table.records() if each.state is not State.TERMINATED]
            self.assertEqual(table.live, len(live))
            self.assertEqual(set(table.of("bob@example.org", "presence")), {each.tag for each in live})
        for each in list(table.records()):
            table.remove(each.tag)
        self.assertEqual((table._tags, table._counts, table._buckets, table.live), ({}, {}, {}, 0))
