"""
Route information preprocessing (RFC 3261 §16.4). Pure, but for the memory of L{sipdmq.core.cookies}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from sipdmq.core.cookies import COOKIE_PARAM, Opened, RouteCookies, Side, contact_mark
from sipdmq.errors import ParseError
from sipdmq.sip.fields import parse_route
from sipdmq.sip.grammar import split_commas
from sipdmq.sip.message import Request, Response
from sipdmq.sip.uri import URI, SipURI, normalize_host, parse_request_uri, parse_uri

__all__ = ["DIALOG_METHODS", "Faced", "FlowOf", "RouteVerdict", "caller_of", "face_caller", "preprocess"]

DIALOG_METHODS: Final = frozenset(("INVITE", "SUBSCRIBE", "REFER", "NOTIFY"))
"""The methods that begin a dialog (RFC 3261 §12.1; RFC 6665 §4.3: NOTIFY, too; RFC 3515)."""


class RouteVerdict(NamedTuple):
    """
    What preprocessing made of a request.

    @ivar request: to be routed further: the one that was given, or a changed copy.
    @ivar is_in_dialog: it has a To tag, a Route of ours whose cookie is right, and goes to the other side.
    @ivar was_ours: a Route, or the Request-URI of a strict router, was ours and has been removed.
    @ivar side: how the next hop is reached, when no Route is left and its Contact will not do.
    @ivar is_side_only: by nothing but the connection of C{side}: what the request names otherwise is somebody else.
    @ivar facing: the last URI of ours that was removed: names the listener that faces the next hop.
    @ivar flow: the connection that a Route made by the cluster names: the request goes there and nowhere else. Empty
        for one that nobody made; L{None} if there is no such Route.
    """

    request: Request
    is_in_dialog: bool = False
    was_ours: bool = False
    is_from_caller: bool = False
    side: Side | None = None
    facing: SipURI | None = None
    flow: str | None = None
    is_side_only: bool = False


FlowOf = Callable[[SipURI], "str | None"]
"""From a Route of ours to the connection that it names, as C{RouteVerdict.flow}."""


def _is_led_to_us(uri: URI, is_ours: Callable[[SipURI], bool]) -> bool:
    """
    Whether a URI means this node: with C{maddr} it is that address which must be ours, whatever the host says.
    """
    if not isinstance(uri, SipURI):
        return False
    maddr = uri.params.get("maddr")
    if maddr is None:
        return is_ours(uri)
    try:
        host = normalize_host(maddr) if maddr else ""
    except ParseError:
        return False
    led = SipURI(uri.text, uri.scheme, uri.user, uri.password, host, uri.port, uri.params, uri.headers)
    return bool(host) and is_ours(led)


def _without_maddr(uri: SipURI) -> str:
    """
    The URI without C{maddr}, port and transport.
    """
    head, _, _ = uri.text.partition("@") if uri.user else (uri.scheme + ":", "", "")
    host = f"[{uri.host}]" if ":" in uri.host else uri.host
    params = "".join(
        f";{name}={value}" if value else f";{name}"
        for name, value in uri.params.items()
        if name not in ("maddr", "transport", "ttl")
    )
    return f"{head}@{host}{params}" if uri.user else f"{head}{host}{params}"


def preprocess(
    request: Request, is_ours: Callable[[SipURI], bool], cookies: RouteCookies, flow_of: FlowOf | None = None
) -> RouteVerdict:
    """
    Take ourselves out of a request's route.

    What a strict router made of it is undone; our own Routes on top are removed, both of a double Record-Route
    (RFC 5658), and all that follow one another: a spiral through us is run through at once.

    @param request: not changed.
    @param is_ours: whether a URI's host and port are this node.
    @param flow_of: reads the Routes that only nodes of the cluster can make; L{None} outside of one.
    @raise ParseError: the Request-URI that a strict router put into Route has headers, which none may.
    @see: RFC 3261 §16.4
    """
    uri = request.uri
    has_route = "route" in request.headers.first
    if not has_route and not (isinstance(uri, SipURI) and "maddr" in uri.params):
        return RouteVerdict(request)  # nearly all requests that begin a dialog
    routes = [part for value in request.headers.get_all("route") for part in split_commas(value)]
    opened: Opened | None = None  # of the last URI of ours
    facing: SipURI | None = None
    is_in_dialog = False
    target = request.uri_text
    if has_route and isinstance(uri, SipURI) and _is_led_to_us(uri, is_ours):
        opened = cookies.open(uri, request)
        if opened is not None:
            is_in_dialog = True
            facing = uri
            last = parse_route(routes.pop()).uri
            if isinstance(last, SipURI) and last.headers is not None:
                raise ParseError("Headers In Request-URI")
            target = last.text
            uri = last
    if isinstance(uri, SipURI) and "maddr" in uri.params and _is_led_to_us(uri, is_ours):
        target = _without_maddr(uri)
    passed = 0
    flow: str | None = None
    for value in routes:
        route = parse_route(value).uri
        if not isinstance(route, SipURI) or not _is_led_to_us(route, is_ours):
            break
        passed += 1
        if flow_of is not None and route.user:
            flow = flow_of(route)
            if flow is not None:
                facing = route
                break
        opened = cookies.open(route, request)
        if facing is None:
            is_in_dialog = opened is not None
        facing = route
    if facing is None and target == request.uri_text:
        return RouteVerdict(request)
    routed = request.copy()
    routed.uri_text = target
    rest = routes[passed:]
    if rest:
        routed.headers.replace("Route", ", ".join(rest))
    elif has_route:
        routed.headers.remove("route")
    if flow is not None:
        return RouteVerdict(routed, False, True, False, None, facing, flow)
    if not is_in_dialog or opened is None:
        return RouteVerdict(routed, False, facing is not None, False, None, facing)
    next_hop = parse_route(rest[0]).uri if rest else parse_uri(target)
    side = None if rest else opened.ahead
    if not cookies.leads_to(opened, request, next_hop):
        if side is None or not side.flow:
            return RouteVerdict(routed, False, True, False, None, facing)
        return RouteVerdict(routed, True, True, opened.is_from_caller, side, facing, None, True)
    if side is not None and not side.flow and side.mark != contact_mark(next_hop):
        side = None
    return RouteVerdict(routed, True, True, opened.is_from_caller, side, facing)


class Faced(NamedTuple):
    """
    What L{face_caller} made of a response: the next one of its call has nearly always the same to say.

    @ivar contact: its first Contact, as received.
    @ivar theirs: its Record-Route lines, as received.
    @ivar ours: as they are sent on.
    """

    contact: str | None
    theirs: list[str]
    ours: list[str]


def face_caller(
    response: Response,
    cookies: RouteCookies,
    heads: frozenset[str],
    is_written_here: Callable[[SipURI], bool],
    sent_to: str,
    before: Faced | None = None,
) -> Faced | None:
    """
    Put the caller's cookie into what a response says of us in Record-Route, in place of the callee's
    (RFC 3261 §16.7 step 8).

    @param response: changed in place, if anything is; to any request.
    @param heads: what our Record-Routes begin with, up to the cookie (L{sipdmq.core.cookies.record_route_heads}).
    @param is_written_here: whether a URI names a listener of this node; for one that was written otherwise.
    @param sent_to: the Request-URI of the request, for a response without Contact.
    @param before: of an earlier response to this request.
    @return: to be given with the next one.
    """
    headers = response.headers
    if "record-route" not in headers.first:
        return before
    theirs = headers.lines_of("record-route")
    contact = headers.first.get("contact")
    if before is not None and before.theirs == theirs and before.contact == contact:
        headers.replace_lines("record-route", before.ours)
        return before
    above = ""
    mark: bytes | None = None
    is_marked = False
    exchanged: dict[str, str] = {}
    for value in [part for line in headers.get_all("record-route") for part in split_commas(line)]:
        cookie = _cookie_in(value, heads, is_written_here)
        new = None
        if cookie:
            if not is_marked:
                is_marked = True
                callee = _uri_in(above) if above else _contact_of(response, sent_to)
                mark = None if callee is None else cookies.mark(callee)
            new = cookies.exchange(cookie, response, mark)
        if new is not None:
            exchanged[cookie] = new
        elif exchanged:
            break  # another pass of this request through us sees to its own
        else:
            above = value
            is_marked = False
    if not exchanged:
        return before
    ours = theirs
    for old, new in exchanged.items():
        ours = [line.replace(old, new) for line in ours]
    headers.replace_lines("record-route", ours)
    return Faced(contact, theirs, ours)


def _uri_in(value: str) -> URI | None:
    """
    Of a Record-Route; L{None} if it cannot be read.
    """
    try:
        return parse_route(value).uri
    except ParseError:
        return None


def _cookie_in(value: str, heads: frozenset[str], is_written_here: Callable[[SipURI], bool]) -> str:
    """
    The cookie in a Record-Route of ours; empty if it is none.
    """
    head, found, tail = value.partition(f";{COOKIE_PARAM}=")
    if not found:
        return ""
    if head in heads and tail[-1:] == ">":
        return tail[:-1].partition(";")[0]
    uri = _uri_in(value)  # not as we wrote it
    if not isinstance(uri, SipURI) or not is_written_here(uri):
        return ""
    return uri.params.get(COOKIE_PARAM) or ""


def _contact_of(message: Request | Response, otherwise: str = "") -> URI | None:
    try:
        contacts = message.contacts
        if contacts:
            return contacts[0].uri
        return parse_request_uri(otherwise) if otherwise else None
    except ParseError:
        return None


def caller_of(request: Request) -> URI | None:
    """
    Where requests to the sender of a request go from here: to the last that has put a Record-Route into it, else to
    its Contact.

    @param request: one that begins a dialog, as received.
    @return: L{None}: nobody can tell.
    """
    value = request.headers.get("record-route")
    return _uri_in(split_commas(value)[0]) if value else _contact_of(request)
