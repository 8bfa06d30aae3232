"""
The nodes of the cluster as one node knows them, what each may be told, and what is to be done about it. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from random import SystemRandom
from typing import Final

from sipdmq.dmq.effects import (
    AskLater,
    Effect,
    NodeDisabled,
    NodeDown,
    NodeForgotten,
    NodeListSettings,
    NodeUp,
    SendList,
    Warn,
)
from sipdmq.dmq.lines import KAMAILIO_ROOM, fitting, format_line, line_length
from sipdmq.dmq.members import NEVER, Member
from sipdmq.records import ClusterNode, NodeName, NodeStatus

__all__ = ["TURNS", "Roster"]

ACTIVE: Final = NodeStatus.ACTIVE
NOT_ACTIVE: Final = NodeStatus.NOT_ACTIVE
DISABLED: Final = NodeStatus.DISABLED

_MARGIN: Final = KAMAILIO_ROOM // 2
"""
Bytes: with less than that left we ask a Kamailio what it has before we tell it of somebody, and not all of us do so at
once.
"""
_MAX_RUMOURS: Final = 32
"""
Nodes that others only spoke of, and that are asked at once: whoever writes addresses into a list could make us send to
all of them.
"""
_FRESH: Final = 1.0
"""Seconds for which what a Kamailio said it has still counts then."""
TURNS: Final = 5.0
"""
Seconds over which those spread that want to tell a Kamailio of somebody at the same time. Between its list and what
follows there are some milliseconds, so two of them seldom meet.
"""


class Roster:
    """
    The table behind L{sipdmq.dmq.nodelist.NodeList}, which holds the rules. What is to be done gathers here until an
    event is over: a node is then asked once, with the list as it is at the end.

    @ivar local: this node, in its one spelling.
    """

    def __init__(
        self,
        local: NodeName,
        configured: Iterable[NodeName] = (),
        settings: NodeListSettings | None = None,
        also_local: Iterable[NodeName] = (),
        release: str = "",
        random: Callable[[], float] | None = None,
    ) -> None:
        """
        @param configured: C{notification_address}, with numeric hosts; this node may be among them.
        @param also_local: other names under which this node is reached: its other listeners, what they advertise.
        @param release: of this node.
        @param random: from 0, included, to 1, excluded: when our turn is; L{None}: nobody can foresee it.
        """
        self.local = local
        self._settings = settings or NodeListSettings()
        self._own = frozenset((local, *also_local))
        self._configured = frozenset(configured) - self._own
        self._release = release
        self._random = random or SystemRandom().random
        self._members: dict[NodeName, Member] = {}
        self._hosts: Counter[str] = Counter()
        self._effects: list[Effect] = []
        self._to_ask: dict[NodeName, int] = {}
        self._rumours: dict[NodeName, None] = {}
        self._synced: set[str] = set()
        self._farewell = "none"
        self._is_over = False
        self._warned: set[NodeName] = set()
        self._was_full = False

    # What it knows

    def nodes(self) -> tuple[ClusterNode, ...]:
        """
        All, this one first, the others by name.
        """
        status = DISABLED if self._is_over else ACTIVE
        local = ClusterNode(self.local, status, self._release, is_sipdmq=True, is_local=True)
        return (local, *(self._members[name].as_node() for name in sorted(self._members)))

    def find(self, name: NodeName) -> ClusterNode | None:
        """
        The other node of that name, in whatever state.
        """
        member = self._members.get(name)
        return None if member is None else member.as_node()

    def is_local(self, name: NodeName) -> bool:
        """
        Whether it is this node, in whatever spelling.
        """
        return name in self._own

    def has_host(self, host: str) -> bool:
        """
        Whether another node, in whatever state, is at this address, as C{dmq_is_from_node} wants to know (WIRE §2).

        @param host: numeric.
        """
        return host in self._hosts

    @property
    def forget_after(self) -> float:
        """
        Seconds after which a node that is away is forgotten.
        """
        return self._settings.forget_after

    def answered_at(self, name: NodeName) -> float:
        """
        When a node last answered a notification, seconds; minus infinity if it never did.
        """
        member = self._members.get(name)
        return NEVER if member is None else member.answered_at

    @property
    def is_alone(self) -> bool:
        """
        Whether no other node is active.
        """
        return not any(member.is_active for member in self._members.values())

    # What a node is told

    def list_for(self, receiver: NodeName | None, now: float) -> bytes:
        """
        Our list as a node may read it: oneself and every active node; what goes to a Kamailio, or to one that may be
        one, is what fits there.

        @return: empty where it may be nothing yet.
        """
        member = None if receiver is None else self._members.get(receiver)
        told: Collection[NodeName]
        if member is not None and member.is_sipdmq:
            told = {self.local, *(name for name, other in self._members.items() if other.is_active)}
            member.was_asked_only = False
        else:
            told = self._told_to_kamailio(receiver or self.local, member, now)
        body = b"".join(self._members[name].line for name in sorted(told) if name != self.local)
        if self.local in told:
            status = DISABLED if self._is_over and member is not None and self._is_told(member) else ACTIVE
            body += format_line(self.local, status)
        return body

    def _told_to_kamailio(self, receiver: NodeName, member: Member | None, now: float) -> set[NodeName]:
        """
        What a Kamailio has room for, and nothing new before it was asked what it has now, and before it is our turn.
        One to join through may be full already: it is asked before it is told of us.
        """
        told, listed, is_tight = self._room_for(receiver, member)
        is_unheard = member is not None and member.is_configured and not member.seen and listed is None
        is_late = member is not None and (now - member.listed_at > _FRESH or member.turn_at is not None)
        if listed is None and (is_tight or is_unheard):
            told = set()
        elif member is not None and member.kind == "kamailio":
            self._warn_of(self._active() - told, receiver)
        if is_tight and is_late and listed is not None:
            told &= listed
        if member is not None:
            member.told |= told
            member.was_asked_only = is_unheard or (is_tight and (listed is None or is_late))
        return told

    def _active(self) -> set[NodeName]:
        return {self.local, *(name for name, other in self._members.items() if other.is_active)}

    def _room_for(
        self, receiver: NodeName, member: Member | None
    ) -> tuple[set[NodeName], frozenset[NodeName] | None, bool]:
        """
        While there is plenty of room in a Kamailio, all; else what it lists already, then Kamailios, then the others by
        name, so that all of us choose alike.

        @return: whom it can be told of; whom it has as far as we know, or L{None}; whether it is more than half full.
        """
        members, local = self._members, self.local
        usable = {name for name in self._active() if name.protocol is receiver.protocol}
        # Those that are gone for now keep their place: they join by themselves, and nobody asks whether there is room.
        known = usable | {name for name, other in members.items() if other.seen and name.protocol is receiver.protocol}
        listed = None if member is None or member.listed is None else member.listed | member.told
        if listed is not None and member is not None and member.has_us:
            listed |= {local}
        taken = known | (listed or frozenset()) | {receiver}
        rumoured = {name for name, other in members.items() if not other.seen and other.status is NOT_ACTIVE}
        room = KAMAILIO_ROOM - (0 if member is None else member.excess + member.spare)
        if sum(map(line_length, taken | rumoured)) <= room - _MARGIN:
            return usable, listed, False
        room -= sum(map(line_length, taken - known))
        kamailios = {name for name, other in members.items() if other.kind == "kamailio"}
        ranked = sorted(known, key=lambda name: (name not in (listed or ()), name not in kamailios, name))
        return usable & set(fitting(ranked, room)), listed, True

    def _is_its_turn(self, member: Member, now: float) -> bool:
        """
        A Kamailio has said what it has: may it be told of others? Where it is more than half full, each of us waits for
        a while of its own, and asks again: of those that see the same room in the same moment each would fill it.
        """
        told, listed, is_tight = self._room_for(member.name, member)
        if not is_tight or told <= (listed or frozenset()):
            member.turn_at = None
            return True
        if member.turn_at is None:
            pause = TURNS * self._random()
            member.turn_at = now + pause
            self._effects.append(AskLater(member.name, pause))
        elif member.asked_at >= member.turn_at:
            member.turn_at = None
            return True
        return False

    def _warn_of(self, omitted: Collection[NodeName], kamailio: NodeName) -> None:
        if not omitted:
            self._warned.discard(kamailio)
        elif kamailio not in self._warned:
            self._warned.add(kamailio)
            names = sorted(omitted)
            text = ", ".join(map(str, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            self._effects.append(
                Warn(
                    f"Kamailio {kamailio} cannot be told of every node, so it sends no changes to {text}: "
                    "it holds 24 to 29 nodes, and can be told only of those of its own transport"
                )
            )

    def _is_told(self, member: Member) -> bool:
        return self._farewell == "all" or (self._farewell == "sipdmq" and member.is_sipdmq)

    # How it changes

    def _set_status(self, member: Member, status: NodeStatus, now: float, is_newcomer: bool = False) -> None:
        was, member.status = member.status, status
        if status is was:
            return
        if status is ACTIVE:
            member.seen = True
            member.began_at = now
            member.failures = 0
            self._effects.append(NodeUp(member.as_node(), is_newcomer))
            if member.forward:
                self._tell_all(member.forward)
                member.forward = 0
            return
        if was is ACTIVE:
            member.since = now
            member.was_lost = member.kind != "sipdmq"
            member.kind = ""
            member.omits_us = False
            member.turn_at = None
            member.forward = 0
            if self.is_alone:
                self._synced.clear()
        if member.seen:
            self._effects.append(NodeDown(member.as_node()) if status is NOT_ACTIVE else NodeDisabled(member.as_node()))

    def _add(self, name: NodeName, now: float, is_hearsay: bool = False) -> bool:
        if len(self._members) >= self._settings.max_nodes:
            rumours = [other for other in self._members.values() if not other.seen and not other.is_configured]
            if is_hearsay or not rumours:
                if not self._was_full:
                    self._was_full = True
                    self._effects.append(Warn(f"no room for node {name}: {len(self._members)} are known"))
                return False
            self._remove(min(rumours, key=lambda other: other.since).name)
        self._members[name] = Member(name, now, name in self._configured)
        self._hosts[name.host] += 1
        return True

    def _remove(self, name: NodeName) -> None:
        del self._members[name]
        self._was_full = False
        self._warned.discard(name)
        self._to_ask.pop(name, None)
        self._rumours.pop(name, None)
        self._hosts[name.host] -= 1
        if not self._hosts[name.host]:
            del self._hosts[name.host]
        self._effects.append(NodeForgotten(name))

    def _ask(self, member: Member, now: float, hops: int = 1, must: bool = False) -> None:
        if must or not member.is_waiting(now, self._settings.timeout):
            self._to_ask[member.name] = max(hops, self._to_ask.get(member.name, 0))

    def _ask_in_turn(self, member: Member, now: float) -> None:
        """
        Ask a node; one that others only spoke of, when its turn comes.
        """
        if member.is_rumour:
            self._rumours[member.name] = None
        else:
            self._ask(member, now)

    def _ask_rumours(self, now: float) -> None:
        timeout = self._settings.timeout
        asked = sum([member.is_rumour and member.is_waiting(now, timeout) for member in self._members.values()])
        for name in list(self._rumours)[: max(0, _MAX_RUMOURS - asked)]:
            del self._rumours[name]
            self._ask(self._members[name], now)

    def _tell_all(self, hops: int) -> None:
        for name, member in self._members.items():
            if member.is_active:
                self._to_ask[name] = max(hops, self._to_ask.get(name, 0))

    def _done(self, now: float) -> tuple[Effect, ...]:
        if self._rumours:
            self._ask_rumours(now)
        for name, hops in self._to_ask.items():
            self._members[name].asked(now, hops)
            self._effects.append(SendList(name, hops, self.list_for(name, now)))
        effects = tuple(self._effects)
        self._to_ask.clear()
        self._effects.clear()
        return effects
