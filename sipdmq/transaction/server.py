"""
One server transaction (RFC 3261 §17.2).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from zope.interface import classImplements

from sipdmq.errors import TransactionStateError
from sipdmq.interfaces.messages import IServerTransaction
from sipdmq.records import Protocol, Source, Target
from sipdmq.sip.fsm import INVITE_SERVER, NON_INVITE_SERVER, Action, Event, State, Table, step
from sipdmq.sip.headers import Headers
from sipdmq.sip.message import Request, Response, response_to
from sipdmq.sip.writer import format_message
from sipdmq.transaction.keys import merge_key
from sipdmq.transaction.retransmission import Retransmission

if TYPE_CHECKING:
    from sipdmq.transaction.layer import TransactionLayer

__all__ = ["ServerTransaction"]

# What an answered request meets, under names of the module: looking a member up in its Enum costs four times as much.
_TRYING: Final = State.TRYING
_COMPLETED: Final = State.COMPLETED
_CONFIRMED: Final = State.CONFIRMED
_TERMINATED: Final = State.TERMINATED
_SEND_RESPONSE: Final = Action.SEND_RESPONSE
_START_J: Final = Action.START_J
_USER_2XX: Final = Event.USER_2XX

_NO_HEADERS: Final = Headers()
_AMPLIFICATION: Final = 3
_UNLIMITED: Final = 2**62
_ANSWERED: Final = frozenset((State.ACCEPTED, State.COMPLETED, State.CONFIRMED, State.TERMINATED))


class ServerTransaction:
    """
    A request and what is answered to it, until nobody can ask for it again.
    """

    __slots__ = (
        "_budget",
        "_layer",
        "_response",
        "_retransmission",
        "_table",
        "_target",
        "cancel_reasons",
        "is_cancelled",
        "key",
        "merge",
        "request",
        "serial",
        "size",
        "source",
        "state",
        "to_tag",
    )

    def __init__(self, layer: TransactionLayer, key: str, request: Request, source: Source) -> None:
        self._layer = layer
        self.key = key
        self.serial = layer.next_serial()
        self.request = request
        self.size = request.size
        self.source = source
        self._table: Table = NON_INVITE_SERVER
        self.state = _TRYING
        if request.method == "INVITE":
            self._table = INVITE_SERVER
            self.state = State.PROCEEDING
        self.merge = 0
        self.to_tag = ""
        self.is_cancelled = False
        self.cancel_reasons: list[str] = []
        self._budget = _UNLIMITED
        self._response = b""
        self._target: Target | None = None
        self._retransmission: Retransmission | None = None

    def __repr__(self) -> str:
        return f"<ServerTransaction {self.request.method} {self.state.name}>"

    @property
    def is_invite(self) -> bool:
        """
        Whether the request is an INVITE.
        """
        return self._table is INVITE_SERVER

    @property
    def is_answered(self) -> bool:
        """
        Whether a final response was sent.
        """
        return self.state in _ANSWERED

    @property
    def target(self) -> Target:
        """
        Where the responses go.
        """
        target = self._target
        if target is None:
            target = self._target = self._layer.transport.response_target(self.request, self.source)
        return target

    def is_merged(self) -> bool:
        """
        See L{IServerTransaction.is_merged}.
        """
        if self.request.to.tag:
            return False
        self.merge = merge_key(self.request)
        return self._layer.claim_merge(self)

    def respond(self, response: Response) -> None:
        """
        See L{IServerTransaction.respond}.
        """
        status = response.status
        is_invite = self._table is INVITE_SERVER
        if not is_invite:
            if status < 200:
                return  # RFC 4320 §4.1: no provisional response but the 100 that the transaction itself sends in time
            if self.state is _TERMINATED:
                return  # 64 × T1 are over: nobody listens any more
            if status == 408:
                # RFC 4320 §4.2: a 408 arrives when the client has given up, and does harm on the way
                self._layer.server_ended(self)
                return
        event = Event.USER_1XX if status < 200 else _USER_2XX if status < 300 else Event.USER_FINAL
        row = step(self._table, self.state, event)
        if row is None:
            raise TransactionStateError(f"{status} to {self!r}")
        self._response = format_message(response) if self._budget == _UNLIMITED else self._fitting(response)
        if is_invite and not self.to_tag and status > 100:
            self.to_tag = response.to.tag
        self._take(row)

    def forget_request(self) -> None:
        """
        See L{IServerTransaction.forget_request}.
        """
        if self._target is None:
            self._target = self.target  # decided while the Via is there
        request = self.request
        self.request = Request(request.method, request.uri_text, _NO_HEADERS)
        if self.state is State.ACCEPTED:
            self._response = b""  # a 2xx is repeated by who gave it (RFC 6026 §7.1)

    def respond_statelessly(self, response: Response) -> None:
        """
        See L{IServerTransaction.respond_statelessly}.
        """
        if self._response or self.is_answered:
            raise TransactionStateError(f"{response.status} to {self!r}")
        self._layer.server_ended(self)
        self._layer.transport.send(format_message(response), self.target)

    def drop(self) -> None:
        """
        See L{IServerTransaction.drop}.
        """
        self._layer.server_ended(self)

    def hold_small(self) -> None:
        """
        See L{IServerTransaction.hold_small}.
        """
        self._budget = _AMPLIFICATION * self.size

    def _fitting(self, response: Response) -> bytes:
        """
        A response whose sender may not have asked for it: a long refusal is shortened to what it says. Each copy of the
        request that is still to come will be answered by it.
        """
        data = format_message(response)
        if len(data) >= min(self._budget, _AMPLIFICATION * self.size) and response.status >= 300:
            data = format_message(response_to(self.request, response.status, response.to.tag, reason=response.reason))
        return data

    def handle(self, event: Event, reason: str = "") -> None:
        """
        Take the step for an event from the network or the clock.

        @param reason: of a transport error.
        """
        if event is Event.REQUEST and self._budget < _UNLIMITED:
            self._budget += _AMPLIFICATION * self.size
        row = step(self._table, self.state, event)
        if row is not None:
            self._take(row, reason)

    def _take(self, row: tuple[State, tuple[Action, ...]], reason: str = "") -> None:
        layer = self._layer
        self.state = row[0]
        if self.state is _TERMINATED:
            layer.server_ended(self)
        elif self.state is _CONFIRMED and self._retransmission is not None:
            self._retransmission.stop()
        for action in row[1]:
            if action is _SEND_RESPONSE:
                target = self.target
                if self._table is INVITE_SERVER or row[0] is not _COMPLETED:
                    layer.watch_target(self, target)
                layer.transport.send(self._response, target)
                self._budget -= len(self._response) if self._budget < _UNLIMITED else 0
            elif action is _START_J:
                # Timer J is the completed table's; of the rest of this transaction nothing is needed any more.
                layer.server_completed(self, self._response)
            elif action is Action.RESEND_RESPONSE:
                self._resend(is_asked=self.state is State.PROCEEDING)
            elif action is Action.SEND_TRYING:
                if not self._response:
                    self._response = format_message(response_to(self.request, 100))
                    layer.transport.send(self._response, self.target)
            elif action is Action.START_G:
                if not layer.transport.is_reliable(self.target):
                    again = partial(self.handle, Event.TIMER_G)
                    self._retransmission = Retransmission(layer.clock, layer.timers.t1, again)
            elif action is Action.RESTART_G:
                if self._retransmission is not None:
                    self._retransmission.again(layer.timers.t2)
            elif action is Action.TELL_ACK:
                pass  # the layer hands the ACK itself to the user
            elif action is Action.TELL_TIMEOUT:
                layer.user.response_lost(self, "no ACK")
            elif action is Action.TELL_TRANSPORT_ERROR:
                layer.user.response_lost(self, reason)
            else:
                layer.start_timer(self, action, layer.transport.is_reliable(self.target))

    def _resend(self, is_asked: bool) -> None:
        """
        @param is_asked: an INVITE came again whose answer is still open. Who sends small ones in somebody else's name
            shall not have us send large ones to him: 100 says as well that it has arrived.
        """
        response = self._response
        if not response:
            return
        if is_asked and len(response) > _AMPLIFICATION * self.size and self.source.protocol is Protocol.UDP:
            response = format_message(response_to(self.request, 100))
        if self._budget < _UNLIMITED:
            if len(response) > self._budget:
                return
            self._budget -= len(response)
        self._layer.transport.send(response, self.target)

    def stop(self) -> None:
        """
        End without a word; for the layer.
        """
        self.state = _TERMINATED
        if self._retransmission is not None:
            self._retransmission.stop()
            self._retransmission = None  # it holds us
        if self._target is not None:
            self._layer.unwatch_target(self, self._target)


classImplements(ServerTransaction, IServerTransaction)
