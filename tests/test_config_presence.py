"""
C{[presence]}: what is published, and how it is replicated.
"""

from __future__ import annotations

from sipdmq.config import PresenceConfig
from tests.test_config import ConfigTestCase

DMQ = "[dmq]\nserver_address = sip:127.0.0.1:5060\n"


class PresenceSectionTests(ConfigTestCase):
    def test_the_defaults(self) -> None:
        found = self.load("").presence
        self.assertEqual(found, PresenceConfig())
        self.assertEqual(
            (found.enable, found.min_expires, found.default_expires, found.max_expires, found.enable_dmq),
            (False, 60, 3600, 3600, True),
        )

    def test_switches(self) -> None:
        for name in ("enable", "enable_dmq", "enable_pres_sync_dmq"):
            for text, value in (("1", True), ("0", False)):
                self.assertIs(getattr(self.load(f"[presence]\n{name} = {text}\n").presence, name), value)
            self.assertIn(f"[presence] {name}: '2': must be 1 or 0", self.refused(f"[presence]\n{name} = 2\n"))

    def test_numbers(self) -> None:
        for name, least, most in (
            ("max_body", 200, 12_000), ("publications_per_presentity", 1, 1000), ("publications", 1, 10**8),
        ):  # fmt: skip
            for value in (least, most):
                self.assertEqual(getattr(self.load(f"[presence]\n{name} = {value}\n").presence, name), value)
            for value in (least - 1, most + 1, "x"):
                told = self.refused(f"[presence]\n{name} = {value}\n")
                self.assertIn(f"must be a whole number from {least} to {most}", told)

    def test_times_in_their_order(self) -> None:
        self.assertIn(
            "[presence] default_expires: 3600 must lie between min_expires (60) and max_expires (600)",
            self.refused("[presence]\nmax_expires = 600\n"),
        )

    def test_one_name_for_two_channels(self) -> None:
        for name, owner in (
            ("sipdmq", "what sipdmq nodes tell one another"), ("notification_peer", "[dmq] notification_channel"),
            ("usrloc", "[usrloc] dmq_peer_id"), ("subscriptions", "[presence]"),
        ):  # fmt: skip
            self.assertEqual(
                self.refused(f"{DMQ}[presence]\nenable = 1\ndmq_peer_id = {name}\n"),
                f"[presence] dmq_peer_id: '{name}' is the channel of {owner}: choose another name",
            )
            self.load(f"{DMQ}[presence]\ndmq_peer_id = {name}\n")  # it is off

    def test_publish_is_copied_or_told_not_both(self) -> None:
        dmq = f"{DMQ}replicate = PUBLISH\n"
        self.assertIn("this node takes none without", self.refused(dmq))
        self.assertIn("would be there twice", self.refused(f"{dmq}[presence]\nenable = 1\n"))
        self.load(f"{dmq}[presence]\nenable = 1\nenable_dmq = 0\n")
