"""
Certificates for trying TLS: an authority of its own, and what it signs. Not for use: its key lies beside them.

    python etc/make_certs.py certs

makes the folder C{certs} with C{ca.pem}, and of each of these the certificate (C{.pem}) and the key (C{.key})::

    server        localhost, 127.0.0.1 and ::1
    one.example   the domain one.example, for server name indication
    two.example   the domain two.example
    client        a phone or server that shows who it is

Files that are there are left alone: remove the folder for new ones.
"""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAYS = 825
USES = {"server": x509.ExtendedKeyUsageOID.SERVER_AUTH, "client": x509.ExtendedKeyUsageOID.CLIENT_AUTH}


class Pair(NamedTuple):
    """
    A certificate and its key.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """
        For a file.
        """
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """
        For a file, without a passphrase.
        """
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def make(
    name: str,
    authority: Pair | None = None,
    uris: Sequence[str] = (),
    dns: Sequence[str] = (),
    addresses: Sequence[str] = (),
    uses: Sequence[str] = ("server",),
    days: int = DAYS,
) -> Pair:
    """
    A new certificate.

    @param name: the common name.
    @param authority: who signs; L{None}: it is an authority, and signs itself.
    @param uris: of the subjectAltName, as C{dns} and C{addresses}; without any of these there is none.
    @param uses: C{"server"}, C{"client"}: the extended key usage; empty for none.
    @param days: for which it is valid; less than 0: it was.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day + min(days, 0) * day)
        .not_valid_after(now + days * day)
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key((authority.key if authority else key).public_key()),
            critical=False,
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=authority is None,
                crl_sign=authority is None,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    names: list[x509.GeneralName] = [
        *(x509.UniformResourceIdentifier(uri) for uri in uris),
        *(x509.DNSName(host) for host in dns),
        *(x509.IPAddress(ip_address(address)) for address in addresses),
    ]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if authority and uses:
        builder = builder.add_extension(x509.ExtendedKeyUsage([USES[use] for use in uses]), critical=False)
    return Pair(builder.sign(authority.key if authority else key, hashes.SHA256()), key)


def write(folder: Path, name: str, pair: Pair) -> None:
    """
    Into C{NAME.pem}, and into C{NAME.key}, which only its owner can read.
    """
    opened = os.open(folder / f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "wb") as file:
        file.write(pair.key_pem)
    (folder / f"{name}.pem").write_bytes(pair.certificate_pem)


def main(arguments: Sequence[str]) -> int:
    """
    @return: the exit status.
    """
    if len(arguments) != 1:
        sys.stderr.write("usage: python etc/make_certs.py FOLDER\n")
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "ca.pem").exists():
        sys.stdout.write(f"{folder}/ca.pem is there already; remove {folder} for new certificates\n")
        return 0
    authority = make("sipdmq test authority")
    # The server's is shown to other servers, too, where we are the client.
    both = ("server", "client")
    write(folder, "ca", authority)
    write(folder, "server", make("localhost", authority, (), ("localhost",), ("127.0.0.1", "::1"), both))
    for domain in ("one.example", "two.example"):
        write(folder, domain, make(domain, authority, (f"sip:{domain}",), (domain,), (), both))
    write(folder, "client", make("client", authority, ("sip:client.example",), ("client.example",), (), ("client",)))
    sys.stdout.write(f"made {folder}/ca.pem, and certificates for localhost, one.example, two.example and a client\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
