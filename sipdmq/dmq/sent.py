"""
Messages out of the outboxes of one node that wait for their answers.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from zope.interface import classImplements

from sipdmq.dmq.changes import Batch
from sipdmq.dmq.outbox import Outbox
from sipdmq.interfaces.messages import IClientUser
from sipdmq.sip.message import Response

__all__ = ["Sent", "Unanswered"]


class Sent:
    """
    One message.

    @ivar since: when it was sent, seconds.
    @ivar sending: L{IClientTransaction<sipdmq.interfaces.messages.IClientTransaction>}, once there is one.
    """

    __slots__ = ("_ended", "batch", "box", "channel", "sending", "since")

    def __init__(
        self,
        channel: str,
        box: Outbox,
        batch: Batch,
        since: float,
        ended: Callable[[Sent, Response | None], object],
    ) -> None:
        """
        @param ended: told of the final response; L{None}: there was none, or it could not be sent.
        """
        self.channel = channel
        self.box = box
        self.batch = batch
        self.since = since
        self.sending: Any = None
        self._ended = ended

    def response_received(self, response: Response) -> None:
        """
        See L{IClientUser.response_received}.
        """
        if response.status >= 200:
            self._ended(self, response)

    def timed_out(self) -> None:
        """
        See L{IClientUser.timed_out}.
        """
        self._ended(self, None)

    def unreachable(self, reason: str) -> None:
        """
        See L{IClientUser.unreachable}.
        """
        self._ended(self, None)


classImplements(Sent, IClientUser)


class Unanswered:
    """
    All of them, the oldest first.
    """

    def __init__(self) -> None:
        self._sent: dict[Sent, None] = {}

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def since(self) -> float:
        """
        When the oldest was sent, seconds; infinity: there is none.
        """
        for sent in self._sent:
            return sent.since
        return inf

    def add(self, sent: Sent) -> None:
        """
        One more.
        """
        self._sent[sent] = None

    def take(self, sent: Sent) -> bool:
        """
        It waits no longer.

        @return: whether it did.
        """
        if sent not in self._sent:
            return False
        del self._sent[sent]
        return True

    def take_all(self) -> tuple[Sent, ...]:
        """
        None of them waits any longer.
        """
        taken = tuple(self._sent)
        self._sent.clear()
        return taken
