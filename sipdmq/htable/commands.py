"""
The commands of Kamailio's module C{htable} for operators, with its names, arguments and answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sipdmq.config import HtableConfig
from sipdmq.errors import CommandError
from sipdmq.interfaces.tables import ITable
from sipdmq.records import Cell, CellValue

__all__ = ["TableCommands"]

SET = "Ok. Key set to new value."


class TableCommands:
    """
    What operators can ask of the tables.
    """

    def __init__(
        self,
        configs: Mapping[str, HtableConfig],
        tables: Mapping[str, ITable],
        find: Callable[[str, str], Cell | None],
        flush: Callable[[str], None],
    ) -> None:
        """
        @param find: the live cell of a table and key.
        @param flush: empties a table.
        """
        self._configs = configs
        self._tables = tables
        self._find = find
        self._flush = flush

    def all(self) -> dict[str, Callable[..., Any]]:
        """
        The commands by name.
        """
        return {
            "htable.get": self.get,
            "htable.delete": self.delete,
            "htable.sets": self.sets,
            "htable.seti": self.seti,
            "htable.setxs": self.setxs,
            "htable.setxi": self.setxi,
            "htable.setex": self.setex,
            "htable.dump": self.dump,
            "htable.flush": self.flush,
            "htable.stats": self.stats,
            "htable.listTables": self.list_tables,
        }

    def _table(self, name: str) -> Any:
        table = self._tables.get(name)
        if table is None:
            raise CommandError(500, "No such htable")
        return table

    def get(self, table: str, key: str) -> dict[str, Any]:
        """
        C{htable.get TABLE KEY}
        """
        self._table(table)
        cell = self._find(table, str(key))
        if cell is None:
            raise CommandError(500, "Key name doesn't exist in htable.")
        is_text = isinstance(cell.value, str)
        item: dict[str, Any] = {"name": cell.key, "value": cell.value, "flags": 2 if is_text else 0}
        if cell.expires_at:
            item["expire"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(cell.expires_at))
        return {"item": item}

    def delete(self, table: str, key: str) -> str:
        """
        C{htable.delete TABLE KEY}
        """
        if not self._table(table).delete(str(key)):
            raise CommandError(404, "Key not found in htable.")
        return "Ok. Key deleted."

    def _set(self, table: str, key: str, value: CellValue, expire: int | None) -> str:
        try:
            was_set = self._table(table).set(str(key), value, expire)
        except (TypeError, ValueError) as error:
            raise CommandError(500, str(error)) from None
        if not was_set:
            raise CommandError(500, "Cell can't be set: the table is full.")
        return SET

    def sets(self, table: str, key: str, value: str) -> str:
        """
        C{htable.sets TABLE KEY TEXT}
        """
        return self._set(table, key, str(value), None)

    def seti(self, table: str, key: str, value: int) -> str:
        """
        C{htable.seti TABLE KEY NUMBER}
        """
        return self._set(table, key, _number(value), None)

    def setxs(self, table: str, key: str, value: str, expire: int) -> str:
        """
        C{htable.setxs TABLE KEY TEXT SECONDS}
        """
        return self._set(table, key, str(value), _number(expire))

    def setxi(self, table: str, key: str, value: int, expire: int) -> str:
        """
        C{htable.setxi TABLE KEY NUMBER SECONDS}
        """
        return self._set(table, key, _number(value), _number(expire))

    def setex(self, table: str, key: str, expire: int) -> str:
        """
        C{htable.setex TABLE KEY SECONDS}
        """
        found = self._table(table)
        try:
            was_there = found.expire(str(key), _number(expire))
        except ValueError as error:
            raise CommandError(500, str(error)) from None
        if not was_there:
            raise CommandError(404, "Key not found in htable.")
        return "Ok"

    def dump(self, table: str) -> list[dict[str, Any]]:
        """
        C{htable.dump TABLE}. Kamailio: has the cells by slot of its hash; here each is one of its own.
        """
        return [
            {
                "entry": number,
                "size": 1,
                "slot": [{"name": key, "value": value, "type": "str" if isinstance(value, str) else "int"}],
            }
            for number, (key, value) in enumerate(self._table(table).items())
        ]

    def flush(self, table: str) -> str:
        """
        C{htable.flush TABLE}. As among Kamailios, the other nodes keep theirs.
        """
        self._flush(table)
        return "Ok. Htable flushed."

    def stats(self) -> list[dict[str, Any]]:
        """
        C{htable.stats}. Kamailio: C{slots}, C{min} and C{max} are of its hash; there is none here.
        """
        return [{"name": name, "slots": 0, "all": len(table), "min": 0, "max": 0} for name, table in self._items()]

    def _items(self) -> list[tuple[str, Any]]:
        return list(self._tables.items())

    def list_tables(self) -> list[dict[str, Any]]:
        """
        C{htable.listTables}
        """
        return [
            {
                "name": name,
                "dbtable": "",
                "dbmode": 0,
                "expire": config.autoexpire,
                "updateexpire": int(config.updateexpire),
                "size": config.max_cells,
                "dmqreplicate": int(config.dmqreplicate),
            }
            for name, config in self._configs.items()
        ]


def _number(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise CommandError(500, f"'{value}' is no number") from None
