"""
Lines in the log that are written seldom.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.core.complaints import COMPLAINT_INTERVAL, Complaints


class ComplaintsTests(SynchronousTestCase):
    def test_one_in_each_interval(self) -> None:
        clock = Clock()
        complaints = Complaints(clock.seconds)
        self.assertEqual([complaints.is_due(), complaints.is_due()], [True, False])
        clock.advance(COMPLAINT_INTERVAL - 1)
        self.assertFalse(complaints.is_due())
        clock.advance(1)
        self.assertEqual([complaints.is_due(), complaints.is_due()], [True, False])

    def test_what_fails_anew_is_written_of_at_once(self) -> None:
        complaints = Complaints(Clock().seconds)
        complaints.is_due()
        complaints.reset()
        self.assertTrue(complaints.is_due())
