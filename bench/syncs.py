"""
What other nodes cost that come, go, or are silent: the parts of L{run} on syncs, repairs and bounds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

from load import UserAgents, percentile, run_load
from plan import Numbers, Plan, say
from replicas import DOMAIN, FIRST_WARM_USER, WARM_USERS, Replica, joined, network, replica, wait_until
from servers import ServerFailed
from tap import Tap, tapped

__all__ = ["measure_return", "measure_silence", "measure_sync", "measure_sync_answers"]

#: Seconds that a sync may take.
LONGEST = 60.0

#: REGISTERs a second at donor and newcomer while they sync, and how many of them are one measurement.
SYNC_RATE = 200.0
SYNC_SLICE = 20

#: Seconds after which a node is no longer young, and no binding new: what is newer may be on its way to somebody, and a
#: sipdmq node sends it once more to whoever joins or returns.
AGE = 65.0

#: Seconds for which a node is away, and bindings that change meanwhile.
ABSENCE = 10.0
CHANGED = 1000

#: Seconds for which a binding is made, and what is left of them in an answer.
LIFETIME = 3600
_EXPIRES = re.compile(rb"\nContact:[^\r]*;expires=(\d+)")


@contextlib.contextmanager
def _donor(plan: Plan, kind: str) -> Iterator[Replica]:
    """
    A node with C{plan.count} bindings.
    """
    with replica(kind, 1, plan.server_core) as donor:
        with contextlib.closing(UserAgents(donor.address, domain=DOMAIN)) as agents:
            run_load(agents, agents.registers(plan.count), plan.window, timeout=plan.timeout(plan.count)).check()
        time.sleep(AGE)
        yield donor


def _newcomer(kind: str, donor: Replica) -> Replica:
    return replica(kind, 2, min(os.sched_getaffinity(0)), donor.address[0])


def _wait_for_all(tap: Tap, count: int) -> None:
    wait_until(lambda: tap.glance().contacts >= count, lambda: f"only {tap.glance()} of {count} contacts", LONGEST)


def measure_sync(plan: Plan, kinds: tuple[str, ...]) -> Numbers:
    """
    A second node joins a first one that has C{plan.count} bindings.

    @return: seconds from its question to the answer to the last message; contacts sent for each that there is;
        messages for each; CPU seconds of donor and newcomer.
    """
    with _donor(plan, kinds[0]) as donor:
        newcomer = _newcomer(kinds[1], donor)
        with tapped(network(), newcomer.address[0]) as tap:
            before = donor.cpu_seconds()
            with newcomer:
                _wait_for_all(tap, plan.count)
                wait_until(lambda: newcomer.contacts() >= plan.count, "the newcomer lacks contacts", LONGEST)
                time.sleep(1.0)
                traffic = tap.read()
                cpu = donor.cpu_seconds() - before, newcomer.cpu_seconds()
                if newcomer.contacts() != plan.count:
                    raise ServerFailed(f"the newcomer has {newcomer.contacts()} of {plan.count} contacts")
    # A Kamailio asks as well, and by then the newcomer has nothing: what was first is the newcomer's question.
    started = traffic.asked_at or traffic.first_at
    return traffic.answered_at - started, traffic.contacts / plan.count, traffic.requests / plan.count, *cpu


def measure_sync_answers(plan: Plan, kinds: tuple[str, ...]) -> Numbers:
    """
    The same, while phones refresh at both nodes.

    @return: seconds that 99 % and all answers of the donor, and of the newcomer, did not exceed.
    """
    with _donor(plan, kinds[0]) as donor, tapped(network(), _newcomer(kinds[1], donor).address[0]) as tap:
        is_over = multiprocessing.Event()
        with contextlib.ExitStack() as phones:
            at_donor = phones.enter_context(_phones(donor, is_over))
            with _newcomer(kinds[1], donor) as newcomer, _phones(newcomer, is_over) as at_newcomer:
                _wait_for_all(tap, plan.count)
                is_over.set()
                found = [sorted(at_donor()), sorted(at_newcomer())]
    return tuple(percentile(latencies, percent) for latencies in found for percent in (99, 100))


@contextlib.contextmanager
def _phones(node: Replica, is_over: Any) -> Iterator[Any]:
    """
    A process of phones that refresh, slice by slice, until it is over.

    @return: a function that gives their latencies.
    """
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_refresh, args=(node.address, is_over, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv
    finally:
        is_over.set()
        process.join(10)


def _refresh(address: tuple[str, int], is_over: Any, pipe: Any) -> None:
    latencies: list[float] = []
    with contextlib.closing(UserAgents(address, domain=DOMAIN)) as agents:
        cseq = 1
        while not is_over.is_set():
            messages = agents.registers(SYNC_SLICE, cseq, first_user=FIRST_WARM_USER)
            latencies.extend(run_load(agents, messages, rate=SYNC_RATE).check().latencies)
            cseq += 1
    pipe.send(latencies)


def measure_silence(plan: Plan, kinds: tuple[str, ...]) -> Numbers:
    """
    All bindings change at the first node while the second one is silent.

    @return: bytes that the first node took at most beyond what the same took while the other one listened.
    """
    few = {"limits": {"completed_bytes": "65536"}}
    with joined(kinds, plan.server_core, few) as (nodes, agents):
        for cseq in (1, 2, 3):
            run_load(agents, agents.registers(plan.count, cseq), plan.window, timeout=120, is_alone=False).check()
            time.sleep(2.0)
        before = nodes[0].resident_bytes()
        nodes[1].pause()
        try:
            run_load(agents, agents.registers(plan.count, 4), plan.window, timeout=120, is_alone=False).check()
            most = 0
            for _ in range(20):
                most = max(most, nodes[0].resident_bytes())
                time.sleep(0.5)
        finally:
            nodes[1].resume()
    return (float(most - before),)


def measure_return(plan: Plan, kinds: tuple[str, ...]) -> Numbers:
    """
    The second node is stopped for L{ABSENCE} seconds while some bindings change at the first one.

    @return: seconds from its going on until it has all that changed, asked user by user; contacts sent from then on for
        each that had changed.
    """
    with joined(kinds, plan.server_core) as (nodes, agents):
        load = agents.registers(plan.count)
        run_load(agents, load, plan.window, timeout=plan.timeout(plan.count), is_alone=False).check()
        expected = plan.count + WARM_USERS
        wait_until(lambda: nodes[1].contacts() == expected, lambda: f"the second has {nodes[1].contacts()}")
        time.sleep(AGE)
        nodes[1].pause()
        paused_at = time.monotonic()
        run_load(agents, agents.registers(CHANGED, 2), rate=CHANGED / (ABSENCE / 2)).check()
        time.sleep(max(0.0, paused_at + ABSENCE - time.monotonic()))
        with tapped(network(), nodes[1].address[0]) as tap:
            resumed_at = time.monotonic()
            nodes[1].resume()
            _wait_for_refreshed(nodes[1], range(CHANGED))
            had_all_at = time.monotonic()
            time.sleep(ABSENCE)
            traffic = tap.read()
        if nodes[1].contacts() != expected:
            raise ServerFailed(f"the second node has {nodes[1].contacts()} of {expected} contacts")
        say(f"  the last contact was sent after {traffic.last_at - resumed_at:.2f} s")
    return had_all_at - resumed_at, traffic.contacts / CHANGED


def _wait_for_refreshed(node: Replica, users: Iterable[int]) -> None:
    """
    Ask for each user until his contact has most of its time before it: what was not refreshed is older than L{AGE}.

    @raise ServerFailed: one has not.
    """
    deadline = time.monotonic() + LONGEST
    with contextlib.closing(UserAgents(node.address, domain=DOMAIN)) as asking:
        asking.socket.settimeout(LONGEST)
        for user in users:
            cseq = 1
            while True:
                asking.socket.send(asking.query(user, cseq))
                found = _EXPIRES.search(asking.socket.recv(65535))
                if found is not None and int(found[1]) > LIFETIME - AGE:
                    break
                if time.monotonic() > deadline:
                    raise ServerFailed(f"the node does not get what changed of user {user}")
                cseq += 1
