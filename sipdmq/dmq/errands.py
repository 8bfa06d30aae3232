"""
What a node is to be sent of the location store: everything, or what was changed since some time. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final, NamedTuple, Protocol

from sipdmq.dmq.kamailio_json import read_number
from sipdmq.records import ClusterNode

__all__ = [
    "REPAIR",
    "RESTORE",
    "SYNC",
    "SYNCS",
    "SYNC_OF_OURS",
    "Errand",
    "SyncEnd",
    "SyncRequest",
    "Told",
    "as_known",
    "records_for",
    "repeated",
    "says_ours",
]

SYNC: Final = "sync"
SYNC_OF_OURS: Final = "sync of ours"
SYNCS: Final = (SYNC, SYNC_OF_OURS)
REPAIR: Final = "repair"
RESTORE: Final = "restore"

_OWN_MARGIN: Final = 2.0
"""Seconds that a repair reaches back further: C{last_modified} is in whole ones."""
_OTHERS_MARGIN: Final = 20.0
"""The same for what another node has told, whose clock is known to some seconds only."""
_UNKNOWN_MARGIN: Final = 120.0
"""The same where its clock is not known: a Kamailio's."""


class SyncRequest(NamedTuple):
    """
    The sender of a message wants everything.

    @ivar is_ours: it has said that it is a sipdmq node: it has a use for removals, and wants to hear of the end.
    """

    is_ours: bool = False


class SyncEnd(NamedTuple):
    """
    Between sipdmq nodes: all that was asked for has been sent.

    @ivar records: of the whole sync.
    @ivar is_partial: the sender has not got everything itself yet.
    @ivar age: seconds since that node was started whose knowledge this is: the sender's own start where it has it from
        nobody, else what it was told so.
    """

    records: int
    is_partial: bool = False
    age: int = 0

    def encode(self, action: int) -> bytes:
        """
        The last message of a sync, or its last fragment.

        @param action: its number on the channel.
        """
        partial = b',"partial":1' if self.is_partial else b""
        return b'{"action":%d,"count":%d%b,"age":%d}' % (action, self.records, partial, self.age)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> SyncEnd:
        """
        @raise DecodeError: it cannot be used.
        """
        numbers = [
            read_number(document, name, 0, most) for name, most in (("count", 2**40), ("partial", 1), ("age", 2**40))
        ]
        return cls(numbers[0], bool(numbers[1]), numbers[2])


class Told(Protocol):
    """
    What an errand has to know of a record: L{Binding<sipdmq.records.Binding>} and others say it.
    """

    @property
    def told_by(self) -> str:
        """
        Who changed it last.
        """

    @property
    def last_modified(self) -> int:
        """
        When, seconds since the epoch.
        """

    @property
    def removed(self) -> bool:
        """
        Whether it is a tombstone.
        """

    @property
    def is_hidden(self) -> bool:
        """
        Whether it is nobody's business.
        """


class Errand(NamedTuple):
    """
    What a node is to be sent.

    @ivar kind: L{SYNC}: everything; L{SYNC_OF_OURS}: the same for a node that has said that it is one of ours;
        L{REPAIR}: what this node answers for; L{RESTORE}: what anybody answers for; else the name of a node: what that
        one changed last.
    @ivar since: of that, what was changed since then, seconds of the clock. Of a L{SYNC} the removals: it takes the
        place of a repair.
    """

    kind: str
    since: float = inf


def says_ours(node: ClusterNode) -> bool:
    """
    Whether a node is one of ours, or its first message says so: its hello may be on its way.
    """
    return node.is_sipdmq or node.release.startswith("sipdmq")


def as_known(node: ClusterNode, before: ClusterNode | None) -> ClusterNode:
    """
    Which of two views of one node to send by: the later one, unless only the earlier one knows that it is one of ours.
    """
    return node if before is None or node.is_sipdmq or not before.is_sipdmq else before


def repeated(errand: Errand, node: ClusterNode) -> Errand:
    """
    What becomes of an errand: a repair that is to reach back to the beginning of time is a sync, of which a part was
    lost.
    """
    if errand.kind != REPAIR or errand.since != -inf:
        return errand
    return Errand(SYNC_OF_OURS if says_ours(node) else SYNC)


def records_for(
    errand: Errand,
    since: float,
    answers_for: Callable[[str], bool],
    clock_difference: Callable[[str], float | None],
) -> Callable[[Told], bool]:
    """
    Which records an errand is about.

    @param since: C{errand.since} as seconds since the epoch.
    @param answers_for: as L{IMembership.answers_for<sipdmq.interfaces.replication.IMembership.answers_for>}.
    @param clock_difference: as L{IMembership.clock_difference
        <sipdmq.interfaces.replication.IMembership.clock_difference>}.
    """
    if errand.kind == SYNC and errand.since == inf:  # a Kamailio has no use for removals of what it never had
        return lambda binding: not binding.is_hidden and not binding.removed
    if errand.kind == SYNC_OF_OURS:
        return lambda binding: not binding.is_hidden
    earliest = {"": since - _OWN_MARGIN}  # last_modified, by who has told

    def is_recent(binding: Told) -> bool:
        told_by = binding.told_by
        if told_by not in earliest:
            difference = clock_difference(told_by)
            margin = _UNKNOWN_MARGIN if difference is None else _OTHERS_MARGIN + max(0.0, -difference)
            earliest[told_by] = since - margin
        return binding.last_modified >= earliest[told_by]

    if errand.kind == SYNC:
        return lambda binding: not binding.is_hidden and (
            not binding.removed or (answers_for(binding.told_by) and is_recent(binding))
        )
    if errand.kind == REPAIR:
        return lambda binding: not binding.is_hidden and answers_for(binding.told_by) and is_recent(binding)
    if errand.kind == RESTORE:
        return lambda binding: not binding.is_hidden and is_recent(binding)
    lost = errand.kind
    return lambda binding: not binding.is_hidden and binding.told_by == lost and is_recent(binding)
