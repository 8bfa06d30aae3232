"""
Where requests go when the operator says nothing else.
"""

from __future__ import annotations

from zope.interface import implementer

from sipdmq.core import refuse
from sipdmq.core.functions import NodeFunctions, RoutedRequest
from sipdmq.interfaces.routing import IRoutingPolicy

__all__ = ["DefaultPolicy"]


@implementer(IRoutingPolicy)
class DefaultPolicy:
    """
    A registrar and proxy for its own domains: our users register and call whom they like, others reach our users. With
    C{[presence] enable = 1} our users also publish their state.

    C{[node] policy = package.module:Class} puts another class in its place, which may derive from this one.
    """

    async def route(self, request: RoutedRequest, node: NodeFunctions) -> None:
        """
        See L{IRoutingPolicy.route}.
        """
        if request.method == "REGISTER" and node.is_ours(request.uri):
            await node.authenticate(request)
            node.save(request)
            return
        if node.takes_publish(request):
            await node.authenticate(request)
            node.handle_publish(request)
            return
        # Who calls himself one of our users has to prove it.
        if node.is_from_us(request):
            await node.authenticate(request)
        # A stranger may not send others through us: neither by a Route nor by a foreign Request-URI.
        if request.has_route and not request.user:
            raise refuse.forbidden("Preloaded Route")
        if node.is_ours(request.uri):
            node.relay(request, await node.lookup(request))
        elif request.user:
            node.relay(request)
        else:
            raise refuse.forbidden("Relaying Denied")
