"""
Passwords: sipp, which has MD5, and a phone of our own for the rest.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.interop.phone import Answer, Phone
from tests.interop.programs import CHECKOUT, InteropTestCase, NodeProcess, Output, run_program
from tests.interop.sipp import REALM, CallTestCase, users_file

SECRET = "0123456789abcdef0123456789abcdef"

#: Seconds until the node must have seen a change of its users.
CHANGE_TIMEOUT = 5.0


class SippTests(CallTestCase):
    """
    sipp registers and calls by password.
    """

    host = "127.85.1.1"
    is_guarded = True
    settings = {"auth": {"enable": "yes"}, "calls": {"record_file": "calls.jsonl"}}

    def prepare(self) -> None:
        """
        Alice and Bob.
        """
        self.write_users("alice", "bob")

    def test_registers(self) -> None:
        """
        401, then 200; over UDP and TCP.
        """
        options = ("-s", "bob", "-au", "bob", "-ap", "bob-secret", "-key", "contact_port", "5070")
        for transport in ("u1", "t1"):
            self.assert_passed(self.sipp("register_callee_digest", *options, transport=transport))

    def test_the_wrong_password(self) -> None:
        """
        401 again, and nothing is registered: a call to Bob is answered 480.
        """
        options = ("-s", "bob", "-au", "bob", "-ap", "alice-secret", "-key", "contact_port", "5070")
        self.assert_passed(self.sipp("register_wrong_password", *options))
        self.assertEqual(self.phone("alice").ask_challenged("INVITE", f"sip:bob@{self.host}").status, 480)

    def test_a_user_that_does_not_exist(self) -> None:
        """
        The same answers as for a wrong password.
        """
        options = ("-s", "nobody", "-au", "nobody", "-ap", "x", "-key", "contact_port", "5070")
        self.assert_passed(self.sipp("register_wrong_password", *options))

    def test_calls(self) -> None:
        """
        407, then the call; the record tells who it was, and Bob does not see what Alice proved it with.
        """
        for transport in ("udp", "tcp"):
            bob = self.callee("callee", transport=transport, calls=5)
            self.call("caller_digest", transport=transport, calls=5)
            bob.finish()
            self.assertNotIn("Proxy-Authorization", "".join(bob.seen("INVITE")))
            self.phone("bob").register(bob.uri, 0)
        self.assertEqual({record["user"] for record in self.records(10)}, {f"alice@{REALM}"})

    def test_a_call_with_the_wrong_password(self) -> None:
        """
        407 again, and Bob's phone does not ring.
        """
        bob = self.callee("callee")
        self.call("caller_wrong_password", "-ap", "bob-secret")
        self.assertEqual(bob.seen("INVITE"), [])


class GuardedTestCase(InteropTestCase):
    """
    A node with Alice and Bob.
    """

    def prepare(self) -> None:
        """
        Their passwords.
        """
        self.not_kamailio("configured as a plain registrar")
        (self.server.directory / "users").write_text(users_file("alice", "bob"))

    def phone(self, user: str = "alice", password: str = "", algorithm: str = "MD5", host: str = "") -> Phone:
        """
        @param password: by default the right one.
        @param host: another node than that of the test.
        """
        node = (host or self.server.host, self.server.port)
        phone = Phone(node, user, REALM, password or f"{user}-secret", algorithms=(algorithm,))
        self.addCleanup(phone.close)
        return phone

    def assert_stale(self, answer: Answer, is_stale: bool = True) -> None:
        """
        It is a challenge, of that kind.
        """
        self.assertEqual(answer.status, 401)
        self.assertEqual("stale=true" in answer.challenges[0].lower(), is_stale, answer.challenges)


class AlgorithmTests(GuardedTestCase):
    """
    RFC 8760.
    """

    host = "127.85.2.1"
    settings = {"auth": {"enable": "yes", "algorithms": "MD5 SHA-256 SHA-512-256"}}

    def test_each_of_them(self) -> None:
        """
        The strongest stands on top; a phone takes what it can, to register and to call.
        """
        fields = (f"User-Agent: {'a phone of our own ' * 6}",)  # long enough for three challenges
        phone = self.phone()
        first = phone.send(phone.make("REGISTER", f"sip:{REALM}", fields))
        found = [part.strip() for each in first.challenges for part in each.split(",") if "algorithm" in part]
        self.assertEqual(found, ["algorithm=SHA-512-256", "algorithm=SHA-256", "algorithm=MD5"])
        for algorithm in ("SHA-512-256", "SHA-256", "MD5"):
            phone = self.phone(algorithm=algorithm)
            self.assertEqual(phone.ask_challenged("REGISTER", f"sip:{REALM}", fields).status, 200, algorithm)
            self.assertEqual(phone.ask_challenged("INVITE", f"sip:bob@{REALM}", fields).status, 480, algorithm)
            wrong = self.phone(algorithm=algorithm, password="bob-secret")
            self.assertEqual(wrong.ask_challenged("REGISTER", f"sip:{REALM}", fields).status, 401, algorithm)
        self.assert_well()

    def test_a_short_request_is_offered_less(self) -> None:
        """
        Whoever has not passed a challenge is sent less than three times what he sent.
        """
        phone = self.phone()
        request = phone.make("REGISTER", f"sip:{REALM}")
        answer = phone.send(request)
        self.assertEqual(answer.status, 401)
        self.assertLess(len(answer.text) + 4, 3 * len(request))
        self.assertIn("algorithm=MD5", answer.challenges[-1])


class NonceTests(GuardedTestCase):
    """
    RFC 7616 §3.3, §3.4.5.
    """

    host = "127.85.3.1"
    settings = {"auth": {"enable": "yes", "secret": SECRET, "nonce_lifetime": "2"}}

    def test_a_nonce_is_used_again(self) -> None:
        """
        One challenge is enough; the count may jump, and what was jumped over may come late.
        """
        phone = self.phone()
        self.assertEqual(phone.register().status, 200)
        assert phone.digest is not None
        for _ in range(3):
            self.assertEqual(phone.ask("REGISTER", phone_uri(phone)).status, 200)
        phone.digest.count = 9
        self.assertEqual(phone.ask("REGISTER", phone_uri(phone)).status, 200)
        self.assertEqual(phone.ask("REGISTER", phone_uri(phone), nc="00000008").status, 200)

    def test_a_replay_is_refused(self) -> None:
        """
        The same count with another request: stale, also at once after the first. A retransmission is none.
        """
        phone = self.phone()
        self.assertEqual(phone.register().status, 200)
        assert phone.digest is not None
        signed = (f"Authorization: {phone.digest.credentials('REGISTER', phone_uri(phone))}",)
        request = phone.make("REGISTER", phone_uri(phone), signed)
        self.assertEqual([phone.send(request).status for _ in range(3)], [200, 200, 200])
        self.assert_stale(phone.send(phone.make("REGISTER", phone_uri(phone), signed)))
        # What was seen on the wire, with another Contact.
        fields = (*signed, "Contact: <sip:eve@192.0.2.66>")
        self.assert_stale(phone.send(phone.make("REGISTER", phone_uri(phone), fields)))
        self.assertEqual(len(phone.ask_challenged("REGISTER", phone_uri(phone)).all("contact")), 1)

    def test_an_old_nonce_is_stale(self) -> None:
        """
        The phone takes the new one without asking for the password.
        """
        phone = self.phone()
        self.assertEqual(phone.register().status, 200)
        time.sleep(3.1)
        answer = phone.ask("REGISTER", phone_uri(phone))
        self.assert_stale(answer)
        assert phone.digest is not None
        phone.digest.take(answer.challenges)
        self.assertEqual(phone.ask("REGISTER", phone_uri(phone)).status, 200)

    def test_a_nonce_of_somebody_else_is_none(self) -> None:
        """
        Made up, or changed: a new challenge, and not because of its age.
        """
        phone = self.phone()
        self.assertEqual(phone.register().status, 200)
        assert phone.digest is not None
        nonce = phone.digest.challenge["nonce"]
        changed = nonce[:-1] + ("0" if nonce[-1] != "0" else "1")
        for made_up in ("abc", changed, "0" * len(nonce)):
            self.assert_stale(phone.ask("REGISTER", phone_uri(phone), nonce=made_up), False)

    def second_node(self, host: str, secret: str) -> None:
        """
        Start another one.
        """
        other = NodeProcess(host, settings={"auth": {"enable": "yes", "secret": secret}})
        self.addCleanup(other.clean_up)
        (other.directory / "users").write_text(users_file("alice"))
        other.start()

    def test_a_nonce_is_good_at_another_node_of_the_cluster(self) -> None:
        """
        With the same secret. With another one it is worth nothing.
        """
        for host, secret, status in (("127.85.3.2", SECRET, 200), ("127.85.3.3", SECRET[::-1], 401)):
            self.second_node(host, secret)
            phone = self.phone()
            self.assertEqual(phone.register().status, 200)
            moved = self.phone(host=host)
            moved.digest = phone.digest
            self.assertEqual(moved.ask("REGISTER", phone_uri(moved)).status, status)


class UsersFileTests(GuardedTestCase):
    """
    C{sipdmq-users} while the node runs.
    """

    host = "127.85.4.1"
    settings = {"auth": {"enable": "yes"}}

    def users(self, *arguments: str, password: str = "") -> Output:
        """
        Run the command; a password goes to its standard input.
        """
        script = Path(sys.executable).with_name("sipdmq-users")
        module = [sys.executable, "-c", "import sys; from sipdmq.core.users import main; sys.exit(main())"]
        command = [str(script)] if script.exists() else module
        return run_program(
            [*command, "-f", str(self.server.directory / "users"), *arguments],
            timeout=20,
            cwd=str(CHECKOUT),
            text=f"{password}\n",
        )

    def wait_for(self, status: int, password: str) -> None:
        """
        Carol registers, again and again, until it is answered so.
        """
        deadline = time.monotonic() + CHANGE_TIMEOUT
        while True:
            found = self.phone("carol", password).register().status
            if found == status or time.monotonic() > deadline:
                self.assertEqual(found, status, self.server.log())
                return
            time.sleep(0.1)

    def test_a_user_comes_changes_and_goes(self) -> None:
        """
        Each is seen within seconds; no password is shown, nor kept where others can read it.
        """
        self.assertEqual(self.phone("carol", "first-secret").register().status, 401)
        told = [self.users("add", "--stdin", f"carol@{REALM}", password="first-secret")]
        self.wait_for(200, "first-secret")
        told.append(self.users("add", "--stdin", f"carol@{REALM}", password="second-secret"))
        self.wait_for(200, "second-secret")
        self.assertEqual(self.phone("carol", "first-secret").register().status, 401)
        self.assertIn(f"carol@{REALM}", self.users("list").text)
        told.append(self.users("remove", f"carol@{REALM}"))
        self.wait_for(401, "second-secret")
        self.assertEqual([each.status for each in told], [0, 0, 0], told)
        self.assertNotIn("secret", "".join(each.text for each in told))
        self.assertEqual(self.phone().register().status, 200)
        self.assert_well()

    def test_a_broken_file_changes_nothing(self) -> None:
        """
        The node goes on with what it has read, and says so.
        """
        path = self.server.directory / "users"
        path.write_text(path.read_text() + "this is no user\n")
        deadline = time.monotonic() + CHANGE_TIMEOUT
        while "line 7" not in self.server.log():
            self.assertEqual(self.phone().register().status, 200)
            self.assertLess(time.monotonic(), deadline, self.server.log())
            time.sleep(0.1)
        self.assertEqual(self.phone().register().status, 200)
        self.assertEqual(self.users("list").status, 1)


def phone_uri(phone: Phone) -> str:
    """
    Where it registers.
    """
    return f"sip:{phone.domain}"
