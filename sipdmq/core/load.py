"""
The policy that the configuration names.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from zope.interface import classImplements
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from sipdmq.config import NodeConfig
from sipdmq.core.policy import DefaultPolicy
from sipdmq.errors import ConfigError
from sipdmq.interfaces.routing import IRoutingPolicy

__all__ = ["load_policy"]


def load_policy(config: NodeConfig) -> Any:
    """
    Make the policy of C{[node] policy}: its class is called without arguments. Its module may stand beside the INI
    file.

    @return: L{IRoutingPolicy<sipdmq.interfaces.routing.IRoutingPolicy>}
    @raise ConfigError: there is no such module or class, it fails, or it has no C{route(request, node)}.
    """
    name = config.node.policy
    if not name:
        return DefaultPolicy()
    module_name, _, class_name = name.partition(":")
    folder = os.path.dirname(os.path.abspath(config.path))
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        made: Any = getattr(importlib.import_module(module_name), class_name)()
    except Exception as error:  # noqa: BLE001 - the edge to the operator's own code
        reason = f"'{name}' cannot be used: {type(error).__name__}: {error}"
        raise ConfigError(config.path, "node", "policy", reason) from None
    if not IRoutingPolicy.providedBy(made):
        # Whoever has the method need not name the interface. (mypy's plugin cannot know the class.)
        classImplements(type(made), IRoutingPolicy)  # type: ignore[misc]
    try:
        verifyObject(IRoutingPolicy, made)
    except Invalid:
        raise ConfigError(config.path, "node", "policy", f"'{name}' has no method route(request, node)") from None
    return made
