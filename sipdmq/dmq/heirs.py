"""
Who answers for what a lost node has told. Pure.

A node repairs whoever has missed its changes: it alone knows what it has not got rid of. When it is lost, what it told
may have reached some of the others and not the rest. So for each lost node one of those that are left is its I{heir},
the same for all who see the same nodes (rendezvous hashing: when somebody comes or goes, few change their heir), and

  - each other node of ours that loses it hands the heir what it has of the lost one's last changes, and asks the heir
    for what itself may lack;
  - the heir tells the Kamailios, which cannot ask; and passes on to all what it hears of the lost node only now;
  - repairs that the lost one would have made, of nodes that come back later, are the heir's.

All of it is about the lost node's last changes only: what was changed since it was last known to work, which is some
ping intervals. A node that was started anew has lost its memory, and with it what it had not told: that is treated as
a loss, too. Where nodes see different ones, two may both take themselves for the heir: then something is told twice.
Or the heir has not lost the node that the asking one has: then it is asked again until it has, or that one is back. So
the heir, too, asks one: that would be the heir without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from math import inf
from typing import Final, NamedTuple

from sipdmq.records import NodeName

__all__ = ["Claim", "Heirs", "Inherit"]

SETTLED: Final = 60.0
"""Seconds after which a node that is back has repaired the others, and what was lost with another is with all."""
LATE: Final = 10.0
"""Seconds for which a message of a node that was started anew may still be on its way from before."""
OVERLAP: Final = 30.0
"""Seconds that a second question reaches back behind the first."""
HINT_LIFETIME: Final = 300.0
"""Seconds for which it counts that somebody has lost a node that this one has not; who asks, asks again."""
_MAX_KEPT: Final = 1000
_MAX_HEARD: Final = 64
"""Lost nodes that this one need not know of to be their heir: each is asked about, at each ping."""


class Claim(NamedTuple):
    """
    Hand over to the heir of a lost node, or to the next one where this node is the heir, what is known of the lost one,
    and ask for the rest.

    @ivar since: what was changed since then, seconds.
    @ivar heard_at: this node has not lost it, but heard of it, from one who had, at that time, seconds.
    """

    heir: NodeName
    lost: str
    since: float
    heard_at: float | None = None


class Inherit(NamedTuple):
    """
    This node is the heir of a lost one now: the Kamailios are to be told.
    """

    lost: str
    since: float


class _Loss:
    """
    @ivar since: from when on changes of the node may not have come here, seconds.
    @ivar asked: who was asked, or is; L{None}: nobody yet.
    @ivar asked_at: when, seconds.
    @ivar is_open: that one had not lost it: it is asked again while the node is away.
    @ivar is_unanswered: that one did not answer: it is asked again.
    @ivar is_agreed: that one has lost it, too.
    @ivar is_inherited: this node is the heir, and has told the Kamailios.
    @ivar back_at: when it came back, seconds; L{None}: it has not.
    @ivar heard_at: it was not lost here, but others have said so: when one did last who had lost it himself, seconds.
    @ivar is_ours: it was not lost to anybody but this node, which was stopped: the others know what it has told.
    """

    __slots__ = (
        *("asked", "asked_at", "back_at", "heard_at", "is_agreed", "is_inherited", "is_open", "is_ours"),
        *("is_unanswered", "since"),
    )

    def __init__(self, since: float, is_ours: bool = False, heard_at: float | None = None) -> None:
        self.since = since
        self.is_ours = is_ours
        self.heard_at = heard_at
        self.asked: NodeName | None = None
        self.asked_at = 0.0
        self.is_open = False
        self.is_agreed = False
        self.is_unanswered = False
        self.is_inherited = False
        self.back_at: float | None = None


class Heirs:
    """
    The lost nodes, by their names as in L{Binding.told_by<sipdmq.records.Binding>}, and their heirs. Times are seconds
    that never go back.
    """

    def __init__(self, local: NodeName, forget_after: float = inf) -> None:
        """
        @param forget_after: seconds after which nodes that are away are forgotten: nobody will say so of one that this
            node has only heard of.
        """
        self._local = local
        self._forget_after = forget_after
        self._active: frozenset[NodeName] = frozenset()
        self._others: frozenset[str] = frozenset()
        self._losses: dict[str, _Loss] = {}
        self._hints: dict[str, tuple[float, float]] = {}  # since, and when it was said
        self._heirs: dict[str, NodeName] = {}

    # what happens

    def lost(self, now: float, name: NodeName, since: float) -> None:
        """
        A node is active no more, or it was started anew.

        @param since: when it was last known that what it tells comes here.
        """
        told_by = str(name)
        known = self._losses.get(told_by)
        hint, said_at = self._hints.pop(told_by, (since, now))
        if now - said_at < HINT_LIFETIME:
            since = min(since, hint)
        if known is not None:  # it was back, and perhaps owed us something still
            since = min(since, known.since)
        self._losses[told_by] = _Loss(since)

    def missed(self, now: float, name: NodeName, since: float) -> None:
        """
        This node was stopped, or cut off from an active one, and has missed what that one told meanwhile. Others are
        asked for that; this node is no heir: what it knows is old.

        @param since: what was told since then may not have come here, seconds.
        """
        told_by = str(name)
        known = self._losses.get(told_by)
        if known is not None and known.back_at is None:
            return
        if known is None:
            known = self._losses[told_by] = _Loss(since, is_ours=True)
        known.since = min(since, known.since)
        known.asked = None
        known.back_at = now

    def returned(self, now: float, name: NodeName) -> None:
        """
        A node is active again. What it had told is still looked for, for a while: it may have lost its memory.
        """
        loss = self._losses.get(str(name))
        if loss is not None and loss.back_at is None:
            loss.back_at = now
            if loss.is_open:
                loss.asked = None

    def forgotten(self, name: NodeName) -> None:
        """
        Nothing is known of a node any more.
        """
        self._losses.pop(str(name), None)
        self._hints.pop(str(name), None)

    def elect(
        self, now: float, ours: Iterable[NodeName], others: Iterable[NodeName], again: bool = False
    ) -> list[Claim | Inherit]:
        """
        Who is active has changed, or it is time to look again.

        @param ours: the other active nodes of ours.
        @param others: all other active nodes.
        @param again: whether to ask again those that had not lost a node when they were asked.
        @return: what is to be done now; each outcome of a L{Claim} belongs into L{answered}.
        """
        self._active = frozenset(ours)
        self._others = frozenset(map(str, others)) | frozenset(map(str, self._active))
        self._heirs.clear()
        found: list[Claim | Inherit] = []
        for lost, loss in list(self._losses.items()):
            is_settled = loss.back_at is not None and now - loss.back_at > SETTLED
            if is_settled or (loss.heard_at is not None and now - loss.heard_at > self._forget_after):
                del self._losses[lost]
                continue
            is_heir = self.heir_of(lost) == self._local and not loss.is_ours
            if is_heir and not loss.is_inherited:
                found.append(Inherit(lost, loss.since))
            loss.is_inherited = is_heir
            asked = self._first(lost, self._active)
            is_due = again and (loss.is_unanswered or (loss.is_open and loss.back_at is None))
            # Who was only told of it forgets it, unless he is told again.
            is_due = is_due or (loss.heard_at is None and now - loss.asked_at > self._forget_after / 2)
            if asked is not None and (is_due or asked != loss.asked):
                found.append(Claim(asked, lost, loss.since, loss.heard_at))
                loss.is_open = loss.is_agreed = loss.is_unanswered = False
                loss.asked_at = now
            loss.asked = asked
        return found

    def answered(self, heir: NodeName, lost: str, has_lost: bool) -> None:
        """
        An heir was asked, and sends what it has.

        @param has_lost: it has lost the node, too: there will be nothing more.
        """
        loss = self._losses.get(lost)
        if loss is not None and loss.asked == heir:
            loss.since = max(loss.since, loss.asked_at - OVERLAP)
            loss.is_open = not has_lost
            loss.is_agreed = has_lost

    def unanswered(self, heir: NodeName, lost: str) -> None:
        """
        It did not answer: it is asked again.
        """
        loss = self._losses.get(lost)
        if loss is not None and loss.asked == heir:
            loss.is_unanswered = True

    def asked(self, now: float, lost: str, since: float, heard_at: float = inf) -> bool:
        """
        Another node asks this one about a node that it has lost.

        @param since: from when on it may lack something: so may others, who learn of the loss later.
        @param heard_at: when somebody last said so who had lost it himself, seconds; infinity: now.
        @return: whether this node has lost it, too, and will act when it is back. It has, if it was not here when that
            happened: it may be the heir all the same, who acts for all. It has not, if it is back here already.
        """
        heard_at = min(heard_at, now)
        loss = self._losses.get(lost)
        if loss is not None:
            loss.since = min(loss.since, since)
            if loss.heard_at is not None:
                loss.heard_at = max(loss.heard_at, heard_at)
            return loss.back_at is None
        if lost in self._others:
            self._hints[lost] = (min(since, self._hints.get(lost, (since, now))[0]), now)
            return False
        if now - heard_at > self._forget_after or self._heard() >= _MAX_HEARD:
            return False
        self._losses[lost] = _Loss(since, heard_at=heard_at)
        return True

    def _heard(self) -> int:
        return sum([loss.heard_at is not None for loss in self._losses.values()])

    def concerns(self, lost: str) -> bool:
        """
        Whether what a node has told may be of use: it is there, or it is lost as far as is known here.
        """
        return lost in self._losses or lost in self._others

    def lost_since(self, name: NodeName) -> float | None:
        """
        From when on a lost node may lack something, seconds; L{None}: it is not lost.
        """
        loss = self._losses.get(str(name))
        return None if loss is None else loss.since

    # what follows

    def __len__(self) -> int:
        """
        How many nodes were lost of late: where there are none, L{passes_on} and L{teller_to_all} say nothing.
        """
        return len(self._losses)

    def teller_to_all(self, now: float, told_by: str) -> NodeName | None:
        """
        Whom to tell what a lost node says all the same, by a message that was late: its heir passes it on.

        @return: L{None}: it is not lost, or this node is its heir.
        """
        loss = self._losses.get(told_by)
        if loss is None or (loss.back_at is not None and now - loss.back_at > LATE):
            return None
        heir = self.heir_of(told_by)
        return None if heir == self._local else heir

    def restorer_of(self, told_by: str) -> NodeName | None:
        """
        Who repairs a Kamailio that is back, in the name of all who have lost it: its heir, if that one has lost it,
        too, else this node.

        @return: L{None}: it was not lost.
        """
        loss = self._losses.get(told_by)
        if loss is None:
            return None
        if loss.is_ours or not loss.is_agreed:
            return self._local
        return self.heir_of(told_by)

    def heir_of(self, told_by: str) -> NodeName:
        """
        The heir of a node, if that is lost.
        """
        heir = self._heirs.get(told_by)
        if heir is None:
            if len(self._heirs) >= _MAX_KEPT:
                self._heirs.clear()
            heir = self._heirs[told_by] = self._first(told_by, (self._local, *self._active)) or self._local
        return heir

    @staticmethod
    def _first(told_by: str, candidates: Iterable[NodeName]) -> NodeName | None:
        return max(
            [name for name in candidates if str(name) != told_by],
            key=lambda name: (_weight(told_by, name), name),
            default=None,
        )

    def answers_for(self, told_by: str) -> bool:
        """
        Whether this node repairs others in what C{told_by} has told; empty: what it has told itself.
        """
        return not told_by or (told_by not in self._others and self.heir_of(told_by) == self._local)

    def passes_on(self, told_by: str) -> bool:
        """
        Whether this node passes on to all what it hears of a lost node's changes from somebody else: nobody else does.
        """
        loss = self._losses.get(told_by)
        return loss is not None and not loss.is_ours and self.heir_of(told_by) == self._local


def _weight(lost: str, name: NodeName) -> bytes:
    # What another node has told may be no text: what is hashed must be the same on all nodes, not readable.
    return blake2b(f"{lost} {name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
