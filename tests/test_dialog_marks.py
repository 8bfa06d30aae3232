"""
What a policy may say of a call.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dialog.marks import Marks
from sipdmq.dmq.dialog_json import DialogTold, decode, encode
from sipdmq.interfaces.dialogs import MAX_MARKS, Leg, Profile

CALL = ("call1", "t1")


class MarksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.marks = Marks()

    def test_taken_once(self) -> None:
        self.marks.add_profile(CALL, Profile("caller", "alice", "p1"))
        self.marks.set_variable(CALL, "b", "1")
        self.marks.set_variable(CALL, "a", "2")
        self.marks.set_variable(CALL, "b", "3")
        self.assertEqual(self.marks.take(CALL), ((Profile("caller", "alice", "p1"),), (("a", "2"), ("b", "3"))))
        self.assertIsNone(self.marks.take(CALL))

    def test_as_many_as_another_node_takes(self) -> None:
        for number in range(MAX_MARKS):
            self.marks.add_profile(CALL, Profile("caller", f"v{number}", f"p{number}"))
            self.marks.set_variable(CALL, f"v{number:02}", "x" * 50)
        self.assertRaises(ValueError, self.marks.add_profile, CALL, Profile("caller", "one more", "p"))
        self.assertRaises(ValueError, self.marks.set_variable, CALL, "one more", "")
        self.marks.set_variable(CALL, "v00", "one that is there")
        taken = self.marks.take(CALL)
        assert taken is not None
        profiles, variables = taken
        text = "x" * 1000
        leg = Leg("t1", "1", text, text)
        told = DialogTold(1, 2, 4, True, text, text, text, text, leg, leg, 1, 2, 3, variables, profiles)
        body = encode(told)
        self.assertEqual(decode(body), told)
        self.assertLess(len(body), 32_000, "what a Kamailio 6 reads")

    def test_not_more_than_goes_into_a_message(self) -> None:
        self.marks.set_variable(CALL, "a", "x" * 8000)
        self.assertRaises(ValueError, self.marks.set_variable, CALL, "b", "\u20ac" * 64)
        self.assertRaises(ValueError, self.marks.add_profile, CALL, Profile("caller", "x" * 192, "p"))
        self.marks.set_variable(CALL, "a", "short")
        self.marks.add_profile(CALL, Profile("caller", "x" * 192, "p"))
        taken = self.marks.take(CALL)
        assert taken is not None
        self.assertEqual((len(taken[0]), taken[1]), (1, (("a", "short"),)))

    def test_who_is_never_relayed_takes_no_room(self) -> None:
        for number in range(10_001):
            self.marks.set_variable((f"call{number}", "t"), "a", "b")
        self.assertEqual(len(self.marks), 10_000)
        self.assertIsNone(self.marks.take(("call0", "t")))
