"""
Where requests go when the operator says nothing else.
"""

from __future__ import annotations

from zope.interface import implementer

from sipdmq.core import refuse
from sipdmq.core.functions import NodeFunctions, RoutedRequest
from sipdmq.interfaces.routing import IRoutingPolicy

__all__ = ["DefaultPolicy", "may_watch"]

_SHARED = ("presence", "dialog")
"""The event packages that tell what is meant for others."""


def may_watch(watcher: str, presentity: str, event: str) -> bool:
    """
    Who may watch whom where the operator says nothing else: the presence and the calls of a user those of the same
    domain, all else (his mailbox, his contacts, who watches him) he alone.

    @param watcher: C{"bob@example.org"}, who subscribes; so for C{presentity}, whom.
    @param event: the event package.
    """
    if watcher == presentity:
        return True
    return event in _SHARED and watcher.rpartition("@")[2] == presentity.rpartition("@")[2]


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
        if node.takes_subscribe(request):
            if not request.message.to.tag:  # within a dialog that nobody else knows of, he has shown it before
                await node.authenticate(request)
            node.handle_subscribe(request)
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

    def may_watch(self, watcher: str, presentity: str, event: str) -> bool | str:
        """
        See L{may_watch<sipdmq.core.policy.may_watch>}. C{"pending"}: the watcher is told nothing, until he asks again
        and gets another answer.
        """
        return may_watch(watcher, presentity, event)
