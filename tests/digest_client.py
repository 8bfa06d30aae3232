"""
The client's side of digest authentication (RFC 7616), written apart from L{sipdmq.sip.digest}: for tests, and for
phones that C{tests/interop} plays itself. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from sipdmq.sip.message import Response

__all__ = ["DigestClient", "challenges_in", "hash_of", "read_challenge"]

NAMES = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}


def hash_of(algorithm: str, text: str) -> str:
    """
    Lower-case hexadecimal digits.
    """
    return hashlib.new(NAMES[algorithm], text.encode("utf-8", "surrogateescape")).hexdigest()


def read_challenge(value: str) -> dict[str, str]:
    """
    The parameters of a challenge, without quotes.
    """
    scheme, _, rest = value.partition(" ")
    assert scheme == "Digest", value
    found = re.findall(r'([a-z]+)=(?:"([^"]*)"|([^",\s]+))', rest)
    return {name: quoted or token for name, quoted, token in found}


def challenges_in(response: Response) -> tuple[str, list[str]]:
    """
    @return: the name of the header field that answers a 401 or 407, and the challenges, top first.
    """
    if response.status == 407:
        return "Proxy-Authorization", response.headers.get_all("proxy-authenticate")
    assert response.status == 401, response
    return "Authorization", response.headers.get_all("www-authenticate")


class DigestClient:
    """
    A phone that knows its password.

    @ivar count: how often the present nonce was used; to be set by who wants it to jump.
    @ivar challenge: the one that is answered.
    """

    def __init__(
        self, username: str, password: str, algorithms: Iterable[str] = ("MD5",), cnonce: str = "0a4f113b"
    ) -> None:
        """
        @param algorithms: those that this phone can.
        """
        self.username = username
        self.password = password
        self.algorithms = tuple(algorithms)
        self.cnonce = cnonce
        self.count = 0
        self.challenge: dict[str, str] = {}

    def take(self, challenges: Iterable[str]) -> None:
        """
        From now on answer the topmost challenge that this phone can (RFC 8760 §2.4).
        """
        for value in challenges:
            challenge = read_challenge(value)
            if challenge.get("algorithm", "MD5") in self.algorithms:
                self.challenge = challenge
                self.count = 0
                return
        raise AssertionError("no challenge that can be answered")

    def credentials(self, method: str, uri: str, **changes: str) -> str:
        """
        The value of Authorization or Proxy-Authorization for the next request.

        @param changes: parameters that shall not be what they should; an empty one is left out. The response is
            computed over them.
        """
        self.count += 1
        algorithm = self.challenge.get("algorithm", "MD5")
        given = {
            "username": self.username,
            "realm": self.challenge["realm"],
            "nonce": self.challenge["nonce"],
            "uri": uri,
            "algorithm": algorithm,
            "qop": "auth",
            "nc": f"{self.count:08x}",
            "cnonce": self.cnonce,
            **changes,
        }
        ha1 = hash_of(algorithm, f"{given['username']}:{given['realm']}:{self.password}")
        ha2 = hash_of(algorithm, f"{method}:{given['uri']}")
        middle = f"{given['nonce']}:{given['nc']}:{given['cnonce']}:{given['qop']}"
        given.setdefault("response", hash_of(algorithm, f"{ha1}:{middle}:{ha2}"))
        plain = ("algorithm", "qop", "nc")
        return "Digest " + ", ".join(
            f"{name}={value}" if name in plain else f'{name}="{value}"' for name, value in given.items() if value
        )
