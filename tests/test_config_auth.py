"""
The section [auth].
"""

from __future__ import annotations

from pathlib import Path

from sipdmq import config
from sipdmq.config import AuthConfig, NodeConfig
from tests.test_config import EXAMPLE, ConfigTestCase


class AuthTests(ConfigTestCase):
    def test_enable(self) -> None:
        for value, expected in (("yes", True), ("no", False), ("Yes", True), ("NO", False)):
            self.assertIs(self.read("auth", "enable", value), expected)
        for value in ("", "maybe", "true", "1", "yes no"):
            self.assertEqual(
                self.refused(f"[auth]\nenable = {value}\n"), f"[auth] enable: '{value}': must be yes or no"
            )

    def test_a_configuration_that_does_not_say_so_has_it_off(self) -> None:
        self.assertIs(self.load("[timers]\nt1 = 1\n").auth.enable, False)
        self.assertIs(NodeConfig().auth.enable, False)
        self.assertIs(config.load(str(EXAMPLE)).auth.enable, True)

    def test_algorithms_stand_strongest_first_and_md5_last(self) -> None:
        self.assertEqual(NodeConfig().auth.algorithms, ("MD5",))
        for value, expected in (
            ("md5", ("MD5",)),
            ("SHA-256", ("SHA-256",)),
            ("MD5 sha-256 SHA-512-256", ("SHA-512-256", "SHA-256", "MD5")),
        ):
            self.assertEqual(self.read("auth", "algorithms", value), expected)

    def test_algorithms_that_we_have_not(self) -> None:
        for value, expected in (
            ("", "must name at least one of SHA-512-256, SHA-256, MD5, and none twice"),
            ("MD5 md5", "and none twice"),
            ("MD5, SHA-256", "'MD5,' must be one of SHA-512-256, SHA-256, MD5; several are separated by spaces"),
            ("MD5-sess", "'MD5-sess' must be one of"),
        ):
            message = self.refused(f"[auth]\nalgorithms = {value}\n")
            self.assertEqual(message.partition(": ")[0], "[auth] algorithms")
            self.assertIn(expected, message)

    def test_the_secret_is_never_shown(self) -> None:
        secret = "0123456789%abcdef"
        self.assertEqual(self.read("auth", "secret", secret), secret)
        self.assertEqual(self.read("auth", "secret", ""), "")
        self.assertNotIn(secret, repr(NodeConfig(auth=AuthConfig(secret=secret))))
        message = self.refused("[auth]\nsecret = too-short\n")
        self.assertIn("[auth] secret: must have at least 16 characters", message)
        self.assertNotIn("too-short", message)

    def test_users_lie_beside_the_file(self) -> None:
        loaded = self.load("[auth]\nusers = sub/users\n")
        self.assertEqual(loaded.beside(loaded.auth.users), str(Path(loaded.path).parent / "sub/users"))
        self.assertEqual(loaded.beside("/var/lib/users"), "/var/lib/users")
        self.assertEqual(NodeConfig().beside("users"), "users")
        self.assertEqual(self.refused("[auth]\nusers =\n"), "[auth] users: must name a file")

    def test_a_nonce_lives_five_minutes_at_most(self) -> None:
        self.assertIn("from 1 to 300", self.refused("[auth]\nnonce_lifetime = 301\n"))
