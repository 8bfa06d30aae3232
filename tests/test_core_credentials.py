"""
The users in a file: read at the start, read again when it has changed, never lost.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipdmq.core.credentials import FileCredentials
from sipdmq.core.userfile import UserFileError, parse_users, with_user, without_user
from sipdmq.errors import ConfigError
from sipdmq.interfaces.credentials import ICredentialStore
from sipdmq.interfaces.inspection import IInspectable
from tests.digest_client import NAMES, hash_of

EXAMPLE = Path(__file__).parents[1] / "etc" / "users"


def line(username: str = "alice", realm: str = "example.org", algorithm: str = "MD5", password: str = "secret") -> str:
    return f"{username}:{realm}:{algorithm}:{hash_of(algorithm, f'{username}:{realm}:{password}')}\n"


class LineTests(SynchronousTestCase):
    """
    C{user:realm:algorithm:ha1}
    """

    def test_a_user_with_three_hashes_and_notes(self) -> None:
        text = "# a note: with:colons:and more\n\n" + "".join(line(algorithm=name) for name in NAMES) + "  \r\n"
        self.assertEqual(
            parse_users(text),
            {("alice", "example.org", name): hash_of(name, "alice:example.org:secret") for name in NAMES},
        )

    def test_letter_case_of_algorithm_and_hash_does_not_count(self) -> None:
        (key,) = users = parse_users(line().replace("MD5", "md5").upper().replace("ALICE:EXAMPLE.ORG", "alice:b"))
        self.assertEqual((key, users[key]), (("alice", "b", "MD5"), hash_of("MD5", "alice:example.org:secret")))

    def test_a_realm_may_be_an_ipv6_address(self) -> None:
        self.assertEqual(list(parse_users(line(realm="2001:db8::1"))), [("alice", "2001:db8::1", "MD5")])

    def test_only_a_line_feed_ends_a_line(self) -> None:
        self.assertEqual(list(parse_users(line("a\u2028b\x0b"))), [("a\u2028b\x0b", "example.org", "MD5")])

    def test_what_is_wrong_is_told_with_its_line_and_shows_no_hash(self) -> None:
        good = line()
        digits = good.rpartition(":")[2].strip()
        form = "must read user:realm:algorithm:ha1, as 'sipdmq-users add' writes it"
        for bad, reason in (
            ("alice", form), ("alice:example.org", form), (f"alice:MD5:{digits}", form), (f":b:MD5:{digits}", form),
            (f"alice::MD5:{digits}", form), (digits, form),
            (f"alice:b:SHA-1:{digits}", "the algorithm must be one of SHA-512-256, SHA-256, MD5"),
            (f"alice:b:SHA-256:{digits}", f"what stands behind SHA-256 is no such hash; {form}"),
            ("alice:b:MD5:secret", f"what stands behind MD5 is no such hash; {form}"),
            (f"alice:b:MD5:{digits}0", f"what stands behind MD5 is no such hash; {form}"),
            ("alice:b:MD5:" + "\u0663" * 32, f"what stands behind MD5 is no such hash; {form}"),
            (good, "'alice' of 'example.org' has a line for MD5 already"),
        ):  # fmt: skip
            error = self.assertRaises(UserFileError, parse_users, f"# note\n{good}{bad}\n")
            self.assertEqual(str(error), f"line 3: {reason}")
            self.assertNotIn(digits[:8], str(error))

    def test_adding_replaces_and_leaves_the_others_as_they_are(self) -> None:
        text = f"# note\n{line()}\n{line('bob')}# end"
        changed = with_user(text, "alice", "example.org", "new")
        self.assertEqual(changed.partition("alice")[0], f"# note\n\n{line('bob')}# end\n")
        users = parse_users(changed)
        self.assertEqual(users["alice", "example.org", "SHA-256"], hash_of("SHA-256", "alice:example.org:new"))
        self.assertEqual(len(users), 4)

    def test_removing_is_of_one_realm_only(self) -> None:
        text = line() + line(realm="other.example") + line(algorithm="SHA-256")
        self.assertEqual(without_user(text, "alice", "example.org"), line(realm="other.example"))

    def test_the_demonstration_users(self) -> None:
        users = parse_users(EXAMPLE.read_text())
        expected = {
            (name, "localhost", algorithm): hash_of(algorithm, f"{name}:localhost:{name}-secret")
            for name in ("alice", "bob")
            for algorithm in NAMES
        }
        self.assertEqual(users, expected)


class FileTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.path = Path(self.mktemp())
        self.path.write_text(line())
        self.changes = 0
        self.log: list[str] = []
        globalLogPublisher.addObserver(self._logged)
        self.addCleanup(globalLogPublisher.removeObserver, self._logged)

    def _logged(self, event: dict[str, object]) -> None:
        if event["log_namespace"] == "sipdmq.core.credentials":
            self.log.append(f"{event['log_level'].name} {event['log_format'].format(**event)}")  # type: ignore[attr-defined]

    def open(self) -> FileCredentials:
        return FileCredentials(str(self.path), lambda: self.now)

    def write(self, text: str) -> None:
        """
        Change the file in place, as an editor may; its time is another one for sure.
        """
        self.path.write_text(text)
        self.changes += 1
        os.utime(self.path, (self.changes, self.changes))

    def ha1(self, store: FileCredentials, username: str = "alice", algorithm: str = "MD5") -> str | None:
        return self.successResultOf(store.ha1(username, "example.org", algorithm))


class StartTests(FileTestCase):
    def refused(self) -> str:
        error = self.assertRaises(ConfigError, self.open)
        assert isinstance(error, ConfigError)
        self.assertEqual((error.path, error.section, error.key), (str(self.path), "", ""))
        return str(error)

    def test_interfaces(self) -> None:
        verifyObject(ICredentialStore, self.open())
        verifyObject(IInspectable, self.open())

    def test_what_is_there_and_what_is_not(self) -> None:
        store = self.open()
        self.assertEqual(self.ha1(store), hash_of("MD5", "alice:example.org:secret"))
        self.assertIsNone(self.ha1(store, "bob"))
        self.assertIsNone(self.ha1(store, algorithm="SHA-256"))
        self.assertEqual(store.snapshot(), {"auth.hashes": 1})

    def test_a_bad_line_names_file_and_line(self) -> None:
        self.path.write_text(f"{line()}alice:secret\n")
        self.assertTrue(self.refused().startswith(f"{self.path}: line 2: must read user:realm:algorithm:ha1"))

    def test_not_utf_8(self) -> None:
        self.path.write_bytes(line().encode() + b"caf\xe9")
        self.assertEqual(self.refused(), f"{self.path}: line 2: is not UTF-8 text")

    def test_no_file(self) -> None:
        self.path.unlink()
        cure = f"'sipdmq-users -f {self.path} add NAME@DOMAIN' makes it"
        self.assertEqual(self.refused(), f"{self.path}: there is no such file; {cure}")

    def test_a_folder(self) -> None:
        self.path.unlink()
        self.path.mkdir()
        self.assertEqual(self.refused(), f"{self.path}: cannot be read: Is a directory")


class ReadAgainTests(FileTestCase):
    def test_a_change_is_seen_within_a_second(self) -> None:
        store = self.open()
        self.write(line("bob"))
        self.assertIsNone(self.ha1(store, "bob"))
        self.now = 1.0
        self.assertEqual(self.ha1(store, "bob"), hash_of("MD5", "bob:example.org:secret"))
        self.assertIsNone(self.ha1(store))
        self.assertEqual(self.log, [f"info {self.path}: read again, 1 users"])

    def test_a_file_put_in_its_place_is_seen_by_its_inode(self) -> None:
        store = self.open()
        other = Path(f"{self.path}.new")
        other.write_text(line(password="other!"))
        status = self.path.stat()
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(other, self.path)
        self.assertEqual((self.path.stat().st_size, self.path.stat().st_mtime_ns), (status.st_size, status.st_mtime_ns))
        self.now = 1.0
        self.assertEqual(self.ha1(store), hash_of("MD5", "alice:example.org:other!"))

    def test_it_is_looked_at_once_a_second_at_most_and_read_only_when_changed(self) -> None:
        store = self.open()
        looks = []
        stat = os.stat
        self.patch(os, "stat", lambda path: looks.append(path) or stat(path))
        self.patch(FileCredentials, "_read", lambda self: self.fail("read without need"))
        for _ in range(100):
            self.now += 0.1
            self.ha1(store)
        self.assertLessEqual(len(looks), 10)
        self.assertGreaterEqual(len(looks), 9)

    def test_a_bad_line_keeps_the_last_good_content_and_is_told_once(self) -> None:
        store = self.open()
        self.write(f"{line('bob')}secret-stuff\n")
        for _ in range(5):
            self.now += 1
            self.assertIsNotNone(self.ha1(store))
            self.assertIsNone(self.ha1(store, "bob"))
        (told,) = self.log
        self.assertTrue(told.startswith(f"error {self.path}: line 2: must read"), told)
        self.assertTrue(told.endswith("; what was read before stays in force"))
        self.assertNotIn("secret-stuff", told)

    def test_a_file_that_is_gone_keeps_it_too_until_it_is_back(self) -> None:
        store = self.open()
        self.path.unlink()
        for _ in range(5):
            self.now += 1
            self.assertIsNotNone(self.ha1(store))
        self.assertEqual(
            self.log,
            [f"error {self.path}: cannot be read: No such file or directory; what was read before stays in force"],
        )
        self.write(line("bob"))
        self.now += 1
        self.assertIsNotNone(self.ha1(store, "bob"))

    def test_mended_it_is_read(self) -> None:
        store = self.open()
        self.write("broken\n")
        self.now = 1.0
        self.ha1(store)
        self.write(line("bob"))
        self.now = 2.0
        self.assertIsNotNone(self.ha1(store, "bob"))
        self.assertEqual([entry.partition(" ")[0] for entry in self.log], ["error", "info"])

    def test_the_log_holds_no_hash(self) -> None:
        store = self.open()
        for text in (line("bob"), "broken", line()):
            self.write(text)
            self.now += 1
            self.ha1(store)
        self.assertEqual(len(self.log), 3)
        for username in ("alice", "bob"):
            self.assertNotIn(hash_of("MD5", f"{username}:example.org:secret"), "".join(self.log))
