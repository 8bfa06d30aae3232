"""
Who a certificate belongs to (RFC 5922). Imported only where TLS is.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from service_identity.exceptions import CertificateError, VerificationError
from service_identity.hazmat import (
    DNS_ID,
    URI_ID,
    CertificatePattern,
    DNSPattern,
    IPAddress_ID,
    IPAddressPattern,
    URIPattern,
    verify_service_identity,
)

from sipdmq.errors import ParseError, UnreachableError
from sipdmq.sip.uri import parse_sip_uri
from sipdmq.transport.bind import is_numeric

__all__ = ["check_identity", "sip_identities"]


def sip_identities(certificate: x509.Certificate) -> list[CertificatePattern]:
    """
    Whom a certificate speaks for, as patterns of service_identity.

    Its own C{extract_patterns} reads the names, too, but not as SIP has it: it fails on a URI with a port or with
    parameters, takes C{sip:alice@example.org} for a domain, and one name that it cannot read spoils the others.

    @return: of the subjectAltName, the C{sip:} URIs without user, and only where there is none of these, the DNS
        names; the IP addresses in any case, which RFC 5922 does not speak of. Without subjectAltName the CN, if it is a
        domain name. Wildcards are left out: "Implementations MUST NOT match any form of wildcard" (§7.2).
    @raise ValueError: the certificate's extensions cannot be read.
    @see: RFC 5922 §7.1
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = None
    if names is None:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return list(_dns_patterns(str(common[-1].value))) if common else []
    addresses = [
        IPAddressPattern(address)
        for address in names.get_values_for_type(x509.IPAddress)
        if isinstance(address, (IPv4Address, IPv6Address))  # and no network
    ]
    uris = [
        URIPattern(b"sip", domain)
        for uri in names.get_values_for_type(x509.UniformResourceIdentifier)
        for domain in _domain_of(uri)
    ]
    if uris:
        return [*uris, *addresses]
    dns = [pattern for name in names.get_values_for_type(x509.DNSName) for pattern in _dns_patterns(name)]
    return [*dns, *addresses]


def _domain_of(uri: str) -> Iterator[DNSPattern]:
    """
    The domain of a C{sip:} URI without a user; §7.2: "an implementation MUST NOT use any scheme or parameters in the
    comparison".
    """
    try:
        parsed = parse_sip_uri(uri)
    except ParseError:
        return
    # A user may be empty, and still: "no userinfo component in the URI (there is no '@')".
    if parsed.scheme == "sip" and "@" not in uri and not is_numeric(parsed.host):
        yield from _dns_patterns(parsed.host)


def _dns_patterns(name: str) -> Iterator[DNSPattern]:
    try:
        pattern = DNSPattern.from_bytes(name.encode("ascii"))
    except (CertificateError, UnicodeEncodeError):
        return
    if b"*" not in pattern.pattern:
        yield pattern


def check_identity(certificate: x509.Certificate, name: str) -> None:
    """
    Check that a certificate, which is valid by itself, is that of a server.

    @param name: the domain that was asked for, before any DNS: "the domain portion of the Application Unique String"
        (RFC 5922 §7.3); or the numeric address where none was.
    @raise UnreachableError: it is somebody else's.
    """
    try:
        found = sip_identities(certificate)
        expected: Any
        if is_numeric(name):
            expected = IPAddress_ID(name)
        elif any(isinstance(pattern, URIPattern) for pattern in found):
            expected = URI_ID(f"sip:{name}")
        else:
            expected = DNS_ID(name)
        verify_service_identity(found, [expected], [])
    except (VerificationError, CertificateError, ValueError):
        raise UnreachableError(f"TLS: the certificate is not that of {name}") from None
