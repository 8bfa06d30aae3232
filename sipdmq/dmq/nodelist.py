"""
Who is in the cluster. Pure: events with the time go in, what is to be done comes out.

The rules are Kamailio's (WIRE §2 to §4) with these differences:

  - A member speaks of itself only. What it says of another makes us ask that one, whose answer counts: so one that we
    found dead does not come back because somebody has not noticed yet, and nobody can talk others out of the cluster.
  - A disabled node is kept and pinged; it is forgotten after C{forget_after}, unless it is configured.
  - A Kamailio is told of no more nodes than it can hold (L{sipdmq.dmq.lines}). Which ones is chosen alike by every
    sipdmq node, and a node that is not chosen does not list itself to it either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sipdmq.dmq.effects import Effect, NodeRestarted, SayHello, SendList
from sipdmq.dmq.lines import NodeLine, format_line, line_length
from sipdmq.dmq.members import NEVER, Member, probe_pause, status_after_timeout
from sipdmq.dmq.syncs import Syncs
from sipdmq.records import NodeName, NodeStatus

__all__ = ["NodeList"]

ACTIVE: Final = NodeStatus.ACTIVE
DISABLED: Final = NodeStatus.DISABLED

MAX_HOPS: Final = 2
"""More in a Max-Forwards does not count: no node sends more, and each hop goes to everybody."""
HEARSAY_PINGS: Final = 10
"""A node that others spoke of and that never answered is forgotten after so many ping intervals."""
KAMAILIO_PATIENCE: Final = 10.0
"""Seconds after its last answer in which a Kamailio is asked whether it is still there."""
BEGINNING: Final = 10.0
"""Seconds since it became active in which a Kamailio's question for everything is the one of that beginning."""
MAX_REFUSALS: Final = 5
"""So often a node that refuses us is probed; then only pinged. It may not have heard of us yet."""


