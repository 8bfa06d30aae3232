"""
Certificates in files, for the node and for those that talk to it; made by C{etc/make_certs.py}.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.tls_memory import make_certs

__all__ = ["write_authority", "write_pair"]


def write_authority(folder: Path, name: str = "ca") -> Any:
    """
    @param name: its certificate is C{NAME.pem}.
    @return: what signs.
    """
    authority = make_certs.make(f"interop {name}")
    (folder / f"{name}.pem").write_bytes(authority.certificate_pem)
    return authority


def write_pair(
    folder: Path,
    name: str,
    authority: Any,
    *,
    dns: Sequence[str] = (),
    addresses: Sequence[str] = (),
    is_one_file: bool = False,
) -> None:
    """
    A certificate that is good for both ends of a connection: C{NAME.pem} and C{NAME.key}.

    @param dns: its names, as C{addresses}.
    @param is_one_file: the key stands in C{NAME.pem}, too.
    """
    pair = make_certs.make(name, authority, dns=dns, addresses=addresses, uses=("server", "client"))
    (folder / f"{name}.pem").write_bytes(pair.certificate_pem + (pair.key_pem if is_one_file else b""))
    (folder / f"{name}.key").write_bytes(pair.key_pem)
