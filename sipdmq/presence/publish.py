"""
PUBLISH as a transaction user: reads it, has the store decide, answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zope.interface import implementer

from sipdmq.core import refuse
from sipdmq.core.domains import Domains
from sipdmq.errors import ParseError
from sipdmq.interfaces.messages import IServerTransaction
from sipdmq.interfaces.publications import (
    DecidePublications,
    IPublicationStore,
    IPublisher,
    Publication,
    PublicationChange,
)
from sipdmq.presence.publications import PublicationLimits, Publish, apply_publish, read_publish
from sipdmq.records import Origin, Source
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request, response_to

__all__ = ["Publisher"]


@implementer(IPublisher)
class Publisher:
    """
    The event state compositor of RFC 3903.

    @ivar published: called with the transaction and the L{PublicationChange} when a phone's PUBLISH was stored and
        answered; L{None}: nobody wants to know.
    """

    def __init__(
        self,
        store: IPublicationStore,
        domains: Domains,
        limits: PublicationLimits,
        ids: Ids,
        now: Callable[[], float],
    ) -> None:
        """
        @param now: the time, seconds since the epoch.
        """
        self._store = IPublicationStore(store)
        self._domains = domains
        self._limits = limits
        self._ids = ids
        self._now = now
        self.published: Callable[[IServerTransaction, PublicationChange], object] | None = None

    def request_received(self, transaction: IServerTransaction) -> None:
        """
        See L{ITransactionUser.request_received<sipdmq.interfaces.messages.ITransactionUser.request_received>}.

        @raise RequestRefused: nothing was changed; so for ParseError.
        """
        self.publish(transaction, transaction.request)

    def publish(self, transaction: IServerTransaction, request: Request) -> PublicationChange | None:
        """
        See L{IPublisher.publish}.
        """
        if transaction.is_merged():
            raise refuse.merged_request()
        aor = self._domains.aor_of(request.uri)
        if aor is None:
            raise refuse.not_found()
        publish = read_publish(request, aor, self._limits)
        changes = self._apply(transaction, publish, self._limits, Origin.LOCAL)
        change = next((each for each in changes if each.origin is Origin.LOCAL), None)
        if change is not None and self.published is not None:
            self.published(transaction, change)
        return change

    def _apply(
        self, transaction: IServerTransaction, publish: Publish, limits: PublicationLimits, origin: Origin
    ) -> tuple[PublicationChange, ...]:
        now = int(self._now())
        etag = ""

        def decide(records: tuple[Publication, ...]) -> Sequence[Publication]:
            nonlocal etag
            kept, written = apply_publish(records, publish, now, limits, self._ids.ruid)
            etag = written.etag
            return kept

        changes: tuple[PublicationChange, ...] = self._store.update(publish.aor, publish.event, decide, origin)
        self._answer(transaction, publish.expires_in, etag)
        return changes

    def _answer(self, transaction: IServerTransaction, expires_in: int, etag: str) -> None:
        """
        200 with the entity tag (RFC 3903 §6 step 7).
        """
        headers = [("SIP-ETag", etag), ("Expires", str(expires_in))]
        transaction.respond(response_to(transaction.request, 200, self._ids.tag(), headers))

    def copy_received(
        self, transaction: IServerTransaction, aor: str, decide: DecidePublications | None = None
    ) -> None:
        """
        See L{IPublisher.copy_received}.
        """
        if transaction.is_merged():
            raise refuse.merged_request()
        limits = self._limits._replace(min_expires=0)
        publish = read_publish(transaction.request, aor, limits)
        if decide is None:
            self._apply(transaction, publish, limits, Origin.REPLICATED)
        else:
            self._store.update(aor, publish.event, decide, Origin.REPLICATED)
            self._answer(transaction, publish.expires_in, self._ids.ruid())  # to a node, which does not look at it

    # the rest of ITransactionUser

    def malformed_request(self, error: ParseError, source: Source) -> None:
        """
        See L{ITransactionUser<sipdmq.interfaces.messages.ITransactionUser>}: the dispatcher's.
        """

    def ack_received(self, request: Request, source: Source) -> None:
        """
        There is none for a PUBLISH.
        """

    def cancelled(self, transaction: IServerTransaction) -> None:
        """
        A PUBLISH cannot be cancelled (RFC 3261 §9.1).
        """

    def response_lost(self, transaction: IServerTransaction, reason: str) -> None:
        """
        The phone will ask again.
        """
