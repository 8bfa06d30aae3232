"""
The 49 messages of RFC 4475 and 12 of RFC 5118 against the whole node, over UDP and as a stream: answered or dropped as
torture/INDEX.md says. What is relayed, and how, is in C{test_torture_relay.py}; here nobody is registered.
"""

from __future__ import annotations

import gc
import itertools
import json
import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.config import NodeConfig, NodeSection
from sipdmq.records import Listener, Protocol
from sipdmq.sip.uri import parse_uri, same_uri
from tests.memory_node import MemoryNode
from tests.mutations import Mutations

TORTURE = Path(__file__).parent / "torture"
INDEX: list[dict[str, Any]] = json.loads((TORTURE / "index.json").read_text())
ACCEPTED = {entry["file"].removesuffix(".dat"): entry["accept"] for entry in INDEX}
SENDER = ("203.0.113.9", 5099)
DROPPED = 0

LISTENERS = (
    Listener(Protocol.UDP, "192.0.2.200", 5060, "192.0.2.200", 5060),
    Listener(Protocol.TCP, "192.0.2.200", 5060, "192.0.2.200", 5060),
)
OURS = NodeSection(
    listen=LISTENERS, domains=("example.com", "example.net", "example.org", "host.example.net", "2001:db8::10")
)
LOCALHOST = NodeSection(listen=LISTENERS)

# What the parser refuses, or what is dropped, is so whatever the domains are.
EVERYWHERE = {
    "rfc4475/unreason": DROPPED,
    "rfc4475/noreason": DROPPED,
    "rfc4475/badinv01": 400,
    "rfc4475/clerr": 400,
    "rfc4475/ncl": 400,
    "rfc4475/scalar02": 400,
    "rfc4475/scalarlg": DROPPED,
    "rfc4475/quotbal": 400,
    "rfc4475/ltgtruri": 400,
    "rfc4475/lwsruri": 400,
    "rfc4475/lwsstart": 400,
    "rfc4475/trws": 400,
    "rfc4475/escruri": 400,
    "rfc4475/regbadct": 400,
    "rfc4475/badaspec": 400,
    "rfc4475/baddn": DROPPED,
    "rfc4475/badvers": 505,
    "rfc4475/mismatch01": 400,
    "rfc4475/mismatch02": 400,
    "rfc4475/bigcode": DROPPED,
    "rfc4475/insuf": 400,
    "rfc4475/unkscm": 416,
    "rfc4475/novelsc": 416,
    "rfc4475/bext01": 420,
    "rfc4475/multi01": 400,
    "rfc4475/mcl01": 400,
    "rfc4475/bcast": DROPPED,
    "rfc5118/ipv6-bad": 400,
}

# "relay", where there is whom to relay it to.
RELAYED = {
    **dict.fromkeys(
        (
            "rfc4475/intmeth", "rfc4475/esc01", "rfc4475/lwsdisp", "rfc4475/longreq", "rfc4475/semiuri",
            "rfc4475/transports", "rfc4475/baddate", "rfc4475/badbranch", "rfc4475/invut", "rfc4475/sdp01",
            "rfc4475/inv2543", "rfc5118/ipv6-in-sdp", "rfc5118/mult-ip-in-header", "rfc5118/mult-ip-in-sdp",
            "rfc5118/ipv4-mapped-ipv6",
        ),
        480,
    ),
    # Other domains, or a Route through others, and nobody who could say that he is ours.
    "rfc4475/wsinv": 403,
    "rfc4475/esc02": 403,
    "rfc4475/mpart01": 403,
    "rfc5118/ipv6-bug-abnf-3-colons": 403,
    "rfc5118/ipv6-correct-abnf-2-colons": 403,
}  # fmt: skip

REGISTERED = dict.fromkeys(
    (
        "rfc4475/escnull", "rfc4475/dblreq", "rfc4475/cparam01", "rfc4475/cparam02", "rfc4475/regescrt",
        "rfc4475/regaut01", "rfc5118/ipv6-good",
    ),
    200,
)  # fmt: skip

