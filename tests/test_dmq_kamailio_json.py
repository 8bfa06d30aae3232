"""
JSON as Kamailio has it.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.kamailio_json import ABSURD, checked, read, read_number, read_string, write
from sipdmq.errors import DecodeError


class ReadTests(SynchronousTestCase):
    def test_a_body_is_a_c_string(self) -> None:
        self.assertEqual(read(b' \t\r\n{"a":1} and more'), {"a": 1})
        self.assertEqual(read(b'[]\0{"a":1}'), [])

    def test_all_numbers_are_whole(self) -> None:
        self.assertEqual(read(b"[1.5e2,-1.9,0]"), [150, -1, 0])
        absurd = [read(text) for text in (b"9" * 19, b"-" + b"9" * 5000, b"1e999", b"1e30", b"1." + b"0" * 99)]
        self.assertEqual(absurd, [ABSURD] * 5)

    def test_what_is_none(self) -> None:
        for body in (b"", b"{", b"NaN", b"[Infinity]", b"\0{}", b"[" * 100_000, b"{'a':1}"):
            self.assertRaises(DecodeError, read, body)

    def test_bytes_that_are_no_text_go_out_as_they_came(self) -> None:
        self.assertEqual(write(read(b'{"a":"\xff\xc3\xa4"}')), b'{"a":"\xff\xc3\xa4"}')

    @given(st.binary())
    def test_anything_is_read_or_refused(self, body: bytes) -> None:
        try:
            read(body)
        except DecodeError:
            pass


class ValueTests(SynchronousTestCase):
    def test_strings(self) -> None:
        document: dict[str, Any] = {"a": "x\0y", "byte": "\udcff", "long": "12345"}
        self.assertEqual([read_string(document, name, 4) for name in ("a", "byte", "none")], ["xy", "\udcff", ""])
        for value in ("12345", "a\r\nb", "\x7f", "\ud800", None, 1, ["a"]):
            self.assertRaises(DecodeError, read_string, {"a": value}, "a", 4)
        self.assertEqual(checked("a\nb\0", "a"), "a\nb", "in a body lines may end")
        self.assertRaises(DecodeError, checked, "\udc00\ud800", "a")

    def test_numbers(self) -> None:
        self.assertEqual([read_number({"a": 3}, name, 0, 3) for name in ("a", "none")], [3, 0])
        for value in (-1, 4, ABSURD, "3", True, None, [3]):
            self.assertRaises(DecodeError, read_number, {"a": value}, "a", 0, 3)
