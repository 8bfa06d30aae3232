"""
The cells of one table: writes of this node and of others, expiry, bounds.
"""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.htable.tables import CLOCK_ERROR, Table, TableSettings, rank
from sipdmq.records import Cell, CellRemoval, CellValue, Origin

NOW = 1_700_000_000.0
MS = int(NOW * 1000)
THERE = "sip:192.0.2.2:5060"


def make(**changes: object) -> Table:
    return Table("t", TableSettings(forget_after=1000)._replace(**changes))  # type: ignore[arg-type]


def told(key: str, value: CellValue, at: int, **changes: object) -> Cell:
    """
    As another node of ours tells it.
    """
    return Cell("t", key, value, 0, at, told_by=THERE)._replace(**changes)  # type: ignore[arg-type]


class WriteTests(SynchronousTestCase):
    def test_what_was_written_is_read(self) -> None:
        table = make()
        change = table.set("k", "v", NOW)
        assert change is not None
        self.assertEqual((change.cell.value, change.previous, change.origin), ("v", None, Origin.LOCAL))
        found = table.find("k", NOW + 10**9)
        assert found is not None
        self.assertEqual((found.value, found.expires_at, found.last_modified, found.told_by), ("v", 0, MS, ""))
        self.assertEqual(len(table), 1)

    def test_a_write_follows_what_was_there_whatever_the_clock_says(self) -> None:
        table = make()
        table.merge(told("k", 1, MS + 5000), NOW)
        table.set("k", 2, NOW)
        self.assertEqual(table.stored("k").last_modified, MS + 5001)  # type: ignore[union-attr]

    def test_deletion_leaves_a_tombstone(self) -> None:
        table = make()
        self.assertIsNone(table.delete("k", NOW))
        table.set("k", 1, NOW)
        change = table.delete("k", NOW)
        assert change is not None
        self.assertTrue(change.cell.removed)
        self.assertEqual((table.find("k", NOW), len(table), table.tombstones), (None, 0, 1))
        table.set("k", 2, NOW)
        self.assertEqual((len(table), table.tombstones), (1, 0))

    def test_without_a_cluster_there_are_none(self) -> None:
        table = make(forget_after=0)
        table.set("k", 1, NOW)
        table.delete("k", NOW)
        self.assertIsNone(table.stored("k"))
        self.assertEqual((table.size, table.next_at()), (0, None))


class MergeTests(SynchronousTestCase):
    def test_the_later_write_counts(self) -> None:
        table = make()
        table.merge(told("k", 1, MS), NOW)
        self.assertEqual(table.merge(told("k", 2, MS - 1), NOW), (None, True))
        change, _ = table.merge(told("k", 3, MS + 1), NOW)
        self.assertEqual(change.cell.value if change else None, 3)

    def test_a_late_write_does_not_bring_back_what_was_deleted(self) -> None:
        table = make()
        table.merge(told("k", 1, MS), NOW)
        table.delete("k", NOW + 1)
        self.assertEqual(table.merge(told("k", 1, MS + 1), NOW + 2), (None, True))
        table.merge(told("k", 2, MS + 3000), NOW + 3)
        self.assertEqual(table.find("k", NOW + 3).value, 2)  # type: ignore[union-attr]

    def test_an_absurd_time_is_refused(self) -> None:
        table = make()
        self.assertEqual(table.merge(told("k", 1, MS + CLOCK_ERROR * 1000 + 1), NOW), (None, False))
        self.assertEqual(table.merge(told("k", 1, 0), NOW), (None, False))
        self.assertEqual(len(table), 0)

    def test_what_expired_on_its_way_takes_older_writes_with_it(self) -> None:
        table = make()
        table.merge(told("k", 1, MS), NOW)
        table.merge(told("k", 2, MS + 1, expires_at=NOW - 1), NOW)
        self.assertIsNone(table.find("k", NOW))
        table.merge(told("k", 1, MS), NOW)
        self.assertIsNone(table.find("k", NOW))

    def test_who_does_not_tell_when_is_believed(self) -> None:
        table = make()
        table.set("k", 1, NOW)
        change, _ = table.write("k", 2, THERE, None, NOW)
        assert change is not None
        self.assertEqual((change.cell.value, change.cell.last_modified, change.origin), (2, MS + 1, Origin.REPLICATED))
        table.delete("k", NOW)
        table.write("k", 3, THERE, None, NOW)
        self.assertEqual(table.find("k", NOW).value, 3)  # type: ignore[union-attr]
        self.assertEqual(table.write("k", 3, THERE, None, NOW), (None, True))  # once more
        self.assertIsNotNone(table.forget("k", THERE, NOW))
        self.assertIsNone(table.forget("k", THERE, NOW))

    def test_a_kamailio_that_was_away_does_not_overwrite_what_was_changed_here(self) -> None:
        table = make()
        table.set("own", 1, NOW)
        table.set("gone", 1, NOW)
        table.delete("gone", NOW)
        table.write("theirs", 1, THERE, None, NOW)
        for key in ("own", "gone", "theirs", "new"):
            table.write(key, 2, THERE, None, NOW, only_foreign=True)
        self.assertEqual({cell.key: cell.value for cell in table.live(NOW)}, {"own": 1, "theirs": 2, "new": 2})

    CELLS = st.builds(
        lambda key, value, at, removed: told(key, value, MS + at, removed=removed),
        st.sampled_from("ab"),
        st.one_of(st.integers(0, 2), st.sampled_from(["", "x"])),
        st.integers(1, 4),
        st.booleans(),
    )

    @settings(max_examples=200, deadline=None)
    @given(st.lists(CELLS, max_size=8), st.randoms())
    def test_the_order_of_arrival_does_not_matter(self, cells: list[Cell], random: object) -> None:
        one, other = make(), make()
        shuffled = [*cells, *cells[:3]]
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        for cell in cells:
            one.merge(cell, NOW)
        for cell in shuffled:
            other.merge(cell, NOW)

        def ranks(table: Table) -> dict[str, object]:
            return {key: rank(table.stored(key)) for key in table.keys()}  # type: ignore[arg-type] # noqa: SIM118

        self.assertEqual(ranks(one), ranks(other))
        for key in "ab":
            best = max((cell for cell in cells if cell.key == key), key=rank, default=None)
            if best is not None:
                self.assertEqual(rank(one.stored(key)), rank(best))  # type: ignore[arg-type]


