"""
Publications in memory: what is told, what expires, what is composed, and that nothing is left.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.errors import RequestRefused
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.interfaces.presence import IEventState
from sipdmq.interfaces.publications import IPublicationStore, Publication
from sipdmq.presence.publication_store import PAGE_SIZE, MemoryPublicationStore
from sipdmq.records import Origin
from tests.fakes import leftovers
from tests.location_store_tests import EPOCH
from tests.publication_tools import ALICE, RecordingWatcher, make_publication, pidf


class StoreTestCase(SynchronousTestCase):
    forget_after = 0

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = self.make()
        self.watcher = RecordingWatcher()
        self.store.watch(self.watcher)
        self.store.watch_publications(self.watcher)

    def make(self, most: int = 10, tombstones: int = 10) -> MemoryPublicationStore:
        store = MemoryPublicationStore(
            self.clock, lambda: EPOCH + self.clock.seconds(), most, tombstones, self.forget_after
        )
        self.addCleanup(store.stop)
        return store

    def put(self, *records: Publication, origin: Origin = Origin.LOCAL) -> None:
        """
        Replace all records of alice.
        """
        self.store.update(ALICE, "presence", lambda _: records, origin)

    def counts(self) -> Sequence[float]:
        return tuple(self.store.snapshot().values())


class StoreTests(StoreTestCase):
    def test_the_interfaces(self) -> None:
        for interface in (IPublicationStore, IEventState, IInspectable):
            verifyObject(interface, self.store)
        self.assertEqual(self.store.packages(), ("presence", "dialog", "message-summary"))

    def test_a_refresh_is_no_new_state(self) -> None:
        self.put(make_publication())
        self.assertEqual(self.watcher.take(), ([("r1.0", False)], [Origin.LOCAL]))
        self.put(make_publication(etag="r1.1", expires_in=90), origin=Origin.REPLICATED)
        self.assertEqual(self.watcher.take(), ([("r1.1", False)], []))
        self.put(make_publication(etag="r1.2", body=pidf("closed")), origin=Origin.REPLICATED)
        self.assertEqual(self.watcher.take(), ([("r1.2", False)], [Origin.REPLICATED]))
        self.put(make_publication(etag="r1.2", body=pidf("closed")))
        self.assertEqual(self.watcher.take(), ([], []))
        self.put()
        self.assertEqual(self.watcher.take(), ([("r1.2", True)], [Origin.LOCAL]))

    def test_the_document_is_composed_once_for_a_change(self) -> None:
        nothing = self.store.document(ALICE, "presence")
        self.assertIn(b"closed", nothing.body)
        self.put(make_publication())
        first = self.store.document(ALICE, "presence")
        self.assertEqual(first.content_type, "application/pidf+xml")
        self.assertIn(b"open", first.body)
        self.put(make_publication(etag="r1.1"))
        self.assertIs(self.store.document(ALICE, "presence"), first)
        self.put(make_publication(etag="r1.2", body=pidf("closed")))
        self.assertIn(b"closed", self.store.document(ALICE, "presence").body)
        self.put()
        self.assertEqual(self.store.document(ALICE, "presence"), nothing)

    def test_packages_are_apart(self) -> None:
        self.put(make_publication())
        self.assertEqual(self.store.records(ALICE, "dialog"), ())
        self.assertEqual(self.store.document(ALICE, "message-summary").body, b"Messages-Waiting: no\r\n")

    def test_all_nodes_compose_alike(self) -> None:
        """
        Whatever the order in which the publications came.
        """
        one = make_publication("r1", body=pidf("open", "a"), recv=EPOCH + 1)
        two = make_publication("r2", body=pidf("closed", "a"), recv=EPOCH + 2)
        three = make_publication("r3", body=pidf("open", "b"), recv=EPOCH + 1)
        documents = set()
        for records in ((one, two, three), (three, two, one), (two, one, three)):
            self.put()
            self.put(*records)
            documents.add(self.store.document(ALICE, "presence"))
        ((_, body, _),) = documents
        self.assertIn(b'<tuple id="a"><status><basic>closed', body)

    def test_expiry(self) -> None:
        self.put(make_publication("r1", 60), make_publication("r2", 61))
        self.watcher.take()
        self.clock.pump([0.5] * 119)
        self.assertEqual(self.watcher.take(), ([], []))
        self.clock.pump([0.5])
        self.assertEqual(self.watcher.take(), ([("r1.0", True)], [Origin.EXPIRED]))
        self.clock.pump([0.5] * 4)
        self.assertEqual(self.watcher.take(), ([("r2.0", True)], [Origin.EXPIRED]))
        self.assertEqual(self.counts(), (0, 0, 0))
        self.assert_empty()

    def assert_empty(self) -> None:
        left = leftovers(self.store)
        self.assertEqual({name: count for name, count in left.items() if "listeners" not in name}, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refreshes_leave_nothing_behind(self) -> None:
        for number in range(100):
            self.put(make_publication(expires_in=100 + number, etag=f"r1.{number}"))
        self.assertEqual(len(self.store._expiry._buckets), 1)
        self.put()
        self.clock.pump([1.0] * 3)
        self.assert_empty()

    def test_a_long_pause_of_the_process(self) -> None:
        self.put(make_publication("r1", 60), make_publication("r2", 3600))
        self.clock.advance(100_000)
        self.assertEqual(self.counts(), (0, 0, 0))
        self.assert_empty()

    def test_what_is_over_already_is_not_stored(self) -> None:
        self.put(make_publication(expires_in=0))
        self.assertEqual((self.counts(), self.watcher.take()), ((0, 0, 0), ([], [])))

    def test_no_room(self) -> None:
        self.put(*[make_publication(f"r{number}") for number in range(10)])
        more = [make_publication(f"r{number}") for number in range(11)]
        self.watcher.take()
        refusal = self.assertRaises(RequestRefused, self.put, *more)
        self.assertEqual((refusal.status, self.counts(), self.watcher.take()), (503, (1, 10, 0), ([], [])))
        self.put(*more[1:])  # no more than before

    def test_what_the_decision_raises_changes_nothing(self) -> None:
        self.put(make_publication())
        self.assertRaises(ZeroDivisionError, self.store.update, ALICE, "presence", lambda _: 1 / 0, Origin.LOCAL)
        self.assertEqual(self.counts(), (1, 1, 0))

    def test_a_listener_that_fails_keeps_nothing_from_others(self) -> None:
        self.watcher.changes = None  # type: ignore[assignment]
        other = RecordingWatcher()
        self.store.watch_publications(other)
        self.put(make_publication())
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertEqual(len(other.changes), 1)

    def test_pages(self) -> None:
        store = self.make(10**6)
        names = [f"u{number}@example.org" for number in range(PAGE_SIZE + 1)]
        for name in names:
            store.update(name, "dialog", lambda _: (make_publication(),), Origin.LOCAL)
        first = store.page(None)
        last = store.page(first.cursor)
        self.assertEqual([*first.presentities, *last.presentities], [(name, "dialog") for name in names])
        self.assertIsNone(last.cursor)
        self.assertEqual(self.store.page(None), ([], None))

    def test_stopped(self) -> None:
        self.put(make_publication())
        self.store.stop()
        self.put(make_publication("r2"))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TombstoneTests(StoreTestCase):
    forget_after = 86_400

    def test_a_tombstone_is_no_state(self) -> None:
        self.put(make_publication())
        self.put(make_publication(removed=True, body=b"", expires_in=700))
        self.assertEqual(self.watcher.take(), ([("r1.0", False), ("r1.0", True)], [Origin.LOCAL, Origin.LOCAL]))
        self.assertEqual(self.counts(), (1, 0, 1))
        self.assertIn(b"closed", self.store.document(ALICE, "presence").body)
        self.clock.advance(700)
        self.assertEqual((self.counts(), self.watcher.take()), ((0, 0, 0), ([], [])))

    def test_what_lives_shorter_than_before_is_remembered(self) -> None:
        self.put(make_publication(known_until=EPOCH + 3600))
        self.clock.advance(60)
        self.assertEqual(self.counts(), (1, 0, 1))
        (rest,) = self.store.records(ALICE, "presence")
        self.assertEqual((rest.removed, rest.expires_at), (True, EPOCH + 3660))

    def test_more_than_it_may_remember(self) -> None:
        store = self.make(tombstones=1)
        for name in ("a", "b"):
            store.update(f"{name}@x", "presence", lambda _: (make_publication(removed=True),), Origin.LOCAL)
        self.assertEqual(store.snapshot()["presence.tombstones"], 1)
