"""
One request over all its targets (RFC 3263 §4.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from zope.interface import classImplements

from sipdmq.errors import UnreachableError
from sipdmq.interfaces.messages import IClientTransaction, IClientUser
from sipdmq.records import Protocol, Target
from sipdmq.sip.message import Request, Response
from sipdmq.sip.timers import RequestTimers
from sipdmq.transaction.client import ClientTransaction, bare

if TYPE_CHECKING:
    from sipdmq.transaction.layer import TransactionLayer

__all__ = ["Prepare", "TargetedRequest"]

Prepare = Callable[[Request, Target, str], object]
"""Changes a copy of a request for a target, given what our Via will say of us: C{"UDP 192.0.2.1:5060"}."""

MAX_UDP_REQUEST: Final = 1300
"""RFC 3261 §18.1.1: bytes; longer requests go by a congestion-controlled transport, the path MTU being unknown."""


class TargetedRequest:
    """
    A request on its way to the first of its targets that takes it: a client transaction for each, one after the other.

    @ivar user: who is told what becomes of it.
    """

    __slots__ = (
        "_current",
        "_has_response",
        "_is_cancelled",
        "_is_over",
        "_layer",
        "_loop",
        "_original",
        "_prepare",
        "_targets",
        "_timers",
        "user",
    )

    def __init__(
        self,
        layer: TransactionLayer,
        request: Request,
        targets: tuple[Target, ...],
        user: IClientUser,
        prepare: Prepare | None,
        loop: str,
        timers: RequestTimers | None = None,
    ) -> None:
        self._layer = layer
        self._original = request
        self.user = user
        self._prepare = prepare
        self._loop = loop
        self._timers = timers
        # (target, whether only for when the one before could not be connected to), next one last
        self._targets = [(target, False) for target in reversed(targets)]
        self._current: ClientTransaction | None = None
        self._has_response = False
        self._is_cancelled = False
        self._is_over = False

    @property
    def request(self) -> Request:
        """
        As it was sent last.
        """
        return self._original if self._current is None else self._current.request

    @property
    def target(self) -> Target | None:
        """
        Where it was sent last.
        """
        return None if self._current is None else self._current.target

    def start(self) -> None:
        """
        Send to the first target.
        """
        self._try_next("no target", after_timeout=False)

    def _try_next(self, reason: str, after_timeout: bool) -> None:
        layer = self._layer
        while self._targets and not self._is_cancelled:
            target, only_instead = self._targets.pop()
            if only_instead and after_timeout:
                continue  # the request was taken; its length was not what failed
            branch = layer.ids.branch(self._loop)
            try:
                request, data = layer.with_via(self._original, target, branch, self._prepare)
            except UnreachableError as error:
                reason = error.reason
                continue
            if (
                target.protocol is Protocol.UDP
                and len(data) > MAX_UDP_REQUEST
                and not target.fixed
                and not only_instead
            ):
                self._targets.append((target, True))
                target = target._replace(protocol=Protocol.TCP)
                try:
                    request, data = layer.with_via(self._original, target, branch, self._prepare)
                except UnreachableError:
                    continue
            self._has_response = False
            self._current = ClientTransaction(layer, self, request, data, target, branch, self._timers)
            layer.client_started(self._current)
            self._current.start()
            return
        if after_timeout or self._is_cancelled:
            self.user.timed_out()
        elif self._current is None:  # the caller has not got us yet
            layer.clock.callLater(0, self.user.unreachable, reason)
        else:
            self.user.unreachable(reason)

    def response_received(self, transaction: ClientTransaction, response: Response) -> None:
        """
        From a transaction of ours.
        """
        if transaction is not self._current:
            return
        if response.status >= 300:
            self._is_over = True
        elif response.status >= 200:  # others of its kind may follow, nothing will be sent
            self._original = bare(self._original)
            self._targets.clear()
        # what is kept only for when TCP cannot be had is no other target
        has_other = any(not only_instead for _, only_instead in self._targets)
        if response.status == 503 and has_other and not self._is_cancelled:
            self._is_over = False
            self._try_next("503", after_timeout=True)
            return
        self._has_response = True
        self.user.response_received(response)

    def timed_out(self, transaction: ClientTransaction, is_cancelled: bool) -> None:
        """
        From the current transaction.

        @param is_cancelled: it was we who gave up.
        """
        if self._has_response or is_cancelled:
            self.user.timed_out()
        else:
            self._try_next("timeout", after_timeout=True)

    def unreachable(self, transaction: ClientTransaction, reason: str) -> None:
        """
        From a transaction of ours. One that is over has only failed to send an ACK.
        """
        if transaction is not self._current or self._is_over:
            return
        self._try_next(reason, after_timeout=False)

    def cancel(self, reasons: Sequence[str] = ()) -> None:
        """
        See L{IClientTransaction.cancel}.
        """
        if self._original.method != "INVITE":
            return
        self._is_cancelled = True
        if self._current is not None:
            self._current.cancel(reasons)

    def abandon(self) -> None:
        """
        See L{IClientTransaction.abandon}.
        """
        self._is_over = True
        self._targets.clear()
        if self._current is not None:
            self._layer.client_ended(self._current)


classImplements(TargetedRequest, IClientTransaction)
