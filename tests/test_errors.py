"""
The exceptions: what they say, and to whom.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq import errors
from sipdmq.errors import ConfigError, ParseError, RequestRefused, SipDmqError, UnreachableError


class ErrorTests(SynchronousTestCase):
    def test_all_have_one_root(self) -> None:
        for name in errors.__all__:
            self.assertTrue(issubclass(getattr(errors, name), SipDmqError), name)

    def test_a_config_error_reads_like_a_compiler_s(self) -> None:
        for section, key, expected in (
            ("dmq", "ping", "a.ini: [dmq] ping: wrong"),
            ("dmq", "", "a.ini: [dmq]: wrong"),
            ("", "", "a.ini: wrong"),
        ):
            error = ConfigError("a.ini", section, key, "wrong")
            self.assertEqual(str(error), expected)
            self.assertEqual((error.path, error.section, error.key, error.reason), ("a.ini", section, key, "wrong"))

    def test_a_parse_error_is_answered_with_400_unless_it_says_otherwise(self) -> None:
        self.assertEqual(str(ParseError("Invalid Via")), "400 Invalid Via")
        error = ParseError("Version Not Supported", 505)
        self.assertEqual((error.status, error.reason, error.request), (505, "Version Not Supported", None))

    def test_a_refusal_carries_its_answer(self) -> None:
        refusal = RequestRefused(423, [("Min-Expires", "60")])
        self.assertEqual((refusal.status, refusal.headers, refusal.reason), (423, (("Min-Expires", "60"),), ""))
        self.assertIn("423", str(refusal))

    def test_who_cannot_be_reached(self) -> None:
        self.assertEqual((UnreachableError("no such name").reason, str(UnreachableError("x"))), ("no such name", "x"))
