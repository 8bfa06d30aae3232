"""
C{python -m tests.cluster SEED}: the schedule of a seed, and what came of it. C{python -m tests.cluster 0-999}: of many.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

from tests.cluster.messages import summary
from tests.cluster.schedule import Schedule


def main() -> int:
    """
    @return: the exit status: 1 when something is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("seeds", help="one, or a range: 0-999")
    parser.add_argument("-m", "--messages", action="store_true", help="show every datagram, too")
    parser.add_argument("-k", "--kamailio", action="store_true", help="the last node is a model of Kamailio 5.6.3")
    parser.add_argument("-w", "--wide", action="store_true", help="more kinds of faults")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="processes for a range of seeds")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    if last:
        return _many(int(first), int(last), options.kamailio, options.wide, options.jobs)
    schedule = Schedule(int(first), options.kamailio, options.wide)
    names = {machine.address: machine.address for machine in schedule.machines}
    if options.messages:
        schedule.network.watch = lambda sent: schedule.tell(
            f"    {sent.sender[0]} → {sent.receiver[0]}  {summary(sent.data, names)}  {sent.fate}"
        )
    problems = schedule.run()
    print("\n".join(schedule.story))
    print("\n".join(problems) or "all is well")
    return 1 if problems else 0


def _problems(seed: int, has_kamailio: bool, is_wide: bool) -> list[str]:
    return Schedule(seed, has_kamailio, is_wide).run()


def _many(first: int, last: int, has_kamailio: bool, is_wide: bool, processes: int) -> int:
    failed = 0
    seeds = range(first, last + 1)
    with ProcessPoolExecutor(processes) as pool:
        found = pool.map(_problems, seeds, repeat(has_kamailio), repeat(is_wide), chunksize=20)
        for seed, problems in zip(seeds, found):
            if problems:
                failed += 1
                print(f"seed {seed}: {len(problems)} problems, the first: {problems[0]}", flush=True)
    print(f"{failed} of {len(seeds)} seeds fail{', with a Kamailio' if has_kamailio else ''}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
