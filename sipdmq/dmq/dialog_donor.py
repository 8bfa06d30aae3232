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
    Sends dialogs to others, a few at a time.
    """

    store_interface = IDialogs
    what = "dialogs"

    def _page(self, cursor: Any) -> Deferred[tuple[dict[Any, list[Any]], Any]]:
        """
        @param cursor: the names of the dialogs that are left; what is new since then is in the outbox already.
        """
        names = [dialog.id for dialog in self._store.all()] if cursor is None else cursor
        found: dict[Any, list[Any]] = {name: [] for name in names[:_PAGE]}
        for name, records in found.items():
            self._read(name, records)
        return succeed((found, names[_PAGE:] or None))

    def _read(self, name: Any, found: list[Any]) -> Deferred[Any]:
        dialog = self._store.get(name)
        found[:] = [] if dialog is None else [dialog]
        return succeed(None)
