"""What the user's own functions may do to a pool: fail, hang, lie, and be interrupted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from tests.pool.caller import ASYNCIO_ONLY, Caller, Ends, use
from wspool import (
    CloseReason,
    ConnectionClosed,
    DialEnd,
    DialFailed,
    Pool,
    PoolError,
    PoolEvent,
    PoolMisuse,
    PoolTimeout,
)
from wspool.testing import FakeConnection, FakeConnector, Fault, ManualClock, check_invariants, prove_capacity, settle

HOOKS: dict[str, Any] = {"validate": FakeConnection.validate, "reset": FakeConnection.reset}


class Interrupt(BaseException):
    """As KeyboardInterrupt, which asyncio would not let a test see."""


def make_raise(connection: Any, error: BaseException) -> None:
    connection.alive = error


# --- is_reusable --------------------------------------------------------------------------------


async def test_a_connection_that_died_in_use_is_closed_and_not_handed_out_again() -> None:
    ends = Ends()
    async with Pool(FakeConnector.always(), on_event=ends) as pool:
        async with pool.get() as first:
            first.die()
        assert await use(pool) is not first
        await settle()
        assert ends.reasons == [CloseReason.NOT_REUSABLE]
        assert first.closes == 1
        check_invariants(pool)


async def test_a_connection_that_died_while_idle_is_not_handed_out() -> None:
    async with Pool(FakeConnector.always()) as pool:
        first = await use(pool)
        first.die()
        assert await use(pool) is not first
        check_invariants(pool)


async def test_dead_idle_connections_are_passed_over_until_a_living_one() -> None:
    async with Pool(FakeConnector.always()) as pool:
        await prove_capacity(pool, 3)
        idle = [await pool.get() for _ in range(3)]
        connections = [handle.connection for handle in idle]
        for handle in idle:
            handle.release()
        connections[2].die()
        connections[1].die()
        assert pool.get_nowait().take() is connections[0]
        assert pool.statistics().closing == 2


@pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError])
async def test_an_is_reusable_that_raises_counts_as_no_and_is_logged(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """Also if it asks a cancelled task, as `Task.exception()` of a reader's task raises when that was cancelled."""
    ends = Ends()
    async with Pool(FakeConnector.always(), on_event=ends, name="toys") as pool:
        handle = await pool.get()
        error = kind("cannot tell")
        make_raise(handle.connection, error)
        with caplog.at_level(logging.WARNING, "wspool"):
            handle.release()
        await settle()
        assert [(event.reason, event.error) for event in ends.seen] == [(CloseReason.NOT_REUSABLE, error)]
        assert pool.statistics().hook_errors == 1
    (record,) = caplog.records
    assert "toys" in record.getMessage()
    assert "cannot tell" in record.getMessage()


async def test_a_new_connection_whose_is_reusable_asks_a_cancelled_task_cancels_nobody() -> None:
    connector, body_ended = FakeConnector(), False
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        caller = Caller(tasks, pool)
        dial = await connector.next_dial()
        connection = connector.new_connection()
        make_raise(connection, asyncio.CancelledError())
        dial.succeed(connection)
        await settle()
        assert isinstance(caller.error, PoolError)
        assert connection.closes == 1
        check_invariants(pool)
        body_ended = True
    assert body_ended


async def test_is_reusable_given_to_the_pool_overrules_the_connection_itself() -> None:
    async with Pool(FakeConnector.always(), is_reusable=lambda _: True) as pool:
        async with pool.get() as first:
            first.die()
        assert await use(pool) is first


async def test_a_connection_without_is_reusable_is_kept() -> None:
    async def connect() -> object:
        return object()

    async with Pool(connect) as pool:
        async with pool.get() as first:
            pass
        async with pool.get() as second:
            assert second is first


async def test_a_waiter_whose_connection_dies_before_it_resumes_keeps_its_place() -> None:
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        holder = await pool.get()
        first = Caller(tasks, pool)
        await settle()
        second = Caller(tasks, pool)
        await settle()
        holder.release()
        connector.connections[0].die()
        await settle()
        assert first.connection.number == 2
        assert second.waits
        check_invariants(pool)
        first.release()
        await settle()
        assert second.connection.number == 2
        second.release()


