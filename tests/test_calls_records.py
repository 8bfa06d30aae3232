"""
When a call is over, and what its record says.
"""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.calls.records import MAX_TEXT, CallRecord, CallTable, EndedBy, Start, encode_record

NOON = 1_767_268_800.0
"""2026-01-01T12:00:00Z."""

START = Start(
    "alice@example.org",
    "sip:alice@example.org",
    "sip:bob@example.org",
    "sip:bob@example.org;transport=tcp",
    "c1",
    "caller",
    "udp:198.51.100.7:5062",
)
CONTACT = "sip:bob@198.51.100.8:5062"


class CallTableTestCase(SynchronousTestCase):
    """
    @ivar finished: the records of all calls that are over.
    """

    max_open = 1000

    def setUp(self) -> None:
        self.table = CallTable(self.max_open, 3600.0)
        self.finished: list[CallRecord] = []

    def keep(self, record: CallRecord | None) -> None:
        if record is not None:
            self.finished.append(record)

    def run_call(self, events: str, call_id: str = "c1", start: float = 0.0) -> None:
        """
        @param events: one letter a second: C{i} the INVITE, C{r} ringing, C{a} answered, C{f} failed with 486,
            C{B} the caller hangs up, C{b} the callee does, C{.} nothing.
        """
        for second, event in enumerate(events):
            now = start + second
            if event == "i":
                self.keep(self.table.begin(START._replace(call_id=call_id), now))
            elif event == "r":
                self.table.ringing(call_id, "caller", now)
            elif event == "a":
                self.table.answered(call_id, "caller", 200, "callee", CONTACT, now)
            elif event == "f":
                self.keep(self.table.failed(call_id, "caller", 486, now))
            elif event == "B":
                self.keep(self.table.bye(call_id, "caller", "callee", now))
            elif event == "b":
                self.keep(self.table.bye(call_id, "callee", "caller", now))

    def told(self) -> list[tuple[Any, ...]]:
        """
        Of each record: when it started, rang, was answered and ended, how long it was, its status, who ended it.
        """
        return [
            (r.started_at, r.ringing_at, r.answered_at, r.ended_at, r.duration, r.status, r.ended_by.value)
            for r in self.finished
        ]


class AnsweredTests(CallTableTestCase):
    """
    Over at the BYE.
    """

    def test_who_hangs_up(self) -> None:
        for last, side in (("B", "caller"), ("b", "callee")):
            self.finished.clear()
            self.run_call(f"ir.a..{last}")
            self.assertEqual(self.told(), [(0, 1, 3, 6, 3, 200, side)])
            self.assertEqual(len(self.table), 0)

    def test_what_is_known_of_it(self) -> None:
        self.run_call("iraB")
        (record,) = self.finished
        self.assertEqual((record.start, record.contact, record.to_tag), (START, CONTACT, "callee"))

    def test_without_ringing(self) -> None:
        self.run_call("iaB")
        self.assertEqual(self.told(), [(0, None, 1, 2, 1, 200, "caller")])

    def test_the_first_ringing_and_the_first_answer_count(self) -> None:
        self.run_call("irraarB")
        self.assertEqual(self.told(), [(0, 1, 3, 6, 3, 200, "caller")])

    def test_a_repeated_bye_ends_nothing(self) -> None:
        self.run_call("iaBBb")
        self.assertEqual(len(self.finished), 1)

    def test_a_bye_with_wrong_tags_ends_nothing(self) -> None:
        self.run_call("ia")
        for call_id, from_tag, to_tag in (
            ("c2", "caller", "callee"),
            ("c1", "caller", "other"),
            ("c1", "other", "callee"),
            ("c1", "caller", ""),
            ("c1", "", "callee"),
            ("c1", "caller", "caller"),
            ("c1", "callee", "callee"),
        ):
            self.assertIsNone(self.table.bye(call_id, from_tag, to_tag, 5))
        self.assertEqual(len(self.table), 1)

    def test_a_bye_before_the_answer_ends_nothing(self) -> None:
        """
        RFC 3261 §15: the caller may send BYE on an early dialog. The INVITE is answered all the same.
        """
        self.run_call("irB")
        self.assertIsNone(self.table.bye("c1", "caller", "", 3))
        self.assertEqual((self.finished, len(self.table)), ([], 1))

    def test_a_failure_after_the_answer_ends_nothing(self) -> None:
        self.run_call("iafB")
        self.assertEqual(self.told(), [(0, None, 1, 3, 2, 200, "caller")])

    def test_calls_side_by_side(self) -> None:
        self.run_call("ia", "c1")
        self.run_call("ia", "c2", start=10)
        self.run_call("b", "c1", start=20)
        self.assertEqual([record.start.call_id for record in self.finished], ["c1"])
        self.run_call("b", "c2", start=30)
        self.assertEqual([record.duration for record in self.finished], [19, 19])

    def test_a_clock_that_stands_still(self) -> None:
        self.run_call("ia")
        self.keep(self.table.bye("c1", "caller", "callee", 0.5))
        self.assertEqual(self.finished[0].duration, 0.0)

    def test_a_record_says_who_called_whom(self) -> None:
        """
        As a policy's C{call_finished} asks for it.
        """
        self.run_call("iraB")
        (record,) = self.finished
        self.assertEqual((record.user, record.dialled), (START.user, START.dialled))


