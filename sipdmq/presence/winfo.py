"""
The package C{presence.winfo} (RFC 3857): who watches somebody, as watcherinfo documents (RFC 3858).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from zope.interface import implementer

from sipdmq.interfaces.presence import IEventState, IEventStateListener
from sipdmq.presence.subscriptions import State, Subscription
from sipdmq.presence.table import SubscriptionTable
from sipdmq.records import EventDocument, Origin

__all__ = ["CONTENT_TYPE", "PACKAGE", "WatcherInformation", "watcherinfo"]

PACKAGE: Final = "presence.winfo"
CONTENT_TYPE: Final = "application/watcherinfo+xml"
WATCHED: Final = "presence"
MAX_WATCHERS: Final = 250
"""In one document, the latest: more would not fit into a datagram."""

_HEAD: Final = (
    b'<?xml version="1.0" encoding="UTF-8"?>\r\n<watcherinfo xmlns="urn:ietf:params:xml:ns:watcherinfo" version="'
)


def _id(record: Subscription) -> str:
    """
    The name of a watcher in documents: not its tag, which whoever knows it could end the subscription with.
    """
    return hashlib.blake2b(record.tag.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def watcherinfo(presentity: str, records: Iterable[Subscription]) -> EventDocument:
    """
    All watchers of somebody, with their state: a full document. Who has gone is not in it.

    @see: RFC 3858 §4
    """
    lines = []
    for record in records:
        status, event = ("pending", "subscribe") if record.state is State.PENDING else ("active", "approved")
        watcher = escape(f"sip:{record.watcher}")
        lines.append(f'<watcher id="{_id(record)}" status="{status}" event="{event}">{watcher}</watcher>\r\n')
    body = "".join(
        (
            '0" state="full">\r\n',
            f'<watcher-list resource={quoteattr(f"sip:{presentity}")} package="{WATCHED}">\r\n',
            *lines[-MAX_WATCHERS:],
            "</watcher-list>\r\n</watcherinfo>\r\n",
        )
    )
    return EventDocument(CONTENT_TYPE, _HEAD + body.encode("utf-8", "replace"), len(_HEAD))


@implementer(IEventState)
class WatcherInformation:
    """
    Who watches whom, as the table of subscriptions knows it: on every node the same.
    """

    def __init__(self, table: SubscriptionTable) -> None:
        self._table = table
        self._listeners: list[Any] = []

    def packages(self) -> tuple[str, ...]:
        """
        See L{IEventState.packages}.
        """
        return (PACKAGE,)

    def document(self, aor: str, package: str) -> EventDocument:
        """
        See L{IEventState.document}.
        """
        found = [self._table.get(tag) for tag in self._table.of(aor, WATCHED)]
        return watcherinfo(aor, [record for record in found if record is not None])

    def watch(self, listener: IEventStateListener) -> None:
        """
        See L{IEventState.watch}.
        """
        self._listeners.append(IEventStateListener(listener))

    def changed(self, presentity: str, event: str, origin: Origin) -> None:
        """
        Somebody has begun or ceased to watch, or may now: see
        L{Subscriptions.changed<sipdmq.presence.service.Subscriptions>}.
        """
        if event == WATCHED:
            for listener in self._listeners:
                listener.state_changed(presentity, PACKAGE, origin)
