"""Getting a connection: hits, dials, the race, the queue."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest

from tests.pool.caller import ASYNCIO_ONLY, Caller, use
from wspool import Pool
from wspool.testing import FakeConnection, FakeConnector, check_invariants, prove_capacity, settle


async def test_a_get_dials_when_nothing_is_idle_and_reuses_what_was_released() -> None:
    connector = FakeConnector()
    async with Pool(connector) as pool:
        seen: list[FakeConnection] = []

        async def user() -> None:
            async with pool.get() as connection:
                seen.append(connection)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(user)
            (await connector.next_dial()).succeed()
        await user()
        assert [connection.number for connection in seen] == [1, 1]
        check_invariants(pool)
    await settle()
    assert connector.connections[0].closes == 1


# --- connections that cannot say how they are -------------------------------------------------------


class Plain:
    """Not `Poolable`: the pool takes its shortest ways."""


async def connect_plain() -> Plain:
    return Plain()


async def test_a_plain_connection_is_reused_newest_first() -> None:
    async with Pool(connect_plain) as pool:
        first, second = await pool.get(), await pool.get()
        plain = second.connection
        first.release()
        second.release()
        async with pool.get() as connection:
            assert connection is plain
        check_invariants(pool)


async def test_a_released_plain_connection_goes_to_the_first_waiter() -> None:
    served: list[int] = []

    async def user(number: int) -> None:
        async with pool.get() as connection:
            assert connection is plain
            served.append(number)

    async with Pool(connect_plain, max_size=1) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        plain = handle.connection
        for number in range(3):
            tasks.start_soon(user, number)
            await settle()
        handle.release()
        check_invariants(pool)
        await settle()
        assert served == [0, 1, 2]


async def test_a_plain_connection_over_max_idle_is_closed() -> None:
    closed: list[Plain] = []
    async with Pool(connect_plain, max_idle=1, close=closed.append) as pool:
        first, second = await pool.get(), await pool.get()
        surplus = second.connection
        first.release()
        second.release()
        await settle()
        assert closed == [surplus]
        assert pool.statistics().idle == 1


async def test_a_spare_plain_connection_serves_the_next() -> None:
    async with Pool(connect_plain, min_idle=1, max_size=1) as pool:
        await settle()
        async with pool.get():
            pass
        assert pool.statistics().dials_spare_used == 1


# --- cancellation --------------------------------------------------------------------------------


async def test_a_loop_of_hits_starves_nobody() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with Pool(FakeConnector.always()) as pool, anyio.create_task_group() as tasks:
        await use(pool)
        tasks.start_soon(other)
        for _ in range(64 * 5):
            await use(pool)
        assert turns >= 4
        tasks.cancel_scope.cancel()


async def test_a_hit_in_a_cancelled_scope_raises_and_takes_nothing() -> None:
    async with Pool(FakeConnector.always()) as pool:
        await use(pool)
        with anyio.CancelScope() as scope:
            scope.cancel()
            for _ in range(64):  # at the latest when it yields
                await use(pool)
            raise AssertionError("not cancelled")
        assert scope.cancelled_caught
        assert pool.statistics().idle == 1
        check_invariants(pool)


@ASYNCIO_ONLY
async def test_a_hit_in_a_task_that_was_cancelled_bare_swallows_nothing_and_loses_nothing() -> None:
    async def cancel_oneself_and_use() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        async with pool.get():
            await anyio.lowlevel.checkpoint()
            raise AssertionError("not cancelled")

    async with Pool(FakeConnector.always()) as pool:
        await use(pool)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(cancel_oneself_and_use())
        assert pool.statistics().idle == 1
        check_invariants(pool)


async def test_a_cancelled_caller_leaves_the_queue() -> None:
    async with Pool(FakeConnector.always(), max_size=1) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        gone = Caller(tasks, pool)
        await settle()
        stays = Caller(tasks, pool)
        await settle()
        gone.scope.cancel()
        await settle()
        assert gone.cancelled
        assert pool.statistics().waiting == 1
        handle.release()
        await settle()
        stays.release()
        check_invariants(pool)


@pytest.mark.parametrize("order", ["release first", "cancel first"])
async def test_what_was_handed_to_a_caller_cancelled_in_the_same_step_is_not_lost(order: str) -> None:
    async with Pool(FakeConnector.always(), max_size=1) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        first = Caller(tasks, pool)
        await settle()
        second = Caller(tasks, pool)
        await settle()
        if order == "release first":
            handle.release()
            first.scope.cancel()
        else:
            first.scope.cancel()
            handle.release()
        await settle()
        check_invariants(pool)
        if first.handle is not None:
            first.release()
            await settle()
        else:
            assert first.cancelled
        assert second.connection.number == 1
        second.release()
        await prove_capacity(pool, 1)


@ASYNCIO_ONLY
async def test_what_was_handed_to_a_task_cancelled_bare_in_the_same_step_goes_to_the_next() -> None:
    async def get() -> None:
        async with pool.get():
            raise AssertionError("not cancelled")

    async with Pool(FakeConnector.always(), max_size=1) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        task = asyncio.create_task(get())
        await settle()
        second = Caller(tasks, pool)
        await settle()
        handle.release()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await settle()
        assert second.connection.number == 1
        second.release()
