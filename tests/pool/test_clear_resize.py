"""`clear` and `resize` on a living pool."""

from __future__ import annotations

import inspect
from typing import Any

import anyio
import pytest

from tests.pool.caller import Caller, Ends, use
from wspool import CloseReason, DialEnd, Pool, PoolMisuse, PoolTimeout
from wspool.testing import FakeConnection, FakeConnector, Fault, ManualClock, check_invariants, prove_capacity, settle

HOOKS: dict[str, Any] = {"validate": FakeConnection.validate, "reset": FakeConnection.reset}


# --- clear --------------------------------------------------------------------------------------


async def test_a_clear_closes_what_is_idle() -> None:
    ends = Ends()
    async with Pool(FakeConnector.always(), on_event=ends) as pool:
        await prove_capacity(pool, 3)
        pool.clear()
        assert pool.statistics().idle == 0
        await settle()
        assert ends.reasons == [CloseReason.CLEARED] * 3
        assert (await use(pool)).number == 4
        check_invariants(pool)


async def test_a_clear_lets_holders_finish_and_closes_what_they_give_back() -> None:
    ends = Ends()
    async with Pool(FakeConnector.always(), on_event=ends) as pool:
        async with pool.get() as connection:
            pool.clear()
            await settle()
            assert not connection.closes
        assert pool.statistics().idle == 0
        await settle()
        assert ends.reasons == [CloseReason.CLEARED]
        check_invariants(pool)


async def test_a_retired_connection_does_not_go_to_a_waiter() -> None:
    async with Pool(FakeConnector.always(), max_size=1) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        caller = Caller(tasks, pool)
        await settle()
        pool.clear()
        handle.release()
        await settle()
        assert caller.connection.number == 2
        caller.release()
        assert pool.statistics().idle == 1


async def test_a_clear_dials_anew_for_those_who_wait_for_a_dial() -> None:
    ends, connector = Ends(), FakeConnector()
    async with Pool(connector, max_size=1, on_event=ends) as pool, anyio.create_task_group() as tasks:
        caller = Caller(tasks, pool)
        old = await connector.next_dial()
        pool.clear()
        new = await connector.next_dial()
        assert old.cancelled
        assert caller.waits
        new.succeed()
        await settle()
        assert caller.connection.number == 1
        assert ends.reasons == [DialEnd.CLEARED]
        assert pool.statistics().dials_cancelled == 1
        caller.release()


async def test_a_clear_takes_back_what_is_reserved_and_its_caller_keeps_its_place() -> None:
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        first = Caller(tasks, pool)
        await settle()
        second = Caller(tasks, pool)
        await settle()
        handle.release()
        assert pool.statistics().reserved == 1
        pool.clear()
        check_invariants(pool)
        await settle()
        assert first.connection.number == 2
        assert second.waits
        first.release()
        await settle()
        second.release()


@pytest.mark.parametrize("hook", ["validate", "reset"])
async def test_a_clear_ends_checks_and_resets_under_way(hook: str) -> None:
    clock, ends = ManualClock(), Ends()
    hooks = {hook: HOOKS[hook]}
    async with Pool(FakeConnector.always(), max_size=1, on_event=ends, clock=clock, **hooks) as pool:
        handle = await pool.get()
        connection = handle.connection
        connection.on_validate = connection.on_reset = Fault.HANG
        handle.release()
        await clock.advance(30 if hook == "validate" else 0)
        assert getattr(pool.statistics(), {"validate": "validating", "reset": "resetting"}[hook]) == 1
        pool.clear()
        await settle()
        assert ends.reasons == [CloseReason.CLEARED]
        assert connection.closes == 1
        assert pool.statistics().hook_errors == 0
        assert (await use(pool)).number == 2


async def test_what_a_dial_brings_that_had_been_given_up_before_a_clear_is_not_used() -> None:
    clock, answered = ManualClock(), anyio.Event()
    opened: list[FakeConnection] = []

    async def connect() -> FakeConnection:
        if not opened:
            with anyio.CancelScope(shield=True):
                await answered.wait()
        opened.append(FakeConnection(len(opened) + 1))
        return opened[-1]

    async with Pool(connect, connect_timeout=1, clock=clock) as pool:
        async with anyio.create_task_group() as tasks:
            caller = Caller(tasks, pool)
            await clock.advance(1)
            assert isinstance(caller.error, PoolTimeout)
        pool.clear()
        answered.set()
        await settle()
        assert opened[0].closes == 1
        assert (await use(pool)).number == 2


async def test_what_is_opened_after_a_clear_stays() -> None:
    async with Pool(FakeConnector.always()) as pool:
        pool.clear()
        first = await use(pool)
        assert await use(pool) is first


async def test_a_cleared_pool_warms_up_again() -> None:
    async with Pool(FakeConnector.always(), min_idle=2) as pool:
        await settle()
        pool.clear()
        await settle()
        assert pool.statistics().idle == 2
        assert pool.statistics().closed == 2


async def test_clearing_twice_is_clearing_once() -> None:
    ends = Ends()
    async with Pool(FakeConnector.always(), on_event=ends) as pool, pool.get():
        pool.clear()
        pool.clear()
    assert ends.reasons == [CloseReason.CLEARED]


