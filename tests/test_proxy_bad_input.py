"""
What a hostile peer of a call may try, against the whole node: it costs him as much as us, and nothing of it is left.
The same at random and with real sockets is C{tests/soak.py}.
"""

from __future__ import annotations

import tracemalloc
from collections import Counter

from sipdmq.config import CallsConfig
from tests.calls_in_memory import BOB, CALLER, NODE, CallTestCase, field_of, fields_of, respond, start_of

US = f"<sip:{NODE[0]};lr>"
EVIL = ("203.0.113.66", 5060)
MANY = 2000


def cancel_of(invite: bytes) -> bytes:
    return invite.replace(b"INVITE sip:", b"CANCEL sip:").replace(b"1 INVITE", b"1 CANCEL")


class ResponseTests(CallTestCase):
    """
    What a callee answers.
    """

    config = {"calls": CallsConfig(max_open=10)}

    def setUp(self) -> None:
        super().setUp()
        self.invited, self.reached = self.invite()

    def test_thousands_of_vias(self) -> None:
        """
        They go on as they came, ours taken off; wherever they stand.
        """
        row = ", ".join(f"SIP/2.0/UDP h{number};branch=z9hG4bK{number}" for number in range(200))
        ours, theirs = fields_of(self.reached, "Via")
        for vias, left in (
            ([ours, theirs, *[row] * 7], [theirs, *[row] * 7]),
            ([f"{ours}, {row}", *[row] * 6], [row, *[row] * 6]),
            ([ours, *["SIP/2.0/UDP h"] * 240], ["SIP/2.0/UDP h"] * 240),
        ):
            ((response, address),) = self.send(respond(self.reached, 183, vias=vias), BOB)
            self.assertEqual((fields_of(response, "Via"), address), (left, CALLER))

    def test_what_is_too_long_is_dropped(self) -> None:
        for more in (["X: y"] * 300, ["Record-Route: " + ", ".join(["<sip:h;lr>"] * 1000)], ["Via: "], ["Via: ,"]):
            self.assertEqual(self.send(respond(self.reached, 183, more=more), BOB), [])

    def test_60_kilobytes(self) -> None:
        for status in (183, 200):
            long = respond(self.reached, status, more=["X-Long: " + "x" * 8000] * 7)
            ((response, _),) = self.send(long, BOB)
            self.assertEqual(len(fields_of(response, "X-Long")), 7)

    def test_a_flood_of_provisional_responses(self) -> None:
        """
        One timer C, whatever To tags they have, and the last one is remembered.
        """
        calls = len(self.memory.reactor.getDelayedCalls())
        for number in range(MANY):
            self.assertEqual(self.statuses(self.send(respond(self.reached, 183, f"tag{number}"), BOB)), ["183"])
        numbers = self.numbers
        self.assertEqual((numbers["proxy.contexts"], numbers["transaction.clients"]), (1, 1))
        self.assertLessEqual(len(self.memory.reactor.getDelayedCalls()), calls)

    def test_a_flood_of_2xx_responses(self) -> None:
        """
        RFC 3261 §16.7 step 5: all of them go upstream, for 64 × T1; nothing is remembered of any.
        """
        for number in range(MANY):
            self.assertEqual(self.statuses(self.send(respond(self.reached, 200, f"tag{number}"), BOB)), ["200"])
        self.assertEqual(self.numbers["calls.open"], 0)  # nobody asked for records
        self.wait(33)
        self.assertEqual(self.send(respond(self.reached, 200, "late"), BOB), [])
        self.assert_nothing_left()

    def test_a_guessed_branch(self) -> None:
        via, theirs = fields_of(self.reached, "Via")
        for guess in (via[:-1], via + "0", via.replace("z9hG4bK", "z9hG4bK0"), via.partition(".ea")[0], via.upper()):
            if guess != via:
                self.assertEqual(self.send(respond(self.reached, 200, vias=[guess, theirs]), EVIL), [], guess)

    def test_another_methods_branch(self) -> None:
        forged = respond(self.reached, 200).replace(b"1 INVITE", b"1 BYE")
        self.assertEqual(self.send(forged, BOB), [])

    def test_only_our_via(self) -> None:
        """
        There is nobody to forward it to (§16.7 step 3); a final one tells that the callee is of no use.
        """
        ours = fields_of(self.reached, "Via")[:1]
        self.assertEqual(self.send(respond(self.reached, 183, vias=ours), BOB), [])
        self.assertEqual(self.statuses(self.send(respond(self.reached, 200, vias=ours), BOB)), ["502"])

    def tearDown(self) -> None:
        self.wait(300)
        self.assert_nothing_left()


