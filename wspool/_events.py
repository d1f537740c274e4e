"""PURE. What an `on_event` callback is told, in the order in which it happens.

For each connection: `DialStarted`, `ConnectionReady`, then any number of `ConnectionAcquired` and
`ConnectionReleased`, then exactly one `ConnectionClosed`. The set follows the events of MongoDB's
connection monitoring and pooling specification (CMAP). Durations are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias


class CloseReason(StrEnum):
    """Why a connection left the pool."""

    IDLE = "idle_timeout"
    """It lay unused for `idle_timeout`."""
    LIFETIME = "max_lifetime"
    """It reached its `max_lifetime`."""
    USES = "max_uses"
    """It was handed out `max_uses` times."""
    NOT_REUSABLE = "not_reusable"
    """`is_reusable` said no, or raised."""
    INVALID = "validate_failed"
    """`validate` returned `False`, raised, or exceeded `validate_timeout`."""
    RESET_FAILED = "reset_failed"
    """`reset` raised or exceeded `reset_timeout`."""
    DISCARDED = "discarded"
    """Its holder discarded it, or left the `async with` block by an exception."""
    FORGOTTEN = "forgotten"
    """Its handle was garbage-collected without a release."""
    SURPLUS = "surplus"
    """More were idle than `max_idle` allows, or more were open than a smaller `max_size` allows."""
    CLEARED = "cleared"
    """It was opened, or its dial had begun, before `clear()`."""
    POOL_CLOSED = "pool_closed"
    """The pool closed."""
    TAKEN = "taken"
    """`Pooled.take()` took it out: the pool did not close it and never will."""


class DialEnd(StrEnum):
    """Why a dial brought no connection."""

    ERROR = "error"
    """`connect` raised."""
    TIMEOUT = "connect_timeout"
    """It exceeded `connect_timeout`."""
    ABANDONED = "abandoned"
    """Nobody waited for it for `abandoned_dial_grace`."""
    CLEARED = "cleared"
    """`clear()` came while it was under way."""
    POOL_CLOSED = "pool_closed"
    """The pool closed while it was under way."""


@dataclass(frozen=True, slots=True)
class DialStarted:
    """A connection is being created."""

    dial: int
    """Number of the dial, from 1, in this pool."""


@dataclass(frozen=True, slots=True)
class DialFailed:
    """A dial ended without a connection."""

    dial: int
    reason: DialEnd
    error: BaseException | None
    """The exception of `connect`, where it raised one.

    Of a dial that exceeded `connect_timeout` it is a `TimeoutError` that says so, and that exception its cause.
    """
    elapsed: float


@dataclass(frozen=True, slots=True)
class ConnectionReady:
    """A connection was opened, or given to the pool by `Pooled.insert`."""

    dial: int
    """Number of its dial; 0 for an inserted connection."""
    connection: Any
    elapsed: float
    """How long the dial took."""


@dataclass(frozen=True, slots=True)
class ConnectionAcquired:
    """A caller got a connection."""

    connection: Any
    waited: float
    """How long the caller was queued; 0 when an idle connection was there."""


@dataclass(frozen=True, slots=True)
class ConnectionReleased:
    """A holder gave a connection back; what becomes of it follows."""

    connection: Any
    held: float


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """A connection is gone: its close hook has ended."""

    connection: Any
    reason: CloseReason
    error: BaseException | None
    """What the hook that condemned it raised (`is_reusable`, `validate`, `reset`), or else `close`."""


@dataclass(frozen=True, slots=True)
class GetWaiting:
    """A caller found no idle connection and queued."""

    waiting: int
    """How many callers are queued now, this one included."""


@dataclass(frozen=True, slots=True)
class GetTimedOut:
    """A queued caller got `PoolTimeout`."""

    waited: float


PoolEvent: TypeAlias = (
    DialStarted
    | DialFailed
    | ConnectionReady
    | ConnectionAcquired
    | ConnectionReleased
    | ConnectionClosed
    | GetWaiting
    | GetTimedOut
)
"""Any of the events."""
