"""
Copies of REGISTERs that other nodes have accepted (WIRE §12): stored, answered, and not passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from sipdmq.core import refuse
from sipdmq.core.domains import Domains, aor_in
from sipdmq.core.functions import check_required
from sipdmq.core.refusals import Refusals
from sipdmq.dmq.conflict import Limits, merge
from sipdmq.dmq.lines import numeric_host
from sipdmq.dmq.own_headers import read_registered
from sipdmq.dmq.screen import Senders
from sipdmq.dmq.usrloc_form import UsrlocForm
from sipdmq.errors import ParseError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import IServerTransaction, ITransactionUser
from sipdmq.interfaces.replication import IRegistrar
from sipdmq.records import Binding, Decide, Source
from sipdmq.sip.fields import Via
from sipdmq.sip.message import Request
from sipdmq.sip.uri import DEFAULT_PORT, URI, SipURI, format_host

__all__ = ["CopyReceiver", "received_of"]


def received_of(via: Via) -> str:
    """
    Where a phone's REGISTER came from, as the node that got it has written into the phone's Via.

    @return: C{"sip:192.0.2.7:5062"}; empty if that is where the phone says it is, or if it came over a connection,
        which only that node has.
    """
    if via.transport != "UDP":
        return ""
    host = numeric_host(via.params.get("received") or via.host)
    rport = via.params.get("rport")
    port = via.port or DEFAULT_PORT
    seen_port = int(rport or 0) or port  # the parser has looked at it
    if not host or (host == via.host and seen_port == port):
        return ""
    return f"sip:{format_host(host)}:{seen_port}"


@implementer(ITransactionUser, IInspectable)
class CopyReceiver:
    """
    In front of the registrar: takes what came from a node, leaves to it what came from phones.
    """

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        registrar: IRegistrar,
        domains: Domains,
        senders: Senders,
        form: UsrlocForm,
        limits: Limits,
    ) -> None:
        """
        @param now: the time, seconds since the epoch.
        @param form: how records are told of.
        @param limits: of what other nodes may tell.
        """
        self._now = now
        self._registrar = IRegistrar(registrar)
        self._domains = domains
        self._senders = senders
        self._form = form
        self._limits = limits
        self._received = 0
        self._refusals = Refusals(clock, "a record in a copy")

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {"dmq.copies_received": self._received, "dmq.copies_refused": self._refusals.count}

    def request_received(self, transaction: IServerTransaction) -> None:
        """
        See L{ITransactionUser.request_received}.

        @raise RequestRefused: before anything was changed; so for ParseError.
        """
        request: Request = transaction.request
        if not self._senders.came_by_node(request, transaction.source):
            self._registrar.request_received(transaction)
            return
        check_required(request)
        aor = self._aor(request.to.uri)
        if aor is None or self._aor(request.uri, is_domain=True) is None:
            raise refuse.not_found()
        self._received += 1
        self._registrar.copy_received(
            transaction,
            aor,
            received_of(self._senders.phone_via(request)),
            self._limits.contacts,
            self._told(request, aor, transaction.source),
        )

    def _aor(self, uri: URI, is_domain: bool = False) -> str | None:
        """
        A node's address stands for our first domain, as ours does: the phone has registered there by address.

        @param is_domain: only whether it is ours matters, there need be no user.
        """
        domain = self._domains.domain_of(uri)
        if domain is None and isinstance(uri, SipURI) and self._senders.is_node_at(uri.host, uri.port):
            domain = self._domains.main
        if domain is None or is_domain:
            return domain
        return aor_in(domain, uri)

    def _told(self, request: Request, aor: str, source: Source) -> Decide | None:
        """
        What to make of the records of an AoR, if the other node says what it has made of its own.
        """
        told, faults = read_registered(request, self._form, aor, self._senders.teller_at(source.host))
        for fault in faults:
            self._refusals.add(source, fault)
        if not told:
            return None
        now = int(self._now())

        def decide(records: tuple[Binding, ...]) -> Sequence[Binding]:
            kept: Sequence[Binding] = records
            for each in told:
                merged = merge(kept, each, now, self._limits, self._form.content)
                kept = merged.records
                if merged.refused:
                    self._refusals.add(source, merged.refused)
            return kept

        return decide

    def malformed_request(self, error: ParseError, source: Source) -> None:
        """
        See L{ITransactionUser.malformed_request}: the dispatcher's.
        """

    def ack_received(self, request: Request, source: Source) -> None:
        """
        See L{ITransactionUser.ack_received}: there is none for a REGISTER.
        """

    def cancelled(self, transaction: IServerTransaction) -> None:
        """
        See L{ITransactionUser.cancelled}: a REGISTER cannot be.
        """

    def response_lost(self, transaction: IServerTransaction, reason: str) -> None:
        """
        See L{ITransactionUser.response_lost}: to a node, which does not mind.
        """
