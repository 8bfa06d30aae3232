"""
Programs that go on while a test does other things, each ended by its own process.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.interop.programs import ProgramFailed

__all__ = ["Background", "is_bound", "wait_until_bound"]

#: Seconds until a program must have opened its port.
BOUND_TIMEOUT = 10.0


class Background:
    """
    A program that runs. What it writes goes to a file.
    """

    def __init__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        """
        Start it, in the folder of C{log}.

        @param log: the file, for stdout and stderr together.
        @param environment: variables besides those of the tests.
        """
        self.name = Path(arguments[0]).name
        self.log = log
        with open(log, "wb") as file:
            self._process = subprocess.Popen(
                arguments,
                cwd=log.parent,
                stdin=subprocess.PIPE,  # open, and nothing comes: some end when their input does
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TERM": "xterm", **(environment or {})},
            )

    @property
    def text(self) -> str:
        """
        What it wrote so far, without colours.
        """
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text(errors="replace"))

    @property
    def is_running(self) -> bool:
        """
        Whether it has not ended by itself.
        """
        return self._process.poll() is None

    def wait_for(self, pattern: str, timeout: float) -> str:
        """
        @param pattern: a regular expression; C{^} and C{$} mean lines.
        @param timeout: seconds.
        @return: the first text that it wrote and that matches.
        @raise ProgramFailed: it ended without, or there was none in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            is_running = self.is_running  # before reading: what it wrote last counts
            found = re.search(pattern, self.text, re.MULTILINE)
            if found:
                return found[0]
            if not is_running:
                raise ProgramFailed(f"{self.name} ended with status {self._process.returncode}:\n{self.text}")
            if time.monotonic() > deadline:
                raise ProgramFailed(f"{self.name} did not write {pattern!r}:\n{self.text}")
            time.sleep(0.02)

    def wait(self, timeout: float) -> int:
        """
        @param timeout: seconds.
        @return: its exit status, when it ended by itself.
        @raise ProgramFailed: it did not in time.
        """
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ProgramFailed(f"{self.name} does not end:\n{self.text}") from None

    def write(self, data: bytes) -> None:
        """
        Into its standard input.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def interrupt(self) -> None:
        """
        Ctrl-C.
        """
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """
        Whatever happened, it does not stay.
        """
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def is_bound(host: str, port: int, protocol: str) -> bool:
    """
    Whether somebody listens there. Nothing is sent to him, since a program would count it.

    @param host: a numeric address.
    @param protocol: C{udp} or C{tcp}.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    packed = socket.inet_pton(family, host)
    words = [packed[at : at + 4][::-1].hex().upper() for at in range(0, len(packed), 4)]  # as this machine has them
    address = f"{''.join(words)}:{port:04X}"
    listening = "07" if protocol == "udp" else "0A"  # include/net/tcp_states.h of Linux
    table = f"{protocol}6" if ":" in host else protocol
    lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    return any(line.split()[1] == address and line.split()[3] == listening for line in lines)


def wait_until_bound(program: Background, host: str, port: int, protocol: str) -> None:
    """
    @raise ProgramFailed: it ended, or did not open its port in time.
    """
    deadline = time.monotonic() + BOUND_TIMEOUT
    while not is_bound(host, port, protocol):
        if not program.is_running or time.monotonic() > deadline:
            raise ProgramFailed(f"{program.name} does not listen on {protocol}:{host}:{port}:\n{program.text}")
        time.sleep(0.01)
