"""
How long it takes until all nodes are equal again, in seconds of the simulated clock: the same on every machine.

C{python -m tests.cluster.figures} measures with 10,000 bindings, C{make soak} does so, too; CI with fewer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Final

from sipdmq.core.contacts import identity
from tests.cluster.clock import HeapClock
from tests.cluster.machine import DOMAIN, PORT, Machine, node_address
from tests.cluster.messages import channel_of, is_request
from tests.cluster.network import Address, Network

__all__ = ["LIMITS", "Crowd", "late_messages", "loss", "partition", "sync_with_deaths"]

STEP: Final = 0.25
"""Seconds between two looks, unless a sync is looked at, which is over by then."""
TOO_LONG: Final = 120.0
LIMITS: Final = {0.05: 2.0, 0.15: 5.0, 0.3: 15.0}
"""Of how much that is lost, to the seconds within which all are to be equal."""
AFTER_PARTITION: Final = 10.0
AFTER_DEATH: Final = 30.0

Contents = dict[tuple[str, str], tuple[int, str, int, bool]]


class Crowd:
    """
    Many phones with one contact each, and three nodes.

    @ivar confirmed: how many REGISTERs were answered with 200.
    """

    def __init__(self, seed: int, phones: int, nodes: int = 3) -> None:
        self.random = Random(seed)
        self.clock = HeapClock()
        self.network = Network(self.clock, Random(f"network {seed}"))
        numbers = range(1, nodes + 1)
        self.machines = [
            Machine(self.clock, self.network, number, tuple(n for n in numbers if n != number), str(seed))
            for number in numbers
        ]
        self._cseqs = [0] * phones
        self._removed = [False] * phones
        self.confirmed = 0
        self.network.attach("10.0.0.1", self, is_node=False)

    def start(self) -> None:
        """
        The nodes find one another, and all phones register, each at one of them.
        """
        for machine in self.machines:
            machine.start()
        self.clock.advance(12)
        for phone in range(len(self._cseqs)):
            self.register(phone, self.random.choice(self.machines))
            if phone % 50 == 49:
                self.clock.advance(0.05)
        self.clock.advance(5)
        assert self.is_equal()

    def register(self, phone: int, machine: Machine) -> None:
        """
        A phone registers; one time in ten it takes its contact back.
        """
        self._cseqs[phone] += 1
        cseq = self._cseqs[phone]
        self._removed[phone] = cseq > 1 and not self._removed[phone] and self.random.random() < 0.1
        expires = 0 if self._removed[phone] else 3600
        data = (
            f"REGISTER sip:{DOMAIN} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 10.0.0.1:{PORT};branch=z9hG4bK{phone}-{cseq}\r\n"
            f"Max-Forwards: 70\r\nTo: <sip:u{phone}@{DOMAIN}>\r\nFrom: <sip:u{phone}@{DOMAIN}>;tag={phone}\r\n"
            f"Call-ID: {phone}\r\nCSeq: {cseq} REGISTER\r\n"
            f"Contact: <sip:u{phone}@10.0.0.1>;expires={expires}\r\nContent-Length: 0\r\n\r\n"
        ).encode()
        self.network.send(data, ("10.0.0.1", PORT), (machine.address, PORT))

    def datagram_arrived(self, data: bytes, sender: Address) -> None:
        """
        See L{tests.cluster.network.Host}.
        """
        self.confirmed += data.startswith(b"SIP/2.0 200 ")

    def change(self, seconds: float, count: int, machines: list[Machine] | None = None) -> None:
        """
        So many phones register again within that time.
        """
        for phone in self.random.sample(range(len(self._cseqs)), count):
            self.register(phone, self.random.choice(machines or self.machines))
            self.clock.advance(seconds / count)

    def contents(self, machine: Machine) -> Contents:
        """
        What a node knows, removals too.
        """
        process: Any = machine.process
        found: Contents = {}
        cursor = None
        while True:
            pages: list[Any] = []
            process.node.store.pages(cursor).addCallback(pages.append)
            for record in pages[0].bindings:
                place = (record.last_modified, record.call_id, record.cseq, record.removed)
                found[record.aor, identity(record)] = place
            cursor = pages[0].cursor
            if cursor is None:
                return found

    def is_equal(self) -> bool:
        """
        Whether all nodes know the same.
        """
        first, *others = [self.contents(machine) for machine in self.machines if machine.is_up]
        return all(other == first for other in others)

    def until(self, is_so: Callable[[], bool], step: float = STEP) -> float:
        """
        @param step: seconds between two looks.
        @return: seconds until it is so.
        """
        start = self.clock.now
        while not is_so():
            if self.clock.now - start > TOO_LONG:
                return float("inf")
            self.clock.advance(step)
        return self.clock.now - start

    def changes_sent(self, since: int = 0) -> int:
        """
        Messages on channel usrloc, repetitions counted.
        """
        return sum(is_request(each.data) and channel_of(each.data) == "usrloc" for each in self.network.sent[since:])


def loss(share: float, phones: int, seed: int = 1) -> float:
    """
    Half of all phones change something within ten seconds, while that much of all KDMQ is lost.

    @return: seconds from the last change until all are equal, the loss going on.
    """
    crowd = Crowd(seed, phones)
    crowd.start()
    crowd.network.faults.loss = share
    crowd.change(10, phones // 2)
    return crowd.until(crowd.is_equal)


def partition(phones: int, seed: int = 1) -> tuple[float, float]:
    """
    One of three nodes is cut off for two minutes, while phones change something on both sides.

    @return: seconds from the heal until all are equal, and messages on channel usrloc for each change.
    """
    crowd = Crowd(seed, phones)
    crowd.start()
    *many, one = crowd.machines
    crowd.network.cut([each.address for each in many], [one.address])
    crowd.network.cut([one.address], [each.address for each in many])
    for _ in range(6):
        crowd.change(10, phones // 20, many)
        crowd.change(10, phones // 20, [one])
    before = len(crowd.network.sent)
    crowd.network.heal()
    took = crowd.until(crowd.is_equal)
    return took, crowd.changes_sent(before) / (12 * (phones // 20))


def sync_with_deaths(phones: int, points: Iterable[float], kill_donor: bool, seed: int = 1) -> list[float]:
    """
    A fourth node joins; its donor, or itself, is killed at that share of its sync. Itself is started anew at once.

    @return: for each point, seconds until it has everything, from then on.
    """
    found = []
    for point in points:
        crowd = Crowd(seed, phones, nodes=4)
        newcomer = crowd.machines[-1]
        newcomer.start()  # for all to be equal in the beginning
        newcomer.kill()
        crowd.machines.pop()
        crowd.start()
        crowd.machines.append(newcomer)
        newcomer.start()
        store: Any = newcomer.process.node.store  # type: ignore[union-attr]
        while store.count() < max(1, point * crowd.machines[0].process.node.store.count()):  # type: ignore[union-attr]
            crowd.clock.advance(0.0005)
        if kill_donor:
            donor = newcomer.process.node.cluster.usrloc.newcomer.donor  # type: ignore[union-attr]
            address = node_address(1) if donor is None else donor.name.host
            next(each for each in crowd.machines if each.address == address).kill()
        else:
            newcomer.kill()
            newcomer.start()
        found.append(crowd.until(crowd.is_equal))
    return found


def late_messages(phones: int, seed: int = 1) -> bool:
    """
    All that was ever sent on channel usrloc arrives once more, in any order, after all is over.

    @return: whether the nodes still know what they knew before.
    """
    crowd = Crowd(seed, phones)
    crowd.start()
    crowd.change(10, phones // 2)
    crowd.change(10, phones // 2)
    assert crowd.until(crowd.is_equal) < TOO_LONG
    before = [crowd.contents(machine) for machine in crowd.machines]
    sent = [each for each in crowd.network.sent if is_request(each.data) and channel_of(each.data) == "usrloc"]
    by_address = {machine.address: machine for machine in crowd.machines}
    for _ in range(2):
        crowd.random.shuffle(sent)
        for number, each in enumerate(sent):
            # A branch of its own: else it would be answered as a retransmission, and not be looked at.
            again = each.data.replace(b";branch=z9hG4bK", b";branch=z9hG4bK%dx" % number, 1)
            by_address[each.receiver[0]].datagram_arrived(again, each.sender)
        crowd.clock.advance(10)
    return [crowd.contents(machine) for machine in crowd.machines] == before


def main() -> int:
    """
    @return: the exit status: 1 when a figure is not held.
    """
    phones = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    failed = False

    def tell(what: str, took: float, limit: float) -> None:
        nonlocal failed
        failed |= took > limit
        print(f"{what}: {took:.2f} s, to hold: {limit:.0f} s{' NOT HELD' if took > limit else ''}", flush=True)

    print(f"{phones} bindings, three nodes, ping_interval 5 s", flush=True)
    for share, limit in LIMITS.items():
        tell(f"equal with a loss of {share:.0%}, from the last change", loss(share, phones), limit)
    took, messages = partition(phones)
    tell(f"equal after two minutes' partition, {messages:.2f} messages for each change", took, AFTER_PARTITION)
    points = (0.0, 0.3, 0.6, 0.9)
    for kill_donor, who in ((True, "donor"), (False, "newcomer")):
        for point, took in zip(points, sync_with_deaths(phones, points, kill_donor)):
            tell(f"equal after the {who} was killed at {point:.0%} of a sync", took, AFTER_DEATH)
    is_well = late_messages(phones // 10)
    failed |= not is_well
    print("late messages change nothing" if is_well else "LATE MESSAGES CHANGE SOMETHING")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
