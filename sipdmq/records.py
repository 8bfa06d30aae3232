"""
The values that cross packages: immutable, without behaviour that needs a clock, a socket or a store.

They are named tuples: made for every message, so they must cost little (a frozen dataclass of this size costs twice
as much to make), and nothing may change them on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from sipdmq.sip.uri import DEFAULT_PORT, SipURI

__all__ = [
    "SECURE_PORT",
    "Binding",
    "BindingChange",
    "Cell",
    "CellChange",
    "CellRemoval",
    "CellValue",
    "ChannelMessage",
    "ChannelReply",
    "ClusterNode",
    "Decide",
    "Destination",
    "EventDocument",
    "Listener",
    "NodeName",
    "NodeStatus",
    "Origin",
    "Page",
    "PageCursor",
    "Protocol",
    "Source",
    "Target",
    "Update",
]


SECURE_PORT: Final = 5061
"""The default port of TLS."""


class Protocol(IntEnum):
    """
    A transport protocol; its name is the one in a Via (RFC 3261 §20.42).
    """

    UDP = 1
    TCP = 2
    TLS = 3

    @property
    def is_reliable(self) -> bool:
        """
        Whether the transport itself repeats what was lost (RFC 3261 §17: no retransmission timers then).
        """
        return self is not _UDP

    @property
    def is_secure(self) -> bool:
        """
        Whether what a C{sips:} URI is meant for may go over it (RFC 3261 §26.2.2, RFC 5630 §3).
        """
        return self is Protocol.TLS

    @property
    def default_port(self) -> int:
        """
        The port where none is named (RFC 3261 §18.1.1, §19.1.2).
        """
        return SECURE_PORT if self is Protocol.TLS else DEFAULT_PORT


_UDP: Final = Protocol.UDP  # for what is asked for every message: a member of an Enum is slow to look up


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
    @ivar known_until: the latest C{expires_at} that any version of this record was known to have; 0: its own.
    @ivar is_hidden: of a removed one: it was not removed itself, but a later record has taken over its ruid.
    @ivar other_ruids: further names under which other nodes have this record, at most four.
    @ivar owner: the node, C{"sip:192.0.2.2:5060"}, that alone can reach the contact over its connection; it stands on
        top of C{path}, too. Empty: this node, or any.
    @ivar methods: bit mask of what the contact understands (WIRE §6), -1: as C{params} say. The other C{params} of a
        record that another node wrote are not known here.
    @ivar flags: another node's, kept.
    @ivar cflags: another node's, kept.
    @ivar xavps: another node's, kept: compact JSON, or empty.
    @ivar told_by: the node that changed it last and told the others, C{"sip:192.0.2.2:5060"}; empty: this one. It is no
        part of what the record says, and differs from node to node only in being empty at that one.
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
    known_until: int = 0
    is_hidden: bool = False
    other_ruids: tuple[str, ...] = ()
    owner: str = ""
    methods: int = -1
    flags: int = 0
    cflags: int = 0
    xavps: str = ""
    told_by: str = ""


class Destination(NamedTuple):
    """
    One member of the target set of a request (RFC 3261 §16.5): where the proxy sends a copy of it.

    With none of C{binding}, C{next_hop} and C{target} the copy goes to its top Route, C{path} counted, else to C{uri}.

    @ivar uri: the Request-URI of the copy.
    @ivar q: 0 to 1000: those of the same q are tried at the same time, those of a lower one when these have failed.
    @ivar path: the Path values of a binding (RFC 3327), top first, joined by C{", "}: they become Route.
    @ivar binding: the phone is reached as it registered.
    @ivar next_hop: a L{sipdmq.sip.uri.SipURI} to send to, without a Route: a gateway.
    @ivar timeout: seconds until a final response, then the next is tried; 0: timer C alone counts.
    @ivar target: decided already.
    @ivar listener: for what is resolved: send from there where its protocol and address family are the same.
    @ivar answer_timeout: seconds until any response at all, 100 included, then the next is tried; 0: as C{timeout}.
    @ivar failover: the final responses after which the next is tried, of a gateway; L{None}: all of them.
    """

    uri: str
    q: int = 1000
    path: str = ""
    binding: Binding | None = None
    next_hop: SipURI | None = None
    timeout: float = 0
    target: Target | None = None
    listener: Listener | None = None
    answer_timeout: float = 0
    failover: frozenset[int] | None = None


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


class NodeStatus(IntEnum):
    """
    What is known of a node of the cluster, with Kamailio's numbers and words (WIRE §3).
    """

    ACTIVE = 2
    """It answers: it gets all changes."""
    NOT_ACTIVE = 4
    """It has not answered, or not yet: it is pinged."""
    DISABLED = 8
    """It said farewell, or has not answered for long: it is pinged, and comes back by answering."""


class NodeName(NamedTuple):
    """
    Who a node is: the triple of its URI (WIRE §2), with a numeric host, the port always named.

    @ivar host: numeric, IPv6 without brackets.
    """

    protocol: Protocol
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        transport = "" if self.protocol is Protocol.UDP else f";transport={self.protocol.name.lower()}"
        return f"sip:{host}:{self.port}{transport}"


class ClusterNode(NamedTuple):
    """
    A node of the cluster, as others see it.

    @ivar release: what it runs: C{"sipdmq 0.1.0"}, C{"kamailio 5.6.3"}; empty until it is known, then treated as
        Kamailio 5.6.3.
    @ivar is_sipdmq: it has shown by C{hello} that it is one of ours.
    @ivar is_local: it is this node.
    """

    name: NodeName
    status: NodeStatus
    release: str = ""
    is_sipdmq: bool = False
    is_local: bool = False


class ChannelMessage(NamedTuple):
    """
    What a KDMQ brought.

    @ivar channel: the user part of its Request-URI.
    @ivar sender: the node in its From, L{None} if that is not in our list.
    @ivar hops: Max-Forwards, 0 when there is none.
    @ivar name: whom its From names, in our list or not; its host may be a name; L{None} if it is no name of a node.
    @ivar agent: its User-Agent.
    """

    channel: str
    sender: ClusterNode | None
    source: Source
    content_type: str
    body: bytes
    hops: int = 0
    name: NodeName | None = None
    agent: str = ""


class ChannelReply(NamedTuple):
    """
    What is answered to a KDMQ (WIRE §13).
    """

    status: int
    body: bytes = b""
    content_type: str = ""
    reason: str = ""


class EventDocument(NamedTuple):
    """
    The state of a presentity in one event package, as a NOTIFY carries it.

    @ivar content_type: of the body; empty where there is none.
    @ivar version_at: where in the body the C{0} stands in whose place the number of the document within its
        subscription is to be put: C{reginfo}, C{watcherinfo} and C{dialog-info} count for each watcher. -1: nowhere.
    """

    content_type: str
    body: bytes
    version_at: int = -1


CellValue = int | str
"""
What a cell of a shared table holds: a whole number of 32 bits with sign, or text, as Kamailio has it.
"""


class Cell(NamedTuple):
    """
    One cell of a shared table, or the memory that it was deleted.

    @ivar table: the name of the table.
    @ivar expires_at: seconds since the epoch, 0 for never; of a removed one: until when it is remembered.
    @ivar last_modified: milliseconds since the epoch, never less than that of the cell it replaced plus one; a write
        whose time nobody told has that very least number.
    @ivar removed: this is a tombstone.
    @ivar told_by: the node that changed it last, as in L{Binding}; empty: this one.
    @ivar changed_at: when this node learnt of it, seconds since the epoch by its own clock.
    """

    table: str
    key: str
    value: CellValue
    expires_at: float = 0
    last_modified: int = 0
    removed: bool = False
    told_by: str = ""
    changed_at: float = 0


class CellChange(NamedTuple):
    """
    One cell that changed.

    @ivar cell: as it is now; C{removed} for a deletion, C{expires_at} past for an expiry.
    @ivar previous: as it was, a tombstone perhaps; L{None} if there was none.
    """

    cell: Cell
    previous: Cell | None
    origin: Origin


class CellRemoval(NamedTuple):
    """
    All cells that match are removed: Kamailio's C{sht_rm_name_re} and its kin.

    @ivar pattern: a regular expression (POSIX extended, ignoring case), or the beginning of what is removed.
    @ivar is_regex: which of the two.
    @ivar of_values: the values are looked at, those that are text; else the keys.
    @ivar last_modified: milliseconds since the epoch: what was written later stays. 0: nobody told.
    @ivar told_by: as of L{Cell}.
    """

    table: str
    pattern: str
    is_regex: bool
    of_values: bool
    last_modified: int = 0
    told_by: str = ""
