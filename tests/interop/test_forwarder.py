"""
What becomes of frames on their way, without a network.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.forwarder import VNET_HEADER, Dice, Faults, Switch

ONE, TWO, ALL = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02", b"\xff" * 6


def frame(to: bytes, sender: bytes, text: bytes = b"") -> bytes:
    return b"\0" * VNET_HEADER + to + sender + text


class SwitchTests(SynchronousTestCase):
    """
    Where frames go, and when.
    """

    def setUp(self) -> None:
        self.now = 0.0
        self.sent: list[tuple[str, bytes]] = []
        self.dice = Dice(seed=1)
        self.switch = Switch("abc", self.dice, lambda port, frame: self.sent.append((port, frame)), lambda: self.now)

    def take(self) -> list[str]:
        """
        The ports to which something was sent since.
        """
        ports, self.sent = [port for port, _ in self.sent], []
        return ports

    def test_a_stranger_is_looked_for_everywhere(self) -> None:
        self.switch.received("a", frame(TWO, ONE))
        self.assertEqual(self.take(), ["b", "c"])

    def test_who_was_heard_is_known(self) -> None:
        self.switch.received("c", frame(ALL, TWO))
        self.assertEqual(self.take(), ["a", "b"])
        self.switch.received("a", frame(TWO, ONE))
        self.assertEqual(self.take(), ["c"])
        self.switch.received("c", frame(ONE, TWO))
        self.assertEqual(self.take(), ["a"])

    def test_a_frame_does_not_go_back(self) -> None:
        self.switch.received("a", frame(ALL, TWO))
        self.take()
        self.switch.received("a", frame(TWO, ONE))
        self.assertEqual(self.take(), [])

    def test_late_frames_are_overtaken(self) -> None:
        self.switch.received("b", frame(ALL, TWO))
        self.take()
        self.dice.faults = Faults(reorder=1.0, behind=0.5)
        self.switch.received("a", first := frame(TWO, ONE, b"first"))
        self.dice.faults = Faults()
        self.switch.received("a", second := frame(TWO, ONE, b"second"))
        self.assertEqual(self.switch.send_due(), 0.5)
        self.now = 0.5
        self.assertIsNone(self.switch.send_due())
        self.assertEqual(self.sent, [("b", second), ("b", first)])


class DiceTests(SynchronousTestCase):
    """
    What is done to how many.
    """

    def throw(self, faults: Faults, seed: int = 1) -> list[tuple[float, ...]]:
        dice = Dice(seed)
        dice.faults = faults
        return [dice.throw("ab") for _ in range(1000)]

    def test_no_faults(self) -> None:
        self.assertEqual(set(self.throw(Faults())), {(0.0,)})

    def test_shares(self) -> None:
        fates = self.throw(Faults(loss=0.1, double=0.2))
        self.assertTrue(70 < fates.count(()) < 130)
        self.assertTrue(140 < fates.count((0.0, 0.0)) < 220)

    def test_a_seed_repeats_it(self) -> None:
        faults = Faults(loss=0.1, double=0.2, reorder=0.1, jitter=0.1)
        self.assertEqual(self.throw(faults), self.throw(faults))
        self.assertNotEqual(self.throw(faults), self.throw(faults, seed=2))

    def test_who_is_spared(self) -> None:
        self.assertEqual(set(self.throw(Faults(loss=1.0, spared=("b",)))), {(0.0,)})
