"""
The smallest pieces of RFC 3261 §25.1: tokens, quoted strings, numbers, lists.
"""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import ParseError
from sipdmq.sip.fields import parse_cseq, parse_name_addr, parse_tokens, parse_via
from sipdmq.sip.grammar import (
    CALLID,
    FOLD,
    HOST,
    MAX_CSEQ,
    MAX_DELTA_SECONDS,
    QUOTED_STRING,
    TOKEN,
    parse_number,
    split_commas,
    split_semicolons,
)
from sipdmq.sip.params import parse_params, unquote
from sipdmq.sip.uri import canonical_escapes, parse_host_port, parse_uri

# Whole values that str.isdigit, str.strip or \\s would let through.
UNICODE_DIGITS = ("\u0663", "\u00b2", "\uff11", "\u0967", "1\u0663")
UNICODE_SPACES = ("\u00a0", "\u2003", "\u3000", "\x1c", "\x0b", "\x0c", "\x85")


class PatternTests(SynchronousTestCase):
    """
    "token = 1*(alphanum / "-" / "." / "!" / "%" / "*" / "_" / "+" / "`" / "'" / "~" )", and its neighbours.
    """

    def test_a_token_is_of_the_characters_of_the_rule(self) -> None:
        allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~")
        for character in map(chr, range(0x180)):
            self.assertEqual(TOKEN.fullmatch(character) is not None, character in allowed, repr(character))
        self.assertIsNone(TOKEN.fullmatch(""))
        self.assertIsNone(TOKEN.fullmatch("a\n"))

    def test_a_quoted_string_ends_at_the_first_quote_that_is_not_escaped(self) -> None:
        for given, expected in (
            ('""', '""'),
            ('"a" b"', '"a"'),
            (r'"a\"b" c', r'"a\"b"'),
            (r'"a\\" b"', r'"a\\"'),
            ('"\\\x00\\\x07\\\x7f"', '"\\\x00\\\x07\\\x7f"'),
            ('"\u0434\udcff"', '"\u0434\udcff"'),
            ('"', None),
            ('"a', None),
            ('"a\\"', None),
            ('"a\r\nb"', None),
            ('"a\\\rb"', None),
            ("a", None),
        ):
            match = QUOTED_STRING.match(given)
            self.assertEqual(match and match.group(), expected, repr(given))

    def test_a_fold_is_a_line_break_with_blanks_behind_and_nothing_else(self) -> None:
        for given, expected in (
            (" ", False),
            ("\t \t", False),
            ("\r\n ", True),
            ("\r\n\t ", True),
            ("\r\n", False),
            ("\n ", False),
            ("", False),
        ):
            self.assertEqual(FOLD.fullmatch(given) is not None, expected, repr(given))
        for given in UNICODE_SPACES:
            self.assertIsNone(FOLD.search(given), repr(given))

    def test_a_call_id_is_a_word_or_two(self) -> None:
        for given, expected in (
            ("a", True),
            ("a@b", True),
            ("intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{", True),
            ("", False),
            ("@", False),
            ("a@", False),
            ("@a", False),
            ("a@b@c", False),
            ("a b", False),
            ("a,b", False),
            ("a;b", False),
            ("a\n", False),
            ("\u00e9", False),
        ):
            self.assertEqual(CALLID.fullmatch(given) is not None, expected, repr(given))

    def test_a_host_is_a_name_or_an_address(self) -> None:
        for given, expected in (
            ("example.com", True),
            ("example.com.", True),
            ("EXAMPLE", True),
            ("a-b.c_d", True),
            ("_sip._udp.example", True),
            ("192.0.2.1", True),
            ("[2001:db8::1]", True),
            ("[::ffff:192.0.2.1]", True),
            ("", False),
            (".", False),
            (".a", False),
            ("a..b", False),
            ("-a", False),
            ("a b", False),
            ("a\n", False),
            ("2001:db8::1", False),
            ("[::1", False),
            ("[]", False),
            ("[fe80::1%eth0]", False),
            ("b\u00fccher.example", False),
        ):
            self.assertEqual(HOST.fullmatch(given) is not None, expected, repr(given))


