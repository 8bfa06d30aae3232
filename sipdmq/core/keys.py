"""
The keys that come of one secret: all nodes of a cluster have the same, and so can check what another one has given
out. Pure.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

__all__ = ["RANDOM_SECRET_BYTES", "derive_key", "read_secret"]

RANDOM_SECRET_BYTES = 32


def read_secret(configured: str, random_bytes: Callable[[int], bytes]) -> bytes:
    """
    The secret of this node.

    @param configured: C{[auth] secret}; empty for one that only this process knows, until it ends.
    @param random_bytes: C{os.urandom}, or its stand-in.
    """
    return configured.encode("utf-8") or random_bytes(RANDOM_SECRET_BYTES)


def derive_key(secret: bytes, purpose: str) -> bytes:
    """
    A key for one purpose: who learns it learns neither the secret nor the key for another purpose.

    It is not slow on purpose. A secret that can be guessed can be guessed from a nonce; hence its least length.

    @param purpose: C{"nonce"}, C{"record-route"} ...
    @return: 32 bytes.
    """
    return hmac.digest(secret, f"sipdmq {purpose}".encode(), "sha256")
