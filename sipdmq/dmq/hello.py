"""
The channel C{sipdmq}, by which nodes of ours know one another and talk of what Kamailio has no words for.

A request is a JSON object with one key, its verb: C{{"hello": {"version": "0.1.0", "features": [], "time": 1}}}.
Anything but a 200 with a body of the same form says that the other one is no sipdmq.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import implementer

from sipdmq.interfaces.replication import IChannelPeer
from sipdmq.records import ChannelMessage, ChannelReply, ClusterNode

__all__ = ["CHANNEL", "JSON", "Hello", "PrivateChannel", "decode_hello", "decode_verb", "encode_hello", "encode_verb"]

CHANNEL: Final = "sipdmq"
JSON: Final = "application/json"
FEATURES: Final = ("batch",)
"""What later versions may want to know of this one: it takes several changes in one message of any channel."""

_MAX_BODY: Final = 4000
_MAX_FEATURES: Final = 50
_MAX_TEXT: Final = 64

Verb = Callable[[dict[str, Any], ChannelMessage], Any]
"""Given what stands behind the verb, returns the same kind for the answer, or L{None} for 404; or a Deferred."""


class Hello(NamedTuple):
    """
    What a node of ours says of itself.

    @ivar time: its clock, seconds since the epoch.
    @ivar start: what tells one start of it from another.
    @ivar up: seconds since that.
    """

    version: str
    features: tuple[str, ...]
    time: float
    start: str = ""
    up: int = 0


def encode_verb(verb: str, value: dict[str, Any]) -> bytes:
    """
    A request on this channel, or the answer to one.
    """
    text = json.dumps({verb: value}, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogateescape")


def decode_verb(body: bytes) -> tuple[str, dict[str, Any]] | None:
    """
    @return: the verb and what stands behind it; L{None} for anything else.
    """
    if len(body) > _MAX_BODY:
        return None
    try:
        found = json.loads(body.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or len(found) != 1:
        return None
    ((verb, value),) = found.items()
    return (verb, value) if isinstance(value, dict) else None


def encode_hello(hello: Hello) -> bytes:
    """
    The body that says hello, and the one that answers it.
    """
    return encode_verb("hello", _written(hello))


def _written(hello: Hello) -> dict[str, Any]:
    written = {"version": hello.version, "features": list(hello.features), "time": round(hello.time, 3)}
    return written | {"start": hello.start, "up": hello.up} if hello.start else written


def decode_hello(body: bytes) -> Hello | None:
    """
    @return: L{None} when it is none: whoever sent it is no node of ours.
    """
    found = decode_verb(body)
    return None if found is None or found[0] != "hello" else _read_hello(found[1])


def _read_hello(value: dict[str, Any]) -> Hello | None:
    version, features, time = value.get("version"), value.get("features"), value.get("time")
    if not isinstance(version, str) or not 0 < len(version) <= _MAX_TEXT or not version.isprintable():
        return None
    if not isinstance(features, list) or len(features) > _MAX_FEATURES:
        return None
    if not all(isinstance(feature, str) and len(feature) <= _MAX_TEXT for feature in features):
        return None
    if not isinstance(time, (int, float)) or isinstance(time, bool) or not 0 <= time < 2**40:
        return None
    start = value.get("start", "")
    if not isinstance(start, str) or len(start) > _MAX_TEXT:
        return None
    up = value.get("up", 0)
    if type(up) is not int or not 0 <= up < 2**40:
        return None
    return Hello(version, tuple(features), time, start, up)


@implementer(IChannelPeer)
class PrivateChannel:
    """
    Answers on the channel C{sipdmq}.

    @ivar heard: called when somebody says hello.
    """

    channel = CHANNEL

    def __init__(self, version: str, now: Callable[[], float], start: str = "") -> None:
        """
        @param start: as in L{Hello}.
        """
        self._version = version
        self._now = now
        self._start = start
        self._started_at = now()
        self._verbs: dict[str, Verb] = {"hello": self._hello}
        self.heard: Callable[[ChannelMessage, Hello], object] = lambda message, said: None

    def add_verb(self, verb: str, answer: Verb) -> None:
        """
        @raise ValueError: there is one of that name.
        """
        if verb in self._verbs:
            raise ValueError(f"there is a verb '{verb}' already")
        self._verbs[verb] = answer

    def now(self) -> float:
        """
        The time by our clock, as L{Hello.time}.
        """
        return self._now()

    def hello(self) -> bytes:
        """
        What this node says of itself, as the body of a message.
        """
        return encode_hello(self._own())

    def _own(self) -> Hello:
        now = self._now()
        return Hello(self._version, FEATURES, now, self._start, int(now - self._started_at))

    def _hello(self, value: dict[str, Any], message: ChannelMessage) -> dict[str, Any] | None:
        said = _read_hello(value)
        if said is None:
            return None
        self.heard(message, said)
        return _written(self._own())

    def message_received(self, message: ChannelMessage) -> ChannelReply | Deferred[ChannelReply]:
        """
        See L{IChannelPeer.message_received}. A 200 with a body goes only to who has asked in our own language: a
        Kamailio would take it for a node list (WIRE §1).
        """
        found = decode_verb(message.body)
        if found is None:
            return ChannelReply(400)
        verb, value = found
        answer = self._verbs.get(verb)
        if answer is None:
            return ChannelReply(404, reason="Unknown Verb")
        result = answer(value, message)
        if isinstance(result, Deferred):
            return result.addCallback(lambda value: self._reply(verb, value))
        return self._reply(verb, result)

    def _reply(self, verb: str, value: dict[str, Any] | None) -> ChannelReply:
        if value is None:
            return ChannelReply(404, reason="Not Found")
        return ChannelReply(200, encode_verb(verb, value), JSON)

    def keys_of(self, message: ChannelMessage) -> Sequence[str]:
        """
        See L{IChannelPeer.keys_of}.
        """
        return (message.source.host,)

    def node_joined(self, node: ClusterNode) -> None:
        """
        See L{IChannelPeer.node_joined}. Nothing is synced here.
        """

    def encode(self, change: bytes) -> bytes:
        """
        See L{IChannelPeer.encode}.
        """
        return change

    def join(self, fragments: Sequence[bytes]) -> tuple[str, bytes]:
        """
        See L{IChannelPeer.join}.
        """
        return JSON, b"".join(fragments)
