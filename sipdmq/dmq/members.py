"""
What is known of one other node of the cluster, and the rule for one that does not answer. Pure.
"""

from __future__ import annotations

from typing import Final

from sipdmq.dmq.effects import NodeListSettings
from sipdmq.dmq.lines import format_line
from sipdmq.records import ClusterNode, NodeName, NodeStatus

__all__ = ["NEVER", "Member", "probe_pause", "status_after_timeout"]

NEVER: Final = float("-inf")


class Member:
    """
    One other node.

    @ivar is_configured: we join through it, and never forget it.
    @ivar kind: C{"sipdmq"}, C{"kamailio"} (or whatever answers no hello), empty until it is known.
    @ivar line: that it is active, for a list.
    @ivar seen: it was active at some time; otherwise others have told us of it, or the configuration.
    @ivar since: when it was added or left C{ACTIVE}, seconds.
    @ivar began_at: when it became active, or seemed to be started anew, seconds.
    @ivar hops: Max-Forwards of what it was sent last.
    @ivar forward: Max-Forwards of the list that is sent to all when it turns out to be there; 0: none.
    @ivar listed: whom it listed as active lately, itself included; L{None} before its first list.
    @ivar listed_at: when that was, seconds.
    @ivar has_us: it has sent us a list, so we are in its own, in whatever state, even if it does not say so.
    @ivar spare: bytes for nodes that it may have and does not list yet: a Kamailio that starts is silent of those that
        it joins through.
    @ivar excess: bytes of that list beyond the lines that we count: it may have a node twice, or by its host name.
    @ivar told: whom we listed to it since.
    @ivar was_asked_only: what it was sent last left out what we could not know to fit.
    @ivar turn_at: when it may be told of somebody whom it does not list, as it is more than half full, seconds;
        L{None}: nothing is to be told, or that was not drawn yet.
    @ivar omits_us: it left us out of a list: it takes us for gone.
    @ivar doubtful_since: from when on it may have told something without us, or missed what we told, seconds: its last
        answer before it left something unanswered, its return, our start; L{None}: it has not, or that was looked into.
    @ivar recheck_at: when that will be, seconds; L{None}: not before it has answered something.
    @ivar rechecked_at: when it was looked into last, seconds.
    @ivar rechecks: how often lately.
    @ivar was_lost: it is back, and is no node of ours that would repair what we have missed.
    @ivar start: of one of ours: what it says that tells one start of it from another.
    @ivar was_alone: it knew of nobody when we first asked it, without a word of ourselves: if it is a Kamailio, it will
        ask nobody for what he has (WIRE §4).
    """

    __slots__ = (
        "_waiting", "answered_at", "asked_at", "began_at", "doubtful_since", "excess", "failed_at",
        "failures", "forward", "has_us", "hello_at", "hops", "is_configured", "kind", "line", "listed",
        "listed_at", "name", "omits_us", "recheck_at", "rechecked_at", "rechecks", "refusals", "release",
        "seen", "since", "spare", "start", "status", "told", "turn_at", "was_alone", "was_asked_only",
        "was_lost",
    )

    def __init__(self, name: NodeName, now: float, is_configured: bool = False) -> None:
        self.name = name
        self.line = format_line(name, NodeStatus.ACTIVE)
        self.status = NodeStatus.NOT_ACTIVE
        self.is_configured = is_configured
        self.release = ""
        self.kind = ""
        self.seen = False
        self.since = now
        self.failures = 0
        self.refusals = 0
        self.asked_at = self.answered_at = self.began_at = self.failed_at = self.hello_at = NEVER
        self._waiting = False
        self.hops = 1
        self.forward = 0
        self.listed: frozenset[NodeName] | None = None
        self.listed_at = NEVER
        self.has_us = False
        self.excess = self.spare = 0
        self.told: frozenset[NodeName] = frozenset()
        self.was_asked_only = False
        self.turn_at: float | None = None
        self.omits_us = False
        self.doubtful_since: float | None = None
        self.recheck_at: float | None = None
        self.rechecked_at = NEVER
        self.rechecks = 0
        self.was_lost = False
        self.start = ""
        self.was_alone = False

    def __repr__(self) -> str:
        return f"<Member {self.name} {self.status.name} {self.kind or '?'}>"

    @property
    def is_active(self) -> bool:
        """
        Whether it gets what changes.
        """
        return self.status is NodeStatus.ACTIVE

    @property
    def is_rumour(self) -> bool:
        """
        Whether others only spoke of it.
        """
        return not self.seen and not self.is_configured

    @property
    def is_sipdmq(self) -> bool:
        """
        Whether it has said hello.
        """
        return self.kind == "sipdmq"

    def as_node(self) -> ClusterNode:
        """
        As others see it.
        """
        return ClusterNode(self.name, self.status, self.release, self.is_sipdmq)

    def asked(self, now: float, hops: int) -> None:
        """
        A notification leaves for it.
        """
        self.asked_at = now
        self.hops = hops
        self._waiting = True

    def doubt(self) -> None:
        """
        Something that it was sent was not answered: it may have been cut off.
        """
        self.recheck_at = None
        if self.doubtful_since is None:
            self.doubtful_since = self.answered_at

    def settled(self) -> None:
        """
        That was answered, in whatever way, or will not be.
        """
        self._waiting = False

    def is_waiting(self, now: float, timeout: float) -> bool:
        """
        Whether an answer can still come.
        """
        return self._waiting and now - self.asked_at < timeout


def status_after_timeout(
    status: NodeStatus, failures: int, is_configured: bool, settings: NodeListSettings
) -> NodeStatus:
    """
    What becomes of a node that did not answer. A disabled one stays so: here it is kept and pinged, as with Kamailio's
    newest release.

    @param failures: in a row, this one counted.
    @see: WIRE §4 "A node that does not answer"
    """
    if status is NodeStatus.DISABLED:
        return status
    if settings.fail_count_enabled:
        if failures > settings.fail_count_threshold_disabled:
            return NodeStatus.DISABLED
        return NodeStatus.NOT_ACTIVE if failures > settings.fail_count_threshold_not_active else status
    if is_configured or not settings.remove_inactive:
        return NodeStatus.NOT_ACTIVE
    return NodeStatus.DISABLED


def probe_pause(member: Member, settings: NodeListSettings) -> float:
    """
    How long a node is left alone before it is probed: twice as long after each failure where a probe opens a
    connection, until it is as seldom as a ping.
    """
    pause = settings.probe_interval
    if member.name.protocol.is_reliable:
        pause = min(pause * 2 ** min(member.failures, 10), max(pause, settings.ping_interval))
    return pause
