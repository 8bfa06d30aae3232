"""
How far the clocks of other nodes are from ours. Pure.

C{expires} and C{last_modified} are seconds since the epoch on the wire: a node whose clock is wrong lets contacts
expire early or late. The order of changes does not depend on it (L{sipdmq.dmq.conflict}).
"""

from __future__ import annotations

from typing import Final

from sipdmq.records import NodeName

__all__ = ["Clocks"]

TOLERATED: Final = 2.0
"""Seconds beyond which the operator is told."""


class Clocks:
    """
    The differences, by node.
    """

    def __init__(self) -> None:
        self._differences: dict[str, float] = {}
        self._warned: set[str] = set()

    def heard(self, name: NodeName, difference: float, round_trip: float) -> float | None:
        """
        A node has told its time.

        @param difference: seconds by which it is ahead of ours, taken that the answer took half of the round trip.
        @param round_trip: seconds: half of it is how wrong that may be.
        @return: the difference, when the operator is to be told of it; once, until it is right again.
        """
        key = str(name)
        if round_trip / 2 > TOLERATED / 2:
            return None
        self._differences[key] = difference
        if abs(difference) - round_trip / 2 <= TOLERATED:
            self._warned.discard(key)
            return None
        if key in self._warned:
            return None
        self._warned.add(key)
        return difference

    def forget(self, name: NodeName) -> None:
        """
        Nothing is known of a node any more.
        """
        self._differences.pop(str(name), None)
        self._warned.discard(str(name))

    def difference(self, name: str) -> float | None:
        """
        By how many seconds a node is ahead of us; L{None}: it has not told its time.
        """
        return self._differences.get(name)

    def greatest(self) -> float:
        """
        The greatest difference to any node, seconds, without its sign.
        """
        return max(map(abs, self._differences.values()), default=0.0)
