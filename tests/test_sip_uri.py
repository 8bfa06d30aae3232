"""
URIs: what is one (RFC 3261 §19.1.1), which are the same (§19.1.4), RFC 5118 for IPv6.
"""

from __future__ import annotations

import gc
import tracemalloc

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import ParseError
from sipdmq.sip.uri import (
    OtherURI,
    SipURI,
    canonical_escapes,
    format_host,
    normalize_host,
    parse_host_port,
    parse_sip_uri,
    parse_uri,
    same_uri,
)


class ComponentTests(SynchronousTestCase):
    """
    RFC 3261 §19.1.1: "Its general form, in the case of a SIP URI, is:
    sip:user:password@host:port;uri-parameters?headers".
    """

    def test_all_components_are_found(self) -> None:
        uri = parse_sip_uri("SIPS:al%69ce;p=1?x:pa$$@Example.COM:5061;Transport=TCP;lr;X=%2f?Subject=a%20b&To=x")
        self.assertEqual(
            (uri.scheme, uri.user, uri.password, uri.host, uri.port, dict(uri.params), uri.headers),
            (
                "sips", "al%69ce;p=1?x", "pa$$", "example.com", 5061, {"transport": "TCP", "lr": "", "x": "%2f"},
                "Subject=a%20b&To=x",
            ),
        )  # fmt: skip

    def test_the_text_is_kept(self) -> None:
        for text in ("SIP:%61@B;X=y", "sip:a@[2001:DB8::0:1]:05060", "TEL:+1-201", "sip:null-%00-null@h"):
            self.assertEqual((parse_uri(text).text, str(parse_uri(text))), (text, text))

    def test_the_examples_of_19_1_3(self) -> None:
        for text, user, password, host, port, params, headers in (
            ("sip:alice@atlanta.com", "alice", None, "atlanta.com", None, {}, None),
            (
                "sip:alice:secretword@atlanta.com;transport=tcp",
                "alice", "secretword", "atlanta.com", None, {"transport": "tcp"}, None,
            ),
            (
                "sips:alice@atlanta.com?subject=project%20x&priority=urgent",
                "alice", None, "atlanta.com", None, {}, "subject=project%20x&priority=urgent",
            ),
            (
                "sip:+1-212-555-1212:1234@gateway.com;user=phone",
                "+1-212-555-1212", "1234", "gateway.com", None, {"user": "phone"}, None,
            ),
            ("sips:1212@gateway.com", "1212", None, "gateway.com", None, {}, None),
            ("sip:alice@192.0.2.4", "alice", None, "192.0.2.4", None, {}, None),
            (
                "sip:atlanta.com;method=REGISTER?to=alice%40atlanta.com",
                "", None, "atlanta.com", None, {"method": "REGISTER"}, "to=alice%40atlanta.com",
            ),
            ("sip:alice;day=tuesday@atlanta.com", "alice;day=tuesday", None, "atlanta.com", None, {}, None),
        ):  # fmt: skip
            uri = parse_sip_uri(text)
            self.assertEqual(
                (uri.user, uri.password, uri.host, uri.port, dict(uri.params), uri.headers),
                (user, password, host, port, params, headers),
            )

    def test_the_user_may_hold_every_character_of_the_rule(self) -> None:
        user = "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"
        uri = parse_sip_uri(f"sip:{user}:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com")
        self.assertEqual((uri.user, uri.password), (user, "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"))

    def test_parameter_names_are_read_without_their_escapes(self) -> None:
        """
        RFC 4475 §3.1.1.3: "The Contact URI has escaped characters in the URI parameters"; "The application using the
        message must treat the % HEX HEX expansions as equivalent to the character being encoded".
        """
        uri = parse_sip_uri("sip:cal%6Cer@h;%6C%72;n%61me=v%61lue%25%34%31")
        self.assertEqual(uri.param("lr"), "")
        self.assertEqual(canonical_escapes(uri.param("name") or ""), "value%2541")

    def test_what_breaks_the_grammar_is_refused(self) -> None:
        for text in (
            "", "sip", "sip:", ":a@b", "//a@b", "sip:@b", "sip:a@", "sip::p@b", "sip:a@b@c", "sip:a:b:c@d", "sip:a@b:",
            "sip:a@b:x", "sip:a@b:-1", "sip:a@b:65536", "sip:a@b:4294972356", "sip:a@b:5060:5060", "sip:a@b;",
            "sip:a@b;;x", "sip:a@b;=x", "sip:a@b?", "sip:a b@c", "sip:a@b c", "sip:a@b ;x", " sip:a@b", "sip:a@b ",
            "sip:a@b\n", "sip:a@b\t", "sip:a@b\x00", "sip:\x00@b", "sip:a%@b", "sip:a%4@b", "sip:a%4g@b", "sip:a@b;x=%",
            "sip:a@b;%zz", "sip:a@b?x=%f", "sip:a:%@b", "<sip:a@b>", "sip:<a@b>", "sip:a@b>", 'sip:"a"@b',
            "sip:a@b;x=<y>", 'sip:a@b;x="y"', "sip:\u00e9@b", "sip:\udce9@b", "sip:a@b\u00e9", "sip:a@b:\u0665060",
            "sip:a@b;x=\u00e9", "sip:a@.b", "sip:a@b..c", "sip:a@-b", "sip:a@b/c", "sip:a\\b@c", "sip:a@b;lr;LR",
            "sip:a@b;x=1;x=2", "*", "a@b", "sip:a@b,sip:c@d", "\u017fip:a@b", "s\u0131p:a@b",
        ):  # fmt: skip
            self.assertRaises(ParseError, parse_uri, text)


