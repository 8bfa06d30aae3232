"""
What another node says of one address-of-record, on its way into the location store. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from sipdmq.core.contacts import identity
from sipdmq.dmq.conflict import Limits, Merged, at_a_glance, merge_any
from sipdmq.dmq.order import Encode
from sipdmq.records import Binding

__all__ = ["merge_all"]


def merge_all(
    incoming: Sequence[Binding],
    now: int,
    limits: Limits,
    encode: Encode,
    outcomes: list[Merged],
    records: tuple[Binding, ...],
) -> Sequence[Binding]:
    """
    The records of one AoR after all of one message that are about it: a L{Decide<sipdmq.records.Decide>}, but for what
    stands before C{records}.

    @param outcomes: becomes those of which somebody has to hear something.
    @see: L{merge<sipdmq.dmq.conflict.merge>}
    """
    if outcomes:  # asked again
        outcomes.clear()
    kept: Sequence[Binding] = records
    names: list[str] | None = None  # identities of what is kept: each costs time, and there may be many
    for each in incoming:
        plain = at_a_glance(kept, each, now, limits)
        if plain is not None:
            kept = plain
            names = None
            continue
        if names is None:
            names = [identity(record) for record in kept]
        merged = merge_any(kept, each, now, limits, encode, names)
        kept = merged.records
        if each.removed and not (each.contact and each.last_modified):
            names = None  # such a removal goes by a name, and may change it
        elif len(kept) > len(names):
            names.append(identity(kept[-1]))
        if merged.answer is not None or merged.refused:
            outcomes.append(merged)
    return kept
