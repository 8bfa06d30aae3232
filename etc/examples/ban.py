"""
An example of a policy: whoever tries ten wrong passwords, at any nodes of the cluster, is banned from all of them.

    [node]
    policy = ban:Policy

    [htable ban]
    autoexpire = 600
    dmqreplicate = 1

    [htable failures]
    autoexpire = 300
    dmqreplicate = 1

Copy it beside the INI file of each node. For the rest it does what the built-in policy does.
"""

from __future__ import annotations

from typing import Any

from sipdmq.core.policy import DefaultPolicy
from sipdmq.errors import RequestRefused, WrongCredentials

ATTEMPTS = 10
"""Wrong passwords within the time that C{[htable failures] autoexpire} says, counted from the last one."""
TRUSTED = ("127.0.0.1",)
"""Never banned. Put the addresses of your gateways and of NATs with many phones here."""


class Policy(DefaultPolicy):
    """
    Two tables: C{ban} has who is banned, and C{failures} how often each address has failed.

    Each node counts in a cell of its own (C{count}), and what counts is the sum: with one cell for all, two nodes that
    count at the same time would lose a step, since what is replicated is the result.
    """

    async def route(self, request: Any, node: Any) -> None:
        """
        All requests outside of the dialogs that are under way.
        """
        host = request.source.host
        if host in node.tables["ban"]:
            raise RequestRefused(403, reason="Too Many Wrong Passwords")
        try:
            await super().route(request, node)
        except WrongCredentials:
            if host not in TRUSTED and node.tables["failures"].count(host) >= ATTEMPTS:
                node.tables["ban"].set(host, "wrong passwords")
                node.tables["failures"].reset(host)
            raise
