"""
What carries the datagrams of a cluster, and what goes wrong with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, Protocol

from tests.cluster.clock import HeapClock

__all__ = ["Address", "Datagram", "Faults", "Host", "Network"]

Address = tuple[str, int]


class Host(Protocol):
    """
    What is found at an address.
    """

    def datagram_arrived(self, data: bytes, sender: Address) -> None:
        """
        It arrives now.
        """


class Datagram(NamedTuple):
    """
    One that was sent.

    @ivar time: seconds since the beginning.
    @ivar fate: empty for what arrived; C{"lost"}, C{"cut"}, C{"doubled"}, C{"nobody"}.
    """

    time: float
    sender: Address
    receiver: Address
    data: bytes
    fate: str


@dataclass
class Faults:
    """
    What the network between the nodes does.

    @ivar loss: how much of all does not arrive, 0 to 1.
    @ivar doubling: how much arrives twice.
    @ivar least, most: seconds that a datagram takes; what overtakes another follows from that.
    """

    loss: float = 0.0
    doubling: float = 0.0
    least: float = 0.001
    most: float = 0.001


class Network:
    """
    @ivar faults: as they are now, of what goes from node to node. A phone is always reached.
    @ivar sent: all datagrams from node to node, in order.
    @ivar watch: called with each of them.
    """

    def __init__(self, clock: HeapClock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._hosts: dict[str, Host] = {}
        self._nodes: set[str] = set()
        self._cut: set[tuple[str, str]] = set()
        self.faults = Faults()
        self.sent: list[Datagram] = []
        self.watch: Callable[[Datagram], object] = lambda datagram: None

    def attach(self, address: str, host: Host, is_node: bool = True) -> None:
        """
        From now on C{host} is at that address.
        """
        self._hosts[address] = host
        if is_node:
            self._nodes.add(address)

    def cut(self, one: Iterable[str], other: Iterable[str]) -> None:
        """
        Nothing of what C{one} sends arrives at C{other}. The other way is cut by a second call.
        """
        others = tuple(other)
        self._cut.update((a, b) for a in one for b in others if a != b)

    def heal(self) -> None:
        """
        All is connected.
        """
        self._cut.clear()

    def send(self, data: bytes, sender: Address, receiver: Address) -> None:
        """
        Carry a datagram.
        """
        host = self._hosts.get(receiver[0])
        if host is None or sender[0] not in self._nodes or receiver[0] not in self._nodes:
            if host is not None:
                self._clock.callLater(0.001, host.datagram_arrived, data, sender)
            return
        faults = self.faults
        times = 1
        fate = ""
        if (sender[0], receiver[0]) in self._cut:
            fate, times = "cut", 0
        elif faults.loss and self._random.random() < faults.loss:
            fate, times = "lost", 0
        elif faults.doubling and self._random.random() < faults.doubling:
            fate, times = "doubled", 2
        datagram = Datagram(self._clock.now, sender, receiver, data, fate)
        self.sent.append(datagram)
        self.watch(datagram)
        for _ in range(times):
            delay = faults.least
            if faults.most > faults.least:
                delay = self._random.uniform(faults.least, faults.most)
            self._clock.callLater(delay, self._arrive, data, sender, receiver[0])

    def _arrive(self, data: bytes, sender: Address, receiver: str) -> None:
        if (sender[0], receiver) not in self._cut:
            self._hosts[receiver].datagram_arrived(data, sender)
