"""
What becomes of a request before it is forwarded (RFC 3261 §16.6), and of a response (§16.7 step 3). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from sipdmq.core.asserted import withhold_identity
from sipdmq.core.cookies import RouteCookies, Side, contact_mark, record_route_uri
from sipdmq.core.refuse import too_many_hops
from sipdmq.core.routes import caller_of
from sipdmq.errors import ParseError, RequestRefused
from sipdmq.records import Destination, Source, Target
from sipdmq.sip.fields import parse_route
from sipdmq.sip.grammar import parse_number, split_commas
from sipdmq.sip.message import Request, Response
from sipdmq.sip.status import reason_phrase
from sipdmq.sip.uri import DEFAULT_PORT, URI, SipURI, format_host, parse_request_uri

__all__ = [
    "Copy",
    "RecordRoute",
    "callee_side",
    "caller_side",
    "check_hops",
    "copy_for",
    "is_looped",
    "is_spiral",
    "read_breadth",
    "reason_line",
    "routing_seed",
    "shares",
    "strip_response",
]

MAX_FORWARDS: Final = 70
"""For a request that has none (§16.6 step 3)."""
_NUMERIC: Final = re.compile(r"[0-9.]+|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*")


class Copy(NamedTuple):
    """
    A request, ready but for what depends on its target: Record-Route and Via.

    @ivar next_hop: the URI to resolve to targets (§16.6 step 7), unless the destination says otherwise.
    """

    request: Request
    next_hop: URI


def check_hops(request: Request) -> None:
    """
    Whether a request may go on (§16.3 step 3).

    @raise RequestRefused: 483.
    """
    if request.max_forwards == 0:
        raise too_many_hops()


def read_breadth(request: Request, limit: int) -> int:
    """
    In how many branches at the same time a request may be (RFC 5393 §5.3).

    @param limit: for a request without Max-Breadth, and the most we let it have.
    @raise ParseError: it is no number.
    """
    text = request.headers.get("max-breadth")
    return limit if text is None else min(parse_number(text, 2**31 - 1, "Max-Breadth"), limit)


def shares(breadth: int, count: int) -> list[int]:
    """
    The breadth of each of C{count} parallel branches: at least 1 each, together C{breadth}.

    @raise RequestRefused: 440, there is not enough for all.
    @see: RFC 5393 §5.3.3
    """
    if breadth < count:
        raise RequestRefused(440)
    share, rest = divmod(breadth, count)
    return [share + (at < rest) for at in range(count)]


def routing_seed(request: Request, aor: str) -> str:
    """
    All that decides where a request goes, for the loop detection of RFC 5393 §4.2. The top Via is none of it: it
    differs each time that a request comes around. (RFC 3261 §16.6 step 8 has it in, and finds loops a round later.)

    @param request: with its routes preprocessed.
    @param aor: if the location store was asked, for what: parameters of the Request-URI did not matter then.
    """
    get = request.headers.get
    return "\n".join(
        (
            request.method,
            aor or request.uri_text,
            request.from_.tag,
            request.to.tag,
            request.call_id,
            str(request.cseq.number),
            ",".join(request.headers.get_all("route")),
            get("proxy-require") or "",
            ",".join(request.headers.get_all("proxy-authorization")),
        )
    )


def is_looped(request: Request, loop: str) -> bool:
    """
    Whether a request has been here before, to be routed in the same way.

    @param loop: L{Ids.loop_part<sipdmq.sip.ids.Ids.loop_part>}; nobody else can make one, so that it need not be
        asked which Via is ours.
    """
    return any(loop in via for via in request.headers.get_all("via"))


def is_spiral(request: Request, branch_start: str) -> bool:
    """
    Whether a request has been here before, routed in whatever way.

    @param branch_start: L{Ids.branch_start<sipdmq.sip.ids.Ids.branch_start>}
    """
    return any(branch_start in via for via in request.headers.get_all("via"))


def copy_for(request: Request, destination: Destination, breadth: int) -> Copy:
    """
    The copy of a request for one destination: §16.6 steps 1 to 3, 6 and 9.

    @param request: not changed.
    @param breadth: its Max-Breadth.
    @raise RequestRefused: 483.
    @raise ParseError: a URI of the destination, or its path, cannot be read.
    """
    check_hops(request)
    uri = parse_request_uri(destination.uri)
    copy = request.copy()
    headers = copy.headers
    copy.uri_text = destination.uri
    hops = request.max_forwards
    headers.replace("Max-Forwards", str(MAX_FORWARDS if hops is None else hops - 1))
    headers.replace("Max-Breadth", str(breadth))
    if "content-length" not in headers:
        headers.add("Content-Length", str(len(copy.body)))  # the next hop may be a stream
    if destination.path:
        headers.prepend("Route", destination.path)
    if destination.next_hop is not None:
        return Copy(copy, destination.next_hop)
    withhold_identity(copy)  # nobody but a gateway is known to be trusted
    if "route" not in headers:
        return Copy(copy, uri)
    routes = [part for value in headers.get_all("route") for part in split_commas(value)]
    first = parse_route(routes[0]).uri
    if isinstance(first, SipURI) and "lr" not in first.params:
        # a strict router: it gets its own URI as Request-URI, and ours as the last Route (§16.6 step 6)
        if first.headers is not None:
            raise ParseError("Headers In Request-URI")
        headers.replace("Route", ", ".join([*routes[1:], f"<{destination.uri}>"]))
        copy.uri_text = first.text
    return Copy(copy, first)


def _is_direct(request: Request) -> bool:
    """
    Whether a request came from a user agent: nobody forwarded it, nobody will stand in the dialog's route behind us.
    """
    headers = request.headers
    return (
        "record-route" not in headers.first and not headers.is_repeated("via") and "," not in headers.first["via"]
    )


def caller_side(request: Request, source: Source) -> Side | None:
    """
    How the sender of a request that begins a dialog is reached, if its Contact will not do: by its connection, or at
    the address that its datagram came from, where it names another one.

    @param request: as received.
    """
    if not _is_direct(request):
        return None
    if source.flow:
        return Side(source.flow)
    contacts = request.contacts
    uri = contacts[0].uri if contacts else None
    if source.protocol.is_reliable or not isinstance(uri, SipURI):
        return None
    if uri.host == source.host and (uri.port or DEFAULT_PORT) == source.port:
        return None
    return Side("", source.host, source.port, contact_mark(uri))


def callee_side(destination: Destination, target: Target) -> Side | None:
    """
    How a registered phone is reached, if its Contact will not do.

    @param target: where its binding led.
    """
    binding = destination.binding
    if binding is None or destination.path:
        return None
    if target.flow:
        return Side(target.flow)
    if target.protocol.is_reliable or not binding.received or not _NUMERIC.fullmatch(target.host):
        return None
    uri = parse_request_uri(destination.uri)
    if isinstance(uri, SipURI) and uri.host == target.host and (uri.port or DEFAULT_PORT) == target.port:
        return None
    return Side("", target.host, target.port, contact_mark(uri))


class RecordRoute:
    """
    Puts our Record-Route into the copies of one request: one, or where the two sides meet us at different listeners,
    two (RFC 5658 §3.1).
    """

    __slots__ = (
        "_call_id",
        "_caller",
        "_cookies",
        "_facing_caller",
        "_is_secure",
        "_mark",
        "_params_of",
        "_request",
        "_tag",
    )

    def __init__(
        self, request: Request, source: Source, cookies: RouteCookies, params_of: Callable[[Request], str] | None = None
    ) -> None:
        """
        @param request: as received.
        @param params_of: given it, what else the URI is to hold; asked only when it is written, since the listeners
            of calls hear of a request before that.
        """
        self._request = request
        self._params_of = params_of
        listener = source.listener
        self._cookies = cookies
        self._call_id = request.call_id
        self._tag = request.from_.tag
        self._caller = caller_side(request, source)
        caller = caller_of(request)
        self._mark = None if caller is None else cookies.mark(caller)
        self._facing_caller = (
            f"{listener.protocol.name} {format_host(listener.advertise_host)}:{listener.advertise_port}"
        )
        uri = request.uri
        self._is_secure = isinstance(uri, SipURI) and uri.scheme == "sips"

    def add(self, copy: Request, destination: Destination, target: Target, sent_by: str) -> None:
        """
        @param sent_by: what our Via in this copy will say.
        """
        callee = callee_side(destination, target)
        make = self._cookies.make
        params = "" if self._params_of is None else self._params_of(self._request)
        if sent_by == self._facing_caller:
            cookie = make(self._call_id, self._tag, self._mark, self._caller, callee)
            copy.headers.prepend("Record-Route", record_route_uri(sent_by, cookie, self._is_secure, params))
            return
        for address, cookie in (
            (self._facing_caller, make(self._call_id, self._tag, self._mark, self._caller)),
            (sent_by, make(self._call_id, self._tag, self._mark, None, callee)),
        ):
            copy.headers.prepend("Record-Route", record_route_uri(address, cookie, self._is_secure, params))


def reason_line(status: int, text: str = "") -> str:
    """
    For a CANCEL of ours: why (RFC 3326 §2).

    @param status: what became of the request instead.
    @param text: by default its reason phrase.
    """
    return f'Reason: SIP;cause={status};text="{text or reason_phrase(status)}"'


def strip_response(response: Response) -> bool:
    """
    Take our Via from a response; the rest stays byte for byte.

    @return: whether it may be forwarded: there is another Via.
    """
    if not response.remove_top_via():
        return False
    if "content-length" not in response.headers.first:
        response.headers.add("Content-Length", str(len(response.body)))
    return True
