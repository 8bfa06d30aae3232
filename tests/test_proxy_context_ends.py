"""
How a response context ends when nobody answers, or nobody asks any more: RFC 3261 §16.8 and §16.10.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from sipdmq.records import Protocol, Target
from tests.fakes import PHONE_TCP, request_bytes
from tests.proxy_network import BOB, CAROL, DAVE, ProxyTestCase, to


class TimerCTests(ProxyTestCase):
    """
    §16.8: "If the client transaction has received a provisional response, the proxy MUST generate a CANCEL request
    matching that transaction. If not, the proxy MUST behave as if the transaction received a 408".
    """

    def setUp(self) -> None:
        super().setUp()
        self.route_to(to(BOB))

    def test_it_ends_a_call_that_rings_on(self) -> None:
        self.request()
        self.answer(180)
        self.pump(180)
        self.assertEqual(self.sent("CANCEL"), [])
        self.pump(5.5)
        self.assertEqual(len(self.sent("CANCEL")), 1)
        self.answer(487)
        self.assertEqual(self.upstream(), [100, 180, 408])
        self.pump(40)
        self.assert_nothing_left()

    def test_a_provisional_response_starts_it_again(self) -> None:
        self.request()
        for _ in range(3):
            self.answer(183)
            self.pump(150)
        self.assertEqual(self.sent("CANCEL"), [])
        self.answer(100)  # which does not (§16.7 step 2)
        self.pump(36)
        self.assertEqual(len(self.sent("CANCEL")), 1)

    def test_nobody_answers_the_cancel(self) -> None:
        self.request()
        self.answer(180)
        self.pump(186 + 33)
        self.assertEqual(self.upstream(), [100, 180, 408])
        self.pump(40)
        self.assert_nothing_left()

    def test_an_answer_stops_it(self) -> None:
        self.request()
        self.answer(180)
        self.answer(200)
        self.pump(300)
        self.assertEqual(self.sent("CANCEL"), [])


class CancelTests(ProxyTestCase):
    """
    §16.10: the client wants no answer any more.
    """

    def setUp(self) -> None:
        super().setUp()
        self.route_to(to(BOB), to(CAROL), to(DAVE, q=500))

    def test_all_branches(self) -> None:
        self.request()
        self.answer(180, BOB)
        self.cancel()
        self.assertEqual(len(self.sent("CANCEL", BOB)), 1)
        self.assertEqual(self.sent("CANCEL", CAROL), [])
        self.answer(100, CAROL)
        self.assertEqual(len(self.sent("CANCEL", CAROL)), 1)
        self.answer(487, BOB)
        self.answer(487, CAROL)
        self.assertEqual(self.upstream(), [100, 180, 200, 487])
        self.assertEqual(self.sent("INVITE", DAVE), [])
        self.assertEqual(self.calls.events[-1], ("failed", 487))
        self.pump(40)
        self.assert_nothing_left()

    def test_the_reason_goes_with_it(self) -> None:
        """
        RFC 3326 §2; also where the CANCEL has to wait, and not a second one's.
        """
        reasons = ['SIP;cause=600;text="Busy Everywhere"', "Q.850;cause=17"]
        self.request()
        self.answer(180, BOB)
        self.request("CANCEL", headers=[f"Reason: {reason}" for reason in reasons])
        self.request("CANCEL", headers=["Reason: SIP;cause=200"])
        self.answer(100, CAROL)
        for host in (BOB, CAROL):
            self.assertEqual(self.last("CANCEL", host).headers.get_all("reason"), reasons)

    def test_none_goes_with_it(self) -> None:
        for text in ("", "x" * 501):
            self.request()
            self.answer(180, BOB)
            self.request("CANCEL", headers=[f"Reason: {text}"] if text else ())
            self.assertNotIn("reason", self.last("CANCEL", BOB).headers)
            self.layer.stop()
            self.proxy.stop()
            self.transport.sent.clear()

    def test_of_branches_that_never_answer(self) -> None:
        self.request()
        self.cancel()
        self.pump(33)
        self.assertEqual(self.upstream(), [100, 200, 487])
        self.pump(40)
        self.assert_nothing_left()

    def test_a_2xx_comes_first(self) -> None:
        self.request()
        self.answer(180, BOB)
        self.cancel()
        self.answer(200, BOB)
        self.assertEqual(self.upstream(), [100, 180, 200, 200])
        self.assertEqual(self.calls.events[-1], ("answered", 200))

    def test_while_a_name_is_resolved(self) -> None:
        found: Deferred[tuple[Target, ...]] = Deferred()
        self.resolver.names["slow.example.net"] = found
        self.route_to(to("slow.example.net"))
        self.request()
        self.cancel()
        self.assertEqual(self.upstream(), [100, 200, 487])
        found.callback((Target(Protocol.UDP, BOB, 5060),))
        self.assertEqual(self.sent("INVITE"), [])

    def test_before_it_was_relayed(self) -> None:
        self.user.destinations = lambda verdict: ()
        received = []
        self.user.request_received = received.append  # type: ignore[method-assign]
        self.request()
        self.cancel()
        transaction = received[0]
        self.proxy.relay(transaction, transaction.request, (to(BOB),), record_route=True, caller="")
        self.assertEqual(self.upstream(), [200, 487])
        self.assertEqual(self.last(487).to.tag, self.last(200).to.tag)

    def test_a_client_whose_connection_is_gone(self) -> None:
        self.receive(request_bytes("INVITE", "sip:bob@example.org", via="SIP/2.0/TCP a.b;branch=z9hG4bK1"), PHONE_TCP)
        self.answer(180, BOB)
        self.layer.transport_failed(self.transport.sent[-1][1], "gone")
        self.assertEqual(len(self.sent("CANCEL", BOB)), 1)
        self.pump(120)
        self.assert_nothing_left()
