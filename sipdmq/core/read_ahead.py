"""
Message bodies that are read before their turn: a queue asks what they are about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

__all__ = ["ReadAhead"]

_KEPT: Final = 64
"""Bodies at most; one that is not kept is read twice."""

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """
    Bodies that were read for their keys, and wait for their turn. They are known by what they are, not by what is in
    them: that would have to be hashed, 16 kB perhaps.
    """

    def __init__(self, decode: Callable[[bytes], T]) -> None:
        """
        @param decode: raises DecodeError.
        """
        self._decode = decode
        self._kept: dict[int, tuple[bytes, T]] = {}  # by the id of the body

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, body: bytes) -> T:
        """
        Look what a body is about.

        @raise DecodeError: it cannot be read.
        """
        found = self._decode(body)
        if len(self._kept) >= _KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[id(body)] = body, found
        return found

    def take(self, body: bytes) -> T:
        """
        It is its turn.

        @raise DecodeError: as L{read}.
        """
        kept = self._kept.pop(id(body), None) if self._kept else None
        return self._decode(body) if kept is None else kept[1]
