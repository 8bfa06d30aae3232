"""
C{[dialog]}: Kamailio's parameters of the module dialog.
"""

from __future__ import annotations

from sipdmq.config import DialogConfig
from tests.test_config import ConfigTestCase


class DialogSectionTests(ConfigTestCase):
    def test_the_defaults(self) -> None:
        self.assertEqual(
            self.load("").dialog,
            DialogConfig(
                enable=False, track=("INVITE",), hash_size=4096, default_timeout=43_200, early_timeout=300,
                end_timeout=5, enable_dmq=True, profiles_with_value=("caller", "callee"), profiles_no_value=(),
                max_dialogs=100_000,
            ),
        )  # fmt: skip

    def test_switches(self) -> None:
        for name in ("enable", "enable_dmq"):
            self.assertIs(self.read("dialog", name, "1"), True)
            self.assertIn("must be 1 or 0", self.refused(f"[dialog]\n{name} = yes it is\n"))

    def test_numbers(self) -> None:
        for name, most in (
            ("default_timeout", 10**6), ("early_timeout", 10**6), ("end_timeout", 10**6), ("max_dialogs", 10**7),
        ):  # fmt: skip
            self.assertEqual(self.read("dialog", name, str(most)), most)
            for value in (0, most + 1, "x"):
                self.assertIn(f"from 1 to {most}", self.refused(f"[dialog]\n{name} = {value}\n"))

    def test_the_size_of_the_hash(self) -> None:
        for size in (1, 2, 4096, 2**20):
            self.assertEqual(self.read("dialog", "hash_size", str(size)), size)
        for value in ("0", "3", "4095", str(2**21), "x"):
            self.assertIn("must be a", self.refused(f"[dialog]\nhash_size = {value}\n"))

    def test_what_is_followed(self) -> None:
        self.assertEqual((self.read("dialog", "track", ""), self.read("dialog", "track", "invite")), ((), ("INVITE",)))
        self.assertIn("must be INVITE, or empty", self.refused("[dialog]\ntrack = SUBSCRIBE\n"))

    def test_names_of_profiles(self) -> None:
        self.assertEqual(self.read("dialog", "profiles_no_value", "a; b,c  d"), ("a", "b", "c", "d"))
        self.assertIn("must be names", self.refused("[dialog]\nprofiles_with_value = a/b\n"))
        self.assertIn("'caller' is in profiles_with_value, too", self.refused("[dialog]\nprofiles_no_value = caller\n"))
