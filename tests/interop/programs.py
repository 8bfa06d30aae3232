"""
The programs of these tests, as processes with an end: the node (or Kamailio in its place), and those that talk to it.

Blocking on purpose: what is tested runs in other processes, and each wait has its bound.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

__all__ = [
    "InteropTestCase",
    "KamailioProcess",
    "NodeProcess",
    "Output",
    "ProgramFailed",
    "ServerProcess",
    "lacks",
    "require",
    "require_ipv6",
    "run_program",
]

CHECKOUT = Path(__file__).resolve().parents[2]

#: Seconds a server may take until it answers, and to go away after SIGTERM.
START_TIMEOUT = 20.0
STOP_TIMEOUT = 10.0

#: Seconds to wait for an answer to one datagram.
ANSWER_TIMEOUT = 2.0


class ProgramFailed(Exception):
    """
    A program did not start, did not answer, or did not end in the time it was given.
    """


def require(*programs: str) -> None:
    """
    @raise SkipTest: one of the programs is not installed, and it need not be.
    @raise ProgramFailed: one of them is not installed, but here it must be.
    """
    for program in programs:
        if shutil.which(program) is None:
            lacks(f"{program} is not installed")


def lacks(reason: str) -> None:
    """
    @param reason: what is missing here for a test.
    @raise SkipTest: always, unless it must be there: then L{ProgramFailed}.
    """
    if os.environ.get("CI") == "true" or os.environ.get("SIPDMQ_REQUIRE_INTEROP") == "1":
        raise ProgramFailed(reason)
    raise SkipTest(reason)


def require_ipv6() -> None:
    """
    @raise SkipTest: this machine has not even ::1, as many a container.
    """
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        raise SkipTest(f"this machine has no IPv6: {error}") from None


@dataclass(frozen=True)
class Output:
    """
    What a program that has ended left behind.

    @ivar status: its exit status; negative for a signal.
    @ivar text: what it wrote, stdout and stderr together.
    """

    status: int
    text: str


def run_program(arguments: Sequence[str], timeout: float, cwd: str | None = None, text: str = "") -> Output:
    """
    Run a program to its end.

    @param timeout: seconds.
    @param text: its input.
    @raise ProgramFailed: it did not end in time, and was killed.
    """
    try:
        # sipp wants to know a terminal to draw its screens on.
        done = subprocess.run(
            arguments,
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            cwd=cwd,
            env={**os.environ, "TERM": "xterm"},
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        written = (expired.stdout or b"").decode(errors="replace")
        raise ProgramFailed(f"{' '.join(arguments)} did not end within {timeout} s\n{written}") from None
    return Output(done.returncode, done.stdout.decode(errors="replace"))


class ServerProcess:
    """
    A SIP server in a process of its own.

    @cvar program: what it is called, for tests that differ.
    @ivar host: C{str}, its address.
    @ivar port: C{int}, for UDP and TCP alike.
    @ivar inside: it runs there, and is asked from there: by default here, else in a
        L{Namespace<tests.interop.namespaces.Namespace>}.
    """

    program = ""

    def __init__(self, host: str, port: int = 5060) -> None:
        self.host = host
        self.port = port
        self.inside: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
        self.directory = Path(tempfile.mkdtemp(prefix="sipdmq-interop-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._questions = 0

    def command(self) -> list[str]:
        """
        @return: what runs it in the foreground; files it needs are written to C{self.directory}.
        """
        raise NotImplementedError

    def start(self) -> None:
        """
        Start it, and return when it answers OPTIONS over UDP.

        @raise ProgramFailed: it ended, or did not answer in time; the message holds its log.
        """
        # Someone who is there already would answer in its place: Kamailio even shares an address without complaint.
        with self.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((self.host, self.port))
        with self.inside(), open(self.directory / "log", "wb") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # twistd looks for plugins on sys.path, which does not hold the current directory.
                env={**os.environ, "PYTHONPATH": os.pathsep.join((str(CHECKOUT), os.environ.get("PYTHONPATH", "")))},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self.ask(self.options(), 0.2).startswith(b"SIP/2.0 200 "):
            if self._process.poll() is not None:
                raise ProgramFailed(f"{self.program} ended with status {self._process.returncode}:\n{self.log()}")
            if time.monotonic() > deadline:
                raise ProgramFailed(f"{self.program} does not answer after {START_TIMEOUT:.0f} s:\n{self.log()}")

    def stop(self) -> int:
        """
        End it by SIGTERM; harmless when it does not run.

        @return: its exit status; 0 when it did not run.
        @raise ProgramFailed: it did not end in time, and was killed.
        """
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ProgramFailed(
                f"{self.program} did not end within {STOP_TIMEOUT:.0f} s of SIGTERM:\n{self.log()}"
            ) from None
        finally:
            # Children that outlived it: all are in the session that was made for it, and bear its number.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def clean_up(self) -> None:
        """
        End it, and remove its files.
        """
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        """
        @return: the last lines that it wrote.
        """
        try:
            return "\n".join((self.directory / "log").read_text(errors="replace").splitlines()[-60:])
        except FileNotFoundError:
            return ""

    def snapshot(self) -> dict[str, float]:
        """
        The numbers of a node, as it writes them into its log when it is asked.

        @raise ProgramFailed: it writes none.
        """
        assert self._process is not None
        path = self.directory / "log"
        before = path.stat().st_size
        self._process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + ANSWER_TIMEOUT
        while time.monotonic() < deadline:
            _, found, rest = path.read_bytes()[before:].decode(errors="replace").partition("snapshot: ")
            line, ended, _ = rest.partition("\n")
            if found and ended:
                pairs = (pair.partition("=") for pair in line.split())
                return {name: float(value) for name, _, value in pairs}
            time.sleep(0.02)
        raise ProgramFailed(f"{self.program} wrote no snapshot:\n{self.log()}")

    # Talking to it without any of the other programs.

    def ask(self, request: bytes, timeout: float = ANSWER_TIMEOUT) -> bytes:
        """
        Send one datagram from a port of its own and wait for one.

        @param timeout: seconds.
        @return: the first answer, or nothing.
        """
        with self.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
            phone.bind((self.host, 0))
            phone.settimeout(timeout)
            phone.connect((self.host, self.port))
            try:
                phone.send(request)
                return phone.recv(65535)
            except ConnectionRefusedError:
                time.sleep(min(timeout, 0.1))  # nobody listens yet
            except TimeoutError:
                pass
        return b""

    def options(self) -> bytes:
        """
        @return: an OPTIONS request to the server itself, different from all before.
        """
        return self._request("OPTIONS", f"sip:{self.host}", f"sip:{self.host}")

    def bindings(self, user: str) -> list[str]:
        """
        Ask for a user's bindings with a REGISTER that has no Contact.

        @param user: of the domain that is called like the server's address.
        @return: the values of Contact, one string for each binding.
        @raise ProgramFailed: the answer was not 200.
        """
        answer = self.ask(self._request("REGISTER", f"sip:{self.host}", f"sip:{user}@{self.host}"))
        head, *fields = answer.partition(b"\r\n\r\n")[0].decode(errors="replace").split("\r\n")
        if not head.startswith("SIP/2.0 200 "):
            raise ProgramFailed(f"the query for {user} was answered {answer!r}")
        contacts: list[str] = []
        for field in fields:
            name, _, value = field.partition(":")
            if name.strip().lower() in ("contact", "m"):
                # Good enough here: no contact of these tests has a comma inside.
                contacts.extend(part.strip() for part in value.split(",") if part.strip())
        return contacts

    def _request(self, method: str, uri: str, to: str) -> bytes:
        self._questions += 1
        mark = f"{os.urandom(4).hex()}{self._questions}"
        return (
            f"{method} {uri} SIP/2.0\r\n"
            # Answers come back by rport, so the port written here need not be true.
            f"Via: SIP/2.0/UDP {self.host}:5999;branch=z9hG4bK{mark};rport\r\n"
            f"Max-Forwards: 70\r\n"
            f"From: <{to}>;tag={mark}\r\n"
            f"To: <{to}>\r\n"
            f"Call-ID: {mark}@{self.host}\r\n"
            f"CSeq: 1 {method}\r\n"
            f"Content-Length: 0\r\n\r\n"
        ).encode()


class NodeProcess(ServerProcess):
    """
    The node, started as a user does: C{twistd -n sipdmq -c FILE}, from the checkout.
    """

    program = "sipdmq"

    def __init__(self, host: str, port: int = 5060, settings: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """
        @param settings: more sections and keys of its INI file.
        """
        super().__init__(host, port)
        self._settings = settings or {}

    def command(self) -> list[str]:
        sections: dict[str, dict[str, str]] = {
            "node": {
                "listen": f"udp:{self.host}:{self.port}\n    tcp:{self.host}:{self.port}",
                "domains": f"{self.host} localhost",
            }
        }
        for section, keys in self._settings.items():
            sections.setdefault(section, {}).update(keys)
        ini = self.directory / "node.ini"
        ini.write_text(
            "\n".join(
                f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
                for section, keys in sections.items()
            )
        )
        script = Path(sys.executable).with_name("twistd")
        module = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
        return [*([str(script)] if script.exists() else module), "-n", "--pidfile=", "sipdmq", "-c", str(ini)]


class KamailioProcess(ServerProcess):
    """
    Kamailio as a plain registrar, in the node's place: a test that fails with it, too, is wrong itself.
    """

    program = "kamailio"

    def command(self) -> list[str]:
        require("kamailio")
        listen = f"{self.host}:{self.port}"
        return [
            *("kamailio", "-f", str(CHECKOUT / "bench" / "kamailio.cfg"), "-DD", "-E", "-m", "64"),
            *("-w", str(self.directory), "-Y", str(self.directory), "-P", str(self.directory / "pid")),
            *("-A", f"LISTEN_UDP=udp:{listen}", "-A", f"LISTEN_TCP=tcp:{listen}"),
        ]


class InteropTestCase(SynchronousTestCase):
    """
    A node of its own for each test, on an address of its own for each class.

    @cvar programs: those that must be installed.
    @cvar host: the address of the server, one for each class.
    @cvar settings: more sections and keys of the node's INI file.
    @ivar server: the server, running.
    @ivar directory: for the files of the other program.
    """

    programs: tuple[str, ...] = ()
    host = ""
    settings: Mapping[str, Mapping[str, str]] = {}

    def setUp(self) -> None:
        require(*self.programs)
        self.server: ServerProcess
        if os.environ.get("SIPDMQ_INTEROP_AGAINST") == "kamailio":
            self.server = KamailioProcess(self.host)
        else:
            self.server = NodeProcess(self.host, settings=self.settings)
        self.addCleanup(self.server.clean_up)
        self.directory = self.server.directory / "peer"
        self.directory.mkdir()
        self.prepare()
        self.server.start()

    def prepare(self) -> None:
        """
        Write what the node reads when it starts, into C{self.server.directory}: its INI file will be there.
        """

    def not_kamailio(self, reason: str) -> None:
        """
        @param reason: what Kamailio does instead of what the test is about.
        @raise SkipTest: the server is Kamailio.
        """
        if self.server.program == "kamailio":
            raise SkipTest(f"Kamailio: {reason}")

    def assert_well(self) -> None:
        """
        The server still answers, and has logged no traceback.
        """
        answer = self.server.ask(self.server.options())
        self.assertTrue(answer.startswith(b"SIP/2.0 200 "), f"OPTIONS was answered {answer!r}\n{self.server.log()}")
        self.assertNotIn("Traceback", self.server.log())
