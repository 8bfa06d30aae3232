"""
One request over all its targets: failover (RFC 3263 §4.3), and TCP for what is long (RFC 3261 §18.1.1).
"""

from __future__ import annotations

from sipdmq.records import Protocol, Target
from sipdmq.sip.writer import format_message
from tests.fakes import A_TCP, A, B, pump
from tests.test_transaction_keys import LayerTestCase

B_TCP = B._replace(protocol=Protocol.TCP)


class TargetsTestCase(LayerTestCase):
    def ways(self) -> list[str]:
        """
        The targets of what was sent, in order, repetitions left out.
        """
        return list(dict.fromkeys(str(target) for _, target in self.transport.sent))


class FailoverTests(TargetsTestCase):
    """
    RFC 3263 §4.3: "failure occurs if the transaction layer reports a 503 error response or a transport failure of some
    sort ... Failure also occurs if the transaction layer times out without ever having received any response,
    provisional or final ... If a failure occurs, the client SHOULD create a new request, which is identical to the
    previous, but has a different value of the Via branch ID than the previous".
    """

    def test_on_timeout(self) -> None:
        for method in ("OPTIONS", "INVITE"):
            self.transport.sent.clear()
            self.send(method, A, B)
            pump(self.clock, 33)
            self.assertEqual(self.ways(), [str(A), str(B)])
            self.answer(200)
            self.assertEqual(self.taken()[-1], ("response", 200))

    def test_on_transport_error(self) -> None:
        self.send("INVITE", A, B)
        self.layer.transport_failed(A, "no route")
        self.answer(200)
        self.assertEqual(
            self.taken(), [("send", "INVITE", str(A)), ("send", "INVITE", str(B)), ("response", 200)]
        )
        branches = {message.top_via.branch for message, _ in self.transport.sent}
        self.assertEqual(len(branches), 2)

    def test_on_503(self) -> None:
        self.send("INVITE", A, B)
        self.answer(503)
        self.assertEqual(
            self.taken(), [("send", "INVITE", str(A)), ("send", "ACK", str(A)), ("send", "INVITE", str(B))]
        )

    def test_on_503_after_100(self) -> None:
        self.send("INVITE", A, B)
        self.answer(100)
        self.answer(503)
        self.assertEqual(self.ways(), [str(A), str(B)])

    def test_on_a_timeout_after_a_target_that_gave_100_and_503(self) -> None:
        self.send("OPTIONS", A, B, A_TCP)
        self.answer(100)
        self.answer(503)
        pump(self.clock, 33)
        self.assertEqual(self.ways(), [str(A), str(B), str(A_TCP)])

    def test_not_on_a_timeout_after_a_provisional_response(self) -> None:
        self.send("OPTIONS", A, B)
        self.answer(100)
        pump(self.clock, 33)
        self.assertEqual(self.ways(), [str(A)])
        self.assertEqual(self.taken()[-1], ("timed out",))

    def test_not_on_another_final_response(self) -> None:
        self.send("OPTIONS", A, B)
        self.answer(500)
        self.assertEqual(self.taken(), [("send", "OPTIONS", str(A)), ("response", 500)])

    def test_503_of_the_last_is_told(self) -> None:
        self.send("OPTIONS", A, B)
        self.answer(503)
        self.answer(503)
        self.assertEqual(self.taken()[-1], ("response", 503))

    def test_the_end_of_all_is_the_end_of_the_last(self) -> None:
        self.send("OPTIONS", A, B)
        pump(self.clock, 33)
        self.layer.transport_failed(B, "no route")
        self.assertEqual(self.taken()[-1], ("unreachable", "no route"))
        self.send("OPTIONS", A, B)
        self.layer.transport_failed(A, "no route")
        pump(self.clock, 33)
        self.assertEqual(self.taken()[-1], ("timed out",))
        self.assert_nothing_left()

    def test_a_target_for_which_we_have_no_listener_is_passed_over(self) -> None:
        self.transport.missing = {Protocol.TCP}
        self.send("OPTIONS", A_TCP, B)
        self.assertEqual(self.ways(), [str(B)])

    def test_a_503_whose_ack_cannot_be_sent_counts_once(self) -> None:
        self.send("INVITE", A, B, A_TCP)
        self.answer(503)
        self.layer.transport_failed(A, "no route")
        self.assertEqual(self.ways(), [str(A), str(B)])

    def test_a_late_answer_of_the_first_is_a_stray(self) -> None:
        self.send("INVITE", A, B)
        pump(self.clock, 33)
        self.taken()
        self.answer(200, 0)
        self.assertEqual(self.taken(), [])


class LongRequestTests(TargetsTestCase):
    """
    RFC 3261 §18.1.1: "If a request is within 200 bytes of the path MTU, or if it is larger than 1300 bytes and the
    path MTU is unknown, the request MUST be sent using an RFC 2914 congestion controlled transport protocol, such as
    TCP. If this causes a change in the transport protocol from the one indicated in the top Via, the value in the top
    Via MUST be changed. ... if the attempt to establish the connection generates either an ICMP Protocol Not Supported,
    or results in a TCP reset, the element SHOULD retry the request, using UDP."
    """

    def send_of_size(self, size: int, *targets: Target) -> None:
        self.send("OPTIONS", Target(Protocol.UDP, "192.0.2.99", 5060))
        empty = len(format_message(self.transport.last))
        self.answer(200)
        self.send("OPTIONS", *targets, body=bytes(size - empty - len(str(size - empty)) + 1))
        del self.transport.sent[0]
        self.taken()

    def test_1300_bytes_go_by_udp(self) -> None:
        self.send_of_size(1300, A)
        self.assertEqual(len(format_message(self.transport.last)), 1300)
        self.assertEqual(self.ways(), [str(A)])

    def test_1301_bytes_go_by_tcp(self) -> None:
        self.send_of_size(1301, A)
        self.assertEqual(self.ways(), [str(A_TCP)])
        self.assertEqual(self.transport.last.top_via.transport, "TCP")

    def test_by_udp_when_tcp_cannot_be_had(self) -> None:
        self.send_of_size(3000, A, B)
        self.layer.transport_failed(A_TCP, "connection refused")
        self.assertEqual(self.ways(), [str(A_TCP), str(A)])
        self.assertEqual(self.transport.last.top_via.transport, "UDP")

    def test_by_udp_when_we_have_no_tcp(self) -> None:
        self.transport.missing = {Protocol.TCP}
        self.send_of_size(3000, A)
        self.assertEqual(self.ways(), [str(A)])

    def test_not_by_udp_after_a_timeout(self) -> None:
        self.send_of_size(3000, A, B)
        pump(self.clock, 33)
        self.assertEqual(self.ways(), [str(A_TCP), str(B_TCP)])

    def test_not_by_udp_after_503_which_is_told(self) -> None:
        self.send_of_size(3000, A)
        self.answer(503)
        self.assertEqual(self.taken(), [("response", 503)])

    def test_a_fixed_target_stays_what_it_is(self) -> None:
        self.send_of_size(3000, A._replace(fixed=True))
        self.assertEqual(self.ways(), [str(A)])
