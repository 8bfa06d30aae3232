"""
From a stream of bytes to whole messages (RFC 3261 §18.3), with CRLF keep-alives (RFC 5626 §3.5.1).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from sipdmq.sip.parser import DEFAULT_LIMITS, ParserLimits

__all__ = ["Frame", "StreamFramer"]

# Content-Length at the beginning of a header line, folds included.
_CONTENT_LENGTH: Final = re.compile(
    rb"\r\n(?:content-length|l)[ \t]*:((?:[^\r]|\r\n[ \t]|\r(?!\n))*)", re.IGNORECASE
)
_NUMBER: Final = re.compile(rb"(?:[ \t]|\r\n[ \t])*0*([0-9]{1,10})(?:[ \t]|\r\n[ \t])*")


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
_CR: Final = 13


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
        self._searched = 0  # no end of headers before this offset in the message
        self._needed = 0  # length of the message at the front, 0 while unknown
        self._is_over = False

    @property
    def is_partial(self) -> bool:
        """
        Whether the stream stands inside a message; a line break alone is none.
        """
        return bool(self._buffer.lstrip(b"\r\n"))

    def feed(self, data: bytes) -> list[Frame]:
        """
        @param data: what the stream brought next; any cut is right.
        @return: the frames that are whole now. After one with C{is_last}, all further bytes are dropped.
        """
        if self._is_over:
            return []
        buffer = self._buffer + data if self._buffer else data
        frames: list[Frame] = []
        start, size = 0, len(buffer)
        while start < size:
            if not self._needed and buffer[start] == _CR:
                if buffer.startswith(b"\r\n\r\n", start):
                    frames.append(KEEP_ALIVE)
                    start += 4
                    continue
                if b"\r\n\r\n".startswith(buffer[start : start + 4]):
                    break
                if buffer.startswith(b"\r\n", start):  # empty lines before a message are skipped (§7.5)
                    start += 2
                    continue
            frame = self._cut(buffer, start)
            if frame is None:
                break
            frames.append(frame)
            self._searched = self._needed = 0
            if frame.is_last:
                self._is_over = True
                start = size
            else:
                start += len(frame.data)
        self._buffer = buffer[start:] if start else buffer
        return frames

    def _cut(self, buffer: bytes, start: int) -> Frame | None:
        """
        The message that begins at C{start}; C{None} while it is not whole.
        """
        if not self._needed:
            end = buffer.find(b"\r\n\r\n", start + self._searched)
            if end < 0:
                if len(buffer) - start > self._limits.message_size:
                    return Frame(buffer[start:], True)
                self._searched = max(0, len(buffer) - start - 3)
                return None
            head = end + 4
            lengths = _CONTENT_LENGTH.findall(buffer, start, end)
            number = _NUMBER.fullmatch(lengths[0]) if len(lengths) == 1 else None
            if number is None:
                return Frame(buffer[start:head], True)
            self._needed = head - start + int(number.group(1))
            if self._needed > self._limits.message_size:
                # As long as it says, to be refused for that; the rest of it is never read.
                return Frame(buffer[start:head].ljust(self._limits.message_size + 1, b"\0"), True)
        if len(buffer) - start < self._needed:
            return None
        return Frame(buffer[start : start + self._needed])