async def test_an_interrupt_from_is_reusable_comes_out_of_the_release_and_the_connection_is_closed() -> None:
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool:
        handle = await pool.get()
        make_raise(handle.connection, Interrupt())
        with pytest.raises(Interrupt):
            handle.release()
        await prove_capacity(pool, 1)
        assert connector.connections[0].closes == 1
        check_invariants(pool)


# --- validate -----------------------------------------------------------------------------------


async def test_a_connection_used_within_the_bypass_interval_is_not_validated() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), validate=FakeConnection.validate, clock=clock) as pool:
        await use(pool)
        await clock.advance(0.9)
        assert (await use(pool)).validations == 0


async def test_a_connection_idle_for_longer_is_validated_once_on_hand_out() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), validate=FakeConnection.validate, clock=clock) as pool:
        first = await use(pool)
        await clock.advance(1.0)
        assert await use(pool) is first
        assert first.validations == 1
        assert await use(pool) is first
        assert first.validations == 1


async def test_get_nowait_does_not_hand_out_what_has_to_be_validated_first() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), validate=FakeConnection.validate, clock=clock) as pool:
        await use(pool)
        await clock.advance(1.0)
        with pytest.raises(anyio.WouldBlock):
            pool.get_nowait()
        assert pool.statistics().idle == 1


async def test_a_validate_that_returns_none_says_yes() -> None:
    async def validate(connection: FakeConnection) -> None:
        await anyio.lowlevel.checkpoint()

    clock = ManualClock()
    async with Pool(FakeConnector.always(), validate=validate, clock=clock) as pool:
        first = await use(pool)
        await clock.advance(1.0)
        assert await use(pool) is first


@pytest.mark.parametrize("verdict", [False, OSError("no answer"), Fault.HANG], ids=["false", "raises", "hangs"])
async def test_a_caller_whose_connection_proves_invalid_is_served_by_a_dial(verdict: Any) -> None:
    clock, ends, connector = ManualClock(), Ends(), FakeConnector.always()
    async with (
        Pool(connector, max_size=1, validate=FakeConnection.validate, on_event=ends, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        first = await use(pool)
        first.on_validate = verdict
        await clock.advance(1.0)
        caller = Caller(tasks, pool)
        await settle()
        if verdict is Fault.HANG:
            assert caller.waits
            assert pool.statistics().validating == 1
            await clock.advance(4.9)
            assert caller.waits
            await clock.advance(0.1)
        assert caller.connection.number == 2
        assert ends.reasons == [CloseReason.INVALID]
        assert first.closes == 1
        assert pool.statistics().hook_errors == (verdict is not False)
        check_invariants(pool)
        caller.release()


async def test_idle_connections_are_validated_in_the_background_every_validate_interval() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), validate=FakeConnection.validate, clock=clock) as pool:
        connection = await use(pool)
        await clock.advance(26.9)  # up to a tenth earlier than 30 s
        assert connection.validations == 0
        await clock.advance(3.1)
        assert connection.validations == 1
        await clock.advance(30.0)
        assert connection.validations == 2
        assert pool.statistics().idle == 1


async def test_without_a_validate_interval_nothing_is_validated_in_the_background() -> None:
    clock = ManualClock()
    async with Pool(
        FakeConnector.always(), validate=FakeConnection.validate, validate_interval=None, clock=clock
    ) as pool:
        connection = await use(pool)
        await clock.advance(500.0)
        assert connection.validations == 0
        assert not connection.closes


async def test_a_connection_that_fails_its_background_check_is_closed() -> None:
    clock, ends = ManualClock(), Ends()
    async with Pool(FakeConnector.always(), validate=FakeConnection.validate, on_event=ends, clock=clock) as pool:
        connection = await use(pool)
        connection.on_validate = False
        await clock.advance(30.0)
        assert connection.closes == 1
        assert ends.reasons == [CloseReason.INVALID]
        assert pool.statistics().size == 0


async def test_a_connection_that_died_during_its_check_is_closed_although_the_check_said_yes() -> None:
    async def validate(connection: FakeConnection) -> bool:
        connection.die()
        return True

    clock, ends = ManualClock(), Ends()
    async with Pool(FakeConnector.always(), validate=validate, on_event=ends, clock=clock) as pool:
        await use(pool)
        await clock.advance(30.0)
        assert ends.reasons == [CloseReason.NOT_REUSABLE]


