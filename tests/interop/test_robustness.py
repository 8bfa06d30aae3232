"""
The soak in small, for every run of the tests: running nodes under bad messages. C{make soak} is the long form.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from twisted.trial.unittest import SynchronousTestCase

from tests.soak import Soak, SoakResult

#: Single ones, and as many in calls; in each of the two rounds, the one to warm up and the one that is judged.
MESSAGES = 1500

#: Seconds between the rounds.
WARM_UP = 5.0

#: What must have been among the answers, or the phones have not met.
ANSWERS = {"100", "180", "183", "200", "302", "400", "480", "481", "486", "487", "500", "503", "505", "603"}


class RobustnessTests(SynchronousTestCase):
    """
    C{SIPDMQ_SEED} repeats a run.
    """

    timeout = 180

    def test_bad_messages_leave_no_trace(self) -> None:
        """
        The node answers OPTIONS within 250 ms, has logged no traceback, its tables are empty, its memory as before:
        one that asks for passwords and one that does not, beside each other, as most of the time is waiting.
        """
        seed = int(os.environ.get("SIPDMQ_SEED", "20240704"))
        soaks = [Soak("127.0.31.5", seed, False, WARM_UP, 1), Soak("127.0.31.6", seed, True, WARM_UP, 1)]
        with ThreadPoolExecutor() as pool:
            plain, guarded = pool.map(lambda soak: soak.run(MESSAGES), soaks)
        for result, more in ((plain, set()), (guarded, {"401", "407"})):
            self._judge(result, f"SIPDMQ_SEED={seed}\n{result}", ANSWERS | more)
        self.assertGreater(guarded.numbers["auth.accepted"], 0)

    def _judge(self, result: SoakResult, told: str, answers: set[str]) -> None:
        problems = result.problems()
        if problems:
            self.fail("\n".join((told, *problems)))
        self.assertTrue(answers <= set(result.answers), f"{told}\nmissing: {answers - set(result.answers)}")
