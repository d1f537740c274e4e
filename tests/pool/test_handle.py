"""The handle: holding, giving back, taking out, putting in, misusing, forgetting."""

from __future__ import annotations

import asyncio
import gc
import re
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from tests.pool.caller import Caller, Ends
from wspool import (
    CloseReason,
    Pool,
    PoolClosed,
    Pooled,
    PoolMisuse,
)
from wspool.testing import FakeConnection, FakeConnector, ManualClock, check_invariants, prove_capacity, settle


def new_pool(**arguments: Any) -> Pool[FakeConnection]:
    return Pool(FakeConnector.always(), name="toys", **arguments)


# --- holding and giving back ----------------------------------------------------------------------


async def test_awaiting_a_get_returns_the_handle_itself() -> None:
    async with new_pool() as pool:
        handle = pool.get()
        assert await handle is handle
        assert handle.connection.number == 1
        handle.release()


async def test_entering_a_get_binds_the_connection_and_the_handle_stays_at_hand() -> None:
    async with new_pool() as pool:
        async with (handle := pool.get()) as connection:
            assert handle.connection is connection
        assert pool.statistics().idle == 1


async def test_get_nowait_returns_a_handle_on_an_idle_connection_or_would_block() -> None:
    async with new_pool() as pool:
        with pytest.raises(anyio.WouldBlock):
            pool.get_nowait()
        await prove_capacity(pool, 1)
        handle = pool.get_nowait()
        assert handle.connection.number == 1
        with pytest.raises(anyio.WouldBlock):
            pool.get_nowait()
        handle.release()


async def test_get_nowait_does_not_overtake_those_who_wait() -> None:
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        holder = await pool.get()
        caller = Caller(tasks, pool)
        await settle()
        holder.release()
        with pytest.raises(anyio.WouldBlock):
            pool.get_nowait()
        await settle()
        caller.release()


async def test_a_handle_is_usable_from_another_task_of_the_same_loop() -> None:
    async def finish(handle: Pooled[FakeConnection]) -> None:
        handle.release()

    async with new_pool() as pool:
        handle = await pool.get()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(finish, handle)
        assert pool.statistics().idle == 1


async def test_the_idle_connection_used_last_is_handed_out_first() -> None:
    async with new_pool() as pool:
        first, second = await pool.get(), await pool.get()
        second.release()
        first.release()
        async with pool.get() as connection:
            assert connection.number == 1


@pytest.mark.parametrize("first", ["release", "discard"])
@pytest.mark.parametrize("second", ["release", "discard"])
async def test_giving_back_twice_is_giving_back_once(first: str, second: str) -> None:
    async with new_pool() as pool:
        handle = await pool.get()
        connection = handle.connection
        getattr(handle, first)()
        getattr(handle, second)()
        await settle()
        assert connection.closes == (first == "discard")
        assert pool.statistics().idle == (first == "release")
        check_invariants(pool)


async def test_a_second_release_does_not_touch_the_next_holders_connection() -> None:
    async with new_pool() as pool:
        stale = await pool.get()
        stale.release()
        async with pool.get() as connection:
            stale.release()
            stale.discard()
            assert pool.statistics().held == 1
            assert not connection.closes


async def test_a_release_inside_its_own_block_is_enough() -> None:
    async with new_pool() as pool:
        async with (handle := pool.get()):
            handle.release()
            assert pool.statistics().idle == 1
        assert pool.statistics().idle == 1


async def test_a_discarded_connection_is_closed_and_its_place_goes_to_who_waits() -> None:
    ends = Ends()
    async with new_pool(max_size=1, on_event=ends) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        caller = Caller(tasks, pool)
        await settle()
        handle.discard()
        await settle()
        assert caller.connection.number == 2
        assert ends.reasons == [CloseReason.DISCARDED]
        caller.release()


# --- leaving a block by an exception ----------------------------------------------------------------


async def test_a_block_left_by_an_exception_keeps_a_connection_that_says_it_is_reusable() -> None:
    async with new_pool() as pool:
        with pytest.raises(KeyError):
            async with pool.get():
                raise KeyError
        assert pool.statistics().idle == 1


async def test_a_block_left_by_an_exception_closes_a_connection_that_cannot_say() -> None:
    async def connect() -> object:
        return object()

    async with Pool(connect) as pool:
        with pytest.raises(KeyError):
            async with pool.get():
                raise KeyError
        assert pool.statistics().idle == 0
        async with pool.get():
            pass
        assert pool.statistics().idle == 1


