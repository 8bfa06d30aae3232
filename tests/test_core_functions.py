"""
What a policy can do with a request: find out who sent it, save it, look users up, relay it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from zope.interface import implementer

from sipdmq.config import AuthConfig
from sipdmq.core.auth import Authenticator
from sipdmq.core.functions import NodeFunctions, RoutedRequest, check_required
from sipdmq.errors import RequestRefused
from sipdmq.interfaces.credentials import ICredentialStore
from sipdmq.interfaces.gateways import IGateways
from sipdmq.interfaces.location import ILocationStore
from sipdmq.records import Binding, Destination
from sipdmq.sip.uri import URI, parse_uri
from tests.digest_client import DigestClient, hash_of
from tests.dispatching import DispatchTestCase
from tests.fakes import request
from tests.proxy_network import binding


@implementer(ILocationStore)
class FakeStore:
    """
    @ivar bindings: what is there, by AoR.
    """

    def __init__(self) -> None:
        self.bindings: dict[str, tuple[Binding, ...]] = {}
        self.asked: list[str] = []

    def lookup(self, aor: str) -> Deferred[tuple[Binding, ...]]:
        self.asked.append(aor)
        return succeed(self.bindings.get(aor, ()))

    def update(self, aor: str, decide: Any, origin: Any) -> Any:
        raise NotImplementedError

    def pages(self, cursor: Any) -> Any:
        raise NotImplementedError

    def watch(self, listener: Any) -> None:
        raise NotImplementedError

    def count(self) -> int:
        raise NotImplementedError


@implementer(ICredentialStore)
class FakeCredentials:
    """
    Alice, bob, and "a b"; the password of each is his name.
    """

    def ha1(self, username: str, realm: str, algorithm: str) -> Deferred[str | None]:
        if username not in ("alice", "bob", "a b"):
            return succeed(None)
        return succeed(hash_of(algorithm, f"{username}:{realm}:{username}"))


@implementer(IGateways)
class FakeGateways:
    """
    The group "pstn", and "down", where nobody is there.
    """

    def group(self, name: str, request_uri: URI | None = None) -> tuple[Destination, ...]:
        return {"pstn": (Destination(f"sip:{request_uri}@gw"),), "down": ()}[name]

    def report(self, next_hop: Any, is_alive: bool) -> None:
        raise NotImplementedError


class FunctionsTestCase(DispatchTestCase):
    is_guarded = True

    def make_functions(self) -> NodeFunctions:
        self.store = FakeStore()
        credentials = FakeCredentials() if self.is_guarded else None
        authenticator = None
        if credentials is not None:
            random_bytes = Random(1).randbytes
            authenticator = Authenticator(
                credentials, self.domains, b"k" * 32, AuthConfig(enable=True), random_bytes, lambda: 1e9
            )
        return NodeFunctions(
            self.domains, self.store, self.user, self.proxy, FakeGateways(), authenticator, credentials
        )

    def asked(self, method: str = "INVITE", **changes: Any) -> RoutedRequest:
        """
        What the policy is given.
        """
        self.policy.decide = lambda request, node: Deferred()
        via = f"SIP/2.0/UDP h;branch=z9hG4bK-{len(self.policy.requests)}"
        self.receive(request(method, **{"uri": "sip:bob@example.org", "via": via, **changes}))
        asked: RoutedRequest = self.policy.requests[-1]
        return asked

    def result(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(ensureDeferred(coroutine))

    def refusal(self, coroutine: Coroutine[Any, Any, Any]) -> RequestRefused:
        error = self.failureResultOf(ensureDeferred(coroutine), RequestRefused).value
        assert isinstance(error, RequestRefused)
        return error

    def authenticated(self, method: str = "INVITE", username: str = "alice", **changes: Any) -> RoutedRequest:
        """
        The same, with the right password, and checked.
        """
        functions = self.functions
        refusal = self.refusal(functions.authenticate(self.asked(method, **changes)))
        client = DigestClient(username, username)
        client.take([value for _, value in refusal.headers])
        name = "Authorization" if refusal.status == 401 else "Proxy-Authorization"
        line = f"{name}: {client.credentials(method, changes.get('uri', 'sip:bob@example.org'))}"
        changes["headers"] = [*changes.get("headers", ()), line]
        asked = self.asked(method, **changes)
        self.assertEqual(self.result(functions.authenticate(asked)), f"{username}@example.org")
        self.assertEqual(asked.user, f"{username}@example.org")
        return asked


class AuthenticateTests(FunctionsTestCase):
    def test_a_challenge(self) -> None:
        for method, status in (("INVITE", 407), ("REGISTER", 401), ("NEW", 407)):
            asked = self.asked(method, to="<sip:alice@example.org>")
            self.assertEqual(self.refusal(self.functions.authenticate(asked)).status, status)
            self.assertEqual(asked.user, "")

    def test_the_right_password(self) -> None:
        self.authenticated()

    def test_it_may_be_asked_again(self) -> None:
        """
        By a policy that does so and leaves the rest to the built-in one; the answer to a challenge counts once.
        """
        asked = self.authenticated()
        self.assertEqual(self.result(self.functions.authenticate(asked)), "alice@example.org")

    def test_another_s_name(self) -> None:
        with self.assertRaises(self.failureException):
            self.authenticated(username="bob")
        asked = self.policy.requests[-1]
        self.assertEqual(asked.user, "")

    def test_nobody_of_ours(self) -> None:
        refusal = self.refusal(self.functions.authenticate(self.asked(from_="<sip:c@other.example>;tag=1")))
        self.assertEqual((refusal.status, refusal.reason), (403, "Forbidden (Not Our User)"))

    def test_who_says_he_is_ours(self) -> None:
        for uri, expected in (
            ("sip:alice@example.org", True), ("sips:alice@192.0.2.1:5060", True), ("sip:alice@example.org:9999", True),
            ("sip:alice@EXAMPLE.org.:1", True), ("sip:example.org", True), ("sip:alice@192.0.2.1:9999", False),
            ("sip:alice@example.org.evil.example", False), ("tel:+1", False), ("sip:example.org@evil.example", False),
        ):  # fmt: skip
            asked = self.asked(from_=f"<{uri}>;tag=1")
            self.assertEqual(self.functions.is_from_us(asked), expected, uri)


class OpenTests(FunctionsTestCase):
    """
    Authentication is off.
    """

    is_guarded = False

    def test_everybody_is_let_through_as_nobody(self) -> None:
        asked = self.asked()
        self.assertEqual((self.result(self.functions.authenticate(asked)), asked.user), ("", ""))

    def test_who_there_is_cannot_be_told(self) -> None:
        self.assertEqual(self.refusal(self.functions.lookup(self.asked())).status, 480)


class SaveTests(FunctionsTestCase):
    def test_the_registrar_gets_it(self) -> None:
        asked = self.asked("REGISTER")
        self.functions.save(asked)
        self.assertEqual(self.taken(), [("request", "REGISTER")])
        self.assertTrue(asked.is_decided)
        self.assertRaises(RuntimeError, self.functions.save, asked)
        self.assertRaises(RuntimeError, self.functions.relay, asked)
        self.assertEqual(self.taken(), [])

    def test_what_it_requires(self) -> None:
        asked = self.asked("REGISTER", headers=["Require: outbound, path"])
        error = self.assertRaises(RequestRefused, self.functions.save, asked)
        self.assertEqual((error.status, error.headers), (420, (("Unsupported", "outbound"),)))
        self.assertFalse(asked.is_decided)
        self.assertIsNone(check_required(request(headers=["Require: PATH"])))

    def test_what_the_registrar_refuses_is_not_decided(self) -> None:
        def react(transaction: Any) -> None:
            raise RequestRefused(423)

        self.user.react = react
        asked = self.asked("REGISTER")
        self.assertRaises(RequestRefused, self.functions.save, asked)
        self.assertFalse(asked.is_decided)


class LookupTests(FunctionsTestCase):
    def test_where_a_user_is(self) -> None:
        one = binding("sip:bob@h1", q=500, path="<sip:p;lr>")
        two = binding("sip:bob@h2")
        self.store.bindings["bob@example.org"] = (one, two)
        found = self.result(self.functions.lookup(self.asked()))
        self.assertEqual(
            found, (Destination("sip:bob@h1", 500, "<sip:p;lr>", one), Destination("sip:bob@h2", 1000, "", two))
        )

    def test_another_than_was_called(self) -> None:
        self.store.bindings["carol@example.org"] = (binding("sip:carol@h"),)
        (found,) = self.result(self.functions.lookup(self.asked(), parse_uri("sip:carol@192.0.2.1")))
        self.assertEqual(found.uri, "sip:carol@h")

    def test_who_is_not_there(self) -> None:
        for user, status in (("bob", 480), ("a%20b", 480), ("a%20c", 404), ("nobody", 404)):
            uri = f"sip:{user}@example.org"
            self.assertEqual(self.refusal(self.functions.lookup(self.authenticated(uri=uri))).status, status, user)
            self.assertEqual(self.refusal(self.functions.lookup(self.asked(uri=uri))).status, 480, user)

    def test_what_is_no_user_of_ours(self) -> None:
        for uri in ("sip:bob@other.example", "sip:example.org", "tel:+1", "sip:bob@example.org:9"):
            self.assertEqual(self.refusal(self.functions.lookup(self.asked(), parse_uri(uri))).status, 404)
        self.assertEqual(self.store.asked, [])


class RelayTests(FunctionsTestCase):
    def test_to_the_request_uri(self) -> None:
        asked = self.asked()
        self.functions.relay(asked)
        ((message, destinations, record_route, caller),) = self.proxy.relays
        self.assertIs(message, asked.message)
        self.assertEqual((destinations, record_route, caller), ((Destination("sip:bob@example.org"),), True, ""))
        self.assertTrue(asked.is_decided)
        self.assertRaises(RuntimeError, self.functions.relay, asked)

    def test_to_another_uri(self) -> None:
        self.functions.relay(self.asked(), "sip:+4912@gw.example;transport=tcp")
        self.assertEqual(self.proxy.relays[0][1], (Destination("sip:+4912@gw.example;transport=tcp"),))

    def test_to_what_is_no_uri(self) -> None:
        """
        The policy's mistake is to be found in the log, not in a 400 to the client.
        """
        for to in ("gw.example", "sip:a b@gw", "sip:gw\r\nX: y", "<sip:gw>"):
            self.assertRaises(ValueError, self.functions.relay, self.asked(), to)
        self.assertEqual(self.proxy.relays, [])

    def test_to_gateways(self) -> None:
        asked = self.asked(uri="sip:9123@example.org")
        self.functions.relay(asked, self.functions.gateway(asked, "pstn"))
        self.assertEqual(self.proxy.relays[0][1], (Destination("sip:sip:9123@example.org@gw"),))

    def test_no_gateway_is_there(self) -> None:
        asked = self.asked()
        self.assertEqual(self.assertRaises(RequestRefused, self.functions.gateway, asked, "down").status, 503)
        self.assertRaises(LookupError, self.functions.gateway, asked, "nowhere")

    def test_dialogs_alone_are_recorded(self) -> None:
        for method, expected in (
            ("INVITE", True), ("SUBSCRIBE", True), ("REFER", True), ("NOTIFY", True),
            ("MESSAGE", False), ("OPTIONS", False), ("NEW", False),
        ):  # fmt: skip
            self.functions.relay(self.asked(method))
            self.assertEqual(self.proxy.relays[-1][2], expected, method)
        self.functions.relay(self.asked("INVITE"), record_route=False)
        self.assertFalse(self.proxy.relays[-1][2])

    def test_our_credentials_are_removed_and_those_of_others_stay(self) -> None:
        """
        RFC 3261 §22.3.
        """
        other = 'Proxy-Authorization: Digest username="a", realm="other.example", nonce="n", uri="u", response="r"'
        asked = self.authenticated(headers=[other])
        self.functions.relay(asked)
        message, _, _, caller = self.proxy.relays[0]
        (left,) = message.headers.get_all("proxy-authorization")
        self.assertIn("other.example", left)
        self.assertEqual(caller, "alice@example.org")
        # What the transaction has is as it was received.
        self.assertEqual(len(asked.transaction.request.headers.get_all("proxy-authorization")), 2)

    def test_what_the_proxy_refuses_is_not_decided(self) -> None:
        self.proxy.refusal = RequestRefused(482)
        asked = self.asked()
        self.assertRaises(RequestRefused, self.functions.relay, asked)
        self.assertFalse(asked.is_decided)
