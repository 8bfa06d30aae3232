"""
The command C{sipdmq-users}: who may register and call, and with which password.

A password is asked at the terminal, twice and without echo, or read from standard input for scripts; it is no argument,
since arguments are seen by everybody on the machine. What is stored are its hashes for all algorithms, in a file
that only its owner can read: for SIP each is as good as the password.
"""

from __future__ import annotations

import argparse
import fcntl
import getpass
import os
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from sipdmq.core.userfile import UserFileError, parse_users, with_user, without_user
from sipdmq.errors import ParseError, SipDmqError
from sipdmq.sip.uri import parse_host_port

__all__ = ["UsersError", "edit", "main", "parse_name"]

DEFAULT_FILE: Final = "etc/users"
LOCK_TRIES: Final = 100
LOCK_PAUSE: Final = 0.1  # seconds
_NEW_MODE: Final = 0o600


class UsersError(SipDmqError):
    """
    What the operator is told: one line, exit status 1.
    """


def parse_name(text: str) -> tuple[str, str]:
    """
    Read C{NAME@DOMAIN}.

    @return: the user, and the domain as the node names it: lower case, an IPv6 address without brackets.
    @raise UsersError: it is none, or has characters that the file cannot hold.
    """
    user, at, host = text.rpartition("@")
    try:
        domain, port = parse_host_port(host.removesuffix(".").lower())
    except ParseError:
        domain, port = "", None
    if not at or not user or not domain or port is not None:
        raise UsersError(f"{text!r} must read NAME@DOMAIN, as alice@example.org; the domain is one of [node] domains")
    if not user.isprintable() or user != user.strip() or user[0] == "#" or any(each in user for each in ':"\\'):
        raise UsersError(f"{user!r} must not hold colons, quotes, backslashes or control characters")
    return user, domain


def _ask_password(name: str) -> str:
    """
    @raise UsersError: there is no terminal, or twice the same was not typed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # it could not be hidden
            password = getpass.getpass(f"Password for {name}: ")
            again = getpass.getpass("The same again: ")
    except (getpass.GetPassWarning, EOFError):
        raise UsersError("no terminal to ask for a password; give it as a line on standard input, by --stdin") from None
    if password != again:
        raise UsersError("these are two different passwords; nothing was changed")
    return password


def _read_password() -> str:
    """
    The first line of standard input.
    """
    line = sys.stdin.buffer.readline()
    try:
        return line.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UsersError("the password on standard input is not UTF-8 text") from None


def _check_password(password: str) -> None:
    if not password:
        raise UsersError("an empty password is none; nothing was changed")
    if any(each < " " or each == "\x7f" for each in password):
        raise UsersError("the password must not hold control characters; nothing was changed")


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """
    Hold the lock for all files of a folder: the file itself is replaced, so a lock on it would guard nothing.

    @raise UsersError: somebody else holds it, for ten seconds.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for left in range(LOCK_TRIES, -1, -1):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise UsersError(f"somebody else is changing users in {folder}; nothing was changed") from None
                time.sleep(LOCK_PAUSE)
        yield
    finally:
        os.close(descriptor)


def _read(path: str) -> tuple[str, os.stat_result | None]:
    """
    @return: the text, and what the file is; the empty text and C{None} when there is none.
    @raise UsersError: it is no file of users.
    """
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            text = file.read().decode("utf-8")
        parse_users(text)
    except FileNotFoundError:
        return "", None
    except UnicodeDecodeError:
        raise UsersError(f"{path}: is not UTF-8 text; nothing was changed") from None
    except UserFileError as error:
        raise UsersError(f"{path}: {error}; nothing was changed") from None
    return text, status


def _replace(path: str, text: str, previous: os.stat_result | None) -> None:
    """
    Put a new file in the place of the old one, whole or not at all, with its owner and mode.
    """
    folder = os.path.dirname(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if previous is not None:
                mine = os.fstat(file.fileno())
                if (mine.st_uid, mine.st_gid) != (previous.st_uid, previous.st_gid):
                    os.fchown(file.fileno(), previous.st_uid, previous.st_gid)
            os.fchmod(file.fileno(), _NEW_MODE if previous is None else stat.S_IMODE(previous.st_mode))
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)  # the name, too, survives a power failure
    finally:
        os.close(opened)


def edit(path: str, change: Callable[[str], str]) -> None:
    """
    Change a file of users, while nobody else does.

    @param path: of a file that need not be there yet; its folder must be. A symbolic link stays one.
    @param change: from the text to the new one; what it raises leaves the file as it is.
    @raise UsersError: it is no file of users, or somebody else keeps changing it.
    @raise OSError: it cannot be read or written.
    """
    path = os.path.realpath(path)
    with _locked(os.path.dirname(path)):
        text, status = _read(path)
        _replace(path, change(text), status)


def _add(path: str, name: str, is_script: bool) -> str:
    username, realm = parse_name(name)
    _read(path)  # before somebody types a password for nothing
    password = _read_password() if is_script else _ask_password(f"{username}@{realm}")
    _check_password(password)
    was_there = False

    def change(text: str) -> str:
        nonlocal was_there
        was_there = any(key[:2] == (username, realm) for key in parse_users(text))
        return with_user(text, username, realm, password)

    edit(path, change)
    return f"{path}: {username}@{realm} {'has a new password' if was_there else 'added'}\n"


def _remove(path: str, name: str) -> str:
    username, realm = parse_name(name)

    def change(text: str) -> str:
        if not any(key[:2] == (username, realm) for key in parse_users(text)):
            raise UsersError(f"{path}: there is no {username}@{realm}")
        return without_user(text, username, realm)

    edit(path, change)
    return f"{path}: {username}@{realm} removed\n"


def _list(path: str) -> str:
    text, status = _read(path)
    if status is None:
        raise UsersError(f"{path}: there is no such file")
    algorithms: dict[str, list[str]] = {}
    for username, realm, algorithm in parse_users(text):
        algorithms.setdefault(f"{username}@{realm}", []).append(algorithm)
    return "".join(f"{name}  {' '.join(algorithms[name])}\n" for name in sorted(algorithms))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sipdmq-users",
        description="Who may register and call at a sipdmq node. A running node sees a change within a second or two.",
    )
    parser.add_argument(
        "-f", "--file", default=DEFAULT_FILE, metavar="FILE", help="the file of users (default: %(default)s)"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="add | remove | list")
    add = commands.add_parser("add", help="add a user, or give one a new password, which is asked for")
    add.add_argument("name", metavar="NAME@DOMAIN")
    add.add_argument("--stdin", action="store_true", help="read the password from the first line of standard input")
    remove = commands.add_parser("remove", help="remove a user")
    remove.add_argument("name", metavar="NAME@DOMAIN")
    commands.add_parser("list", help="list the users, and the algorithms for which each has a hash")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    @param argv: without the program's name; C{None} for the process's own.
    @return: the exit status: 0, or 1 after one line on standard error; 130 when it was interrupted.
    @raise SystemExit: the arguments are wrong (status 2), or help was asked for.
    """
    arguments = _arguments(argv)
    path: str = arguments.file
    try:
        if arguments.command == "add":
            told = _add(path, arguments.name, arguments.stdin)
        elif arguments.command == "remove":
            told = _remove(path, arguments.name)
        else:
            told = _list(path)
    except UsersError as error:
        sys.stderr.write(f"sipdmq-users: {error}\n")
        return 1
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else path  # of what is open it is a number
        sys.stderr.write(f"sipdmq-users: {where}: {os.strerror(error.errno or 0)}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 130
    sys.stdout.write(told)
    return 0
