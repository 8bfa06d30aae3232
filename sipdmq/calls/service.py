"""
The call records at work: listens to the proxy, and hands each finished call to the file and to the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import iscoroutine

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.calls.file import RecordFile
from sipdmq.calls.records import CallRecord, CallTable, Start, encode_record
from sipdmq.config import CallsConfig
from sipdmq.errors import ParseError
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.routing import ICallListener
from sipdmq.records import Source
from sipdmq.sip.message import Request, Response
from sipdmq.sip.uri import format_host

__all__ = ["CallRecords"]

log = Logger()


@implementer(ICallListener, IInspectable)
class CallRecords:
    """
    Follows all calls of the node, and writes one record of each.
    """

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        config: CallsConfig,
        path: str,
        finished: Callable[[CallRecord], object] | None = None,
    ) -> None:
        """
        @param now: the time, seconds since the epoch.
        @param path: the file, absolute (L{sipdmq.calls.file.record_path}); empty for none.
        @param finished: the policy's C{call_finished}, plain or C{async def}. What it raises is logged.
        """
        self._clock = IReactorTime(clock)
        self._now = now
        self._calls = CallTable(config.max_open, config.max_duration)
        self._file = RecordFile(clock, path) if path else None
        self._finished = finished
        self._call: IDelayedCall | None = None
        self._ended = 0
        self._crowded_out = 0

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {
            "calls.open": len(self._calls),
            "calls.ended": self._ended,
            "calls.crowded_out": self._crowded_out,
            "calls.records_lost": 0 if self._file is None else self._file.lost,
        }

    # from the proxy

    def request_relayed(self, request: Request, caller: str, source: Source) -> None:
        """
        See L{ICallListener.request_relayed}.
        """
        from_ = request.from_
        start = Start(
            caller,
            from_.uri.text,
            request.to.uri.text,
            request.uri_text,
            request.call_id,
            from_.tag,
            f"{source.protocol.name.lower()}:{format_host(source.host)}:{source.port}",
        )
        crowded_out = self._calls.begin(start, self._now())
        if crowded_out is not None:
            self._crowded_out += 1
            self._write(crowded_out)
        if self._call is None:
            self._wait()

    def call_ringing(self, request: Request, response: Response) -> None:
        """
        A phone rings: a response from 101 to 199 went to the caller.
        """
        self._calls.ringing(request.call_id, request.from_.tag, self._now())

    def call_answered(self, request: Request, response: Response) -> None:
        """
        See L{ICallListener.call_answered}.
        """
        contact = to_tag = ""
        try:
            to_tag = response.to.tag
            contact = "".join([each.uri.text for each in response.contacts[:1]])
        except ParseError:
            pass  # whatever the phone wrote there, the call is answered
        self._calls.answered(request.call_id, request.from_.tag, response.status, to_tag, contact, self._now())

    def ack_relayed(self, request: Request) -> None:
        """
        See L{ICallListener.ack_relayed}: the record says when the call was answered.
        """

    def call_failed(self, request: Request, status: int) -> None:
        """
        See L{ICallListener.call_failed}.
        """
        self._write(self._calls.failed(request.call_id, request.from_.tag, status, self._now()))

    def bye_relayed(self, request: Request) -> None:
        """
        See L{ICallListener.bye_relayed}.
        """
        self._write(self._calls.bye(request.call_id, request.from_.tag, request.to.tag, self._now()))

    # time, and the end of it

    def _wait(self) -> None:
        expires_at = self._calls.expires_at
        if expires_at is not None:
            self._call = self._clock.callLater(max(0.0, expires_at - self._now()), self._expire)

    def _expire(self) -> None:
        self._call = None
        self._write_all(self._calls.expired(self._now()))
        self._wait()

    def reopen(self) -> None:
        """
        Write what waits, and open the file anew for what comes: for who has moved it away and will not wait.
        """
        if self._file is not None:
            self._file.reopen()

    def stop(self) -> None:
        """
        Write the records of all calls under way, as ended by the node, and close the file.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._write_all(self._calls.stop(self._now()))
        if self._file is not None:
            self._file.stop()

    def _write_all(self, records: Iterable[CallRecord]) -> None:
        for record in records:
            self._write(record)

    def _write(self, record: CallRecord | None) -> None:
        if record is None:
            return
        self._ended += 1
        if self._file is not None:
            self._file.write(encode_record(record))
        if self._finished is not None:
            try:
                result = self._finished(record)
            except Exception:  # noqa: BLE001 - the edge to the operator's code
                log.failure("the policy's call_finished failed")
            else:
                if iscoroutine(result):
                    deferred: Deferred[object] = Deferred.fromCoroutine(result)
                    deferred.addErrback(_failed)


def _failed(failure: Failure) -> None:
    log.failure("the policy's call_finished failed", failure)
