"""
Authentication: old nonces, replays, credentials that are broken, and for whom somebody speaks.
"""

from __future__ import annotations

from sipdmq.core.auth import fit_answer, identity_of, remove_credentials
from sipdmq.core.refuse import answer
from sipdmq.errors import RequestRefused
from sipdmq.sip.message import Response
from sipdmq.sip.writer import format_message
from tests.digest_client import DigestClient, challenges_in
from tests.fakes import request, request_bytes
from tests.test_core_auth import ALL, REALM, AuthTestCase


class StaleTests(AuthTestCase):
    """
    RFC 7616 §3.3: "stale: A case-insensitive flag indicating that the previous request from the client was rejected
    because the nonce value was stale ... The server SHOULD only set stale to true if it receives a request for which
    the nonce is invalid" but the digest is right.
    """

    def test_a_right_answer_to_an_old_nonce(self) -> None:
        client = self.challenged()
        self.now += 301
        self.assert_challenge(self.failure(self.register(client.credentials("REGISTER", f"sip:{REALM}"))), stale=True)

    def test_a_wrong_answer_to_an_old_nonce(self) -> None:
        self.client.password = "wrong"
        client = self.challenged()
        self.now += 301
        self.assert_challenge(self.failure(self.register(client.credentials("REGISTER", f"sip:{REALM}"))), stale=False)

    def test_the_new_nonce_is_good(self) -> None:
        client = self.challenged()
        self.now += 301
        refusal = self.failure(self.register(client.credentials("REGISTER", f"sip:{REALM}")))
        client.take([value for _, value in refusal.headers])
        self.assert_accepted(self.register(client.credentials("REGISTER", f"sip:{REALM}")))

    def test_a_nonce_of_before_the_start(self) -> None:
        client = self.challenged()
        self.now += 1
        self.auth = self.make_auth()
        self.assert_challenge(self.failure(self.register(client.credentials("REGISTER", f"sip:{REALM}"))), stale=True)


class ReplayTests(AuthTestCase):
    """
    Who saw a request can neither change it nor send it later.
    """

    def test_the_same_authorization_in_another_request(self) -> None:
        """
        The digest covers method and Request-URI, not the Contact: the count does.
        """
        value = self.challenged().credentials("REGISTER", f"sip:{REALM}")
        contact = ["Contact: <sip:alice@198.51.100.7>"]
        self.assert_accepted(self.register(value, headers=contact, body=b"a"))
        for changes in (
            {"headers": contact, "body": b"b"},
            {"headers": ["Contact: <sip:mallory@203.0.113.9>"]},
            {"call_id": "other"},
            {"via": "SIP/2.0/UDP 203.0.113.9;branch=z9hG4bKx"},
            {"body": b"x"},
        ):
            self.assert_challenge(self.failure(self.register(value, **changes)), stale=True)
        self.assertEqual(self.numbers(), {"challenges": 6, "accepted": 1, "replays": 5, "nonces": 1})

    def test_a_retransmission_is_none(self) -> None:
        value = self.challenged().credentials("REGISTER", f"sip:{REALM}")
        for _ in range(7):
            self.assert_accepted(self.register(value))
            self.now += 4

    def test_the_same_request_a_minute_later_is_one(self) -> None:
        value = self.challenged().credentials("REGISTER", f"sip:{REALM}")
        self.assert_accepted(self.register(value))
        self.now += 60
        self.assert_challenge(self.failure(self.register(value)), stale=True)

    def test_two_users_have_two_nonces(self) -> None:
        other = DigestClient("a b", "a b-secret")
        other.take([value for _, value in self.refusal(self.register()).headers])
        self.assert_accepted(self.register(self.challenged().credentials("REGISTER", f"sip:{REALM}")))
        self.assert_accepted(self.register(other.credentials("REGISTER", f"sip:{REALM}")), "a b")
        self.assertEqual(self.numbers()["nonces"], 2)

    def test_the_numbers_forget_what_is_too_old(self) -> None:
        self.assert_accepted(self.register(self.challenged().credentials("REGISTER", f"sip:{REALM}")))
        self.now += 301
        self.assertNotIn("nonces", self.numbers())


