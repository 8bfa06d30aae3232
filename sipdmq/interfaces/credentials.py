"""
Between authentication and whoever knows the users.
"""

from __future__ import annotations

from zope.interface import Interface

__all__ = ["ICredentialStore"]


class ICredentialStore(Interface):
    """
    The users and what their passwords hash to (RFC 7616 §3.4.2).
    """

    def ha1(username, realm, algorithm):
        """
        @param username: C{str}, as the client wrote it: anything.
        @param realm: C{str}, a domain of ours.
        @param algorithm: C{str}, C{"MD5"}, C{"SHA-256"} or C{"SHA-512-256"}.
        @return: a Deferred of C{str}, C{H(A1)} in lower-case hexadecimal digits, or of L{None} when there is no such
            user or no hash of this kind for him; to be told in the same time. Already fired where the users are in
            memory.
        """
