"""
What a SUBSCRIBE does (RFC 6665), as functions: reading one, what it makes of a subscription, what becomes of that by
the answer to a NOTIFY, and which of two records of one subscription counts. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from sipdmq.core import refuse
from sipdmq.errors import ParseError, RequestRefused
from sipdmq.sip.event import Event, parse_event
from sipdmq.sip.fields import parse_route
from sipdmq.sip.grammar import MAX_CSEQ, parse_number, split_commas
from sipdmq.sip.message import Request, Response
from sipdmq.sip.uri import OtherURI

__all__ = [
    "CSEQ_STEP",
    "Answer",
    "State",
    "Subscribe",
    "SubscribeLimits",
    "Subscription",
    "Verdict",
    "Way",
    "accepts",
    "begin",
    "judge",
    "read_event",
    "read_routes",
    "read_subscribe",
    "refresh",
    "state_value",
    "stepped",
]

CSEQ_STEP: Final = 1000
"""
How far the numbers of NOTIFYs jump when another node goes on with a subscription: further than the node before it can
have counted without telling the others.
"""

MAX_ROUTES: Final = 16
MAX_ROUTE_SET: Final = 2000
"""Characters of all Record-Route values together."""
MAX_DIALOG: Final = 1500
"""Characters of From, To, Call-ID and Contact together: they are remembered, and stand in every NOTIFY."""
MAX_RETRY_AFTER: Final = 3600


class State(IntEnum):
    """
    The states of RFC 6665 §4.1.3, with Kamailio's numbers (WIRE §8).
    """

    ACTIVE = 1
    PENDING = 2
    TERMINATED = 3


class Subscription(NamedTuple):
    """
    A subscription and its dialog, as all nodes know it.

    @ivar tag: the local tag of the dialog: made by us, unguessable, so it names the subscription in the cluster.
    @ivar presentity: the canonical AoR of whom it is about.
    @ivar event_id: empty when there is none.
    @ivar watcher: the canonical AoR of who subscribed.
    @ivar expires_at: seconds since the epoch; of a terminated one, until when it is remembered.
    @ivar remote: From of the SUBSCRIBE as it came, tag included: To of each NOTIFY.
    @ivar local: To of the first SUBSCRIBE, which had no tag: From of each NOTIFY, with ours.
    @ivar contact: the remote target, a SIP URI without C{<>}.
    @ivar routes: the route set, first hop first, joined by C{", "}; empty without.
    @ivar remote_cseq: of the latest SUBSCRIBE.
    @ivar local_cseq: of the latest NOTIFY; 0 before the first.
    @ivar version: how many documents it was sent.
    @ivar received: C{"sip:192.0.2.7:5062"}, where the SUBSCRIBE came from if not from C{contact}; else empty.
    @ivar socket: the listener that received it, C{"udp:192.0.2.1:5060"}.
    @ivar flow: the token of the connection it came over; empty for UDP. Means something to the owner alone.
    @ivar owner: the node that sends its NOTIFYs, C{"sip:192.0.2.1:5060"}; empty where there is no cluster.
    @ivar term: how often it was decided on since the latest SUBSCRIBE: by taking it over, by ending it.
    """

    tag: str
    presentity: str
    event: str
    event_id: str
    watcher: str
    state: State
    expires_at: int
    call_id: str
    remote: str
    local: str
    contact: str
    routes: str
    remote_cseq: int
    local_cseq: int = 0
    version: int = 0
    received: str = ""
    socket: str = ""
    flow: str = ""
    owner: str = ""
    term: int = 0

    def is_of(self, call_id: str, remote_tag: str) -> bool:
        """
        Whether it is in the dialog of which this is the rest of the name (RFC 3261 §12).
        """
        return call_id == self.call_id and remote_tag == parse_route(self.remote).tag


class SubscribeLimits(NamedTuple):
    """
    Seconds, as C{[presence]} says.
    """

    min_expires: int = 60
    default_expires: int = 3600
    max_expires: int = 7200


class Subscribe(NamedTuple):
    """
    A SUBSCRIBE, read.

    @ivar expires_in: seconds; 0: only the present state is wanted, or none any more.
    @ivar contact: where NOTIFYs shall go; empty: where they went before.
    """

    event: Event
    expires_in: int
    contact: str
    cseq: int


class Way(NamedTuple):
    """
    Where a SUBSCRIBE came from: the fields of L{Subscription} of these names.
    """

    received: str = ""
    socket: str = ""
    flow: str = ""


def read_event(request: Request, packages: Sequence[str]) -> Event:
    """
    What a request is about. "If the event package is not understood" or there is none: 489 (RFC 6665 §4.2.1.1).

    @param packages: that are served.
    @raise RequestRefused: 489.
    @raise ParseError: it cannot be read.
    """
    value = request.headers.first.get("event")
    if value is None:
        raise refuse.bad_event(packages)
    event = parse_event(value)
    if event.package not in packages:
        raise refuse.bad_event(packages)
    return event


def read_subscribe(request: Request, packages: Sequence[str], limits: SubscribeLimits) -> Subscribe:
    """
    Read a SUBSCRIBE.

    @raise RequestRefused: 489; 423 with Min-Expires; 513 for a dialog that is too large to remember.
    @raise ParseError: no tag in From; no Contact outside of a dialog, several, or one that is no SIP URI.
    @see: RFC 6665 §4.2.1.1
    """
    event = read_event(request, packages)
    if not request.from_.tag:
        raise ParseError("Missing From Tag")
    expires_in = request.expires
    if expires_in is None:
        expires_in = limits.default_expires
    elif 0 < expires_in < limits.min_expires:
        raise refuse.interval_too_brief(limits.min_expires)
    contact = _read_contact(request)
    first = request.headers.first
    if len(first["from"]) + len(first["to"]) + len(request.call_id) + len(contact) > MAX_DIALOG:
        raise RequestRefused(513)
    return Subscribe(event, min(expires_in, limits.max_expires), contact, request.cseq.number)


def _read_contact(request: Request) -> str:
    contacts = request.contacts
    if not contacts:
        if request.has_wildcard_contact or not request.to.tag:
            raise ParseError("Missing Contact")
        return ""
    uri = contacts[0].uri
    if len(contacts) > 1 or isinstance(uri, OtherURI) or uri.headers is not None:
        raise ParseError("Invalid Contact")
    return uri.text


def read_routes(request: Request) -> str:
    """
    The route set of a dialog that a request begins, we being its UAS: Record-Route in its order (RFC 3261 §12.1.1).

    @raise RequestRefused: 513: more than can be remembered.
    @raise ParseError: a value is no address.
    """
    values = request.headers.get_all("record-route")
    if not values:
        return ""
    if sum(map(len, values)) > MAX_ROUTE_SET:
        raise RequestRefused(513)
    routes = [part for value in values for part in split_commas(value)]
    if len(routes) > MAX_ROUTES:
        raise RequestRefused(513)
    request.addresses("record-route")
    return ", ".join(routes)


def accepts(request: Request, content_type: str) -> bool:
    """
    Whether a watcher takes documents of a type: without Accept, those of the package's default (RFC 6665 §5.4.5).
    """
    values = request.headers.get_all("accept")
    if not values or not content_type:
        return True
    wanted = content_type.partition(";")[0].strip().lower()
    kind = wanted.partition("/")[0]
    for value in values:
        for part in split_commas(value) if value else ():
            offered = part.partition(";")[0].strip().lower()
            if offered in (wanted, f"{kind}/*", "*/*"):
                return True
    return False


def begin(
    request: Request,
    subscribe: Subscribe,
    presentity: str,
    watcher: str,
    state: State,
    tag: str,
    way: Way,
    now: int,
    owner: str,
) -> Subscription:
    """
    The subscription that a SUBSCRIBE outside of a dialog makes.

    @param tag: ours.
    @raise RequestRefused: 513; so for ParseError, of Record-Route.
    """
    first = request.headers.first
    return Subscription(
        tag, presentity, subscribe.event.package, subscribe.event.id, watcher, state, now + subscribe.expires_in,
        request.call_id, first["from"], first["to"], subscribe.contact, read_routes(request), subscribe.cseq,
        0, 0, way.received, way.socket, way.flow, owner,
    )  # fmt: skip


def refresh(
    record: Subscription, subscribe: Subscribe, state: State, way: Way, now: int, owner: str
) -> Subscription:
    """
    What a SUBSCRIBE within the dialog makes of a subscription: another end, another target (§4.2.1.1), and whoever
    got it is its owner. Where that was another node before, numbers go on behind what it may have used.

    @param state: of the subscription from now on.
    @raise RequestRefused: 500: the request is older than the latest one (RFC 3261 §12.2.2).
    """
    if subscribe.cseq <= record.remote_cseq:
        raise refuse.out_of_order()
    if owner != record.owner:
        record = stepped(record)
    return record._replace(
        state=state,
        expires_at=now + subscribe.expires_in,
        contact=subscribe.contact or record.contact,
        remote_cseq=subscribe.cseq,
        received=way.received,
        socket=way.socket,
        flow=way.flow,
        owner=owner,
        term=0,
    )


def stepped(record: Subscription) -> Subscription:
    """
    A subscription whose numbers go on behind all that the node before can have used.
    """
    return record._replace(
        local_cseq=min(record.local_cseq + CSEQ_STEP, MAX_CSEQ - 1), version=record.version + CSEQ_STEP
    )


# NOTIFY


def state_value(record: Subscription, now: int, reason: str = "", retry_after: int = 0) -> str:
    """
    The Subscription-State of a NOTIFY (RFC 6665 §4.1.3, §8.2.3).

    @param reason: why it is over: C{timeout}, C{deactivated}, C{rejected} ...; empty while it is not.
    @param retry_after: seconds after which the watcher may come again; 0: nothing is said of it.
    """
    if reason:
        later = f";retry-after={retry_after}" if retry_after else ""
        return f"terminated;reason={reason}{later}"
    name = "pending" if record.state is State.PENDING else "active"
    return f"{name};expires={max(0, record.expires_at - now)}"


class Verdict(IntEnum):
    """
    What the answer to a NOTIFY means for its subscription.
    """

    TAKEN = 1
    LATER = 2
    """Not now: the same again after a while."""
    GONE = 3
    """Nobody wants it: the subscription is removed."""


class Answer(NamedTuple):
    """
    @ivar retry_after: seconds, of L{Verdict.LATER}.
    """

    verdict: Verdict
    retry_after: int = 0


_GONE: Final = frozenset((404, 405, 410, 416, *range(480, 486), 489, 501, 604))


def judge(response: Response) -> Answer:
    """
    What a final response to a NOTIFY means: 481 and its like end the subscription whatever else they say; any other
    failure does unless it has Retry-After. We have no password to answer a challenge with.

    @see: RFC 6665 §4.2.2
    """
    status = response.status
    if status < 300:
        return Answer(Verdict.TAKEN)
    value = response.headers.first.get("retry-after")
    if status in _GONE or value is None:
        return Answer(Verdict.GONE)
    try:
        # Retry-After = delta-seconds [ comment ] *( SEMI retry-param )
        seconds = parse_number(value.partition(";")[0].partition("(")[0].strip(" \t"), 2**32 - 1, "Retry-After")
    except ParseError:
        return Answer(Verdict.GONE)
    return Answer(Verdict.LATER, min(max(1, seconds), MAX_RETRY_AFTER))