class RemovalTests(SynchronousTestCase):
    def remove(self, table: Table, prefix: str, at: int = 0, now: float = NOW, told_by: str = "") -> CellRemoval:
        removal = table.begin_removal(
            CellRemoval("t", prefix, False, False, at, told_by), lambda cell: cell.key.startswith(prefix), now
        )
        for key in table.keys():  # noqa: SIM118
            if key.startswith(prefix):
                table.take(key, removal, now)
        return removal

    def test_it_takes_what_was_there_and_leaves_what_comes(self) -> None:
        table = make()
        table.merge(told("xa", 1, MS + 90), NOW)  # a clock that is ahead
        table.set("xb", 1, NOW)
        table.set("y", 1, NOW)
        self.remove(table, "x")
        table.set("xb", 2, NOW)
        self.assertEqual({cell.key: cell.value for cell in table.live(NOW)}, {"y": 1, "xb": 2})
        self.assertGreater(table.stored("xb").last_modified, MS + 90)  # type: ignore[union-attr]

    def test_what_was_written_before_it_and_comes_after_it_stays_away(self) -> None:
        table = make()
        self.remove(table, "x", MS + 10, told_by=THERE)
        table.merge(told("xa", 1, MS + 9), NOW)
        table.merge(told("y", 1, MS + 9), NOW)
        table.merge(told("xb", 1, MS + 11), NOW)
        self.assertEqual({cell.key for cell in table.live(NOW)}, {"y", "xb"})

    def test_what_was_written_after_it_and_comes_before_it_stays(self) -> None:
        table = make()
        table.merge(told("xa", 1, MS + 9), NOW)
        table.merge(told("xb", 1, MS + 11), NOW)
        self.remove(table, "x", MS + 10, told_by=THERE)
        self.assertEqual({cell.key for cell in table.live(NOW)}, {"xb"})

    def test_a_kamailio_may_write_again_at_once(self) -> None:
        table = make()
        table.set("xa", 1, NOW)
        removal = self.remove(table, "x")
        table.write("xa", 2, THERE, None, NOW)
        self.assertGreater(table.stored("xa").last_modified, removal.last_modified)  # type: ignore[union-attr]


class ExpiryTests(SynchronousTestCase):
    def expired(self, table: Table, now: float) -> list[str]:
        changes = list(table.due(now))
        self.assertTrue(all(change.origin is Origin.EXPIRED for change in changes))
        return [change.cell.key for change in changes]

    def test_autoexpire_and_an_expiry_of_its_own(self) -> None:
        table = make(autoexpire=10)
        table.set("usual", 1, NOW)
        table.set("short", 1, NOW, 2)
        self.assertIsNone(table.find("short", NOW + 2))
        self.assertEqual(table.next_at(), NOW + 2)
        self.assertEqual(self.expired(table, NOW + 9), ["short"])
        self.assertEqual(self.expired(table, NOW + 10), ["usual"])
        self.assertEqual((len(table), table.size, table.next_at()), (0, 0, None))

    def test_a_write_begins_it_anew_unless_updateexpire_is_off(self) -> None:
        for updateexpire, expected in ((True, NOW + 15), (False, NOW + 10)):
            table = make(autoexpire=10, updateexpire=updateexpire)
            table.set("k", 1, NOW)
            table.set("k", 2, NOW + 5)
            self.assertEqual(table.stored("k").expires_at, expected)  # type: ignore[union-attr]
            table.write("k", 3, THERE, None, NOW + 5)
            self.assertEqual(table.stored("k").expires_at, expected)  # type: ignore[union-attr]
            table.set("k", 4, NOW + 5, 100)
            self.assertEqual(table.stored("k").expires_at, NOW + 105)  # type: ignore[union-attr]

    def test_a_cell_can_be_given_another_time(self) -> None:
        table = make(autoexpire=10)
        self.assertIsNone(table.expire("k", 5, NOW))
        table.set("k", 1, NOW)
        table.expire("k", 50, NOW)
        self.assertEqual(self.expired(table, NOW + 20), [])
        table.expire_at("k", NOW + 30, THERE, NOW)
        self.assertEqual(table.stored("k").told_by, THERE)  # type: ignore[union-attr]
        self.assertEqual(self.expired(table, NOW + 30), ["k"])

    def test_deletions_are_forgotten_in_time(self) -> None:
        table = make()
        table.set("k", 1, NOW)
        table.delete("k", NOW)
        self.assertEqual(self.expired(table, NOW + 999), [])
        self.assertEqual(table.tombstones, 1)
        self.assertEqual(self.expired(table, NOW + 1000), [])
        self.assertEqual((table.tombstones, table.size), (0, 0))

    def test_taking_some_of_a_second_leaves_the_others_for_the_next_time(self) -> None:
        table = make()
        for number in range(10):
            table.set(f"k{number}", 1, NOW, 5)
        due = table.due(NOW + 5)
        for _ in range(4):
            next(due)
        self.assertEqual(len(table), 6)
        self.assertEqual(table.next_at(), NOW + 5)
        self.assertEqual(len(self.expired(table, NOW + 5)), 6)


