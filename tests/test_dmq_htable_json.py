"""
The JSON of channel htable: every capture, every key, and what nobody should send.
"""

from __future__ import annotations

import json
from pathlib import Path
from time import process_time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.changes import Place
from sipdmq.dmq.errands import SyncEnd
from sipdmq.dmq.htable_json import (
    NO_CELLS,
    SYNC_REQUEST,
    SYNC_REQUEST_OF_OURS,
    HtableCells,
    HtableDelete,
    HtableExpire,
    HtableRefused,
    HtableRemove,
    HtableSet,
    HtableSync,
    decode,
    encode_cell,
    encode_removal,
    encode_sync_end,
    join,
    place_of,
)
from sipdmq.errors import DecodeError
from sipdmq.records import Cell, CellRemoval

CAPTURES = Path(__file__).parent / "kamailio"


def capture(name: str) -> bytes:
    """
    The body of a captured message.
    """
    return (CAPTURES / name).read_bytes().partition(b"\r\n\r\n")[2]


def body(**values: Any) -> bytes:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


def cell_of(found: HtableSet, **changes: Any) -> Cell:
    return Cell(found.table, found.key, found.value, found.expire, found.last_modified, found.removed)._replace(
        **changes
    )


class CaptureTests(SynchronousTestCase):
    """
    Real messages of 5.6.3 and 6.1.4.
    """

    READ = {
        "ht-set-str": HtableSet("t1", "k1", "hello world"),
        "ht-set-int": HtableSet("t1", "k2", 42),
        "ht-set-negint": HtableSet("t1", "k2n", -7),
        "ht-set-tx": HtableSet("tx", "short", "gone soon"),
        "ht-set-utf8": HtableSet("t1", "kü", 'grüße "q" \\ /'),
        "ht-inc": HtableSet("t1", "k2", 43),
        "ht-rpc-setxs-1": HtableSet("tlong", "xs", "val"),
        "ht-rpc-setxs-2": HtableExpire("tlong", "xs", 100),
        "ht-expire-set": HtableExpire("tlong", "long", 120),
        "ht-del": HtableDelete("t1", "k3"),
        "ht-rmre": HtableRemove(CellRemoval("t1", "^rx.*", True, False)),
        "ht-rmsw": HtableRemove(CellRemoval("t1", "sw", False, False)),
        "ht-sync-request": HtableSync(),
        "ht-sync-cells-empty": HtableCells(()),
        "ht-err-unknown-table": HtableSet("nope", "k", "v"),
        "ht-err-action-99": HtableRefused("unknown action"),
        "malformed-ht-no-htname": HtableRefused("htname is missing"),
        "malformed-ht-no-value": HtableSet("t1", "k", ""),
        "malformed-ht-cells-empty": HtableCells(()),
        "js-badutf8": HtableSet("t1", "eb", "\udcff\udcfe"),
        "js-bigint": HtableSet("t1", "e5", 2**31 - 1),
        "js-dupkey": HtableSet("t1", "ea", "two"),
        "js-esc": HtableSet("t1", "e1", "\u00e9\u20ac\U0001f600/\b\t|\U00020000|"),
        "js-float": HtableSet("t1", "e4", 150),
        "js-lastmod": HtableSet("t1", "e6", "lm", 0, 1795402694000),
        "js-nul": HtableSet("t1", "e9", "ab"),
        "js-order": HtableSet("t1", "e3", "order"),
        "js-pretty": HtableSet("t1", "e2", "pretty"),
        "js-trail": HtableSet("t1", "e8", "trail"),
    }  # fmt: skip
    REFUSED = ("ht-err-bad-json", "ht-err-empty", "ht-err-unknown-field", "malformed-ht-array",
               "malformed-ht-empty-object", "malformed-ht-null-str")  # fmt: skip

    def test_each_is_read(self) -> None:
        for name, expected in self.READ.items():
            self.assertEqual(decode(capture(f"captures/{name}.sip")), expected, name)
        self.assertEqual(decode(capture("captures-6.1/ht-sync-one-table.sip")), HtableSync("tlong"))
        self.assertEqual(decode(capture("captures-6.1/ht-rpc-dmqsync-table.sip")), HtableSync("t1"))
        self.assertEqual(decode(capture("captures-6.1/ht-rpc-dmqsync.sip")), HtableSync())
        self.assertEqual(
            decode(capture("captures-6.1/ht-sync-one-table-cells.sip")),
            HtableCells((HtableSet("tlong", "b", "1", 1795408381),)),
        )

    def test_each_is_refused_that_is_nothing(self) -> None:
        for folder in ("captures", "captures-6.1"):
            for name in self.REFUSED:
                path = CAPTURES / folder / f"{name}.sip"
                if path.exists():
                    self.assertRaises(DecodeError, decode, capture(f"{folder}/{name}.sip"))

    def test_none_is_left_out(self) -> None:
        known = {*self.READ, *self.REFUSED, "ht-sync-cells", "ht-sync-cells-60k", "ht-value-50k", "ht-foreign-cells",
                 "ht-err-no-content-length", "js-long-cl", "js-short-cl", "js-process-cl-first",
                 "js-process-normal-order"}  # fmt: skip
        found = {
            path.stem for path in CAPTURES.glob("captures/*.sip") if path.read_bytes().startswith(b"KDMQ sip:htable@")
        }
        self.assertEqual(found, known)

    def test_cells_are_read_and_written_back_as_they_were(self) -> None:
        for name, count in (("ht-sync-cells", 8), ("ht-sync-cells-60k", 323), ("ht-sync-cells-empty", 0)):
            data = capture(f"captures/{name}.sip")
            found = decode(data)
            assert isinstance(found, HtableCells)
            self.assertEqual((len(found.cells), found.refused), (count, 0), name)
            self.assertEqual(join([encode_cell(cell_of(each), False, True) for each in found.cells]), data, name)
        self.assertEqual(capture("captures/ht-sync-cells-empty.sip"), NO_CELLS)
        one = capture("captures-6.1/ht-sync-one-table-cells.sip")
        self.assertEqual(join([encode_cell(decode(one).cells[0] and cell_of(decode(one).cells[0]), False, True)]), one)  # type: ignore[union-attr]

    def test_what_we_send_looks_like_kamailios(self) -> None:
        for name in ("ht-set-str", "ht-set-int", "ht-set-negint", "ht-set-tx", "ht-set-utf8", "ht-inc", "ht-value-50k"):
            data = capture(f"captures/{name}.sip")
            found = decode(data)
            assert isinstance(found, HtableSet)
            self.assertEqual(join([encode_cell(cell_of(found), False, False)]), data, name)
        gone = Cell("t1", "k3", 1, removed=True)
        self.assertEqual(join([encode_cell(gone, False, False)]), capture("captures/ht-del.sip"))
        for name in ("ht-rmre", "ht-rmsw"):
            found = decode(capture(f"captures/{name}.sip"))
            assert isinstance(found, HtableRemove)
            self.assertEqual(join([encode_removal(found.removal, False)]), capture(f"captures/{name}.sip"))
        self.assertEqual(SYNC_REQUEST, capture("captures/ht-sync-request.sip"))

    def test_unknown_tables_among_others(self) -> None:
        found = decode(capture("captures/ht-foreign-cells.sip"))
        assert isinstance(found, HtableCells)
        self.assertEqual([cell.table for cell in found.cells], ["t1", "tlong", "nope"])


