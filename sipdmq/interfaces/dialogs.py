"""
Between the dialogs that a node knows and whoever replicates them; and what a dialog is, as Kamailio's module C{dialog}
sees it: from the proxy's side, both legs.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from zope.interface import Interface

__all__ = [
    "MAX_MARKS",
    "Dialog",
    "DialogId",
    "DialogState",
    "EndedDialog",
    "IDialogListener",
    "IDialogs",
    "Leg",
    "Profile",
]

MAX_MARKS: Final = 64
"""Profiles of one dialog, and as many variables: what a policy may set, and what another node may tell."""


class DialogId(NamedTuple):
    """
    What a dialog is called in the whole cluster.

    @ivar h_entry: the hash of its Call-ID.
    @ivar h_id: chosen by the node that made it, unique for that hash; not 0.
    """

    h_entry: int
    h_id: int


class DialogState(IntEnum):
    """
    WIRE §9: Kamailio's numbers.
    """

    UNCONFIRMED = 1
    """The INVITE was forwarded."""
    EARLY = 2
    """Somebody rings."""
    CONFIRMED_NA = 3
    """Answered with 2xx, and no ACK has come yet; never told to others."""
    CONFIRMED = 4
    DELETED = 5
    """Ended, or refused."""


class Leg(NamedTuple):
    """
    One side.

    @ivar cseq: a number as text.
    @ivar route_set: the Record-Routes between it and us, joined by C{", "}.
    @ivar contact: a URI.
    """

    tag: str = ""
    cseq: str = ""
    route_set: str = ""
    contact: str = ""


class Profile(NamedTuple):
    """
    What a dialog counts as: C{Profile("caller", "alice@example.org")}.

    @ivar value: empty for a profile without values.
    @ivar puid: what tells this mark from others in the cluster.
    """

    name: str
    value: str = ""
    puid: str = ""


class Dialog(NamedTuple):
    """
    One call.

    @ivar init_ts: when it began, seconds since the epoch.
    @ivar start_ts: when it was answered, 0 before that.
    @ivar lifetime: seconds from then until it is taken for dead.
    @ivar variables: C{(name, value)} in the order of their names.
    @ivar told_by: the node that it belongs to, C{"sip:192.0.2.2:5060"}: its timers run there; empty: this one.
    @ivar changed_at: when this node heard of its last change, seconds since the epoch.
    """

    id: DialogId
    call_id: str
    from_uri: str
    to_uri: str
    req_uri: str
    caller: Leg
    callee: Leg
    state: DialogState
    init_ts: int
    start_ts: int
    lifetime: int
    variables: tuple[tuple[str, str], ...] = ()
    profiles: tuple[Profile, ...] = ()
    told_by: str = ""
    changed_at: float = 0.0

    @property
    def is_over(self) -> bool:
        """
        Whether it has ended.
        """
        return self.state is DialogState.DELETED

    @property
    def last_modified(self) -> int:
        """
        See L{Told<sipdmq.dmq.errands.Told>}; so C{removed} and C{is_hidden}.
        """
        return int(self.changed_at)

    @property
    def removed(self) -> bool:
        """
        See L{last_modified}.
        """
        return self.is_over

    @property
    def is_hidden(self) -> bool:
        """
        See L{last_modified}.
        """
        return False

    def expires_at(self, early_timeout: int, end_timeout: int) -> float:
        """
        When it is to be ended, or, being over, forgotten: seconds since the epoch.

        @param early_timeout: seconds that may pass until it is answered.
        @param end_timeout: seconds for which one that is over is remembered.
        """
        if self.is_over:
            return self.changed_at + end_timeout
        if self.state < DialogState.CONFIRMED_NA:
            return self.init_ts + early_timeout
        return (self.start_ts or self.init_ts) + self.lifetime


class EndedDialog(NamedTuple):
    """
    One that ended and was forgotten: for whoever has not heard of that.

    @ivar told_by: the node that has told of its end, as in L{Dialog}; so C{changed_at}: when it ended.
    """

    id: DialogId
    told_by: str
    changed_at: float
    removed: bool = True
    is_hidden: bool = False

    @property
    def last_modified(self) -> int:
        """
        See L{Dialog.last_modified}.
        """
        return int(self.changed_at)


class IDialogs(Interface):
    """
    The calls under way in the cluster.
    """

    def all():
        """
        All dialogs, those that have just ended among them.

        @return: a sequence of L{Dialog<sipdmq.interfaces.dialogs.Dialog>}
        """

    def get(dialog):
        """
        One of them.

        @param dialog: L{DialogId<sipdmq.interfaces.dialogs.DialogId>}
        @return: L{Dialog<sipdmq.interfaces.dialogs.Dialog>}, L{None}: not known.
        """

    def names():
        """
        The names of all dialogs, and of those that have ended lately and are forgotten.

        @return: a sequence of L{DialogId<sipdmq.interfaces.dialogs.DialogId>}
        """

    def record(dialog):
        """
        What there is to tell of one of these.

        @param dialog: L{DialogId<sipdmq.interfaces.dialogs.DialogId>}
        @return: L{Dialog<sipdmq.interfaces.dialogs.Dialog>} or L{EndedDialog
            <sipdmq.interfaces.dialogs.EndedDialog>}; L{None}: nothing any more.
        """

    def hash_of(call_id):
        """
        Where Kamailio keeps the dialogs of a Call-ID: C{h_entry} of their names, with C{[dialog] hash_size}.

        @return: C{int}
        """

    def merge(dialog):
        """
        Take what another node says of a dialog, known here or not: the further state counts.

        @param dialog: L{Dialog<sipdmq.interfaces.dialogs.Dialog>}; C{told_by} is empty where this node itself has told
            it, before it was started anew.
        @return: C{bool}, whether there was room for it.
        """

    def remove(dialog, told_by):
        """
        Another node says that a dialog is to be forgotten, known here or not.

        @param dialog: L{DialogId<sipdmq.interfaces.dialogs.DialogId>}
        @param told_by: its name, as in L{Dialog<sipdmq.interfaces.dialogs.Dialog>}.
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
