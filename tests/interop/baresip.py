"""
baresip, a real phone, without audio devices and without a terminal.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import wave
from collections.abc import Sequence
from pathlib import Path

from sipdmq.sip.uri import format_host
from tests.interop.background import Background
from tests.interop.programs import ProgramFailed, require

__all__ = ["Baresip", "write_tone"]

#: Where Debian and others put baresip's modules.
MODULE_PATHS = ("/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules", "/usr/lib64/baresip/modules")

#: Seconds that it may take for what it is told, and after which it ends by itself.
TIMEOUT = 10.0
LIFETIME = 40

#: Of the first phone at an address.
CONTROL_PORT = 4444

CONFIG = """\
sip_listen {host}:0
module_path {modules}
module g711.so
module aufile.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen {host}:{control}
audio_source aufile,{tone}
audio_player aufile,{directory}/heard.wav
"""

TLS = """\
sip_certificate {folder}/{user}-phone.pem
sip_cafile {folder}/ca.pem
"""

PRESENCE = """\
module_app contact.so
module_app presence.so
"""

ACCOUNT = "<sip:{user}@{node};transport={transport}>;regint=60;answermode={mode};auth_user={user};auth_pass={secret}"

#: Of an account whose state is published: it is refreshed after so many seconds.
PUBLISHES = ";pubint={seconds}"


def write_tone(path: Path) -> None:
    """
    Five seconds of 440 Hz, as baresip's module C{aufile} can read it: 8 kHz, 16 bits.
    """
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        samples = (int(8000 * math.sin(2 * math.pi * 440 * at / 8000)) for at in range(5 * 8000))
        file.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))


class Baresip:
    """
    One phone of one user.

    @ivar directory: its files.
    """

    def __init__(
        self,
        folder: Path,
        user: str,
        host: str,
        node: str,
        transport: str,
        secret: str,
        answers: bool,
        control_port: int = CONTROL_PORT,
        contacts: Sequence[str] = (),
        publish_interval: int = 0,
    ) -> None:
        """
        Start it.

        @param folder: with C{tone.wav}; for TLS also with C{ca.pem} and C{USER-phone.pem}, its certificate and key.
        @param host: its own address, for SIP; for sound it takes one of the machine's, by which others can be reached.
        @param node: host and port of the node as a URI has them.
        @param secret: the password.
        @param answers: by itself, at once.
        @param control_port: at C{host}, where nobody else listens.
        @param contacts: URIs of those whose presence it watches.
        @param publish_interval: seconds that each of its own publications lasts; with 0 it publishes nothing.
        """
        modules = next((path for path in MODULE_PATHS if Path(path, "account.so").exists()), None)
        if modules is None:
            require("baresip-modules")  # skips, or fails where everything must be there
        self._control = (host, control_port)
        self.directory = folder / user
        self.directory.mkdir()
        config = CONFIG.format(
            host=format_host(host),
            modules=modules,
            control=control_port,
            tone=folder / "tone.wav",
            directory=self.directory,
        )
        if transport == "tls":
            config += TLS.format(folder=folder, user=user)
        if contacts or publish_interval:
            config += PRESENCE
        account = ACCOUNT.format(
            user=user, node=node, transport=transport, mode="auto" if answers else "manual", secret=secret
        )
        if publish_interval:
            account += PUBLISHES.format(seconds=publish_interval)
        (self.directory / "config").write_text(config)
        (self.directory / "accounts").write_text(f"{account}\n")
        (self.directory / "contacts").write_text("".join(f"<{uri}>;presence=p2p\n" for uri in contacts))
        # Line by line: its output is what tests wait for.
        family = "-6" if ":" in host else "-4"
        command = ["stdbuf", "-oL", "baresip", family, "-f", str(self.directory), "-s", "-t", str(LIFETIME)]
        self.program = Background(command, self.directory / "output")

    def wait_for(self, pattern: str) -> str:
        """
        @return: see L{Background.wait_for}.
        """
        return self.program.wait_for(pattern, TIMEOUT)

    @property
    def has_address(self) -> bool:
        """
        Whether it has found an address for sound: without one it neither registers nor calls. Neither ::1 nor one of
        fe80::/10 will do.
        """
        return "|" in self.wait_for(r"^Local network address:.*\n")

    def wait_until_registered(self) -> None:
        """
        Its own word for it.
        """
        self.wait_for(r"^\S+@\S+: .*200 OK.*\[1 binding\]")

    def tell(self, command: str, parameters: str = "") -> None:
        """
        Give it a command of its menu: C{dial}, C{hangup}, C{presence_online}.

        @raise ProgramFailed: it did not take it.
        """
        order = json.dumps({"command": command, "params": parameters, "token": command})
        with socket.create_connection(self._control, TIMEOUT) as control:
            control.sendall(f"{len(order)}:{order},".encode())  # a netstring
            answer = b""
            while b'"response":true' not in answer.replace(b" ", b""):
                received = control.recv(65535)
                if not received:
                    raise ProgramFailed(f"baresip has closed its control port\n{self.program.text}")
                answer += received
        if b'"ok":true' not in answer.replace(b" ", b""):
            raise ProgramFailed(f"baresip did not {command}: {answer!r}\n{self.program.text}")

    def quit(self) -> None:
        """
        Have it end as a user's Ctrl-C does: it takes its binding back first.
        """
        self.program.interrupt()
        self.program.wait(TIMEOUT)