class NodeList(Syncs):
    """
    The node list of one node. Each method that takes C{now} (seconds, never going back) returns what is to be done, in
    that order.
    """

    # What happens

    def start(self, now: float) -> tuple[Effect, ...]:
        """
        Join: one notification to each configured node, to be passed on to the others.
        """
        self._is_over = False
        self._farewell = "none"
        return self.configure(now, self._configured)

    def configure(self, now: float, configured: Iterable[NodeName]) -> tuple[Effect, ...]:
        """
        The nodes to join through are these now (C{multi_notify}); those that are new are asked.
        """
        self._configured = frozenset(configured) - self._own
        for name, member in self._members.items():
            member.is_configured = name in self._configured
        for name in sorted(self._configured):
            if name in self._members or self._add(name, now):
                self._ask(self._members[name], now, MAX_HOPS if self.is_alone else 1)
        return self._done(now)

    def ping(self, now: float) -> tuple[Effect, ...]:
        """
        C{ping_interval} is over: the list goes to every node in whatever state.
        """
        if self._is_over:
            return ()
        for name, member in list(self._members.items()):
            if self._is_outdated(member, now):
                self._remove(name)
                continue
            member.refusals = 0
            if member.is_configured and self.is_alone:
                self._ask(member, now, MAX_HOPS)
            else:
                self._ask_in_turn(member, now)
        return self._done(now)

    def probe(self, now: float, names: Iterable[NodeName] = ()) -> tuple[Effect, ...]:
        """
        C{probe_interval} is over: ask those in trouble; while alone, those to join through.

        @param names: nodes that have not answered a request yet, or are dirty.
        """
        if self._is_over:
            return ()
        wanted = {*names, *self._configured} if self.is_alone else set(names)
        for name, other in self._members.items():
            # Kamailio: it gives up a change after fr_timer, 30 s, and repairs nothing: a cut must be noticed before.
            is_quiet = other.kind == "kamailio" and now - other.answered_at >= KAMAILIO_PATIENCE
            if is_quiet or 0 < other.refusals <= MAX_REFUSALS:
                wanted.add(name)
            if other.recheck_at is not None and now >= other.recheck_at:
                self._recheck(other, now)
        for name in sorted(wanted):
            member = self._members.get(name)
            if member is not None and now - member.asked_at >= probe_pause(member, self._settings):
                self._ask(member, now, MAX_HOPS if member.is_configured and self.is_alone else 1)
        return self._done(now)

    def notified(
        self, now: float, sender: NodeName | None, is_first_hand: bool, hops: int, lines: Sequence[NodeLine],
        release: str = "", length: int = 0,
    ) -> tuple[Effect, ...]:
        """
        A notification was received. It is answered with L{list_for} its sender afterwards.

        @param sender: the node in its From, with a numeric host; L{None} if that names none.
        @param is_first_hand: it came from the sender's own address: the line of the sender counts.
        @param hops: its Max-Forwards; 0: it had none.
        @param lines: with numeric hosts.
        @param release: L{sipdmq.dmq.lines.read_release}'s.
        @param length: bytes of the list.
        """
        if self._is_over or sender is None or sender in self._own:
            return ()
        hops = min(hops, MAX_HOPS)
        news = False
        own_line = next((line for line in lines if line.name == sender), None)
        if is_first_hand and own_line is not None:
            news = self._speaks_of_itself(sender, own_line.status, now, hops, release)
            if news and own_line.status is DISABLED:
                self._members[sender].refusals = 1  # over UDP anybody can say that: soon it is asked
        member = self._members.get(sender)
        if member is not None and is_first_hand:
            member.has_us = True
            member.spare = 2 * line_length(self.local) if hops == MAX_HOPS else 0  # it seldom joins through more than 3
            if not member.is_active and (own_line is None or own_line.status is not DISABLED):
                self._ask(member, now)
            if own_line is not None:
                self._heard_list(member, lines, length, now, is_complete=hops < MAX_HOPS)
        self._hearsay(lines, sender if is_first_hand else None, now, hops - 1)
        if news and hops > 1:
            self._tell_all(hops - 1)
        return self._done(now)

    def answered(
        self, now: float, name: NodeName, lines: Sequence[NodeLine], release: str = "", length: int = 0
    ) -> tuple[Effect, ...]:
        """
        A node answered a notification with 200: it is there, whatever it was before, and this is its list.

        @param length: bytes of the list.
        """
        member = self._members.get(name)
        if member is None or self._is_over:
            return ()
        member.settled()
        if member.doubtful_since is not None and member.recheck_at is None:
            if not member.is_active:  # its return brings what is older
                member.doubtful_since = now
            self._recheck_later(member, now)
        member.answered_at = now
        member.failures = member.refusals = member.spare = 0
        if release:
            member.release = release
        own_line = next((line for line in lines if line.name == name), None)
        if own_line is not None and own_line.status is DISABLED:  # it is going down
            self._set_status(member, DISABLED, now)
        else:
            self._set_status(member, ACTIVE, now)
        self._learn_kind(member, now)
        if member.was_asked_only:  # now we know what fits
            member.was_alone = all(line.name == name for line in lines)
            if member.listed is None and not self._own.isdisjoint(line.name for line in lines):
                self._had_us(member, now)
            self._heard_list(member, lines, length, now, is_complete=False)
            if self._is_its_turn(member, now):
                self._ask(member, now, member.hops, must=True)
        elif own_line is not None:
            self._heard_list(member, lines, length, now, is_complete=True)
        self._hearsay(lines, name, now, 0)
        return self._done(now)

    def ask_again(self, now: float, name: NodeName) -> tuple[Effect, ...]:
        """
        The pause that L{AskLater<sipdmq.dmq.effects.AskLater>} asked for is over: if there still is room, it is our
        turn.
        """
        member = self._members.get(name)
        if member is not None and member.turn_at is not None and not self._is_over:
            member.turn_at = min(member.turn_at, now)
            self._ask(member, now, member.hops, must=True)
        return self._done(now)

    def refused(self, now: float, name: NodeName) -> tuple[Effect, ...]:
        """
        A node answered a notification with neither 200 nor 408. It changes nothing (WIRE §1); we ask again soon.
        """
        member = self._members.get(name)
        if member is not None:
            member.settled()
            member.refusals += 1
        return self._done(now)

    def timed_out(self, now: float, name: NodeName, sent_at: float | None = None) -> tuple[Effect, ...]:
        """
        A notification was not answered, or could not be sent.

        @param sent_at: when it left; L{None}: C{timeout} ago. An answer to a later one has proved more.
        """
        member = self._members.get(name)
        if member is None or self._is_over:
            return ()
        if not self._has_answered_since(member, now, sent_at):
            member.doubt()
            member.settled()
            member.refusals = 0
            member.failed_at = now
            self._failed(member, now)
        return self._done(now)

    def data_timed_out(self, now: float, name: NodeName, sent_at: float | None = None) -> tuple[Effect, ...]:
        """
        A message on another channel was not answered: it counts with C{fail_count_enabled}, and we ask the node.

        @param sent_at: as for L{timed_out}.
        """
        member = self._members.get(name)
        if member is None or self._is_over or self._has_answered_since(member, now, sent_at):
            return ()
        member.doubt()
        if self._settings.fail_count_enabled and member.is_active:
            self._failed(member, now)
        self._ask(member, now)
        return self._done(now)

    def was_silent(self, now: float, name: NodeName, age: float) -> tuple[Effect, ...]:
        """
        A node answers again that had left something unanswered for C{age} seconds, though nobody has lost it. What a
        Kamailio told meanwhile may still fail there.
        """
        member = self._members.get(name)
        if member is not None and not self._is_over and member.kind == "kamailio":
            self._doubted(member, now - age, now)
        return self._done(now)

    def hello(self, now: float, name: NodeName, release: str, start: str = "") -> tuple[Effect, ...]:
        """
        A node has shown to be one of ours, by its answer to our hello.

        @param start: what it says that tells one start of it from another; empty: nothing.
        """
        member = self._members.get(name)
        if member is None or self._is_over:
            return ()
        before = self.list_for(name, now)
        if start and start != member.start:
            if member.start and member.is_active:
                self._effects.append(NodeRestarted(member.as_node()))
            member.start = start
        member.was_lost = False
        member.release = release or member.release
        member.kind = "sipdmq"
        member.omits_us = False  # it was told that there is no room for us, when we did not know it yet
        hops = 1 if member.turn_at is None else member.hops  # it needs no turn: a Kamailio would have
        member.turn_at = None
        if self.list_for(name, now) != before:
            self._ask(member, now, hops, must=True)
        self._consider_sync(member)
        return self._done(now)

    def hello_heard(self, now: float, name: NodeName, start: str = "") -> tuple[Effect, ...]:
        """
        Somebody at the address of a node says that it is one of ours. A Kamailio that is taken for one would be told
        of more nodes than it can hold: so the node is asked, and its answer counts.
        """
        member = self._members.get(name)
        if member is not None and not self._is_over and not (member.is_sipdmq and member.start == start):
            self._say_hello(member, now)
        return self._done(now)

    def no_hello(self, now: float, name: NodeName) -> tuple[Effect, ...]:
        """
        A node answered our hello as none of ours would.
        """
        member = self._members.get(name)
        if member is None or self._is_over:
            return ()
        member.kind = "kamailio"
        self._consider_sync(member)
        return self._done(now)

    def wants_all(self, now: float, name: NodeName) -> tuple[Effect, ...]:
        """
        A node asks for everything, as a Kamailio does when it has just started: its first notification, which says that
        too, may be lost, since it waits for no answer before it sends others.
        """
        member = self._members.get(name)
        if member is None or self._is_over or not member.is_active or member.kind != "kamailio":
            return ()
        if member.answered_at > NEVER and now - member.began_at >= BEGINNING:
            self._restarted(member, now)
            self._ask(member, now)
        return self._done(now)

    def leave(self, now: float, everybody: bool = False) -> tuple[Effect, ...]:
        """
        This node stops: say so to those whom C{farewell} names. A Kamailio takes back who returned only when it has
        pinged him; so it is told only by one who leaves for good.

        @param everybody: for good.
        """
        if self._is_over:
            return ()
        self._is_over = True
        self._farewell = "all" if everybody else self._settings.farewell
        told = [member for _, member in sorted(self._members.items()) if member.is_active and self._is_told(member)]
        return tuple(SendList(member.name, 1, format_line(self.local, DISABLED)) for member in told)

    # What the operator does

    def add(self, now: float, name: NodeName) -> tuple[Effect, ...]:
        """
        Take in a node and ask it.
        """
        if name not in self._own and (name in self._members or self._add(name, now)):
            self._ask(self._members[name], now)
        return self._done(now)

    def remove(self, now: float, name: NodeName) -> tuple[Effect, ...]:
        """
        Forget a node, until it or another speaks of it.
        """
        if name in self._members:
            self._set_status(self._members[name], DISABLED, now)
            self._remove(name)
        return self._done(now)

    def change_status(self, now: float, name: NodeName, status: NodeStatus) -> tuple[Effect, ...]:
        """
        Let a node be what the operator says, until it is heard of.
        """
        member = self._members.get(name)
        if member is not None:
            self._set_status(member, status, now)
            self._learn_kind(member, now)
        return self._done(now)

    # How it goes

    def _speaks_of_itself(self, name: NodeName, status: NodeStatus, now: float, hops: int, release: str) -> bool:
        member = self._members.get(name)
        if member is None:
            if status is not ACTIVE or not self._add(name, now):
                return False
            member = self._members[name]
        if release:
            member.release = release
        was = member.status
        if was is status is ACTIVE and hops >= MAX_HOPS and member.kind == "kamailio" and member.answered_at > NEVER:
            self._restarted(member, now)
        if status is ACTIVE and now - member.failed_at < self._settings.timeout * 2:
            self._ask(member, now)  # it did not answer lately: perhaps it cannot hear us
        self._set_status(member, status, now, is_newcomer=hops >= MAX_HOPS)
        self._learn_kind(member, now, may_be_new=hops >= MAX_HOPS)
        return member.status is not was

    def _hearsay(self, lines: Iterable[NodeLine], sender: NodeName | None, now: float, forward: int) -> None:
        for name, status in lines:
            if name == sender or name in self._own:
                continue
            member = self._members.get(name)
            says_active = status is ACTIVE
            if member is None:
                if not says_active or not self._add(name, now, is_hearsay=True):
                    continue
                member = self._members[name]
            elif member.is_active is says_active:
                continue
            if now - member.failed_at >= self._settings.probe_interval:
                if not member.is_active:
                    member.forward = max(member.forward, forward)
                self._ask_in_turn(member, now)

    def _learn_kind(self, member: Member, now: float, may_be_new: bool = False) -> None:
        """
        @param may_be_new: it has just started: another program may be there now.
        """
        if not member.is_active:
            return
        if member.release.startswith("kamailio"):
            member.kind = "kamailio"
            return
        is_doubtful = not member.kind or may_be_new or (member.release.startswith("sipdmq") and not member.is_sipdmq)
        if is_doubtful:
            self._say_hello(member, now)

    def _say_hello(self, member: Member, now: float) -> None:
        if now - member.hello_at >= self._settings.probe_interval:
            member.hello_at = now
            self._effects.append(SayHello(member.name))

    def _has_answered_since(self, member: Member, now: float, sent_at: float | None) -> bool:
        return member.answered_at > (now - self._settings.timeout if sent_at is None else sent_at)

    def _failed(self, member: Member, now: float) -> None:
        member.failures += 1
        self._set_status(
            member, status_after_timeout(member.status, member.failures, member.is_configured, self._settings), now
        )

    def _is_outdated(self, member: Member, now: float) -> bool:
        if member.is_active or member.is_configured:
            return False
        if not member.seen:
            return now - member.since >= min(self._settings.forget_after, HEARSAY_PINGS * self._settings.ping_interval)
        return member.status is DISABLED and now - member.since >= self._settings.forget_after
