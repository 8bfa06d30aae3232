"""
Node lists as text (WIRE §2, §3): reading anything, writing what every release of Kamailio takes.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.dmq.lines import (
    KAMAILIO_ROOM,
    MAX_LINES,
    NodeLine,
    fitting,
    format_line,
    line_length,
    name_of,
    numeric_host,
    read_lines,
    read_release,
)
from sipdmq.errors import ParseError
from sipdmq.records import NodeName, NodeStatus, Protocol
from sipdmq.sip.uri import parse_sip_uri

CAPTURES = Path(__file__).parent / "kamailio"
ACTIVE, NOT_ACTIVE, DISABLED = NodeStatus.ACTIVE, NodeStatus.NOT_ACTIVE, NodeStatus.DISABLED
bounded = settings(derandomize=True, max_examples=150, deadline=None, database=None)

hosts = st.one_of(
    st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(lambda address: numeric_host(str(address)) or "::1")
).filter(lambda host: bool(numeric_host(host)))
names = st.builds(NodeName, st.sampled_from(Protocol), hosts, st.integers(1, 65535))


def udp(host: str, port: int = 5060) -> NodeName:
    return NodeName(Protocol.UDP, host, port)


def body_of(name: str) -> bytes:
    return (CAPTURES / name).read_bytes().partition(b"\r\n\r\n")[2]


class ReadTests(SynchronousTestCase):
    def assertReads(self, body: bytes, *lines: tuple[NodeName, NodeStatus], refused: int = 0) -> None:
        reading = read_lines(body)
        self.assertEqual([tuple(line) for line in reading.lines], list(lines))
        self.assertEqual(reading.refused, refused)

    def test_as_kamailio_writes_them(self) -> None:
        self.assertReads(
            body_of("captures/np-join-third.reply.sip"),
            *((udp(f"127.7.7.{number}"), ACTIVE) for number in (3, 2, 1)),
        )
        self.assertReads(body_of("captures/np-announce-disabled.sip"), (udp("127.7.7.9"), DISABLED))
        tcp = [NodeName(Protocol.TCP, f"127.7.7.{number}", 5060) for number in (2, 1)]
        self.assertEqual([line.name for line in read_lines(body_of("captures/tcp-np-join.reply.sip")).lines], tcp)
        self.assertEqual(len(read_lines(body_of("captures-6.1/np-full.reply.sip")).lines), 24)

    def test_one_node_in_several_spellings_is_one(self) -> None:
        spellings = b"""sip:127.7.7.9;status=active\nSIP:127.7.7.9:5060;Transport=UDP;status=active\r
