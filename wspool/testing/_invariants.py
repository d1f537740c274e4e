"""What must hold in every pool between any two steps: invariants S1, S3, S7-S9, S12, S13, S15 and L1-L4.

Their numbers are those of `docs/design/invariants.md`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .._jobs import JobKind
from .._wait_queue import WAITING

if TYPE_CHECKING:
    from .._pool import Pool
    from .._pool_state import PoolState


def check_invariants(pool: Pool[Any]) -> None:
    """AssertionError, saying which, if an invariant of the pool is broken. For tests, at any time."""
    # What waits for a timer that is late is not overdue yet.
    check_state(pool._state, min(pool._now(), math.nextafter(pool._state.alarm, -math.inf)), opened=pool._entered)


def check_state(state: PoolState[Any], now: float, *, opened: bool = True) -> None:
    """The same for the state machine alone."""
    _check_places(state, now)
    _check_queue(state)
    _check_dials(state)
    if opened:
        _check_progress(state, now)


def _check_places(state: PoolState[Any], now: float) -> None:
    entries = list(state.entries.all)
    connections = [id(entry.connection) for entry in entries]
    assert len(connections) == len(set(connections)), "S7: a connection is in two entries"
    dials = sum(job.kind is JobKind.CONNECT for job in state.jobs)
    assert dials == state.dials.running, "S15: dials are miscounted"
    assert state.places == len(entries) + dials + state._taken, "S1: places are miscounted"
    figures = state.statistics(now)
    in_hand = figures.idle + figures.held + figures.reserved
    in_work = figures.validating + figures.resetting + figures.closing
    assert len(entries) == in_hand + in_work, "S1: a connection is in no state"
    gone = figures.closed + figures.takes
    assert figures.opened + figures.inserted == in_hand + in_work + gone, "S1: connections are miscounted"
    dials_ended = figures.dials_won + figures.dials_failed + figures.dials_abandoned + figures.dials_cancelled
    spares = figures.dials_spare_unused + figures.dials_spare_used + figures.dials_spare_wasted
    assert figures.dials == figures.dialling + dials_ended + spares, "S11: a dial is not accounted for"
    assert min(figures.size, figures.held, figures.waiting, figures.taken, figures.closing) >= 0, "S15: negative"
    assert state._unused <= set(entries), "a spare connection is gone but not accounted for"
    assert state._retired <= set(entries), "a retired connection is gone but remembered"
    for job in state.jobs:
        assert job.entry is None or job.entry.owner is job, "S7: a job works on what it does not own"
    assert state._closes == figures.closing, "S15: closes are miscounted"
    if state.closing:
        assert not figures.idle, "S8: idle after closing began"
        assert not figures.reserved, "S8: reserved after closing began"
    _check_idle(state)


def _check_idle(state: PoolState[Any]) -> None:
    stack = list(state.entries.stack())
    assert len(stack) == state.entries.idle, "S15: idle ones are miscounted"
    assert len(stack) <= state._max_idle, "S9: more idle than max_idle"
    assert not stack or state._surplus() <= 0, "S3: idle connections beyond a smaller max_size"
    assert set(stack) <= set(state.entries.all), "S1: an idle connection is not among the open ones"
    ages = [entry.since for entry in stack]
    assert ages == sorted(ages, reverse=True), "idle ones are out of order"
    assert not state._retired & set(stack), "S19: a retired connection is idle"


def _check_queue(state: PoolState[Any]) -> None:
    queue = state.queue
    waiting = [waiter for waiter in queue.waiters if waiter.state is WAITING]
    assert len(waiting) == queue.waiting, "S15: waiters are miscounted"
    assert len(queue.waiters) - len(waiting) == queue._marked, "S13: departed waiters are miscounted"
    assert queue._marked <= max(33, len(queue.waiters) // 2 + 1), "S13: departed waiters pile up"
    tickets = [waiter.ticket for waiter in waiting]
    assert tickets == sorted(tickets), "L2: the queue is out of order"
    for entry in state.entries.reserved():
        assert entry.owner.state.name == "RESERVED", "a connection is reserved for nobody"
        assert entry.owner.entry is entry, "S7: a waiter has another connection than is reserved for it"
    if state.closing:
        assert not queue.waiting, "L7: a waiter was not failed when closing began"


def _check_dials(state: PoolState[Any]) -> None:
    book = state.dials
    live = [job for job in state.jobs if job.kind is JobKind.CONNECT and job.cancelled is None]
    owned = [job for job in live if job.waiter is not None]
    for job in owned:
        assert job.waiter is not None
        assert job.waiter.dial is job, "a dial and its waiter disagree"
        assert job.waiter.state is WAITING, "a dial belongs to somebody who does not wait"
    assert len(owned) == book.owned, "S15: owned dials are miscounted"
    assert set(book.spare) | set(book.abandoned) == set(live) - set(owned), "S12: a dial is lost track of"
    assert not set(book.spare) & set(book.abandoned), "a dial is both spare and abandoned"
    assert not (state.closing and live), "L7: a dial goes on after closing began"
    checks = sum(job.kind is JobKind.VALIDATE and job.cancelled is None for job in state.jobs)
    assert checks == state._checks, "S15: checks are miscounted"
    wanted = max(0, state.queue.waiting - checks) + max(0, state.settings.min_idle - state.entries.idle)
    kept = book.owned + len(book.spare)
    assert kept <= max(wanted, book.owned), "S12: a dial that nobody needs has no end"
    assert not book.abandoned or kept >= wanted, "S12: a dial that somebody waits for is abandoned"
    assert book.running <= max(state._max_connecting, 0), "S12: more dials at once than max_connecting"


def _check_progress(state: PoolState[Any], now: float) -> None:
    waiting = state.queue.waiting
    assert not (state.entries.idle and waiting > state._checks), "L1: idle connections while somebody waits"
    if waiting > state._supply() and state._may_dial():
        waiter = state.queue.first_without_dial()
        assert not state._is_ripe(waiter, now), "L1: a dial is allowed and wanted, but not started"
    assert not waiting or state.places, "L4: somebody waits and nothing can serve"
    if state._may_refill():
        assert now < state.dials.retry_at, "L11: min_idle is not kept"
    assert state.alarm <= state._next_deadline(), "L5: the timer is set too late"
    if state.places == state._taken and not waiting and not state._lacks_idle():
        assert state.alarm == float("inf"), "L10: a timer runs in an empty pool"
