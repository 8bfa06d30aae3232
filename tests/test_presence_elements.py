"""
XML as a tree: what is read, what is refused before it becomes large, and that writing and reading are inverse.
"""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import DecodeError
from sipdmq.presence.elements import MAX_DEPTH, Element, format_xml, name_in, read_xml

BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">'
    + b"".join(
        b'<!ENTITY lol%d "%b">' % (number, b"&lol%d;" % (number - 1) * 10 if number > 1 else b"&lol;" * 10)
        for number in range(1, 10)
    )
    + b"]><lolz>&lol9;</lolz>"
)
QUADRATIC = b'<!DOCTYPE b [<!ENTITY a "%b">]><b>%b</b>' % (b"a" * 20_000, b"&a;" * 10_000)
EXTERNAL = b'<!DOCTYPE b [<!ENTITY a SYSTEM "file:///etc/passwd">]><b>&a;</b>'
PARAMETER = b'<!DOCTYPE b [<!ENTITY % a SYSTEM "http://192.0.2.1/x.dtd"> %a;]><b/>'
SUBSET = b'<!DOCTYPE b SYSTEM "http://192.0.2.1/x.dtd"><b/>'


class ReadTests(SynchronousTestCase):
    def refused(self, data: bytes) -> str:
        return self.assertRaises(DecodeError, read_xml, data).reason

    def test_names_attributes_text(self) -> None:
        data = b'<a xmlns="urn:a" xmlns:b="urn:b" x="1" b:y="2">t&lt;<b:c/><!-- no --><?pi?>u</a>'
        self.assertEqual(
            read_xml(data),
            Element("urn:a a", {"x": "1", "urn:b y": "2"}, ("t<", Element("urn:b c", {}), "u")),
        )

    def test_no_document_type_whatever_it_declares(self) -> None:
        """
        It is refused when it begins: nothing is expanded, nothing is fetched, and it takes no time.
        """
        started = time.process_time()
        for data in (BOMB, QUADRATIC, EXTERNAL, PARAMETER, SUBSET):
            self.assertEqual(self.refused(data), "a document type declaration is not allowed")
        self.assertLess(time.process_time() - started, 0.5)

    def test_an_entity_that_nobody_declared(self) -> None:
        self.assertIn("undefined entity", self.refused(b"<a>&x;</a>"))

    def test_depth(self) -> None:
        self.assertIsInstance(read_xml(b"<a>" * MAX_DEPTH + b"</a>" * MAX_DEPTH), Element)
        deeper = MAX_DEPTH + 1
        self.assertEqual(self.refused(b"<a>" * deeper + b"</a>" * deeper), "more than 20 elements deep")
        self.assertEqual(self.refused(b"<a>" * 20_000), "more than 20 elements deep")

    def test_elements_and_attributes(self) -> None:
        self.assertEqual(self.refused(b"<a>" + b"<b/>" * 10_000 + b"</a>"), "more than 1000 elements")
        many = b" ".join(b'x%d="1"' % number for number in range(51))
        self.assertEqual(self.refused(b"<a %b/>" % many), "more than 50 attributes")

    def test_what_is_no_xml(self) -> None:
        for data in (b"", b" ", b"x", b"<a>", b"<a/><b/>", b"<a b=1/>", b"<x:a/>", b"\xff\xfe<", b"<a>\xff</a>"):
            self.assertIn("no XML", self.refused(data), data)
        self.assertIn("encoding", self.refused(b'<?xml version="1.0" encoding="x-none"?><a/>'))

    def test_60_kb_of_text_are_read_once(self) -> None:
        self.assertEqual(read_xml(b"<a>" + b"x" * 60_000 + b"</a>").children, ("x" * 60_000,))

    @given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda data: b"<a>" + data + b"</a>"))
    def test_garbage_is_refused_or_read_and_nothing_else(self, data: bytes) -> None:
        try:
            found = read_xml(data)
        except DecodeError:
            return
        self.assertIsInstance(found, Element)


_texts = st.text(st.characters(codec="utf-8", min_codepoint=32), min_size=1, max_size=8).filter(
    lambda text: not any(char in "\ufffe\uffff" or 0x7F <= ord(char) < 0xA0 for char in text)
) | st.sampled_from(['"', "<&>", "\n", "\t", "\r", "]]>"])
_namespaces = st.sampled_from(["", "urn:a", "urn:b", "urn:ietf:params:xml:ns:pidf:data-model"])
_locals = st.sampled_from(["a", "b", "tuple", "id"])
_names = st.builds(lambda space, local: name_in(space, local) if space else local, _namespaces, _locals)


def _joined(children: list[Any]) -> tuple[Any, ...]:
    """
    No two texts side by side: a reader cannot tell them apart.
    """
    found: list[Any] = []
    for child in children:
        if isinstance(child, str) and found and isinstance(found[-1], str):
            found[-1] += child
        else:
            found.append(child)
    return tuple(found)


_attributes = st.dictionaries(_names, _texts, max_size=3)
_elements: Any = st.recursive(
    st.tuples(_names, _attributes).map(lambda parts: Element(*parts)),
    lambda children: st.tuples(_names, _attributes, st.lists(children | _texts, max_size=4).map(_joined)).map(
        lambda parts: Element(*parts)
    ),
    max_leaves=8,
)


class WriteTests(SynchronousTestCase):
    @given(_elements)
    def test_what_is_written_is_read_again(self, element: Element) -> None:
        for prefixes in ({}, {"urn:a": "n1", "urn:ietf:params:xml:ns:pidf:data-model": "dm"}):
            self.assertEqual(read_xml(format_xml(element, prefixes)), element)

    def test_the_form(self) -> None:
        root = Element("urn:a a", {"b": '"1"', "urn:c d": "2"}, (Element("urn:c e", {}, ("<",)), Element("f", {})))
        self.assertEqual(
            format_xml(root, {"urn:c": "c"}),
            b'<?xml version="1.0" encoding="UTF-8"?>\n'
            b'<a xmlns="urn:a" xmlns:c="urn:c" b="&quot;1&quot;" c:d="2"><c:e>&lt;</c:e><f xmlns=""/></a>\n',
        )