class OtherSchemeTests(SynchronousTestCase):
    def test_other_uris_are_carried(self) -> None:
        for text, scheme in (
            ("tel:+1-201-555-0123;phone-context=example.com", "tel"),
            ("TEL:7042", "tel"),
            ("urn:service:sos", "urn"),
            ("isbn:2983792873", "isbn"),
            ("name:John_Smith", "name"),
            ("soap.beep://192.0.2.103:3002", "soap.beep"),
            ("nobodyKnowsThisScheme:totallyopaquecontent", "nobodyknowsthisscheme"),
            ("http://www.example.com/?a=b#c", "http"),
        ):
            uri = parse_uri(text)
            self.assertIsInstance(uri, OtherURI)
            self.assertEqual((uri.scheme, uri.text), (scheme, text))

    def test_what_would_break_out_of_its_place_is_refused(self) -> None:
        for text in ("tel:", "tel:1 2", "tel:1>", "tel:<1", 'tel:"1"', "tel:1\r\n2", "tel:\x00", "1x:y", "\u00e9:y"):
            self.assertRaises(ParseError, parse_uri, text)

    def test_416_where_only_a_sip_uri_will_do(self) -> None:
        """
        RFC 3261 §8.2.2.1: "If the Request-URI uses a scheme not supported by the UAS, it SHOULD reject the request with
        a 416 (Unsupported URI Scheme) response."
        """
        self.assertEqual(self.assertRaises(ParseError, parse_sip_uri, "tel:+1201").status, 416)
        self.assertEqual(self.assertRaises(ParseError, parse_sip_uri, "sip:").status, 400)
        self.assertIsInstance(parse_sip_uri("sips:a@b"), SipURI)


