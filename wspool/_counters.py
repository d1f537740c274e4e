"""PURE. What a pool counts. Their meanings are in `_statistics`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Counts since the pool was made; those of the hot path are elsewhere."""

    acquired_waiting: int = 0
    timed_out: int = 0
    failed: int = 0
    cancelled: int = 0
    rejected: int = 0
    opened: int = 0
    inserted: int = 0
    closed: int = 0
    takes: int = 0
    dials_won: int = 0
    dials_spare_used: int = 0
    dials_spare_wasted: int = 0
    dials_failed: int = 0
    dials_abandoned: int = 0
    dials_cancelled: int = 0
    hook_errors: int = 0
    last_dial_error: BaseException | None = None
