"""
Header parameters and quoted strings.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import ParseError
from sipdmq.sip.params import format_params, parse_params, quote, unquote


class ParamTests(SynchronousTestCase):
    """
    RFC 3261 §7.3.1: "Even though an arbitrary number of parameter pairs may be attached to a header field value, any
    given parameter-name MUST NOT appear more than once."
    """

    def test_parameters_are_read(self) -> None:
        for given, expected in (
            ("", {}),
            (";lr", {"lr": None}),
            (";a=b", {"a": "b"}),
            (";A=B;C", {"a": "B", "c": None}),
            (";expires=60;q=0.5", {"expires": "60", "q": "0.5"}),
            ("; a = b ;\tc\t=\td", {"a": "b", "c": "d"}),
            (';a="b;c,d"', {"a": '"b;c,d"'}),
            (';a="<b>"', {"a": '"<b>"'}),
            (r';a="\"" ; b', {"a": r'"\""', "b": None}),
            (';a=""', {"a": '""'}),
            (";received=2001:db8::9:255", {"received": "2001:db8::9:255"}),
            (";received=[2001:db8::9:255]", {"received": "[2001:db8::9:255]"}),
            (';+sip.instance="<urn:uuid:0>";reg-id=1', {"+sip.instance": '"<urn:uuid:0>"', "reg-id": "1"}),
            (';x="\u0440\udcff"', {"x": '"\u0440\udcff"'}),
            (";fromParam''~+*_!.-%=1", {"fromparam''~+*_!.-%": "1"}),
        ):
            self.assertEqual(parse_params(given), expected, repr(given))

    def test_what_breaks_the_grammar_is_refused(self) -> None:
        for given in (
            "a", "a=b", "a ;b", ";", ";;", ";a;", ";;a", ";a;;b", "; ;a", ";=b", ";a=", ";a= ;b", ";a=b=c", ";a==b",
            ";a b", ";a=b c", ';a="b', ';a=b"c"', ';a="b"c', ';a="b" "c"', ';"a"=b', ";a=<b>", ";a=b,c", ";<a>",
            ";a=b?c", ";a=(b)", ";a=\u00e9", ";\u00e9", ";a=\udcff", ";a\x00", ";a=b\n", ';a="b\r\nc"', ";a\u00a0=b",
            ";a=\u00a0b", ';a="\\\u00e9"', ";a=b\x0b",
        ):  # fmt: skip
            self.assertRaises(ParseError, parse_params, given)

    def test_a_name_may_stand_there_once(self) -> None:
        for given in (";a;a", ";a=1;A=2", ";lr;b;LR=on", ';a="1" ; A = 1'):
            self.assertRaises(ParseError, parse_params, given)

    def test_format_is_the_inverse(self) -> None:
        for given in ("", ";lr", ";a=b;c", ';a="b;\\"c"'):
            self.assertEqual(format_params(parse_params(given)), given)


class QuoteTests(SynchronousTestCase):
    """
    RFC 3261 §25.1: "The backslash character ("\\") MAY be used as a single-character quoting mechanism only within
    quoted-string".
    """

    def test_quoted_strings_say_what_is_between_their_quotes(self) -> None:
        for given, expected in (
            ('""', ""),
            ('"a b"', "a b"),
            (r'"\"\\"', '"\\'),
            (r'"\a\\b"', "a\\b"),
            (r'"\\\""', '\\"'),
            ('"BEL:\\\x07 NUL:\\\x00 DEL:\\\x7f"', "BEL:\x07 NUL:\x00 DEL:\x7f"),
            ("token", "token"),
            ("", ""),
            ('"', '"'),
        ):
            self.assertEqual(unquote(given), expected, repr(given))

    def test_unquote_is_the_inverse_of_quote(self) -> None:
        for text in ("", "a", '"', "\\", '\\"', '"\\"\\\\', "\u0440\udcff \t", "\x00"):
            self.assertEqual(unquote(quote(text)), text)
            self.assertEqual(parse_params(f";a={quote(text)}"), {"a": quote(text)})
