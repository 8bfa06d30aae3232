"""
The section C{[dialog]}: Kamailio's parameters of the module C{dialog} with its names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipdmq.config.values import key, switch, whole
from sipdmq.errors import ConfigError

if TYPE_CHECKING:
    from sipdmq.config.sections import NodeConfig

__all__ = ["DialogConfig", "check"]


def _track(text: str) -> tuple[str, ...]:
    methods = tuple(dict.fromkeys(text.upper().split()))
    if methods not in ((), ("INVITE",)):
        raise ValueError("must be INVITE, or empty: then only calls are followed that the policy has marked")
    return methods


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(re.split(r"[\s;,]+", text.strip()))) if text.strip() else ()
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_.\-]{1,64}", name):
            raise ValueError("must be names of letters, digits, '-', '_' and '.'")
    return names


def _power_of_two(text: str) -> int:
    number: int = whole(1, 2**20)(text)
    if number & (number - 1):
        raise ValueError("must be a power of two, the same on all nodes")
    return number


@dataclass(frozen=True)
class DialogConfig:
    """
    C{[dialog]}: following calls. Times in seconds.

    @ivar track: methods whose requests are followed without the policy having to say so.
    @ivar default_timeout: of an answered call, after which it is taken for dead.
    @ivar early_timeout: of one that nobody answers.
    @ivar end_timeout: how long one that is over is remembered.
    @ivar profiles_with_value: names that a policy may count calls by; so C{profiles_no_value}.
    """

    enable: bool = key(False, switch)
    track: tuple[str, ...] = key(("INVITE",), _track)
    hash_size: int = key(4096, _power_of_two)
    default_timeout: int = key(43_200, whole(1, 10**6))
    early_timeout: int = key(300, whole(1, 10**6))
    end_timeout: int = key(5, whole(1, 10**6))
    enable_dmq: bool = key(True, switch)
    profiles_with_value: tuple[str, ...] = key(("caller", "callee"), _names)
    profiles_no_value: tuple[str, ...] = key((), _names)
    max_dialogs: int = key(100_000, whole(1, 10**7))


def check(config: NodeConfig) -> None:
    """
    What is wrong with C{[dialog]} in itself.

    @raise ConfigError: see above.
    """
    both = set(config.dialog.profiles_with_value) & set(config.dialog.profiles_no_value)
    if both:
        raise ConfigError(
            config.path, "dialog", "profiles_no_value", f"'{min(both)}' is in profiles_with_value, too"
        )
