"""
One request, its branches, and what is answered to it: RFC 3261 §16.7 to §16.9.
"""

from __future__ import annotations

from sipdmq.records import Protocol, Target
from sipdmq.sip.message import response_to
from sipdmq.sip.parser import parse_message
from sipdmq.sip.writer import format_message
from tests.proxy_network import BOB, CAROL, DAVE, ProxyTestCase, to


class OneBranchTests(ProxyTestCase):
    """
    A call to one phone.
    """

    def setUp(self) -> None:
        super().setUp()
        self.route_to(to(BOB))

    def test_a_call(self) -> None:
        self.request()
        self.assertEqual(
            self.taken(), [("send", 100, "udp:198.51.100.7:5062"), ("send", "INVITE", f"udp:{BOB}:5060")]
        )
        for status in (100, 180, 200):
            self.answer(status)
        self.assertEqual(self.upstream(), [100, 180, 200])
        self.assertEqual(
            self.calls.events, [("relayed", "INVITE", "alice"), ("ringing", 180), ("answered", 200)]
        )
        self.pump(40)
        self.assert_nothing_left()

    def test_every_2xx_is_forwarded(self) -> None:
        """
        §16.7 step 5, RFC 6026 §8.3.
        """
        self.request()
        for tag in ("t1", "t1", "t2"):
            self.answer(200, to_tag=tag)
        self.assertEqual(self.upstream(), [100, 200, 200, 200])
        self.assertEqual(self.calls.events[1:], [("answered", 200)])
        self.pump(40)
        self.answer(200)
        self.assertEqual(self.upstream(), [100, 200, 200, 200])
        self.assert_nothing_left()

    def test_a_response_is_forwarded_byte_for_byte(self) -> None:
        self.request()
        answer = response_to(self.last("INVITE"), 183, "t1", [("X-A", "  b \t"), ("Content-Type", "a/b")], "Los!", b"x")
        data = format_message(answer)
        self.receive(parse_message(data.replace(b"X-A: ", b"x-a   :")))
        head = data.replace(b"X-A: ", b"x-a   :").split(b"\r\n")
        del head[1]
        self.assertEqual(format_message(self.last(183)).split(b"\r\n"), head)

    def test_busy(self) -> None:
        self.request()
        self.answer(486)
        self.assertEqual(self.upstream(), [100, 486])
        self.assertEqual(self.calls.events[1:], [("failed", 486)])
        self.pump(40)
        self.assert_nothing_left()

    def test_a_redirection_is_for_the_caller(self) -> None:
        self.request()
        self.answer(302, headers=[("Contact", f"<sip:bob@{CAROL}>")])
        self.assertEqual(self.last(302).headers.get("contact"), f"<sip:bob@{CAROL}>")
        self.assertEqual(self.sent("INVITE", CAROL), [])

    def test_no_answer_at_all(self) -> None:
        """
        §16.9, §17.1.1.2: timer B.
        """
        self.request()
        self.pump(33)
        self.assertEqual(self.upstream(), [100, 408])
        self.pump(40)
        self.assert_nothing_left()

    def test_a_phone_that_cannot_be_sent_to(self) -> None:
        """
        §16.9: "as if the client transaction had returned 503".
        """
        self.request()
        self.layer.transport_failed(self.transport.sent[-1][1], "no route")
        self.assertEqual(self.upstream(), [100, 503])

    def test_a_name_without_address(self) -> None:
        self.route_to(to("nowhere.example.net"))
        self.request()
        self.assertEqual(self.upstream(), [100, 503])
        self.route_to(to("not a uri"))
        self.request(via="SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK2")
        self.assertEqual(self.upstream(), [100, 503, 100, 503])

    def test_the_next_target_is_tried(self) -> None:
        """
        RFC 3263 §4.3, each with a Via of its own.
        """
        targets = (Target(Protocol.UDP, BOB, 5060), Target(Protocol.TCP, CAROL, 5060))
        self.resolver.names["pair.example.net"] = targets
        self.route_to(to("pair.example.net"))
        self.request()
        self.layer.transport_failed(targets[0], "no route")
        self.assertEqual(len(self.sent("INVITE")), 2)
        self.assertIn("transport=tcp", self.sent("INVITE")[1].headers.get("record-route"))
        self.assertNotIn("transport=tcp", self.sent("INVITE")[0].headers.get("record-route"))
        self.answer(200, CAROL)
        self.assertEqual(self.upstream(), [100, 200])

    def test_a_503_says_nothing_of_us(self) -> None:
        self.request()
        self.answer(503, headers=[("Retry-After", "600")])
        self.assertEqual(self.upstream(), [100, 500])
        self.assertNotIn("retry-after", self.last(500).headers)

    def test_a_response_without_another_via_goes_nowhere(self) -> None:
        """
        §16.7 step 3.
        """
        self.request()
        for status in (180, 200):
            response = response_to(self.last("INVITE"), status, "t1")
            via = response.headers.get_all("via")[0]
            response.headers.replace("Via", via)
            self.receive(response)
        self.assertEqual(self.upstream(), [100, 502])

    def test_two_vias_in_one_line(self) -> None:
        self.request()
        response = response_to(self.last("INVITE"), 180, "t1")
        response.headers.replace("Via", ", ".join(response.headers.get_all("via")))
        self.receive(response)
        self.assertEqual(self.last(180).vias[0].branch, "z9hG4bK1")


