"""
From an INI file to one frozen value for each section. L{values<sipdmq.config.values>} reads the text of one key,
L{sections<sipdmq.config.sections>} has all keys with their defaults, L{file<sipdmq.config.file>} reads a whole file.
"""

from __future__ import annotations

from sipdmq.config.dialog import DialogConfig
from sipdmq.config.dmq import DMQConfig
from sipdmq.config.file import load
from sipdmq.config.htable import HtableConfig
from sipdmq.config.presence import PresenceConfig
from sipdmq.config.sections import (
    AuthConfig,
    CallsConfig,
    DnsConfig,
    GatewayConfig,
    LimitsConfig,
    NodeConfig,
    NodeSection,
    RegistrarConfig,
    TimersConfig,
    TLSConfig,
    TLSDomainConfig,
)
from sipdmq.config.usrloc import UsrlocConfig
from sipdmq.config.values import GatewayTarget

__all__ = [
    "AuthConfig",
    "CallsConfig",
    "DMQConfig",
    "DialogConfig",
    "DnsConfig",
    "GatewayConfig",
    "GatewayTarget",
    "HtableConfig",
    "LimitsConfig",
    "NodeConfig",
    "NodeSection",
    "PresenceConfig",
    "RegistrarConfig",
    "TLSConfig",
    "TLSDomainConfig",
    "TimersConfig",
    "UsrlocConfig",
    "load",
]
