"""Known bugs of other pools: a close that never ends, or that leaves something open."""

from __future__ import annotations

import anyio
import pytest

from tests.pool.bug_catalogue_kit import Caller, Gate, queue_up
from wspool import Pool, PoolClosed
from wspool.testing import FakeConnection, FakeConnector, Fault, ManualClock, check_invariants, settle


async def test_a_dial_that_ends_after_closing_began_is_closed() -> None:
    """B50 (redis/node-redis#3399), R5 (puddle): closing raced with a dial, whose connection was kept for ever."""
    finish, connection = anyio.Event(), FakeConnection()

    async def connect() -> FakeConnection:
        with anyio.CancelScope(shield=True):
            await finish.wait()
        return connection

    async with Pool(connect, clock=ManualClock()) as pool, anyio.create_task_group() as tasks:
        (caller,) = await queue_up(pool, tasks, 1)
        tasks.start_soon(pool.aclose)
        await settle()
        assert isinstance(caller.error, PoolClosed)
        finish.set()
        await settle()
        assert connection.closes == 1
        assert pool.statistics().size == 0


@pytest.mark.parametrize("how", ["released", "discarded", "dead"])
async def test_what_comes_back_after_closing_began_is_closed_once_and_ends_the_close(how: str) -> None:
    """B50 (commons-pool POOL-263): returned while the pool closed, a connection was kept."""
    async with Pool(FakeConnector.always(), clock=ManualClock()) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        connection = handle.connection
        tasks.start_soon(pool.aclose)
        await settle()
        if how == "dead":
            connection.die()
        if how == "discarded":
            handle.discard()
        else:
            handle.release()
        await settle()
        assert connection.closes == 1
        check_invariants(pool)


async def test_a_reset_under_way_does_not_put_its_connection_back_into_a_closing_pool() -> None:
    """B50 (swift-server/RediStack#86): a connection on its way back kept the close from ending."""
    connector = FakeConnector.always()
    async with Pool(connector, reset=FakeConnection.reset, clock=ManualClock()) as pool:
        handle = await pool.get()
        handle.connection.on_reset = Fault.HANG
        handle.release()
        await settle()
        assert pool.statistics().resetting == 1
        await pool.aclose()
        assert connector.connections[0].closes == 1
        assert pool.statistics().size == 0


@pytest.mark.parametrize("holders", [0, 1, 3])
async def test_a_holder_may_finish_within_the_grace_and_the_close_ends_with_the_last(holders: int) -> None:
    """B58 (vapor/postgres-nio#651, #658): graceful shutdown was added, and reverted within days."""
    clock, connector = ManualClock(), FakeConnector.always()
    async with Pool(connector, clock=clock) as pool, anyio.create_task_group() as tasks:
        users = await queue_up(pool, tasks, holders)
        closed = anyio.Event()

        async def close() -> None:
            await pool.aclose(grace=60)
            closed.set()

        tasks.start_soon(close)
        for user in users:
            await clock.advance(10)
            assert not closed.is_set()
            assert user.connection is not None
            assert user.connection.closes == 0
            user.leave()
        await settle()
        assert closed.is_set()
    assert connector.open == []


async def test_a_holder_who_never_releases_cannot_keep_the_close_from_ending() -> None:
    """B07 (MagicStack/asyncpg#467): close() hung, for a connection that nobody was going to release."""
    clock = ManualClock()
    async with Pool(FakeConnector.always(), clock=clock) as pool, anyio.create_task_group() as tasks:
        (holder,) = await queue_up(pool, tasks, 1)
        closed = anyio.Event()

        async def close() -> None:
            await pool.aclose(grace=5)
            closed.set()

        tasks.start_soon(close)
        await clock.advance(5)
        assert closed.is_set()
        assert holder.connection is not None
        assert holder.connection.closes == 1
        holder.leave()


async def test_the_close_ends_after_its_grace_whatever_hangs() -> None:
    """B58 (vapor/postgres-nio#651): the same, where holders, dials, checks, resets and closes hang all at once."""
    clock, connector = ManualClock(), FakeConnector.always()
    async with (
        Pool(
            connector,
            reset=FakeConnection.reset,
            reset_timeout=1000,
            validate=FakeConnection.validate,
            validate_bypass_interval=0,
            validate_timeout=1000,
            close_timeout=1000,
            clock=clock,
        ) as pool,
        anyio.create_task_group() as tasks,
    ):
        holder, resetting, closing, checked = await queue_up(pool, tasks, 4)
        for connection in connector.connections:
            connection.on_close = Fault.HANG
        connector.connections[1].on_reset = Fault.HANG
        connector.connections[3].on_validate = Fault.HANG
        checked.leave()
        await settle()
        resetting.leave()
        closing.lease.discard()
        closing.leave()
        (checking,) = await queue_up(pool, tasks, 1)
        connector.answer = None
        (dialling,) = await queue_up(pool, tasks, 1)
        figures = pool.statistics()
        counts = (figures.held, figures.resetting, figures.closing, figures.validating, figures.dialling)
        assert counts == (1, 1, 1, 1, 1)

        closed = anyio.Event()

        async def close() -> None:
            await pool.aclose(grace=5)
            closed.set()

        tasks.start_soon(close)
        await settle()
        assert isinstance(checking.error, PoolClosed)
        assert isinstance(dialling.error, PoolClosed)
        await clock.advance(4.9)
        assert not closed.is_set()
        await clock.advance(0.1)
        assert closed.is_set()
        assert [connection.closes for connection in connector.connections] == [1, 1, 1, 1]
        holder.leave()


async def test_the_close_does_not_wait_for_the_pause_between_two_failed_dials() -> None:
    """R6 (qorb): its back-off slept where terminate could not reach it, for up to 30 s."""

    def refuse() -> FakeConnection:
        raise ConnectionRefusedError

    clock = ManualClock()
    async with Pool(FakeConnector(refuse), min_idle=1, clock=clock) as pool:
        await clock.advance(20)
        assert clock.deadlines != []
        await pool.aclose()
    assert clock.deadlines == []


async def test_every_waiter_is_told_at_once_that_the_pool_closes() -> None:
    """B50 (redis/node-redis#3399): the same race, seen by those in the queue; newcomers are told as well."""
    close = Gate()
    async with Pool(FakeConnector.always(), max_size=1, close=close) as pool, anyio.create_task_group() as tasks:
        holder, *waiters = await queue_up(pool, tasks, 4)
        tasks.start_soon(pool.aclose)
        await settle()
        newcomer = Caller(pool, tasks)
        await settle()
        assert all(isinstance(caller.error, PoolClosed) for caller in (*waiters, newcomer))
        holder.leave()
        close.open()
