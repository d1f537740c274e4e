"""PURE. One consistent snapshot of a pool, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """What `Pool.statistics()` returns: sizes now, then counts since the pool was made.

    These sums always hold:

    - `size = idle + held + reserved + dialling + validating + resetting + closing + taken`
    - `opened + inserted = idle + held + reserved + validating + resetting + closing + closed + takes`
    - `dials = dialling + dials_won + dials_spare_unused + dials_spare_used + dials_spare_wasted +
      dials_failed + dials_abandoned + dials_cancelled`
    """

    size: int
    """Places in use, out of `max_size`."""
    idle: int
    held: int
    """Handed out and not yet released."""
    reserved: int
    """Handed to a caller whose task has not resumed yet."""
    dialling: int
    """Dials under way, those being cancelled included."""
    validating: int
    resetting: int
    closing: int
    taken: int
    """Places kept by handles that `take()` emptied."""
    waiting: int
    """Callers in the queue."""

    max_size: int | None
    """None for no limit."""
    max_idle: int | None
    """As set, else `max_size`."""
    min_idle: int

    acquired: int
    """Gets that returned a connection."""
    acquired_waiting: int
    """Those of them that had to queue first."""
    timed_out: int
    """Gets that ended with `PoolTimeout`."""
    failed: int
    """Gets that ended with the error of their own dial."""
    cancelled: int
    """Gets whose caller was cancelled while queued."""
    rejected: int
    """Gets that ended with `PoolFull` or, while queued, with `PoolClosed`."""

    opened: int
    """Connections that dials brought."""
    inserted: int
    """Connections that `Pooled.insert` brought."""
    closed: int
    """Connections whose close has ended."""
    takes: int
    """Connections that `Pooled.take` took out."""

    dials: int
    """Dials started."""
    dials_won: int
    """They served a waiting caller the moment they were ready."""
    dials_spare_unused: int
    """Nobody waited any more, or they were for `min_idle`: idle now, never used yet."""
    dials_spare_used: int
    """The same, but used later."""
    dials_spare_wasted: int
    """The same, but closed before any use."""
    dials_failed: int
    """They raised, exceeded `connect_timeout`, or brought what `is_reusable` refused at once."""
    dials_abandoned: int
    """Cancelled because nobody waited for them for `abandoned_dial_grace`."""
    dials_cancelled: int
    """Cancelled by `clear()` or by closing the pool."""

    hook_errors: int
    """Exceptions and time-outs of `is_reusable`, `validate`, `reset`, `close` and `on_event`."""
    last_dial_error: BaseException | None
    """Why the newest of the failed dials failed; `None` again after a dial has succeeded.

    It is what `connect` raised, or a `TimeoutError` of the pool's own if it exceeded `connect_timeout`.
    """
    longest_held: float
    """For how long the longest holder has held its connection, in seconds; 0 when none is held."""