class StormTests(CallTestCase):
    """
    The same request by the thousand.
    """

    def setUp(self) -> None:
        super().setUp()
        self.invited, self.reached = self.invite()

    def test_cancels(self) -> None:
        """
        The callee gets one, and not before he has answered (§9.1).
        """
        cancel = cancel_of(self.invited)
        sent = [each for _ in range(MANY) for each in self.send(cancel)]
        self.assertEqual(Counter(self.statuses(sent)), {"200": MANY})
        self.assertEqual(self.statuses(self.send(respond(self.reached, 180), BOB), BOB[0]), ["CANCEL"])
        sent = [each for _ in range(MANY) for each in self.send(cancel)]
        self.assertEqual(self.statuses(sent, BOB[0]), [])

    def test_cancels_of_nothing(self) -> None:
        before = self.numbers
        for number in range(MANY):
            strange = cancel_of(self.invited).replace(b"branch=z9hG4bK", b"branch=z9hG4bK%d" % number)
            self.assertEqual(self.statuses(self.send(strange)), ["481"])
        self.assertEqual(self.numbers, before)
        self.wait(40)  # timer B
        self.assertEqual(self.memory.take_sent(), [])

    def test_acks_of_nothing(self) -> None:
        """
        Without our cookie they go nowhere, and are not answered.
        """
        before = self.numbers
        for number in range(MANY):
            ack = self.make("ACK", to_tag="t", more=[f"Route: <sip:{NODE[0]};lr;c={number:040d}>"])
            self.assertEqual(self.send(ack), [])
        self.assertEqual(self.numbers, {**before, "proxy.dropped_acks": MANY})
        self.wait(40)

    def test_invites_again(self) -> None:
        for _ in range(MANY):
            self.assertEqual(self.statuses(self.send(self.invited)), ["100"])
        self.assertEqual(self.numbers["proxy.relayed"], 1)
        self.wait(40)

    def tearDown(self) -> None:
        self.wait(300)
        self.assert_nothing_left()


class RequestTests(CallTestCase):
    """
    What a caller writes into a request, who has not shown any password.
    """

    def setUp(self) -> None:
        super().setUp()
        self.register("bob", f"<sip:bob@{BOB[0]}>")

    def ask(self, method: str = "INVITE", **changes: str | list[str]) -> str:
        """
        @return: where the request went, or what was answered to it.
        """
        sent = self.send(self.make(method, **changes))  # type: ignore[arg-type]
        answers = [start_of(message) for message, address in sent if address == CALLER and start_of(message) != "100"]
        others = [f"{start_of(message)} {address[0]}" for message, address in sent if address[0] != CALLER[0]]
        return " ".join(others + answers)

    def test_routes(self) -> None:
        """
        Ours are taken off at once, however many; nobody is sent elsewhere by one that is not (no open relay).
        """
        there = f"INVITE {BOB[0]}"
        for route, expected in (
            ([", ".join([US] * 250)] * 2, there),
            ([US] * 240, there),
            ([", ".join([f"<sip:{NODE[0]};lr;c={'A' * 40}>"] * 100)] * 5, there),
            ([f"<sip:{NODE[0]}>"], there),
            ([f'"a, b" {US}'], there),
            ([", ".join(f"<sip:h{number}.example.net;lr>" for number in range(250))] * 2, "403"),
            ([US] * 100 + [f"<sip:{EVIL[0]};lr>"], "403"),
            ([f"<sip:{NODE[0]}:5061;lr>"], "403"),
            ([f"<sip:{EVIL[0]};maddr={NODE[0]};lr>", f"<sip:{NODE[0]};maddr={EVIL[0]};lr>"], "403"),
            (["<tel:123>"], "403"),
            (["<"], "400"),
            ([","], "400"),
            ([""], "400"),
        ):
            self.assertEqual(self.ask(more=[f"Route: {each}" for each in route]), expected, route[0][:100])

    def test_request_uris(self) -> None:
        there = f"MESSAGE {BOB[0]}"
        for uri, expected in (
            ("sip:bob@example.org;transport=sctp", there),
            ("sip:bob@example.org;method=REGISTER", there),
            (f"sip:bob@example.org;maddr={NODE[0]}", there),
            (f"sip:bob@example.org;maddr={EVIL[0]}", there),
            ("sip:%00@example.org", "480"),
            (f"sip:{'b' * 7000}@example.org", "480"),
            (f"sip:{'b' * 9000}@example.org", "414"),
            ("sips:bob@example.org", "480"),
            ("sip:bob@example.org:5061", "403"),
            ("sip:bob@example.org:0", "403"),
            ("sip:bob@[::1]", "403"),
            ("sip:bob@256.256.256.256", "403"),
            ("sip:no.such.host.invalid", "403"),
            ("sip:bob@" + "a" * 300, "403"),
            ("sip:bob@example.org:65536", "400"),
            ("sip:bob@example.org?Route=%3Csip:x%3E", "400"),
            ("sip:", "400"),
            ("*", "400"),
            ("tel:+49", "416"),
            ("urn:service:sos", "416"),
            ("http://example.org", "416"),
        ):
            self.assertEqual(self.ask("MESSAGE", uri=uri), expected, uri[:100])

    def test_max_breadth(self) -> None:
        """
        RFC 5393 §5.3.3: what we are given is never exceeded, and never more than 60.
        """
        for value, expected in (
            ("0", "440"), ("-1", "400"), ("", "400"), ("x", "400"), ("1, 2", "400"), ("9" * 5000, "400"),
            ("1", f"INVITE {BOB[0]}"), ("2147483647", f"INVITE {BOB[0]}"),
        ):  # fmt: skip
            self.assertEqual(self.ask(more=[f"Max-Breadth: {value}"]), expected, value[:20])
        ((_, _), (copy, _)) = self.send(self.make(more=["Max-Breadth: 2147483647"]))
        self.assertEqual(field_of(copy, "Max-Breadth"), "60")

    def test_long_names(self) -> None:
        """
        Tags, a Call-ID and a Contact of 8 kB pass, and come back.
        """
        long = "t" * 8000
        for changes in (
            {"from_": f"<sip:carol@example.com>;tag={long}"}, {"to_tag": long}, {"mark": long},
            {"more": [f"Contact: <sip:{long}@{CALLER[0]}>"]},
        ):  # fmt: skip
            ((_, _), (copy, address)) = self.send(self.make(**changes))  # type: ignore[arg-type]
            self.assertEqual(address, BOB)
            self.assertEqual(self.statuses(self.send(respond(copy, 486), BOB)), ["486"])

    def tearDown(self) -> None:
        self.wait(300)
        self.assert_nothing_left()


