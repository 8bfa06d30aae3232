"""
KDMQ as people read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sipdmq.sip.message import Request
from sipdmq.sip.parser import parse_message
from tests.location_store_tests import EPOCH

__all__ = ["channel_of", "is_request", "summary"]

Names = Mapping[str, str]
"""What the nodes are called, by address."""


def is_request(data: bytes) -> bool:
    """
    Whether a datagram is a KDMQ, and no answer to one.
    """
    return data.startswith(b"KDMQ ")


def channel_of(data: bytes) -> str:
    """
    Of a request or an answer; empty where there is none.
    """
    _, _, rest = data.partition(b"\nTo: <sip:")
    return rest.partition(b"@")[0].decode() if b"@" in rest[:70] else ""


def summary(data: bytes, names: Names) -> str:
    """
    A message in a few words: the channel, and what is in it.
    """
    message: Any = parse_message(data)
    channel = channel_of(data)
    body = message.body
    if not isinstance(message, Request):
        said = _list(body, names) if channel == "notification_peer" else _verb(body)
        return f"{channel}  {message.status}{' ' + said if said else ''}"
    if channel == "notification_peer":
        hops = f" (hops {message.max_forwards})" if message.max_forwards != 1 else ""
        return f"{channel}  {_list(body, names) or 'ping'}{hops}"
    if channel == "usrloc":
        return f"{channel}  {_usrloc(body)}"
    return f"{channel}  {_verb(body)}"


def _list(body: bytes, names: Names) -> str:
    words = []
    for line in body.decode().splitlines():
        uri, *params = line.split(";")
        host = uri.removeprefix("sip:").rpartition(":")[0]
        status = next((param[7:] for param in params if param.startswith("status=")), "")
        words.append(names.get(host, host) + ("" if status == "active" else f" {status}"))
    return ", ".join(sorted(words))


def _verb(body: bytes) -> str:
    try:
        return next(iter(json.loads(body))) if body else ""
    except ValueError:
        return repr(body)


def _usrloc(body: bytes) -> str:
    document = json.loads(body)
    actions = list(document["multi"].values()) if "multi" in document else [document]
    words = [_action(each) for each in actions]
    return "; ".join(words[:4]) + (f"; and {len(words) - 4} more" if len(words) > 4 else "")


def _action(action: Mapping[str, Any]) -> str:
    kind = action["action"]
    if kind == 3:
        return "sync"
    if kind == 4:
        return f"end of sync, {action['count']}" + (" (partial)" if action.get("partial") else "")
    modified = action["last_modified"] - int(EPOCH)
    what = "update" if kind == 1 else "remove"
    return f"{what} {action['c'].removeprefix('sip:')} {action['callid']} {action['cseq']} @{modified}"
