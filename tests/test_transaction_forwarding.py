"""
What a proxy asks of client and server transactions besides: a copy prepared for each target, branches that tell a loop,
and that little is left of what was answered.
"""

from __future__ import annotations

import gc
from typing import Any

from sipdmq.records import Protocol, Target
from sipdmq.sip.message import Request, response_to
from tests.fakes import A_TCP, PHONE, A, B, TransactionTestCase, answer, outgoing, pump, request
from tests.test_transaction_keys import LayerTestCase


class PrepareTests(LayerTestCase):
    """
    RFC 3261 §16.6 step 4: what Record-Route says depends on where the request goes.
    """

    def prepare(self, copy: Request, target: Target, sent_by: str) -> None:
        self.events.append(("prepare", str(target), sent_by))
        copy.headers.prepend("Record-Route", f"<sip:{sent_by[4:]};lr>")

    def send_prepared(self, *targets: Target, body: bytes = b"") -> Any:
        return self.layer.send_request(outgoing("INVITE", body), targets, self.client_user, self.prepare, ".abc")

    def test_each_target_has_its_own_copy(self) -> None:
        self.send_prepared(A, A_TCP)
        self.layer.transport_failed(A, "no route")
        self.assertEqual(
            self.taken(),
            [
                ("prepare", str(A), "UDP 192.0.2.1:5060"),
                ("send", "INVITE", str(A)),
                ("prepare", str(A_TCP), "TCP 192.0.2.1:5060"),
                ("send", "INVITE", str(A_TCP)),
            ],
        )
        for message, _ in self.transport.sent:
            self.assertEqual(message.headers.get_all("record-route"), ["<sip:192.0.2.1:5060;lr>"])
            self.assertTrue(message.top_via.branch.endswith(".abc"))
        self.assertEqual(len({message.top_via.branch for message, _ in self.transport.sent}), 2)

    def test_what_is_prepared_counts_for_the_length(self) -> None:
        """
        RFC 3261 §18.1.1.
        """
        self.send_prepared(A, body=bytes(1300))
        prepared = [event[1] for event in self.taken() if event[0] == "prepare"]
        self.assertEqual(prepared, [str(A), str(A_TCP)])

    def test_not_for_a_target_without_listener(self) -> None:
        self.transport.missing = {Protocol.TCP}
        self.send_prepared(A_TCP, B)
        self.assertEqual([event[:2] for event in self.taken()], [("prepare", str(B)), ("send", "INVITE")])


class LittleIsLeftTests(TransactionTestCase):
    def test_of_an_answered_client_transaction(self) -> None:
        for method, status in (("INVITE", 200), ("MESSAGE", 404)):
            sending = self.layer.send_request(outgoing(method), (A, B), self.client_user)
            self.receive(answer(self.transport.last, status))
            self.assertEqual(len(sending.request.headers), 0)
            self.assertEqual(sending.request.method, method)

    def test_an_invite_that_was_refused_is_acknowledged_again(self) -> None:
        self.layer.send_request(outgoing("INVITE"), (A,), self.client_user)
        busy = answer(self.transport.last, 486)
        self.receive(busy)
        self.receive(busy)
        self.assertEqual([event[1] for event in self.taken()], ["INVITE", "ACK", 486, "ACK"])

    def test_of_an_answered_server_transaction(self) -> None:
        for number, status in enumerate((200, 486)):
            invite = request("INVITE", via=f"SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK{number}a")
            self.receive(invite)
            transaction = self.user.transactions[-1]
            transaction.respond(response_to(invite, status, "t1"))
            transaction.forget_request()
            self.assertEqual((transaction.request.method, len(transaction.request.headers)), ("INVITE", 0))
            self.taken()
            self.receive(invite)
            self.assertEqual(self.taken(), [] if status == 200 else [("send", 486, "udp:198.51.100.7:5062")])
            if status == 200:
                transaction.respond(response_to(invite, 200, "t2"))
                self.assertEqual(self.taken(), [("send", 200, f"udp:{PHONE.host}:{PHONE.port}")])

    def transactions(self) -> list[object]:
        """
        All that there are in the process, those of other tests, too.
        """
        names = ("ClientTransaction", "ServerTransaction", "TargetedRequest")
        return [each for each in gc.get_objects() if type(each).__name__ in names]

    def test_no_circles(self) -> None:
        """
        What is over is freed at once, without the garbage collector.
        """
        gc.collect()
        before = self.transactions()
        gc.disable()
        try:
            for status in (200, 486, 0):
                self.layer.send_request(outgoing("INVITE"), (A,), self.client_user)
                if status:
                    self.receive(answer(self.transport.last, status))
                self.receive(request("INVITE", via=f"SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bK{status}a"))
                transaction = self.user.transactions.pop()
                transaction.respond(response_to(transaction.request, status or 500, "t1"))
                del transaction
            pump(self.clock, 80)
            self.transport.sent.clear()
            left = [each for each in self.transactions() if not any(each is other for other in before)]
            self.assertEqual(left, [])
        finally:
            gc.enable()
        self.assert_nothing_left()
