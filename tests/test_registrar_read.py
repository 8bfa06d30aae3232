"""
What a REGISTER asks for: RFC 3261 §10.3 steps 6 and 7 as far as they need no bindings, RFC 3327, RFC 5626.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import ParseError, RequestRefused
from sipdmq.registrar.bindings import Register, RegisterLimits, Way, read_register
from sipdmq.sip.message import Request
from sipdmq.sip.parser import parse_message
from tests.location_store_tests import ALICE

LIMITS = RegisterLimits(min_expires=60, default_expires=3600, max_expires=7200, max_contacts=4)
WAY = Way("sip:203.0.113.7:5062", "udp:192.0.2.1:5060", "")
INSTANCE = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-000A95A0E128>"'


def request(*lines: str, call_id: str = "c1", cseq: int = 1) -> Request:
    """
    A REGISTER as it leaves the parser.

    @param lines: its header lines besides the usual ones.
    """
    usual = (
        "REGISTER sip:example.org SIP/2.0", "Via: SIP/2.0/UDP 192.0.2.7:5062;branch=z9hG4bK1", "From: <sip:a@b>;tag=1",
        "To: <sip:alice@example.org>", f"Call-ID: {call_id}", f"CSeq: {cseq} REGISTER", *lines, "\r\n",
    )  # fmt: skip
    message = parse_message("\r\n".join(usual).encode())
    assert isinstance(message, Request)
    return message


def read(*lines: str, call_id: str = "c1", cseq: int = 1) -> Register:
    return read_register(request(*lines, call_id=call_id, cseq=cseq), ALICE, LIMITS, WAY)


class ReadTests(SynchronousTestCase):
    """
    RFC 3261 §10.3 step 7: "For each address, it determines the expiration interval as follows".
    """

    def expires(self, *lines: str) -> list[int]:
        return [contact.expires_in for contact in read(*lines).contacts]

    def test_expires_per_contact_then_header_then_default(self) -> None:
        """
        "If the field value has an "expires" parameter, that value MUST be taken as the requested expiration. If there
        is no such parameter, but the request has an Expires header field, that value MUST be taken ... If there is
        neither, a locally-configured default value MUST be taken".
        """
        for lines, expected in (
            (["Contact: <sip:a@h>"], [3600]),
            (["Contact: <sip:a@h>", "Expires: 120"], [120]),
            (["Contact: <sip:a@h>;expires=90", "Expires: 120"], [90]),
            (["Contact: <sip:a@h>;expires=90, <sip:b@h>", "m: <sip:c@h>;expires=0", "Expires: 120"], [90, 120, 0]),
            (["Contact: <sip:a@h>;expires=90, <sip:b@h>"], [90, 3600]),
            (["Contact: <sip:a@h>", "Expires: 0"], [0]),
            (["Contact: <sip:a@h>;EXPIRES=090"], [90]),
            (["Contact: <sip:a@h;expires=90>"], [3600]),  # of the URI, none of ours
            (["Contact: sip:a@h;expires=90"], [90]),  # without <> it is the header's (§20.10)
            (["m: <sip:a@h>;expires=90"], [90]),
        ):
            self.assertEqual(self.expires(*lines), expected, lines)

    def test_too_brief_is_refused_with_min_expires(self) -> None:
        """
        "If and only if the requested expiration interval is greater than zero AND smaller than one hour AND less than
        a registrar-configured minimum, the registrar MAY reject the registration with a response of 423 (Interval Too
        Brief). This response MUST contain a Min-Expires header field".
        """
        for lines in (
            ["Contact: <sip:a@h>;expires=59"],
            ["Contact: <sip:a@h>;expires=1"],
            ["Contact: <sip:a@h>", "Expires: 59"],
            ["Contact: <sip:a@h>;expires=600, <sip:b@h>;expires=59"],
        ):
            refusal = self.assertRaises(RequestRefused, read, *lines)
            self.assertEqual((refusal.status, refusal.headers), (423, (("Min-Expires", "60"),)))
        self.assertEqual(self.expires("Contact: <sip:a@h>;expires=60"), [60])
        self.assertEqual(self.expires("Contact: <sip:a@h>;expires=0"), [0])
        self.assertEqual(self.expires("Contact: <sip:a@h>;expires=600", "Expires: 5"), [600])

    def test_too_brief_is_only_what_is_less_than_an_hour(self) -> None:
        """
        An hour and more is never too brief, whatever the operator's minimum ("AND smaller than one hour").
        """
        limits = RegisterLimits(min_expires=7200, default_expires=7200, max_expires=7200)
        message = request("Contact: <sip:a@h>;expires=3600")
        self.assertEqual(read_register(message, ALICE, limits, WAY).contacts[0].expires_in, 3600)

    def test_longer_than_allowed_is_shortened(self) -> None:
        """
        "The registrar MAY choose an expiration less than the requested expiration interval."
        """
        for text in ("7201", "4294967295", "00000000000000004294967295"):
            self.assertEqual(self.expires(f"Contact: <sip:a@h>;expires={text}"), [7200])
            self.assertEqual(self.expires("Contact: <sip:a@h>", f"Expires: {text}"), [7200])

    def test_numbers_out_of_range_are_refused_and_never_wrapped(self) -> None:
        """
        RFC 3261 §20.19: "between 0 and (2**32)-1"; §8.1.1.5: the CSeq number "MUST be less than 2**31".
        """
        for lines in (
            ["Contact: <sip:a@h>", "Expires: 4294967296"],
            ["Contact: <sip:a@h>;expires=4294967296"],
            ["Contact: <sip:a@h>", "Expires: 18446744073709551616"],
            ["Contact: <sip:a@h>", "Expires: -1"],
            ["Contact: <sip:a@h>", "Expires: 1e3"],
            ["Contact: <sip:a@h>;expires=\u0663\u0660\u0660"],  # digits, but not of ours
            ["Contact: <sip:a@h>;q=1.1"],
            ["Contact: <sip:a@h>;q=0.5555"],
            ["Contact: <sip:a@h>;q=-0.5"],
            [f"Contact: <sip:a@h>;reg-id=2147483648;{INSTANCE}"],
            [f"Contact: <sip:a@h>;reg-id=x;{INSTANCE}"],
        ):
            self.assertRaises(ParseError, read, *lines)
        self.assertRaises(ParseError, read, cseq=2**31)
        self.assertEqual(read("Contact: <sip:a@h>", cseq=2**31 - 1).cseq, 2147483647)

    def test_q(self) -> None:
        for text, expected in (
            ("", -1), (";q=1", 1000), (";q=1.000", 1000), (";q=0", 0), (";q=0.7", 700), (";q=0.125", 125),
            (";Q=.5", None), (";q=0.", 0),
        ):  # fmt: skip
            line = f"Contact: <sip:a@h>{text}"
            if expected is None:
                self.assertRaises(ParseError, read, line)
            else:
                self.assertEqual(read(line).contacts[0].q, expected, text)

    def test_other_parameters_are_kept_as_they_came(self) -> None:
        (contact,) = read('Contact: "A" <sip:a@h>;q=0.5;methods="INVITE, BYE";+g.x;expires=90;Audio').contacts
        self.assertEqual(contact.params, ';methods="INVITE, BYE";+g.x;audio')

    def test_the_wildcard_rules(self) -> None:
        """
        Step 6: "If the request has additional Contact fields or an expiration time other than zero, the request is
        invalid, and the server MUST return a 400 (Invalid Request)".
        """
        register = read("Contact: *", "Expires: 0")
        self.assertEqual((register.is_wildcard, register.contacts, register.is_query), (True, (), False))
        for lines in (
            ["Contact: *"],
            ["Contact: *", "Expires: 1"],
            ["Contact: *", "Expires: 3600"],
            ["Contact: *, <sip:a@h>", "Expires: 0"],
            ["Contact: <sip:a@h>, *", "Expires: 0"],
            ["Contact: *", "Contact: <sip:a@h>", "Expires: 0"],
            ["Contact: <sip:a@h>", "Contact: *", "Expires: 0"],
            ["Contact: *", "Contact: *", "Expires: 0"],
            ["Contact: *;expires=0"],
            ["Contact: <*>", "Expires: 0"],
        ):
            error = self.assertRaises((RequestRefused, ParseError), read, *lines)
            self.assertEqual(error.status, 400, lines)

    def test_without_contact_it_is_a_query(self) -> None:
        """
        §10.2.3: "If no Contact header field is present in a REGISTER request, the list of bindings is left unchanged."
        """
        self.assertTrue(read().is_query)
        self.assertTrue(read("Expires: 0").is_query)
        self.assertFalse(read("Contact: <sip:a@h>").is_query)

    def test_a_contact_that_is_no_sip_uri_is_refused(self) -> None:
        for uri in ("tel:+1-201-555-0123", "mailto:a@h", "name:John_Smith"):
            self.assertEqual(self.assertRaises(RequestRefused, read, f"Contact: <{uri}>").status, 400)

    def test_path_of_all_lines_in_order(self) -> None:
        """
        RFC 3327 §5.3: the Path is stored with the binding, its values in their order.
        """
        register = read("Contact: <sip:a@h>", "Path: <sip:p1;lr>, <sip:p2;lr>", "Path: <sip:p3;lr>;x=1")
        self.assertEqual(register.path, "<sip:p1;lr>, <sip:p2;lr>, <sip:p3;lr>;x=1")
        self.assertEqual(read("Contact: <sip:a@h>").path, "")

    def test_instance_and_reg_id(self) -> None:
        (contact,) = read(f"Contact: <sip:a@h>;{INSTANCE};reg-id=1").contacts
        self.assertEqual(contact.instance, "<urn:uuid:00000000-0000-1000-8000-000A95A0E128>")
        self.assertEqual(contact.reg_id, 1)
        self.assertEqual(contact.params, f";{INSTANCE};reg-id=1")
