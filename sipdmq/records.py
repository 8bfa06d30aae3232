"""
The values that cross packages: immutable, without behaviour that needs a clock, a socket or a store.

They are named tuples: made for every message, so they must cost little (a frozen dataclass of this size costs twice
as much to make), and nothing may change them on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

__all__ = [
    "Binding",
    "BindingChange",
    "Decide",
    "Listener",
    "Origin",
    "Page",
    "PageCursor",
    "Protocol",
    "Source",
    "Target",
    "Update",
]


class Protocol(IntEnum):
    """
    A transport protocol; its name is the one in a Via (RFC 3261 §20.42).
    """

    UDP = 1
    TCP = 2

    @property
    def is_reliable(self) -> bool:
        """
        Whether the transport itself repeats what was lost (RFC 3261 §17: no retransmission timers then).
        """
        return self is not Protocol.UDP


class Listener(NamedTuple):
    """
    An address on which the node receives, and what it says of itself to others.

    @ivar host: numeric, C{"0.0.0.0"} or C{"::"} for all; IPv6 without brackets.
    @ivar advertise_host: the host written into Via and Record-Route: numeric or a name, IPv6 without brackets.
    """

    protocol: Protocol
    host: str
    port: int
    advertise_host: str
    advertise_port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol.name.lower()}:{host}:{self.port}"


class Source(NamedTuple):
    """
    Where a message came from.

    @ivar host: the numeric address from which the packet came, IPv6 without brackets.
    @ivar listener: the listener that received it, or for a connection of our own making, the one it speaks for.
    @ivar flow: the token of the connection (L{sipdmq.interfaces.messages.IFlows}); empty for UDP.
    """

    protocol: Protocol
    host: str
    port: int
    listener: Listener
    flow: str = ""


class Target(NamedTuple):
    """
    Where to send one message: numeric, decided, nothing left to resolve.

    @ivar host: numeric address, IPv6 without brackets.
    @ivar fixed: the transport may not be changed: neither to TCP for size (RFC 3261 §18.1.1) nor back.
    @ivar flow: the token of the connection to use; where it is gone, C{host} and C{port} are connected to only if
        C{flow_only} is false.
    @ivar flow_only: nobody listens at C{host:port}, the connection is the only way.
    @ivar listener: the listener to send from; L{None}: any of this protocol and address family.
    @ivar name: the domain that was resolved, or empty: what a TLS certificate has to show.
    """

    protocol: Protocol
    host: str
    port: int
    fixed: bool = False
    flow: str = ""
    flow_only: bool = False
    listener: Listener | None = None
    name: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol.name.lower()}:{host}:{self.port}"


class Origin(IntEnum):
    """
    Where a change of a binding came from. Only L{LOCAL} leaves for the other nodes.
    """

    LOCAL = 1
    """A REGISTER that a phone sent to this node."""
    REPLICATED = 2
    """Another node told us."""
    EXPIRED = 3
    """Its time was over; every node notices by itself."""
    LOADED = 4
    """Read from a file at start."""


class Binding(NamedTuple):
    """
    One contact of an address-of-record (RFC 3261 §10), or the memory that it was removed.

    @ivar aor: canonical, C{"alice@example.org"}.
    @ivar ruid: unique name of this record in the cluster.
    @ivar contact: the contact URI as it was registered, without C{<>}.
    @ivar params: the other contact parameters as received, with their semicolons: C{";methods=\"INVITE\""};
        without C{expires} and C{q}.
    @ivar q: 0 to 1000 (q × 1000), -1 when not given.
    @ivar expires_at: seconds since the epoch; of a removed binding, until when it is remembered.
    @ivar cseq: the number of the REGISTER's CSeq.
    @ivar instance: C{+sip.instance} with C{<>}, without quotes; empty when not given.
    @ivar reg_id: C{reg-id} (RFC 5626), 0 when not given.
    @ivar path: the Path values (RFC 3327), top first, joined by C{", "}; empty without.
    @ivar received: C{"sip:192.0.2.7:5062"}, with C{;transport=} unless UDP, where the REGISTER came from if its Via
        said otherwise or it came over a connection; else empty.
    @ivar socket: the listener that received it, C{"udp:192.0.2.1:5060"}: requests to the phone leave from there.
    @ivar flow: the token of the connection it came over; empty for UDP.
    @ivar last_modified: seconds since the epoch, never less than that of the record it replaced plus one.
    @ivar server_id: the number of the node that wrote it.
    @ivar removed: this is a tombstone.
    """

    aor: str
    ruid: str
    contact: str
    params: str
    q: int
    expires_at: int
    call_id: str
    cseq: int
    instance: str
    reg_id: int
    path: str
    received: str
    socket: str
    flow: str
    user_agent: str
    last_modified: int
    server_id: int = 0
    removed: bool = False


class BindingChange(NamedTuple):
    """
    One record that changed in the location store.

    @ivar binding: as it is now; C{removed} for a removal, C{expires_at} past for an expiry.
    @ivar previous: as it was, L{None} if there was none.
    """

    binding: Binding
    previous: Binding | None
    origin: Origin

    @property
    def is_gone(self) -> bool:
        """
        Whether nobody can be reached at this contact any more.
        """
        return self.binding.removed or self.origin is Origin.EXPIRED


class Update(NamedTuple):
    """
    What an update of the location store did.

    @ivar bindings: the live bindings of the AoR now, best C{q} first.
    @ivar changes: what changed, in no particular order; empty if nothing did.
    """

    bindings: tuple[Binding, ...]
    changes: tuple[BindingChange, ...]


PageCursor = tuple[tuple[str, ...], int]
"""
How far a reader of the location store has come: the AoRs that it will see, and the place of the next.
"""


class Page(NamedTuple):
    """
    A part of the location store.

    @ivar bindings: live bindings and tombstones.
    @ivar cursor: for the next page; L{None} after the last one.
    """

    bindings: tuple[Binding, ...]
    cursor: PageCursor | None


Decide = Callable[[tuple[Binding, ...]], Sequence[Binding]]
"""
What L{sipdmq.interfaces.location.ILocationStore.update} is given: a pure function of all records of an AoR (live
bindings and tombstones) to what they shall be. It may raise, and then nothing changes.
"""
