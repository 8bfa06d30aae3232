"""
Between what is known of presentities and who is told of it.
"""

from __future__ import annotations

from zope.interface import Interface

__all__ = ["IEventState", "IEventStateListener"]


class IEventState(Interface):
    """
    The state of presentities for one or several event packages, composed: what a NOTIFY carries (RFC 6665 §4.2.2).
    """

    def packages():
        """
        The event packages that this one knows the state of.

        @return: a tuple of C{str}: C{("presence", "dialog")}
        """

    def document(aor, package):
        """
        What is known of a presentity now; for one of whom nothing is known, what the package says then.

        @param aor: the canonical AoR, C{"alice@example.org"}.
        @param package: one of L{packages}.
        @return: L{EventDocument<sipdmq.records.EventDocument>}, cheap to ask for: composed once for each change.
        """

    def watch(listener):
        """
        @param listener: L{IEventStateListener}, told of every change from now on.
        """


class IEventStateListener(Interface):
    """
    Wants to know when the state of a presentity changes.
    """

    def state_changed(aor, package, origin):
        """
        The document of a presentity is another one now. Told after it happened.

        @param origin: L{Origin<sipdmq.records.Origin>}: C{LOCAL} where this node brought it about, C{REPLICATED} where
            another one did, C{EXPIRED} where time did.
        """
