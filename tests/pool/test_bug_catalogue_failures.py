"""Known bugs of other pools: waiters that stay stuck after something failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import pytest

from tests.pool.bug_catalogue_kit import Caller, Gate, check_out_and_in, forget, in_asyncio, queue_up
from wspool import Pool, PoolError, PoolTimeout
from wspool.testing import FakeConnection, FakeConnector, ManualClock, check_invariants, prove_capacity, settle


async def test_a_failed_dial_fails_its_caller_and_leaves_nothing_behind() -> None:
    """B19 (aio-libs/aiohttp#835): a dial error left the waiter and its slot behind; later callers waited for ever."""
    connector = FakeConnector()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        (first,) = await queue_up(pool, tasks, 1)
        error = connector.dials[0].fail()
        await settle()
        assert first.error is error
        assert (pool.statistics().size, pool.statistics().waiting) == (0, 0)
        (second,) = await queue_up(pool, tasks, 1)
        connector.dials[1].succeed()
        await settle()
        assert second.worked
        second.leave()


async def test_the_place_of_a_failed_dial_serves_the_next_waiter() -> None:
    """B31 (golang/go#10886): at the maximum size dials failed, and the freed slot was not given on: a hang."""
    connector = FakeConnector()
    async with Pool(connector, max_size=2) as pool, anyio.create_task_group() as tasks:
        first, second, third, fourth = await queue_up(pool, tasks, 4)
        assert len(connector.dials) == 2
        connector.dials[0].fail()
        connector.dials[1].fail()
        await settle()
        assert first.error
        assert second.error
        assert len(connector.dials) == 4
        connector.dials[2].succeed()
        connector.dials[3].succeed()
        await settle()
        assert third.worked
        assert fourth.worked
        third.leave()
        fourth.leave()


async def test_a_connection_that_comes_back_broken_is_replaced_for_the_waiter() -> None:
    """B40 (djc/bb8#167): a broken connection was returned, and nobody was woken."""
    connector = FakeConnector()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        holder, waiter = await queue_up(pool, tasks, 2)
        first = connector.dials[0].succeed()
        await settle()
        first.die()
        holder.release_now()
        await settle()
        second = connector.dials[1].succeed()
        await settle()
        assert waiter.connection is second
        assert first.closes == 1
        waiter.leave()


async def test_a_pool_timeout_carries_the_last_dial_error() -> None:
    """B40 (djc/bb8#141): the real reason, a dial error, was hidden behind TimedOut."""
    clock, connector = ManualClock(), FakeConnector()
    async with (
        Pool(connector, max_size=2, acquire_timeout=30, connect_timeout=None, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        refused, hanging = await queue_up(pool, tasks, 2)
        error = connector.dials[0].fail(ConnectionRefusedError("no room at the inn"))
        await clock.advance(30)
        assert refused.error is error
        assert isinstance(hanging.error, PoolTimeout)
        assert hanging.error.__cause__ is error
        assert "no room at the inn" in str(hanging.error)


async def test_min_idle_being_met_keeps_nobody_from_dialling() -> None:
    """B43 (brettwooldridge/HikariCP#222): "idle >= minimum" swallowed a needed dial below the maximum size."""
    connector = FakeConnector()
    async with Pool(connector, min_idle=1, max_size=3) as pool:
        (await connector.next_dial()).succeed()
        await settle()
        assert pool.statistics().idle == 1
        async with anyio.create_task_group() as tasks:
            callers = await queue_up(pool, tasks, 3)
            while connector.pending:
                connector.pending[0].succeed()
                await settle()
            assert [caller.worked for caller in callers] == [True, True, True]
            for caller in callers:
                caller.leave()


def _release_dead(pool: Pool[FakeConnection], holder: Caller) -> None:
    assert holder.connection is not None
    holder.connection.die()
    holder.release_now()


def _discard(pool: Pool[FakeConnection], holder: Caller) -> None:
    holder.lease.discard()
    holder.leave()


def _take(pool: Pool[FakeConnection], holder: Caller) -> None:
    holder.lease.take()
    holder.lease.release()
    holder.leave()


def _clear(pool: Pool[FakeConnection], holder: Caller) -> None:
    pool.clear()
    holder.release_now()


def _resize(pool: Pool[FakeConnection], holder: Caller) -> None:
    pool.resize(max_size=2)


@pytest.mark.parametrize("free_a_place", [_release_dead, _discard, _take, _clear, _resize])
async def test_whatever_frees_a_place_serves_the_waiter(
    free_a_place: Callable[[Pool[FakeConnection], Caller], None],
) -> None:
    """B49 (commons-pool POOL-240, -303, -356, -391, -424): destroy, clear and invalidate did not wake waiters."""
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        holder, waiter = await queue_up(pool, tasks, 2)
        free_a_place(pool, holder)
        await settle()
        assert waiter.worked
        assert waiter.connection is connector.connections[1]
        check_invariants(pool)
        waiter.leave()
        holder.leave()


async def test_a_failed_reset_serves_the_waiter() -> None:
    """B49 (commons-pool POOL-356): the same, where preparing the connection for its next user fails."""
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1, reset=FakeConnection.reset) as pool, anyio.create_task_group() as tasks:
        holder, waiter = await queue_up(pool, tasks, 2)
        connector.connections[0].on_reset = ConnectionResetError()
        holder.release_now()
        await settle()
        assert waiter.connection is connector.connections[1]
        waiter.leave()


async def test_a_forgotten_handle_serves_the_waiter() -> None:
    """B49 (commons-pool POOL-391): the same, where the holder is gone without a release."""
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        forgotten = [await pool.get()]
        (waiter,) = await queue_up(pool, tasks, 1)
        with pytest.warns(ResourceWarning, match="never released"):
            forget(forgotten)
        await settle()
        assert waiter.connection is connector.connections[1]
        waiter.leave()


async def test_a_discard_starts_the_dial_that_the_waiter_needs() -> None:
    """B54 (geldata/gel#2983): discarding a connection did not start a dial for the one who waited."""
    connector = FakeConnector()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        holder, waiter = await queue_up(pool, tasks, 2)
        connector.dials[0].succeed()
        await settle()
        holder.lease.discard()
        await settle()
        assert len(connector.pending) == 1
        connector.pending[0].succeed()
        await settle()
        assert waiter.worked
        holder.leave()
        waiter.leave()


async def test_when_every_dial_fails_every_waiter_is_told() -> None:
    """B55 (true-async/php-async#141): more waiters than slots and all dials failing ended in a deadlock."""

    def refuse() -> FakeConnection:
        raise ConnectionRefusedError

    connector = FakeConnector(refuse)
    async with Pool(connector, max_size=3, acquire_timeout=None) as pool:
        async with anyio.create_task_group() as tasks:
            callers = [Caller(pool, tasks) for _ in range(20)]
            await settle()
            assert all(isinstance(caller.error, ConnectionRefusedError) for caller in callers)
        assert len(connector.dials) == 20
        connector.answer = connector.new_connection
        await prove_capacity(pool, 3)


async def test_a_cancellation_that_escapes_from_connect_itself_fails_its_caller() -> None:
    """R1 (generic-connection-pool): `except Exception` let CancelledError skip the clean-up of a failed create."""
    if not in_asyncio():
        pytest.skip("on trio no task can raise Cancelled that is not itself cancelled")

    async def connect() -> FakeConnection:
        helper = asyncio.ensure_future(asyncio.sleep(0))
        helper.cancel()
        await helper
        raise AssertionError("unreachable")

    async with Pool(FakeConnector.always(), max_size=1) as pool:
        async with anyio.create_task_group() as tasks:
            caller = Caller(pool, tasks, connect=connect)
            await settle()
            assert isinstance(caller.error, PoolError)
        await prove_capacity(pool, 1)


async def test_a_validator_that_raises_strands_nothing() -> None:
    """R11 (generic-pool): a rejecting validator left its resource in the set of those under test."""
    connector, check = FakeConnector.always(), Gate(OSError("the peer is gone"))
    async with Pool(connector, max_size=1, validate=check, validate_bypass_interval=0) as pool:
        (first,) = await check_out_and_in(pool)
        async with anyio.create_task_group() as tasks:
            (caller,) = await queue_up(pool, tasks, 1)
            check.open()
            await settle()
            assert caller.worked
            assert caller.connection is connector.connections[1]
            caller.leave()
        assert first.closes == 1
        check_invariants(pool)
