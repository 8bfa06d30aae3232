"""
Which of two versions of a publication counts, when several nodes speak of it. Pure, and the same on every node.

Versions of one publication are recognised by their C{ruid} and by entity tags: each knows its own, and the one before.
A Kamailio makes up a C{ruid} at each change (WIRE §8), so there the tags alone are left; a node keeps the C{ruid} that
it has. Of the versions of one publication the greatest by L{rank} counts, which is a total order over what nodes have
alike: the number in the entity tag first, since every change counts it up, on a Kamailio, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sipdmq.core.contacts import remembered_until
from sipdmq.interfaces.publications import Publication

__all__ = ["MergeLimits", "MergedPublications", "is_same", "merge", "rank"]

_CLOCK_ERROR: Final = 86_400
"""Seconds that C{recv} may lie ahead of our clock."""


class MergeLimits(NamedTuple):
    """
    @ivar publications: of a presentity in one package, those that were published here included.
    @ivar size: bytes of all their documents.
    @ivar forget_after: seconds for which a removal is remembered at most.
    """

    publications: int = 200
    size: int = 60_000
    forget_after: int = 86_400


class MergedPublications(NamedTuple):
    """
    What became of an incoming version.

    @ivar records: all records of the presentity now; those that did not change are the same objects.
    @ivar winner: what the sender has to hear counts instead of what it said; L{None} when it is right.
    @ivar refused: why it was not stored at all; empty when it was considered.
    """

    records: Sequence[Publication]
    winner: Publication | None = None
    refused: str = ""


def rank(publication: Publication) -> tuple[int, int, bool, str, bytes]:
    """
    The place of a version in the order of its publication.
    """
    return (
        publication.version,
        publication.recv,
        publication.removed,
        publication.etag,
        publication.body,
    )


def is_same(one: Publication, other: Publication) -> bool:
    """
    Whether two are versions of one publication.
    """
    tags = {one.etag, one.previous} - {""}
    return one.ruid == other.ruid or other.etag in tags or (bool(other.previous) and other.previous in tags)


def _latest(publication: Publication) -> int:
    return max(publication.known_until, publication.expires_at)


def merge(
    records: Sequence[Publication], incoming: Publication, has_body: bool, now: int, limits: MergeLimits
) -> MergedPublications:
    """
    The records of a presentity after another node has spoken of one of them.

    @param records: live publications and tombstones.
    @param incoming: of the same presentity and package.
    @param has_body: its document was told; if not, it is that of the version before, and without such a version it is
        none.
    @param now: seconds since the epoch.
    """
    if incoming.recv > now + _CLOCK_ERROR:
        return MergedPublications(records, None, "recv lies in the future")
    same = [record for record in records if is_same(record, incoming)]
    if not has_body and not incoming.removed:
        before = max((record for record in same if not record.removed), key=rank, default=None)
        if before is None:
            # Kamailio: it logs "No ruid match", and answers 200. Of what was removed we know better.
            return MergedPublications(records, max(same, key=rank, default=None))
        incoming = incoming._replace(body=before.body)
    winner = max([*same, incoming], key=rank)
    others = [record for record in records if record not in same]
    latest = max(_latest(each) for each in (*same, incoming))
    kept = winner._replace(ruid=same[0].ruid) if same else winner
    if winner.removed:
        until = max(winner.expires_at, remembered_until(latest, now, limits.forget_after))
        kept = kept._replace(expires_at=until, known_until=latest)
    elif latest > winner.expires_at:
        kept = kept._replace(known_until=latest)
    if winner is incoming and incoming.expires_at <= now and not incoming.removed:
        # It has expired on its way; what was before it must not outlive it.
        until = remembered_until(latest, now, limits.forget_after)
        kept = kept._replace(removed=True, body=b"", expires_at=until, known_until=latest)
    if winner is incoming and not kept.removed:
        live = [record for record in others if not record.removed]
        was_there = any(not record.removed for record in same)
        if len(live) >= limits.publications and not was_there:
            return MergedPublications(records, None, "too many publications")
        if sum(len(record.body) for record in live) + len(kept.body) > limits.size:
            return MergedPublications(records, None, "publications too long together")
    elif kept.removed and not same and sum(record.removed for record in others) >= limits.publications:
        return MergedPublications(records, None, "too many removed publications")
    if len(same) == 1 and kept == same[0]:
        changed: Sequence[Publication] = records
    else:
        changed = [*others, kept]
    has_lost = winner is not incoming and rank(winner) != rank(incoming)
    return MergedPublications(changed, kept if has_lost else None)
