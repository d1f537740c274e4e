"""Closing: it ends in time whatever hangs, loses nothing, and hides no error of the body."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from tests.pool.caller import ASYNCIO_ONLY, Caller, use
from wspool import Pool, PoolClosed, PoolMisuse
from wspool.testing import FakeConnection, FakeConnector, Fault, ManualClock, check_invariants, prove_capacity, settle


class Closing:
    """An `aclose` in a task of its own."""

    def __init__(self, tasks: TaskGroup, pool: Pool[Any], **arguments: float) -> None:
        self.ended = False
        self.scope = anyio.CancelScope()
        tasks.start_soon(self._run, pool, arguments)

    async def _run(self, pool: Pool[Any], arguments: dict[str, float]) -> None:
        with self.scope:
            await pool.aclose(**arguments)
            self.ended = True


# --- what closing does ------------------------------------------------------------------------------


async def test_leaving_the_pool_closes_every_idle_connection_once() -> None:
    connector = FakeConnector.always()
    async with Pool(connector) as pool:
        await prove_capacity(pool, 5)
        assert pool.statistics().idle == 5
    assert [connection.closes for connection in connector.connections] == [1] * 5
    assert pool.statistics().size == 0


async def test_every_waiter_fails_at_once() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector(), max_size=1, name="toys", clock=clock) as pool, anyio.create_task_group() as tasks:
        callers = [Caller(tasks, pool) for _ in range(3)]
        await settle()
        await pool.aclose()
        await settle()
        for caller in callers:
            assert isinstance(caller.error, PoolClosed)
            assert caller.text == "toys was closed while this caller waited"
        assert pool.statistics().rejected == 3


async def test_a_caller_that_was_just_served_fails_if_it_has_not_resumed() -> None:
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        caller = Caller(tasks, pool)
        await settle()
        handle.release()
        assert pool.statistics().reserved == 1
        await pool.aclose()
        await settle()
        assert isinstance(caller.error, PoolClosed)
        assert connector.connections[0].closes == 1
        check_invariants(pool)


async def test_a_get_after_the_close_fails() -> None:
    async with Pool(FakeConnector.always(), name="toys") as pool:
        await pool.aclose()
        with pytest.raises(PoolClosed, match="closed"):
            await pool.get()
        with pytest.raises(PoolClosed, match="toys is closed"):
            pool.get_nowait()
    with pytest.raises(PoolClosed):
        await pool.get()


async def test_dials_under_way_are_cancelled() -> None:
    connector = FakeConnector()
    async with Pool(connector) as pool, anyio.create_task_group() as tasks:
        Caller(tasks, pool)
        dial = await connector.next_dial()
        await pool.aclose()
        assert dial.cancelled
        assert pool.statistics().dials_cancelled == 1
        check_invariants(pool)


async def test_closing_waits_for_holders_who_release_within_the_grace() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), clock=clock) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        closing = Closing(tasks, pool, grace=5)
        await clock.advance(4.9)
        assert not closing.ended
        assert not handle.connection.closes
        connection = handle.connection
        handle.release()
        await settle()
        assert closing.ended
        assert connection.closes == 1
        check_invariants(pool)


async def test_closing_closes_under_holders_who_never_release() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), clock=clock) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        closing = Closing(tasks, pool, grace=5)
        await clock.advance(5)
        assert closing.ended
        assert handle.connection.closes == 1
        assert pool.statistics().size == 0
        handle.release()
        handle.discard()
        await settle()
        assert handle is not None
        check_invariants(pool)


async def test_an_emptied_handle_does_not_hold_up_the_close() -> None:
    async with Pool(FakeConnector.always(), clock=ManualClock()) as pool:
        handle = await pool.get()
        handle.take()
        await pool.aclose()
        check_invariants(pool)
        handle.release()
        check_invariants(pool)


async def test_a_grace_of_nothing_closes_under_holders_at_once() -> None:
    async with Pool(FakeConnector.always(), clock=ManualClock()) as pool:
        async with pool.get() as connection:
            await pool.aclose(grace=0)
            assert connection.closes == 1


async def test_without_an_explicit_aclose_the_grace_is_five_seconds() -> None:
    clock, connector = ManualClock(), FakeConnector.always()
    left = anyio.Event()

    async def run_pool() -> None:
        async with Pool(connector, clock=clock) as pool:
            handle = await pool.get()
        handle.release()
        left.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_pool)
        await clock.advance(4.9)
        assert not left.is_set()
        await clock.advance(0.1)
        assert left.is_set()


# --- everything hangs -------------------------------------------------------------------------------


@pytest.mark.parametrize("hanging", ["close of an idle one", "close of a held one", "reset", "validate", "dial"])
async def test_closing_ends_within_its_grace_whatever_hangs(hanging: str) -> None:
    clock, connector = ManualClock(), FakeConnector.always()
    pool = Pool(
        connector,
        validate=FakeConnection.validate,
        reset=FakeConnection.reset,
        clock=clock,
        acquire_timeout=None,
        connect_timeout=None,
        validate_timeout=1e9,
        reset_timeout=1e9,
        close_timeout=1e9,
    )
    async with pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        connection = handle.connection
        if hanging.startswith("close"):
            connection.on_close = Fault.HANG
        if hanging == "reset":
            connection.on_reset = Fault.HANG
        if hanging == "validate":
            connection.on_validate = Fault.HANG
        if hanging == "dial":
            connector.answer = None
            Caller(tasks, pool)
        if hanging == "dial":
            handle.discard()
        elif hanging != "close of a held one":
            handle.release()
        await clock.advance(30.0)
        closing = Closing(tasks, pool, grace=3)
        await clock.advance(2.9)
        assert closing.ended == (hanging in {"dial", "reset", "validate"})  # these are cut short at once
        await clock.advance(0.1)
        assert closing.ended
        assert connection.closes == 1
        assert pool.statistics().size == 0
        check_invariants(pool)
        handle.release()


async def test_a_close_that_begins_after_the_grace_is_cut_short_too() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), clock=clock) as pool:
        handle = await pool.get()
        handle.connection.on_close = Fault.HANG
        await pool.aclose(grace=0)
        assert handle.connection.closes == 1
        handle.release()


async def test_a_dial_that_finishes_after_the_grace_has_its_connection_closed_at_once() -> None:
    """A connect that takes a shielded while to notice its cancellation."""
    clock, answer = ManualClock(), anyio.Event()
    connection = FakeConnection()
    connection.on_close = Fault.HANG

    async def connect() -> FakeConnection:
        with anyio.CancelScope(shield=True):
            await answer.wait()
        return connection

    async with Pool(connect, clock=clock) as pool, anyio.create_task_group() as tasks:
        Caller(tasks, pool)
        await settle()
        closing = Closing(tasks, pool, grace=1)
        await clock.advance(1)
        assert not closing.ended  # nothing can stop a shielded hook
        answer.set()
        await settle()
        assert closing.ended
        assert connection.closes == 1


# --- closing again, closing cancelled ------------------------------------------------------------------


async def test_closing_twice_is_closing_once() -> None:
    connector = FakeConnector.always()
    async with Pool(connector) as pool:
        await use(pool)
        await pool.aclose()
        await pool.aclose()
    assert connector.connections[0].closes == 1


async def test_two_may_close_at_once_and_both_wait() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), clock=clock) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        closings = [Closing(tasks, pool), Closing(tasks, pool)]
        await settle()
        assert [closing.ended for closing in closings] == [False, False]
        handle.release()
        await settle()
        assert [closing.ended for closing in closings] == [True, True]


@pytest.mark.parametrize(("second", "ends_after"), [(1.0, 1.0), (60.0, 5.0)], ids=["shorter", "longer"])
async def test_a_second_close_can_only_shorten_the_grace(second: float, ends_after: float) -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), clock=clock) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        first = Closing(tasks, pool, grace=5)
        await settle()
        Closing(tasks, pool, grace=second)
        await clock.advance(ends_after - 0.1)
        assert not first.ended
        await clock.advance(0.1)
        assert first.ended
        handle.release()


async def test_a_cancelled_aclose_raises_and_the_pool_goes_on_closing() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), clock=clock) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        connection = handle.connection
        closing = Closing(tasks, pool, grace=5)
        await settle()
        closing.scope.cancel()
        await settle()
        assert closing.scope.cancelled_caught
        with pytest.raises(PoolClosed):
            await pool.get()
        await clock.advance(5)
        assert connection.closes == 1
        handle.release()


async def test_a_pool_can_be_closed_from_another_task() -> None:
    async with Pool(FakeConnector.always()) as pool:
        await use(pool)
        async with anyio.create_task_group() as tasks:
            Closing(tasks, pool)
    assert pool.statistics().size == 0


async def test_a_pool_opens_once() -> None:
    pool = Pool(FakeConnector.always(), name="toys")
    async with pool:
        with pytest.raises(PoolMisuse, match=r"toys was entered before: make a new Pool"):
            async with pool:
                pass
    with pytest.raises(PoolMisuse, match="entered before"):
        async with pool:
            pass


async def test_a_pool_says_what_state_it_is_in() -> None:
    pool = Pool(FakeConnector.always(), name="toys")
    assert repr(pool) == "<Pool toys, not entered: 0 held, 0 idle, 0 waiting>"
    async with pool:
        handle = await pool.get()
        assert repr(pool) == "<Pool toys, open: 1 held, 0 idle, 0 waiting>"
        handle.release()
        assert repr(pool) == "<Pool toys, open: 0 held, 1 idle, 0 waiting>"
    assert repr(pool) == "<Pool toys, closed: 0 held, 0 idle, 0 waiting>"


async def test_figures_can_be_had_before_and_after() -> None:
    pool = Pool(FakeConnector.always())
    assert pool.statistics().size == 0
    async with pool:
        await use(pool)
    assert (pool.statistics().size, pool.statistics().acquired) == (0, 1)


# --- errors and cancellations of the body ------------------------------------------------------------------


async def test_an_exception_of_the_body_comes_out_as_itself() -> None:
    error = KeyError("mine")
    connector = FakeConnector.always()
    with pytest.raises(KeyError) as caught:
        async with Pool(connector) as pool:
            await use(pool)
            raise error
    assert caught.value is error
    assert connector.connections[0].closes == 1


async def test_an_exception_group_of_the_body_comes_out_as_it_was() -> None:
    group = ExceptionGroup("mine", [KeyError("a"), ValueError("b")])
    with pytest.raises(ExceptionGroup) as caught:
        async with Pool(FakeConnector.always()):
            raise group
    assert caught.value is group


async def test_an_exception_of_the_body_comes_out_while_dials_and_closes_fail() -> None:
    connector = FakeConnector()
    pool = Pool(connector, min_idle=2)
    with pytest.raises(KeyError):
        async with pool:
            (await connector.next_dial()).fail()
            (await connector.next_dial()).succeed().on_close = OSError()
            await settle()
            raise KeyError
    assert connector.connections[0].closes == 1
    assert pool.statistics().size == 0


async def test_the_end_of_a_cancelled_scope_closes_everything_all_the_same() -> None:
    connector = FakeConnector.always()
    pool = Pool(connector, reset=FakeConnection.reset)
    with anyio.CancelScope() as scope:
        async with pool:
            await prove_capacity(pool, 3)
            handle = await pool.get()
            handle.release()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert [connection.closes for connection in connector.connections] == [1, 1, 1]
    assert pool.statistics().size == 0


async def test_a_body_that_was_cancelled_gives_holders_their_grace() -> None:
    clock, connector = ManualClock(), FakeConnector.always()
    scope = anyio.CancelScope()
    left = anyio.Event()

    async def run_pool() -> None:
        with scope:
            async with Pool(connector, clock=clock) as pool:
                handles.append(await pool.get())
                await anyio.sleep_forever()
        left.set()

    handles: list[Any] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_pool)
        await settle()
        scope.cancel()
        await clock.advance(4.9)
        assert not left.is_set()
        await clock.advance(0.1)
        assert left.is_set()
    handles[0].release()
    assert connector.connections[0].closes == 1


async def test_a_pool_opened_in_a_cancelled_scope_closes_again() -> None:
    connector = FakeConnector.always()
    pool = Pool(connector, min_idle=1)
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with pool:
            await pool.get()
    assert scope.cancelled_caught
    assert pool.statistics().size == 0
    assert not connector.open


@ASYNCIO_ONLY
async def test_a_bare_cancel_of_the_body_comes_out_and_everything_is_closed() -> None:
    connector = FakeConnector.always()

    async def run_pool() -> None:
        async with Pool(connector) as pool:
            await use(pool)
            await asyncio.Event().wait()

    task = asyncio.create_task(run_pool())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert connector.connections[0].closes == 1


@ASYNCIO_ONLY
@pytest.mark.parametrize("hang", [None, Fault.HANG], ids=["close works", "close hangs"])
async def test_a_bare_cancel_while_the_pool_waits_for_its_holders_hastens_the_close(hang: Fault | None) -> None:
    clock, connector = ManualClock(), FakeConnector.always()
    handles: list[Any] = []

    async def run_pool() -> None:
        async with Pool(connector, clock=clock) as pool:
            handles.append(await pool.get())
            connector.connections[0].on_close = hang

    task = asyncio.create_task(run_pool())
    await settle()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert connector.connections[0].closes == 1
    handles[0].release()


@ASYNCIO_ONLY
async def test_a_bare_cancel_of_a_close_under_way_comes_out() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), clock=clock) as pool:
        handle = await pool.get()
        task = asyncio.create_task(pool.aclose())
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        handle.release()


async def test_a_clock_that_fails_ends_the_body_and_everything_is_closed() -> None:
    """The timer has no one else to tell."""

    class BrokenClock(ManualClock):
        async def sleep_until(self, deadline: float) -> None:
            if deadline < float("inf"):
                raise OSError("the clock is broken")
            await super().sleep_until(deadline)

    connector = FakeConnector.always()
    pool = Pool(connector, clock=BrokenClock())
    with pytest.raises(ExceptionGroup) as caught:
        async with pool:
            await use(pool)
            await anyio.sleep_forever()
    assert caught.group_contains(OSError, match="the clock is broken")
    assert not connector.open
    assert pool.statistics().size == 0


async def test_what_the_pool_knows_after_a_crowded_end_adds_up() -> None:
    connector = FakeConnector.always()
    async with Pool(connector, max_size=3) as pool, anyio.create_task_group() as tasks:
        callers = [Caller(tasks, pool) for _ in range(9)]
        await settle()
        for caller in callers:
            if caller.handle is not None:
                caller.release()
        await pool.aclose()
        await settle()
        for caller in callers:
            if caller.handle is not None:
                caller.release()
    check_invariants(pool)
    figures = pool.statistics()
    assert figures.opened == figures.closed == len(connector.connections)
    assert not connector.open


@ASYNCIO_ONLY
async def test_a_pool_that_is_left_in_another_task_is_closed_and_says_what_to_do() -> None:
    connector = FakeConnector.always()
    pool = Pool(connector, name="toys")
    await asyncio.create_task(pool.__aenter__())
    (await pool.get()).release()
    with pytest.raises(PoolMisuse, match="toys was closed, but in another task than it was entered in"):
        await asyncio.create_task(pool.__aexit__(None, None, None))
    assert connector.open == []
    with pytest.raises(PoolClosed):
        await pool.get()
