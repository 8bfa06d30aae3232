"""
Asking for one user, while a sync still runs: what we do not know yet, somebody who has it all may know.
"""

from __future__ import annotations

import json
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from sipdmq.dmq.newcomer import Newcomer
from sipdmq.dmq.usrloc import UsrlocPeer
from sipdmq.dmq.usrloc_form import UsrlocForm
from sipdmq.dmq.usrloc_json import decode
from sipdmq.errors import DecodeError, RequestRefused
from sipdmq.interfaces.location import ILocationStore
from sipdmq.interfaces.replication import IBroadcaster
from sipdmq.records import Binding, ChannelMessage, ClusterNode, Source

__all__ = ["RETRY_AFTER", "VERB", "RemoteLookup"]

VERB: Final = "lookup"
RETRY_AFTER: Final = 5
"""Seconds after which a caller may ask again."""
TIMEOUT: Final = 0.5
_CHANNEL: Final = "sipdmq"
_MAX_USERS: Final = 200
"""Questions under way at once; a flood of unknown users is answered without asking."""


def not_yet() -> RequestRefused:
    """
    Whether there is such a user is not known yet.
    """
    return RequestRefused(480, [("Retry-After", str(RETRY_AFTER))])


class RemoteLookup:
    """
    Both sides of the question.
    """

    def __init__(
        self,
        clock: IReactorTime,
        store: ILocationStore,
        form: UsrlocForm,
        peer: UsrlocPeer,
        broadcaster: IBroadcaster,
        source: Source,
    ) -> None:
        """
        @param source: what stands for the donor in log lines.
        """
        self._clock = IReactorTime(clock)
        self._store = ILocationStore(store)
        self._form = form
        self._peer = peer
        self._newcomer: Newcomer = peer.newcomer
        self._broadcaster = IBroadcaster(broadcaster)
        self._source = source
        self._asking = 0

    def find(self, aor: str) -> Deferred[tuple[Binding, ...]]:
        """
        Where a user is whom the location store does not know.

        @return: a Deferred; empty when the node has all that there is, or when somebody who has it knows no such user.
            It fails with RequestRefused, 480 with Retry-After, while that cannot be told.
        """
        if self._peer.readiness.is_ready:
            return succeed(())
        donor = self._newcomer.donor
        if donor is None or not donor.is_sipdmq or self._asking >= _MAX_USERS:
            return _failed()
        self._asking += 1
        body = json.dumps({VERB: {"aor": aor}}).encode("ascii")
        asking: Deferred[Any] = self._broadcaster.send(_CHANNEL, donor.name, body, "application/json")
        found: Deferred[tuple[Binding, ...]] = Deferred()
        call = self._clock.callLater(TIMEOUT, lambda: found.errback(not_yet()))

        def ended(result: Any) -> None:
            if call.active():
                call.cancel()
                found.callback(result) if isinstance(result, tuple) else found.errback(not_yet())

        def count(result: Any) -> Any:
            self._asking -= 1
            return result

        asking.addCallback(self._read, aor, donor).addBoth(ended)
        return found.addBoth(count)

    def _read(self, response: Any, aor: str, donor: ClusterNode) -> Deferred[tuple[Binding, ...]]:
        if response.status != 200:
            raise DecodeError("no answer")
        answer = json.loads(response.body.decode("utf-8", "surrogateescape"))[VERB]
        text = json.dumps(answer, ensure_ascii=False).encode("utf-8", "surrogateescape")
        message = ChannelMessage(self._peer.channel, donor, self._source, "", b"")
        stored = self._peer.apply(decode(text), message)
        return (stored or succeed(None)).addCallback(lambda _: self._store.lookup(aor))

    def answer(self, value: dict[str, Any], message: ChannelMessage) -> Any:
        """
        The verb C{lookup}: a L{Verb<sipdmq.dmq.hello.Verb>}.

        @return: a Deferred of the records as C{{"multi": {...}}}, or L{None} for a question that makes no sense, and
            while we do not know ourselves.
        """
        aor = value.get("aor")
        if not isinstance(aor, str) or not self._peer.readiness.is_ready:
            return None

        def encoded(bindings: tuple[Binding, ...]) -> dict[str, Any]:
            texts = [self._form.encode_update(binding).decode("utf-8", "surrogateescape") for binding in bindings]
            return {"multi": {str(number): json.loads(text) for number, text in enumerate(texts, 1)}}

        return self._store.lookup(aor).addCallback(encoded)


def _failed() -> Deferred[tuple[Binding, ...]]:
    failing: Deferred[tuple[Binding, ...]] = Deferred()
    failing.errback(not_yet())
    return failing
