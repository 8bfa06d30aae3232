"""
The configuration: every key, and every way to get it wrong, as the operator sees it.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq import config
from sipdmq.config import AuthConfig, GatewayConfig, HtableConfig, LimitsConfig, NodeConfig
from sipdmq.errors import ConfigError
from sipdmq.records import Listener, Protocol

EXAMPLE = Path(__file__).parents[1] / "etc" / "node.ini"
SECTIONS = {
    each.name: type(getattr(NodeConfig(), each.name))
    for each in fields(NodeConfig)
    if each.name not in ("path", "gateways", "htables", "tls_domains")
}


class ConfigTestCase(SynchronousTestCase):
    def write(self, text: str | bytes) -> str:
        path = Path(self.mktemp())
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def load(self, text: str | bytes) -> NodeConfig:
        return config.load(self.write(text))

    def read(self, section: str, key: str, value: str) -> Any:
        """
        What a key is read as.
        """
        return getattr(getattr(self.load(f"[{section}]\n{key} = {value}\n"), section), key)

    def refused(self, text: str | bytes) -> str:
        """
        What the operator is told, without the name of the file in front.
        """
        path = self.write(text)
        error = self.assertRaises(ConfigError, config.load, path)
        message = str(error)
        self.assertEqual((error.path, message[: len(path) + 2]), (path, f"{path}: "))
        self.assertNotIn("\n", message)
        return message[len(path) + 2 :]


class KeyTests(ConfigTestCase):
    """
    Each key: good values, and what is said of others.
    """

    WHOLE = (
        ("registrar", "min_expires", 1, 3600), ("registrar", "default_expires", 60, 7200),
        ("registrar", "max_expires", 3600, 2**31 - 1), ("registrar", "max_contacts", 1, 1000),
        ("limits", "message_size", 1000, 16 * 2**20), ("limits", "headers", 10, 100_000),
        ("limits", "header_length", 100, 2**20), ("limits", "transactions", 10, 10**7),
        ("limits", "transaction_bytes", 2**20, 2**36),
        ("limits", "completed_bytes", 2**16, 2**36), ("limits", "tombstones", 0, 10**8),
        ("limits", "connections", 1, 10**6), ("limits", "connections_per_source", 1, 10**6),
        ("limits", "write_buffer", 2**16, 2**30), ("limits", "opening_buffer", 2**16, 2**34),
        ("limits", "contacts_per_aor", 1, 10_000), ("limits", "kdmq_jobs_bytes", 2**17, 2**34),
        ("limits", "outbox_changes", 1, 10**7),
        ("limits", "outbox_bytes", 2**17, 2**34), ("calls", "max_open", 10, 10**7), ("auth", "nonces", 1000, 10**7),
        ("limits", "contacts_per_aor", 1, 10_000),
    )  # fmt: skip
    SECONDS = (
        ("timers", "t1", 0.01, 4.0), ("timers", "t2", 0.5, 60.0), ("timers", "t4", 0.01, 60.0),
        ("timers", "c", 1.0, 3600.0),
        ("dns", "timeout", 0.1, 60.0), ("limits", "idle_timeout", 1.0, 1e6), ("limits", "message_timeout", 1.0, 3600.0),
        ("limits", "connect_timeout", 0.1, 60.0), ("limits", "handshake_timeout", 1.0, 600.0),
        ("calls", "max_duration", 1.0, 1e6),
        ("auth", "nonce_lifetime", 1.0, 300.0),
    )  # fmt: skip
    OTHERS = (
        ("node", "listen"), ("node", "domains"), ("node", "aliases"), ("node", "policy"), ("node", "trusted"),
        ("dns", "servers"),
        ("calls", "record_file"),
        ("auth", "enable"), ("auth", "algorithms"), ("auth", "secret"), ("auth", "users"),
        ("tls", "certificate"), ("tls", "private_key"), ("tls", "ca_list"), ("tls", "minimum_version"),
        ("tls", "ciphers"), ("tls", "verify_client"),
    )  # fmt: skip

    def test_the_tables_are_complete(self) -> None:
        tested = {(section, key) for section, key, *_ in (*self.WHOLE, *self.SECONDS, *self.OTHERS)}
        elsewhere = ("dialog", "dmq", "presence", "usrloc")  # test_config_dialog and so on
        self.assertEqual(
            tested,
            {(name, key.name) for name, each in SECTIONS.items() if name not in elsewhere for key in fields(each)},
        )

    def test_whole_numbers(self) -> None:
        for section, key, least, most in self.WHOLE:
            for value in (least, most):
                self.assertEqual(self.read(section, key, str(value)), value, key)

    def test_what_is_no_whole_number_in_range(self) -> None:
        for section, key, *_ in self.WHOLE:
            for value in ("", "-1", "many", "1.5", "1e3", "0x10", "9" * 13, "1 2", "60 ; a note", "\u0663", "\u00b2"):
                self.assertRegex(
                    self.refused(f"[{section}]\n{key} = {value}\n"),
                    rf"^\[{section}\] {key}: '{re.escape(value)}': must be a whole number from \d+ to \d+$",
                )

    def test_networks(self) -> None:
        self.assertEqual(self.read("node", "trusted", ""), ())
        given = "192.0.2.1 198.51.100.0/24 2001:db8::/32"
        read = self.read("node", "trusted", given)
        self.assertEqual([str(each) for each in read], ["192.0.2.1/32", "198.51.100.0/24", "2001:db8::/32"])
        for value in ("gw.example.net", "192.0.2.1/24", "192.0.2.0/33", "192.0.2.1:5060"):
            self.assertIn("must be an address or a network", self.refused(f"[node]\ntrusted = {value}\n"))

    def test_just_out_of_range(self) -> None:
        for section, key, value, limits in (
            ("registrar", "min_expires", 0, "1 to 2147483647"), ("registrar", "max_expires", 2**31, "1 to 2147483647"),
            ("registrar", "max_contacts", 0, "1 to 1000"), ("registrar", "max_contacts", 1001, "1 to 1000"),
            ("limits", "message_size", 999, "1000 to 16777216"), ("limits", "headers", 9, "10 to 100000"),
            ("limits", "header_length", 99, "100 to 1048576"), ("limits", "transactions", 9, "10 to 10000000"),
            ("limits", "completed_bytes", 65535, "65536 to 68719476736"), ("limits", "connections", 0, "1 to 1000000"),
            ("limits", "tombstones", 10**8 + 1, "0 to 100000000"), ("limits", "write_buffer", 1, "65536 to 1073741824"),
            ("limits", "connections_per_source", 0, "1 to 1000000"),
            ("limits", "opening_buffer", 1000, "65536 to 17179869184"),
        ):  # fmt: skip
            self.assertEqual(
                self.refused(f"[{section}]\n{key} = {value}\n"),
                f"[{section}] {key}: '{value}': must be a whole number from {limits}",
            )

    def test_seconds(self) -> None:
        for section, key, least, most in self.SECONDS:
            for value in (least, most):
                self.assertEqual(self.read(section, key, f"{value:f}"), value, key)
            self.assertEqual(self.read(section, key, "2"), 2.0)

    def test_what_is_no_number_of_seconds_in_range(self) -> None:
        for section, key, *_ in self.SECONDS:
            for value in ("", "0", "-1", "soon", "5s", "1e1", "nan", "inf", "0.001", "10000000", "1,5", "\u0663"):
                self.assertRegex(
                    self.refused(f"[{section}]\n{key} = {value}\n"),
                    rf"^\[{section}\] {key}: '{re.escape(value)}': must be a number of seconds from \S+ to \S+$",
                )

    def test_listen(self) -> None:
        udp, tcp = Protocol.UDP, Protocol.TCP
        for value, expected in (
            ("udp:127.0.0.1:5060", Listener(udp, "127.0.0.1", 5060, "127.0.0.1", 5060)),
            ("tcp:192.0.2.1", Listener(tcp, "192.0.2.1", 5060, "192.0.2.1", 5060)),
            ("udp:0.0.0.0:5062 advertise 203.0.113.5:5060", Listener(udp, "0.0.0.0", 5062, "203.0.113.5", 5060)),
            ("udp:0.0.0.0:5062   advertise\tSip.Example.ORG", Listener(udp, "0.0.0.0", 5062, "sip.example.org", 5060)),
            ("tcp:[::]:65535", Listener(tcp, "::", 65535, "::", 65535)),
            ("tcp:[2001:DB8::0:1]", Listener(tcp, "2001:db8::1", 5060, "2001:db8::1", 5060)),
            ("udp:[::]:5060 advertise [2001:db8::5]:5", Listener(udp, "::", 5060, "2001:db8::5", 5)),
        ):
            self.assertEqual(self.read("node", "listen", value), (expected,), value)

    def test_several_listeners(self) -> None:
        text = "\n  udp:127.0.0.1:5060\n  tcp:127.0.0.1:5060\n\n  # a note\n  udp:[::1]:5060"
        self.assertEqual(
            [str(listener) for listener in self.read("node", "listen", text)],
            ["udp:127.0.0.1:5060", "tcp:127.0.0.1:5060", "udp:[::1]:5060"],
        )

    def test_listeners_that_are_wrong(self) -> None:
        for value, expected in (
            ("", "must name at least one listener, as udp:127.0.0.1:5060"),
            ("127.0.0.1:5060", "must read PROTOCOL:ADDRESS:PORT or PROTOCOL:ADDRESS:PORT advertise HOST:PORT"),
            ("udp:127.0.0.1:5060 advertise", "must read PROTOCOL:ADDRESS:PORT"),
            ("udp:127.0.0.1:5060 tcp:127.0.0.1:5060", "must read PROTOCOL:ADDRESS:PORT"),
            ("udp:127.0.0.1:5060 advertize a.b", "must read PROTOCOL:ADDRESS:PORT"),
            ("sctp:127.0.0.1:5060", "the protocol must be one of udp, tcp"),
            ("udp:localhost:5060", "the address must be numeric; a name belongs behind 'advertise'"),
            ("udp:2001:db8::1:5060", "an IPv6 address in brackets"),
            ("udp:[2001:zz::1]:5060", "the address must be HOST or HOST:PORT"),
            ("udp:127.0.0.1:0", "must have a port from 1 to 65535"),
            ("udp:127.0.0.1:65536", "the address must be HOST or HOST:PORT"),
            ("udp:127.0.0.1:sip", "the address must be HOST or HOST:PORT"),
            ("udp:127.0.0.1:5060 advertise a b", "must read PROTOCOL:ADDRESS:PORT"),
            ("udp:127.0.0.1:5060 advertise sip.example.org:0", "what is advertised must have a port from 1 to 65535"),
            ("udp:127.0.0.1:5060 advertise sip:example.org", "what is advertised must be HOST or HOST:PORT"),
            ("\n udp:127.0.0.1:5060\n udp:127.0.0.1", "udp:127.0.0.1:5060 is named twice"),
            ("udp:300.0.0.1:5060", "the address must be numeric"),
            ("udp:1.2.3:5060", "the address must be numeric"),
        ):
            message = self.refused(f"[node]\nlisten = {value}\n")
            self.assertEqual(message.partition(": ")[0], "[node] listen")
            self.assertIn(expected, message)

    def test_domains(self) -> None:
        for value, expected in (
            ("example.org", ("example.org",)),
            ("Example.ORG  b.example\n  192.0.2.1", ("example.org", "b.example", "192.0.2.1")),
            ("[2001:DB8::1]", ("2001:db8::1",)),
        ):
            self.assertEqual(self.read("node", "domains", value), expected)
        for value, expected_message in (
            ("", "must name at least one domain, as example.org"),
            ("sip:example.org", "'sip:example.org' must be a host name or an address, without scheme and port"),
            ("example.org:5060", "without scheme and port"),
            ("a@example.org", "must be a host name"),
            ("example.org, b.org", "'example.org,' must be a host name"),
        ):
            self.assertIn(expected_message, self.refused(f"[node]\ndomains = {value}\n"))

    def test_aliases(self) -> None:
        text = "[node]\ndomains = example.org b.example\naliases ={}\n"
        self.assertEqual(self.load(text.format("")).node.aliases, ())
        self.assertEqual(
            self.load(text.format("\n  Sip.example.org example.org\n  x.b.example B.example")).node.aliases,
            (("sip.example.org", "example.org"), ("x.b.example", "b.example")),
        )
        for value, expected in (
            (" sip.example.org", "'sip.example.org' must be two names, the alias and the domain"),
            (" a b c", "must be two names"),
            (" a: example.org", "must be a host name"),
            (" a.example nowhere.org", "'a.example' stands for 'nowhere.org', which is not in domains"),
            (" b.example example.org", "'b.example' is in domains, too"),
            ("\n  a.example example.org\n  a.example b.example", "'a.example'"),
        ):
            message = self.refused(text.format(value))
            self.assertEqual(message.partition(": ")[0], "[node] aliases")
            self.assertIn(expected, message)

    def test_name_servers(self) -> None:
        for value, expected in (
            ("", ()),
            ("192.0.2.53", (("192.0.2.53", 53),)),
            ("192.0.2.53:5353 [2001:db8::53]:54", (("192.0.2.53", 5353), ("2001:db8::53", 54))),
            ("[2001:db8::53]", (("2001:db8::53", 53),)),
        ):
            self.assertEqual(self.read("dns", "servers", value), expected, value)
        for value in ("ns.example.org", "192.0.2.53:0", "2001:db8::53", "192.0.2.53,192.0.2.54"):
            self.assertRegex(self.refused(f"[dns]\nservers = {value}\n"), r"^\[dns\] servers: .*must")


class TogetherTests(ConfigTestCase):
    def test_what_contradicts_another_key(self) -> None:
        for text, expected in (
            (
                "[registrar]\nmin_expires = 4000\n",
                "[registrar] default_expires: 3600 must lie between min_expires (4000) and max_expires (7200)",
            ),
            (
                "[registrar]\nmax_expires = 1800\n",
                "[registrar] default_expires: 3600 must lie between min_expires (60) and max_expires (1800)",
            ),
            ("[timers]\nt1 = 2\nt2 = 1.5\n", "[timers] t2: 1.5 must not be less than t1 (2)"),
        ):
            self.assertEqual(self.refused(text), expected)


class FileTests(ConfigTestCase):
    """
    What is wrong with the file as a whole.
    """

    def test_no_such_file(self) -> None:
        error = self.assertRaises(ConfigError, config.load, "etc/nowhere.ini")
        self.assertEqual(str(error), "etc/nowhere.ini: cannot be read: No such file or directory")
        self.assertIn("cannot be read: Is a directory", str(self.assertRaises(ConfigError, config.load, "/")))

    def test_not_utf_8(self) -> None:
        self.assertEqual(self.refused(b"[node]\n# caf\xe9\n"), "is not UTF-8 text (byte 12)")

    def test_a_byte_order_mark_is_no_text(self) -> None:
        self.assertEqual(self.load(b"\xef\xbb\xbf[timers]\r\nt1 = 1\r\n").timers.t1, 1.0)

    def test_unknown_section(self) -> None:
        self.assertEqual(
            self.refused("[nodes]\n"),
            f"[nodes]: unknown section; the sections are {', '.join(SECTIONS)}, gateway NAME, htable NAME, tls DOMAIN",
        )
        self.assertIn("unknown section", self.refused("[DEFAULT]\nt1 = 1\n"))

    def test_unknown_key(self) -> None:
        self.assertEqual(
            self.refused("[timers]\nt3 = 1\n"), "[timers] t3: unknown key; the keys of [timers] are t1, t2, t4, c"
        )

    def test_twice(self) -> None:
        self.assertEqual(self.refused("[dns]\n[node]\n[dns]\n"), "[dns]: line 3: the section is there twice")
        self.assertEqual(self.refused("[timers]\nt1 = 1\nT1 = 1\n"), "[timers] t1: line 3: the key is there twice")

    def test_lines_that_are_neither(self) -> None:
        self.assertEqual(self.refused("t1 = 1\n[timers]\n"), "line 1: must stand below a section, as [node]")
        self.assertRegex(self.refused("[timers]\nt1 1\n"), r"^line 2: neither \[section\] nor 'key = value': '?t1 1")
        self.assertRegex(self.refused("[timers\nt1 = 1\n"), "^line 1: ")

    def test_an_empty_file_means_the_defaults(self) -> None:
        path = self.write("")
        self.assertEqual(config.load(path), NodeConfig(path))

    def test_a_percent_sign_is_one(self) -> None:
        self.assertIn("'5%': must be", self.refused("[timers]\nt1 = 5%\n"))


class ExampleTests(ConfigTestCase):
    """
    etc/node.ini, the operator's page.
    """

    def test_as_it_is_it_says_the_defaults_and_that_authentication_is_on(self) -> None:
        shipped = NodeConfig(auth=AuthConfig(enable=True))
        self.assertEqual(replace(config.load(str(EXAMPLE)), path=NodeConfig().path), shipped)

    def test_what_is_commented_out_in_it_are_the_defaults_too(self) -> None:
        """
        A setting has its C{#} at the line's begin, explanations have a space behind it.
        """
        text = re.sub(r"(?m)^#(?=[a-z0-9_]+ =|    \S|\[(?:gateway|htable) )(?!     )", "", EXAMPLE.read_text())
        loaded = self.load(text)
        shipped = NodeConfig(auth=AuthConfig(enable=True))
        self.assertEqual(replace(loaded, path=NodeConfig().path, gateways={}, htables={}), shipped)
        self.assertEqual(loaded.htables, {"example": HtableConfig()})
        (gateway,) = loaded.gateways.values()
        self.assertEqual(replace(gateway, target=()), GatewayConfig())

    def test_it_names_every_key_of_every_section(self) -> None:
        named = set()
        section = ""
        for line in EXAMPLE.read_text().splitlines():
            if match := re.fullmatch(r"#?\[([a-z]+)(?: [a-z]+)?\]", line):
                section = match.group(1)
            elif match := re.match(r"#?([a-z0-9_]+) =", line):
                named.add((section, match.group(1)))
        sections = {**SECTIONS, "gateway": GatewayConfig, "htable": HtableConfig}
        self.assertEqual(named, {(name, key.name) for name, kind in sections.items() for key in fields(kind)})

    def test_each_key_has_a_comment_above(self) -> None:
        lines = EXAMPLE.read_text().splitlines()
        for number, line in enumerate(lines):
            if re.match(r"#?[a-z0-9_]+ =", line):
                self.assertTrue(lines[number - 1].startswith("# ") or lines[number - 1].startswith("#  "), line)


class SectionTests(SynchronousTestCase):
    def test_what_the_parser_needs(self) -> None:
        self.assertEqual(tuple(LimitsConfig(message_size=2000, headers=20, header_length=200).parser), (2000, 20, 200))

    def test_sections_are_frozen(self) -> None:
        self.assertRaises(AttributeError, setattr, NodeConfig().timers, "t1", 3.0)
