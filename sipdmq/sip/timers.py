"""
The timers of SIP by their letters (RFC 3261, table 4; RFC 6026 for L and M).
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["RequestTimers", "TimerValues"]


class TimerValues(NamedTuple):
    """
    The three base values, all in seconds, and what is derived from them.

    @ivar t1: estimate of the round-trip time.
    @ivar t2: the longest interval between retransmissions of a non-INVITE request or an INVITE response.
    @ivar t4: how long a message stays in the network.
    """

    t1: float = 0.5
    t2: float = 4.0
    t4: float = 5.0

    @property
    def lifetime(self) -> float:
        """
        64 × T1: timers B, F, H, J, L and M.
        """
        return 64 * self.t1

    @property
    def d(self) -> float:
        """
        Timer D, unreliable: how long retransmitted final responses of an INVITE are expected; at least 32 s.
        """
        return max(32.0, 64 * self.t1)

    @property
    def trying(self) -> float:
        """
        How long an INVITE waits for its transaction user before the transaction sends 100 (§17.2.1).
        """
        return 0.2

    @property
    def trying_non_invite(self) -> float:
        """
        When a non-INVITE request that has no response is answered with 100: the client's timer E has reached T2
        (RFC 4320 §4.1), so its retransmissions cannot be slowed down any more.
        """
        interval, waited = self.t1, 0.0
        while interval < self.t2:
            waited += interval
            interval *= 2
        return waited


class RequestTimers(NamedTuple):
    """
    The timers of one client transaction, in place of those that the standard derives, for a network that is known: RFC
    3261 §17.1.1.1 allows smaller ones "if, for example, the elements of a private network" are connected well.

    @ivar t1: seconds until the first retransmission.
    @ivar t2: the longest interval between retransmissions, in seconds.
    @ivar timeout: seconds until the request is given up: timer B or F.
    """

    t1: float
    t2: float
    timeout: float
