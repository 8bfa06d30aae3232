"""
The dependency rule of ARCHITECTURE.md, held against every import of C{sipdmq}.

L{ALLOWED} is the architecture: to change it is to change a row there, in a reviewed line. All imports count, those
inside functions and those for annotations only too: whoever needs the name of a type needs the package to be read
with it. The one exception stands in L{FOR_ANNOTATIONS}.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

import sipdmq

LEAVES = ("sipdmq.errors", "sipdmq.records", "sipdmq.interfaces", "sipdmq.config")

PURE = ("sipdmq.sip", "sipdmq.core", *LEAVES)
"""A module that decides: no Twisted at all."""

ACTING = (
    *PURE,
    "zope.interface",
    "twisted.application.service",
    "twisted.internet.defer",
    "twisted.internet.interfaces",
    "twisted.logger",
    "twisted.python.failure",
)
"""A module that acts on what a pure one decided."""

TRANSPORT = ("sipdmq.sip", *LEAVES, "zope.interface", "twisted")

ALLOWED: Mapping[str, tuple[str, ...]] = {
    "sipdmq": (),
    "sipdmq.errors": (),
    "sipdmq.sip": ("sipdmq.errors",),
    "sipdmq.records": ("sipdmq.sip",),
    "sipdmq.interfaces": ("sipdmq.sip", "sipdmq.records", "zope.interface", "twisted.internet.interfaces"),
    "sipdmq.config": ("sipdmq.errors", "sipdmq.records", "sipdmq.sip"),
    "sipdmq.transport": TRANSPORT,
    "sipdmq.transport.identity": (*TRANSPORT, "cryptography", "service_identity"),
    "sipdmq.transport.tls": (*TRANSPORT, "OpenSSL", "cryptography"),
    "sipdmq.transport.websocket": (*TRANSPORT, "autobahn"),
    "sipdmq.transaction": (
        "sipdmq.sip", *LEAVES, "zope.interface", "twisted.internet.interfaces", "twisted.logger",
    ),
    "sipdmq.core": ("sipdmq.sip", *LEAVES),
    "sipdmq.core.auth": ACTING,
    "sipdmq.core.coroutines": ACTING,
    "sipdmq.core.credentials": ACTING,
    "sipdmq.core.dispatch": ACTING,
    "sipdmq.core.expiry": ACTING,
    "sipdmq.core.functions": ACTING,
    "sipdmq.core.load": ACTING,
    "sipdmq.core.policy": ACTING,
    "sipdmq.core.refusals": ACTING,
    "sipdmq.core.targets": ACTING,
    "sipdmq.store": (
        "sipdmq.sip", *LEAVES, "zope.interface", "twisted.internet.defer", "twisted.internet.threads",
        "twisted.enterprise", "twisted.logger",
    ),
    "sipdmq.registrar": PURE,
    "sipdmq.registrar.store": ACTING,
    "sipdmq.registrar.service": ACTING,
    "sipdmq.proxy": PURE,
    "sipdmq.proxy.branch": ACTING,
    "sipdmq.proxy.context": ACTING,
    "sipdmq.proxy.service": ACTING,
    "sipdmq.gateways": PURE,
    "sipdmq.gateways.service": ACTING,
    "sipdmq.calls": PURE,
    "sipdmq.calls.file": ACTING,
    "sipdmq.calls.service": ACTING,
    "sipdmq.presence": PURE,
    "sipdmq.presence.publication_store": ACTING,
    "sipdmq.presence.publish": ACTING,
    "sipdmq.presence.kamailio": ACTING,
    "sipdmq.presence.notifier": ACTING,
    "sipdmq.presence.pacing": ACTING,
    "sipdmq.presence.reginfo": ACTING,
    "sipdmq.presence.replicas": ACTING,
    "sipdmq.presence.service": ACTING,
    "sipdmq.presence.states": ACTING,
    "sipdmq.presence.subscribe": ACTING,
    "sipdmq.presence.winfo": ACTING,
    "sipdmq.dialog": PURE,
    "sipdmq.dialog.service": ACTING,
    "sipdmq.htable": PURE,
    "sipdmq.htable.service": (*ACTING, "twisted.internet.task"),
    "sipdmq.htable.view": ACTING,
    "sipdmq.dmq": PURE,
    "sipdmq.dmq.channels": ACTING,
    "sipdmq.dmq.dialog": ACTING,
    "sipdmq.dmq.dialog_donor": ACTING,
    "sipdmq.dmq.copied": ACTING,
    "sipdmq.dmq.copies": ACTING,
    "sipdmq.dmq.screen": ACTING,
    "sipdmq.dmq.events": ACTING,
    "sipdmq.dmq.functions": ACTING,
    "sipdmq.dmq.hello": ACTING,
    "sipdmq.dmq.htable": ACTING,
    "sipdmq.dmq.htable_donor": (*ACTING, "twisted.internet.task"),
    "sipdmq.dmq.link": ACTING,
    "sipdmq.dmq.lists": ACTING,
    "sipdmq.dmq.rounds": ACTING,
    "sipdmq.dmq.sent": ACTING,
    "sipdmq.dmq.sender": ACTING,
    "sipdmq.dmq.lookup": ACTING,
    "sipdmq.dmq.membership": ACTING,
    "sipdmq.dmq.names": ACTING,
    "sipdmq.dmq.donor": ACTING,
    "sipdmq.dmq.newcomer": ACTING,
    "sipdmq.dmq.repairs": ACTING,
    "sipdmq.dmq.restores": ACTING,
    "sipdmq.dmq.synced": ACTING,
    "sipdmq.dmq.introductions": ACTING,
    "sipdmq.dmq.presence": ACTING,
    "sipdmq.dmq.presence_copied": ACTING,
    "sipdmq.dmq.presence_donor": ACTING,
    "sipdmq.dmq.presence_syncs": ACTING,
    "sipdmq.dmq.usrloc": ACTING,
    "sipdmq.dmq.workers": ACTING,
    "sipdmq.dmq.notification": ACTING,
    "sipdmq.dmq.service": ACTING,
    "sipdmq.admin": (*ACTING, "twisted.web", "prometheus_client"),
    "sipdmq.cluster": ("sipdmq", "twisted", "zope.interface"),
    "sipdmq.node": ("sipdmq", "twisted", "zope.interface"),
    "sipdmq.service": ("sipdmq", "twisted", "zope.interface"),
    "sipdmq.watching": ("sipdmq", "twisted", "zope.interface"),
    "sipdmq.tap": ("sipdmq", "twisted", "zope.interface"),
}
"""
What a module, or each module of a package, may import besides the standard library and its own package: dotted
prefixes, of ours and of third parties. The longest matching row counts. A row that names no third party is one of pure
modules: they may import only pure ones, so that they do not get Twisted at second hand.
"""

FOR_ANNOTATIONS: Mapping[str, tuple[str, ...]] = {
    "sipdmq.errors": ("sipdmq.sip.message",),  # ParseError carries what could be read of the request
}
"""What a module may import besides, under C{if TYPE_CHECKING} alone."""

REACTOR = "twisted.internet.reactor"
COMPOSITION_ROOT = ("sipdmq.node", "sipdmq.tap")
"""Time and sockets come in through the door: nobody else may ask for the process's reactor."""


