"""
XML as a tree of plain values, read within limits and written in one form. Pure.

It is read by the parser of Python's standard library itself (expat), not through ElementTree: a handler refuses a
document type declaration when it begins, so that no entity is ever declared, let alone expanded, and others count
depth, elements and attributes while the document is read, so that none becomes a tree that is too large.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape

from sipdmq.errors import DecodeError

__all__ = ["MAX_DEPTH", "Element", "format_xml", "name_in", "read_xml"]

MAX_DEPTH: Final = 20
MAX_ELEMENTS: Final = 1000
MAX_ATTRIBUTES: Final = 50
"""Of one element."""

XML_NAMESPACE: Final = "http://www.w3.org/XML/1998/namespace"
_ATTRIBUTE_ESCAPES: Final = {'"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
_TEXT_ESCAPES: Final = {"\r": "&#13;"}


def name_in(namespace: str, local: str) -> str:
    """
    The name of an element or attribute of a namespace, as it stands in an L{Element}.
    """
    return f"{namespace} {local}"


class Element(NamedTuple):
    """
    One element.

    @ivar name: namespace and local name with a blank between them; without a namespace the local name alone.
    @ivar attributes: values by such names.
    @ivar children: elements, and the text between them, in order.
    """

    name: str
    attributes: Mapping[str, str]
    children: tuple[Element | str, ...] = ()

    @property
    def elements(self) -> list[Element]:
        """
        The children that are elements.
        """
        return [child for child in self.children if isinstance(child, Element)]


class _Reader:
    """
    Builds the tree from what expat tells.
    """

    def __init__(self) -> None:
        self._open: list[tuple[str, dict[str, str], list[Element | str]]] = []
        self._count = 0
        self.root: Element | None = None

    def refuse(self, *_: object) -> None:
        raise DecodeError("a document type declaration is not allowed")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if len(self._open) >= MAX_DEPTH:
            raise DecodeError(f"more than {MAX_DEPTH} elements deep")
        if self._count > MAX_ELEMENTS:
            raise DecodeError(f"more than {MAX_ELEMENTS} elements")
        if len(attributes) > MAX_ATTRIBUTES:
            raise DecodeError(f"more than {MAX_ATTRIBUTES} attributes")
        self._open.append((name, attributes, []))

    def text(self, text: str) -> None:
        self._open[-1][2].append(text)

    def end(self, _: str) -> None:
        name, attributes, children = self._open.pop()
        element = Element(name, attributes, tuple(children))
        if self._open:
            self._open[-1][2].append(element)
        else:
            self.root = element


def read_xml(data: bytes) -> Element:
    """
    Read a document.

    @return: its root; comments and processing instructions are left out.
    @raise DecodeError: it is not well formed, has a document type declaration, or exceeds a limit.
    """
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.EntityDeclHandler = reader.refuse
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise DecodeError(f"no XML: {expat.ErrorString(error.code)}") from None
    except (ValueError, LookupError):  # an encoding that there is not
        raise DecodeError("no XML: unknown encoding") from None
    if reader.root is None:
        raise DecodeError("no XML: no element")
    return reader.root


def _split(name: str) -> tuple[str, str]:
    namespace, _, local = name.rpartition(" ")
    return namespace, local


def _namespaces(element: Element, found: dict[str, bool]) -> None:
    """
    @param found: gets each namespace, in the order of the document; whether an attribute is in it.
    """
    found.setdefault(_split(element.name)[0], False)
    for name in element.attributes:
        namespace = _split(name)[0]
        if namespace:
            found[namespace] = True
    for child in element.elements:
        _namespaces(child, found)


def format_xml(root: Element, prefixes: Mapping[str, str]) -> bytes:
    """
    Write a document: the same tree always gives the same bytes. The namespace of the root is the default one, the
    others are declared at the root.

    @param prefixes: the usual prefix of a namespace; others get C{n1}, C{n2}...
    """
    found: dict[str, bool] = {}
    _namespaces(root, found)
    default = _split(root.name)[0]
    chosen = {XML_NAMESPACE: "xml:"}
    taken = set(prefixes.values())
    declared: list[tuple[str, str]] = []
    for namespace in found:
        if namespace in ("", XML_NAMESPACE) or (namespace == default and not found[namespace]):
            continue
        prefix = prefixes.get(namespace)
        if prefix is None:
            prefix = f"n{len(declared) + 1}"
            while prefix in taken:
                prefix += "x"
        chosen[namespace] = f"{prefix}:"
        declared.append((f"xmlns:{prefix}", namespace))
    elements = {**chosen, default: "", "": ""}
    parts = ['<?xml version="1.0" encoding="UTF-8"?>\n']
    _write(root, elements, chosen, [("xmlns", default), *declared] if default else declared, bool(default), parts)
    parts.append("\n")
    return "".join(parts).encode("utf-8")


def _write(
    element: Element,
    elements: Mapping[str, str],
    attributes: Mapping[str, str],
    declared: Iterable[tuple[str, str]],
    has_default: bool,
    parts: list[str],
) -> None:
    """
    @param elements: prefixes of elements; C{attributes}: of attributes, which no default namespace is for.
    @param has_default: a default namespace holds here: an element without one has to leave it.
    """
    namespace, local = _split(element.name)
    tag = f"{elements[namespace]}{local}"
    pairs = list(declared)
    if not namespace and has_default:
        pairs.append(("xmlns", ""))
        has_default = False
    elif namespace and not elements[namespace] and not has_default:
        pairs.append(("xmlns", namespace))
        has_default = True
    for name in sorted(element.attributes):
        space, plain = _split(name)
        pairs.append((f"{attributes[space]}{plain}" if space else plain, element.attributes[name]))
    text = "".join([f' {name}="{escape(value, _ATTRIBUTE_ESCAPES)}"' for name, value in pairs if name])
    if not element.children:
        parts.append(f"<{tag}{text}/>")
        return
    parts.append(f"<{tag}{text}>")
    for child in element.children:
        if isinstance(child, str):
            parts.append(escape(child, _TEXT_ESCAPES))
        else:
            _write(child, elements, attributes, (), has_default, parts)
    parts.append(f"</{tag}>")
