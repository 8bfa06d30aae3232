"""
One server under load: what it cost, and what it takes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from clocks import Clocks
from load import LoadResult, Messages, UserAgents, run_load
from plan import Numbers, Plan, say
from servers import Server

__all__ = ["FIRST_WARM_USER", "WARM_USERS", "Session", "Timed"]

#: Users that register before anything is measured: the server then has loaded and allocated what it needs once.
WARM_USERS = 1000
FIRST_WARM_USER = 900_000

#: Seconds after a transaction's end until its memory is looked for.
FORGET_MARGIN = 4.0


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
