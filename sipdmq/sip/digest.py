"""
Digest authentication, as far as it is text and hashes (RFC 3261 §22, RFC 7616, RFC 8760): challenges, credentials, and
the response that proves the password. Nonces, users and decisions are C{sipdmq.core.auth}'s.

Only C{qop=auth} is offered and understood: without it there is no nonce count, and so nothing against a replay;
C{auth-int} would sign bodies that proxies may change.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from sipdmq.errors import ParseError
from sipdmq.sip.grammar import TOKEN_CHARS, WHITE
from sipdmq.sip.params import quote, unquote

__all__ = [
    "ALGORITHMS",
    "NO_HA1",
    "Credentials",
    "algorithm_name",
    "compute_ha1",
    "compute_response",
    "format_challenge",
    "is_ha1",
    "parse_credentials",
]

Hash = Callable[[bytes], str]
"""From bytes to lower-case hexadecimal digits."""


def _sha512_256(data: bytes) -> str:
    return hashlib.new("sha512_256", data).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()  # the protocol's choice, not ours: allowed under FIPS


ALGORITHMS: Final[Mapping[str, Hash]] = {"SHA-512-256": _sha512_256, "SHA-256": _sha256, "MD5": _md5}
"""By the names of the IANA registry, in the order in which they are offered: strongest first (RFC 8760 §2.4)."""

NO_HA1: Final[Mapping[str, str]] = {name: "0" * len(compute(b"")) for name, compute in ALGORITHMS.items()}
"""What is computed with for a user that does not exist, so that he costs the same time. No password has this hash."""

_BY_LOWER_NAME: Final = {name.lower(): name for name in ALGORITHMS}
_LHEX: Final = re.compile(r"[0-9a-f]+")
_NC: Final = re.compile(r"[0-9A-Fa-f]{8}")

# credentials = "Digest" LWS dig-resp *(COMMA dig-resp);  dig-resp = token EQUAL ( token / quoted-string )
# What does not fit is caught whole by the last group. A comma at the end is tolerated.
_PARAM: Final = re.compile(
    rf'([{TOKEN_CHARS}]+)[ \t]*=[ \t]*(?:"([^"\\]*(?:\\.[^"\\]*)*)"|([{TOKEN_CHARS}]+))[ \t]*(?:,[ \t]*|\Z)|(.+)',
    re.DOTALL,
)

# What nearly all phones send, of those that are above: every parameter that we need once, in any order, in lower case,
# without escapes. (?(1)(?!)|...) is: not if group 1 was there already.
_USUAL: Final = re.compile(
    "Digest (?:(?:"
    + "|".join(
        f"(?({group})(?!)|{param})"
        for group, param in enumerate(
            (
                r'username="([^"\\]+)"',
                r'realm="([^"\\]+)"',
                r'nonce="([^"\\]+)"',
                r'uri="([^"\\]+)"',
                r'response="([0-9a-f]+)"',
                rf"algorithm=({'|'.join(ALGORITHMS)})",
                r'cnonce="([^"\\]+)"',
                r"qop=(auth)",
                r"nc=([0-9a-f]{8})",
            ),
            1,
        )
    )
    + r")(?:, ?|\Z))+"
)
_SCHEME_LENGTH: Final = len("Digest ")
_KEPT_LENGTH: Final = 100  # characters of method and uri whose hash is kept


class Credentials(NamedTuple):
    """
    One value of Authorization or Proxy-Authorization.

    @ivar username: unescaped; C{realm} likewise.
    @ivar uri: as it was written, for the hash and to be compared with the Request-URI.
    @ivar response: in lower case, nothing but ASCII where there is no C{fault}.
    @ivar algorithm: of L{ALGORITHMS}, or empty for one that we do not have.
    @ivar cnonce: as it stands between the quotes, escapes and all: that is what is hashed (RFC 7616 §3.4, C{unq}).
    @ivar nc: eight hexadecimal digits, as they were written.
    @ivar number: C{nc} as a number; 0 where it is none.
    @ivar fault: why these cannot be checked, for a reason phrase; empty when nothing is wrong with them.
    """

    username: str
    realm: str
    nonce: str
    uri: str
    response: str
    algorithm: str
    cnonce: str
    qop: str
    nc: str
    number: int
    fault: str


def algorithm_name(text: str) -> str:
    """
    @param text: in any letter case.
    @return: the name as L{ALGORITHMS} has it, or empty.
    """
    return _BY_LOWER_NAME.get(text.lower(), "")


def parse_credentials(value: str) -> Credentials:
    """
    Read the value of one Authorization or Proxy-Authorization line. Several never share one (RFC 3261 §7.3.1).

    @return: with C{fault} set if the realm can be read but the rest cannot be checked: only whose realm it is can say
        whether that matters.
    @raise ParseError: it is of another scheme, breaks the grammar, has a parameter twice, or no realm.
    @see: RFC 3261 §25.1 C{credentials}; RFC 7616 §3.4
    """
    usual = _USUAL.fullmatch(value)
    if usual is not None:
        username, realm, nonce, uri, response, algorithm, cnonce, qop, nc = usual.groups()
        if username and realm and nonce and uri and response and cnonce and qop and nc:
            number = int(nc, 16)
            if number:
                return Credentials(
                    username, realm, nonce, uri, response, algorithm or "MD5", cnonce, qop, nc, number, ""
                )
    return _read_credentials(value)


def _read_credentials(value: str) -> Credentials:
    """
    As L{parse_credentials}, by the whole grammar.
    """
    if value[: _SCHEME_LENGTH - 1].lower() != "digest" or value[_SCHEME_LENGTH - 1 : _SCHEME_LENGTH] not in WHITE:
        raise ParseError("Credentials Of Another Scheme")
    found = _PARAM.findall(value[_SCHEME_LENGTH:].lstrip(WHITE))
    if not found or found[-1][3]:
        raise ParseError("Invalid Credentials")
    params = {name.lower(): quoted or token for name, quoted, token, _ in found}
    if len(params) != len(found):
        raise ParseError("Credentials Parameter Given Twice")
    get = params.get
    realm = get("realm")
    if realm is None:
        raise ParseError("Credentials Without Realm")
    username = get("username", "")
    if "\\" in value:
        realm = unquote(f'"{realm}"')
        username = unquote(f'"{username}"')
    response = get("response", "").lower()
    algorithm = get("algorithm")
    cnonce = get("cnonce", "")
    qop = get("qop", "")
    nc = get("nc", "")
    nonce = get("nonce", "")
    uri = get("uri", "")
    fault = ""
    number = 0
    if not (username and nonce and uri and cnonce):
        fault = "Incomplete Credentials"
    elif qop.lower() != "auth":
        fault = "Credentials Without Qop Auth"
    elif not _NC.fullmatch(nc) or (number := int(nc, 16)) == 0:
        fault = "Invalid Nonce Count"
    elif not response or not response.isascii():
        fault = "Invalid Digest Response"
    return Credentials(
        username,
        realm,
        nonce,
        uri,
        response,
        "MD5" if algorithm is None else _BY_LOWER_NAME.get(algorithm.lower(), ""),
        cnonce,
        qop,
        nc,
        number,
        fault,
    )


def format_challenge(realm: str, nonce: str, algorithm: str, stale: bool = False) -> str:
    """
    A value of WWW-Authenticate or Proxy-Authenticate.

    @param nonce: without characters that a quoted string would escape.
    @param algorithm: of L{ALGORITHMS}.
    @param stale: the response was right and only the nonce was not: the client can answer again without asking its
        user (RFC 7616 §3.3).
    """
    tail = f'", algorithm={algorithm}, qop="auth"'
    return f'{_challenge_head(realm)}{nonce}{tail}, stale=true' if stale else f"{_challenge_head(realm)}{nonce}{tail}"


@lru_cache(maxsize=64)
def _challenge_head(realm: str) -> str:
    return f'Digest realm={quote(realm)}, nonce="'


def compute_ha1(algorithm: str, username: str, realm: str, password: str) -> str:
    """
    C{H(A1)}: what is stored instead of a password, and as good as one for this realm.

    @see: RFC 7616 §3.4.2
    """
    return ALGORITHMS[algorithm](_encoded(f"{username}:{realm}:{password}"))


def is_ha1(algorithm: str, text: str) -> bool:
    """
    Whether this can be a C{H(A1)} of that algorithm, in lower case.
    """
    return len(text) == len(NO_HA1[algorithm]) and bool(_LHEX.fullmatch(text))


def compute_response(algorithm: str, ha1: str, credentials: Credentials, method: str) -> str:
    """
    What C{response} must be, in lower case.

    @param method: of the request.
    @see: RFC 7616 §3.4.1, §3.4.3
    """
    uri = credentials.uri
    a2 = f"{method}:{uri}"
    ha2 = _ha2_kept(algorithm, a2) if len(a2) <= _KEPT_LENGTH else ALGORITHMS[algorithm](_encoded(a2))
    _, _, nonce, _, _, _, cnonce, qop, nc, _, _ = credentials
    return ALGORITHMS[algorithm](_encoded(f"{ha1}:{nonce}:{nc}:{cnonce}:{qop}:{ha2}"))


@lru_cache(maxsize=256)
def _ha2_kept(algorithm: str, a2: str) -> str:
    """
    All phones of a domain have the same one for REGISTER.
    """
    return ALGORITHMS[algorithm](_encoded(a2))


def _encoded(text: str) -> bytes:
    """
    The bytes as they came (RFC 3261 §7: UTF-8).
    """
    return text.encode("utf-8", "surrogateescape")