async def test_a_caller_waits_for_a_check_under_way_instead_of_dialling() -> None:
    clock, release = ManualClock(), anyio.Event()

    async def validate(connection: FakeConnection) -> None:
        await release.wait()

    connector = FakeConnector.always()
    async with Pool(connector, validate=validate, clock=clock) as pool, anyio.create_task_group() as tasks:
        first = await use(pool)
        await clock.advance(30.0)
        caller = Caller(tasks, pool)
        await settle()
        assert caller.waits
        release.set()
        await settle()
        assert caller.connection is first
        assert len(connector.dials) == 1
        caller.release()


async def test_a_check_is_no_use_so_that_idle_timeout_comes_all_the_same() -> None:
    clock, ends = ManualClock(), Ends()
    async with Pool(
        FakeConnector.always(), validate=FakeConnection.validate, idle_timeout=100, on_event=ends, clock=clock
    ) as pool:
        connection = await use(pool)
        await clock.advance(100.0)
        assert connection.validations == 3
        assert ends.reasons == [CloseReason.IDLE]


def held_up(number: int, go_on: anyio.Event) -> Callable[[FakeConnection], Awaitable[None]]:
    """A `validate` that has no answer about this one at first."""

    async def validate(connection: FakeConnection) -> None:
        if connection.number == number:
            await go_on.wait()

    return validate


async def test_a_check_that_ends_beside_newer_idle_connections_puts_its_own_below_them_to_expire_first() -> None:
    """While it was being checked, the timer was set without it."""
    clock, ends, go_on = ManualClock(), Ends(), anyio.Event()
    settings: dict[str, Any] = {"idle_timeout": 32, "validate_timeout": 20}
    async with Pool(FakeConnector.always(), validate=held_up(1, go_on), on_event=ends, clock=clock, **settings) as pool:
        old, new = await pool.get(), await pool.get()
        old.release()
        await clock.advance(29.5)
        new.release()
        await clock.advance(0.5)
        assert pool.statistics().validating == 1
        go_on.set()
        await settle()
        newest = pool.get_nowait()
        assert newest.connection.number == 2
        newest.release()
        check_invariants(pool)
        await clock.advance(2)
        assert ends.reasons == [CloseReason.IDLE]


async def test_one_that_comes_back_from_a_check_does_not_expire_if_it_is_to_be_kept_ready() -> None:
    clock, ends = ManualClock(), Ends()
    settings: dict[str, Any] = {"idle_timeout": 32, "min_idle": 1}
    connector = FakeConnector.always()
    async with Pool(connector, validate=FakeConnection.validate, on_event=ends, clock=clock, **settings) as pool:
        await settle()
        await clock.advance(30)
        await settle()
        assert connector.connections[0].validations == 1
        await clock.advance(60)
        assert pool.statistics().idle == 1
        assert ends.reasons == []


async def test_a_check_that_ends_beside_older_idle_connections_puts_its_own_on_top() -> None:
    clock, go_on = ManualClock(), anyio.Event()
    async with Pool(FakeConnector.always(), validate=held_up(2, go_on), clock=clock) as pool:
        old, new = await pool.get(), await pool.get()
        old.release()
        await clock.advance(5.0)
        new.release()
        await clock.advance(30.0)
        assert (pool.statistics().validating, pool.statistics().idle) == (1, 1)
        go_on.set()
        await settle()
        check_invariants(pool)
        newest = pool.get_nowait()
        assert newest.connection.number == 2
        newest.release()


async def test_a_background_check_over_max_idle_closes_its_connection() -> None:
    clock, go_on = ManualClock(), anyio.Event()
    ends = Ends()
    async with Pool(FakeConnector.always(), validate=held_up(1, go_on), max_idle=1, on_event=ends, clock=clock) as pool:
        old, new = await pool.get(), await pool.get()
        old.release()
        await clock.advance(30.0)
        new.release()
        go_on.set()
        await settle()
        assert ends.reasons == [CloseReason.SURPLUS]
        check_invariants(pool)


# --- reset --------------------------------------------------------------------------------------


