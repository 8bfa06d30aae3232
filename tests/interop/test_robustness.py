"""
The soak in small, for every run of the tests: a running node under bad messages. C{make soak} is the long form.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from tests.soak import Soak

#: In each of the two rounds, the one to warm up and the one that is judged.
MESSAGES = 2000

#: Seconds: 64 × T1 is 3.2 s here, what was registered lasts 3 s.
QUIET = 5.0

SETTINGS = {
    "timers": {"t1": "0.05"},
    # They are kept for 32 s whatever T1 is.
    "limits": {"tombstones": "0"},
}


class RobustnessTests(SynchronousTestCase):
    """
    C{SIPDMQ_SEED} repeats a run.
    """

    timeout = 120

    def test_bad_messages_leave_no_trace(self) -> None:
        """
        The node answers OPTIONS within 250 ms, has logged no traceback, its tables are empty, its memory as before.
        """
        seed = int(os.environ.get("SIPDMQ_SEED", "20240704"))
        result = Soak("127.0.31.5", seed, SETTINGS, QUIET).run(MESSAGES)
        problems = result.problems()
        if problems:
            self.fail("\n".join((f"SIPDMQ_SEED={seed}", *problems)))
        self.assertTrue({"200", "400", "404", "405", "481", "505"} <= set(result.answers), result.answers)
