"""
The keys that come of one secret.
"""

from __future__ import annotations

import hashlib
import hmac

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.core.keys import derive_key, read_secret


class KeyTests(SynchronousTestCase):
    def test_the_same_on_every_node_and_in_every_release(self) -> None:
        expected = hmac.new(b"secret", b"sipdmq nonce", hashlib.sha256).digest()
        self.assertEqual(derive_key(b"secret", "nonce"), expected)

    def test_another_purpose_or_secret_gives_another_key(self) -> None:
        keys = {derive_key(secret, purpose) for secret in (b"one", b"two") for purpose in ("nonce", "record-route")}
        self.assertEqual((len(keys), {len(key) for key in keys}), (4, {32}))

    def test_a_secret_of_any_length(self) -> None:
        self.assertEqual(len(derive_key(b"x" * 1000, "nonce")), 32)


class SecretTests(SynchronousTestCase):
    def test_the_configured_one(self) -> None:
        self.assertEqual(read_secret("sécret", lambda count: b"r" * count), "sécret".encode())

    def test_none_configured_gives_a_random_one(self) -> None:
        self.assertEqual(read_secret("", lambda count: b"r" * count), b"r" * 32)
