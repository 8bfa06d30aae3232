"""
The documents of the event packages: what is taken, and what is made of several.
"""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import DecodeError
from sipdmq.presence.dialog_info import version_at
from sipdmq.presence.packages import PACKAGES
from sipdmq.presence.pidf import compose, read_pidf

AOR = "alice@example.org"
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


def pidf(*elements: str) -> bytes:
    """
    As a phone writes it: its own prefixes, its own entity.
    """
    return (
        '<?xml version="1.0"?>\r\n<p:presence xmlns:p="urn:ietf:params:xml:ns:pidf" '
        'xmlns:m="urn:ietf:params:xml:ns:pidf:data-model" entity="pres:alice@192.0.2.7">' + "".join(elements)
        + "</p:presence>\r\n"
    ).encode()  # fmt: skip


def tuple_(name: str, basic: str) -> str:
    return f'<p:tuple id="{name}"><p:status><p:basic>{basic}</p:basic></p:status></p:tuple>'


def lines(body: bytes) -> list[str]:
    return [line.strip() for line in body.decode().splitlines()[2:-1]]


class PidfTests(SynchronousTestCase):
    def test_nothing_published_is_one_closed_tuple(self) -> None:
        body = compose(AOR, [])
        root = f'{HEAD}<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:{AOR}">'
        self.assertTrue(body.startswith(root.encode()))
        self.assertEqual(len(lines(body)), 1)
        self.assertIn("<status><basic>closed</basic></status></tuple>", lines(body)[0])
        self.assertEqual(body, compose(AOR, [b"<a/>"]), "what cannot be read counts as nothing")
        self.assertNotEqual(lines(body), lines(compose("bob@example.org", [])))

    def test_several_phones_are_several_tuples(self) -> None:
        body = compose(AOR, [pidf(tuple_("a", "open")), pidf(tuple_("b", "closed"))])
        self.assertEqual(
            lines(body),
            [f'<tuple id="{name}"><status><basic>{basic}</basic></status></tuple>'
             for name, basic in (("a", "open"), ("b", "closed"))],
        )  # fmt: skip

    def test_of_one_id_the_newer_counts(self) -> None:
        body = compose(AOR, [pidf(tuple_("a", "open")), pidf(tuple_("a", "closed"), "<p:note>x</p:note>")])
        self.assertEqual(lines(body), ['<tuple id="a"><status><basic>open</basic></status></tuple>', "<note>x</note>"])

    def test_persons_and_devices(self) -> None:
        """
        RFC 4479: they come behind tuples and notes (RFC 3863 §4.4), in one usual prefix.
        """
        activities = '<r:activities xmlns:r="urn:ietf:params:xml:ns:pidf:rpid"><r:busy/></r:activities>'
        person = f'<m:person id="p">{activities}</m:person>'
        device = '<m:device id="d"><m:deviceID>urn:device:1</m:deviceID></m:device>'
        note = "<p:note>n</p:note>"
        body = compose(AOR, [pidf(person, tuple_("a", "open")), pidf(device, note, note)])
        self.assertEqual(
            [line.partition(" ")[0].partition(">")[0] for line in lines(body)],
            ["<tuple", "<note", "<dm:person", "<dm:device"],
        )
        self.assertIn("<rpid:activities><rpid:busy/></rpid:activities>", body.decode())

    def test_only_a_person_is_no_closed_tuple(self) -> None:
        self.assertNotIn(b"<tuple", compose(AOR, [pidf('<m:person id="p"/>')]))

    def test_a_composed_document_composed_is_the_same(self) -> None:
        body = compose(AOR, [pidf(tuple_("a", "open"), '<m:person id="p"><x:y xmlns:x="urn:x" x:z="1"/></m:person>')])
        self.assertEqual(compose(AOR, [body]), body)

    def test_what_is_no_pidf(self) -> None:
        for body in (b"", b"<presence/>", b'<a xmlns="urn:ietf:params:xml:ns:pidf"/>', pidf("<p:tuple/>"),
                     pidf("<m:person/>"), pidf("<m:device/>")):  # fmt: skip
            self.assertRaises(DecodeError, read_pidf, body)

    @given(st.lists(st.sampled_from([pidf(tuple_(name, basic)) for name in "ab" for basic in ("open", "closed")])))
    def test_every_id_once(self, bodies: list[bytes]) -> None:
        names = [element.attributes["id"] for element in read_pidf(compose(AOR, bodies)).elements]
        self.assertEqual(len(names), len(set(names)))


