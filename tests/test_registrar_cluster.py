"""
What the registrar does for the sake of a cluster: one record for one identity, and removals that stay.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.core.contacts import PERMANENT, contact_key, identity, remembered_until
from sipdmq.records import Binding, Origin
from sipdmq.registrar.bindings import RegisterLimits, apply_register
from sipdmq.registrar.store import MemoryLocationStore
from sipdmq.sip.uri import parse_uri
from tests.location_store_tests import EPOCH, make_binding
from tests.test_registrar_bindings import BindingsTestCase
from tests.test_registrar_read import INSTANCE, read

DAY = 86_400


class IdentityTests(BindingsTestCase):
    """
    RFC 3261 §19.1.4 is no equivalence; what nodes decide alike goes by one.
    """

    def test_spellings_of_one_contact(self) -> None:
        for one, other in (
            ("sip:%61lice@A.com;transport=TCP", "sip:alice@a.com;Transport=tcp"),
            ("sip:a@h?x=1&y=2", "sip:a@h?y=2&x=1"),
            ("sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0::1]"), ("sip:a@h;x;y=1", "sip:a@h;y=1;x"),
        ):  # fmt: skip
            self.assertEqual(contact_key(parse_uri(one)), contact_key(parse_uri(other)))

    def test_different_contacts(self) -> None:
        texts = ("sip:a@h", "sips:a@h", "sip:A@h", "sip:a@h:5060", "sip:a:@h", "sip:a@h;x=1", "sip:a@h;x=2",
                 "sip:a@h;x", "sip:a@h?x=1", "sip:h", "tel:1", "sip:a@h;x=1;y=2")
        self.assertEqual(len({contact_key(parse_uri(text)) for text in texts}), len(texts))

    def test_a_contact_equal_by_the_rfc_alone_is_replaced_by_a_new_record(self) -> None:
        for removed_first in (False, True):
            self.records = ()
            self.register("Contact: <sip:a@h;x=1>")
            if removed_first:
                self.register("Contact: <sip:a@h>", cseq=2)
                self.register("Contact: <sip:a@h;x=1>", cseq=3)
            self.assertEqual(self.register("Contact: <sip:a@h>", cseq=9), ["sip:a@h"])
            names = [identity(each) for each in self.records]
            self.assertEqual((len(names), len(set(names)), len({each.ruid for each in self.records})), (2, 2, 2))
            self.refused(500, "Contact: <sip:a@h;x=1>", cseq=8)

    def test_a_phone_that_learns_of_reg_id(self) -> None:
        self.register("Contact: <sip:a@h>")
        self.assertEqual(self.register(f"Contact: <sip:a@h>;{INSTANCE};reg-id=1", cseq=2), ["sip:a@h"])
        self.assertEqual(len(self.records), 2)

    def test_a_hidden_record_comes_back_under_a_name_of_its_own(self) -> None:
        self.records = (make_binding("r9", contact="sip:a@h", removed=True, is_hidden=True),)
        self.register("Contact: <sip:a@h>")
        (binding,) = self.records
        self.assertEqual((binding.ruid, binding.removed, binding.is_hidden), ("r1", False, False))


    def test_a_hidden_record_is_removed_under_a_name_of_its_own(self) -> None:
        """
        Under its old one a Kamailio has another contact, which would go.
        """
        self.records = (make_binding("r9", contact="sip:a@h", removed=True, is_hidden=True),)
        self.register("Contact: <sip:a@h>;expires=0")
        self.assertEqual([(each.ruid, each.removed, each.is_hidden) for each in self.records], [("r1", True, False)])
        self.records = (make_binding("r9", contact="sip:a@h", removed=True, is_hidden=True),)
        self.register("Contact: <sip:a@h>;expires=0, <sip:a@h>;expires=60", cseq=2)  # the last one counts
        self.assertEqual([each.removed for each in self.records], [False])


class TombstoneTests(SynchronousTestCase):
    """
    A removal is remembered until the latest C{expires} known for the removed binding plus 60 s, at least 10 minutes.
    """

    def removed(self, *bindings: Binding, forget_after: int = DAY) -> list[int]:
        limits = RegisterLimits(forget_after=forget_after)
        register = read("Contact: *", "Expires: 0", call_id="x", cseq=1)
        records = apply_register(bindings, register, EPOCH, limits, lambda: "new")
        self.assertTrue(all(each.removed and each.methods < 0 for each in records))
        return [each.expires_at - EPOCH for each in records]

    def test_how_long(self) -> None:
        self.assertEqual(
            self.removed(
                make_binding(expires_in=7200), make_binding(expires_in=30), make_binding(expires_at=PERMANENT),
                make_binding(expires_in=60, known_until=EPOCH + 5000),
            ),
            [7260, 600, DAY, 5060],
        )  # fmt: skip

    def test_a_node_alone(self) -> None:
        self.assertEqual(self.removed(make_binding(expires_in=7200), forget_after=0), [32])

    def test_a_removal_of_what_is_not_known_here_is_remembered_too(self) -> None:
        """
        Another node may have it: it may be on its way here.
        """
        limits = RegisterLimits(max_contacts=2, forget_after=DAY)
        records: Sequence[Binding] = ()
        for number in range(4):
            register = read(f"Contact: <sip:a@h{number}>;expires=0", call_id="x", cseq=number)
            records = apply_register(records, register, EPOCH, limits, lambda number=number: f"r{number}")  # type: ignore[misc]
        self.assertEqual([each.contact for each in records], ["sip:a@h0", "sip:a@h1"], "but not for ever more")
        self.assertTrue(all(each.removed and not each.told_by for each in records))
        self.assertEqual(records[0].expires_at, EPOCH + limits.max_expires + 60)
        alone = apply_register((), read("Contact: <sip:a@h>;expires=0"), EPOCH, RegisterLimits(), lambda: "r")
        self.assertEqual(list(alone), [])

    def test_no_longer_than_forget_after(self) -> None:
        self.assertEqual(remembered_until(EPOCH + 10**8, EPOCH, DAY) - EPOCH, DAY)

    def test_a_refresh_remembers_a_longer_life(self) -> None:
        limits = RegisterLimits()
        records: Sequence[Binding] = ()
        for cseq, expires, known in ((1, 7000, 0), (2, 100, EPOCH + 7000), (3, 7200, 0)):
            register = read(f"Contact: <sip:a@h>;expires={expires}", cseq=cseq)
            records = apply_register(records, register, EPOCH, limits, lambda: "r")
            self.assertEqual(records[0].known_until, known)


class ExpiryTests(SynchronousTestCase):
    def test_an_older_version_that_lives_longer_does_not_come_back(self) -> None:
        for forget_after, left in ((0, []), (DAY, [5060])):
            clock = Clock()
            store = MemoryLocationStore(clock, lambda clock=clock: EPOCH + clock.seconds(), 10, forget_after)  # type: ignore[misc]
            binding = make_binding(expires_in=60, known_until=EPOCH + 5000)
            store.update(binding.aor, lambda _: (binding,), Origin.LOCAL)  # noqa: B023
            clock.advance(60)
            self.assertEqual(store.count(), 0)
            page = self.successResultOf(store.pages(None))
            self.assertEqual([each.expires_at - EPOCH for each in page.bindings if each.removed], left)
            clock.pump([1] * 5001)
            self.assertEqual(self.successResultOf(store.pages(None)).bindings, ())
            store.stop()