async def test_a_block_left_by_an_exception_asks_the_pools_is_reusable() -> None:
    async def connect() -> object:
        return object()

    async with Pool(connect, is_reusable=lambda _: True) as pool:
        with pytest.raises(KeyError):
            async with pool.get():
                raise KeyError
        assert pool.statistics().idle == 1


async def test_a_cancelled_block_gives_back_without_being_interrupted() -> None:
    async with new_pool(max_size=1) as pool:
        with anyio.CancelScope() as scope:
            async with pool.get():
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert pool.statistics().idle == 1
        await prove_capacity(pool, 1)


async def test_a_block_left_by_an_exception_after_a_release_is_left_in_peace() -> None:
    async with new_pool() as pool:
        with pytest.raises(KeyError):
            async with (handle := pool.get()):
                handle.release()
                raise KeyError
        assert pool.statistics().idle == 1


# --- misuse ---------------------------------------------------------------------------------------


def connection_of(handle: Pooled[FakeConnection]) -> object:
    return handle.connection


def insert_into(handle: Pooled[FakeConnection]) -> None:
    handle.insert(FakeConnection())


MISUSES: list[Any] = [
    pytest.param(connection_of, "cannot use the connection of", id="connection"),
    pytest.param(Pooled.take, "cannot take from", id="take"),
    pytest.param(insert_into, "cannot insert into", id="insert"),
]


@pytest.mark.parametrize(("misuse", "text"), [*MISUSES, pytest.param(Pooled.release, "cannot release", id="release")])
async def test_a_handle_that_is_not_checked_out_yet_says_so(misuse: Callable[[Any], object], text: str) -> None:
    async with new_pool() as pool:
        expected = f"{text} <Pooled of toys, new>: it is not checked out yet: await it, or enter it with async with"
        with pytest.raises(PoolMisuse, match=re.escape(expected)):
            misuse(pool.get())


@pytest.mark.parametrize(("misuse", "text"), MISUSES)
async def test_a_handle_used_after_its_release_says_so(misuse: Callable[[Any], object], text: str) -> None:
    async with new_pool() as pool:
        handle = await pool.get()
        handle.release()
        with pytest.raises(PoolMisuse, match=re.escape(f"{text} <Pooled of toys, released>: it was released")):
            misuse(handle)
        check_invariants(pool)


async def test_a_handle_serves_one_checkout() -> None:
    async with new_pool() as pool:
        async with (handle := pool.get()):
            with pytest.raises(PoolMisuse, match=r"cannot check out with <Pooled of toys: <FakeConnection 1, alive>>"):
                await handle
        with pytest.raises(PoolMisuse, match="it was released"):
            async with handle:
                pass


async def test_inserting_into_a_full_handle_is_refused() -> None:
    async with new_pool() as pool:
        async with (handle := pool.get()) as connection:
            with pytest.raises(PoolMisuse, match=r"cannot insert into .*it has a connection already"):
                handle.insert(FakeConnection())
            assert handle.connection is connection


async def test_a_handle_whose_get_failed_says_so_and_its_release_is_harmless() -> None:
    async def connect() -> FakeConnection:
        raise OSError

    async with Pool(connect, name="toys") as pool:
        handle = pool.get()
        with pytest.raises(OSError):
            await handle
        handle.release()
        handle.discard()
        with pytest.raises(PoolMisuse, match="cannot use the connection of <Pooled of toys, failed>"):
            connection_of(handle)


async def test_a_release_in_a_finally_after_a_cancelled_get_does_not_hide_the_cancellation() -> None:
    async with new_pool() as pool:
        with anyio.CancelScope() as scope:
            scope.cancel()
            handle = pool.get()
            try:
                await handle
            finally:
                handle.release()
        assert scope.cancelled_caught


async def test_handles_are_made_by_pools_only() -> None:
    with pytest.raises(TypeError, match=r"use Pool\.get\(\)"):
        Pooled()


async def test_a_handle_shows_its_pool_and_its_state() -> None:
    async with new_pool() as pool:
        handle = pool.get()
        assert repr(handle) == "<Pooled of toys, new>"
        await handle
        assert repr(handle) == "<Pooled of toys: <FakeConnection 1, alive>>"
        handle.release()
        assert repr(handle) == "<Pooled of toys, released>"