class HostTests(SynchronousTestCase):
    def test_hosts_have_one_spelling(self) -> None:
        for given, expected in (
            ("Example.COM", "example.com"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:0DB8:0:0:0:0:0:1]", "2001:db8::1"),
            ("[2001:db8::10:5070]", "2001:db8::10:5070"),
            ("[2001:db8:::192.0.2.1]", "2001:db8::c000:201"),
            ("[2001:db8::192.0.2.1]", "2001:db8::c000:201"),
        ):
            self.assertEqual(normalize_host(given), expected)
        self.assertEqual(normalize_host("[::ffff:192.0.2.2]"), normalize_host("[::FFFF:C000:0202]"))

    def test_brackets_hold_an_ipv6_address(self) -> None:
        for text in (
            "sip:a@[192.0.2.1]", "sip:a@[1:2:3]", "sip:a@[1::2::3]", "sip:a@[12345::]", "sip:a@[::::]", "sip:a@[:]",
            "sip:a@[::1]]", "sip:a@[[::1]]", "sip:a@[::1", "sip:a@::1", "sip:2001:db8::10", "sip:a@[::1]x",
            "sip:a@[::256.0.0.1]", "sip:a@[fe80::1%25eth0]", "sip:a@[::1]:99999",
        ):  # fmt: skip
            self.assertRaises(ParseError, parse_uri, text)

    def test_host_and_port_are_read(self) -> None:
        for given, expected in (
            ("Host", ("host", None)),
            ("h:5060", ("h", 5060)),
            ("h : 05060", ("h", 5060)),
            ("[::1]:1", ("::1", 1)),
            ("[2001:db8::9:1]", ("2001:db8::9:1", None)),
        ):
            self.assertEqual(parse_host_port(given), expected)
        for given in ("", ":1", "h:", "h:x", "h:65536", "h 1", " h", "h ;", "h:1:2", "::1", "h\u00a0:1", "h:\u0661"):
            self.assertRaises(ParseError, parse_host_port, given)

    def test_format_host_is_the_inverse(self) -> None:
        for given, expected in (("h", "h"), ("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "[2001:db8::1]")):
            self.assertEqual(format_host(given), expected)
            self.assertEqual(normalize_host(expected), given)


class EscapeTests(SynchronousTestCase):
    """
    RFC 3261 §19.1.4: "Characters other than those in the "reserved" set (see RFC 2396) are equivalent to their
    ""%" HEX HEX" encoding."
    """

    def test_escapes_have_one_spelling(self) -> None:
        for given, expected in (
            ("alice", "alice"),
            ("%61lice", "alice"),
            ("%41%7a%30%2D%2e%5F%7E", "Az0-._~"),
            ("%21%2A%27%28%29", "!*'()"),
            ("%40%3a%2f", "%40%3A%2F"),
            ("%00", "%00"),
            ("%c3%a9%FF", "%C3%A9%FF"),
            ("%2561", "%2561"),
            ("%20", "%20"),
            ("%25%34%31", "%2541"),
            ("%", "%"),
            ("", ""),
        ):
            self.assertEqual(canonical_escapes(given), expected)
            self.assertEqual(canonical_escapes(expected), expected)

    def test_a_null_is_not_the_end_of_a_user(self) -> None:
        users = [parse_sip_uri(f"sip:{user}@h").canonical_user for user in ("null-%00-null", "null-", "%00", "%00%00")]
        self.assertEqual(users, ["null-%00-null", "null-", "%00", "%00%00"])


class SameUriTests(SynchronousTestCase):
    """
    RFC 3261 §19.1.4: "SIP and SIPS URIs are compared for equality according to the following rules".
    """

    def check(self, expected: bool, pairs: tuple[tuple[str, str], ...]) -> None:
        for one, other in pairs:
            self.assertEqual(same_uri(parse_uri(one), parse_uri(other)), expected, (one, other))
            self.assertEqual(same_uri(parse_uri(other), parse_uri(one)), expected, (other, one))

    def test_the_equal_examples(self) -> None:
        self.check(
            True,
            (
                ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
                ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
                ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
                ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
                (
                    "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
                    "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
                ),
                (
                    "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
                    "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
                ),
            ),
        )

    def test_the_unequal_examples(self) -> None:
        self.check(
            False,
            (
                ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
                ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
                ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
                ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
                ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
                ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
            ),
        )

    def test_equality_is_not_transitive(self) -> None:
        self.check(True, (("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),))
        self.check(True, (("sip:carol@chicago.com", "sip:carol@chicago.com;security=off"),))
        self.check(False, (("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),))

    def test_some_parameters_never_go_without_saying(self) -> None:
        """
        "A user, ttl, or method uri-parameter appearing in only one URI never matches, even if it contains the default
        value. A URI that includes an maddr parameter will not match a URI that contains no maddr parameter."
        """
        for param in ("user=ip", "ttl=1", "method=INVITE", "maddr=b", "transport=udp", "%74ransport=udp", "MADDR=b"):
            self.check(False, (("sip:a@b", f"sip:a@b;{param}"),))
            self.check(True, ((f"sip:a@b;x;{param}", f"sip:a@b;{param};y=1"),))

    def test_parameter_names_and_values_are_compared_without_case_and_escapes(self) -> None:
        self.check(
            True,
            (
                ("sip:a@b;X=Y", "sip:a@b;x=y"),
                ("sip:a@b;x=%79", "sip:a@b;x=y"),
                ("sip:a@b;n%61me=v", "sip:a@b;name=v"),
                ("sip:a@b;lr", "sip:a@b;lr"),
            ),
        )
        self.check(False, (("sip:a@b;n%61me=v", "sip:a@b;name=w"), ("sip:a@b;x=1", "sip:a@b;x=2")))

    def test_user_and_password_are_case_sensitive(self) -> None:
        self.check(False, (("sip:a@b", "sip:A@b"), ("sip:a:p@b", "sip:a:P@b"), ("sip:a:p@b", "sip:a@b")))
        self.check(False, (("sip:b", "sip:a@b"), ("sip:a@b", "sip:a:@b")))
        self.check(True, (("sip:a:%70@b", "sip:a:p@B"),))

    def test_a_reserved_character_is_not_its_escape(self) -> None:
        self.check(False, (("sip:a%3Bb@c", "sip:a;b@c"), ("sip:%00@c", "sip:%00%00@c"), ("sip:%2561@c", "sip:a@c")))
        self.check(True, (("sip:a%3bb@c", "sip:a%3Bb@c"),))

    def test_hosts_are_compared_as_addresses(self) -> None:
        self.check(True, (("sip:a@[2001:DB8:0::1]", "sip:a@[2001:db8::1]"), ("sip:a@B", "sip:a@b")))
        self.check(False, (("sip:a@[2001:db8::10]:5070", "sip:a@[2001:db8::10:5070]"), ("sips:a@b", "sip:a@b")))

    def test_headers_are_never_ignored(self) -> None:
        self.check(True, (("sip:a@b?X=%31", "sip:a@b?x=1"),))
        self.check(False, (("sip:a@b?x=1", "sip:a@b?x=2"), ("sip:a@b?x=1", "sip:a@b?x=1&y=2")))
        self.check(False, (("sip:a@b?x=1&x=2", "sip:a@b?x=1"),))

    def test_other_schemes_are_compared_as_text(self) -> None:
        self.check(True, (("tel:+1", "TEL:+1"),))
        self.check(False, (("tel:+1", "tel:+2"), ("tel:+1", "sip:+1@b"), ("tel:b", "sip:b")))


class MemoryTests(SynchronousTestCase):
    def test_what_is_kept_of_parsed_uris_is_bounded_in_bytes(self) -> None:
        """
        A stranger names thousands of URIs, each as long as a header line may be: they are not kept for him.
        """
        tail = "".join(f";{n:x}" for n in range(1700))
        tracemalloc.start()
        try:
            for user in range(100):
                parse_uri(f"sip:bulky{user}@b{tail}")
            gc.collect()
            kept = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        self.assertLess(kept, 100 * 4096)
