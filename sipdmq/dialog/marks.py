"""
What policies say of calls that are not relayed yet: what these count as, and what is kept with them. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from sipdmq.interfaces.dialogs import MAX_MARKS, Profile

__all__ = ["Call", "Marks"]

Call = tuple[str, str]
"""A call by its Call-ID and the tag of its caller."""
_MAX_CALLS: Final = 10_000
"""A policy may have refused them after that."""
_MAX_BYTES: Final = 8_192
"""Of all that is said of one call: it goes to other nodes with the rest of the dialog, in one datagram."""


class _Marked(NamedTuple):
    profiles: list[Profile]
    variables: dict[str, str]

    def size(self) -> int:
        texts = [text for profile in self.profiles for text in profile]
        texts += [*self.variables, *self.variables.values()]
        return sum(len(text.encode("utf-8", "surrogateescape")) for text in texts)


class Marks:
    """
    The calls that something was said of, the oldest first.
    """

    def __init__(self) -> None:
        self._calls: OrderedDict[Call, _Marked] = OrderedDict()

    def __len__(self) -> int:
        return len(self._calls)

    def add_profile(self, call: Call, profile: Profile) -> None:
        """
        @raise ValueError: the call counts as too many things.
        """
        marked = self._marked(call)
        marked.profiles.append(profile)
        if len(marked.profiles) > MAX_MARKS or marked.size() > _MAX_BYTES:
            marked.profiles.pop()
            raise ValueError(f"a call has at most {MAX_MARKS} profiles, of {_MAX_BYTES} bytes with its variables")

    def set_variable(self, call: Call, name: str, value: str) -> None:
        """
        @raise ValueError: there are too many, or it is too long.
        """
        marked = self._marked(call)
        changed = _Marked(marked.profiles, {**marked.variables, name: value})
        if len(changed.variables) > MAX_MARKS or changed.size() > _MAX_BYTES:
            raise ValueError(f"a call has at most {MAX_MARKS} variables, of {_MAX_BYTES} bytes with its profiles")
        self._calls[call] = changed

    def _marked(self, call: Call) -> _Marked:
        marked = self._calls.get(call)
        if marked is None:
            if len(self._calls) >= _MAX_CALLS:
                self._calls.popitem(last=False)
            marked = self._calls[call] = _Marked([], {})
        return marked

    def take(self, call: Call) -> tuple[tuple[Profile, ...], tuple[tuple[str, str], ...]] | None:
        """
        The call is relayed.

        @return: its profiles, and its variables by name; L{None}: nothing was said of it.
        """
        marked = self._calls.pop(call, None)
        return None if marked is None else (tuple(marked.profiles), tuple(sorted(marked.variables.items())))
