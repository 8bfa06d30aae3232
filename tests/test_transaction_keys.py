"""
Which transaction a message belongs to: requests, ACK, CANCEL, responses (RFC 3261 §9.2, §17.1.3, §17.2.3).
"""

from __future__ import annotations

from typing import Any

from sipdmq.records import Target
from sipdmq.sip.message import response_to
from tests.fakes import A, TransactionTestCase, answer, outgoing, pump, request, statuses

OLD_VIA = "SIP/2.0/UDP 198.51.100.7:5062"


class LayerTestCase(TransactionTestCase):
    def respond(self, status: int, to_tag: str = "t1") -> None:
        """
        The user answers the latest request.
        """
        transaction = self.user.transactions[-1]
        transaction.respond(response_to(transaction.request, status, to_tag))

    def send(self, method: str, *targets: Target, body: bytes = b"") -> Any:
        """
        The user sends a request.
        """
        return self.layer.send_request(outgoing(method, body), targets, self.client_user)

    def answer(self, status: int, at: int = -1) -> None:
        """
        A response to a message that was sent arrives.
        """
        self.receive(answer(self.transport.sent[at][0], status))


class ServerMatchingTests(LayerTestCase):
    """
    RFC 3261 §17.2.3: "1. the branch parameter in the request is equal to the one in the top Via header field of the
    request that created the transaction, and 2. the sent-by value in the top Via of the request is equal to the one in
    the request that created the transaction, and 3. the method of the request matches the one that created the
    transaction, except for ACK, where the method of the request that created the transaction is INVITE."
    """

    def assert_new(self, is_new: bool, **changes: Any) -> None:
        self.receive(request(**changes))
        self.assertEqual(len(self.user.transactions), 2 if is_new else 1, changes)

    def setUp(self) -> None:
        super().setUp()
        self.receive(request())

    def test_the_same_branch_sent_by_and_method(self) -> None:
        self.assert_new(False, call_id="other", from_="<sip:c@c.example>;tag=other")

    def test_another_branch(self) -> None:
        self.assert_new(True, via="SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK2")

    def test_another_sent_by(self) -> None:
        """
        "The sent-by value is used as part of the matching process because there could be accidental or malicious
        duplication of branch parameters from different clients."
        """
        self.assert_new(True, via="SIP/2.0/UDP 198.51.100.8:5062;branch=z9hG4bK1")

    def test_another_port_of_sent_by(self) -> None:
        self.assert_new(True, via="SIP/2.0/UDP 198.51.100.7:5063;branch=z9hG4bK1")

    def test_another_method(self) -> None:
        self.assert_new(True, method="INFO")


class OldPeerMatchingTests(LayerTestCase):
    """
    RFC 3261 §17.2.3: "If the branch parameter in the top Via header field is not present, or does not contain the
    magic cookie ... The INVITE request matches a transaction if the Request-URI, To tag, From tag, Call-ID, CSeq, and
    top Via header field match those of the INVITE request which created the transaction."
    """

    def old(self, method: str = "INVITE", **changes: Any) -> None:
        self.receive(request(method, **{"via": OLD_VIA, **changes}))

    def setUp(self) -> None:
        super().setUp()
        self.old()

    def test_the_same_is_a_retransmission(self) -> None:
        self.old()
        self.assertEqual(len(self.user.transactions), 1)

    def test_each_part_counts(self) -> None:
        different = (
            {"uri": "sip:other.example"},
            {"from_": "<sip:alice@example.org>;tag=f2"},
            {"call_id": "c2"},
            {"cseq": "2 INVITE"},
            {"via": f"{OLD_VIA};branch=7"},
        )
        for count, change in enumerate(different, 2):
            self.old(**change)
            self.assertEqual(len(self.user.transactions), count, change)

    def test_a_branch_without_cookie_is_no_name(self) -> None:
        self.old(via=f"{OLD_VIA};branch=1", call_id="one")
        self.old(via=f"{OLD_VIA};branch=1", call_id="two")
        self.assertEqual(len(self.user.transactions), 3)

    def test_its_ack(self) -> None:
        """
        "The ACK request matches a transaction if the Request-URI, From tag, Call-ID, CSeq number (not the method), and
        top Via header field match those of the INVITE request which created the transaction, and the To tag of the ACK
        matches the To tag of the response sent by the server transaction."
        """
        self.respond(486)
        self.old("ACK", to="<sip:bob@example.org>;tag=t1")
        pump(self.clock, 6)
        self.assertEqual(self.layer.snapshot()["transaction.servers"], 0)
        self.assertEqual(statuses(self.transport.sent), [486])

    def test_its_cancel(self) -> None:
        self.taken()
        self.old("CANCEL")
        self.assertEqual(self.taken(), [("send", 200, "udp:198.51.100.7:5062"), ("cancelled", "INVITE")])


