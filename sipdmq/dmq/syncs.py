"""
When a node is to be asked for everything. Pure.

A Kamailio answers who is in its list, and tells changes to these only: so it is asked when it lists us, and again
whenever it may have told something without us. That covers the start, the return after we had lost everybody, and a
Kamailio that took us for gone and takes us back, was cut off, or was started anew. A node of ours repairs what we have
missed: it is asked when we start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sipdmq.dmq.effects import NodeRestarted, Recheck, Sync
from sipdmq.dmq.lines import NodeLine, line_length
from sipdmq.dmq.members import Member
from sipdmq.dmq.roster import Roster
from sipdmq.records import NodeStatus

__all__ = ["Syncs"]

RECHECK: Final = 32.0
"""
Seconds after it was cut off in which a Kamailio takes us for gone once more: when what it had told meanwhile fails,
after its fr_timer, 30 s. Whoever asks it first then is taken back, and cannot see that something was told without him.
"""
RECHECKS: Final = 4.0
"""Seconds over which those spread that ask again."""
FEW_RECHECKS: Final = 3
"""So many in a row are made after that time; before each further one twice as long: they may be the trouble."""
LATELY: Final = 600.0
"""Seconds after which a recheck is no longer one in a row."""
_MOST_DOUBLINGS: Final = 4


class Syncs(Roster):
    """
    The part of L{sipdmq.dmq.nodelist.NodeList} that decides on that.
    """

    def _heard_list(
        self, member: Member, lines: Iterable[NodeLine], length: int, now: float, is_complete: bool
    ) -> None:
        """
        @param is_complete: it knew of us when it wrote that.
        """
        member.listed_at = now
        member.told = frozenset()
        listed = frozenset(name for name, status in lines if status is NodeStatus.ACTIVE)
        member.excess = max(0, length - sum(map(line_length, listed)))
        lists_us = not self._own.isdisjoint(listed)
        member.listed = listed - self._own | {self.local} if lists_us else listed
        if not lists_us and is_complete and not member.is_sipdmq:
            member.omits_us = True
        self._consider_sync(member)

    def _consider_sync(self, member: Member) -> None:
        if not member.is_active or not member.kind:
            return
        if not member.is_sipdmq and (member.listed is None or self.local not in member.listed):
            return
        is_mutual = member.was_alone and not member.is_sipdmq
        member.was_alone = False
        is_first = not self._synced if self._settings.init_with_single else member.kind not in self._synced
        if is_first or member.omits_us or is_mutual:
            self._synced.add(member.kind)
            self._effects.append(Sync(member.as_node(), is_mutual=is_mutual, is_again=member.omits_us))
            member.omits_us = member.was_lost = False
        elif member.was_lost:
            member.was_lost = False
            self._effects.append(Sync(member.as_node(), is_repair=True))

    def _recheck_later(self, member: Member, now: float) -> None:
        if now - member.rechecked_at > LATELY:
            member.rechecks = 0
        doublings = min(max(0, member.rechecks + 1 - FEW_RECHECKS), _MOST_DOUBLINGS)
        member.recheck_at = now + RECHECK * 2**doublings + RECHECKS * self._random()

    def _recheck(self, member: Member, now: float) -> None:
        since, member.doubtful_since, member.recheck_at = member.doubtful_since, None, None
        if since is not None and member.is_active and member.kind == "kamailio":
            member.rechecked_at = now
            member.rechecks += 1
            self._effects.append(Recheck(member.as_node(), min(now - since, self._settings.forget_after)))

    def _restarted(self, member: Member, now: float) -> None:
        """
        A Kamailio has just started, or lost everybody: either way it may have told what not all have heard, and may
        have been told something before it knew of us: it is asked when it lists us.
        """
        member.began_at = now
        member.was_lost = True
        member.listed = None
        self._effects.append(NodeRestarted(member.as_node()))

    def _had_us(self, member: Member, now: float) -> None:
        """
        It knows us from before we were started. What it told us then may still come, although it is not true any more,
        and what we have told it alone nobody else knows.
        """
        self._doubted(member, now, now)

    def _doubted(self, member: Member, since: float, now: float) -> None:
        """
        It has answered again, and since then may have told something without us.
        """
        if member.doubtful_since is None:
            member.doubtful_since = since
        if member.recheck_at is None:
            self._recheck_later(member, now)
