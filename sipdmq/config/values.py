"""
What the keys of an INI file may hold: from the text of one to its value. Each raises C{ValueError} that says what the
text must be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple

from sipdmq.errors import ParseError
from sipdmq.records import Listener, Protocol
from sipdmq.sip.digest import ALGORITHMS, algorithm_name
from sipdmq.sip.uri import SipURI, parse_host_port, parse_sip_uri, same_uri

__all__ = [
    "GatewayTarget",
    "Network",
    "Read",
    "WrongPart",
    "addresses",
    "algorithms",
    "aliases",
    "codes",
    "domain_name",
    "domains",
    "file_name",
    "gateway_targets",
    "is_numeric",
    "key",
    "listeners",
    "networks",
    "one_of",
    "policy_name",
    "seconds",
    "secret",
    "switch",
    "whole",
    "yes_or_no",
]

Read = Callable[[str], Any]
"""From the text of a key to its value; raises C{ValueError} with what it must be."""

_LISTEN: Final = re.compile(r"(?P<protocol>[a-z]+):(?P<address>\S+)(?:\s+advertise\s+(?P<advertise>\S+))?")
_PROTOCOLS: Final = {protocol.name.lower(): protocol for protocol in Protocol}
_GATEWAY: Final = re.compile(
    r"(?P<uri>\S+)(?:\s+priority\s+(?P<priority>1000|[0-9]{1,3}))?(?:\s+weight\s+(?P<weight>1000|[0-9]{1,3}))?"
)
DNS_PORT: Final = 53
MIN_SECRET: Final = 16
"""Characters. A nonce shows enough to try out secrets at home, so a word of a dictionary is none."""
MAX_GATEWAYS: Final = 100
"""Of one group: so many can be told apart by their C{q}, and pinged."""


def key(default: Any, read: Read) -> Any:
    """
    A field of a section: the key of that name.
    """
    return field(default=default, metadata={"read": read})


def whole(minimum: int, maximum: int) -> Read:
    """
    A whole number.
    """
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return int(text)

    return read


def seconds(minimum: float, maximum: float) -> Read:
    """
    A time, with up to six decimals.
    """
    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) or not minimum <= float(text) <= maximum:
            raise ValueError(f"must be a number of seconds from {minimum:g} to {maximum:g}")
        return float(text)

    return read


Network = IPv4Network | IPv6Network


class WrongPart(ValueError):
    """
    A part of a value is wrong, and the reason names it.
    """


def _host_port(text: str, what: str, default_port: int) -> tuple[str, int]:
    try:
        host, port = parse_host_port(text.lower())
    except ParseError:
        raise WrongPart(
            f"{what} must be HOST or HOST:PORT, an IPv6 address in brackets, the port from 1 to 65535, not '{text}'"
        ) from None
    port = default_port if port is None else port
    if port == 0:
        raise WrongPart(f"{what} must have a port from 1 to 65535, not '{text}'")
    return host, port


def is_numeric(host: str) -> bool:
    """
    Whether a host is an IPv4 or IPv6 address, without brackets.
    """
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _listener(line: str) -> Listener:
    match = _LISTEN.fullmatch(line)
    if match is None:
        raise WrongPart(f"'{line}' must read PROTOCOL:ADDRESS:PORT or PROTOCOL:ADDRESS:PORT advertise HOST:PORT")
    protocol = _PROTOCOLS.get(match["protocol"])
    if protocol is None:
        raise WrongPart(f"'{line}': the protocol must be one of {', '.join(_PROTOCOLS)}")
    host, port = _host_port(match["address"], "the address", protocol.default_port)
    if not is_numeric(host):
        raise WrongPart(f"'{line}': the address must be numeric; a name belongs behind 'advertise'")
    advertise_host, advertise_port = host, port
    if match["advertise"]:
        advertise_host, advertise_port = _host_port(match["advertise"], "what is advertised", protocol.default_port)
    return Listener(protocol, host, port, advertise_host, advertise_port)


def listeners(text: str) -> tuple[Listener, ...]:
    """
    C{[node] listen}: one listener in each line, at least one.
    """
    listeners = tuple(_listener(line.strip()) for line in text.splitlines() if line.strip())
    if not listeners:
        raise WrongPart("must name at least one listener, as udp:127.0.0.1:5060")
    for index, listener in enumerate(listeners):
        if any(str(listener) == str(other) for other in listeners[:index]):
            raise WrongPart(f"{listener} is named twice")
    return listeners


def domain_name(text: str) -> str:
    """
    One domain, in lower case.
    """
    try:
        host, port = parse_host_port(text.lower())
    except ParseError:
        host, port = "", None
    if not host or port is not None:
        raise WrongPart(f"'{text}' must be a host name or an address, without scheme and port")
    return host


def domains(text: str) -> tuple[str, ...]:
    """
    C{[node] domains}: at least one, separated by white space.
    """
    domains = tuple(domain_name(name) for name in text.split())
    if not domains:
        raise WrongPart("must name at least one domain, as example.org: without one nobody can register")
    return domains


def aliases(text: str) -> tuple[tuple[str, str], ...]:
    """
    C{[node] aliases}: one in each line, with the domain that it stands for.
    """
    aliases: list[tuple[str, str]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        names = line.split()
        if len(names) != 2:
            raise WrongPart(f"'{line.strip()}' must be two names, the alias and the domain that it stands for")
        alias = domain_name(names[0])
        if any(alias == other for other, _ in aliases):
            raise WrongPart(f"'{alias}' is there twice; it can stand for one domain")
        aliases.append((alias, domain_name(names[1])))
    return tuple(aliases)


def addresses(text: str) -> tuple[tuple[str, int], ...]:
    """
    C{[dns] servers}: numeric, separated by white space.
    """
    addresses = []
    for word in text.split():
        host, port = _host_port(word, "a name server", DNS_PORT)
        if not is_numeric(host):
            raise WrongPart(f"'{word}' must be a numeric address")
        addresses.append((host, port))
    return tuple(addresses)


def yes_or_no(text: str) -> bool:
    """
    C{yes} or C{no}.
    """
    if text.lower() not in ("yes", "no"):
        raise ValueError("must be yes or no")
    return text.lower() == "yes"


def switch(text: str) -> bool:
    """
    A parameter of Kamailio that is 1 or 0; C{yes} and C{no} mean the same.
    """
    if text.lower() not in ("0", "1", "yes", "no"):
        raise ValueError("must be 1 or 0")
    return text.lower() in ("1", "yes")


def algorithms(text: str) -> tuple[str, ...]:
    """
    C{[auth] algorithms}, sorted: the strongest first.
    """
    names = text.split()
    for name in names:
        if not algorithm_name(name):
            raise WrongPart(f"'{name}' must be one of {', '.join(ALGORITHMS)}; several are separated by spaces")
    chosen = {algorithm_name(name) for name in names}
    if not chosen or len(chosen) != len(names):
        raise WrongPart(f"must name at least one of {', '.join(ALGORITHMS)}, and none twice")
    return tuple(name for name in ALGORITHMS if name in chosen)


def secret(text: str) -> str:
    """
    C{[auth] secret}.
    """
    if len(text) < MIN_SECRET and text:  # not shown: it may be a part of the right one
        raise WrongPart(f"must have at least {MIN_SECRET} characters, as 'openssl rand -hex 32' makes them")
    return text


def file_name(text: str) -> str:
    """
    The name of a file that must be named.
    """
    if not text:
        raise WrongPart("must name a file")
    return text


class GatewayTarget(NamedTuple):
    """
    One gateway of a group.

    @ivar uri: without user and headers.
    @ivar priority: the greater ones are tried first.
    @ivar weight: its share of the calls among those of the same priority; 0: only when these fail.
    """

    uri: SipURI
    priority: int = 0
    weight: int = 1


def _gateway_target(line: str) -> GatewayTarget:
    match = _GATEWAY.fullmatch(line)
    if match is None:
        raise WrongPart(
            f"'{line}' must read URI, URI priority NUMBER, URI weight NUMBER or URI priority NUMBER weight NUMBER, "
            "the numbers from 0 to 1000"
        )
    try:
        uri = parse_sip_uri(match["uri"])
    except ParseError:
        raise WrongPart(f"'{match['uri']}' must be a SIP URI, as sip:gw.example.net:5060;transport=tcp") from None
    if uri.user or uri.headers is not None or uri.port == 0:
        raise WrongPart(f"'{match['uri']}' must be a SIP URI without user, without headers, its port from 1 to 65535")
    return GatewayTarget(uri, int(match["priority"] or 0), int(match["weight"] or 1))


def gateway_targets(text: str) -> tuple[GatewayTarget, ...]:
    """
    C{[gateway NAME] target}: one gateway in each line.
    """
    targets = tuple(_gateway_target(line.strip()) for line in text.splitlines() if line.strip())
    if not 1 <= len(targets) <= MAX_GATEWAYS:
        raise WrongPart(f"must name 1 to {MAX_GATEWAYS} gateways, one a line, as sip:192.0.2.9:5060")
    for index, target in enumerate(targets):
        if any(same_uri(target.uri, other.uri) for other in targets[:index]):
            raise WrongPart(f"{target.uri} is named twice")
    return targets


def one_of(*words: str) -> Read:
    """
    One word of several.
    """
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return read


def policy_name(text: str) -> str:
    """
    C{[node] policy}.
    """
    if text and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError("must read package.module:Class")
    return text


def codes(text: str) -> frozenset[int]:
    """
    Status codes, separated by white space.
    """
    if not re.fullmatch(r"(?:[3-6][0-9]{2}(?:\s+|\Z))*", text):
        raise ValueError("must be final status codes from 300 to 699, separated by spaces")
    return frozenset(int(code) for code in text.split())


def networks(text: str) -> tuple[Network, ...]:
    """
    Addresses and networks, separated by spaces.
    """
    found = []
    for word in text.split():
        try:
            found.append(ip_network(word))
        except ValueError as error:
            raise WrongPart(f"'{word}' must be an address or a network, as 192.0.2.0/24: {error}") from None
    return tuple(found)
