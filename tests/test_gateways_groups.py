"""
Which gateway is tried first, and which ones are left out.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.config import GatewayConfig, GatewayTarget
from sipdmq.gateways.groups import Gateway, GatewayGroup, uri_at
from sipdmq.sip.uri import parse_sip_uri, parse_uri


def make_group(*targets: tuple[str, int, int], **keys: float) -> GatewayGroup:
    """
    @param targets: host, priority and weight of each.
    @param keys: others of the section.
    """
    given = tuple(GatewayTarget(parse_sip_uri(f"sip:{host}"), *numbers) for host, *numbers in targets)
    return GatewayGroup("pstn", GatewayConfig(given, **keys))  # type: ignore[arg-type]


def hosts(gateways: list[Gateway]) -> str:
    return " ".join(gateway.uri.host for gateway in gateways)


class ChooseTests(SynchronousTestCase):
    """
    The order in which a call tries them.
    """

    def test_the_greatest_priority_comes_first_whatever_the_weight(self) -> None:
        group = make_group(("c", 0, 1000), ("a", 20, 1), ("b", 10, 1000))
        random = Random(1)
        self.assertEqual({hosts(group.choose(random.random)) for _ in range(200)}, {"a b c"})

    def test_within_a_priority_each_comes_first_as_often_as_its_weight_says(self) -> None:
        group = make_group(("a", 5, 50), ("b", 5, 30), ("c", 5, 20), ("d", 1, 1000))
        random = Random(2)
        orders = Counter(hosts(group.choose(random.random)) for _ in range(10_000))
        first = Counter[str]()
        for order, times in orders.items():
            first[order[0]] += times
            self.assertEqual(order[-1], "d")
        for host, share in (("a", 5000), ("b", 3000), ("c", 2000)):
            self.assertLess(abs(first[host] - share), 200)
        # behind "a" the places go by the weights of those that are left: 30 to 20
        self.assertLess(abs(orders["a b c d"] / first["a"] - 0.6), 0.03)

    def test_without_weight_only_when_the_others_of_its_priority_fail(self) -> None:
        group = make_group(("idle", 5, 0), ("a", 5, 1), ("b", 5, 1), ("z", 0, 9))
        random = Random(3)
        orders = {hosts(group.choose(random.random)) for _ in range(200)}
        self.assertEqual(orders, {"a b idle z", "b a idle z"})

    def test_the_ends_of_chance(self) -> None:
        group = make_group(("a", 0, 1), ("b", 0, 0))
        for value in (0.0, 1 - 2**-53):
            self.assertEqual(hosts(group.choose(lambda value=value: value)), "a b")  # type: ignore[misc]

    def test_those_that_are_out_are_left_out(self) -> None:
        group = make_group(("a", 2, 1), ("b", 1, 1), probe_threshold=1)
        self.assertTrue(group.gateways[0].failed())
        self.assertEqual(hosts(group.choose(Random(4).random)), "b")

    def test_when_all_are_out_there_is_none(self) -> None:
        group = make_group(("a", 0, 1), ("b", 0, 1), probe_threshold=1)
        for gateway in group.gateways:
            gateway.failed()
        self.assertEqual(group.choose(Random(5).random), [])


class StateTests(SynchronousTestCase):
    """
    Out after some failures in a row, back after some answers in a row.
    """

    def steps(self, events: str, **keys: float) -> str:
        """
        @param events: C{-} a failure, C{+} an answer.
        @return: for each event C{o} if it took the gateway out, C{b} if it took it back, else C{.}.
        """
        gateway = make_group(("a", 0, 1), **keys).gateways[0]
        told = ""
        for event in events:
            was_out = gateway.is_out
            changed = gateway.failed() if event == "-" else gateway.answered()
            self.assertEqual(changed, gateway.is_out != was_out)
            told += "." if not changed else "o" if gateway.is_out else "b"
        return told

    def test_out_and_back(self) -> None:
        for events, expected, keys in (
            ("---", "..o", {}),
            ("--+--+--", "........", {}),  # never three in a row
            ("----", "..o.", {}),
            ("---+", "..ob", {}),
            ("---+---", "..ob..o", {}),
            ("-", "o", {"probe_threshold": 1}),
            ("-+-+", "obob", {"probe_threshold": 1}),
            ("-++-+++", "o.....b", {"probe_threshold": 1, "return_threshold": 3}),
            ("-+++++-", "o..b..o", {"probe_threshold": 1, "return_threshold": 3}),
        ):
            self.assertEqual(self.steps(events, **keys), expected, events)  # type: ignore[arg-type]

    def test_one_that_is_never_probed_is_never_taken_out(self) -> None:
        self.assertEqual(self.steps("------", probe_interval=0), "......")

    def test_each_gateway_counts_for_itself(self) -> None:
        group = make_group(("a", 0, 1), ("b", 0, 1), probe_threshold=2)
        self.assertEqual([each.failed() for each in group.gateways], [False, False])
        self.assertTrue(group.gateways[1].failed())
        self.assertEqual([each.is_out for each in group.gateways], [False, True])

    def test_signs_of_life(self) -> None:
        group = make_group(("a", 0, 1))
        self.assertEqual(
            [status for status in (200, 202, 302, 403, 404, 405, 408, 480, 486, 500, 501, 502, 503, 504, 505, 603)
             if not group.is_sign_of_life(status)],
            [408, 500, 502, 503, 504],
        )  # fmt: skip


class RequestURITests(SynchronousTestCase):
    """
    What a gateway is asked for.
    """

    def test_the_user_in_the_gateways_domain(self) -> None:
        for gateway, dialled, expected in (
            ("sip:gw.example.net", "sip:+4912@example.org", "sip:+4912@gw.example.net"),
            ("sip:gw:5062;transport=tcp", "sips:bob:x@example.org:5061;transport=tls", "sip:bob@gw:5062;transport=tcp"),
            ("sips:[2001:DB8::1]", "sip:a%20b;x=1@example.org;user=phone", "sips:a%20b;x=1@[2001:db8::1];user=phone"),
            ("sip:gw;lr", "sip:bob@example.org", "sip:bob@gw"),
            ("sip:gw", "sip:example.org", "sip:gw"),
        ):
            text = uri_at(parse_sip_uri(gateway), parse_sip_uri(dialled))
            self.assertEqual(text, expected)
            parse_sip_uri(text)

    def test_numbers(self) -> None:
        """
        RFC 3261 §19.1.6.
        """
        for dialled, expected in (
            ("tel:+358-555-1234567;postd=pp22", "sip:+358-555-1234567;postd=pp22@gw;user=phone"),
            ("TEL:110;phone-context=example.org", "sip:110;phone-context=example.org@gw;user=phone"),
        ):
            text = uri_at(parse_sip_uri("sip:gw"), parse_uri(dialled))
            self.assertEqual(text, expected)
            parse_sip_uri(text)

    def test_what_is_neither_sip_nor_a_number_stays(self) -> None:
        for dialled in ("urn:service:sos", "tel:+49@elsewhere", "tel:;x"):
            self.assertEqual(uri_at(parse_sip_uri("sip:gw"), parse_uri(dialled)), dialled)
