"""
The JSON of channel presence: every capture, every key, and what nobody should send.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.errands import SyncEnd, SyncRequest
from sipdmq.dmq.presence import EVENTS
from sipdmq.dmq.presence_json import (
    SYNC_REQUEST,
    PresentityMissing,
    PresentityUpdate,
    decode,
    encode,
    encode_sync_end,
    supersede,
)
from sipdmq.errors import DecodeError
from sipdmq.presence.packages import PACKAGES
from tests.test_dmq_usrloc_json import CAPTURES, body_of

FULL: dict[str, Any] = {
    "action": 1,
    "presentity": {"domain": "example.org", "user": "alice", "etag": "a.1.2", "expires": 600, "recv": 1_700_000_000,
                   "sender": "", "event": "presence"},
    "t_new": 0, "cur_etag": "a.1.3", "sphere": "", "ruid": "pres-1", "body": "<é>",
}  # fmt: skip


def body(presentity: dict[str, Any] | None = None, **changes: Any) -> bytes:
    """
    L{FULL} with changes; C{...} leaves a key out.
    """
    inner = {name: value for name, value in (FULL["presentity"] | (presentity or {})).items() if value is not ...}
    values = {name: value for name, value in (FULL | {"presentity": inner} | changes).items() if value is not ...}
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


def read(data: bytes) -> PresentityUpdate:
    found = decode(data, EVENTS)
    assert isinstance(found, PresentityUpdate)
    return found


def captured(name: str) -> bytes:
    return body_of(CAPTURES / f"{name}.sip")


class CaptureTests(SynchronousTestCase):
    def test_5_6_3(self) -> None:
        for name, expected in (
            ("initial", ("a.1795402691.21046.1.0", "", 600, True, True)),
            ("refresh", ("a.1795402691.21046.1.0", "a.1795402691.21046.2.1", 600, False, False)),
            ("modify", ("a.1795402691.21046.2.1", "a.1795402691.21046.3.2", 600, False, True)),
            ("refresh-other-node", ("a.1795402691.21046.3.2", "a.1795402692.21075.2.3", 600, False, False)),
            ("remove", ("a.1795402692.21075.2.3", "", 0, False, False)),
        ):
            found = read(captured(f"captures/pr-{name}"))
            self.assertEqual((found.user, found.domain, found.event), ("alice", "127.7.7.1", "presence"))
            self.assertEqual(
                (found.etag, found.cur_etag, found.expires, found.is_new, bool(found.body)), expected, name
            )

    def test_6_1_4(self) -> None:
        for name, expected in (
            ("refresh", ("a.1795406819.27097.1.0", "a.1795406819.27097.2.1", 600, 1795406851, None)),
            ("refresh-other-node", ("a.1795406819.27097.3.2", "a.1795406819.27126.2.3", 600, 1795406854, None)),
            ("remove", ("a.1795406819.27126.2.3", "", 0, 1795406855, None)),
        ):
            found = read(captured(f"captures-6.1/pr-{name}"))
            self.assertEqual((found.etag, found.cur_etag, found.expires, found.recv, found.body), expected, name)
        found = read(captured("captures-6.1/pr-sync-record"))
        self.assertEqual((found.etag, found.is_new, found.recv), ("a.1795406819.27097.4.0", True, 1795406857))

    def test_what_5_6_3_writes_is_what_we_write(self) -> None:
        for name in ("initial", "refresh", "modify", "refresh-other-node", "remove"):
            data = captured(f"captures/pr-{name}")
            self.assertEqual(encode(read(data)), data.rstrip(b"\r\n"), name)

    def test_syncs(self) -> None:
        for folder in ("captures", "captures-6.1"):
            self.assertEqual(captured(f"{folder}/pr-sync-request").rstrip(), SYNC_REQUEST)
        self.assertEqual(decode(SYNC_REQUEST, EVENTS), SyncRequest())

    def test_subscriptions_are_the_business_of_kamailios(self) -> None:
        for path in sorted(CAPTURES.glob("captures-6.1/pr-subs*.sip")):
            if not path.name.endswith(".reply.sip"):
                self.assertIsNone(decode(body_of(path), EVENTS), path.name)

    def test_every_capture_is_here(self) -> None:
        names = {path.name for path in CAPTURES.glob("captures*/pr-*.sip") if not path.name.startswith("pr-client")}
        self.assertEqual(len([name for name in names if not name.endswith(".reply.sip")]), 22)


class ReadTests(SynchronousTestCase):
    def refused(self, data: bytes) -> str:
        return self.assertRaises(DecodeError, decode, data, EVENTS).reason

    def test_the_packages_are_those_that_are_published_here(self) -> None:
        self.assertEqual(EVENTS, tuple(PACKAGES))

    def test_every_key(self) -> None:
        self.assertEqual(
            read(body()),
            PresentityUpdate("example.org", "alice", "presence", "a.1.2", 600, 1_700_000_000, False, "a.1.3", "pres-1",
                             "<é>".encode(), "", ""),
        )  # fmt: skip

    def test_keys_that_may_be_missing(self) -> None:
        found = read(body({"recv": ..., "sender": ...}, sphere=..., ruid=..., body=..., cur_etag=..., t_new=...))
        self.assertEqual((found.recv, found.ruid, found.body, found.cur_etag, found.is_new), (0, "", None, "", False))

    def test_nothing_to_do(self) -> None:
        for data in (b"{}", b"[]", b'{"action":0}', b'{"action":99}', b'{"action":"1"}', b'{"action":true}',
                     b'{"action":4}', b' \r\n{"action":0} what comes then'):  # fmt: skip
            self.assertIsNone(decode(data, EVENTS), data)
        self.assertEqual(decode(b'{"action":1,"t_new":1}', EVENTS), PresentityMissing())

    def test_unknown_keys(self) -> None:
        """
        Kamailio up to 6.1.4: 400, wherever they stand.
        """
        for data in (b'{"action":0,"bogus":1}', body(bogus=1), body({"bogus": 1}),
                     b'{"action":3,"subscription":{"event":"presence","bogus":1}}'):  # fmt: skip
            self.assertEqual(self.refused(data), "unknown key")

    def test_wrong_types(self) -> None:
        for wrong in (None, [], {}, True, 1):
            for name in ("cur_etag", "ruid", "body", "by", "sphere"):
                self.assertIn("must be a string", self.refused(body(**{name: wrong})))
            for name in ("domain", "user", "etag", "sender", "event"):
                self.assertIn("must be a string", self.refused(body({name: wrong})))
        for wrong in (None, [], {}, True, "1"):
            self.assertIn("must be a number", self.refused(body(t_new=wrong)))
            for name in ("expires", "recv"):
                self.assertIn("must be a number", self.refused(body({name: wrong})))
        for wrong in (None, [], 1, "x"):
            self.assertIn("must be an object", self.refused(json.dumps(FULL | {"presentity": wrong}).encode()))
        for data in (b"", b"x", b"1", b"null", b"[1]", b'"x"', b'{"cur_etag":null}', b"[" * 50_000, b'{"action":NaN}'):
            self.refused(data)

    def test_values_that_cannot_be(self) -> None:
        for changes in ({"user": ""}, {"user": "a b"}, {"user": "a@b"}, {"user": "<a>"}, {"user": 257 * "a"},
                        {"domain": ""}, {"domain": "a\r\nb"},
                        {"etag": ""}, {"etag": "a b"}, {"etag": "a\r\nVia: x"}, {"etag": 201 * "a"},
                        {"expires": -2}, {"expires": 2**32}, {"recv": -1}, {"recv": 10**30}, {"event": "reg"},
                        {"event": ""}):  # fmt: skip
            self.refused(body(changes))
        for more in ({"cur_etag": "a;b"}, {"body": 60_001 * "x"}, {"ruid": "a\nb"}, {"by": 129 * "x"}):
            self.refused(body(**more))
        self.refused(body().replace("é".encode(), rb"\ud800"))

    def test_bytes_that_are_no_utf_8_and_nul(self) -> None:
        self.assertEqual(read(body().replace("é".encode(), b"\xff\xfe")).body, b"<\xff\xfe>")
        self.assertEqual(read(body().replace("é".encode(), rb"\u0000")).body, b"<>")
        self.assertEqual(read(body() + b"\0garbage").etag, "a.1.2")

    def test_numbers_with_fractions_and_repeated_keys(self) -> None:
        self.assertEqual(read(body().replace(b'"expires":600', b'"expires":6.5e1')).expires, 65)
        self.assertEqual(read(body().replace(b'"expires":600', b'"expires":1,"expires":2')).expires, 2)

    def test_60_kb(self) -> None:
        self.assertEqual(len(read(body(body=60_000 * "x")).body or b""), 60_000)

    @given(st.binary(max_size=80) | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*FULL, *FULL["presentity"], "subscription", "count"]), inner, max_size=6),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()))  # fmt: skip
    def test_garbage_is_refused_or_read_and_nothing_else(self, data: bytes) -> None:
        try:
            found = decode(data, EVENTS)
        except DecodeError:
            return
        if isinstance(found, PresentityUpdate):
            self.assertEqual(read(encode(found)), found._replace(body=found.body or b""))


class WriteTests(SynchronousTestCase):
    update = PresentityUpdate("d", "u", "presence", "r.0", 600, 5, True, "", "r", b"<a/>")

    def test_what_is_ours_alone_is_written_for_ours_alone(self) -> None:
        self.assertNotIn(b'"by"', encode(self.update))
        told = self.update._replace(by="sip:192.0.2.2:5060")
        self.assertEqual(read(encode(told)), told)
        self.assertEqual(decode(encode_sync_end(SyncEnd(7)), EVENTS), SyncEnd(7))
        self.assertEqual(decode(encode_sync_end(SyncEnd(7, True)), EVENTS), SyncEnd(7, True))

    @given(st.text(max_size=20), st.integers(-1, 2**32 - 1), st.booleans())
    def test_what_is_written_is_read_again(self, text: str, expires: int, is_new: bool) -> None:
        data = text.replace("\0", "").encode("utf-8", "replace")
        told = self.update._replace(body=data, expires=expires, is_new=is_new)
        self.assertEqual(read(encode(told)), told)


class SupersedeTests(SynchronousTestCase):
    """
    A Kamailio finds a publication by the tag that it was told last.
    """

    new = PresentityUpdate("d", "u", "presence", "r.0", 600, 5, True, "", "r", b"1")
    first = new._replace(etag="r.0", cur_etag="r.1", is_new=False, body=b"2")
    second = first._replace(etag="r.1", cur_etag="r.2", body=b"3")
    removal = second._replace(etag="r.2", cur_etag="", expires=0, body=b"")

    def both(self, waiting: PresentityUpdate, newer: PresentityUpdate) -> PresentityUpdate:
        return read(supersede(encode(waiting), encode(newer)))

    def test_a_new_one_that_nobody_was_told_stays_a_new_one(self) -> None:
        self.assertEqual(self.both(self.new, self.first), self.new._replace(etag="r.1", body=b"2"))

    def test_a_change_begins_where_the_other_one_did(self) -> None:
        self.assertEqual(self.both(self.first, self.second), self.second._replace(etag="r.0"))
        self.assertEqual(self.both(self.first, self.removal), self.removal._replace(etag="r.0"))

    def test_what_is_told_as_new_is_told_as_that(self) -> None:
        self.assertEqual(self.both(self.first, self.new), self.new)
        self.assertEqual(self.both(self.new, self.removal), self.removal)

    def test_the_end_of_a_sync_is_none(self) -> None:
        first, second = (encode_sync_end(SyncEnd(count)) for count in (1, 2))
        self.assertEqual(supersede(first, second), second)
