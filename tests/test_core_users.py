"""
The command sipdmq-users, as its user meets it.
"""

from __future__ import annotations

import fcntl
import getpass
import io
import os
import stat
import sys
import time
import warnings
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sipdmq.core import users
from sipdmq.core.userfile import parse_users
from sipdmq.core.users import UsersError, main, parse_name
from tests.digest_client import NAMES, hash_of


class UsersTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = folder / "users"
        self.typed: list[str] = []
        self.patch(getpass, "getpass", self._getpass)
        self.prompts: list[str] = []

    def _getpass(self, prompt: str) -> str:
        self.prompts.append(prompt)
        if not self.typed:
            raise EOFError
        return self.typed.pop(0)

    def run_command(self, *arguments: str, typed: str = "", stdin: bytes = b"") -> tuple[int, str, str]:
        """
        @param typed: what is typed, separated by spaces.
        @return: exit status, output, and errors without the command's name.
        """
        self.typed = typed.split(" ") if typed else []
        out, errors = io.StringIO(), io.StringIO()
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", errors)
        status = main(["-f", str(self.path), *arguments])
        return status, out.getvalue(), errors.getvalue().removeprefix("sipdmq-users: ")

    def assert_refused(self, reason: str, *arguments: str, typed: str = "", stdin: bytes = b"") -> None:
        before = self.path.read_bytes() if self.path.exists() else None
        status, out, errors = self.run_command(*arguments, typed=typed, stdin=stdin)
        self.assertEqual((status, out, errors.count("\n")), (1, "", 1))
        self.assertIn(reason, errors)
        self.assertEqual(self.path.read_bytes() if self.path.exists() else None, before)
        self.assertEqual([name for name in os.listdir(self.path.parent) if name != "users"], [])

    def add(self, name: str = "alice@example.org", password: str = "secret") -> None:
        self.assertEqual(self.run_command("add", name, typed=f"{password} {password}")[::2], (0, ""))


class AddTests(UsersTestCase):
    def test_it_asks_twice_and_stores_all_algorithms(self) -> None:
        told = self.run_command("add", "alice@example.org", typed="secret secret")
        self.assertEqual(told, (0, f"{self.path}: alice@example.org added\n", ""))
        self.assertEqual(self.prompts, ["Password for alice@example.org: ", "The same again: "])
        self.assertEqual(
            parse_users(self.path.read_text()),
            {("alice", "example.org", name): hash_of(name, "alice:example.org:secret") for name in NAMES},
        )
        self.assertNotIn("secret", self.path.read_text())

    def test_a_new_file_is_for_its_owner_only(self) -> None:
        self.addCleanup(os.umask, os.umask(0))
        self.add()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_again_it_is_a_new_password(self) -> None:
        self.add()
        told = self.run_command("add", "alice@example.org", typed="other other")
        self.assertEqual(told, (0, f"{self.path}: alice@example.org has a new password\n", ""))
        found = parse_users(self.path.read_text())
        self.assertEqual(len(found), 3)
        self.assertEqual(found["alice", "example.org", "MD5"], hash_of("MD5", "alice:example.org:other"))

    def test_a_script_gives_it_as_a_line(self) -> None:
        for stdin in (b"p\xc3\xa4ss word \n", b"p\xc3\xa4ss word \r\nmore\n", b"p\xc3\xa4ss word "):
            status, _, errors = self.run_command("add", "alice@example.org", "--stdin", stdin=stdin)
            self.assertEqual((status, errors, self.prompts), (0, "", []))
            expected = hash_of("MD5", "alice:example.org:p\u00e4ss word ")
            self.assertEqual(parse_users(self.path.read_text())["alice", "example.org", "MD5"], expected)

    def test_passwords_that_are_none(self) -> None:
        self.assert_refused("these are two different passwords", "add", "a@b", typed="secret Secret")
        for stdin in (b"", b"\n"):
            self.assert_refused("an empty password is none", "add", "a@b", "--stdin", stdin=stdin)
        for stdin in (b"a\tb\n", b"a\x7f\n", b"a\rb\n"):
            self.assert_refused("must not hold control characters", "add", "a@b", "--stdin", stdin=stdin)
        self.assert_refused("is not UTF-8 text", "add", "a@b", "--stdin", stdin=b"\xff\n")

    def test_without_a_terminal_it_says_what_to_do(self) -> None:
        self.assert_refused("give it as a line on standard input, by --stdin", "add", "a@b")

    def test_a_terminal_that_would_show_it_is_none(self) -> None:
        def shown(prompt: str) -> str:
            warnings.warn("Can not control echo on the terminal.", getpass.GetPassWarning, stacklevel=1)
            return "secret"

        self.patch(getpass, "getpass", shown)
        self.assert_refused("no terminal to ask for a password", "add", "a@b")

    def test_interrupted_nothing_changes(self) -> None:
        def interrupted(prompt: str) -> str:
            raise KeyboardInterrupt

        self.patch(getpass, "getpass", interrupted)
        self.assertEqual(self.run_command("add", "a@b"), (130, "", "\n"))
        self.assertFalse(self.path.exists())

    def test_a_password_is_no_argument(self) -> None:
        for arguments in (("add", "a@b", "secret"), ("add", "a@b", "--password", "secret")):
            ending = self.assertRaises(SystemExit, self.run_command, *arguments)
            self.assertEqual(ending.code, 2)  # type: ignore[attr-defined]