class BoundTests(SynchronousTestCase):
    def test_cells(self) -> None:
        table = make(cells=2)
        self.assertIsNotNone(table.set("a", 1, NOW))
        self.assertIsNotNone(table.set("b", 1, NOW))
        self.assertIsNone(table.set("c", 1, NOW))
        self.assertEqual(table.merge(told("c", 1, MS), NOW), (None, False))
        self.assertEqual(table.write("c", 1, THERE, None, NOW), (None, False))
        self.assertIsNotNone(table.set("a", 2, NOW))
        table.delete("b", NOW)
        self.assertIsNotNone(table.set("c", 1, NOW))

    def test_bytes(self) -> None:
        table = make(size=10_000)
        self.assertIsNotNone(table.set("a", "x" * 9_000, NOW))
        self.assertIsNone(table.set("b", "x" * 2_000, NOW))
        self.assertIsNotNone(table.set("a", "x", NOW))
        self.assertIsNotNone(table.set("b", "x" * 2_000, NOW))

    def test_deletions_make_room_for_cells(self) -> None:
        table = make(size=10_000)
        for number in range(20):
            table.set(f"k{number}", "x" * 100, NOW)
            table.delete(f"k{number}", NOW)
        self.assertLessEqual(table.size, 10_000)
        self.assertIsNotNone(table.set("a", "x" * 9_000, NOW))
        self.assertLessEqual(table.size, 10_000)

    def test_deletions_of_what_was_never_here(self) -> None:
        table = make(cells=10)
        for number in range(100):
            table.merge(told(f"k{number}", 1, MS, removed=True), NOW)
        self.assertEqual((table.tombstones, len(table)), (10, 0))

    def test_a_cell_of_ours_that_is_deleted_makes_no_room_for_itself(self) -> None:
        table = make(size=1_000)
        table.set("a", "x" * 500, NOW)
        table.delete("a", NOW)
        self.assertIsNone(table.set("a", "x" * 900, NOW))
        self.assertLessEqual(table.size, 1_000)

    OPERATIONS = st.lists(
        st.tuples(st.sampled_from("sdmwfte"), st.sampled_from(["a", "b", "c", "x@1.2.3.4:5"]), st.integers(0, 30)),
        max_size=40,
    )

    @example([("s", "b", 27), ("s", "a", 27), ("m", "c", 30), ("d", "x@1.2.3.4:5", 5), ("f", "a", 10)])
    @settings(max_examples=150, deadline=None)
    @given(OPERATIONS)
    def test_the_counts_are_right_whatever_happens(self, operations: list[tuple[str, str, int]]) -> None:
        table = make(cells=3, size=2_000, autoexpire=7, forget_after=9)
        now = NOW
        for what, key, number in operations:
            if what == "s":
                table.set(key, "x" * number * 20, now, number or None)
            elif what == "d":
                table.delete(key, now)
            elif what == "m":
                table.merge(told(key, number, MS + number, removed=number % 3 == 0), now)
            elif what == "w":
                table.write(key, number, THERE, now + number, now)
            elif what == "f":
                table.forget(key, THERE, now)
            elif what == "t":
                now += number
                list(table.due(now))
            else:
                table.expire(key, number + 1, now)
            stored = [cell for cell in map(table.stored, table.keys()) if cell is not None]
            self.assertEqual(len(table), sum(not cell.removed for cell in stored))
            self.assertEqual(table.tombstones, sum(cell.removed for cell in stored))
            self.assertLessEqual(table.size, 2_000)
            shares = {cell.key for cell in stored if not cell.removed and "@" in cell.key}
            self.assertEqual(set(table.shares("x")), shares)
