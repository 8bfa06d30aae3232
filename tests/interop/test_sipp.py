"""
sipp as the phones: scenarios of C{scenarios/}, over UDP and TCP, one user and many.
"""

from __future__ import annotations

import re
from collections import defaultdict

from tests.interop.sipp import SippTestCase


class UDPTests(SippTestCase):
    """
    Phones over UDP.
    """

    host = "127.81.1.1"

    def test_a_user_registers(self) -> None:
        """
        The answer lists the contact with what is left of its time, and so does a query by somebody else.
        """
        self.assert_passed(self.sipp("register"))
        (contact,) = self.server.bindings("user1")
        self.assertIn(f"<sip:user1@{self.server.host}:", contact)

    def test_registers_refreshes_queries_and_removes(self) -> None:
        """
        The life of a binding.
        """
        self.assert_passed(self.sipp("lifecycle"))
        self.assertEqual(self.server.bindings("user1"), [])

    def test_removes_all_with_the_wildcard(self) -> None:
        """
        C{Contact: *} with C{Expires: 0}.
        """
        self.assert_passed(self.sipp("wildcard"))
        self.assertEqual(self.server.bindings("user1"), [])

    def test_many_users_in_one_run(self) -> None:
        """
        500 users register within a second, each gets an answer with a contact of its own.
        """
        self.assert_passed(self.sipp("register", calls=500, rate=500))
        for user in ("user1", "user250", "user500"):
            self.assertEqual(len(self.server.bindings(user)), 1)

    def test_a_lost_answer_is_sent_again_from_the_transaction(self) -> None:
        """
        RFC 3261 §17.2.2: a retransmitted request in state Completed gets the same final response, so all answers to
        one REGISTER carry the same To tag, however often it was sent.
        """
        # So many calls, and so many attempts 200 ms apart, that neither none nor all of the answers are ever lost.
        self.assert_passed(self.sipp("lossy", "-T2", "200", "-max_non_invite_retrans", "20", calls=60, rate=100))
        sent: dict[str, int] = defaultdict(int)
        tags: dict[str, set[str]] = defaultdict(set)
        for message in self.messages():
            call_id = re.search(r"^Call-ID: *(\S+)", message, re.MULTILINE)
            if call_id is None:
                continue
            if " sent " in message.partition("\n")[0]:
                sent[call_id[1]] += 1
            tag = re.search(r"^To:.*;tag=([^;\s]+)", message, re.MULTILINE)
            if tag is not None:
                tags[call_id[1]].add(tag[1])
        self.assertEqual(len(sent), 60)
        self.assertGreater(sum(sent.values()), 60, "no REGISTER was sent again, so nothing was tested")
        self.assertEqual({call_id: found for call_id, found in tags.items() if len(found) != 1}, {})
        self.assertEqual(len(self.server.bindings("user1")), 1)

    def test_too_brief(self) -> None:
        """
        423 with Min-Expires, and nothing is registered.
        """
        self.not_kamailio("raises a brief expiry to its minimum")
        self.assert_passed(self.sipp("too_brief"))
        self.assertEqual(self.server.bindings("user1"), [])

    def test_a_domain_that_is_not_ours(self) -> None:
        """
        403: RFC 3261 §10.3 step 1 has a proxy forward it, but we do that for our users only.
        """
        self.assert_passed(self.sipp("unknown_domain"))

    def test_options(self) -> None:
        """
        A thousand OPTIONS to the server, all answered 200.
        """
        self.assert_passed(self.sipp("options", calls=1000, rate=1000))


class TCPTests(SippTestCase):
    """
    Phones over TCP.
    """

    host = "127.81.1.2"

    def test_registers_refreshes_queries_and_removes(self) -> None:
        """
        The life of a binding, on one connection.
        """
        self.assert_passed(self.sipp("lifecycle", transport="t1"))
        self.assertEqual(self.server.bindings("user1"), [])

    def test_many_users_on_one_connection(self) -> None:
        """
        500 users behind one connection, as behind a proxy: their messages share segments.
        """
        self.assert_passed(self.sipp("lifecycle", transport="t1", calls=500, rate=500))
        self.assertEqual(self.server.bindings("user500"), [])

    def test_many_users_with_a_connection_each(self) -> None:
        """
        200 connections.
        """
        self.assert_passed(self.sipp("register", "-max_socket", "500", transport="tn", calls=200, rate=200))

    def test_too_brief(self) -> None:
        """
        423 with Min-Expires, and nothing is registered.
        """
        self.not_kamailio("raises a brief expiry to its minimum")
        self.assert_passed(self.sipp("too_brief", transport="t1"))

    def test_a_domain_that_is_not_ours(self) -> None:
        """
        403: RFC 3261 §10.3 step 1 has a proxy forward it, but we do that for our users only.
        """
        self.assert_passed(self.sipp("unknown_domain", transport="t1"))

    def test_options(self) -> None:
        """
        OPTIONS to the server on one connection, all answered 200.
        """
        self.assert_passed(self.sipp("options", transport="t1", calls=500, rate=1000))
