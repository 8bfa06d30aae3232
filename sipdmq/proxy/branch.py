"""
One branch of a response context (RFC 3261 §16.6, §16.7): one copy of the request, sent to one destination.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.core.asserted import has_assertions, remove_assertions
from sipdmq.core.routes import Faced
from sipdmq.errors import ParseError, RequestRefused, UnreachableError
from sipdmq.interfaces.messages import IClientTransaction, IClientUser
from sipdmq.proxy.best import Outcome, judge_gateway
from sipdmq.proxy.forward import copy_for, reason_line, strip_response
from sipdmq.records import Destination, Target
from sipdmq.sip.message import Request, Response

if TYPE_CHECKING:
    from sipdmq.proxy.context import ResponseContext

__all__ = ["TIMED_OUT", "Branch"]

log = Logger()

TIMED_OUT: Final = Outcome(408)
_UNREACHABLE: Final = Outcome(503)
_NOT_SECURE: Final = Outcome(480)
"""Nobody can be reached by TLS all the way, as a C{sips:} URI asks for (RFC 5630 §3.1.3)."""


@implementer(IClientUser)
class Branch:
    """
    One copy of the request on its way.
    """

    __slots__ = (
        "_context",
        "_destination",
        "_faced",
        "_has_provisional",
        "_is_given_up",
        "_sending",
        "_timer",
        "outcome",
    )

    def __init__(self, context: ResponseContext, destination: Destination) -> None:
        """
        @ivar outcome: L{None} until a final response, or what stands for one. Of a branch with a 2xx, too.
        """
        self._context = context
        self._destination = destination
        self._sending: IClientTransaction | None = None
        self._timer: IDelayedCall | None = None
        self._has_provisional = False
        self._faced: Faced | None = None  # what was made of the last response
        self._is_given_up = False  # we have cancelled it because it took too long
        self.outcome: Outcome | None = None

    @property
    def caller(self) -> str:
        """
        Whose request it is: the authenticated user, or empty.
        """
        return self._context.caller

    def start(self, breadth: int) -> None:
        """
        Find the targets, and send.
        """
        context = self._context
        destination = self._destination
        try:
            copy, next_hop = copy_for(context.request, destination, breadth)
            found = context.proxy.find(destination, next_hop, context.is_secure)
        except (UnreachableError, ParseError, RequestRefused):
            self._end(_UNREACHABLE)
            return
        if isinstance(found, Deferred):
            found.addCallbacks(self._found, self._not_found, (copy,))
        else:
            self._found(found, copy)

    def _found(self, targets: tuple[Target, ...], copy: Request) -> None:
        if self.outcome is not None:
            return  # cancelled meanwhile
        context = self._context
        if context.is_secure:
            targets = tuple([target for target in targets if target.protocol.is_secure])
            if not targets:
                self._end(_NOT_SECURE)
                return
        proxy = context.proxy
        prepare = None if context.record_route is None else self._prepare
        limit = self._destination.answer_timeout or self._limit()
        if limit:
            self._timer = proxy.clock.callLater(limit, self._took_too_long)
        self._sending = proxy.sender.send_request(copy, targets, self, prepare, context.loop)

    def _limit(self) -> float:
        """
        Seconds until a final response; 0: as long as the transaction itself waits.
        """
        return self._destination.timeout or (self._context.proxy.timer_c if self._context.is_invite else 0)

    def _not_found(self, failure: Failure) -> None:
        if not isinstance(failure.value, (UnreachableError, ParseError)):
            log.failure("{uri} broke the resolver", failure, uri=self._destination.uri)
        self._end(_UNREACHABLE)

    def _prepare(self, copy: Request, target: Target, sent_by: str) -> None:
        record_route = self._context.record_route
        if record_route is not None:
            record_route.add(copy, self._destination, target, sent_by)

    def response_received(self, response: Response) -> None:
        """
        See L{IClientUser.response_received}.
        """
        status = response.status
        if status < 200 and not self._has_provisional:
            self._first_provisional()
        if status == 100:
            return
        is_ours_alone = not strip_response(response)
        proxy = self._context.proxy
        self._faced = proxy.face_caller(response, self._destination.uri, self._faced)
        if has_assertions(response) and not self._is_believed():
            remove_assertions(response)
        if status < 200:
            if self.outcome is None and not is_ours_alone:
                self._restart_timer()
                self._context.provisional(response)
            return
        if is_ours_alone:
            # Nobody to forward it to: whoever sent it has not read what we sent (§16.7 step 3).
            self._end(Outcome(502))
        elif status < 300:
            self._context.accepted(response)
            self._end(Outcome(status))
        elif status == 487 and self._is_given_up:
            self._end(TIMED_OUT)
        else:
            self._end(Outcome(status, response))

    def _is_believed(self) -> bool:
        """
        Whether the P-Asserted-Identity of who answers stays.
        """
        target = None if self._sending is None else self._sending.target
        return target is not None and self._context.proxy.trusted.has(target.host)

    def timed_out(self) -> None:
        """
        See L{IClientUser.timed_out}.
        """
        self._context.branch_timed_out()
        self._end(TIMED_OUT)

    def unreachable(self, reason: str) -> None:
        """
        See L{IClientUser.unreachable}.
        """
        self._end(_UNREACHABLE)

    def _first_provisional(self) -> None:
        """
        There is an answer; from now on it is the final one that is waited for.
        """
        self._has_provisional = True
        if self._timer is not None and self._destination.answer_timeout:
            if limit := self._limit():
                self._timer.reset(limit)
            else:
                self.stop()

    def _restart_timer(self) -> None:
        """
        A provisional response restarts timer C (§16.7 step 2), not the time that the destination is given.
        """
        if self._timer is not None and not self._destination.timeout:
            self._timer.reset(self._context.proxy.timer_c)

    def _took_too_long(self) -> None:
        """
        Timer C, or the time that the destination is given (§16.8).
        """
        self._timer = None
        self._is_given_up = True
        sending = self._sending
        if sending is not None:
            sending.cancel([reason_line(408)])
        if not self._has_provisional or not self._context.is_invite:
            self._end(TIMED_OUT)  # a CANCEL waits for a provisional response, we do not

    def cancel(self, reasons: Sequence[str] = ()) -> None:
        """
        Nobody wants the answer any more; it is waited for all the same, as the CANCEL may come too late. Only who was
        not sent to yet has ended at once.

        @param reasons: as for L{IClientTransaction.cancel}.
        """
        if self.outcome is not None:
            return
        if self._sending is None:
            self._end(TIMED_OUT)
        else:
            self._sending.cancel(reasons)

    def stop(self) -> None:
        """
        Stop the timer.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, outcome: Outcome) -> None:
        if self.outcome is not None:
            return
        self.outcome = outcome
        self.stop()
        is_last_word = False
        gateway = self._destination.next_hop
        if gateway is not None and (self._sending is not None or outcome is _UNREACHABLE):
            is_alive, is_last_word = judge_gateway(self._destination, outcome, self._has_provisional)
            if self._context.proxy.gateways is not None:
                self._context.proxy.gateways.report(gateway, is_alive)
        self._sending = None
        self._context.branch_ended(is_last_word)
