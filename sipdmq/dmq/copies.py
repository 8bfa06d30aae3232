"""
Copies of whole requests for all nodes: Kamailio's C{dmq_t_replicate} (WIRE §12).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from sipdmq.core.complaints import Complaints
from sipdmq.core.domains import Domains
from sipdmq.core.functions import RoutedRequest
from sipdmq.dmq.envelope import length_limit, message_length
from sipdmq.dmq.membership import Membership
from sipdmq.dmq.own_headers import registered_values, remove_own_headers, write_published, write_registered
from sipdmq.dmq.presence_form import PresenceForm
from sipdmq.dmq.screen import Senders
from sipdmq.dmq.sender import KdmqSender
from sipdmq.dmq.usrloc_form import UsrlocForm
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.location import ILocationStore
from sipdmq.interfaces.messages import IClientUser, IRequestSender, IServerTransaction
from sipdmq.interfaces.publications import PublicationChange
from sipdmq.records import Binding, ClusterNode, NodeName, Origin
from sipdmq.sip.message import Request, Response

__all__ = ["RequestCopies"]

log = Logger()

MAX_UNANSWERED: Final = 5_000
"""Copies that one node may owe us the answers to; it gets no more until it has given some."""
MAX_FORWARDS: Final = 70  # of a request that has none (RFC 3261 §16.6 step 3)


@implementer(IClientUser)
class _Copy:
    """
    On its way: what a node answers matters to nobody, that it answers does.
    """

    __slots__ = ("_copies", "_is_over", "_name", "_sent_at")

    def __init__(self, copies: RequestCopies, name: NodeName, sent_at: float) -> None:
        self._copies = copies
        self._name = name
        self._sent_at = sent_at
        self._is_over = False

    def _end(self, is_lost: bool) -> None:
        if not self._is_over:
            self._is_over = True
            self._copies.ended(self._name, self._sent_at, is_lost)

    def response_received(self, response: Response) -> None:
        """
        See L{IClientUser.response_received}.
        """
        if response.status >= 200:
            self._end(False)

    def timed_out(self) -> None:
        """
        See L{IClientUser.timed_out}.
        """
        self._end(True)

    def unreachable(self, reason: str) -> None:
        """
        See L{IClientUser.unreachable}.
        """
        self._end(True)


@implementer(IInspectable)
class RequestCopies:
    """
    Sends them.
    """

    def __init__(
        self,
        clock: IReactorTime,
        sender: IRequestSender,
        membership: Membership,
        senders: Senders,
        links: KdmqSender,
        store: ILocationStore,
        domains: Domains,
        form: UsrlocForm,
        presence_form: PresenceForm,
    ) -> None:
        """
        @param senders: knows what is a copy itself.
        @param links: knows where a node is reached.
        @param form: how records are told of; so C{presence_form}, of publications.
        """
        self._clock = IReactorTime(clock)
        self._sender = IRequestSender(sender)
        self._membership = membership
        self._senders = senders
        self._links = links
        self._store = ILocationStore(store)
        self._domains = domains
        self._form = form
        self._presence_form = presence_form
        self._unanswered: dict[NodeName, int] = {}
        self._sent = 0
        self._dropped = 0
        self._complaints = Complaints(self._clock.seconds)

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {
            "dmq.copies_sent": self._sent,
            "dmq.copies_dropped": self._dropped,
            "dmq.copies_unanswered": sum(self._unanswered.values()),
        }

    def registered(self, transaction: IServerTransaction) -> None:
        """
        A phone's REGISTER was stored and answered: C{[dmq] replicate}.
        """
        self._replicate(transaction, False)

    def published(self, transaction: IServerTransaction, change: PublicationChange) -> None:
        """
        The same of a PUBLISH.
        """
        self._replicate(transaction, False, change)

    def replicate(self, request: RoutedRequest, skip_loop_test: bool = False) -> int:
        """
        Send a request as it was received to every active node, with a Via of ours and one hop less. With a REGISTER or
        PUBLISH, nodes of ours are told what was made of it here, if it was saved, or taken, before.

        @param skip_loop_test: also if it came from a node; only Max-Forwards ends the loop then.
        @return: to how many nodes.
        """
        return self._replicate(request.transaction, skip_loop_test, request.published)

    def _replicate(
        self, transaction: IServerTransaction, skip_loop_test: bool, published: PublicationChange | None = None
    ) -> int:
        received: Request = transaction.request
        if not skip_loop_test and self._senders.may_be_copy(received, transaction.source):
            return 0
        hops = received.max_forwards
        if hops == 0:
            return 0
        nodes = self._membership.active()
        if not nodes:
            return 0
        copy = received.copy()
        remove_own_headers(copy.headers)
        copy.headers.replace("Max-Forwards", str(MAX_FORWARDS if hops is None else hops - 1))
        others = [node for node in nodes if not node.is_sipdmq]
        self._send(copy, others)
        ours = [node for node in nodes if node.is_sipdmq]
        aor = self._domains.aor_of(received.to.uri) if received.method == "REGISTER" and ours else None
        if published is not None:
            told = copy.copy()
            write_published(told.headers, self._presence_form.update(published.publication))
            self._send(told, ours)
        elif aor is None:
            self._send(copy, ours)
        else:
            self._send_told(copy, ours, aor)
        return len(nodes)

    def _send_told(self, copy: Request, nodes: Sequence[ClusterNode], aor: str) -> None:
        written: list[Binding] = []

        def look(records: tuple[Binding, ...]) -> tuple[Binding, ...]:
            """
            All stay as they are: this is the way to see the removed ones, too.
            """
            call_id, number = copy.call_id, copy.cseq.number
            written[:] = [
                record
                for record in records
                if record.call_id == call_id and record.cseq == number and not record.is_hidden
            ]
            return records

        def seen(_: object) -> None:
            told = copy.copy()
            write_registered(told.headers, registered_values(written, self._form))
            self._send(told, nodes)

        looking = maybeDeferred(self._store.update, aor, look, Origin.LOCAL)
        looking.addCallback(seen)
        looking.addErrback(lambda failure: log.failure("a copy for {aor} was not sent", failure, aor=aor))

    def _send(self, copy: Request, nodes: Sequence[ClusterNode]) -> None:
        """
        To each of them, unless it would not be read there.
        """
        if not nodes:
            return
        length = message_length(copy)
        now = self._clock.seconds()
        for node in nodes:
            name = node.name
            waiting = self._unanswered.get(name, 0)
            if length >= length_limit(node):
                self._drop(name, f"{length} bytes are more than it reads")
                continue
            if waiting >= MAX_UNANSWERED:
                self._drop(name, "it owes us too many answers")
                continue
            self._unanswered[name] = waiting + 1
            self._sent += 1
            targets = (self._links.target_of(name),)
            self._sender.send_request(copy, targets, _Copy(self, name, now), timers=self._links.timers)

    def _drop(self, name: NodeName, reason: str) -> None:
        self._dropped += 1
        if self._complaints.is_due():
            log.warn(
                "a copy for {node} was not sent: {reason}; not sent so far: {count}",
                node=str(name),
                reason=reason,
                count=self._dropped,
            )

    def ended(self, name: NodeName, sent_at: float, is_lost: bool) -> None:
        """
        A copy was answered, or will not be.
        """
        waiting = self._unanswered.get(name, 0) - 1
        if waiting > 0:
            self._unanswered[name] = waiting
        else:
            self._unanswered.pop(name, None)
        if is_lost:
            self._membership.data_lost(name, sent_at)
