"""
What C{twistd sipdmq} says for itself, and how it ends on a wrong configuration.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.plugin import IPlugin, getPlugins
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq import __version__, node, tap
from sipdmq.config import NodeConfig


class OptionsTests(SynchronousTestCase):
    def parse(self, *arguments: str) -> Any:
        options = tap.Options()
        options.parseOptions(list(arguments))
        return options["config"]

    def test_the_configuration_file(self) -> None:
        self.assertEqual(self.parse("--config", "etc/node.ini"), "etc/node.ini")
        self.assertEqual(self.parse("-c", "etc/node.ini"), "etc/node.ini")
        self.assertIsNone(self.parse())
        self.assertRaises(UsageError, self.parse, "--colour")
        self.assertRaises(UsageError, self.parse, "etc/node.ini")

    def test_the_help_explains_itself(self) -> None:
        text = str(tap.Options())
        for word in ("sipdmq", "--config", "127.0.0.1:5060", "etc/node.ini", "SIGTERM", "SIGUSR2", "registrar"):
            self.assertIn(word, " ".join(text.split()), word)

    def test_version(self) -> None:
        self.patch(sys, "stdout", io.StringIO())
        ending = self.assertRaises(SystemExit, self.parse, "--version")
        self.assertEqual((ending.code, sys.stdout.getvalue()), (0, f"sipdmq {__version__}\n"))

    def test_twistd_finds_it(self) -> None:
        (maker,) = (plugin for plugin in getPlugins(IPlugin) if getattr(plugin, "tapname", "") == "sipdmq")
        self.assertIs(maker.options, tap.Options)
        self.assertIs(maker.makeService, tap.makeService)
        self.assertTrue(maker.description)


class MakeServiceTests(SynchronousTestCase):
    def make(self, *arguments: str) -> Any:
        options = tap.Options()
        options.parseOptions(list(arguments))
        return tap.makeService(options)

    def fails_with(self, text: str) -> str:
        """
        @return: what it wrote to standard error.
        """
        path = Path(self.mktemp())
        path.write_text(text)
        self.patch(sys, "stderr", io.StringIO())
        ending = self.assertRaises(SystemExit, self.make, "-c", str(path))
        self.assertEqual(ending.code, 1)
        written = sys.stderr.getvalue()
        self.assertEqual((written.count("\n"), written[-1:]), (1, "\n"))
        self.assertNotIn("Traceback", written)
        self.assertTrue(written.startswith(f"{path}: "), written)
        return written[len(str(path)) + 2 : -1]

    def test_a_wrong_file_is_one_line_and_status_1(self) -> None:
        self.assertEqual(
            self.fails_with("[timers]\nt3 = 1\n"), "[timers] t3: unknown key; the keys of [timers] are t1, t2, t4, c"
        )
        self.assertIn("must stand below a section", self.fails_with("listen = udp:127.0.0.1:5060\n"))

    def test_no_file(self) -> None:
        self.patch(sys, "stderr", io.StringIO())
        ending = self.assertRaises(SystemExit, self.make, "-c", "nowhere.ini")
        self.assertEqual(
            (ending.code, sys.stderr.getvalue()), (1, "nowhere.ini: cannot be read: No such file or directory\n")
        )

    def test_a_service_with_the_file_s_configuration(self) -> None:
        given: list[NodeConfig] = []

        def make_node(config: NodeConfig, reactor: Any) -> Any:
            given.append(config)
            return node.MultiService()  # type: ignore[attr-defined]

        from twisted.internet import reactor

        self.patch(tap, "makeNode", make_node)
        self.patch(reactor, "seconds", reactor.seconds)  # type: ignore[attr-defined]
        path = Path(self.mktemp())
        path.write_text("[timers]\nt1 = 1\n")
        verifyObject(IService, self.make("-c", str(path)))
        verifyObject(IService, self.make())
        self.assertEqual([config.timers.t1 for config in given], [1.0, 0.5])
        self.assertEqual(given[1], NodeConfig())