class FailedTests(CallTableTestCase):
    """
    Over at the final response.
    """

    def test_at_the_final_response(self) -> None:
        self.run_call("ir.f")
        self.assertEqual(self.told(), [(0, 1, None, 3, 0, 486, "callee")])
        self.assertEqual(len(self.table), 0)

    def test_whose_doing_it_is(self) -> None:
        for status, side in (
            (302, "callee"), (404, "callee"), (480, "callee"), (486, "callee"), (603, "callee"), (487, "caller"),
            (408, "timeout"), (500, "node"), (503, "node"),
        ):  # fmt: skip
            self.run_call("i")
            record = self.table.failed("c1", "caller", status, 1)
            assert record is not None
            self.assertEqual((record.status, record.ended_by.value), (status, side))

    def test_the_same_call_id_again(self) -> None:
        """
        After 407 from somebody else's proxy, or 486: another INVITE, another record.
        """
        self.run_call("if.iaB")
        self.assertEqual([record.status for record in self.finished], [486, 200])

    def test_one_that_was_never_begun(self) -> None:
        self.run_call("fab")
        self.assertEqual((self.finished, len(self.table)), ([], 0))

    def test_a_call_that_comes_by_twice_has_one_record(self) -> None:
        """
        Forked before us, or led back to us by its callee.
        """
        self.run_call("iiff")
        self.assertEqual(self.told(), [(0, None, None, 3, 0, 486, "callee")])

    def test_one_path_fails_and_the_other_is_answered(self) -> None:
        for events in ("iifaB", "iiafB"):
            self.finished.clear()
            self.run_call(events)
            self.assertEqual([(r.status, r.ended_by) for r in self.finished], [(200, EndedBy.CALLER)], events)


class BoundTests(CallTableTestCase):
    """
    Bounded in number, in time and in size.
    """

    max_open = 3

    def test_one_more_ends_the_oldest(self) -> None:
        for number in range(5):
            self.run_call("ia" if number == 0 else "i", f"c{number}", start=number * 10)
        self.assertEqual([record.start.call_id for record in self.finished], ["c0", "c1"])
        self.assertEqual(
            self.told(), [(0, None, 1, 30, 29, 200, "overflow"), (10, None, None, 40, 0, 0, "overflow")]
        )
        self.assertEqual(len(self.table), 3)

    def test_nobody_hangs_up(self) -> None:
        self.run_call("ia", "c1")
        self.run_call("i", "c2", start=100)
        self.assertEqual(self.table.expires_at, 3600)
        self.assertEqual(list(self.table.expired(3599.9)), [])
        self.finished += self.table.expired(3600)
        self.assertEqual(self.told(), [(0, None, 1, 3600, 3599, 200, "timeout")])
        self.run_call("B", "c1", start=3601)
        self.assertEqual((len(self.finished), self.table.expires_at), (1, 3700))
        self.finished += self.table.expired(10_000)
        self.assertEqual((len(self.finished), self.table.expires_at), (2, None))

    def test_the_node_is_stopped(self) -> None:
        self.run_call("ia", "c1")
        self.run_call("i", "c2")
        self.finished += self.table.stop(9)
        self.assertEqual(self.told(), [(0, None, 1, 9, 8, 200, "node"), (0, None, None, 9, 0, 0, "node")])
        self.assertEqual(len(self.table), 0)

    def test_long_values_are_cut(self) -> None:
        self.keep(self.table.begin(Start(*["x" * 8000] * 7), 0))
        self.table.answered("x" * 8000, "x" * 8000, 200, "t" * 8000, "s" * 8000, 1)
        # the tag is compared as far as it is kept
        self.keep(self.table.bye("x" * 8000, "x" * 8000, "t" * 8000, 2))
        (record,) = self.finished
        self.assertEqual({len(text) for text in (*record.start, record.contact, record.to_tag)}, {MAX_TEXT})

    def test_calls_whose_ids_begin_alike_are_told_apart(self) -> None:
        self.run_call("i", "x" * 1000 + "1")
        self.run_call("i", "x" * 1000 + "2")
        self.assertEqual(len(self.table), 2)


