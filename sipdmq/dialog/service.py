"""
The dialogs at work: they follow the calls that the proxy relays, and count them for policies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from sipdmq.config import DialogConfig
from sipdmq.core.functions import RoutedRequest
from sipdmq.dialog.dialogs import MAX_TEXT, NO_LEG, callee_in, merged
from sipdmq.dialog.hashes import core_hash, did_text
from sipdmq.dialog.marks import Call, Marks
from sipdmq.dialog.table import DialogTable
from sipdmq.errors import ParseError, RequestRefused
from sipdmq.interfaces.dialogs import (
    Dialog,
    DialogId,
    DialogState,
    EndedDialog,
    IDialogListener,
    IDialogs,
    Leg,
    Profile,
)
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.routing import ICallListener
from sipdmq.records import Origin, Source
from sipdmq.sip.grammar import split_commas
from sipdmq.sip.message import Request, Response

__all__ = ["Dialogs"]

log = Logger()

_PATIENCE: Final = 60.0
"""Seconds that the owner of a dialog has to end it, or that pass until it is known that it is lost."""


@implementer(IDialogs, ICallListener, IInspectable)
class Dialogs:
    """
    All dialogs of the cluster as this node knows them.
    """

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        config: DialogConfig,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """
        @param now: the time, seconds since the epoch.
        @param random_bytes: as C{os.urandom}.
        """
        self._clock = IReactorTime(clock)
        self._now = now
        self._config = config
        self._random_bytes = random_bytes
        self._table = DialogTable(config.max_dialogs, config.early_timeout, config.end_timeout)
        self._marks = Marks()
        self._listeners: list[Any] = []
        self._answers_for: Callable[[str], bool] = lambda told_by: not told_by
        self._call: IDelayedCall | None = None
        self._call_at = 0.0
        self._turned_away = 0
        self._timed_out = 0

    def connect(self, answers_for: Callable[[str], bool]) -> None:
        """
        In a cluster: who runs the timers of a dialog.

        @param answers_for: as L{IMembership.answers_for<sipdmq.interfaces.replication.IMembership.answers_for>}.
        """
        self._answers_for = answers_for

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {
            "dialog.dialogs": len(self._table),
            "dialog.turned_away": self._turned_away,
            "dialog.timed_out": self._timed_out,
        }

    def stop(self) -> None:
        """
        Run no timers any more.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._call_at = float("-inf")

    # for policies

    def profile_size(self, name: str, value: str | None = None) -> int:
        """
        How many calls are under way in the cluster, as far as this node has heard, that count as that.

        @param value: L{None}: whatever value they have.
        @raise LookupError: there is no such profile in C{[dialog]}.
        """
        self._check_profile(name, value if value is not None else "", is_any=value is None)
        return self._table.profile_size(name, value)

    def set_profile(self, request: RoutedRequest, name: str, value: str = "") -> None:
        """
        Let the call that a request begins count as that, from when it is relayed on.

        @raise LookupError: there is no such profile in C{[dialog]}, or it has no values, or needs one.
        @raise ValueError: the call counts as too many things.
        """
        self._check_profile(name, value)
        puid = f"dlgp-{self._random_bytes(8).hex()}"
        self._marks.add_profile(_call_of(request.message), Profile(name, value, puid))

    def limit(self, request: RoutedRequest, name: str, value: str, most: int, status: int = 486) -> None:
        """
        Count the call that a request begins, unless there are that many already, anywhere in the cluster. What two
        nodes let through within the same few milliseconds neither has heard of: the limit may be passed by that.

        @param most: calls at the same time.
        @param status: of the refusal: 486, or 403.
        @raise RequestRefused: there are.
        @raise LookupError: as L{set_profile}.
        """
        if self.profile_size(name, value) >= most:
            raise RequestRefused(status)
        self.set_profile(request, name, value)

    def set_variable(self, request: RoutedRequest, name: str, value: str) -> None:
        """
        Keep something with the call that a request begins, from when it is relayed on: all nodes get it.

        @raise ValueError: there are too many, or it is too long.
        """
        self._marks.set_variable(_call_of(request.message), name, value)

    def find(self, call_id: str, tag: str, other_tag: str = "") -> Dialog | None:
        """
        A call by its Call-ID and the tag of its caller, or both tags in any order.
        """
        return self._table.find(call_id, tag, other_tag)

    def _check_profile(self, name: str, value: str, is_any: bool = False) -> None:
        if name in self._config.profiles_with_value:
            if value or is_any:
                return
            raise LookupError(f"profile '{name}' needs a value; see [dialog] profiles_with_value")
        if name not in self._config.profiles_no_value or value:
            raise LookupError(f"there is no profile '{name}' {'with' if value else 'without'} values in [dialog]")

    # from the proxy

    def mark(self, request: Request) -> str:
        """
        What is to stand in our Record-Route of a request, so that a Kamailio finds the dialog: C{";did=80d.bdd1"};
        empty for none.
        """
        dialog = self._of(request)
        return "" if dialog is None else did_text(dialog.id)

    def request_relayed(self, request: Request, caller: str, source: Source) -> None:
        """
        See L{ICallListener.request_relayed}.
        """
        call = _call_of(request)
        marks = self._marks.take(call)
        if (marks is None and not self._config.track) or self._table.find(*call) is not None:
            return
        profiles, variables = marks or ((), ())
        now = self._now()
        contacts = request.contacts
        dialog = Dialog(
            DialogId(self.hash_of(request.call_id), int.from_bytes(self._random_bytes(4), "big") or 1),
            request.call_id,
            request.from_.uri.text[:MAX_TEXT],
            request.to.uri.text[:MAX_TEXT],
            request.uri_text[:MAX_TEXT],
            Leg(
                request.from_.tag,
                str(request.cseq.number),
                ", ".join(request.headers.get_all("record-route"))[:MAX_TEXT],
                contacts[0].uri.text[:MAX_TEXT] if contacts else "",
            ),
            NO_LEG,
            DialogState.UNCONFIRMED,
            int(now),
            0,
            self._config.default_timeout,
            variables,
            profiles,
            changed_at=now,
        )
        if not self._put(dialog, Origin.LOCAL):
            self._turned_away += 1

    def call_ringing(self, request: Request, response: Response) -> None:
        """
        See L{ICallListener.call_ringing}.
        """
        self._went_on(self._of(request), DialogState.EARLY)

    def call_answered(self, request: Request, response: Response) -> None:
        """
        See L{ICallListener.call_answered}.
        """
        dialog = self._of(request)
        if dialog is None:
            return
        try:
            contacts = response.contacts
            tag = response.to.tag
        except ParseError:  # whatever the phone wrote there, the call is answered
            contacts, tag = [], ""
        routes = [part for value in response.headers.get_all("record-route") for part in split_commas(value)]
        ours = did_text(dialog.id)
        beyond = []
        for route in routes:
            if ours in route:
                break
            beyond.append(route)
        leg = Leg(tag, "0", ", ".join(beyond)[:MAX_TEXT], contacts[0].uri.text[:MAX_TEXT] if contacts else "")
        self._went_on(dialog._replace(callee=leg, start_ts=int(self._now())), DialogState.CONFIRMED_NA)

    def ack_relayed(self, request: Request) -> None:
        """
        See L{ICallListener.ack_relayed}: also of a call that was answered by way of another node, which waits for it.
        """
        dialog = self._of(request)
        if dialog is None or dialog.state >= DialogState.CONFIRMED:
            return
        if dialog.state is DialogState.CONFIRMED_NA:
            self._went_on(dialog, DialogState.CONFIRMED)
            return
        callee = callee_in(request, dialog.id) if dialog.told_by else None
        if callee is not None:
            lifetime = dialog.lifetime or self._config.default_timeout  # Kamailio 5 does not tell that at first
            known = dialog._replace(callee=callee, start_ts=int(self._now()), lifetime=lifetime)
            self._went_on(known, DialogState.CONFIRMED)

    def call_failed(self, request: Request, status: int) -> None:
        """
        See L{ICallListener.call_failed}.
        """
        self._went_on(self._of(request), DialogState.DELETED)

    def bye_relayed(self, request: Request) -> None:
        """
        See L{ICallListener.bye_relayed}: also of a call that began at another node.
        """
        self._went_on(self._table.find(request.call_id, request.from_.tag, request.to.tag), DialogState.DELETED)

    def _of(self, request: Request) -> Dialog | None:
        return self._table.find(*_call_of(request))

    def _went_on(self, dialog: Dialog | None, state: DialogState) -> None:
        if dialog is not None and dialog.state < state:
            self._put(dialog._replace(state=state, told_by="", changed_at=self._now()), Origin.LOCAL)

    def _put(self, dialog: Dialog, origin: Origin) -> bool:
        if not self._table.put(dialog):
            return False
        if dialog.state is not DialogState.CONFIRMED_NA or origin is not Origin.LOCAL:
            self._tell("dialog_changed", dialog, origin)
        self._wait()
        return True

    # IDialogs

    def all(self) -> Sequence[Dialog]:
        """
        See L{IDialogs.all}.
        """
        return tuple(self._table)

    def get(self, dialog: DialogId) -> Dialog | None:
        """
        See L{IDialogs.get}.
        """
        return self._table.get(dialog)

    def names(self) -> Sequence[DialogId]:
        """
        See L{IDialogs.names}.
        """
        return self._table.names()

    def record(self, dialog: DialogId) -> Dialog | EndedDialog | None:
        """
        See L{IDialogs.record}.
        """
        return self._table.get(dialog) or self._table.ended(dialog)

    def hash_of(self, call_id: str) -> int:
        """
        See L{IDialogs.hash_of}.
        """
        return core_hash(call_id.encode("utf-8", "surrogateescape"), self._config.hash_size)

    def merge(self, dialog: Dialog) -> bool:
        """
        See L{IDialogs.merge}.
        """
        stored = self._table.get(dialog.id)
        if stored is None:
            is_ended = dialog.is_over or self._table.ended(dialog.id) is not None
            return is_ended or self._put(dialog, Origin.REPLICATED)
        known = merged(stored, dialog)
        return known is stored or self._put(known, Origin.REPLICATED)

    def remove(self, dialog: DialogId, told_by: str) -> bool:
        """
        See L{IDialogs.remove}.
        """
        stored = self._table.forget(dialog, told_by, self._now())
        if stored is not None:
            self._tell("dialog_forgotten", stored, Origin.REPLICATED)
        return stored is not None

    def watch(self, listener: IDialogListener) -> None:
        """
        See L{IDialogs.watch}.
        """
        self._listeners.append(IDialogListener(listener))

    def _tell(self, event: str, dialog: Dialog, origin: Origin) -> None:
        for listener in self._listeners:
            try:
                getattr(listener, event)(dialog, origin)
            except Exception:  # noqa: BLE001 - the call goes on, and others shall hear of it
                log.failure("a listener broke on {event}", event=event)

    # time

    def _wait(self) -> None:
        at = self._table.next_at()
        if at is None:
            return
        if self._call is not None and self._call.active():
            if at >= self._call_at:
                return
            self._call.cancel()
        if self._call_at == float("-inf"):
            return  # stopped
        self._call_at = at
        self._call = self._clock.callLater(max(0.0, at - self._now()), self._expire)

    def _expire(self) -> None:
        self._call = None
        self._call_at = 0.0
        now = self._now()
        for dialog in self._table.due(now):
            self._due(dialog, now)
        self._wait()

    def _due(self, dialog: Dialog, now: float) -> None:
        """
        The time of a dialog is over: its owner ends it, or its heir. Who is neither waits to hear of that, and lets go
        of it after a while: its end may have got lost with everybody who knew of it.
        """
        is_owner = self._answers_for(dialog.told_by)
        if dialog.is_over:
            self._table.forget(dialog.id, dialog.told_by, now)
            self._tell("dialog_forgotten", dialog, Origin.LOCAL if is_owner else Origin.EXPIRED)
        elif is_owner:
            self._timed_out += 1
            self._put(dialog._replace(state=DialogState.DELETED, told_by="", changed_at=now), Origin.LOCAL)
        elif not self._table.postpone(dialog.id, now, _PATIENCE):
            self._table.forget(dialog.id, dialog.told_by, now)
            self._tell("dialog_forgotten", dialog, Origin.EXPIRED)


def _call_of(request: Request) -> Call:
    return request.call_id, request.from_.tag
