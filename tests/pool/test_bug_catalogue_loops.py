"""Known bugs of other pools: used from another event loop, or ended by the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import weakref

import anyio
import anyio.to_thread
import pytest

from tests.pool.bug_catalogue_kit import forget, in_asyncio
from wspool import Pool, Pooled, PoolMisuse
from wspool.testing import FakeConnection, FakeConnector, check_invariants, prove_capacity, settle


@pytest.mark.parametrize("other", ["asyncio", "trio"])
async def test_use_from_another_event_loop_is_refused_before_anything_changes(other: str) -> None:
    """B15 (encode/httpcore#525, redis/redis-py#3351, MagicStack/asyncpg#293): errors about a closed loop, later."""
    async with Pool(FakeConnector.always(), max_size=2) as pool:
        held, idle = await pool.get(), await pool.get()
        idle.release()
        before = pool.statistics()

        async def misuse() -> None:
            with pytest.raises(PoolMisuse, match="another event loop"):
                await pool.get()
            with pytest.raises(PoolMisuse, match="another event loop"):
                async with pool.get():
                    pass
            with pytest.raises(PoolMisuse, match="another event loop"):
                await pool.aclose()
            for method in (pool.get_nowait, pool.clear, pool.resize, held.release, held.discard, held.take):
                with pytest.raises(PoolMisuse, match="another event loop"):
                    method()

        await anyio.to_thread.run_sync(lambda: anyio.run(misuse, backend=other))
        after = pool.statistics()
        assert (after.held, after.idle, after.acquired) == (before.held, before.idle, before.acquired)
        assert held.connection.closes == 0
        held.release()
        await prove_capacity(pool, 2)


async def test_use_from_a_thread_without_an_event_loop_is_refused() -> None:
    """B15 (MagicStack/asyncpg#293): the same from a worker thread, where no loop runs at all."""
    async with Pool(FakeConnector.always()) as pool:
        held = await pool.get()
        with pytest.raises(PoolMisuse, match="thread"):
            await anyio.to_thread.run_sync(held.release)
        assert pool.statistics().held == 1
        held.release()


async def test_a_handle_that_nobody_released_is_closed_by_the_pool_not_by_the_collector() -> None:
    """B21 (sqlalchemy/sqlalchemy#8145): collected unreleased, a connection could not be closed without its loop."""
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool:
        forgotten = [await pool.get()]
        with pytest.warns(ResourceWarning, match="never released"):
            forget(forgotten)
        await settle()
        assert connector.connections[0].closes == 1
        check_invariants(pool)
        await prove_capacity(pool, 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_forgotten_handle_is_recovered_even_where_warnings_are_errors() -> None:
    """B22 (oracle/python-oracledb#602): the collector's path must close as well, and its warning must not stop it."""
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool:
        forget([await pool.get()])
        await settle()
        assert connector.connections[0].closes == 1
        assert pool.statistics().size == 0


async def test_the_result_of_a_get_that_a_helper_task_drops_is_recovered() -> None:
    """R2 (asyncio-connection-pool): the result of the helper task was dropped, as gather and wait_for can drop it."""
    if not in_asyncio():
        pytest.skip("trio's tasks have no results that could be dropped")
    async with Pool(FakeConnector.always(), max_size=1) as pool:
        helpers = [asyncio.ensure_future(_get(pool))]
        await asyncio.wait(helpers)
        await settle()  # until then the event loop holds its last callback
        with pytest.warns(ResourceWarning, match="never released"):
            forget(helpers)
        await settle()
        await prove_capacity(pool, 1)


async def _get(pool: Pool[FakeConnection]) -> Pooled[FakeConnection]:
    return await pool.get()


async def test_a_handle_does_not_keep_its_pool_alive_nor_its_connection_open() -> None:
    """B52 (oxidecomputer/qorb#77): by a reference cycle, a pool dropped without terminate leaked every connection."""

    async def use_a_pool(connector: FakeConnector) -> tuple[Pooled[FakeConnection], weakref.ref[Pool[FakeConnection]]]:
        async with Pool(connector) as pool:
            handle = await pool.get()
            (await pool.get()).release()
            await pool.aclose(grace=0)
        return handle, weakref.ref(pool)

    connector = FakeConnector.always()
    handle, reference = await use_a_pool(connector)
    assert [connection.closes for connection in connector.connections] == [1, 1]
    await settle()
    gc.collect()
    assert reference() is None
    handle.release()
    assert [connection.closes for connection in connector.connections] == [1, 1]
