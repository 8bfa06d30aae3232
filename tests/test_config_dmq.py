"""
The section [dmq].
"""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_network
from typing import Any

from sipdmq.config import DMQConfig, NodeConfig
from sipdmq.config.dmq import listener_of
from tests.test_config import ConfigTestCase

AT = "server_address = sip:127.0.0.1:5060\n"


class DMQTests(ConfigTestCase):
    def dmq(self, lines: str, others: str = "") -> DMQConfig:
        return self.load(f"{others}[dmq]\n{AT}{lines}\n").dmq

    def value(self, key: str, text: str) -> Any:
        return getattr(self.dmq(f"{key} = {text}"), key)

    def refused_with(self, lines: str, others: str = "") -> str:
        return self.refused(f"{others}[dmq]\n{AT}{lines}\n")

    def test_without_it_the_node_is_in_no_cluster(self) -> None:
        self.assertFalse(NodeConfig().dmq.is_enabled)
        self.assertTrue(self.dmq("").is_enabled)

    def test_the_defaults_are_kamailio_s(self) -> None:
        """
        README of the module dmq, and WIRE §4.
        """
        ours = {
            "num_workers": 2, "worker_usleep": 0, "ping_interval": 60.0, "notification_channel": "notification_peer",
            "multi_notify": False, "remove_inactive": True, "fail_count_enabled": False, "init_with_single": False,
            "fail_count_threshold_not_active": 0, "fail_count_threshold_disabled": 1, "sl_send": False,
            "event_callback": "", "server_socket": "", "notification_address": (),
        }  # fmt: skip
        found = {each.name: getattr(DMQConfig(), each.name) for each in fields(DMQConfig)}
        self.assertEqual({name: found[name] for name in ours}, ours)

    def test_switches(self) -> None:
        for key in ("multi_notify", "remove_inactive", "fail_count_enabled", "init_with_single", "sl_send"):
            if key == "multi_notify":
                continue
            for text, expected in (("1", True), ("0", False), ("yes", True), ("No", False)):
                self.assertIs(self.value(key, text), expected)
            self.assertEqual(self.refused_with(f"{key} = 2"), f"[dmq] {key}: '2': must be 1 or 0")

    def test_numbers(self) -> None:
        for key, good, bad in (
            ("num_workers", "1", "0"), ("worker_usleep", "1000", "-1"), ("window", "1000", "1001"),
            ("ping_interval", "1", "0.5"), ("timeout", "8.5", "0"), ("t1", "0.01", "0"), ("t2", "0.1", "x"),
            ("forget_after", "60", "59"), ("batch_window", "0", "11"), ("fail_count_threshold_not_active", "1", "many"),
            ("fail_count_threshold_disabled", "5", "1.5"),
        ):  # fmt: skip
            self.assertEqual(self.value(key, good), float(good), key)
            self.assertIn(f"[dmq] {key}: '{bad}': must be a", self.refused_with(f"{key} = {bad}"))

    def test_addresses(self) -> None:
        uris = self.value("notification_address", "sip:127.0.0.2:5060\n sip:b.example sip:127.0.0.2:5060")
        self.assertEqual([uri.text for uri in uris], ["sip:127.0.0.2:5060", "sip:b.example"])
        for text, reason in (
            ("127.0.0.2", "'127.0.0.2' must be a SIP URI, as sip:192.0.2.1:5060"),
            ("sip:a@127.0.0.2", "'sip:a@127.0.0.2' must begin with sip:, have no user, no headers, and a port from"),
            ("sips:127.0.0.2", "'sips:127.0.0.2' must begin with sip:"),
            ("sip:127.0.0.2:0", "a port from 1 to 65535"),
            ("sip:127.0.0.2;lr", "must have no parameter but transport"),
            ("sip:127.0.0.2;transport=sctp", "transport must be one of udp, tcp, tls"),
        ):
            self.assertIn(reason, self.refused_with(f"notification_address = {text}"))

    def test_the_server_address_is_that_of_a_listener(self) -> None:
        listen = "[node]\nlisten =\n udp:192.0.2.1:5060\n udp:192.0.2.2:5070 advertise sip.example.org:5060\n"
        for uri, expected in (
            ("sip:192.0.2.1:5060", "udp:192.0.2.1:5060"),
            ("sip:192.0.2.1", "udp:192.0.2.1:5060"),
            ("sip:sip.example.org:5060", "udp:192.0.2.2:5070"),
        ):
            config = self.load(f"{listen}[dmq]\nserver_address = {uri}\nallow = 192.0.2.0/24\n")
            self.assertEqual(str(listener_of(config)), expected)
        for uri in ("sip:192.0.2.9:5060", "sip:192.0.2.1:5061", "sip:192.0.2.1:5060;transport=tcp"):
            self.assertIn(
                f"[dmq] server_address: '{uri}' is neither the address nor the advertised one of a ",
                self.refused(f"{listen}[dmq]\nserver_address = {uri}\nallow = 192.0.2.0/24\n"),
            )

    def test_a_socket_of_its_own(self) -> None:
        listen = "[node]\nlisten =\n udp:192.0.2.1:5060\n tcp:192.0.2.1:5060\n"
        head = f"{listen}[dmq]\nserver_address = sip:203.0.113.7:5099\nallow = 192.0.2.0/24\n"
        config = self.load(f"{head}server_socket = udp:192.0.2.1\n")
        self.assertEqual(str(listener_of(config)), "udp:192.0.2.1:5060")
        self.assertIn("is not one of [node] listen", self.refused(f"{head}server_socket = udp:192.0.2.1:5061\n"))
        self.assertIn("does not speak UDP", self.refused(f"{head}server_socket = tcp:192.0.2.1:5060\n"))

    def test_other_keys_need_a_server_address(self) -> None:
        self.assertIn("[dmq] server_address: is missing", self.refused("[dmq]\nping_interval = 5\n"))

    def test_off_loopback_somebody_has_to_be_allowed(self) -> None:
        head = "[node]\nlisten = udp:192.0.2.1:5060\n[dmq]\nserver_address = sip:192.0.2.1:5060\n"
        self.assertIn("[dmq] allow: is missing: nobody could join", self.refused(head))
        self.assertEqual(self.load(f"{head}allow = 192.0.2.0/24 ::1").dmq.allow,
                         (ip_network("192.0.2.0/24"), ip_network("::1/128")))
        self.load(f"{head}notification_address = sip:192.0.2.2")
        self.assertIn("'192.0.2.1/24' must be an address or a network", self.refused(f"{head}allow = 192.0.2.1/24"))

    def test_times_that_do_not_go_together(self) -> None:
        self.assertIn("[dmq] t2: 0.05 must not be less than t1", self.refused_with("t2 = 0.05"))
        self.assertIn("[dmq] timeout: 0.1 must not be", self.refused_with("t1 = 0.5\nt2 = 1\ntimeout = 0.1"))
        refusal = self.refused_with("fail_count_threshold_not_active = 2")
        self.assertIn("[dmq] fail_count_threshold_disabled: 1", refusal)

    def test_tls(self) -> None:
        self.assertIn(
            "[dmq] server_address: 'sip:127.0.0.1:5060' must have ;transport=tls", self.refused_with("require_tls = 1")
        )
        self.assertIn("needs a TLS listener", self.refused_with("notification_address = sip:127.0.0.2;transport=tls"))
        tls = "[node]\nlisten = tls:127.0.0.1:5061\n[tls]\ncertificate = x.pem\n"
        dmq = "[dmq]\nserver_address = sip:127.0.0.1:5061;transport=tls\nrequire_tls = 1\n"
        self.assertIn("[tls] verify_client: must be optional or require", self.refused(tls + dmq))
        self.assertTrue(self.load(f"{tls}verify_client = require\nca_list = ca.pem\n{dmq}").dmq.require_tls)

    def test_replicate(self) -> None:
        off = "[usrloc]\nenable = 0\n"
        self.assertEqual(self.dmq("replicate = register", off).replicate, ("REGISTER",))
        self.assertIn("each binding would be there twice", self.refused_with("replicate = REGISTER"))
        self.assertIn("this node takes none without", self.refused_with("replicate = PUBLISH", off))
        self.assertIn("must be of REGISTER PUBLISH", self.refused_with("replicate = INVITE"))

    def test_words(self) -> None:
        self.assertEqual(self.value("farewell", "all"), "all")
        self.assertIn("must be one of sipdmq, all, none", self.refused_with("farewell = some"))
        self.assertEqual(self.value("event_callback", "a.b:c"), "a.b:c")
        self.assertIn("must read package.module:function", self.refused_with("event_callback = a.b"))
        self.assertIn("must be a name of letters", self.refused_with("notification_channel = a b"))

    def test_multi_notify_needs_one_name(self) -> None:
        self.assertIn("[dmq] multi_notify: needs one", self.refused_with("multi_notify = 1"))
        self.assertTrue(self.dmq("multi_notify = 1\nnotification_address = sip:nodes.example.org").multi_notify)

    def test_messages_of_full_size_can_be_read(self) -> None:
        refusal = self.refused_with("", "[limits]\nmessage_size = 5000\n")
        self.assertIn("[limits] message_size: 5000 must be at least 65535", refusal)
