"""
What is published, in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from sipdmq.core import refuse
from sipdmq.core.expiry import Expiry
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.presence import IEventState, IEventStateListener
from sipdmq.interfaces.publications import (
    DecidePublications,
    IPublicationListener,
    IPublicationStore,
    Publication,
    PublicationChange,
    PublicationPage,
)
from sipdmq.presence.packages import PACKAGES
from sipdmq.presence.publications import laid_to_rest
from sipdmq.records import EventDocument, Origin

__all__ = ["MemoryPublicationStore"]

log = Logger()

PAGE_SIZE: Final = 500
"""Presentities in one page."""

Records = tuple[Publication, ...]


def _key(aor: str, event: str) -> str:
    return f"{event} {aor}"


def _apart(key: str) -> tuple[str, str]:
    event, _, aor = key.partition(" ")
    return aor, event


def _age(publication: Publication) -> tuple[int, int, str]:
    """
    The order in which documents are composed, the same on all nodes.
    """
    return (publication.recv, publication.version, publication.etag)


def _earliest(records: Records) -> int:
    return records[0].expires_at if len(records) == 1 else min([record.expires_at for record in records])


@implementer(IPublicationStore, IEventState, IInspectable)
class MemoryPublicationStore:
    """
    Publications in a dict by presentity and package; each expires by itself (L{Expiry}). The document of a presentity
    is composed when somebody asks, and kept until the next change.
    """

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        max_publications: int = 100_000,
        max_tombstones: int = 100_000,
        forget_after: int = 0,
    ) -> None:
        """
        @param clock: for waiting.
        @param now: the time, seconds since the epoch; it must never jump.
        @param max_tombstones: removed publications to remember at most; beyond, a removal leaves no trace.
        @param forget_after: in a cluster: seconds for which a publication is remembered at most that expires before an
            older version of it would have, which another node may still hold. 0: the node is alone.
        """
        self._now = now
        self._expiry = Expiry(clock, now, self._expire)
        self._max_publications = max_publications
        self._max_tombstones = max_tombstones
        self._forget_after = forget_after
        self._records: dict[str, Records] = {}
        self._documents: dict[str, EventDocument] = {}
        self._publication_listeners: list[IPublicationListener] = []
        self._state_listeners: list[IEventStateListener] = []
        self._live = 0
        self._tombstones = 0

    def snapshot(self) -> Mapping[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {
            "presence.presentities": len(self._records),
            "presence.publications": self._live,
            "presence.tombstones": self._tombstones,
        }

    # IEventState

    def packages(self) -> tuple[str, ...]:
        """
        See L{IEventState.packages}.
        """
        return tuple(PACKAGES)

    def document(self, aor: str, package: str) -> EventDocument:
        """
        See L{IEventState.document}.
        """
        key = _key(aor, package)
        document = self._documents.get(key)
        if document is None:
            now = self._now()
            live = [each for each in self._records.get(key, ()) if not each.removed and each.expires_at > now]
            live.sort(key=_age, reverse=True)
            form = PACKAGES[package]
            body = form.compose(aor, [each.body for each in live])
            document = EventDocument(form.content_type, body, form.version_at(body))
            if live:
                self._documents[key] = document
        return document

    def watch(self, listener: IEventStateListener) -> None:
        """
        See L{IEventState.watch}.
        """
        self._state_listeners.append(IEventStateListener(listener))

    # IPublicationStore

    def watch_publications(self, listener: IPublicationListener) -> None:
        """
        See L{IPublicationStore.watch_publications}.
        """
        self._publication_listeners.append(IPublicationListener(listener))

    def records(self, aor: str, event: str) -> Records:
        """
        See L{IPublicationStore.records}.
        """
        return self._records.get(_key(aor, event), ())

    def page(self, cursor: tuple[tuple[str, ...], int] | None) -> PublicationPage:
        """
        See L{IPublicationStore.page}. The names of all are taken at the first page, as for bindings.
        """
        keys, start = cursor or (tuple(self._records), 0)
        end = start + PAGE_SIZE
        return PublicationPage([_apart(key) for key in keys[start:end]], (keys, end) if end < len(keys) else None)

    def update(
        self, aor: str, event: str, decide: DecidePublications, origin: Origin
    ) -> tuple[PublicationChange, ...]:
        """
        See L{IPublicationStore.update}.
        """
        key = _key(aor, event)
        now = self._now()
        before = self._records.get(key, ())
        if before and _earliest(before) <= now:
            self._expire(key)
            before = self._records.get(key, ())
        after = tuple(decide(before))
        if after and _earliest(after) <= now:  # from another node's clock: what is over already is not stored
            after = tuple([each for each in after if each.expires_at > now])
        changes = _changes(before, after, origin)
        if changes:
            self._put(key, before, after)
            self._tell(key, changes, origin)
        return changes

    def _put(self, key: str, before: Records, after: Records) -> None:
        """
        Store the records of a presentity, and keep counts and buckets in step.

        @raise RequestRefused: 503: no room.
        """
        removed = sum([each.removed for each in before])
        kept = sum([each.removed for each in after])
        more = (len(after) - kept) - (len(before) - removed)
        if more > 0 and self._live + more > self._max_publications:
            raise refuse.service_unavailable()
        if kept > max(self._max_tombstones - self._tombstones + removed, 0):
            after = tuple([each for each in after if not each.removed])
            kept = 0
        self._live += more
        self._tombstones += kept - removed
        was = _earliest(before) if before else 0
        due = 0
        if after:
            self._records[key] = after
            due = _earliest(after)
        else:
            self._records.pop(key, None)
        if due != was:
            self._expiry.move(key, was, due)

    def _tell(self, key: str, changes: Sequence[PublicationChange], origin: Origin) -> None:
        aor, event = _apart(key)
        is_other = any(change.changes_state for change in changes)
        if is_other:
            self._documents.pop(key, None)
        for change in changes:
            for listener in self._publication_listeners:
                try:
                    listener.publication_changed(change)
                except Exception:  # noqa: BLE001 - what is stored is stored, and the others shall hear of it
                    log.failure("a listener failed on {aor}", aor=aor)
        if is_other:
            for watcher in self._state_listeners:
                try:
                    watcher.state_changed(aor, event, origin)
                except Exception:  # noqa: BLE001 - as above
                    log.failure("a watcher failed on {aor}", aor=aor)

    # expiry

    def _expire(self, key: str) -> None:
        """
        Remove what has expired of one presentity, and tell.
        """
        now = self._now()
        before = self._records.get(key, ())  # a listener may have removed it in this very second
        after = tuple([each for each in before if each.expires_at > now])
        if len(after) == len(before):
            return
        if self._forget_after:
            after += tuple([
                laid_to_rest(each, each.known_until, int(now), self._forget_after)
                for each in before
                if each.known_until > now >= each.expires_at and not each.removed
            ])
        self._put(key, before, after)
        gone = [
            PublicationChange(each, each, Origin.EXPIRED)
            for each in before
            if each.expires_at <= now and not each.removed
        ]
        if gone:
            self._tell(key, gone, Origin.EXPIRED)

    def stop(self) -> None:
        """
        Stop the timer; nothing expires any more.
        """
        self._expiry.stop()


def _changes(before: Records, after: Records, origin: Origin) -> tuple[PublicationChange, ...]:
    """
    What differs between two states of a presentity. Records that C{decide} did not touch are the same objects.
    """
    previous = {record.ruid: record for record in before}
    changes = []
    for record in after:
        old = previous.pop(record.ruid, None)
        if old is not record and old != record:
            changes.append(PublicationChange(record, old, origin))
    for gone in previous.values():
        changes.append(PublicationChange(gone._replace(removed=True), gone, origin))
    return tuple(changes)
