"""
The parts of L{run} on REGISTER and OPTIONS of one node: each gives the numbers of its rows.
"""

from __future__ import annotations

import time

import idle_tcp
import stalled_tcp
from load import percentile
from plan import Numbers, Plan
from programs import SipdmqNode
from servers import Server
from session import FIRST_WARM_USER, WARM_USERS, Session

__all__ = [
    "TRANSACTIONS",
    "measure_bindings",
    "measure_idle",
    "measure_latency",
    "measure_stalled",
    "measure_throughput",
    "measure_transactions",
]

#: Requests from which the memory of one completed transaction is computed: few enough for any bound on all of them.
TRANSACTIONS = 20_000


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
