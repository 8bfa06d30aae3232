"""
Who sent a request: what is asked, what is accepted, and what nobody gets through with.
"""

from __future__ import annotations

import hmac
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from sipdmq.config import AuthConfig
from sipdmq.core.auth import Authenticator
from sipdmq.core.domains import Domains
from sipdmq.core.keys import derive_key
from sipdmq.errors import RequestRefused, WrongCredentials
from sipdmq.interfaces.credentials import ICredentialStore
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.sip.message import Request
from tests.digest_client import DigestClient, hash_of, read_challenge
from tests.fakes import request, watch_comparisons
from tests.location_store_tests import EPOCH

ALL = ("SHA-512-256", "SHA-256", "MD5")
REALM = "example.org"


@implementer(ICredentialStore)
class FakeStore:
    """
    Alice and Bob; remembers what it was asked.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.waiting: Deferred[str | None] | None = None

    def ha1(self, username: str, realm: str, algorithm: str) -> Deferred[str | None]:
        self.asked.append((username, realm, algorithm))
        if self.waiting is not None:
            return self.waiting
        if username not in ("alice", "a b") or realm != REALM:
            return succeed(None)
        return succeed(hash_of(algorithm, f"{username}:{realm}:{username}-secret"))


class AuthTestCase(SynchronousTestCase):
    algorithms: tuple[str, ...] = ("MD5",)

    def setUp(self) -> None:
        self.now = float(EPOCH)
        self.store = FakeStore()
        self.auth = self.make_auth()
        self.client = DigestClient("alice", "alice-secret", ALL)

    def make_auth(self, seed: int = 1) -> Authenticator:
        return Authenticator(
            self.store,
            Domains((REALM,), {"alias.example": REALM}, [("192.0.2.1", 5060)]),
            derive_key(b"secret", "nonce"),
            AuthConfig(enable=True, algorithms=self.algorithms),
            Random(seed).randbytes,
            lambda: self.now,
        )

    def register(self, *authorization: str, **changes: Any) -> Request:
        values = {"uri": f"sip:{REALM}", "to": f"<sip:alice@{REALM}>", "headers": [], **changes}
        values["headers"] = [*values["headers"], *(f"Authorization: {value}" for value in authorization)]
        return request("REGISTER", **values)

    def refusal(self, message: Request, is_proxy: bool = False) -> RequestRefused:
        """
        How a request is refused at once, without a Deferred.
        """
        error = self.assertRaises(RequestRefused, self.auth.check, message, REALM, is_proxy)
        assert isinstance(error, RequestRefused)
        return error

    def failure(self, message: Request, is_proxy: bool = False) -> RequestRefused:
        """
        How a request is refused after the store was asked.
        """
        return self.failureResultOf(maybeDeferred(self.auth.check, message, REALM, is_proxy), RequestRefused).value

    def challenged(self) -> DigestClient:
        """
        The client, with a fresh nonce.
        """
        self.client.take([value for _, value in self.refusal(self.register()).headers])
        return self.client

    def assert_accepted(self, message: Request, username: str = "alice", is_proxy: bool = False) -> None:
        self.assertEqual(self.successResultOf(maybeDeferred(self.auth.check, message, REALM, is_proxy)), username)

    def assert_challenge(self, refusal: RequestRefused, stale: bool, status: int = 401) -> None:
        self.assertEqual((refusal.status, len(refusal.headers)), (status, len(self.algorithms)))
        for _, value in refusal.headers:
            self.assertEqual(read_challenge(value).get("stale"), "true" if stale else None)

    def numbers(self) -> dict[str, int | float]:
        return {name.removeprefix("auth."): number for name, number in self.auth.snapshot().items() if number}


class ChallengeTests(AuthTestCase):
    """
    RFC 3261 §22.1: "When a UAS receives a request from a UAC, the UAS MAY authenticate the originator before the
    request is processed. If no credentials (in the Authorization header field) are provided in the request, the UAS
    can challenge the originator to provide credentials by rejecting the request with a 401 (Unauthorized)".
    """

    def test_401_for_what_ends_here(self) -> None:
        refusal = self.refusal(self.register())
        self.assertEqual([name for name, _ in refusal.headers], ["WWW-Authenticate"])
        self.assert_challenge(refusal, stale=False)
        challenge = read_challenge(refusal.headers[0][1])
        self.assertEqual((challenge["realm"], challenge["algorithm"], challenge["qop"]), (REALM, "MD5", "auth"))

    def test_407_for_what_is_passed_on(self) -> None:
        refusal = self.refusal(request("INVITE"), is_proxy=True)
        self.assertEqual([name for name, _ in refusal.headers], ["Proxy-Authenticate"])
        self.assert_challenge(refusal, stale=False, status=407)

    def test_ack_and_cancel_are_never_challenged(self) -> None:
        """
        RFC 3261 §22.1: "a server MUST NOT challenge" them; they are refused instead.
        """
        for method in ("ACK", "CANCEL"):
            refusal = self.refusal(request(method), is_proxy=True)
            self.assertEqual((refusal.status, refusal.headers), (403, ()))

    def test_nothing_is_remembered_of_who_was_challenged(self) -> None:
        for _ in range(100):
            self.refusal(self.register())
        self.assertEqual(self.numbers(), {"challenges": 100})
        self.assertEqual(self.store.asked, [])

    def test_each_nonce_is_another_one(self) -> None:
        challenges = [read_challenge(self.refusal(self.register()).headers[0][1]) for _ in range(100)]
        self.assertEqual(len({challenge["nonce"] for challenge in challenges}), 100)


class SeveralAlgorithmsTests(AuthTestCase):
    """
    RFC 8760 §2.4: "When the UAS/proxy sends multiple challenges ... each with a different algorithm ... in order of
    preference". A client answers the topmost that it can.
    """

    algorithms = ALL

    def test_one_challenge_each_in_order(self) -> None:
        values = [read_challenge(value) for _, value in self.refusal(self.register()).headers]
        self.assertEqual(tuple(value["algorithm"] for value in values), ALL)
        self.assertEqual(len({value["nonce"] for value in values}), 1)

    def test_each_of_them_can_be_answered(self) -> None:
        for algorithm in ALL:
            self.client = DigestClient("alice", "alice-secret", [algorithm])
            value = self.challenged().credentials("REGISTER", f"sip:{REALM}")
            self.assert_accepted(self.register(value))
            self.assertEqual(self.store.asked.pop(), ("alice", REALM, algorithm))

    def test_md5_is_meant_when_none_is_named(self) -> None:
        self.client = DigestClient("alice", "alice-secret", ["MD5"])
        value = self.challenged().credentials("REGISTER", f"sip:{REALM}")
        self.assert_accepted(self.register(value.replace("algorithm=MD5, ", "")))


class NotOfferedTests(AuthTestCase):
    algorithms = ("SHA-256",)

    def test_an_algorithm_that_was_not_offered_is_none(self) -> None:
        client = self.challenged()
        client.challenge["algorithm"] = "MD5"
        self.assert_challenge(self.refusal(self.register(client.credentials("REGISTER", f"sip:{REALM}"))), stale=False)
        self.assertEqual(self.store.asked, [])


class AcceptedTests(AuthTestCase):
    def test_interfaces(self) -> None:
        verifyObject(IInspectable, self.auth)
        verifyObject(ICredentialStore, self.store)

    def test_the_right_password(self) -> None:
        self.assert_accepted(self.register(self.challenged().credentials("REGISTER", f"sip:{REALM}")))
        self.assertEqual(self.numbers(), {"challenges": 1, "accepted": 1, "nonces": 1})

    def test_as_a_proxy(self) -> None:
        value = self.challenged().credentials("INVITE", "sip:bob@example.org")
        invite = request("INVITE", uri="sip:bob@example.org", headers=[f"Proxy-Authorization: {value}"])
        self.assert_accepted(invite, is_proxy=True)
        self.assert_challenge(self.refusal(invite), stale=False)  # what was said to a proxy was not said to a UAS

    def test_a_nonce_serves_again_with_its_next_count(self) -> None:
        client = self.challenged()
        for number in range(1, 200):
            self.now += 1
            self.assert_accepted(self.register(client.credentials("REGISTER", f"sip:{REALM}"), call_id=f"c{number}"))

    def test_a_name_with_a_space_in_quotes(self) -> None:
        self.client = DigestClient("a b", "a b-secret")
        self.assert_accepted(self.register(self.challenged().credentials("REGISTER", f"sip:{REALM}")), "a b")

    def test_a_store_that_takes_its_time(self) -> None:
        message = self.register(self.challenged().credentials("REGISTER", f"sip:{REALM}"))
        self.store.waiting = Deferred()
        found = maybeDeferred(self.auth.check, message, REALM, False)
        self.assertNoResult(found)
        self.store.waiting.callback(hash_of("MD5", f"alice:{REALM}:alice-secret"))
        self.assertEqual(self.successResultOf(found), "alice")

    def test_another_node_with_the_same_secret_takes_the_nonce(self) -> None:
        client = self.challenged()
        self.assert_accepted(self.register(client.credentials("REGISTER", f"sip:{REALM}")))
        self.auth = self.make_auth(seed=2)
        client.count = 41
        self.assert_accepted(self.register(client.credentials("REGISTER", f"sip:{REALM}")))


class WrongTests(AuthTestCase):
    """
    Who does not know a password gets a challenge, and learns nothing from it.
    """

    def test_unknown_users_and_wrong_passwords_get_the_same(self) -> None:
        answers = []
        for username, password in (("alice", "wrong"), ("nobody", "alice-secret"), ("", "x")):
            self.client = DigestClient(username or "nobody", password)
            answers.append(self.failure(self.register(self.challenged().credentials("REGISTER", f"sip:{REALM}"))))
        for refusal in answers:
            self.assert_challenge(refusal, stale=False)
            self.assertEqual(refusal.reason, answers[0].reason)
        self.assertEqual(self.numbers()["refused"], 3)

    def test_no_hash_in_the_store_fits_the_one_that_stands_for_nobody(self) -> None:
        value = self.challenged().credentials("REGISTER", f"sip:{REALM}", username="nobody", response="")
        challenge = self.client.challenge
        ha2 = hash_of("MD5", f"REGISTER:sip:{REALM}")
        response = hash_of("MD5", f"{'0' * 32}:{challenge['nonce']}:00000001:{self.client.cnonce}:auth:{ha2}")
        self.assert_challenge(self.failure(self.register(f'{value}, response="{response}"')), stale=False)

    def test_how_much_of_an_answer_is_right_cannot_be_measured(self) -> None:
        """
        It is compared in constant time, and as much is computed for a user that does not exist.
        """
        compared = watch_comparisons(self, hmac)
        for username, password in (("alice", "alice-secret"), ("alice", "wrong"), ("nobody", "x")):
            self.client = DigestClient(username, password)
            value = self.challenged().credentials("REGISTER", f"sip:{REALM}")
            compared.clear()
            maybeDeferred(self.auth.check, self.register(value), REALM, False).addErrback(lambda failure: None)
            self.assertIn(read_challenge(value)["response"], compared, username)

    def test_a_wrong_answer_can_be_told_from_none(self) -> None:
        self.client.password = "wrong"
        answered = self.register(self.challenged().credentials("REGISTER", f"sip:{REALM}"))
        self.assertIsInstance(self.failure(answered), WrongCredentials)
        self.assertNotIsInstance(self.refusal(self.register()), WrongCredentials)

    def test_wrong_ones_leave_nothing_behind(self) -> None:
        self.client.password = "wrong"
        client = self.challenged()
        for _ in range(100):
            self.failure(self.register(client.credentials("REGISTER", f"sip:{REALM}")))
        self.assertNotIn("nonces", self.numbers())

    def test_credentials_for_another_request(self) -> None:
        value = self.challenged().credentials("INVITE", f"sip:{REALM}")
        self.assert_challenge(self.failure(self.register(value)), stale=False)

    def test_a_nonce_that_we_did_not_make(self) -> None:
        client = self.challenged()
        for nonce in ("0" * 40, "x", client.challenge["nonce"][:-1] + "x"):
            value = client.credentials("REGISTER", f"sip:{REALM}", nonce=nonce)
            self.assert_challenge(self.refusal(self.register(value)), stale=False)
        self.assertEqual(self.store.asked, [])

    def test_a_failure_of_the_store_is_told_as_it_is(self) -> None:
        message = self.register(self.challenged().credentials("REGISTER", f"sip:{REALM}"))
        self.store.waiting = Deferred()
        found = maybeDeferred(self.auth.check, message, REALM, False)
        self.store.waiting.errback(OSError("no database"))
        self.failureResultOf(found, OSError)
