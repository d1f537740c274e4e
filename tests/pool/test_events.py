"""What an observer is told: typed events, in order, with exactly one end for each connection and dial."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import anyio
import pytest

from tests.pool.caller import Caller, use
from wspool import (
    CloseReason,
    ConnectionAcquired,
    ConnectionClosed,
    ConnectionReady,
    ConnectionReleased,
    DialEnd,
    DialFailed,
    DialStarted,
    GetTimedOut,
    GetWaiting,
    Pool,
    PoolEvent,
)
from wspool.testing import FakeConnection, FakeConnector, ManualClock, prove_capacity, settle

HOOKS: dict[str, Any] = {"validate": FakeConnection.validate, "reset": FakeConnection.reset}


class Recorder:
    """An observer that keeps everything, and a pool with it."""

    def __init__(self, connector: FakeConnector | None = None, **arguments: Any) -> None:
        self.events: list[PoolEvent] = []
        self.clock = ManualClock()
        self.connector = connector if connector is not None else FakeConnector.always()
        self.pool = Pool(self.connector, on_event=self.events.append, clock=self.clock, **arguments)

    def of(self, connection: object) -> list[str]:
        """The names of the events about one connection."""
        return [type(event).__name__ for event in self.events if getattr(event, "connection", None) is connection]

    def closings(self) -> list[CloseReason]:
        return [event.reason for event in self.events if isinstance(event, ConnectionClosed)]

    def failures(self) -> list[DialEnd]:
        return [event.reason for event in self.events if isinstance(event, DialFailed)]


async def test_the_life_of_a_connection_is_told_in_order_with_its_times() -> None:
    recorder = Recorder(FakeConnector())
    async with recorder.pool as pool, anyio.create_task_group() as tasks:
        caller = Caller(tasks, pool)
        dial = await recorder.connector.next_dial()
        await recorder.clock.advance(2)
        dial.succeed()
        await settle()
        await recorder.clock.advance(3)
        caller.release()
        await recorder.clock.advance(1)
        async with pool.get():
            await recorder.clock.advance(4)
    (connection,) = recorder.connector.connections
    assert recorder.events == [
        GetWaiting(1),
        DialStarted(1),
        ConnectionReady(1, connection, 2.0),
        ConnectionAcquired(connection, 2.0),
        ConnectionReleased(connection, 3.0),
        ConnectionAcquired(connection, 0.0),
        ConnectionReleased(connection, 4.0),
        ConnectionClosed(connection, CloseReason.POOL_CLOSED, None),
    ]


async def test_a_failed_dial_is_told_with_its_error_and_its_time() -> None:
    recorder, error = Recorder(FakeConnector()), OSError("no such host")
    async with recorder.pool as pool, anyio.create_task_group() as tasks:
        Caller(tasks, pool)
        dial = await recorder.connector.next_dial()
        await recorder.clock.advance(2)
        dial.fail(error)
        await settle()
    assert recorder.events == [GetWaiting(1), DialStarted(1), DialFailed(1, DialEnd.ERROR, error, 2.0)]


async def test_a_timed_out_get_is_told_with_how_long_it_waited() -> None:
    recorder = Recorder(FakeConnector(), connect_timeout=None)
    async with recorder.pool as pool, anyio.create_task_group() as tasks:
        Caller(tasks, pool)
        await recorder.clock.advance(30)
        assert GetTimedOut(30.0) in recorder.events


async def test_waiting_callers_are_counted() -> None:
    recorder = Recorder(max_size=1)
    async with recorder.pool as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        callers = []
        for _ in range(3):
            callers.append(Caller(tasks, pool))
            await settle()
        waiting = [event.waiting for event in recorder.events if isinstance(event, GetWaiting)]
        assert waiting == [1, 1, 2, 3]
        for caller in callers:
            caller.scope.cancel()
        handle.release()


async def test_an_inserted_connection_is_told_as_ready_and_acquired() -> None:
    recorder = Recorder()
    async with recorder.pool as pool, (handle := pool.get()) as taken:
        handle.take()
        inserted = FakeConnection(7)
        handle.insert(inserted)
    assert recorder.of(taken) == ["ConnectionReady", "ConnectionAcquired", "ConnectionReleased", "ConnectionClosed"]
    assert recorder.of(inserted) == ["ConnectionReady", "ConnectionAcquired", "ConnectionReleased", "ConnectionClosed"]
    assert ConnectionReady(0, inserted, 0.0) in recorder.events


# --- one end for each connection, with its reason --------------------------------------------------------

Scenario = Callable[[Recorder], Awaitable[object]]


async def close_idle(recorder: Recorder) -> None:
    await use(recorder.pool)
    await recorder.clock.advance(50)


async def outlive(recorder: Recorder) -> None:
    async with recorder.pool.get():
        await recorder.clock.advance(70)


async def use_up(recorder: Recorder) -> None:
    for _ in range(3):
        await use(recorder.pool)
        await settle()


async def die(recorder: Recorder) -> None:
    async with recorder.pool.get() as connection:
        connection.die()


async def fail_validation(recorder: Recorder) -> None:
    (await use(recorder.pool)).on_validate = False
    await recorder.clock.advance(30)


async def fail_reset(recorder: Recorder) -> None:
    async with recorder.pool.get() as connection:
        connection.on_reset = OSError()


async def discard(recorder: Recorder) -> None:
    (await recorder.pool.get()).discard()


async def forget(recorder: Recorder) -> None:
    handles = [await recorder.pool.get()]
    with pytest.warns(ResourceWarning):
        handles.clear()


async def exceed_max_idle(recorder: Recorder) -> None:
    await prove_capacity(recorder.pool, 3)


async def clear(recorder: Recorder) -> None:
    await use(recorder.pool)
    recorder.pool.clear()


async def close(recorder: Recorder) -> None:
    await use(recorder.pool)
    await recorder.pool.aclose()


async def take(recorder: Recorder) -> None:
    async with (handle := recorder.pool.get()):
        handle.take()


ENDS: dict[CloseReason, Scenario] = {
    CloseReason.IDLE: close_idle,
    CloseReason.LIFETIME: outlive,
    CloseReason.USES: use_up,
    CloseReason.NOT_REUSABLE: die,
    CloseReason.INVALID: fail_validation,
    CloseReason.RESET_FAILED: fail_reset,
    CloseReason.DISCARDED: discard,
    CloseReason.FORGOTTEN: forget,
    CloseReason.SURPLUS: exceed_max_idle,
    CloseReason.CLEARED: clear,
    CloseReason.POOL_CLOSED: close,
    CloseReason.TAKEN: take,
}


@pytest.mark.parametrize("reason", CloseReason)
async def test_each_connection_ends_exactly_once_with_the_reason_for_it(reason: CloseReason) -> None:
    recorder = Recorder(
        max_idle=2, max_uses=3, max_lifetime=60, lifetime_jitter=0, idle_timeout=45, reset_timeout=1, **HOOKS
    )
    async with recorder.pool:
        await ENDS[reason](recorder)
        await settle()
        assert recorder.closings() == [reason]
    ended = [event.connection for event in recorder.events if isinstance(event, ConnectionClosed)]
    ready = [event.connection for event in recorder.events if isinstance(event, ConnectionReady)]
    assert sorted(map(id, ended)) == sorted(map(id, ready))


async def test_an_end_is_told_after_the_close_hook_has_ended() -> None:
    closing, go_on = anyio.Event(), anyio.Event()

    async def close_slowly(connection: FakeConnection) -> None:
        closing.set()
        await go_on.wait()

    recorder = Recorder(close=close_slowly)
    async with recorder.pool as pool:
        (await pool.get()).discard()
        await closing.wait()
        assert recorder.closings() == []
        go_on.set()
        await settle()
        assert recorder.closings() == [CloseReason.DISCARDED]


async def test_a_connection_closed_under_its_holder_ends_once() -> None:
    recorder = Recorder()
    async with recorder.pool as pool:
        handle = await pool.get()
        connection = handle.connection
        await pool.aclose(grace=0)
        handle.release()
    assert recorder.of(connection) == ["ConnectionReady", "ConnectionAcquired", "ConnectionClosed"]


# --- one end for each dial --------------------------------------------------------------------------------


async def fail_dial(recorder: Recorder) -> None:
    (await recorder.connector.next_dial()).fail()


async def exceed_connect_timeout(recorder: Recorder) -> None:
    await recorder.clock.advance(10)


async def clear_dials(recorder: Recorder) -> None:
    recorder.pool.clear()
    await settle()
    (await recorder.connector.next_dial())  # the cleared one
    (await recorder.connector.next_dial()).succeed()


async def close_pool(recorder: Recorder) -> None:
    await recorder.pool.aclose()


DIAL_ENDS: dict[DialEnd, Scenario] = {
    DialEnd.ERROR: fail_dial,
    DialEnd.TIMEOUT: exceed_connect_timeout,
    DialEnd.CLEARED: clear_dials,
    DialEnd.POOL_CLOSED: close_pool,
}


@pytest.mark.parametrize("end", DialEnd)
async def test_each_dial_that_brings_nothing_ends_exactly_once_with_the_reason_for_it(end: DialEnd) -> None:
    recorder = Recorder(FakeConnector())
    async with recorder.pool as pool, anyio.create_task_group() as tasks:
        caller = Caller(tasks, pool)
        await settle()
        if end is DialEnd.ABANDONED:
            caller.scope.cancel()
            await recorder.clock.advance(5)
        else:
            await DIAL_ENDS[end](recorder)
            await settle()
        assert recorder.failures() == [end]
        if caller.handle is not None:
            caller.release()
    begun = [event.dial for event in recorder.events if isinstance(event, DialStarted)]
    ended = [event.dial for event in recorder.events if isinstance(event, DialFailed | ConnectionReady)]
    assert sorted(begun) == sorted(ended) == list(range(1, len(begun) + 1))


# --- order ------------------------------------------------------------------------------------------------

FOLLOWS = {
    "": {"ConnectionReady"},
    "ConnectionReady": {"ConnectionAcquired", "ConnectionClosed"},
    "ConnectionAcquired": {"ConnectionReleased", "ConnectionClosed"},
    "ConnectionReleased": {"ConnectionAcquired", "ConnectionClosed"},
    "ConnectionClosed": set(),
}


async def test_events_of_each_connection_come_in_order_through_a_busy_life() -> None:
    recorder = Recorder(max_size=3, max_idle=2, max_uses=4, **HOOKS)

    async def user(number: int) -> None:
        for turn in range(5):
            with suppress(KeyError):
                async with recorder.pool.get() as connection:
                    await anyio.lowlevel.checkpoint()
                    if (number + turn) % 4 == 0:
                        connection.die()
                    if (number + turn) % 5 == 0:
                        raise KeyError

    async with recorder.pool as pool:
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(user, number)
        pool.clear()
    for connection in recorder.connector.connections:
        told = ["", *recorder.of(connection)]
        assert all(later in FOLLOWS[earlier] for earlier, later in pairwise(told)), told
        assert told[-1] == "ConnectionClosed"


async def test_events_are_values() -> None:
    assert DialStarted(1) == DialStarted(1)
    with pytest.raises(AttributeError):
        DialStarted(1).dial = 2  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