TO_THE_SERVER = {
    "rfc4475/zeromf": 483,
    "rfc4475/unksm2": 404,
    "rfc5118/via-received-param-no-delim": 200,
    "rfc5118/via-received-param-with-delim": 481,  # a BYE of no dialog
}

NOT_OUR_DOMAIN = {
    "rfc5118/port-ambiguous": 403,  # [2001:db8::10:5070] is another address
    "rfc5118/port-unambiguous": 403,  # and on port 5070 we do not listen
}

# Those that register somebody come last: the others shall find nobody.
NAMES = [*(name for name in ACCEPTED if name not in REGISTERED), *REGISTERED]

OUTCOMES = {**EVERYWHERE, **RELAYED, **TO_THE_SERVER, **NOT_OUR_DOMAIN, **REGISTERED}


def load(name: str) -> bytes:
    return (TORTURE / f"{name}.dat").read_bytes()


def unique(name: str) -> bytes:
    """
    One message with branches of its own: many of them have the same, and would be retransmissions.
    """
    return re.sub(rb"z9hG4bK(?=[A-Za-z0-9])", b"z9hG4bK" + name.partition("/")[2].encode(), load(name))


def status_of(answer: bytes) -> int:
    match = re.match(rb"SIP/2\.0 ([1-6][0-9]{2}) [^\r\n]*\r\n", answer)
    assert match is not None, answer
    return int(match.group(1))


def values(message: bytes, *names: str) -> list[str]:
    """
    The values of some header fields, line by line in order, unfolded.
    """
    head = message.partition(b"\r\n\r\n")[0].decode("utf-8", "surrogateescape")
    lines = re.sub(r"\s*\r\n[ \t]+", " ", head).split("\r\n")[1:]
    return [line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip().lower() in names]


class TortureTestCase(SynchronousTestCase):
    section = OURS

    def setUp(self) -> None:
        self.memory = MemoryNode(self, NodeConfig(node=self.section))

    def ask(self, name: str) -> int:
        """
        Send one as a datagram.

        @return: the status of its answer, or L{DROPPED}.
        """
        sent = self.memory.receive(unique(name), *SENDER)
        self.assertTrue(all(address[0] == SENDER[0] for _, address in sent), sent)
        self.assertLessEqual(len(sent), 1, name)
        return status_of(sent[0][0]) if sent else DROPPED

    def assert_each(self, expected: dict[str, int]) -> None:
        for name, status in expected.items():
            self.assertEqual(self.ask(name), status, name)

    def assert_accepted(self) -> None:
        """
        What is answered is among what torture/index.json allows.
        """
        for name in NAMES:
            status = self.ask(name)
            self.assertTrue("any" in ACCEPTED[name] or (status or "drop") in ACCEPTED[name], f"{name}: {status}")

    def assert_nothing_is_kept(self) -> None:
        """
        After the time of all transactions nothing is left but bindings; after theirs, nothing.
        """
        self.memory.reactor.pump([0.5] * 2 * 35)
        numbers = self.memory.node.snapshot()
        self.assertEqual({name for name in numbers if name.startswith("transaction.") and numbers[name]}, set())
        transactions = self.memory.node.transactions
        for table in ("_servers", "_clients", "_live_merges", "_by_target"):
            self.assertEqual(len(getattr(transactions, table)), 0, table)
        self.memory.reactor.pump([10] * 800)
        numbers = self.memory.node.snapshot()
        self.assertEqual({name for name in numbers if name.startswith("location.") and numbers[name]}, set())


