"""
From a stream of bytes to whole messages (RFC 3261 §18.3), with CRLF keep-alives (RFC 5626 §3.5.1).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from sipdmq.sip.parser import DEFAULT_LIMITS, ParserLimits

__all__ = ["Frame", "StreamFramer"]

# Content-Length at the beginning of a header line, folds included.
_CONTENT_LENGTH: Final = re.compile(rb"\r\n(?:content-length|l)[ \t]*:((?:[^\r]|\r\n[ \t])*)", re.IGNORECASE)
_DIGITS: Final = re.compile(rb"0*[0-9]{1,10}")


class Frame(NamedTuple):
    """
    What stands next in the stream.

    @ivar data: one message; empty for a keep-alive.
    @ivar is_last: nothing behind it can be found in the stream: its length is missing, wrong or given twice, or the
        message is too large. The parser refuses C{data}, and the connection is to be closed.
    """

    data: bytes
    is_last: bool = False


KEEP_ALIVE: Final = Frame(b"")


class StreamFramer:
    """
    Collects bytes until a message is whole. Holds no more than one message's worth of them beyond what one C{feed}
    brought; each byte is looked at a bounded number of times, however it trickles in.
    """

    __slots__ = ("_buffer", "_is_over", "_limits", "_needed", "_searched")

    def __init__(self, limits: ParserLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        # bytes, not a bytearray: an idle connection shares the one empty object
        self._buffer = b""
        self._searched = 0  # no end of headers before this offset
        self._needed = 0  # length of the message at the front, 0 while unknown
        self._is_over = False

    @property
    def is_partial(self) -> bool:
        """
        Whether the stream stands inside a message.
        """
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """
        @param data: what the stream brought next; any cut is right.
        @return: the frames that are whole now. After one with C{is_last}, all further bytes are dropped.
        """
        if self._is_over:
            return []
        buffer = self._buffer + data if self._buffer else data
        frames: list[Frame] = []
        while buffer:
            if not self._needed and buffer[:1] == b"\r":
                if buffer[:4] == b"\r\n\r\n":
                    frames.append(KEEP_ALIVE)
                    buffer = buffer[4:]
                    continue
                if len(buffer) < 4 and b"\r\n\r\n".startswith(buffer):
                    break
                if buffer[:2] == b"\r\n":  # empty lines before a message are skipped (§7.5)
                    buffer = buffer[2:]
                    continue
            frame = self._cut(buffer)
            if frame is None:
                break
            frames.append(frame)
            if frame.is_last:
                self._is_over = True
                buffer = b""
            else:
                buffer = buffer[len(frame.data) :]
            self._searched = self._needed = 0
        self._buffer = buffer
        return frames

    def _cut(self, buffer: bytes) -> Frame | None:
        if not self._needed:
            end = buffer.find(b"\r\n\r\n", self._searched)
            if end < 0:
                if len(buffer) > self._limits.message_size:
                    return Frame(buffer + b"\r\n\r\n", True)
                self._searched = max(0, len(buffer) - 3)
                return None
            head = end + 4
            lengths = [b"".join(value.split()) for value in _CONTENT_LENGTH.findall(buffer, 0, end)]
            if len(lengths) != 1 or not _DIGITS.fullmatch(lengths[0]):
                return Frame(buffer[:head], True)
            self._needed = head + int(lengths[0])
            if self._needed > self._limits.message_size:
                return Frame(buffer[:head] + bytes(self._limits.message_size), True)
        if len(buffer) < self._needed:
            return None
        return Frame(buffer[: self._needed])
