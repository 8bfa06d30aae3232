"""
The policy of C{bench/htable.py}: a MESSAGE has so many cells written, a few in each turn of the reactor, and is
answered when that is done.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from sipdmq.core.policy import DefaultPolicy
from sipdmq.sip.message import response_to

TURN = 50
"""Cells: the outboxes take more than that, and what comes back has its turn."""


class Policy(DefaultPolicy):
    """
    C{MESSAGE sip:FIRST-COUNT@node}
    """

    async def route(self, request: Any, node: Any) -> None:
        if request.method != "MESSAGE":
            await super().route(request, node)
            return
        first, _, count = request.uri.user.partition("-")
        table = node.tables["t"]
        number, end = int(first), int(first) + int(count)
        while number < end:
            if node.dmq._service.membership.snapshot()["dmq.outbox_changes"] < 2000:
                for each in range(number, min(end, number + TURN)):
                    table.set(f"key{each % 50000}", "a value of some length")
                number += TURN
            await deferLater(reactor, 0, lambda: None)
        request.is_decided = True
        request.transaction.respond(response_to(request.message, 200, "done"))