async def test_a_closed_pool_may_be_cleared() -> None:
    async with Pool(FakeConnector.always()) as pool:
        await use(pool)
        await pool.aclose()
        pool.clear()
        check_invariants(pool)


# --- resize -------------------------------------------------------------------------------------


async def test_more_room_serves_waiters_at_once() -> None:
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        callers = [Caller(tasks, pool) for _ in range(2)]
        await settle()
        assert all(caller.waits for caller in callers)
        pool.resize(max_size=3)
        await settle()
        for caller in callers:
            caller.release()
        handle.release()
        assert len(connector.dials) == 3
        check_invariants(pool)


async def test_less_room_closes_the_oldest_idle_connections_at_once() -> None:
    ends, connector = Ends(), FakeConnector.always()
    clock = ManualClock()
    async with Pool(connector, max_size=3, on_event=ends, clock=clock) as pool:
        await prove_capacity(pool, 3)
        await clock.advance(10)
        newest = await use(pool)
        pool.resize(max_size=1)
        await settle()
        assert connector.open == [newest]
        assert ends.reasons == [CloseReason.SURPLUS] * 2
        check_invariants(pool)


async def test_less_room_closes_held_connections_when_they_are_released() -> None:
    connector = FakeConnector.always()
    async with Pool(connector, max_size=3) as pool:
        handles = [await pool.get() for _ in range(3)]
        pool.resize(max_size=1)
        await settle()
        assert len(connector.open) == 3
        for left, handle in zip((2, 1, 1), handles, strict=True):
            handle.release()
            await settle()
            assert len(connector.open) == left
        assert pool.statistics().idle == 1
        check_invariants(pool)


async def test_less_room_makes_waiters_wait_for_it() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), max_size=2, clock=clock) as pool, anyio.create_task_group() as tasks:
        first, second = await pool.get(), await pool.get()
        pool.resize(max_size=1)
        caller = Caller(tasks, pool)
        await settle()
        first.release()
        await settle()
        assert caller.waits
        second.release()
        await settle()
        caller.release()
        assert pool.statistics().size == 1


async def test_a_dial_that_finishes_over_a_smaller_max_size_is_closed_and_its_caller_waits_on() -> None:
    connector = FakeConnector()
    async with Pool(connector, max_size=2) as pool, anyio.create_task_group() as tasks:
        holder = Caller(tasks, pool)
        (await connector.next_dial()).succeed()
        await settle()
        caller = Caller(tasks, pool)
        dial = await connector.next_dial()
        pool.resize(max_size=1)
        connection = dial.succeed()
        await settle()
        assert connection.closes == 1
        assert caller.waits
        check_invariants(pool)
        holder.release()
        await settle()
        assert caller.connection.number == 1
        caller.release()


async def test_a_smaller_max_idle_closes_the_oldest_idle_connections_at_once() -> None:
    async with Pool(FakeConnector.always(), max_size=3) as pool:
        await prove_capacity(pool, 3)
        pool.resize(max_idle=1)
        assert pool.statistics().idle == 1
        check_invariants(pool)


async def test_a_larger_min_idle_warms_up_at_once() -> None:
    async with Pool(FakeConnector.always()) as pool:
        pool.resize(min_idle=2)
        await settle()
        assert pool.statistics().idle == 2
        pool.resize(min_idle=0)
        check_invariants(pool)


async def test_without_a_min_idle_any_more_no_timer_waits_to_dial_again() -> None:
    clock, connector = ManualClock(), FakeConnector()
    async with Pool(connector, min_idle=1, clock=clock) as pool:
        (await connector.next_dial()).fail()
        await settle()
        assert clock.deadlines
        pool.resize(min_idle=0)
        await settle()
        assert not clock.deadlines


async def test_a_size_that_is_not_named_stays() -> None:
    async with Pool(FakeConnector(), max_size=9, max_idle=5, min_idle=0) as pool:
        pool.resize(max_size=7)
        pool.resize()
        figures = pool.statistics()
        assert (figures.max_size, figures.max_idle, figures.min_idle) == (7, 5, 0)


def test_the_signature_of_resize_tells_what_stays() -> None:
    sizes = inspect.signature(Pool.resize).parameters
    assert [repr(sizes[name].default) for name in ("max_size", "max_idle", "min_idle")] == ["(unchanged)"] * 3


async def test_no_limit_may_be_set_and_taken_back() -> None:
    async with Pool(FakeConnector.always(), max_size=1) as pool:
        pool.resize(max_size=None)
        await prove_capacity(pool, 5)
        pool.resize(max_size=2)
        assert pool.statistics().idle == 2


async def test_a_timeout_after_a_resize_names_the_new_limit() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), clock=clock) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        pool.resize(max_size=1)
        caller = Caller(tasks, pool)
        await clock.advance(30)
        assert isinstance(caller.error, PoolTimeout)
        assert "max_size=1" in caller.text
        handle.release()


def test_a_pool_that_was_not_entered_cannot_be_resized_or_cleared() -> None:
    pool = Pool(FakeConnector())
    with pytest.raises(PoolMisuse):
        pool.resize(max_size=1)
    with pytest.raises(PoolMisuse):
        pool.clear()
    assert pool.statistics().max_size == 100
