"""
How soon a cluster is well again. The full size is C{python -m tests.cluster.figures}; here are fewer bindings, for the
same seconds of the simulated clock.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.cluster import figures

PHONES = 300


class FigureTests(SynchronousTestCase):
    def test_equal_while_messages_are_lost(self) -> None:
        for share, limit in figures.LIMITS.items():
            self.assertLessEqual(figures.loss(share, PHONES), limit, f"a loss of {share:.0%}")

    def test_equal_after_a_partition_with_changes_on_both_sides(self) -> None:
        took, messages = figures.partition(PHONES)
        self.assertLessEqual(took, figures.AFTER_PARTITION)
        self.assertLess(messages, 1, "messages for each change: they go in batches")

    def test_a_newcomer_whose_donor_is_killed_gets_everything_from_another(self) -> None:
        for point, took in zip((0.0, 0.5, 0.9), figures.sync_with_deaths(PHONES, (0.0, 0.5, 0.9), kill_donor=True)):
            self.assertLessEqual(took, figures.AFTER_DEATH, f"killed at {point:.0%}")

    def test_a_newcomer_that_is_killed_gets_everything_when_it_is_back(self) -> None:
        for point, took in zip((0.0, 0.5, 0.9), figures.sync_with_deaths(PHONES, (0.0, 0.5, 0.9), kill_donor=False)):
            self.assertLessEqual(took, figures.AFTER_DEATH, f"killed at {point:.0%}")

    def test_an_older_change_that_comes_late_never_wins(self) -> None:
        self.assertTrue(figures.late_messages(100))
