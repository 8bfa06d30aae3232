"""
When an outbox is opened, and how much is taken out at once. Pure.
"""

from __future__ import annotations

from math import inf
from typing import Final

__all__ = ["Pace"]

PATIENCE: Final = 4
"""
Times C{batch_window} for which changes gather while an earlier message has no answer: the busier the node is, the
fuller are the messages that it has to read.
"""

FEWEST: Final = 2
"""
Changes in one message at least, however many are lost: so few fit into one frame of Ethernet, and 50 take a dozen, of
which none may be lost.
"""

BUSY_PAUSE: Final = 0.5
"""Seconds to leave a node alone that has said it is busy."""


class Pace:
    """
    Of the messages to one node on one channel. All times are seconds of one clock.

    @ivar most: changes in one message now.
    """

    def __init__(self, batch_changes: int, batch_window: float, repeated_after: float) -> None:
        """
        See L{OutboxLimits<sipdmq.dmq.changes.OutboxLimits>}.
        """
        self._batch_changes = batch_changes
        self._batch_window = batch_window
        self._repeated_after = repeated_after
        self._lowered_at = -inf
        self.reset()

    def reset(self) -> None:
        """
        Begin anew: what was so before the node was away says nothing.
        """
        self.most = self._batch_changes
        self._open_at = 0.0  # the earliest time to send what does not fill a message
        self._patient_until = 0.0  # that, while there are messages without an answer
        self._busy_until = 0.0

    def allows(self, now: float, waiting: int, has_unanswered: bool) -> bool:
        """
        Whether something may be sent now.

        @param waiting: how many changes wait.
        @param has_unanswered: whether an earlier message has no answer yet.
        """
        if now < self._busy_until:
            return False
        return waiting >= self.most or now >= (self._patient_until if has_unanswered else self._open_at)

    def next_at(self, has_unanswered: bool) -> float:
        """
        From when on anything may be sent, as far as only time is lacking.
        """
        return max(self._patient_until if has_unanswered else self._open_at, self._busy_until)

    def sent(self, now: float) -> None:
        """
        A message was sent.
        """
        self._open_at = now + self._batch_window
        self._patient_until = now + PATIENCE * self._batch_window

    def was_busy(self, now: float) -> None:
        """
        The node has too much to do.
        """
        self._busy_until = now + BUSY_PAUSE

    def ended(self, count: int, sent_at: float, now: float, is_lost: bool) -> None:
        """
        A message was answered now, or is lost. Half as many changes go into one when a full one had to be sent again,
        and one more with each that had not. Where one frame of a hundred is lost, that makes a dozen changes, where it
        is one of seven, two.

        @param count: its changes.
        """
        if is_lost or now - sent_at >= self._repeated_after:
            if count > FEWEST and sent_at >= self._lowered_at:  # else it is of the same trouble as the one before
                self.most = max(FEWEST, min(self.most, count) // 2)
                self._lowered_at = now
        elif count >= self.most < self._batch_changes:
            self.most += 1