class MemoryTests(CallTableTestCase):
    max_open = 10_000

    def test_a_call_takes_a_kilobyte(self) -> None:
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1000):
            start = Start(*[f"{text}{number}"[:] for text in START])._replace(call_id=f"{number:032x}@198.51.100.7")
            self.table.begin(start, NOON + number)
            contact = f"sip:user{number}@198.51.100.8:5062;transport=tcp;ob"
            self.table.answered(start.call_id, start.from_tag, 200, f"{number:016x}", contact, NOON + number + 0.5)
        after, _ = tracemalloc.get_traced_memory()
        self.assertLess((after - before) / 1000, 1300)


class EncodeTests(SynchronousTestCase):
    """
    A line of JSON.
    """

    def record(self, **changes: Any) -> CallRecord:
        start = START._replace(**{key: changes.pop(key) for key in tuple(changes) if key in Start._fields})
        values = {"ringing_at": NOON + 1, "answered_at": NOON + 2.25, "contact": CONTACT, "to_tag": "callee", **changes}
        record = CallRecord(NOON, None, None, NOON + 62.7506, 200, EndedBy.CALLER, start, "", "")
        return record._replace(**values)

    def test_all_of_it(self) -> None:
        self.assertEqual(
            encode_record(self.record()),
            '{"start": "2026-01-01T12:00:00.000Z", "ring": "2026-01-01T12:00:01.000Z", '
            '"answer": "2026-01-01T12:00:02.250Z", "end": "2026-01-01T12:01:02.751Z", "duration": 60.501, '
            '"status": 200, "ended_by": "caller", "user": "alice@example.org", "from": "sip:alice@example.org", '
            '"to": "sip:bob@example.org", "dialled": "sip:bob@example.org;transport=tcp", '
            '"contact": "sip:bob@198.51.100.8:5062", "call_id": "c1", "from_tag": "caller", "to_tag": "callee", '
            '"source": "udp:198.51.100.7:5062"}',
        )

    def test_what_did_not_happen_is_null(self) -> None:
        record = self.record(ringing_at=None, answered_at=None, contact="", to_tag="", user="", status=486)
        values = json.loads(encode_record(record))
        self.assertEqual([key for key, value in values.items() if value is None],
                         ["ring", "answer", "user", "contact", "to_tag"])  # fmt: skip
        self.assertEqual((values["duration"], values["status"]), (0, 486))

    def test_times(self) -> None:
        for seconds, expected in (
            (NOON + 0.9994, "2026-01-01T12:00:00.999Z"),
            (NOON + 0.9996, "2026-01-01T12:00:01.000Z"),
            (NOON - 43_200.001, "2025-12-31T23:59:59.999Z"),
            (1_709_210_096.5, "2024-02-29T12:34:56.500Z"),
        ):
            self.assertEqual(json.loads(encode_record(self.record(ended_at=seconds)))["end"], expected)

    def test_whatever_is_in_it_it_is_one_line_of_ascii(self) -> None:
        for raw in (
            b"sip:caf\xe9@x", "sip:m\u00fcller@x".encode(), b'a"b\\c', b"a\r\nb", b"a\x00\x1b[2Jb\x7f", b"\xff\xfe\x80",
            "\u2028\u0085\U0001f600".encode(),
        ):  # fmt: skip
            text = raw.decode("utf-8", "surrogateescape")
            line = encode_record(self.record(from_uri=text, user=text, call_id=text, contact=text, to_tag=text))
            self.assertTrue(line.isascii())
            self.assertEqual(len(line.splitlines()), 1)
            values = json.loads(line)
            values["from"].encode()  # no lone surrogates: it can be written as UTF-8
            self.assertEqual({values[key] for key in ("user", "call_id", "contact", "to_tag")}, {values["from"]})

    def test_bytes_that_are_no_utf_8(self) -> None:
        text = b"sip:caf\xe9@m\xc3\xbcller".decode("utf-8", "surrogateescape")
        self.assertEqual(json.loads(encode_record(self.record(from_uri=text)))["from"], "sip:caf\\xe9@m\u00fcller")
        self.assertEqual(json.loads(encode_record(self.record(from_uri="\ud800x")))["from"], "\ufffdx")