# --- take and insert --------------------------------------------------------------------------------


async def test_a_taken_connection_is_the_takers_and_its_place_is_free_after_the_release() -> None:
    async with new_pool(max_size=1) as pool:
        handle = await pool.get()
        connection = handle.take()
        assert pool.statistics().taken == 1
        assert pool.statistics().size == 1
        handle.release()
        assert pool.statistics().size == 0
        check_invariants(pool)
        await prove_capacity(pool, 1)
    assert not connection.closes


async def test_the_place_of_a_taken_connection_goes_to_who_waits() -> None:
    async with new_pool(max_size=1) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        caller = Caller(tasks, pool)
        await settle()
        handle.take()
        await settle()
        assert caller.waits
        check_invariants(pool)
        handle.release()
        handle.release()
        await settle()
        assert caller.connection.number == 2
        caller.release()


async def test_the_place_of_a_taken_connection_is_free_at_the_end_of_its_block() -> None:
    async with new_pool(max_size=1) as pool:
        async with (handle := pool.get()):
            handle.take()
        await prove_capacity(pool, 1)
        with pytest.raises(KeyError):
            async with (handle := pool.get()):
                handle.take()
                raise KeyError
        await prove_capacity(pool, 1)


async def test_discarding_an_emptied_handle_frees_its_place() -> None:
    async with new_pool(max_size=1) as pool:
        handle = await pool.get()
        handle.take()
        handle.discard()
        await prove_capacity(pool, 1)


async def test_a_connection_inserted_into_an_emptied_handle_is_the_pools() -> None:
    async with new_pool(max_size=1) as pool:
        handle = await pool.get()
        old, new = handle.take(), FakeConnection(99)
        handle.insert(new)
        assert handle.connection is new
        check_invariants(pool)
        handle.release()
        async with pool.get() as connection:
            assert connection is new
    assert (old.closes, new.closes) == (0, 1)


async def test_a_taken_connection_may_be_put_back() -> None:
    async with new_pool() as pool:
        handle = await pool.get()
        connection = handle.take()
        handle.insert(connection)
        handle.release()
        assert pool.get_nowait().take() is connection


async def test_a_connection_that_is_in_the_pool_cannot_be_inserted_again() -> None:
    async with new_pool() as pool:
        async with pool.get() as connection, (handle := pool.get()):
            handle.take()
            with pytest.raises(PoolMisuse, match=r"<FakeConnection 1, alive> is in this pool already"):
                handle.insert(connection)
            check_invariants(pool)


