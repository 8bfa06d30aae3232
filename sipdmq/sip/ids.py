"""
Names that must be unique or unguessable: branches, tags, Call-IDs, ruids, flow tokens.

All come from a random source that is handed in, so that a test can repeat them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from sipdmq.sip.fields import MAGIC_COOKIE

__all__ = ["Ids"]

_TAG_BYTES: Final = 8


class Ids:
    """
    The source of names for one process. Each name carries the random prefix of the process, so that the processes
    of one machine, and the nodes of one cluster, never meet.
    """

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        """
        @param random_bytes: C{os.urandom}, or its stand-in: given a count, that many bytes.
        """
        self._random_bytes = random_bytes
        self._process = random_bytes(6).hex()
        self._key = random_bytes(32)
        self._count = 0
        self._pool: list[str] = []

    def _next(self) -> int:
        self._count += 1
        return self._count

    def branch(self, loop: str = "") -> str:
        """
        A branch for a Via of ours (RFC 3261 §8.1.1.7).

        @param loop: L{loop_part}, of a forwarded request.
        """
        return f"{MAGIC_COOKIE}{self._process}{self._next():x}{loop}"

    @property
    def branch_start(self) -> str:
        """
        How all branches of this process begin. Others may copy it.
        """
        return f"{MAGIC_COOKIE}{self._process}"

    def loop_part(self, seed: str) -> str:
        """
        The end of the branches of a forwarded request: the same whenever the same request is routed here, and nobody
        else can make it (RFC 5393 §4.2.1).

        @param seed: all that decides where the request goes.
        """
        digest = hashlib.blake2b(
            seed.encode("utf-8", "surrogateescape"), digest_size=_TAG_BYTES, key=self._key, person=b"loop"
        )
        return f".{digest.hexdigest()}"

    def tag(self) -> str:
        """
        A From or To tag of 64 random bits (§19.3 asks for 32).
        """
        if not self._pool:
            # asking the kernel once for many costs a tenth of asking for each
            digits = self._random_bytes(_TAG_BYTES * 256).hex()
            self._pool = [digits[at : at + 2 * _TAG_BYTES] for at in range(0, len(digits), 2 * _TAG_BYTES)]
        return self._pool.pop()

    def stateless_tag(self, seed: str) -> str:
        """
        A To tag that is the same for every retransmission of a request, without remembering it (§8.2.7), and that
        nobody else can foretell.

        @param seed: what is the same in all retransmissions, as the transaction's key.
        """
        digest = hashlib.blake2b(seed.encode("utf-8", "surrogateescape"), digest_size=_TAG_BYTES, key=self._key)
        return digest.hexdigest()

    def call_id(self) -> str:
        """
        A Call-ID (§8.1.1.4).
        """
        return f"{self._random_bytes(12).hex()}@{self._process}"

    def ruid(self) -> str:
        """
        A name for a location record, unique in the cluster.
        """
        return f"sdq-{self._process}-{self._next():x}"

    def flow(self) -> str:
        """
        A token for a connection; unguessable, since whoever knows one may be routed over it.
        """
        return f"{self._random_bytes(12).hex()}{self._next():x}"