class KeptTests(CallTestCase):
    """
    What is kept to be read faster is short: a stranger cannot fill the memory with it.
    """

    def test_long_values(self) -> None:
        """
        Different ones in each message, in every field that a parser looks at; the answer is all that comes of it.
        """
        def send(number: int) -> None:
            zeros = "0" * (6000 + number)
            more = [
                f"Max-Forwards: {zeros}9", f"Expires: {zeros}1", f"Max-Breadth: {zeros}1",
                f"Route: <sip:{NODE[0]};lr;x={zeros}>", f"Contact: <sip:carol@h>;expires={zeros}1;x={zeros}",
                f"Proxy-Authorization: Digest realm={zeros}, nonce=x", f"Record-Route: <sip:{zeros}@h;lr>",
            ]  # fmt: skip
            message = self.make("MESSAGE", f"sip:bob@{'h' * 100}.{zeros[:5000]}.example.org", more)
            self.send(message.replace(b"CSeq: 1", f"CSeq: {zeros}1".encode()))
            self.send(self.make("M" + zeros))

        for number in range(20):
            send(number)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20, 120):
            send(number)
        after, _ = tracemalloc.get_traced_memory()
        self.assertLess(after - before, 200_000)  # bytes, of 5 MB that were received
        self.assert_nothing_left()


class CookieTests(CallTestCase):
    """
    Who may follow a dialog through us: who knows its cookie, its Call-ID and its first From tag.
    """

    def setUp(self) -> None:
        super().setUp()
        _, reached = self.invite(mark="dialog")
        self.contact = f"sip:bob@{EVIL[0]}"
        ((answer, _),) = self.send(respond(reached, 200, "callee", [f"Contact: <{self.contact}>"]), BOB)
        self.route = field_of(answer, "Record-Route")
        self.callees = field_of(reached, "Record-Route")

    def follow(self, route: str, mark: str = "dialog", from_tag: str = "f1", to_tag: str = "callee") -> list[str]:
        """
        @return: what is sent for a BYE, to where.
        """
        self._count += 1
        bye = self.make(
            "BYE",
            self.contact,
            [f"Route: {route}"],
            mark,
            to_tag,
            f"<sip:carol@example.com>;tag={from_tag}",
            f"bye{self._count}",
        )
        return [f"{start_of(message)} {address[0]}" for message, address in self.send(bye)]

    def test_right(self) -> None:
        self.assertEqual(self.follow(self.route), [f"BYE {EVIL[0]}"])
        self.contact = f"sip:carol@{CALLER[0]}:{CALLER[1]}"
        self.assertEqual(self.follow(self.callees, from_tag="callee", to_tag="f1")[0][:3], "BYE")

    def test_games(self) -> None:
        """
        All of them are treated as what a stranger says outside of a dialog: a foreign Request-URI is refused.
        """
        refused = [f"403 {CALLER[0]}"]
        head, _, cookie = self.route.rstrip(">").partition(";c=")
        for route in (
            f"{head}>", f"{head};c>", f"{head};c=>", f"{head};c={cookie[:-1]}>", f"{head};c={cookie}A>",
            f"{head};c={cookie.swapcase()}>", f"{head};c={'A' * len(cookie)}>", f"{head};x={cookie}>",
            f"{head};c={cookie[::-1]}>", f"{head}>, {self.route}",
        ):  # fmt: skip
            self.assertEqual(self.follow(route), refused, route)
        self.assertEqual(self.follow(self.route, mark="other"), refused)
        self.assertEqual(self.follow(self.route, from_tag="f2"), refused)
        self.assertEqual(self.follow(self.route, from_tag="callee", to_tag="f" * 8000), refused)
        self.assertEqual(self.follow(self.route, to_tag=""), refused)
        self.assertEqual(self.follow(self.callees), refused)
        self.assertEqual(self.follow(self.route, from_tag="callee", to_tag="f1"), refused)

    def tearDown(self) -> None:
        self.wait(300)
        self.assert_nothing_left()
