"""
All benchmarks, and their table in Markdown: C{make bench}, or

    python bench/run.py
    python bench/run.py --only register,options --server sipdmq --count 20000
    python bench/run.py --only register --server sipdmq,sipdmq-compiled --compiled-venv PATH
    python bench/run.py --profile

CPU time is what Linux counts for the server's processes (user and system), divided by the requests answered. Server
and generator each have a processor core of their own. Progress goes to stderr, the table to stdout.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import idle_tcp
import stalled_tcp
from call_works import (
    measure_calls,
    measure_digest,
    measure_idle_tls,
    measure_plain,
    measure_tls,
    start_calls,
    start_digest,
)
from calls import WINDOW
from clocks import Clocks
from load import LoadFailed, LoadResult, Messages, UserAgents, percentile, run_load
from servers import CHECKOUT, SERVERS, CompiledSipdmqNode, Server, ServerFailed, SipdmqNode, own_host, version_of

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

#: Users that register before anything is measured: the server then has loaded and allocated what it needs once.
WARM_USERS = 1000
FIRST_WARM_USER = 900_000

#: Requests from which the memory of one completed transaction is computed: few enough for any bound on all of them.
TRANSACTIONS = 20_000

#: Seconds after a transaction's end until its memory is looked for.
FORGET_MARGIN = 4.0

#: The share of the machine used by others from which a rate is not to be trusted.
DISTURBED = 0.05

#: What one repetition gives for a work: numbers, written by L{write_cell} as the median of all repetitions.
Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Plan:
    """
    What to measure, from the command line.

    @ivar count: requests of a run, and users.
    @ivar window: unanswered requests at most.
    @ivar rate: requests per second of the latency run.
    @ivar connections: idle TCP connections.
    @ivar stalled: connections with half a message.
    @ivar call_rate: calls per second of the run at a fixed rate.
    @ivar repeat: how often each run is made.
    """

    only: frozenset[str]
    servers: tuple[str, ...]
    count: int
    window: int
    rate: float
    connections: int
    stalled: int
    call_rate: float
    repeat: int
    server_core: int | None

    def wants(self, server: Server, *works: str) -> bool:
        return any(work in self.only and work in server.works for work in works)

    def timeout(self, count: int) -> float:
        """
        @return: seconds after which a run of C{count} requests is given up: 1,000 a second, and a minute.
        """
        return 60.0 + count / 1000


def say(text: str) -> None:
    """
    Progress.
    """
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Timed:
    """
    @ivar cpu: CPU microseconds of the server for each request.
    @ivar own: CPU microseconds of the generator for each request.
    @ivar others: the share of the machine, 0 to 1, that neither of them used and that was not idle either. With more
        than a little of that, the rate and the latencies say nothing.
    """

    result: LoadResult
    cpu: float
    own: float
    others: float

    @property
    def numbers(self) -> Numbers:
        """
        Those of a row on throughput.
        """
        return self.cpu, self.result.rate, self.own, self.others


class Session:
    """
    One server, started for one run, and the phones that talk to it.
    """

    def __init__(self, plan: Plan, server: Server) -> None:
        self.plan = plan
        self.server = server

    def __enter__(self) -> Session:
        self.server.__enter__()
        self.agents = UserAgents(self.server.address)
        return self

    def __exit__(self, *exception: object) -> None:
        if hasattr(self, "agents"):
            self.agents.close()
        self.server.__exit__(*exception)

    def warm(self) -> None:
        """
        Have it do a little of all it can do, unmeasured.
        """
        if "register" in self.server.works:
            for cseq in (1, 2):
                self.load(self.agents.registers(WARM_USERS, cseq, first_user=FIRST_WARM_USER))
        if "options" in self.server.works:
            self.load(self.agents.options(WARM_USERS))

    def load(self, messages: Messages, rate: float | None = None) -> LoadResult:
        """
        Have all messages answered. At a fixed rate some may get no answer: that the server cannot keep up is then
        what was to be found out.

        @raise LoadFailed: not all of them were, or one was refused.
        """
        count = len(messages.datagrams)
        result = run_load(self.agents, messages, self.plan.window, rate, self.server.expected, self.plan.timeout(count))
        if rate is None or result.refused or not result.succeeded:
            result.check()
        if result.resent:
            say(f"  {result.resent} messages were sent again")
        return result

    def timed(self, messages: Messages, rate: float | None = None) -> Timed:
        """
        Have all messages answered, and look at the clocks around it.
        """
        clocks = Clocks(self.server)
        result = self.load(messages, rate)
        cost = clocks.read()
        return Timed(result, cost.cpu / result.count * 1e6, cost.own / result.count * 1e6, cost.others)

    def forget(self, since: float) -> None:
        """
        Sleep until transactions that ended at C{since} (monotonic seconds) are gone.
        """
        if self.server.transaction_lifetime:
            until = since + self.server.transaction_lifetime + FORGET_MARGIN
            time.sleep(max(0.0, until - time.monotonic()))


def measure_throughput(plan: Plan, server: Server) -> dict[str, Numbers]:
    """
    OPTIONS, new bindings, the same refreshed; and the memory that the bindings take.
    """
    found: dict[str, Numbers] = {}
    with Session(plan, server) as session:
        session.warm()
        # First: behind 200,000 REGISTERs it would be charged for what the server forgets of these meanwhile.
        if plan.wants(server, "options"):
            found["options"] = session.timed(session.agents.options(plan.count)).numbers
        if plan.wants(server, "register", "refresh", "memory"):
            messages = session.agents.registers(plan.count)
            if plan.wants(server, "memory"):
                session.forget(time.monotonic())
            before = server.resident_bytes()
            found["register"] = session.timed(messages).numbers
            if plan.wants(server, "memory"):
                session.forget(time.monotonic())
                found["memory"] = ((server.resident_bytes() - before) / plan.count,)
        if plan.wants(server, "refresh"):
            found["refresh"] = session.timed(session.agents.registers(plan.count, cseq=2)).numbers
    return {work: numbers for work, numbers in found.items() if work in plan.only}


def measure_bindings(plan: Plan, server: Server) -> dict[str, Numbers]:
    """
    What the bindings alone take. Of the memory that forgotten transactions leave, only whole arenas go back to the
    system, so that C{memory} counts some of it; this run's transactions never take any.
    """
    assert isinstance(server, SipdmqNode)
    settings = {"limits": {"completed_bytes": "65536"}}
    forgetful = type(server)(*server.address, core=plan.server_core, settings=settings)
    with Session(plan, forgetful) as session:
        session.warm()
        before = forgetful.resident_bytes()
        session.load(session.agents.registers(plan.count))
        session.forget(time.monotonic())
        return {"bindings": ((forgetful.resident_bytes() - before) / plan.count,)}


def measure_transactions(plan: Plan, server: Server) -> dict[str, Numbers]:
    """
    What the server keeps to answer retransmissions: users that are registered already register again and again, so
    that nothing but transactions is added.

    @return: bytes for each of the first L{TRANSACTIONS}; bytes of all after C{plan.count} more; bytes that are still
        there when all are forgotten.
    """
    few = min(plan.count, TRANSACTIONS)
    with Session(plan, server) as session:
        session.warm()
        session.forget(time.monotonic())
        before = server.resident_bytes()
        session.load(session.agents.registers(few, cseq=10, users=WARM_USERS, first_user=FIRST_WARM_USER))
        each = (server.resident_bytes() - before) / few
        session.load(session.agents.registers(plan.count, cseq=1000, users=WARM_USERS, first_user=FIRST_WARM_USER))
        together = server.resident_bytes() - before
        session.forget(time.monotonic())
        return {"transactions": (each, together, server.resident_bytes() - before)}


def measure_latency(plan: Plan, server: Server) -> dict[str, Numbers]:
    """
    New bindings at a fixed rate that leaves the server time.

    @return: seconds that half of the answers, 99 % and all of them did not exceed; messages sent again, and never
        answered; the share of the machine that others used.
    """
    with Session(plan, server) as session:
        session.warm()
        timed = session.timed(session.agents.registers(plan.count), plan.rate)
        result = timed.result
        return {
            "latency": (
                *(percentile(result.latencies, percent) for percent in (50, 99, 100)),
                *(result.resent, result.lost, timed.others),
            )
        }


def measure_idle(plan: Plan, server: Server) -> dict[str, Numbers]:
    """
    @return: bytes for each idle TCP connection; how many stayed open.
    """
    with server:
        result = idle_tcp.measure(server, plan.connections)
    return {"idle-tcp": (result.bytes_each, result.alive)}


def measure_stalled(plan: Plan, server: Server) -> dict[str, Numbers]:
    """
    @return: seconds: median and p99 before, median and p99 beside the stalled connections; how many were closed.
    """
    with server:
        result = stalled_tcp.measure(server, plan.stalled)
    last = len(result.before) * 99 // 100
    half = len(result.before) // 2
    return {
        "stalled-tcp": (
            *(result.before[half], result.before[last]),
            *(result.beside[half], result.beside[last]),
            result.closed,
        )
    }


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


def read_arguments(arguments: list[str]) -> tuple[Plan, str | None]:
    """
    @return: the plan, and the name of the server to be profiled.
    """
    parser = argparse.ArgumentParser(description="All benchmarks of sipdmq; the table goes to stdout.")
    parser.add_argument("--only", default=",".join(WORKS), help=f"parts, with commas between: {', '.join(WORKS)}")
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
    for unknown in only - WORKS.keys():
        parser.error(f"--only: {unknown!r} is none of {', '.join(WORKS)}")
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
    print(f"{text}\n\n{write_table(plan, found)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
