"""
The programs that are measured: our node, compiled or not, Kamailio, and what Twisted itself has.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from servers import BENCH, CHECKOUT, Server

__all__ = [
    "SERVERS",
    "CompiledSipdmqNode",
    "Kamailio",
    "KamailioTlsf",
    "SipdmqNode",
    "TwistedEcho",
    "TwistedRegisterProxy",
]


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
