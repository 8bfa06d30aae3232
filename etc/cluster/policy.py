"""
An example of a policy that speaks over the cluster: what a routing script does with Kamailio's module dmq.

    [node]
    policy = policy:Policy

It does what the built-in policy does, and besides: it answers a MESSAGE to C{cluster-...} at this node with what the
functions of C{node.dmq} say, and keeps the nodes informed of a word of the day over a channel of its own, C{word}.
"""

from __future__ import annotations

from typing import Any

from sipdmq.core.policy import DefaultPolicy
from sipdmq.errors import RequestRefused

TRUSTED = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
"""Who may use the commands: no stranger, as they change the cluster."""


class Policy(DefaultPolicy):
    """
    C{node.dmq} is L{sipdmq.dmq.functions.DMQFunctions}, where all functions stand with their arguments.
    """

    def __init__(self) -> None:
        self.word = "none yet"

    async def route(self, request: Any, node: Any) -> None:
        """
        All requests but KDMQ.
        """
        user = getattr(request.uri, "user", "")
        if request.method == "MESSAGE" and user.startswith("cluster-") and request.source.host in TRUSTED:
            # A policy has to answer: this refusal is the answer.
            raise RequestRefused(480, reason=await self.command(user.removeprefix("cluster-"), request, node.dmq))
        await super().route(request, node)
        # With [usrloc] enable = 0, a REGISTER could be copied to all nodes here, in place of [dmq] replicate:
        #     if request.method == "REGISTER" and not node.dmq.is_from_node(request):
        #         node.dmq.t_replicate(request)

    async def command(self, name: str, request: Any, dmq: Any) -> str:
        """
        @return: what came of it.
        """
        word = request.message.body.decode("utf-8", "replace")
        if name == "listen":  # a channel of our own: from now on its messages come to heard()
            dmq.register_channel("word", self.heard)
        elif name == "tell":  # to all active nodes; it waits for their answers
            return f"{await dmq.bcast_message('word', word, 'text/plain')} nodes have it"
        elif name == "tell-2":  # to one
            return "taken" if await dmq.send_message("word", "sip:127.0.0.2:5060", word) else "not taken"
        elif name == "here":  # as if node 2 had sent it: at once, or by the queue
            dmq.process_custom("word", "sip:127.0.0.2:5060", word)
            dmq.handle_custom("word", "sip:127.0.0.2:5060", word)
        elif name == "nodes":
            return " ".join(f"{each.name}={each.status.name}" for each in dmq.nodes())
        elif name == "add":
            dmq.add_node("sip:127.0.0.4:5060")
        elif name == "disable":
            dmq.change_status("sip:127.0.0.4:5060", "disabled")
        elif name == "remove":
            dmq.remove_node("sip:127.0.0.4:5060")
        return f"the word is {self.word}"

    def heard(self, message: Any) -> int:
        """
        A message on the channel C{word}.

        @return: the status of the answer; it never has a body.
        """
        self.word = message.body.decode("utf-8", "replace")
        return 200

    def route_kdmq(self, request: Any, node: Any) -> None:
        """
        KDMQ from nodes that may send. Without this method, and where it decides nothing, messages are handled.
        """
        if request.kdmq.channel == "word":
            if not node.dmq.is_from_node(request):
                raise RequestRefused(403)
            node.dmq.process_message(request)  # now; handle_message(request) by the queue. Neither returns, unless
            # asked to by a second argument, True.