async def test_a_released_connection_is_reset_before_its_next_user_gets_it() -> None:
    go_on, connector = anyio.Event(), FakeConnector.always()

    async def reset(connection: FakeConnection) -> None:
        connection.resets += 1
        await go_on.wait()

    async with Pool(connector, max_size=1, reset=reset) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        handle.release()
        assert pool.statistics().resetting == 1
        caller = Caller(tasks, pool)
        await settle()
        assert caller.waits
        go_on.set()
        await settle()
        assert (caller.connection.number, caller.connection.resets) == (1, 1)
        caller.release()
        await settle()
        assert pool.statistics().idle == 1


@pytest.mark.parametrize("fault", [OSError("broken"), Fault.HANG], ids=["raises", "hangs"])
async def test_a_connection_whose_reset_fails_is_closed_and_its_place_moves_on(fault: Any) -> None:
    clock, ends = ManualClock(), Ends()
    async with (
        Pool(FakeConnector.always(), max_size=1, reset=FakeConnection.reset, on_event=ends, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        handle = await pool.get()
        first = handle.connection
        first.on_reset = fault
        caller = Caller(tasks, pool)
        await settle()
        handle.release()
        await settle()
        if fault is Fault.HANG:
            assert pool.statistics().resetting == 1
            await clock.advance(5.0)
        assert caller.connection.number == 2
        assert ends.reasons == [CloseReason.RESET_FAILED]
        assert ends.seen[0].error is (None if fault is Fault.HANG else fault)
        assert pool.statistics().hook_errors == 1
        first.on_reset = None
        caller.release()


async def test_a_connection_that_died_during_its_reset_is_closed() -> None:
    async def reset(connection: FakeConnection) -> None:
        connection.die()

    ends = Ends()
    async with Pool(FakeConnector.always(), reset=reset, on_event=ends) as pool:
        await use(pool)
        await settle()
        assert ends.reasons == [CloseReason.NOT_REUSABLE]


async def test_a_connection_that_died_in_use_is_not_reset() -> None:
    async with Pool(FakeConnector.always(), reset=FakeConnection.reset) as pool:
        async with pool.get() as connection:
            connection.die()
        await settle()
        assert (connection.resets, connection.closes) == (0, 1)


# --- close --------------------------------------------------------------------------------------


async def test_a_close_hook_may_be_synchronous() -> None:
    closed: list[FakeConnection] = []
    async with Pool(FakeConnector.always(), close=closed.append) as pool:
        connection = await use(pool)
    assert closed == [connection]
    assert not connection.closes


async def test_a_close_hook_may_be_asynchronous() -> None:
    closed: list[FakeConnection] = []

    async def close(connection: FakeConnection) -> None:
        await anyio.lowlevel.checkpoint()
        closed.append(connection)

    async with Pool(FakeConnector.always(), close=close) as pool:
        connection = await use(pool)
    assert closed == [connection]


async def test_without_a_close_hook_aclose_goes_before_close() -> None:
    calls: list[str] = []

    class Both:
        def close(self) -> None:
            calls.append("close")

        async def aclose(self) -> None:
            calls.append("aclose")

    async def connect() -> Both:
        return Both()

    async with Pool(connect) as pool, pool.get():
        pass
    assert calls == ["aclose"]


async def test_without_a_close_hook_and_aclose_a_synchronous_close_will_do() -> None:
    calls: list[str] = []

    class OnlyClose:
        def close(self) -> None:
            calls.append("close")

    async def connect() -> OnlyClose:
        return OnlyClose()

    async with Pool(connect) as pool, pool.get():
        pass
    assert calls == ["close"]


async def test_a_connection_without_any_close_is_just_dropped() -> None:
    async def connect() -> object:
        return object()

    async with Pool(connect) as pool, pool.get():
        pass
    assert pool.statistics().closed == 1
    assert pool.statistics().hook_errors == 0


async def test_a_close_that_raises_is_logged_and_frees_its_place(caplog: pytest.LogCaptureFixture) -> None:
    ends, error = Ends(), OSError("already gone")
    async with Pool(FakeConnector.always(), max_size=1, on_event=ends) as pool:
        handle = await pool.get()
        handle.connection.on_close = error
        handle.discard()
        await prove_capacity(pool, 1)
        assert [(event.reason, event.error) for event in ends.seen] == [(CloseReason.DISCARDED, error)]
        assert pool.statistics().hook_errors == 1
    assert "already gone" in caplog.text


async def test_a_close_that_hangs_keeps_its_place_until_close_timeout() -> None:
    clock, ends = ManualClock(), Ends()
    async with (
        Pool(FakeConnector.always(), max_size=1, on_event=ends, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        handle = await pool.get()
        handle.connection.on_close = Fault.HANG
        handle.discard()
        caller = Caller(tasks, pool)
        await clock.advance(4.9)
        assert caller.waits
        assert pool.statistics().closing == 1
        await clock.advance(0.1)
        assert caller.connection.number == 2
        assert ends.reasons == [CloseReason.DISCARDED]
        assert pool.statistics().hook_errors == 1
        caller.release()


async def test_the_error_that_condemned_a_connection_is_not_hidden_by_its_close() -> None:
    ends, error = Ends(), OSError("reset failed")
    async with Pool(FakeConnector.always(), reset=FakeConnection.reset, on_event=ends) as pool:
        handle = await pool.get()
        handle.connection.on_reset = error
        handle.connection.on_close = OSError("close failed")
        handle.release()
        await settle()
        assert ends.seen[0].error is error
        assert pool.statistics().hook_errors == 2


# --- connect ------------------------------------------------------------------------------------


async def test_the_error_of_a_dial_reaches_the_caller_it_was_started_for_unchanged() -> None:
    connector = FakeConnector()
    async with Pool(connector) as pool, anyio.create_task_group() as tasks:
        first = Caller(tasks, pool)
        await settle()
        second = Caller(tasks, pool)
        error = (await connector.next_dial()).fail()
        await settle()
        assert first.error is error
        assert second.waits
        (await connector.next_dial()).succeed()
        await settle()
        second.release()
        figures = pool.statistics()
        assert (figures.failed, figures.dials_failed, figures.last_dial_error) == (1, 1, None)


async def test_the_last_dial_error_is_kept_until_a_dial_succeeds() -> None:
    connector = FakeConnector()
    async with Pool(connector) as pool, anyio.create_task_group() as tasks:
        Caller(tasks, pool)
        error = (await connector.next_dial()).fail()
        await settle()
        assert pool.statistics().last_dial_error is error


async def test_a_connect_that_hangs_ends_at_connect_timeout() -> None:
    clock, connector, ends = ManualClock(), FakeConnector(), Ends()
    async with Pool(connector, on_event=ends, clock=clock) as pool, anyio.create_task_group() as tasks:
        caller = Caller(tasks, pool)
        dial = await connector.next_dial()
        await clock.advance(9.9)
        assert caller.waits
        await clock.advance(0.1)
        assert isinstance(caller.error, PoolTimeout)
        assert "connect_timeout=10 s" in caller.text
        assert dial.cancelled
        (end,) = ends.seen
        assert isinstance(end, DialFailed)
        assert (end.reason, end.elapsed) == (DialEnd.TIMEOUT, 10.0)
        assert pool.statistics().dials_failed == 1
        check_invariants(pool)


async def test_a_connect_that_ignores_its_cancellation_keeps_its_place_and_its_connection_is_used() -> None:
    clock = ManualClock()
    connection = FakeConnection(1)

    async def connect() -> FakeConnection:
        with suppress(BaseException):
            await anyio.sleep_forever()
        return connection

    async with Pool(connect, max_size=1, clock=clock) as pool, anyio.create_task_group() as tasks:
        caller = Caller(tasks, pool)
        await settle()
        await clock.advance(10.0)
        assert isinstance(caller.error, PoolTimeout)
        assert await use(pool) is connection
        check_invariants(pool)


async def test_a_connect_that_ignores_the_closing_of_the_pool_has_its_connection_closed() -> None:
    connection = FakeConnection(1)

    async def connect() -> FakeConnection:
        with suppress(BaseException):
            await anyio.sleep_forever()
        return connection

    async with Pool(connect) as pool, anyio.create_task_group() as tasks:
        Caller(tasks, pool)
        await settle()
        await pool.aclose()
    assert connection.closes == 1


async def test_a_connect_that_ignores_a_clear_has_its_connection_closed() -> None:
    connections = [FakeConnection(2), FakeConnection(1)]
    ends = Ends()

    async def connect() -> FakeConnection:
        connection = connections.pop()
        if connection.number == 1:
            with suppress(BaseException):
                await anyio.sleep_forever()
        return connection

    async with Pool(connect, on_event=ends) as pool, anyio.create_task_group() as tasks:
        caller = Caller(tasks, pool)
        await settle()
        pool.clear()
        await settle()
        assert caller.connection.number == 2
        assert ends.reasons == [CloseReason.CLEARED]
        caller.release()


async def test_a_connect_that_returns_none_is_an_error_that_names_it() -> None:
    async def forgot_to_return() -> None:
        pass

    async with Pool(forgot_to_return) as pool:
        with pytest.raises(TypeError, match=r"connect must return a connection: .*forgot_to_return returned None"):
            await pool.get()
        assert pool.statistics().size == 0


async def test_a_connect_that_is_not_async_is_an_error_that_names_it() -> None:
    def not_async() -> Any:
        return 42

    async with Pool(not_async) as pool:
        with pytest.raises(TypeError, match=r"connect must be an async function: .*not_async returned 42"):
            await pool.get()
        assert pool.statistics().size == 0


async def test_a_connect_that_raises_before_it_awaits_anything_fails_its_caller_only() -> None:
    def connect() -> Awaitable[FakeConnection]:
        raise OSError("no such host")

    async with Pool(connect) as pool:
        with pytest.raises(OSError, match="no such host"):
            await pool.get()
        check_invariants(pool)


async def test_a_connect_that_returns_what_is_in_the_pool_already_is_refused_and_the_first_holder_undisturbed() -> None:
    connection = FakeConnection(1)

    async def connect() -> FakeConnection:
        return connection

    async with Pool(connect) as pool:
        async with pool.get() as first:
            with pytest.raises(PoolMisuse, match=r"connect returned <FakeConnection 1, alive>, which .* already"):
                await pool.get()
            assert (first, first.closes) == (connection, 0)
        check_invariants(pool)
    assert connection.closes == 1


async def test_a_get_may_bring_its_own_connect() -> None:
    special = FakeConnection(7)

    async def connect() -> FakeConnection:
        return special

    async with Pool(FakeConnector()) as pool:
        async with pool.get(connect=connect) as connection:
            assert connection is special
        assert await use(pool) is special  # connections are interchangeable


async def test_hooks_run_in_the_context_in_which_the_pool_was_entered() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="default")
    seen: list[str] = []

    async def connect() -> FakeConnection:
        seen.append(variable.get())
        return FakeConnection()

    async def reset(connection: FakeConnection) -> None:
        seen.append(variable.get())

    async def caller(pool: Pool[FakeConnection]) -> None:
        variable.set("caller")
        async with pool.get():
            pass

    variable.set("pool")
    async with Pool(connect, reset=reset) as pool:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(caller, pool)
        await settle()
    assert seen == ["pool", "pool"]


# --- cancellations and interrupts from inside a hook ----------------------------------------------


async def leak_a_cancellation() -> None:
    """What awaiting a task or future that somebody else cancelled does."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


@ASYNCIO_ONLY
async def test_a_cancellation_of_the_dials_own_making_is_an_error_for_its_caller_and_does_not_end_the_body() -> None:
    async def connect() -> FakeConnection:
        await leak_a_cancellation()
        raise AssertionError

    body_ended = False
    async with Pool(connect) as pool:
        with pytest.raises(PoolError, match=r"connect .*ended by CancelledError") as caught:
            await pool.get()
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        await settle()
        check_invariants(pool)
        body_ended = True
    assert body_ended


@ASYNCIO_ONLY
@pytest.mark.parametrize("hook", ["validate", "reset", "close"])
async def test_a_cancellation_of_a_hooks_own_making_closes_the_connection_and_does_not_end_the_body(hook: str) -> None:
    async def leak(connection: FakeConnection) -> None:
        await leak_a_cancellation()

    clock = ManualClock()
    hooks: dict[str, Any] = {hook: leak}
    body_ended = False
    async with Pool(FakeConnector.always(), max_size=1, max_idle=int(hook != "close"), clock=clock, **hooks) as pool:
        await use(pool)
        await clock.advance(30.0)
        assert pool.statistics().hook_errors == 1
        assert pool.statistics().closed == 1
        await prove_capacity(pool, 1)
        body_ended = True
    assert body_ended


def interrupting(hook: str) -> dict[str, Any]:
    async def connect() -> FakeConnection:
        raise Interrupt

    async def interrupt(connection: FakeConnection) -> None:
        raise Interrupt

    return {"connect": connect} if hook == "connect" else {"connect": FakeConnector.always(), hook: interrupt}


@pytest.mark.parametrize("hook", ["connect", "validate", "reset", "close"])
async def test_an_interrupt_from_a_hook_comes_out_of_the_pool_which_closes_everything(hook: str) -> None:
    clock = ManualClock()
    pool: Pool[FakeConnection] | None = None
    with pytest.raises(BaseExceptionGroup) as caught:
        async with Pool(max_size=2, max_idle=1, clock=clock, **interrupting(hook)) as pool:
            with suppress(PoolError):
                await prove_capacity(pool, 1)
                await prove_capacity(pool, 2)
                await clock.advance(30.0)
            await anyio.sleep_forever()
    assert caught.group_contains(Interrupt)
    assert pool is not None
    assert pool.statistics().size == 0


# --- on_event -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError])
async def test_an_on_event_that_raises_is_logged_and_disturbs_nobody(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def observe(event: PoolEvent) -> None:
        raise kind("bad observer")

    async with Pool(FakeConnector.always(), on_event=observe) as pool:
        await use(pool)
        assert pool.statistics().hook_errors == 5  # waiting, started, ready, acquired, released
        check_invariants(pool)
    assert "bad observer" in caplog.text


async def test_an_on_event_may_use_the_pool() -> None:
    sizes: list[int] = []

    def observe(event: PoolEvent) -> None:
        sizes.append(pool.statistics().size)
        if isinstance(event, ConnectionClosed):
            pool.clear()

    async with Pool(FakeConnector.always(), on_event=observe) as pool:
        async with pool.get() as connection:
            connection.die()
        await settle()
        assert sizes == [1, 1, 1, 1, 1, 0]
        check_invariants(pool)


def observer_that_interrupts(kind: str) -> tuple[Callable[[PoolEvent], None], list[bool]]:
    armed: list[bool] = []

    def observe(event: PoolEvent) -> None:
        if armed and type(event).__name__ == kind:
            armed.clear()
            raise Interrupt

    return observe, armed


@pytest.mark.parametrize("hit", [True, False], ids=["hit", "miss"])
async def test_an_interrupt_from_on_event_while_getting_loses_no_connection(hit: bool) -> None:
    observe, armed = observer_that_interrupts("ConnectionAcquired")
    async with Pool(FakeConnector.always(), max_size=1, on_event=observe) as pool:
        if hit:
            await use(pool)
        armed.append(True)
        with pytest.raises(Interrupt):
            await pool.get()
        assert pool.statistics().held == 0
        await prove_capacity(pool, 1)
        check_invariants(pool)


async def test_an_interrupt_from_on_event_in_get_nowait_loses_no_connection() -> None:
    observe, armed = observer_that_interrupts("ConnectionAcquired")
    async with Pool(FakeConnector.always(), max_size=1, on_event=observe) as pool:
        await use(pool)
        armed.append(True)
        with pytest.raises(Interrupt):
            pool.get_nowait()
        assert pool.statistics().held == 0
        await prove_capacity(pool, 1)


@pytest.mark.parametrize("kind", ["GetWaiting", "DialStarted"])
async def test_an_interrupt_from_on_event_while_queueing_leaves_the_queue(kind: str) -> None:
    observe, armed = observer_that_interrupts(kind)
    async with Pool(FakeConnector.always(), max_size=1, on_event=observe) as pool:
        armed.append(True)
        with pytest.raises(Interrupt):
            await pool.get()
        await settle()
        check_invariants(pool)
        assert pool.statistics().waiting == 0
        await prove_capacity(pool, 1)


async def test_an_interrupt_from_on_event_on_release_has_released() -> None:
    observe, armed = observer_that_interrupts("ConnectionReleased")
    async with Pool(FakeConnector.always(), max_size=1, on_event=observe) as pool:
        handle = await pool.get()
        armed.append(True)
        with pytest.raises(Interrupt):
            handle.release()
        assert pool.statistics().idle == 1
        await prove_capacity(pool, 1)
