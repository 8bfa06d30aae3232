"""
TLS with OpenSSL: our certificates, whom we trust, and connections.

Imported only where a listener speaks TLS. The protocol is Twisted's, over OpenSSL with buffers in memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from sipdmq.config import TLSConfig, TLSDomainConfig
from sipdmq.errors import ConfigError, UnreachableError
from sipdmq.transport.identity import check_identity

__all__ = ["LOOK_INTERVAL", "TlsContexts"]

log = Logger()

LOOK_INTERVAL: Final = 10.0
"""Seconds for which the files are believed not to have changed."""

MAX_FILE: Final = 4 * 2**20
"""Bytes of a file of certificates; the list of all that a system trusts has a quarter of a MB."""

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES"
"""
For TLS 1.2: only with forward secrecy (RFC 9325 §4.1), with CBC at the end for older phones. RFC 3261 §26.2.1 demands
C{TLS_RSA_WITH_AES_128_CBC_SHA}, which has none: who has such a phone says so in C{[tls] ciphers}.
"""

_VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
_VERIFY: Final = {
    "none": SSL.VERIFY_NONE,
    "optional": SSL.VERIFY_PEER,
    "require": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}
_NO_RENEGOTIATION: Final = 1 << 30  # SSL_OP_NO_RENEGOTIATION, which older pyOpenSSL does not name
_PEM_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.S)
_CLIENT_USES: Final = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}


class _Credentials(NamedTuple):
    chain: list[crypto.X509]  # our certificate first
    key: crypto.PKey


class _Contexts(NamedTuple):
    server: SSL.Context
    client: SSL.Context


class _Files:
    """
    The files that one configuration names.
    """

    def __init__(self, path: str, config: TLSConfig, domains: Mapping[str, TLSDomainConfig]) -> None:
        self._path = path
        self._folder = Path(path).absolute().parent
        self._config = config
        self._domains = domains

    def marks(self) -> tuple[object, ...]:
        """
        Another value when a file has changed.
        """
        names = [self._config.certificate, self._config.private_key, self._config.ca_list]
        for domain in self._domains.values():
            names += [domain.certificate, domain.private_key]
        return tuple(self._mark(name) for name in names if name)

    def _mark(self, name: str) -> object:
        try:
            found = os.stat(self._folder / name)
        except OSError as error:
            return error.errno
        return found.st_mtime_ns, found.st_size, found.st_ino

    def load(self) -> _Contexts:
        """
        @raise ConfigError: a file cannot be read or used; with the section and key that name it.
        """
        config = self._config
        own = self._credentials("tls", config)
        server = self._server_context("tls", own)
        by_domain = {
            domain: self._server_context(f"tls {domain}", self._credentials(f"tls {domain}", section))
            for domain, section in self._domains.items()
        }
        if by_domain:
            server.set_tlsext_servername_callback(lambda connection: _choose(connection, by_domain))
        client = self._context()
        client.set_verify(SSL.VERIFY_PEER)
        self._trust(client)
        if _is_for_clients(own.chain[0]):
            self._use("tls", client, own)
        return _Contexts(server, client)

    def _read(self, section: str, key: str, name: str) -> bytes:
        try:
            with open(self._folder / name, "rb") as file:
                data = file.read(MAX_FILE + 1)
        except OSError as error:
            raise self._error(section, key, f"'{name}' cannot be read: {os.strerror(error.errno or 0)}") from None
        if len(data) > MAX_FILE:
            raise self._error(section, key, f"'{name}' has more than {MAX_FILE} bytes")
        return data

    def _error(self, section: str, key: str, reason: str) -> ConfigError:
        return ConfigError(self._path, section, key, reason)

    def _certificates(self, section: str, key: str, name: str) -> list[crypto.X509]:
        data = self._read(section, key, name)
        try:
            found = [crypto.load_certificate(crypto.FILETYPE_PEM, text) for text in _PEM_CERTIFICATE.findall(data)]
        except crypto.Error:
            raise self._error(section, key, f"'{name}' has a certificate that cannot be read") from None
        if not found:
            raise self._error(section, key, f"'{name}' has no certificate; it must be in PEM form")
        return found

    def _credentials(self, section: str, config: TLSConfig | TLSDomainConfig) -> _Credentials:
        chain = self._certificates(section, "certificate", config.certificate)
        for certificate in chain:
            if certificate.has_expired():
                log.warn("{file}: has expired", file=config.certificate)
        name = config.private_key or config.certificate
        data = self._read(section, "private_key", name)
        try:
            # An empty passphrase, or OpenSSL would ask for one on the terminal.
            key = crypto.load_privatekey(crypto.FILETYPE_PEM, data, b"")
        except (crypto.Error, ValueError, TypeError):
            raise self._error(
                section, "private_key", f"'{name}' has no private key; it must be in PEM form, without a passphrase"
            ) from None
        return _Credentials(chain, key)

    def _context(self) -> SSL.Context:
        config = self._config
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(_VERSIONS[config.minimum_version])
        context.set_options(_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        # Idle connections give their buffers of 32 kB back. Sessions are resumed by tickets, which their owners keep:
        # nothing is remembered here for whoever does not come back.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        try:
            context.set_cipher_list((config.ciphers or CIPHERS).encode("ascii"))
        except (SSL.Error, UnicodeEncodeError):
            raise self._error("tls", "ciphers", f"'{config.ciphers}': OpenSSL knows no such ciphers") from None
        return context

    def _server_context(self, section: str, credentials: _Credentials) -> SSL.Context:
        context = self._context()
        context.set_session_id(b"sipdmq")
        context.set_verify(_VERIFY[self._config.verify_client])
        if self._config.verify_client != "none":
            context.set_client_ca_list([authority.get_subject() for authority in self._trust(context)])
        self._use(section, context, credentials)
        return context

    def _trust(self, context: SSL.Context) -> list[crypto.X509]:
        """
        @return: the authorities of C{ca_list}.
        """
        if not self._config.ca_list:
            context.set_default_verify_paths()
            return []
        authorities = self._certificates("tls", "ca_list", self._config.ca_list)
        store = context.get_cert_store()
        assert store is not None
        for authority in authorities:
            store.add_cert(authority)
        return authorities

    def _use(self, section: str, context: SSL.Context, credentials: _Credentials) -> None:
        try:
            context.use_certificate(credentials.chain[0])
            for certificate in credentials.chain[1:]:
                context.add_extra_chain_cert(certificate)
        except SSL.Error as error:
            raise self._error(section, "certificate", f"cannot be used: {_reason(error)}") from None
        try:
            context.use_privatekey(credentials.key)
            context.check_privatekey()
        except SSL.Error:
            raise self._error(section, "private_key", "does not belong to the certificate") from None


def _choose(connection: SSL.Connection, by_domain: Mapping[str, SSL.Context]) -> None:
    """
    Server name indication (RFC 6066 §3): who asks for no name, or for one that we have no certificate for, gets that of
    C{[tls]}.
    """
    name = (connection.get_servername() or b"").decode("ascii", "replace").lower().rstrip(".")
    context = by_domain.get(name)
    if context is not None:
        connection.set_context(context)


def _is_for_clients(certificate: crypto.X509) -> bool:
    """
    Whether we may show it where we are the client: many an authority makes them for servers only, and then showing it
    is worse than showing none.
    """
    try:
        extension = certificate.to_cryptography().extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False
    return not _CLIENT_USES.isdisjoint(extension.value)


def _reason(error: SSL.Error) -> str:
    """
    What OpenSSL says, in words: C{"certificate verify failed"}.
    """
    queue = error.args[0] if error.args else ()
    if isinstance(queue, (list, tuple)) and queue and isinstance(queue[-1], tuple):
        return str(queue[-1][-1])
    return str(error) or "the connection was cut off"


_APPLICATION_DATA: Final = b"\x17"
_RECORD: Final = 2**14  # bytes in one at most


def _length_of_record(data: bytes, at: int) -> int:
    """
    With its header (RFC 8446 §5.1).
    """
    return 5 + int.from_bytes(data[at + 3 : at + 5], "big")


class _TlsTransport(TLSMemoryBIOProtocol):
    """
    Twisted's, writing at once (what aggregates small writes costs a timer for each), quicker for what comes in one
    record, and told in words why it ended.
    """

    _left = 0  # bytes to come of the record that is being received; -1: not known any more

    def dataReceived(self, bytes: bytes) -> None:
        if self._left or bytes[:1] != _APPLICATION_DATA or len(bytes) != _length_of_record(bytes, 0):
            super().dataReceived(bytes)
            self._count(bytes)
        elif not self._handshakeDone or self._appSendBuffer or self._lostTLSConnection:
            super().dataReceived(bytes)
        else:
            # Nearly always: one whole record, so that nothing has to be tried in order to see that no more is there.
            connection = self._tlsConnection
            connection.bio_write(bytes)
            try:
                received = connection.recv(_RECORD)
            except (SSL.WantReadError, SSL.ZeroReturnError):
                self._flushReceiveBIO()
            except SSL.Error:
                self._tlsShutdownFinished(Failure())
            else:
                if not self._aborted:
                    self.wrappedProtocol.dataReceived(received)

    def _count(self, received: bytes) -> None:
        at = self._left
        if at < 0:
            return
        while at + 5 <= len(received):
            at += _length_of_record(received, at)
        self._left = at - len(received) if at >= len(received) else -1

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._reason is not None and self._reason.check(SSL.Error):
            self._reason = Failure(UnreachableError(f"TLS: {_reason(self._reason.value)}"))
        super().connectionLost(reason)

    def abortConnection(self) -> None:
        if self._tlsConnection is not None:  # else it is lost already
            super().abortConnection()


class _TlsFactory(TLSMemoryBIOFactory):
    protocol = _TlsTransport

    def buildProtocol(self, addr: Any) -> TLSMemoryBIOProtocol | None:  # type: ignore[override]
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)

    def registerProtocol(self, p: TLSMemoryBIOProtocol) -> None:
        """
        L{Connections<sipdmq.transport.connections.Connections>} knows them all.
        """

    unregisterProtocol = registerProtocol


@implementer(IOpenSSLClientConnectionCreator)
class _Client:
    def __init__(self, contexts: TlsContexts, name: str) -> None:
        self._contexts = contexts
        self._name = name

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._contexts.current().client, None)
        if self._name:
            connection.set_tlsext_host_name(self._name.encode("ascii", "replace"))
        return connection


@implementer(IOpenSSLServerConnectionCreator)
class TlsContexts:
    """
    What new connections are made with. The files are looked at when one is made, at most every L{LOOK_INTERVAL}
    seconds, and read again when they have changed; where they cannot be used any more, what was read before stays.
    Connections that exist keep what they were made with.
    """

    def __init__(
        self, path: str, config: TLSConfig, domains: Mapping[str, TLSDomainConfig], clock: IReactorTime
    ) -> None:
        """
        @param path: of the configuration file: the names of the others are relative to it.
        @param domains: further certificates, each for who asks for that name.
        @raise ConfigError: a file cannot be used.
        """
        self._files = _Files(path, config, domains)
        self._clock = IReactorTime(clock)
        self._marks = self._files.marks()
        self._looked_at = self._clock.seconds()
        self._contexts = self._files.load()

    def current(self) -> _Contexts:
        """
        By the files as they are.
        """
        now = self._clock.seconds()
        if now - self._looked_at >= LOOK_INTERVAL:
            self._looked_at = now
            marks = self._files.marks()  # before reading: a change meanwhile is seen the next time
            if marks != self._marks:
                self._marks = marks
                try:
                    self._contexts = self._files.load()
                except ConfigError as error:
                    log.error("TLS goes on with what was read before: {reason}", reason=str(error))
                else:
                    log.info("TLS: the certificates were read again")
        return self._contexts

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """
        See L{IOpenSSLServerConnectionCreator}.
        """
        return SSL.Connection(self.current().server, None)

    def accepting(self, factory: IProtocolFactory) -> IProtocolFactory:
        """
        @param factory: makes what speaks over the connections.
        @return: what accepts connections with TLS.
        """
        return IProtocolFactory(_TlsFactory(self, False, factory))

    def connecting(self, factory: IProtocolFactory, name: str) -> IProtocolFactory:
        """
        @param name: the domain to ask for (RFC 6066 §3), empty where only an address is known.
        """
        return IProtocolFactory(_TlsFactory(_Client(self, name), True, factory))

    def check_peer(self, transport: Any, name: str) -> None:
        """
        @param transport: after the handshake; that the certificate is valid has been checked in it.
        @param name: as for L{check_identity}.
        @raise UnreachableError: there is somebody else.
        """
        certificate = transport.getPeerCertificate()
        if certificate is None:
            raise UnreachableError(f"TLS: {name} has shown no certificate")
        check_identity(certificate.to_cryptography(), name)
