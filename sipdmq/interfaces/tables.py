"""
Between the shared tables, the policies that use them, and whoever replicates them.
"""

from __future__ import annotations

from zope.interface import Attribute, Interface

__all__ = ["ITable", "ITableListener", "ITables"]


class ITable(Interface):
    """
    One table, as policies use it: what C{$sht(NAME=>key)} is in a script of Kamailio. A value is an C{int} of 32 bits
    with sign, or a C{str}.
    """

    name = Attribute("The NAME of its section, C{str}.")

    def get(key, default=None):
        """
        @return: the value; without one C{initval} if the table has that, else C{default}.
        """

    def set(key, value, expire=None):
        """
        Write a cell.

        @param expire: seconds that it lives, more than 0; by default C{autoexpire} of the table.
        @return: C{bool}, whether it was written; if not, the table is full.
        @raise TypeError: the value is neither C{int} nor C{str}, or the key is no C{str}.
        @raise ValueError: one of them is too large, or no UTF-8.
        """

    def expire(key, seconds):
        """
        Let a cell live so long from now on, more than 0.

        @return: C{bool}, whether there is one.
        """

    def delete(key):
        """
        @return: C{bool}, whether there was such a cell.
        """

    def increment(key, by=1, expire=None):
        """
        Add to a number; where there is none, to C{initval} or 0.

        The result goes to the other nodes, not the step: two nodes that do this at the same time lose one. For counting
        over the cluster there is L{count}.

        @return: C{int}, the new number; L{None}: the table is full.
        @raise ValueError: the value is no number, or the result needs more than 32 bits.
        """

    def count(key, by=1, expire=None):
        """
        Add to a number that all nodes of the cluster count together: each has a cell of its own for it, C{KEY@NODE}, so
        that none is lost.

        @return: C{int}, the sum over all nodes, as far as this one knows.
        """

    def total(key):
        """
        @return: C{int}, the sum that L{count} returned, now.
        """

    def reset(key):
        """
        Delete the cells of all nodes that make up a L{total}.
        """

    def remove(*, name_re=None, value_re=None, name_prefix=None, value_prefix=None):
        """
        Delete all cells whose key, or whose text, matches a regular expression (POSIX extended, ignoring case) or
        begins so: Kamailio's C{sht_rm_name_re}, C{sht_rm_value_re}, C{sht_rm_name}, C{sht_rm_value} with C{"sw"}.
        Exactly one of these is to be given.

        @return: a Deferred of C{int}, how many there were; it has fired already where the table is small.
        @raise ValueError: it is no such expression, or one that is refused for what it would cost.
        """

    def items():
        """
        @return: an iterator of C{(key, value)} over all live cells, as they are when their turn comes.
        """

    def __len__():
        """
        @return: C{int}, the live cells.
        """

    def __contains__(key):
        """
        @return: C{bool}, whether there is a live cell of that key.
        """


class ITables(Interface):
    """
    All tables.
    """

    def __getitem__(name):
        """
        @return: L{ITable}
        @raise KeyError: there is no C{[htable NAME]}.
        """

    def names():
        """
        @return: a tuple of C{str}
        """

    def is_shared(name):
        """
        @return: C{bool}, whether there is a table of that name with C{dmqreplicate}.
        """

    def merge(cell):
        """
        A cell, or its removal, of another node that tells when it was written (C{last_modified} is not 0): the later
        writer wins, by an order that is the same on every node.

        @param cell: L{Cell<sipdmq.records.Cell>} of a table that is shared; C{expires_at} 0: C{autoexpire} from now.
        @return: C{bool}, whether it could be considered: C{False} where the table is full, or its time is absurd.
        """

    def autoexpire(name):
        """
        @return: C{int}, the seconds that a cell of a table lives where nobody says otherwise; 0: for ever.
        """

    def write(table, key, value, told_by, expires_at=None, only_foreign=False):
        """
        A cell of a node that does not tell when: it counts, whatever is there.

        @param told_by: as L{Cell.told_by<sipdmq.records.Cell>}, never empty.
        @param expires_at: seconds since the epoch; L{None}: C{autoexpire} from now, unless C{updateexpire} is off.
        @param only_foreign: but not over what this node has last changed itself.
        @return: C{bool}, whether it could be written.
        """

    def expire(table, key, expires_at, told_by):
        """
        Another node says how long a cell lives; arguments as for L{write}.

        @return: C{bool}, whether there is one.
        """

    def delete(table, key, told_by):
        """
        Another node that does not tell when has deleted a cell; none there is no error.
        """

    def remove(removal):
        """
        Another node has removed all that match.

        @param removal: L{CellRemoval<sipdmq.records.CellRemoval>}
        @return: a Deferred of C{int}
        @raise ValueError: as L{ITable.remove}; also by the Deferred.
        """

    def stored(table, key):
        """
        @return: the L{Cell<sipdmq.records.Cell>}, live or removed; L{None}: nothing is known of it.
        """

    def keys(table):
        """
        @return: a list of all keys of a shared table of which something is known.
        """

    def removals(table):
        """
        @return: a tuple of the last few L{CellRemoval<sipdmq.records.CellRemoval>}, whoever made them.
        """

    def watch(listener):
        """
        @param listener: L{ITableListener}, told of every change from now on.
        """


class ITableListener(Interface):
    """
    Wants to know what changes in the tables.
    """

    def cell_changed(change):
        """
        @param change: L{CellChange<sipdmq.records.CellChange>}, after it took effect. Not told of the cells that a
            L{CellRemoval<sipdmq.records.CellRemoval>} takes.
        """

    def cells_removed(removal, origin):
        """
        @param removal: L{CellRemoval<sipdmq.records.CellRemoval>}, which takes effect now: what is told later comes
            after it.
        @param origin: L{Origin<sipdmq.records.Origin>}
        """
