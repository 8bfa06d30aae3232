"""
The channel C{notification_peer}: node lists come in and are answered with ours.

What follows from them is decided by L{sipdmq.dmq.nodelist.NodeList} and done by whoever hands in C{act}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from zope.interface import implementer

from sipdmq.dmq.effects import Effect
from sipdmq.dmq.lines import NodeLine, Reading, numeric_host, read_lines, read_release
from sipdmq.dmq.nodelist import NodeList
from sipdmq.interfaces.replication import IChannelPeer
from sipdmq.records import ChannelMessage, ChannelReply, ClusterNode, NodeName, Protocol

__all__ = ["CONTENT_TYPE", "NotificationPeer"]

CONTENT_TYPE: Final = "text/plain"
MAX_LOOKUPS: Final = 32
"""Of one list: hosts that are names cost a look-up each, and a list of ours has none."""


@implementer(IChannelPeer)
class NotificationPeer:
    """
    Between the wire and the node list.

    @ivar refused_lines: how many lines of lists were of no use.
    """

    def __init__(
        self,
        nodes: NodeList,
        clock: Callable[[], float],
        act: Callable[[tuple[Effect, ...]], None],
        find_host: Callable[[str], str | None],
        channel: str = "notification_peer",
    ) -> None:
        """
        @param clock: seconds, never going back.
        @param act: does what was decided.
        @param find_host: a host name, in lower case, to the numeric address that is known for it; L{None}: not known
            now. It may begin to look it up, so that it is known when the next list comes.
        """
        self.channel = channel
        self.refused_lines = 0
        self._nodes = nodes
        self._clock = clock
        self._act = act
        self._find_host = find_host

    def message_received(self, message: ChannelMessage) -> ChannelReply:
        """
        A notification: read it, answer with our own list as it is then (WIRE §3). What is no list is answered as well.
        """
        lines = self._read(message.body)
        sender = self._sender_of(message, lines)
        is_first_hand = sender is not None and sender.host == _address_of(message)
        now = self._clock()
        effects = self._nodes.notified(
            now, sender, is_first_hand, message.hops, lines, read_release(message.agent), len(message.body)
        )
        body = self._nodes.list_for(sender, now)
        self._act(effects)
        return ChannelReply(200, body, CONTENT_TYPE if body else "")

    def reply_received(
        self, name: NodeName, status: int, body: bytes = b"", agent: str = "", sent_at: float | None = None
    ) -> None:
        """
        A notification of ours was answered, or was not.

        @param name: whom it was sent to.
        @param status: 408 for no answer, as for a node that cannot be reached.
        @param agent: the Server of the answer, else its User-Agent.
        @param sent_at: when the notification left, on our clock; L{None}: as long ago as we wait for an answer.
        """
        now = self._clock()
        if status == 200:
            effects = self._nodes.answered(now, name, self._read(body), read_release(agent), len(body))
        elif status == 408:
            effects = self._nodes.timed_out(now, name, sent_at)
        else:
            effects = self._nodes.refused(now, name)
        self._act(effects)

    def keys_of(self, message: ChannelMessage) -> tuple[str, ...]:
        """
        Lists are worked on one after the other, and wait for no other channel.
        """
        return (self.channel,)

    def node_joined(self, node: ClusterNode) -> None:
        """
        There is nothing to sync: each answer is the whole list.
        """

    def encode(self, change: bytes) -> bytes:
        """
        Lists do not go through outboxes, but a list would be its own fragment.
        """
        return change

    def join(self, fragments: Sequence[bytes]) -> tuple[str, bytes]:
        """
        Fragments that are whole lines.
        """
        return CONTENT_TYPE, b"".join(fragments)

    def _read(self, body: bytes) -> tuple[NodeLine, ...]:
        reading: Reading = read_lines(body)
        lines: dict[NodeName, NodeLine] = {}
        lookups = 0
        for name, status in reading.lines:
            host = numeric_host(name.host)
            if host is None and lookups < MAX_LOOKUPS:
                lookups += 1
                host = self._find_host(name.host)
            if host:
                numeric = name._replace(host=host)
                lines.setdefault(numeric, NodeLine(numeric, status))
        self.refused_lines += reading.refused + len(reading.lines) - len(lines)
        return tuple(lines.values())

    def _sender_of(self, message: ChannelMessage, lines: tuple[NodeLine, ...]) -> NodeName | None:
        if message.sender is not None:
            return message.sender.name
        if message.name is not None:
            host = numeric_host(message.name.host) or self._find_host(message.name.host)
            return message.name._replace(host=host) if host else None
        # What stands in From could not be read: the one node of the list that is where this came from.
        source = message.source
        here = [name for name, _ in lines if name.host == _address_of(message) and name.protocol is source.protocol]
        if source.protocol is Protocol.UDP:
            here = [name for name in here if name.port == source.port]
        return here[0] if len(here) == 1 else None


def _address_of(message: ChannelMessage) -> str:
    return numeric_host(message.source.host) or message.source.host