class NumberTests(SynchronousTestCase):
    """
    Numbers are digits, within their limit, and never wrapped.
    """

    def test_digits_are_read(self) -> None:
        for given, limit, expected in (
            ("0", 70, 0),
            ("70", 70, 70),
            ("0068", 255, 68),
            ("00000000000000000000000000000070", 70, 70),
            ("0" * 10000 + "7", 70, 7),
            ("4294967295", MAX_DELTA_SECONDS, 2**32 - 1),
            ("2147483647", MAX_CSEQ, 2**31 - 1),
        ):
            self.assertEqual(parse_number(given, limit, "Number"), expected, given[:40])

    def test_what_is_too_great_is_refused(self) -> None:
        for given, limit in (
            ("71", 70),
            ("256", 255),
            ("300", 255),
            ("2147483648", MAX_CSEQ),
            ("4294967296", MAX_DELTA_SECONDS),
            ("4294967366", MAX_DELTA_SECONDS),
            ("18446744073709551616", MAX_DELTA_SECONDS),
            ("36893488147419103232", MAX_CSEQ),
            ("1" + "0" * 10000, MAX_DELTA_SECONDS),
        ):
            self.assertRaises(ParseError, parse_number, given, limit, "Number")

    def test_what_is_no_digit_is_refused(self) -> None:
        for given in ("", "-1", "+1", " 1", "1 ", "1\n", "1_0", "0x1", "1.0", "1e3", "a", *UNICODE_DIGITS):
            self.assertRaises(ParseError, parse_number, given, 1000, "Number")
            if given:
                self.assertRaises(ParseError, parse_number, "0" * 20 + given, 1000, "Number")
                self.assertRaises(ParseError, parse_number, given + "0" * 20, 1000, "Number")
        self.assertRaises(ParseError, parse_number, "\u0660" * 20, 1000, "Number")

    def test_the_error_names_the_field(self) -> None:
        error = self.assertRaises(ParseError, parse_number, "x", 9, "Max-Forwards")
        self.assertEqual((error.reason, error.status, error.request), ("Invalid Max-Forwards", 400, None))


class ListTests(SynchronousTestCase):
    """
    RFC 3261 §7.3.1: "multiple header field rows with the same field-name MAY be present ... if and only if the entire
    field-value for that header field is defined as a comma-separated list".
    """

    def test_separators_count_outside_of_quotes_and_brackets(self) -> None:
        for split, separator in ((split_commas, ","), (split_semicolons, ";")):
            for given, expected in (
                ("a", ["a"]),
                (" a\t,\tb ", ["a", "b"]),
                ('"a,b" <sip:x@y>,c', ['"a,b" <sip:x@y>', "c"]),
                (r'"a\",b",c', [r'"a\",b"', "c"]),
                (r'"a\\",c', [r'"a\\"', "c"]),
                ("<sip:a,b@c>,<sip:d@e>", ["<sip:a,b@c>", "<sip:d@e>"]),
                ('<sip:a,"@c>,d', ['<sip:a,"@c>', "d"]),
                ("a,b,c", ["a", "b", "c"]),
            ):
                self.assertEqual(split(given.replace(",", separator)), [x.replace(",", separator) for x in expected])

    def test_only_blanks_are_taken_off(self) -> None:
        for space in UNICODE_SPACES:
            self.assertEqual(split_commas(f"a{space},{space}b"), [f"a{space}", f"{space}b"])

    def test_an_open_quote_or_bracket_is_refused(self) -> None:
        for given in ('"', 'a,"', 'a,"b', r'"a\"', "<", "<sip:a@b,c", "a,<b", '"a" "b'):
            self.assertRaises(ParseError, split_semicolons, given)
            if "," in given:
                self.assertRaises(ParseError, split_commas, given)

    def test_a_list_has_no_empty_value_between_commas(self) -> None:
        for given in ("", " ", ",", "a,", ",a", "a,,b", "a, ,b"):
            self.assertRaises(ParseError, split_commas, given)

    def test_pieces_between_semicolons_may_be_empty(self) -> None:
        for given, expected in (("", [""]), (";", ["", ""]), (";a;;b", ["", "a", "", "b"])):
            self.assertEqual(split_semicolons(given), expected)


class NastyInputTests(SynchronousTestCase):
    """
    60 kB of one nasty piece take as long as 60 kB of anything. The limit is a hundred times what is needed, so it tells
    "grows with the square" from "grows", and nothing about speed.
    """

    def test_no_pattern_backtracks_over_long_input(self) -> None:
        readers: tuple[Callable[[str], object], ...] = (
            parse_uri, parse_host_port, parse_via, parse_name_addr, parse_cseq, parse_params, split_commas,
            split_semicolons, unquote, canonical_escapes, CALLID.fullmatch, QUOTED_STRING.match, HOST.fullmatch,
            lambda text: FOLD.sub(" ", text), lambda text: parse_tokens([text]), lambda text: parse_number(text, 9, ""),
        )  # fmt: skip
        pieces = ('"', '"\\', "\\", ",", "<", "<>", ";", ";a=", ":", "@", "a:", "%41", " ", "a ", "\r\n ")
        for piece in pieces:
            for begin in ("", "sip:", "sip:a@b", '"', "<", "SIP/2.0/UDP h;a="):
                text = begin + piece * (60000 // len(piece)) + "\x00"
                for reader in readers:
                    start = process_time()
                    try:
                        reader(text)
                    except ParseError:
                        pass
                    self.assertLess(process_time() - start, 2, (reader, begin, piece))
