"""PURE. Every open connection, and among them the stack of the idle ones.

An entry says itself who has it, so that it cannot be in two places: `Entry.owner` is

- while idle: the next older idle entry (`BOTTOM` for the oldest): the stack is a linked list;
- while reserved: the waiter that it is reserved for;
- while validated, reset or closed: the job that does it;
- while held: a weak reference to the task that holds it, or None for a caller in no task. A strong
  one would keep a forgotten handle alive for ever where it is its task's result: pool, entry, task,
  result, handle.

With its place in `Entries.all` an idle connection costs 64 bytes. A set of the lent ones would cost
a tenth of a hit, and a set of all twice the memory (docs/decisions).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Any, Generic, TypeVar

from ._jobs import Job, JobKind
from ._wait_queue import Waiter

T = TypeVar("T")


class EntryState(Enum):
    """Where a connection is. Not stored: it follows from the entry's owner."""

    IDLE = "Free to take. Next: HELD, RESERVED, VALIDATING, CLOSING."
    RESERVED = "Handed to a waiter whose task has not resumed. Next: HELD, RESERVED, IDLE, CLOSING."
    HELD = "With a user. Next: RESERVED, IDLE, RESETTING, CLOSING, GONE."
    VALIDATING = "With the validate hook. Next: RESERVED, IDLE, CLOSING."
    RESETTING = "With the reset hook, after a release. Next: RESERVED, IDLE, CLOSING."
    CLOSING = "With the close hook; its place is still counted. Next: GONE."
    GONE = "The pool knows it no longer."


_BY_JOB = {
    JobKind.VALIDATE: EntryState.VALIDATING,
    JobKind.RESET: EntryState.RESETTING,
    JobKind.CLOSE: EntryState.CLOSING,
}


class Entry(Generic[T]):
    """One open connection."""

    __slots__ = ("connection", "owner", "since")

    owner: Any
    """Who has it; see above."""
    since: float
    """When it was lent, while it is lent; when it became idle, while it is idle."""

    def __init__(self, connection: T, now: float) -> None:
        self.connection = connection
        self.owner = None
        self.since = now

    @property
    def state(self) -> EntryState:
        """Where it is, while the pool knows it."""
        owner = self.owner
        if isinstance(owner, Entry):
            return EntryState.IDLE
        if isinstance(owner, Waiter):
            return EntryState.RESERVED
        if isinstance(owner, Job):
            return _BY_JOB[owner.kind]
        return EntryState.HELD


class TrackedEntry(Entry[T]):
    """An entry of a pool that limits lifetime or uses, or that validates."""

    __slots__ = ("check_at", "fresh_until", "retire_at", "uses")

    def __init__(self, connection: T, now: float) -> None:
        super().__init__(connection, now)
        self.uses = 0
        self.retire_at = math.inf
        self.fresh_until = math.inf
        """Until then it is handed out unchecked."""
        self.check_at = math.inf
        """From then on it is due for a check in the background."""


class Bottom(Entry[Any]):
    """What lies under the oldest idle entry of every pool."""

    __slots__ = ()


BOTTOM = Bottom(None, 0.0)


class Entries(Generic[T]):
    """All open connections in the order of their opening; the idle ones linked, newest on top."""

    __slots__ = ("all", "idle", "top")

    def __init__(self) -> None:
        self.all: deque[Entry[T]] = deque()
        self.top: Entry[T] = BOTTOM
        self.idle = 0
        """How many are idle."""

    def push(self, entry: Entry[T]) -> None:
        """It is idle now, and the newest. The hot methods of PoolState do this, and `pop`, in place."""
        entry.owner = self.top
        self.top = entry
        self.idle += 1

    def pop(self) -> Entry[T]:
        """Take the newest idle one. There must be one; its owner is to be set."""
        entry = self.top
        self.top = entry.owner
        entry.owner = None
        self.idle -= 1
        return entry

    def stack(self) -> Iterator[Entry[T]]:
        """The idle ones, newest first."""
        entry = self.top
        while entry is not BOTTOM:
            yield entry
            entry = entry.owner

    def oldest(self) -> Entry[T]:
        """The one that has been idle longest. There must be one."""
        *_, oldest = self.stack()
        return oldest

    def drain(self) -> list[Entry[T]]:
        """Take all the idle ones, newest first; their owners are to be set."""
        idle = list(self.stack())
        self.top = BOTTOM
        self.idle = 0
        for entry in idle:
            entry.owner = None
        return idle

    def insert(self, entry: Entry[T]) -> None:
        """It is idle again, but not since now: put it where its `since` belongs."""
        above = None
        for other in self.stack():
            if other.since <= entry.since:
                break
            above = other
        if above is None:
            self.push(entry)
        else:
            entry.owner = above.owner
            above.owner = entry
            self.idle += 1

    def held(self) -> list[Entry[T]]:
        """Those that a user has."""
        return [entry for entry in self.all if entry.state is EntryState.HELD]

    def reserved(self) -> list[Entry[T]]:
        """Those that wait to be collected."""
        return [entry for entry in self.all if entry.state is EntryState.RESERVED]
