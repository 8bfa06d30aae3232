"""
For whoever watches a running node.
"""

from __future__ import annotations

from zope.interface import Interface

__all__ = ["IInspectable"]


class IInspectable(Interface):
    """
    A part of the node that can tell how it is.
    """

    def snapshot():
        """
        @return: C{dict} of C{str} names, C{"transaction.servers"}, to C{int} or C{float}; cheap enough to be asked
            every second.
        """
