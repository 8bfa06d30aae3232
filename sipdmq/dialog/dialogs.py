"""
How a dialog goes on, as Kamailio's module C{dialog} sees it. Pure.

A dialog only goes forward, unconfirmed to deleted; so what several nodes say of it comes to the same in any order, and
however often: the furthest state counts, and of one state what was said last.
"""

from __future__ import annotations

from typing import Final

from sipdmq.interfaces.dialogs import Dialog, Leg

__all__ = ["NO_LEG", "merged"]

NO_LEG: Final = Leg()


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
