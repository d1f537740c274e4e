"""PURE. The parts that the pool's state machine is made of: entries, waiters, jobs, effects.

They hold data and no rules; the rules are in `_pool_state`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class EntryState(Enum):
    """Where a connection is. Not stored: an entry is in exactly one container of the machine."""

    IDLE = "In the stack of idle connections, free to take. Next: HELD, RESERVED, VALIDATING, CLOSING."
    RESERVED = "Handed to a waiter whose task has not resumed. Next: HELD, or back to RESERVED, IDLE, CLOSING."
    HELD = "With a user. Next: RESERVED, IDLE, RESETTING, CLOSING, or GONE by take()."
    VALIDATING = "With the validate hook. Next: RESERVED, IDLE, CLOSING."
    RESETTING = "With the reset hook, after a release. Next: RESERVED, IDLE, CLOSING."
    CLOSING = "With the close hook; its place is still counted. Next: GONE."
    GONE = "The pool knows it no longer."


class WaiterState(Enum):
    """What has become of a caller that queued."""

    WAITING = "In the queue. Next: RESERVED, FAILED, GONE."
    RESERVED = "A connection is its own, to be collected. Next: GONE, or WAITING if that one is unfit after all."
    FAILED = "There is an error for it to raise. Next: GONE."
    GONE = "It has its connection or its error, or it left."


class JobKind(Enum):
    """Asynchronous work that the pool does in tasks of its own."""

    CONNECT = "Open a connection."
    VALIDATE = "Ask the validate hook about a connection."
    RESET = "Prepare a released connection for its next user."
    CLOSE = "Close a connection."


class Refusal(Enum):
    """Errors whose text the shell composes, with the figures of the moment."""

    ACQUIRE_TIMEOUT = "acquire_timeout"
    CONNECT_TIMEOUT = "connect_timeout"
    CLOSED = "closed"


class Effect(Enum):
    """What the shell has to do after a fact, in order."""

    WAKE = "Resume this waiter."
    START = "Start a task for this job and report how it ended."
    CANCEL = "Cancel this job's task."
    ALARM = "Set the timer anew, to `alarm`."
    NOTIFY = "Hand this event to the observer."
    LOG = "Log this exception of a hook."


class Entry(Generic[T]):
    """One open connection. Two slots: with its place among the idle ones it costs 56 bytes."""

    __slots__ = ("connection", "since")

    connection: T
    since: float
    """When it was last taken (while lent) or last given back (while idle)."""

    def __init__(self, connection: T) -> None:
        self.connection = connection


class TrackedEntry(Entry[T]):
    """An entry of a pool that limits lifetime or uses, or that validates."""

    __slots__ = ("check_at", "fresh_until", "retire_at", "uses")

    def __init__(self, connection: T) -> None:
        super().__init__(connection)
        self.uses = 0
        self.retire_at = math.inf
        self.fresh_until = math.inf
        """Until then it is handed out unchecked."""
        self.check_at = math.inf
        """From then on it is due for a check in the background."""


class Waiter(Generic[T]):
    """A caller that queued."""

    __slots__ = ("connect", "dial", "error", "entry", "parking", "since", "state", "ticket")

    def __init__(self, ticket: int, since: float, connect: Callable[[], Any] | None) -> None:
        self.state = WaiterState.WAITING
        self.ticket = ticket
        self.since = since
        self.connect = connect
        self.dial: Job[T] | None = None
        """The pending dial that was started for this waiter."""
        self.entry: Entry[T] | None = None
        """The connection reserved for it."""
        self.error: BaseException | Refusal | None = None
        self.parking: Any = None
        """The shell's own: what to wake."""


class Job(Generic[T]):
    """A piece of asynchronous work: RUNNING until its end is reported, perhaps cancelled before."""

    __slots__ = (
        "cancelled",
        "connect",
        "deadline",
        "entry",
        "error",
        "forced",
        "kind",
        "number",
        "reason",
        "scope",
        "started",
        "waiter",
    )

    def __init__(self, kind: JobKind, started: float, deadline: float) -> None:
        self.kind = kind
        self.started = started
        self.deadline = deadline
        self.cancelled: Enum | None = None
        """Why it was cancelled: a `DialEnd` for a dial, else a `CloseReason`."""
        self.entry: Entry[T] | None = None
        self.number = 0
        self.waiter: Waiter[T] | None = None
        """For a dial: the waiter that it was started for, while that one waits."""
        self.connect: Callable[[], Any] | None = None
        self.reason: Any = None
        """For a close: why."""
        self.error: BaseException | None = None
        """For a close: the exception that condemned the connection."""
        self.forced = False
        """For a close: do not wait for anything."""
        self.scope: Any = None
        """The shell's own: the cancel scope of the task."""
