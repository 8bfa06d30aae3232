"""
What is said on channel C{usrloc}, as values (WIRE §6). Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sipdmq.dmq.errands import SyncEnd, SyncRequest

__all__ = [
    "ALL_METHODS",
    "REMOVE",
    "UPDATE",
    "Usrloc",
    "UsrlocRecord",
    "UsrlocRefused",
]

ALL_METHODS: Final = 2**32 - 1
"""C{methods} of a contact that did not say what it understands."""

UPDATE: Final = 1
"""C{action} of a contact that is there."""
REMOVE: Final = 2
"""C{action} of a contact that is gone."""


class UsrlocRecord(NamedTuple):
    """
    A contact that is there or is gone, as it is on the wire; all but C{received}, C{sock} and C{xavps} in the order of
    Kamailio's keys.

    @ivar expires: seconds since the epoch, 0 for never; of one that is gone, the latest that was known of it.
    @ivar q: 0 to 1000, -1 when not given.
    @ivar sock: C{"udp:192.0.2.1:5060"}, empty when not given.
    @ivar xavps: compact JSON of an object; empty when not given, or when that is empty.
    @ivar by: between sipdmq nodes: the node that changed it last, where that is not the sender.
    @ivar removed: whether it is gone: C{action}.
    """

    aor: str
    ruid: str
    c: str = ""
    received: str = ""
    path: str = ""
    callid: str = ""
    user_agent: str = ""
    instance: str = ""
    expires: int = 0
    cseq: int = 0
    flags: int = 0
    cflags: int = 0
    q: int = 0
    last_modified: int = 0
    methods: int = 0
    reg_id: int = 0
    server_id: int = 0
    sock: str = ""
    xavps: str = ""
    by: str = ""
    removed: bool = False


class UsrlocRefused(NamedTuple):
    """
    One record of several that cannot be used: the others can.
    """

    reason: str


Usrloc = UsrlocRecord | SyncRequest | SyncEnd | UsrlocRefused
