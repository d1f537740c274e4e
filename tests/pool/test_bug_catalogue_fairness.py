"""Known bugs of other pools: newcomers who overtake, victims who queue again at the end."""

from __future__ import annotations

from collections import Counter

import anyio
import anyio.lowlevel
import pytest

from tests.pool.bug_catalogue_kit import Way, either_way, queue_up, skip_where_impossible
from wspool import Pool, PoolTimeout
from wspool.testing import FakeConnection, FakeConnector, ManualClock, check_invariants, settle


async def test_of_many_workers_on_few_connections_none_starves() -> None:
    """B10 (MagicStack/asyncpg#1247): with 100 workers on 10 connections, one waited for more than 10 s."""
    turns: Counter[int] = Counter(dict.fromkeys(range(100), 0))
    widest = 0

    async def work(pool: Pool[FakeConnection], worker: int) -> None:
        nonlocal widest
        for _ in range(5):
            async with pool.get():
                turns[worker] += 1
                # Those who are not at their last round all compete: they must keep step.
                widest = max(widest, max(turns.values()) - min(turns.values()))
                await anyio.lowlevel.checkpoint()

    async with Pool(FakeConnector.always(), max_size=10) as pool, anyio.create_task_group() as tasks:
        for worker in range(100):
            tasks.start_soon(work, pool, worker)
    assert set(turns.values()) == {5}
    assert widest <= 2


async def test_a_newcomer_gets_nothing_between_a_hand_off_and_the_waiter_who_resumes() -> None:
    """B18 (aio-libs/aiohttp#4936): a newcomer took the slot between wake and resume; the limit was exceeded."""
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        holder, waiter = await queue_up(pool, tasks, 2)
        holder.release_now()
        with pytest.raises(anyio.WouldBlock):
            pool.get_nowait()
        assert pool.statistics().size == 1
        await settle()
        assert waiter.worked
        waiter.leave()
    assert len(connector.dials) == 1


@either_way
async def test_waiters_are_served_in_the_order_of_their_arrival(way: Way) -> None:
    """B32 (golang/go#31708): as a side effect of another change, the order of waiters became random."""
    skip_where_impossible(way)
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        holder, *waiters = await queue_up(pool, tasks, 13)
        for waiter in waiters[::4]:
            waiter.cancel(way)
        await settle()
        served = []
        for _ in range(9):
            holder.release_now()
            await settle()
            (holder,) = (waiter for waiter in waiters if waiter.worked and waiter not in served)
            served.append(holder)
        holder.release_now()
        assert served == [waiter for waiter in waiters if not waiter.gave_up]


async def test_who_releases_and_asks_again_at_once_queues_behind_those_who_wait() -> None:
    """B42 (brettwooldridge/HikariCP#1909): the offered connection was stolen, its victim queued at the tail."""
    order: list[str] = []

    async def greedy(pool: Pool[FakeConnection]) -> None:
        for _ in range(3):
            async with pool.get():
                order.append("greedy")
                await settle()

    async def modest(pool: Pool[FakeConnection], name: str) -> None:
        async with pool.get():
            order.append(name)

    async with Pool(FakeConnector.always(), max_size=1) as pool, anyio.create_task_group() as tasks:
        async with pool.get():
            for start in (lambda: modest(pool, "first"), lambda: greedy(pool), lambda: modest(pool, "second")):
                tasks.start_soon(start)
                await settle()
    assert order == ["first", "greedy", "second", "greedy", "greedy"]


async def test_a_waiter_whose_connection_died_on_the_way_keeps_its_place() -> None:
    """B61 (blackbeam/mysql_async#212): a woken waiter lost its place when its connection was stolen or dead."""
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        holder, first, second = await queue_up(pool, tasks, 3)
        holder.release_now()
        connector.connections[0].die()
        await settle()
        assert first.worked
        assert first.connection is connector.connections[1]
        assert not second.worked
        check_invariants(pool)
        first.leave()
        second.leave()


async def test_a_waiter_put_back_into_the_queue_still_times_out_when_it_should() -> None:
    """R9 (commons-pool): the remaining wait was computed, and then the full one was used: waits could double."""
    clock, connector = ManualClock(), FakeConnector()
    async with (
        Pool(connector, max_size=1, acquire_timeout=30, connect_timeout=None, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        holder, waiter = await queue_up(pool, tasks, 2)
        connection = connector.dials[0].succeed()
        await clock.advance(20)
        holder.release_now()
        connection.die()
        await clock.advance(9)
        assert not waiter.ended
        await clock.advance(1)
        assert isinstance(waiter.error, PoolTimeout)
