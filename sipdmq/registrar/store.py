"""
The location store in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import classImplements

from sipdmq.core.contacts import identity, remembered_until
from sipdmq.core.expiry import Expiry
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.location import IBindingListener, ILocationStore
from sipdmq.records import Binding, BindingChange, Decide, Origin, Page, PageCursor, Update

__all__ = ["MemoryLocationStore"]

log = Logger()

PAGE_SIZE = 500
"""AoRs in one page: some milliseconds of work."""


def _preference(binding: Binding) -> tuple[int, int]:
    # A contact without q is as good as one with q=1 (RFC 3261 §10.2.1.2 leaves it open; Kamailio does so).
    return (-1000 if binding.q < 0 else -binding.q, -binding.last_modified)


class MemoryLocationStore:
    """
    Bindings in a dict by AoR; each expires by itself (L{Expiry}).
    """

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        max_tombstones: int = 100_000,
        forget_after: int = 0,
    ) -> None:
        """
        @param clock: for waiting.
        @param now: the time, seconds since the epoch; it must never jump.
        @param max_tombstones: removed bindings to remember at most; beyond, a removal leaves no trace.
        @param forget_after: in a cluster: a binding that expires before an older version of it would have, which
            another node may still hold, is remembered until then; see
            L{remembered_until<sipdmq.core.contacts.remembered_until>}. 0: the node is alone.
        """
        self._now = now
        self._expiry = Expiry(clock, now, self._expire)
        self._max_tombstones = max_tombstones
        self._forget_after = forget_after
        self._records: dict[str, tuple[Binding, ...]] = {}
        self._listeners: list[IBindingListener] = []
        self._live = 0
        self._tombstones = 0

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {
            "location.aors": len(self._records),
            "location.bindings": self._live,
            "location.tombstones": self._tombstones,
        }

    def count(self) -> int:
        """
        See L{ILocationStore.count}.
        """
        return self._live

    def watch(self, listener: IBindingListener) -> None:
        """
        See L{ILocationStore.watch}.
        """
        self._listeners.append(IBindingListener(listener))

    def lookup(self, aor: str) -> Deferred[tuple[Binding, ...]]:
        """
        See L{ILocationStore.lookup}.
        """
        return succeed(self._live_ones(self._records.get(aor, ()), self._now()))

    @staticmethod
    def _live_ones(records: tuple[Binding, ...], now: float) -> tuple[Binding, ...]:
        for binding in records:
            if binding.removed or binding.expires_at <= now:
                return tuple([b for b in records if not b.removed and b.expires_at > now])
        return records

    def update(self, aor: str, decide: Decide, origin: Origin) -> Update | Deferred[Update]:
        """
        See L{ILocationStore.update}.
        """
        now = self._now()
        before = self._records.get(aor, ())
        was = _expires_at(before)
        if was and was <= now:
            self._expire(aor)
            before = self._records.get(aor, ())
            was = _expires_at(before)
        try:
            after = tuple(decide(before))
        except Exception:  # noqa: BLE001 - it is the caller's, and reaches him by the Deferred
            return fail()
        if len(after) > 1:
            after = tuple(sorted(after, key=_preference))
        due = _expires_at(after)
        if due and due <= now:
            # From another node's clock, or a file: what is over already is not stored.
            after = tuple([b for b in after if b.expires_at > now])
            due = _expires_at(after)
        changes = _changes(before, after, origin)
        if changes or len(after) != len(before):
            self._put(aor, before, after, was, due)
            if self._listeners:
                for change in changes:
                    self._tell(change)
        return Update(self._live_ones(after, now), changes)

    def _tell(self, change: BindingChange) -> None:
        for listener in self._listeners:
            try:
                listener.binding_changed(change)
            except Exception:  # noqa: BLE001
                # What is stored is stored, and the other listeners shall hear of it.
                log.failure("a listener failed on {aor}", aor=change.binding.aor)

    def _put(
        self, aor: str, before: tuple[Binding, ...], after: tuple[Binding, ...], was: int, due: int
    ) -> None:
        """
        Store the records of an AoR, and keep counts and buckets in step.

        @param was: when the first of those before would have expired; 0: there were none.
        @param due: the same of those after.
        """
        if len(after) == 1 and not after[0].removed and (not before or (len(before) == 1 and not before[0].removed)):
            self._live += not before  # new, or the same one refreshed
        else:
            after = self._count(before, after)
            due = _expires_at(after)
        if after:
            self._records[aor] = after
        else:
            self._records.pop(aor, None)
        if due != was:
            self._expiry.move(aor, was, due)

    def _count(self, before: tuple[Binding, ...], after: tuple[Binding, ...]) -> tuple[Binding, ...]:
        """
        Keep the counts; without tombstones if there is no room for them.

        @return: C{after} as it is to be stored.
        """
        removed = sum([b.removed for b in before])
        self._tombstones -= removed
        kept = sum([b.removed for b in after])
        if kept > self._max_tombstones - self._tombstones:
            after = tuple([b for b in after if not b.removed])
            kept = 0
        self._tombstones += kept
        self._live += (len(after) - kept) - (len(before) - removed)
        return after

    def _expire(self, aor: str) -> None:
        """
        Remove what has expired of one AoR, and tell.
        """
        now = self._now()
        before = self._records.get(aor, ())  # a listener may have removed it in this very second
        after = tuple([b for b in before if b.expires_at > now])
        if len(after) == len(before):
            return
        # What was hidden behind one of them is what a phone had before: it goes with it.
        over = {b.ruid for b in before if b.expires_at <= now and not b.removed}
        after = tuple([b for b in after if not (b.is_hidden and b.ruid in over)])
        if self._forget_after:
            second = int(now)
            after += tuple([
                b._replace(
                    removed=True, flow="", expires_at=remembered_until(b.known_until, second, self._forget_after)
                )
                for b in before
                if b.known_until > now >= b.expires_at and not b.removed
            ])
        self._put(aor, before, after, _expires_at(before), _expires_at(after))
        for binding in before:
            if binding.expires_at <= now and not binding.removed:
                self._tell(BindingChange(binding, binding, Origin.EXPIRED))

    def pages(self, cursor: PageCursor | None) -> Deferred[Page]:
        """
        See L{ILocationStore.pages}. The names of all AoRs are taken at the first page: a list of references, made in
        a millisecond for 100,000, and right however the table changes meanwhile.
        """
        aors, start = cursor or (tuple(self._records), 0)
        end = start + PAGE_SIZE
        bindings = [b for aor in aors[start:end] for b in self._records.get(aor, ())]
        return succeed(Page(tuple(bindings), (aors, end) if end < len(aors) else None))

    def stop(self) -> None:
        """
        Stop the timer; nothing expires any more.
        """
        self._expiry.stop()


classImplements(MemoryLocationStore, ILocationStore, IInspectable)


def _expires_at(records: tuple[Binding, ...]) -> int:
    """
    The second in which the first of the records expires; 0: there are none.
    """
    if len(records) == 1:
        return records[0].expires_at
    return min([b.expires_at for b in records], default=0)


def _changes(before: Sequence[Binding], after: Sequence[Binding], origin: Origin) -> tuple[BindingChange, ...]:
    """
    What differs between two states of an AoR. Records that C{decide} did not touch are the same objects.
    """
    if not before:
        return tuple([BindingChange(binding, None, origin) for binding in after])
    if len(before) == 1 == len(after) and before[0].ruid == after[0].ruid:
        return () if after[0] is before[0] or after == before else (BindingChange(after[0], before[0], origin),)
    same = {id(binding) for binding in before}.intersection([id(binding) for binding in after])
    previous = {identity(binding): binding for binding in before if id(binding) not in same}
    touched = [binding for binding in after if id(binding) not in same]
    changes = []
    moved = []
    for binding in touched:
        old = previous.pop(identity(binding), None)
        if old is None:
            moved.append(binding)
        elif old != binding:
            changes.append(BindingChange(binding, old, origin))
    by_ruid = {binding.ruid: name for name, binding in previous.items()}
    for binding in moved:  # under its name there may have been another contact: nothing is gone with that
        name = by_ruid.pop(binding.ruid, None)
        changes.append(BindingChange(binding, None if name is None else previous.pop(name), origin))
    for gone in previous.values():
        if not gone.removed:
            changes.append(BindingChange(gone._replace(removed=True), gone, origin))
    return tuple(changes)
