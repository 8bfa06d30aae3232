"""
A group of gateways: which one is tried first, and which ones are left out. Pure: chance comes in through the door.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import log1p
from typing import Final

from sipdmq.config import GatewayConfig, GatewayTarget
from sipdmq.sip.uri import URI, SipURI, format_host

__all__ = ["Gateway", "GatewayGroup", "uri_at"]

# telephone-subscriber of RFC 3966, as far as it can stand in the user part as it is
_NUMBER: Final = re.compile(r"[0-9A-Za-z+*\-.()_!~']+(?:;[0-9A-Za-z+\-.!~*'()_=&$/]+)*")


class Gateway:
    """
    One gateway of a group, and how it did lately.

    @ivar is_out: it gets no calls.
    @ivar failures: in a row, up to now; while it is out, those that took it out and those since.
    """

    __slots__ = ("_answers", "_group", "failures", "is_out", "target")

    def __init__(self, target: GatewayTarget, group: GatewayConfig) -> None:
        self.target = target
        self._group = group
        self.is_out = False
        self.failures = 0
        self._answers = 0

    def __repr__(self) -> str:
        return f"<Gateway {self.target.uri} {'out' if self.is_out else 'in'}>"

    @property
    def uri(self) -> SipURI:
        """
        Where it is.
        """
        return self.target.uri

    def failed(self) -> bool:
        """
        It did not answer, or as one who is not there. A gateway that is never probed stays in: nothing would ever take
        it back.

        @return: whether this took it out.
        """
        self.failures += 1
        self._answers = 0
        if self.is_out or not self._group.probe_interval or self.failures < self._group.probe_threshold:
            return False
        self.is_out = True
        return True

    def answered(self) -> bool:
        """
        It is there.

        @return: whether this took it back.
        """
        if not self.is_out:
            self.failures = 0
            return False
        self._answers += 1
        if self._answers < self._group.return_threshold:
            return False
        self.is_out = False
        self.failures = self._answers = 0
        return True


class GatewayGroup:
    """
    What C{[gateway NAME]} says.

    @ivar gateways: all of them, in the order of the file.
    """

    __slots__ = ("config", "gateways", "name")

    def __init__(self, name: str, config: GatewayConfig) -> None:
        self.name = name
        self.config = config
        self.gateways = tuple(Gateway(target, config) for target in config.target)

    def choose(self, random: Callable[[], float]) -> list[Gateway]:
        """
        Those that are in, the one to try first in front: the greatest priority first; within a priority at random, so
        that each comes first as often as its weight says, and so on for the places behind. Without weight they come
        last of their priority.

        @param random: from 0, included, to 1, excluded.
        @return: empty when all are out.
        """
        live = [gateway for gateway in self.gateways if not gateway.is_out]
        if len(live) < 2:
            return live

        def place(gateway: Gateway) -> tuple[int, bool, float]:
            # Of independent exponential variates the one with rate w is the least with probability w / sum of all w.
            _, priority, weight = gateway.target
            return -priority, not weight, -log1p(-random()) / (weight or 1)

        return sorted(live, key=place)

    def is_sign_of_life(self, status: int) -> bool:
        """
        Whether a final answer to a probe says that the gateway is there.
        """
        return status not in self.config.dead_codes


def uri_at(gateway: SipURI, dialled: URI) -> str:
    """
    The Request-URI for a gateway: the user or the number that was dialled, in the gateway's domain.

    @return: C{"sip:+4912@gw.example.net:5062;transport=tcp;user=phone"}; C{user=phone} as it was dialled, and for a
        C{tel:} URI (RFC 3261 §19.1.6). What is neither SIP nor a number stays as it is.
    """
    if isinstance(dialled, SipURI):
        user, kind = dialled.user, dialled.params.get("user")
    else:
        user, kind = dialled.text.partition(":")[2], "phone"
        if dialled.scheme != "tel" or not _NUMBER.fullmatch(user):
            return dialled.text
    port = "" if gateway.port is None else f":{gateway.port}"
    params = {name: value for name, value in gateway.params.items() if name not in ("lr", "user")}
    if kind is not None:
        params["user"] = kind
    text = "".join(f";{name}={value}" if value else f";{name}" for name, value in params.items())
    return f"{gateway.scheme}:{user}{'@' if user else ''}{format_host(gateway.host)}{port}{text}"
