"""
The 49 messages of RFC 4475 and 12 of RFC 5118, as the parser sees them: read, or refused with the status that
torture/INDEX.md gives. What a registrar or proxy does with the readable ones (416, 420, 483 ...) is not decided here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.errors import ParseError
from sipdmq.sip.framing import StreamFramer
from sipdmq.sip.message import Request, Response, response_to
from sipdmq.sip.parser import parse_message
from sipdmq.sip.uri import canonical_escapes, parse_sip_uri
from sipdmq.sip.writer import format_message

TORTURE = Path(__file__).parent / "torture"
INDEX: list[dict[str, Any]] = json.loads((TORTURE / "index.json").read_text())

REFUSED = {
    "rfc4475/badinv01.dat": 400,
    "rfc4475/clerr.dat": 400,
    "rfc4475/ncl.dat": 400,
    "rfc4475/scalar02.dat": 400,
    "rfc4475/scalarlg.dat": 400,  # a response: dropped
    "rfc4475/quotbal.dat": 400,
    "rfc4475/ltgtruri.dat": 400,
    "rfc4475/lwsruri.dat": 400,
    "rfc4475/lwsstart.dat": 400,
    "rfc4475/trws.dat": 400,
    "rfc4475/escruri.dat": 400,
    "rfc4475/regbadct.dat": 400,
    "rfc4475/badaspec.dat": 400,
    "rfc4475/baddn.dat": 400,
    "rfc4475/badvers.dat": 505,
    "rfc4475/mismatch01.dat": 400,
    "rfc4475/mismatch02.dat": 400,
    "rfc4475/bigcode.dat": 400,  # a response: dropped
    "rfc4475/insuf.dat": 400,
    "rfc4475/multi01.dat": 400,
    "rfc4475/mcl01.dat": 400,
    "rfc5118/ipv6-bad.dat": 400,
}
"""
File to status. baddate and badbranch, which may be refused, are read: the Date is not looked at, and a branch of the
cookie alone is matched as RFC 2543 does.
"""


def load(name: str) -> bytes:
    return (TORTURE / name).read_bytes()


def read(name: str) -> Request:
    message = parse_message(load(f"{name}.dat" if "/" in name else f"rfc4475/{name}.dat"))
    assert isinstance(message, Request)
    return message


class AllMessagesTests(SynchronousTestCase):
    def test_the_messages_are_those_of_the_index(self) -> None:
        self.assertEqual(len(INDEX), 61)
        for entry in INDEX:
            data = load(entry["file"])
            self.assertEqual((len(data), hashlib.sha256(data).hexdigest()), (entry["bytes"], entry["sha256"]))

    def test_each_is_read_or_refused(self) -> None:
        for entry in INDEX:
            name = entry["file"]
            if name in REFUSED:
                error = self.assertRaises(ParseError, parse_message, load(name))
                self.assertEqual(error.status, REFUSED[name], name)
                self.assertTrue(entry["kind"] == "response" or error.status in entry["accept"], name)
            else:
                message = parse_message(load(name))
                self.assertIsInstance(message, Request if entry["kind"] == "request" else Response, name)
                self.assertNotEqual(entry["valid"], False, name)

    def test_all_valid_messages_are_read(self) -> None:
        self.assertFalse({entry["file"] for entry in INDEX if entry["valid"] is True} & REFUSED.keys())

    def test_what_was_read_is_written_byte_for_byte(self) -> None:
        for entry in INDEX:
            name = entry["file"]
            if name not in REFUSED and name != "rfc4475/dblreq.dat":
                self.assertEqual(format_message(parse_message(load(name))), load(name), name)

    def test_refused_requests_can_be_answered_and_responses_cannot(self) -> None:
        for name in REFUSED:
            error = self.assertRaises(ParseError, parse_message, load(name))
            if name in ("rfc4475/scalarlg.dat", "rfc4475/bigcode.dat", "rfc4475/baddn.dat"):
                self.assertIsNone(error.request, name)
            else:
                assert error.request is not None, name
                answer = response_to(error.request, error.status, "x1")
                self.assertEqual(answer.headers.get_all("via"), error.request.headers.get_all("via"))

    def test_over_a_stream_each_is_one_frame(self) -> None:
        last = {"ncl", "mcl01", "inv2543"}  # a length that is negative, given twice, missing
        for entry in INDEX:
            data, stem = load(entry["file"]), Path(entry["file"]).stem
            frames = StreamFramer().feed(data)
            if stem in ("clerr", "baddn"):  # more is to come
                self.assertEqual(frames, [])
            elif stem in last:
                self.assertEqual([frame.is_last for frame in frames], [True])
            elif stem == "dblreq":
                methods = [frame.data.partition(b" ")[0] for frame in frames]
                self.assertEqual(methods[:2], [b"REGISTER", b"INVITE"])
            else:
                self.assertEqual([tuple(frame) for frame in frames], [(data, False)], stem)


class SingleMessageTests(SynchronousTestCase):
    """
    What RFC 4475 and RFC 5118 tell of single messages.
    """

    def test_wsinv(self) -> None:
        message = read("wsinv")
        self.assertEqual(message.uri_text, "sip:vivekg@chair-dnrc.example.com;unknownparam")
        self.assertEqual((message.to.uri.text, message.to.tag), ("sip:vivekg@chair-dnrc.example.com", "1918181833n"))
        self.assertEqual((message.from_.display, message.from_.tag), ('J Rosenberg \\"', "98asjd8"))
        self.assertEqual((message.max_forwards, message.call_id), (68, "wsinv.ndaksdj@192.0.2.1"))
        self.assertEqual(tuple(message.cseq), (9, "INVITE"))
        self.assertEqual(
            [(via.transport, via.sent_by, via.branch, via.is_unique) for via in message.vias],
            [
                ("UDP", "192.0.2.2", "390skdjuw", False),
                ("TCP", "spindle.example.com", "z9hG4bK9ikj8", True),
                ("UDP", "192.168.255.111", "z9hG4bK30239", True),
            ],
        )
        self.assertEqual(message.headers.get("subject"), "")
        self.assertEqual(message.headers.get("newfangledheader"), "newfangled value continued newfangled value")
        self.assertEqual(message.headers.get("unknownheaderwithunusualvalue"), ";;,,;;,;")
        (route,) = message.addresses("route")
        self.assertEqual(
            dict(parse_sip_uri(route.uri.text).params), {"lr": "", "unknownwith": "value", "unknown-no-value": ""}
        )
        (contact,) = message.contacts
        self.assertEqual(contact.display, 'Quoted string ""')
        self.assertEqual(dict(contact.params), {"newparam": "newvalue", "secondparam": None, "q": "0.33"})
        self.assertEqual(len(message.body), 150)

    def test_intmeth(self) -> None:
        message = read("intmeth")
        self.assertEqual(message.method, "!interesting-Method0123456789_*+`.%indeed'~")
        self.assertEqual(message.cseq.method, message.method)
        self.assertEqual(parse_sip_uri(message.uri_text).user, "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*")
        self.assertEqual(message.to.display, "BEL:\x07 NUL:\x00 DEL:\x7f")
        self.assertEqual(message.from_.display, "token1~` token2'+_ token3*%!.-")
        self.assertEqual(
            dict(message.from_.params),
            {"fromparam''~+*_!.-%": '"\u0440\u0430\u0431\u043e\u0442\u0430\u044e\u0449\u0438\u0439"',
             "tag": "_token~1'+`*%!-."},
        )  # fmt: skip
        self.assertEqual(message.headers.get("extensionheader-!.%*+_`'~"), "\ufeff\u5927\u505c\u96fb")
        self.assertEqual((message.max_forwards, message.top_via.branch), (255, "z9hG4bK-.!%66*_+`'~"))

    def test_esc01(self) -> None:
        message = read("esc01")
        self.assertEqual(parse_sip_uri(message.uri_text).user, "sips%3Auser%40example.com")
        self.assertEqual(parse_sip_uri(message.uri_text).host, "example.net")
        self.assertEqual(parse_sip_uri(message.to.uri.text).canonical_user, "user")
        contact = parse_sip_uri(message.contacts[0].uri.text)
        self.assertEqual((contact.canonical_user, contact.param("lr")), ("caller", ""))
        self.assertEqual(canonical_escapes(contact.param("name") or ""), "value%2541")

    def test_escnull(self) -> None:
        message = read("escnull")
        self.assertEqual(parse_sip_uri(message.to.uri.text).canonical_user, "null-%00-null")
        self.assertEqual(
            [parse_sip_uri(contact.uri.text).canonical_user for contact in message.contacts], ["%00", "%00%00"]
        )

    def test_esc02(self) -> None:
        message = read("esc02")
        self.assertEqual((message.method, message.to.display), ("RE%47IST%45R", "%Z%45"))
        self.assertEqual([contact.uri.text[4:10] for contact in message.contacts], ["alias1", "alias3"])

    def test_lwsdisp(self) -> None:
        self.assertEqual((read("lwsdisp").from_.display, read("lwsdisp").from_.tag), ("caller", "323"))

    def test_longreq(self) -> None:
        message = read("longreq")
        self.assertEqual(
            (len(message.vias), len(message.from_.tag) > 100, len(message.call_id) > 100), (34, True, True)
        )

    def test_dblreq(self) -> None:
        message = read("dblreq")
        self.assertEqual((message.method, message.body), ("REGISTER", b""))
        self.assertTrue(load("rfc4475/dblreq.dat").startswith(format_message(message)))

    def test_semiuri(self) -> None:
        uri = parse_sip_uri(read("semiuri").uri_text)
        self.assertEqual((uri.user, uri.host, dict(uri.params)), ("user;par=u%40example.net", "example.com", {}))

    def test_transports(self) -> None:
        self.assertEqual([via.transport for via in read("transports").vias], ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"])

    def test_mpart01(self) -> None:
        self.assertEqual(len(read("mpart01").body), int(read("mpart01").headers.get("content-length") or ""))
        self.assertIn(b"\x00", read("mpart01").body)

    def test_responses(self) -> None:
        for name, status, reason in (
            ("noreason", 100, ""),
            ("bcast", 200, "OK"),
            ("unreason", 200, "= 2**3 * 5**2 \u043d\u043e "),
        ):
            message = parse_message(load(f"rfc4475/{name}.dat"))
            assert isinstance(message, Response)
            self.assertEqual(message.status, status)
            self.assertEqual(message.reason[: len(reason)], reason)

    def test_badbranch_and_inv2543_are_matched_the_old_way(self) -> None:
        self.assertFalse(read("badbranch").top_via.is_unique)
        self.assertEqual((read("inv2543").top_via.branch, read("inv2543").from_.tag), ("", ""))

    def test_unknown_schemes(self) -> None:
        self.assertEqual(read("unkscm").uri.scheme, "nobodyknowsthisscheme")
        self.assertEqual(read("novelsc").uri.scheme, "soap.beep")
        self.assertEqual([read("unksm2").to.uri.scheme, read("unksm2").contacts[0].uri.scheme], ["isbn", "name"])
        self.assertEqual(self.assertRaises(ParseError, parse_sip_uri, read("unkscm").uri_text).status, 416)

    def test_bext01(self) -> None:
        message = read("bext01")
        self.assertEqual(message.tokens("require"), ["nothingSupportsThis", "nothingSupportsThisEither"])
        self.assertEqual(message.tokens("proxy-require"), ["noProxiesSupportThis", "norDoAnyProxiesSupportThis"])

    def test_zeromf(self) -> None:
        self.assertEqual(read("zeromf").max_forwards, 0)

    def test_parameters_of_header_and_uri_are_told_apart(self) -> None:
        (one,), (other,) = read("cparam01").contacts, read("cparam02").contacts
        self.assertEqual((dict(one.params), dict(parse_sip_uri(one.uri.text).params)), ({"unknownparam": None}, {}))
        self.assertEqual((dict(other.params), dict(parse_sip_uri(other.uri.text).params)), ({}, {"unknownparam": ""}))
        self.assertEqual(
            parse_sip_uri(read("regescrt").contacts[0].uri.text).headers, "Route=%3Csip:sip.example.com%3E"
        )

    def test_ports_in_and_behind_brackets(self) -> None:
        for name, host, port in (
            ("port-ambiguous", "2001:db8::10:5070", None),
            ("port-unambiguous", "2001:db8::10", 5070),
            ("ipv6-good", "2001:db8::10", None),
            ("ipv6-bug-abnf-3-colons", "2001:db8::c000:201", None),
            ("ipv6-correct-abnf-2-colons", "2001:db8::c000:201", None),
        ):
            uri = parse_sip_uri(read(f"rfc5118/{name}").uri_text)
            self.assertEqual((uri.host, uri.port), (host, port), name)

    def test_received_with_and_without_brackets(self) -> None:
        for name in ("via-received-param-with-delim", "via-received-param-no-delim"):
            received = read(f"rfc5118/{name}").top_via.params["received"] or ""
            self.assertEqual(received.strip("[]"), "2001:db8::9:255")

    def test_ipv4_mapped(self) -> None:
        self.assertEqual(
            [via.sent_by for via in read("rfc5118/ipv4-mapped-ipv6").vias],
            ["[::ffff:192.0.2.10]:19823", "[::ffff:192.0.2.2]"],
        )
