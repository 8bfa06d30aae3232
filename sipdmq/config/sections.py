"""
One frozen value for each section of the INI file; its fields are the keys, with their defaults.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sipdmq.config import values
from sipdmq.config.dialog import DialogConfig
from sipdmq.config.dmq import DMQConfig
from sipdmq.config.htable import HtableConfig
from sipdmq.config.presence import PresenceConfig
from sipdmq.config.usrloc import UsrlocConfig
from sipdmq.config.values import GatewayTarget, key
from sipdmq.records import Listener, Protocol
from sipdmq.sip.parser import DEFAULT_LIMITS, ParserLimits
from sipdmq.sip.timers import TimerValues
from sipdmq.sip.uri import DEFAULT_PORT

__all__ = [
    "AuthConfig",
    "CallsConfig",
    "DMQConfig",
    "DialogConfig",
    "DnsConfig",
    "GatewayConfig",
    "HtableConfig",
    "LimitsConfig",
    "NodeConfig",
    "NodeSection",
    "PresenceConfig",
    "RegistrarConfig",
    "TLSConfig",
    "TLSDomainConfig",
    "TimersConfig",
]

_TIMERS: Final = TimerValues()


@dataclass(frozen=True)
class NodeSection:
    """
    C{[node]}: where the node listens, and for which domains.
    """

    listen: tuple[Listener, ...] = key(
        (
            Listener(Protocol.UDP, "127.0.0.1", DEFAULT_PORT, "127.0.0.1", DEFAULT_PORT),
            Listener(Protocol.TCP, "127.0.0.1", DEFAULT_PORT, "127.0.0.1", DEFAULT_PORT),
        ),
        values.listeners,
    )
    domains: tuple[str, ...] = key(("localhost", "127.0.0.1"), values.domains)
    aliases: tuple[tuple[str, str], ...] = key((), values.aliases)
    policy: str = key("", values.policy_name)
    trusted: tuple[values.Network, ...] = key((), values.networks)


@dataclass(frozen=True)
class TimersConfig:
    """
    C{[timers]}: the base values of RFC 3261 §17, and its timer C (§16.6 step 11), seconds.
    """

    t1: float = key(_TIMERS.t1, values.seconds(0.01, 10))
    t2: float = key(_TIMERS.t2, values.seconds(0.01, 60))
    t4: float = key(_TIMERS.t4, values.seconds(0.01, 60))
    c: float = key(185.0, values.seconds(1, 3600))


@dataclass(frozen=True)
class RegistrarConfig:
    """
    C{[registrar]}: times in seconds.
    """

    min_expires: int = key(60, values.whole(1, 2**31 - 1))
    default_expires: int = key(3600, values.whole(1, 2**31 - 1))
    max_expires: int = key(7200, values.whole(1, 2**31 - 1))
    max_contacts: int = key(20, values.whole(1, 1000))


@dataclass(frozen=True)
class AuthConfig:
    """
    C{[auth]}: who may register and call.

    @ivar algorithms: not empty, strongest first.
    @ivar secret: empty for a random one; see L{sipdmq.core.keys.read_secret}.
    @ivar users: relative to the INI file; see L{NodeConfig.beside}.
    @ivar nonce_lifetime: seconds.
    @ivar nonces: how many are remembered against replay.
    """

    enable: bool = key(False, values.yes_or_no)
    algorithms: tuple[str, ...] = key(("MD5",), values.algorithms)
    secret: str = field(default="", repr=False, metadata={"read": values.secret})
    users: str = key("users", values.file_name)
    nonce_lifetime: float = key(300.0, values.seconds(1, 300))
    nonces: int = key(100_000, values.whole(1000, 10**7))


@dataclass(frozen=True)
class DnsConfig:
    """
    C{[dns]}: how names are resolved (RFC 3263).
    """

    servers: tuple[tuple[str, int], ...] = key((), values.addresses)
    timeout: float = key(9.0, values.seconds(0.1, 60))


@dataclass(frozen=True)
class GatewayConfig:
    """
    C{[gateway NAME]}: a group of gateways. Times in seconds.

    @ivar target: never empty in a configuration that was read.
    @ivar answer_timeout: how long a gateway may take to answer a call at all before the next one is tried.
    @ivar probe_interval: 0: they are never probed, and never taken out.
    @ivar dead_codes: answers that count as none.
    """

    target: tuple[GatewayTarget, ...] = key((), values.gateway_targets)
    answer_timeout: float = key(5.0, values.seconds(0.5, 180))
    probe_interval: float = key(30.0, values.seconds(0, 3600))
    probe_threshold: int = key(3, values.whole(1, 100))
    return_threshold: int = key(1, values.whole(1, 100))
    dead_codes: frozenset[int] = key(frozenset((408, 500, 502, 503, 504)), values.codes)


@dataclass(frozen=True)
class CallsConfig:
    """
    C{[calls]}: the call records.

    @ivar record_file: relative to the INI file; empty: none is written.
    @ivar max_duration: seconds.
    """

    record_file: str = key("", str)
    max_open: int = key(100_000, values.whole(10, 10**7))
    max_duration: float = key(43_200.0, values.seconds(1, 10**6))


@dataclass(frozen=True)
class TLSConfig:
    """
    C{[tls]}: files in PEM form, their names relative to the INI file.

    @ivar certificate: with those of the authorities between it and a trusted one behind it; empty: no TLS.
    @ivar private_key: empty: in the file of the certificate.
    @ivar ca_list: empty: whom the system trusts.
    @ivar ciphers: of TLS 1.2, as OpenSSL writes them; empty: those with forward secrecy.
    """

    certificate: str = key("", str)
    private_key: str = key("", str)
    ca_list: str = key("", str)
    minimum_version: str = key("1.2", values.one_of("1.2", "1.3"))
    ciphers: str = key("", str)
    verify_client: str = key("none", values.one_of("none", "optional", "require"))


@dataclass(frozen=True)
class TLSDomainConfig:
    """
    C{[tls DOMAIN]}: what is shown to who asks for that domain; files as in L{TLSConfig}.
    """

    certificate: str = key("", str)
    private_key: str = key("", str)


@dataclass(frozen=True)
class LimitsConfig:
    """
    C{[limits]}: what a stranger can make the node hold or read.
    """

    message_size: int = key(DEFAULT_LIMITS.message_size, values.whole(1000, 16 * 2**20))
    headers: int = key(DEFAULT_LIMITS.headers, values.whole(10, 100_000))
    header_length: int = key(DEFAULT_LIMITS.header_length, values.whole(100, 2**20))
    transactions: int = key(100_000, values.whole(10, 10**7))
    transaction_bytes: int = key(2**28, values.whole(2**20, 2**36))
    completed_bytes: int = key(48 * 2**20, values.whole(2**16, 2**36))
    tombstones: int = key(100_000, values.whole(0, 10**8))
    contacts_per_aor: int = key(200, values.whole(1, 10_000))
    connections: int = key(20_000, values.whole(1, 10**6))
    connections_per_source: int = key(1_000, values.whole(1, 10**6))
    idle_timeout: float = key(7300.0, values.seconds(1, 10**6))
    message_timeout: float = key(30.0, values.seconds(1, 3600))
    connect_timeout: float = key(5.0, values.seconds(0.1, 60))
    handshake_timeout: float = key(10.0, values.seconds(1, 600))
    write_buffer: int = key(2**20, values.whole(2**16, 2**30))
    opening_buffer: int = key(16 * 2**20, values.whole(2**16, 2**34))
    kdmq_jobs_bytes: int = key(64 * 2**20, values.whole(2**17, 2**34))
    outbox_changes: int = key(50_000, values.whole(1, 10**7))
    outbox_bytes: int = key(16 * 2**20, values.whole(2**17, 2**34))

    @property
    def parser(self) -> ParserLimits:
        """
        What the parser and the framer need of it.
        """
        return ParserLimits(self.message_size, self.headers, self.header_length)


@dataclass(frozen=True)
class NodeConfig:
    """
    A whole configuration: one value for each section.

    @ivar path: the file as the operator named it, for messages.
    @ivar gateways: by the NAME of their section.
    @ivar htables: by the NAME of their section.
    @ivar tls_domains: by the DOMAIN of their section, in lower case.
    """

    path: str = "(embedded defaults)"
    node: NodeSection = NodeSection()
    timers: TimersConfig = TimersConfig()
    registrar: RegistrarConfig = RegistrarConfig()
    auth: AuthConfig = AuthConfig()
    dns: DnsConfig = DnsConfig()
    limits: LimitsConfig = LimitsConfig()
    calls: CallsConfig = CallsConfig()
    gateways: Mapping[str, GatewayConfig] = field(default_factory=dict)
    tls: TLSConfig = TLSConfig()
    dmq: DMQConfig = DMQConfig()  # noqa: RUF009 - frozen
    usrloc: UsrlocConfig = UsrlocConfig()  # noqa: RUF009 - frozen
    presence: PresenceConfig = PresenceConfig()  # noqa: RUF009 - frozen
    dialog: DialogConfig = DialogConfig()  # noqa: RUF009 - frozen
    htables: Mapping[str, HtableConfig] = field(default_factory=dict)
    tls_domains: Mapping[str, TLSDomainConfig] = field(default_factory=dict)

    def beside(self, name: str) -> str:
        """
        The path of a file that the configuration names: relative ones are relative to the INI file.
        """
        return os.path.join(os.path.dirname(self.path), name)
