"""
What one node has still to be told on one channel. Pure: driven by what happens and by C{now}.

A change waits under its key; a newer one of the same key takes its place. At most C{window} requests are unanswered,
and a key with an unanswered request waits for its answer, so that no retransmission can ever overtake a newer change;
likewise all keys of a group, where one change bears on another (two names of one contact).

Some changes cannot go with others into one message, and some concern all keys: such a one waits for all before it, and
all behind it wait for its answer.

What does not fit, or what a silent node has missed, is forgotten, and the box is I{dirty}: whoever knows the records
themselves repairs it, in the place of an endless queue. What is kept is how old the oldest forgotten change is: a
repair sends what was changed since then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from math import inf
from typing import Final

from sipdmq.dmq.changes import Batch, Change, OutboxLimits, Outcome, Place
from sipdmq.dmq.pace import Pace

__all__ = ["Outbox"]

_OVERHEAD: Final = 360
"""Bytes to count for a change beside its fragment and its key: what Python needs to hold it, as measured."""


_SEPARATOR: Final = 16
"""Bytes that a fragment may cost in a message beside itself: a number, quotes, a comma."""


BACKLOG: Final = 4
"""Windows full of messages that may wait before a sync or a repair pauses: more only costs memory."""


class Outbox:
    """
    The changes for one node on one channel.

    @ivar dirty_since: changes were forgotten, so the node does not have all of them: when the oldest was made, seconds;
        L{None}: it has all, or will.
    @ivar backlog: changes that may wait before a sync or a repair pauses.
    @ivar is_stopped: the node has no such channel: nothing is kept for it.
    """

    def __init__(
        self,
        limits: OutboxLimits,
        group_of: Callable[[str], str] | None = None,
        place_of: Callable[[bytes], Place] | None = None,
        supersede: Callable[[bytes, bytes], bytes] | None = None,
    ) -> None:
        """
        @param group_of: of keys of one group only one message is on its way: the receiver may take messages in any
            order; by default each key is a group.
        @param place_of: of a fragment; by default all are L{Place.BESIDE}.
        @param supersede: given a fragment that was not sent and the newer one of its key, makes the one that takes the
            place of both; L{None}: that is the newer one, as where each says all there is to say.
        """
        self._limits = limits
        self.backlog = BACKLOG * limits.window * limits.batch_changes
        self._group_of = group_of
        self._place_of = place_of
        self._supersede = supersede
        self._between: dict[str, None] = {}  # keys of those that wait, in their order
        self._sent_between = ""  # the key of one that is unanswered: nothing else is sent
        self._waiting: dict[str, Change] = {}  # in the order in which the keys were put first
        self._halves: deque[tuple[str, ...]] = deque()  # keys in waiting that go together: of a batch that was refused
        self._sent: dict[int, tuple[tuple[str, ...], tuple[str, ...], tuple[Change, ...], float]] = {}
        self._sent_groups: set[str] = set()
        self._earlier: set[int] = set()  # of those in sent: before the node was lost, and came back
        self._size = 0
        self._number = 0
        self._pace = Pace(limits.batch_changes, limits.batch_window, limits.repeated_after)
        self.dirty_since: float | None = None
        self.is_stopped = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def unanswered(self) -> int:
        """
        Messages without an answer.
        """
        return len(self._sent)

    @property
    def size(self) -> int:
        """
        Bytes that wait, all counted.
        """
        return self._size

    def is_under_way(self, key: str) -> bool:
        """
        Whether a message about this key, or another of its group, has no answer yet, or the key waits.
        """
        group = key if self._group_of is None else self._group_of(key)
        return group in self._sent_groups or key in self._waiting

    @property
    def is_waiting(self) -> bool:
        """
        Whether as many messages are unanswered as may be: nothing is sent before an answer.
        """
        return len(self._sent) >= self._limits.window

    @property
    def is_full(self) -> bool:
        """
        Whether what waits fills a message: it need not gather any longer.
        """
        return len(self._waiting) >= self._pace.most

    @property
    def is_dirty(self) -> bool:
        """
        Whether the node lacks changes that do not wait here.
        """
        return self.dirty_since is not None

    def change(self, key: str, fragment: bytes, since: float) -> Change:
        """
        Make what goes into the box of each node.

        @param since: now, or earlier for what is sent again: if it is lost, a repair begins there.
        """
        return fragment, since, key if self._group_of is None else self._group_of(key)

    def put(self, key: str, change: Change) -> bool:
        """
        Take a change.

        @return: whether it waits now; if not, the box is dirty, or the node has no such channel.
        """
        if self.is_stopped:
            return False
        replaced = self._waiting.get(key)
        fragment = change[0]
        size = len(fragment) + len(key) + _OVERHEAD
        if replaced is not None:
            if self._supersede is not None:
                fragment = self._supersede(replaced[0], fragment)
            size = len(fragment) - len(replaced[0])
            change = (fragment, min(change[1], replaced[1]), change[2])
        if self._size + size > self._limits.size or len(self._waiting) + (replaced is None) > self._limits.changes:
            self.forget(change[1])
            return False
        if self._place_of is not None:
            if self._between and replaced is not None:
                del self._waiting[key]  # it belongs behind what was put since
                self._between.pop(key, None)
                self._halves = deque(tuple(each for each in half if each != key) for half in self._halves)
            if self._place_of(fragment) is Place.BETWEEN:
                self._between[key] = None
        self._waiting[key] = change
        self._size += size
        return True

    def take(self, now: float, room: int) -> Batch | None:
        """
        What is to be sent now.

        @param room: bytes of fragments that a message may have; a single one that is longer comes alone.
        @return: L{None}: nothing now; see L{next_at}.
        """
        if not self._waiting or len(self._sent) >= self._limits.window or self._sent_between:
            return None
        if not self._pace.allows(now, len(self._waiting), bool(self._sent)):
            return None
        keys = tuple(islice(self._waiting, self._pace.most))
        changes = self._take_all(keys, room)
        if not changes:
            keys = self._choose(room)
            if not keys:
                return None
            changes = tuple([self._remove(key) for key in keys])
        groups = tuple([group for _, _, group in changes])
        self._number += 1
        self._sent[self._number] = (keys, groups, changes, now)
        self._sent_groups.update(groups)
        self._pace.sent(now)
        return Batch(self._number, keys, tuple([fragment for fragment, _, _ in changes]))

    def _take_all(self, keys: tuple[str, ...], room: int) -> tuple[Change, ...]:
        """
        Take the oldest, if they can go as they are: nothing was refused, none of them is under way, each may stand
        beside others, all fit.

        @return: empty: L{_choose} has to look at each.
        """
        waiting = self._waiting
        if self._halves or self._place_of is not None:
            return ()
        changes = tuple([waiting[key] for key in keys])
        if not self._sent_groups.isdisjoint([group for _, _, group in changes]):
            return ()
        size = sum([len(fragment) for fragment, _, _ in changes])
        if size + len(keys) * _SEPARATOR > room:
            return ()
        if len(keys) == len(waiting):
            self._waiting = {}
            self._size = 0
        else:
            for key in keys:
                del waiting[key]
            self._size -= size + sum(map(len, keys)) + len(keys) * _OVERHEAD
        return changes

    def _choose(self, room: int) -> tuple[str, ...]:
        while self._halves:
            keys = tuple(key for key in self._halves[0] if key in self._waiting)
            if not self._sent_groups.isdisjoint([self._waiting[key][2] for key in keys]):
                break  # its turn comes
            self._halves.popleft()
            if keys:
                return keys
        chosen: list[str] = []
        for key, (fragment, _, group) in self._waiting.items():
            if key in self._between:
                if chosen or self._sent:
                    break
                self._sent_between = key
                return (key,)
            if group in self._sent_groups:
                continue
            if self._place_of is not None and self._place_of(fragment) is not Place.BESIDE:
                if chosen:
                    break
                return (key,)
            room -= len(fragment) + _SEPARATOR
            if chosen and room < 0:
                break
            chosen.append(key)
            if len(chosen) >= self._pace.most:
                break
        return tuple(chosen)

    def _remove(self, key: str) -> Change:
        change = self._waiting.pop(key)
        self._between.pop(key, None)
        self._size -= len(change[0]) + len(key) + _OVERHEAD
        return change

    def next_at(self, now: float) -> float | None:
        """
        When L{take} is to be asked again without anything having happened before; L{None}: it need not be.
        """
        at = self._pace.next_at(bool(self._sent))
        if self._waiting and len(self._sent) < self._limits.window and now < at:
            return at
        return None

    def done(self, number: int, outcome: Outcome, now: float) -> tuple[str, ...]:
        """
        What became of a message.

        @return: the keys of what was refused alone, and is dropped with that: for the log.
        """
        sent = self._sent.pop(number, None)
        if sent is None:
            return ()
        keys, groups, changes, sent_at = sent
        self._pace.ended(len(keys), sent_at, now, outcome is Outcome.LOST)
        self._sent_groups.difference_update(groups)
        is_earlier = number in self._earlier
        self._earlier.discard(number)
        was_between, self._sent_between = self._sent_between, ""
        if outcome is Outcome.TAKEN:
            return ()
        if outcome is Outcome.LOST:
            if not is_earlier:  # else it is repaired already, and what waits is for the node that is back
                self.forget(_oldest(changes))
        elif outcome is Outcome.NO_CHANNEL:
            self.is_stopped = True
            self._empty()
        elif outcome is Outcome.BUSY:
            self._pace.was_busy(now)
            self._put_back(keys, changes)
            if was_between in self._waiting:
                self._between = {was_between: None, **self._between}
        elif len(keys) == 1:
            return keys
        else:
            keys = self._put_back(keys, changes)
            middle = len(keys) // 2
            self._halves.extend((keys[:middle], keys[middle:]))
        return ()

    def _put_back(self, keys: tuple[str, ...], changes: tuple[Change, ...]) -> tuple[str, ...]:
        """
        What was sent waits again, before all others; where something newer waits, that counts.

        @return: the keys that wait there.
        """
        if self.is_stopped:
            return ()
        newer = self._waiting
        self._waiting = {}
        for key, change in zip(keys, changes):
            fragment, since, group = change
            if key not in newer:
                self._waiting[key] = change
                self._size += len(fragment) + len(key) + _OVERHEAD
                continue
            kept, _, _ = newer[key]
            if self._supersede is not None:
                superseding = self._supersede(fragment, kept)
                self._size += len(superseding) - len(kept)
                kept = superseding
            newer[key] = kept, since, group
            if not self._between:  # else it stays behind what was put since
                self._waiting[key] = newer.pop(key)
        back = tuple(self._waiting)
        self._waiting.update(newer)
        return back

    def _empty(self) -> None:
        self._waiting.clear()
        self._between.clear()
        self._halves.clear()
        self._size = 0

    def lost(self, now: float) -> None:
        """
        The node is gone: all that waits is forgotten, and it lacks that, and what it has not answered.
        """
        self.forget(min(now, self.owed_since()))

    def forget(self, since: float) -> None:
        """
        Let go of all that waits: too much of it, or nobody to send it to. What is unanswered stays so.

        @param since: when the change was made that brought this about, seconds.
        """
        since = min(since, _oldest(self._waiting.values()))
        self.owe(since)
        self._empty()

    def owe(self, since: float) -> None:
        """
        The node lacks what was changed since then.
        """
        if not self.is_stopped:
            self.dirty_since = since if self.dirty_since is None else min(since, self.dirty_since)

    def owed_since(self) -> float:
        """
        When the oldest change was made that the node is not known to have, seconds; infinity: it has all.
        """
        sent = [_oldest(changes) for _, _, changes, _ in self._sent.values()]
        return min([*sent, _oldest(self._waiting.values()), inf if self.dirty_since is None else self.dirty_since])

    def cleaned(self) -> None:
        """
        What the node lacks is on its way into this box.
        """
        self.dirty_since = None

    def reopen(self) -> None:
        """
        The node has the channel now, or may have it.
        """
        self.is_stopped = False

    def returned(self) -> None:
        """
        The node is back: it may have the channel now.
        """
        self.reopen()
        self._earlier.update(self._sent)
        self._pace.reset()


def _oldest(changes: Iterable[Change]) -> float:
    return min([since for _, since, _ in changes], default=inf)
