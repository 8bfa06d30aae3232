"""
All benchmarks, and their table in Markdown: C{make bench}, or

    python bench/run.py
    python bench/run.py --only register,options --server sipdmq --count 20000
    python bench/run.py --only register --server sipdmq,sipdmq-compiled --compiled-venv PATH
    python bench/run.py --only replicate-1,sync --server sipdmq,kamailio-tlsf
    python bench/run.py --profile

CPU time is what Linux counts for the server's processes (user and system), divided by the requests answered. Server
and generator each have a processor core of their own. Progress goes to stderr, the table to stdout.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from call_works import measure_calls, measure_digest, measure_idle_tls, measure_plain, measure_tls
from load import LoadFailed
from pairs import CLUSTER_WORKS, measure_clusters
from plan import Numbers, Plan, say
from programs import SERVERS, CompiledSipdmqNode
from register_works import (
    measure_bindings,
    measure_idle,
    measure_latency,
    measure_stalled,
    measure_throughput,
    measure_transactions,
)
from sampling import profile
from servers import ServerFailed, own_host
from table import THROUGHPUT, WORKS, conditions, write_cell, write_table

#: Each run with the works that it measures.
RUNS = (
    (measure_throughput, ("register", "refresh", "options", "memory")),
    (measure_bindings, ("bindings",)),
    (measure_transactions, ("transactions",)),
    (measure_latency, ("latency",)),
    (measure_idle, ("idle-tcp",)),
    (measure_stalled, ("stalled-tcp",)),
    (measure_digest, ("digest-refresh", "digest-first")),
    (measure_calls, ("calls", "trying")),
    (measure_tls, ("tls-register",)),
    (measure_idle_tls, ("tls-idle",)),
    (measure_plain, ("tls-plain",)),
)


def read_arguments(arguments: list[str]) -> tuple[Plan, str | None]:
    """
    @return: the plan, and the name of the server to be profiled.
    """
    parser = argparse.ArgumentParser(description="All benchmarks of sipdmq; the table goes to stdout.")
    works = (*WORKS, *CLUSTER_WORKS)
    parser.add_argument("--only", default=",".join(works), help=f"parts, with commas between: {', '.join(works)}")
    parser.add_argument("--server", default=",".join(SERVERS), help=f"servers: {', '.join(SERVERS)}")
    parser.add_argument("--count", type=int, default=100_000, help="requests and users (default %(default)s)")
    parser.add_argument("--window", type=int, default=50, help="unanswered requests at most (default %(default)s)")
    parser.add_argument("--rate", type=float, default=5000.0, help="of the latency run, per second (default 5000)")
    parser.add_argument("--connections", type=int, default=2000, help="idle TCP connections (default %(default)s)")
    parser.add_argument("--stalled", type=int, default=200, help="stalled TCP connections (default %(default)s)")
    parser.add_argument("--call-rate", type=float, default=500.0, help="of the run for 'trying' (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=1, help="repetitions, the median is shown (default %(default)s)")
    parser.add_argument(
        "--compiled-venv",
        type=Path,
        help="a virtual environment of this Python with the wheel of 'make compiled', for the server sipdmq-compiled",
    )
    parser.add_argument(
        "--profile",
        nargs="?",
        const="sipdmq",
        choices=("sipdmq", "twisted-sip", "twisted-echo"),
        help="no table: profile the node (or another server in Python) with py-spy",
    )
    options = parser.parse_args(arguments)
    CompiledSipdmqNode.venv = options.compiled_venv and options.compiled_venv.absolute()
    only = frozenset(options.only.split(","))
    servers = tuple(options.server.split(","))
    for unknown in only.difference(works):
        parser.error(f"--only: {unknown!r} is none of {', '.join(works)}")
    for unknown in set(servers) - SERVERS.keys():
        parser.error(f"--server: {unknown!r} is none of {', '.join(SERVERS)}")
    cores = sorted(os.sched_getaffinity(0))
    # With one core only, both share it: the CPU times still hold, the rates do not.
    server_core = cores[0] if len(cores) > 1 else None
    if server_core is not None:
        os.sched_setaffinity(0, {cores[1]})
    plan = Plan(
        only=only,
        servers=servers,
        count=options.count,
        window=options.window,
        rate=options.rate,
        connections=options.connections,
        stalled=options.stalled,
        call_rate=options.call_rate,
        repeat=options.repeat,
        server_core=server_core,
    )
    return plan, options.profile


def main(arguments: list[str]) -> int:
    """
    @return: the exit status: 1 when a server that is there could not be measured.
    """
    plan, profiling = read_arguments(arguments)
    # So that SIGTERM, too, ends the servers on its way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if profiling is not None:
        print(profile(plan, SERVERS[profiling](own_host(1), core=plan.server_core)))
        return 0
    text = conditions(plan)
    found: dict[str, dict[str, list[Numbers]]] = {}
    failed = False
    for number, name in enumerate(plan.servers, 1):
        found[name] = {}
        for run, works in RUNS * plan.repeat:
            server = SERVERS[name](own_host(number), core=plan.server_core)
            if not plan.wants(server, *works):
                continue
            reason = server.missing()
            if reason:
                say(f"{name}: left out: {reason}")
                break
            say(f"{name}: {', '.join(work for work in works if plan.wants(server, work))}")
            try:
                for work, numbers in run(plan, server).items():
                    found[name].setdefault(work, []).append(numbers)
                    generator = f"; generator {numbers[2]:.1f} µs" if work in THROUGHPUT else ""
                    say(f"  {work}: {write_cell(plan, work, numbers)}{generator}")
            except (LoadFailed, ServerFailed, OSError) as error:
                # The other servers and runs can still be measured.
                say(f"  FAILED: {error}\n{server.log_tail()}")
                failed = True
    clusters, has_failed = measure_clusters(plan)
    tables = [table for table in (write_table(plan, found) if any(found.values()) else "", clusters) if table]
    print("\n\n".join([text, *tables]))
    return 1 if failed or has_failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
