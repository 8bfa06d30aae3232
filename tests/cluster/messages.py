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
    if channel == "presence":
        return f"{channel}  {_presence(json.loads(body))}"
    if channel == "subscriptions":
        return f"{channel}  {_subscriptions(json.loads(body), names)}"
    if channel == "dialog":
        return f"{channel}  {_dialog(json.loads(body))}"
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


def _presence(document: Mapping[str, Any]) -> str:
    """
    C{bob .0 for 3600 s}, C{bob .0 to .1 for 3600 s}, C{bob .1 removed}.
    """
    if "presentity" not in document:
        return _other(document)
    told = document["presentity"]
    old, new = ("." + etag.rpartition(".")[2] if etag else "" for etag in (told["etag"], document["cur_etag"]))
    end = f" for {told['expires']} s" if told["expires"] else " removed"
    return f"{told['user']} {old}{f' to {new}' if new else ''}{end}"


def _subscriptions(document: Mapping[str, Any], names: Names) -> str:
    """
    C{alice-bob of a, 1 SUBSCRIBE, 2 NOTIFY, term 0}; of one that is over nothing is told but its tag.
    """
    if "subscriptions" not in document:
        return _other(document)
    words = []
    for each in document["subscriptions"]:
        host = each["owner"].removeprefix("sip:").rpartition(":")[0]
        name = each.get("callid") or f"{each['to_tag'][:6]} over"
        numbers = f"{each['remote_cseq']} SUBSCRIBE, {each['local_cseq']} NOTIFY, term {each['term']}"
        words.append(f"{name} of {names.get(host, host)}, {numbers}")
    return "; ".join(words)


def _dialog(document: Mapping[str, Any]) -> str:
    """
    C{update call1 3336 state 1}, C{3336 state 5}, C{3336 forgotten}.
    """
    if "h_entry" not in document:
        return _other(document)
    if document["action"] == 3:
        return f"{document['h_entry']} forgotten"
    told = f"update {document['callid']} " if document["action"] == 1 else ""
    by = " passed on" if document.get("by") else ""
    return f"{told}{document['h_entry']} state {document['state']}{by}"


def _other(document: Mapping[str, Any]) -> str:
    if "count" in document:
        return f"end of sync, {document['count']}"
    return "sync"


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
