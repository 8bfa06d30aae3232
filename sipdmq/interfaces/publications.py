"""
Between whoever keeps what phones have published (L{sipdmq.presence}) and whoever replicates it (L{sipdmq.dmq}): the
values that go from one to the other, and the seams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from zope.interface import Attribute, Interface

from sipdmq.interfaces.messages import ITransactionUser
from sipdmq.records import Origin

__all__ = [
    "DecidePublications",
    "IPublicationListener",
    "IPublicationStore",
    "IPublisher",
    "Publication",
    "PublicationChange",
    "PublicationPage",
]


class Publication(NamedTuple):
    """
    One document that was published for a presentity (RFC 3903), or the memory that it was removed.

    @ivar aor: of the presentity, canonical: C{"alice@example.org"}.
    @ivar event: the event package, C{"presence"}.
    @ivar ruid: names the publication through all its refreshes and modifications; not the same on all nodes where a
        Kamailio changed it.
    @ivar etag: its entity tag; of a removed one the last that it had.
    @ivar previous: the tag before that; empty for an initial publication.
    @ivar version: how often it was changed, as the number at the end of the tag counts it: of a removed one that number
        plus one.
    @ivar recv: seconds since the epoch, when the PUBLISH came.
    @ivar expires_at: seconds since the epoch; of a removed one, until when it is remembered.
    @ivar user: how the user of the presentity is written among the nodes; so C{domain}.
    @ivar body: the document, as it was published.
    @ivar sender: another node's, kept.
    @ivar removed: this is a tombstone.
    @ivar told_by: the node that was the last to change it, as L{Binding.told_by<sipdmq.records.Binding>}; empty: this
        one.
    @ivar known_until: the latest C{expires_at} that any version of it was known to have; 0: its own.
    """

    aor: str
    event: str
    ruid: str
    etag: str
    previous: str
    version: int
    recv: int
    expires_at: int
    user: str
    domain: str
    body: bytes
    sender: str = ""
    removed: bool = False
    told_by: str = ""
    known_until: int = 0

    @property
    def last_modified(self) -> int:
        """
        When it was changed, as L{Binding.last_modified<sipdmq.records.Binding>}.
        """
        return self.recv

    @property
    def is_hidden(self) -> bool:
        """
        As L{Binding.is_hidden<sipdmq.records.Binding>}: there is no such thing here.
        """
        return False


class PublicationChange(NamedTuple):
    """
    One publication that changed.

    @ivar publication: as it is now; C{removed} for a removal, C{expires_at} past for an expiry.
    @ivar previous: as it was, L{None} if there was none.
    """

    publication: Publication
    previous: Publication | None
    origin: Origin

    @property
    def is_gone(self) -> bool:
        """
        Whether the document does not count any more.
        """
        return self.publication.removed or self.origin is Origin.EXPIRED

    @property
    def changes_state(self) -> bool:
        """
        Whether watchers can see a difference: a refresh makes none.
        """
        before, after = self.previous, self.publication
        was_there = before is not None and not before.removed
        is_there = not self.is_gone
        return was_there != is_there or (is_there and before is not None and before.body != after.body)


class PublicationPage(NamedTuple):
    """
    A part of the store.

    @ivar presentities: C{(aor, event)} each.
    @ivar cursor: for the next page; L{None} after the last one.
    """

    presentities: Sequence[tuple[str, str]]
    cursor: tuple[tuple[str, ...], int] | None


DecidePublications = Callable[[tuple[Publication, ...]], Sequence[Publication]]
"""
What L{IPublicationStore.update} is given: a pure function of all records of a presentity in one package to what they
shall be. It may raise, and then nothing changes.
"""


class IPublicationStore(Interface):
    """
    What is published at this node and, in a cluster, at others. It is in memory and answers at once: a watcher that
    subscribes is told the state in the same moment.
    """

    def records(aor, event):
        """
        All records of a presentity in one package, tombstones among them.

        @return: a tuple of L{Publication}.
        """

    def update(aor, event, decide, origin):
        """
        Change the records of a presentity.

        @param decide: L{DecidePublications}.
        @param origin: L{Origin<sipdmq.records.Origin>}
        @return: a tuple of L{PublicationChange}: what has changed.
        @raise RequestRefused: 503: there would be more publications than this node may have; nothing was changed. So
            for what C{decide} raises.
        """

    def page(cursor):
        """
        All presentities, some at a time.

        @param cursor: L{None}, or that of the page before.
        @return: L{PublicationPage}
        """

    def watch_publications(listener):
        """
        @param listener: L{IPublicationListener}, told of every change from now on.
        """


class IPublicationListener(Interface):
    """
    Wants to know what is published.
    """

    def publication_changed(change):
        """
        Told after it happened.

        @param change: L{PublicationChange}
        """


class IPublisher(ITransactionUser):
    """
    Takes PUBLISH requests: Kamailio's C{handle_publish()}.
    """

    published = Attribute(
        "Called with the L{IServerTransaction<sipdmq.interfaces.messages.IServerTransaction>} of each PUBLISH of a "
        "phone that was stored, when it has been answered, and its L{PublicationChange}; C{None}: nobody wants to know."
    )

    def publish(transaction, request):
        """
        Do what a PUBLISH says, and answer it.

        @param request: the L{Request<sipdmq.sip.message.Request>} of the transaction, our own Routes taken out of it.
        @return: the L{PublicationChange} that it made; L{None}: none, as it was over when it came.
        @raise RequestRefused: nothing was changed; so for ParseError.
        """

    def copy_received(transaction, aor, decide=None):
        """
        A PUBLISH that another node has taken and sent on (WIRE §12): it is stored as L{Origin.REPLICATED
        <sipdmq.records.Origin>}, and answered.

        @param aor: of the presentity.
        @param decide: what to make of its records, L{DecidePublications}, if the other node says so; C{None}: what a
            PUBLISH of a phone would make of them.
        @raise RequestRefused: nothing was changed; so for ParseError.
        """
