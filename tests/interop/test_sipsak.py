"""
sipsak, the administrator's tool: usrloc mode, ping, and what is not SIP.
"""

from __future__ import annotations

import re

from tests.interop.phone import Phone
from tests.interop.programs import InteropTestCase, Output, run_program
from tests.interop.sipp import users_file

#: Seconds that sipsak may take.
TIMEOUT = 20.0

#: sipsak's exit status when it got no answer at all, as it may be with a message that nobody can read.
NO_ANSWER = 3


class SipsakTestCase(InteropTestCase):
    """
    Runs sipsak to its end.
    """

    programs = ("sipsak",)

    def sipsak(self, *options: str, user: str = "alice") -> Output:
        """
        @param user: of the URI that it is aimed at; empty for the server itself.
        """
        name = f"{user}@" if user else ""
        uri = f"sip:{name}{self.server.host}:{self.server.port}"
        return run_program(
            ["sipsak", "-vvv", f"--local-ip={self.server.host}", *options, "-s", uri],
            timeout=TIMEOUT,
            cwd=str(self.directory),
        )

    def assert_status(self, output: Output, *wanted: int) -> None:
        """
        @param wanted: exit statuses that are right: 0 when the answers were what sipsak expects.
        """
        self.assertIn(output.status, wanted, f"{output.text[-3000:]}\n{self.server.log()}")

    def assert_answers_again(self) -> None:
        """
        Within the time that a flood in its socket's buffer takes.
        """
        for _ in range(10):
            if self.server.ask(self.server.options()):
                break
        self.assert_well()


class UsrlocTests(SipsakTestCase):
    """
    C{sipsak -U}: registering, asking, removing.
    """

    host = "127.81.2.1"

    def register_and_remove(self, *options: str) -> None:
        """
        A contact comes and goes, as sipsak and a query see it.
        """
        contact = f"sip:alice@{self.server.host}:5070"
        self.assert_status(self.sipsak(*options, "-U", "-C", contact, "-x", "120"), 0)
        (binding,) = self.server.bindings("alice")
        self.assertRegex(binding, rf"^<{re.escape(contact)}>.*;expires=1(20|1[0-9])\b")

        asked = self.sipsak(*options, "-U", "-C", "empty")
        self.assert_status(asked, 0)
        self.assertIn(f"<{contact}>", asked.text)

        self.assert_status(self.sipsak(*options, "-U", "-C", contact, "-x", "0"), 0)
        self.assertEqual(self.server.bindings("alice"), [])
        self.assert_well()

    def test_registers_and_removes_over_udp(self) -> None:
        """
        As the README's transcript does.
        """
        self.register_and_remove()

    def test_registers_and_removes_over_tcp(self) -> None:
        """
        The same with C{--transport=tcp}.
        """
        self.register_and_remove("--transport=tcp")

    def test_two_contacts_of_one_user(self) -> None:
        """
        A second contact does not replace the first.
        """
        for port in (5070, 5071):
            contact = f"sip:alice@{self.server.host}:{port}"
            self.assert_status(self.sipsak("-U", "-C", contact, "-x", "120"), 0)
        self.assertEqual(len(self.server.bindings("alice")), 2)


class PasswordTests(SipsakTestCase):
    """
    C{sipsak -a}.
    """

    host = "127.81.2.4"
    settings = {"auth": {"enable": "yes"}}

    def prepare(self) -> None:
        """
        Alice.
        """
        self.not_kamailio("configured without passwords")
        (self.server.directory / "users").write_text(users_file("alice"))

    def usrloc(self, password: str, expires: str, *options: str) -> Output:
        """
        @param expires: seconds; 0 removes.
        """
        contact = f"sip:alice@{self.server.host}:5070"
        return self.sipsak(*options, "-U", "-C", contact, "-x", expires, *self.proof(password))

    def proof(self, password: str) -> tuple[str, ...]:
        """
        The name by itself: sipsak 0.9.8.1 makes C{alice@} of the URI's.
        """
        return "-u", "alice", "-a", password

    def test_registers_and_removes_by_password(self) -> None:
        """
        Over UDP and TCP.
        """
        for options in ((), ("--transport=tcp",)):
            self.assert_status(self.usrloc("alice-secret", "120", *options), 0)
            asked = self.sipsak(*options, "-U", "-C", "empty", *self.proof("alice-secret"))
            self.assert_status(asked, 0)
            self.assertIn(f"<sip:alice@{self.server.host}:5070>", asked.text)
            self.assert_status(self.usrloc("alice-secret", "0", *options), 0)
        self.assert_well()

    def test_the_wrong_password(self) -> None:
        """
        It is told 401 twice, and gives up.
        """
        output = self.usrloc("bob-secret", "120")
        self.assertNotEqual(output.status, 0)
        self.assertIn("SIP/2.0 401 ", output.text)
        self.assert_well()

    def test_floods(self) -> None:
        """
        20,000 OPTIONS to a user, as fast as sipsak can, and a mixture of registrations and calls that are challenged:
        nothing is kept of them, and who has a password is served at once.
        """
        self.assert_status(self.sipsak("-F", "-e", "20000"), 0)
        self.assert_answers_again()
        uri = f"sip:{self.server.host}"
        flood = Phone((self.server.host, self.server.port), "alice", self.server.host)
        self.addCleanup(flood.close)
        for count in range(1000):
            flood.transmit(flood.make("REGISTER", uri, (f"Contact: <sip:alice@192.0.2.{count % 250}>",)))
            flood.transmit(flood.make("INVITE", f"sip:bob@{self.server.host}"))
        self.assert_answers_again()
        self.assert_status(self.usrloc("alice-secret", "120"), 0)
        numbers = self.server.snapshot()
        self.assertGreater(numbers["auth.challenges"], 100)
        self.assertEqual((numbers["auth.nonces"], numbers["location.bindings"]), (1, 1))
        self.assertEqual((numbers["transaction.servers"], numbers["transaction.completed"]), (0, 1))
        self.assert_well()


