"""
Header field values: Via, name-addr, CSeq, tokens, q.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import ParseError
from sipdmq.sip.fields import (
    CSeq,
    parse_cseq,
    parse_name_addr,
    parse_q,
    parse_tokens,
    parse_via,
    parse_vias,
    q_text,
)

UNICODE_SPACES = ("\u00a0", "\u2003", "\u3000", "\x1c", "\x1f", "\x0b", "\x0c", "\x85")


class ViaTests(SynchronousTestCase):
    """
    RFC 3261 §25.1: "via-parm = sent-protocol LWS sent-by *( SEMI via-params )".
    """

    def test_values_are_read(self) -> None:
        for given, expected in (
            ("SIP/2.0/UDP h", ("UDP", "h", None, {})),
            ("SIP/2.0/tcp Host:5060;branch=z9hG4bKx", ("TCP", "host", 5060, {"branch": "z9hG4bKx"})),
            ("SIP/2.0/TLS-SCTP h", ("TLS-SCTP", "h", None, {})),
            ("SIP/2.0/UNKNOWN t4.example.com", ("UNKNOWN", "t4.example.com", None, {})),
            ("sip/2.0/UDP h", ("UDP", "h", None, {})),
            ("SIP  / 2.0  / TCP     h   ; branch  =   b", ("TCP", "h", None, {"branch": "b"})),
            ("SIP / 2.0\t/UDP\t h : 1 ;a", ("UDP", "h", 1, {"a": None})),
            ("SIP/2.0/UDP   h ", ("UDP", "h", None, {})),
            ("SIP/2.0/UDP [2001:DB8::9:1]:5;rport", ("UDP", "2001:db8::9:1", 5, {"rport": None})),
            ("SIP/2.0/UDP h;rport=65535", ("UDP", "h", None, {"rport": "65535"})),
            ("SIP/2.0/UDP h;received=192.0.2.1", ("UDP", "h", None, {"received": "192.0.2.1"})),
            ("SIP/2.0/UDP h;received=[2001:db8::9:255]", ("UDP", "h", None, {"received": "[2001:db8::9:255]"})),
            ("SIP/2.0/UDP h;received=2001:db8::9:255", ("UDP", "h", None, {"received": "2001:db8::9:255"})),
            ('SIP/2.0/UDP h;x="a;b,c"', ("UDP", "h", None, {"x": '"a;b,c"'})),
            ("SIP/2.0/UDP h;ttl=16;maddr=224.2.0.1", ("UDP", "h", None, {"ttl": "16", "maddr": "224.2.0.1"})),
        ):  # fmt: skip
            via = parse_via(given)
            self.assertEqual((via.transport, via.host, via.port, dict(via.params)), expected, given)

    def test_what_breaks_the_grammar_is_refused(self) -> None:
        for given in (
            "", "SIP", "SIP/2.0", "SIP/2.0/UDP", "SIP/2.0/UDP ", "SIP/2.0/UDP ;branch=b", "SIP/2.0 h", "SIP/2.0/ h",
            "SIP/7.0/UDP h", "SIP/2.00/UDP h", "HTTP/2.0/UDP h", "/2.0/UDP h", "SIP/2.0/U DP h", "SIP/2.0/UDP h h",
            "SIP/2.0/UDP h:", "SIP/2.0/UDP h:x", "SIP/2.0/UDP h:65536", "SIP/2.0/UDP h:4294972356", "SIP/2.0/UDP h;",
            "SIP/2.0/UDP 192.0.2.15;;,;,,", "SIP/2.0/UDP h;;b", "SIP/2.0/UDP h;branch=", "SIP/2.0/UDP h;a;a",
            "SIP/2.0/UDP 2001:db8::1", "SIP/2.0/UDP [192.0.2.1]", "SIP/2.0/UDP <h>", "SIP/2.0/UDP sip:h",
            "SIP/2.0/UDP h;rport=65536", "SIP/2.0/UDP h;rport=x", "SIP/2.0/UDP h;rport=-1", "SIP/2.0/UDP h;rport=",
            "SIP/2.0/UDP h;received=example.com", "SIP/2.0/UDP h;received", "\u017fIP/2.0/UDP h",
            "SIP/2.0/UDP\u00a0h", "SIP/2.0/\u00dcDP h", "SIP/2.0/UDP h\u00a0", "SIP/2.0/UDP \udcff",
        ):  # fmt: skip
            self.assertRaises(ParseError, parse_via, given)

    def test_a_branch_is_a_token(self) -> None:
        """
        RFC 3261 §25.1: "via-branch = "branch" EQUAL token".
        """
        for branch in ('"z9hG4bKa"', "z9hG4bK@", "z9hG4bK[", "z9hG4bK/:"):
            self.assertRaises(ParseError, parse_via, f"SIP/2.0/UDP h;branch={branch}")
        self.assertRaises(ParseError, parse_via, "SIP/2.0/UDP h;branch")

    def test_a_branch_of_the_cookie_alone_identifies_nothing(self) -> None:
        """
        RFC 4475 §3.2.1: "This message has a branch parameter that contains just the magic cookie".
        """
        for branch, expected in (
            (";branch=z9hG4bKa", True),
            (";branch=Z9HG4BKa", True),
            (";branch=z9hG4bK", False),
            (";branch=1", False),
            ("", False),
        ):
            self.assertEqual(parse_via(f"SIP/2.0/UDP h{branch}").is_unique, expected, branch)

    def test_sent_by_has_one_spelling(self) -> None:
        for given, expected in (("H", "h"), ("h : 05060", "h:5060"), ("[2001:DB8:0::1]:5060", "[2001:db8::1]:5060")):
            self.assertEqual(parse_via(f"SIP/2.0/UDP {given}").sent_by, expected)

    def test_several_lines_and_values_are_one_list(self) -> None:
        values = ["SIP/2.0/UDP a", 'SIP/2.0/UDP b;x=",", SIP/2.0/TCP c', "SIP/2.0/UDP d"]
        self.assertEqual([via.host for via in parse_vias(values)], ["a", "b", "c", "d"])
        self.assertEqual(parse_vias([]), [])
        for values in (["SIP/2.0/UDP a,"], [",SIP/2.0/UDP a"], ["SIP/2.0/UDP a", ""]):
            self.assertRaises(ParseError, parse_vias, values)


class NameAddrTests(SynchronousTestCase):
    """
    RFC 3261 §20: "If the URI contains a comma, question mark or semicolon, the URI MUST be enclosed in angle brackets".
    """

    def test_values_are_read(self) -> None:
        for given, expected in (
            ("sip:a@b", ("", "sip:a@b", {})),
            ("<sip:a@b>", ("", "sip:a@b", {})),
            ("sip:a@b;tag=x", ("", "sip:a@b", {"tag": "x"})),
            ("sip:a@b ;   tag    = x", ("", "sip:a@b", {"tag": "x"})),
            ("<sip:a@b;lr>;tag=x", ("", "sip:a@b;lr", {"tag": "x"})),
            ("<sip:a@b?x=y,z>", ("", "sip:a@b?x=y,z", {})),
            ("caller<sip:a@b>", ("caller", "sip:a@b", {})),
            ("A  B\t<sip:a@b> ; x", ("A  B", "sip:a@b", {"x": None})),
            ("token1~` token2'+_ token3*%!.- <sip:a@b>", ("token1~` token2'+_ token3*%!.-", "sip:a@b", {})),
            ('"" <sip:a@b>', ("", "sip:a@b", {})),
            ('"A, <B>;" <sip:a@b>', ("A, <B>;", "sip:a@b", {})),
            ('"J Rosenberg \\\\\\""       <sip:a@b>', ('J Rosenberg \\"', "sip:a@b", {})),
            ('"BEL:\\\x07 NUL:\\\x00 DEL:\\\x7f"<sip:a@b>', ("BEL:\x07 NUL:\x00 DEL:\x7f", "sip:a@b", {})),
            ('"\u0440\udcff" <sip:a@b>', ("\u0440\udcff", "sip:a@b", {})),
            ('"%Z%45" <sip:a@b>', ("%Z%45", "sip:a@b", {})),
            ('sip:a@b;x=";,?"', ("", "sip:a@b", {"x": '";,?"'})),
            ('<sip:a@b>;x="<>"', ("", "sip:a@b", {"x": '"<>"'})),
            ("<tel:+1;phone-context=b>;q=0.1", ("", "tel:+1;phone-context=b", {"q": "0.1"})),
        ):
            value = parse_name_addr(given)
            self.assertEqual((value.display, value.uri.text, dict(value.params)), expected, given)

    def test_what_breaks_the_grammar_is_refused(self) -> None:
        for given in (
            "", "*", "a", "<", ">", "<>", "<sip:a@b", "sip:a@b>", "<<sip:a@b>>", "<sip:a@b>>", "<sip:a@b> x",
            "<sip:a@b>x", "<sip:a@b>,<sip:c@d>", "< sip:a@b>", "<sip:a@b >", '"a" sip:a@b', '"a <sip:a@b>', '"a',
            '"a" b <sip:a@b>', 'a "b" <sip:a@b>', "a sip:a@b", "Bell, Alexander <sip:a@b>", "a:b <sip:a@b>",
            "\u00e9 <sip:a@b>", "\udcff <sip:a@b>", "sip:a@b?Route=x", "sip:a@b,sip:c@d", "sip:a@b;;;;",
            "<sip:a@b>;;;;", "<sip:a@b>;", "<sip:a@b>;tag=x;tag=y", "<sip:a@b>\u00a0;tag=x", "<sip:a@b>?x=y",
            "<sip:a@b>;x=<y>", "sip:a@b x", "\x0b<sip:a@b>",
        ):  # fmt: skip
            self.assertRaises(ParseError, parse_name_addr, given)

    def test_brackets_in_a_quoted_parameter_are_no_brackets(self) -> None:
        value = parse_name_addr('sip:a@b;x="<>"')
        self.assertEqual((value.display, value.uri.text, dict(value.params)), ("", "sip:a@b", {"x": '"<>"'}))

    def test_the_tag_is_found(self) -> None:
        for given, expected in (("<sip:a@b>;tag=x", "x"), ("sip:a@b;TAG=X", "X"), ("<sip:a@b;tag=x>", "")):
            self.assertEqual(parse_name_addr(given).tag, expected)

    def test_a_tag_is_a_token(self) -> None:
        """
        RFC 3261 §25.1: "tag-param = "tag" EQUAL token". A tag without a value would be given a second one by
        whoever answers.
        """
        for given in ("<sip:a@b>;tag", "sip:a@b;tag", '<sip:a@b>;tag="x"', "<sip:a@b>;tag=", "<sip:a@b>;tag=x@y"):
            self.assertRaises(ParseError, parse_name_addr, given)


class CSeqTests(SynchronousTestCase):
    """
    RFC 3261 §8.1.1.5: "The sequence number value MUST be expressible as a 32-bit unsigned integer and MUST be less
    than 2**31."
    """

    def test_values_are_read(self) -> None:
        for given, expected in (
            ("1 INVITE", CSeq(1, "INVITE")),
            ("0009 INVITE", CSeq(9, "INVITE")),
            ("0 x", CSeq(0, "x")),
            ("2147483647 RE%47IST%45R", CSeq(2147483647, "RE%47IST%45R")),
            ("1 \t Register", CSeq(1, "Register")),
            ("1\tINVITE", CSeq(1, "INVITE")),
        ):
            self.assertEqual(parse_cseq(given), expected)

    def test_what_breaks_the_grammar_is_refused(self) -> None:
        for given in (
            "", "1", "INVITE", "1INVITE", "INVITE 1", "1 INVITE INVITE", "1 IN/VITE", "-1 INVITE", "+1 INVITE",
            "1.0 INVITE", "\u0661 INVITE", "1 \u00e9", "1,INVITE", "1 INVITE,", "1 INVITE;x", " ",
        ):  # fmt: skip
            self.assertRaises(ParseError, parse_cseq, given)

    def test_a_number_out_of_range_is_never_wrapped(self) -> None:
        for number in (2**31, 2**32, 2**32 + 1, 2**64 + 1, 36893488147419103232, 10**5000):
            self.assertRaises(ParseError, parse_cseq, f"{'1' + '0' * 5000 if number > 2**99 else number} INVITE")

    def test_only_blanks_separate(self) -> None:
        for space in UNICODE_SPACES:
            self.assertRaises(ParseError, parse_cseq, f"1{space}INVITE")
            self.assertRaises(ParseError, parse_cseq, f"1 {space}INVITE")


class TokenTests(SynchronousTestCase):
    def test_all_lines_are_one_list(self) -> None:
        for given, expected in (
            ([], []),
            ([""], []),
            (["path"], ["path"]),
            (["path, outbound", "", "gruu"], ["path", "outbound", "gruu"]),
            (["a\t,b"], ["a", "b"]),
        ):
            self.assertEqual(parse_tokens(given), expected)

    def test_what_is_no_token_is_refused(self) -> None:
        for given in (["a b"], ["a,"], [","], ["a,,b"], ['"a"'], ["a;b"], ["<a>"], ["\u00e9"], ["a", "a/b"]):
            self.assertRaises(ParseError, parse_tokens, given)


class QTests(SynchronousTestCase):
    """
    RFC 3261 §25.1: "qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )".
    """

    def test_values_are_read_in_thousandths(self) -> None:
        for given, expected in (
            (None, -1), ("0", 0), ("0.", 0), ("0.0", 0), ("0.5", 500), ("0.33", 330), ("0.001", 1), ("1", 1000),
            ("1.", 1000), ("1.000", 1000),
        ):  # fmt: skip
            self.assertEqual(parse_q(given), expected)

    def test_what_breaks_the_grammar_is_refused(self) -> None:
        for given in ("", "2", "1.1", "1.001", "0.0001", ".5", "-0", "00", "0,5", "0.5 ", "1e0", "0.\u0665", '"1"'):
            self.assertRaises(ParseError, parse_q, given)

    def test_q_text_is_the_inverse(self) -> None:
        self.assertEqual([q_text(q) for q in (0, 1, 10, 330, 500, 1000)], ["0", "0.001", "0.01", "0.33", "0.5", "1"])
        for q in range(1001):
            self.assertEqual(parse_q(q_text(q)), q)
