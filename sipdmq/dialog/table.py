"""
All dialogs that a node knows, found by their names, by what passes of them, and counted by their profiles. Pure.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final

from sipdmq.interfaces.dialogs import Dialog, DialogId, EndedDialog

__all__ = ["DialogTable"]

_MAX_ENDED: Final = 10_000
"""Of which it is remembered that they are over."""


class DialogTable:
    """
    A dict of dialogs, and indexes beside it.
    """

    def __init__(self, limit: int, early_timeout: int, end_timeout: int) -> None:
        """
        @param limit: how many.
        @param early_timeout: as for L{Dialog.expires_at}; so C{end_timeout}.
        """
        self._limit = limit
        self._early_timeout = early_timeout
        self._end_timeout = end_timeout
        self._dialogs: dict[DialogId, Dialog] = {}
        self._by_call: dict[tuple[str, str], DialogId] = {}
        self._sizes: Counter[tuple[str, str]] = Counter()
        self._totals: Counter[str] = Counter()
        self._queue: list[tuple[float, DialogId]] = []  # when to look at it again, at the latest
        self._postponed: set[DialogId] = set()
        self._ended: OrderedDict[DialogId, EndedDialog] = OrderedDict()

    def __len__(self) -> int:
        return len(self._dialogs)

    def __iter__(self) -> Iterator[Dialog]:
        return iter(tuple(self._dialogs.values()))

    @property
    def is_full(self) -> bool:
        """
        Whether there is no room for one more.
        """
        return len(self._dialogs) >= self._limit

    def get(self, dialog: DialogId) -> Dialog | None:
        """
        One dialog by its name.
        """
        return self._dialogs.get(dialog)

    def find(self, call_id: str, tag: str, other_tag: str = "") -> Dialog | None:
        """
        One dialog by what passes of it.

        @param tag: of its caller, or with C{other_tag} of either side.
        """
        for caller_tag, callee_tag in ((tag, other_tag), (other_tag, tag)):
            dialog = self._dialogs.get(self._by_call.get((call_id, caller_tag), DialogId(0, 0)))
            if dialog is not None and (not other_tag or not dialog.callee.tag or dialog.callee.tag == callee_tag):
                return dialog
        return None

    def names(self) -> list[DialogId]:
        """
        Of all dialogs, and of those that were L{forget}ten lately.
        """
        return [*self._ended, *self._dialogs]

    def ended(self, dialog: DialogId) -> EndedDialog | None:
        """
        One that was here, and ended, lately: what comes late of it says nothing new.
        """
        return self._ended.get(dialog)

    def put(self, dialog: Dialog) -> bool:
        """
        Take a dialog, new or as it is now.

        @return: C{False}: there is no room for one more.
        """
        stored = self._dialogs.get(dialog.id)
        if stored is None and self.is_full:
            return False
        if stored is not None:
            self._uncount(stored)
        self._dialogs[dialog.id] = dialog
        self._by_call[dialog.call_id, dialog.caller.tag] = dialog.id
        if not dialog.is_over:
            for profile in dialog.profiles:
                self._sizes[profile.name, profile.value] += 1
                self._totals[profile.name] += 1
        due = dialog.expires_at(self._early_timeout, self._end_timeout)
        if stored is None or dialog.is_over or due < stored.expires_at(self._early_timeout, self._end_timeout):
            heappush(self._queue, (due, dialog.id))
        return True

    def forget(self, dialog: DialogId, told_by: str, now: float) -> Dialog | None:
        """
        Let go of a dialog, or know of one that never came here that it has ended.

        @param told_by: who says that, where it is not over; so C{now}: when.
        @return: as it was.
        """
        stored = self._dialogs.pop(dialog, None)
        self._postponed.discard(dialog)
        if stored is not None and stored.is_over:
            told_by, now = stored.told_by, stored.changed_at
        self._ended.setdefault(dialog, EndedDialog(dialog, told_by, now))
        if len(self._ended) > _MAX_ENDED:
            self._ended.popitem(last=False)
        if stored is not None:
            self._uncount(stored)
            if self._by_call.get((stored.call_id, stored.caller.tag)) == dialog:
                del self._by_call[stored.call_id, stored.caller.tag]
        return stored

    def _uncount(self, dialog: Dialog) -> None:
        if dialog.is_over:
            return
        for profile in dialog.profiles:
            key = (profile.name, profile.value)
            self._sizes[key] -= 1
            if not self._sizes[key]:
                del self._sizes[key]
            self._totals[profile.name] -= 1
            if not self._totals[profile.name]:
                del self._totals[profile.name]

    def profile_size(self, name: str, value: str | None = None) -> int:
        """
        How many dialogs that are not over count as that.

        @param value: L{None}: whatever value they have.
        """
        return self._totals[name] if value is None else self._sizes[name, value]

    def next_at(self) -> float | None:
        """
        When L{due} has something, at the earliest: seconds since the epoch.
        """
        return self._queue[0][0] if self._queue else None

    def postpone(self, dialog: DialogId, now: float, patience: float) -> bool:
        """
        Look at a dialog that was due once more, C{patience} seconds later.

        @return: C{False}: it was postponed before.
        """
        if dialog in self._postponed:
            return False
        self._postponed.add(dialog)
        heappush(self._queue, (now + patience, dialog))
        return True

    def due(self, now: float) -> list[Dialog]:
        """
        The dialogs whose time is over. Each is told of once, and again when it has changed.
        """
        found = []
        while self._queue and self._queue[0][0] <= now:
            _, name = heappop(self._queue)
            dialog = self._dialogs.get(name)
            if dialog is None:
                continue
            due = dialog.expires_at(self._early_timeout, self._end_timeout)
            if due <= now:
                found.append(dialog)
            else:
                heappush(self._queue, (due, name))
        return found
