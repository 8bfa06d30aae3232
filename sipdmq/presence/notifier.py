"""
Sends the NOTIFYs (RFC 6665 §4.2.2): one for each change, no more than one unanswered, and not too often.

What a watcher is told is asked for when it is sent: so many changes may come while he cannot be told, he gets the
newest state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.core.targets import BindingTargets
from sipdmq.errors import ParseError, UnreachableError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.messages import IClientUser, IRequestSender, ITargetResolver
from sipdmq.interfaces.presence import IEventStateListener
from sipdmq.presence.dialogs import NO_DOCUMENT, notify
from sipdmq.presence.pacing import Pacing
from sipdmq.presence.states import EventStates
from sipdmq.presence.subscriptions import CSEQ_STEP, State, Subscription, Verdict, judge, state_value
from sipdmq.presence.table import SubscriptionTable
from sipdmq.records import Listener, Origin, Target
from sipdmq.sip.message import Response
from sipdmq.sip.uri import URI, SipURI, format_host

__all__ = ["Contacts", "Notifier"]

log = Logger()

SLICE: Final = 25
"""NOTIFYs that are sent in one go, before everything else in the node has its turn: about 3 ms."""
TOLD_EVERY: Final = CSEQ_STEP // 2
"""After so many NOTIFYs the other nodes are told how far their numbers have come."""


class Contacts:
    """
    How the node names itself in dialogs: by the listener that a SUBSCRIBE came by.
    """

    def __init__(self, listeners: Iterable[Listener]) -> None:
        """
        @param listeners: not empty.
        """
        self._by_socket: dict[str, str] = {}
        self._by_protocol: dict[str, str] = {}
        for each in listeners:
            protocol = each.protocol.name.lower()
            address = f"{format_host(each.advertise_host)}:{each.advertise_port}"
            transport = "" if protocol == "udp" else f";transport={protocol}"
            self._by_socket[str(each)] = f"<sip:{address}{transport}>"
            self._by_protocol.setdefault(protocol, f"<sip:{address}{transport}>")
            if protocol == "tls":
                self._by_socket[f"sips {each}"] = f"<sips:{address}>"
                self._by_protocol.setdefault("sips tls", f"<sips:{address}>")

    def of(self, record: Subscription) -> str:
        """
        Contact in a dialog: that of its listener; of another node's, one of ours for the same protocol. One with a
        C{sips:} target gets a C{sips:} Contact (RFC 5630 §3.3), where there is one.
        """
        socket = record.socket
        protocol = socket.partition(":")[0]
        if record.contact[:5].lower() == "sips:":
            found = self._by_socket.get(f"sips {socket}") or self._by_protocol.get("sips tls")
            if found is not None:
                return found
        return (
            self._by_socket.get(socket)
            or self._by_protocol.get(protocol)
            or next(iter(self._by_protocol.values()))
        )


@implementer(IClientUser)
class _Pace:
    """
    What is on the way to one watcher, and what he still has to be told. There is none for who has been told everything
    some time ago.

    @ivar is_stale: he is to be told of the present state.
    @ivar is_urgent: at once, whenever he was told last.
    @ivar is_paced: he was told something a moment ago.
    @ivar is_resting: he has asked to be left alone for a while.
    @ivar final: the subscription is over: as it was, for the last NOTIFY.
    @ivar reason: why; and C{retry_after}: in how many seconds he may come again.
    """

    __slots__ = (
        "_notifier", "final", "is_final_sent", "is_paced", "is_queued", "is_resting", "is_stale", "is_unanswered",
        "is_urgent", "reason", "retry_after", "tag",
    )  # fmt: skip

    def __init__(self, notifier: Notifier, tag: str) -> None:
        self._notifier = notifier
        self.tag = tag
        self.is_stale = self.is_urgent = self.is_paced = self.is_resting = False
        self.is_queued = self.is_unanswered = self.is_final_sent = False
        self.final: Subscription | None = None
        self.reason = ""
        self.retry_after = 0

    @property
    def is_idle(self) -> bool:
        return not (
            self.is_unanswered
            or self.is_paced
            or self.is_queued
            or self.is_stale
            or self.is_resting
            or (self.final is not None and not self.is_final_sent)
        )

    @property
    def may_send(self) -> bool:
        if self.is_unanswered or self.is_queued or self.is_final_sent:
            return False
        if self.final is not None:
            return True
        return self.is_stale and not self.is_resting and (self.is_urgent or not self.is_paced)

    def response_received(self, response: Response) -> None:
        if response.status >= 200:
            self._notifier.answered(self, response)

    def timed_out(self) -> None:
        self._notifier.failed(self, False)

    def unreachable(self, reason: str) -> None:
        self._notifier.failed(self, True)


@implementer(IEventStateListener, IInspectable)
class Notifier:
    """
    Tells watchers of this node's subscriptions what they want to know.

    @ivar lost: called with a subscription that nobody wants any more, and whether it was only that its watcher could
        not be reached.
    @ivar counted: called with a subscription whose NOTIFYs have come far in their numbers.
    """

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        table: SubscriptionTable,
        states: EventStates,
        sender: IRequestSender,
        resolver: ITargetResolver,
        targets: BindingTargets,
        contacts: Contacts,
        local: str,
        min_notify_interval: float,
        agent: str,
    ) -> None:
        """
        @param targets: find the watcher who is the next hop himself.
        @param local: the owner that this node is.
        @param min_notify_interval: seconds.
        """
        self._clock = IReactorTime(clock)
        self._now = now
        self._table = table
        self._states = states
        self._sender = IRequestSender(sender)
        self._resolver = ITargetResolver(resolver)
        self._targets = targets
        self._contacts = contacts
        self._local = local
        self._agent = agent
        self._pacing: Pacing[_Pace] = Pacing(clock, min_notify_interval, self._paced)
        self._paces: dict[str, _Pace] = {}
        self._queue: deque[_Pace] = deque()
        self._call: IDelayedCall | None = None
        self._resting: dict[_Pace, IDelayedCall] = {}
        self._counts = dict.fromkeys(("sent", "refused", "unanswered", "unreachable"), 0)
        self.lost: Callable[[Subscription, bool], object] = lambda record, is_unreachable: None
        self.counted: Callable[[Subscription], object] = lambda record: None

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        numbers: dict[str, int | float] = {f"notify.{name}": count for name, count in self._counts.items()}
        numbers["notify.waiting"] = len(self._queue)
        numbers["notify.watchers"] = len(self._paces)
        return numbers

    @property
    def is_busy(self) -> bool:
        """
        Whether there is as much to tell as there may be subscriptions: fetches come on top of these.
        """
        return len(self._paces) >= self._table.limits.subscriptions

    # what is to be told

    def state_changed(self, aor: str, package: str, origin: Origin) -> None:
        """
        See L{IEventStateListener.state_changed}. Wherever the change came from: each node tells those whose
        subscriptions it has.
        """
        table = self._table
        for tag in table.of(aor, package):
            record = table.get(tag)
            if record is not None and record.owner == self._local and record.state is State.ACTIVE:
                self.tell(tag)

    def tell(self, tag: str, is_urgent: bool = False) -> None:
        """
        Tell one watcher of the present state.

        @param is_urgent: he has asked for it: at once, and not only when his time comes.
        """
        pace = self._pace(tag)
        pace.is_stale = True
        pace.is_urgent |= is_urgent
        self._offer(pace)

    def finish(self, record: Subscription, reason: str, retry_after: int = 0) -> None:
        """
        Tell a watcher the state for the last time.

        @param record: the subscription as it was before it was over.
        @param reason: for Subscription-State; so C{retry_after}, in seconds.
        """
        pace = self._pace(record.tag)
        pace.final = record
        pace.reason = reason
        pace.retry_after = retry_after
        self._offer(pace)

    def _pace(self, tag: str) -> _Pace:
        pace = self._paces.get(tag)
        if pace is None:
            pace = self._paces[tag] = _Pace(self, tag)
        return pace

    def _offer(self, pace: _Pace) -> None:
        if pace.may_send:
            pace.is_queued = True
            self._queue.append(pace)
            if self._call is None:
                self._call = self._clock.callLater(0, self._run)
        elif pace.is_idle:
            self._forget(pace)

    def _forget(self, pace: _Pace) -> None:
        if self._paces.get(pace.tag) is pace:
            del self._paces[pace.tag]
        call = self._resting.pop(pace, None)
        if call is not None:
            call.cancel()

    def _run(self) -> None:
        self._call = None
        self._send_queued(SLICE)
        if self._queue and self._call is None:
            self._call = self._clock.callLater(0, self._run)

    def _send_queued(self, most: int) -> None:
        queue = self._queue
        for _ in range(min(most, len(queue))):
            pace = queue.popleft()
            pace.is_queued = False
            try:
                self._send(pace)
            except Exception:  # noqa: BLE001 - the edge of timers: the others are told all the same
                log.failure("a NOTIFY broke")
                self._end(pace, False)

    # sending

    def _send(self, pace: _Pace) -> None:
        record = pace.final
        if record is None:
            record = self._table.get(pace.tag)
            if record is None or record.state is State.TERMINATED or record.owner != self._local:
                pace.is_stale = False
                self._offer(pace)  # it is another node's, or nobody's
                return
        record = record._replace(local_cseq=record.local_cseq + 1, version=record.version + 1)
        if pace.final is None:
            self._table.renumber(record)
            pace.is_stale = pace.is_urgent = False
            if record.local_cseq % TOLD_EVERY == 0:
                self.counted(record)
        else:
            pace.is_final_sent = True
        state = state_value(record, int(self._now()), pace.reason, pace.retry_after)
        document = NO_DOCUMENT
        if record.state is State.ACTIVE:
            document = self._states.document(record.presentity, record.event)
        pace.is_unanswered = True
        try:
            request, next_hop = notify(record, self._contacts.of(record), state, document, self._agent)
            found = self._find(record, next_hop)
        except (ParseError, UnreachableError):
            self.failed(pace, True)
            return
        targets = found.result if found.called else None
        if isinstance(targets, tuple):  # known already: nobody has to be called back
            self._found(targets, request, pace)
        else:
            found.addCallbacks(self._found, self._not_found, (request, pace), {}, (pace,), {})

    def _find(self, record: Subscription, next_hop: URI | None) -> Deferred[tuple[Target, ...]]:
        if next_hop is None:
            return self._targets.resolve(record)
        if not isinstance(next_hop, SipURI):
            raise UnreachableError(f"{next_hop}: no SIP URI")
        found: Deferred[tuple[Target, ...]] = self._resolver.resolve(next_hop)
        return found

    def _found(self, targets: tuple[Target, ...], request: Any, pace: _Pace) -> None:
        self._counts["sent"] += 1
        if self._pacing.interval and not pace.is_final_sent:
            pace.is_paced = True
            self._pacing.add(pace)
        self._sender.send_request(request, targets, pace)

    def _not_found(self, failure: Failure, pace: _Pace) -> None:
        if not failure.check(UnreachableError, ParseError):
            log.failure("a NOTIFY broke", failure)
        self.failed(pace, True)

    # what becomes of it

    def answered(self, pace: _Pace, response: Response) -> None:
        """
        From a NOTIFY of ours: a final response.
        """
        pace.is_unanswered = False
        answer = judge(response)
        if answer.verdict is Verdict.GONE:
            self._counts["refused"] += 1
            self._end(pace, False)
            return
        if answer.verdict is Verdict.LATER and pace.final is None:
            self._counts["refused"] += 1
            pace.is_stale = pace.is_resting = True
            self._resting[pace] = self._clock.callLater(answer.retry_after, self._rested, pace)
        self._offer(pace)

    def failed(self, pace: _Pace, is_unreachable: bool) -> None:
        """
        From a NOTIFY of ours: there was no answer, or it could not be sent.
        """
        pace.is_unanswered = False
        self._counts["unreachable" if is_unreachable else "unanswered"] += 1
        self._end(pace, is_unreachable)

    def _end(self, pace: _Pace, is_unreachable: bool) -> None:
        """
        The watcher does not want to be told, or cannot be.
        """
        self._forget(pace)
        record = self._table.get(pace.tag)
        if record is None or record.state is State.TERMINATED or record.owner != self._local:
            return
        if pace.final is None:
            self.lost(record, is_unreachable)

    def _paced(self, pace: _Pace) -> None:
        pace.is_paced = False
        if self._paces.get(pace.tag) is pace:
            self._offer(pace)

    def _rested(self, pace: _Pace) -> None:
        self._resting.pop(pace, None)
        pace.is_resting = False
        self._offer(pace)

    def stop(self) -> None:
        """
        Send what is ready, and tell nobody anything any more.
        """
        self._send_queued(len(self._queue))
        self._pacing.stop()
        for call in (*self._resting.values(), *([] if self._call is None else [self._call])):
            call.cancel()
        self._resting.clear()
        self._queue.clear()
        self._paces.clear()
        self._call = None
