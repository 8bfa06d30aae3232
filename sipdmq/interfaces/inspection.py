"""
For whoever watches a running node.
"""

from __future__ import annotations

from zope.interface import Interface

__all__ = ["ICommands", "IInspectable"]


class IInspectable(Interface):
    """
    A part of the node that can tell how it is.
    """

    def snapshot():
        """
        @return: C{dict} of C{str} names, C{"transaction.servers"}, to C{int} or C{float}; cheap enough to be asked
            every second.
        """


class ICommands(Interface):
    """
    A part of the node that operators can have do something. Few parts do, while all have numbers to show: so this is no
    method of L{IInspectable}.
    """

    def commands():
        """
        @return: C{dict} of the names of Kamailio's RPC commands, C{"htable.get"}, to callables. Each takes the
            arguments of the command as C{str} or C{int}, by position; it returns what is to be shown (C{str}, C{int},
            lists and dicts of these), or a Deferred of it, and raises
            L{CommandError<sipdmq.errors.CommandError>} with what went wrong.
        """
