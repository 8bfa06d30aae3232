"""
What happens to a cluster, all of it from one seed: faults, phones, and a heal in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.logger import LogEvent, globalLogPublisher

from tests.cluster.clock import HeapClock
from tests.cluster.judge import Judge
from tests.cluster.kamailio import Kamailio
from tests.cluster.machine import Machine
from tests.cluster.messages import channel_of, is_request
from tests.cluster.network import Faults, Network
from tests.cluster.phones import Phone

__all__ = ["Schedule"]

SETTLE = 45.0
"""Seconds from the heal until all is to be well: C{ping_interval}, C{timeout}, and some more for what follows."""
SILENT = 85.0
"""Seconds from the heal until no change is on the wire any more: that a node was lost is remembered for a minute."""
SILENCE = 15.0
"""Seconds for which it is to stay so."""
PATIENCE = 3.0
"""Seconds for which a phone waits for its answer."""


class Schedule:
    """
    @ivar seed: from which all follows.
    @ivar story: what happened, line by line.
    @ivar events: how often a node was started, killed, halted or let go on, and the network cut or mended.
    """

    def __init__(self, seed: int, has_kamailio: bool = False, is_wide: bool = False) -> None:
        """
        @param has_kamailio: one more node is a L{Kamailio}.
        @param is_wide: nodes are stopped in order, too, their clocks are set while they are down, and some clusters
            copy REGISTERs.
        """
        self.seed = seed
        self._is_wide = is_wide
        self._luck = Random(f"wide {seed}")
        keys: dict[str, Any] = {"replicate": ("REGISTER",)} if is_wide and self._luck.random() < 0.3 else {}
        self.story: list[str] = []
        self.events = 0
        self._random = random = Random(seed)
        self.clock = clock = HeapClock()
        self.network = Network(clock, Random(f"network {seed}"))
        count = random.choice((2, 3, 3, 3, 4, 5))
        is_skewed = random.random() < 0.25
        if has_kamailio:
            count = max(count, 3)
        numbers = range(1, count + 1)
        self.machines: list[Any] = [
            (Kamailio if has_kamailio and number == count else Machine)(
                clock, self.network, number, tuple(n for n in numbers if n != number)[:2], str(seed),
                random.uniform(-2, 2) if is_skewed else 0.0, **keys,
            )
            for number in numbers
        ]
        skews = [machine.skew for machine in self.machines]
        self._users: list[list[Phone]] = []
        number = 0
        for user in "alice bob carol dave".split()[: random.randint(2, 4)]:
            self._users.append([])
            for _ in range(random.choice((1, 1, 2))):
                number += 1
                self._users[-1].append(
                    Phone(
                        clock, self.network, random, number, user,
                        random.random() < 0.3 and not has_kamailio, self.tell,
                    )
                )
        self.phones = [phone for phones in self._users for phone in phones]
        skew = max(skews) - min(skews)
        self._is_set = is_wide and is_skewed
        self.judge = Judge(clock, self.machines, self.phones, 4.0 if self._is_set else skew)
        self._is_healed = False
        self._has_kamailio = has_kamailio
        self._duration = random.uniform(30, 70)
        wrong = f", clocks wrong by {[round(skew, 1) for skew in skews]}" if is_skewed else ""
        self.tell(f"{count} nodes{wrong}{', REGISTERs are copied' if keys else ''}")

    def tell(self, text: str) -> None:
        """
        Add a line to the story.
        """
        self.story.append(f"{self.clock.now:9.3f}  {text}")

    def _event(self, text: str) -> None:
        self.events += 1
        self.tell(text)

    def run(self) -> list[str]:
        """
        @return: what is wrong in the end, a sentence for each.
        """
        failures: list[str] = []

        def observe(event: LogEvent) -> None:
            if "log_failure" in event:
                failures.append(f"traceback: {event['log_failure'].getTraceback()}")

        globalLogPublisher.addObserver(observe)
        try:
            for machine in self.machines:
                self.clock.callLater(self._random.uniform(0, 3), self._start, machine)
            for phones in self._users:
                self.clock.callLater(self._random.uniform(3, 8), self._register, phones)
            self.clock.callLater(4, self._fault)
            self.clock.advance(self._duration)
            self._heal()
            self.clock.advance(SETTLE)
            failures += self.judge.equal() + self.judge.right()
            failures += self._flood()
            if self.seed % 4 == 0:  # it takes as long as all the rest
                failures += self._noise()
        finally:
            globalLogPublisher.removeObserver(observe)
            for machine in self.machines:
                machine.kill()
        return failures

    def bound(self) -> int:
        """
        How many contacts may be told of on channel C{usrloc}, repetitions of a message not counted: each change to each
        other node, which may answer that something else counts; and after each event of C{self.events} each node may
        tell each other one everything that there ever was. What is sent is mostly a sixth of that.
        """
        others = len(self.machines) - 1
        return 2 * self.judge.changes * others + self.events * (others + 1) * others * self.judge.contacts

    def _flood(self) -> list[str]:
        told = sum(data.count(b'"aor":') for data in {sent.data for sent in self.network.sent if _is_change(sent.data)})
        return [f"too much: {told} contacts were told, not {self.bound()}"] if told > self.bound() else []

    def _noise(self) -> list[str]:
        """
        What is sent when there is nothing left to say.
        """
        self.clock.advance(SILENT - SETTLE)
        before = len(self.network.sent)
        self.clock.advance(SILENCE)
        changes = [each for each in self.network.sent[before:] if _is_change(each.data)]
        return [f"not silent: {len(changes)} messages after {SILENT} s"] if changes else []

    # phones

    def _register(self, phones: list[Phone]) -> None:
        """
        One of a user's phones does something; the next thing happens when it has its answer, or has given up.
        """
        if self._is_healed:
            return
        random = self._random
        phone = random.choice(phones)
        if random.random() < 0.05:
            phone.reboot()
        kinds = ("add", "add", "add", "add", "change", "remove", "remove", "wildcard")
        kind = random.choice(kinds) if phone.operations else "add"
        node = random.choice(self.machines).address
        expires = random.choice((3600, 3600, 3600, random.randint(5, 60)))
        phone.act(node, kind, expires)
        self.clock.callLater(PATIENCE + random.choice((0.0, 0.0, random.uniform(0, 10))), self._register, phones)

    # faults

    def _start(self, machine: Any) -> None:
        if not machine.is_up:
            self._event(f"{machine.address} starts")
            machine.start()
            self.judge.started(machine)

    def _kill(self, machine: Any) -> None:
        if machine.is_up:
            self._event(f"{machine.address} is killed")
            self.judge.killing(machine)
            machine.kill()

    def _fault(self) -> None:
        if self._is_healed:
            return
        faults: tuple[Callable[[], None], ...] = (
            self._weather, self._weather, self._cut, self._cut, self._cut, self._halt, self._crash, self._crash,
        )
        self._random.choice(faults)()
        self.clock.callLater(self._random.expovariate(1 / 6), self._fault)

    def _weather(self) -> None:
        random = self._random
        if self._has_kamailio:
            # The last datagram counts with a Kamailio, be it the oldest: here they are not that late. And what it tells
            # is lost after five losses in a row.
            faults = Faults(random.choice((0, 0, 0.05, 0.2)), 0, 0.001, random.choice((0.001, 0.005, 0.04)))
        else:
            faults = Faults(
                random.choice((0, 0, 0.05, 0.2, 0.5)),
                random.choice((0, 0, 0.2)),
                0.001,
                random.choice((0.001, 0.005, 0.05, 0.4, 2.0)),
            )
        self.tell(f"network: {faults}")
        self.network.faults = faults

    def _cut(self) -> None:
        random = self._random
        addresses = [machine.address for machine in self.machines]
        one = random.sample(addresses, random.randint(1, len(addresses) - 1))
        other = [address for address in addresses if address not in one]
        is_one_way = random.random() < 0.2
        self._event(f"cut: {' '.join(one)} {'→' if is_one_way else '|'} {' '.join(other)}")
        self.network.cut(one, other)
        if not is_one_way:
            self.network.cut(other, one)
        self.clock.callLater(random.choice((2.0, 8.0, 20.0)) * random.random(), self._mend)

    def _mend(self) -> None:
        if not self._is_healed:
            self._event("all is connected")
            self.network.heal()

    def _halt(self) -> None:
        machine = self._random.choice(self.machines)
        if machine.is_up and not machine.is_halted:
            self._event(f"{machine.address} stands still")
            machine.halt()
            self.clock.callLater(self._random.choice((1, 5, 15)) * self._random.random(), self._go_on, machine)

    def _go_on(self, machine: Any) -> None:
        if machine.is_halted:
            self._event(f"{machine.address} goes on")
            machine.go_on()

    def _crash(self) -> None:
        up = [machine for machine in self.machines if machine.is_up]
        if len(up) > 1:
            machine = self._random.choice(up)
            if self._is_wide and machine.is_sipdmq and not machine.is_halted and self._luck.random() < 0.4:
                self._stop(machine)
                return
            self._kill(machine)
            self.clock.callLater(self._random.choice((0.2, 5, 20)) * self._random.random(), self._start, machine)

    def _stop(self, machine: Any) -> None:
        self._event(f"{machine.address} is stopped")
        process = machine.process

        def ended(_: object) -> None:
            if machine.process is process:
                self._kill(machine)
                if self._is_set:
                    machine.skew = self._luck.uniform(-2, 2)
            if not self._is_healed:
                self.clock.callLater(self._luck.choice((0.2, 5, 20)) * self._luck.random(), self._start, machine)

        process.service.stopService().addBoth(ended)

    def _heal(self) -> None:
        """
        Everything is well again; now and then a node is gone for good.
        """
        self._is_healed = True
        self._event("heal")
        self.network.heal()
        self.network.faults = Faults()
        for machine in self.machines:
            self._go_on(machine)
        down = [machine for machine in self.machines if not machine.is_up]
        for machine in down:
            if len(self.machines) - len(down) < 2 or self._random.random() < 0.7:
                self._start(machine)


def _is_change(data: bytes) -> bool:
    return is_request(data) and channel_of(data) == "usrloc"
