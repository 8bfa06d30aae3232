"""
What a PUBLISH does to the publications of a presentity (RFC 3903 §6), as a function.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import ParseError, RequestRefused
from sipdmq.interfaces.publications import Publication
from sipdmq.presence.publications import MAX_TOGETHER, PublicationLimits, Publish, apply_publish, read_publish
from tests.fakes import make_ids, request
from tests.location_store_tests import EPOCH
from tests.publication_tools import ALICE, make_publication, pidf

LIMITS = PublicationLimits()
IN_CLUSTER = LIMITS._replace(forget_after=86_400)
PIDF = "Content-Type: application/pidf+xml"


def publish(*headers: str, body: bytes = b"", limits: PublicationLimits = LIMITS) -> Publish:
    return read_publish(request("PUBLISH", uri=f"sip:{ALICE}", headers=headers, body=body), ALICE, limits)


class ReadTests(SynchronousTestCase):
    def refused(self, *headers: str, body: bytes = b"", limits: PublicationLimits = LIMITS) -> RequestRefused:
        return self.assertRaises(RequestRefused, publish, *headers, body=body, limits=limits)

    def test_initial_refresh_modify_remove(self) -> None:
        """
        §4.1, figure 1.
        """
        for headers, body, expected in (
            (["Expires: 600", PIDF], pidf(), ("", 600, pidf())),
            (["Expires: 600", "SIP-If-Match: a.1"], b"", ("a.1", 600, None)),
            (["Expires: 600", "SIP-If-Match: a.1", PIDF], pidf(), ("a.1", 600, pidf())),
            (["Expires: 0", "SIP-If-Match: a.1"], b"", ("a.1", 0, None)),
        ):
            found = publish("Event: presence", *headers, body=body)
            self.assertEqual((found.etag, found.expires_in, found.body), expected)
            self.assertEqual((found.aor, found.user, found.domain), (ALICE, "alice", "example.org"))

    def test_489_names_what_there_is(self) -> None:
        """
        §6 step 2: "If the Event header field is missing, or the event package is not supported".
        """
        for headers in ([], ["Event: conference"], ["Event: ;x"], ["Event: Presence"],
                        ["Event: presence.winfo"]):  # fmt: skip
            refusal = self.refused(*headers, PIDF, body=pidf())
            self.assertEqual(
                (refusal.status, refusal.headers), (489, (("Allow-Events", "presence, dialog, message-summary"),))
            )

    def test_event_parameters_do_not_count(self) -> None:
        for value in ("presence;id=7", " presence ; id=7", "presence"):
            self.assertEqual(publish(f"Event: {value}", PIDF, body=pidf()).event, "presence")
        self.assertEqual(publish("o: presence", PIDF, body=pidf()).event, "presence")

    def test_expires(self) -> None:
        """
        §6 step 4.
        """
        for headers, expected in (([], 3600), (["Expires: 60"], 60), (["Expires: 7200"], 3600), (["Expires: 0"], 0)):
            self.assertEqual(publish("Event: presence", PIDF, *headers, body=pidf()).expires_in, expected)
        refusal = self.refused("Event: presence", "Expires: 59", PIDF, body=pidf())
        self.assertEqual((refusal.status, refusal.headers), (423, (("Min-Expires", "60"),)))

    def test_an_expires_that_is_no_number(self) -> None:
        """
        The parser has refused it with 400 before it came so far.
        """
        self.assertRaises(ParseError, request, "PUBLISH", headers=["Expires: soon"])

    def test_415_names_what_would_do(self) -> None:
        """
        §6 step 5.
        """
        for event, content_type in (("presence", "application/pidf+xml"), ("dialog", "application/dialog-info+xml"),
                                    ("message-summary", "application/simple-message-summary")):  # fmt: skip
            for line in (["Content-Type: text/plain"], []):
                refusal = self.refused(f"Event: {event}", *line, body=b"x")
                self.assertEqual((refusal.status, refusal.headers), (415, (("Accept", content_type),)))
        refusal = self.refused("Event: presence", PIDF, "Content-Encoding: gzip", body=pidf())
        self.assertEqual((refusal.status, refusal.headers), (415, (("Accept-Encoding", "identity"),)))

    def test_content_type_in_any_spelling(self) -> None:
        for line in ("c: Application/PIDF+XML", "Content-Type: application/pidf+xml;charset=UTF-8"):
            self.assertEqual(publish("Event: presence", line, body=pidf()).body, pidf())

    def test_413(self) -> None:
        refusal = self.refused("Event: presence", PIDF, body=pidf(), limits=LIMITS._replace(body=10))
        self.assertEqual(refusal.status, 413)

    def test_400(self) -> None:
        for headers, body, reason in (
            ([PIDF], b"", "Missing Body"),
            ([PIDF], b"<presence/>", "the root must be"),
            ([PIDF], b"<!DOCTYPE a><a/>", "document type"),
            ([PIDF], b"nonsense", "no XML"),
            (["SIP-If-Match: a b"], b"", "Invalid SIP-If-Match"),
            (["SIP-If-Match: "], b"", "Invalid SIP-If-Match"),
            (["SIP-If-Match: a", "SIP-If-Match: b"], b"", "Invalid SIP-If-Match"),
            (["SIP-If-Match: *"], b"", ""),
            (["SIP-If-Match: " + "a" * 201], b"", "Invalid SIP-If-Match"),
        ):
            if not reason:
                self.assertEqual(publish("Event: presence", *headers, body=body).etag, "*")
                continue
            refusal = self.refused("Event: presence", *headers, body=body)
            self.assertEqual(refusal.status, 400)
            self.assertIn(reason, refusal.reason)

    @given(st.binary(max_size=100), st.sampled_from(["presence", "dialog", "message-summary"]))
    def test_garbage_is_refused(self, body: bytes, event: str) -> None:
        content = {"presence": "pidf+xml", "dialog": "dialog-info+xml", "message-summary": "simple-message-summary"}
        try:
            found = publish(f"Event: {event}", f"Content-Type: application/{content[event]}", body=body)
        except RequestRefused as refusal:
            self.assertIn(refusal.status, (400,))
        else:
            self.assertEqual(event, "message-summary", found)


class ApplyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ids = make_ids()
        self.records: tuple[Publication, ...] = ()

    def apply(self, etag: str = "", expires_in: int = 600, body: bytes | None = None, at: int = 0,
              limits: PublicationLimits = LIMITS) -> Publication:  # fmt: skip
        """
        @param at: seconds from EPOCH.
        """
        asked = Publish(ALICE, "presence", etag, expires_in, body)
        records, written = apply_publish(self.records, asked, EPOCH + at, limits, self.ids.ruid)
        self.records = tuple(records)
        return written

    def status(self, **asked: Any) -> int:
        before = self.records
        refusal = self.assertRaises(RequestRefused, self.apply, **asked)
        self.assertEqual(self.records, before)
        return int(refusal.status)

    def test_initial(self) -> None:
        new = self.apply(body=pidf())
        self.assertEqual(self.records, (new,))
        self.assertRegex(new.etag, r"^[A-Za-z0-9-]+\.0$")
        self.assertEqual(
            (new.version, new.previous, new.recv, new.expires_at, new.user, new.domain, new.told_by),
            (0, "", EPOCH, EPOCH + 600, "alice", "example.org", ""),
        )

    def test_refresh_keeps_the_document_and_counts_the_tag_up(self) -> None:
        first = self.apply(body=pidf())
        second = self.apply(first.etag, at=10)
        self.assertEqual(self.records, (second,))
        self.assertEqual((second.ruid, second.body, second.previous), (first.ruid, pidf(), first.etag))
        self.assertRegex(second.etag, r"\.1$")
        self.assertEqual((second.recv, second.expires_at), (EPOCH + 10, EPOCH + 610))

    def test_modify(self) -> None:
        first = self.apply(body=pidf())
        second = self.apply(first.etag, body=pidf("closed"))
        self.assertEqual((self.records, second.body), ((second,), pidf("closed")))

    def test_a_kamailio_s_tag_is_counted_on(self) -> None:
        self.records = (make_publication(etag="a.1795402691.21046.3.2", version=2),)
        self.assertRegex(self.apply("a.1795402691.21046.3.2").etag, r"^[A-Za-z0-9-]+\.3$")

    def test_remove(self) -> None:
        first = self.apply(body=pidf())
        self.apply(first.etag, 0)
        self.assertEqual(self.records, ())

    def test_in_a_cluster_a_removal_is_remembered(self) -> None:
        first = self.apply(body=pidf(), limits=IN_CLUSTER)
        self.apply(first.etag, 0, limits=IN_CLUSTER)
        (rest,) = self.records
        self.assertEqual((rest.removed, rest.etag, rest.version, rest.body), (True, first.etag, 1, b""))
        self.assertGreater(rest.expires_at, first.expires_at)

    def test_412(self) -> None:
        first = self.apply(body=pidf(), limits=IN_CLUSTER)
        second = self.apply(first.etag, limits=IN_CLUSTER)
        self.assertEqual(self.status(etag=first.etag), 412)
        self.assertEqual(self.status(etag="nobodys.1"), 412)
        self.assertEqual(self.status(etag=second.etag, at=600), 412)
        self.apply(second.etag, 0, limits=IN_CLUSTER)
        self.assertEqual(self.status(etag=second.etag), 412)

    def test_an_initial_one_that_is_over_at_once(self) -> None:
        self.assertTrue(self.apply(body=pidf(), expires_in=0).etag)
        self.assertEqual(self.records, ())

    def test_a_shorter_one_remembers_how_long_others_may_hold_the_longer(self) -> None:
        first = self.apply(body=pidf(), expires_in=3600)
        second = self.apply(first.etag, 60)
        self.assertEqual(second.known_until, EPOCH + 3600)
        third = self.apply(second.etag, 3600, at=30)
        self.assertEqual(third.known_until, 0)

    def test_too_many_and_too_long(self) -> None:
        few = LIMITS._replace(publications=2)
        one = self.apply(body=pidf(), limits=few)
        self.apply(body=pidf(), limits=few)
        self.assertEqual(self.status(body=pidf(), limits=few), 403)
        self.apply(one.etag, body=pidf("closed"), limits=few)
        self.assertEqual(self.status(etag=one.etag), 412)
        long = b"x" * (MAX_TOGETHER - len(pidf()) - len(pidf("closed")) + 1)
        self.assertEqual(self.status(body=long), 403)
        last = self.apply(body=long[1:])
        self.assertEqual(self.status(etag=last.etag, body=long), 403)
        self.apply(last.etag, limits=few)  # what is there already, here or at another node, may stay

    def test_others_stay_the_same_objects(self) -> None:
        first, second = self.apply(body=pidf()), self.apply(body=pidf())
        third = self.apply(second.etag)
        self.assertEqual([any(each is kept for each in self.records) for kept in (first, second, third)],
                         [True, False, True])  # fmt: skip

    @given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 60, 600]), st.booleans()), max_size=12))
    def test_tags_are_never_used_twice(self, steps: Iterable[tuple[int, int, bool]]) -> None:
        self.setUp()
        seen: set[str] = set()
        for which, expires_in, has_body in steps:
            live = [record for record in self.records if not record.removed]
            etag = live[which % len(live)].etag if live and which else ""
            if not etag and not has_body:
                continue
            new = self.apply(etag, expires_in, pidf() if has_body else None, limits=IN_CLUSTER)
            self.assertNotIn(new.etag, seen)
            seen.add(new.etag)