class NonInviteTests(ProxyTestCase):
    """
    RFC 4320, and methods that nobody here knows.
    """

    def setUp(self) -> None:
        super().setUp()
        self.route_to(to(BOB))

    def test_any_method(self) -> None:
        for number, method in enumerate("MESSAGE UPDATE PRACK REFER INFO PUBLISH SUBSCRIBE FROBNICATE".split()):
            self.request(method, via=f"SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK{number}a")
            self.answer(202, method=method)
        self.assertEqual(self.upstream(), [202] * 8)
        self.assertEqual(self.calls.events, [])
        self.pump(40)
        self.assert_nothing_left()

    def test_no_late_408(self) -> None:
        """
        RFC 4320 §4.2: "A proxy MUST NOT send a 408 to a non-INVITE request".
        """
        self.route_to(to(BOB), to(CAROL, q=500))
        self.request("MESSAGE")
        self.pump(80)
        self.assertEqual(self.upstream(), [100])
        self.assertEqual(self.sent("MESSAGE", CAROL), [])
        self.assert_nothing_left()

    def test_one_answer_of_a_fork(self) -> None:
        self.route_to(to(BOB), to(CAROL))
        self.request("MESSAGE")
        self.answer(200, BOB, "MESSAGE")
        self.answer(200, CAROL, "MESSAGE")
        self.assertEqual(self.upstream(), [200])


