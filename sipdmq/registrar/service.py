"""
The registrar as a transaction user: reads a REGISTER, has the store decide, answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from email.utils import formatdate
from functools import lru_cache

from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from sipdmq.core import refuse
from sipdmq.core.domains import Domains, aor_in
from sipdmq.errors import ParseError, RequestRefused
from sipdmq.interfaces.location import ILocationStore
from sipdmq.interfaces.messages import IServerTransaction
from sipdmq.interfaces.replication import IRegistrar
from sipdmq.records import Binding, Decide, Listener, Origin, Source, Update
from sipdmq.registrar.bindings import Register, RegisterLimits, Way, apply_register, format_contact, read_register
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request, response_to
from sipdmq.sip.uri import DEFAULT_PORT, format_host

__all__ = ["Registrar", "way_of"]

log = Logger()


def way_of(request: Request, source: Source) -> Way:
    """
    How requests get back to whoever sent a REGISTER: C{received} where its Via tells another address than it came from,
    the listener, and the connection.
    """
    via = request.top_via
    host = source.host.partition("%")[0]  # the zone of a link-local address is no part of a URI
    received = ""
    if source.flow or via.host != host or (via.port or DEFAULT_PORT) != source.port:
        received = f"sip:{format_host(host)}:{source.port}"
        if source.flow:
            received = f"{received};transport={source.protocol.name.lower()}"
    return Way(received, _name_of(source.listener), source.flow)


@lru_cache(maxsize=64)
def _name_of(listener: Listener) -> str:
    """
    One string for all bindings that came by a listener.
    """
    return str(listener)


class Registrar:
    """
    RFC 3261 §10.3.

    @ivar registered: called with the transaction when a phone's REGISTER was stored and answered; L{None}: nobody
        wants to know.
    """

    def __init__(
        self,
        store: ILocationStore,
        domains: Domains,
        limits: RegisterLimits,
        ids: Ids,
        now: Callable[[], float],
    ) -> None:
        """
        @param now: the time, seconds since the epoch.
        """
        self._store = ILocationStore(store)
        self._domains = domains
        self._limits = limits
        self._ids = ids
        self._now = now
        self._date = ("Date", "")
        self._date_second = -1
        self.registered: Callable[[IServerTransaction], object] | None = None

    def request_received(self, transaction: IServerTransaction) -> None:
        """
        See L{ITransactionUser.request_received}.

        @raise RequestRefused: before anything was changed; so for ParseError, of a parameter that only we look at.
        """
        request: Request = transaction.request
        if transaction.is_merged():
            raise refuse.merged_request()
        aor = self._aor(request)
        register = read_register(request, aor, self._limits, way_of(request, transaction.source))
        if register.is_query:
            self._store.lookup(aor).addCallbacks(
                self._answer, self._fail, (transaction, register), None, (transaction,), None
            )
            return
        now = int(self._now())
        done = self._store.update(
            aor,
            lambda records: apply_register(records, register, now, self._limits, self._ids.ruid),
            Origin.LOCAL,
        )
        if isinstance(done, Update):
            self._updated(done, transaction, register)
        else:
            done.addCallbacks(self._updated, self._fail, (transaction, register), None, (transaction,), None)

    def copy_received(
        self,
        transaction: IServerTransaction,
        aor: str,
        received: str,
        max_contacts: int,
        decide: Decide | None = None,
    ) -> None:
        """
        See L{IRegistrar.copy_received}.
        """
        request: Request = transaction.request
        if transaction.is_merged():
            raise refuse.merged_request()
        limits = self._limits._replace(min_expires=0, max_contacts=max_contacts)
        way = Way(received, _name_of(transaction.source.listener))
        register = read_register(request, aor, limits, way)
        now = int(self._now())

        def apply(records: tuple[Binding, ...]) -> Sequence[Binding]:
            return apply_register(records, register, now, limits, self._ids.ruid)

        def stored(update: Update) -> None:
            self._answer(update.bindings, transaction, register)

        done = self._store.update(aor, decide or apply, Origin.REPLICATED)
        if isinstance(done, Update):
            stored(done)
        else:
            done.addCallbacks(stored, self._fail, None, None, (transaction,), None)

    def _aor(self, request: Request) -> str:
        """
        The address-of-record that is registered (§10.3 step 5): To, in the domain of the Request-URI.
        """
        uri = request.to.uri
        domain = self._domains.domain_of(uri)
        if domain is None or domain != self._domains.domain_of(request.uri):
            raise refuse.not_found()
        aor = aor_in(domain, uri)
        if aor is None:
            raise refuse.not_found()
        return aor

    def _updated(self, update: Update, transaction: IServerTransaction, register: Register) -> None:
        self._answer(update.bindings, transaction, register)
        if self.registered is not None:
            self.registered(transaction)

    def _answer(
        self, bindings: tuple[Binding, ...], transaction: IServerTransaction, register: Register
    ) -> None:
        """
        200 with all bindings (§10.3 step 8) and the Path that was stored (RFC 3327 §5.3).
        """
        now = int(self._now())
        headers = [("Contact", format_contact(binding, now)) for binding in bindings]
        if register.path:
            headers.append(("Path", register.path))
        if now != self._date_second:
            self._date_second = now
            self._date = ("Date", formatdate(now, usegmt=True))
        headers.append(self._date)
        transaction.respond(response_to(transaction.request, 200, self._ids.tag(), headers))

    def _fail(self, failure: Failure, transaction: IServerTransaction) -> None:
        request = transaction.request
        if isinstance(failure.value, RequestRefused):
            response = refuse.answer(request, failure.value, self._ids.tag())
        else:
            log.failure("{request} failed in the location store", failure, request=request)
            response = response_to(request, 500, self._ids.tag())
        transaction.respond(response)

    def malformed_request(self, error: ParseError, source: Source) -> None:
        """
        Not the registrar's.
        """

    def ack_received(self, request: Request, source: Source) -> None:
        """
        Not the registrar's.
        """

    def cancelled(self, transaction: IServerTransaction) -> None:
        """
        A REGISTER cannot be cancelled (§9.1).
        """

    def response_lost(self, transaction: IServerTransaction, reason: str) -> None:
        """
        The phone will ask again.
        """


classImplements(Registrar, IRegistrar)
