"""
All subscriptions that a node knows, its own and those of the other nodes, found by their tag, by what they are about,
and by when they expire. Pure: driven by C{now}.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sipdmq.core import refuse
from sipdmq.errors import RequestRefused
from sipdmq.presence.subscriptions import State, Subscription

__all__ = ["SubscriptionTable", "TableLimits"]

_RETRY_AFTER = 60


class TableLimits(NamedTuple):
    """
    How many subscriptions there may be: in all, to one presentity in one event package, and of one watcher.
    """

    subscriptions: int = 100_000
    per_presentity: int = 1000
    per_watcher: int = 500


class SubscriptionTable:
    """
    A record stands in the bucket of the second in which it expires, and is moved when that changes: records are never
    scanned. Those that are over stay until then, so that nothing older brings them back.

    @ivar limits: L{TableLimits}
    @ivar live: how many are not over.
    """

    def __init__(self, limits: TableLimits) -> None:
        self.limits = limits
        self._by_tag: dict[str, Subscription] = {}
        self._tags: dict[str, dict[str, tuple[str, ...]]] = {}  # event -> presentity -> tags
        self._counts: dict[str, int] = {}  # of each watcher
        self._buckets: dict[int, set[str]] = {}
        self.live = 0

    def __len__(self) -> int:
        return len(self._by_tag)

    def get(self, tag: str) -> Subscription | None:
        """
        The subscription of a local tag, over or not.
        """
        return self._by_tag.get(tag)

    def records(self) -> Iterator[Subscription]:
        """
        All that are there now, whatever changes meanwhile.
        """
        return iter(tuple(self._by_tag.values()))

    def of(self, presentity: str, event: str) -> tuple[str, ...]:
        """
        The tags of those that are about a presentity, the oldest first.
        """
        tags = self._tags.get(event)
        return () if tags is None else tags.get(presentity, ())

    def check_room(self, presentity: str, event: str, watcher: str) -> None:
        """
        Whether one more can be taken.

        @raise RequestRefused: 503 if there are too many in all, 403 if there are too many like it.
        """
        limits = self.limits
        if len(self._by_tag) >= limits.subscriptions:
            raise RequestRefused(503, [("Retry-After", str(_RETRY_AFTER))])
        if self._counts.get(watcher, 0) >= limits.per_watcher:
            raise refuse.forbidden("Too Many Subscriptions")
        if len(self.of(presentity, event)) >= limits.per_presentity:
            raise refuse.forbidden("Too Many Watchers")

    @property
    def is_full(self) -> bool:
        """
        Whether no more can be taken.
        """
        return len(self._by_tag) >= self.limits.subscriptions

    def put(self, record: Subscription) -> Subscription | None:
        """
        Store a record.

        @return: what was there before.
        """
        tag = record.tag
        before = self._by_tag.get(tag)
        was_live = before is not None and before.state is not State.TERMINATED
        is_live = record.state is not State.TERMINATED
        self._by_tag[tag] = record
        if before is None or before.expires_at != record.expires_at:
            if before is not None:
                self._leave_bucket(before)
            self._buckets.setdefault(record.expires_at, set()).add(tag)
        if was_live and not is_live:
            assert before is not None
            self._forget(before)
        elif is_live and not was_live:
            self._note(record)
        return before

    def renumber(self, record: Subscription) -> None:
        """
        Store a record of which only the numbers have changed.
        """
        self._by_tag[record.tag] = record

    def remove(self, tag: str) -> None:
        """
        Forget a record, if it is there.
        """
        record = self._by_tag.pop(tag, None)
        if record is not None:
            self._leave_bucket(record)
            if record.state is not State.TERMINATED:
                self._forget(record)

    def _note(self, record: Subscription) -> None:
        self.live += 1
        self._counts[record.watcher] = self._counts.get(record.watcher, 0) + 1
        tags = self._tags.setdefault(record.event, {})
        tags[record.presentity] = (*tags.get(record.presentity, ()), record.tag)

    def _forget(self, record: Subscription) -> None:
        self.live -= 1
        left = self._counts[record.watcher] - 1
        if left:
            self._counts[record.watcher] = left
        else:
            del self._counts[record.watcher]
        tags = self._tags[record.event]
        others = tuple([tag for tag in tags[record.presentity] if tag != record.tag])
        if others:
            tags[record.presentity] = others
        else:
            del tags[record.presentity]
            if not tags:
                del self._tags[record.event]

    def _leave_bucket(self, record: Subscription) -> None:
        bucket = self._buckets[record.expires_at]
        bucket.discard(record.tag)
        if not bucket:
            del self._buckets[record.expires_at]

    def expired(self, now: int) -> list[Subscription]:
        """
        Whose time is over, those that were over before included; they stay in the table. To be asked every second:
        there are no more buckets than seconds that a subscription may last.

        @param now: seconds since the epoch.
        """
        seconds = sorted([second for second in self._buckets if second <= now])
        return [self._by_tag[tag] for second in seconds for tag in sorted(self._buckets[second])]
