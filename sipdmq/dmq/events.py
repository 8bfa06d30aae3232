"""
The operator's function that hears of nodes that come and go: C{[dmq] event_callback}.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable

from zope.interface import implementer

from sipdmq.config import NodeConfig
from sipdmq.errors import ConfigError
from sipdmq.interfaces.replication import INodeListener
from sipdmq.records import ClusterNode

__all__ = ["EventCallback", "load_event_callback"]

EventFunction = Callable[[str, ClusterNode], object]
"""Given C{"dmq:peer-up"}, C{"dmq:peer-down"} or C{"dmq:peer-disabled"}, Kamailio's names, and the node."""


def load_event_callback(config: NodeConfig) -> EventFunction | None:
    """
    @return: L{None} where none is named.
    @raise ConfigError: there is no such function.
    """
    name = config.dmq.event_callback
    if not name:
        return None
    module_name, _, function_name = name.partition(":")
    folder = os.path.dirname(os.path.abspath(config.path))
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        found: EventFunction = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # noqa: BLE001 - the edge to the operator's own code
        reason = f"'{name}' cannot be used: {type(error).__name__}: {error}"
        raise ConfigError(config.path, "dmq", "event_callback", reason) from None
    if not callable(found):
        raise ConfigError(config.path, "dmq", "event_callback", f"'{name}' is no function")
    return found


@implementer(INodeListener)
class EventCallback:
    """
    Calls it. What it raises is logged by whoever tells us.
    """

    def __init__(self, function: EventFunction) -> None:
        self._function = function

    def node_up(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_up}.
        """
        self._function("dmq:peer-up", node)

    def node_down(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_down}.
        """
        self._function("dmq:peer-down", node)

    def node_disabled(self, node: ClusterNode) -> None:
        """
        See L{INodeListener.node_disabled}.
        """
        self._function("dmq:peer-disabled", node)
