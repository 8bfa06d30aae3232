"""
Which version of a publication counts: the same on all nodes, in whatever order they hear of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.presence_merge import MergeLimits, is_same, merge, rank
from sipdmq.interfaces.publications import Publication
from tests.location_store_tests import EPOCH
from tests.publication_tools import make_publication, pidf

LIMITS = MergeLimits()


def version(number: int, ruid: str = "r1", **changes: object) -> Publication:
    """
    Of one publication, as sipdmq nodes tell it.
    """
    made = make_publication(
        ruid, 600, etag=f"{ruid}.{number}", previous=f"{ruid}.{number - 1}" if number else "", version=number,
        recv=EPOCH + number,
    )  # fmt: skip
    return made._replace(**changes)  # type: ignore[arg-type]


def removal(number: int, ruid: str = "r1") -> Publication:
    """
    Of the version with that number.
    """
    return version(number, ruid)._replace(version=number + 1, recv=EPOCH + number + 1, removed=True, body=b"")


def merged(*incoming: Publication, now: int = EPOCH, records: Sequence[Publication] = ()) -> Sequence[Publication]:
    for each in incoming:
        records = merge(records, each, bool(each.body), now, LIMITS).records
    return records


class MergeTests(SynchronousTestCase):
    def test_the_newest_version_in_whatever_order(self) -> None:
        versions = [version(0), version(1, body=pidf("closed")), version(2)]
        for order in permutations(versions):
            (kept,) = merged(*order)
            self.assertEqual((kept.etag, kept.body), ("r1.2", pidf()))

    def test_a_removal_is_not_undone_by_what_is_older(self) -> None:
        for order in permutations([version(0), version(1), removal(1)]):
            (kept,) = merged(*order)
            self.assertTrue(kept.removed, order)
            self.assertGreaterEqual(kept.expires_at, EPOCH + 600)

    def test_a_retransmission_changes_nothing(self) -> None:
        records = merged(version(0))
        again = merge(records, version(0), True, EPOCH, LIMITS)
        self.assertIs(again.records, records)
        self.assertIsNone(again.winner)

    def test_a_kamailio_changes_the_ruid(self) -> None:
        """
        It counts the tag on; we keep the name that we have.
        """
        theirs = version(1, "pres-1", etag="a.1.2.1", previous="r1.0")
        (kept,) = merged(version(0), theirs)
        self.assertEqual((kept.ruid, kept.etag), ("r1", "a.1.2.1"))
        later = version(2, "pres-9", etag="a.1.3.2", previous="a.1.2.1")
        (kept,) = merged(later, records=[kept])
        self.assertEqual((kept.ruid, kept.etag), ("r1", "a.1.3.2"))

    def test_tags_in_the_wrong_order(self) -> None:
        """
        A Kamailio keeps no order between two messages. A tag is known for one change more.
        """
        first = version(0, "p1", etag="a.1.1.0")
        second = version(1, "p2", etag="a.1.2.1", previous="a.1.1.0")
        third = version(2, "p3", etag="a.1.3.2", previous="a.1.2.1")
        for order in ((first, second, third), (first, third, second), (second, first, third)):
            self.assertEqual([kept.etag for kept in merged(*order)], ["a.1.3.2"], order)

    def test_a_refresh_without_a_document_keeps_it(self) -> None:
        theirs = version(1, "p", etag="a.1.2.1", previous="r1.0", body=b"")
        (kept,) = merged(version(0), theirs)
        self.assertEqual((kept.etag, kept.body), ("a.1.2.1", pidf()))

    def test_a_refresh_of_nothing_that_is_known_is_nothing(self) -> None:
        theirs = version(1, "p", etag="a.1.2.1", previous="r1.0", body=b"")
        self.assertEqual(merged(theirs), ())
        outcome = merge(merged(removal(0)), theirs, False, EPOCH, LIMITS)
        self.assertTrue(outcome.winner is not None and outcome.winner.removed)

    def test_the_sender_of_what_lost_is_told(self) -> None:
        records = merged(version(2))
        outcome = merge(records, version(1), True, EPOCH, LIMITS)
        self.assertEqual(outcome.winner, records[0])
        self.assertIsNone(merge(records, version(3), True, EPOCH, LIMITS).winner)

    def test_two_changes_at_once(self) -> None:
        """
        The same tag was refreshed at two nodes: all keep one of them, and both senders hear of it.
        """
        ours = version(1, etag="r1x.1", previous="r1.0")
        theirs = version(1, etag="a.9.1.1", previous="r1.0", ruid="p")
        results = {merged(version(0), *order)[0].etag for order in ((ours, theirs), (theirs, ours))}
        self.assertEqual(len(results), 1)

    def test_what_has_expired_on_its_way_ends_what_was_before(self) -> None:
        (kept,) = merged(version(1, expires_at=EPOCH + 5), now=EPOCH + 10, records=[version(0)])
        self.assertTrue(kept.removed)

    def test_bounds(self) -> None:
        few = MergeLimits(2, 1000)
        records = [version(0, "a"), version(0, "b")]
        self.assertEqual(merge(records, version(0), True, EPOCH, few).refused, "too many publications")
        self.assertEqual(merge(records, version(1, "a"), True, EPOCH, few).refused, "")
        self.assertEqual(merge(records, version(1, "a", body=b"x" * 1000), True, EPOCH, few).refused,
                         "publications too long together")  # fmt: skip
        gone = [removal(0, "a"), removal(0, "b")]
        self.assertEqual(merge(gone, removal(0), True, EPOCH, few).refused, "too many removed publications")
        future = version(0, recv=EPOCH + 90_000)
        self.assertEqual(merge([], future, True, EPOCH, few).refused, "recv lies in the future")

    @given(st.permutations([version(0), version(1, body=pidf("closed")), version(2), removal(2), version(0, "b"),
                            version(1, "b"), removal(1, "b"), version(0, "c"), version(1, "c", recv=EPOCH + 9),
                            version(1, "c", etag="cx.1")]), st.integers(0, 9))  # fmt: skip
    def test_nodes_that_have_heard_the_same_have_the_same(self, order: list[Publication], again: int) -> None:
        order = [*order, order[again]]
        kept = {(each.etag, each.removed, each.body) for each in merged(*order)}
        best = {
            ruid: max((each for each in order if each.ruid == ruid), key=rank) for ruid in ("r1", "b", "c")
        }.values()
        self.assertEqual(kept, {(each.etag, each.removed, each.body) for each in best})

    def test_initial_publications_are_different_ones(self) -> None:
        self.assertFalse(is_same(version(0, "a"), version(0, "b")))
