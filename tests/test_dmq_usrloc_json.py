"""
The JSON of channel usrloc: every capture, every key, and what nobody should send.
"""

from __future__ import annotations

import json
from pathlib import Path
from time import process_time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.errands import SyncEnd, SyncRequest
from sipdmq.dmq.usrloc_json import SYNC_REQUEST, decode, encode, encode_sync_end, join
from sipdmq.dmq.usrloc_records import (
    ALL_METHODS,
    UsrlocRecord,
    UsrlocRefused,
)
from sipdmq.errors import DecodeError

CAPTURES = Path(__file__).parent / "kamailio"


def body_of(path: Path) -> bytes:
    """
    The body of a captured message.
    """
    return path.read_bytes().partition(b"\r\n\r\n")[2]


def messages() -> list[tuple[str, bytes]]:
    """
    What Kamailio sent on this channel, of both releases.
    """
    found = []
    for path in sorted(CAPTURES.glob("captures*/*ul-*.sip")):
        if not path.name.endswith(".reply.sip") and path.read_bytes().startswith(b"KDMQ sip:usrloc@"):
            found.append((f"{path.parent.name}/{path.name}", body_of(path)))
    return found


FULL: dict[str, Any] = {
    "action": 1, "aor": "alice", "ruid": "uloc-1", "c": "sip:alice@192.0.2.7", "received": "sip:192.0.2.7:5062",
    "sock": "udp:192.0.2.1:5060", "path": "<sip:p;lr>", "callid": "c1", "user_agent": "ua", "instance": "<urn:1>",
    "expires": 1700000600, "cseq": 3, "flags": 1, "cflags": 64, "q": 700, "last_modified": 1700000000, "methods": 527,
    "reg_id": 1, "server_id": 2, "xavps": {"x": {"s": "t", "n": 5}},
}  # fmt: skip


def body(**changes: Any) -> bytes:
    values = {name: value for name, value in (FULL | changes).items() if value is not ...}
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


def read(data: bytes) -> UsrlocRecord:
    (one,) = decode(data)
    assert isinstance(one, UsrlocRecord)
    return one


class CaptureTests(SynchronousTestCase):
    """
    Real messages of 5.6.3 and 6.1.4.
    """

    def test_there_are_some_of_both_releases(self) -> None:
        names = [name for name, _ in messages()]
        self.assertTrue(len([name for name in names if name.startswith("captures/")]) > 15)
        self.assertTrue(len([name for name in names if name.startswith("captures-6.1/")]) > 6)

    def test_each_is_read_and_written_back_as_it_was(self) -> None:
        for name, data in messages():
            if "hostile" in name or "-err-" in name or "foreign" in name:
                continue
            read_ones = decode(data)
            self.assertTrue(read_ones, name)
            if read_ones == (SyncRequest(),):
                self.assertEqual(data, SYNC_REQUEST)
                continue
            fragments = []
            for each in read_ones:
                assert isinstance(each, UsrlocRecord), (name, each)
                fragments.append(encode(each))
            written = join(fragments)
            self.assertEqual(written, data.replace(b',"xavps":{}', b""), name)

    def test_what_test_clients_sent(self) -> None:
        """
        As WIRE §13 says: 400 is DecodeError here, 200 with nothing done an empty tuple.
        """
        expected: dict[str, object] = {
            "hostile-ul-array": DecodeError, "hostile-ul-empty-object": DecodeError, "hostile-ul-number": DecodeError,
            "hostile-ul-no-aor": DecodeError, "hostile-ul-null-string": DecodeError,
            "hostile-ul-number-for-string": DecodeError, "hostile-ul-multi-empty": 0, "hostile-ul-no-callid-first": 1,
            "ul-err-action-99": DecodeError, "ul-err-bad-json": DecodeError, "ul-err-empty": DecodeError,
            "ul-err-no-content-length": DecodeError, "ul-err-unknown-field": 0, "ul-foreign-minimal": 1,
            "ul-foreign-multi": 2, "ul-foreign-multi-array": 2, "ul-foreign-wrong-from": 1, "ul-foreign-xavps": 1,
        }  # fmt: skip
        seen = set()
        for name, data in messages():
            short = name.partition("/")[2].removesuffix(".sip")
            if short in expected:
                seen.add(short)
                try:
                    found: object = len(decode(data))
                except DecodeError:
                    found = DecodeError
                self.assertEqual(found, expected[short], name)
        self.assertEqual(seen, set(expected))


