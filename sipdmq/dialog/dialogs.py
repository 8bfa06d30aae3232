"""
What a dialog is and how it goes on, as Kamailio's module C{dialog} sees it: from the proxy's side, both legs. Pure.

A dialog only goes forward, unconfirmed to deleted; so what several nodes say of it comes to the same in any order, and
however often: the furthest state counts, and of one state what was said last.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from sipdmq.dialog.hashes import DialogId

__all__ = ["Dialog", "DialogState", "Leg", "Profile", "merged"]


class DialogState(IntEnum):
    """
    WIRE §9: Kamailio's numbers.
    """

    UNCONFIRMED = 1
    """The INVITE was forwarded."""
    EARLY = 2
    """Somebody rings."""
    CONFIRMED_NA = 3
    """Answered with 2xx, and no ACK has come yet; never told to others."""
    CONFIRMED = 4
    DELETED = 5
    """Ended, or refused."""


class Leg(NamedTuple):
    """
    One side.

    @ivar cseq: a number as text.
    @ivar route_set: the Record-Routes between it and us, joined by C{", "}.
    @ivar contact: a URI.
    """

    tag: str = ""
    cseq: str = ""
    route_set: str = ""
    contact: str = ""


NO_LEG: Final = Leg()


class Profile(NamedTuple):
    """
    What a dialog counts as: C{Profile("caller", "alice@example.org")}.

    @ivar value: empty for a profile without values.
    @ivar puid: what tells this mark from others in the cluster.
    """

    name: str
    value: str = ""
    puid: str = ""


class Dialog(NamedTuple):
    """
    One call.

    @ivar init_ts: when it began, seconds since the epoch.
    @ivar start_ts: when it was answered, 0 before that.
    @ivar lifetime: seconds from then until it is taken for dead.
    @ivar variables: C{(name, value)} in the order of their names.
    @ivar told_by: the node that it belongs to, C{"sip:192.0.2.2:5060"}: its timers run there; empty: this one.
    @ivar changed_at: when this node heard of its last change, seconds since the epoch.
    """

    id: DialogId
    call_id: str
    from_uri: str
    to_uri: str
    req_uri: str
    caller: Leg
    callee: Leg
    state: DialogState
    init_ts: int
    start_ts: int
    lifetime: int
    variables: tuple[tuple[str, str], ...] = ()
    profiles: tuple[Profile, ...] = ()
    told_by: str = ""
    changed_at: float = 0.0

    @property
    def is_over(self) -> bool:
        """
        Whether it has ended.
        """
        return self.state is DialogState.DELETED

    def expires_at(self, early_timeout: int, end_timeout: int) -> float:
        """
        When it is to be ended, or, being over, forgotten: seconds since the epoch.

        @param early_timeout: seconds that may pass until it is answered.
        @param end_timeout: seconds for which one that is over is remembered.
        """
        if self.is_over:
            return self.changed_at + end_timeout
        if self.state < DialogState.CONFIRMED_NA:
            return self.init_ts + early_timeout
        return (self.start_ts or self.init_ts) + self.lifetime


def merged(stored: Dialog, said: Dialog) -> Dialog:
    """
    What is known of a dialog after another node has spoken of it.

    @param said: of the same dialog. Empty strings and legs, and times of 0, say nothing.
    @return: C{stored} itself where nothing is new.
    """
    if said.state < stored.state:
        return stored
    known = stored._replace(
        caller=said.caller if said.caller.tag else stored.caller,
        callee=said.callee if said.callee.tag else stored.callee,
        state=said.state,
        start_ts=max(stored.start_ts, said.start_ts),
        lifetime=max(stored.lifetime, said.lifetime),
        variables=said.variables or stored.variables,
        profiles=said.profiles or stored.profiles,
    )
    if known == stored:
        return stored
    return known._replace(told_by=said.told_by, changed_at=said.changed_at)
