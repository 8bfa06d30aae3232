"""
Lines reach the file, whatever happens to it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from sipdmq.calls import file as module
from sipdmq.calls.file import FLUSH_SIZE, MAX_BUFFER, RecordFile, record_path
from sipdmq.config import CallsConfig, NodeConfig
from sipdmq.errors import ConfigError


class FullDisk:
    """
    In the place of C{os} in the module: writes so many bytes, then none.
    """

    def __init__(self) -> None:
        self.room = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, file: int, data: bytes) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        count = os.write(file, data[: self.room])
        self.room -= count
        return count


class RecordFileTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder.absolute() / "calls.jsonl"
        self.file = RecordFile(self.clock, str(self.path))
        self.addCleanup(self.file.stop)
        self.logged: list[str] = []

        def observe(event: Any) -> None:
            if event.get("log_namespace") == "sipdmq.calls.file":
                self.logged.append(event["log_format"].format(**event).replace(str(self.path), "FILE"))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def lines(self, path: Path | None = None) -> list[str]:
        return (path or self.path).read_text().splitlines() if (path or self.path).exists() else []


class WriteTests(RecordFileTestCase):
    def test_within_a_second(self) -> None:
        self.file.write("one")
        self.file.write("two")
        self.assertEqual(self.lines(), [])
        self.clock.advance(1)
        self.assertEqual(self.lines(), ["one", "two"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_at_once(self) -> None:
        for _ in range(FLUSH_SIZE // 1000 + 1):
            self.file.write("x" * 999)
        self.assertEqual(self.path.stat().st_size, (FLUSH_SIZE // 1000 + 1) * 1000)

    def test_at_the_stop(self) -> None:
        self.file.write("one")
        self.file.stop()
        self.assertEqual((self.lines(), self.clock.getDelayedCalls()), (["one"], []))

    def test_appended_to_what_is_there(self) -> None:
        self.path.write_text("before\n")
        self.file.write("one")
        self.file.stop()
        self.assertEqual(self.lines(), ["before", "one"])

    def test_behind_a_line_that_was_cut_short(self) -> None:
        self.path.write_text('before\n{"sta')
        self.file.write("one")
        self.file.stop()
        self.assertEqual(self.lines(), ["before", '{"sta', "one"])

    def test_not_for_everybody_to_read(self) -> None:
        self.file.write("one")
        self.file.stop()
        self.assertEqual(self.path.stat().st_mode & 0o007, 0)

    def test_no_file_is_left_open(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            self.file.write("one")
            self.file.reopen()
            self.path.unlink()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class RotationTests(RecordFileTestCase):
    """
    logrotate.
    """

    def test_moved_away(self) -> None:
        self.file.write("one")
        self.clock.advance(1)
        self.path.rename(self.path.with_suffix(".1"))
        self.file.write("two")
        self.clock.advance(1)
        self.assertEqual((self.lines(self.path.with_suffix(".1")), self.lines()), (["one"], ["two"]))

    def test_moved_away_and_another_made(self) -> None:
        self.file.write("one")
        self.clock.advance(1)
        self.path.rename(self.path.with_suffix(".1"))
        self.path.touch()
        self.file.write("two")
        self.clock.advance(1)
        self.assertEqual((self.lines(self.path.with_suffix(".1")), self.lines()), (["one"], ["two"]))

    def test_truncated(self) -> None:
        self.file.write("one")
        self.clock.advance(1)
        os.truncate(self.path, 0)
        self.file.write("two")
        self.clock.advance(1)
        self.assertEqual(self.path.read_bytes(), b"two\n")

    def test_reopened(self) -> None:
        self.file.write("one")
        self.file.reopen()
        self.path.rename(self.path.with_suffix(".1"))
        self.file.write("two")
        self.clock.advance(1)
        self.assertEqual((self.lines(self.path.with_suffix(".1")), self.lines()), (["one"], ["two"]))


class FullDiskTests(RecordFileTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.disk = FullDisk()
        self.patch(module, "os", self.disk)

    def test_lines_wait_and_are_whole(self) -> None:
        self.disk.room = 6
        for line in ("one", "two", "three"):
            self.file.write(line)
        self.clock.advance(1)
        self.assertEqual(self.path.read_bytes(), b"one\ntw")
        self.disk.room = 5
        self.clock.advance(1)
        self.disk.room = 1000
        self.clock.advance(1)
        self.assertEqual((self.lines(), self.file.lost), (["one", "two", "three"], 0))
        self.assertEqual(
            self.logged,
            [
                "call records cannot be written to FILE: No space left on device; 2 wait, 0 are lost",
                "call records are written to FILE again; 0 are lost",
            ],
        )

    def test_a_line_that_was_begun_in_a_file_that_was_moved_is_whole_in_the_next(self) -> None:
        self.disk.room = 6
        self.file.write("one")
        self.file.write("two")
        self.clock.advance(1)
        self.path.rename(self.path.with_suffix(".1"))
        self.disk.room = 1000
        self.clock.advance(1)
        self.assertEqual((self.path.with_suffix(".1").read_bytes(), self.lines()), (b"one\ntw", ["two"]))

    def test_a_line_that_was_begun_goes_on_in_the_same_file(self) -> None:
        self.disk.room = 6
        self.file.write("one")
        self.file.write("two")
        self.file.reopen()
        self.disk.room = 1000
        self.clock.advance(1)
        self.assertEqual(self.lines(), ["one", "two"])

    def test_said_once_a_minute(self) -> None:
        self.file.write("one")
        self.clock.pump([1] * 60)
        self.assertEqual(len(self.logged), 1)
        self.clock.pump([1] * 60)
        self.assertEqual(len(self.logged), 2)

    def test_bounded_and_the_rest_is_counted(self) -> None:
        for _ in range(MAX_BUFFER // 1000 + 500):
            self.file.write("x" * 999)
        kept = MAX_BUFFER // 1000
        self.assertEqual(self.file.lost, 500)
        self.disk.room = 2 * MAX_BUFFER
        self.clock.advance(1)
        self.assertEqual(len(self.lines()), kept)
        self.assertIn("500 are lost", self.logged[-1])

    def test_it_is_not_tried_for_each_line(self) -> None:
        tries = []
        self.patch(self.disk, "write", lambda file, data: tries.append(1) or os.write(-1, b""))
        for _ in range(500):
            self.file.write("x" * 999)
        self.assertEqual(len(tries), 1)

    def test_stopped_meanwhile(self) -> None:
        self.file.write("one")
        self.file.stop()
        self.assertEqual((self.file.lost, self.clock.getDelayedCalls()), (1, []))
        self.assertIn("1 call records are lost", self.logged[-1])


class UnusableTests(RecordFileTestCase):
    def test_a_folder_that_goes_away_and_comes_back(self) -> None:
        self.folder.rmdir()
        self.file.write("one")
        self.clock.advance(1)
        self.assertIn("No such file or directory", self.logged[0])
        self.folder.mkdir()
        self.clock.advance(1)
        self.assertEqual(self.lines(), ["one"])

    def test_a_fifo_without_reader_blocks_nobody(self) -> None:
        os.mkfifo(self.path)
        self.file.write("one")
        self.clock.advance(1)
        self.file.stop()


class PathTests(RecordFileTestCase):
    """
    C{[calls] record_file}.
    """

    def find(self, name: str) -> str:
        ini = self.folder / "node.ini"
        return record_path(NodeConfig(str(ini), calls=CallsConfig(record_file=name)))

    def test_relative_to_the_ini_file(self) -> None:
        self.assertEqual(self.find("calls.jsonl"), str(self.path))
        self.assertEqual(self.find(str(self.path)), str(self.path))
        self.assertEqual(self.find(""), "")

    def test_the_ini_file_beside_us(self) -> None:
        config = NodeConfig("node.ini", calls=CallsConfig(record_file="calls.jsonl"))
        self.assertEqual(record_path(config), os.path.abspath("calls.jsonl"))

    def test_unusable(self) -> None:
        for name, expected in (("nowhere/calls", "there is no folder"), (".", "is a folder")):
            error = self.assertRaises(ConfigError, self.find, name)
            self.assertIn(f"[calls] record_file: '{name}': {expected}", str(error))
