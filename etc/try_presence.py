"""
Watches somebody, or publishes something for him, at a node that asks for no password: for trying presence out.

    python etc/try_presence.py watch 127.0.0.1 bob@localhost [dialog]
    python etc/try_presence.py publish 127.0.0.2 bob@localhost open | closed | ringing | busy | idle

A line for each NOTIFY: the node it came from, its number, the state of the subscription, and what it says.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time

SECONDS = 600
"""That a subscription or publication lasts."""

PIDF = (
    '<?xml version="1.0"?><presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:{user}"><tuple id="phone">'
    "<status><basic>{word}</basic></status></tuple></presence>"
)
DIALOG_INFO = (
    '<?xml version="1.0"?><dialog-info xmlns="urn:ietf:params:xml:ns:dialog-info" version="0" state="full"'
    ' entity="sip:{user}"><dialog id="call"><state>{word}</state></dialog></dialog-info>'
)
WORDS = {
    "open": ("presence", PIDF, "open"),
    "closed": ("presence", PIDF, "closed"),
    "ringing": ("dialog", DIALOG_INFO, "early"),
    "busy": ("dialog", DIALOG_INFO, "confirmed"),
    "idle": ("dialog", DIALOG_INFO, "terminated"),
}
TYPES = {"presence": "application/pidf+xml", "dialog": "application/dialog-info+xml"}


def ask(phone: socket.socket, node: str, method: str, user: str, fields: list[str], body: str = "") -> str:
    """
    Send a request, and wait for its answer.
    """
    host, port = phone.getsockname()
    mark = os.urandom(6).hex()
    phone.sendto(
        (
            f"{method} sip:{user} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{mark}\r\n"
            f"From: <sip:{user}>;tag={mark}\r\nTo: <sip:{user}>\r\nCall-ID: {mark}\r\nCSeq: 1 {method}\r\n"
            f"Max-Forwards: 70\r\nContact: <sip:{host}:{port}>\r\nExpires: {SECONDS}\r\n"
            + "".join(f"{field}\r\n" for field in fields)
            + f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode(),
        (node, 5060),
    )
    return phone.recv(65535).decode()


def value(message: str, name: str) -> str:
    """
    Of a header field.
    """
    found = re.search(rf"^{name}: *(.*?)\r?$", message, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else ""


def watch(phone: socket.socket, node: str, user: str, event: str) -> None:
    """
    Print what comes.
    """
    print(ask(phone, node, "SUBSCRIBE", user, [f"Event: {event}"]).partition("\r")[0], flush=True)
    phone.settimeout(SECONDS)
    while True:
        data, source = phone.recvfrom(65535)
        notify = data.decode()
        kept = [f"{name}: {value(notify, name)}" for name in ("Via", "From", "To", "Call-ID", "CSeq")]
        phone.sendto("\r\n".join(["SIP/2.0 200 OK", *kept, "Content-Length: 0", "", ""]).encode(), source)
        said = re.findall(r"<(?:basic|state)>(\w+)<", notify) or ["nothing"]
        state = value(notify, "Subscription-State")
        print(f"{source[0]} {value(notify, 'CSeq')} ({state}): {' '.join(said)}", flush=True)


def publish(phone: socket.socket, node: str, user: str, word: str) -> None:
    """
    Publish one document. The tag of the one before, which it replaces, is kept in a file.
    """
    event, form, state = WORDS[word]
    path = f".published-{event}-{user}"
    fields = [f"Event: {event}", f"Content-Type: {TYPES[event]}"]
    if os.path.exists(path) and time.time() - os.path.getmtime(path) < SECONDS:
        with open(path, encoding="ascii") as file:
            fields.append(f"SIP-If-Match: {file.read()}")
    answer = ask(phone, node, "PUBLISH", user, fields, form.format(user=user, word=state))
    with open(path, "w", encoding="ascii") as file:
        file.write(value(answer, "SIP-ETag"))
    print(answer.partition("\r")[0])


def main() -> None:
    """
    What the command line asks for.
    """
    if len(sys.argv) not in (4, 5) or sys.argv[1] not in ("watch", "publish"):
        sys.exit(__doc__)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        phone.settimeout(5)
        if sys.argv[1] == "watch":
            watch(phone, sys.argv[2], sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else "presence")
        else:
            publish(phone, sys.argv[2], sys.argv[3], sys.argv[4])


if __name__ == "__main__":
    main()