class ReadTests(SynchronousTestCase):
    def test_strings_must_be_strings(self) -> None:
        for value in (None, 1, True, [], {}):
            for name in ("htname", "cname", "strval"):
                good: dict[str, Any] = {"action": 2, "htname": "t", "cname": "k", "type": 2, "strval": "v", "mode": 1}
                self.assertRaises(DecodeError, decode, body(**good | {name: value}))

    def test_what_is_no_number_is_0_where_one_is_expected(self) -> None:
        for value in ("1", None, True, [], {}):
            self.assertEqual(
                decode(body(action=2, htname="t", cname="k", type=0, intval=value, mode=1)), HtableSet("t", "k", 0)
            )
            self.assertEqual(decode(body(action=value, htname="t")), HtableRefused("unknown action"))

    def test_numbers_beyond_all_measure(self) -> None:
        for text, expected in (("9" * 50_000, 2**31 - 1), ("-5e400", -(2**31)), ("-2147483649", -(2**31))):
            data = b'{"action":2,"htname":"t","cname":"k","type":0,"intval":%b,"mode":1}' % text.encode()
            found = decode(data)
            assert isinstance(found, HtableSet)
            self.assertIn(found.value, (expected, 2**31 - 1), text[:10])
        self.assertRaises(DecodeError, decode, b'{"action":NaN}')

    def test_half_a_character_and_too_much(self) -> None:
        for text in ('"\\ud800"', '"' + "k" * 1001 + '"', '"' + "ü" * 501 + '"'):
            data = b'{"action":4,"htname":"t","cname":%b,"mode":0}' % text.encode()
            self.assertRaises(DecodeError, decode, data)

    def test_actions_that_nobody_has(self) -> None:
        for action in (0, 7, 8, 9, -1, 2**70):
            self.assertEqual(decode(body(action=action, htname="t", mode=0)), HtableRefused("unknown action"))
        self.assertEqual(decode(body(action=4, htname="t")), HtableRefused("cname is missing"))

    def test_cells_must_be_the_first_key(self) -> None:
        self.assertRaises(DecodeError, decode, b'{"action":2,"cells":[]}')
        self.assertRaises(DecodeError, decode, b'{"cells":{}}')
        self.assertEqual(decode(b'{"cells":[],"action":2,"x":1}'), HtableCells(()))

    def test_what_one_cell_does_not_say_is_as_in_the_one_before(self) -> None:
        found = decode(
            b'{"cells":[{"htname":"t","cname":"a","type":2,"strval":"v","expire":9,"last_modified":7},{"cname":"b","x":1}]}'
        )
        self.assertEqual(found, HtableCells((HtableSet("t", "a", "v", 9, 7), HtableSet("t", "b", "v", 9))))

    def test_a_bad_cell_costs_itself_only(self) -> None:
        found = decode(b'{"cells":[1,{},{"htname":"t","cname":"a"},{"cname":null},{"cname":"b"}]}')
        assert isinstance(found, HtableCells)
        self.assertEqual(([cell.key for cell in found.cells], found.refused), (["a", "b"], 3))

    def test_sixty_kilobytes_of_nonsense_cost_little(self) -> None:
        began = process_time()
        for data in (b"[" * 60_000, b'{"cells":' * 6_000, b'{"cells":[' + b"{}," * 20_000 + b"{}]}",
                     b'{"a":' + b"9" * 60_000 + b"}", b'"' + b"\\u0000" * 9_000, b"\0" * 60_000,
                     b'{"cells":[' + b"[" * 900 + b"]" * 900 + b"]}"):  # fmt: skip
            try:
                decode(data)
            except DecodeError:
                pass
        self.assertLess(process_time() - began, 1.0)

    JSON = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(
                st.sampled_from(
                    ["cells", "action", "htname", "cname", "type", "strval", "intval", "mode", "expire",
                     "last_modified", "removed", "by", "count", "x"]
                ),
                inner,
                max_size=7,
            ),
        ),
        max_leaves=25,
    )  # fmt: skip

    @settings(max_examples=400, deadline=None)
    @given(st.one_of(st.binary(max_size=60), JSON.map(lambda value: json.dumps(value).encode())))
    def test_anything_is_read_or_refused(self, data: bytes) -> None:
        try:
            found = decode(data)
        except DecodeError:
            return
        cells = found.cells if isinstance(found, HtableCells) else ()
        for each in (found, *cells):
            if isinstance(each, HtableSet):
                encode_cell(cell_of(each), True, True)
                self.assertIsInstance(each.value, (int, str))
                self.assertTrue(isinstance(each.value, str) or -(2**31) <= each.value < 2**31)


TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=20)


class WriteTests(SynchronousTestCase):
    CELLS = st.builds(
        lambda key, value, expire, at, removed: Cell("t", key, value, expire, at, removed),
        TEXT.filter(bool),
        st.one_of(st.integers(-(2**31), 2**31 - 1), TEXT),
        st.integers(0, 2**32),
        st.integers(1, 2**50),
        st.booleans(),
    )

    @settings(max_examples=200, deadline=None)
    @given(st.lists(CELLS, min_size=1, max_size=5))
    def test_what_nodes_of_ours_write_they_read(self, cells: list[Cell]) -> None:
        found = decode(join([encode_cell(cell, True, True, "sip:192.0.2.9:5060") for cell in cells]))
        assert isinstance(found, HtableCells)
        for cell, each in zip(cells, found.cells):
            value = ("" if isinstance(cell.value, str) else cell.value) if cell.removed else cell.value
            self.assertEqual(
                each,
                HtableSet("t", cell.key, value, int(cell.expires_at), cell.last_modified, cell.removed,
                          "sip:192.0.2.9:5060"),
            )  # fmt: skip

    @settings(max_examples=200, deadline=None)
    @given(CELLS, st.booleans())
    def test_what_a_kamailio_reads(self, cell: Cell, has_expiry: bool) -> None:
        data = join([encode_cell(cell, False, has_expiry)])
        self.assertNotIn("last_modified", json.loads(data))
        found = decode(data)
        if cell.removed:
            self.assertEqual(found, HtableDelete("t", cell.key))
        elif has_expiry and cell.expires_at:
            self.assertEqual(found, HtableCells((HtableSet("t", cell.key, cell.value, int(cell.expires_at)),)))
        else:
            self.assertEqual(found, HtableSet("t", cell.key, cell.value))

    def test_which_go_together(self) -> None:
        cell = Cell("t", "k", "v", 0, 5)
        gone = cell._replace(removed=True)
        self.assertEqual(place_of(encode_cell(cell, False, False)), Place.BESIDE)
        self.assertEqual(place_of(encode_cell(gone, True, False)), Place.BESIDE)
        self.assertEqual(place_of(encode_cell(gone, False, False)), Place.ALONE)
        self.assertEqual(place_of(encode_sync_end(SyncEnd(3))), Place.ALONE)
        self.assertEqual(place_of(NO_CELLS), Place.ALONE)
        for is_regex in (True, False):
            self.assertEqual(place_of(encode_removal(CellRemoval("t", "x", is_regex, True), True)), Place.BETWEEN)

    def test_several_without_an_expiry_of_their_own(self) -> None:
        cells = [Cell("t", key, 1) for key in "ab"]
        self.assertEqual(
            join([encode_cell(cell, False, False) for cell in cells]),
            b'{"cells":[{"htname":"t","cname":"a","type":0,"intval":1,"expire":0},'
            b'{"htname":"t","cname":"b","type":0,"intval":1,"expire":0}]}',
        )

    def test_a_removal_among_ours(self) -> None:
        removal = CellRemoval("t", "^a", True, True, 77)
        self.assertEqual(decode(encode_removal(removal, True)), HtableRemove(removal))
        self.assertEqual(decode(encode_sync_end(SyncEnd(3))), SyncEnd(3))
        self.assertEqual(decode(encode_sync_end(SyncEnd(3, True))), SyncEnd(3, True))
        self.assertEqual(decode(SYNC_REQUEST_OF_OURS), HtableSync("", True))
