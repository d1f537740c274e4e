"""PURE. Orders of the state machine to its shell: effects, and the jobs that they start."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from ._entries import Entry
    from ._events import CloseReason, DialEnd
    from ._wait_queue import Waiter

T = TypeVar("T")


class Effect(Enum):
    """What the shell has to do after a fact, in order."""

    WAKE = "Resume this waiter."
    START = "Start a task for this job and report how it ended."
    CANCEL = "Cancel this job's task."
    ALARM = "Set the timer anew, to `alarm`."
    NOTIFY = "Hand this event to the observer."
    LOG = "Log this exception of a hook."
    LOG_DIAL = "Log this error of a dial that nobody waits for; or, if it is None, that dials succeed again."


class JobKind(Enum):
    """Asynchronous work that the pool does in tasks of its own."""

    CONNECT = "Open a connection."
    VALIDATE = "Ask the validate hook about a connection."
    RESET = "Prepare a released connection for its next user."
    CLOSE = "Close a connection."


class Job(Generic[T]):
    """A piece of asynchronous work: under way until its end is reported, perhaps cancelled before."""

    __slots__ = (
        "cancelled",
        "cleared",
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
        self.cancelled: DialEnd | CloseReason | None = None
        """Why it was cancelled: a `DialEnd` for a dial, else a `CloseReason`."""
        self.entry: Entry[T] | None = None
        """What it works on; None for a dial."""
        self.number = 0
        """For a dial: which one of the pool, from 1."""
        self.waiter: Waiter[T] | None = None
        """For a dial: the waiter that it was started for, while that one waits."""
        self.connect: Callable[[], Any] | None = None
        """For a dial: what to open the connection with, if not the pool's own."""
        self.cleared = False
        """For a dial: it began before a `clear()`, so what it brings must not be used."""
        self.reason: CloseReason | None = None
        """For a close: why."""
        self.error: BaseException | None = None
        """For a close: the exception that condemned the connection; for a dial: what says that it took too long."""
        self.forced = False
        """For a close: do not wait for anything."""
        self.scope: Any = None
        """The shell's own: the cancel scope of the task."""
