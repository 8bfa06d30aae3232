"""
Names that must be unique or unguessable.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.sip.fields import parse_via
from sipdmq.sip.grammar import CALLID, TOKEN
from sipdmq.sip.ids import Ids


def seeded(seed: int) -> Callable[[int], bytes]:
    return Random(seed).randbytes


class IdsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ids = Ids(seeded(1))

    def test_no_name_comes_twice(self) -> None:
        for make in (self.ids.branch, self.ids.tag, self.ids.call_id, self.ids.ruid, self.ids.flow):
            self.assertEqual(len({make() for _ in range(1000)}), 1000)

    def test_two_processes_never_meet(self) -> None:
        other = Ids(seeded(2))
        for name in ("branch", "tag", "call_id", "ruid", "flow"):
            ours = {getattr(self.ids, name)() for _ in range(100)}
            self.assertFalse(ours & {getattr(other, name)() for _ in range(100)})
        self.assertNotEqual(self.ids.stateless_tag("a"), other.stateless_tag("a"))

    def test_names_fit_the_grammar(self) -> None:
        for make in (self.ids.branch, self.ids.tag, self.ids.ruid, self.ids.flow):
            self.assertTrue(TOKEN.fullmatch(make()))
        self.assertTrue(TOKEN.fullmatch(self.ids.stateless_tag("\udcff\x00")))
        self.assertTrue(CALLID.fullmatch(self.ids.call_id()))

    def test_a_branch_identifies_its_transaction(self) -> None:
        """
        RFC 3261 §8.1.1.7: "The branch ID inserted by an element compliant with this specification MUST always begin
        with the characters "z9hG4bK"."
        """
        branch = self.ids.branch()
        self.assertEqual(branch[:7], "z9hG4bK")
        self.assertTrue(parse_via(f"SIP/2.0/UDP h;branch={branch}").is_unique)

    def test_a_tag_has_32_random_bits_and_more(self) -> None:
        """
        RFC 3261 §19.3: "it MUST be globally unique and cryptographically random with at least 32 bits of randomness".
        """
        for tag in (self.ids.tag(), self.ids.stateless_tag("")):
            self.assertEqual(len(bytes.fromhex(tag)), 8)

    def test_a_stateless_tag_is_the_same_for_a_retransmission(self) -> None:
        self.assertEqual(self.ids.stateless_tag("a"), self.ids.stateless_tag("a"))
        self.assertNotEqual(self.ids.stateless_tag("a"), self.ids.stateless_tag("b"))

    def test_names_repeat_from_a_seed(self) -> None:
        self.assertEqual(Ids(seeded(1)).branch(), Ids(seeded(1)).branch())

    def test_a_loop_part_is_the_same_for_the_same_route_and_nobody_elses(self) -> None:
        """
        RFC 5393 §4.2.1.
        """
        part = self.ids.loop_part("a")
        self.assertEqual(part, self.ids.loop_part("a"))
        self.assertNotEqual(part, self.ids.loop_part("b"))
        self.assertNotEqual(part, Ids(seeded(9)).loop_part("a"))
        self.assertTrue(parse_via(f"SIP/2.0/UDP h;branch={self.ids.branch(part)}").branch.endswith(part))
