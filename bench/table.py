"""
The table of L{run} in Markdown, and the conditions above it.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from calls import WINDOW
from plan import Numbers, Plan
from programs import SERVERS
from register_works import TRANSACTIONS
from servers import CHECKOUT, version_of

__all__ = ["THROUGHPUT", "WORKS", "conditions", "write_cell", "write_others", "write_table"]

#: The parts in the order of the table, with what stands in its first column.
WORKS = {
    "register": "new REGISTER, UDP, no digest, {count:,} different users",
    "refresh": "refresh REGISTER",
    "options": "OPTIONS to the server",
    "memory": "resident memory per binding at {count:,}",
    "bindings": "the same with room for no completed transactions (completed_bytes = 65536)",
    "transactions": "memory of completed transactions",
    "latency": "answer at {rate:,.0f} REGISTER/s, {count:,} different users",
    "idle-tcp": "resident memory per idle TCP connection",
    "stalled-tcp": "a new TCP client's OPTIONS, beside {stalled} connections with half a message",
    "digest-refresh": "refresh REGISTER with digest, nonce reused",
    "digest-first": "first REGISTER with digest: 401 and then 200, both together",
    "calls": "INVITE–180–200–ACK–BYE–200 with Record-Route, no digest: a call",
    "trying": "100 Trying at {call_rate:,.0f} calls/s",
    "tls-register": "REGISTER over kept connections, TLS 1.3 beside TCP",
    "tls-idle": "resident memory per idle TLS connection",
    "tls-plain": "refresh REGISTER over UDP, with [tls] beside without",
}

#: Of the rows with CPU time and rate: their cells look alike.
THROUGHPUT = frozenset({"register", "refresh", "options", "digest-refresh", "digest-first", "calls"})

#: The share of the machine used by others from which a rate is not to be trusted.
DISTURBED = 0.05


def write_cell(plan: Plan, work: str, numbers: Numbers) -> str:
    """
    @param numbers: what the run of this work returned.
    @return: a cell of the table, with units.
    """
    if work in THROUGHPUT:
        rate = f"{numbers[1] / 1000:.1f}k/s" if numbers[1] >= 5000 else f"{numbers[1]:,.0f}/s"
        cell = f"{numbers[0]:.1f} µs, {rate}"
        if work == "calls" and numbers[4]:
            cell += f", {numbers[4]:.0f} sent again"
        return cell + write_others(numbers[3])
    if work == "trying":
        cell = f"p50 {numbers[0] * 1e3:.2f} ms, p99 {numbers[1] * 1e3:.2f} ms, longest {numbers[2] * 1e3:.1f} ms; "
        cell += f"to the 200 p50 {numbers[3] * 1e3:.2f} ms, p99 {numbers[4] * 1e3:.2f} ms; {numbers[6]:.0f} µs a call"
        cell += f", {numbers[5]:.0f} sent again" if numbers[5] else ""
        cell += f", {numbers[8]:.0f} without a 100" if numbers[8] else ""
        cell += f", {numbers[9]:.0f} not over in time" if numbers[9] else ""
        return cell + write_others(numbers[7])
    if work in ("tls-register", "tls-plain"):
        return (
            f"{numbers[1]:.1f} beside {numbers[0]:.1f} µs: {numbers[2]:.2f} × ({numbers[3]:.2f} to {numbers[4]:.2f})"
        )
    if work in ("memory", "bindings"):
        return f"{numbers[0] / 1000:.2f} kB"
    if work == "transactions":
        few = min(plan.count, TRANSACTIONS)
        return (
            f"{numbers[0] / 1000:.2f} kB each; all of {few + plan.count:,}: {numbers[1] / 1e6:.0f} MB, "
            f"{numbers[2] / 1e6:.0f} MB when forgotten"
        )
    if work == "latency":
        cell = f"p50 {numbers[0] * 1e3:.2f} ms, p99 {numbers[1] * 1e3:.2f} ms, longest {numbers[2] * 1e3:.1f} ms"
        cell += f", {numbers[3]:.0f} sent again" if numbers[3] else ""
        cell += f", {numbers[4]:.0f} never answered" if numbers[4] else ""
        return cell + write_others(numbers[5])
    if work in ("idle-tcp", "tls-idle"):
        return f"{numbers[0] / 1000:.1f} kB ({numbers[1]:.0f} of {plan.connections} open)"
    return (
        f"without p50 {numbers[0] * 1e3:.2f} ms, p99 {numbers[1] * 1e3:.2f} ms; beside p50 {numbers[2] * 1e3:.2f} ms, "
        f"p99 {numbers[3] * 1e3:.2f} ms; {numbers[4]:.0f} closed after 35 s"
    )


def write_others(share: float) -> str:
    """
    @param share: of the machine, 0 to 1, that was used by others.
    @return: a warning, if it is needed.
    """
    return f" (others used {share:.0%} of the machine)" if share >= DISTURBED else ""


def write_table(plan: Plan, found: dict[str, dict[str, list[Numbers]]]) -> str:
    """
    @param found: for each server, for each work, what each repetition gave.
    """
    names = [name for name in plan.servers if found.get(name)]
    lines = [
        "| work | " + " | ".join(SERVERS[name].title for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for work, title in WORKS.items():
        if not any(work in found[name] for name in names):
            continue
        cells = [title.format(count=plan.count, rate=plan.rate, stalled=plan.stalled, call_rate=plan.call_rate)]
        for name in names:
            runs = found[name].get(work)
            medians = tuple(statistics.median(numbers) for numbers in zip(*runs)) if runs else ()
            cells.append(write_cell(plan, work, medians) if medians else "–")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def conditions(plan: Plan) -> str:
    """
    @return: on what, with what and when this was measured, as a Markdown list.
    """
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or "unknown",
    )
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    try:
        twisted = version("Twisted")
    except PackageNotFoundError:
        twisted = "not installed"
    revision = version_of(["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12"])
    if revision.startswith("fatal"):
        revision = "none"
    kamailio = version_of(["kamailio", "-v"]).removeprefix("version: ")
    facts = (
        f"{time.strftime('%Y-%m-%d %H:%M %Z')}, git revision {revision}",
        f"{model}, {os.cpu_count()} cores, {int(memory) / 1e6:.0f} GB; {platform.system()} {platform.release()}",
        f"{platform.python_implementation()} {platform.python_version()}, Twisted {twisted}",
        f"{kamailio}; one UDP worker, bindings in memory, stateless REGISTER (bench/kamailio.cfg)",
        "Kamailio with digest and calls: bench/kamailio-calls.cfg, with the one password of all users in it",
        f"servers on core {plan.server_core}, generator on another; at most {plan.window} unanswered requests",
        f"REGISTER of about 470 bytes, OPTIONS of about 340, INVITE of 950; each run {plan.repeat} times, medians",
        f"digest: MD5, qop=auth, {plan.count // 5:,} users; at most {WINDOW} calls open, their generator never sleeps",
        "CPU time: user and system, of all processes of the server; memory: PSS without files, likewise",
    )
    return "\n".join(f"- {fact}" for fact in facts)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
