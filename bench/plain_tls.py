"""
Whether TLS costs those who do not use it: refreshes over UDP, to a node with a [tls] section and a listener for it, and
to one without, by turns.

    python bench/plain_tls.py --count 20000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from idle_tls import make_certificates, tls_node
from load import UserAgents, run_load
from programs import SipdmqNode
from servers import Server, own_host

__all__ = ["measure"]

#: Turns.
SLICES = 9


def measure(without: Server, beside: Server, count: int, window: int = 50) -> list[tuple[float, float]]:
    """
    @param without: running, without TLS.
    @param beside: running, with TLS.
    @param count: requests to each of them.
    @return: of each slice, the CPU seconds of a REGISTER without, and then with TLS.
    """
    each = count // SLICES
    pairs = [(server, UserAgents(server.address)) for server in (without, beside)]
    try:
        for turn in (1, 2):  # warms up
            for _, agents in pairs:
                run_load(agents, agents.registers(each, turn), window).check()
        slices = []
        for turn in range(3, 3 + SLICES):
            costs = []
            for server, agents in pairs:
                messages = agents.registers(each, turn)
                before = server.cpu_seconds()
                run_load(agents, messages, window).check()
                costs.append((server.cpu_seconds() - before) / each)
            slices.append((costs[0], costs[1]))
        return slices
    finally:
        for _, agents in pairs:
            agents.close()


def main(arguments: list[str]) -> int:
    """
    @return: the exit status.
    """
    parser = argparse.ArgumentParser(description="CPU time of a REGISTER over UDP, with and without [tls].")
    parser.add_argument("--count", type=int, default=45_000, help="requests to each (default %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sipdmq-bench-") as name:
        make_certificates(Path(name))
        with SipdmqNode(own_host(1)) as without, tls_node(own_host(2), Path(name)) as beside:
            slices = measure(without, beside, options.count)
    for title, costs in zip(("without", "with"), zip(*slices)):
        ordered = sorted(cost * 1e6 for cost in costs)
        print(f"{title} [tls]: {ordered[SLICES // 2]:.1f} µs of CPU each ({ordered[0]:.1f} to {ordered[-1]:.1f})")
    ratios = sorted(costs[1] / costs[0] for costs in slices)
    print(f"with is {ratios[SLICES // 2]:.2f} × without ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
