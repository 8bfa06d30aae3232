"""
The sections C{[htable NAME]}: the tables that policies share, with the names of Kamailio's module C{htable}.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sipdmq.config.values import key, switch, whole
from sipdmq.errors import ConfigError

__all__ = ["HtableConfig", "table_name"]


def _initval(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,10}", text) or not -(2**31) <= int(text) < 2**31:
        raise ValueError("must be a whole number of 32 bits, or empty")
    return int(text)


@dataclass(frozen=True)
class HtableConfig:
    """
    C{[htable NAME]}: one table. What is called C{size} at Kamailio, the number of slots of its hash, is no limit and is
    not needed here.

    @ivar autoexpire: seconds, 0: cells do not expire by themselves.
    @ivar updateexpire: whether a write begins that time anew.
    @ivar initval: what a cell that is not there counts as; L{None}: nothing.
    @ivar max_bytes: of all cells together.
    """

    autoexpire: int = key(0, whole(0, 2**31 - 1))
    updateexpire: bool = key(True, switch)
    initval: int | None = key(None, _initval)
    dmqreplicate: bool = key(False, switch)
    max_cells: int = key(100_000, whole(1, 10**8))
    max_bytes: int = key(64 * 2**20, whole(2**16, 2**36))


def table_name(path: str, section: str) -> str:
    """
    @raise ConfigError: the section does not name a table.
    """
    name = section.removeprefix("htable").strip()
    if section != f"htable {name}" or not re.fullmatch(r"[A-Za-z0-9_]{1,64}", name):
        raise ConfigError(path, section, "", "must read [htable NAME], its name of letters, digits and '_'")
    return name
