"""PURE. The dials under way: whom they are for, which ones nobody waits for, and when to dial again.

A pending dial is owned by the waiter that it was started for, while that one waits. When its owner
is served otherwise or leaves, the dial goes on as a spare, for the next waiter or to be kept. Spares
beyond what anybody waits for are abandoned: they end when their grace is over, unless they are
adopted again before.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from ._jobs import Job
    from ._wait_queue import Waiter

T = TypeVar("T")

# Automatic dials after failures: async-http-client begins at 100 ms; r2d2, bb8 and HikariCP double;
# 30 s is bb8's longest with its default connection_timeout.
FIRST_BACKOFF = 0.1
LONGEST_BACKOFF = 30.0


class DialBook(Generic[T]):
    """Pending dials, and the pace of the automatic ones."""

    __slots__ = ("_round_end", "_rounds", "_told", "abandoned", "owned", "retry_at", "running", "spare", "started")

    def __init__(self) -> None:
        self.started = 0
        """Since the pool began."""
        self.running = 0
        """Under way, those being cancelled included."""
        self.owned = 0
        """Pending, and their waiter waits."""
        self.spare: dict[Job[T], None] = {}
        self.abandoned: dict[Job[T], None] = {}
        self.retry_at = -math.inf
        """Before that time no automatic dial starts."""
        self._rounds = 0
        """Of failures, since a dial has succeeded."""
        self._round_end = 0
        """The last dial of the newest round."""
        self._told: int | None = None
        """The newest round that is in the log, since a dial has succeeded."""

    @property
    def pending(self) -> int:
        """How many may yet bring a connection."""
        return self.owned + len(self.spare) + len(self.abandoned)

    def add(self, job: Job[T], waiter: Waiter[T] | None) -> None:
        """A dial begins, for a waiter or of the pool's own accord."""
        self.started += 1
        self.running += 1
        job.number = self.started
        if waiter is None:
            self.spare[job] = None
        else:
            self.owned += 1
            waiter.dial = job
            job.waiter = waiter
            job.connect = waiter.connect

    def disown(self, waiter: Waiter[T]) -> None:
        """The waiter does not wait any more: its dial, if any, goes on without it."""
        job = waiter.dial
        if job is not None:
            waiter.dial = job.waiter = None
            self.owned -= 1
            self.spare[job] = None

    def strike(self, job: Job[T]) -> None:
        """The dial has ended or is being cancelled: nobody can hope for it."""
        waiter = job.waiter
        if waiter is not None:
            waiter.dial = job.waiter = None
            self.owned -= 1
        else:
            self.spare.pop(job, None)
            self.abandoned.pop(job, None)

    def settle(self, wanted: int, now: float, grace: float, limit: float) -> float:
        """Abandon the dials beyond the `wanted` ones, or adopt abandoned ones again.

        Returns the earliest new deadline, or infinity.
        """
        earliest = math.inf
        while self.spare and self.owned + len(self.spare) > wanted:
            job, _ = self.spare.popitem()
            job.deadline = min(job.deadline, now + grace)
            self.abandoned[job] = None
            earliest = min(earliest, job.deadline)
        while self.abandoned and self.owned + len(self.spare) < wanted:
            job, _ = self.abandoned.popitem()
            job.deadline = job.started + limit
            self.spare[job] = None
        return earliest

    def note_success(self) -> bool:
        """Automatic dials may start at once. True if the log says that dials fail."""
        told, self._told = self._told, None
        self._rounds = 0
        self.retry_at = -math.inf
        return told is not None

    def note_failure(self, dial: int, now: float, jitter: float) -> None:
        """Postpone automatic dials: twice as long after each round of failures, less up to a half by `jitter`.

        The first failure of a round is that of a dial which began after the one before was noted. All that had begun
        by then belong to the round: dials that fail side by side tell of one trouble, not of several.
        """
        if dial > self._round_end or not self._rounds:
            self._rounds += 1
            self._round_end = self.started
        pause = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(self._rounds - 1, 20))
        self.retry_at = now + pause * (1 - jitter / 2)

    def tell(self) -> bool:
        """Whether to log the failure that was noted last, as nobody else is told of it: of each round, one is."""
        told, self._told = self._told, self._rounds
        return told != self._rounds