async def test_none_cannot_be_inserted() -> None:
    async with new_pool() as pool, (handle := pool.get()):
        handle.take()
        with pytest.raises(TypeError, match=r"insert\(\) needs a connection, got None"):
            handle.insert(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_an_emptied_handle_has_no_connection() -> None:
    async with new_pool() as pool, (handle := pool.get()):
        handle.take()
        with pytest.raises(PoolMisuse, match=r"<Pooled of toys, empty>: it was emptied by take\(\)"):
            connection_of(handle)


async def test_nothing_can_be_inserted_into_a_closing_pool_and_the_connection_stays_the_callers() -> None:
    async with new_pool() as pool:
        handle = await pool.get()
        connection = handle.take()
        await pool.aclose()
        with pytest.raises(PoolClosed, match="stays yours"):
            handle.insert(connection)
        assert not connection.closes
        handle.release()


async def test_what_the_pool_has_closed_under_its_holder_cannot_be_taken() -> None:
    async with new_pool(clock=ManualClock()) as pool:
        handle = await pool.get()
        await pool.aclose(grace=0)
        with pytest.raises(PoolClosed, match="has closed this connection"):
            handle.take()
        handle.release()


async def test_a_retired_connection_may_be_taken() -> None:
    async with new_pool() as pool:
        handle = await pool.get()
        pool.clear()
        handle.take()
        check_invariants(pool)
        handle.release()
        check_invariants(pool)


# --- forgotten handles --------------------------------------------------------------------------------


async def forget(pool: Pool[FakeConnection]) -> None:
    await pool.get()
    gc.collect()


async def test_a_forgotten_handle_warns_and_its_place_is_recovered() -> None:
    connector, ends = FakeConnector.always(), Ends()
    async with Pool(connector, max_size=1, on_event=ends, name="toys") as pool:
        with pytest.warns(
            ResourceWarning,
            match=r"<Pooled of toys: <FakeConnection 1, alive>> was never released.*trace_holders=True",
        ):
            await forget(pool)
        await settle()
        assert ends.reasons == [CloseReason.FORGOTTEN]
        assert connector.connections[0].closes == 1
        check_invariants(pool)
        await prove_capacity(pool, 1)


async def test_the_warning_names_where_a_forgotten_connection_was_acquired_if_that_is_traced() -> None:
    async with new_pool(trace_holders=True) as pool:
        with pytest.warns(ResourceWarning, match=r"acquired at .*test_handle\.py:\d+ in forget"):
            await forget(pool)


async def test_the_warning_names_where_get_nowait_was_called() -> None:
    def forget_at_once() -> None:
        pool.get_nowait()
        gc.collect()

    async with new_pool(trace_holders=True) as pool:
        await prove_capacity(pool, 1)
        with pytest.warns(ResourceWarning, match=r"acquired at .*test_handle\.py:\d+ in forget_at_once"):
            forget_at_once()


async def test_a_forgotten_handles_connection_goes_to_who_waits_as_a_new_dial() -> None:
    async with new_pool(max_size=1) as pool, anyio.create_task_group() as tasks:
        handles = [await pool.get()]
        caller = Caller(tasks, pool)
        await settle()
        with pytest.warns(ResourceWarning):
            handles.clear()
        await settle()
        assert caller.connection.number == 2
        caller.release()


async def test_a_forgotten_emptied_handle_gives_its_place_back_without_a_warning() -> None:
    async def take() -> FakeConnection:
        return (await pool.get()).take()

    async with new_pool(max_size=1) as pool:
        await take()
        gc.collect()
        await settle()
        await prove_capacity(pool, 1)


async def test_a_handle_forgotten_in_another_thread_is_recovered_on_the_pools_loop() -> None:
    async with new_pool(max_size=1) as pool:
        handles = [await pool.get()]

        def forget_here() -> None:
            handles.clear()
            gc.collect()

        with pytest.warns(ResourceWarning):
            await anyio.to_thread.run_sync(forget_here)
        await settle()
        await prove_capacity(pool, 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_forgotten_handle_is_recovered_even_where_warnings_are_errors() -> None:
    async with new_pool(max_size=1) as pool:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            await forget(pool)
        await settle()
        assert pool.statistics().held == 0
        await prove_capacity(pool, 1)


async def test_a_handle_that_was_never_checked_out_is_forgotten_in_silence() -> None:
    async with new_pool() as pool:
        pool.get()
        gc.collect()


def test_a_handle_forgotten_after_the_end_of_its_loop_is_harmless(anyio_backend: Any) -> None:
    name, options = anyio_backend
    pool = new_pool(clock=ManualClock())
    handles: list[Pooled[FakeConnection]] = []

    async def main() -> None:
        async with pool:
            handles.append(await pool.get())
            await pool.aclose(grace=0)

    anyio.run(main, backend=name, backend_options=options)
    handles.clear()


def test_an_emptied_handle_forgotten_after_the_end_of_its_loop_is_harmless(anyio_backend: Any) -> None:
    name, options = anyio_backend
    pool = new_pool()
    handles: list[Pooled[FakeConnection]] = []

    async def main() -> None:
        async with pool:
            handles.append(await pool.get())
            handles[0].take()

    anyio.run(main, backend=name, backend_options=options)
    handles.clear()
    assert pool.statistics().taken == 1  # there is no loop left to recover it on


# --- handles that outlive their pool ----------------------------------------------------------------------


async def outlived(*, take: bool = False) -> tuple[Pooled[FakeConnection], FakeConnection]:
    """A handle whose pool is closed and gone."""
    pool = new_pool(clock=ManualClock())
    async with pool:
        handle = await pool.get()
        connection = handle.take() if take else handle.connection
        await pool.aclose(grace=0)
    reference = weakref.ref(pool)
    del pool
    gc.collect()
    assert reference() is None, "the handle keeps its pool alive"
    return handle, connection


async def test_a_handle_does_not_keep_its_pool_alive() -> None:
    handle, _ = await outlived()
    assert repr(handle) == "<Pooled of a dropped pool: <FakeConnection 1, closed>>"
    handle.release()


@pytest.mark.parametrize("end", ["release", "discard"])
async def test_giving_back_to_a_pool_that_closed_and_went_is_harmless(end: str) -> None:
    handle, connection = await outlived()
    getattr(handle, end)()
    getattr(handle, end)()
    assert connection.closes == 1


async def test_leaving_a_block_after_the_pool_went_is_harmless() -> None:
    connections: list[FakeConnection] = []
    pools = [new_pool(clock=ManualClock())]
    async with pools[0]:
        async with pools[0].get() as connection:
            connections.append(connection)
            await pools[0].aclose(grace=0)
    assert connections[0].closes == 1


@pytest.mark.parametrize("end", ["release", "discard"])
async def test_releasing_an_emptied_handle_after_its_pool_went_is_harmless(end: str) -> None:
    handle, connection = await outlived(take=True)
    getattr(handle, end)()
    getattr(handle, end)()
    assert connection.closes == 0


async def test_taking_from_a_handle_after_its_pool_went_is_refused() -> None:
    handle, _ = await outlived()
    with pytest.raises(PoolMisuse, match=r"the pool of <Pooled of a dropped pool: .*> is gone"):
        handle.take()
    handle.release()


async def test_inserting_into_a_handle_after_its_pool_went_is_refused() -> None:
    handle, connection = await outlived(take=True)
    with pytest.raises(PoolMisuse, match=r"the pool of <Pooled of a dropped pool, empty> is gone"):
        handle.insert(connection)
    handle.release()


async def test_a_handle_forgotten_after_its_pool_went_is_harmless() -> None:
    handles = [(await outlived())[0]]
    handles.clear()


async def test_a_get_from_a_pool_that_went_is_refused() -> None:
    async with new_pool() as pool:
        handle = pool.get()
    reference = weakref.ref(pool)
    del pool
    gc.collect()
    assert reference() is None
    with pytest.raises(PoolMisuse, match=r"cannot check out with <Pooled of a dropped pool, new>: its pool is gone"):
        await handle


async def test_misuse_of_a_handle_after_its_pool_went_says_that_the_pool_is_gone() -> None:
    handle, _ = await outlived()
    handle.release()
    with pytest.raises(PoolMisuse, match="its pool is gone"):
        connection_of(handle)


class SyncConnection:
    def __init__(self) -> None:
        self.closes = 0

    def close(self) -> None:
        self.closes += 1


class AsyncConnection:
    async def close(self) -> None:
        raise AssertionError("there is nobody to run this")


class OnlyAclose:
    async def aclose(self) -> None:
        raise AssertionError("there is nobody to run this")


def orphan(connection: Any) -> Pooled[Any]:
    """A handle of a pool that was never closed, because its event loop was torn down under it."""

    async def connect() -> Any:
        return connection

    async def main() -> None:
        pool = Pool(connect)
        await pool.__aenter__()
        handles.append(await pool.get())

    handles: list[Pooled[Any]] = []
    asyncio.run(main())
    gc.collect()
    assert "of a dropped pool" in repr(handles[0])
    return handles.pop()


@pytest.mark.parametrize("end", ["release", "discard"])
def test_a_connection_whose_pool_was_torn_down_unclosed_is_closed_by_its_handle(end: str) -> None:
    connection = SyncConnection()
    handle = orphan(connection)
    getattr(handle, end)()
    getattr(handle, end)()
    assert connection.closes == 1


async def leave_block(handle: Pooled[Any]) -> None:
    await handle.__aexit__(KeyError, KeyError(), None)


def test_an_orphan_that_is_forgotten_warns() -> None:
    handles = [orphan(SyncConnection())]
    with pytest.warns(ResourceWarning, match=r"of a dropped pool: .* was never released"):
        handles.clear()


def test_leaving_a_block_by_an_exception_closes_an_orphan() -> None:
    connection = SyncConnection()
    asyncio.run(leave_block(orphan(connection)))
    assert connection.closes == 1


@pytest.mark.parametrize("connection", [AsyncConnection(), OnlyAclose()], ids=["async close", "aclose"])
def test_an_orphan_that_cannot_be_closed_synchronously_warns(connection: object) -> None:
    handle = orphan(connection)
    with pytest.warns(ResourceWarning, match="outlived its pool and could not be closed"):
        handle.release()
