"""
Policies that break in every way there is: the one request is answered with 500, the log says so now and then.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from sipdmq.core.complaints import COMPLAINT_INTERVAL
from sipdmq.core.dispatch import POLICY_TIMEOUT
from sipdmq.errors import RequestRefused
from tests.dispatching import PolicyTestCase
from tests.fakes import pump


class Later:
    """
    An awaitable that is no Deferred.
    """

    def __await__(self) -> Generator[object, None, None]:
        yield self


class BrokenTests(PolicyTestCase):
    def assert_500(self, decide: Any, complaint: str, number: int = 1) -> None:
        self.policy.decide = decide
        self.clock.advance(COMPLAINT_INTERVAL)
        self.invite(number)
        self.assertEqual(self.statuses(), [500])
        (said,) = self.complaints()
        self.assertIn(complaint, said)
        self.assert_over()

    def test_it_raises(self) -> None:
        async def breaks(asked: Any, node: Any) -> None:
            raise KeyError("its own")

        async def breaks_later(asked: Any, node: Any) -> None:
            await fail(KeyError("its own"))

        def breaks_at_once(asked: Any, node: Any) -> None:
            raise KeyError("its own")

        for number, decide in enumerate((breaks, breaks_later, breaks_at_once, lambda *_: fail(KeyError("its own")))):
            self.assert_500(decide, "its own", number)
        self.assertEqual(self.dispatcher.snapshot()["policy.broken"], 4)

    def test_it_decides_nothing(self) -> None:
        async def nothing(asked: Any, node: Any) -> None:
            pass

        for number, decide in enumerate((nothing, lambda *_: None, lambda *_: True, lambda *_: succeed(None))):
            self.assert_500(decide, "neither saved, relayed nor refused", number)

    def test_it_awaits_what_is_no_deferred(self) -> None:
        async def decide(asked: Any, node: Any) -> None:
            await Later()

        self.assert_500(decide, "Deferreds only")

    def test_it_breaks_after_waiting(self) -> None:
        waiting: Deferred[None] = Deferred()

        async def decide(asked: Any, node: Any) -> None:
            await waiting
            raise KeyError("its own")

        self.policy.decide = decide
        self.invite()
        waiting.callback(None)
        self.assertEqual((self.statuses(), self.complaints()), ([500], ["'its own'"]))
        self.assert_over()

    def test_what_it_waits_for_fails(self) -> None:
        waiting: Deferred[None] = Deferred()

        async def decide(asked: Any, node: Any) -> None:
            await waiting

        self.policy.decide = decide
        self.invite()
        waiting.errback(KeyError("the database's"))
        self.assertEqual((self.statuses(), self.complaints()), ([500], ['"the database\'s"']))
        self.assert_over()

    def test_it_refuses_what_it_has_decided(self) -> None:
        """
        What was relayed is answered by whom it was relayed to.
        """

        def relays_and_refuses(asked: Any, node: Any) -> None:
            asked.is_decided = True
            raise RequestRefused(603)

        async def the_same(asked: Any, node: Any) -> None:
            relays_and_refuses(asked, node)

        for number, decide in enumerate((relays_and_refuses, the_same)):
            self.policy.decide = decide
            self.clock.advance(COMPLAINT_INTERVAL)
            self.statuses()
            self.receive(self.message(number, "MESSAGE"))
            self.assertEqual(self.statuses(), [])
            self.assertEqual(len(self.flushLoggedErrors(RequestRefused)), 1)


class TimeoutTests(PolicyTestCase):
    """
    A policy may wait for L{POLICY_TIMEOUT}.
    """

    def test_it_takes_too_long(self) -> None:
        waiting: Deferred[None] = Deferred()
        ended = []

        async def decide(asked: Any, node: Any) -> None:
            try:
                await waiting
            finally:
                ended.append(asked)
            self.save(asked)

        self.policy.decide = decide
        self.invite()
        pump(self.clock, POLICY_TIMEOUT - 1)
        self.assertEqual(self.statuses(), [100])
        pump(self.clock, 2)
        self.assertEqual((self.statuses()[0], len(ended)), (500, 1))
        self.assertIn("waited for more than 60 s", self.complaints()[0])
        waiting.callback(None)  # too late
        self.assert_over()
        self.assertEqual(self.complaints(), [])

    def test_what_it_waits_for_fails_too_late(self) -> None:
        waiting: Deferred[None] = Deferred()

        async def decide(asked: Any, node: Any) -> None:
            await waiting

        self.policy.decide = decide
        self.invite()
        pump(self.clock, POLICY_TIMEOUT + 1)
        self.complaints()
        waiting.errback(KeyError())
        self.assertEqual(self.complaints(), [])

    def test_it_takes_too_long_for_something_else(self) -> None:
        """
        After it has decided: nothing is answered twice.
        """

        async def decide(asked: Any, node: Any) -> None:
            self.save(asked)
            await Deferred()

        self.policy.decide = decide
        self.invite()
        pump(self.clock, POLICY_TIMEOUT + 1)
        self.assertEqual((self.statuses(), len(self.complaints())), ([200], 1))
        self.assert_over()

    def test_it_does_not_let_itself_be_ended(self) -> None:
        async def decide(asked: Any, node: Any) -> None:
            try:
                await Deferred()
            except GeneratorExit:
                await Deferred()

        self.policy.decide = decide
        self.invite()
        pump(self.clock, POLICY_TIMEOUT + 1)
        self.assertEqual((self.statuses()[:2], len(self.complaints())), ([100, 500], 1))
        self.assert_over()

    def test_what_goes_on_all_the_same_comes_too_late(self) -> None:
        """
        A plain policy's callbacks cannot be ended.
        """
        asked: list[Any] = []
        waiting: Deferred[None] = Deferred()

        def decide(given: Any, node: Any) -> Deferred[None]:
            asked.append(given)
            return waiting

        self.policy.decide = decide
        self.invite()
        pump(self.clock, POLICY_TIMEOUT + 1)
        self.assertTrue(asked[0].is_decided)
        self.assertEqual(len(self.complaints()), 1)


class LogTests(PolicyTestCase):
    def test_it_is_not_flooded(self) -> None:
        self.policy.decide = lambda *_: None
        self.clock.advance(COMPLAINT_INTERVAL)
        for number in range(100):
            self.invite(number)
        self.assertEqual((set(self.statuses()), len(self.complaints())), ({500}, 1))
        self.clock.advance(COMPLAINT_INTERVAL)
        self.invite(100)
        self.assertEqual(len(self.complaints()), 1)
        self.assertEqual(self.dispatcher.snapshot()["policy.broken"], 101)
