"""
Syncs and repairs of dialogs.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred, succeed

from sipdmq.dmq.donor import Donor
from sipdmq.interfaces.dialogs import IDialogs

__all__ = ["DialogDonor"]

_PAGE: Final = 250


class DialogDonor(Donor):
    """
    Sends dialogs to others, and which have ended, a few at a time.
    """

    store_interface = IDialogs
    what = "dialogs"

    def _page(self, cursor: Any) -> Deferred[tuple[dict[Any, list[Any]], Any]]:
        """
        @param cursor: the names of the dialogs that are left; what is new since then is in the outbox already.
        """
        names = self._store.names() if cursor is None else cursor
        found: dict[Any, list[Any]] = {name: [] for name in names[:_PAGE]}
        for name, records in found.items():
            self._read(name, records)
        return succeed((found, names[_PAGE:] or None))

    def _read(self, name: Any, found: list[Any]) -> None:
        record = self._store.record(name)
        found[:] = [] if record is None else [record]
