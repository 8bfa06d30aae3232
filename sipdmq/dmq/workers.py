"""
The queue of KDMQ jobs: C{num_workers} of them at once, those about one record in the order in which they came.

No threads: a job is a function that may give a Deferred, and is in work until that has fired.

A job is begun as soon as it is there, but only for some milliseconds in a row: then what else has arrived is taken from
the sockets first. A Kamailio sends all that it has at once, and repeats what has no answer in half a second: what the
kernel has no room for would come again and again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import classImplements

from sipdmq.interfaces.inspection import IInspectable

__all__ = ["Workers"]

log = Logger()

TURN: Final = 32
"""Jobs begun in a row at most: then whatever else the reactor has gets its turn."""

TURN_TIME: Final = 0.002
"""Seconds of the same."""

REST: Final = 0.0005
"""Seconds without a job after which the next one is not in the same row."""

JOB_SIZE: Final = 1000
"""Bytes to count for a job beside its message: what Python needs to hold it."""


class _Job:
    """
    @ivar is_lined_up: others find it by its keys, and wait for it.
    """

    __slots__ = ("find_keys", "followers", "group", "is_lined_up", "keys", "run", "size", "waits_for")

    def __init__(
        self, group: str, find_keys: Callable[[], Sequence[str]], run: Callable[[], Any], size: int
    ) -> None:
        self.group = group
        self.find_keys = find_keys
        self.keys: tuple[str, ...] = ()
        self.run = run
        self.size = size
        self.is_lined_up = False
        self.waits_for = 0
        self.followers: list[_Job] = []


class _Group:
    """
    The jobs of one channel that are not done.

    @ivar tails: the last one for each key.
    @ivar barrier: the last one that concerns all keys.
    @ivar since: those that came after it.
    """

    __slots__ = ("barrier", "since", "tails")

    def __init__(self) -> None:
        self.tails: dict[str, _Job] = {}
        self.barrier: _Job | None = None
        self.since: dict[_Job, None] = {}


class Workers:
    """
    See the module. Kamailio's workers take jobs of one node in any order (WIRE §1); these do not.
    """

    def __init__(self, clock: IReactorTime, num_workers: int, usleep: int, limit: int) -> None:
        """
        @param num_workers: jobs in work at once.
        @param usleep: 0: a job is begun at once if there is a worker for it; else the queue is looked at every so many
            microseconds.
        @param limit: bytes of messages that may wait or be in work.
        """
        self._clock = IReactorTime(clock)
        self._num_workers = num_workers
        self._pause = usleep / 1e6
        self._limit = limit
        self._groups: dict[str, _Group] = {}
        self._slow: set[str] = set()  # groups of which a job was not done at once
        self._arrived: deque[_Job] = deque()  # nobody has looked into them yet
        self._ready: deque[_Job] = deque()
        self._turn_ends_at = 0.0
        self._worked_at = float("-inf")
        self._count = 0
        self._running = 0
        self._size = 0
        self._call: IDelayedCall | None = None
        self._is_looking = False
        self._is_stopped = False
        self._done = 0
        self._turned_away = 0

    def snapshot(self) -> dict[str, int | float]:
        """
        See L{IInspectable.snapshot}.
        """
        return {
            "dmq.jobs": self._count,
            "dmq.jobs_running": self._running,
            "dmq.jobs_bytes": self._size,
            "dmq.jobs_done": self._done,
            "dmq.jobs_turned_away": self._turned_away,
        }

    def submit(self, group: str, keys: Callable[[], Sequence[str]], run: Callable[[], Any], size: int) -> bool:
        """
        Have something done.

        @param group: the channel: keys of different ones have nothing to do with one another.
        @param keys: gives those of the records it is about, asked when its turn comes, where there is anything to wait
            for; none: it waits for all before it, and all behind it for it. It must not raise.
        @param run: does it; may give a Deferred. It has to report itself what goes wrong.
        @param size: bytes of its message.
        @return: whether it will be done; if not, there is too much already.
        """
        size += JOB_SIZE
        if self._is_stopped or self._size + size > self._limit:
            self._turned_away += 1
            return False
        self._arrived.append(_Job(group, keys, run, size))
        self._size += size
        self._count += 1
        if self._call is None:  # else that turn comes to it
            self._look_soon() if self._pause or self._is_turn_over() else self._look()
        return True

    def _is_turn_over(self) -> bool:
        """
        Whether there has been nothing but jobs for so long that others are to have their turn.
        """
        now = self._clock.seconds()
        if now - self._worked_at > REST:
            self._turn_ends_at = now + TURN_TIME
        return now > self._turn_ends_at

    def _line_up(self, job: _Job) -> None:
        """
        Put a job behind those that it has to wait for.
        """
        job.is_lined_up = True
        job.keys = tuple(dict.fromkeys(job.find_keys()))
        group = self._groups.get(job.group)
        if group is None:
            group = self._groups[job.group] = _Group()
        before: dict[_Job, None] = {} if group.barrier is None else {group.barrier: None}
        if job.keys:
            for key in job.keys:
                tail = group.tails.get(key)
                if tail is not None:
                    before[tail] = None
                group.tails[key] = job
            group.since[job] = None
        else:
            before.update(group.since)
            group.since = {}
            group.tails = {}
            group.barrier = job
        for each in before:
            each.followers.append(job)
        job.waits_for = len(before)

    def _look_soon(self) -> None:
        if self._call is None and not self._is_stopped:
            self._call = self._clock.callLater(self._pause, self._look_now)

    def _look_now(self) -> None:
        self._call = None
        self._turn_ends_at = self._clock.seconds() + TURN_TIME
        self._look()

    def _look(self) -> None:
        """
        Begin what can begin. A job that is done at once comes back here by L{_finished}: the loop goes on then.
        """
        if self._is_looking:
            return
        self._is_looking = True
        turn = TURN
        while self._has_work() and turn and not self._is_stopped:
            if self._ready:
                turn -= 1
                self._begin(self._ready.popleft())
            else:
                job = self._arrived.popleft()
                if self._groups or job.group in self._slow:
                    self._line_up(job)
                if not job.waits_for:
                    turn -= 1
                    self._begin(job)
            self._worked_at = self._clock.seconds()
            if self._worked_at > self._turn_ends_at:
                break
        self._is_looking = False
        if self._has_work():
            self._look_soon()

    def _has_work(self) -> bool:
        return bool(self._ready or self._arrived) and self._running < self._num_workers

    def _begin(self, job: _Job) -> None:
        self._running += 1
        try:
            result = job.run()
        except Exception:  # noqa: BLE001 - the edge to the channels: one that breaks stops no other
            log.failure("a job of channel {channel} broke", channel=job.group)
            result = None
        if isinstance(result, Deferred):
            if not job.is_lined_up:  # nobody was before it; that others may be behind it, shows only now
                self._slow.add(job.group)
                self._line_up(job)
            result.addErrback(self._broke, job)
            result.addCallback(self._finished, job)
        else:
            self._finished(None, job)

    def _broke(self, failure: Any, job: _Job) -> None:
        log.failure("a job of channel {channel} broke", failure, channel=job.group)

    def _finished(self, result: object, job: _Job) -> None:
        self._running -= 1
        self._count -= 1
        self._size -= job.size
        self._done += 1
        if job.is_lined_up:
            self._step_aside(job)
        if self._pause and (self._ready or self._arrived):
            self._look_soon()
        elif not self._is_looking:
            self._look()

    def _step_aside(self, job: _Job) -> None:
        group = self._groups[job.group]
        for key in job.keys:
            if group.tails.get(key) is job:
                del group.tails[key]
        group.since.pop(job, None)
        if group.barrier is job:
            group.barrier = None
        if not group.since and group.barrier is None:
            del self._groups[job.group]
        for follower in job.followers:
            follower.waits_for -= 1
            if not follower.waits_for:
                self._ready.append(follower)

    def stop(self) -> None:
        """
        Begin nothing any more.
        """
        self._is_stopped = True
        self._ready.clear()
        self._arrived.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None


classImplements(Workers, IInspectable)
