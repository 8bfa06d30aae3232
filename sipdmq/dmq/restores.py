"""
Repairing a Kamailio that is back. It lets an older message overwrite a newer record, so before it is told anything it
is asked for what it has: what is newer there comes here first, what is older is answered with what counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from sipdmq.records import ClusterNode, NodeName

__all__ = ["CLOCKS", "Restores"]

WAIT: Final = 15.0
"""Seconds to wait until it lists us, so that it can be asked; then it is repaired all the same."""
QUIET: Final = 2.0
"""Seconds without a record from before the question after which it has told all: its phones are never quiet."""
LONGEST: Final = 60.0
"""Seconds after which that is taken for so, as where its clock is behind."""
CLOCKS: Final = 5.0
"""Seconds by which the clock of another node may be behind or ahead: a record that is to be old is so much older."""


class _Restore:
    """
    @ivar is_for_all: what it has and this node does not, is passed on to all.
    @ivar questions: how often it was asked; is_answered: it has said yes.
    @ivar is_listed: it has said that it lists us.
    """

    __slots__ = (
        *("asked_at", "call", "is_answered", "is_for_all", "is_listed", "node", "questions", "since"),
    )

    def __init__(self, node: ClusterNode, since: float, call: IDelayedCall) -> None:
        self.node = node
        self.since = since
        self.call = call
        self.asked_at: float | None = None
        self.questions = 0
        self.is_answered = False
        self.is_listed = False
        self.is_for_all = False


class Restores:
    """
    The Kamailios that are being restored.
    """

    def __init__(
        self,
        clock: IReactorTime,
        ask: Callable[[ClusterNode], Deferred[bool]],
        repair: Callable[[ClusterNode, float, bool], Any],
        owe: Callable[[ClusterNode, float], Any],
    ) -> None:
        """
        @param ask: asks a node for everything.
        @param repair: sends it what was changed since C{float}, seconds of the clock; C{bool}: by whomever.
        @param owe: told of one that went away again, with the age of what it lacks.
        """
        self._clock = IReactorTime(clock)
        self._ask = ask
        self._repair = repair
        self._owe = owe
        self._running: dict[NodeName, _Restore] = {}
        # Told what counts of everything, not only what this node answers for; until that is done, though they go again.
        self._whole: set[NodeName] = set()

    def begin(self, node: ClusterNode, age: float) -> None:
        """
        A node is back that lacks what was changed in the last C{age} seconds.
        """
        since = self._clock.seconds() - age
        running = self._running.get(node.name)
        if running is None:
            call = self._clock.callLater(WAIT, self._done, node.name)
            self._running[node.name] = _Restore(node, since, call)
        else:
            running.since = min(running.since, since)

    def begin_asking(
        self, node: ClusterNode, age: float, is_whole: bool = False, is_for_all: bool = False
    ) -> None:
        """
        The same of a node that was there all the time as others see it, and has not answered this one for a while, or
        has told, or was told, what this one may have missed: it lists us, so that it is asked at once.

        @param is_whole: later it is told what counts of all that anybody has changed, not only this node.
        @param is_for_all: what it says may be news to all others, too.
        """
        self.begin(node, age)
        running = self._running[node.name]
        if is_whole:
            self._whole.add(node.name)
        running.is_for_all = running.is_for_all or is_for_all
        if running.asked_at is None or is_for_all:  # it may have been told something after the first question
            self._question(running)

    def _question(self, running: _Restore) -> None:
        running.asked_at = self._clock.seconds()
        running.questions += 1
        running.is_answered = False
        running.call.reset(LONGEST)
        self._ask(running.node).addBoth(self._answered, running, running.questions)

    def _answered(self, was_taken: object, running: _Restore, question: int) -> None:
        if self._running.get(running.node.name) is not running or question != running.questions:
            return
        if was_taken is True:
            running.is_answered = True
            running.call.reset(QUIET)
        else:  # it is out of reach: what we know is as old as before
            self.lost(running.node)

    def __len__(self) -> int:
        return len(self._running)

    def defers(self, name: NodeName) -> bool:
        """
        Others' changes are to be told to a node.

        @return: whether they have to wait: it may know better, and is told what counts of everything when it has said
            what it knows.
        """
        if name not in self._running:
            return False
        self._whole.add(name)
        return True

    def is_for_all(self, name: NodeName) -> bool:
        """
        Whether what a node says now may be news to all.
        """
        running = self._running.get(name)
        return running is not None and running.is_for_all

    def joined(self, node: ClusterNode) -> bool:
        """
        A node lists us: it can be asked.

        @return: whether it is one that is being restored.
        """
        running = self._running.get(node.name)
        if running is None:
            return False
        if not running.is_listed:  # what asked it before that may have got no answer
            running.is_listed = True
            self._question(running)
        return True

    def records_received(self, sender: NodeName, age: float) -> None:
        """
        Records came in.

        @param age: of the oldest, by C{last_modified}: seconds.
        """
        running = self._running.get(sender)
        if running is None or running.asked_at is None or not running.is_answered:
            return  # it answers when it has sent all
        now = self._clock.seconds()
        if now - age < running.asked_at - CLOCKS:
            running.call.reset(max(0.0, min(QUIET, running.asked_at + LONGEST - now)))

    def lost(self, node: ClusterNode) -> None:
        """
        It is gone again.
        """
        running = self._running.pop(node.name, None)
        if running is not None:
            running.call.cancel()
            self._owe(node, self._clock.seconds() - running.since)

    def forgotten(self, name: NodeName) -> None:
        """
        A node is in the list no more.
        """
        self._whole.discard(name)

    def stop(self) -> None:
        """
        Restore nobody any more.
        """
        for running in self._running.values():
            running.call.cancel()
        self._running.clear()

    def _done(self, name: NodeName) -> None:
        running = self._running.pop(name)
        is_whole = name in self._whole
        self._whole.discard(name)
        self._repair(running.node, running.since, is_whole)
