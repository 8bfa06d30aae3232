"""
The servers under test, each a process of its own on a loopback address of its own, pinned to one processor core.

Measured from outside, by what Linux counts for the processes: CPU time from C{/proc/PID/stat}, resident memory from
C{/proc/PID/smaps_rollup}, both over the process that was started and all its descendants.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from processes import cpu_seconds, resident_bytes

__all__ = ["CHECKOUT", "Server", "ServerFailed", "own_host", "version_of"]

BENCH = Path(__file__).resolve().parent
CHECKOUT = BENCH.parent

#: Seconds a server may take until its first answer, and to go away after SIGTERM.
START_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0


class ServerFailed(Exception):
    """
    A server did not start, or ended while it was measured.
    """


class Server:
    """
    One program to be measured.

    @cvar name: what it is called on the command line.
    @cvar title: what it is called in the table.
    @cvar works: what it can be measured at.
    @cvar expected: what its good answers begin with.
    @cvar transaction_lifetime: seconds for which it keeps a completed transaction.
    @ivar address: the host and port it listens on, UDP and (if it has that) TCP.
    """

    name = ""
    title = ""
    works: frozenset[str] = frozenset()
    expected = b"SIP/2.0 200 "
    transaction_lifetime = 0.0

    def __init__(self, host: str, port: int = 5060, core: int | None = 0) -> None:
        """
        @param host: a loopback address that nothing else uses.
        @param core: the only processor core it may run on; L{None} for any.
        """
        self.address = (host, port)
        self._core = core
        #: Users whose REGISTERs are to be challenged, and the password of them all.
        self._users: tuple[str, ...] = ()
        self._password = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = ""
        #: Logged by the server: shown when it fails.
        self._log = Path()

    # What a server is: to be overridden.

    def missing(self) -> str:
        """
        @return: why it cannot be measured here, or an empty string.
        """
        return ""

    def command(self, directory: Path) -> list[str]:
        """
        @param directory: an empty one for its files.
        @return: the command that runs it in the foreground.
        """
        raise NotImplementedError

    def with_calls(self) -> Server:
        """
        Not yet started: have it pass calls on, if it does not anyway.

        @return: itself.
        """
        return self

    def with_passwords(self, users: Iterable[str], password: str) -> Server:
        """
        Not yet started: have it ask REGISTERs for a password (MD5, qop=auth).

        @param users: who may register.
        @param password: of each of them.
        @return: itself.
        """
        self._users = tuple(users)
        self._password = password
        return self

    def python_path(self) -> str:
        """
        @return: C{PYTHONPATH} for it. twistd looks for plugins on sys.path, which does not hold the current directory.
        """
        return os.pathsep.join((str(CHECKOUT), os.environ.get("PYTHONPATH", "")))

    # Starting and stopping.

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """
        Start it, and return when it has answered its first request.

        @raise ServerFailed: it ended, did not answer in time, or its address is taken.
        """
        reason = self.missing()
        if reason:
            raise ServerFailed(f"{self.name}: {reason}")
        # Kamailio binds with SO_REUSEADDR, so it would share the datagrams with whoever is there already.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(self.address)
            except OSError as error:
                raise ServerFailed(f"{self.name}: udp {self.address[0]}:{self.address[1]}: {error}") from error
        self._directory = tempfile.mkdtemp(prefix="sipdmq-bench-")
        directory = Path(self._directory)
        self._log = directory / "log"
        core = self._core
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                self.command(directory),
                cwd=directory,
                env={**os.environ, "PYTHONPATH": self.python_path()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None:
                raise ServerFailed(f"{self.name} ended with status {self._process.returncode}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} does not answer after {START_TIMEOUT:.0f} s\n{self.log_tail()}")

    def stop(self) -> None:
        """
        End it and all its processes, each by its own number; harmless when it does not run.
        """
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            # Children that outlived it: all are in the session that was made for it, and bear its number.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = ""

    def _answers(self) -> bool:
        """
        Ask once with OPTIONS, and wait up to 200 ms for any answer.
        """
        host = self.address[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
            probe.settimeout(0.2)
            probe.connect(self.address)
            mark = os.urandom(6).hex()
            try:
                probe.send(
                    f"OPTIONS sip:{host} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{probe.getsockname()[1]};"
                    f"branch=z9hG4bK{mark};rport\r\nMax-Forwards: 70\r\nFrom: <sip:start@{host}>;tag={mark}\r\n"
                    f"To: <sip:{host}>\r\nCall-ID: {mark}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n".encode()
                )
                return bool(probe.recv(65535))
            except OSError:
                time.sleep(0.1)  # refused comes at once
                return False

    def log_tail(self) -> str:
        """
        @return: the last lines it wrote.
        """
        try:
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])
        except OSError:
            return ""

    # Measuring.

    @property
    def pid(self) -> int:
        """
        The process that was started.
        """
        if self._process is None or self._process.poll() is not None:
            raise ServerFailed(f"{self.name} does not run any more\n{self.log_tail()}")
        return self._process.pid

    def cpu_seconds(self) -> float:
        """
        @return: user and system time used so far by all its processes.
        """
        return cpu_seconds(self.pid)

    def resident_bytes(self) -> int:
        """
        @return: resident memory of all its processes; see L{resident_bytes<processes.resident_bytes>}.
        """
        return resident_bytes(self.pid)


def own_host(number: int) -> str:
    """
    @param number: 1 to 250, one for each server of this process.
    @return: a loopback address which this process shares with no other run of these programs.
    """
    return f"127.71.{os.getpid() % 250}.{number}"


def version_of(program: Iterable[str]) -> str:
    """
    @return: the first line that a command such as C{kamailio -v} prints, or "not installed".
    """
    try:
        run = subprocess.run([*program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10, check=False)
    except OSError:
        return "not installed"
    return run.stdout.decode(errors="replace").partition("\n")[0].strip()
