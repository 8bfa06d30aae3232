"""
Between the dispatcher, the routing policy, the proxy, and whoever keeps records of calls.
"""

from __future__ import annotations

from zope.interface import Interface

__all__ = ["ICallListener", "IProxy", "IRoutingPolicy"]


class IRoutingPolicy(Interface):
    """
    Where requests go: what Kamailio's routing script is. The operator may name another one in C{[node] policy}.
    """

    def route(request, node):
        """
        Decide on one request: outside of a dialog, or in one that our Record-Route cannot vouch for. Plain, or
        C{async def}.

        @param request: the request, its routes preprocessed (L{sipdmq.core.routes.preprocess}).
        @param node: what may be done with it: authenticate, save, look up, relay.
        @raise RequestRefused: it is answered so.

        A policy may also have a method C{may_watch(watcher, presentity, event)}: whether somebody may subscribe to
        somebody, each as C{"bob@example.org"}, in an event package. True, false, or C{"pending"}: he is told nothing
        yet. It is asked again at each refresh. Without it L{may_watch<sipdmq.core.policy.may_watch>} counts.
        """


class IProxy(Interface):
    """
    Relays requests (RFC 3261 §16).
    """

    def relay(transaction, request, destinations, *, record_route, caller):
        """
        Forward a request to all destinations, parallel and one after the other, and answer it with what comes back.
        An INVITE is answered with 100 before this returns.

        @param transaction: L{IServerTransaction<sipdmq.interfaces.messages.IServerTransaction>} without an answer.
        @param request: L{RouteVerdict.request<sipdmq.core.routes.RouteVerdict>}, perhaps changed further: the
            transaction's own or a copy. It is not changed here, and must not be changed any more.
        @param destinations: non-empty sequence of L{Destination<sipdmq.records.Destination>}. None at all is the
            caller's to answer, with 404 or 480.
        @param record_route: C{bool}, whether we want to see the requests of the dialog: for the methods in
            L{DIALOG_METHODS<sipdmq.core.routes.DIALOG_METHODS>}.
        @param caller: C{str}, the authenticated user, or empty.
        @raise RequestRefused: nothing was sent and there is no state: 403 (KDMQ, and REGISTER for a domain of ours),
            440, 482, 483.
        @raise ParseError: Max-Breadth is no number.
        """

    def caller_of(request):
        """
        Who has shown his password for a request that we have relayed to ourselves, since the user who was called has
        his calls go to another one of ours: nobody can be asked again for what has been removed from it.

        @param request: L{Request<sipdmq.sip.message.Request>} as it was received.
        @return: C{str}, what was C{caller} in L{relay}; empty for any other request.
        """

    def follow(transaction, verdict, *, caller):
        """
        Forward a request within a dialog along its route set, never by the location store.

        @param verdict: L{RouteVerdict<sipdmq.core.routes.RouteVerdict>} with C{is_in_dialog}.
        @raise RequestRefused: as L{relay}; so for ParseError.
        """


class ICallListener(Interface):
    """
    Wants to know of calls: of each INVITE outside of a dialog, and of each BYE within one. All of it is told after it
    happened; what is raised is logged and goes nowhere.

    A call is told by its Call-ID and the From tag of its INVITE. Its BYE has that tag in From if the caller hung up,
    in To if the callee did.
    """

    def request_relayed(request, caller, source):
        """
        An INVITE outside of a dialog begins to be relayed: there was no answer yet. C{call_answered} or
        C{call_failed} follows, once.

        @param request: L{Request<sipdmq.sip.message.Request>} as it was received; not to be changed.
        @param caller: C{str}, the authenticated user, or empty.
        @param source: L{Source<sipdmq.records.Source>} that it came from.
        """

    def call_ringing(request, response):
        """
        The first provisional response, other than 100, goes to the caller.

        @param request: the very object that C{request_relayed} was told of.
        @param response: L{Response<sipdmq.sip.message.Response>}
        """

    def call_answered(request, response):
        """
        The first 2xx went to the caller. Others, of other branches of a fork, are not told.

        @param request: the very object that C{request_relayed} was told of.
        @param response: L{Response<sipdmq.sip.message.Response>}
        """

    def ack_relayed(request):
        """
        An ACK within a dialog whose route set leads through us was relayed. Also of a dialog whose INVITE another node
        of the cluster has relayed.

        @param request: L{Request<sipdmq.sip.message.Request>}
        """

    def call_failed(request, status):
        """
        The INVITE was answered with other than 2xx.

        @param request: the very object that C{request_relayed} was told of.
        @param status: C{int}, 300 to 699; 487 when the caller gave up.
        """

    def bye_relayed(request):
        """
        A BYE within a dialog whose route set leads through us was relayed; what is answered to it does not matter.
        Also of a dialog whose INVITE another node of the cluster has relayed.

        @param request: L{Request<sipdmq.sip.message.Request>}
        """
