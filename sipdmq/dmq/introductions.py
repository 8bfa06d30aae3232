"""
What other nodes are: each is asked by a hello, and says its time with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from sipdmq.dmq.clocks import Clocks
from sipdmq.dmq.hello import Hello, PrivateChannel, decode_hello
from sipdmq.errors import UnreachableError
from sipdmq.records import ChannelMessage, NodeName
from sipdmq.sip.message import Response

__all__ = ["Introductions"]

log = Logger()


class Introductions:
    """
    Says hello, and hears it.

    @ivar clocks: how far those of others are from ours.
    """

    def __init__(
        self,
        clock: IReactorTime,
        ask: Callable[[NodeName, bytes], Deferred[Response]],
        private: PrivateChannel,
        introduced: Callable[[NodeName, Hello | None], Any],
        heard: Callable[[NodeName, Hello], Any],
    ) -> None:
        """
        @param ask: sends a body on the channel C{sipdmq}.
        @param introduced: told what a node is; L{None}: none of ours.
        @param heard: told what somebody at the address of a node says of it.
        """
        self._clock = IReactorTime(clock)
        self._ask = ask
        self._private = private
        self._introduced = introduced
        self._heard = heard
        self.clocks = Clocks()
        private.heard = self._hello_received

    def say_hello(self, name: NodeName) -> None:
        """
        Ask a node what it is.
        """
        sent_at = self._clock.seconds()

        def answered(response: Response) -> None:
            found = decode_hello(response.body) if response.status == 200 else None
            if found is not None:
                self._compare_clocks(name, found.time, self._clock.seconds() - sent_at)
            self._introduced(name, found)

        asking = self._ask(name, self._private.hello())
        asking.addCallbacks(answered, self._unanswered)
        asking.addErrback(lambda failure: log.failure("a hello broke", failure))

    @staticmethod
    def _unanswered(failure: Failure) -> None:
        failure.trap(UnreachableError)

    def _hello_received(self, message: ChannelMessage, said: Hello) -> None:
        if message.sender is not None and message.sender.name.host == message.source.host:
            self._heard(message.sender.name, said)

    def _compare_clocks(self, name: NodeName, time: float, round_trip: float) -> None:
        difference = self.clocks.heard(name, time + round_trip / 2 - self._private.now(), round_trip)
        if difference is not None:
            log.warn(
                "the clock of {node} is {difference:+.1f} s from ours: contacts may expire early or late there; "
                "set the clocks of all nodes by NTP, and start the one that was wrong again",
                node=str(name),
                difference=difference,
            )
