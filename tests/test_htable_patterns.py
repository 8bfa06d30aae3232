"""
Regular expressions of shared tables: what they match, and that none of them can hang a node.
"""

from __future__ import annotations

import re
from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.htable.patterns import MAX_PATTERN, Pattern, PatternTooCostlyError

#: What Python's C{re} and POSIX mean alike.
ATOMS = st.sampled_from(["a", "b", "B", ".", "[ab]", "[^a]", "[a-c0]", "c", "\\.", "1", "[[:digit:]x]"])


def _expressions(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,1}", "{2,}"])).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        ),
    )


EXPRESSIONS = st.recursive(ATOMS, _expressions, max_leaves=8)
ANCHORED = st.tuples(st.sampled_from(["", "^"]), EXPRESSIONS, st.sampled_from(["", "$"])).map("".join)


class MatchTests(SynchronousTestCase):
    def assert_matches(self, pattern: str, matching: str, others: str) -> None:
        """
        @param matching: texts separated by spaces.
        """
        found = Pattern(pattern)
        for text in matching.split(" "):
            self.assertTrue(found.matches(text), (pattern, text))
        for text in others.split(" "):
            self.assertFalse(found.matches(text), (pattern, text))

    def test_anywhere_unless_it_is_anchored(self) -> None:
        self.assert_matches("rx", "rx arx rxa aRXa", "r x r.x")
        self.assert_matches("^rx.*", "rx rxa RX", "arx r")
        self.assert_matches("rx$", "rx arx", "rxa")
        self.assert_matches("^(a|b)+$", "a ab BA", "c abc ca")
        self.assert_matches("(^|,)x(,|$)", "x x,y a,x a,x,b", "ax xb a,xb")

    def test_repetitions(self) -> None:
        self.assert_matches("^a{2,3}$", "aa aaa", "a aaaa")
        self.assert_matches("^a{2}$", "aa", "a aaa")
        self.assert_matches("^a{2,}b?$", "aa aaaaa aab", "a ab")
        self.assert_matches("^a{,2}$", "a{,2}", "a aa")  # as it stands: no interval

    def test_brackets(self) -> None:
        self.assert_matches("^[0-9a-f:]+$", "10 ::1 FE80::1", "x 1.2")
        self.assert_matches("^[]x]$", "] x", "y [")
        self.assert_matches("^[^]x]$", "y [", "] x X")
        self.assert_matches("^[a-]$", "a -", "b")
        self.assert_matches("^[[:alpha:]_]+$", "ab_ A", "1 a1")

    def test_escapes(self) -> None:
        self.assert_matches("^10\\.0\\.0\\.[0-9]+$", "10.0.0.7", "10x0.0.7 10.0.0.")
        self.assert_matches("^\\w+$", "a_1", "a-b")
        self.assert_matches("\\$\\^", "a$^b", "$ ^")

    def test_letters_outside_ascii_have_one_case(self) -> None:
        self.assert_matches("ü", "aüb", "Ü u")
        self.assertTrue(Pattern(".").matches("ü"))
        self.assertTrue(Pattern("\udcff").matches("a\udcffb"))

    def test_the_empty_one_matches_all(self) -> None:
        for pattern in ("", "a*", "(|a)"):
            self.assertTrue(Pattern(pattern).matches("xyz"))

    @settings(max_examples=300, deadline=None)
    @given(ANCHORED, st.lists(st.text("abcBC01.x", max_size=8), min_size=1, max_size=5))
    def test_as_re_has_it(self, pattern: str, texts: list[str]) -> None:
        found = Pattern(pattern)
        expected = re.compile(pattern.replace("[[:digit:]x]", "[0-9x]"), re.IGNORECASE | re.DOTALL)
        for text in texts:
            self.assertEqual(found.matches(text), expected.search(text) is not None, (pattern, text))


class RefusedTests(SynchronousTestCase):
    def test_what_is_no_expression(self) -> None:
        for pattern in ("(", ")", "a)", "(a", "[", "[a", "[[:nix:]]", "*", "+a", "a|*", "\\", "a{3,2}", "a{256}",
                        "[b-a]", "(a)\\1", "\\bx", "[[.a.]]", "a*****"):  # fmt: skip
            with self.assertRaises(ValueError, msg=pattern):
                Pattern(pattern)

    def test_what_is_too_large(self) -> None:
        for pattern in ("a" * (MAX_PATTERN + 1), "(a{100}){100}", "((((a{9}){9}){9}){9}){9}", "(" * 100 + ")" * 100,
                        "(((){255}){255}){255}"):  # fmt: skip
            with self.assertRaises(ValueError, msg=pattern[:20]):
                Pattern(pattern)

    @settings(max_examples=300, deadline=None)
    @given(st.one_of(st.text(max_size=40), st.text("ab()[]{}*+?|^$\\.,0129-:", max_size=40)), st.text(max_size=40))
    def test_anything_is_a_pattern_or_refused(self, pattern: str, text: str) -> None:
        try:
            pattern.encode()
            text.encode()
        except UnicodeEncodeError:
            return
        try:
            Pattern(pattern).matches(text)
        except ValueError:
            pass


class CostTests(SynchronousTestCase):
    """
    What would take C{re} years.
    """

    def test_evil_expressions_take_no_time(self) -> None:
        began = process_time()
        for pattern in ("(a+)+$", "(a|aa)+$", "(a*)*b", "(.*a){20}", "(a?){30}a{30}", "(x+x+)+y",
                        "^(([a-z])+.)+[A-Z]$"):  # fmt: skip
            found = Pattern(pattern)
            for text in ("a" * 50_000 + "!", "x" * 50_000, "ab" * 25_000):
                found.matches(text)
        self.assertLess(process_time() - began, 5.0)

    def test_one_that_needs_a_state_for_each_byte_is_given_up(self) -> None:
        number, bits = 1, []
        for _ in range(50_000):  # a sequence that does not repeat
            number = (number * 1103515245 + 12345) % 2**31
            bits.append("ab"[number >> 16 & 1])
        found = Pattern("a.{100}b{90}c")
        began = process_time()
        with self.assertRaises(PatternTooCostlyError):
            found.matches("".join(bits))
        self.assertLess(process_time() - began, 3.0)
