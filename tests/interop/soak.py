"""
The long forms of L{tests.interop.test_disasters}: C{python -m tests.interop.soak [--seed N]}; C{make soak} calls it.
Prints its seed, what it measured, and what is wrong. Exit status 1 when something is.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from unittest import SkipTest

from tests.interop import disasters
from tests.interop.apart import ClusterApart
from tests.interop.forwarder import Faults
from tests.interop.namespaces import require_namespaces
from tests.interop.programs import require

__all__ = ["main"]


def _lossy(loss: float, seconds: float) -> Callable[[ClusterApart], str]:
    faults = Faults(loss=loss, double=0.02, reorder=0.1, delay=0.0005, jitter=0.002)
    return lambda cluster: disasters.loss(cluster, faults, seconds, limit=15.0)


DISASTERS: dict[str, Callable[[ClusterApart], str]] = {
    "loss-5": _lossy(0.05, 60.0),
    "loss-15": _lossy(0.15, 60.0),
    "cut-node": lambda cluster: disasters.cut(cluster, "c", 60.0),
    "cut-kamailio": lambda cluster: disasters.cut(cluster, "k", 60.0),
    "cut-both": lambda cluster: disasters.cut(cluster, "ck", 60.0),
    "crash": lambda cluster: disasters.crashes(cluster, "abck", away=4.0, between=10.0),
    "pause": lambda cluster: disasters.pause(cluster, "b", 30.0),
}


def main() -> int:
    """
    @return: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.interop.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="of faults and phones; random when not given")
    parser.add_argument("disasters", nargs="*", metavar="DISASTER", help=f"by default all: {' '.join(DISASTERS)}")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    unknown = set(options.disasters) - DISASTERS.keys()
    if unknown:
        parser.error(f"no such disaster: {' '.join(sorted(unknown))}")
    try:
        require("kamailio", "kamcmd", "ps")
        require_namespaces()
    except SkipTest as reason:
        print(f"skipped: {reason}")
        return 0
    is_well = True
    for name in options.disasters or DISASTERS:
        print(f"{name}, seed {seed}", flush=True)
        cluster = ClusterApart(seed)
        try:
            print(DISASTERS[name](cluster), flush=True)
        except AssertionError as wrong:
            print(wrong, flush=True)
            is_well = False
        finally:
            cluster.close()
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
