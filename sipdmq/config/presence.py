"""
The section C{[presence]}: Kamailio's parameters of the module C{presence} with its names where there are such.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipdmq.config.values import key, seconds, switch, whole
from sipdmq.errors import ConfigError

if TYPE_CHECKING:
    from sipdmq.config.sections import NodeConfig

__all__ = ["PresenceConfig", "check"]


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.\-]{1,64}", text):
        raise ValueError("must be a name of letters, digits, '-', '_' and '.'")
    return text


@dataclass(frozen=True)
class PresenceConfig:
    """
    C{[presence]}: what is published, and how it is replicated. Times in seconds.

    @ivar enable: off, a PUBLISH is passed on like any other request.
    @ivar max_body: bytes of one publication.
    @ivar publications_per_presentity: in one event package.
    @ivar publications: on this node, those of other nodes included.
    @ivar enable_dmq: publications go to the other nodes, and theirs come here.
    @ivar enable_pres_sync_dmq: a node that starts asks for all of them.
    @ivar enable_subs_dmq: subscriptions go to Kamailio nodes of release 6, too.
    @ivar min_expires_subscribe: of subscriptions; so for the two after it.
    @ivar min_notify_interval: between two NOTIFYs to one watcher; 0: each change is told at once.
    @ivar watchers_per_presentity: subscriptions to one user in one event package.
    @ivar subscriptions_per_watcher: of one user.
    @ivar subscriptions: on this node, those of other nodes included.
    """

    enable: bool = key(False, switch)
    min_expires: int = key(60, whole(1, 2**31 - 1))
    default_expires: int = key(3600, whole(1, 2**31 - 1))
    max_expires: int = key(3600, whole(1, 2**31 - 1))
    max_body: int = key(12_000, whole(200, 12_000))
    publications_per_presentity: int = key(20, whole(1, 1000))
    publications: int = key(100_000, whole(1, 10**8))
    enable_dmq: bool = key(True, switch)
    enable_pres_sync_dmq: bool = key(True, switch)
    dmq_peer_id: str = key("presence", _name)
    enable_subs_dmq: bool = key(False, switch)
    min_expires_subscribe: int = key(60, whole(1, 3600))
    default_expires_subscribe: int = key(3600, whole(1, 2**31 - 1))
    max_expires_subscribe: int = key(7200, whole(1, 10**6))
    min_notify_interval: float = key(1.0, seconds(0, 3600))
    watchers_per_presentity: int = key(1000, whole(1, 100_000))
    subscriptions_per_watcher: int = key(500, whole(1, 100_000))
    subscriptions: int = key(100_000, whole(1, 10**7))


def check(config: NodeConfig) -> None:
    """
    What is wrong with C{[presence]} in the light of other keys.

    @raise ConfigError: see above.
    """
    presence = config.presence

    def wrong(name: str, reason: str) -> ConfigError:
        return ConfigError(config.path, "presence", name, reason)

    if not presence.min_expires <= presence.default_expires <= presence.max_expires:
        raise wrong(
            "default_expires",
            f"{presence.default_expires} must lie between min_expires ({presence.min_expires}) and max_expires "
            f"({presence.max_expires})",
        )
    if not presence.min_expires_subscribe <= presence.default_expires_subscribe <= presence.max_expires_subscribe:
        raise wrong(
            "default_expires_subscribe",
            f"{presence.default_expires_subscribe} must lie between min_expires_subscribe "
            f"({presence.min_expires_subscribe}) and max_expires_subscribe ({presence.max_expires_subscribe})",
        )
