"""
Status codes and phrases.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.sip.status import REASON_PHRASES, is_final, is_provisional, is_success, reason_phrase


class StatusTests(SynchronousTestCase):
    """
    RFC 3261 §8.1.3.2: "A UAC MUST treat any final response it does not recognize as being equivalent to the x00
    response code of that class".
    """

    def test_the_phrases_are_those_of_the_registry(self) -> None:
        for given, expected in (
            (100, "Trying"),
            (200, "OK"),
            (400, "Bad Request"),
            (405, "Method Not Allowed"),
            (416, "Unsupported URI Scheme"),
            (420, "Bad Extension"),
            (423, "Interval Too Brief"),
            (482, "Loop Detected"),
            (505, "Version Not Supported"),
            (513, "Message Too Large"),
        ):
            self.assertEqual(reason_phrase(given), expected)

    def test_an_unknown_code_has_a_phrase_without_line_break(self) -> None:
        for status in range(100, 700):
            self.assertTrue(reason_phrase(status))
            self.assertNotRegex(reason_phrase(status), "[\r\n]")
        self.assertEqual(reason_phrase(499), reason_phrase(400))
        self.assertEqual(reason_phrase(299), "OK")

    def test_every_code_is_provisional_or_final(self) -> None:
        for status, expected in (
            (100, (True, False, False)),
            (199, (True, False, False)),
            (200, (False, True, True)),
            (299, (False, True, True)),
            (300, (False, False, True)),
            (699, (False, False, True)),
        ):
            self.assertEqual((is_provisional(status), is_success(status), is_final(status)), expected)
        self.assertLessEqual(set(REASON_PHRASES), set(range(100, 700)))
