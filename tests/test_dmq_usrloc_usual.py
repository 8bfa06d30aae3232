"""
The short ways of channel usrloc give what the long ones give, and refuse what they refuse.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from time import process_time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.core.contacts import identity
from sipdmq.dmq import conflict, usrloc_json
from sipdmq.dmq.usrloc_json import decode, encode, join
from sipdmq.dmq.usrloc_records import Usrloc, UsrlocRecord
from sipdmq.dmq.usrloc_usual import read_usual
from sipdmq.errors import DecodeError, ParseError
from sipdmq.sip.uri import is_plain_uri, parse_sip_uri
from tests.test_dmq_conflict import FORM, LIMITS, NOW, RECORDS, record
from tests.test_dmq_usrloc_json import messages

USUAL = UsrlocRecord(
    "alice", "uloc-1", "sip:alice@192.0.2.7:5062;transport=udp", "sip:192.0.2.7:5062", "", "c1", "Phone/1 (x86; \xfc)",
    "<urn:1>", 1700000600, 3, 0, 0, -1, 1700000000, 2**32 - 1, 0, 0,
)  # fmt: skip

_EDGES = (
    -1, 0, 1, 9, 1000, 1001, 10**9 - 1, 10**9, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 10**10, 2**40, 2**40 + 1, 10**13,
)  # fmt: skip
_TEXTS = st.one_of(
    st.sampled_from(
        ("", "a", "n/a", "sip:a@192.0.2.1", '"', "\\", "\x00", "\x1f", "\x7f", "\xe4", "\udcff", "\u2028", "'}")
    ),
    st.text(max_size=6),
    st.sampled_from((128, 129, 256, 257, 512, 513, 2048, 2049, 4096, 4097, 8192, 8193)).map(lambda size: size * "x"),
)
_KEYS = ("aor", "ruid", "c", "received", "path", "callid", "user_agent", "instance", "by")
_NUMBERS = ("expires", "cseq", "flags", "cflags", "q", "last_modified", "methods", "reg_id", "server_id")

#: Records of which most are usual, with a value or two that are not.
_CHANGES = st.dictionaries(st.sampled_from(_KEYS), _TEXTS, max_size=2).flatmap(
    lambda texts: st.dictionaries(st.sampled_from(_NUMBERS), st.sampled_from(_EDGES), max_size=2).map(
        lambda numbers: USUAL._replace(**texts, **numbers)
    )
)


def outcome(read: Callable[[bytes], tuple[Usrloc, ...]], data: bytes) -> object:
    """
    @return: what is read, or that it is refused.
    """
    try:
        return read(data)
    except DecodeError:
        return "refused"


class UsualFormTests(SynchronousTestCase):
    def check(self, data: bytes) -> None:
        """
        What the pattern takes, the long way reads likewise.
        """
        usual = read_usual(data)
        if usual is not None:
            self.assertEqual(usual, outcome(usrloc_json._decode_any, data))
        self.assertEqual(outcome(decode, data), outcome(usrloc_json._decode_any, data))

    def test_what_we_and_kamailio_write_is_usual(self) -> None:
        """
        Else all this were for nothing.
        """
        ours = USUAL._replace(user_agent="")
        gone = ours._replace(removed=True)
        self.assertEqual(read_usual(encode(ours)), (ours,))
        self.assertEqual(read_usual(encode(gone)), (gone,))
        by = ours._replace(by="sip:192.0.2.9:5060")
        several = join([encode(each) for each in (ours, gone, by)])
        self.assertEqual(read_usual(several), (ours, gone, by))
        for folder in ("captures/", "captures-6.1/"):
            found = [data for name, data in messages() if name.startswith(folder) and "foreign" not in name]
            usual = [data for data in found if read_usual(data) is not None]
            self.assertTrue(len(usual) > len(found) / 3, (folder, len(usual), len(found)))

    def test_every_capture(self) -> None:
        for _name, data in messages():
            self.check(data)

    @settings(max_examples=400, deadline=None)
    @given(st.lists(_CHANGES, min_size=1, max_size=3), st.booleans())
    def test_values_at_their_bounds(self, records: list[UsrlocRecord], removed: bool) -> None:
        try:
            data = join([usrloc_json._encode_any(each._replace(removed=removed)) for each in records])
        except UnicodeEncodeError:
            return  # half a character: nobody can send it
        self.check(data)

    @settings(max_examples=400, deadline=None)
    @given(
        st.lists(_CHANGES, min_size=1, max_size=3),
        st.integers(0, 1200),
        st.sampled_from(
            (b"", b'"', b",", b"}", b"}}", b"{", b" ", b"0", b"-", b"\\", b"\0", b"\xff", b'"aor":"x",', b'"1":')
        ),
        st.integers(0, 3),
    )
    def test_damaged_bytes(self, records: list[UsrlocRecord], at: int, put: bytes, cut: int) -> None:
        try:
            data = join([encode(each) for each in records])
        except UnicodeEncodeError:
            return
        at = min(at, len(data))
        self.check(data[:at] + put + data[at + cut :])

    def test_what_is_not_quite_usual(self) -> None:
        one = encode(USUAL._replace(user_agent=""))
        for data in (
            one + b" ", b" " + one, one + b"x", one[:-1], b'{"multi":{"1":' + one + b"},}",
            b'{"multi":{"1":' + one + b",}}", b'{"multi":{}}', b'{"multi":{"1":' + one + b"}}x",
            b'{"multi":{"1":' + one + b"}", b'{"multi":[' + one + b"]}",
            one.replace(b'"cseq":3', b'"cseq":03'), one.replace(b'"cseq":3', b'"cseq":3.0'),
            one.replace(b'"cseq":3', b'"cseq":"3"'), one.replace(b'"q":-1', b'"q":-0'),
            one.replace(b'"q":-1', b'"q":-2'),
            one.replace(b'"aor":"alice"', b'"aor":""'), one.replace(b'"ruid":"uloc-1"', b'"ruid":null'),
            one.replace(b'"cseq":3', '"cseq":\u0663'.encode()), one.replace(b"alice", b"al\\u0069ce"),
            b'{"multi":{' + b",".join([b'"1":' + one] * 1001) + b"}}",
        ):  # fmt: skip
            self.check(data)

    def test_it_costs_little(self) -> None:
        one = encode(USUAL._replace(user_agent=""))
        for data in (
            b'{"action":1,"aor":"' + 59_000 * b"a", b'{"multi":{' + 7_000 * b'"1":{"act', one[:-1] + 59_000 * b" ",
            b'{"multi":{' + b",".join([b'"1":' + one] * 140) + b"}", one[:40] + 59_000 * b"1" + one[40:],
        ):  # fmt: skip
            start = process_time()
            outcome(decode, data)
            self.assertLess(process_time() - start, 0.25, data[:20])

    @settings(max_examples=300, deadline=None)
    @given(_CHANGES, st.booleans())
    def test_written_alike(self, each: UsrlocRecord, removed: bool) -> None:
        each = each._replace(removed=removed)
        try:
            expected = usrloc_json._encode_any(each)
        except UnicodeEncodeError:
            return
        self.assertEqual(encode(each), expected)
        json.loads(expected.decode("utf-8", "surrogateescape"), strict=False)

    def test_many_fragments(self) -> None:
        parts = [b"%d" % number for number in range(200)]
        self.assertEqual(join(parts), b'{"multi":{%b}}' % b",".join([b'"%d":%d' % (at + 1, at) for at in range(200)]))


class PlainUriTests(SynchronousTestCase):
    @settings(max_examples=400, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                ("sip:", "sips:", "tel:", "a", "a.b+c-d_e", "@", "192.0.2.1", "1.2.3", "999.1.1.1", "h.example",
                 "[::1]", ":", "5060", "0", "65499", "65535", "65536", "99999", ";transport=udp", ";transport=",
                 ";transport", ";ob", ";x=1", ";x", ";=", "?a=b", " ", "\n", "%41", "%", "\u0663", ">")
            ),
            max_size=7,
        ).map("".join)
    )  # fmt: skip
    def test_what_is_plain_is_a_sip_uri(self, text: str) -> None:
        if is_plain_uri(text):
            try:
                parse_sip_uri(text)
            except ParseError as error:
                self.fail(f"{text!r}: {error.reason}")

    def test_what_phones_register_is_plain(self) -> None:
        for text in ("sip:192.0.2.1", "sip:a@192.0.2.1:65499", "sip:a@192.0.2.1:5060;transport=tcp",
                     "sip:a@192.0.2.1;ob", "sip:a@192.0.2.1:1;transport=udp;rinstance=ab12"):  # fmt: skip
            self.assertTrue(is_plain_uri(text), text)

    def test_others_are_looked_at_in_full(self) -> None:
        for text in ("sip:a@192.0.2.1:65536", "sip:a@192.0.2.1;x=1;x=2", "sip:a@192.0.2.1;transport=udp;transport=tcp",
                     "sip:a@h.example", "sip:a@192.0.2.1\n", "sip:a@192.0.2.1>"):  # fmt: skip
            self.assertFalse(is_plain_uri(text), text)


def names(records: Any) -> list[str]:
    return [identity(each) for each in records]


class MergeTests(SynchronousTestCase):
    @settings(max_examples=400, deadline=None)
    @given(st.lists(RECORDS, max_size=2), RECORDS, st.integers(-1, 3), st.sampled_from((0, 1, 50)))
    def test_at_a_glance_or_in_full(self, before: list[Any], incoming: Any, modified: int, contacts: int) -> None:
        limits = LIMITS._replace(contacts=contacts)
        records: Any = ()
        for each in before:
            records = conflict.merge_any(records, each, NOW, LIMITS, FORM.content, names(records)).records
        another = incoming._replace(last_modified=max(0, incoming.last_modified + modified))
        for each in (incoming, another, *records[:1]):
            short = conflict.merge(records, each, NOW, limits, FORM.content)
            full = conflict.merge_any(records, each, NOW, limits, FORM.content, names(records))
            self.assertEqual((tuple(short.records), *short[1:]), (tuple(full.records), *full[1:]))

    def test_the_usual_ways_are_taken(self) -> None:
        """
        What is new or refreshes the only record needs no look at how a record is written.
        """

        def encode_nothing(_: Any) -> bytes:
            raise AssertionError("not at a glance")

        first = record(last_modified=NOW - 5)
        second = first._replace(last_modified=NOW, cseq=6)
        self.assertEqual(conflict.merge((), first, NOW, LIMITS, encode_nothing).records, (first,))
        self.assertEqual(conflict.merge((first,), second, NOW, LIMITS, encode_nothing).records, (second,))
        self.assertEqual(conflict.merge((first,), first, NOW, LIMITS, encode_nothing), conflict.Merged((first,)))
