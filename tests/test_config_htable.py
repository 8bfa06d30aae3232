"""
C{[htable NAME]}: the shared tables as the operator writes them.
"""

from __future__ import annotations

from sipdmq.config import HtableConfig
from tests.test_config import ConfigTestCase


class HtableConfigTests(ConfigTestCase):
    def table(self, lines: str) -> HtableConfig:
        return self.load(f"[htable ban]\n{lines}\n").htables["ban"]

    def test_none_and_several(self) -> None:
        self.assertEqual(self.load("").htables, {})
        loaded = self.load("[htable a]\nautoexpire = 6\n[node]\n[htable B_2]\n").htables
        self.assertEqual(loaded, {"a": HtableConfig(autoexpire=6), "B_2": HtableConfig()})

    def test_each_key(self) -> None:
        found = self.table("autoexpire=60\nupdateexpire=0\ninitval=-5\ndmqreplicate=1\nmax_cells=10\nmax_bytes=100000")
        self.assertEqual(found, HtableConfig(60, False, -5, True, 10, 100_000))
        self.assertIsNone(self.table("initval =").initval)
        self.assertEqual(self.table("initval = 2147483647").initval, 2**31 - 1)

    def test_what_is_wrong_is_named(self) -> None:
        for line, reason in (
            ("autoexpire = -1", "must be a whole number from 0 to 2147483647"),
            ("autoexpire = 6s", "must be a whole number from 0 to 2147483647"),
            ("updateexpire = maybe", "must be 1 or 0"),
            ("dmqreplicate = 2", "must be 1 or 0"),
            ("initval = x", "must be a whole number of 32 bits, or empty"),
            ("initval = 2147483648", "must be a whole number of 32 bits, or empty"),
            ("max_cells = 0", "must be a whole number from 1 to 100000000"),
            ("max_bytes = 1", "must be a whole number from 65536 to 68719476736"),
        ):
            key, _, value = line.partition(" = ")
            self.assertEqual(self.refused(f"[htable ban]\n{line}\n"), f"[htable ban] {key}: '{value}': {reason}")

    def test_kamailios_number_of_slots_is_no_key(self) -> None:
        self.assertEqual(
            self.refused("[htable ban]\nsize = 8\n"),
            "[htable ban] size: unknown key; the keys of [htable ban] are autoexpire, updateexpire, initval, "
            "dmqreplicate, max_cells, max_bytes",
        )

    def test_names(self) -> None:
        for section in ("htable", "htable ", "htable a b", "htable  a", "htable a-b", "htable ü"):
            self.assertEqual(
                self.refused(f"[{section}]\n"),
                f"[{section}]: must read [htable NAME], its name of letters, digits and '_'",
            )
        self.assertIn("unknown section", self.refused("[htables]\n"))

    def test_the_channel_is_taken(self) -> None:
        dmq = "[dmq]\nserver_address = sip:127.0.0.1:5060\n"
        self.assertEqual(
            self.refused(f"{dmq}notification_channel = htable\n[htable ban]\ndmqreplicate = 1\n"),
            "[dmq] notification_channel: 'htable' is the channel of [htable ban]: choose another name",
        )
        self.assertEqual(
            self.refused(f"{dmq}[usrloc]\ndmq_peer_id = htable\n[htable ban]\ndmqreplicate = 1\n"),
            "[usrloc] dmq_peer_id: 'htable' is the channel of [htable ban]: choose another name",
        )
