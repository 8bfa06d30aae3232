"""
Shared tables between sipdmq and a real Kamailio, both ways (WIRE §7).
"""

from __future__ import annotations

import json
import re
import shutil
import time
from typing import Any

from tests.interop.cluster import ClusterTestCase, Kamailio, Member, wait_until
from tests.interop.phone import Phone
from tests.interop.programs import CHECKOUT, require, run_program
from tests.interop.sipp import users_file

Cells = dict[str, Any]

TABLES: dict[str, dict[str, str]] = {
    "node": {"policy": "tests.interop.table_policy:Policy"},
    "htable t1": {"dmqreplicate": "1"},
    "htable tx": {"autoexpire": "6", "dmqreplicate": "1"},
    "htable tlong": {"autoexpire": "600", "dmqreplicate": "1"},
    "htable loc": {},
}


class TableTestCase(ClusterTestCase):
    """
    Nodes with the tables of C{kamailio/node.cfg}.
    """

    def own(self, number: int, *peers: int) -> Member:
        return self.member(number, *peers, **TABLES)

    def message(self, node: Kamailio | Member, command: str, fields: list[str], body: str = "") -> str:
        """
        Have a node do something.

        @return: the body of its answer.
        """
        phone = Phone((node.host, node.port), "tester", node.host)
        try:
            request = phone.make("MESSAGE", f"sip:cmd-{command}@{node.host}", fields)
            head, empty, _ = request.partition(b"\r\n\r\n")
            data = body.encode("utf-8", "surrogateescape")
            head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(data), head)
            answer = node.ask(head + empty + data)
        finally:
            phone.close()
        status, _, rest = answer.decode("utf-8", "surrogateescape").partition("\r\n")
        self.assertIn(" 200 ", status, (command, fields, body, rest))
        return rest.partition("\r\n\r\n")[2]

    def kam(self, node: Kamailio, command: str, **values: str) -> None:
        """
        A command of C{node.cfg}: C{kam(node, "set", Key="k", Val="v")}.
        """
        self.message(node, command, [f"X-{name}: {value}" for name, value in values.items()])

    def call(self, node: Member, command: str, *arguments: Any) -> Any:
        """
        A method of a table, or an operator's command.
        """
        return json.loads(self.message(node, command, [], json.dumps(arguments, ensure_ascii=False)))

    def cells(self, node: Kamailio | Member, table: str) -> Cells:
        """
        What is in a table; of a Kamailio, as its C{htable.dump} says.
        """
        if isinstance(node, Kamailio):
            dump = node.rpc("htable.dump", table) or []
            return {cell["name"]: cell["value"] for entry in dump for cell in entry["slot"]}
        return dict(self.call(node, "items", table))

    def assert_cells(self, table: str, expected: Cells, *nodes: Kamailio | Member) -> None:
        """
        Soon all nodes have these cells, and no others.
        """
        for node in nodes:
            wait_until(
                lambda node=node: self.cells(node, table) == expected,
                lambda node=node: (node.host, self.cells(node, table)),
            )


