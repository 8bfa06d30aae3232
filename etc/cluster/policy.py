"""
An example of a policy that speaks over the cluster: what a routing script does with Kamailio's module dmq.

    [node]
    policy = policy:Policy

L{Policy} does what the built-in policy does, and besides: it answers a MESSAGE to C{cluster-...} at this node with what
the functions of C{node.dmq} say, and keeps the nodes informed of a word of the day over a channel of its own, C{word}.
L{ReplicatingPolicy} and L{HubPolicy} copy REGISTERs, for nodes with C{[usrloc] enable = 0}.

Between them they call every function that there is.
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
        self.heard_of = 0

    async def route(self, request: Any, node: Any) -> None:
        """
        All requests but KDMQ.
        """
        user = getattr(request.uri, "user", "")
        if request.method == "MESSAGE" and user.startswith("cluster-") and request.source.host in TRUSTED:
            # A policy has to answer: this refusal is the answer.
            raise RequestRefused(480, reason=await self.command(user.removeprefix("cluster-"), request, node.dmq))
        await super().route(request, node)

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
        elif name == "count":
            return f"{self.heard_of} messages from other nodes"
        elif name == "leave":  # for good: all nodes are told, and this one asks for nothing more
            await dmq.leave()
            return "gone"
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
            if not node.dmq.is_from_node(request):  # of a network in [dmq] allow, but no node
                raise RequestRefused(403)
            # Now, whatever waits in the queue. Kamailio's "continue": it returns, and there is more to do here.
            if node.dmq.process_message(request, True):
                self.heard_of += 1
        else:
            node.dmq.handle_message(request)  # by the queue; it does not return: nothing behind it would be done


class ReplicatingPolicy(Policy):
    """
    Copies each REGISTER of a phone to all nodes, as C{dmq_t_replicate()} in a routing script. C{[dmq] replicate =
    REGISTER} does the same by itself; here it can be made to depend on something.
    """

    passes_on = False

    async def route(self, request: Any, node: Any) -> None:
        """
        All requests but KDMQ.
        """
        if request.method != "REGISTER":
            await super().route(request, node)
        elif node.dmq.is_from_node(request):  # a copy: the node that made it has seen the password
            node.save(request)
            if self.passes_on:
                node.dmq.t_replicate(request, skip_loop_test=True)
        else:
            await super().route(request, node)  # answered first: nobody waits for the copies
            node.dmq.t_replicate(request)


class HubPolicy(ReplicatingPolicy):
    """
    Passes copies on, too: for a node in the middle of others that do not know one another. Only Max-Forwards ends what
    goes round in circles, so there should be one such node.
    """

    passes_on = True
