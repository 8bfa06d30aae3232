"""
The shared tables as policies and operators use them.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from sipdmq.config import HtableConfig
from sipdmq.errors import CommandError
from sipdmq.htable.service import Tables
from sipdmq.htable.view import SharedTable
from sipdmq.interfaces.inspection import ICommands, IInspectable
from sipdmq.interfaces.tables import ITable, ITableListener, ITables
from sipdmq.records import CellChange, CellRemoval, Origin

EPOCH = 1_700_000_000.0


@implementer(ITableListener)
class Listener:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def cell_changed(self, change: CellChange) -> None:
        self.events.append((change.origin.name, change.cell.key, None if change.cell.removed else change.cell.value))

    def cells_removed(self, removal: CellRemoval, origin: Origin) -> None:
        self.events.append((origin.name, removal.pattern))


class TablesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.tables = self.make()
        self.listener = Listener()
        self.tables.watch(self.listener)
        self.table = self.tables["t"]

    def make(self, **changes: Any) -> Tables:
        configs = {"t": HtableConfig(dmqreplicate=True, **changes), "own": HtableConfig(initval=7)}
        return Tables(self.clock, lambda: EPOCH + self.clock.seconds(), configs, "192.0.2.1:5060", 1000)

    def events(self) -> list[Any]:
        found, self.listener.events = self.listener.events, []
        return found


class PolicyTests(TablesTestCase):
    def test_the_interfaces(self) -> None:
        for interface in (ITables, IInspectable, ICommands):
            verifyObject(interface, self.tables)
        verifyObject(ITable, self.table)
        verifyObject(ITableListener, self.listener)

    def test_set_get_delete(self) -> None:
        self.assertIsNone(self.table.get("k"))
        self.assertEqual(self.table.get("k", "none"), "none")
        self.assertTrue(self.table.set("k", "v"))
        self.assertEqual((self.table.get("k"), "k" in self.table, len(self.table)), ("v", True, 1))
        self.assertEqual(list(self.table.items()), [("k", "v")])
        self.assertTrue(self.table.delete("k"))
        self.assertFalse(self.table.delete("k"))
        self.assertEqual(self.events(), [("LOCAL", "k", "v"), ("LOCAL", "k", None)])
        self.assertRaises(KeyError, lambda: self.tables["nix"])
        self.assertEqual(self.tables.names(), ("t", "own"))
        self.assertEqual((self.tables.is_shared("t"), self.tables.is_shared("own")), (True, False))

    def test_initval(self) -> None:
        own = self.tables["own"]
        self.assertEqual((own.get("k"), "k" in own), (7, False))
        self.assertEqual(own.increment("k"), 8)

    def test_increment(self) -> None:
        self.assertEqual([self.table.increment("n", by) for by in (1, 5, -9)], [1, 6, -3])
        self.table.set("text", "x")
        self.assertRaises(ValueError, self.table.increment, "text")
        self.table.set("n", 2**31 - 1)
        self.assertRaises(ValueError, self.table.increment, "n")

    def test_wrong_arguments(self) -> None:
        for arguments in (("k", 1, 0), ("k", 1, -5), ("k", 1, float("nan")), ("", 1), ("k", 2**31)):
            self.assertRaises(ValueError, self.table.set, *arguments)
        self.assertRaises(TypeError, self.table.set, "k", None)
        self.assertRaises(ValueError, self.table.remove)
        self.assertRaises(ValueError, lambda: self.table.remove(name_re="a", value_re="b"))
        self.assertRaises(ValueError, lambda: self.table.remove(name_re="("))
        self.assertRaises(ValueError, lambda: self.table.remove(name_prefix="x" * 1000))
        self.assertEqual(self.events(), [])

    def test_a_table_that_is_full_says_so(self) -> None:
        self.tables = self.make(max_cells=1)
        table = self.tables["t"]
        self.assertTrue(table.set("a", 1))
        self.assertFalse(table.set("b", 1))
        self.assertIsNone(table.increment("b"))
        self.assertEqual(self.tables.snapshot()["htable.refused"], 2)

    def test_a_counter_of_the_whole_cluster(self) -> None:
        self.assertEqual((self.table.count("x"), self.table.count("x", 2), self.table.total("x")), (1, 3, 3))
        self.tables.write("t", "x@192.0.2.2:5060", 10, "sip:192.0.2.2:5060")
        self.assertEqual((self.table.total("x"), self.table.count("x")), (13, 14))
        self.assertEqual(dict(self.table.items()), {"x@192.0.2.1:5060": 4, "x@192.0.2.2:5060": 10})
        self.table.reset("x")
        self.assertEqual((self.table.total("x"), len(self.table)), (0, 0))
        self.assertEqual(self.table.count("alice@example.org"), 1)

    def test_a_listener_that_breaks_disturbs_nobody(self) -> None:
        self.listener.events = None  # type: ignore[assignment]
        self.assertTrue(self.table.set("k", 1))
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)


class ExpiryTests(TablesTestCase):
    def test_cells_go_when_their_time_is_over(self) -> None:
        self.table.set("long", 1, 100)
        self.table.set("short", 1, 10)
        self.events()
        self.clock.advance(10)
        self.assertEqual(self.events(), [("EXPIRED", "short", 1)])
        self.clock.advance(90)
        self.assertEqual(self.events(), [("EXPIRED", "long", 1)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_at_once_go_in_turns(self) -> None:
        for number in range(1200):
            self.table.set(f"k{number}", 1, 10)
        self.events()
        self.clock.advance(10)
        self.assertEqual(len(self.events()), 500)
        self.clock.advance(0.001)
        self.assertEqual(len(self.events()), 500)
        self.clock.advance(0.001)
        self.assertEqual(len(self.events()), 200)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_expiry_can_be_changed(self) -> None:
        self.assertFalse(self.table.expire("k", 5))
        self.table.set("k", 1)
        self.assertTrue(self.table.expire("k", 5))
        self.clock.advance(5)
        self.assertNotIn("k", self.table)
        self.tables.stop()


class RemovalTests(TablesTestCase):
    def count(self, **pattern: str) -> int:
        return self.successResultOf(self.table.remove(**pattern))  # type: ignore[no-any-return]

    def test_each_kind(self) -> None:
        for key, value in (("ra", "x1"), ("RB", "y1"), ("s", "x2"), ("n", 12), ("t", "zx")):
            self.table.set(key, value)
        self.events()
        self.assertEqual(self.count(name_re="^r"), 2)
        self.assertEqual(self.count(value_re="2"), 1)  # text only: 12 is a number
        self.assertEqual(self.count(value_prefix="x"), 0)
        self.assertEqual(self.count(value_prefix="z"), 1)
        self.assertEqual(self.count(name_prefix="n"), 1)
        self.assertEqual(self.events(), [("LOCAL", pattern) for pattern in ("^r", "2", "x", "z", "n")])

    def test_a_large_table_is_gone_through_in_steps(self) -> None:
        for number in range(1000):
            self.table.set(f"k{number}", 1)
        removing = self.table.remove(name_prefix="k")
        self.assertNoResult(removing)
        self.assertEqual(len(self.table), 1000)
        self.table.set("k5", "later")
        self.table.set("k_new", "later")
        self.clock.pump([0.001] * 10)
        self.assertEqual(self.successResultOf(removing), 999)
        self.assertEqual(dict(self.table.items()), {"k5": "later", "k_new": "later"})

    def test_long_texts_make_the_steps_shorter(self) -> None:
        for key in ("k1", "k2", "k3"):
            self.table.set(key, "x" * 20_000)
        self.assertNoResult(removing := self.table.remove(value_prefix="x"))
        self.clock.pump([0.001] * 10)
        self.assertEqual(self.successResultOf(removing), 3)

    def test_one_that_costs_too_much_removes_nothing(self) -> None:
        number, bits = 1, []
        for _ in range(30_000):
            number = (number * 1103515245 + 12345) % 2**31
            bits.append("ab"[number >> 16 & 1])
        self.table.set("v", "".join(bits))
        self.table.set("w", "abc")
        failing = self.table.remove(value_re="a.{100}b{90}c|abc")
        self.failureResultOf(failing, ValueError)
        self.assertEqual(len(self.table), 2)

    def test_of_another_node(self) -> None:
        self.table.set("xa", 1)
        self.events()
        removal = CellRemoval("t", "x", False, False, 0, "sip:192.0.2.2:5060")
        self.assertEqual(self.successResultOf(self.tables.remove(removal)), 1)
        self.assertEqual(self.events(), [("REPLICATED", "x")])
        (kept,) = self.tables.removals("t")
        self.assertEqual(kept.told_by, "sip:192.0.2.2:5060")


class CommandTests(TablesTestCase):
    """
    Kamailio's RPC, with its answers.
    """

    def call(self, name: str, *arguments: Any) -> Any:
        return self.tables.commands()[f"htable.{name}"](*arguments)

    def refused(self, name: str, *arguments: Any) -> str:
        return str(self.assertRaises(CommandError, self.call, name, *arguments))

    def test_setting_and_getting(self) -> None:
        self.assertEqual(self.call("sets", "t", "a", "hello"), "Ok. Key set to new value.")
        self.call("seti", "t", "b", "7")
        self.call("setxs", "t", "c", "val", 50)
        self.call("setxi", "t", "d", 8, "50")
        self.assertEqual(self.call("get", "t", "a"), {"item": {"name": "a", "value": "hello", "flags": 2}})
        self.assertEqual(self.call("get", "t", "b"), {"item": {"name": "b", "value": 7, "flags": 0}})
        self.assertRegex(self.call("get", "t", "c")["item"]["expire"], r"^2023-11-1\d \d\d:\d\d:\d\d$")
        self.assertEqual(self.call("setex", "t", "a", 5), "Ok")
        self.assertEqual(
            self.call("dump", "t")[:2],
            [
                {"entry": 0, "size": 1, "slot": [{"name": "b", "value": 7, "type": "int"}]},
                {"entry": 1, "size": 1, "slot": [{"name": "c", "value": "val", "type": "str"}]},
            ],
        )
        self.assertEqual(len(self.events()), 5)

    def test_deleting(self) -> None:
        self.table.set("a", 1)
        self.assertEqual(self.call("delete", "t", "a"), "Ok. Key deleted.")
        self.table.set("a", 1)
        self.events()
        self.assertEqual(self.call("flush", "t"), "Ok. Htable flushed.")
        self.assertEqual((len(self.table), self.events()), (0, []))

    def test_all_tables(self) -> None:
        self.table.set("a", 1)
        self.assertEqual(
            self.call("stats"),
            [{"name": name, "slots": 0, "all": count, "min": 0, "max": 0} for name, count in (("t", 1), ("own", 0))],
        )
        self.assertEqual(
            self.call("listTables")[0],
            {
                "name": "t",
                "dbtable": "",
                "dbmode": 0,
                "expire": 0,
                "updateexpire": 1,
                "size": 100_000,
                "dmqreplicate": 1,
            },
        )

    def test_errors(self) -> None:
        for name, *arguments in (("get", "k"), ("sets", "k", "v"), ("delete", "k"), ("dump",), ("flush",)):
            self.assertEqual(self.refused(name, "nix", *arguments), "500 - No such htable", name)
        self.assertEqual(self.refused("get", "t", "k"), "500 - Key name doesn't exist in htable.")
        self.assertEqual(self.refused("delete", "t", "k"), "404 - Key not found in htable.")
        self.assertEqual(self.refused("setex", "t", "k", 5), "404 - Key not found in htable.")
        self.assertEqual(self.refused("seti", "t", "k", "x"), "500 - 'x' is no number")
        self.assertIn("32 bits", self.refused("seti", "t", "k", 2**40))
        self.assertIn("more than 0", self.refused("setxs", "t", "k", "v", 0))
        self.assertIn("more than 0", self.refused("setex", "t", "k", 0))


class ViewTests(TablesTestCase):
    def test_it_shows_what_it_is(self) -> None:
        self.assertEqual(repr(self.table), "<SharedTable t: 0 cells>")
        self.assertIsInstance(self.table, SharedTable)
        self.assertIsInstance(self.table.remove(name_re="x"), Deferred)
