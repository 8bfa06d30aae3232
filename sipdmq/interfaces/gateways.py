"""
Between the groups of gateways and whoever sends calls to them.
"""

from __future__ import annotations

from zope.interface import Interface

__all__ = ["IGateways"]


class IGateways(Interface):
    """
    The gateways of the configuration, and what is known of them now.
    """

    def group(name, request_uri=None):
        """
        Where a call to a group goes: each gateway of it that is there, the one to try first in front; drawn anew each
        time. To be tried one after the other, since their C{q} decreases.

        @param name: C{str}, the NAME of C{[gateway NAME]}.
        @param request_uri: the L{URI<sipdmq.sip.uri.URI>} that was dialled: each gateway is asked for the user of it in
            its own domain, C{"sip:+4912@gw.example.net;transport=tcp"}. L{None}: for itself.
        @return: a tuple of L{Destination<sipdmq.records.Destination>}, each with the gateway's URI as C{next_hop};
            empty when all have failed: such a call is answered with 503.
        @raise LookupError: there is no such group.
        """

    def report(next_hop, is_alive):
        """
        Tell what became of a call. For whatever is no gateway it does nothing.

        @param next_hop: that of the L{Destination<sipdmq.records.Destination>} which was tried.
        @param is_alive: C{bool}, false if it could not be reached, did not answer in time, or answered with 503.
        """
