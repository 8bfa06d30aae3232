"""
The policy of C{bench/htable.py}: a MESSAGE has so many cells written, a few in each turn of the reactor, and is
answered when that is done; another one asks how many there are.
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
    C{MESSAGE sip:FIRST-COUNT@node}, C{MESSAGE sip:cells@node}
    """

    async def route(self, request: Any, node: Any) -> None:
        if request.method != "MESSAGE":
            await super().route(request, node)
            return
        table = node.tables["t"]
        if request.uri.user == "cells":
            self._answer(request, str(sum(1 for _ in table.items())))
            return
        first, _, count = request.uri.user.partition("-")
        number, end = int(first), int(first) + int(count)
        while number < end:
            if node.dmq._service.membership.snapshot()["dmq.outbox_changes"] < 2000:
                for each in range(number, min(end, number + TURN)):
                    table.set(f"key{each % 50000}", "a value of some length")
                number += TURN
            await deferLater(reactor, 0, lambda: None)
        self._answer(request, "done")

    def _answer(self, request: Any, reason: str) -> None:
        request.is_decided = True
        request.transaction.respond(response_to(request.message, 200, "bench", reason=reason))
