"""
Where the cells of a table lie: what may be in one, bounds, and what expires when.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.htable.cells import Cells, check_key, check_value
from sipdmq.records import Cell, CellValue


def cell(key: str, value: CellValue = 1, expires_at: float = 0, **changes: object) -> Cell:
    return Cell("t", key, value, expires_at, 1)._replace(**changes)  # type: ignore[arg-type]


class CheckTests(SynchronousTestCase):
    def test_values(self) -> None:
        for value in (0, -(2**31), 2**31 - 1, "", "ü", "\udcff"):
            self.assertEqual(check_value(value), value)
        self.assertIs(type(check_value(True)), int)
        for wrong in (2**31, -(2**31) - 1, "x" * 60_000, "\ud800", "a\0b"):
            self.assertRaises(ValueError, check_value, wrong)
        for kind in (None, 1.5, b"x"):
            self.assertRaises(TypeError, check_value, kind)
        self.assertRaises(TypeError, check_key, 1)
        for key in ("", "k" * 2000, "a\0"):
            self.assertRaises(ValueError, check_key, key)


class ExpiryTests(SynchronousTestCase):
    def test_a_cell_whose_time_is_changed_over_and_over_leaves_nothing_behind(self) -> None:
        cells = Cells(10, 10_000)
        for number in range(10_000):
            cells.put(cell("k", 1, 10.5 + number))
        self.assertLess(len(cells._seconds), 100)
        self.assertEqual(len(cells._buckets), 1)
        self.assertEqual(list(cells.due(10_009)), [])
        self.assertEqual([each.key for each in cells.due(10_010)], ["k"])
        self.assertIsNone(cells.next_at())

    def test_in_order_of_their_seconds(self) -> None:
        cells = Cells(10, 10_000)
        for key, at in (("a", 3), ("b", 1), ("c", 2.5), ("d", 0), ("e", 9)):
            cells.put(cell(key, 1, at))
        self.assertEqual([each.key for each in cells.due(5)], ["b", "a", "c"])
        self.assertEqual((cells.keys(), cells.next_at()), (["d", "e"], 9))


class BoundTests(SynchronousTestCase):
    def test_a_deletion_that_finds_no_room_is_forgotten(self) -> None:
        cells = Cells(1, 1_000)
        self.assertTrue(cells.put(cell("a", "x" * 590)))
        self.assertTrue(cells.put(cell("b", removed=True)))
        self.assertEqual((cells.keys(), cells.tombstones), (["a"], 0))

    def test_a_cell_that_finds_none_changes_nothing(self) -> None:
        cells = Cells(2, 1_000)
        cells.put(cell("a", "x" * 500))
        before = cells.size
        self.assertFalse(cells.put(cell("b", "x" * 500)))
        self.assertFalse(cells.put(cell("a", "x" * 600)))
        self.assertEqual((cells.size, cells.get("a")), (before, cell("a", "x" * 500)))

    OPERATIONS = st.lists(
        st.tuples(st.sampled_from("prdt"), st.sampled_from(["a", "b", "c", "x@1.2.3.4:5"]), st.integers(0, 30)),
        max_size=40,
    )

    @settings(max_examples=150, deadline=None)
    @given(OPERATIONS)
    def test_the_counts_are_right_whatever_happens(self, operations: list[tuple[str, str, int]]) -> None:
        cells = Cells(2, 2_000)
        for what, key, number in operations:
            if what == "p":
                cells.put(cell(key, "x" * number * 30, number))
            elif what == "r":
                cells.put(cell(key, 0, number, removed=True))
            elif what == "d" and cells.get(key) is not None:
                cells.drop(key)
            else:
                list(cells.due(number))
            stored = [found for found in map(cells.get, cells.keys()) if found is not None]
            self.assertEqual(len(cells), sum(not each.removed for each in stored))
            self.assertEqual(cells.tombstones, sum(each.removed for each in stored))
            self.assertLessEqual(max(len(cells), cells.tombstones), 2)
            self.assertLessEqual(cells.size, 2_000)
            expected = {(each.key, each.expires_at) for each in stored if each.expires_at}
            self.assertEqual({(key, second) for second, keys in cells._buckets.items() for key in keys}, expected)
            self.assertEqual(set(cells._buckets) - set(cells._seconds), set())
            shares = {each.key for each in stored if not each.removed and "@" in each.key}
            self.assertEqual(set(cells.shares("x")), shares)
        for key in cells.keys():  # noqa: SIM118 - a list
            cells.drop(key)
        self.assertEqual((cells.size, cells._shares, cells._buckets), (0, {}, {}))
