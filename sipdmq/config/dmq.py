"""
The section C{[dmq]}: Kamailio's parameters of the module C{dmq} with its names and defaults, and some of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from sipdmq.config import values
from sipdmq.config.values import Network, WrongPart, key, networks
from sipdmq.errors import ConfigError, ParseError
from sipdmq.records import Listener, Protocol
from sipdmq.sip.uri import SipURI, parse_sip_uri, same_uri

if TYPE_CHECKING:
    from sipdmq.config.sections import NodeConfig

__all__ = ["DMQConfig", "check", "listener_of", "protocol_of"]

MAX_ADDRESSES: Final = 100
_REPLICABLE: Final = ("REGISTER", "PUBLISH")
_BY_PARAM: Final = {protocol.name.lower(): protocol for protocol in Protocol}


def protocol_of(uri: SipURI) -> Protocol:
    """
    The transport of a node's URI: its parameter, without one UDP (WIRE §2).

    @raise ValueError: one that we do not have.
    """
    named = (uri.param("transport") or "udp").lower()
    protocol = _BY_PARAM.get(named)
    if protocol is None:
        raise ValueError(f"'{uri}': transport must be one of {', '.join(_BY_PARAM)}")
    return protocol


def _node_uri(text: str) -> SipURI:
    try:
        uri = parse_sip_uri(text)
    except ParseError:
        raise WrongPart(f"'{text}' must be a SIP URI, as sip:192.0.2.1:5060") from None
    if uri.scheme != "sip" or uri.user or uri.headers is not None or uri.port == 0:
        raise WrongPart(f"'{text}' must begin with sip:, have no user, no headers, and a port from 1 to 65535")
    if set(uri.params) - {"transport"}:
        raise WrongPart(f"'{text}' must have no parameter but transport")
    try:
        protocol_of(uri)
    except ValueError as error:
        raise WrongPart(str(error)) from None
    return uri


def _address(text: str) -> SipURI | None:
    return _node_uri(text) if text else None


def _addresses(text: str) -> tuple[SipURI, ...]:
    uris: list[SipURI] = []
    for word in text.split():
        uri = _node_uri(word)
        # Kamailio: one that stands there twice is in its list twice (WIRE §2); here once
        if not any(same_uri(uri, other) for other in uris):
            uris.append(uri)
    if len(uris) > MAX_ADDRESSES:
        raise WrongPart(f"must name at most {MAX_ADDRESSES} nodes")
    return tuple(uris)


def _socket(text: str) -> str:
    if not text:
        return ""
    found = values.listeners(text)
    if len(found) != 1:
        raise WrongPart("must name one listener of [node], as udp:192.0.2.1:5060")
    return str(found[0])


def _channel(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.\-]{1,64}", text):
        raise ValueError("must be a name of letters, digits, '-', '_' and '.'")
    return text


def _methods(text: str) -> tuple[str, ...]:
    methods = tuple(dict.fromkeys(text.upper().split()))
    for method in methods:
        if method not in _REPLICABLE:
            raise ValueError(f"must be of {' '.join(_REPLICABLE)}, separated by spaces")
    return methods


def _callback(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError("must read package.module:function")
    return text


@dataclass(frozen=True)
class DMQConfig:
    """
    C{[dmq]}: the node's place in a cluster. Times in seconds, unless they are called otherwise.

    @ivar server_address: L{None}: this node is in no cluster.
    @ivar server_socket: a listener as its C{str}; empty: the one of C{server_address}.
    @ivar worker_usleep: microseconds.
    @ivar event_callback: C{"package.module:function"} or empty.
    @ivar allow: from where nodes may join whom nobody has named; empty on loopback: all of loopback.
    @ivar replicate: methods whose requests are copied to all nodes.
    @ivar window: messages to one node, on one channel, that may be unanswered at once.
    """

    server_address: SipURI | None = key(None, _address)  # noqa: RUF009 - as all others
    server_socket: str = key("", _socket)
    notification_address: tuple[SipURI, ...] = key((), _addresses)
    notification_channel: str = key("notification_peer", _channel)
    multi_notify: bool = key(False, values.switch)
    num_workers: int = key(2, values.whole(1, 1000))
    worker_usleep: int = key(0, values.whole(0, 10**7))
    ping_interval: float = key(60.0, values.seconds(1, 86_400))
    remove_inactive: bool = key(True, values.switch)
    fail_count_enabled: bool = key(False, values.switch)
    fail_count_threshold_not_active: int = key(0, values.whole(0, 10**6))
    fail_count_threshold_disabled: int = key(1, values.whole(0, 10**6))
    init_with_single: bool = key(False, values.switch)
    event_callback: str = key("", _callback)
    sl_send: bool = key(False, values.switch)
    allow: tuple[Network, ...] = key((), networks)
    require_tls: bool = key(False, values.switch)
    farewell: str = key("sipdmq", values.one_of("sipdmq", "all", "none"))
    replicate: tuple[str, ...] = key((), _methods)
    t1: float = key(0.1, values.seconds(0.01, 10))
    t2: float = key(1.0, values.seconds(0.01, 60))
    timeout: float = key(8.0, values.seconds(0.1, 300))
    forget_after: float = key(86_400.0, values.seconds(60, 10**8))
    window: int = key(16, values.whole(1, 1000))
    batch_window: float = key(0.002, values.seconds(0, 10))

    @property
    def is_enabled(self) -> bool:
        """
        Whether this node is in a cluster.
        """
        return self.server_address is not None


def is_loopback(host: str) -> bool:
    """
    Whether a host is this very machine.
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def listener_of(config: NodeConfig) -> Listener:
    """
    From where the node sends KDMQ, and where it gets it.

    @raise ConfigError: C{server_address} is none of ours, or C{server_socket} none of C{[node] listen}.
    """
    dmq = config.dmq
    uri = dmq.server_address
    assert uri is not None
    protocol = protocol_of(uri)
    names = ", ".join(str(listener) for listener in config.node.listen)

    def wrong(name: str, reason: str) -> ConfigError:
        return ConfigError(config.path, "dmq", name, reason)

    if dmq.server_socket:
        for listener in config.node.listen:
            if str(listener) == dmq.server_socket:
                if listener.protocol is not protocol:
                    raise wrong("server_socket", f"{listener} does not speak {protocol.name}, as '{uri}' needs")
                return listener
        raise wrong("server_socket", f"'{dmq.server_socket}' is not one of [node] listen: {names}")
    place = (uri.host, uri.port or protocol.default_port)
    for listener in config.node.listen:
        if listener.protocol is protocol and place in (
            (listener.host, listener.port),
            (listener.advertise_host, listener.advertise_port),
        ):
            return listener
    raise wrong(
        "server_address",
        f"'{uri}' is neither the address nor the advertised one of a {protocol.name} listener of [node] listen: "
        f"{names}; or name the listener in server_socket",
    )


