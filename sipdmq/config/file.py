"""
Reading the INI file: complains like a compiler, with file, section, key, and the cure.
"""

from __future__ import annotations

import ast
import configparser
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any, Final

from sipdmq.config import channels, dialog, dmq, htable, presence, usrloc, values
from sipdmq.config.sections import (
    AuthConfig,
    CallsConfig,
    DnsConfig,
    GatewayConfig,
    LimitsConfig,
    NodeConfig,
    NodeSection,
    RegistrarConfig,
    TimersConfig,
    TLSConfig,
    TLSDomainConfig,
)
from sipdmq.errors import ConfigError
from sipdmq.records import Protocol

__all__ = ["load"]

_SECTIONS: Final[Mapping[str, type]] = {
    "node": NodeSection,
    "timers": TimersConfig,
    "registrar": RegistrarConfig,
    "auth": AuthConfig,
    "dns": DnsConfig,
    "limits": LimitsConfig,
    "calls": CallsConfig,
    "tls": TLSConfig,
    "dmq": dmq.DMQConfig,
    "usrloc": usrloc.UsrlocConfig,
    "presence": presence.PresenceConfig,
    "dialog": dialog.DialogConfig,
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
    gateways = {}
    htables = {}
    tls_domains: dict[str, TLSDomainConfig] = {}
    for name in parser.sections():
        if name.partition(" ")[0] == "gateway":
            gateways[_gateway_name(path, name)] = _read_section(path, name, GatewayConfig, parser[name])
            continue
        if name.partition(" ")[0] == "htable":
            htables[htable.table_name(path, name)] = _read_section(path, name, htable.HtableConfig, parser[name])
            continue
        if name.partition(" ")[0] == "tls" and name != "tls":
            domain = _tls_domain(path, name)
            if domain in tls_domains:
                raise ConfigError(path, name, "", "the section is there twice")
            tls_domains[domain] = _read_section(path, name, TLSDomainConfig, parser[name])
            continue
        section = _SECTIONS.get(name)
        if section is None:
            known = _list([*_SECTIONS, "gateway NAME", "htable NAME", "tls DOMAIN"])
            raise ConfigError(path, name, "", f"unknown section; the sections are {known}")
        sections[name] = _read_section(path, name, section, parser[name])
    config = NodeConfig(path, **sections, gateways=gateways, htables=htables, tls_domains=tls_domains)
    _check_together(config)
    return config


def _gateway_name(path: str, section: str) -> str:
    name = section.removeprefix("gateway").strip()
    if section != f"gateway {name}" or not re.fullmatch(r"[A-Za-z0-9_.\-]{1,64}", name):
        raise ConfigError(path, section, "", "must read [gateway NAME], its name of letters, digits, '-', '_' and '.'")
    return name


def _tls_domain(path: str, section: str) -> str:
    name = section.removeprefix("tls").strip()
    try:
        domain = values.domain_name(name)
    except values.WrongPart:
        domain = ""
    if section != f"tls {name}" or not domain or values.is_numeric(domain):
        raise ConfigError(path, section, "", "must read [tls DOMAIN], as [tls example.org]")
    return domain


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
    found = {}
    for key, text in given.items():
        read = keys.get(key)
        if read is None:
            raise ConfigError(path, name, key, f"unknown key; the keys of [{name}] are {_list(keys)}")
        try:
            found[key] = read(text.strip())
        except values.WrongPart as error:
            raise ConfigError(path, name, key, str(error)) from None
        except ValueError as error:
            raise ConfigError(path, name, key, f"'{text}': {error}") from None
    return section(**found)


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
    for name, gateway in config.gateways.items():
        if not gateway.target:
            raise ConfigError(path, f"gateway {name}", "target", "is missing; as target = sip:192.0.2.9:5060")
    _check_tls(config)
    dmq.check(config, config.usrloc.enable)
    usrloc.check(config)
    presence.check(config)
    dialog.check(config)
    channels.check(config)
    for alias, domain in config.node.aliases:
        if domain not in config.node.domains:
            raise ConfigError(path, "node", "aliases", f"'{alias}' stands for '{domain}', which is not in domains")
        if alias in config.node.domains:
            raise ConfigError(path, "node", "aliases", f"'{alias}' is in domains, too; it can be one of the two")


def _check_tls(config: NodeConfig) -> None:
    path, tls = config.path, config.tls
    speaking = [listener for listener in config.node.listen if listener.protocol is Protocol.TLS]
    if not tls.certificate:
        if speaking:
            raise ConfigError(path, "tls", "certificate", f"is missing; the listener {speaking[0]} needs one")
        if config.tls_domains:
            raise ConfigError(path, "tls", "certificate", "is missing; who asks for no domain needs one, too")
    if tls.verify_client != "none" and not tls.ca_list:
        raise ConfigError(path, "tls", "ca_list", f"is missing; 'verify_client = {tls.verify_client}' needs one")
    for domain, section in config.tls_domains.items():
        if not section.certificate:
            raise ConfigError(path, f"tls {domain}", "certificate", "is missing; as certificate = example.org.pem")
