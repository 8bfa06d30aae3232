"""
C{[gateway NAME]}: the groups of gateways as the operator writes them.
"""

from __future__ import annotations

from dataclasses import replace

from sipdmq.config import GatewayConfig
from sipdmq.config.values import MAX_GATEWAYS
from tests.test_config import ConfigTestCase


class GatewaySectionTests(ConfigTestCase):
    """
    One section for each group, as many as wanted.
    """

    def group(self, lines: str) -> GatewayConfig:
        """
        What a section with these lines is read as.
        """
        return self.load(f"[gateway pstn]\ntarget = sip:192.0.2.9\n{lines}\n").gateways["pstn"]

    def targets(self, value: str) -> list[tuple[str, int, int]]:
        """
        What C{target} is read as.
        """
        group = self.load(f"[gateway pstn]\ntarget = {value}\n").gateways["pstn"]
        return [(str(uri), priority, weight) for uri, priority, weight in group.target]

    def test_without_any(self) -> None:
        self.assertEqual(self.load("").gateways, {})

    def test_several_groups_by_their_names(self) -> None:
        loaded = self.load("[gateway pstn]\ntarget = sip:a\n[node]\n[gateway Trunk-2_b.c]\ntarget = sip:b\n").gateways
        self.assertEqual(
            [(name, str(group.target[0].uri)) for name, group in loaded.items()],
            [("pstn", "sip:a"), ("Trunk-2_b.c", "sip:b")],
        )

    def test_what_is_not_given_has_its_default(self) -> None:
        self.assertEqual(replace(self.group(""), target=()), GatewayConfig())

    def test_targets(self) -> None:
        for value, expected in (
            ("sip:192.0.2.9", [("sip:192.0.2.9", 0, 1)]),
            ("sip:gw:5062;transport=tcp  priority 10\tweight 0", [("sip:gw:5062;transport=tcp", 10, 0)]),
            ("sips:[2001:db8::1] weight 1000", [("sips:[2001:db8::1]", 0, 1000)]),
            ("\n  sip:a priority 1000\n\n  # a note\n  sip:b", [("sip:a", 1000, 1), ("sip:b", 0, 1)]),
        ):
            self.assertEqual(self.targets(value), expected)

    def test_targets_that_are_wrong(self) -> None:
        for value, expected in (
            ("", "must name 1 to 100 gateways, one a line, as sip:192.0.2.9:5060"),
            ("sip:a sip:b", "'sip:a sip:b' must read URI, URI priority NUMBER"),
            ("sip:a weight 1 priority 2", "must read URI, URI priority NUMBER"),
            ("sip:a priority 1001", "the numbers from 0 to 1000"),
            ("sip:a weight -1", "the numbers from 0 to 1000"),
            ("sip:a weight 1.5", "the numbers from 0 to 1000"),
            ("sip:a weight \u0663", "the numbers from 0 to 1000"),
            ("192.0.2.9:5060", "'192.0.2.9:5060' must be a SIP URI, as sip:gw.example.net:5060;transport=tcp"),
            ("tel:+49", "'tel:+49' must be a SIP URI"),
            ("sip:a:99999", "must be a SIP URI"),
            ("sip:a:0", "its port from 1 to 65535"),
            ("sip:alice@a", "'sip:alice@a' must be a SIP URI without user"),
            ("sip:a?Subject=x", "without headers"),
            ("\n  sip:a\n  SIP:A", "SIP:A is named twice"),
            ("".join(f"\n  sip:h{number}" for number in range(MAX_GATEWAYS + 1)), "must name 1 to 100 gateways"),
        ):
            message = self.refused(f"[gateway pstn]\ntarget = {value}\n")
            self.assertEqual(message.partition(": ")[0], "[gateway pstn] target", value)
            self.assertIn(expected, message)

    def test_without_target(self) -> None:
        self.assertEqual(
            self.refused("[gateway pstn]\nanswer_timeout = 2\n"),
            "[gateway pstn] target: is missing; as target = sip:192.0.2.9:5060",
        )

    def test_numbers(self) -> None:
        for key, good, bad in (
            ("answer_timeout", (0.5, 180.0), ("0", "0.4", "181", "soon")),
            ("probe_interval", (0.0, 3600.0), ("-1", "3601", "often")),
            ("probe_threshold", (1, 100), ("0", "101", "1.5")),
            ("return_threshold", (1, 100), ("0", "101", "")),
        ):
            for value in good:
                self.assertEqual(getattr(self.group(f"{key} = {value}"), key), value)
            for text in bad:
                message = self.refused(f"[gateway pstn]\ntarget = sip:a\n{key} = {text}\n")
                self.assertRegex(message, rf"^\[gateway pstn\] {key}: '{text}': must be ")

    def test_dead_codes(self) -> None:
        for text, expected in (("", set()), ("503", {503}), ("408  503\n  699", {408, 503, 699})):
            self.assertEqual(self.group(f"dead_codes = {text}").dead_codes, expected)
        for text in ("200", "5xx", "503,408", "700", "5030", "\u0665\u0660\u0663"):
            message = self.refused(f"[gateway pstn]\ntarget = sip:a\ndead_codes = {text}\n")
            self.assertEqual(
                message,
                f"[gateway pstn] dead_codes: '{text}': must be final status codes from 300 to 699, separated by spaces",
            )

    def test_unknown_key(self) -> None:
        self.assertEqual(
            self.refused("[gateway pstn]\nprobe = 1\n"),
            "[gateway pstn] probe: unknown key; the keys of [gateway pstn] are target, answer_timeout, "
            "probe_interval, probe_threshold, return_threshold, dead_codes",
        )

    def test_names_that_are_none(self) -> None:
        for section in ("gateway", "gateway ", "gateway a b", "gateway  a", "gateway a/b", "gateway \u0430"):
            self.assertEqual(
                self.refused(f"[{section}]\n"),
                f"[{section}]: must read [gateway NAME], its name of letters, digits, '-', '_' and '.'",
            )
        self.assertIn("unknown section", self.refused("[gateways]\n"))

    def test_twice(self) -> None:
        self.assertIn("the section is there twice", self.refused("[gateway a]\ntarget=sip:a\n[gateway a]\n"))


class CallsSectionTests(ConfigTestCase):
    """
    C{[calls]}; its numbers are with those of the other sections.
    """

    def test_record_file(self) -> None:
        self.assertEqual(self.read("calls", "record_file", ""), "")
        self.assertEqual(self.read("calls", "record_file", "log/calls of today.jsonl"), "log/calls of today.jsonl")
