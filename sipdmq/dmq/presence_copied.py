"""
Copies of PUBLISH requests that other nodes have taken (WIRE §12): stored, answered, and not passed on.

A node invents its own entity tag for each publication. So among Kamailios the copy of a refresh fails with 412 on all
nodes but one; a node of ours tells the others its tag (L{sipdmq.dmq.own_headers}).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zope.interface import implementer

from sipdmq.core import refuse
from sipdmq.core.domains import Domains, aor_in
from sipdmq.core.functions import check_required
from sipdmq.dmq.own_headers import read_published
from sipdmq.dmq.presence_form import PresenceForm
from sipdmq.dmq.presence_json import PresentityUpdate
from sipdmq.dmq.presence_merge import MergeLimits, merge
from sipdmq.dmq.screen import Senders
from sipdmq.dmq.usrloc_form import UNKNOWN
from sipdmq.errors import ParseError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import IServerTransaction
from sipdmq.interfaces.publications import (
    DecidePublications,
    IPublisher,
    Publication,
    PublicationChange,
)
from sipdmq.records import Source
from sipdmq.sip.message import Request
from sipdmq.sip.uri import SipURI

__all__ = ["PublishCopyReceiver"]


@implementer(IPublisher, IInspectable)
class PublishCopyReceiver:
    """
    In front of the publisher: takes what came from a node, leaves to it what came from phones.
    """

    def __init__(
        self,
        now: Callable[[], float],
        publisher: IPublisher,
        domains: Domains,
        senders: Senders,
        form: PresenceForm,
        limits: MergeLimits,
    ) -> None:
        """
        @param now: the time, seconds since the epoch.
        @param form: how publications are told of.
        @param limits: of what other nodes may tell.
        """
        self._now = now
        self._publisher = IPublisher(publisher)
        self._domains = domains
        self._senders = senders
        self._form = form
        self._limits = limits
        self._received = 0

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {"presence.copies_received": self._received}

    @property
    def published(self) -> Any:
        """
        See L{IPublisher.published}: of the phones at this node.
        """
        return self._publisher.published

    def request_received(self, transaction: IServerTransaction) -> None:
        """
        See L{IPublisher.request_received}.

        @raise RequestRefused: nothing was changed; so for ParseError.
        """
        self.publish(transaction, transaction.request)

    def publish(self, transaction: IServerTransaction, request: Request) -> PublicationChange | None:
        """
        See L{IPublisher.publish}: a copy makes no change that other nodes are to be told.
        """
        if self._senders.came_by_node(request, transaction.source):
            check_required(request)
            aor = self._aor(request)
            told = read_published(request)
            self._received += 1
            decide = None if told is None else self._decision(told, aor, request.body)
            self.copy_received(transaction, aor, decide)
            return None
        change: PublicationChange | None = self._publisher.publish(transaction, request)
        return change

    def copy_received(
        self, transaction: IServerTransaction, aor: str, decide: DecidePublications | None = None
    ) -> None:
        """
        See L{IPublisher.copy_received}.
        """
        self._publisher.copy_received(transaction, aor, decide)

    def _aor(self, request: Request) -> str:
        """
        A node's address stands for our first domain, as ours does: the phone has published there by address.
        """
        uri = request.uri
        domain = self._domains.domain_of(uri)
        if domain is None and isinstance(uri, SipURI) and self._senders.is_node_at(uri.host, uri.port):
            domain = self._domains.main
        aor = None if domain is None else aor_in(domain, uri)
        if aor is None:
            raise refuse.not_found()
        return aor

    def _decision(self, told: PresentityUpdate, aor: str, body: bytes) -> DecidePublications:
        """
        What to make of the records of a presentity when the other node says what it has made of its own.
        """
        now = int(self._now())
        incoming = self._form.publication(told, now, False, UNKNOWN)._replace(aor=aor)
        if not incoming.removed:
            incoming = incoming._replace(body=body)

        def decide(records: tuple[Publication, ...]) -> Sequence[Publication]:
            merged = merge(records, incoming, bool(body), now, self._limits)
            if merged.refused:
                raise refuse.forbidden(merged.refused)
            if not body and not incoming.removed and merged.records is records and merged.winner is None:
                raise refuse.conditional_request_failed()  # its document did not come here
            return merged.records

        return decide

    # the rest of ITransactionUser

    def malformed_request(self, error: ParseError, source: Source) -> None:
        """
        See L{IPublisher}: the dispatcher's.
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
        It went to a node, which does not mind.
        """
