"""
Syncs and repairs of publications.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from sipdmq.dmq.donor import Donor
from sipdmq.interfaces.publications import IPublicationStore

__all__ = ["PublicationDonor"]


class PublicationDonor(Donor):
    """
    Sends publications to others, a few presentities at a time.
    """

    store_interface = IPublicationStore
    what = "publications"
    is_idempotent = False  # a Kamailio 5 stores twice what it is told twice

    def _page(self, cursor: Any) -> Deferred[tuple[dict[Any, list[Any]], Any]]:
        page = self._store.page(cursor)
        return succeed(({each: list(self._store.records(*each)) for each in page.presentities}, page.cursor))

    def _read(self, presentity: Any, found: list[Any]) -> None:
        found[:] = self._store.records(*presentity)