class Import(NamedTuple):
    """
    One imported name.

    @ivar name: absolute and dotted, C{"twisted.internet.defer.Deferred"}: of C{from x import y} it is C{"x.y"}.
    @ivar annotates: whether it stands under C{if TYPE_CHECKING}.
    """

    name: str
    line: int
    annotates: bool


def is_within(name: str, prefix: str) -> bool:
    """
    Whether C{name} is C{prefix}, or lies in it: C{"sipdmq.sip.uri"} in C{"sipdmq.sip"}, not in C{"sipdmq.si"}.
    """
    return name == prefix or name.startswith(prefix + ".")


def find_row(module: str) -> str | None:
    """
    @param module: dotted name, of a module or of something in one.
    @return: the longest key of L{ALLOWED} that covers it; the row of C{"sipdmq"} covers nothing but itself.
    """
    rows = [row for row in ALLOWED if module == row or (row != "sipdmq" and is_within(module, row))]
    return max(rows, key=len, default=None)


def package_of(module: str) -> str:
    """
    @return: C{"sipdmq.sip"} for C{"sipdmq.sip.uri"}, C{"sipdmq.errors"} for itself.
    """
    return ".".join(module.split(".")[:2])


def is_pure(row: str) -> bool:
    """
    Whether what is under this row of L{ALLOWED} decides and does not act: it is a leaf, or names no third party.
    """
    return row in LEAVES or all(is_within(name, "sipdmq") for name in ALLOWED[row])


