"""
Digest authentication as text and hashes: the examples of the RFCs, what phones write, and what nobody should.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import ParseError
from sipdmq.sip import digest
from sipdmq.sip.digest import (
    ALGORITHMS,
    NO_HA1,
    Credentials,
    algorithm_name,
    compute_ha1,
    compute_response,
    format_challenge,
    is_ha1,
    parse_credentials,
)
from tests.digest_client import DigestClient, read_challenge

# RFC 7616 §3.9.1, put on one line
MUFASA = (
    'Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm={algorithm}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, '
    'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, response="{response}", '
    'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)
BOB = (
    'Digest username="bob", realm="biloxi.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", uri="sip:bob@biloxi.com", '
    'qop=auth, nc=00000001, cnonce="0a4f113b", response="6629fae49393a05397450978507c4ef1", '
    'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
)
"""RFC 3261 §20.7 and §22.4; the response there was copied from RFC 2617 and belongs to another request."""


class ExampleTests(SynchronousTestCase):
    """
    The examples that are printed in the RFCs.
    """

    def assert_response(self, value: str, method: str, username: str, password: str, expected: str) -> None:
        credentials = parse_credentials(value)
        self.assertEqual((credentials.fault, credentials.username), ("", username))
        algorithm = credentials.algorithm
        ha1 = compute_ha1(algorithm, username, credentials.realm, password)
        self.assertEqual(compute_response(algorithm, ha1, credentials, method), expected)

    def test_rfc_7616_md5(self) -> None:
        response = "8ca523f5e9506fed4657c9700eebdbec"
        self.assert_response(
            MUFASA.format(algorithm="MD5", response=response), "GET", "Mufasa", "Circle of Life", response
        )

    def test_rfc_7616_sha_256(self) -> None:
        response = "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
        self.assert_response(
            MUFASA.format(algorithm="SHA-256", response=response), "GET", "Mufasa", "Circle of Life", response
        )

    def test_rfc_2617(self) -> None:
        value = (
            'Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
            'uri="/dir/index.html", qop=auth, nc=00000001, cnonce="0a4f113b", '
            'response="6629fae49393a05397450978507c4ef1", opaque="5ccc069c403ebaf9f0171e9517f40e41"'
        )
        self.assert_response(value, "GET", "Mufasa", "Circle Of Life", "6629fae49393a05397450978507c4ef1")

    def test_sip_invite(self) -> None:
        """
        draft-smith-sipping-auth-examples §3.3: the request of RFC 3261 with the response that belongs to it.
        """
        self.assert_response(BOB, "INVITE", "bob", "zanzibar", "89eb0059246c02b2f6ee02c7961d5ea3")

    def test_rfc_7616_sha_512_256(self) -> None:
        """
        RFC 7616 §3.9.2 as its erratum 4897 (reported) has it, what is printed being of another hash; and computed here.
        """

        def digest(text: str) -> str:
            return hashlib.new("sha512_256", text.encode()).hexdigest()

        value = (
            'Digest username="Jäsøn Doe", realm="api@example.org", uri="/doe.json", algorithm=SHA-512-256, '
            'nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", nc=00000001, '
            'cnonce="NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v", qop=auth, response="00"'
        )
        ha1 = digest("Jäsøn Doe:api@example.org:Secret, or not?")
        nonce = "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK"
        middle = f"{nonce}:00000001:NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v:auth"
        expected = "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"
        self.assertEqual(digest(f"{ha1}:{middle}:{digest('GET:/doe.json')}"), expected)
        self.assert_response(value, "GET", "Jäsøn Doe", "Secret, or not?", expected)


class ClientTests(SynchronousTestCase):
    """
    The client of the tests, which was written apart, computes the same.
    """

    def test_each_algorithm(self) -> None:
        for algorithm in ALGORITHMS:
            client = DigestClient("alice", "päss:word", ALGORITHMS)
            client.take([format_challenge("example.org", "n1", algorithm)])
            for uri in ("sip:example.org", "sip:" + "b" * 200 + "@example.org"):
                credentials = parse_credentials(client.credentials("REGISTER", uri))
                ha1 = compute_ha1(algorithm, "alice", "example.org", "päss:word")
                expected = compute_response(algorithm, ha1, credentials, "REGISTER")
                self.assertEqual((credentials.response, credentials.algorithm), (expected, algorithm))
                self.assertNotEqual(compute_response(algorithm, ha1, credentials, "INVITE"), expected)


class CredentialsTests(SynchronousTestCase):
    """
    RFC 3261 §25.1: C{credentials = ("Digest" LWS digest-response) / other-response}.
    """

    def changed(self, old: str, new: str) -> Credentials:
        self.assertIn(old, BOB)
        return parse_credentials(BOB.replace(old, new))

    def test_as_the_rfc_writes_it(self) -> None:
        self.assertEqual(
            parse_credentials(BOB),
            Credentials(
                "bob", "biloxi.com", "dcd98b7102dd2f0e8b11d0f600bfb0c093", "sip:bob@biloxi.com",
                "6629fae49393a05397450978507c4ef1", "MD5", "0a4f113b", "auth", "00000001", 1, "",
            ),
        )  # fmt: skip

    def test_other_ways_to_write_the_same(self) -> None:
        expected = parse_credentials(BOB)
        for old, new in (
            ("Digest", "DIGEST"), ("Digest ", "digest \t "), (", ", ","), (", ", " , \t"), ("=", " = "),
            ("username", "UserName"), ("nc=00000001", 'nc="00000001"'), ("6629fae4", "6629FAE4"),
            ('opaque="5ccc069c403ebaf9f0171e9517f40e41"', "algorithm=md5"), ('e41"', 'e41", '),
            ('opaque="5ccc069c403ebaf9f0171e9517f40e41"', r'auth-param="a \" , b=c", algorithm="MD5"'),
            ('opaque="5ccc069c403ebaf9f0171e9517f40e41"', 'opaque=""'),
        ):  # fmt: skip
            self.assertEqual(self.changed(old, new), expected, (old, new))

    def test_algorithms(self) -> None:
        for text, expected in (("SHA-256", "SHA-256"), ("sha-512-256", "SHA-512-256"), ("MD5-sess", ""), ("x", "")):
            self.assertEqual(self.changed("qop=auth", f"qop=auth, algorithm={text}").algorithm, expected)

    def test_escapes_of_names_are_taken_away_and_of_the_cnonce_kept(self) -> None:
        credentials = self.changed('"bob"', r'"b\"o\\b"')
        self.assertEqual(credentials.username, r'b"o\b')
        self.assertEqual(self.changed('"0a4f113b"', r'"0a\4f"').cnonce, r"0a\4f")
        self.assertEqual(self.changed('"biloxi.com"', r'"biloxi\.com"').realm, "biloxi.com")

    def test_bytes_that_are_no_utf_8_are_hashed_as_they_came(self) -> None:
        name = b"b\xff".decode("utf-8", "surrogateescape")
        credentials = self.changed("bob", name)
        expected = hashlib.md5(b"b\xff:biloxi.com:x").hexdigest()
        self.assertEqual(compute_ha1("MD5", credentials.username, credentials.realm, "x"), expected)

    def test_what_is_not_digest(self) -> None:
        for value in ("", "Digest", "Digest ", "Digest,", "Digestrealm=x", "Basic YWxpY2U6", "digest\u00a0realm=x"):
            self.assertRaises(ParseError, parse_credentials, value)

    def test_what_breaks_the_grammar(self) -> None:
        for old, new in (
            ('"bob"', '"bob'), ('"bob"', 'b"ob"'), ('"bob"', '"bob"x'), ('"bob"', ""), (", realm", " realm"),
            ("username=", "="), ("username=", "user name="), ("username=", "username"), (", qop", ",, qop"),
            ('"bob"', "bob@x"), ("realm=", "nonce="), ("qop=auth", "qop=auth, QOP=auth"), ("Digest ", "Digest ,"),
            ('realm="biloxi.com", ', ""),
        ):  # fmt: skip
            self.assertRaises(ParseError, self.changed, old, new)

    def test_what_can_be_read_but_not_checked(self) -> None:
        for old, new, fault in (
            ('username="bob", ', "", "Incomplete Credentials"),
            ('nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", ', "", "Incomplete Credentials"),
            ('uri="sip:bob@biloxi.com", ', "", "Incomplete Credentials"),
            ('cnonce="0a4f113b", ', "", "Incomplete Credentials"),
            ('"0a4f113b"', '""', "Incomplete Credentials"),
            ("qop=auth, ", "", "Credentials Without Qop Auth"),
            ("qop=auth,", "qop=auth-int,", "Credentials Without Qop Auth"),
            ("nc=00000001, ", "", "Invalid Nonce Count"),
            ("00000001", "00000000", "Invalid Nonce Count"),
            ("00000001", "1", "Invalid Nonce Count"),
            ("00000001", "0000000g", "Invalid Nonce Count"),
            ("00000001", "+0000001", "Invalid Nonce Count"),
            ('response="6629fae49393a05397450978507c4ef1", ', "", "Invalid Digest Response"),
            ("6629fae4", "\u0666", "Invalid Digest Response"),
        ):
            credentials = self.changed(old, new)
            self.assertEqual((credentials.fault, credentials.realm), (fault, "biloxi.com"), new)

    def test_reading_takes_a_time_that_grows_with_the_length_only(self) -> None:
        """
        8,000 characters, the longest header line there is, made to hold a pattern up.
        """
        for value in (
            'Digest a="' + "\\a" * 4000, "Digest " + "a" * 8000, "Digest a" + " " * 8000, "Digest " + "," * 8000,
            "Digest a=" + " " * 8000, 'Digest a=""' + " " * 8000 + "x", "Digest " + "a=b " * 2000,
            "Digest " + "a=b," * 2000, 'Digest a="' + '\\"' * 4000 + '"x',
        ):  # fmt: skip
            before = time.process_time()
            self.assertRaises(ParseError, parse_credentials, value)
            self.assertLess(time.process_time() - before, 2, "a pattern that backtracks takes minutes")


class UsualFormTests(SynchronousTestCase):
    """
    What nearly all phones write is read by one pattern; nobody can tell.
    """

    PARAMS = (
        ('username="bob"', 'username="b, o=b"', 'username="b\xff\u00e9"', r'username="b\"b"', 'Username="bob"',
         'username=""'),
        ('realm="biloxi.com"', 'realm="a,b"', "realm=biloxi.com"),
        ('nonce="dcd98b7102dd"', 'nonce="x y"', "nonce=x"),
        ('uri="sip:biloxi.com"', 'uri="sip:a@b;nc=00000002, qop=auth"'),
        ('response="6629fae4"', 'response="6629FAE4"', 'response="\u0666"', "response=6629fae4"),
        ("algorithm=MD5", "algorithm=SHA-256", "algorithm=SHA-512-256", "algorithm=md5", 'algorithm="MD5"',
         "algorithm=MD5-sess"),
        ('cnonce="0a4f113b"', r'cnonce="0\a"', 'cnonce="\n"'),
        ("qop=auth", 'qop="auth"', "qop=auth-int", "qop=auth "),
        ("nc=00000001", "nc=00000000", "nc=0000000A", "nc=0000000a", "nc=1", 'nc="00000001"',
         "nc=\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0661"),
    )  # fmt: skip

    def assert_same(self, value: str) -> None:
        def told(read: Callable[[str], Credentials]) -> Credentials | str:
            try:
                return read(value)
            except ParseError as error:
                return str(error)

        self.assertEqual(told(parse_credentials), told(digest._read_credentials), value)

    def test_the_usual_form_in_any_order_never_reaches_the_whole_grammar(self) -> None:
        usual = [forms[0] for forms in self.PARAMS]
        for separator in (", ", ","):
            for turn in range(len(usual)):
                value = "Digest " + separator.join(usual[turn:] + usual[:turn])
                expected = digest._read_credentials(value)
                with self.patched_grammar():
                    self.assertEqual(parse_credentials(value), expected)

    @contextmanager
    def patched_grammar(self) -> Iterator[None]:
        patch = self.patch(digest, "_read_credentials", None)
        try:
            yield
        finally:
            patch.restore()

    @settings(max_examples=500, deadline=None)
    @given(st.data())
    def test_both_ways_give_the_same(self, data: st.DataObject) -> None:
        """
        Mostly usual parameters in any order, some odd, some left out, some twice, with odd separators.
        """
        odd = st.integers(0, 11).map(lambda number: number == 0)
        params = []
        for forms in self.PARAMS:
            if not data.draw(odd):
                params.append(data.draw(st.sampled_from(forms)) if data.draw(odd) else forms[0])
        if data.draw(odd):
            params.append(data.draw(st.sampled_from([form for forms in self.PARAMS for form in forms])))
        params = data.draw(st.permutations(params))
        separators = st.sampled_from((", ", ", ", ", ", ",", ",  ", " , ", ",\t", ";", " ", ""))
        value = data.draw(st.sampled_from(("Digest ", "Digest ", "Digest ", "digest ", "Digest  ", "Digest")))
        for param in params:
            value += param + (data.draw(separators) if data.draw(odd) else ", ")
        self.assert_same(value if data.draw(odd) else value.removesuffix(", "))

    @settings(max_examples=300, deadline=None)
    @given(st.integers(0, 200), st.integers(0, 10), st.text(max_size=6))
    def test_a_usual_value_of_which_a_piece_was_changed(self, at: int, length: int, text: str) -> None:
        usual = "Digest " + ", ".join(forms[0] for forms in self.PARAMS)
        self.assert_same(usual[:at] + text + usual[at + length :])


class ChallengeTests(SynchronousTestCase):
    """
    RFC 7616 §3.3.
    """

    def test_what_it_says(self) -> None:
        self.assertEqual(
            format_challenge("example.org", "n1", "SHA-256"),
            'Digest realm="example.org", nonce="n1", algorithm=SHA-256, qop="auth"',
        )

    def test_stale_is_told_only_when_it_is(self) -> None:
        self.assertEqual(read_challenge(format_challenge("example.org", "n1", "MD5", True))["stale"], "true")
        self.assertNotIn("stale", format_challenge("example.org", "n1", "MD5"))

    def test_a_realm_is_quoted(self) -> None:
        self.assertIn(r'realm="a\"b"', format_challenge('a"b', "n1", "MD5"))


class AlgorithmTests(SynchronousTestCase):
    def test_strongest_first_and_md5_last(self) -> None:
        self.assertEqual(list(ALGORITHMS), ["SHA-512-256", "SHA-256", "MD5"])

    def test_names_in_any_letter_case(self) -> None:
        names: Any = [algorithm_name(text) for text in ("md5", "Sha-256", "SHA-512-256", "SHA-512", "")]
        self.assertEqual(names, ["MD5", "SHA-256", "SHA-512-256", "", ""])

    def test_what_can_be_a_hash(self) -> None:
        for algorithm, compute in ALGORITHMS.items():
            self.assertTrue(is_ha1(algorithm, compute(b"x")))
            self.assertTrue(is_ha1(algorithm, NO_HA1[algorithm]))
            for wrong in ("", compute(b"x")[1:], compute(b"x").upper() + "0", "g" + compute(b"x")[1:]):
                self.assertFalse(is_ha1(algorithm, wrong))
