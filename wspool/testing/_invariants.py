"""What must hold in every pool between any two steps: invariants S1, S3, S7-S9, S12, S13, S15 and L1-L4.

Their numbers are those of `docs/design/invariants.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._pool_parts import JobKind, Waiter, WaiterState

if TYPE_CHECKING:
    from .._pool import Pool
    from .._pool_state import PoolState


def check_invariants(pool: Pool[Any]) -> None:
    """AssertionError, saying which, if an invariant of the pool is broken. For tests, at any time."""
    check_state(pool._state, pool._now())


def check_state(state: PoolState[Any], now: float) -> None:
    """The same for the state machine alone."""
    _check_places(state, now)
    _check_queue(state)
    _check_dials(state)
    _check_progress(state, now)


def _check_places(state: PoolState[Any], now: float) -> None:
    entries = list(state.entries())
    assert len(entries) == len(set(map(id, entries))), "S7: an entry is in two containers"
    connections = [id(entry.connection) for entry in entries]
    assert len(connections) == len(set(connections)), "S7: a connection is in two entries"
    dials = sum(job.kind is JobKind.CONNECT for job in state.jobs)
    assert dials == state._dialling, "S15: dials are miscounted"
    assert state.places == len(entries) + dials + state._taken, "S1: places are miscounted"
    figures = state.statistics(now)
    in_hand = figures.idle + figures.held + figures.reserved
    in_work = figures.validating + figures.resetting + figures.closing
    gone = figures.closed + figures.takes
    assert figures.opened + figures.inserted == in_hand + in_work + gone, "S1: connections are miscounted"
    dials_ended = figures.dials_won + figures.dials_failed + figures.dials_abandoned + figures.dials_cancelled
    spares = figures.dials_spare_unused + figures.dials_spare_used + figures.dials_spare_wasted
    assert figures.dials == figures.dialling + dials_ended + spares, "S11: a dial is not accounted for"
    assert min(figures.size, figures.held, figures.waiting, figures.taken, figures.closing) >= 0, "S15: negative"
    assert len(state.idle) <= state._max_idle, "S9: more idle than max_idle"
    ages = [entry.since for entry in state.idle]
    assert ages == sorted(ages), "idle entries are out of order"
    assert state._unused <= set(entries), "a spare connection is gone but not accounted for"
    assert state._retired <= set(entries), "a retired connection is gone but remembered"
    assert not state._retired & set(state.idle), "S19: a retired connection is idle"
    if state.closing:
        assert not state.idle, "S8: idle after closing began"
        assert not figures.reserved, "S8: reserved after closing began"


def _check_queue(state: PoolState[Any]) -> None:
    waiting = [waiter for waiter in state.queue if waiter.state is WaiterState.WAITING]
    assert len(waiting) == state.waiting, "S15: waiters are miscounted"
    assert len(state.queue) - len(waiting) == state._gone, "S13: departed waiters are miscounted"
    assert state._gone <= max(33, len(state.queue) // 2 + 1), "S13: departed waiters pile up"
    tickets = [waiter.ticket for waiter in waiting]
    assert tickets == sorted(tickets), "L2: the queue is out of order"
    for entry, borrower in state.lent.items():
        if isinstance(borrower, Waiter):
            assert borrower.state is WaiterState.RESERVED, "a connection is reserved for nobody"
            assert borrower.entry is entry, "S7: a waiter has another connection than is reserved for it"
    if state.closing:
        assert not state.waiting, "L7: a waiter was not failed when closing began"


def _check_dials(state: PoolState[Any]) -> None:
    live = [job for job in state.jobs if job.kind is JobKind.CONNECT and job.cancelled is None]
    owned = [job for job in live if job.waiter is not None]
    for job in owned:
        assert job.waiter is not None
        assert job.waiter.dial is job, "a dial and its waiter disagree"
        assert job.waiter.state is WaiterState.WAITING, "a dial belongs to somebody who does not wait"
    assert len(owned) == state._owned, "S15: owned dials are miscounted"
    loose = set(state._spare) | set(state._abandoned)
    assert loose == set(live) - set(owned), "S12: a dial is lost track of"
    assert not set(state._spare) & set(state._abandoned), "a dial is both spare and abandoned"
    checks = sum(job.kind is JobKind.VALIDATE and job.cancelled is None for job in state.jobs)
    assert checks == state._checks, "S15: checks are miscounted"
    assert state._closes == sum(job.kind is JobKind.CLOSE for job in state.jobs), "S15: closes are miscounted"
    lacking = max(0, state.settings.min_idle - len(state.idle))
    wanted = max(0, state.waiting - checks) + lacking
    assert len(owned) + len(state._spare) <= max(wanted, len(owned)), "S12: a dial that nobody needs has no end"
    assert not (state._abandoned and len(owned) + len(state._spare) < state.waiting - checks), (
        "S12: a dial that somebody waits for is abandoned"
    )


def _check_progress(state: PoolState[Any], now: float) -> None:
    assert not (state.idle and state.waiting > state._checks), "L1: idle connections while somebody waits"
    served_by = state._supply() + len(state.lent) + len(state.jobs) + state._taken
    if state.waiting > state._supply() and state._may_dial():
        waiter = state._first_undialled()
        assert not state._is_ripe(waiter, now), "L1: a dial is allowed and wanted, but not started"
        assert state.alarm <= waiter.since + state.settings.race_delay, "L4: no timer for a delayed dial"
    assert not state.waiting or served_by, "L4: somebody waits and nothing can serve"
    if state._lacks_idle() and state._may_dial():
        assert now < state._retry_at, "L11: min_idle is not kept"
    assert state.alarm <= state._next_deadline(), "L5: the timer is set too late"
    if not state.places and not state.waiting and not state._lacks_idle():
        assert state.alarm == float("inf"), "L10: a timer runs in an empty pool"
