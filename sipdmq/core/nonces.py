"""
Nonces that carry their own proof, and the memory of how often each was used. Pure.

A nonce is C{TIME ID MAC}: the second of its making, 48 random bits, and a MAC over both. Making one leaves nothing
behind, so a flood of requests without credentials holds no memory, and every node with the same key can check it.

Against replay (RFC 7616 §3.4.5, §5.4) each pair of nonce and nonce count is accepted once. For a nonce that was used
with the right password we remember the greatest count and which of the 63 before it were there, as counts overtake one
another on the way. What does B{not} follow:

  - A count may jump, and a nonce that we have not seen may come with any count: the phone used it at another node
    of the cluster meanwhile. So each node accepts a count once; between nodes nothing is shared.
  - The memory is bounded. When it is full, the nonces of the oldest second go, and from then on whatever was made up to
    that second and is not remembered is I{stale}: we cannot say that it is new. So it is for nonces from before
    the start of this process. A stale nonce costs the phone one more round trip and nobody a password; accepting it
    would let an old request be played again. Those that have just been given out stay good.
  - The same request once more, byte for byte, within 64 × T1 is a retransmission, no replay: the transaction that would
    have answered it left no state (a refusal), or had to make room. The count, the C{cnonce} and the response alone
    would not do: they do not cover the Contact, and who saw a REGISTER could put his own into it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from enum import IntEnum
from typing import Final

__all__ = ["Nonces", "Use"]

TIME_LENGTH: Final = 8  # hexadecimal digits; enough until 2106
ID_BYTES: Final = 6
MAC_BYTES: Final = 10
_HEAD_LENGTH: Final = TIME_LENGTH + 2 * ID_BYTES
_LENGTH: Final = _HEAD_LENGTH + 2 * MAC_BYTES
_POOL: Final = 256

WINDOW: Final = 64
"""So many counts up to the greatest one are told apart."""
_WINDOW_MASK: Final = (1 << WINDOW) - 1

RETRANSMISSION: Final = 32.0
"""Seconds for which a request may be repeated: 64 × T1 (RFC 3261 §17.1)."""

AHEAD: Final = 2
"""Seconds that the clock of another node may be ahead of ours."""


class Use(IntEnum):
    """
    What the use of a nonce is.
    """

    ACCEPTED = 1
    STALE = 2
    """Too old, or nothing is known of it any more."""
    REPLAYED = 3
    """This count was used before, by another request."""


_ACCEPTED: Final = Use.ACCEPTED


class Nonces:
    """
    The nonces of one node.
    """

    __slots__ = (
        "_floor",
        "_keyed",
        "_lifetime",
        "_max",
        "_older",
        "_pool",
        "_random_bytes",
        "_recent",
        "_remembered",
        "_turn_at",
        "_used",
    )

    def __init__(
        self, key: bytes, lifetime: float, max_remembered: int, random_bytes: Callable[[int], bytes], now: float
    ) -> None:
        """
        @param key: 32 bytes, the same on all nodes of a cluster.
        @param lifetime: seconds.
        @param max_remembered: nonces in memory.
        @param random_bytes: C{os.urandom}, or its stand-in.
        @param now: seconds since the epoch.
        """
        self._keyed = hashlib.blake2b(digest_size=MAC_BYTES, key=key)
        self._lifetime = lifetime
        self._max = max_remembered
        self._random_bytes = random_bytes
        self._pool: list[str] = []
        # By the second in which they were made, so that whole seconds are forgotten at once: nonce -> greatest count,
        # shifted left by WINDOW, and below it a bit for each count up to it, the lowest for itself.
        self._used: dict[int, dict[str, int]] = {}
        self._remembered = 0
        self._floor = int(now)  # what was made before and is not remembered is stale
        # Accepted requests and when, in two generations of at least RETRANSMISSION seconds each.
        self._recent: dict[int, float] = {}
        self._older: dict[int, float] = {}
        self._turn_at = now + RETRANSMISSION

    def __len__(self) -> int:
        return self._remembered

    def make(self, now: float) -> str:
        """
        A new nonce, unlike any other.
        """
        if not self._pool:
            digits = self._random_bytes(ID_BYTES * _POOL).hex()
            self._pool = [digits[at : at + 2 * ID_BYTES] for at in range(0, len(digits), 2 * ID_BYTES)]
        head = f"{int(now):08x}{self._pool.pop()}"
        return head + self._mac(head)

    def _mac(self, head: str) -> str:
        mac = self._keyed.copy()  # cheaper than taking up the key again
        mac.update(head.encode())
        return mac.hexdigest()

    def made_at(self, nonce: str) -> int | None:
        """
        When a nonce was made, if we or a node with the same key made it.

        @param nonce: anything.
        @return: seconds since the epoch.
        """
        if len(nonce) != _LENGTH or not nonce.isascii():
            return None
        head = nonce[:_HEAD_LENGTH]
        if not hmac.compare_digest(self._mac(head), nonce[_HEAD_LENGTH:]):
            return None
        return int(head[:TIME_LENGTH], 16)

    def use(self, nonce: str, made_at: int, count: int, request: int, now: float) -> Use:
        """
        Judge a request whose response is right, and remember that it was there.

        @param made_at: L{made_at} of the nonce.
        @param count: its nonce count, from 1.
        @param request: a keyed hash over all of the request; the same for a retransmission only.
        @param now: seconds since the epoch.
        """
        age = now - made_at
        if age > self._lifetime or age < -AHEAD:
            return Use.STALE
        used = self._used.get(made_at)
        state = None if used is None else used.get(nonce)
        if state is None:
            if made_at < self._floor:
                return Use.STALE
            used = self._room_in(made_at, now)
            self._remembered += 1
            used[nonce] = count << WINDOW | 1
        else:
            assert used is not None
            behind = (state >> WINDOW) - count
            window = state & _WINDOW_MASK
            if behind < 0:
                window = window << -behind & _WINDOW_MASK | 1 if -behind < WINDOW else 1
                used[nonce] = count << WINDOW | window
            elif behind >= WINDOW or window >> behind & 1:
                return Use.ACCEPTED if self._is_repeated(request, now) else Use.REPLAYED
            else:
                used[nonce] = state | 1 << behind
        if now >= self._turn_at or len(self._recent) >= self._max:
            self._older, self._recent = self._recent, {}
            self._turn_at = now + RETRANSMISSION
        self._recent[request] = now
        return _ACCEPTED

    def _is_repeated(self, request: int, now: float) -> bool:
        at = self._recent.get(request)
        if at is None:
            at = self._older.get(request)
        return at is not None and now - at < RETRANSMISSION

    def _room_in(self, second: int, now: float) -> dict[str, int]:
        """
        Where the nonces made in C{second} are remembered, with room for one more. When there is none, the oldest
        second goes, and what was made in it, or before, is stale from now on.
        """
        if second not in self._used:
            self.forget_expired(now)
        while self._remembered >= self._max:
            oldest = min(self._used)
            self._remembered -= len(self._used.pop(oldest))
            self._floor = max(self._floor, oldest + 1)
        return self._used.setdefault(second, {})

    def forget_expired(self, now: float) -> None:
        """
        Forget the nonces that nobody can use any more.
        """
        for second in [second for second in self._used if now - second > self._lifetime]:
            self._remembered -= len(self._used.pop(second))
        if now >= self._turn_at + RETRANSMISSION:
            self._older, self._recent = {}, {}
