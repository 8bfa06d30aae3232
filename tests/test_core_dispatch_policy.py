"""
What a policy may do: decide at once or wait, be plain or async. How it may break is in C{test_core_dispatch_broken.py}.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from sipdmq.core.dispatch import POLICY_TIMEOUT
from sipdmq.errors import ParseError, RequestRefused
from tests.dispatching import PolicyTestCase
from tests.fakes import pump


class AtOnceTests(PolicyTestCase):
    """
    Most policies never wait.
    """

    def test_plain(self) -> None:
        self.policy.decide = lambda asked, node: self.save(asked)
        self.invite()
        self.assertEqual(self.statuses(), [200])
        self.assertEqual(self.complaints(), [])
        self.assert_over()

    def test_it_gets_what_the_node_can_do(self) -> None:
        given = []

        def decide(asked: Any, node: Any) -> None:
            given.append(node)
            self.save(asked)

        self.policy.decide = decide
        self.invite()
        self.assertEqual(given, [self.functions])

    def test_async(self) -> None:
        async def decide(asked: Any, node: Any) -> None:
            self.assertEqual(await succeed(3), 3)
            self.save(asked)

        self.policy.decide = decide
        self.invite()
        self.assertEqual(self.statuses(), [200])
        self.assertLess(max(call.getTime() for call in self.clock.getDelayedCalls()), POLICY_TIMEOUT)
        self.assert_over()

    def test_a_deferred_that_fired(self) -> None:
        def decide(asked: Any, node: Any) -> Deferred[None]:
            self.save(asked)
            return succeed(None)

        self.policy.decide = decide
        self.invite()
        self.assertEqual((self.statuses(), self.complaints()), ([200], []))

    def test_refusals_leave_statelessly(self) -> None:
        async def refuse(asked: Any, node: Any) -> None:
            raise RequestRefused(404)

        async def refuse_after_waiting_for_nothing(asked: Any, node: Any) -> None:
            await fail(RequestRefused(404))

        def plain(asked: Any, node: Any) -> None:
            raise RequestRefused(404)

        for decide in (refuse, refuse_after_waiting_for_nothing, plain, lambda asked, node: fail(RequestRefused(404))):
            self.policy.decide = decide
            self.invite()
            self.assertEqual(self.statuses(), [404])
            self.assert_nothing_left()
        self.assertEqual(self.complaints(), [])

    def test_a_field_that_cannot_be_read_is_the_client_s_fault(self) -> None:
        async def decide(asked: Any, node: Any) -> None:
            raise ParseError("Invalid X")

        self.policy.decide = decide
        self.invite()
        self.assertEqual(self.transport.last.reason, "Bad Request (Invalid X)")
        self.assertEqual(self.complaints(), [])


class WaitingTests(PolicyTestCase):
    """
    A policy that asks somebody else.
    """

    def setUp(self) -> None:
        super().setUp()
        self.waiting: list[Deferred[Any]] = []

        async def decide(asked: Any, node: Any) -> None:
            self.waiting.append(Deferred())
            what = await self.waiting[-1]
            if isinstance(what, Exception):
                raise what
            if what:
                self.save(asked)

        self.policy.decide = decide

    def test_it_goes_on_when_the_answer_is_there(self) -> None:
        self.invite()
        self.assertEqual((self.statuses(), self.dispatcher.snapshot()["policy.waiting"]), ([], 1))
        self.waiting[0].callback(True)
        self.assertEqual(self.statuses(), [200])
        self.assert_over()

    def test_several_times(self) -> None:
        steps = [Deferred() for _ in range(5)]
        seen = []

        async def decide(asked: Any, node: Any) -> None:
            for step in steps:
                seen.append(await step)
            self.save(asked)

        self.policy.decide = decide
        self.invite()
        for number, step in enumerate(steps):
            self.assertEqual(self.statuses(), [])
            step.callback(number)
        self.assertEqual((seen, self.statuses()), ([0, 1, 2, 3, 4], [200]))
        self.assert_over()

    def test_the_same_answer_twice(self) -> None:
        shared: Deferred[int] = Deferred()

        async def decide(asked: Any, node: Any) -> None:
            await shared
            await shared
            self.save(asked)

        self.policy.decide = decide
        self.invite()
        shared.callback(1)
        self.assertEqual(self.statuses(), [200])

    def test_what_it_waits_for_fails(self) -> None:
        async def decide(asked: Any, node: Any) -> None:
            self.waiting.append(Deferred())
            try:
                await self.waiting[-1]
            except KeyError:
                self.save(asked)

        self.policy.decide = decide
        self.invite()
        self.waiting[0].errback(KeyError())
        self.assertEqual((self.statuses(), self.complaints()), ([200], []))

    def test_plain_with_a_deferred(self) -> None:
        asked: list[Any] = []
        waiting: Deferred[None] = Deferred()
        waiting.addCallback(lambda _: self.save(asked[0]))

        def decide(given: Any, node: Any) -> Deferred[None]:
            asked.append(given)
            return waiting

        self.policy.decide = decide
        self.invite()
        waiting.callback(None)
        self.assertEqual((self.statuses(), self.complaints()), ([200], []))
        self.assert_over()

    def test_inline_callbacks(self) -> None:
        @inlineCallbacks
        def decide(asked: Any, node: Any) -> Generator[Deferred[Any], Any, None]:
            yield deferLater(IReactorTime(self.clock), 1, lambda: None)  # type: ignore[arg-type]
            self.save(asked)

        self.policy.decide = decide
        self.invite()
        pump(self.clock, 1.5)
        self.assertEqual((self.statuses(), self.complaints()), ([100, 200], []))

    def test_a_refusal_after_waiting(self) -> None:
        for number, (given, status) in enumerate(((RequestRefused(603), 603), (ParseError("Invalid X"), 400))):
            self.invite(number)
            self.waiting[-1].callback(given)
            self.assertEqual(self.statuses(), [status])
        self.receive(self.message(9, "MESSAGE"))
        self.waiting[-1].callback(RequestRefused(603))
        self.assertEqual(self.statuses(), [603])
        self.assertEqual(self.complaints(), [])
        self.assert_over()

    def test_an_invite_that_comes_again_is_not_asked_for_again(self) -> None:
        """
        RFC 3261 §17.2.1: the transaction has it, and says 100 after 200 ms.
        """
        self.invite()
        self.invite()
        pump(self.clock, 1)
        self.invite()
        self.assertEqual(len(self.policy.requests), 1)
        self.assertEqual(self.statuses(), [100, 100])
        self.waiting[0].callback(True)
        self.assertEqual(self.statuses(), [200])

    def test_cancelled_meanwhile(self) -> None:
        """
        RFC 3261 §9.2: "the UAS ... SHOULD immediately respond to the INVITE with a 487"; here as soon as the policy
        would have it refused. What it would have relayed is answered so by the proxy.
        """
        self.invite()
        self.receive(self.message(1, "CANCEL"))
        self.assertEqual(self.statuses(), [200])
        self.waiting[0].callback(RequestRefused(603))
        self.assertEqual(self.statuses(), [487])
        self.assert_over()

    def test_cancelled_and_timed_out(self) -> None:
        self.invite()
        self.receive(self.message(1, "CANCEL"))
        pump(self.clock, POLICY_TIMEOUT + 1)
        self.assertEqual(self.statuses()[-1], 487)
        self.assertEqual(len(self.complaints()), 1)
        self.assert_over()

    def test_the_connection_is_lost_meanwhile(self) -> None:
        self.invite()
        pump(self.clock, 1)
        self.layer.transport_failed(self.transport.sent[-1][1], "gone")
        self.waiting[0].callback(True)
        self.assertEqual(self.complaints(), [])
        self.assert_over()

    def test_a_request_that_nobody_waits_for_any_more(self) -> None:
        """
        Timer F of the client is over before the policy is done.
        """
        self.receive(self.message(1, "MESSAGE"))
        pump(self.clock, 40)
        self.statuses()
        self.waiting[0].callback(RequestRefused(603))
        self.assertEqual((self.statuses(), self.complaints()), ([], []))
        self.assert_over()

    def test_stopped_meanwhile(self) -> None:
        self.invite()
        self.invite(2)
        self.dispatcher.stop()
        self.layer.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.waiting[0].callback(True)
        self.assertEqual((self.statuses(), self.complaints()), ([], []))