sip:someone@127.7.7.9:05060\nsip:127.7.7.9:;status=active\n"""
        for body in (body_of("captures/np-variant-transport-udp.reply.sip"), spellings):
            self.assertIn((udp("127.7.7.9"), ACTIVE), read_lines(body).lines)
            self.assertEqual(len([line for line in read_lines(body).lines if line.name.host == "127.7.7.9"]), 1)

    def test_the_first_line_of_a_node_counts(self) -> None:
        self.assertReads(b"sip:1.2.3.4;status=active\nsip:1.2.3.4;status=disabled\n", (udp("1.2.3.4"), ACTIVE))

    def test_line_ends(self) -> None:
        one, other = (udp("1.2.3.4"), ACTIVE), (udp("1.2.3.5"), ACTIVE)
        for body in (
            b"sip:1.2.3.4:5060;status=active\r\nsip:1.2.3.5:5060;status=active\r\n",
            b"sip:1.2.3.4:5060;status=active\nsip:1.2.3.5:5060;status=active\n",
            b"sip:1.2.3.4:5060;status=active\r\nsip:1.2.3.5:5060;status=active",
            b" sip:1.2.3.4:5060;status=active \r\nsip:1.2.3.5:5060;status=active\0\r\n\0",
        ):
            self.assertReads(body, one, other)

    def test_the_words_of_all_releases(self) -> None:
        for word, status in (
            (b"active", ACTIVE),
            (b"disabled", DISABLED),
            (b"pending", NOT_ACTIVE),
            (b"timeout", NOT_ACTIVE),
            (b"not_active", NOT_ACTIVE),
        ):
            self.assertReads(b"sip:1.2.3.4:5060;status=" + word + b"\r\n", (udp("1.2.3.4"), status))
        self.assertReads(b"sip:1.2.3.4:5060\r\n", (udp("1.2.3.4"), ACTIVE))

    def test_a_bad_line_costs_itself_only(self) -> None:
        good = b"sip:1.2.3.4:5060;status=active\r\n"
        for bad in (
            b"",
            b"#",
            b"garbage",
            b"tel:123",
            b"sip:",
            b"sip:1.2.3.5:5060;status=Active",
            b"sip:1.2.3.5;status=",
            b"sip:1.2.3.5;status=active;status=disabled",
            b"sip:1.2.3.5;transport=sctp",
            b"sip:1.2.3.5:0",
            b"sip:1.2.3.5:65536",
            b"sip:1.2.3.5:-1",
            b"sip:0.0.0.0:5060",
            b"sip:255.255.255.255",
            b"sip:224.0.0.1",
            b"sip:[::]",
            b"sip:[ff02::1]",
            b"sip:127.1",
            b"sip:1.2.3.256",
            b"sip:[1.2.3.4]:5060",
            b"\xff\xfe\x00",
            b"sip:" + b"a" * 300,
            b"sip:1.2.3.5:5060;x=" + b"y" * 200,
            "sip:\u0661.2.3.5".encode(),
        ):
            with self.subTest(bad=bad):
                reading = read_lines(good + bad + b"\r\n" + good.replace(b".4", b".6"))
                self.assertEqual(reading.lines, ((udp("1.2.3.4"), ACTIVE), (udp("1.2.3.6"), ACTIVE)))
                self.assertEqual(reading.refused, 1)

    def test_malformed_lists_are_read_as_far_as_they_make_sense(self) -> None:
        for name, count in (
            ("captures/malformed-np-bad-status.sip", 1),
            ("captures/malformed-np-blank-line.sip", 1),
            ("captures/malformed-np-garbage.sip", 0),
            ("captures/malformed-np-no-final-newline.sip", 1),
            ("captures-6.1/np-blank-line.sip", 2),
            ("captures-6.1/np-no-final-newline.sip", 2),
            ("captures-6.1/np-unresolvable.sip", 3),
            ("captures-6.1/np-tls.sip", 1),
            ("captures-6.1/np-one-too-many.sip", 1),
        ):
            with self.subTest(name=name):
                self.assertEqual(len(read_lines(body_of(name)).lines), count)

    def test_an_empty_body_is_no_list(self) -> None:
        self.assertReads(b"")
        self.assertReads(b"\r\n", refused=1)

    def test_names_of_hosts_are_left_to_be_resolved(self) -> None:
        self.assertReads(
            b"sip:A.Example.ORG:5061;transport=TLS\r\n", (NodeName(Protocol.TLS, "a.example.org", 5061), ACTIVE)
        )

    def test_sips_and_user_are_lost_as_with_kamailio(self) -> None:
        self.assertReads(body_of("captures-6.1/np-user-and-scheme.sip"), (udp("127.7.8.22", 5061), ACTIVE))

    def test_no_more_than_a_thousand_lines_are_looked_at(self) -> None:
        body = b"".join(b"sip:10.0.%d.%d:5060;status=active\r\n" % divmod(number, 200) for number in range(5000))
        reading = read_lines(body)
        self.assertEqual((len(reading.lines), reading.refused), (MAX_LINES, 1))

    @bounded
    @given(st.binary(max_size=2000))
    def test_any_bytes_give_a_reading(self, body: bytes) -> None:
        reading = read_lines(body)
        self.assertLessEqual(len(reading.lines) + reading.refused, body.count(b"\n") + 1)

    @bounded
    @given(
        st.lists(
            st.sampled_from(
                [
                    b"sip:",
                    b"1.2.3.4",
                    b":5060",
                    b";",
                    b"status=",
                    b"active",
                    b"\r\n",
                    b"\n",
                    b"[",
                    b"::1",
                    b"]",
                    b"@",
                    b"transport=",
                    b"tcp",
                    b"\0",
                    b"\xff",
                    b"=",
                    b"%41",
                    b" ",
                ]
            ),
            max_size=60,
        )
    )
    def test_any_pieces_of_a_list_give_lines_that_can_be_written(self, pieces: list[bytes]) -> None:
        for name, status in read_lines(b"".join(pieces)).lines:
            self.assertEqual(read_lines(format_line(name, status)).lines, ((name, status),))

    @bounded
    @given(st.dictionaries(names, st.sampled_from(NodeStatus), max_size=40))
    def test_what_is_written_is_read_again(self, nodes: dict[NodeName, NodeStatus]) -> None:
        body = b"".join(format_line(name, status) for name, status in nodes.items())
        self.assertEqual(read_lines(body).lines, tuple(NodeLine(*item) for item in nodes.items()))
        self.assertEqual(read_lines(body).refused, 0)


class WriteTests(SynchronousTestCase):
    def test_as_in_the_captures(self) -> None:
        self.assertEqual(
            format_line(udp("127.7.7.9"), ACTIVE),
            body_of("captures/np-ping-to-disabled.sip")[:34].replace(b".2:", b".9:"),
        )
        self.assertEqual(format_line(udp("127.7.7.9"), DISABLED), body_of("captures/np-announce-disabled.sip"))
        self.assertEqual(
            format_line(NodeName(Protocol.TLS, "127.7.8.24", 5061), ACTIVE), body_of("captures-6.1/np-tls.sip")
        )
        self.assertEqual(
            format_line(NodeName(Protocol.TCP, "::1", 1), ACTIVE), b"sip:[::1]:1;transport=tcp;status=active\r\n"
        )

    @bounded
    @given(names)
    def test_length(self, name: NodeName) -> None:
        self.assertEqual(line_length(name), len(format_line(name, ACTIVE)))

    def test_as_many_as_a_kamailio_holds(self) -> None:
        """
        WIRE §3: 29 for 127.7.7.1:5060, 27 for 16 characters, 24 for the longest IPv4 address, 18 with TCP.
        """
        for protocol, host, port, count in (
            (Protocol.UDP, "127.7.7.%d", 5060, 29),
            (Protocol.UDP, "127.77.77.%d", 5060, 27),
            (Protocol.UDP, "127.123.123.%d", 50600, 24),
            (Protocol.TCP, "127.123.123.%d", 50600, 18),
        ):
            width = 3 if "123" in host else 1
            some = [NodeName(protocol, host % 1 + "0" * (width - 1), port)] * 1
            ranked = [some[0]._replace(port=port - number) for number in range(40)]
            self.assertEqual(len(fitting(ranked)), count)

    def test_the_first_ones_are_chosen_and_a_long_one_is_passed_over(self) -> None:
        long = NodeName(Protocol.TLS, "2001:db8:1111:2222:3333:4444:5555:6666", 50600)
        self.assertEqual(
            list(fitting([udp("127.7.7.1"), long, udp("127.7.7.2")], 80)), [udp("127.7.7.1"), udp("127.7.7.2")]
        )
        self.assertLess(KAMAILIO_ROOM, 1024)


class NameTests(SynchronousTestCase):
    def test_names(self) -> None:
        for text, name in (
            ("sip:notification_peer@127.7.7.1:5060", udp("127.7.7.1")),
            ("sip:127.7.7.1", udp("127.7.7.1")),
            ("sip:127.7.7.1;transport=tls", NodeName(Protocol.TLS, "127.7.7.1", 5061)),
            ("sip:[2001:DB8:0::1]:5070;transport=TCP", NodeName(Protocol.TCP, "2001:db8::1", 5070)),
            ("sip:[::ffff:10.0.0.1]", udp("10.0.0.1")),
            ("sip:Node.Example:5060", udp("node.example")),
        ):
            self.assertEqual(name_of(parse_sip_uri(text)), name)
        for text in ("sip:1.2.3.4;transport=ws", "sip:1.2.3.4:0", "sip:0.0.0.0"):
            self.assertRaises(ParseError, name_of, parse_sip_uri(text))

    def test_releases(self) -> None:
        for agent, release in (
            ("kamailio (5.6.3 (x86_64/linux))", "kamailio 5.6.3"),
            ("kamailio (6.1.4 (x86_64/Linux))", "kamailio 6.1.4"),
            ("kamailio (6.2.0-dev1 (x86_64/linux))", "kamailio 6.2.0-dev1"),
            ("sipdmq/0.1.0", "sipdmq 0.1.0"),
            ("", ""),
            ("Acme SBC", ""),
            ("kamailio", ""),
        ):
            self.assertEqual(read_release(agent), release)