class ReadTests(SynchronousTestCase):
    def test_every_key(self) -> None:
        record = read(body())
        for name, value in FULL.items():
            if name not in ("action", "xavps"):
                self.assertEqual(getattr(record, name), value, name)
        self.assertEqual(record.xavps, '{"x":{"s":"t","n":5}}')
        self.assertEqual((record.removed, read(body(action=2)).removed), (False, True))

    def test_every_key_back(self) -> None:
        self.assertEqual(encode(read(body())), body())
        bare = read(body(sock=..., xavps=..., user_agent="n/a"))
        self.assertEqual((bare.user_agent, encode(bare)), ("", body(sock=..., xavps=..., user_agent="n/a")))

    def test_what_is_missing_is_empty_or_zero(self) -> None:
        self.assertEqual(read(b'{"action":1,"aor":"a","ruid":"r"}'), UsrlocRecord("a", "r"))

    def test_order_blanks_unknown_keys_and_what_follows_do_not_matter(self) -> None:
        for data in (
            b' \r\n{"ruid" : "r",\t"aor":"a","action":1}', b'{"action":1,"aor":"a","ruid":"r","new":[{}]}',
            b'{"action":1,"aor":"a","ruid":"r"} and so on', b'{"action":1,"aor":"a","ruid":"r"}\0{',
            b'{"action":1.0,"aor":"\\u0061","ruid":"r"}', b'{"action":1,"aor":"a\\u0000","ruid":"r"}',
        ):  # fmt: skip
            self.assertEqual(read(data), UsrlocRecord("a", "r"), data)

    def test_of_a_key_that_stands_twice_the_last_counts(self) -> None:
        self.assertEqual(read(b'{"action":2,"aor":"b","aor":"a","ruid":"r","action":1}'), UsrlocRecord("a", "r"))

    def test_bytes_that_are_no_utf_8_stay(self) -> None:
        data = body(user_agent="x").replace(b'"x"', b'"\xff\xfe\xc3\xa4\xf0\x9f\x98\x80"')
        self.assertEqual(encode(read(data)), data)

    def test_several(self) -> None:
        for data in (
            b'{"multi":{"1":%b,"1x":%b}}' % (body(), body(action=2)), b'{"multi":[%b,%b]}' % (body(), body(action=2)),
        ):
            there = read(body())
            self.assertEqual(decode(data), (there, there._replace(removed=True)))
        self.assertEqual(join([b"{1}", b"{2}"]), b'{"multi":{"1":{1},"2":{2}}}')

    def test_multi_counts_as_the_first_key_only(self) -> None:
        self.assertEqual(len(decode(b'{"action":3,"multi":{"1":%b}}' % body())), 1)
        self.assertRaises(DecodeError, decode, b'{"multi":5}')

    def test_each_of_several_by_itself(self) -> None:
        data = b'{"multi":[%b,5,%b,{"action":7},{"action":0}]}' % (body(cseq=-1), body())
        self.assertEqual(
            [type(each) for each in decode(data)], [UsrlocRefused, UsrlocRefused, UsrlocRecord, UsrlocRefused]
        )

    def test_no_more_than_a_thousand(self) -> None:
        data = b'{"multi":[%b]}' % b",".join([b'{"action":3}'] * 1500)
        found = decode(data)
        self.assertEqual((len(found), type(found[-1])), (1001, UsrlocRefused))

    def test_between_nodes_of_ours(self) -> None:
        self.assertEqual(decode(encode_sync_end(SyncEnd(7))), (SyncEnd(7),))


