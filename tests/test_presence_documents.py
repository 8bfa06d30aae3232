"""
What watchers of registrations and of watchers are told: reginfo and watcherinfo documents, and their limits.
"""

from __future__ import annotations

from xml.etree import ElementTree

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from sipdmq.interfaces.location import ILocationStore
from sipdmq.interfaces.presence import IEventStateListener
from sipdmq.presence.reginfo import MAX_CONTACTS, MAX_KNOWN, Gone, RegistrationState, reginfo
from sipdmq.presence.subscriptions import State
from sipdmq.presence.winfo import MAX_WATCHERS, watcherinfo
from sipdmq.records import Binding, BindingChange, EventDocument, Origin
from tests.location_store_tests import ALICE, EPOCH, make_binding
from tests.test_presence_subscriptions import make

DATAGRAM = 65_000
"""Bytes that have to hold a document and the head of its NOTIFY."""
REG = "{urn:ietf:params:xml:ns:reginfo}"
WATCHERS = "{urn:ietf:params:xml:ns:watcherinfo}"


class ReginfoTests(SynchronousTestCase):
    def read(self, document: EventDocument) -> ElementTree.Element:
        self.assertEqual(document.body[document.version_at : document.version_at + 1], b"0")
        registration = ElementTree.fromstring(document.body).find(f"{REG}registration")
        assert registration is not None
        return registration

    def test_states(self) -> None:
        live, gone = make_binding("r1"), Gone(make_binding("r2"), "expired")
        for bindings, others, state in (((), (), "init"), ((), (gone,), "terminated"), ((live,), (gone,), "active")):
            found = self.read(reginfo(ALICE, bindings, others, int(EPOCH)))
            self.assertEqual((found.get("aor"), found.get("state")), (f"sip:{ALICE}", state))
            self.assertEqual(len(found), len(bindings) + len(others))

    def test_what_a_phone_has_written_stays_text(self) -> None:
        contact = "sip:alice@198.51.100.7;x=<&\"'"
        (found,) = self.read(reginfo(ALICE, (make_binding('"<r>', contact=contact, q=500),), (), int(EPOCH)))
        self.assertEqual((found.get("id"), found.get("q"), found[0].text), ('"<r>', "0.5", contact))

    def test_no_more_than_a_datagram_takes(self) -> None:
        bindings = [make_binding(f"r{n}", contact=f"sip:{'a' * 300}@{n}.example.org") for n in range(MAX_CONTACTS * 2)]
        gone = [Gone(binding, "unregistered") for binding in bindings]
        document = reginfo(ALICE, bindings, gone, int(EPOCH))
        self.assertEqual(len(self.read(document)), MAX_CONTACTS * 2)
        self.assertLess(len(document.body), DATAGRAM)


class WatcherinfoTests(SynchronousTestCase):
    def test_pending_and_active(self) -> None:
        records = [make(tag="t1", watcher="a&b@example.org"), make(tag="t2", state=State.PENDING)]
        document = watcherinfo(ALICE, records)
        (watchers,) = ElementTree.fromstring(document.body)
        self.assertEqual(watchers.attrib, {"resource": f"sip:{ALICE}", "package": "presence"})
        self.assertEqual(
            [(each.get("status"), each.get("event"), each.text) for each in watchers],
            [("active", "approved", "sip:a&b@example.org"), ("pending", "subscribe", f"sip:{make().watcher}")],
        )

    def test_no_more_than_a_datagram_takes_and_those_the_latest(self) -> None:
        records = [make(tag=f"t{n}", watcher=f"{'w' * 100}{n}@example.org") for n in range(MAX_WATCHERS + 5)]
        document = watcherinfo(ALICE, records)
        (watchers,) = ElementTree.fromstring(document.body)
        self.assertEqual(len(watchers), MAX_WATCHERS)
        self.assertEqual(watchers[-1].text, f"sip:{records[-1].watcher}")
        self.assertLess(len(document.body), DATAGRAM)


@implementer(ILocationStore, IEventStateListener)
class SlowStore:
    """
    Has to look every AoR up; and remembers who is told of a change.
    """

    def __init__(self) -> None:
        self.looking: list[Deferred[tuple[Binding, ...]]] = []
        self.changes: list[tuple[str, str, Origin]] = []

    def lookup(self, aor: str) -> Deferred[tuple[Binding, ...]]:
        self.looking.append(Deferred())
        return self.looking[-1]

    def watch(self, listener: object) -> None:
        pass

    def state_changed(self, aor: str, package: str, origin: Origin) -> None:
        self.changes.append((aor, package, origin))


class SlowStoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = SlowStore()
        self.state = RegistrationState(self.store, lambda: EPOCH, lambda aor: True)  # type: ignore[arg-type]
        self.state.watch(self.store)  # type: ignore[arg-type]

    def contacts(self) -> int:
        return self.state.document(ALICE, "reg").body.count(b"<uri>")

    def test_what_is_looked_up_is_a_change_when_it_comes(self) -> None:
        self.assertEqual(self.contacts(), 0)
        self.assertEqual(self.store.changes, [])
        self.store.looking.pop().callback((make_binding("r1"),))
        self.assertEqual(self.store.changes, [(ALICE, "reg", Origin.LOCAL)])
        self.assertEqual(self.contacts(), 1)
        self.assertEqual(self.store.looking, [])

    def test_after_a_change_it_is_looked_up_again(self) -> None:
        self.contacts()
        self.store.looking.pop().callback((make_binding("r1"),))
        changed = make_binding("r2")
        self.state.binding_changed(BindingChange(changed, None, Origin.REPLICATED))
        self.assertEqual(self.store.changes[1:], [(ALICE, "reg", Origin.REPLICATED)])
        self.contacts()
        self.assertEqual(len(self.store.looking), 1)

    def test_a_lookup_that_fails_is_nothing_known(self) -> None:
        self.contacts()
        self.store.looking.pop().errback(RuntimeError())
        self.assertEqual((self.contacts(), self.store.changes), (0, []))

    def test_it_keeps_no_more_than_it_may(self) -> None:
        for number in range(MAX_KNOWN + 1):
            aor = f"u{number}@example.org"
            self.state.document(aor, "reg")
            self.store.looking.pop().callback(())
        for aor, is_known in ((f"u{MAX_KNOWN}@example.org", True), ("u0@example.org", False)):
            self.state.document(aor, "reg")
            self.assertEqual(not self.store.looking, is_known)
