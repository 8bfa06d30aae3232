"""
C{[usrloc]}: Kamailio's parameters of dmq_usrloc.
"""

from __future__ import annotations

from sipdmq.config import UsrlocConfig
from tests.test_config import ConfigTestCase

DMQ = "[dmq]\nserver_address = sip:127.0.0.1:5060\n"


class UsrlocSectionTests(ConfigTestCase):
    def test_the_defaults_are_kamailios_but_for_two(self) -> None:
        self.assertEqual(
            self.load("").usrloc,
            UsrlocConfig(
                enable=True, sync=True, batch_size=0, batch_usleep=0, batch_msg_size=60000, batch_msg_contacts=50,
                usrloc_domain="location", replicate_socket_info=0, replicate_cflags=1, usrloc_delete=True,
                usrloc_delete_expired=False, dmq_peer_id="usrloc", use_domain=False,
            ),
        )  # fmt: skip

    def test_switches(self) -> None:
        for name in ("enable", "sync", "usrloc_delete", "usrloc_delete_expired", "use_domain"):
            for text, value in (("1", True), ("0", False)):
                self.assertIs(getattr(self.load(f"[usrloc]\n{name} = {text}\n").usrloc, name), value)
            self.assertIn(f"[usrloc] {name}: '2': must be 1 or 0", self.refused(f"[usrloc]\n{name} = 2\n"))

    def test_numbers(self) -> None:
        for name, least, most in (
            ("batch_size", 0, 10**6), ("batch_usleep", 0, 10**8), ("batch_msg_size", 1000, 60_000),
            ("batch_msg_contacts", 1, 150), ("replicate_socket_info", 0, 3), ("replicate_cflags", 0, 2**32 - 1),
        ):  # fmt: skip
            for value in (least, most):
                self.assertEqual(getattr(self.load(f"[usrloc]\n{name} = {value}\n").usrloc, name), value)
            for value in (least - 1, most + 1, "x"):
                told = self.refused(f"[usrloc]\n{name} = {value}\n")
                self.assertIn(f"must be a whole number from {least} to {most}", told)

    def test_names(self) -> None:
        for name in ("usrloc_domain", "dmq_peer_id"):
            self.assertEqual(getattr(self.load(f"[usrloc]\n{name} = a-1.x_\n").usrloc, name), "a-1.x_")
            for text in ("", "a b", "a@b", 65 * "x"):
                self.assertIn("must be a name of letters", self.refused(f"[usrloc]\n{name} = {text}\n"))

    def test_one_name_for_two_channels(self) -> None:
        for name, owner in (
            ("sipdmq", "what sipdmq nodes tell one another"), ("notification_peer", "[dmq] notification_channel"),
            ("dialog", "[dialog]"),
        ):  # fmt: skip
            self.assertEqual(
                self.refused(f"{DMQ}[dialog]\nenable = 1\n[usrloc]\ndmq_peer_id = {name}\n"),
                f"[usrloc] dmq_peer_id: '{name}' is the channel of {owner}: choose another name",
            )

    def test_several_domains_need_use_domain(self) -> None:
        """
        Among the nodes alice of the one would be alice of the other. Aliases and addresses do not count.
        """
        several = "[node]\ndomains = a.example b.example\n"
        self.assertEqual(
            self.refused(DMQ + several),
            "[usrloc] use_domain: must be 1 with several domains (a.example, b.example): users of the same name would "
            "be one among the nodes",
        )
        for text in (
            several, DMQ + several + "[usrloc]\nuse_domain = 1\n", DMQ + several + "[usrloc]\nenable = 0\n",
            DMQ + "[node]\ndomains = a.example 192.0.2.1 [::1]\naliases = b.example a.example\n",
        ):  # fmt: skip
            self.load(text)