class PingTests(SipsakTestCase):
    """
    C{sipsak -s}: is it there?
    """

    host = "127.81.2.2"

    def test_ping_over_udp(self) -> None:
        """
        OPTIONS is answered 200.
        """
        output = self.sipsak(user="")
        self.assert_status(output, 0)
        self.assertIn("SIP/2.0 200 ", output.text)

    def test_ping_over_tcp(self) -> None:
        """
        OPTIONS is answered 200 on the connection it came by.
        """
        output = self.sipsak("--transport=tcp", user="")
        self.assert_status(output, 0)
        self.assertIn("SIP/2.0 200 ", output.text)

    def test_ping_with_garbage_behind_the_body(self) -> None:
        """
        RFC 3261 §18.3: bytes of a datagram beyond Content-Length are discarded.
        """
        message = self.directory / "trailing.sip"
        message.write_bytes(
            f"OPTIONS sip:{self.server.host} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {self.server.host}:5999;branch=z9hG4bKtrailing;rport\r\n"
            f"Max-Forwards: 70\r\n"
            f"From: <sip:alice@{self.server.host}>;tag=1\r\n"
            f"To: <sip:{self.server.host}>\r\n"
            f"Call-ID: trailing\r\n"
            f"CSeq: 1 OPTIONS\r\n"
            f"Content-Type: text/plain\r\n"
            f"Content-Length: 2\r\n\r\nhi\x00\x01 and more\r\n\r\nINVITE".encode("latin-1")
        )
        output = self.sipsak("-f", str(message), user="")
        self.assert_status(output, 0)
        self.assertIn("SIP/2.0 200 ", output.text)
        self.assert_well()


class BadMessageTests(SipsakTestCase):
    """
    Too much, and nonsense: afterwards the server answers as before.
    """

    host = "127.81.2.3"

    def test_flood(self) -> None:
        """
        20,000 OPTIONS as fast as sipsak can, which waits for no answer.
        """
        self.assert_status(self.sipsak("-F", "-e", "20000", user=""), 0)
        self.assert_answers_again()

    def test_random_characters(self) -> None:
        """
        Requests with up to so many random bytes in place of their own: no answer or any answer is right, and an end
        of the server is not.
        """
        for trash in (1, 5, 20, 100, 300):
            for _ in range(4):
                output = self.sipsak("--timer-t1=10", "-R", "-t", str(trash), user="")
                self.assertGreaterEqual(output.status, 0, "sipsak was ended by a signal")
        self.assert_answers_again()

    def test_flood_of_messages_that_are_not_sip(self) -> None:
        """
        Files that sipsak sends as they are: no SIP, half a message, header fields without end.
        """
        bad = {
            "nothing": b"\r\n\r\n",
            "not-sip": b"GET / HTTP/1.1\r\nHost: sip\r\n\r\n",
            "half": b"REGISTER sip:alice@",
            "no-fields": b"REGISTER sip:alice@127.0.0.1 SIP/2.0\r\n\r\n",
            "long": b"OPTIONS sip:127.0.0.1 SIP/2.0\r\nSubject: " + b"x" * 20_000 + b"\r\n\r\n",
            "many": b"OPTIONS sip:127.0.0.1 SIP/2.0\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
            "binary": bytes(range(256)) * 4,
        }
        for name, data in bad.items():
            path = self.directory / name
            path.write_bytes(data)
            output = self.sipsak("--timer-t1=20", "-f", str(path), user="")
            # It refuses some of these files itself, may crash on others, and may well get no answer: sent as they
            # are by a socket of ours they are meant for the server in any case.
            self.assertIsNotNone(output.status)
            self.server.ask(data, timeout=0.05)
        self.assert_answers_again()