class ForkTests(ProxyTestCase):
    """
    §16.7 steps 5 and 10, and the order of q (§16.6).
    """

    def setUp(self) -> None:
        super().setUp()
        self.route_to(to(BOB), to(CAROL))

    def test_the_first_2xx_cancels_the_others(self) -> None:
        self.request()
        self.answer(180, BOB)
        self.answer(180, CAROL)
        self.answer(200, CAROL)
        self.assertEqual(self.upstream(), [100, 180, 180, 200])
        self.assertEqual(len(self.sent("CANCEL", BOB)), 1)
        self.assertEqual(self.sent("CANCEL", CAROL), [])
        self.answer(200, BOB, "CANCEL")
        self.answer(487, BOB)
        self.assertEqual(self.upstream(), [100, 180, 180, 200])
        self.pump(40)
        self.assert_nothing_left()

    def test_a_cancel_says_why(self) -> None:
        """
        RFC 3326 §3.1: who hears that another has answered shows no missed call.
        """
        self.request()
        self.answer(180, BOB)
        self.answer(200, CAROL)
        reasons = self.last("CANCEL", BOB).headers.get_all("reason")
        self.assertEqual(reasons, ['SIP;cause=200;text="Call completed elsewhere"'])

    def test_a_cancel_after_a_6xx_says_which(self) -> None:
        self.request()
        self.answer(180, BOB)
        self.answer(603, CAROL)
        self.assertEqual(self.last("CANCEL", BOB).headers.get_all("reason"), ['SIP;cause=603;text="Decline"'])

    def test_a_2xx_that_crosses_the_cancel_is_forwarded(self) -> None:
        self.request()
        self.answer(180, BOB)
        self.answer(200, CAROL, to_tag="t2")
        self.answer(200, BOB)
        self.assertEqual(self.upstream(), [100, 180, 200, 200])
        self.assertEqual(self.calls.events[2:], [("answered", 200)])

    def test_a_cancel_waits_for_a_provisional_response(self) -> None:
        """
        §9.1.
        """
        self.request()
        self.answer(200, CAROL)
        self.assertEqual(self.sent("CANCEL"), [])
        self.answer(100, BOB)
        self.assertEqual(len(self.sent("CANCEL", BOB)), 1)

    def test_the_best_of_two_failures(self) -> None:
        self.request()
        self.answer(404, BOB)
        self.assertEqual(self.upstream(), [100])
        self.answer(302, CAROL)
        self.assertEqual(self.upstream(), [100, 302])

    def test_a_6xx_ends_it_all(self) -> None:
        """
        §16.7 step 5: "it is not immediately forwarded, but the stateful proxy SHOULD cancel all client pending
        transactions ... and it MUST NOT create any new branches in this context".
        """
        self.route_to(to(BOB), to(CAROL), to(DAVE, q=500))
        self.request()
        self.answer(180, CAROL)
        self.answer(603, BOB)
        self.assertEqual(len(self.sent("CANCEL", CAROL)), 1)
        self.assertEqual(self.upstream(), [100, 180])
        self.answer(487, CAROL)
        self.assertEqual(self.upstream(), [100, 180, 603])
        self.assertEqual(self.sent("INVITE", DAVE), [])

    def test_challenges_of_all(self) -> None:
        """
        §16.7 step 7.
        """
        self.request()
        self.answer(401, BOB, headers=[("WWW-Authenticate", 'Digest realm="b"')])
        self.answer(407, CAROL, headers=[("Proxy-Authenticate", 'Digest realm="c"')])
        response = self.transport.last
        self.assertEqual(response.headers.get("www-authenticate"), 'Digest realm="b"')
        self.assertEqual(response.headers.get("proxy-authenticate"), 'Digest realm="c"')

    def test_the_next_q_when_all_have_failed(self) -> None:
        self.route_to(to(DAVE, q=300), to(BOB), to(CAROL))
        self.request()
        self.answer(486, BOB)
        self.assertEqual(self.sent("INVITE", DAVE), [])
        self.answer(486, CAROL)
        self.assertEqual(len(self.sent("INVITE", DAVE)), 1)
        self.answer(200, DAVE)
        self.assertEqual(self.upstream(), [100, 200])
        self.pump(40)
        self.assert_nothing_left()

    def test_failures_of_all_q_count(self) -> None:
        self.route_to(to(BOB), to("nowhere.example.net", q=500), to("no.example.net", q=400), to(CAROL, q=300))
        self.request()
        self.answer(404, BOB)
        self.answer(500, CAROL)
        self.assertEqual(self.upstream(), [100, 404])

    def test_an_early_timeout_goes_on(self) -> None:
        self.route_to(to(BOB, timeout=10), to(CAROL, q=500))
        self.request()
        self.answer(180, BOB)
        self.pump(5)
        self.answer(180, BOB)
        self.pump(5.5)
        self.assertEqual(len(self.sent("CANCEL", BOB)), 1)
        self.answer(487, BOB)
        self.assertEqual(len(self.sent("INVITE", CAROL)), 1)
        self.answer(480, CAROL)
        self.assertIn(self.upstream()[-1], (408, 480))

    def test_an_early_timeout_of_who_says_nothing(self) -> None:
        self.route_to(to(BOB, timeout=4), to(CAROL, q=500))
        self.request()
        self.pump(4.5)
        self.assertEqual(len(self.sent("INVITE", CAROL)), 1)
        self.answer(200, BOB)
        self.assertEqual(self.upstream(), [100, 200])