def is_allowed(module: str, imported: Import) -> bool:
    """
    Whether the rule lets C{module} import that.

    @param module: dotted name, covered by a row.
    """
    name = imported.name
    row = find_row(module)
    assert row is not None
    if name.split(".")[0] in sys.stdlib_module_names:
        return True
    if is_within(name, REACTOR):
        return module in COMPOSITION_ROOT
    if imported.annotates and any(is_within(name, prefix) for prefix in FOR_ANNOTATIONS.get(module, ())):
        return True
    own = () if module == "sipdmq" else (package_of(module),)
    if not any(is_within(name, prefix) for prefix in (*own, *ALLOWED[row])):
        return False
    theirs = find_row(name)
    return theirs is None or is_pure(theirs) or not is_pure(row)


def find_imports(source: str, module: str, is_package: bool) -> Iterator[Import]:
    """
    Every import statement of a module, wherever it stands.

    @param source: Python source.
    @param module: its dotted name, from which relative imports are resolved.
    @param is_package: whether the source is that of an C{__init__.py}.
    """
    tree = ast.parse(source)
    annotating = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) in annotating)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")
            above = parents[: len(parents) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                name = base if alias.name == "*" else f"{base}.{alias.name}"
                yield Import(name, node.lineno, id(node) in annotating)


def find_violations(source: str, path: str) -> list[str]:
    """
    Hold one file against the rule.

    @param path: relative to the folder of the package C{sipdmq}, with slashes: C{"sipdmq/sip/fsm.py"}.
    @return: a sentence for each forbidden import, C{"sipdmq/sip/fsm.py imports twisted.internet (line 7)"}.
    """
    parts = path.removesuffix(".py").split("/")
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    if find_row(module) is None:
        return [f"{path} has no row in ALLOWED of tests/test_layers.py"]
    return [
        f"{path} imports {imported.name} (line {imported.line})"
        for imported in find_imports(source, module, is_package)
        if not is_allowed(module, imported)
    ]


class DependencyRuleTests(SynchronousTestCase):
    """
    The code as it is.
    """

    def test_every_module_imports_only_what_its_layer_may(self) -> None:
        folder = Path(sipdmq.__file__).parent
        violations = [
            violation
            for file in sorted(folder.rglob("*.py"))
            for violation in find_violations(
                file.read_text(encoding="utf-8"), file.relative_to(folder.parent).as_posix()
            )
        ]
        self.assertEqual(violations, [], "\n" + "\n".join(violations))


class CheckerTests(SynchronousTestCase):
    """
    The checker finds what it is there for.
    """

    def assertRefused(self, path: str, source: str, *names: str) -> None:
        """
        @param names: what the checker shall name, in the order of the lines.
        """
        found = [violation.rpartition(" (line ")[0] for violation in find_violations(source, path)]
        self.assertEqual(found, [f"{path} imports {name}" for name in names], source)

    def test_the_message_names_file_import_and_line(self) -> None:
        self.assertEqual(
            find_violations("import re\nimport twisted.internet\n", "sipdmq/sip/fsm.py"),
            ["sipdmq/sip/fsm.py imports twisted.internet (line 2)"],
        )

    def test_allowed(self) -> None:
        for path, source in [
            ("sipdmq/__init__.py", "from typing import Final"),
            ("sipdmq/sip/uri.py", "import re, os.path\nfrom sipdmq.errors import ParseError"),
            ("sipdmq/sip/parser.py", "from sipdmq.sip.message import Request\nfrom . import headers"),
            ("sipdmq/interfaces/messages.py", "from zope.interface import Interface"),
            ("sipdmq/transport/udp.py", "from twisted.internet import interfaces, protocol"),
            ("sipdmq/transport/tls.py", "from OpenSSL import SSL\nfrom cryptography import x509"),
            ("sipdmq/transaction/layer.py", "from twisted.internet.interfaces import IReactorTime"),
            ("sipdmq/registrar/service.py", "from sipdmq.registrar.bindings import apply_register"),
            ("sipdmq/registrar/store.py", "from twisted.internet.defer import Deferred, succeed"),
            ("sipdmq/node.py", "from twisted.internet import reactor\nfrom sipdmq.transport import layer"),
        ]:
            self.assertRefused(path, source)

    def test_each_way_of_writing_an_import(self) -> None:
        for source in [
            "import twisted.internet.defer",
            "import twisted.internet.defer as d",
            "from twisted.internet import defer",
            "from twisted.internet.defer import *",
            "def f():\n    from twisted.internet import defer",
            "try:\n    from twisted.internet import defer\nexcept ImportError:\n    pass",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from twisted.internet import defer",
        ]:
            self.assertRefused("sipdmq/sip/fsm.py", source, "twisted.internet.defer")

    def test_each_name_of_a_line_counts(self) -> None:
        source = "from twisted.internet import defer, interfaces, task"
        self.assertRefused("sipdmq/transaction/layer.py", source, "twisted.internet.defer", "twisted.internet.task")

    def test_relative_imports_are_resolved(self) -> None:
        self.assertRefused("sipdmq/sip/fsm.py", "from ..transport import udp", "sipdmq.transport.udp")
        self.assertRefused("sipdmq/sip/fsm.py", "from .. import node", "sipdmq.node")
        self.assertRefused("sipdmq/sip/__init__.py", "from ..records import Binding", "sipdmq.records.Binding")

    def test_services_know_nothing_of_one_another(self) -> None:
        for name in ("sipdmq.proxy.routing", "sipdmq.transport.layer", "sipdmq.transaction.layer"):
            self.assertRefused("sipdmq/registrar/service.py", f"import {name}", name)

    def test_a_pure_module_has_no_twisted_at_second_hand(self) -> None:
        for name in ("sipdmq.registrar.store", "sipdmq.core.dispatch"):
            self.assertRefused("sipdmq/registrar/bindings.py", f"import {name}", name)

    def test_prefixes_end_at_a_dot(self) -> None:
        self.assertRefused("sipdmq/transaction/layer.py", "import twisted.loggerhead", "twisted.loggerhead")
        self.assertRefused("sipdmq/sip/uri.py", "import sipdmq.errors_of_others", "sipdmq.errors_of_others")

    def test_third_parties_of_one_module_are_not_for_its_neighbours(self) -> None:
        self.assertRefused("sipdmq/transport/stream.py", "from OpenSSL import SSL", "OpenSSL.SSL")

    def test_the_reactor_of_the_process_belongs_to_the_composition_root(self) -> None:
        self.assertRefused("sipdmq/transport/udp.py", "from twisted.internet import reactor", REACTOR)

    def test_the_exception_for_annotations_is_for_annotations_only(self) -> None:
        source = "from sipdmq.sip.message import Request"
        self.assertRefused("sipdmq/errors.py", f"if TYPE_CHECKING:\n    {source}")
        self.assertRefused("sipdmq/errors.py", source, "sipdmq.sip.message.Request")
        self.assertRefused("sipdmq/errors.py", f"if TYPE_CHECKING:\n    pass\nelse:\n    {source}",
                           "sipdmq.sip.message.Request")
        self.assertRefused("sipdmq/errors.py", "if TYPE_CHECKING:\n    from sipdmq.sip.uri import SipURI",
                           "sipdmq.sip.uri.SipURI")

    def test_a_new_package_needs_a_row(self) -> None:
        self.assertEqual(
            find_violations("", "sipdmq/gateway/service.py"),
            ["sipdmq/gateway/service.py has no row in ALLOWED of tests/test_layers.py"],
        )