class OurDomainsTests(TortureTestCase):
    """
    The domains of the messages are ours, nearly all.
    """

    def test_the_tables_are_complete(self) -> None:
        self.assertEqual(sorted(OUTCOMES), sorted(ACCEPTED))

    def test_each_is_answered_as_the_index_says(self) -> None:
        self.assert_each(OUTCOMES)

    def test_the_index_accepts_what_is_answered(self) -> None:
        self.assert_accepted()

    def test_nothing_is_kept_of_them(self) -> None:
        for name in NAMES:
            self.ask(name)
        self.assert_nothing_is_kept()

    def test_the_answer_has_what_identifies_the_request(self) -> None:
        """
        RFC 3261 §8.2.6.2: From, Call-ID, CSeq "MUST equal", the Via values "MUST equal ... and MUST maintain the same
        ordering"; also in the refusal of what cannot be read.
        """
        for name in NAMES:
            request = unique(name)
            for answer, _ in self.memory.receive(request, *SENDER):
                for names in (("from", "f"), ("call-id", "i"), ("cseq",)):
                    if name == "rfc4475/multi01":  # has several of each
                        continue
                    self.assertEqual(values(answer, *names), values(request, *names), name)
                self.assertEqual(len(values(answer, "via", "v")), len(values(request, "via", "v")), name)
                self.assertEqual(values(answer, "via", "v")[1:], values(request, "via", "v")[1:], name)

    def test_bext01_names_the_proxy_s_option_tags(self) -> None:
        ((answer, _),) = self.memory.receive(load("rfc4475/bext01"), *SENDER)
        self.assertEqual(values(answer, "unsupported"), ["noProxiesSupportThis, norDoAnyProxiesSupportThis"])

    def test_bcast_sends_nothing_to_the_broadcast_address(self) -> None:
        """
        RFC 4475 §3.3.10: "an endpoint receiving this message should simply discard it".
        """
        self.assertEqual(self.memory.receive(load("rfc4475/bcast"), *SENDER), [])
        stream = self.memory.connect(*SENDER)
        self.assertEqual(stream.receive(load("rfc4475/bcast")), b"")
        self.memory.reactor.pump([1] * 40)
        self.assertEqual(self.memory.take_sent(), [])

    def test_a_request_with_a_broadcast_via_is_answered_to_its_source(self) -> None:
        request = load("rfc4475/zeromf").replace(b"host1.example.com", b"255.255.255.255;received=255.255.255.255")
        request = request.replace(b";branch", b";maddr=255.255.255.255;branch")
        ((_, address),) = self.memory.receive(request, *SENDER)
        self.assertEqual(address, (SENDER[0], 5060))


class RegisterTests(TortureTestCase):
    """
    Those that are registrations, and what they register.
    """

    def contacts(self, name: str) -> list[str]:
        ((answer, _),) = self.memory.receive(load(name), *SENDER)
        self.assertEqual(status_of(answer), 200, name)
        return values(answer, "contact")

    def test_what_was_registered_is_answered(self) -> None:
        for name, expected in (
            # §3.1.1.4: "the null bytes ... must survive"
            (
                "rfc4475/escnull",
                ["<sip:%00@host5.example.com>;expires=3600", "<sip:%00%00@host5.example.com>;expires=3600"],
            ),
            ("rfc4475/dblreq", ["<sip:j.user@host.example.com>;expires=3600"]),
            ("rfc4475/cparam01", ["<sip:+19725552222@gw1.example.net>;unknownparam;expires=3600"]),
            ("rfc4475/regescrt", ["<sip:user@example.com?Route=%3Csip:sip.example.com%3E>;expires=3600"]),
            ("rfc5118/ipv6-good", ["<sip:caller@[2001:db8::1]>;expires=3600"]),
        ):
            self.memory = MemoryNode(self, NodeConfig(node=self.section))
            self.assertEqual(self.contacts(name), expected, name)

    def test_a_parameter_of_the_uri_is_no_parameter_of_the_header(self) -> None:
        (contact,) = self.contacts("rfc4475/cparam02")
        uri, expires = re.fullmatch(r"<(.*)>;(.*)", contact).groups()  # type: ignore[union-attr]
        self.assertEqual(expires, "expires=3600")
        self.assertTrue(same_uri(parse_uri(uri), parse_uri("sip:+19725552222@gw1.example.net;unknownparam")))

    def test_a_query_with_unknown_credentials_is_served(self) -> None:
        self.assertEqual(self.contacts("rfc4475/regaut01"), [])

    def test_dblreq_as_a_stream_holds_two_requests(self) -> None:
        answers = re.findall(rb"SIP/2\.0 ([0-9]{3})", self.memory.connect(*SENDER).receive(load("rfc4475/dblreq")))
        self.assertEqual(answers[0], b"200")
        self.assertEqual(answers[1], b"480")


