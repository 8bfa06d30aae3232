"""
What the proxy tells becomes records.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.calls.records import CallRecord
from sipdmq.calls.service import CallRecords
from sipdmq.config import CallsConfig
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.routing import ICallListener
from sipdmq.sip.message import Request, Response
from tests.fakes import PHONE, answer, request

NOON = 1_767_268_800.0


def invite(call_id: str = "c1") -> Request:
    contact = "Contact: <sip:alice@198.51.100.7:5062>"
    return request("INVITE", uri="sip:bob@example.org", call_id=call_id, headers=[contact])


def ok(to: Request, contact: str = "<sip:bob@198.51.100.8:5062>") -> Response:
    response = answer(to, 200, "t1")
    response.headers.add("Contact", contact)
    return response


def bye(is_from_callee: bool = False, call_id: str = "c1", to_tag: str = "t1") -> Request:
    alice, bob = "<sip:alice@example.org>;tag=f1", f"<sip:bob@example.org>;tag={to_tag}"
    from_, to = (bob, alice) if is_from_callee else (alice, bob)
    return request("BYE", from_=from_, to=to, call_id=call_id, cseq="2 BYE")


class CallRecordsTestCase(SynchronousTestCase):
    config = CallsConfig()

    def setUp(self) -> None:
        self.clock = Clock()
        self.path = Path(self.mktemp()).absolute()
        self.finished: list[CallRecord] = []
        self.calls = self.make(self.finished.append)

    def make(self, finished: Any) -> CallRecords:
        calls = CallRecords(self.clock, lambda: NOON + self.clock.seconds(), self.config, str(self.path), finished)
        self.addCleanup(calls.stop)
        return calls

    def lines(self) -> list[dict[str, Any]]:
        """
        The file, a second later.
        """
        self.clock.advance(1)
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def answered(self, call_id: str = "c1") -> Request:
        """
        A call that rings for two seconds and is answered.
        """
        first = invite(call_id)
        self.calls.request_relayed(first, "alice@example.org", PHONE)
        self.clock.advance(1)
        self.calls.call_ringing(first, answer(first, 180))
        self.clock.advance(2)
        self.calls.call_answered(first, ok(first))
        return first


class CallTests(CallRecordsTestCase):
    def test_interfaces(self) -> None:
        verifyObject(ICallListener, self.calls)
        verifyObject(IInspectable, self.calls)

    def test_a_call(self) -> None:
        self.answered()
        self.assertEqual(self.lines(), [])
        self.clock.advance(59)
        self.calls.bye_relayed(bye())
        self.assertEqual(
            self.lines(),
            [
                {
                    "start": "2026-01-01T12:00:00.000Z",
                    "ring": "2026-01-01T12:00:01.000Z",
                    "answer": "2026-01-01T12:00:03.000Z",
                    "end": "2026-01-01T12:01:03.000Z",
                    "duration": 60.0,
                    "status": 200,
                    "ended_by": "caller",
                    "user": "alice@example.org",
                    "from": "sip:alice@example.org",
                    "to": "sip:bob@example.org",
                    "dialled": "sip:bob@example.org",
                    "contact": "sip:bob@198.51.100.8:5062",
                    "call_id": "c1",
                    "from_tag": "f1",
                    "to_tag": "t1",
                    "source": "udp:198.51.100.7:5062",
                }
            ],
        )

    def test_the_callee_hangs_up(self) -> None:
        self.answered()
        self.calls.bye_relayed(bye(is_from_callee=True))
        self.assertEqual([line["ended_by"] for line in self.lines()], ["callee"])

    def test_repeated_and_strange_byes(self) -> None:
        self.answered()
        self.calls.bye_relayed(bye(to_tag="other"))
        self.calls.bye_relayed(bye(call_id="c2"))
        self.assertEqual(self.lines(), [])
        self.calls.bye_relayed(bye())
        self.calls.bye_relayed(bye())
        self.assertEqual(len(self.lines()), 1)

    def test_cancelled(self) -> None:
        first = invite()
        self.calls.request_relayed(first, "", PHONE)
        self.calls.call_ringing(first, answer(first, 180))
        self.calls.call_failed(first, 487)
        (line,) = self.lines()
        self.assertEqual((line["status"], line["ended_by"], line["user"], line["answer"]), (487, "caller", None, None))

    def test_an_answer_whose_contact_cannot_be_read(self) -> None:
        for number, contact in enumerate(("<sip:bob", "*", "")):
            first = invite(f"c{number}")
            self.calls.request_relayed(first, "", PHONE)
            self.calls.call_answered(first, ok(first, contact))
            self.calls.bye_relayed(bye(call_id=f"c{number}"))
        self.assertEqual([(line["status"], line["contact"]) for line in self.lines()], [(200, None)] * 3)

    def test_bytes_that_are_no_utf_8(self) -> None:
        first = invite()
        first.uri_text = "sip:caf\udce9@example.org"
        self.calls.request_relayed(first, "", PHONE)
        self.calls.call_failed(first, 486)
        self.assertEqual(self.lines()[0]["dialled"], "sip:caf\\xe9@example.org")

    def test_numbers(self) -> None:
        self.answered("c1")
        self.answered("c2")
        self.calls.bye_relayed(bye())
        self.assertEqual(
            self.calls.snapshot(),
            {"calls.open": 1, "calls.ended": 1, "calls.crowded_out": 0, "calls.records_lost": 0},
        )


class TimeTests(CallRecordsTestCase):
    """
    Calls whose BYE never passes.
    """

    config = CallsConfig(max_duration=600.0, max_open=10)

    def test_each_lasts_as_long_as_it_may(self) -> None:
        self.answered("c1")
        self.clock.advance(100)
        self.answered("c2")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(600 - 106 - 2)
        self.assertEqual(self.lines(), [])
        self.clock.advance(1)
        self.assertEqual([(line["call_id"], line["ended_by"], line["duration"]) for line in self.lines()],
                         [("c1", "timeout", 597.0)])  # fmt: skip
        self.clock.advance(102)
        self.assertEqual([line["call_id"] for line in self.lines()], ["c1", "c2"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_ended_in_time_leaves_nothing(self) -> None:
        self.answered("c1")
        self.calls.bye_relayed(bye())
        self.clock.advance(700)
        self.assertEqual((len(self.lines()), self.clock.getDelayedCalls()), (1, []))

    def test_too_many(self) -> None:
        for number in range(12):
            self.calls.request_relayed(invite(f"c{number}"), "", PHONE)
        self.assertEqual([(line["call_id"], line["ended_by"]) for line in self.lines()],
                         [("c0", "overflow"), ("c1", "overflow")])  # fmt: skip
        self.assertEqual(self.calls.snapshot()["calls.crowded_out"], 2)


class StopTests(CallRecordsTestCase):
    def test_calls_under_way_are_written(self) -> None:
        self.answered("c1")
        self.calls.request_relayed(invite("c2"), "", PHONE)
        self.calls.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(
            [(line["call_id"], line["ended_by"], line["status"]) for line in self.lines()],
            [("c1", "node", 200), ("c2", "node", 0)],
        )
        self.assertEqual(len(self.finished), 2)

    def test_reopen(self) -> None:
        self.calls.request_relayed(invite(), "", PHONE)
        self.calls.reopen()
        self.answered()
        self.calls.bye_relayed(bye())
        self.calls.reopen()
        self.assertEqual(len(self.path.read_text().splitlines()), 1)


class PolicyTests(CallRecordsTestCase):
    """
    C{call_finished}.
    """

    def test_it_gets_the_record(self) -> None:
        self.answered()
        self.calls.bye_relayed(bye())
        self.assertEqual([record.duration for record in self.finished], [0.0])

    def test_without_a_file(self) -> None:
        calls = CallRecords(self.clock, lambda: NOON, self.config, "", self.finished.append)
        first = invite()
        calls.request_relayed(first, "", PHONE)
        calls.call_failed(first, 486)
        calls.reopen()
        calls.stop()
        self.assertEqual(len(self.finished), 1)
        self.assertFalse(self.path.exists())

    def test_one_that_raises(self) -> None:
        def finished(record: CallRecord) -> None:
            raise ZeroDivisionError

        self.calls = self.make(finished)
        self.answered()
        self.calls.bye_relayed(bye())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.lines()), 1)

    def test_one_that_takes_its_time(self) -> None:
        waiting: Deferred[None] = Deferred()
        done = []

        async def finished(record: CallRecord) -> None:
            await waiting
            done.append(record.status)

        self.calls = self.make(finished)
        self.answered()
        self.calls.bye_relayed(bye())
        self.assertEqual((len(self.lines()), done), (1, []))
        waiting.callback(None)
        self.assertEqual(done, [200])

    def test_one_that_raises_later(self) -> None:
        async def finished(record: CallRecord) -> None:
            raise ZeroDivisionError

        self.calls = self.make(finished)
        self.answered()
        self.calls.bye_relayed(bye())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
