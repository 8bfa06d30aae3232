"""
C{[node] policy}: a class of the operator's own, and what is said when it cannot be used.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.config import NodeConfig, NodeSection
from sipdmq.core.load import load_policy
from sipdmq.core.policy import DefaultPolicy
from sipdmq.errors import ConfigError
from sipdmq.interfaces.routing import IRoutingPolicy

MODULE = """
from zope.interface import implementer
from sipdmq.core.policy import DefaultPolicy
from sipdmq.interfaces.routing import IRoutingPolicy

class Plain:
    def route(self, request, node):
        pass

class Slotted:
    __slots__ = ()
    async def route(self, request, node):
        pass

class Derived(DefaultPolicy):
    pass

class NoRoute:
    pass

@implementer(IRoutingPolicy)
class OnlySaysSo:
    pass

class RouteIsNone:
    route = None

class TooFew:
    def route(self, request):
        pass

class Breaks:
    def __init__(self):
        raise OSError("no database")

class Wants:
    def __init__(self, database):
        pass

value = 3
"""


class LoadTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "sipdmq_test_policy.py").write_text(MODULE)
        (folder / "sipdmq_test_wrong.py").write_text("def route(:\n")
        self.path = str(folder / "node.ini")
        self.patch(sys, "path", sys.path.copy())
        self.patch(sys, "dont_write_bytecode", True)
        self.addCleanup(sys.modules.pop, "sipdmq_test_policy", None)

    def load(self, name: str) -> Any:
        return load_policy(NodeConfig(self.path, node=NodeSection(policy=name)))

    def refused(self, name: str) -> str:
        """
        What the operator is told, without file, section and key.
        """
        error = self.assertRaises(ConfigError, self.load, name)
        assert isinstance(error, ConfigError)
        self.assertEqual((error.path, error.section, error.key), (self.path, "node", "policy"))
        start = f"{self.path}: [node] policy: '{name}' "
        self.assertEqual(str(error)[: len(start)], start)
        self.assertNotIn("\n", str(error))
        return str(error)[len(start) :]

    def test_the_default(self) -> None:
        self.assertIsInstance(self.load(""), DefaultPolicy)

    def test_a_class_of_a_module_beside_the_ini_file(self) -> None:
        for name in ("Plain", "Slotted", "Derived"):
            made = self.load(f"sipdmq_test_policy:{name}")
            self.assertEqual(type(made).__name__, name)
            self.assertTrue(IRoutingPolicy.providedBy(made))

    def test_a_class_of_an_installed_module(self) -> None:
        self.assertIs(type(self.load("sipdmq.core.policy:DefaultPolicy")), DefaultPolicy)

    def test_the_folder_is_searched_last(self) -> None:
        """
        A file of the operator's does not take the place of a module of ours, or of Python's.
        """
        self.load("sipdmq_test_policy:Plain")
        self.assertEqual(sys.path[-1], str(Path(self.path).absolute().parent))

    def test_no_such_module(self) -> None:
        self.assertEqual(
            self.refused("nowhere.policy:Class"),
            "cannot be used: ModuleNotFoundError: No module named 'nowhere'",
        )

    def test_no_such_class(self) -> None:
        self.assertIn("cannot be used: AttributeError: ", self.refused("sipdmq_test_policy:Other"))

    def test_what_is_no_class(self) -> None:
        said = self.refused("sipdmq_test_policy:value")
        self.assertEqual(said, "cannot be used: TypeError: 'int' object is not callable")

    def test_a_module_that_is_no_python(self) -> None:
        self.assertIn("cannot be used: SyntaxError: ", self.refused("sipdmq_test_wrong:Class"))

    def test_a_class_without_route(self) -> None:
        for name in ("NoRoute", "OnlySaysSo", "RouteIsNone", "TooFew"):
            self.assertEqual(self.refused(f"sipdmq_test_policy:{name}"), "has no method route(request, node)")

    def test_a_constructor_that_raises(self) -> None:
        self.assertEqual(self.refused("sipdmq_test_policy:Breaks"), "cannot be used: OSError: no database")

    def test_a_constructor_that_wants_more(self) -> None:
        self.assertIn("cannot be used: TypeError: ", self.refused("sipdmq_test_policy:Wants"))