def dialogs(*elements: str, state: str = "full") -> bytes:
    return (
        f'<dialog-info xmlns="urn:ietf:params:xml:ns:dialog-info" version="7" state="{state}" entity="sip:a@b">'
        + "".join(elements) + "</dialog-info>"
    ).encode()  # fmt: skip


class DialogInfoTests(SynchronousTestCase):
    package = PACKAGES["dialog"]

    def test_all_calls_of_all_phones(self) -> None:
        first = '<dialog id="1"><state>early</state></dialog>'
        second = '<dialog id="2"><state>confirmed</state></dialog>'
        body = self.package.compose(AOR, [dialogs(first), dialogs(second, first.replace("early", "trying"))])
        self.assertEqual(
            body.decode(),
            f'{HEAD}<dialog-info xmlns="urn:ietf:params:xml:ns:dialog-info" entity="sip:{AOR}" state="full" '
            f'version="0">\n'
            f"  {first}\n  {second}\n</dialog-info>\n",
        )

    def test_none(self) -> None:
        expected = f'entity="sip:{AOR}" state="full" version="0"/>\n'
        self.assertTrue(self.package.compose(AOR, []).decode().endswith(expected))
        self.assertEqual(self.package.compose(AOR, [b"x"]), self.package.compose(AOR, []))

    def test_each_watcher_counts(self) -> None:
        body = self.package.compose(AOR, [dialogs('<dialog id="1" version="0"/>')])
        at = version_at(body)
        told = body[:at] + b"12" + body[at + 1 :]
        self.assertIn(b'state="full" version="12"', told)
        self.assertIn(b'<dialog id="1" version="0"/>', told)

    def test_what_is_no_dialog_info(self) -> None:
        for body in (b"", b"<dialog-info/>", pidf(), dialogs("<dialog/>")):
            self.assertRaises(DecodeError, self.package.check, body)


class MessageSummaryTests(SynchronousTestCase):
    package = PACKAGES["message-summary"]

    def test_the_newest_counts(self) -> None:
        newest, older = b"Messages-Waiting: yes\r\nVoice-Message: 2/8 (0/2)\r\n", b"messages-waiting:no"
        self.assertEqual(self.package.compose(AOR, [newest, older]), newest)
        self.assertEqual(self.package.compose(AOR, [b"x", older]), older)
        self.assertEqual(self.package.compose(AOR, []), b"Messages-Waiting: no\r\n")

    def test_what_is_none(self) -> None:
        for body in (b"", b"Messages-Waiting: perhaps\r\n", b"Voice-Message: 2/8\r\n", b"Messages-Waiting: yes!"):
            self.assertRaises(DecodeError, self.package.check, body)
        self.package.check(b"Messages-Waiting: yes")


class PackageTests(SynchronousTestCase):
    def test_the_names_are_those_of_the_packages(self) -> None:
        self.assertEqual([(name, package.name) for name, package in PACKAGES.items()],
                         [(name, name) for name in ("presence", "dialog", "message-summary")])  # fmt: skip

    def test_what_is_composed_is_a_document_of_its_package(self) -> None:
        bodies = {"presence": pidf(tuple_("a", "open")), "dialog": dialogs('<dialog id="1"/>'),
                  "message-summary": b"Messages-Waiting: yes\r\n"}  # fmt: skip
        for package in PACKAGES.values():
            for order in permutations(bodies.values()):
                package.check(package.compose(AOR, order))
