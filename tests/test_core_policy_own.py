"""
An operator's policy in the running node: one that asks somebody else first, and one that sends calls to elsewhere.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from sipdmq.core import refuse
from sipdmq.core.dispatch import POLICY_TIMEOUT
from sipdmq.core.policy import DefaultPolicy
from sipdmq.interfaces.routing import IRoutingPolicy
from sipdmq.sip.parser import parse_message
from tests.policy_network import ALICE, BOB, CAROL, PolicyTestCase, Sent

GATEWAY = ("203.0.113.50", 5080)


class AskingPolicy(DefaultPolicy):
    """
    Asks about each INVITE and MESSAGE before anything else, and some afterwards.

    @ivar asked: what it waits for.
    """

    def __init__(self) -> None:
        self.asked: list[Deferred[None]] = []
        self.asks_afterwards = False

    async def route(self, request: Any, node: Any) -> None:
        if request.method in ("INVITE", "MESSAGE") and not self.asks_afterwards:
            self.asked.append(Deferred())
            await self.asked[-1]
        await super().route(request, node)
        if request.method == "INVITE" and self.asks_afterwards:
            await Deferred()


class AskingTests(PolicyTestCase):
    def setUp(self) -> None:
        self.policy = AskingPolicy()
        super().setUp()
        self.register("bob", BOB)
        self.data = self.build("INVITE", "sip:bob@example.org", CAROL, from_="<sip:carol@elsewhere.example>;tag=f1")

    def cancel(self) -> Sent:
        return self.receive(self.data.replace(b"INVITE sip", b"CANCEL sip").replace(b"1 INVITE", b"1 CANCEL"), CAROL)

    def sent_when_it_goes_on(self) -> Sent:
        self.memory.take_sent()
        self.policy.asked[0].callback(None)
        return [(parse_message(data), address) for data, address in self.memory.take_sent()]

    def test_it_is_relayed_when_the_answer_is_there(self) -> None:
        self.assertEqual(self.receive(self.data, CAROL), [])
        self.assertEqual(self.answers(self.pump(1), CAROL), [100])
        sent = self.sent_when_it_goes_on()
        self.assert_relayed(sent, BOB)
        self.assertEqual(self.answers(self.reply(sent, 200), CAROL), [200])
        self.assertEqual(self.number("policy.waiting"), 0)

    def test_a_retransmission_meanwhile_is_no_second_call(self) -> None:
        self.receive(self.data, CAROL)
        self.receive(self.data, CAROL)
        self.assertEqual(len(self.policy.asked), 1)
        self.assert_relayed(self.sent_when_it_goes_on(), BOB)
        self.assertEqual(self.relayed(self.receive(self.data, CAROL)), [])

    def test_cancelled_meanwhile(self) -> None:
        """
        Nobody's phone rings any more.
        """
        self.receive(self.data, CAROL)
        self.assertEqual(self.answers(self.cancel(), CAROL), [200])
        sent = self.sent_when_it_goes_on()
        self.assertEqual((self.relayed(sent), self.answers(sent, CAROL)), ([], [487]))
        self.assertEqual(self.number("proxy.relayed"), 0)

    def test_a_refusal_of_who_has_shown_no_password_is_not_repeated(self) -> None:
        """
        No timer sends anything to an address that may be somebody else's.
        """
        from_ = "<sip:carol@elsewhere.example>;tag=f1"
        for method in ("INVITE", "MESSAGE"):
            self.policy.asked.clear()
            self.receive(self.build(method, "sip:alice@example.org", CAROL, from_=from_, call_id=method), CAROL)
            sent = self.sent_when_it_goes_on()
            self.assertEqual((self.answers(sent, CAROL), self.pump(40)), ([480], []), method)

    def test_it_waits_for_too_long(self) -> None:
        self.receive(self.data, CAROL)
        sent = self.pump(POLICY_TIMEOUT + 1)
        self.assertEqual(self.answers(sent, CAROL)[:2], [100, 500])
        self.assertEqual(len(self.flushLoggedErrors(TimeoutError)), 1)
        self.assertEqual(self.relayed(self.sent_when_it_goes_on()), [])

    def test_it_waits_for_too_long_after_relaying(self) -> None:
        """
        The call goes on as if nothing was.
        """
        self.policy.asks_afterwards = True
        invite = self.receive(self.data, CAROL)
        self.assert_relayed(invite, BOB)
        self.reply(invite, 180)
        self.assertEqual(self.answers(self.pump(POLICY_TIMEOUT + 1), CAROL), [])
        self.assertEqual(len(self.flushLoggedErrors(TimeoutError)), 1)
        self.assertEqual(self.answers(self.reply(invite, 200), CAROL), [200])

    def test_stopping_the_node_meanwhile_leaves_no_timer(self) -> None:
        self.receive(self.data, CAROL)
        self.successResultOf(self.memory.service.stopService())
        self.assertEqual(self.memory.reactor.getDelayedCalls(), [])


@implementer(IRoutingPolicy)
class NumberPolicy:
    """
    Calls to 9... go to a gateway's address, the rest is refused. Plain.
    """

    def route(self, request: Any, node: Any) -> None:
        user = getattr(request.uri, "user", "")
        if request.method == "REGISTER":
            node.save(request)
        elif user.startswith("9"):
            node.relay(request, f"sip:{user[1:]}@{GATEWAY[0]}:{GATEWAY[1]}")
        else:
            raise refuse.forbidden("No Such Number")


class NumberTests(PolicyTestCase):
    is_guarded = False

    def setUp(self) -> None:
        self.policy = NumberPolicy()
        super().setUp()

    def test_calls(self) -> None:
        sent = self.ask("INVITE", "sip:9555@example.org")
        self.assertEqual(self.relayed(sent), [("INVITE", f"sip:555@{GATEWAY[0]}:{GATEWAY[1]}", GATEWAY)])
        self.assert_refused(self.ask("INVITE", "sip:1@example.org", call_id="c2"), 403, reason="No Such Number")
        self.register("alice", ALICE)

    def test_what_is_never_relayed_is_not_relayed_by_it_either(self) -> None:
        self.assert_refused(self.ask("KDMQ", "sip:9555@example.org"), 403)
        self.policy.route = lambda request, node: node.relay(request, f"sip:x@{GATEWAY[0]}")
        self.assert_refused(self.ask("REGISTER", "sip:example.org", to="<sip:alice@example.org>"), 403)
