"""
After any schedule of faults and a heal: all nodes are equal, nothing that was confirmed is lost, nothing that was
removed is back, and they fall silent. What exactly is judged stands in L{tests.cluster.judge}.

C{make soak} runs ten thousand more.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.cluster.schedule import Schedule


class ScheduleTests(SynchronousTestCase):
    def all_is_well(self, seeds: range, has_kamailio: bool = False) -> None:
        for seed in seeds:
            problems = Schedule(seed, has_kamailio).run()
            option = " -k" if has_kamailio else ""
            self.assertEqual(problems, [], f"to see it: python -m tests.cluster {seed}{option} -m")

    def test_sipdmq_alone(self) -> None:
        self.all_is_well(range(60))

    def test_sipdmq_alone_once_more(self) -> None:
        self.all_is_well(range(60, 120))

    def test_what_has_failed_among_ourselves(self) -> None:
        for seed in (453, 776, 876, 8984):
            self.all_is_well(range(seed, seed + 1))

    def test_with_a_kamailio(self) -> None:
        self.all_is_well(range(60), has_kamailio=True)

    def test_what_has_failed_before(self) -> None:
        """
        397, 408, 1030: a node told its last changes to the Kamailio alone. 757, 834: the heir came when the Kamailio
        was lost already. 275, 492: what a Kamailio removes while nobody hears it. 1170, 1952: a Kamailio is back, and
        then lost or asked about once more. 1848: it was started together with one of ours, apart from the others. 673,
        2987: who repaired it had not heard of the latest. 524: it took a node for gone that was just being told
        everything. 2541: one node did not hear that it was started anew. 1343: it stood still, and took a copy of the
        old last. 1464: it took a node for gone and back between two pings. 2514: it removed what one node had not heard
        of. 3247: it sent a change back by another name. 3257, 3755: what it had told a node came after that was started
        anew. 3706: who had told something came back new, and late. 4788: a donor was never there again. 5921: it told a
        node late what that had just given a newcomer without it.
        """
        for seed in (
            *(275, 397, 408, 492, 524, 673, 757, 834, 1030, 1170, 1343, 1464, 1848, 1952, 2514, 2541, 2987, 3247, 3257),
            *(3706, 3755, 4788, 5921),
        ):
            self.all_is_well(range(seed, seed + 1), has_kamailio=True)

    def test_a_seed_gives_the_same_story_each_time(self) -> None:
        stories = []
        for _ in range(2):
            schedule = Schedule(7)
            schedule.run()
            stories.append((schedule.story, schedule.network.sent))
        self.assertEqual(*stories)
