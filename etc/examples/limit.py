"""
An example of a policy: each user has at most two calls at the same time, in the whole cluster.

    [node]
    policy = limit:Policy

    [dialog]
    enable = 1
    profiles_with_value = caller

Copy it beside the INI file of each node. For the rest it does what the built-in policy does.
"""

from __future__ import annotations

from typing import Any

from sipdmq.core.policy import DefaultPolicy

MOST = 2
"""Calls of one user, wherever they go; one that rings counts, too."""


class Policy(DefaultPolicy):
    """
    The profile C{caller} says who has how many calls. All nodes of a cluster count together, since they tell one
    another of their calls (C{[dialog] enable_dmq}); two calls that begin within the same few milliseconds, at two
    nodes, may both be let through.
    """

    async def route(self, request: Any, node: Any) -> None:
        """
        All requests outside of the dialogs that are under way.
        """
        if request.method == "INVITE" and node.is_from_us(request):
            uri = request.message.from_.uri
            caller = await node.authenticate(request) or f"{uri.user}@{uri.host}"  # the latter where [auth] is off
            node.dialogs.limit(request, "caller", caller, MOST)
        await super().route(request, node)
