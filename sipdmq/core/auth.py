"""
Who sent a request (RFC 3261 §22): challenges, and the check of what is answered to them.

Challenges and refusals leave statelessly, before anything is remembered of whoever asked. What is sent to a UDP source
that has not proved to be there is held below L{AMPLIFICATION} times what came from it, since the source may be
somebody else's address: every answer that is given without authentication goes through L{fit_answer}, refusals and
400s like challenges. Each received request is answered by at most one such message, and never again by a timer, so
the bound holds for retransmissions as well. (A challenge takes about 125 bytes for each algorithm.)

Nothing in here is logged: neither a nonce nor what is answered to it may stand in a log, and a flood would fill it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.config import AuthConfig
from sipdmq.core import refuse
from sipdmq.core.domains import Domains
from sipdmq.core.nonces import Nonces, Use
from sipdmq.errors import ParseError, RequestRefused, WrongCredentials
from sipdmq.interfaces.credentials import ICredentialStore
from sipdmq.interfaces.inspection import IInspectable
from sipdmq.sip.digest import NO_HA1, Credentials, compute_response, format_challenge, parse_credentials
from sipdmq.sip.message import Request, Response
from sipdmq.sip.uri import URI, SipURI, parse_request_uri, same_uri
from sipdmq.sip.writer import format_message

__all__ = ["AMPLIFICATION", "Authenticator", "fit_answer", "identity_of", "remove_credentials", "username_of"]

AMPLIFICATION: Final = 3
"""An answer to a UDP source that has not passed a challenge is smaller than so many times the request."""

_ROOMY: Final = 400
"""
Bytes of a request whose every refusal fits. It has what it copies or names of the request, each once, and less than 700
of its own: three challenges (500), a tag, received and rport, Allow or a reason.
"""
_CHALLENGES: Final = ("www-authenticate", "proxy-authenticate")
_ACCEPTED: Final = Use.ACCEPTED  # under a name of the module: looking it up in its Enum costs four times as much
_NEVER_CHALLENGED: Final = frozenset(("ACK", "CANCEL"))


@implementer(IInspectable)
class Authenticator:
    """
    Digest authentication for one node.
    """

    def __init__(
        self,
        store: ICredentialStore,
        domains: Domains,
        key: bytes,
        config: AuthConfig,
        random_bytes: Callable[[int], bytes],
        now: Callable[[], float],
    ) -> None:
        """
        @param key: L{derive_key<sipdmq.core.keys.derive_key>} of the node's secret for C{"nonce"}.
        @param random_bytes: C{os.urandom}, or its stand-in.
        @param now: the time, seconds since the epoch, that never goes back.
        """
        self._store = ICredentialStore(store)
        self._domains = domains
        self.algorithms = config.algorithms
        self._now = now
        self._nonces = Nonces(key, config.nonce_lifetime, config.nonces, random_bytes, now())
        self._challenged = 0
        self._accepted = 0
        self._refused = 0
        self._replayed = 0

    def realm_of(self, speaks_for: URI) -> str | None:
        """
        The domain that vouches for whoever sends a request.

        @param speaks_for: whom it speaks for: as a rule L{identity_of} it.
        @return: with aliases resolved; C{None} if it is not ours.
        """
        return self._domains.domain_of(speaks_for)

    def is_own_identity(self, username: str, realm: str, speaks_for: URI) -> bool:
        """
        Whether a user speaks for himself. Who does not is to be refused with 403.

        @param username: what L{check} told.
        @param realm: the one that was given to L{check}.
        @param speaks_for: as for L{realm_of}.
        """
        uri = speaks_for
        if not isinstance(uri, SipURI) or not uri.user or self._domains.domain_of(uri) != realm:
            return False
        return username == username_of(uri)

    def check(self, request: Request, realm: str, is_proxy: bool) -> str | Deferred[str]:
        """
        Who sent this request?

        @param realm: a domain of ours, as L{realm_of} gives it.
        @param is_proxy: ask with 407 and Proxy-Authenticate, as for all that is passed on; otherwise with 401 and
            WWW-Authenticate, as for REGISTER and whatever ends here (RFC 3261 §22.1).
        @return: the user's name; a Deferred of it if the users are elsewhere.
        @raise RequestRefused: the same challenge for an unknown user, a wrong password (L{WrongCredentials} both) and a
            replay, by the Deferred if there is one; and at once when there is nothing to check: 401 or 407 with a
            challenge for each algorithm; 400 for credentials of our realm that lack something or name another resource
            (RFC 7616 §3.4, §3.4.6). What cannot be read as digest credentials of our realm counts as not there.
            403 for ACK and CANCEL, which cannot be repeated and so are never challenged.
        """
        if request.method in _NEVER_CHALLENGED:
            raise RequestRefused(403)
        credentials = self._credentials(request, realm, "proxy-authorization" if is_proxy else "authorization")
        made_at = None if credentials is None else self._nonces.made_at(credentials.nonce)
        if credentials is None or made_at is None:
            raise self._challenge(realm, is_proxy)
        found: Deferred[str | None] = self._store.ha1(credentials.username, realm, credentials.algorithm)
        if found.called and not isinstance(found.result, Failure):  # from memory: nobody has to wait
            return self._judge(cast("str | None", found.result), request, credentials, made_at, is_proxy)
        return found.addCallback(self._judge, request, credentials, made_at, is_proxy)

    def _credentials(self, request: Request, realm: str, key: str) -> Credentials | None:
        """
        The first credentials that we can check.

        @raise RequestRefused: 400
        """
        headers = request.headers
        value = headers.first.get(key)
        if value is None:
            return None
        for each in headers.get_all(key) if headers.is_repeated(key) else (value,):
            try:
                credentials = parse_credentials(each)
            except ParseError:
                continue
            if credentials.realm != realm or credentials.algorithm not in self.algorithms:
                continue
            if credentials.fault:
                self._refused += 1
                raise refuse.bad_request(credentials.fault)
            if credentials.uri != request.uri_text and not self._is_same_resource(credentials.uri, request):
                self._refused += 1
                raise refuse.bad_request("Digest URI Is Not The Request-URI")
            return credentials
        return None

    def _is_same_resource(self, text: str, request: Request) -> bool:
        """
        Whether a digest's uri means what the Request-URI means (RFC 3261 §22.4): it is equivalent, or the same user of
        the same domain of ours. Phones leave out C{;transport=}, or write the address that they send to.
        """
        try:
            uri = parse_request_uri(text)
            target = request.uri
        except ParseError:
            return False
        if same_uri(uri, target):
            return True
        if not isinstance(uri, SipURI) or not isinstance(target, SipURI) or uri.canonical_user != target.canonical_user:
            return False
        domain = self._domains.domain_of(target)
        return domain is not None and domain == self._domains.domain_of(uri)

    def _challenge(self, realm: str, is_proxy: bool, stale: bool = False) -> RequestRefused:
        self._challenged += 1
        nonce = self._nonces.make(self._now())
        name = "Proxy-Authenticate" if is_proxy else "WWW-Authenticate"
        return RequestRefused(
            407 if is_proxy else 401,
            [(name, format_challenge(realm, nonce, algorithm, stale)) for algorithm in self.algorithms],
        )

    def _judge(
        self, ha1: str | None, request: Request, credentials: Credentials, made_at: int, is_proxy: bool
    ) -> str:
        """
        @param ha1: C{None} if there is no such user; then as much is computed.
        @raise RequestRefused: a challenge.
        """
        algorithm = credentials.algorithm
        expected = compute_response(algorithm, ha1 or NO_HA1[algorithm], credentials, request.method)
        is_right = hmac.compare_digest(expected, credentials.response)
        if not is_right or not ha1:
            self._refused += 1
            challenge = self._challenge(credentials.realm, is_proxy)
            raise WrongCredentials(challenge.status, challenge.headers)
        # Over the whole request: whoever saw it can repeat it, but not change it.
        fingerprint = hash(("\n".join((request.uri_text, *request.headers.lines())), request.body))
        use = self._nonces.use(credentials.nonce, made_at, credentials.number, fingerprint, self._now())
        if use is _ACCEPTED:
            self._accepted += 1
            return credentials.username
        if use is Use.REPLAYED:
            self._replayed += 1
        raise self._challenge(credentials.realm, is_proxy, True)

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        self._nonces.forget_expired(self._now())
        return {
            "auth.challenges": self._challenged,
            "auth.accepted": self._accepted,
            "auth.refused": self._refused,
            "auth.replays": self._replayed,
            "auth.nonces": len(self._nonces),
        }


def identity_of(request: Request) -> URI:
    """
    Whom a request speaks for: a user who registers his own address-of-record stands in To, one who asks for anything
    else in From.

    @raise ParseError: the field cannot be read.
    """
    return request.to.uri if request.method == "REGISTER" else request.from_.uri


def username_of(uri: SipURI) -> str:
    """
    How the user of a URI is called in credentials and in L{ICredentialStore}: without escapes, C{"a b"} for
    C{sip:a%20b@example.org}. So only one name has a given address-of-record.
    """
    user = uri.user
    if "%" not in user:
        return user
    return unquote_to_bytes(user.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def fit_answer(response: Response, received: int) -> Response | None:
    """
    What may be sent to a UDP source that has not passed a challenge. Pure.

    @param response: the answer; it stays as it is.
    @param received: the size of the request as it came from the network, bytes.
    @return: C{response} if it is smaller than L{AMPLIFICATION} times the request. Otherwise a copy without as many of
        its challenges as needed: the strongest, on top, go first, the last one stays, which is MD5 where that is
        configured and so the one that every phone can answer. C{None} when nothing helps: then nothing is sent.
    """
    if received >= _ROOMY:
        return response
    excess = len(format_message(response)) - AMPLIFICATION * received + 1
    if excess <= 0:
        return response
    for key in _CHALLENGES:
        lines = response.headers.lines_of(key)
        dropped = 0
        while dropped < len(lines) - 1 and excess > 0:
            excess -= len(lines[dropped].encode("utf-8", "surrogateescape")) + len("\r\n")
            dropped += 1
        if excess <= 0:
            smaller = response.copy()
            smaller.headers.remove(key)
            for line in lines[dropped:]:
                smaller.headers.add_line(key, line)
            return smaller
    return None


def remove_credentials(request: Request, realm: str) -> None:
    """
    Take the Proxy-Authorization that was meant for us out of a request that is passed on (RFC 3261 §22.3): nobody
    behind us needs it, and if the request comes back to us on another way, it would be a replay. That of others stays.

    @param request: our own copy.
    """
    key = "proxy-authorization"
    headers = request.headers
    if key not in headers:
        return
    kept = []
    for line, value in zip(headers.lines_of(key), headers.get_all(key)):
        try:
            is_ours = parse_credentials(value).realm == realm
        except ParseError:
            is_ours = False
        if not is_ours:
            kept.append(line)
    headers.remove(key)
    for line in kept:
        headers.add_line(key, line)
