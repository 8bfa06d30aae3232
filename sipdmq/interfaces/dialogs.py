"""
Between the dialogs that a node knows and whoever replicates them.
"""

from __future__ import annotations

from zope.interface import Interface

__all__ = ["IDialogListener", "IDialogs"]


class IDialogs(Interface):
    """
    The calls under way in the cluster.
    """

    def all():
        """
        All dialogs, those that have just ended among them.

        @return: a sequence of L{Dialog<sipdmq.dialog.dialogs.Dialog>}
        """

    def get(dialog):
        """
        One of them.

        @param dialog: L{DialogId<sipdmq.dialog.hashes.DialogId>}
        @return: L{Dialog<sipdmq.dialog.dialogs.Dialog>}, L{None}: not known.
        """

    def merge(dialog):
        """
        Take what another node says of a dialog, known here or not: the further state counts.

        @param dialog: L{Dialog<sipdmq.dialog.dialogs.Dialog>}, C{told_by} not empty.
        @return: C{bool}, whether there was room for it.
        """

    def remove(dialog):
        """
        Another node says that a dialog is to be forgotten.

        @param dialog: L{DialogId<sipdmq.dialog.hashes.DialogId>}
        @return: C{bool}, whether it was known.
        """

    def watch(listener):
        """
        @param listener: L{IDialogListener}, told of every change from now on.
        """


class IDialogListener(Interface):
    """
    Wants to know of dialogs.
    """

    def dialog_changed(dialog, origin):
        """
        A dialog is new, or went on.

        @param origin: L{Origin<sipdmq.records.Origin>}: LOCAL where this node saw it, or ended it in the place of a
            lost one; REPLICATED where another one told.
        """

    def dialog_forgotten(dialog, origin):
        """
        A dialog that was over is forgotten now.

        @param origin: LOCAL where this node has to tell the others; EXPIRED where everybody forgets by himself.
        """