def check(config: NodeConfig, replicates_bindings: bool = False) -> None:
    """
    What is wrong with C{[dmq]} in the light of other keys.

    @param replicates_bindings: whether C{[usrloc] enable} is set.
    @raise ConfigError: something is.
    """
    dmq = config.dmq

    def wrong(name: str, reason: str) -> ConfigError:
        return ConfigError(config.path, "dmq", name, reason)

    if dmq.server_address is None:
        if dmq != DMQConfig():
            raise wrong("server_address", "is missing; as server_address = sip:192.0.2.1:5060")
        return
    _check_times(dmq, wrong)
    listener_of(config)
    is_local = is_loopback(dmq.server_address.host)
    if not is_local and not dmq.allow and not dmq.notification_address:
        raise wrong(
            "allow",
            "is missing: nobody could join this node; name the networks of the other nodes, as allow = 192.0.2.0/24, "
            "or nodes to join in notification_address",
        )
    _check_transports(config, wrong)
    if "PUBLISH" in dmq.replicate:
        if not config.presence.enable:
            raise wrong("replicate", "PUBLISH needs '[presence] enable = 1': this node takes none without")
        if config.presence.enable_dmq:
            raise wrong(
                "replicate",
                "PUBLISH needs '[presence] enable_dmq = 0': with both, each publication would be there twice",
            )
    if "REGISTER" in dmq.replicate and replicates_bindings:
        raise wrong("replicate", "REGISTER needs '[usrloc] enable = 0': with both, each binding would be there twice")


def _check_times(dmq: DMQConfig, wrong: Callable[[str, str], ConfigError]) -> None:
    if dmq.t2 < dmq.t1:
        raise wrong("t2", f"{dmq.t2:g} must not be less than t1 ({dmq.t1:g})")
    if dmq.timeout < dmq.t1:
        raise wrong("timeout", f"{dmq.timeout:g} must not be less than t1 ({dmq.t1:g})")
    if dmq.fail_count_threshold_disabled < dmq.fail_count_threshold_not_active:
        raise wrong(
            "fail_count_threshold_disabled",
            f"{dmq.fail_count_threshold_disabled} must not be less than fail_count_threshold_not_active "
            f"({dmq.fail_count_threshold_not_active})",
        )


def _check_transports(config: NodeConfig, wrong: Callable[[str, str], ConfigError]) -> None:
    dmq = config.dmq
    assert dmq.server_address is not None
    spoken = {listener.protocol for listener in config.node.listen}
    for uri in dmq.notification_address:
        if protocol_of(uri) not in spoken:
            raise wrong("notification_address", f"'{uri}' needs a {protocol_of(uri).name} listener in [node] listen")
    if dmq.multi_notify and len(dmq.notification_address) != 1:
        raise wrong("multi_notify", "needs one notification_address: the name of all nodes")
    used = {"server_address": (dmq.server_address,), "notification_address": dmq.notification_address}
    if dmq.require_tls:
        for name, uris in used.items():
            for uri in uris:
                if protocol_of(uri) is not Protocol.TLS:
                    raise wrong(name, f"'{uri}' must have ;transport=tls: require_tls is set")
    if protocol_of(dmq.server_address) is Protocol.TLS and config.tls.verify_client == "none":
        raise ConfigError(
            config.path,
            "tls",
            "verify_client",
            "must be optional or require: the other nodes of [dmq] have to show their certificates",
        )
    if config.limits.message_size < 65_535:
        raise ConfigError(
            config.path, "limits", "message_size", f"{config.limits.message_size} must be at least 65535 with [dmq]"
        )
