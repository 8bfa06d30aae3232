"""
From an INI file to one frozen value for each section. Complains like a compiler: file, section, key, and the cure.
"""

from __future__ import annotations

import ast
import configparser
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from typing import Any, Final

from sipdmq.errors import ConfigError, ParseError
from sipdmq.records import Listener, Protocol
from sipdmq.sip.parser import DEFAULT_LIMITS, ParserLimits
from sipdmq.sip.timers import TimerValues
from sipdmq.sip.uri import DEFAULT_PORT, parse_host_port

__all__ = [
    "DnsConfig",
    "LimitsConfig",
    "NodeConfig",
    "NodeSection",
    "RegistrarConfig",
    "TimersConfig",
    "load",
]

Read = Callable[[str], Any]
"""From the text of a key to its value; raises C{ValueError} with what it must be."""

_LISTEN: Final = re.compile(r"(?P<protocol>[a-z]+):(?P<address>\S+)(?:\s+advertise\s+(?P<advertise>\S+))?")
_PROTOCOLS: Final = {"udp": Protocol.UDP, "tcp": Protocol.TCP}
DNS_PORT: Final = 53
_TIMERS: Final = TimerValues()


def _key(default: Any, read: Read) -> Any:
    return field(default=default, metadata={"read": read})


def _whole(minimum: int, maximum: int) -> Read:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return int(text)

    return read


def _seconds(minimum: float, maximum: float) -> Read:
    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) or not minimum <= float(text) <= maximum:
            raise ValueError(f"must be a number of seconds from {minimum:g} to {maximum:g}")
        return float(text)

    return read


class _WrongPart(ValueError):
    """
    A part of a value is wrong, and the reason names it.
    """


def _host_port(text: str, what: str, default_port: int) -> tuple[str, int]:
    try:
        host, port = parse_host_port(text.lower())
    except ParseError:
        raise _WrongPart(
            f"{what} must be HOST or HOST:PORT, an IPv6 address in brackets, not '{text}'"
        ) from None
    port = default_port if port is None else port
    if port == 0:
        raise _WrongPart(f"{what} must have a port from 1 to 65535, not '{text}'")
    return host, port


