"""
Client transactions (RFC 3261 §17.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from sipdmq.interfaces.messages import IClientUser
from sipdmq.records import Target
from sipdmq.sip.derived import ack_for, cancel_for
from sipdmq.sip.fsm import INVITE_CLIENT, NON_INVITE_CLIENT, Action, Event, State, Table, step
from sipdmq.sip.headers import Headers
from sipdmq.sip.message import Request, Response
from sipdmq.sip.timers import RequestTimers
from sipdmq.sip.writer import format_message
from sipdmq.transaction.keys import client_key
from sipdmq.transaction.retransmission import Retransmission

if TYPE_CHECKING:
    from sipdmq.transaction.layer import TransactionLayer
    from sipdmq.transaction.targeted import TargetedRequest

__all__ = ["ClientTransaction", "bare"]

_OVER: Final = frozenset((State.COMPLETED, State.TERMINATED))
_RESTARTS: Final = frozenset((Action.RESTART_A, Action.RESTART_E, Action.RESTART_E_T2))
_NO_HEADERS: Final = Headers()


def bare(request: Request) -> Request:
    """
    What an answered transaction keeps of its request, in the half minute that it lives on.
    """
    return Request(request.method, request.uri_text, _NO_HEADERS)


def _below_top_via(request: Request) -> list[str]:
    """
    All lines of the header but the topmost Via.
    """
    headers = request.headers.copy()
    headers.remove_first("via")
    return headers.lines()


class ClientTransaction:
    """
    One request to one target.
    """

    __slots__ = (
        "_branch",
        "_data",
        "_is_cancel_sent",
        "_layer",
        "_owner",
        "_reasons",
        "_retransmission",
        "_table",
        "_timers",
        "_wants_cancel",
        "key",
        "request",
        "serial",
        "state",
        "target",
    )

    def __init__(
        self,
        layer: TransactionLayer,
        owner: TargetedRequest | None,
        request: Request,
        data: bytes,
        target: Target,
        branch: str,
        timers: RequestTimers | None = None,
    ) -> None:
        """
        @param owner: told what happens; L{None} for a CANCEL, whose answer matters to nobody.
        @param request: with our Via on top.
        @param data: the bytes of C{request}.
        @param timers: in place of those of the layer.
        @ivar key: its name in the layer.
        """
        self._layer = layer
        self.serial = layer.next_serial()
        self._owner = owner
        self.request = request
        self._data = data
        self.target = target
        self._branch = branch
        self._timers = timers
        self.key = client_key(branch, request.method)
        is_invite = request.method == "INVITE"
        self._table: Table = INVITE_CLIENT if is_invite else NON_INVITE_CLIENT
        self.state = State.CALLING if is_invite else State.TRYING
        self._retransmission: Retransmission | None = None
        self._wants_cancel = False
        self._is_cancel_sent = False
        self._reasons: Sequence[str] = ()

    def __repr__(self) -> str:
        return f"<ClientTransaction {self.request.method} {self.state.name}>"

    @property
    def _is_invite(self) -> bool:
        return self._table is INVITE_CLIENT

    @property
    def user(self) -> IClientUser | None:
        """
        Who waits for an answer; L{None} when nobody does.
        """
        return None if self._owner is None else self._owner.user

    def has_sent(self, received: Request) -> bool:
        """
        Whether a request is this one, back again, and not answered yet. The parameters of our Via may differ: where it
        came from was written into it.
        """
        sent = self.request
        if received.uri_text != sent.uri_text or received.body != sent.body or "via" not in sent.headers.first:
            return False
        via, ours = received.top_via, sent.top_via
        return (via.host, via.port) == (ours.host, ours.port) and _below_top_via(received) == _below_top_via(sent)

    def start(self) -> None:
        """
        Send the request and start the timers that begin with it.
        """
        layer = self._layer
        timers = self._timers
        layer.watch_target(self, self.target)
        if timers is None:
            layer.start_timer(self, Action.START_B if self._is_invite else Action.START_F, False)
        else:
            layer.start_timeout(self, Event.TIMER_B if self._is_invite else Event.TIMER_F, timers.timeout)
        if not layer.transport.is_reliable(self.target):
            again = partial(self.handle, Event.TIMER_A if self._is_invite else Event.TIMER_E)
            self._retransmission = Retransmission(layer.clock, (timers or layer.timers).t1, again)
        layer.transport.send(self._data, self.target)

    def response_received(self, response: Response) -> None:
        """
        Take the step for a response.
        """
        status = response.status
        event = (
            Event.RESPONSE_1XX if status < 200 else Event.RESPONSE_2XX if status < 300 else Event.RESPONSE_FINAL
        )
        self.handle(event, response)
        if self._wants_cancel and self.state is State.PROCEEDING and status < 200:
            self._send_cancel()

    def handle(self, event: Event, response: Response | None = None, reason: str = "") -> None:
        """
        Take the step for an event.

        @param response: of a response event.
        @param reason: of a transport error.
        """
        row = step(self._table, self.state, event)
        if row is None:
            return
        layer = self._layer
        owner = self._owner
        self.state = row[0]
        if (self._is_invite and self.state is not State.CALLING) or self.state in _OVER:
            self._stop_retransmission()
            if self.state in _OVER:
                # It hears no more. So an answered transaction, which waits for retransmissions, holds nobody.
                self._owner = None
                if self.state is State.TERMINATED:
                    layer.client_ended(self)
        for action in row[1]:
            if action is Action.TELL_RESPONSE:
                if owner is not None and response is not None:
                    owner.response_received(self, response)
            elif action is Action.SEND_REQUEST:
                layer.transport.send(self._data, self.target)
            elif action in _RESTARTS:
                if self._retransmission is not None:
                    self._restart(self._retransmission, action)
            elif action is Action.SEND_ACK:
                if response is not None:
                    layer.transport.send(format_message(ack_for(self.request, response)), self.target)
            elif action is Action.TELL_TIMEOUT:
                if owner is not None:
                    owner.timed_out(self, event is Event.TIMER_CANCEL)
            elif action is Action.TELL_TRANSPORT_ERROR:
                if owner is not None:
                    owner.unreachable(self, reason)
            else:
                layer.start_timer(self, action, layer.transport.is_reliable(self.target))
        if self.state is State.ACCEPTED or (self.state is State.COMPLETED and not self._is_invite):
            self.request = bare(self.request)  # nothing will be made from it any more

    def cancel(self, reasons: Sequence[str] = ()) -> None:
        """
        See L{IClientTransaction.cancel}.
        """
        if self._wants_cancel or self._is_cancel_sent:
            return
        if self._is_invite and self.state in (State.CALLING, State.PROCEEDING):
            self._wants_cancel = True
            self._reasons = reasons
            if self.state is State.PROCEEDING:
                self._send_cancel()

    def _send_cancel(self) -> None:
        self._wants_cancel = False
        self._is_cancel_sent = True
        layer = self._layer
        request = cancel_for(self.request, self._reasons)
        cancel = ClientTransaction(layer, None, request, format_message(request), self.target, self._branch)
        layer.client_started(cancel)
        layer.start_timer(self, Action.START_CANCEL, False)
        cancel.start()

    def _restart(self, retransmission: Retransmission, action: Action) -> None:
        t2 = (self._timers or self._layer.timers).t2
        if action is Action.RESTART_E_T2:
            retransmission.interval = t2
        retransmission.again(float("inf") if action is Action.RESTART_A else t2)

    def _stop_retransmission(self) -> None:
        """
        It is let go, too: it holds us.
        """
        self._data = b""
        if self._retransmission is not None:
            self._retransmission.stop()
            self._retransmission = None

    def stop(self) -> None:
        """
        End without a word; for the layer.
        """
        self.state = State.TERMINATED
        self._owner = None
        self._stop_retransmission()
        self._layer.unwatch_target(self, self.target)
