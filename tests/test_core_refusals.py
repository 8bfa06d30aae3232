"""
What is refused is counted, and seldom written of.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.core import refusals as module
from sipdmq.core.refusals import Refusals
from sipdmq.records import Protocol, Source
from tests.fakes import UDP

SOURCE = Source(Protocol.UDP, "192.0.2.9", 5060, UDP)


class RefusalsTests(SynchronousTestCase):
    def test_one_line_a_minute(self) -> None:
        lines: list[Any] = []
        self.patch(module.log, "observer", lambda event: lines.append((event["log_level"].name, formatEvent(event))))
        clock = Clock()
        refusals = Refusals(clock, "a record")
        for number in range(61):
            refusals.add(SOURCE, f"reason {number}")
            clock.advance(1)
        self.assertEqual(refusals.count, 61)
        self.assertEqual(
            lines,
            [
                ("warn", "a record from 192.0.2.9 was refused: reason 0; refused so far: 1"),
                ("warn", "a record from 192.0.2.9 was refused: reason 60; refused so far: 61"),
            ],
        )
