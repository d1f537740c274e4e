"""A `PoolTimeout` says why: limits, what everybody is doing, the longest holder, the last dial error."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from tests.pool.caller import ASYNCIO_ONLY, Caller
from wspool import Pool, Pooled, PoolError, PoolTimeout
from wspool.testing import FakeConnection, FakeConnector, Fault, ManualClock, check_invariants, prove_capacity, settle


async def hold(pool: Pool[FakeConnection], handles: list[Pooled[FakeConnection]]) -> None:
    handles.append(await pool.get())
    await anyio.sleep_forever()  # a task that has ended has no name any more


async def test_a_get_times_out_after_acquire_timeout() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), max_size=1, clock=clock) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        caller = Caller(tasks, pool)
        await clock.advance(29.9)
        assert caller.waits
        await clock.advance(0.1)
        assert isinstance(caller.error, PoolTimeout)
        assert pool.statistics().timed_out == 1
        check_invariants(pool)
        handle.release()


def test_a_pool_timeout_is_a_timeout_error_and_a_pool_error() -> None:
    assert issubclass(PoolTimeout, TimeoutError)
    assert issubclass(PoolTimeout, PoolError)


async def test_the_text_tells_limits_and_what_everybody_is_doing() -> None:
    clock, connector = ManualClock(), FakeConnector.always()
    handles: list[Pooled[FakeConnection]] = []
    async with (
        Pool(connector, max_size=3, connect_timeout=None, acquire_timeout=2.5, name="toys", clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(hold, pool, handles, name="the first holder")
        await settle()
        await clock.advance(7)
        tasks.start_soon(hold, pool, handles, name="a later holder")
        await settle()
        connector.answer = None
        caller = Caller(tasks, pool)
        await clock.advance(1)
        later = Caller(tasks, pool)
        await clock.advance(1.5)
        assert caller.text == (
            "toys: no connection after 2.5 s (acquire_timeout=2.5 s); 3 places in use (max_size=3): "
            "2 held, 0 idle, 1 dialling, 0 reserved, 0 validating, 0 resetting, 0 closing, 0 taken out; "
            "1 still waiting; "
            "held longest: 9.5 s by task the first holder"
        )
        later.scope.cancel()
        for handle in handles:
            handle.release()
        tasks.cancel_scope.cancel()


async def test_the_text_of_a_pool_without_a_limit_says_so() -> None:
    clock, connector = ManualClock(), FakeConnector()
    async with (
        Pool(connector, max_size=None, connect_timeout=None, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        caller = Caller(tasks, pool)
        await clock.advance(30)
        assert "1 place in use (no limit)" in caller.text
        assert "held longest" not in caller.text
        assert caller.error is not None
        assert caller.error.__cause__ is None


async def test_the_last_dial_error_is_its_cause_and_in_its_text() -> None:
    clock, connector = ManualClock(), FakeConnector()
    async with (
        Pool(connector, max_size=1, acquire_timeout=9, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        victim = Caller(tasks, pool)
        await settle()
        caller = Caller(tasks, pool)
        error = (await connector.next_dial()).fail()
        await settle()
        assert victim.error is error
        await clock.advance(9)
        assert isinstance(caller.error, PoolTimeout)
        assert caller.error.__cause__ is error
        assert "last dial error: refused, by the test" in caller.text


async def test_a_task_that_waits_for_a_second_connection_is_told_that_it_holds_one() -> None:
    clock = ManualClock()
    errors: list[PoolTimeout] = []

    async def greedy(pool: Pool[FakeConnection]) -> None:
        async with pool.get():
            with pytest.raises(PoolTimeout) as caught:
                await pool.get()
            errors.append(caught.value)

    async with Pool(FakeConnector.always(), max_size=1, clock=clock) as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(greedy, pool)
        await clock.advance(30)
        assert "this task holds a connection of this pool already" in str(errors[0])


async def test_a_task_that_holds_nothing_is_not_told_so() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), max_size=1, clock=clock) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        caller = Caller(tasks, pool)
        await clock.advance(30)
        assert "this task holds" not in caller.text
        handle.release()


@ASYNCIO_ONLY
async def test_a_connection_taken_outside_any_task_is_held_by_no_task() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), max_size=1, clock=clock) as pool, anyio.create_task_group() as tasks:
        await prove_capacity(pool, 1)
        handles: list[Pooled[FakeConnection]] = []
        asyncio.get_running_loop().call_soon(lambda: handles.append(pool.get_nowait()))
        await settle()
        caller = Caller(tasks, pool)
        await clock.advance(30)
        assert "held longest: 30 s by no task" in caller.text
        assert "this task holds" not in caller.text
        handles[0].release()


async def test_a_dial_that_exceeds_connect_timeout_times_out_the_caller_that_it_was_for() -> None:
    clock, connector = ManualClock(), FakeConnector()
    async with Pool(connector, connect_timeout=2, clock=clock) as pool, anyio.create_task_group() as tasks:
        first = Caller(tasks, pool)
        await clock.advance(1)
        second = Caller(tasks, pool)
        await clock.advance(1)
        assert isinstance(first.error, PoolTimeout)
        assert "no connection after 2 s (connect_timeout=2 s)" in first.text
        assert second.waits
        second.scope.cancel()


@pytest.mark.parametrize("hanging", ["validate", "reset", "close", "dial"])
async def test_a_get_times_out_by_its_deadline_whatever_hangs(hanging: str) -> None:
    clock, connector = ManualClock(), FakeConnector.always()
    hooks: dict[str, Any] = {}
    if hanging in {"validate", "reset"}:
        hooks = {hanging: getattr(FakeConnection, hanging)}
    async with (
        Pool(
            connector,
            max_size=1,
            acquire_timeout=3,
            connect_timeout=None,
            validate_timeout=1e6,
            reset_timeout=1e6,
            close_timeout=1e6,
            clock=clock,
            **hooks,
        ) as pool,
        anyio.create_task_group() as tasks,
    ):
        handle = await pool.get()
        connection = handle.connection
        connection.on_validate = connection.on_reset = connection.on_close = Fault.HANG
        if hanging == "dial":
            connection.on_close = connector.answer = None
        if hanging in {"validate", "reset"}:
            handle.release()
        else:
            handle.discard()
        await clock.advance(2)
        caller = Caller(tasks, pool)
        await clock.advance(2.9)
        assert caller.waits
        await clock.advance(0.1)
        assert isinstance(caller.error, PoolTimeout)
        check_invariants(pool)
        await pool.aclose(grace=0)


async def test_a_caller_that_is_served_at_its_deadline_loses_nothing() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), max_size=1, clock=clock) as pool:
        async with anyio.create_task_group() as tasks:
            handle = await pool.get()
            caller = Caller(tasks, pool)
            await clock.advance(29.9)
            handle.release()
            await clock.advance(0.1)
            caller.release()
        await prove_capacity(pool, 1)


async def test_everyone_whose_time_is_up_times_out_at_once() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), max_size=1, clock=clock) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        callers = [Caller(tasks, pool) for _ in range(50)]
        await clock.advance(30)
        assert all(isinstance(caller.error, PoolTimeout) for caller in callers)
        check_invariants(pool)
        handle.release()


async def test_many_who_time_out_together_take_the_figures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the event loop stands still just when it is overloaded."""
    taken = 0
    take = Pool._take_plight

    def count(self: Pool[FakeConnection]) -> Any:
        nonlocal taken
        taken += 1
        return take(self)

    monkeypatch.setattr(Pool, "_take_plight", count)
    clock = ManualClock()
    async with Pool(FakeConnector.always(), max_size=1, acquire_timeout=1, clock=clock) as pool:
        async with anyio.create_task_group() as tasks:
            handle = await pool.get()
            callers = [Caller(tasks, pool) for _ in range(50)]
            await settle()
            await clock.advance(1)
            assert all(isinstance(caller.error, PoolTimeout) for caller in callers)
            handle.release()
    assert taken == 1
