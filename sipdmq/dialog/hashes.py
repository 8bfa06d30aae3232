"""
The names of dialogs as Kamailio's module C{dialog} has them (WIRE §9). Pure.
"""

from __future__ import annotations

import re
from typing import Final

from sipdmq.interfaces.dialogs import DialogId

__all__ = ["core_hash", "did_text", "find_did"]

_MASK: Final = 0xFFFFFFFF
_DID: Final = re.compile(r";did=([0-9a-f]{1,8})\.([0-9a-f]{1,8})(?=[;>?]|$)")


def core_hash(data: bytes, size: int) -> int:
    """
    The hash by which Kamailio spreads dialogs.

    @param size: C{hash_size}, a power of two.
    """
    total, whole = 0, len(data) // 4 * 4
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "big")
        total = (total + (word ^ (word >> 3))) & _MASK
    word = 0
    for byte in data[whole:]:
        word = ((word << 8) + byte) & _MASK
    total = (total + (word ^ (word >> 3))) & _MASK
    return ((total + (total >> 11)) + ((total >> 13) + (total >> 23))) & (size - 1)


def did_text(dialog: DialogId) -> str:
    """
    The parameter of a Record-Route by which a Kamailio finds a dialog again: C{";did=80d.bdd1"}.
    """
    entry, number = f"{dialog.h_entry:x}"[::-1], f"{dialog.h_id:x}"[::-1]
    return f";did={entry}.{number}"


def find_did(route: str) -> DialogId | None:
    """
    The dialog that a Route names.

    @param route: the value of the header field.
    """
    found = _DID.search(route)
    return None if found is None else DialogId(int(found[1][::-1], 16), int(found[2][::-1], 16))