class MalformedTests(AuthTestCase):
    """
    RFC 7616 §3.4: "If a parameter or its value is improper, or required parameters are missing, the proper response is
    a 4xx error code."
    """

    def test_what_is_no_digest_for_our_realm_counts_as_not_there(self) -> None:
        for value in (
            "", "x", "Digest", "Basic YTpi", 'Digest realm="', 'Digest username="alice"', 'Digest realm="other"',
            'Digest realm="example.org", realm="example.org"', "Digest \u00e9",
        ):  # fmt: skip
            self.assert_challenge(self.refusal(self.register(value)), stale=False)

    def test_what_is_for_our_realm_and_lacks_something_is_400(self) -> None:
        client = self.challenged()
        for changes, reason in (
            ({"cnonce": ""}, "Incomplete Credentials"), ({"qop": ""}, "Credentials Without Qop Auth"),
            ({"nc": "0"}, "Invalid Nonce Count"), ({"response": ""}, "Invalid Digest Response"),
            ({"username": ""}, "Incomplete Credentials"), ({"response": "\u00e9"}, "Invalid Digest Response"),
        ):  # fmt: skip
            refusal = self.refusal(self.register(client.credentials("REGISTER", f"sip:{REALM}", **changes)))
            self.assertEqual((refusal.status, refusal.reason), (400, f"Bad Request ({reason})"))

    def test_ours_is_found_among_others(self) -> None:
        value = self.challenged().credentials("REGISTER", f"sip:{REALM}")
        other = value.replace(REALM, "other.example")
        self.assert_accepted(self.register("Basic x", other, "Digest broken", value))


class ResourceTests(AuthTestCase):
    """
    RFC 7616 §3.4.6: "the server SHOULD ... assure that the resource designated by the "uri" parameter is the same as
    the resource specified in the Request-Line; if they are not, the server SHOULD return a 400 Bad Request error".
    """

    def test_the_same_written_otherwise(self) -> None:
        client = self.challenged()
        for uri in ("sip:EXAMPLE.org", "sip:alias.example", "sip:192.0.2.1:5060", "sip:example.org;transport=udp"):
            self.assert_accepted(self.register(client.credentials("REGISTER", uri)))
        value = client.credentials("REGISTER", "sip:%62ob@elsewhere.example")
        self.assert_accepted(self.register(value, uri="sip:bob@elsewhere.example"))

    def test_another_resource(self) -> None:
        client = self.challenged()
        for uri in ("sip:bob@example.org", "sip:elsewhere.example", "sip:example.org:5070", "tel:+1", "/", "sip:[::1"):
            refusal = self.refusal(self.register(client.credentials("REGISTER", uri)))
            self.assertEqual((refusal.status, refusal.reason), (400, "Bad Request (Digest URI Is Not The Request-URI)"))
        value = client.credentials("REGISTER", "sip:bob@another.example")
        self.assertEqual(self.refusal(self.register(value, uri="sip:bob@elsewhere.example")).status, 400)
        self.assertEqual(self.store.asked, [])


class IdentityTests(AuthTestCase):
    """
    RFC 3261 §10.3 step 3 and 4, §22.2: a user registers himself, and calls as himself.
    """

    def test_the_realm_is_the_domain_that_vouches(self) -> None:
        self.assertEqual(self.auth.realm_of(identity_of(self.register(to="<sip:a@alias.example>"))), REALM)
        self.assertIsNone(self.auth.realm_of(identity_of(self.register(to="<sip:a@elsewhere.example>"))))
        self.assertEqual(self.auth.realm_of(identity_of(request(from_="<sip:a@192.0.2.1>;tag=1"))), REALM)
        self.assertIsNone(self.auth.realm_of(identity_of(request(from_="<sip:a@elsewhere.example>;tag=1"))))
        self.assertIsNone(self.auth.realm_of(identity_of(request(from_="<tel:+1>;tag=1"))))

    def is_own(self, username: str, to: str = f"sip:alice@{REALM}") -> bool:
        register = self.register(to=f"<{to}>", from_="<sip:x@y>;tag=1")
        call = request("INVITE", from_=f"<{to}>;tag=1", to="<sip:x@y>")
        registering = self.auth.is_own_identity(username, REALM, identity_of(register))
        calling = self.auth.is_own_identity(username, REALM, identity_of(call))
        self.assertEqual(registering, calling)
        return registering

    def test_himself(self) -> None:
        self.assertTrue(self.is_own("alice"))
        self.assertTrue(self.is_own("alice", "sips:alice:pass@alias.example;transport=tcp"))
        self.assertTrue(self.is_own("alice", f"sip:%61lice@{REALM}"))
        self.assertTrue(self.is_own("a b", f"sip:a%20b@{REALM}"))
        self.assertTrue(self.is_own("jäsøn", f"sip:j%C3%A4s%C3%B8n@{REALM}"))

    def test_somebody_else(self) -> None:
        for username, to in (
            ("bob", f"sip:alice@{REALM}"), ("Alice", f"sip:alice@{REALM}"), ("alice", f"sip:{REALM}"),
            ("", f"sip:{REALM}"), ("alice", "sip:alice@elsewhere.example"), ("alice", "tel:alice"),
            ("a%20b", f"sip:a%20b@{REALM}"),
        ):  # fmt: skip
            self.assertFalse(self.is_own(username, to), (username, to))


