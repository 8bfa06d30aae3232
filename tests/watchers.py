"""
For the tests of subscriptions: state that a test sets, and watchers that subscribe and answer NOTIFYs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zope.interface import implementer

from sipdmq.config import PresenceConfig
from sipdmq.interfaces.presence import IEventState
from sipdmq.records import EventDocument, Origin
from sipdmq.sip.message import Request, Response, response_to
from sipdmq.sip.parser import parse_message
from sipdmq.sip.writer import format_message
from tests.fakes import request_bytes

__all__ = ["PRESENCE", "FakeState", "Watcher", "plant"]

PRESENCE = PresenceConfig(enable=True)


@implementer(IEventState)
class FakeState:
    """
    What is known of presentities is what a test has said last.
    """

    def __init__(self, *packages: str) -> None:
        self._packages = packages or ("presence",)
        self.bodies: dict[tuple[str, str], bytes] = {}
        self._listeners: list[Any] = []

    def packages(self) -> tuple[str, ...]:
        return self._packages

    def document(self, aor: str, package: str) -> EventDocument:
        return EventDocument("application/pidf+xml", self.bodies.get((aor, package), b"<nothing/>"))

    def watch(self, listener: Any) -> None:
        self._listeners.append(listener)

    def set(
        self, body: str, aor: str = "bob@example.org", package: str = "presence", origin: Origin = Origin.LOCAL
    ) -> None:
        self.bodies[aor, package] = body.encode()
        for listener in self._listeners:
            listener.state_changed(aor, package, origin)


def plant(node: Any, state: FakeState) -> FakeState:
    """
    Have a L{MemoryNode<tests.memory_node.MemoryNode>} believe in C{state}, in the place of what is published.
    """
    watching = node.node.watching
    for package in state.packages():
        watching.states.drop(package)
    watching.add(state)
    return state


class Watcher:
    """
    One phone and its subscription.

    @ivar notifies: the NOTIFYs that it got, no repetitions.
    @ivar answer: the status that it answers NOTIFYs with; 0: none at all.
    @ivar extra: header fields of that answer.
    """

    def __init__(
        self,
        host: str = "198.51.100.7",
        port: int = 5062,
        user: str = "alice",
        presentity: str = "bob@example.org",
        event: str = "presence",
        call_id: str = "",
    ) -> None:
        self.address = (host, port)
        self.user = user
        self.presentity = presentity
        self.event = event
        self.call_id = call_id or f"sub-{user}-{host}-{port}-{event}"
        self.cseq = 0
        self.to = f"<sip:{presentity}>"
        self.target = f"sip:{presentity}"
        self.notifies: list[Request] = []
        self.answer = 200
        self.extra: tuple[tuple[str, str], ...] = ()
        self._seen: set[str] = set()
        self.responses: list[Response] = []

    @property
    def contact(self) -> str:
        return f"<sip:{self.user}@{self.address[0]}:{self.address[1]}>"

    def subscribe(self, expires: int | None = 600, headers: Iterable[str] = (), **changes: Any) -> bytes:
        """
        The next SUBSCRIBE: outside of a dialog at first, then within it.
        """
        self.cseq += 1
        host, port = self.address
        lines = [f"Event: {self.event}", f"Contact: {self.contact}"]
        if expires is not None:
            lines.append(f"Expires: {expires}")
        given: dict[str, Any] = {
            "via": f"SIP/2.0/UDP {host}:{port};branch=z9hG4bK{self.call_id}{self.cseq}",
            "from_": f"<sip:{self.user}@example.org>;tag=w{self.user}",
            "to": self.to,
            "call_id": self.call_id,
            "cseq": f"{self.cseq} SUBSCRIBE",
            "uri": self.target,
            "headers": [*lines, *headers],
            **changes,
        }
        return request_bytes("SUBSCRIBE", **given)

    def receive(self, data: bytes) -> bytes | None:
        """
        @return: the answer to a NOTIFY.
        """
        message = parse_message(data)
        if isinstance(message, Response):
            self.responses.append(message)
            if message.status < 300 and message.cseq.method == "SUBSCRIBE":
                self.to = message.headers.first["to"]
                self.target = message.contacts[0].uri.text
            return None
        assert isinstance(message, Request)
        branch = message.top_via.branch
        if branch not in self._seen:
            self._seen.add(branch)
            self.notifies.append(message)
            self.target = message.contacts[0].uri.text  # RFC 6665 §4.4.1: it refreshes the target
            self.to = message.headers.first["from"]
        if not self.answer:
            return None
        return format_message(response_to(message, self.answer, "", self.extra))

    def told(self) -> list[str]:
        """
        The documents since this was asked last.
        """
        notifies, self.notifies = self.notifies, []
        return [notify.body.decode() for notify in notifies]

    def states(self) -> list[str]:
        """
        Their Subscription-State.
        """
        return [notify.headers.first["subscription-state"] for notify in self.notifies]

    def numbers(self) -> list[int]:
        """
        Their CSeq numbers.
        """
        return [notify.cseq.number for notify in self.notifies]
