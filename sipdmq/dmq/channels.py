"""
The channels that this node speaks on, by name, and those that an operator's policy adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from sipdmq.dmq.envelope import check_channel
from sipdmq.interfaces.replication import IChannelPeer
from sipdmq.records import ChannelMessage, ChannelReply, ClusterNode

__all__ = ["Callback", "Channels", "CustomChannel"]

log = Logger()

Callback = Callable[[ChannelMessage], Any]
"""
Of an operator's policy: given a message, it returns what L{CustomChannel.message_received} takes, or a Deferred of it.
"""

ACCEPTED = ChannelReply(202)
"""What Kamailio says to a message that nobody but its script looks at (WIRE §11)."""


@implementer(IChannelPeer)
class CustomChannel:
    """
    A channel of the operator's own.

    @ivar callback: L{None}: messages are accepted, and that is all.
    """

    def __init__(self, channel: str, callback: Callback | None = None) -> None:
        """
        @raise ValueError: no channel can have that name.
        """
        self.channel = check_channel(channel)
        self.callback = callback

    def message_received(self, message: ChannelMessage) -> ChannelReply | Deferred[ChannelReply]:
        """
        See L{IChannelPeer.message_received}. The callback gives a L{ChannelReply}, a status code, or L{None} for 200.
        """
        if self.callback is None:
            return ACCEPTED
        result = self.callback(message)
        if isinstance(result, Deferred):
            return result.addCallback(_reply)
        return _reply(result)

    def keys_of(self, message: ChannelMessage) -> Sequence[str]:
        """
        See L{IChannelPeer.keys_of}: what one address sends is worked on in its order.
        """
        return (message.source.host,)

    def node_joined(self, node: ClusterNode) -> None:
        """
        See L{IChannelPeer.node_joined}. There is nothing to sync.
        """

    def encode(self, change: bytes) -> bytes:
        """
        See L{IChannelPeer.encode}: the change is the body already.
        """
        return change

    def join(self, fragments: Sequence[bytes]) -> tuple[str, bytes]:
        """
        See L{IChannelPeer.join}.
        """
        return "text/plain", b"".join(fragments)


def _reply(result: object) -> ChannelReply:
    """
    Kamailio: the answer to a custom message is read like one to a notification, and what is no node list does harm
    there. So a body goes with no 200 (WIRE §1, §11).
    """
    if result is None:
        return ChannelReply(200)
    if isinstance(result, int):
        return ChannelReply(result) if 200 <= result <= 699 else ChannelReply(500)
    if not isinstance(result, ChannelReply):
        raise TypeError(f"a callback must return a ChannelReply, a status code or None, not {result!r}")
    return result._replace(body=b"", content_type="") if result.status < 300 else result


class Channels:
    """
    The registry of channels.
    """

    def __init__(self) -> None:
        self._peers: dict[str, Any] = {}

    def __iter__(self) -> Any:
        """
        The L{IChannelPeer}s, in the order in which they were added.
        """
        return iter(tuple(self._peers.values()))

    def tell(self, act: Callable[[Any], object], interface: Any = None) -> None:
        """
        Have something done by each channel; one that breaks stops no other.

        @param act: given the L{IChannelPeer}.
        @param interface: only those that provide it.
        """
        for peer in self:
            if interface is None or interface.providedBy(peer):
                try:
                    act(peer)
                except Exception:  # noqa: BLE001 - the edge to the channels
                    log.failure("channel {channel} broke", channel=peer.channel)

    def add(self, peer: IChannelPeer) -> None:
        """
        @raise ValueError: there is one of that name.
        """
        name = IChannelPeer(peer).channel
        if name in self._peers:
            raise ValueError(f"there is a channel '{name}' already")
        self._peers[name] = peer

    def find(self, name: str) -> Any:
        """
        @return: the L{IChannelPeer} of that very name, or L{None}.
        """
        return self._peers.get(name)

    def use(self, name: str, callback: Callback | None = None) -> None:
        """
        Have a channel of the operator's own: whoever sends on one has it from then on (WIRE §11).

        @param callback: gets its messages; L{None}: whoever gets them now goes on.
        @raise ValueError: no channel can have that name, or it is one of the node's own.
        """
        peer = self._peers.get(name)
        if peer is None:
            self._peers[name] = CustomChannel(name, callback)
        elif callback is not None:
            if not isinstance(peer, CustomChannel):
                raise ValueError(f"the channel '{name}' belongs to the node itself")
            peer.callback = callback
