"""
The memory of answered non-INVITE requests (state Completed, timer J): a key and the bytes of the response, no more.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from sipdmq.transaction.deadlines import Deadlines

__all__ = ["CompletedTransactions"]

ENTRY_BYTES = 400
"""What one entry costs besides its response: the key, its places in two dicts and a queue. Measured, rounded up."""


class CompletedTransactions:
    """
    Responses kept for retransmitted requests, for timer J, and bounded in bytes: when there is no room the oldest go.
    A client whose request comes again after that is served as if it were new, which the services bear: refusing new
    requests instead would let a flood of answered ones shut the door.
    """

    __slots__ = ("_deadlines", "_merges", "_responses", "_size", "max_bytes")

    def __init__(self, clock: IReactorTime, lifetime: float, max_bytes: int) -> None:
        """
        @param lifetime: timer J, seconds.
        @param max_bytes: of all entries together.
        """
        self.max_bytes = max_bytes
        self._size = 0
        self._responses: dict[str, bytes] = {}
        self._merges: dict[int, str] = {}
        self._deadlines: Deadlines[tuple[str, int]] = Deadlines(clock, lifetime, self._forget)

    def __len__(self) -> int:
        return len(self._responses)

    @property
    def size(self) -> int:
        """
        What all entries cost, bytes, estimated.
        """
        return self._size

    def add(self, key: str, merge: int, response: bytes) -> None:
        """
        Keep a response.

        @param merge: L{merge_key<sipdmq.transaction.keys.merge_key>} of the request, 0 if nobody asked for it.
        """
        if key in self._responses:
            self._size -= len(self._responses[key]) + ENTRY_BYTES
        self._responses[key] = response
        if merge:
            self._merges[merge] = key
        self._size += len(response) + ENTRY_BYTES
        self._deadlines.add((key, merge))
        while self._size > self.max_bytes and (oldest := self._deadlines.pop_oldest()) is not None:
            self._forget(oldest)

    def _forget(self, entry: tuple[str, int]) -> None:
        key, merge = entry
        response = self._responses.pop(key, None)
        if response is not None:
            self._size -= len(response) + ENTRY_BYTES
        if merge:
            self._merges.pop(merge, None)

    def get(self, key: str) -> bytes | None:
        """
        The response to the request with that key.
        """
        return self._responses.get(key)

    def merged(self, merge: int) -> str | None:
        """
        The key of the request that was answered under this merge key.
        """
        return self._merges.get(merge)

    def stop(self) -> None:
        """
        Forget everything.
        """
        self._deadlines.stop()
        self._responses.clear()
        self._merges.clear()
        self._size = 0
