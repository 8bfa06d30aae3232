"""
What it costs to have a REGISTER on several nodes: C{python bench/run.py --only replicate-1,replicate-3}.

All nodes but the first share a processor core with the generator, which leaves it to them when it has nothing to do.
"""

from __future__ import annotations

import os
import time

from clocks import busy_seconds
from load import UserAgents, run_load
from plan import Numbers, Plan, say
from replicas import DOMAIN, joined, network, wait_until
from tap import tapped

__all__ = ["measure_delay", "measure_messages", "measure_replication"]

#: Seconds after the last answer in which the last changes arrive.
SETTLING = 1.0

#: Users of a run that is tapped: the tap costs the generator's core.
TAPPED = 20_000

#: REGISTERs, one after the other, for the delay until another node has one.
DELAYS = 500
DELAY_PAUSE = 0.02


def measure_replication(plan: Plan, kinds: tuple[str, ...]) -> Numbers:
    """
    New REGISTERs at the first node, until all nodes have the contacts.

    @return: CPU microseconds a REGISTER of the first node and of the others together; REGISTERs a second; the share of
        the machine that others used; then the first three for refreshes.
    """
    found: list[float] = []
    with joined(kinds, plan.server_core) as (nodes, agents):
        before = nodes[0].contacts()
        for cseq in (1, 2):
            messages = agents.registers(plan.count, cseq)
            cpu = [node.cpu_seconds() for node in nodes]
            own, busy, start = time.process_time(), busy_seconds(), time.monotonic()
            result = run_load(agents, messages, plan.window, timeout=plan.timeout(plan.count), is_alone=False).check()
            time.sleep(SETTLING)
            used = [node.cpu_seconds() - earlier for node, earlier in zip(nodes, cpu)]
            others = busy_seconds() - busy - sum(used) - (time.process_time() - own)
            share = max(0.0, others) / (time.monotonic() - start) / (os.cpu_count() or 1)
            each = [1e6 * seconds / plan.count for seconds in used]
            found += [each[0], sum(each[1:]), result.rate, *((share,) if cseq == 1 else ())]
            if result.resent:
                say(f"  {result.resent} messages were sent again")
            wait_until(
                lambda: all(node.contacts() == before + plan.count for node in nodes),
                lambda: f"of {before + plan.count} contacts the nodes have {[node.contacts() for node in nodes]}",
            )
    return tuple(found)


def measure_messages(plan: Plan, kinds: tuple[str, ...]) -> Numbers:
    """
    The same with a look at the wire.

    @return: KDMQ requests, and bytes of these and of their answers, for each contact and each other node.
    """
    count = min(plan.count, TAPPED)
    with joined(kinds, plan.server_core) as (_nodes, agents), tapped(network()) as tap:
        run_load(agents, agents.registers(count), plan.window, timeout=plan.timeout(count), is_alone=False).check()
        time.sleep(SETTLING)
        traffic = tap.read()
    contacts = count * (len(kinds) - 1)
    return traffic.requests / contacts, traffic.size / contacts


def measure_delay(plan: Plan, kinds: tuple[str, ...]) -> Numbers:
    """
    One REGISTER after the other at the first node, and after its 200 the second one is asked for it until it has it.

    @return: seconds from one 200 to the other that half of them, 99 % and all did not exceed. The way there and back
        and the question itself are in it.
    """
    delays: list[float] = []
    with joined(kinds, plan.server_core) as (nodes, agents):
        asking = UserAgents(nodes[1].address, domain=DOMAIN)
        with asking.socket:
            asking.socket.settimeout(1.0)
            for user in range(DELAYS):
                questions = [asking.query(user, turn + 1) for turn in range(200)]
                message = agents.registers(1, first_user=user)
                run_load(agents, message).check()
                start = time.perf_counter()
                for question in questions:
                    asking.socket.send(question)
                    if b"\nContact:" in asking.socket.recv(65535):
                        break
                else:
                    delays.append(float("inf"))
                delays.append(time.perf_counter() - start)
                time.sleep(DELAY_PAUSE)
    delays.sort()
    return tuple(delays[min(len(delays) - 1, len(delays) * percent // 100)] for percent in (50, 99, 100))
