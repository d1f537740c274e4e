"""Known bugs of other pools: a cancellation that meets a hand-off, a dial or a check."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest

from tests.pool.bug_catalogue_kit import (
    Gate,
    StepClock,
    Way,
    check_out_and_in,
    either_way,
    in_asyncio,
    queue_up,
    skip_where_impossible,
)
from wspool import GetTimedOut, Pool, PoolEvent, PoolTimeout
from wspool.testing import FakeConnection, FakeConnector, ManualClock, check_invariants, prove_capacity, settle


@either_way
async def test_a_release_passes_by_a_waiter_that_was_just_cancelled(way: Way) -> None:
    """B01 (psycopg/psycopg#509): a cancelled waiter was still given a connection, which was lost for ever."""
    skip_where_impossible(way)
    async with Pool(FakeConnector.always(), max_size=1) as pool, anyio.create_task_group() as tasks:
        holder, cancelled, next_one = await queue_up(pool, tasks, 3)
        cancelled.cancel(way)
        holder.release_now()
        await settle()
        assert cancelled.gave_up
        assert next_one.worked
        next_one.leave()


@either_way
async def test_a_cancellation_just_after_the_hand_off_is_not_swallowed(way: Way) -> None:
    """B02 (psycopg/psycopg#1275): delivered and cancelled in one window, get returned and the cancel was gone."""
    skip_where_impossible(way)
    async with Pool(FakeConnector.always(), max_size=1) as pool, anyio.create_task_group() as tasks:
        holder, waiter = await queue_up(pool, tasks, 2)
        holder.release_now()
        waiter.cancel(way)
        await settle()
        assert waiter.gave_up
        assert pool.statistics().idle == 1
        check_invariants(pool)


@pytest.mark.parametrize("verdict", [True, False])
@either_way
async def test_a_cancellation_that_meets_the_end_of_a_check_is_not_swallowed(way: Way, verdict: bool) -> None:
    """B03 (psycopg/psycopg#1345): the check step swallowed the cancellation, and get went on."""
    skip_where_impossible(way)
    connector, check = FakeConnector.always(), Gate(verdict)
    async with Pool(connector, max_size=1, validate=check, validate_bypass_interval=0) as pool:
        (connection,) = await check_out_and_in(pool)
        async with anyio.create_task_group() as tasks:
            (caller,) = await queue_up(pool, tasks, 1)
            check.open()
            caller.cancel(way)
            await settle()
            assert caller.gave_up
        assert pool.statistics().idle == verdict
        assert connection.closes == (not verdict)


async def test_an_outer_time_limit_ends_a_get_whose_connection_is_being_checked() -> None:
    """B04 (psycopg/psycopg#1401): the retry loop took a cancellation for a failed check; wait_for had no effect."""
    connector, check = FakeConnector.always(), Gate(True)
    async with Pool(connector, max_size=1, validate=check, validate_bypass_interval=0) as pool:
        await check_out_and_in(pool)
        with pytest.raises(TimeoutError) as caught:
            if in_asyncio():
                await asyncio.wait_for(pool.get(), 0.001)
            else:
                with anyio.fail_after(0.001):
                    await pool.get()
        assert not isinstance(caught.value, PoolTimeout)
        assert (check.calls, len(connector.dials)) == (1, 1), "the get was retried"
        check.open()
        await prove_capacity(pool, 1)


@either_way
async def test_a_place_comes_back_although_its_getter_was_cancelled_while_the_check_hung(way: Way) -> None:
    """B05 (psycopg/psycopg#1208): cancelled during the check, the connection was never returned."""
    skip_where_impossible(way)
    clock, check = ManualClock(), Gate(True)
    async with Pool(
        FakeConnector.always(), max_size=1, validate=check, validate_bypass_interval=0, validate_timeout=5, clock=clock
    ) as pool:
        (connection,) = await check_out_and_in(pool)
        async with anyio.create_task_group() as tasks:
            (caller,) = await queue_up(pool, tasks, 1)
            caller.cancel(way)
            await settle()
            assert caller.gave_up
        assert pool.statistics().validating == 1
        await clock.advance(5)
        assert connection.closes == 1
        assert pool.statistics().size == 0


async def test_a_wait_for_that_is_cancelled_as_its_get_succeeds_loses_nothing() -> None:
    """B07 (MagicStack/asyncpg#467): wait_for dropped the result of the finished acquire, and close() hung."""
    if not in_asyncio():
        pytest.skip("wait_for is asyncio's; B02 is the same race by scopes")
    async with Pool(FakeConnector.always(), max_size=1, clock=ManualClock()) as pool:
        holder = await pool.get()

        async def use() -> None:
            handle = await asyncio.wait_for(pool.get(), 60)
            handle.release()  # Python 3.11's wait_for gives the result in place of the cancellation

        user = asyncio.ensure_future(use())
        await settle()
        holder.release()
        user.cancel()
        await asyncio.wait([user])
        await prove_capacity(pool, 1)
    assert pool.statistics().size == 0, "and with a clock that stands still, closing has ended"


@pytest.mark.parametrize("cancel_first", [True, False])
@either_way
async def test_a_dial_that_ends_as_its_caller_is_cancelled_is_kept(way: Way, cancel_first: bool) -> None:
    """B11 (encode/httpcore#1093): cancelled between the assignment and the connect, the slot was never reclaimed."""
    skip_where_impossible(way)
    connector = FakeConnector()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        (cancelled,) = await queue_up(pool, tasks, 1)
        if cancel_first:
            cancelled.cancel(way)
        connection = connector.dials[0].succeed()
        if not cancel_first:
            cancelled.cancel(way)
        await settle()
        assert cancelled.gave_up
        (next_one,) = await queue_up(pool, tasks, 1)
        assert next_one.connection is connection
        next_one.leave()


@either_way
async def test_cancelled_waiters_leave_the_queue_at_once(way: Way) -> None:
    """B12 (encode/httpcore#830), R8 (rust-proxy): cancelled waiters stayed queued, until the pool was deadlocked."""
    skip_where_impossible(way)
    async with Pool(FakeConnector.always(), max_size=1, max_waiting=3) as pool, anyio.create_task_group() as tasks:
        holder, *waiters = await queue_up(pool, tasks, 4)
        for waiter in waiters:
            waiter.cancel(way)
        await settle()
        assert pool.statistics().waiting == 0
        newcomers = await queue_up(pool, tasks, 3)
        assert [newcomer.error for newcomer in newcomers] == [None, None, None]
        for user in (holder, *newcomers):
            user.leave()
            await settle()
            assert user.worked


@either_way
async def test_what_was_handed_to_a_waiter_that_is_then_cancelled_goes_to_the_next(way: Way) -> None:
    """B17 (aio-libs/aiohttp#9670), R7 (hyper-util): a wake-up given to a cancelled waiter was not passed on."""
    skip_where_impossible(way)
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        holder, cancelled, next_one = await queue_up(pool, tasks, 3)
        holder.release_now()
        cancelled.cancel(way)
        await settle()
        assert cancelled.gave_up
        assert next_one.worked
        assert next_one.connection is connector.connections[0]
        next_one.leave()
    assert len(connector.dials) == 1


@either_way
async def test_a_cancelled_getter_does_not_cost_the_connection_that_was_being_checked(way: Way) -> None:
    """B36 (transact-rs/sqlx#1869): an acquire cancelled in the middle of its ping dropped the connection."""
    skip_where_impossible(way)
    connector, check = FakeConnector.always(), Gate(True)
    async with Pool(connector, max_size=1, validate=check, validate_bypass_interval=0) as pool:
        (connection,) = await check_out_and_in(pool)
        async with anyio.create_task_group() as tasks:
            (caller,) = await queue_up(pool, tasks, 1)
            caller.cancel(way)
            await settle()
        assert check.interrupted == 0, "the ping was cut off"
        check.open()
        await settle()
        assert pool.statistics().idle == 1
        assert connection.closes == 0


@either_way
async def test_a_release_finds_the_one_living_waiter_behind_many_cancelled_ones(way: Way) -> None:
    """B38 (djc/bb8#67): cancelled get futures poisoned the queue of waiters."""
    skip_where_impossible(way)
    async with Pool(FakeConnector.always(), max_size=1) as pool, anyio.create_task_group() as tasks:
        holder, *cancelled, living = await queue_up(pool, tasks, 100)
        for waiter in cancelled:
            waiter.cancel(way)
        holder.release_now()
        await settle()
        assert living.worked
        check_invariants(pool)
        living.leave()


@pytest.mark.parametrize("idle", [0, 1])
@either_way
async def test_a_get_that_was_cancelled_before_it_began_leaves_nothing_behind(way: Way, idle: int) -> None:
    """B59 (ClickHouse/clickhouse-go#1759): the slot was taken, the idle look-up cancelled, the slot leaked."""
    skip_where_impossible(way)
    connector = FakeConnector.always()
    worked = False

    async def work(pool: Pool[FakeConnection]) -> None:
        nonlocal worked
        async with pool.get():
            await anyio.lowlevel.checkpoint()
            worked = True

    async with Pool(connector, max_size=1) as pool:
        await check_out_and_in(pool, idle)
        if way == "scope":
            with anyio.CancelScope() as scope:
                scope.cancel()
                await work(pool)
        else:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work(pool)
            task.uncancel()
        await settle()
        assert not worked
        figures = pool.statistics()
        assert (figures.held, figures.reserved, figures.waiting) == (0, 0, 0)
        assert figures.size == figures.idle == idle
        assert len(connector.dials) == idle
        check_invariants(pool)
        await prove_capacity(pool, 1)


async def test_a_release_in_the_very_step_of_the_time_out_is_not_lost() -> None:
    """B60 (eclipse-vertx/vertx-sql-client#1621): the acquire completed and timed out at once; the resource was lost."""
    clock = ManualClock()

    def observe(event: PoolEvent) -> None:
        if isinstance(event, GetTimedOut):
            holder.release_now()

    async with (
        Pool(FakeConnector.always(), max_size=1, acquire_timeout=30, on_event=observe, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        holder, waiter = await queue_up(pool, tasks, 2)
        await clock.advance(30)
        assert isinstance(waiter.error, PoolTimeout)
        assert pool.statistics().idle == 1
        check_invariants(pool)


@pytest.mark.parametrize("release_first", [True, False])
async def test_a_release_and_a_time_out_at_once_end_in_one_of_the_two(release_first: bool) -> None:
    """B60 (eclipse-vertx/vertx-sql-client#1621): the same, with the clock and the release racing as tasks do."""
    clock = StepClock()
    async with (
        Pool(FakeConnector.always(), max_size=1, acquire_timeout=30, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        holder, waiter = await queue_up(pool, tasks, 2)
        if release_first:
            holder.release_now()
        clock.jump(30)
        if not release_first:
            holder.release_now()
        await settle()
        timed_out = isinstance(waiter.error, PoolTimeout)
        assert timed_out != waiter.worked
        figures = pool.statistics()
        assert (figures.held, figures.idle) == (waiter.worked, timed_out)
        waiter.leave()


async def test_a_served_waiter_keeps_its_connection_when_a_second_release_comes() -> None:
    """B60 (eclipse-vertx/vertx-sql-client#1621): one waiter takes one connection, whatever else becomes free."""
    async with Pool(FakeConnector.always(), max_size=2) as pool, anyio.create_task_group() as tasks:
        first, second, waiter = await queue_up(pool, tasks, 3)
        first.release_now()
        second.release_now()
        await settle()
        assert waiter.worked
        assert isinstance(waiter.connection, FakeConnection)
        assert pool.statistics().idle == 1
        waiter.leave()
