"""
The section C{[usrloc]}: Kamailio's parameters of the module C{dmq_usrloc} with its names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipdmq.config import values
from sipdmq.config.values import key, switch, whole
from sipdmq.errors import ConfigError

if TYPE_CHECKING:
    from sipdmq.config.sections import NodeConfig

__all__ = ["UsrlocConfig", "check"]


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.\-]{1,64}", text):
        raise ValueError("must be a name of letters, digits, '-', '_' and '.'")
    return text


@dataclass(frozen=True)
class UsrlocConfig:
    """
    C{[usrloc]}: how registrations are replicated. Defaults as Kamailio's, except C{enable} and C{batch_msg_contacts}.

    @ivar batch_size: contacts, 0: as few as let SIP go first.
    @ivar batch_usleep: microseconds.
    @ivar batch_msg_size: bytes of a body.
    @ivar usrloc_domain: the table that replicated contacts go into. There is one here, and its name is never on the
        wire: nobody asks for it. It is read so that Kamailio's settings can be taken over.
    """

    enable: bool = key(True, switch)
    sync: bool = key(True, switch)
    batch_size: int = key(0, whole(0, 10**6))
    batch_usleep: int = key(0, whole(0, 10**8))
    batch_msg_size: int = key(60_000, whole(1000, 60_000))
    batch_msg_contacts: int = key(50, whole(1, 150))
    usrloc_domain: str = key("location", _name)
    replicate_socket_info: int = key(0, whole(0, 3))
    replicate_cflags: int = key(1, whole(0, 2**32 - 1))
    usrloc_delete: bool = key(True, switch)
    usrloc_delete_expired: bool = key(False, switch)
    dmq_peer_id: str = key("usrloc", _name)
    use_domain: bool = key(False, switch)


def check(config: NodeConfig) -> None:
    """
    What is wrong with C{[usrloc]} in the light of other keys.

    @raise ConfigError: see above.
    """
    usrloc = config.usrloc
    if not config.dmq.is_enabled or not usrloc.enable:
        return
    names = [domain for domain in config.node.domains if not values.is_numeric(domain)]
    if not usrloc.use_domain and len(names) > 1:
        raise ConfigError(
            config.path,
            "usrloc",
            "use_domain",
            f"must be 1 with several domains ({', '.join(names)}): users of the same name would be one among the nodes",
        )
