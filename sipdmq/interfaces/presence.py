"""
Between what is known of presentities, who is told of it, and who asks for that.
"""

from __future__ import annotations

from zope.interface import Interface

from sipdmq.interfaces.messages import ITransactionUser

__all__ = ["IEventState", "IEventStateListener", "ISubscriptionServer"]


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


class ISubscriptionServer(ITransactionUser):
    """
    Serves SUBSCRIBE (RFC 6665 §4.2). As L{ITransactionUser} it takes those within dialogs, which nobody has to decide
    on: their tag is one that only the watcher has.
    """

    def serves(request):
        """
        Whether a SUBSCRIBE can be served here: it is for a user of ours and an event package that we know, or within
        the dialog of a subscription.

        @param request: L{Request<sipdmq.sip.message.Request>}
        @return: C{bool}
        @raise ParseError: Event cannot be read.
        """

    def subscribe(transaction, request, watcher):
        """
        Serve and answer one.

        @param transaction: L{IServerTransaction<sipdmq.interfaces.messages.IServerTransaction>}
        @param request: the L{Request<sipdmq.sip.message.Request>} of the transaction, our own Routes taken out of it.
        @param watcher: C{str}, who it is: C{"bob@example.org"}.
        @raise RequestRefused: nothing was changed: 403, 404, 406, 423, 481, 482, 489, 500, 503, 513; so for ParseError.
        """
