"""
The header fields of one message: their order, their spelling, their values.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import ParseError
from sipdmq.sip.headers import Headers, header_key, unfold

LINES = (
    "v: SIP/2.0/UDP a",
    "X-One : 1",
    "Via: SIP/2.0/UDP b,\r\n\tSIP/2.0/UDP c",
    "subject:",
    "VIA:SIP/2.0/UDP d  ",
)


def make_headers(lines: tuple[str, ...] = LINES) -> Headers:
    headers = Headers()
    for line in lines:
        headers.add_line(header_key(line.partition(":")[0]), line)
    return headers


class KeyTests(SynchronousTestCase):
    """
    RFC 3261 §7.3.1: "When comparing header fields, field names are always case-insensitive."; §7.3.3: "An
    implementation MUST accept both the long and short forms of each header name."
    """

    def test_a_name_in_any_spelling_has_one_key(self) -> None:
        for given, expected in (
            ("Via", "via"), ("VIA", "via"), ("v", "via"), ("V", "via"), ("Via \t", "via"), ("v ", "via"),
            ("Call-ID", "call-id"), ("CALL-id", "call-id"), ("MaX-fOrWaRdS", "max-forwards"),
            ("X-Unknown", "x-unknown"), ("extensionHeader-!.%*+_`'~", "extensionheader-!.%*+_`'~"),
            ("C%6Fntact", "c%6fntact"), ("z", "z"),
        ):  # fmt: skip
            self.assertEqual(header_key(given), expected)

    def test_the_compact_forms_of_the_registry(self) -> None:
        for compact, expected in zip(
            "abcdefijklmnorstuvxy",
            "accept-contact referred-by content-type request-disposition content-encoding from call-id reject-contact "
            "supported content-length contact identity-info event refer-to subject to allow-events via "
            "session-expires identity".split(),
        ):
            self.assertEqual((header_key(compact), header_key(compact.upper())), (expected, expected))

    def test_what_is_no_token_is_refused(self) -> None:
        for given in (
            "",
            " ",
            " Via",
            "V ia",
            "Via\r\n ",
            "Via\u00a0",
            "V\u00eda",
            "Via,",
            "\udcff",
            "\u212a",
            "a\x00",
        ):
            self.assertRaises(ParseError, header_key, given)


class UnfoldTests(SynchronousTestCase):
    """
    RFC 3261 §7.3.1: "The line break and the whitespace at the beginning of the next line are treated as a single SP
    character."
    """

    def test_a_fold_is_one_space(self) -> None:
        for given, expected in (
            ("a", "a"),
            ("a\r\n b", "a b"),
            ("a\r\n\t  b", "a b"),
            ("a\r\n \r\n b", "a b"),
            ("\r\n a", " a"),
            ("\u0440\r\n \udcff", "\u0440 \udcff"),
        ):
            self.assertEqual(" ".join(unfold(given).split(" ")).replace("  ", " "), expected, repr(given))

    def test_blanks_without_a_fold_stay(self) -> None:
        self.assertEqual(unfold("a  \t b"), "a  \t b")


class HeadersTests(SynchronousTestCase):
    """
    RFC 3261 §7.3.1: "The relative order of header field rows with the same field-name is important."
    """

    def setUp(self) -> None:
        self.headers = make_headers()

    def test_lines_stay_as_they_came(self) -> None:
        self.assertEqual(self.headers.lines(), list(LINES))
        self.assertEqual([key for key, _ in self.headers], ["via", "x-one", "via", "subject", "via"])
        self.assertEqual(len(self.headers), 5)
        self.headers.get("via")
        self.headers.get_all("via")
        self.assertEqual(self.headers.lines(), list(LINES))

    def test_values_are_looked_up_unfolded_and_without_blanks_around(self) -> None:
        self.assertEqual(self.headers.get("via"), "SIP/2.0/UDP a")
        self.assertEqual(
            self.headers.get_all("via"), ["SIP/2.0/UDP a", "SIP/2.0/UDP b, SIP/2.0/UDP c", "SIP/2.0/UDP d"]
        )
        self.assertEqual((self.headers.get("x-one"), self.headers.get("subject")), ("1", ""))
        self.assertEqual((self.headers.get("to"), self.headers.get_all("to")), (None, []))

    def test_what_is_there_is_known(self) -> None:
        self.assertIn("via", self.headers)
        self.assertIn("subject", self.headers)
        self.assertNotIn("to", self.headers)
        self.assertEqual([self.headers.is_repeated(key) for key in ("via", "subject", "to")], [True, False, False])

    def test_lines_of_one_field_are_in_order(self) -> None:
        self.assertEqual(self.headers.lines_of("via"), [LINES[0], LINES[2], LINES[4]])
        self.assertEqual(self.headers.lines_of("to"), [])

    def test_only_blanks_are_taken_off_a_value(self) -> None:
        headers = make_headers(("X-A: \u00a0a\u2003\t", "X-B:\x0b"))
        self.assertEqual((headers.get("x-a"), headers.get("x-b")), ("\u00a0a\u2003", "\x0b"))

    def test_add_appends(self) -> None:
        self.headers.add("To", "<sip:a@b>")
        self.headers.add("v", "SIP/2.0/UDP e")
        self.assertEqual(self.headers.lines()[5:], ["To: <sip:a@b>", "v: SIP/2.0/UDP e"])
        self.assertEqual((self.headers.get("to"), self.headers.get_all("via")[-1]), ("<sip:a@b>", "SIP/2.0/UDP e"))

    def test_add_line_appends_a_line_of_another_message(self) -> None:
        self.headers.add_line("to", "t:<sip:a@b>")
        self.headers.add_line("via", "v:x")
        self.assertEqual(self.headers.lines(), [*LINES, "t:<sip:a@b>", "v:x"])
        self.assertEqual(self.headers.get_all("via")[-1], "x")

    def test_prepend_goes_before_all_of_its_name(self) -> None:
        self.headers.prepend("Subject", "s")
        self.assertEqual(self.headers.lines(), [*LINES[:3], "Subject: s", *LINES[3:]])
        self.headers.prepend("Via", "top")
        self.assertEqual((self.headers.lines()[0], self.headers.get("via")), ("Via: top", "top"))
        self.headers.prepend("Route", "<sip:a@b>")
        self.assertEqual(self.headers.lines()[0], "Route: <sip:a@b>")

    def test_replace_leaves_one_line_in_the_place_of_the_first(self) -> None:
        self.headers.replace("Via", "x")
        self.assertEqual(self.headers.lines(), ["Via: x", LINES[1], LINES[3]])
        self.assertEqual((self.headers.get_all("via"), self.headers.is_repeated("via")), (["x"], False))
        self.headers.replace("To", "y")
        self.assertEqual((self.headers.lines()[-1], self.headers.get("to")), ("To: y", "y"))

    def test_replace_first_leaves_the_others(self) -> None:
        self.headers.get("via")
        self.headers.replace_first("Via", "x")
        self.assertEqual(self.headers.lines(), ["Via: x", *LINES[1:]])
        self.assertEqual((self.headers.get("via"), len(self.headers.get_all("via"))), ("x", 3))
        self.assertRaises(ValueError, self.headers.replace_first, "To", "x")

    def test_remove_takes_all(self) -> None:
        self.headers.get("via")
        self.headers.remove("via")
        self.headers.remove("nothing")
        self.assertEqual(self.headers.lines(), [LINES[1], LINES[3]])
        self.assertNotIn("via", self.headers)

    def test_remove_first_leaves_the_others(self) -> None:
        count = self.headers.lines().count
        vias = self.headers.get_all("via")
        self.headers.remove_first("via")
        self.assertEqual(self.headers.get_all("via"), vias[1:])
        self.assertEqual(self.headers.get("via"), vias[1])
        for _ in vias[1:]:
            self.headers.remove_first("via")
        self.assertNotIn("via", self.headers)
        self.assertEqual(count(LINES[1]), 1)
        self.assertRaises(ValueError, self.headers.remove_first, "via")

    def test_a_copy_is_independent(self) -> None:
        copy = self.headers.copy()
        copy.replace("Via", "x")
        self.headers.add("To", "y")
        self.assertEqual(self.headers.lines(), [*LINES, "To: y"])
        self.assertEqual(copy.lines(), ["Via: x", LINES[1], LINES[3]])

    def test_a_value_cannot_begin_a_field_of_its_own(self) -> None:
        for value in ("a\r\nX: b", "a\nb", "a\rb", "\r\n"):
            for change in (self.headers.add, self.headers.prepend, self.headers.replace, self.headers.replace_first):
                self.assertRaises(ValueError, change, "Via", value)
        for name in ("X: a\r\nY", "X:", "", "X Y"):
            self.assertRaises(ParseError, self.headers.add, name, "a")
        self.assertEqual(self.headers.lines(), list(LINES))
