"""
The life of subscriptions: they are stored, end, expire, come from other nodes, and go to others when a node is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import IFlows
from sipdmq.presence.notifier import Notifier
from sipdmq.presence.subscriptions import State, Subscription
from sipdmq.presence.succession import after_rival, end, heir, is_newer, taken_over
from sipdmq.presence.table import SubscriptionTable
from sipdmq.records import Origin

__all__ = ["Subscriptions"]

log = Logger()

REMEMBERED: Final = 60
"""Seconds that the end of a subscription is remembered for after it would have expired: clocks differ."""
PAGE: Final = 100
"""Records that are looked at in one go when a node is gone."""
RETRY_AFTER: Final = 10
"""Seconds after which watchers may come again to a node that was stopped."""
RETURNING: Final = 100
"""How many of them in one second, that they do not come all at once."""
_LIVE: Final = (State.ACTIVE, State.PENDING)
SECOND_LOOK: Final = 10.0
"""Seconds after which those are looked for that nobody has taken over: their heir did not know of them."""


@implementer(IInspectable)
class Subscriptions:
    """
    The subscriptions of this node, and what it knows of those of the others.

    @ivar local: the owner that this node is; empty where there is no cluster.
    @ivar replicate: called with each record that the other nodes have to be told, and with the record as it was while
        the subscription lived.
    @ivar handed: called with a record that nobody has taken over, and the node that should.
    @ivar changed: called with presentity, event and origin when somebody is a watcher now, is none any more, or has
        another state.
    @ivar alive: tells which nodes of the cluster are active now, this one included.
    """

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        table: SubscriptionTable,
        notifier: Notifier,
        flows: IFlows,
        local: str,
        max_expires: int,
    ) -> None:
        """
        @param max_expires: seconds: no other node lets a subscription last longer.
        """
        self._clock = IReactorTime(clock)
        self._now = now
        self._table = table
        self._notifier = notifier
        self._flows = IFlows(flows)
        self.local = local
        self._max_expires = max_expires
        self.replicate: Callable[[Subscription, Subscription], object] = lambda record, before: None
        self.handed: Callable[[Subscription, str], object] = lambda record, node: None
        self.changed: Callable[[str, str, Origin], object] = lambda presentity, event, origin: None
        self.alive: Callable[[], frozenset[str]] = lambda: frozenset((local,))
        self._calls: dict[str, IDelayedCall] = {}
        self._looks = 0
        self._counts = dict.fromkeys(("begun", "expired", "dropped", "taken_over", "given_up"), 0)
        notifier.lost = self._lost
        notifier.counted = lambda record: self.replicate(record, record)

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        numbers: dict[str, int | float] = {f"subscriptions.{name}": count for name, count in self._counts.items()}
        numbers["subscriptions.live"] = self._table.live
        numbers["subscriptions.records"] = len(self._table)
        return numbers

    # of this node

    def begun(self, record: Subscription) -> None:
        """
        A watcher has come, or come again: he is told the state at once.
        """
        before = self._table.get(record.tag)
        self._counts["begun"] += before is None
        self._store(record, Origin.LOCAL)
        self.replicate(record, record)
        self._notifier.tell(record.tag, is_urgent=True)

    def ended(self, record: Subscription, reason: str) -> None:
        """
        A subscription is over: its watcher is told the state for the last time.

        @param record: as it was at the end.
        @param reason: for Subscription-State.
        """
        self._bury(record)
        self._notifier.finish(record, reason)

    def moved(self, record: Subscription, is_over: bool) -> None:
        """
        A node that cannot own it has taken a SUBSCRIBE for a subscription of ours, and told the watcher the state.
        """
        if is_over:
            self._bury(record)
        else:
            self._store(record, Origin.LOCAL)
            self.replicate(record, record)

    def _lost(self, record: Subscription, is_unreachable: bool) -> None:
        """
        The watcher does not want to be told any more, or is not there. One who came to another node over a connection,
        and cannot be reached from here, may come back: his subscription waits for him until it expires.
        """
        if is_unreachable and record.flow and record.term and not self._flows.is_alive(record.flow):
            return
        self._counts["dropped"] += 1
        self._bury(record)

    def _bury(self, record: Subscription) -> None:
        before = self._table.get(record.tag)
        if before is None:
            return
        if not self.local:
            self._table.remove(record.tag)
        else:
            over = end(record, max(record.expires_at, before.expires_at) + REMEMBERED)
            self._table.put(over)
            self.replicate(over, before)
        self.changed(before.presentity, before.event, Origin.LOCAL)

    def _store(self, record: Subscription, origin: Origin) -> None:
        before = self._table.put(record)
        self._wait("expiry", 1.0, self._tick)
        if before is None or before.state is not record.state:
            told = record if before is None or record.state is not State.TERMINATED else before
            if told.presentity:
                self.changed(told.presentity, told.event, origin)

    # time

    def _wait(self, name: str, seconds: float, do: Callable[[], None]) -> None:
        if name not in self._calls:
            self._calls[name] = self._clock.callLater(seconds, self._due, name, do)

    def _due(self, name: str, do: Callable[[], None]) -> None:
        del self._calls[name]
        try:
            do()
        except Exception:  # noqa: BLE001 - the edge of timers
            log.failure("the subscriptions broke on {name}", name=name)
            self._wait("expiry", 1.0, self._tick)

    def _tick(self) -> None:
        for record in self._table.expired(int(self._now())):
            self._table.remove(record.tag)
            if record.state is State.TERMINATED:
                continue
            if record.owner == self.local:
                self._counts["expired"] += 1
                self._notifier.finish(record, "timeout")
            self.changed(record.presentity, record.event, Origin.EXPIRED)
        if len(self._table):
            self._wait("expiry", 1.0, self._tick)

    # other nodes

    def told(self, incoming: Subscription, sender: str) -> Subscription | None:
        """
        Another node has said what it knows of a subscription.

        @param sender: that node; empty if it is none that we know.
        @return: what it has to be told in turn: what it knows does not count. L{None}: nothing.
        """
        latest = int(self._now()) + self._max_expires + 2 * REMEMBERED
        if incoming.expires_at > latest:
            incoming = incoming._replace(expires_at=latest)
        stored = self._table.get(incoming.tag)
        if stored is None and self._table.is_full:
            return None
        if stored is not None and not is_newer(incoming, stored):
            if stored == incoming:
                return None
            if stored.owner == self.local and stored.state is not State.TERMINATED:
                higher = after_rival(stored, incoming)
                if higher is not None:
                    self._store(higher, Origin.LOCAL)
                    self.replicate(higher, higher)
                    return None
            return stored
        was_ours = stored is not None and stored.owner == self.local
        self._store(incoming, Origin.REPLICATED)
        if incoming.state is State.TERMINATED:
            return None
        if was_ours and incoming.owner != self.local and incoming.flow and self._flows.is_alive(incoming.flow):
            self.take_over(incoming)  # whoever took it over cannot reach its watcher; we can
        elif incoming.owner == self.local and not was_ours:
            self.take_over(incoming)  # we had it before this process began
        elif incoming.owner != sender and incoming.owner not in self.alive():
            self._look_again()  # unless we only have not heard of its node yet
        return None

    def take_over(self, record: Subscription) -> None:
        """
        Go on with the subscription of another node: the watcher is told where he finds it from now on.
        """
        self._counts["taken_over"] += 1
        taken = taken_over(record, self.local)
        self._store(taken, Origin.REPLICATED)
        self.replicate(taken, taken)
        self._notifier.tell(record.tag, is_urgent=True)

    def node_lost(self) -> None:
        """
        A node is not active any more.
        """
        self._look(self._table.records(), False)
        self._look_again()

    def _look_again(self) -> None:
        self._wait("second look", SECOND_LOOK, lambda: self._look(self._table.records(), True))

    def _look(self, records: Iterator[Subscription], is_second: bool) -> None:
        """
        Take over what falls to us of those whose owner is gone.

        @param is_second: the others have had the time for that: what is left, their heirs do not know of.
        """
        alive = self.alive()
        for seen in islice(records, PAGE):
            record = self._table.get(seen.tag)
            if record is None or record.state is State.TERMINATED or record.owner in alive:
                continue
            successor = heir(record.tag, alive)
            if successor == self.local:
                self.take_over(record)
            elif is_second:
                self.handed(record, successor)
        rest = next(records, None)
        if rest is not None:
            self._looks += 1
            self._wait(f"look {self._looks}", 0, lambda: self._look(chain((rest,), records), is_second))

    def stop(self) -> None:
        """
        No more timers, no more NOTIFYs. Where there is no other node to go on with our subscriptions they are over, and
        their watchers hear when they may come again.
        """
        if self.alive() <= {self.local}:
            ours = [each for each in self._table.records() if each.owner == self.local and each.state in _LIVE]
            for number, record in enumerate(ours):
                self._notifier.finish(record, "probation", RETRY_AFTER + number // RETURNING)
        self._notifier.stop()
        for call in self._calls.values():
            call.cancel()
        self._calls.clear()
