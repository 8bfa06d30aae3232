"""
Two real phones at two nodes of a cluster: one publishes its presence, the other one watches it.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tests.interop.baresip import Baresip, write_tone
from tests.interop.cluster import ClusterTestCase, Member, wait_until
from tests.interop.programs import require
from tests.interop.sipp import users_file

PUBLISH_INTERVAL = 12
"""
Seconds: baresip refreshes when nine tenths of them are over, and a node tells others of whole seconds only. A 423 would
not have it ask for more.
"""
PRESENCE = {"enable": "1", "min_expires": str(PUBLISH_INTERVAL)}

#: A PUBLISH without a document that is answered with 200, as baresip's trace shows it: a C{#} is above each message.
REFRESH = (
    r"(?s:^PUBLISH (?:(?!^#).)*^SIP-If-Match: (?:(?!^#).)*^Content-Length: 0$"
    r".*?^SIP/2\.0 200 (?:(?!^#).)*^CSeq: \d+ PUBLISH$.*?)"
)


class BaresipPresenceTests(ClusterTestCase):
    """
    Alice, at the first node, watches Bob, at the second one.
    """

    network = "127.0.60"

    def setUp(self) -> None:
        super().setUp()
        require("baresip", "stdbuf")
        self.directory = Path(tempfile.mkdtemp(prefix="sipdmq-interop-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        write_tone(self.directory / "tone.wav")
        self.users = self.directory / "users"
        self.users.write_text(users_file("alice", "bob"))

    def node(self, number: int, *peers: int) -> Member:
        """
        @return: one that asks for passwords.
        """
        return self.member(number, *peers, auth={"enable": "yes", "users": str(self.users)}, presence=PRESENCE)

    def baresip(
        self, user: str, number: int, node: Member, transport: str, contacts: Sequence[str] = (), interval: int = 0
    ) -> Baresip:
        """
        @param number: of the phone's address.
        @param interval: see L{Baresip}: C{publish_interval}.
        @return: a phone, registered.
        """
        phone = Baresip(
            self.directory, user, self.address(number), node.host, transport, f"{user}-secret", answers=False,
            contacts=contacts, publish_interval=interval,
        )  # fmt: skip
        self.addCleanup(phone.program.kill)
        phone.wait_until_registered()
        return phone

    def assert_seen(self, watcher: Baresip, *states: str) -> None:
        """
        Soon a phone was told these states of his contact, one NOTIFY for each, and has shown its user the changes.
        """

        def seen() -> tuple[list[tuple[str, str]], int]:
            text = watcher.program.text
            changes = re.findall(r"<sip:bob@\S+> changed status from (\w+) to (\w+)", text)
            # Of a NOTIFY that came twice, as on a slow machine, the number is the same.
            return changes, len(set(re.findall(r"^CSeq: (\d+) NOTIFY", text, re.MULTILINE)))

        expected = (list(pairwise(states)), len(states))
        wait_until(lambda: seen() == expected, lambda: f"{seen()}, not {expected}:\n{watcher.program.text}")

    def start(self, transport: str) -> None:
        """
        Alice watches, and Bob comes, is away, and is back.
        """
        self.first = self.node(1)
        self.second = self.node(2, 1)
        self.assert_nodes([self.first, self.second])
        self.alice = self.baresip("alice", 11, self.first, transport, contacts=[f"sip:bob@{self.first.host}"])
        self.assert_seen(self.alice, "Offline")
        self.bob = self.baresip("bob", 12, self.second, transport, interval=PUBLISH_INTERVAL)
        self.assert_seen(self.alice, "Offline", "Online")
        self.bob.tell("presence_offline")
        self.assert_seen(self.alice, "Offline", "Online", "Offline")
        self.bob.tell("presence_online")
        self.assert_seen(self.alice, "Offline", "Online", "Offline", "Online")

    def end(self) -> None:
        """
        Bob goes, then Alice, and neither node keeps anything of them.
        """
        self.bob.quit()
        self.assert_seen(self.alice, "Offline", "Online", "Offline", "Online", "Offline")
        self.alice.quit()
        for node in (self.first, self.second):
            for number in ("presence.publications", "subscriptions.live"):
                wait_until(
                    lambda node=node, number=number: node.snapshot()[number] == 0, f"{number} of {node.host} is not 0"
                )

    def test_over_udp_he_stays_for_longer_than_a_publication_lasts(self) -> None:
        """
        Of a refresh a watcher is not told.
        """
        self.start("udp")
        # When the second refresh comes, what was published would be over.
        self.bob.program.wait_for(REFRESH * 2, 2.0 * PUBLISH_INTERVAL)
        self.assert_seen(self.alice, "Offline", "Online", "Offline", "Online")
        self.end()

    def test_over_tcp(self) -> None:
        self.start("tcp")
        self.end()