class NameTests(SynchronousTestCase):
    def test_names(self) -> None:
        for text, expected in (
            ("alice@example.org", ("alice", "example.org")), ("Alice@Example.ORG.", ("Alice", "example.org")),
            ("a@b@example.org", ("a@b", "example.org")), ("a b@localhost", ("a b", "localhost")),
            ("a@[2001:DB8::0:1]", ("a", "2001:db8::1")), ("j\u00e4s@127.0.0.1", ("j\u00e4s", "127.0.0.1")),
        ):  # fmt: skip
            self.assertEqual(parse_name(text), expected)

    def test_what_is_none(self) -> None:
        for text in (
            "", "alice", "@example.org", "alice@", "alice@example.org:5060", "a@b c", "a@sip:b", "a:b@example.org",
            'a"@b', "a\\@b", "#a@b", " a@b", "a\n@b", "a\x7f@b", "\udcff@b",
        ):  # fmt: skip
            self.assertRaises(UsersError, parse_name, text)


class RemoveAndListTests(UsersTestCase):
    def test_remove(self) -> None:
        self.path.write_text("# note\n")
        self.add()
        self.add("alice@other.example")
        told = self.run_command("remove", "alice@example.org")
        self.assertEqual(told, (0, f"{self.path}: alice@example.org removed\n", ""))
        self.assertEqual({key[1] for key in parse_users(self.path.read_text())}, {"other.example"})
        self.assertTrue(self.path.read_text().startswith("# note\n"))

    def test_remove_who_is_not_there(self) -> None:
        self.add()
        self.assert_refused("there is no bob@example.org", "remove", "bob@example.org")

    def test_list_shows_no_hash(self) -> None:
        self.add("bob@b")
        self.add("alice@example.org")
        told = self.run_command("list")
        self.assertEqual(told, (0, "alice@example.org  SHA-512-256 SHA-256 MD5\nbob@b  SHA-512-256 SHA-256 MD5\n", ""))

    def test_no_file(self) -> None:
        self.assert_refused("there is no such file", "list")
        self.path = self.path.parent / "nowhere" / "users"
        status, _, errors = self.run_command("add", "a@b", typed="x x")
        self.assertEqual((status, "No such file or directory" in errors), (1, True))

    def test_a_file_that_is_no_file_of_users_is_left_alone(self) -> None:
        self.path.write_text("[node]\n")
        for arguments in (("add", "a@b"), ("remove", "a@b"), ("list",)):
            self.assert_refused("line 1: must read user:realm:algorithm:ha1", *arguments, typed="x x")
            self.assertEqual(self.prompts, [])
        self.path.write_bytes(b"\xff\n")
        self.assert_refused("is not UTF-8 text", "list")


class ReplaceTests(UsersTestCase):
    """
    The file is replaced whole or not at all, and only by one at a time.
    """

    def test_mode_and_owner_stay(self) -> None:
        self.add()
        self.path.chmod(0o640)
        before = self.path.stat()
        self.add("bob@b")
        after = self.path.stat()
        self.assertEqual((after.st_mode, after.st_uid, after.st_gid), (before.st_mode, before.st_uid, before.st_gid))
        self.assertNotEqual(after.st_ino, before.st_ino)

    def test_an_owner_that_cannot_be_kept_stops_it(self) -> None:
        self.add()

        def refuse(descriptor: int, owner: int, group: int) -> None:
            raise PermissionError(1, "Operation not permitted", descriptor)

        self.patch(os, "fchown", refuse)
        status = self.path.stat()
        foreign = os.stat_result((*status[:4], status.st_uid + 1, *status[5:]))
        self.patch(users, "_read", lambda path: (self.path.read_text(), foreign))
        self.assert_refused(f"{self.path}: Operation not permitted", "add", "b@b", typed="x x")

    def test_a_symbolic_link_stays_one(self) -> None:
        self.add()
        link = self.path.parent.parent / f"{self.path.parent.name}-link"
        link.symlink_to(self.path.resolve())
        real, self.path = self.path, link
        self.add("bob@b")
        self.assertTrue(link.is_symlink())
        self.assertEqual(len(parse_users(real.read_text())), 6)

    def test_when_writing_fails_the_old_one_stays(self) -> None:
        self.add()

        def fail(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", fail)
        self.assert_refused("No space left on device", "add", "b@b", typed="x x")

    def test_who_comes_second_waits_and_gives_up_at_last(self) -> None:
        self.add()
        waits: list[float] = []
        self.patch(time, "sleep", waits.append)
        descriptor = os.open(self.path.parent, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self.assert_refused("somebody else is changing users", "add", "b@b", typed="x x")
        self.assertEqual(round(sum(waits)), 10)

    def test_who_comes_second_sees_what_the_first_has_written(self) -> None:
        self.add()
        descriptor = os.open(self.path.parent, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)

        def first_is_done(seconds: float) -> None:
            self.path.write_text("# the first was here\n" + self.path.read_text())
            fcntl.flock(descriptor, fcntl.LOCK_UN)

        self.patch(time, "sleep", first_is_done)
        self.add("bob@b")
        self.assertTrue(self.path.read_text().startswith("# the first was here\n"))
        self.assertEqual(len(parse_users(self.path.read_text())), 6)
