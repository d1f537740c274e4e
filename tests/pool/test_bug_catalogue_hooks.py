"""Known bugs of other pools: hooks that hang, callbacks that re-enter, holders who wait for more."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from tests.pool.bug_catalogue_kit import (
    Caller,
    Gate,
    Way,
    check_out_and_in,
    either_way,
    queue_up,
    skip_where_impossible,
)
from wspool import GetWaiting, Pool, PoolEvent, PoolTimeout
from wspool.testing import FakeConnection, FakeConnector, Fault, ManualClock, check_invariants, settle


@pytest.mark.parametrize("what", ["check", "dial", "dial that ignores cancellation"])
@either_way
async def test_a_cancelled_get_ends_at_once_whatever_hangs(way: Way, what: str) -> None:
    """B06 (psycopg/psycopg#1371): a cancellation was not delivered while a hook waited for a dead peer."""
    skip_where_impossible(way)
    answer, check = anyio.Event(), Gate(True)

    async def connect() -> FakeConnection:
        with anyio.CancelScope(shield=what != "dial"):
            await answer.wait()
        return FakeConnection()

    options: dict[str, Any] = {"validate": check, "validate_bypass_interval": 0} if what == "check" else {}
    async with Pool(connect, max_size=1, clock=ManualClock(), **options) as pool:
        if what == "check":
            answer.set()
            await check_out_and_in(pool)
        async with anyio.create_task_group() as tasks:
            (caller,) = await queue_up(pool, tasks, 1)
            caller.cancel(way)
            await settle()
            assert caller.gave_up
        answer.set()


async def test_a_release_returns_at_once_and_its_reset_has_a_time_limit() -> None:
    """B08 (MagicStack/asyncpg#431): release waited without limit for the protocol's clean-up."""
    clock, connector = ManualClock(), FakeConnector.always()
    async with (
        Pool(connector, max_size=1, reset=FakeConnection.reset, reset_timeout=5, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        holder, waiter = await queue_up(pool, tasks, 2)
        connector.connections[0].on_reset = Fault.HANG
        holder.leave()
        await settle()
        assert holder.ended
        await clock.advance(4.9)
        assert not waiter.worked
        await clock.advance(0.1)
        assert waiter.connection is connector.connections[1]
        assert connector.connections[0].closes == 1
        waiter.leave()


async def test_a_silent_peer_cannot_hold_a_place_for_ever() -> None:
    """B37 (transact-rs/sqlx#4349): the task that returned a connection hung on a silent peer, with the permit."""
    clock, connector = ManualClock(), FakeConnector.always()
    async with (
        Pool(connector, max_size=1, reset=FakeConnection.reset, reset_timeout=5, close_timeout=3, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        holder, waiter = await queue_up(pool, tasks, 2)
        connector.connections[0].on_reset = connector.connections[0].on_close = Fault.HANG
        holder.leave()
        await clock.advance(7.9)
        assert (waiter.worked, pool.statistics().closing) == (False, 1)
        await clock.advance(0.1)
        assert waiter.worked
        assert pool.statistics().hook_errors == 2
        check_invariants(pool)
        waiter.leave()


@either_way
async def test_a_cancellation_may_come_from_inside_the_pool_s_own_callback(way: Way) -> None:
    """B44 (dotnet/corefx#32262): a cancellation took the pool's lock inside its own callback: a deadlock."""
    skip_where_impossible(way)

    def cancel_it(event: PoolEvent) -> None:
        if isinstance(event, GetWaiting) and len(callers) == 1:
            callers[0].cancel(way)

    callers: list[Caller] = []
    async with Pool(FakeConnector.always(), max_size=1, on_event=cancel_it) as pool, anyio.create_task_group() as tasks:
        async with pool.get():
            # In two steps, so that with eager tasks too the caller is known before it queues.
            await _start_known(callers, pool, tasks)
            assert callers[0].gave_up
            assert pool.statistics().waiting == 0
        async with pool.get():
            check_invariants(pool)


async def _start_known(callers: list[Caller], pool: Pool[FakeConnection], tasks: Any) -> None:
    class Known(Caller):
        async def _run(self) -> None:
            callers.append(self)
            await super()._run()

    Known(pool, tasks)
    await settle()


async def test_a_holder_who_waits_for_a_second_connection_is_told_of_it() -> None:
    """B56 (vapor/async-kit#38, golang/go#16873): a holder asked for another: hold and wait, without a hint."""
    clock = ManualClock()
    async with Pool(FakeConnector.always(), max_size=1, acquire_timeout=30, clock=clock) as pool:
        errors: dict[str, str] = {}

        async def ask(name: str) -> None:
            with pytest.raises(PoolTimeout) as caught:
                await pool.get()
            errors[name] = str(caught.value)

        async def hold_and_ask() -> None:
            async with pool.get():
                await ask("greedy")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold_and_ask, name="the greedy one")
            await settle()
            tasks.start_soon(ask, "modest")
            await settle()
            await clock.advance(30)
        assert "this task holds a connection" in errors["greedy"]
        assert "this task holds a connection" not in errors["modest"]
        assert "the greedy one" in errors["greedy"]


async def test_while_one_connection_is_slow_to_close_the_others_come_and_go() -> None:
    """R4 (redis-py): release held the pool's condition while it awaited a disconnect: one slow peer stalled all."""
    close = Gate()
    async with Pool(FakeConnector.always(), max_size=2, close=close, clock=ManualClock()) as pool:
        async with pool.get() as slow, pool.get():
            slow.die()
        await settle()
        assert pool.statistics().closing == 1
        for _ in range(3):
            async with pool.get() as connection:
                assert connection is not slow
        close.open()
