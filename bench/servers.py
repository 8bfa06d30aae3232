"""
The servers under test, each a process of its own on a loopback address of its own, pinned to one processor core.

Measured from outside, by what Linux counts for the processes: CPU time from C{/proc/PID/stat}, resident memory from
C{/proc/PID/smaps_rollup}, both over the process that was started and all its descendants.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = [
    "SERVERS",
    "CompiledSipdmqNode",
    "Kamailio",
    "KamailioTlsf",
    "Server",
    "ServerFailed",
    "SipdmqNode",
    "TwistedEcho",
    "TwistedRegisterProxy",
    "own_host",
    "version_of",
]

BENCH = Path(__file__).resolve().parent
CHECKOUT = BENCH.parent

#: Clock ticks per second in /proc/PID/stat.
TICKS = os.sysconf("SC_CLK_TCK")

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
        ticks = 0
        for pid in _descendants(self.pid):
            fields = _stat(pid)
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS

    def resident_bytes(self) -> int:
        """
        @return: resident memory of all its processes, a page that several of them share counted once (Linux' PSS), and
            pages of files not counted: code is shared with whatever else runs, and Linux drops and reads it at will.
        """
        kilobytes = 0
        for pid in _descendants(self.pid):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    kilobytes += int(line.split()[1])
        return kilobytes * 1024


class SipdmqNode(Server):
    """
    Our node, started as a user starts it.
    """

    name = "sipdmq"
    title = "sipdmq"
    works = frozenset(
        {"register", "refresh", "options", "memory", "bindings", "transactions", "latency", "idle-tcp", "stalled-tcp"}
        | {"digest-first", "digest-refresh", "calls", "trying", "tls-register", "tls-idle", "tls-plain"}
    )
    transaction_lifetime = 32.0  # RFC 3261 §17.2.2, timer J: 64 * T1

    def __init__(
        self,
        host: str,
        port: int = 5060,
        core: int | None = 0,
        settings: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """
        @param settings: sections and keys of the INI file beside C{[node] listen} and C{domains}.
        """
        super().__init__(host, port, core)
        self._settings = settings or {}

    def missing(self) -> str:
        for part in ("sipdmq/tap.py", "twisted/plugins/sipdmq_plugin.py"):
            if not (CHECKOUT / part).exists():
                return f"{part} does not exist"
        return ""

    def command(self, directory: Path) -> list[str]:
        host, port = self.address
        sections: dict[str, dict[str, str]] = {
            "node": {"listen": f"udp:{host}:{port}\n    tcp:{host}:{port}", "domains": host},
            "auth": {"enable": "no"},
        }
        if self._users:
            users = directory / "users"
            # What sipdmq-users writes, for one algorithm.
            users.write_text(
                "".join(
                    f"{user}:{host}:MD5:{hashlib.md5(f'{user}:{host}:{self._password}'.encode()).hexdigest()}\n"
                    for user in self._users
                )
            )
            sections["auth"] = {"enable": "yes", "users": str(users)}
        for section, keys in self._settings.items():
            sections.setdefault(section, {}).update(keys)
        ini = directory / "node.ini"
        ini.write_text(
            "\n".join(
                f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
                for section, keys in sections.items()
            )
        )
        return [*self.twistd(), "-n", "--pidfile=", "sipdmq", "-c", str(ini)]

    def twistd(self) -> list[str]:
        """
        @return: the command C{twistd} of the Python that runs this: its script, or else its module.
        """
        script = Path(sys.executable).with_name("twistd")
        if script.exists():
            return [str(script)]
        return [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


class CompiledSipdmqNode(SipdmqNode):
    """
    Our node, installed from the wheel of C{make compiled}; nothing of the checkout.

    @cvar venv: where it is installed, with the same Python as runs this.
    """

    name = "sipdmq-compiled"
    title = "sipdmq, compiled"
    venv: Path | None = None

    def missing(self) -> str:
        if self.venv is None:
            return "no --compiled-venv was given"
        if not any(self.venv.glob("lib/python*/site-packages/sipdmq__mypyc.*")):
            return f"there is no compiled sipdmq in {self.venv}"
        return ""

    def python_path(self) -> str:
        return ""

    def twistd(self) -> list[str]:
        return [f"{self.venv}/bin/twistd"]


class Kamailio(Server):
    """
    Kamailio with Debian's default allocator, and one worker for UDP.
    """

    name = "kamailio"
    title = "Kamailio, default allocator"
    works = frozenset(
        {"register", "refresh", "options", "memory", "latency", "idle-tcp", "stalled-tcp"}
        | {"digest-first", "digest-refresh", "calls", "trying"}
    )
    allocator: tuple[str, ...] = ()
    _config = "kamailio.cfg"

    def with_calls(self) -> Server:
        self._config = "kamailio-calls.cfg"
        return self

    def with_passwords(self, users: Iterable[str], password: str) -> Server:
        return super().with_passwords(users, password).with_calls()  # the configuration has both

    def missing(self) -> str:
        return "" if shutil.which("kamailio") else "kamailio is not installed"

    def command(self, directory: Path) -> list[str]:
        listen = f"{self.address[0]}:{self.address[1]}"
        return [
            shutil.which("kamailio") or "kamailio",
            *("-f", str(BENCH / self._config), "-DD", "-E"),  # -DD: the first process stays the parent of all
            *("-w", str(directory), "-Y", str(directory), "-P", str(directory / "pid")),
            *("-m", "2048", "-M", "64"),
            *self.allocator,
            *("-A", f"LISTEN_UDP=udp:{listen}", "-A", f"LISTEN_TCP=tcp:{listen}"),
            *(("-A", f'PASSWORD="{self._password}"') if self._password else ()),
        ]


class KamailioTlsf(Kamailio):
    """
    Kamailio with the two-level segregated fit allocator for shared and private memory.
    """

    name = "kamailio-tlsf"
    title = "Kamailio, -x tlsf -X tlsf"
    allocator = ("-x", "tlsf", "-X", "tlsf")


class TwistedRegisterProxy(Server):
    """
    C{twisted.protocols.sip}: what Twisted itself ships, as something to be better than. Its log goes to a file, as
    C{twistd} has it; it writes a line for each REGISTER.
    """

    name = "twisted-sip"
    title = "twisted.protocols.sip"
    works = frozenset({"register", "refresh"})

    def command(self, directory: Path) -> list[str]:
        program = [sys.executable, str(BENCH / "twisted_sip.py"), self.address[0], str(self.address[1])]
        return [*program, str(directory / "twistd.log")]


class SilentTwistedRegisterProxy(TwistedRegisterProxy):
    """
    The same with its log thrown away: what its SIP alone costs.
    """

    name = "twisted-sip-silent"
    title = "twisted.protocols.sip, no log"

    def command(self, directory: Path) -> list[str]:
        return super().command(directory)[:-1]


class TwistedEcho(Server):
    """
    A Twisted UDP protocol that returns every datagram: the floor under anything written on Twisted.
    """

    name = "twisted-echo"
    title = "Twisted UDP echo"
    works = frozenset({"options"})
    expected = b""

    def command(self, directory: Path) -> list[str]:
        return [sys.executable, str(BENCH / "twisted_echo.py"), self.address[0], str(self.address[1])]


#: All of them, in the order of the table, by name.
SERVERS: dict[str, type[Server]] = {
    server.name: server
    for server in (
        SipdmqNode,
        CompiledSipdmqNode,
        KamailioTlsf,
        Kamailio,
        TwistedRegisterProxy,
        SilentTwistedRegisterProxy,
        TwistedEcho,
    )
}


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


def _stat(pid: int) -> list[str]:
    """
    @return: the fields of C{/proc/PID/stat} after the name: state, parent, ...; field 14 of proc(5) is number 11 here.
    @raise ProcessLookupError: there is no such process.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError as error:
        raise ProcessLookupError(pid) from error
    return text.rpartition(")")[2].split()


def _descendants(pid: int) -> list[int]:
    """
    @return: this process and the children of its children that live now.
    """
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(_stat(int(entry))[1])
            except ProcessLookupError:
                continue  # it ended while we looked
            children.setdefault(parent, []).append(int(entry))
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, ()))
    return found
