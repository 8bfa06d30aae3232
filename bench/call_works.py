"""
The parts of L{run} on passwords, calls and TLS: each gives the numbers of its rows.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import calls
import digest_load
import idle_tls
import plain_tls
import stream_load
from clocks import Cost
from load import LoadResult, percentile, run_load
from programs import SipdmqNode
from servers import Server, own_host

if TYPE_CHECKING:
    from plan import Numbers, Plan

__all__ = [
    "measure_calls",
    "measure_digest",
    "measure_idle_tls",
    "measure_plain",
    "measure_tls",
    "start_calls",
    "start_digest",
]


def measure_digest(plan: Plan, server: Server) -> dict[str, Numbers]:
    """
    Users with passwords: their first REGISTERs, and refreshes.
    """
    users = max(1, plan.count // 5)
    with server.with_passwords(digest_load.users(users), digest_load.PASSWORD):
        (result, cost), refreshes = digest_load.measure(server, users, 4, plan.window)
    found = {"digest-first": _numbers_of(result, cost)}
    slices = [_numbers_of(result, cost) for result, cost in refreshes]
    found["digest-refresh"] = tuple(statistics.fmean(numbers) for numbers in zip(*slices))
    return {work: numbers for work, numbers in found.items() if work in plan.only}


def measure_calls(plan: Plan, server: Server) -> dict[str, Numbers]:
    """
    Calls as fast as they go, and at a fixed rate.

    @return: for C{calls}: as all rows on throughput, and messages sent again; for C{trying}: seconds that half of the
        100s, 99 % and all of them did not exceed; the same without the last for the 200s; messages sent again; CPU
        microseconds a call; the share of the machine that others used; calls whose 100 was lost, and
        that were not over in time.
    """
    fast = max(1, plan.count // 5) if "calls" in plan.only else 0
    rated = max(1, min(plan.count // 10, int(20 * plan.call_rate))) if "trying" in plan.only else 0
    with server.with_calls():
        result, cost, steady, steady_cost = calls.measure(server, fast, rated, plan.call_rate)
    found: dict[str, Numbers] = {}
    if fast:
        # The generator's own time without its waiting, which is spinning.
        found["calls"] = (cost.cpu / fast * 1e6, result.rate, result.own * 1e6, cost.others, result.resent)
    if rated:
        found["trying"] = (
            *(percentile(steady.trying, percent) for percent in (50, 99, 100)),
            *(percentile(steady.answered, percent) for percent in (50, 99)),
            *(steady.resent, steady_cost.cpu / steady.count * 1e6, steady_cost.others),
            *(steady.count - len(steady.trying), steady.count - steady.completed),
        )
    return found


def measure_tls(plan: Plan, server: Server) -> dict[str, Numbers]:
    """
    REGISTER over kept connections.

    @return: CPU microseconds over TCP and over TLS; their ratio, the least and the greatest of all slices.
    """
    with _certificates() as folder:
        node = idle_tls.tls_node(server.address[0], folder, plan.server_core, _kind(server))
        with node:
            slices = stream_load.measure(node, 50, plan.count // 4, idle_tls.client_context(folder))
    return {"tls-register": _ratio([(tcp.cpu_each, tls.cpu_each) for tcp, tls in slices])}


def measure_idle_tls(plan: Plan, server: Server) -> dict[str, Numbers]:
    """
    @return: bytes for each idle TLS connection; how many stayed open.
    """
    with _certificates() as folder:
        # Transactions of a tenth of the usual length, so as not to wait for over a minute.
        node = idle_tls.tls_node(server.address[0], folder, plan.server_core, _kind(server), t1=0.05)
        with node:
            result = idle_tls.measure(node, plan.connections, idle_tls.client_context(folder))
    return {"tls-idle": (result.bytes_each, result.alive)}


def measure_plain(plan: Plan, server: Server) -> dict[str, Numbers]:
    """
    @return: CPU microseconds without and with TLS; their ratio, the least and the greatest of all slices.
    """
    with _certificates() as folder:
        # On an address of its own, as both run at the same time.
        beside = idle_tls.tls_node(own_host(100), folder, plan.server_core, _kind(server))
        with server, beside:
            slices = plain_tls.measure(server, beside, plan.count // 2, plan.window)
    return {"tls-plain": _ratio(slices)}


@contextlib.contextmanager
def start_digest(server: Server, users: int) -> Iterator[Callable[[], object]]:
    """
    To be profiled: a server not yet started.

    @return: what has all users refresh, again and again.
    """
    server.with_passwords(digest_load.users(users), digest_load.PASSWORD)
    with server, contextlib.closing(digest_load.DigestPhones(server.address)) as phones:
        phones.register(users).check()
        turns = [phones.refreshes(users, turn) for turn in range(1, 6)]
        yield lambda: [run_load(phones.agents, messages).check() for messages in turns]


@contextlib.contextmanager
def start_calls(server: Server, count: int) -> Iterator[Callable[[], object]]:
    """
    The same.

    @return: what makes so many calls.
    """
    with server.with_calls(), contextlib.closing(calls.Phones(server.address)) as phones:
        phones.register()
        phones.call(500).check()
        yield lambda: phones.call(count).check()


def _numbers_of(result: LoadResult, cost: Cost) -> Numbers:
    """
    Those of a row on throughput.
    """
    return cost.cpu / result.count * 1e6, result.rate, cost.own / result.count * 1e6, cost.others


@contextlib.contextmanager
def _certificates() -> Iterator[Path]:
    """
    A folder with certificates, for as long as it is needed.
    """
    with tempfile.TemporaryDirectory(prefix="sipdmq-bench-") as name:
        idle_tls.make_certificates(Path(name))
        yield Path(name)


def _kind(server: Server) -> type[SipdmqNode]:
    assert isinstance(server, SipdmqNode)
    return type(server)


def _ratio(slices: list[tuple[float, float]]) -> Numbers:
    """
    @param slices: of each, CPU seconds of one and of the other.
    @return: medians in microseconds; median, least and greatest ratio of the other to the one.
    """
    ones, others = zip(*slices)
    ratios = [other / one for one, other in slices]
    return (
        *(statistics.median(ones) * 1e6, statistics.median(others) * 1e6),
        *(statistics.median(ratios), min(ratios), max(ratios)),
    )
