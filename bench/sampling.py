"""
Profiles of a running node: py-spy beside it.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from call_works import start_calls, start_digest
from plan import Plan
from servers import Server
from session import Session

__all__ = ["profile"]


def profile(plan: Plan, server: Server) -> str:
    """
    Where the node spends its time: py-spy beside it, in runs that are not in the table.

    @return: Markdown: for each work, the functions and the modules with the most samples of their own.
    """
    beside = Path(sys.executable).with_name("py-spy")
    spy = str(beside) if beside.exists() else shutil.which("py-spy")
    if spy is None:
        return "No profile: py-spy is not installed.\n"
    parts = []
    with Session(plan, server) as session:
        session.warm()
        for work, messages in (
            ("register", session.agents.registers(plan.count)),
            ("refresh", session.agents.registers(plan.count, cseq=2)),
            ("options", session.agents.options(plan.count)),
        ):
            if plan.wants(server, work):
                parts.append(_record(spy, server, work, lambda messages=messages: session.load(messages)))
    for work, start in (("digest-refresh", start_digest), ("calls", start_calls)):
        if plan.wants(server, work):
            another = type(server)(*server.address, core=plan.server_core)
            with start(another, plan.count // 5) as run:
                parts.append(_record(spy, another, work, run))
    return "\n".join(parts)


def _record(spy: str, server: Server, work: str, run: Callable[[], object]) -> str:
    """
    @param run: the load.
    @return: the profile of the server meanwhile, in Markdown.
    """
    with tempfile.TemporaryDirectory(prefix="sipdmq-bench-") as directory:
        stacks = Path(directory) / work
        command = [spy, "record", "--pid", str(server.pid), "--format", "raw", "--output", str(stacks)]
        with subprocess.Popen(
            [*command, "--rate", "500", "--duration", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as recorder:
            try:
                time.sleep(2)  # until it has attached
                run()
            finally:
                recorder.send_signal(signal.SIGINT)  # it writes its file then
                try:
                    recorder.wait(20)
                except subprocess.TimeoutExpired:
                    recorder.kill()
        return f"### {work}\n\n{_write_profile(stacks)}"


def _write_profile(stacks: Path) -> str:
    """
    @param stacks: py-spy's raw format: C{function (file:line);function (file:line) COUNT} on each line.
    """
    functions: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    total = 0
    for line in stacks.read_text().splitlines() if stacks.exists() else ():
        stack, _, samples = line.rpartition(" ")
        # The line number is dropped: a function is what is to be made faster.
        frames = [frame.rpartition(":")[0] + ")" for frame in stack.split(";") if "(" in frame]
        if not frames:
            continue
        total += int(samples)
        functions[frames[-1]] += int(samples)
        modules[frames[-1].rpartition("(")[2].rstrip(")")] += int(samples)
        for frame in set(frames):
            inclusive[frame] += int(samples)
    if not total:
        return "no samples\n"
    lines = []
    for title, counter, top in (
        ("own time by module", modules, 15),
        ("own time by function", functions, 25),
        ("time with all that it calls, by function", inclusive, 30),
    ):
        lines += [f"| {title} | % |", "|---|---|"]
        lines += [f"| `{name}` | {100 * samples / total:.1f} |" for name, samples in counter.most_common(top)]
        lines.append("")
    return "\n".join(lines)
