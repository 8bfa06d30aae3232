"""
The JSON of channel C{dialog}: what Kamailios have sent, what we send, and what nobody should.
"""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.dialog_json import (
    SYNC_REQUEST,
    SYNC_REQUEST_OF_OURS,
    DialogGone,
    DialogTold,
    decode,
    encode,
    encode_gone,
    encode_sync_end,
)
from sipdmq.dmq.errands import SyncEnd, SyncRequest
from sipdmq.errors import DecodeError
from sipdmq.interfaces.dialogs import Leg, Profile
from tests.test_dmq_usrloc_json import CAPTURES, body_of

CHARACTERS = "a1:\"\\{[ \0\r\n\x7fä\u20ac\U0001f600\ud800\udcff"
"""Named, since hypothesis takes more time to find out what characters there are than it allows a test."""
TOLD = DialogTold(
    3336, 7643, 4, True, "call1", "sip:a@b", "sip:c@d", "sip:c@d", Leg("t1", "1", "", "sip:a@192.0.2.7"),
    Leg("t2", "0", "<sip:192.0.2.99;lr>", "sip:c@192.0.2.8"), 1_700_000_000, 1_700_000_005, 600,
    (("note", "é \" \\"),), (Profile("caller", "gold", "dlgp-1"), Profile("inbound", "", "dlgp-2")),
    "sip:192.0.2.2:5060",
)  # fmt: skip


def captured(name: str) -> bytes:
    return body_of(CAPTURES / f"{name}.sip")


class CaptureTests(SynchronousTestCase):
    def test_updates(self) -> None:
        for folder in ("captures", "captures-6.1"):
            told = decode(captured(f"{folder}/dl-update-new-vars"))
            assert isinstance(told, DialogTold)
            self.assertEqual((told.state, told.is_whole, told.caller.cseq), (1, True, "1"))
            self.assertEqual(told.variables, (("note", "some note"),))
            self.assertEqual([(each.name, each.value) for each in told.profiles], [("inbound", ""), ("caller", "gold")])

    def test_a_sync_with_keys_that_are_there_twice(self) -> None:
        for folder in ("captures", "captures-6.1"):
            told = decode(captured(f"{folder}/dl-sync-update"))
            assert isinstance(told, DialogTold)
            self.assertEqual((told.state, told.callee.cseq, bool(told.callee.tag)), (4, "0", True))

    def test_what_6_1_4_writes_is_what_we_write(self) -> None:
        for name in ("dl-update-new", "dl-update-new-vars", "dl-sync-update"):
            data = captured(f"captures-6.1/{name}")
            told = decode(data)
            assert isinstance(told, DialogTold)
            written, expected = json.loads(encode(told)), json.loads(data)
            for each in (written, expected):  # a text of its own
                each["profiles"] = json.loads(each.get("profiles", "{}"))
            self.assertEqual(written, expected, name)

    def test_ends_are_written_byte_for_byte(self) -> None:
        self.assertEqual(encode_gone(3336, 7643, False), captured("captures/dl-state-deleted-bye"))
        self.assertEqual(encode_gone(3336, 7643, True), captured("captures/dl-rm"))
        self.assertEqual(SYNC_REQUEST, captured("captures/dl-sync-request"))

    def test_every_capture_is_read_as_a_kamailio_reads_it(self) -> None:
        found = [path for path in CAPTURES.glob("captures*/dl-*.sip") if not path.name.endswith(".reply.sip")]
        self.assertGreaterEqual(len(found), 20)
        for path in found:
            if path.name in ("dl-err-bad-json.sip", "dl-err-empty.sip"):
                self.assertRaises(DecodeError, decode, body_of(path))
            else:
                decode(body_of(path))

    def test_what_kills_a_kamailio(self) -> None:
        for name in ("null", "update-min", "vars-null"):
            self.assertRaises(DecodeError, decode, captured(f"captures/malformed-dl-{name}"))
        for name in ("array", "empty-object"):
            self.assertIs(decode(captured(f"captures/malformed-dl-{name}")), None)
        self.assertIsInstance(decode(captured("captures/malformed-dl-update-no-leg")), DialogTold)


class OwnTests(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        self.assertEqual(decode(encode(TOLD)), TOLD)

    def test_syncs(self) -> None:
        self.assertEqual(decode(SYNC_REQUEST_OF_OURS), SyncRequest(True))
        self.assertEqual(decode(encode_sync_end(SyncEnd(3, True))), SyncEnd(3, True))
        self.assertEqual(decode(encode_gone(1, 2, True)), DialogGone(1, 2))

    def test_nobody_knows_the_action(self) -> None:
        for action in (0, 99, -1, "1", True, None, [4]):
            self.assertIs(decode(json.dumps({"action": action}).encode()), None)

    def test_wrong_types(self) -> None:
        whole = json.loads(encode(TOLD))
        for name in ("callid", "cseq1", "route_set2", "profiles"):
            for value in (None, 1, True, [], {}):
                self.assertRaises(DecodeError, decode, json.dumps(whole | {name: value}).encode())
        for profiles in ("x", "[]", '{"profiles":1}', '{"profiles":[1]}', '{"profiles":[{"name":1}]}'):
            self.assertRaises(DecodeError, decode, json.dumps(whole | {"profiles": profiles}).encode())

    def test_60_kb(self) -> None:
        whole = json.loads(encode(TOLD))
        nested = "[" * 29_000 + "]" * 29_000
        many = json.dumps({"profiles": [{"name": "p"}] * 3_000})
        for body in (
            b"[" * 60_000,
            b'{"a":' * 12_000,
            b'{"action":1,"h_id":%b}' % (b"9" * 60_000),
            *(json.dumps(whole | {name: "x" * 59_000}).encode() for name in ("callid", "contact1", "by", "profiles")),
            *(json.dumps(whole | {"profiles": text}).encode() for text in (nested, many)),
            json.dumps(whole | {"vars": {str(number): "" for number in range(5_000)}}).encode(),
            json.dumps(whole | {"vars": {"x" * 59_000: ""}}).encode(),
        ):
            self.assertRaises(DecodeError, decode, body)

    @given(st.binary(max_size=300))
    def test_any_bytes(self, body: bytes) -> None:
        try:
            decode(body)
        except DecodeError:
            pass

    @given(st.dictionaries(
        st.sampled_from(sorted(json.loads(encode(TOLD)))),
        st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(CHARACTERS, max_size=9),
                     lambda inner: st.lists(inner) | st.dictionaries(st.text("ab\0\ud800"), inner, max_size=3),
                     max_leaves=5),
    ))  # fmt: skip
    def test_any_values(self, changes: dict[str, object]) -> None:
        try:
            found = decode(json.dumps(json.loads(encode(TOLD)) | changes).encode())
        except DecodeError:
            return
        if isinstance(found, DialogTold) and found.is_whole and 1 <= found.state <= 5:
            encode(found)
