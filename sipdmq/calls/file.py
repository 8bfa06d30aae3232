"""
Lines to a file: gathered, appended, and never a reason to wait.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from sipdmq.config import NodeConfig
from sipdmq.core.complaints import Complaints
from sipdmq.errors import ConfigError

__all__ = ["RecordFile", "record_path"]

log = Logger()

FLUSH_INTERVAL: Final = 1.0
FLUSH_SIZE: Final = 2**16
"""Bytes that are written at once instead of waiting, and bytes of one write."""
MAX_BUFFER: Final = 2**20
"""Bytes that wait while the file cannot be written; what is more is lost."""


def record_path(config: NodeConfig) -> str:
    """
    The absolute path of C{[calls] record_file}.

    @return: empty when none is written.
    @raise ConfigError: there is no such folder, or it is one.
    """
    name = config.calls.record_file
    if not name:
        return ""
    path = os.path.abspath(os.path.join(os.path.dirname(config.path), name))
    if not os.path.isdir(os.path.dirname(path)):
        raise ConfigError(config.path, "calls", "record_file", f"'{name}': there is no folder {os.path.dirname(path)}")
    if os.path.isdir(path):
        raise ConfigError(config.path, "calls", "record_file", f"'{name}': is a folder")
    return path


class RecordFile:
    """
    A file that lines are appended to, each second and when there are many. It may be moved away or removed at any time
    (logrotate): the next lines go to a new one. While it cannot be written, lines wait, and then get lost and counted.

    @ivar lost: lines that were not written and never will be.
    """

    def __init__(self, clock: IReactorTime, path: str) -> None:
        """
        @param path: absolute.
        """
        self._clock = IReactorTime(clock)
        self._path = path
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._written = 0  # bytes of the first line that are in the file already
        self._file = -1
        self._identity = (0, 0)
        self._call: IDelayedCall | None = None
        self._complaints = Complaints(self._clock.seconds)
        self._is_failing = False
        self.lost = 0

    def write(self, line: str) -> None:
        """
        Append a line, now or within a second.

        @param line: ASCII, without its line break.
        """
        data = line.encode("ascii", "backslashreplace") + b"\n"
        if self._size + len(data) > MAX_BUFFER:
            self.lost += 1
            return
        self._lines.append(data)
        self._size += len(data)
        if self._size >= FLUSH_SIZE and not self._is_failing:
            self.flush()
        elif self._call is None:
            self._call = self._clock.callLater(FLUSH_INTERVAL, self.flush)

    def flush(self) -> None:
        """
        Write what waits.
        """
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        if not self._lines:
            return
        try:
            self._open()
            while self._lines:
                self._drop(os.write(self._file, self._next()))
        except OSError as error:
            self._complain(error.strerror or str(error))
            self._call = self._clock.callLater(FLUSH_INTERVAL, self.flush)
            return
        if self._is_failing:
            self._is_failing = False
            self._complaints.reset()
            log.info("call records are written to {path} again; {lost} are lost", path=self._path, lost=self.lost)

    def _next(self) -> bytes:
        lines, size = [], 0
        for line in self._lines:
            lines.append(line)
            size += len(line)
            if size >= FLUSH_SIZE:
                break
        return b"".join(lines)[self._written :]

    def _drop(self, count: int) -> None:
        """
        @param count: bytes that have been written.
        """
        count += self._written
        while self._lines and count >= len(self._lines[0]):
            line = self._lines.popleft()
            count -= len(line)
            self._size -= len(line)
        self._written = count

    def _open(self) -> None:
        """
        Have the file open that bears the name now.

        @raise OSError: it cannot be opened.
        """
        if self._file >= 0:
            try:
                found = os.stat(self._path)
            except FileNotFoundError:
                self._close()
            else:
                if (found.st_dev, found.st_ino) == self._identity:
                    return
                self._close()
        # O_NONBLOCK: a FIFO that nobody reads is an error, not a place to wait at
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        self._file = os.open(self._path, flags, 0o640)
        opened = os.fstat(self._file)
        if (opened.st_dev, opened.st_ino) == self._identity:
            return
        self._identity = (opened.st_dev, opened.st_ino)
        self._written = 0  # what was begun in another file is written whole in this one
        if opened.st_size and os.pread(self._file, 1, opened.st_size - 1) != b"\n":
            self._lines.appendleft(b"\n")  # a line that was cut short when the power failed stays alone
            self._size += 1

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _complain(self, reason: str) -> None:
        self._is_failing = True
        if not self._complaints.is_due():
            return
        log.error(
            "call records cannot be written to {path}: {reason}; {waiting} wait, {lost} are lost",
            path=self._path,
            reason=reason,
            waiting=len(self._lines),
            lost=self.lost,
        )

    def reopen(self) -> None:
        """
        Write what waits, then let go of the file: the next line opens it anew.
        """
        self.flush()
        self._close()

    def stop(self) -> None:
        """
        Write what waits, and close the file.
        """
        self.flush()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._lines:
            log.error("{lost} call records are lost: {path} cannot be written", lost=len(self._lines), path=self._path)
            self.lost += len(self._lines)
            self._lines.clear()
            self._size = self._written = 0
        self._close()
