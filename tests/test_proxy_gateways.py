"""
Calls to gateways: one after the other, and what is learnt from each.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from sipdmq.interfaces.gateways import IGateways
from sipdmq.records import Destination
from sipdmq.sip.uri import SipURI, parse_sip_uri
from tests.proxy_network import BOB, CAROL, ProxyTestCase

DEAD = frozenset((408, 500, 502, 503, 504))


@implementer(IGateways)
class RecordingGateways:
    """
    Writes down what it is told.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, bool]] = []

    def group(self, name: str, request_uri: Any = None) -> tuple[Destination, ...]:
        return ()

    def report(self, next_hop: SipURI, is_alive: bool) -> None:
        self.events.append((next_hop.host, is_alive))


def gateway(host: str, q: int, **changes: Any) -> Destination:
    return Destination(
        f"sip:+49@{host}", q, next_hop=parse_sip_uri(f"sip:{host}"), answer_timeout=5.0, **{"failover": DEAD, **changes}
    )


class GatewayTests(ProxyTestCase):
    """
    Two gateways, the better one at BOB's address.
    """

    def setUp(self) -> None:
        super().setUp()
        self.gateways = RecordingGateways()
        self.proxy.report_to(self.gateways)
        self.route_to(gateway(BOB, 1000), gateway(CAROL, 999))
        self.request()

    def where(self) -> list[str]:
        """
        Where INVITEs went.
        """
        return [host for host in (BOB, CAROL) if self.sent("INVITE", host)]

    def test_one_that_takes_the_call(self) -> None:
        self.answer(180)
        self.answer(200)
        self.assertEqual((self.where(), self.gateways.events), ([BOB], [(BOB, True)]))

    def test_one_that_is_silent(self) -> None:
        self.pump(4.5)
        self.assertEqual(self.where(), [BOB])
        self.pump(1)
        self.assertEqual((self.where(), self.gateways.events), ([BOB, CAROL], [(BOB, False)]))
        self.answer(200, CAROL)
        self.assertEqual(self.upstream(), [100, 200])
        self.assertEqual(self.gateways.events, [(BOB, False), (CAROL, True)])
        self.pump(40)
        self.assert_nothing_left()

    def test_one_that_answers_at_all_has_time(self) -> None:
        self.answer(100)
        self.pump(60)
        self.assertEqual((self.where(), self.gateways.events), ([BOB], []))

    def test_timer_c_runs_from_the_first_answer_on(self) -> None:
        self.pump(4)
        self.answer(100)
        self.pump(184)
        self.assertEqual(self.sent("CANCEL", BOB), [])
        self.pump(2)
        self.answer(487)
        self.assertEqual((self.where(), self.gateways.events, self.upstream()), ([BOB], [(BOB, True)], [100, 408]))

    def test_one_that_cannot_be_reached(self) -> None:
        self.layer.transport_failed(self.transport.sent[-1][1], "no route")
        self.assertEqual((self.where(), self.gateways.events), ([BOB, CAROL], [(BOB, False)]))

    def test_one_that_is_too_busy(self) -> None:
        self.answer(503)
        self.assertEqual((self.where(), self.gateways.events), ([BOB, CAROL], [(BOB, False)]))

    def test_one_that_has_failed_but_is_there(self) -> None:
        self.answer(500)
        self.assertEqual((self.where(), self.gateways.events), ([BOB, CAROL], [(BOB, True)]))

    def test_what_the_callee_says_is_the_last_word(self) -> None:
        for number, status in enumerate((404, 480, 486, 488)):
            self.request(via=f"SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bKx{number}")
            self.answer(status)
            self.assertEqual((self.where(), self.gateways.events[-1]), ([BOB], (BOB, True)))
            self.assertEqual(self.upstream()[-1], status)

    def test_both_have_failed(self) -> None:
        self.pump(5.5)
        self.pump(5.5)
        self.assertEqual(self.gateways.events, [(BOB, False), (CAROL, False)])
        self.assertEqual(self.upstream(), [100, 408])
        self.pump(40)
        self.assert_nothing_left()

    def test_the_caller_gives_up(self) -> None:
        self.answer(180)
        self.cancel()
        self.answer(487)
        self.assertEqual((self.where(), self.gateways.events), ([BOB], [(BOB, True)]))

    def test_phones_are_no_gateways(self) -> None:
        self.route_to(Destination(f"sip:bob@{BOB}"))
        self.request(via="SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK2")
        self.answer(486)
        self.assertEqual(self.gateways.events, [])