class AmplificationTests(AuthTestCase):
    """
    What goes to a UDP source that has not passed a challenge is smaller than three times what came from there.
    """

    algorithms = ALL

    def response(self, *pads: str) -> Response:
        message = self.register(headers=pads)
        return answer(message, self.refusal(message), "tag1")

    def algorithms_in(self, response: Response | None) -> list[str]:
        assert response is not None
        return [value.partition("algorithm=")[2].partition(",")[0] for value in challenges_in(response)[1]]

    def test_with_the_size_of_a_usual_request_nothing_is_trimmed(self) -> None:
        response = self.response()
        size = len(request_bytes("REGISTER", uri=f"sip:{REALM}", to=f"<sip:alice@{REALM}>"))
        self.assertIs(fit_answer(response, size), response)

    def test_at_every_size(self) -> None:
        response = self.response()
        before = format_message(response)
        seen = []
        for received in range(len(before) // 3 + 2, 0, -1):
            smaller = fit_answer(response, received)
            if smaller is None:
                seen.append("dropped")
                continue
            self.assertLess(len(format_message(smaller)), 3 * received)
            seen.append(" ".join(self.algorithms_in(smaller)))
        order = ["SHA-512-256 SHA-256 MD5", "SHA-256 MD5", "MD5", "dropped"]
        self.assertEqual(list(dict.fromkeys(seen)), order)
        self.assertEqual(seen, sorted(seen, key=order.index))
        self.assertEqual(format_message(response), before)

    def test_as_much_as_fits_is_kept(self) -> None:
        response = self.response()
        size = len(format_message(response))
        self.assertIs(fit_answer(response, size // 3 + 1), response)
        self.assertEqual(self.algorithms_in(fit_answer(response, (size - 1) // 3)), ["SHA-256", "MD5"])

    def test_to_the_byte(self) -> None:
        response = self.response("Subject: 1")
        two = response.copy()
        two.headers.remove("www-authenticate")
        for line in response.headers.lines_of("www-authenticate")[1:]:
            two.headers.add_line("www-authenticate", line)
        for length in range(3):  # of which one leaves nothing over
            two.headers.replace("Call-ID", "c" * (length + 1))
            response.headers.replace("Call-ID", "c" * (length + 1))
            fitting = fit_answer(response, len(format_message(two)) // 3 + 1)
            self.assertEqual(self.algorithms_in(fitting), ["SHA-256", "MD5"])

    def test_407_is_trimmed_too(self) -> None:
        invite = request("INVITE")
        response = answer(invite, self.refusal(invite, is_proxy=True), "tag1")
        smaller = fit_answer(response, (len(format_message(response)) - 1) // 3)
        self.assertEqual(self.algorithms_in(smaller), ["SHA-256", "MD5"])

    def test_what_has_no_challenges_fits_or_goes(self) -> None:
        response = answer(request(), RequestRefused(404), "tag1")
        size = len(format_message(response))
        self.assertIs(fit_answer(response, size // 3 + 1), response)
        self.assertIsNone(fit_answer(response, (size - 1) // 3))


class ConsumedTests(AuthTestCase):
    """
    RFC 3261 §22.3: each proxy finds its own among several Proxy-Authorizations by the realm.
    """

    def test_ours_goes_and_others_stay_as_they_are(self) -> None:
        ours = 'Digest realm="example.org", username="alice"'
        others = ['Digest realm="other.example",  username="alice"', "Unknown  stuff"]
        message = request("INVITE", headers=[f"Proxy-Authorization: {value}" for value in (others[0], ours, others[1])])
        remove_credentials(message, REALM)
        self.assertEqual(message.headers.get_all("proxy-authorization"), others)

    def test_without_any_nothing_changes(self) -> None:
        message = request("INVITE", headers=['Authorization: Digest realm="example.org"'])
        before = format_message(message)
        remove_credentials(message, REALM)
        self.assertEqual(format_message(message), before)
