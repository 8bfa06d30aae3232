"""
From what passes of a call to its one record. Pure: C{now} comes in as a number.

A call is an INVITE outside of a dialog with all its forks, and the dialog with the first phone that answered.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime, timezone
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

__all__ = ["CallRecord", "CallTable", "EndedBy", "Start", "encode_record"]

MAX_TEXT: Final = 255
"""Characters of a value that are kept: what a stranger writes shall not fill the memory."""
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class EndedBy(str, Enum):
    """
    Which side ended a call.
    """

    CALLER = "caller"
    """Hung up, or gave up while it rang."""
    CALLEE = "callee"
    """Hung up, or did not take the call."""
    TIMEOUT = "timeout"
    """Nobody answered in time, or nobody hung up in time."""
    NODE = "node"
    """The node could not or would not bring it there, or was stopped."""
    OVERFLOW = "overflow"
    """The table was full; how the call went on is not known."""


_FAULTS: Final = {
    487: EndedBy.CALLER,
    408: EndedBy.TIMEOUT,
    500: EndedBy.NODE,
    503: EndedBy.NODE,
}
"""
Whose doing a final response is; all others are the callee's. A proxy hands on 408 when nobody answered, 503 for what
cannot be reached, and 500 in the place of a 503 (RFC 3261 §16.7 step 6, §16.8, §16.9).
"""


class Start(NamedTuple):
    """
    What is known of a call when its INVITE arrives.

    @ivar user: who authenticated himself, C{"alice@example.org"}; empty for nobody.
    @ivar from_uri: the URI in From; so C{to_uri}.
    @ivar dialled: the Request-URI.
    @ivar source: where the INVITE came from, C{"udp:192.0.2.7:5062"}.
    """

    user: str
    from_uri: str
    to_uri: str
    dialled: str
    call_id: str
    from_tag: str
    source: str


class CallRecord(NamedTuple):
    """
    One finished call. Times are seconds since the epoch, C{None} for what did not happen.

    @ivar started_at: when the INVITE was received.
    @ivar contact: the URI of the phone that answered; empty if none did.
    @ivar to_tag: of that phone's dialog; empty if none answered.
    @ivar status: the final response; 0 if there was none.
    """

    started_at: float
    ringing_at: float | None
    answered_at: float | None
    ended_at: float
    status: int
    ended_by: EndedBy
    start: Start
    contact: str
    to_tag: str

    @property
    def duration(self) -> float:
        """
        Seconds from answer to end; 0 for a call that nobody answered.
        """
        return 0.0 if self.answered_at is None else max(0.0, self.ended_at - self.answered_at)

    @property
    def user(self) -> str:
        """
        Who called, C{"alice@example.org"}; empty if he did not authenticate himself.
        """
        return self.start.user

    @property
    def dialled(self) -> str:
        """
        The Request-URI of the call.
        """
        return self.start.dialled


class _Call:
    """
    A call under way.

    @ivar relays: how often its INVITE is on its way through the node now: a call that comes by twice, because it was
        forked before us or led back to us, is one call.
    @ivar status: 0 before it is answered.
    """

    __slots__ = ("answered_at", "contact", "relays", "ringing_at", "start", "started_at", "status", "to_tag")

    def __init__(self, start: Start, now: float) -> None:
        self.start = start
        self.started_at = now
        self.ringing_at: float | None = None
        self.answered_at: float | None = None
        self.relays = 1
        self.status = 0
        self.contact = ""
        self.to_tag = ""

    def finish(self, now: float, ended_by: EndedBy) -> CallRecord:
        return CallRecord(
            self.started_at,
            self.ringing_at,
            self.answered_at,
            now,
            self.status,
            ended_by,
            self.start,
            self.contact,
            self.to_tag,
        )


class CallTable:
    """
    All calls under way, the oldest first; about 1 kB for each.

    Calls are found by a hash over Call-ID and From tag, which no stranger can aim at (Python's hash of strings is
    keyed), and a BYE ends a call only if both its tags belong to it.
    """

    def __init__(self, max_open: int, max_duration: float) -> None:
        """
        @param max_open: calls under way; one more ends the oldest.
        @param max_duration: seconds from the INVITE on, after which a call counts as over.
        """
        self._max_open = max_open
        self._max_duration = max_duration
        self._calls: OrderedDict[int, _Call] = OrderedDict()

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def expires_at(self) -> float | None:
        """
        When the oldest call will have lasted too long; C{None} without calls.
        """
        for call in self._calls.values():
            return call.started_at + self._max_duration
        return None

    def begin(self, start: Start, now: float) -> CallRecord | None:
        """
        An INVITE outside of a dialog begins to be relayed.

        @return: the record of the call that had to make room for it.
        """
        key = hash((start.call_id, start.from_tag))
        call = self._calls.get(key)
        if call is not None:
            call.relays += 1
            return None
        crowded_out = None
        if len(self._calls) >= self._max_open:
            _, oldest = self._calls.popitem(last=False)
            crowded_out = oldest.finish(now, EndedBy.OVERFLOW)
        self._calls[key] = _Call(Start(*[text[:MAX_TEXT] for text in start]), now)
        return crowded_out

    def ringing(self, call_id: str, from_tag: str, now: float) -> None:
        """
        A phone rings. The first time counts.
        """
        call = self._calls.get(hash((call_id, from_tag)))
        if call is not None and call.ringing_at is None and call.answered_at is None:
            call.ringing_at = now

    def answered(self, call_id: str, from_tag: str, status: int, to_tag: str, contact: str, now: float) -> None:
        """
        The first phone answered with a 2xx.

        @param contact: its URI.
        """
        call = self._calls.get(hash((call_id, from_tag)))
        if call is None or call.answered_at is not None:
            return
        call.answered_at = now
        call.status = status
        call.to_tag = to_tag[:MAX_TEXT]
        call.contact = contact[:MAX_TEXT]

    def failed(self, call_id: str, from_tag: str, status: int, now: float) -> CallRecord | None:
        """
        The INVITE got another final response than a 2xx.

        @return: the record of the call if it is over with that: nobody has answered it, and it is not on its way on
            another path.
        """
        key = hash((call_id, from_tag))
        call = self._calls.get(key)
        if call is None:
            return None
        call.relays -= 1
        if call.answered_at is not None or call.relays > 0:
            return None
        del self._calls[key]
        call.status = status
        return call.finish(now, _FAULTS.get(status, EndedBy.CALLEE))

    def bye(self, call_id: str, from_tag: str, to_tag: str, now: float) -> CallRecord | None:
        """
        A BYE passes.

        @param from_tag: that of the BYE, so the callee's if he hangs up.
        @return: the record of the call, if it was one of ours and no stranger's or repeated BYE.
        """
        for caller_tag, callee_tag, ended_by in (
            (from_tag, to_tag, EndedBy.CALLER),
            (to_tag, from_tag, EndedBy.CALLEE),
        ):
            key = hash((call_id, caller_tag))
            call = self._calls.get(key)
            if call is not None and call.answered_at is not None and call.to_tag == callee_tag[:MAX_TEXT]:
                del self._calls[key]
                return call.finish(now, ended_by)
        return None

    def expired(self, now: float) -> Iterator[CallRecord]:
        """
        Take out the calls that have lasted too long.
        """
        while (expires_at := self.expires_at) is not None and expires_at <= now:
            _, call = self._calls.popitem(last=False)
            yield call.finish(now, EndedBy.TIMEOUT)

    def stop(self, now: float) -> Iterator[CallRecord]:
        """
        Take out all calls, since the node is stopped.
        """
        while self._calls:
            _, call = self._calls.popitem(last=False)
            yield call.finish(now, EndedBy.NODE)


def encode_record(record: CallRecord) -> str:
    """
    A record as JSON: one line, without its line break, of ASCII characters only, whatever is in it. Bytes that are no
    UTF-8 read C{\\xe9} in it.
    """
    start = record.start
    values = {
        "start": _time(record.started_at),
        "ring": _time(record.ringing_at),
        "answer": _time(record.answered_at),
        "end": _time(record.ended_at),
        "duration": round(record.duration, 3),
        "status": record.status,
        "ended_by": record.ended_by.value,
        "user": _text(start.user) or None,
        "from": _text(start.from_uri),
        "to": _text(start.to_uri),
        "dialled": _text(start.dialled),
        "contact": _text(record.contact) or None,
        "call_id": _text(start.call_id),
        "from_tag": _text(start.from_tag),
        "to_tag": _text(record.to_tag) or None,
        "source": _text(start.source),
    }
    return json.dumps(values)


def _text(text: str) -> str:
    return text if text.isascii() else _SURROGATE.sub(_as_byte, text)


def _as_byte(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else "\ufffd"


def _time(seconds: float | None) -> str | None:
    """
    ISO 8601 in UTC, with milliseconds: C{"2026-02-28T23:59:59.999Z"}.
    """
    if seconds is None:
        return None
    second, millisecond = divmod(round(seconds * 1000), 1000)
    return f"{_second(second)}.{millisecond:03d}Z"


@lru_cache(maxsize=256)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