class LocalhostTests(TortureTestCase):
    """
    None of the domains is ours.
    """

    section = LOCALHOST

    def test_each_is_answered_as_the_index_says(self) -> None:
        self.assert_each(EVERYWHERE)
        elsewhere = dict.fromkeys(set(OUTCOMES) - set(EVERYWHERE), 403)
        self.assert_each({**elsewhere, "rfc4475/zeromf": 483})

    def test_the_index_accepts_what_is_answered(self) -> None:
        self.assert_accepted()

    def test_nothing_is_kept_of_them(self) -> None:
        for name in NAMES:
            self.ask(name)
        self.assertEqual(self.memory.node.store.count(), 0)
        self.assert_nothing_is_kept()


class GarbageTests(TortureTestCase):
    """
    Bad messages leave no cycles: as the node has it, the collector runs seldom, and each may hold 65 kB.
    """

    def test_nothing_waits_for_the_garbage_collector(self) -> None:
        messages = [load(name) for name in NAMES]
        messages += itertools.islice(Mutations(1, "example.com"), 300)
        # Once to fill caches and tables.
        for message in messages:
            self.memory.receive(message, *SENDER)
        gc.collect()
        gc.freeze()
        self.addCleanup(gc.unfreeze)
        gc.disable()
        self.addCleanup(gc.enable)
        for message in messages:
            self.memory.receive(message, *SENDER)
            garbage = gc.collect()
            self.assertEqual(garbage, 0, f"{garbage} objects are left of {message[:200]!r}")


class StreamTests(TortureTestCase):
    """
    The same over TCP.
    """

    # More is awaited: the rest of a body, or of the header fields.
    PARTIAL = ("rfc4475/clerr", "rfc4475/baddn")
    # Nobody can tell where the next message begins.
    LAST = ("rfc4475/ncl", "rfc4475/mcl01", "rfc4475/inv2543", "rfc4475/dblreq")

    def test_each_is_answered_as_the_index_says(self) -> None:
        expected = OUTCOMES.copy()
        expected.update(dict.fromkeys(self.PARTIAL, DROPPED))
        expected.update(dict.fromkeys(self.LAST[:3], 400))
        for name, status in expected.items():
            stream = self.memory.connect(*SENDER)
            answer = stream.receive(load(name))
            self.assertEqual(status_of(answer) if answer else DROPPED, status, name)
            self.assertEqual(stream.is_closed, name in self.LAST, name)

    def test_byte_by_byte(self) -> None:
        for name in NAMES:
            whole = self.memory.connect(*SENDER).receive(load(name))
            stream = self.memory.connect(SENDER[0], 5098)
            answer = b"".join(stream.receive(bytes((byte,))) for byte in load(name))
            self.assertEqual(answer[:12], whole[:12], name)

    def test_half_a_message_is_closed_after_30_seconds(self) -> None:
        stream = self.memory.connect(*SENDER)
        stream.receive(load("rfc4475/clerr"))
        self.memory.reactor.pump([1] * 29)
        self.assertFalse(stream.is_closed)
        self.memory.reactor.pump([1] * 3)
        self.assertTrue(stream.is_closed)
