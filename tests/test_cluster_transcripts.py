"""
The transcripts of C{tests/transcripts}: what happens to a cluster, and every message that follows.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.cluster.transcript import Transcript, transcripts


class TranscriptTests(SynchronousTestCase):
    maxDiff = None

    def test_all(self) -> None:
        self.assertTrue(transcripts())
        for path in transcripts():
            transcript = Transcript(path.read_text())
            seen = transcript.run()
            message = f"{path.name}; if the change is meant: python -m tests.cluster.transcript, then git diff"
            self.assertEqual(transcript.expected.splitlines(), seen.splitlines(), message)

    def test_a_line_that_is_no_command(self) -> None:
        for line in (
            "1 start b", "1 alice add on a", "soon start a", "1 bob publish on a open", "1 call1 begin on a",
            "with tables",
        ):  # fmt: skip
            self.assertRaises(ValueError, Transcript(f"nodes a\n{line}\n---\n").run)
