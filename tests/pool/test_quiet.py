"""A pool with nothing to expire is quiet: no timer, no wake-up, no task that turns over."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from tests.pool.caller import Caller, use
from wspool import Pool
from wspool.testing import FakeConnector, ManualClock, check_invariants, prove_capacity, settle


class CountingClock(ManualClock):
    """Counts how often the pool's timer goes to sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeps = 0

    async def sleep_until(self, deadline: float) -> None:
        self.sleeps += 1
        await super().sleep_until(deadline)


async def test_a_new_pool_sets_no_timer() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector(), clock=clock):
        await settle()
        assert clock.deadlines == []


async def test_a_pool_whose_last_connection_has_gone_sets_no_timer() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), idle_timeout=60, clock=clock) as pool:
        await prove_capacity(pool, 3)
        await clock.advance(60)
        assert pool.statistics().size == 0
        assert clock.deadlines == []
        check_invariants(pool)


async def test_a_pool_whose_connections_were_discarded_sets_no_timer() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), clock=clock) as pool:
        (await pool.get()).discard()
        await settle()
        assert clock.deadlines == []


async def test_a_pool_whose_connections_were_taken_sets_no_timer() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), clock=clock) as pool:
        handle = await pool.get()
        handle.take()
        await settle()
        assert clock.deadlines == []
        handle.release()
        await settle()
        assert clock.deadlines == []


async def test_a_pool_whose_dial_failed_sets_no_timer() -> None:
    clock, connector = ManualClock(), FakeConnector()
    async with Pool(connector, clock=clock) as pool, anyio.create_task_group() as tasks:
        Caller(tasks, pool)
        (await connector.next_dial()).fail()
        await settle()
        assert clock.deadlines == []


async def test_a_pool_that_keeps_min_idle_for_ever_sets_no_timer_once_the_dials_are_done() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), min_idle=2, clock=clock) as pool:
        await settle()
        await clock.advance(3600)
        assert pool.statistics().idle == 2
        assert clock.deadlines == []


async def test_a_closed_pool_sets_no_timer() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), clock=clock) as pool:
        await use(pool)
        await pool.aclose()
        await settle()
        assert clock.deadlines == []
        await pool.aclose(grace=60)
        await settle()
        assert clock.deadlines == []
        check_invariants(pool)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"idle_timeout": None}, id="no idle_timeout"),
        pytest.param({"idle_timeout": 600}, id="idle_timeout"),
        pytest.param({"max_lifetime": 3600, "idle_timeout": None}, id="max_lifetime"),
    ],
)
async def test_while_time_passes_the_timer_wakes_only_for_what_expires(arguments: dict[str, Any]) -> None:
    clock = CountingClock()
    async with Pool(FakeConnector.always(), connect_timeout=1, acquire_timeout=1, clock=clock, **arguments) as pool:
        await prove_capacity(pool, 3)
        await clock.advance(2)  # the dials' own deadlines are over
        before = clock.sleeps
        for _ in range(100):
            await clock.advance(5)
        assert pool.statistics().idle == 3
        assert clock.sleeps == before


async def test_a_busy_pool_rarely_sets_its_timer_anew() -> None:
    clock = CountingClock()
    async with Pool(FakeConnector.always(), clock=clock) as pool:
        await use(pool)
        await clock.advance(30)
        before = clock.sleeps
        for _ in range(1000):
            await use(pool)
            await clock.advance(0.01)
        assert clock.sleeps - before <= 1


async def test_hits_start_no_task() -> None:
    async with Pool(FakeConnector.always()) as pool:
        await use(pool)
        before = pool.statistics()
        for _ in range(200):
            await use(pool)
        after = pool.statistics()
        assert after.acquired - before.acquired == 200
        assert (after.dials, after.closed, after.acquired_waiting) == (before.dials, before.closed, 1)
