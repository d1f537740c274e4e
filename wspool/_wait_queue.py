"""PURE. The callers that wait for a connection, in order of arrival.

Entering, leaving and serving are O(1) amortised: a caller that leaves is only marked, and the marked
ones are swept out once they are the majority, so that the queue is never longer than twice the
number of those who wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from ._entries import Entry
    from ._jobs import Job

T = TypeVar("T")

# Sweeping a few is not worth the call.
_FEW = 32


class WaiterState(Enum):
    """What has become of a caller that queued."""

    WAITING = "In the queue. Next: RESERVED, FAILED, GONE."
    RESERVED = "A connection is its own, to be collected. Next: GONE, WAITING, FAILED."
    FAILED = "There is an error for it to raise. Next: GONE."
    GONE = "It has its connection or its error, or it left."


# Bound once: a global is cheaper than an enum's attribute.
WAITING, RESERVED, FAILED, GONE = WaiterState


class Refusal(Enum):
    """Errors whose text the shell composes, with the figures of the moment."""

    ACQUIRE_TIMEOUT = "acquire_timeout"
    CONNECT_TIMEOUT = "connect_timeout"
    CLOSED = "closed"


class Waiter(Generic[T]):
    """A caller that queued."""

    __slots__ = ("connect", "dial", "entry", "error", "parking", "since", "state", "ticket")

    def __init__(self, ticket: int, since: float, connect: Callable[[], Any] | None) -> None:
        self.state = WAITING
        self.ticket = ticket
        """Its place by arrival."""
        self.since = since
        self.connect = connect
        """What to dial for it with, if not with the pool's own."""
        self.dial: Job[T] | None = None
        """The pending dial that was started for it, while it waits."""
        self.entry: Entry[T] | None = None
        """The connection reserved for it."""
        self.error: BaseException | Refusal | None = None
        """What it has to raise."""
        self.parking: Any = None
        """The shell's own: what to wake."""


class WaitQueue(Generic[T]):
    """Waiters, first come first served."""

    __slots__ = ("_marked", "_tickets", "waiters", "waiting")

    def __init__(self) -> None:
        self.waiters: deque[Waiter[T]] = deque()
        """In order of their tickets; those that are not WAITING are to be skipped."""
        self.waiting = 0
        """How many are WAITING."""
        self._marked = 0
        self._tickets = 0

    def enter(self, now: float, connect: Callable[[], Any] | None) -> Waiter[T]:
        """A new waiter at the end."""
        self._tickets += 1
        waiter: Waiter[T] = Waiter(self._tickets, now, connect)
        self.waiters.append(waiter)
        self.waiting += 1
        return waiter

    def first(self) -> Waiter[T]:
        """The one that has waited longest. Somebody must be waiting."""
        waiters = self.waiters
        while waiters[0].state is not WAITING:
            waiters.popleft()
            self._marked -= 1
        return waiters[0]

    def serve(self) -> Waiter[T]:
        """Take out the first one, RESERVED now. Somebody must be waiting."""
        waiters = self.waiters
        waiter = waiters.popleft()
        while waiter.state is not WAITING:
            self._marked -= 1
            waiter = waiters.popleft()
        self.waiting -= 1
        waiter.state = RESERVED
        return waiter

    def leave(self, waiter: Waiter[T], state: WaiterState) -> None:
        """One that was WAITING is FAILED or GONE."""
        waiter.state = state
        self.waiting -= 1
        self._marked += 1
        if self._marked > _FEW and self._marked * 2 > len(self.waiters):
            self.waiters = deque(waiter for waiter in self.waiters if waiter.state is WAITING)
            self._marked = 0

    def re_enter(self, waiter: Waiter[T]) -> None:
        """One that was served in vain waits again, at its old place, which is at or near the front."""
        waiter.state = WAITING
        self.waiting += 1
        place = 0
        while place < len(self.waiters) and self.waiters[place].ticket < waiter.ticket:
            place += 1
        self.waiters.insert(place, waiter)

    def first_without_dial(self) -> Waiter[T]:
        """The first one that no pending dial was started for. There must be one."""
        return next(waiter for waiter in self.waiters if waiter.state is WAITING and waiter.dial is None)
