"""
baresip, a phone: registers headless, and takes its binding back when it ends.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

from tests.interop.programs import InteropTestCase, ProgramFailed, require

#: Where Debian and others put baresip's modules.
MODULE_PATHS = ("/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules", "/usr/lib64/baresip/modules")

#: Seconds until baresip must have registered, until it must have ended, and after which it ends by itself.
REGISTER_TIMEOUT = 10.0
QUIT_TIMEOUT = 10.0
LIFETIME = 60

CONFIG = """\
sip_listen {host}:0
module_path {modules}
module g711.so
module_tmp account.so
module_app menu.so
"""

ACCOUNT = "<sip:alice@{host};transport={transport}>;regint=60;answermode=manual;auth_pass=none\n"


class BaresipTests(InteropTestCase):
    """
    One phone, without audio devices and without a terminal.
    """

    programs = ("baresip", "stdbuf")
    host = "127.81.3.1"

    def start_phone(self, transport: str) -> subprocess.Popen[bytes]:
        """
        @param transport: C{udp} or C{tcp}.
        @return: baresip, which has just been started and writes to the file C{output}.
        """
        modules = next((path for path in MODULE_PATHS if Path(path, "account.so").exists()), None)
        if modules is None:
            require("baresip-modules")  # skips, or fails where everything must be there
        (self.directory / "config").write_text(CONFIG.format(host=self.host, modules=modules))
        (self.directory / "accounts").write_text(ACCOUNT.format(host=self.host, transport=transport))
        (self.directory / "contacts").write_text("")
        with open(self.directory / "output", "wb") as output:
            phone = subprocess.Popen(
                # Line by line: its output is what the test waits for.
                ["stdbuf", "-oL", "baresip", "-4", "-f", str(self.directory), "-s", "-t", str(LIFETIME)],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.addCleanup(self.kill, phone)
        return phone

    def kill(self, phone: subprocess.Popen[bytes]) -> None:
        """
        Whatever happened, it does not stay.
        """
        if phone.poll() is None:
            phone.kill()
            phone.wait()

    def output(self) -> str:
        """
        @return: what baresip wrote so far, without its colours.
        """
        return re.sub(r"\x1b\[[0-9;]*m", "", (self.directory / "output").read_text(errors="replace"))

    def wait_for(self, pattern: str, phone: subprocess.Popen[bytes]) -> str:
        """
        @return: the first line of baresip's output that has the pattern.
        """
        deadline = time.monotonic() + REGISTER_TIMEOUT
        while time.monotonic() < deadline:
            found = re.search(rf"^.*{pattern}.*$", self.output(), re.MULTILINE)
            if found:
                return found[0]
            if phone.poll() is not None:
                raise ProgramFailed(f"baresip ended with status {phone.returncode}:\n{self.output()}")
            time.sleep(0.05)
        raise ProgramFailed(f"baresip did not write {pattern!r}:\n{self.output()}\n{self.server.log()}")

    def quit(self, phone: subprocess.Popen[bytes]) -> None:
        """
        Have it end as a user's Ctrl-C does: it takes its binding back first.
        """
        phone.send_signal(signal.SIGINT)
        try:
            phone.wait(QUIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise ProgramFailed(f"baresip does not end:\n{self.output()}\n{self.server.log()}") from None

    def registers_and_quits(self, transport: str) -> None:
        """
        The phone's word that it is registered, the server's word, and afterwards that it is gone.
        """
        phone = self.start_phone(transport)
        line = self.wait_for(r"alice@[0-9.]+: .*200 OK", phone)
        self.assertIn("[1 binding]", line)
        (binding,) = self.server.bindings("alice")
        self.assertRegex(binding, rf"^<sip:alice-[^>]*@{re.escape(self.host)}:[0-9]+[^>]*>.*;expires=(60|5[0-9])\b")
        if transport == "tcp":
            self.assertRegex(binding, r";transport=tcp\b")
        self.quit(phone)
        self.assertEqual(self.server.bindings("alice"), [], self.output())
        self.assert_well()

    def test_registers_over_udp_and_deregisters_when_it_ends(self) -> None:
        """
        One binding while it runs, none after it.
        """
        self.registers_and_quits("udp")

    def test_registers_over_tcp_and_deregisters_when_it_ends(self) -> None:
        """
        One binding while it runs, none after it.
        """
        self.registers_and_quits("tcp")
