"""
A response context (RFC 3261 §16.7): one request, all its branches, and what is answered to it.

Branches of the same q run at the same time; those of the next q when all of them have failed. A context ends when the
request has its final response and every client transaction is over; nothing but these, and timer C, hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from sipdmq.errors import TransactionStateError
from sipdmq.interfaces.messages import IServerTransaction
from sipdmq.proxy.best import Outcome, final_response
from sipdmq.proxy.branch import TIMED_OUT, Branch
from sipdmq.proxy.forward import RecordRoute, reason_line, shares
from sipdmq.records import Destination
from sipdmq.sip.message import Request, Response
from sipdmq.sip.uri import SipURI

if TYPE_CHECKING:
    from sipdmq.core.cookies import DialogSide
    from sipdmq.proxy.service import Proxy

__all__ = ["ResponseContext"]

_ELSEWHERE: Final = reason_line(200, "Call completed elsewhere")
"""By this phones know that a call was not missed (RFC 3326 §3.1)."""


class ResponseContext:
    """
    What becomes of one request.

    @ivar request: to be copied: as received, its routes preprocessed.
    @ivar record_route: L{None} if we do not want to see what follows.
    @ivar caller: the authenticated user, or empty.
    @ivar dialog: of a request within one that may change where its two sides are: what to tell L{Proxy.moved}.
    @ivar is_secure: it is for a C{sips:} URI: by TLS only.
    """

    __slots__ = (
        "__weakref__",
        "_branches",
        "_breadth",
        "_count",
        "_groups",
        "_is_answered",
        "_is_cancelled",
        "_is_ringing",
        "_is_starting",
        "_is_told",
        "_open",
        "_outcomes",
        "_transaction",
        "caller",
        "dialog",
        "is_invite",
        "is_secure",
        "loop",
        "proxy",
        "record_route",
        "request",
    )

    def __init__(
        self,
        proxy: Proxy,
        transaction: IServerTransaction,
        request: Request,
        destinations: Sequence[Destination],
        record_route: RecordRoute | None,
        breadth: int,
        is_spiral: bool,
        loop: str,
        is_told: bool,
    ) -> None:
        """
        @param destinations: not empty.
        @param breadth: of all branches that run at the same time.
        @param is_spiral: of all branches together, also of those that come one after the other: users of ours who are
            registered at one another with many q would keep us busy for hours, since RFC 5393 §5.3.3 limits only what
            runs at the same time.
        @param loop: for the branches' Vias.
        @param is_told: whether call listeners hear of it.
        @raise RequestRefused: 440, too many destinations have the same q, or in a spiral, too many in all.
        """
        self.proxy = proxy
        self._transaction = transaction
        self.request = request
        self.record_route = record_route
        self.loop = loop
        self.caller = ""
        self.dialog: DialogSide | None = None
        self.is_invite = request.method == "INVITE"
        uri = request.uri
        self.is_secure = isinstance(uri, SipURI) and uri.scheme == "sips"
        self._is_told = is_told
        if len(destinations) == 1:
            self._groups = [list(destinations)]
        else:
            ordered = sorted(destinations, key=lambda each: each.q)  # the next ones last
            self._groups = [list(group) for _, group in groupby(ordered, lambda each: each.q)]
        self._breadth = breadth
        self._count = len(destinations) if is_spiral else 0
        for group in self._groups:
            self._shares(len(group))
        self._branches: list[Branch] = []  # those of the q that is being tried
        self._outcomes: list[Outcome] = []  # of those before
        self._open = 0
        self._is_starting = False
        self._is_answered = False
        self._is_cancelled = False
        self._is_ringing = False

    def start(self) -> None:
        """
        Try the destinations of the highest q; and on, while all of them fail at once.
        """
        self._is_starting = True
        while self._groups and not self._open and not self._is_answered and not self._is_cancelled:
            self._outcomes += [branch.outcome for branch in self._branches if branch.outcome is not None]
            group = self._groups.pop()
            self._branches = [Branch(self, destination) for destination in group]
            self._open = len(group)
            for branch, share in zip(self._branches, self._shares(len(group))):
                branch.start(share)
        self._is_starting = False
        if not self._open:
            self._finish()

    def _shares(self, size: int) -> list[int]:
        """
        @param size: of a group.
        @raise RequestRefused: 440.
        """
        return shares(self._breadth * size // self._count if self._count else self._breadth, size)

    def branch_timed_out(self) -> None:
        """
        One branch heard nothing for 64 × T1. So long the client of a non-INVITE request has waited, too: another
        destination's answer would come too late (RFC 4320 §4.2).
        """
        if not self.is_invite:
            self._groups.clear()

    def branch_ended(self, is_last_word: bool) -> None:
        """
        One branch has its outcome.

        @param is_last_word: no destination of a lower q is to be tried after it.
        """
        self._open -= 1
        if is_last_word:
            self._groups.clear()
        declined = [each.outcome for each in self._branches if each.outcome and each.outcome.status >= 600]
        if declined:
            self._groups.clear()  # §16.7 step 5: everywhere declined, no new branches
            self._cancel_branches([reason_line(declined[0].status)])
        if self._open or self._is_starting:
            return
        if self._groups and not self._is_answered and not self._is_cancelled:
            self.start()
        else:
            self._finish()

    def provisional(self, response: Response) -> None:
        """
        Forward a response 101 to 199.
        """
        if self._is_answered:
            return
        self._respond(response)
        if self._is_told and not self._is_ringing:
            self._is_ringing = True
            self.proxy.tell("call_ringing", self._transaction.request, response)

    def accepted(self, response: Response) -> None:
        """
        Forward a 2xx at once; of an INVITE all of them (§16.7 step 5). The other branches are cancelled (step 10).
        """
        if self._is_answered:
            if self.is_invite:
                self._respond(response)
            return
        self._is_answered = True
        self._groups.clear()
        if self.dialog is not None:
            self.proxy.moved(self.dialog.other, response)
        self._respond(response)
        self._answered("call_answered", response)
        self._cancel_branches([_ELSEWHERE])

    def cancel(self, reasons: Sequence[str] = ()) -> None:
        """
        The client wants no answer any more, or cannot be given one.

        @param reasons: the Reason lines of its CANCEL.
        """
        if self._is_answered or self._is_cancelled:
            return
        self._is_cancelled = True
        self._groups.clear()
        self._cancel_branches(reasons)

    def _cancel_branches(self, reasons: Sequence[str]) -> None:
        for branch in tuple(self._branches):
            branch.cancel(reasons)

    def _finish(self) -> None:
        """
        All branches have ended, and no more will be started.
        """
        outcomes = self._outcomes + [branch.outcome for branch in self._branches if branch.outcome is not None]
        self._branches = []
        self._outcomes = []
        if self._is_answered:
            return
        self._is_answered = True
        transaction = self._transaction
        to_tag = transaction.to_tag or self.proxy.ids.tag()
        response = final_response(transaction.request, outcomes or [TIMED_OUT], self._is_cancelled, to_tag)
        self._respond(response)
        self._answered("call_failed", response.status)

    def _answered(self, event: str, what: object) -> None:
        """
        The final response was sent. What is left of us waits for other 2xx and needs nothing of the request.

        @param event: what call listeners are told, with C{what}.
        """
        transaction = self._transaction
        self.proxy.context_answered(transaction)
        if self._is_told:
            self.proxy.tell(event, transaction.request, what)
        if self.is_invite:
            transaction.forget_request()
        self.request = transaction.request
        self.record_route = None

    def _respond(self, response: Response) -> None:
        try:
            self._transaction.respond(response)
        except TransactionStateError:
            pass  # its time is over (RFC 6026 §7.1: timer L), or its user broke and it was answered for it

    def stop(self) -> None:
        """
        Stop all timers, without a word.
        """
        self._groups.clear()
        for branch in self._branches:
            branch.stop()