class RefusedTests(SynchronousTestCase):
    """
    Nothing of these is applied.
    """

    def assert_refused(self, data: bytes) -> None:
        self.assertRaises(DecodeError, decode, data)
        if data.startswith(b'{"action"'):
            self.assertEqual([type(each) for each in decode(b'{"multi":[%b]}' % data)], [UsrlocRefused])

    def test_no_json(self) -> None:
        for data in (b"", b" ", b"{", b"x", b"{}x}"[:1], b"null", b'"a"', b"[]", b"[1]", b"{}", b"5", b"NaN", b"\xff",
                     b'{"action":NaN}', b'{"action":Infinity}', b'{"action":01}', b"{'action':1}"):
            self.assertRaises(DecodeError, decode, data)

    def test_numbers_that_cannot_be(self) -> None:
        for name in ("expires", "cseq", "flags", "cflags", "q", "last_modified", "methods", "reg_id", "server_id"):
            for value in (-2, 2**41, 2**63, -(2**63), 10**30, 1e30, "5", None, True, [], {}):
                self.assert_refused(body(**{name: value}))

    def test_strings_that_cannot_be(self) -> None:
        for name in ("aor", "ruid", "c", "received", "sock", "path", "callid", "user_agent", "instance"):
            for value in (None, 7, True, [], {}, 30_000 * "x", "a\r\nb", "a\x7f", "\x01"):
                self.assert_refused(body(**{name: value}))
            self.assert_refused(body(**{name: "HALF"}).replace(b"HALF", b"\\ud800"))
        for name in ("aor", "ruid"):
            self.assert_refused(body(**{name: ...}))
            self.assert_refused(body(**{name: ""}))

    def test_xavps_of_no_use_are_left_out(self) -> None:
        deep: Any = "x"
        for _ in range(50):
            deep = {"d": deep}
        for value in (None, 5, "x", [], [1], {"a": None}, {"a": [1]}, {"a": True}, {"a": 5000 * "x"}, deep):
            self.assertEqual(read(body(xavps=value)).xavps, "", value)


class HarmTests(SynchronousTestCase):
    """
    60 kB of nonsense.
    """

    def test_it_costs_little(self) -> None:
        for data in (
            60_000 * b"[", 10_000 * b'{"a":' + b"1", b"9" * 60_000, b'{"action":' + b"9" * 59_000 + b"}",
            b'{"action":1e' + b"9" * 59_000 + b"}", b'{"multi":[' + b",".join([b"{}"] * 19_000) + b"]}",
            b'{"action":1,"xavps":' + 9000 * b'{"a":' + b"1" + 9001 * b"}", b'"' + 59_000 * b"\\" + b'"',
            b'{"multi":{' + 59_000 * b" " + b"}}", b"\xff" * 60_000, b'{"action":0.' + b"1" * 59_000 + b"}",
        ):  # fmt: skip
            start = process_time()
            try:
                decode(data)
            except DecodeError:
                pass
            self.assertLess(process_time() - start, 0.25, data[:20])

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        try:
            decode(data)
        except DecodeError:
            pass

    @settings(max_examples=300, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from((*FULL, "multi", "count")),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
                lambda inner: st.one_of(
                    st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(tuple(FULL)), inner, max_size=5)
                ),
                max_leaves=8,
            ),
        )
    )
    def test_any_json(self, document: dict[str, Any]) -> None:
        """
        What is read can be written, and is the same when it is read again.
        """
        for data in (json.dumps(document).encode(), json.dumps({"multi": [FULL | document]}).encode()):
            try:
                found = decode(data)
            except DecodeError:
                continue
            for each in found:
                if isinstance(each, UsrlocRecord):
                    self.assertEqual(decode(encode(each)), (each,))

    def test_all_methods(self) -> None:
        self.assertEqual(read(body(methods=ALL_METHODS)).methods, 4294967295)
