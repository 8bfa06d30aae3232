"""
The channels of the cluster: each has a name of its own. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from sipdmq.config.sections import NodeConfig
from sipdmq.errors import ConfigError

__all__ = ["check"]


def _named(config: NodeConfig) -> Iterator[tuple[str, str, str]]:
    """
    The channels whose names the operator chooses: section, key, name.
    """
    yield "dmq", "notification_channel", config.dmq.notification_channel
    if config.usrloc.enable:
        yield "usrloc", "dmq_peer_id", config.usrloc.dmq_peer_id
    if config.presence.enable and config.presence.enable_dmq:
        yield "presence", "dmq_peer_id", config.presence.dmq_peer_id


def _fixed(config: NodeConfig) -> Iterator[tuple[str, str]]:
    """
    The others: name, and whose it is.
    """
    yield "sipdmq", "what sipdmq nodes tell one another"
    if config.presence.enable:
        yield "subscriptions", "[presence]"
    if config.dialog.enable and config.dialog.enable_dmq:
        yield "dialog", "[dialog]"
    for name, table in config.htables.items():
        if table.dmqreplicate:
            yield "htable", f"[htable {name}]"


def check(config: NodeConfig) -> None:
    """
    Two channels of one name.

    @raise ConfigError: see above.
    """
    if not config.dmq.is_enabled:
        return
    owners = dict(_fixed(config))
    for section, key, name in _named(config):
        if name in owners:
            reason = f"'{name}' is the channel of {owners[name]}: choose another name"
            raise ConfigError(config.path, section, key, reason)
        owners[name] = f"[{section}] {key}"