class ChangeTests(TableTestCase):
    """
    What is done at one node is so at the other.
    """

    network = "127.104.11"

    def setUp(self) -> None:
        super().setUp()
        self.there = self.kamailio(1, definitions="HT_SYNC=0")
        self.here = self.own(2, 1)
        self.assert_nodes([self.there, self.here])
        wait_until(lambda: self.here.snapshot()["htable.is_ready"], self.here.log)

    def assert_both(self, table: str, **expected: Any) -> None:
        self.assert_cells(table, expected, self.there, self.here)

    def expires_in(self, table: str, key: str) -> list[float]:
        """
        Seconds that a cell lives on at both nodes.
        """
        found = [
            self.there.rpc("htable.get", table, key)["item"]["expire"],
            self.call(self.here, "htable.get", table, key)["item"]["expire"],
        ]
        return [time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S")) - time.time() for text in found]

    def test_from_kamailio(self) -> None:
        there = self.there
        self.kam(there, "set", Key="k1", Val="hello")
        self.kam(there, "seti", Key="n", Val="-7")
        self.kam(there, "set", Key="kü", Val='grüße "q" \\ /')
        self.assert_both("t1", k1="hello", n=-7, kü='grüße "q" \\ /')
        self.kam(there, "inc", Key="n")
        self.kam(there, "del", Key="k1")
        self.assert_both("t1", n=-6, kü='grüße "q" \\ /')
        for key in ("rxa", "RXB", "swa", "swb", "other"):
            self.kam(there, "set", Key=key, Val="v")
        self.kam(there, "rmre", Val="^rx.*")
        self.kam(there, "rmsw", Val="sw")
        self.assert_both("t1", n=-6, other="v", kü='grüße "q" \\ /')
        for number in range(20):  # value and expiry in two messages, whose order nobody knows
            there.rpc("htable.setxs", "tlong", f"x{number}", "val", 50)  # type: ignore[arg-type]
        self.assert_both("tlong", **{f"x{number}": "val" for number in range(20)})
        for number in range(20):
            for seconds in self.expires_in("tlong", f"x{number}"):
                self.assertTrue(45 < seconds <= 52, seconds)
        self.kam(there, "set", Table="tx", Key="short", Val="v")
        self.assert_both("tx", short="v")
        self.assert_both("tx")
        self.assertEqual(self.here.snapshot()["htable.refused"], 0)

    def test_to_kamailio(self) -> None:
        here = self.here
        for key, value in (("k1", "hello"), ("n", -7), ("kü", 'grüße "q" \\ /'), ("ctl", "a\tb\nc\x01"), ("", None)):
            if key:
                self.call(here, "set", "t1", key, value)
        self.assert_both("t1", k1="hello", n=-7, ctl="a\tb\nc\x01", kü='grüße "q" \\ /')
        self.call(here, "increment", "t1", "n")
        self.call(here, "delete", "t1", "k1")
        self.call(here, "htable.delete", "t1", "ctl")
        self.assert_both("t1", n=-6, kü='grüße "q" \\ /')
        # A removal takes what was written before it, and nothing of what comes after it.
        for number in range(300):
            self.call(here, "set", "t1", f"rx{number}", "v")
        self.assertEqual(self.call(here, "remove", "t1", {"name_re": "^RX[0-9]+$"}), 300)
        self.call(here, "set", "t1", "rx5", "after")
        self.call(here, "set", "t1", "swa", "v")
        self.call(here, "remove", "t1", {"name_prefix": "sw"})
        self.call(here, "set", "t1", "val1", "bad-1")
        self.call(here, "remove", "t1", {"value_re": "^bad-[0-9]$"})
        self.assert_both("t1", n=-6, rx5="after", kü='grüße "q" \\ /')
        self.call(here, "set", "tlong", "usual", "v")
        self.call(here, "set", "tlong", "short", "v", 50)
        self.call(here, "htable.setxi", "tlong", "number", 5, 50)
        self.call(here, "set", "tlong", "changed", "v")
        self.call(here, "expire", "tlong", "changed", 50)
        self.assert_both("tlong", usual="v", short="v", number=5, changed="v")
        for key, least, most in (("usual", 590, 602), ("short", 45, 52), ("number", 45, 52), ("changed", 45, 52)):
            for seconds in self.expires_in("tlong", key):
                self.assertTrue(least < seconds <= most, (key, seconds))
        self.call(here, "set", "loc", "mine", "v")
        self.call(here, "set", "tx", "gone", "v", 1)
        self.assert_both("tx")
        self.assertEqual(self.cells(self.there, "loc"), {})
        self.kam(self.there, "rmre", Val=".")
        self.assert_both("t1")
        self.assertEqual(here.snapshot()["dmq.outbox_refused"], 0)


class SyncTests(TableTestCase):
    """
    A newcomer of either kind gets everything: 1,000 cells.
    """

    network = "127.104.12"

    def test_each_learns_from_the_other(self) -> None:
        first = self.own(1)
        texts = {f"text{number}": "v" * (number % 30) for number in range(900)}
        for batch in range(9):
            for number in range(100):
                self.call(first, "set", "t1", f"text{batch * 100 + number}", texts[f"text{batch * 100 + number}"])
        numbers = {f"number{number}": number - 50 for number in range(100)}
        for key, value in numbers.items():
            self.call(first, "set", "tlong", key, value, 100)
        second = self.kamailio(2, 1)  # dmq_init_sync
        self.assert_cells("t1", texts, second)
        self.assert_cells("tlong", numbers, second)
        wait_until(lambda: first.nodes().get(second.host) == "active", first.log)
        self.call(first, "delete", "t1", "text1")
        del texts["text1"]
        self.assert_cells("t1", texts, second)
        first.kill()
        third = self.own(3, 2)
        self.assert_cells("t1", texts, third)
        self.assert_cells("tlong", numbers, third)
        expire = self.call(third, "htable.get", "tlong", "number7")["item"]["expire"]
        self.assertLess(time.mktime(time.strptime(expire, "%Y-%m-%d %H:%M:%S")) - time.time(), 102)
        fourth = self.own(4, 3)  # from one of ours
        self.assert_cells("t1", texts, fourth)
        wait_until(lambda: fourth.snapshot()["htable.is_ready"], fourth.log)
        self.assertEqual(fourth.snapshot()["htable.refused"], 0)


class BanTests(ClusterTestCase):
    """
    etc/examples/ban.py: wrong passwords at one node, banned at the other.
    """

    network = "127.104.13"

    def setUp(self) -> None:
        super().setUp()
        require("sipsak")

    def guarded(self, number: int, *peers: int) -> Member:
        """
        A node with the example's policy.
        """
        node = Member(
            self.address(number),
            *(self.address(peer) for peer in peers),
            settings={
                "node": {"policy": "ban:Policy"},
                "auth": {"enable": "yes"},
                "htable ban": {"autoexpire": "600", "dmqreplicate": "1"},
                "htable failures": {"autoexpire": "300", "dmqreplicate": "1"},
            },
        )
        self.addCleanup(self.assert_calm, node)
        self.addCleanup(node.clean_up)
        shutil.copy(CHECKOUT / "etc" / "examples" / "ban.py", node.directory)
        (node.directory / "users").write_text(users_file("alice"))
        node.start()
        return node

    def register(self, node: Member, password: str) -> str:  # type: ignore[override]
        """
        @return: what sipsak says when it tries to register.
        """
        options = ("-U", "-i", "-d", "-vvv", "-r", "5060", "-u", "alice", "-a", password, "-p", node.host)
        place = (f"--local-ip={self.address(9)}", "-s", "sip:alice@localhost:5060")
        return run_program(["sipsak", *options, *place], timeout=20.0).text

    def test_ten_wrong_passwords_at_two_nodes(self) -> None:
        nodes = [self.guarded(1), self.guarded(2, 1)]
        self.assert_nodes(nodes)
        self.assertIn("200 OK", self.register(nodes[1], "alice-secret"))
        for number in range(10):
            self.assertIn("401 Unauthorized", self.register(nodes[number % 2], "guess"))
        for node in nodes:
            wait_until(lambda node=node: node.snapshot()["htable.ban.cells"] == 1, node.log)
            self.assertIn("403 Too Many Wrong Passwords", self.register(node, "alice-secret"))
            self.assertEqual(node.snapshot()["htable.failures.cells"], 0)
