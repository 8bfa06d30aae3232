"""
What another node says of one address-of-record, on its way into the location store. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from sipdmq.dmq.conflict import Encode, Limits, Merged, merge
from sipdmq.records import Binding

__all__ = ["Merging"]


class Merging:
    """
    The records of one message that are about one AoR.

    @ivar outcomes: of those that somebody has to hear something about.
    """

    __slots__ = ("_content", "_incoming", "_limits", "_now", "outcomes")

    def __init__(self, incoming: Sequence[Binding], now: int, limits: Limits, content: Encode) -> None:
        self._incoming = incoming
        self._now = now
        self._limits = limits
        self._content = content
        self.outcomes: list[Merged] = []

    def decide(self, records: tuple[Binding, ...]) -> Sequence[Binding]:
        """
        See L{Decide<sipdmq.records.Decide>}.
        """
        if self.outcomes:
            self.outcomes = []
        kept: Sequence[Binding] = records
        for each in self._incoming:
            merged = merge(kept, each, self._now, self._limits, self._content)
            kept = merged.records
            if merged.answer is not None or merged.refused:
                self.outcomes.append(merged)
        return kept
