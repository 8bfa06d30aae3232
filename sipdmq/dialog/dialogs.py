"""
How a dialog goes on, as Kamailio's module C{dialog} sees it. Pure.

A dialog only goes forward, unconfirmed to deleted; so what several nodes say of it comes to the same in any order, and
however often: the furthest state counts, and of one state what was said last.
"""

from __future__ import annotations

from typing import Final

from sipdmq.dialog.hashes import did_text
from sipdmq.interfaces.dialogs import Dialog, DialogId, Leg
from sipdmq.sip.grammar import split_commas
from sipdmq.sip.message import Request

__all__ = ["MAX_TEXT", "NO_LEG", "callee_in", "merged"]

MAX_TEXT: Final = 2048
"""Characters of a value that are kept of what a stranger writes."""

NO_LEG: Final = Leg()


def merged(stored: Dialog, said: Dialog) -> Dialog:
    """
    What is known of a dialog after another node has spoken of it.

    @param said: of the same dialog. Empty strings, legs without a tag, and times of 0 say nothing.
    @return: C{stored} itself where nothing is new. It belongs to another node then only if it went on there: what two
        have seen at the same time, each goes on to look after.
    """
    if said.state < stored.state:
        return stored
    known = stored._replace(
        caller=_leg(stored.caller, said.caller),
        callee=_leg(stored.callee, said.callee),
        state=said.state,
        start_ts=max(stored.start_ts, said.start_ts),
        lifetime=max(stored.lifetime, said.lifetime),
        variables=said.variables or stored.variables,
        profiles=said.profiles or stored.profiles,
    )
    if known == stored:
        return stored
    told_by = said.told_by if said.state > stored.state else stored.told_by
    return known._replace(told_by=told_by, changed_at=said.changed_at)


def _leg(stored: Leg, said: Leg) -> Leg:
    if said.tag != stored.tag:
        return said if said.tag else stored
    return Leg(*(new or old for new, old in zip(said, stored)))


def callee_in(ack: Request, dialog: DialogId) -> Leg | None:
    """
    What the ACK for a 2xx tells of the callee, at a node that has not seen the 2xx: its Request-URI is his Contact, and
    behind the Route that names the dialog stand those beyond us (RFC 3261 §12.2.1.1), as in Record-Route the other way
    round.

    @return: L{None}: it came with another Route on top. So it only passes here, and gets to the dialog's node yet.
    """
    routes = [part for value in ack.headers.get_all("route") for part in split_commas(value)]
    ours = did_text(dialog)
    if not routes or ours not in routes[0]:
        return None
    beyond = [route for route in routes if ours not in route]
    return Leg(ack.to.tag, "0", ", ".join(reversed(beyond))[:MAX_TEXT], ack.uri_text[:MAX_TEXT])
