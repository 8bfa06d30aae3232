"""
The users in a file, in memory: L{ICredentialStore} for a node of some ten thousand users.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from sipdmq.core.userfile import UserFileError, Users, parse_users
from sipdmq.errors import ConfigError
from sipdmq.interfaces.credentials import ICredentialStore
from sipdmq.interfaces.inspection import IInspectable

__all__ = ["FileCredentials"]

log = Logger()

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at whether the file has changed."""

State = tuple[int, int, int]
"""Of a file: when it was changed, nanoseconds; its inode; its size. A change of any makes it another file."""


@implementer(ICredentialStore, IInspectable)
class FileCredentials:
    """
    Reads the file at once, and again when it has changed: seen at the next question, at most one second late. While
    the file cannot be used, or is not there, what was read last stays in force, and the log says so, once.

    Reading takes about a second for each million of lines, during which the node does nothing else.
    """

    def __init__(self, path: str, now: Callable[[], float]) -> None:
        """
        @param path: of a text file as L{userfile<sipdmq.core.userfile>} describes it.
        @param now: the time, seconds, that never goes back.
        @raise ConfigError: it cannot be read, or one of its lines cannot be used.
        """
        self._path = path
        self._now = now
        self._looked_at = now()
        self._state: State | None = None
        try:
            self._users = self._read()
        except FileNotFoundError:
            raise ConfigError(
                path, "", "", f"there is no such file; 'sipdmq-users -f {path} add NAME@DOMAIN' makes it"
            ) from None
        except OSError as error:
            raise ConfigError(path, "", "", f"cannot be read: {os.strerror(error.errno or 0)}") from None
        except ValueError as error:
            raise ConfigError(path, "", "", str(error)) from None

    def _read(self) -> Users:
        """
        Read the file; whatever comes of it, this state of the file is known from now on.

        @raise OSError: it cannot be read.
        @raise ValueError: it cannot be used.
        """
        with open(self._path, "rb") as file:
            self._state = _state_of(os.fstat(file.fileno()))
            data = file.read()
        try:
            return parse_users(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"line {data.count(10, 0, error.start) + 1}: is not UTF-8 text") from None
        except UserFileError as error:
            raise ValueError(str(error)) from None

    def ha1(self, username: str, realm: str, algorithm: str) -> Deferred[str | None]:
        """
        See L{ICredentialStore.ha1}.
        """
        now = self._now()
        if now - self._looked_at >= LOOK_EVERY:
            self._looked_at = now
            self._look()
        return succeed(self._users.get((username, realm, algorithm)))

    def _look(self) -> None:
        """
        Read the file again if it is another one than last time.
        """
        try:
            state = _state_of(os.stat(self._path))
        except OSError as error:
            self._complain(None, f"cannot be read: {os.strerror(error.errno or 0)}")
            return
        if state == self._state:
            return
        self._state = state
        try:
            self._users = self._read()
        except OSError as error:
            self._complain(state, f"cannot be read: {os.strerror(error.errno or 0)}")
        except ValueError as error:
            self._complain(self._state, str(error))
        else:
            log.info("{path}: read again, {users} users", path=self._path, users=self._count())

    def _complain(self, state: State | None, reason: str) -> None:
        """
        Say once what is wrong with this state of the file.

        @param state: L{None} when there is none to be seen.
        """
        if state is None and self._state is None:
            return
        self._state = state
        log.error("{path}: {reason}; what was read before stays in force", path=self._path, reason=reason)

    def _count(self) -> int:
        return len({key[:2] for key in self._users})

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {"auth.hashes": len(self._users)}


def _state_of(stat: os.stat_result) -> State:
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
