"""
A phone that publishes, and what a Kamailio has of it.
"""

from __future__ import annotations

import re

from tests.interop.cluster import Kamailio
from tests.interop.phone import Answer, Phone

__all__ = ["Presentity", "pidf", "presentities", "publish"]

#: What a Kamailio has of one: its entity tag, and the state in it; empty where the document has none.
Presentity = tuple[str, str]


def pidf(basic: str = "open", name: str = "t1") -> str:
    """
    A presence document of one tuple.
    """
    return (
        '<?xml version="1.0"?>\n<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:alice@localhost">'
        f'<tuple id="{name}"><status><basic>{basic}</basic></status></tuple></presence>'
    )


def publish(
    phone: Phone, body: str = "", etag: str = "", expires: int | None = 600, event: str = "presence",
    content_type: str = "application/pidf+xml", user: str = "alice",
) -> Answer:  # fmt: skip
    """
    Publish something of a user of C{localhost}.

    @param etag: of the publication that it is about.
    """
    fields = [f"Event: {event}"]
    if expires is not None:
        fields.append(f"Expires: {expires}")
    if etag:
        fields.append(f"SIP-If-Match: {etag}")
    if body:
        fields.append(f"Content-Type: {content_type}")
    request = phone.make("PUBLISH", f"sip:{user}@localhost", fields)
    data = body.encode()
    return phone.send(request.replace(b"Content-Length: 0", b"Content-Length: %d" % len(data)) + data)


def presentities(node: Kamailio, user: str = "alice") -> list[Presentity]:
    """
    @return: what it has of a user, by C{kamcmd presence.presentity_list full}.
    """
    found = []
    for text in node.kamcmd("presence.presentity_list", "full").split("\n}\n"):
        fields = dict(re.findall(r"^\t(\w+): (.*)$", text, re.MULTILINE))
        if fields.get("user") == user:
            match = re.search(r"<basic>(\w+)</basic>", text)
            found.append((fields["etag"], match[1] if match else ""))
    return sorted(found)
