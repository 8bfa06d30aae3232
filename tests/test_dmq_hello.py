"""
The bodies of the channel C{sipdmq}.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.hello import Hello, decode_hello, decode_verb, encode_hello, encode_verb

GOOD = {"version": "0.1.0", "features": ["batch"], "time": 1795402691}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class HelloTests(SynchronousTestCase):
    def test_it_is_compact_json(self) -> None:
        self.assertEqual(
            encode_hello(Hello("0.1.0", ("batch",), 1795402691)),
            b'{"hello":{"version":"0.1.0","features":["batch"],"time":1795402691}}',
        )
        self.assertEqual(
            encode_hello(Hello("0.1.0", (), 1795402691.12345, "x", 5)),
            b'{"hello":{"version":"0.1.0","features":[],"time":1795402691.123,"start":"x","up":5}}',
        )

    def test_what_is_none(self) -> None:
        self.assertIsNotNone(decode_hello(json.dumps({"hello": GOOD}).encode()))
        for key, value in (
            ("version", ""), ("version", None), ("version", 1), ("version", "x" * 65), ("version", "a\r\nb"),
            ("features", None), ("features", "batch"), ("features", [1]), ("features", ["x"] * 51),
            ("features", ["x" * 65]), ("time", "1"), ("time", -1), ("time", float("nan")), ("time", True),
            ("time", 2**63), ("start", 1), ("start", "x" * 65),
        ):  # fmt: skip
            self.assertIsNone(decode_hello(json.dumps({"hello": {**GOOD, key: value}}).encode()), (key, value))

    def test_what_a_later_version_adds_does_no_harm(self) -> None:
        self.assertIsNotNone(decode_hello(json.dumps({"hello": {**GOOD, "new": [1]}}).encode()))

    def test_a_node_list_is_none(self) -> None:
        self.assertIsNone(decode_hello(b"sip:127.0.0.1:5060;status=active\r\n"))

    def test_long_or_deep_nonsense_is_not_read(self) -> None:
        for body in (b"[" * 60_000, b'{"a":' * 700, b"1" * 3999, b'{"a":{}}' + b" " * 4000):
            self.assertIsNone(decode_verb(body))

    @given(st.binary(max_size=200))
    def test_any_bytes(self, body: bytes) -> None:
        decode_verb(body)
        decode_hello(body)

    @given(JSON)
    def test_any_json(self, value: Any) -> None:
        for body in (value, {"hello": value}, {"hello": {**GOOD, "version": value}}):
            decode_hello(json.dumps(body).encode())

    @given(st.builds(
        Hello, st.just("1"), st.lists(st.text(max_size=64), max_size=9).map(tuple), st.integers(0, 2**39), st.just("s"),
        st.integers(0, 9),
    ))
    def test_and_back(self, hello: Hello) -> None:
        body = encode_hello(hello)
        if len(body) <= 4000:
            self.assertEqual(decode_hello(body), hello)

    def test_bytes_that_are_no_utf_8_pass(self) -> None:
        value = {"aor": b"\xff".decode("utf-8", "surrogateescape")}
        body = encode_verb("lookup", value)
        self.assertIn(b"\xff", body)
        self.assertEqual(decode_verb(body), ("lookup", value))
