"""
What a REGISTER does to bindings: RFC 3261 §10.3, RFC 5626, as tables of given, asked and left.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import RequestRefused
from sipdmq.records import Binding
from sipdmq.registrar.bindings import TOMBSTONE_LIFETIME, RegisterLimits, apply_register, format_contact
from tests.location_store_tests import ALICE, EPOCH, make_binding
from tests.test_registrar_read import INSTANCE, LIMITS, read


class BindingsTestCase(SynchronousTestCase):
    """
    REGISTERs one after the other on the records of one AoR.

    @ivar records: what is left by the last one.
    """

    def setUp(self) -> None:
        self.records: Sequence[Binding] = ()
        self.now = EPOCH
        self._ruids = itertools.count(1)

    def register(self, *lines: str, call_id: str = "c1", cseq: int = 1) -> list[str]:
        """
        Apply a REGISTER.

        @return: the contact URIs that are live then.
        """
        register = read(*lines, call_id=call_id, cseq=cseq)
        self.records = apply_register(self.records, register, self.now, LIMITS, lambda: f"r{next(self._ruids)}")
        return self.live()

    def live(self) -> list[str]:
        return [binding.contact for binding in self.records if not binding.removed]

    def refused(self, status: int, *lines: str, call_id: str = "c1", cseq: int = 1) -> RequestRefused:
        """
        A REGISTER that is refused, and leaves all as it was.
        """
        before = list(self.records)
        refusal = self.assertRaises(RequestRefused, self.register, *lines, call_id=call_id, cseq=cseq)
        assert isinstance(refusal, RequestRefused)
        self.assertEqual((refusal.status, list(self.records)), (status, before))
        return refusal


class BindTests(BindingsTestCase):
    """
    RFC 3261 §10.3 step 7: bindings are added, refreshed, removed.
    """

    def test_what_a_new_binding_holds(self) -> None:
        self.register(
            f'Contact: "A" <sip:a@192.0.2.7:5062;x=1>;q=0.5;{INSTANCE};reg-id=3;expires=90',
            "Path: <sip:p1;lr>", "User-Agent: phone/1", call_id="c9", cseq=7,
        )  # fmt: skip
        (binding,) = self.records
        self.assertEqual(
            binding,
            Binding(
                aor=ALICE, ruid="r1", contact="sip:a@192.0.2.7:5062;x=1", params=f";{INSTANCE};reg-id=3", q=500,
                expires_at=EPOCH + 90, call_id="c9", cseq=7,
                instance="<urn:uuid:00000000-0000-1000-8000-000A95A0E128>", reg_id=3, path="<sip:p1;lr>",
                received="sip:203.0.113.7:5062", socket="udp:192.0.2.1:5060", flow="", user_agent="phone/1",
                last_modified=EPOCH,
            ),
        )  # fmt: skip

    def test_several_contacts_of_one_request(self) -> None:
        self.assertEqual(
            self.register("Contact: <sip:a@h>;q=0.1, <sip:b@h>;q=0.9", "Contact: <sip:c@h>"),
            ["sip:a@h", "sip:b@h", "sip:c@h"],
        )
        self.assertEqual([binding.q for binding in self.records], [100, 900, -1])
        self.assertEqual(len({binding.ruid for binding in self.records}), 3)

    def test_a_refresh_keeps_the_name_and_nothing_else_is_touched(self) -> None:
        self.register("Contact: <sip:a@h>;q=0.3, <sip:b@h>", "User-Agent: old")
        untouched = self.records[1]
        self.now += 10
        self.assertEqual(self.register("Contact: <sip:a@h>;expires=100", cseq=2), ["sip:a@h", "sip:b@h"])
        refreshed = self.records[0]
        self.assertEqual(
            (refreshed.ruid, refreshed.q, refreshed.expires_at, refreshed.cseq, refreshed.user_agent),
            ("r1", -1, EPOCH + 110, 2, ""),
        )
        self.assertIs(self.records[1], untouched)

    def test_a_change_is_later_than_what_it_replaces_whatever_the_clock_says(self) -> None:
        self.register("Contact: <sip:a@h>")
        self.now -= 1000
        self.register("Contact: <sip:a@h>", cseq=2)
        self.assertEqual(self.records[0].last_modified, EPOCH + 1)
        self.register("Contact: <sip:a@h>", "Expires: 0", cseq=3)
        self.assertEqual((self.records[0].last_modified, self.records[0].removed), (EPOCH + 2, True))

    def test_removal(self) -> None:
        self.register("Contact: <sip:a@h>, <sip:b@h>, <sip:c@h>")
        self.assertEqual(self.register("Contact: <sip:b@h>;expires=0", cseq=2), ["sip:a@h", "sip:c@h"])
        self.assertEqual(self.register("Contact: <sip:a@h>", "Expires: 0", cseq=3), ["sip:c@h"])
        self.assertEqual(self.register("Contact: <sip:d@h>, <sip:c@h>;expires=0", cseq=4), ["sip:d@h"])

    def test_removing_what_is_not_there_changes_nothing(self) -> None:
        self.assertEqual(self.register("Contact: <sip:a@h>;expires=0"), [])
        self.register("Contact: <sip:a@h>")
        self.assertEqual(self.register("Contact: <sip:b@h>;expires=0", cseq=2), ["sip:a@h"])

    def test_a_contact_that_stands_twice_is_one_binding_and_the_last_counts(self) -> None:
        self.register("Contact: <sip:a@h>;q=0.1, <sip:a@h>;q=0.2")
        self.assertEqual([(binding.contact, binding.q) for binding in self.records], [("sip:a@h", 200)])
        self.register("Contact: <sip:a@h>;q=0.3, <sip:a@h>;expires=0", cseq=2)
        self.assertEqual(self.live(), [])

    def test_max_contacts(self) -> None:
        """
        One more than the operator allows is 403 for the whole request; what is there may be refreshed and removed.
        """
        contacts = [f"Contact: <sip:{name}@h>" for name in "abcd"]
        self.register(*contacts)
        self.refused(403, "Contact: <sip:e@h>", cseq=2)
        self.refused(403, "Contact: <sip:e@h>, <sip:a@h>", cseq=2)
        self.register(*contacts, cseq=2)
        self.assertEqual(
            self.register("Contact: <sip:a@h>;expires=0, <sip:e@h>", cseq=3),
            ["sip:b@h", "sip:c@h", "sip:d@h", "sip:e@h"],
        )
        self.register("Contact: *", "Expires: 0", cseq=4)
        self.refused(403, *[f"Contact: <sip:x{number}@h>" for number in range(5)], cseq=5)

    def test_more_than_allowed_may_be_refreshed_after_the_limit_was_lowered(self) -> None:
        self.records = [make_binding(f"r{number}") for number in range(6)]
        self.assertEqual(len(self.register("Contact: <sip:r3@192.0.2.7:5062>", cseq=9)), 6)
        self.assertEqual(len(self.register("Contact: <sip:r3@192.0.2.7:5062>;expires=0", cseq=10)), 5)
        self.refused(403, "Contact: <sip:new@h>", cseq=11)


class SizeTests(BindingsTestCase):
    """
    All contacts of an AoR fit into an answer that a datagram can carry.
    """

    LONG = "Contact: <sip:a{}@h;x=" + 7000 * "x" + ">"

    def test_one_that_would_not_fit_is_refused(self) -> None:
        for number in range(4):
            self.register(self.LONG.format(number), cseq=number + 1)
        self.refused(403, self.LONG.format(4), cseq=5)
        self.assertEqual(len(self.live()), 4)

    def test_the_first_one_too(self) -> None:
        self.refused(403, "Contact: <sip:a@h>", *5 * ["Path: <sip:p" + 7000 * "x" + "@h;lr>"])

    def test_what_is_there_can_still_be_refreshed_and_removed(self) -> None:
        for number in range(4):
            self.register(self.LONG.format(number), cseq=number + 1)
        self.register(self.LONG.format(1), cseq=9)
        self.assertEqual(len(self.register(self.LONG.format(1) + ";expires=0", cseq=10)), 3)


class ComparisonTests(BindingsTestCase):
    """
    RFC 3261 §10.3 step 7: "For each address, the registrar then searches the list of current bindings using the URI
    comparison rules" of §19.1.4.
    """

    def test_equal_contacts_are_one_binding(self) -> None:
        for first, second in (
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5"),
            ("sip:a@[2001:db8::1]:5060", "sip:a@[2001:DB8:0:0:0:0:0:1]:5060"),
            ("sip:b@h?to=x&subject=y", "sip:b@h?subject=y&to=x"),
        ):
            self.records = ()
            self.register(f"Contact: <{first}>")
            self.assertEqual(self.register(f"Contact: <{second}>", cseq=2), [second])
            self.assertEqual(self.register(f"Contact: <{first}>;expires=0", cseq=3), [])

    def test_different_contacts_are_two(self) -> None:
        for first, second in (
            ("sip:ALICE@h", "sip:alice@h"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:bob@biloxi.com", "sips:bob@biloxi.com"),
            ("sip:bob@h?Subject=x", "sip:bob@h"),
            ("sip:carol@h;security=on", "sip:carol@h;security=off"),
            ("sip:%00@h", "sip:%00%00@h"),
            ("sip:h", "sip:user@h"),
        ):
            self.records = ()
            self.register(f"Contact: <{first}>")
            self.assertEqual(self.register(f"Contact: <{second}>", cseq=2), [first, second])


class OrderTests(BindingsTestCase):
    """
    RFC 3261 §10.3 step 7: "If the Call-ID value in the existing binding differs from the Call-ID value in the request,
    the binding MUST be removed if the expiration time is zero and updated otherwise. If they are the same, the
    registrar compares the CSeq value. If the value is higher than that of the existing binding, it MUST update or
    remove the binding as above. If not, the update MUST be aborted and the request fails."
    """

    def test_the_table(self) -> None:
        for call_id, cseq, expected in (
            ("c1", 6, "done"), ("c1", 500, "done"), ("c1", 4, "failed"), ("c1", 1, "failed"),
            ("c2", 1, "done"), ("c2", 5, "done"), ("c2", 9, "done"), ("C1", 1, "done"),
        ):  # fmt: skip
            for expires, left in ((100, ["sip:a@h"]), (0, [])):
                self.records = ()
                self.register("Contact: <sip:a@h>", cseq=5)
                line = f"Contact: <sip:a@h>;q=0.5;expires={expires}"
                if expected == "done":
                    self.assertEqual(self.register(line, call_id=call_id, cseq=cseq), left)
                    self.assertEqual((self.records[0].call_id, self.records[0].cseq), (call_id, cseq))
                else:
                    self.refused(500, line, call_id=call_id, cseq=cseq)

    def test_all_or_nothing(self) -> None:
        """
        "the binding updates MUST be committed (that is, made visible to the proxy or redirect server) if and only if
        all binding updates and additions succeed."
        """
        self.register("Contact: <sip:a@h>", call_id="c1", cseq=5)
        self.register("Contact: <sip:b@h>", call_id="c2", cseq=50)
        self.refused(500, "Contact: <sip:new@h>, <sip:a@h>, <sip:b@h>", call_id="c2", cseq=49)
        self.refused(500, "Contact: <sip:a@h>;expires=0, <sip:b@h>;expires=0", call_id="c2", cseq=49)

    def test_the_wildcard_minds_the_order_too(self) -> None:
        """
        Step 6: "the registrar checks whether the Call-ID agrees with the value stored for each binding. If not, it MUST
        remove the binding. If it does agree, it MUST remove the binding only if the CSeq in the request is higher
        than the value stored for that binding. Otherwise, the update MUST be aborted and the request fails."
        """
        self.register("Contact: <sip:a@h>", call_id="c1", cseq=5)
        self.register("Contact: <sip:b@h>", call_id="c2", cseq=50)
        self.refused(500, "Contact: *", "Expires: 0", call_id="c2", cseq=49)
        self.refused(500, "Contact: *", "Expires: 0", call_id="c2", cseq=50)
        self.assertEqual(self.register("Contact: *", "Expires: 0", call_id="c2", cseq=51), [])

    def test_the_wildcard_for_nobody(self) -> None:
        self.assertEqual(self.register("Contact: *", "Expires: 0"), [])

    def test_a_retransmission_changes_nothing(self) -> None:
        """
        The response was lost, and the transaction's memory of it, too: the same request is answered the same.
        """
        for lines in (
            ["Contact: <sip:a@h>;q=0.3, <sip:b@h>;expires=90"],
            ["Contact: <sip:a@h>;expires=0"],
            ["Contact: <sip:b@h>;expires=0, <sip:c@h>"],
            ["Contact: *", "Expires: 0"],
        ):
            self.records = ()
            self.register("Contact: <sip:a@h>, <sip:b@h>")
            live = self.register(*lines, cseq=2)
            before = list(self.records)
            self.now += 3
            self.assertEqual(self.register(*lines, cseq=2), live, lines)
            self.assertEqual(list(self.records), before, lines)

    def test_another_request_under_the_same_cseq_is_refused(self) -> None:
        self.register("Contact: <sip:a@h>")
        self.refused(500, "Contact: <sip:a@h>;expires=0")
        self.refused(500, "Contact: <sip:a@h>;x=1")

    def test_a_late_register_does_not_bring_back_what_was_removed(self) -> None:
        """
        The network delays a REGISTER until after the removal that followed it.
        """
        for removal in (["Contact: <sip:a@h>;expires=0"], ["Contact: *", "Expires: 0"]):
            self.records = ()
            self.register("Contact: <sip:a@h>", cseq=1)
            self.register(*removal, cseq=3)
            (tombstone,) = self.records
            self.assertEqual(
                (tombstone.removed, tombstone.cseq, tombstone.expires_at), (True, 3, EPOCH + TOMBSTONE_LIFETIME)
            )
            self.refused(500, "Contact: <sip:a@h>", cseq=2)
            self.assertEqual(self.register("Contact: <sip:a@h>", cseq=4), ["sip:a@h"])

    def test_the_last_of_two_removals_counts(self) -> None:
        for removal in (["Contact: <sip:a@h>;expires=0"], ["Contact: *", "Expires: 0"]):
            self.records = ()
            self.register("Contact: <sip:a@h>", cseq=1)
            self.register(*removal, cseq=3)
            self.register(*removal, cseq=9)
            self.refused(500, "Contact: <sip:a@h>", cseq=7)

    def test_the_phone_comes_back_under_another_call_id(self) -> None:
        self.register("Contact: <sip:a@h>", cseq=100)
        self.register("Contact: <sip:a@h>;expires=0", cseq=101)
        self.assertEqual(self.register("Contact: <sip:a@h>", call_id="c2", cseq=1), ["sip:a@h"])
        self.assertEqual(self.records[0].ruid, "r1")


class InstanceTests(BindingsTestCase):
    """
    RFC 5626 §6: where there are both, +sip.instance and reg-id identify the binding, and not the URI: a phone that got
    another address replaces its binding.
    """

    def test_the_same_instance_and_reg_id_is_the_same_binding(self) -> None:
        self.register(f"Contact: <sip:a@192.0.2.7>;{INSTANCE};reg-id=1")
        self.assertEqual(
            self.register(f"Contact: <sip:a@198.51.100.9>;{INSTANCE};reg-id=1", call_id="c2"), ["sip:a@198.51.100.9"]
        )
        self.assertEqual(self.records[0].ruid, "r1")
        self.assertEqual(self.register(f"Contact: <sip:x@h>;{INSTANCE};reg-id=1;expires=0", call_id="c3"), [])

    def test_another_reg_id_or_instance_is_another_binding(self) -> None:
        other = INSTANCE.replace("E128", "E129")
        self.register(f"Contact: <sip:a@h>;{INSTANCE};reg-id=1")
        self.register(f"Contact: <sip:a@h>;{INSTANCE};reg-id=2", cseq=2)
        self.register(f"Contact: <sip:a@h>;{other};reg-id=1", cseq=3)
        self.assertEqual(
            [(binding.reg_id, binding.instance[-5:]) for binding in self.records],
            [(1, "E128>"), (2, "E128>"), (1, "E129>")],
        )

    def test_without_both_the_uri_counts(self) -> None:
        for first, second in (
            (f";{INSTANCE}", f";{INSTANCE}"),
            (";reg-id=1", ";reg-id=1"),
            (f";{INSTANCE};reg-id=1", ""),
        ):
            self.records = ()
            self.register(f"Contact: <sip:a@h>{first}")
            self.assertEqual(self.register(f"Contact: <sip:a@h>{second}", cseq=2), ["sip:a@h"])
            self.assertEqual(self.register(f"Contact: <sip:b@h>{second}", cseq=3), ["sip:a@h", "sip:b@h"])

    def test_the_order_of_requests_counts_for_it_too(self) -> None:
        self.register(f"Contact: <sip:a@h>;{INSTANCE};reg-id=1", cseq=5)
        self.refused(500, f"Contact: <sip:b@h>;{INSTANCE};reg-id=1", cseq=4)


class FormatTests(SynchronousTestCase):
    """
    RFC 3261 §10.3 step 8: "The response MUST contain Contact header field values enumerating all current bindings.
    Each Contact value MUST feature an "expires" parameter indicating its expiration interval".
    """

    def test_the_contact_with_what_is_left_of_its_time(self) -> None:
        for changes, expected in (
            ({}, "<sip:a@h>;expires=50"),
            ({"q": 500}, "<sip:a@h>;q=0.5;expires=50"),
            ({"q": 0}, "<sip:a@h>;q=0;expires=50"),
            ({"q": 1000}, "<sip:a@h>;q=1;expires=50"),
            ({"q": 125, "params": ';methods="INVITE"'}, '<sip:a@h>;q=0.125;methods="INVITE";expires=50'),
        ):
            self.assertEqual(format_contact(make_binding(contact="sip:a@h", **changes), EPOCH + 10), expected)

    def test_what_is_answered_can_be_read_again(self) -> None:
        line = f'Contact: <sip:a@h;x=1?b=c>;q=0.25;{INSTANCE};reg-id=7;x="a;b,c\\"d"'
        limits = RegisterLimits()
        (binding,) = apply_register((), read(line), EPOCH, limits, lambda: "r1")
        again = read(f"Contact: {format_contact(binding, EPOCH)}", cseq=2)
        self.assertEqual(again.contacts[0]._replace(uri=None), read(line).contacts[0]._replace(uri=None))
