"""
A policy whose tables can be driven from outside: a MESSAGE to C{cmd-...}, as with C{kamailio/node.cfg}.
"""

from __future__ import annotations

import json
from typing import Any

from sipdmq.core.policy import DefaultPolicy
from sipdmq.errors import CommandError
from sipdmq.sip.message import response_to


class Policy(DefaultPolicy):
    """
    For the tests only: whoever reaches the node may do it.
    """

    async def route(self, request: Any, node: Any) -> None:
        user = getattr(request.uri, "user", "")
        if request.method == "MESSAGE" and user.startswith("cmd-"):
            arguments = json.loads(request.message.body)
            try:
                answer = await self.command(user.removeprefix("cmd-"), node.tables, *arguments)
                status = 200
            except (CommandError, ValueError) as error:
                answer, status = str(error), 500
            body = json.dumps(answer).encode()
            headers = [("Content-Type", "application/json")]
            request.is_decided = True
            request.transaction.respond(response_to(request.message, status, "tag", headers, body=body))
            return
        await super().route(request, node)

    async def command(self, name: str, tables: Any, *arguments: Any) -> Any:
        """
        @param name: of one of Kamailio's commands, C{"htable.get"}; or of a method of a table.
        """
        if name.startswith("htable."):
            return tables.commands()[name](*arguments)
        table = tables[arguments[0]]
        if name == "remove":
            return await table.remove(**arguments[1])
        if name == "items":
            return list(table.items())
        return getattr(table, name)(*arguments[1:])