def _is_numeric(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _listener(line: str) -> Listener:
    match = _LISTEN.fullmatch(line)
    if match is None:
        raise _WrongPart(f"'{line}' must read PROTOCOL:ADDRESS:PORT or PROTOCOL:ADDRESS:PORT advertise HOST:PORT")
    protocol = _PROTOCOLS.get(match["protocol"])
    if protocol is None:
        raise _WrongPart(f"'{line}': the protocol must be one of {', '.join(_PROTOCOLS)}")
    host, port = _host_port(match["address"], "the address", DEFAULT_PORT)
    if not _is_numeric(host):
        raise _WrongPart(f"'{line}': the address must be numeric; a name belongs behind 'advertise'")
    advertise_host, advertise_port = host, port
    if match["advertise"]:
        advertise_host, advertise_port = _host_port(match["advertise"], "what is advertised", DEFAULT_PORT)
    return Listener(protocol, host, port, advertise_host, advertise_port)


def _listeners(text: str) -> tuple[Listener, ...]:
    listeners = tuple(_listener(line.strip()) for line in text.splitlines() if line.strip())
    if not listeners:
        raise _WrongPart("must name at least one listener, as udp:127.0.0.1:5060")
    for index, listener in enumerate(listeners):
        if any(str(listener) == str(other) for other in listeners[:index]):
            raise _WrongPart(f"{listener} is named twice")
    return listeners


def _domain(text: str) -> str:
    try:
        host, port = parse_host_port(text.lower())
    except ParseError:
        host, port = "", None
    if not host or port is not None:
        raise _WrongPart(f"'{text}' must be a host name or an address, without scheme and port")
    return host


def _domains(text: str) -> tuple[str, ...]:
    domains = tuple(_domain(name) for name in text.split())
    if not domains:
        raise _WrongPart("must name at least one domain, as example.org: without one nobody can register")
    return domains


def _aliases(text: str) -> tuple[tuple[str, str], ...]:
    aliases: list[tuple[str, str]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        names = line.split()
        if len(names) != 2:
            raise _WrongPart(f"'{line.strip()}' must be two names, the alias and the domain that it stands for")
        alias = _domain(names[0])
        if any(alias == other for other, _ in aliases):
            raise _WrongPart(f"'{alias}' is there twice; it can stand for one domain")
        aliases.append((alias, _domain(names[1])))
    return tuple(aliases)


def _addresses(text: str) -> tuple[tuple[str, int], ...]:
    addresses = []
    for word in text.split():
        host, port = _host_port(word, "a name server", DNS_PORT)
        if not _is_numeric(host):
            raise _WrongPart(f"'{word}' must be a numeric address")
        addresses.append((host, port))
    return tuple(addresses)


@dataclass(frozen=True)
class NodeSection:
    """
    C{[node]}: where the node listens, and for which domains.
    """

    listen: tuple[Listener, ...] = _key(
        (
            Listener(Protocol.UDP, "127.0.0.1", DEFAULT_PORT, "127.0.0.1", DEFAULT_PORT),
            Listener(Protocol.TCP, "127.0.0.1", DEFAULT_PORT, "127.0.0.1", DEFAULT_PORT),
        ),
        _listeners,
    )
    domains: tuple[str, ...] = _key(("localhost", "127.0.0.1"), _domains)
    aliases: tuple[tuple[str, str], ...] = _key((), _aliases)


@dataclass(frozen=True)
class TimersConfig:
    """
    C{[timers]}: the base values of RFC 3261 §17, seconds.
    """

    t1: float = _key(_TIMERS.t1, _seconds(0.01, 10))
    t2: float = _key(_TIMERS.t2, _seconds(0.01, 60))
    t4: float = _key(_TIMERS.t4, _seconds(0.01, 60))


@dataclass(frozen=True)
class RegistrarConfig:
    """
    C{[registrar]}: times in seconds.
    """

    min_expires: int = _key(60, _whole(1, 2**31 - 1))
    default_expires: int = _key(3600, _whole(1, 2**31 - 1))
    max_expires: int = _key(7200, _whole(1, 2**31 - 1))
    max_contacts: int = _key(20, _whole(1, 1000))


@dataclass(frozen=True)
class DnsConfig:
    """
    C{[dns]}: how names are resolved (RFC 3263).
    """

    servers: tuple[tuple[str, int], ...] = _key((), _addresses)
    timeout: float = _key(9.0, _seconds(0.1, 60))


@dataclass(frozen=True)
class LimitsConfig:
    """
    C{[limits]}: what a stranger can make the node hold or read.
    """

    message_size: int = _key(DEFAULT_LIMITS.message_size, _whole(1000, 16 * 2**20))
    headers: int = _key(DEFAULT_LIMITS.headers, _whole(10, 100_000))
    header_length: int = _key(DEFAULT_LIMITS.header_length, _whole(100, 2**20))
    transactions: int = _key(100_000, _whole(10, 10**7))
    completed_bytes: int = _key(64 * 2**20, _whole(2**16, 2**36))
    tombstones: int = _key(100_000, _whole(0, 10**8))
    connections: int = _key(20_000, _whole(1, 10**6))
    connections_per_source: int = _key(1_000, _whole(1, 10**6))
    idle_timeout: float = _key(7300.0, _seconds(1, 10**6))
    message_timeout: float = _key(30.0, _seconds(1, 3600))
    connect_timeout: float = _key(5.0, _seconds(0.1, 60))
    write_buffer: int = _key(2**20, _whole(2**16, 2**30))
    opening_buffer: int = _key(16 * 2**20, _whole(2**16, 2**34))

    @property
    def parser(self) -> ParserLimits:
        """
        What the parser and the framer need of it.
        """
        return ParserLimits(self.message_size, self.headers, self.header_length)


@dataclass(frozen=True)
class NodeConfig:
    """
    A whole configuration: one value for each section.

    @ivar path: the file as the operator named it, for messages.
    """

    path: str = "(embedded defaults)"
    node: NodeSection = NodeSection()
    timers: TimersConfig = TimersConfig()
    registrar: RegistrarConfig = RegistrarConfig()
    dns: DnsConfig = DnsConfig()
    limits: LimitsConfig = LimitsConfig()


_SECTIONS: Final[Mapping[str, type]] = {
    "node": NodeSection,
    "timers": TimersConfig,
    "registrar": RegistrarConfig,
    "dns": DnsConfig,
    "limits": LimitsConfig,
}


def load(path: str) -> NodeConfig:
    """
    Read a configuration file.

    @param path: as the operator named it; relative paths in the file are relative to the file.
    @return: a L{NodeConfig}; what the file does not name has its default.
    @raise ConfigError: the file cannot be read, or something in it cannot be used.
    """
    parser = configparser.ConfigParser(interpolation=None, default_section="\0", strict=True)
    try:
        with open(path, encoding="utf-8-sig") as file:
            parser.read_file(file, source=path)
    except OSError as error:
        raise ConfigError(path, "", "", f"cannot be read: {os.strerror(error.errno or 0)}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(path, "", "", f"is not UTF-8 text (byte {error.start})") from None
    except configparser.Error as error:
        raise _syntax_error(path, error) from None
    sections: dict[str, Any] = {}
    for name in parser.sections():
        section = _SECTIONS.get(name)
        if section is None:
            raise ConfigError(path, name, "", f"unknown section; the sections are {_list(_SECTIONS)}")
        sections[name] = _read_section(path, name, section, parser[name])
    config = NodeConfig(path, **sections)
    _check_together(config)
    return config


def _list(names: Any) -> str:
    return ", ".join(names)


def _syntax_error(path: str, error: configparser.Error) -> ConfigError:
    if isinstance(error, configparser.DuplicateSectionError):
        return ConfigError(path, error.section, "", f"line {error.lineno}: the section is there twice")
    if isinstance(error, configparser.DuplicateOptionError):
        return ConfigError(path, error.section, error.option, f"line {error.lineno}: the key is there twice")
    if isinstance(error, configparser.MissingSectionHeaderError):
        return ConfigError(path, "", "", f"line {error.lineno}: must stand below a section, as [node]")
    if isinstance(error, configparser.ParsingError):
        line, quoted = error.errors[0]
        with suppress(SyntaxError, ValueError):  # before Python 3.13 it is the line's repr()
            quoted = ast.literal_eval(quoted)
        text = ascii(quoted.strip())
        return ConfigError(path, "", "", f"line {line}: neither [section] nor 'key = value': {text}")
    return ConfigError(path, "", "", error.message)


def _read_section(path: str, name: str, section: type, given: Mapping[str, str]) -> Any:
    keys = {each.name: each.metadata["read"] for each in fields(section)}
    values = {}
    for key, text in given.items():
        read = keys.get(key)
        if read is None:
            raise ConfigError(path, name, key, f"unknown key; the keys of [{name}] are {_list(keys)}")
        try:
            values[key] = read(text.strip())
        except _WrongPart as error:
            raise ConfigError(path, name, key, str(error)) from None
        except ValueError as error:
            raise ConfigError(path, name, key, f"'{text}': {error}") from None
    return section(**values)


def _check_together(config: NodeConfig) -> None:
    """
    What is wrong only in the light of another key.
    """
    path, registrar = config.path, config.registrar
    if not registrar.min_expires <= registrar.default_expires <= registrar.max_expires:
        raise ConfigError(
            path,
            "registrar",
            "default_expires",
            f"{registrar.default_expires} must lie between min_expires ({registrar.min_expires}) and max_expires "
            f"({registrar.max_expires})",
        )
    if config.timers.t2 < config.timers.t1:
        raise ConfigError(path, "timers", "t2", f"{config.timers.t2:g} must not be less than t1 ({config.timers.t1:g})")
    for alias, domain in config.node.aliases:
        if domain not in config.node.domains:
            raise ConfigError(path, "node", "aliases", f"'{alias}' stands for '{domain}', which is not in domains")
        if alias in config.node.domains:
            raise ConfigError(path, "node", "aliases", f"'{alias}' is in domains, too; it can be one of the two")
