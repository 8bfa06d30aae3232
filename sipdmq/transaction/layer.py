"""
All transactions of the node: finds the one a message belongs to, makes new ones, and forgets the old.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import classImplements

from sipdmq.errors import ParseError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import (
    IClientUser,
    IMessageReceiver,
    IRequestSender,
    ITransactionUser,
    ITransport,
)
from sipdmq.records import Source, Target
from sipdmq.sip.fsm import Action, Event, State
from sipdmq.sip.ids import Ids
from sipdmq.sip.message import Message, Request, Response, response_to
from sipdmq.sip.parser import KNOWN_METHODS
from sipdmq.sip.timers import RequestTimers, TimerValues
from sipdmq.sip.writer import format_message
from sipdmq.transaction.client import ClientTransaction
from sipdmq.transaction.completed import CompletedTransactions
from sipdmq.transaction.deadlines import Deadlines
from sipdmq.transaction.keys import client_key, response_key, server_key
from sipdmq.transaction.server import ServerTransaction
from sipdmq.transaction.targeted import Prepare, TargetedRequest

__all__ = ["TransactionLayer"]

log = Logger()

# Where to look, for what, its serial number, and what to tell it. A key, not the transaction: one that ended long
# before its timer shall not be kept alive by it; and the number, as another one may have got its name since then.
_Timer = tuple[Mapping[str, "ServerTransaction | ClientTransaction"], str, int, Event]

_EVENTS: Final = {
    Action.START_B: Event.TIMER_B,
    Action.START_D: Event.TIMER_D,
    Action.START_F: Event.TIMER_F,
    Action.START_H: Event.TIMER_H,
    Action.START_I: Event.TIMER_I,
    Action.START_K: Event.TIMER_K,
    Action.START_L: Event.TIMER_L,
    Action.START_M: Event.TIMER_M,
    Action.START_CANCEL: Event.TIMER_CANCEL,
}
# The timers that a reliable transport sets to zero: they wait for retransmissions (RFC 3261, table 4).
_ZERO_WHEN_RELIABLE: Final = frozenset((Action.START_D, Action.START_I, Action.START_K))


MAX_REASONS: Final = 500
"""Characters of the Reason lines of a CANCEL that are passed on: it may become one CANCEL for each branch."""


class TransactionLayer:
    """
    RFC 3261 §17, between transports and transaction users.
    """

    transport: ITransport
    user: ITransactionUser

    def __init__(
        self,
        clock: IReactorTime,
        ids: Ids,
        timers: TimerValues,
        max_transactions: int,
        max_completed_bytes: int,
        max_open_bytes: int = 2**28,
    ) -> None:
        """
        @param max_transactions: of server transactions that wait for an answer or an ACK; beyond, new requests are
            answered with 503.
        @param max_open_bytes: of the requests of these transactions together; beyond, likewise.
        @param max_completed_bytes: for the responses that are kept for retransmitted requests.
        """
        self.clock = IReactorTime(clock)
        self.ids = ids
        self.timers = timers
        self._max_transactions = max_transactions
        self._max_open_bytes = max_open_bytes
        self._open_bytes = 0
        self._serial = 0
        self._servers: dict[str, ServerTransaction] = {}
        self._clients: dict[str, ClientTransaction] = {}
        self._live_merges: dict[int, str] = {}
        # dicts for sets: they keep their order, so that the same events always give the same messages
        self._by_target: dict[Target, dict[ServerTransaction | ClientTransaction, None]] = {}
        self.completed = CompletedTransactions(self.clock, timers.lifetime, max_completed_bytes)
        self._lifetimes: Deadlines[_Timer] = Deadlines(self.clock, timers.lifetime, self._fire)
        self._d: Deadlines[_Timer] = Deadlines(self.clock, timers.d, self._fire)
        self._t4: Deadlines[_Timer] = Deadlines(self.clock, timers.t4, self._fire)
        self._trying: Deadlines[_Timer] = Deadlines(self.clock, timers.trying, self._fire)
        self._trying_non_invite: Deadlines[_Timer] = Deadlines(self.clock, timers.trying_non_invite, self._fire)
        self._timeouts: dict[float, Deadlines[_Timer]] = {}  # of requests with timers of their own, by their length

    def connect(self, transport: ITransport, user: ITransactionUser) -> None:
        """
        Join the layer with its neighbours, once.
        """
        self.transport = ITransport(transport)
        self.user = ITransactionUser(user)

    def stop(self) -> None:
        """
        Forget everything, stop every timer.
        """
        for server in tuple(self._servers.values()):
            server.stop()
        for client in tuple(self._clients.values()):
            client.stop()
        self._servers.clear()
        self._open_bytes = 0
        self._clients.clear()
        self._live_merges.clear()
        self.completed.stop()
        for deadlines in (self._lifetimes, self._d, self._t4, self._trying, self._trying_non_invite):
            deadlines.stop()
        for deadlines in self._timeouts.values():
            deadlines.stop()

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {
            "transaction.servers": len(self._servers),
            "transaction.open_bytes": self._open_bytes,
            "transaction.clients": len(self._clients),
            "transaction.completed": len(self.completed),
            "transaction.completed_bytes": self.completed.size,
        }

    # from the transports

    def message_received(self, message: Message, source: Source) -> None:
        """
        See L{IMessageReceiver.message_received}.
        """
        if isinstance(message, Request):
            method = message.method
            if method == "ACK":
                self._ack_received(message, source)
            elif method == "CANCEL":
                self._cancel_received(message, source)
            else:
                self._request_received(message, source)
        elif isinstance(message, Response):
            client = self._clients.get(response_key(message))
            if client is not None:
                client.response_received(message)
            # A stray one is dropped (RFC 6026 §7.3): nobody asked for it.

    def malformed_request(self, error: ParseError, source: Source) -> None:
        """
        See L{IMessageReceiver.malformed_request}. Its fields may be unreadable, so it has no transaction.
        """
        self.user.malformed_request(error, source)

    def _request_received(self, request: Request, source: Source) -> None:
        key = server_key(request)
        response = self.completed.get(key)
        if response is not None:
            self.transport.send(response, self.transport.response_target(request, source))
            return
        transaction = self._servers.get(key)
        if transaction is not None:
            transaction.handle(Event.REQUEST)
            return
        transaction = ServerTransaction(self, key, request, source)
        if len(self._servers) >= self._max_transactions or self._open_bytes > self._max_open_bytes:
            refusal = response_to(request, 503, self.ids.stateless_tag(key), [("Retry-After", "5")])
            transaction.respond_statelessly(refusal)
            return
        self._servers[key] = transaction
        self._open_bytes += transaction.size
        try:
            self.user.request_received(transaction)
        except Exception:  # noqa: BLE001 - the edge to the services: one that breaks gets a 500 sent, not the node
            log.failure("{transaction} broke its user", transaction=transaction)
            if not transaction.is_answered:
                transaction.respond(response_to(request, 500, self.ids.tag()))
        if not transaction.is_answered:
            if transaction.is_invite:
                self._trying.add((self._servers, key, transaction.serial, Event.TIMER_100))
            else:
                self._trying_non_invite.add((self._servers, key, transaction.serial, Event.TIMER_100))
                self._lifetimes.add((self._servers, key, transaction.serial, Event.TIMER_F))

    def _ack_received(self, ack: Request, source: Source) -> None:
        transaction = self._servers.get(server_key(ack, "INVITE"))
        if transaction is None:
            self.user.ack_received(ack, source)
            return
        is_for_2xx = transaction.state is State.ACCEPTED
        transaction.handle(Event.ACK)
        if is_for_2xx:
            self.user.ack_received(ack, source)

    def _cancel_received(self, cancel: Request, source: Source) -> None:
        """
        RFC 3261 §9.2. The answer follows from the CANCEL alone, so no state is kept for it.
        """
        transaction = self._servers.get(server_key(cancel, "INVITE"))
        if transaction is None:
            # "Regardless of the method of the original request" a CANCEL that matches gets 200; but for an INVITE it
            # has no effect.
            keys = [server_key(cancel, method) for method in KNOWN_METHODS]
            is_known = any(key in self._servers or self.completed.get(key) is not None for key in keys)
            response = response_to(cancel, 200 if is_known else 481, self.ids.stateless_tag(server_key(cancel)))
        else:
            # "SHOULD be the same" To tag as in the response to the INVITE, which may have to wait for it
            transaction.to_tag = transaction.to_tag or self.ids.tag()
            response = response_to(cancel, 200, transaction.to_tag)
        self.transport.send(format_message(response), self.transport.response_target(cancel, source))
        if transaction is not None and not transaction.is_answered and not transaction.is_cancelled:
            transaction.is_cancelled = True
            reasons = cancel.headers.lines_of("reason")
            if sum(map(len, reasons)) <= MAX_REASONS:
                transaction.cancel_reasons = reasons
            self.user.cancelled(transaction)

    def transport_failed(self, target: Target, reason: str) -> None:
        """
        See L{IMessageReceiver.transport_failed}.
        """
        for transaction in tuple(self._by_target.get(target, ())):
            try:
                transaction.handle(Event.TRANSPORT_ERROR, reason=reason)
            except Exception:  # noqa: BLE001 - the edge to the users: the others are told all the same
                log.failure("{transaction} broke its user", transaction=transaction)

    # from the transaction users

    def send_request(
        self,
        request: Request,
        targets: tuple[Target, ...],
        user: IClientUser,
        prepare: Prepare | None = None,
        loop: str = "",
        timers: RequestTimers | None = None,
    ) -> TargetedRequest:
        """
        See L{IRequestSender.send_request}.
        """
        sending = TargetedRequest(self, request, targets, IClientUser(user), prepare, loop, timers)
        sending.start()
        return sending

    def user_of(self, request: Request) -> IClientUser | None:
        """
        See L{IRequestSender.user_of}.
        """
        client = self._clients.get(client_key(request.top_via.branch, request.method))
        return client.user if client is not None and client.has_sent(request) else None

    def send_stateless(self, message: Message, target: Target) -> None:
        """
        See L{IRequestSender.send_stateless}.
        """
        if isinstance(message, Request):
            _, data = self.with_via(message, target, self.ids.branch())
        else:
            data = format_message(message)
        self.transport.send(data, target)

    # for the transactions

    def next_serial(self) -> int:
        """
        A number that no other transaction has.
        """
        self._serial += 1
        return self._serial

    def with_via(
        self, request: Request, target: Target, branch: str, prepare: Prepare | None = None
    ) -> tuple[Request, bytes]:
        """
        A copy of the request with our Via on top, and its bytes.

        @param prepare: changes the copy for this target, before it gets the Via.
        @raise UnreachableError: nothing of ours can send there.
        """
        copy = request.copy()
        protocol = self.transport.sent_by(target)
        if prepare is not None:
            prepare(copy, target, protocol)
        copy.headers.prepend("Via", f"SIP/2.0/{protocol};rport;branch={branch}")
        return copy, format_message(copy)

    def client_started(self, client: ClientTransaction) -> None:
        """
        Responses are for this transaction from now on.
        """
        self._clients[client.key] = client

    def client_ended(self, client: ClientTransaction) -> None:
        """
        The transaction is over.
        """
        self._clients.pop(client.key, None)
        client.stop()

    def server_ended(self, server: ServerTransaction) -> None:
        """
        The transaction is over; a retransmission would be a new request.
        """
        if self._servers.pop(server.key, None) is not None:
            self._open_bytes -= server.size
        if server.merge:
            self._live_merges.pop(server.merge, None)
        server.stop()

    def server_completed(self, server: ServerTransaction, response: bytes) -> None:
        """
        A non-INVITE transaction was answered: what is left of it is its key and its response. Nothing at all on a
        reliable transport, where timer J is zero.
        """
        if self._servers.pop(server.key, None) is not None:
            self._open_bytes -= server.size
        if server.merge:
            self._live_merges.pop(server.merge, None)
        target = server.target
        if self._by_target:
            self.unwatch_target(server, target)
        if not self.transport.is_reliable(target):
            self.completed.add(server.key, server.merge, response)

    def claim_merge(self, server: ServerTransaction) -> bool:
        """
        Whether another transaction has the same merge key; if not, it is this one's.
        """
        merge = server.merge
        owner = self._live_merges.get(merge) or self.completed.merged(merge)
        if owner is not None and owner != server.key:
            server.merge = 0
            return True
        self._live_merges[merge] = server.key
        return False

    def start_timer(
        self, transaction: ServerTransaction | ClientTransaction, action: Action, is_reliable: bool
    ) -> None:
        """
        Start the timer of one letter.
        """
        event = _EVENTS[action]
        if is_reliable and action in _ZERO_WHEN_RELIABLE:
            transaction.handle(event)
            return
        table = self._servers if isinstance(transaction, ServerTransaction) else self._clients
        if action is Action.START_D:
            deadlines = self._d
        elif action is Action.START_I or action is Action.START_K:
            deadlines = self._t4
        else:
            deadlines = self._lifetimes
        deadlines.add((table, transaction.key, transaction.serial, event))

    def start_timeout(self, client: ClientTransaction, event: Event, delay: float) -> None:
        """
        Start timer B or F with a length of its own. There are as many lengths as the configuration has.
        """
        deadlines = self._timeouts.get(delay)
        if deadlines is None:
            deadlines = self._timeouts[delay] = Deadlines(self.clock, delay, self._fire)
        deadlines.add((self._clients, client.key, client.serial, event))

    def _fire(self, timer: _Timer) -> None:
        table, key, serial, event = timer
        transaction = table.get(key)
        if transaction is not None and transaction.serial == serial:
            transaction.handle(event)

    def watch_target(self, transaction: ServerTransaction | ClientTransaction, target: Target) -> None:
        """
        Tell the transaction when something sent to C{target} fails.
        """
        self._by_target.setdefault(target, {})[transaction] = None

    def unwatch_target(self, transaction: ServerTransaction | ClientTransaction, target: Target) -> None:
        """
        The inverse of L{watch_target}.
        """
        watching = self._by_target.get(target)
        if watching is not None:
            watching.pop(transaction, None)
            if not watching:
                del self._by_target[target]


classImplements(TransactionLayer, IMessageReceiver, IRequestSender, IInspectable)