class AckTests(LayerTestCase):
    """
    RFC 3261 §13.3.1.4, §17.1.1.3: the ACK for a 2xx is a request of its own, that for another response belongs to the
    INVITE.
    """

    def test_of_a_refused_invite_is_not_for_the_user(self) -> None:
        self.receive(request("INVITE"))
        self.respond(486)
        self.taken()
        self.receive(request("ACK"))
        self.assertEqual(self.taken(), [])

    def test_of_no_transaction_is_for_the_user(self) -> None:
        self.receive(request("ACK", via="SIP/2.0/UDP h;branch=z9hG4bKnew"))
        self.assertEqual(self.taken(), [("ack", "ACK")])
        self.assert_nothing_left()


class CancelTests(LayerTestCase):
    """
    RFC 3261 §9.2.
    """

    def cancel(self, **changes: Any) -> None:
        self.receive(request("CANCEL", **changes))

    def test_of_no_transaction(self) -> None:
        """
        "If the UAS did not find a matching transaction for the CANCEL according to the procedure above, it SHOULD
        respond to the CANCEL with a 481".
        """
        self.cancel()
        self.cancel()
        self.assertEqual(statuses(self.transport.sent), [481, 481])
        self.assertEqual(*(message.to.tag for message, _ in self.transport.sent))
        self.assertNotEqual(self.transport.last.to.tag, "")
        self.assert_nothing_left()

    def test_of_an_invite_without_final_response(self) -> None:
        self.receive(request("INVITE"))
        self.taken()
        self.cancel()
        self.assertEqual(self.taken(), [("send", 200, "udp:198.51.100.7:5062"), ("cancelled", "INVITE")])
        self.assertEqual(self.transport.last.cseq.method, "CANCEL")

    def test_again_is_answered_again_and_not_told_again(self) -> None:
        self.receive(request("INVITE"))
        self.taken()
        self.cancel()
        self.cancel()
        self.assertEqual(statuses(self.transport.sent), [200, 200])
        self.assertEqual(self.events.count(("cancelled", "INVITE")), 1)

    def test_after_a_final_response_has_no_effect(self) -> None:
        """
        "depends on whether it has already sent a final response for the original request. If it has, the CANCEL
        request has no effect on the processing of the original request".
        """
        for status in (200, 486):
            self.receive(request("INVITE", via=f"SIP/2.0/UDP h;branch=z9hG4bK{status}"))
            self.respond(status)
            self.taken()
            self.cancel(via=f"SIP/2.0/UDP h;branch=z9hG4bK{status}")
            self.assertEqual([event[:2] for event in self.taken()], [("send", 200)])

    def test_of_another_method_is_answered_200_and_has_no_effect(self) -> None:
        """
        "A CANCEL request has no impact on the processing of transactions with any other method". "Regardless of the
        method of the original request, as long as the CANCEL matched an existing transaction, the UAS answers the
        CANCEL request itself with a 200 (OK) response."
        """
        self.receive(request("REGISTER"))
        self.taken()
        self.cancel()
        self.assertEqual([event[:2] for event in self.taken()], [("send", 200)])

    def test_the_to_tag_is_that_of_the_invites_response(self) -> None:
        """
        "the To tag of the response to the CANCEL and the To tag in the response to the original request SHOULD be the
        same."
        """
        self.receive(request("INVITE"))
        self.respond(180, "mine")
        self.cancel()
        self.assertEqual(self.transport.last.to.tag, "mine")

    def test_a_tag_given_to_the_cancel_waits_for_the_invites_response(self) -> None:
        self.receive(request("INVITE"))
        self.cancel()
        tag = self.transport.last.to.tag
        self.assertNotEqual(tag, "")
        self.assertEqual(self.user.transactions[0].to_tag, tag)


class ClientMatchingTests(LayerTestCase):
    """
    RFC 3261 §17.1.3, RFC 6026 §7.3: a response belongs to the transaction with its branch and CSeq method; one that
    belongs to none is dropped.
    """

    def test_another_branch_or_method_is_a_stray(self) -> None:
        self.send("OPTIONS", A)
        via = self.transport.last.headers.get("via") or ""
        for stray in (request(via=via + "0"), request("INFO", via=via), request()):
            self.receive(answer(stray, 200))
        self.assertEqual(self.taken(), [("send", "OPTIONS", str(A))])
        self.answer(200)
        self.assertEqual(self.taken(), [("response", 200)])

    def test_an_answer_to_cancel_is_none_to_invite(self) -> None:
        sending = self.send("INVITE", A)
        self.answer(180)
        sending.cancel()
        self.taken()
        self.answer(200)
        self.assertEqual(self.taken(), [])
        self.answer(200, 0)
        self.assertEqual(self.taken(), [("response", 200)])
