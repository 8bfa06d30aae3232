"""
The table of clusters: what L{replication} and L{syncs} measure, for nodes of either kind in every pairing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from load import LoadFailed
from plan import Numbers, Plan, say
from replicas import KINDS
from replication import measure_delay, measure_messages, measure_replication
from servers import ServerFailed
from syncs import measure_return, measure_silence, measure_sync, measure_sync_answers
from table import write_others

__all__ = ["CLUSTER_WORKS", "measure_clusters"]

Kinds = tuple[str, ...]
Measure = Callable[[Plan, Kinds], Numbers]

_SHORT = {"sipdmq": "sipdmq", "sipdmq-compiled": "sipdmq, compiled", "kamailio-tlsf": "Kamailio"}

#: Pairs in the order of the table: who is told, or joined, and who hears of it, or joins.
PAIRS = (
    ("kamailio-tlsf", "kamailio-tlsf"),
    ("sipdmq", "kamailio-tlsf"),
    ("sipdmq-compiled", "kamailio-tlsf"),
    ("sipdmq", "sipdmq"),
    ("sipdmq-compiled", "sipdmq-compiled"),
    ("kamailio-tlsf", "sipdmq"),
)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def _write_replication(numbers: Numbers) -> str:
    new, refresh = numbers[:3], numbers[4:7]
    return (
        f"{new[0]:.1f} + {new[1]:.1f} = {new[0] + new[1]:.1f} µs, {new[2] / 1000:.1f}k/s; "
        f"refresh {refresh[0]:.1f} + {refresh[1]:.1f} = {refresh[0] + refresh[1]:.1f} µs{write_others(numbers[3])}"
    )


def _write_sync(numbers: Numbers) -> str:
    return (
        f"{numbers[0]:.2f} s, each contact {numbers[1]:.2f} times; CPU {numbers[3]:.2f} s of the donor, "
        f"{numbers[4]:.2f} s of the newcomer"
    )


def _write_answers(numbers: Numbers) -> str:
    donor, newcomer = numbers[:2], numbers[2:]
    return (
        f"donor p99 {_milliseconds(donor[0])}, longest {_milliseconds(donor[1])}; "
        f"newcomer p99 {_milliseconds(newcomer[0])}, longest {_milliseconds(newcomer[1])}"
    )


#: Each work: its title, how many nodes beside the first, what measures it, how its cell is written.
CLUSTER_WORKS: Mapping[str, tuple[str, int, Measure, Callable[[Numbers], str]]] = {
    "replicate-1": (
        "REGISTER with replication to one other node: CPU of the first + of the other",
        1, measure_replication, _write_replication,
    ),
    "replicate-3": ("the same with three other nodes", 3, measure_replication, _write_replication),
    "messages": (
        "KDMQ for each replicated contact",
        1, measure_messages, lambda numbers: f"{numbers[0]:.3f} messages, {numbers[1]:.0f} bytes",
    ),
    "delay": (
        "from the 200 of one node until the other has it, idle",
        1, measure_delay,
        lambda numbers: f"p50 {_milliseconds(numbers[0])}, p99 {_milliseconds(numbers[1])}",
    ),
    "sync": ("a new node gets {count:,} contacts", 1, measure_sync, _write_sync),
    "sync-answers": ("answers to REGISTER meanwhile", 1, measure_sync_answers, _write_answers),
    "silence": (
        "memory for a silent node while {count:,} bindings change",
        1, measure_silence, lambda numbers: f"{numbers[0] / 1e6:.1f} MB",
    ),
    "return": (
        "a node returns after 10 s, 1,000 of {count:,} bindings changed",
        1, measure_return, lambda numbers: f"{numbers[0]:.2f} s, {numbers[1]:.2f} contacts sent for each that changed",
    ),
}  # fmt: skip


def measure_clusters(plan: Plan) -> tuple[str, bool]:
    """
    @return: the table in Markdown, empty where nothing of it is wanted; whether something failed.
    """
    works = [work for work in CLUSTER_WORKS if work in plan.only]
    pairs = [pair for pair in PAIRS if set(pair) <= set(plan.servers) and not KINDS[pair[0]]("").missing()]
    if not works or not pairs:
        return "", False
    lines = [
        "| work | " + " | ".join(f"{_SHORT[one]} → {_SHORT[other]}" for one, other in pairs) + " |",
        "|---" * (len(pairs) + 1) + "|",
    ]
    failed = False
    for work in works:
        title, others, measure, write = CLUSTER_WORKS[work]
        cells = [title.format(count=plan.count)]
        for first, other in pairs:
            found: list[Numbers] = []
            for _ in range(plan.repeat):
                try:
                    found.append(measure(plan, (first, *[other] * others)))
                except (LoadFailed, ServerFailed, OSError) as error:
                    say(f"  {work}, {first} to {other}: FAILED: {error}")
                    failed = True
            cells.append(write(tuple(map(statistics.median, zip(*found)))) if found else "–")
            say(f"  {work}, {first} to {other}: {cells[-1]}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines), failed
