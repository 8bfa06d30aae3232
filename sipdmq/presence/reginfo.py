"""
The package C{reg} (RFC 3680): where somebody is registered, as reginfo documents.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from twisted.internet.defer import Deferred
from zope.interface import implementer

from sipdmq.interfaces.location import IBindingListener, ILocationStore
from sipdmq.interfaces.presence import IEventState, IEventStateListener
from sipdmq.records import Binding, BindingChange, EventDocument, Origin
from sipdmq.sip.fields import q_text

__all__ = ["CONTENT_TYPE", "PACKAGE", "Gone", "RegistrationState", "reginfo"]

PACKAGE: Final = "reg"
CONTENT_TYPE: Final = "application/reginfo+xml"
MAX_CONTACTS: Final = 50
"""In one document: more might not fit into a datagram."""
SHOWN_FOR: Final = 10
"""Seconds for which documents still show a contact that is gone: once is enough, but a watcher may have to wait."""
MAX_GONE: Final = 10_000
MAX_KNOWN: Final = 10_000

_HEAD: Final = b'<?xml version="1.0" encoding="UTF-8"?>\r\n<reginfo xmlns="urn:ietf:params:xml:ns:reginfo" version="'


class Gone(NamedTuple):
    """
    A contact that is no longer registered.

    @ivar event: why: C{unregistered} or C{expired}.
    """

    binding: Binding
    event: str


def reginfo(aor: str, bindings: Iterable[Binding], gone: Iterable[Gone], now: int) -> EventDocument:
    """
    The registration of a user: a full document.

    @param bindings: the live ones.
    @param gone: which were live a moment ago, to say so.
    @see: RFC 3680 §5
    """
    contacts = [
        _contact(binding, "active", "registered", f' expires="{max(0, binding.expires_at - now)}"')
        for binding in list(bindings)[:MAX_CONTACTS]
    ]
    state = "active" if contacts else "terminated" if (gone := list(gone)) else "init"
    contacts += [_contact(each.binding, "terminated", each.event, "") for each in list(gone)[-MAX_CONTACTS:]]
    name = hashlib.blake2b(aor.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    body = "".join(
        (
            '0" state="full">\r\n',
            f'<registration aor={quoteattr(f"sip:{aor}")} id="{name}" state="{state}">\r\n',
            *contacts,
            "</registration>\r\n</reginfo>\r\n",
        )
    )
    return EventDocument(CONTENT_TYPE, _HEAD + body.encode("utf-8", "replace"), len(_HEAD))


def _contact(binding: Binding, state: str, event: str, expires: str) -> str:
    q = "" if binding.q < 0 else f' q="{q_text(binding.q)}"'
    return (
        f'<contact id={quoteattr(binding.ruid)} state="{state}" event="{event}"{expires}{q}>\r\n'
        f"<uri>{escape(binding.contact)}</uri>\r\n</contact>\r\n"
    )


def _is_news(change: BindingChange) -> bool:
    """
    Whether a change is one for watchers: a refresh is none, they would get a NOTIFY for each REGISTER.
    """
    old, new = change.previous, change.binding
    if change.is_gone:
        return old is not None and not old.removed
    return old is None or old.removed or (old.contact, old.q) != (new.contact, new.q)


@implementer(IEventState, IBindingListener)
class RegistrationState:
    """
    Who is registered where, as the location store knows it.
    """

    def __init__(
        self, store: ILocationStore, now: Callable[[], float], is_watched: Callable[[str], object]
    ) -> None:
        """
        @param is_watched: whether somebody watches an AoR: nothing is kept for others.
        """
        self._store = ILocationStore(store)
        self._now = now
        self._is_watched = is_watched
        self._gone: deque[tuple[int, str, Gone]] = deque()
        self._known: dict[str, tuple[Binding, ...]] = {}  # what had to be waited for, until it changes
        self._listeners: list[Any] = []
        self._store.watch(self)

    def packages(self) -> tuple[str, ...]:
        """
        See L{IEventState.packages}.
        """
        return (PACKAGE,)

    def document(self, aor: str, package: str) -> EventDocument:
        """
        See L{IEventState.document}. Where the store has to look it up nobody waits: it is a change when it is known.
        """
        found = self._known.get(aor)
        if found is None:
            looking: Deferred[tuple[Binding, ...]] = self._store.lookup(aor)
            result = looking.result if looking.called else None
            found = result if isinstance(result, tuple) else ()
            if not looking.called:
                looking.addCallbacks(self._came, lambda _: None, (aor,))
        now = int(self._now())
        self._forget(now)
        live = {binding.ruid for binding in found}
        gone = {
            each.binding.ruid: each
            for _, name, each in self._gone
            if name == aor and each.binding.ruid not in live
        }
        return reginfo(aor, found, gone.values(), now)

    def _came(self, found: tuple[Binding, ...], aor: str) -> None:
        if len(self._known) >= MAX_KNOWN:
            self._known.pop(next(iter(self._known)))
        self._known[aor] = found
        self._tell(aor, Origin.LOCAL)

    def _forget(self, now: int) -> None:
        while self._gone and (self._gone[0][0] < now or len(self._gone) > MAX_GONE):
            self._gone.popleft()

    def watch(self, listener: IEventStateListener) -> None:
        """
        See L{IEventState.watch}.
        """
        self._listeners.append(IEventStateListener(listener))

    def binding_changed(self, change: BindingChange) -> None:
        """
        See L{IBindingListener.binding_changed}.
        """
        aor = change.binding.aor
        self._known.pop(aor, None)
        if not self._is_watched(aor) or not _is_news(change):
            return
        if change.is_gone and change.previous is not None:
            now = int(self._now())
            event = "expired" if change.origin is Origin.EXPIRED else "unregistered"
            self._gone.append((now + SHOWN_FOR, aor, Gone(change.previous, event)))
            self._forget(now)
        self._tell(aor, change.origin)

    def _tell(self, aor: str, origin: Origin) -> None:
        for listener in self._listeners:
            listener.state_changed(aor, PACKAGE, origin)
