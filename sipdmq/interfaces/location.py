"""
Between the registrar and whoever reads, replicates or watches bindings.
"""

from __future__ import annotations

from zope.interface import Interface

__all__ = ["IBindingListener", "ILocationStore"]


class ILocationStore(Interface):
    """
    The location service (RFC 3261 §10.2): what a node knows of where its users are.
    """

    def lookup(aor):
        """
        The live bindings of one address-of-record, best C{q} first, then the newest first.

        @param aor: the canonical AoR, C{"alice@example.org"}.
        @return: a Deferred of a tuple of L{Binding<sipdmq.records.Binding>}; empty when there are none, never C{None}.
        """

    def update(aor, decide, origin):
        """
        Change the records of one AoR, atomically: nobody else's change comes between what C{decide} is given and
        what it returns.

        @param aor: the canonical AoR.
        @param decide: L{Decide<sipdmq.records.Decide>}: given all records, live and tombstones, returns what they
            shall be. One that it leaves out is gone without a trace; one that it wants remembered it returns with
            C{removed} set.
        @param origin: L{Origin<sipdmq.records.Origin>}
        @return: an L{Update<sipdmq.records.Update>} if the change is made already, and as durable as configured; else
            a Deferred of one, which fails with what C{decide} raised.
        """

    def pages(cursor):
        """
        Read the whole store in parts, other work going on between two of them. A record that exists all the while is
        seen at least once; one that changes meanwhile is seen before, after, or both.

        @param cursor: L{None} for the first page, then L{Page.cursor<sipdmq.records.Page>} of the last one.
        @return: a Deferred of a L{Page<sipdmq.records.Page>}
        """

    def watch(listener):
        """
        @param listener: L{IBindingListener}, told of every change from now on.
        """

    def count():
        """
        @return: C{int}, the live bindings.
        """


class IBindingListener(Interface):
    """
    Wants to know what changes in the location store.
    """

    def binding_changed(change):
        """
        @param change: L{BindingChange<sipdmq.records.BindingChange>}, after it took effect.
        """
