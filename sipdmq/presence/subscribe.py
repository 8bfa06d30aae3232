"""
SUBSCRIBE as its transaction user sees it: reads it, has it decided on, answers it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from zope.interface import implementer

from sipdmq.core import refuse
from sipdmq.core.domains import Domains
from sipdmq.errors import ParseError, RequestRefused
from sipdmq.interfaces.messages import IServerTransaction
from sipdmq.interfaces.presence import ISubscriptionServer
from sipdmq.presence.notifier import Contacts, Notifier
from sipdmq.presence.service import Subscriptions
from sipdmq.presence.states import EventStates
from sipdmq.presence.subscriptions import (
    State,
    SubscribeLimits,
    Subscription,
    Way,
    accepts,
    begin,
    read_event,
    read_subscribe,
    refresh,
)
from sipdmq.presence.table import SubscriptionTable
from sipdmq.records import Listener, Source
from sipdmq.sip.event import parse_event
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Request, response_to
from sipdmq.sip.uri import DEFAULT_PORT, SipURI, format_host

__all__ = ["SubscriptionServer", "way_of"]


def way_of(request: Request, source: Source) -> Way:
    """
    How NOTIFYs get back to whoever sent a SUBSCRIBE: over his connection, or to the address that his datagram came
    from, where his Contact names another one. Through proxies that stay in the dialog: by its route set.
    """
    socket = _name_of(source.listener)
    first = request.headers.first
    if "record-route" in first or "," in first["via"] or request.headers.is_repeated("via"):
        return Way("", socket, "")
    if source.flow:
        return Way("", socket, source.flow)
    contacts = request.contacts
    uri = contacts[0].uri if contacts else None
    if isinstance(uri, SipURI) and uri.host == source.host and (uri.port or DEFAULT_PORT) == source.port:
        return Way("", socket, "")
    return Way(f"sip:{format_host(source.host.partition('%')[0])}:{source.port}", socket, "")


@lru_cache(maxsize=64)
def _name_of(listener: Listener) -> str:
    """
    One string for all subscriptions that came by a listener.
    """
    return str(listener)


@implementer(ISubscriptionServer)
class SubscriptionServer:
    """
    RFC 6665 §4.2: the notifier's side of SUBSCRIBE.
    """

    def __init__(
        self,
        table: SubscriptionTable,
        subscriptions: Subscriptions,
        notifier: Notifier,
        states: EventStates,
        contacts: Contacts,
        domains: Domains,
        limits: SubscribeLimits,
        ids: Ids,
        now: Callable[[], float],
        may_watch: Callable[[str, str, str], object],
    ) -> None:
        """
        @param may_watch: given watcher, presentity and event package, says whether he may: true, false, or
            C{"pending"}: he is told nothing, until he asks again and gets another answer.
        """
        self._table = table
        self._subscriptions = subscriptions
        self._notifier = notifier
        self._states = states
        self._contacts = contacts
        self._domains = domains
        self._limits = limits
        self._ids = ids
        self._now = now
        self._may_watch = may_watch

    def serves(self, request: Request) -> bool:
        """
        See L{ISubscriptionServer.serves}.
        """
        if request.to.tag:
            return self._table.get(request.to.tag) is not None
        if self._domains.aor_of(request.uri) is None:
            return False
        value = request.headers.first.get("event")
        return value is not None and parse_event(value).package in self._states.packages

    def subscribe(self, transaction: IServerTransaction, request: Request, watcher: str) -> None:
        """
        See L{ISubscriptionServer.subscribe}.
        """
        if request.to.tag:
            self.request_received(transaction)
            return
        read_event(request, self._states.packages)
        presentity = self._domains.aor_of(request.uri)
        if presentity is None:
            raise refuse.not_found()
        subscribe = read_subscribe(request, self._states.packages, self._limits)
        if transaction.is_merged():
            raise refuse.merged_request()
        package = subscribe.event.package
        state = self._state_for(watcher, presentity, package)
        if state is State.TERMINATED:
            raise refuse.forbidden("May Not Watch")
        if not accepts(request, self._states.document(presentity, package).content_type):
            raise RequestRefused(406)
        self._table.check_room(presentity, package, watcher)
        if self._notifier.is_busy:
            raise refuse.service_unavailable()
        record = begin(
            request,
            subscribe,
            presentity,
            watcher,
            state,
            self._ids.tag(),
            way_of(request, transaction.source),
            int(self._now()),
            self._subscriptions.local,
        )
        self._accept(transaction, record, subscribe.expires_in)
        if subscribe.expires_in:
            self._subscriptions.begun(record)
        else:
            self._notifier.finish(record, "timeout")

    def request_received(self, transaction: IServerTransaction) -> None:
        """
        See L{ITransactionUser.request_received}: a SUBSCRIBE to our Contact, within a dialog. The
        policy is asked at each refresh anew: what it has allowed once it may forbid, and what was pending grant.

        @raise RequestRefused: nothing was changed: 481 for a dialog or a subscription that we do not know.
        """
        request: Request = transaction.request
        tag = request.to.tag
        if not tag:
            read_event(request, self._states.packages)
            raise refuse.not_found()  # the server itself is nobody to watch
        record = self._table.get(tag)
        if record is None or record.state is State.TERMINATED or not record.is_of(request.call_id, request.from_.tag):
            raise refuse.no_such_dialog()
        subscribe = read_subscribe(request, self._states.packages, self._limits)
        if (record.event, record.event_id) != subscribe.event:
            raise refuse.no_such_dialog()  # RFC 6665 §4.5.2: a dialog has one subscription
        state: State = record.state
        if subscribe.expires_in:
            state = self._state_for(record.watcher, record.presentity, record.event)
        record = refresh(
            record, subscribe, state, way_of(request, transaction.source), int(self._now()), self._subscriptions.local
        )
        if state is State.TERMINATED:
            transaction.respond(refuse.answer(request, refuse.forbidden("May Not Watch"), record.tag))
            self._subscriptions.ended(record, "rejected")
            return
        self._accept(transaction, record, subscribe.expires_in)
        if subscribe.expires_in:
            self._subscriptions.begun(record)
        else:
            self._subscriptions.ended(record, "timeout")

    def _state_for(self, watcher: str, presentity: str, package: str) -> State:
        """
        What the policy lets a subscription be now; L{State.TERMINATED}: none.
        """
        verdict = self._may_watch(watcher, presentity, package)
        if not verdict:
            return State.TERMINATED
        return State.PENDING if verdict == "pending" else State.ACTIVE

    def _accept(self, transaction: IServerTransaction, record: Subscription, expires_in: int) -> None:
        """
        200 (RFC 6665 §4.2.1.1), with what makes the dialog.
        """
        request: Request = transaction.request
        headers = [("Record-Route", value) for value in request.headers.get_all("record-route")]
        headers += [("Contact", self._contacts.of(record)), ("Expires", str(expires_in))]
        transaction.respond(response_to(request, 200, record.tag, headers))

    # the rest of ITransactionUser

    def malformed_request(self, error: ParseError, source: Source) -> None:
        """
        See L{ITransactionUser.malformed_request}: the dispatcher's.
        """

    def ack_received(self, request: Request, source: Source) -> None:
        """
        See L{ITransactionUser.ack_received}: there is none for a SUBSCRIBE.
        """

    def cancelled(self, transaction: IServerTransaction) -> None:
        """
        See L{ITransactionUser.cancelled}: a SUBSCRIBE is answered at once.
        """

    def response_lost(self, transaction: IServerTransaction, reason: str) -> None:
        """
        See L{ITransactionUser.response_lost}: the watcher asks again.
        """


