"""The test kit does what it says, and finds faults that were planted for it."""

from __future__ import annotations

import re
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from wspool import Pool, Poolable, Pooled, PoolTimeout
from wspool.testing import (
    FakeConnection,
    FakeConnector,
    Fault,
    ManualClock,
    cancel_everywhere,
    check_invariants,
    prove_capacity,
    settle,
)

# --- settle ---------------------------------------------------------------------------------------


async def test_settle_returns_when_every_other_task_is_blocked() -> None:
    steps: list[int] = []

    async def work() -> None:
        for step in range(20):
            steps.append(step)
            await anyio.lowlevel.checkpoint()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await settle()
        assert len(steps) == 20
        tasks.cancel_scope.cancel()


async def test_settle_waits_for_tasks_that_wake_each_other() -> None:
    events = [anyio.Event() for _ in range(10)]

    async def pass_on(number: int) -> None:
        await events[number].wait()
        if number + 1 < len(events):
            events[number + 1].set()

    async with anyio.create_task_group() as tasks:
        for number in range(len(events)):
            tasks.start_soon(pass_on, number)
        await settle()
        events[0].set()
        await settle()
        assert events[-1].is_set()


async def test_settle_alone_returns() -> None:
    await settle()


# --- ManualClock --------------------------------------------------------------------------------------


class Sleeper:
    def __init__(self, clock: ManualClock, deadline: float) -> None:
        self.clock = clock
        self.deadline = deadline
        self.woke_at: float | None = None

    async def __call__(self) -> None:
        await self.clock.sleep_until(self.deadline)
        self.woke_at = self.clock.now()


async def test_time_stands_still_until_it_is_advanced() -> None:
    clock = ManualClock(50.0)
    await settle()
    assert clock.now() == 50.0
    await clock.advance(0.5)
    assert clock.now() == 50.5


async def test_time_stops_at_each_deadline_on_the_way() -> None:
    clock = ManualClock(0.0)
    sleepers = [Sleeper(clock, deadline) for deadline in (3.0, 1.0, 2.0, 9.0)]
    async with anyio.create_task_group() as tasks:
        for sleeper in sleepers:
            tasks.start_soon(sleeper)
        await settle()
        assert clock.deadlines == [1.0, 2.0, 3.0, 9.0]
        await clock.advance(5.0)
        assert [sleeper.woke_at for sleeper in sleepers] == [3.0, 1.0, 2.0, None]
        assert clock.now() == 5.0
        assert clock.deadlines == [9.0]
        tasks.cancel_scope.cancel()
    assert clock.deadlines == []


async def test_a_deadline_set_on_the_way_is_kept_too() -> None:
    clock = ManualClock(0.0)
    woken: list[float] = []

    async def sleep_twice() -> None:
        for _ in range(2):
            await clock.sleep_until(clock.now() + 1)
            woken.append(clock.now())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sleep_twice)
        await clock.advance(2.0)
    assert woken == [1.0, 2.0]


async def test_a_deadline_in_the_past_does_not_block() -> None:
    clock = ManualClock(10.0)
    await clock.sleep_until(10.0)
    await clock.sleep_until(-1.0)


async def test_who_sleeps_for_ever_has_no_deadline() -> None:
    clock = ManualClock()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep_until, float("inf"))
        await settle()
        assert clock.deadlines == []
        await clock.advance(1e12)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ("1", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
async def test_time_goes_forward_and_comes_to_no_end(value: Any, error: type[Exception]) -> None:
    clock = ManualClock(50.0)
    with pytest.raises(error, match=f"seconds must be a .*number of seconds.*, got {value!r}"):
        await clock.advance(value)
    assert clock.now() == 50.0
    with pytest.raises(error, match=f"now must be a .*number of seconds.*, got {value!r}"):
        ManualClock(value)


# --- FakeConnection ------------------------------------------------------------------------------------


def test_a_fake_connection_is_poolable() -> None:
    assert isinstance(FakeConnection(), Poolable)
    assert not isinstance(object(), Poolable)


async def test_a_fake_connection_shows_its_number_and_condition() -> None:
    connection = FakeConnection(3)
    assert repr(connection) == "<FakeConnection 3, alive>"
    connection.die()
    assert repr(connection) == "<FakeConnection 3, dead>"
    assert not connection.is_reusable()
    await connection.aclose()
    assert repr(connection) == "<FakeConnection 3, closed>"


def test_a_fake_connection_notices_two_users_at_once() -> None:
    connection = FakeConnection(1)
    connection.use("A")
    with pytest.raises(AssertionError, match="is used by 'A' and by 'B' at once"):
        connection.use("B")
    connection.leave()
    connection.use("B")


async def test_a_fake_connection_notices_its_use_after_its_close() -> None:
    connection = FakeConnection(1)
    await connection.aclose()
    with pytest.raises(AssertionError, match="closed> was handed out"):
        connection.use("A")


@pytest.mark.parametrize("hook", ["validate", "reset", "aclose"])
async def test_the_hooks_of_a_fake_connection_do_well_raise_or_hang_as_told(hook: str) -> None:
    connection = FakeConnection()
    attribute = {"validate": "on_validate", "reset": "on_reset", "aclose": "on_close"}[hook]
    assert await getattr(connection, hook)() == (True if hook == "validate" else None)
    setattr(connection, attribute, OSError("as told"))
    with pytest.raises(OSError, match="as told"):
        await getattr(connection, hook)()
    setattr(connection, attribute, Fault.HANG)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(getattr(connection, hook))
        await settle()
        tasks.cancel_scope.cancel()
    assert {"validate": connection.validations, "reset": connection.resets, "aclose": connection.closes}[hook] == 3


@pytest.mark.parametrize("verdict", [True, False])
async def test_the_verdict_of_validate_can_be_told(verdict: bool) -> None:
    connection = FakeConnection()
    connection.on_validate = verdict
    assert await connection.validate() is verdict


async def test_a_dead_fake_connection_fails_its_validation() -> None:
    connection = FakeConnection()
    connection.die()
    assert not await connection.validate()


def test_is_reusable_can_be_told_to_raise() -> None:
    connection: Any = FakeConnection()
    connection.alive = OSError("as told")
    with pytest.raises(OSError, match="as told"):
        connection.is_reusable()


# --- FakeConnector -------------------------------------------------------------------------------------


async def dial(connector: FakeConnector, outcomes: list[object]) -> None:
    try:
        outcomes.append(await connector())
    except OSError as error:
        outcomes.append(error)


async def test_dials_are_answered_by_hand_in_any_order() -> None:
    connector = FakeConnector()
    outcomes: list[object] = []
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(dial, connector, outcomes)
            await settle()
        first = await connector.next_dial()
        second = await connector.next_dial()
        third = await connector.next_dial()
        assert connector.pending == [first, second, third]
        connection = second.succeed()
        await settle()
        assert connector.pending == [first, third]
        error = third.fail()
        await settle()
        given = OSError("mine")
        assert first.fail(given) is given
        await settle()
        assert outcomes == [connection, error, given]
        assert isinstance(error, ConnectionRefusedError)
        assert connector.connections == connector.open == [connection]


async def test_a_dial_may_be_answered_with_a_connection_of_ones_own() -> None:
    connector = FakeConnector()
    outcomes: list[object] = []
    mine = FakeConnection(99)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dial, connector, outcomes)
        assert (await connector.next_dial()).succeed(mine) is mine
    assert outcomes == [mine]


async def test_there_is_no_next_dial_if_none_was_started() -> None:
    with pytest.raises(AssertionError, match="no further dial was started"):
        await FakeConnector().next_dial()


async def test_a_dial_is_answered_once() -> None:
    connector = FakeConnector()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dial, connector, [])
        answered = await connector.next_dial()
        answered.succeed()
        with pytest.raises(AssertionError, match="has ended already"):
            answered.fail()


@pytest.mark.parametrize("error", ["no exception", OSError])
async def test_a_dial_fails_by_an_exception_only(error: Any) -> None:
    connector = FakeConnector()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dial, connector, [])
        pending = await connector.next_dial()
        with pytest.raises(TypeError, match="error must be an exception, got "):
            pending.fail(error)
        assert pending.pending
        pending.fail()


async def test_a_dial_succeeds_by_a_fake_connection_only() -> None:
    connector, error = FakeConnector(), cast("Any", OSError())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dial, connector, [])
        pending = await connector.next_dial()
        with pytest.raises(TypeError, match=r"must be a FakeConnection, got OSError\(\): an error is for fail"):
            pending.succeed(error)
        assert pending.pending
        pending.succeed()


@pytest.mark.parametrize("fault", [ConnectionResetError, ConnectionResetError()])
async def test_a_fault_is_raised_by_its_hook_also_if_only_its_class_is_given(fault: Any) -> None:
    connection = FakeConnection()
    connection.on_close = connection.on_validate = connection.on_reset = connection.alive = fault
    for hook in (connection.aclose, connection.validate, connection.reset):
        with pytest.raises(ConnectionResetError):
            await hook()
    with pytest.raises(ConnectionResetError):
        connection.is_reusable()


async def test_a_cancelled_dial_knows_that_it_was_cancelled() -> None:
    connector = FakeConnector()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dial, connector, [])
        await settle()
        tasks.cancel_scope.cancel()
    (cancelled,) = connector.dials
    assert cancelled.cancelled
    assert not cancelled.pending
    with pytest.raises(AssertionError, match="has ended already"):
        cancelled.succeed()


@pytest.mark.parametrize("by_hand", [True, False], ids=["answered by hand", "always"])
async def test_a_connection_whose_dial_was_cancelled_before_it_could_return_it_is_not_left_open(by_hand: bool) -> None:
    connector = FakeConnector() if by_hand else FakeConnector.always()
    async with anyio.create_task_group() as tasks:
        if by_hand:
            tasks.start_soon(connector)
            answered = await connector.next_dial()
            tasks.cancel_scope.cancel()
            answered.succeed()
        else:
            tasks.cancel_scope.cancel()
            await connector()
    assert connector.open == []


async def test_a_connector_may_answer_by_a_function() -> None:
    def answer() -> FakeConnection:
        if connector.connections:
            raise OSError("only one")
        return connector.new_connection()

    connector = FakeConnector(answer)
    assert (await connector()).number == 1
    with pytest.raises(OSError, match="only one"):
        await connector()
    assert len(connector.dials) == 2


async def test_an_always_connector_numbers_its_connections() -> None:
    connector = FakeConnector.always()
    assert [(await connector()).number for _ in range(3)] == [1, 2, 3]
    await connector.connections[1].aclose()
    assert [connection.number for connection in connector.open] == [1, 3]


# --- check_invariants, prove_capacity ---------------------------------------------------------------------


async def test_a_sound_pool_passes() -> None:
    pool = Pool(FakeConnector.always())
    check_invariants(pool)
    async with pool:
        check_invariants(pool)
        await prove_capacity(pool, 100)
        check_invariants(pool)
    check_invariants(pool)


async def test_a_place_that_was_lost_is_found() -> None:
    async with Pool(FakeConnector.always()) as pool:
        pool._state.places += 1
        with pytest.raises(AssertionError, match="S1: places are miscounted"):
            check_invariants(pool)
        pool._state.places -= 1


class HastyClock(ManualClock):
    """Jumps to the next deadline when the pool has been left alone for a while."""

    async def sleep_until(self, deadline: float) -> None:
        if deadline == float("inf"):
            await super().sleep_until(deadline)
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        self._now = max(self._now, deadline)


async def test_capacity_that_is_not_there_is_a_timeout_and_what_was_held_is_given_back() -> None:
    async with Pool(FakeConnector.always(), max_size=2, clock=HastyClock()) as pool:
        with pytest.raises(PoolTimeout):
            await prove_capacity(pool, 3)
        assert pool.statistics().held == 0
        await prove_capacity(pool, 2)


async def test_capacity_that_fails_by_a_dial_is_that_dials_error() -> None:
    async with Pool(FakeConnector(refuse)) as pool:
        with pytest.raises(ConnectionRefusedError):
            await prove_capacity(pool, 1)


def refuse() -> FakeConnection:
    raise ConnectionRefusedError


# --- cancel_everywhere --------------------------------------------------------------------------------------


def small_pool(**arguments: Any) -> Pool[FakeConnection]:
    settings: dict[str, Any] = {"max_size": 2, **arguments}
    return Pool(FakeConnector.always(), **settings)


async def careful_user(pool: Pool[FakeConnection]) -> None:
    async with pool.get() as connection:
        connection.use("careful user")
        try:
            await anyio.lowlevel.checkpoint()
        finally:
            connection.leave()


def ways(anyio_backend_name: str) -> int:
    return 1 if anyio_backend_name == "trio" else 2


async def test_a_sweep_cancels_at_every_step_in_every_way(anyio_backend_name: str) -> None:
    report = await cancel_everywhere(small_pool, careful_user)
    assert report.runs - report.delivered == ways(anyio_backend_name)  # the last of each reaches nothing
    assert report.delivered >= 2 * ways(anyio_backend_name)


async def test_a_sweep_of_nothing_runs_once_in_every_way(anyio_backend_name: str) -> None:
    async def nothing(pool: Pool[FakeConnection]) -> None:
        pass

    report = await cancel_everywhere(small_pool, nothing)
    assert (report.runs, report.delivered) == (ways(anyio_backend_name), 0)


async def test_a_sweep_runs_in_the_background_beside_the_scenario_too() -> None:
    turns: list[str] = []

    async def background(pool: Pool[FakeConnection]) -> None:
        async with pool.get():
            turns.append("background")
            await anyio.lowlevel.checkpoint()
        await anyio.sleep_forever()

    alone = await cancel_everywhere(lambda: small_pool(max_size=1), careful_user)
    beside = await cancel_everywhere(lambda: small_pool(max_size=1), careful_user, background=background)
    assert turns
    assert beside.runs > alone.runs


async def test_each_run_has_a_pool_of_its_own() -> None:
    pools: list[Pool[FakeConnection]] = []

    def make_pool() -> Pool[FakeConnection]:
        pools.append(small_pool())
        return pools[-1]

    report = await cancel_everywhere(make_pool, careful_user)
    assert len(set(map(id, pools))) == report.runs


async def test_an_exception_of_the_scenario_comes_out() -> None:
    async def broken(pool: Pool[FakeConnection]) -> None:
        raise KeyError("mine")

    with pytest.raises((KeyError, ExceptionGroup)) as caught:
        await cancel_everywhere(small_pool, broken)
    assert isinstance(caught.value, KeyError) or caught.group_contains(KeyError)


async def test_a_scenario_that_swallows_a_cancellation_is_found() -> None:
    async def deaf_user(pool: Pool[FakeConnection]) -> None:
        try:
            await careful_user(pool)
        except anyio.get_cancelled_exc_class():
            pass

    with pytest.raises(AssertionError, match=r"S5: the cancellation was swallowed, cancelled by \w+ at step \d+"):
        await cancel_everywhere(small_pool, deaf_user)


async def test_a_wrapper_that_loses_its_connection_when_cancelled_is_found() -> None:
    """As asyncpg's acquire once did: cancelled after the inner get, before the outer return."""
    lost: list[Pooled[FakeConnection]] = []

    async def leaky_user(pool: Pool[FakeConnection]) -> None:
        handle = await pool.get()
        lost.append(handle)
        await anyio.lowlevel.checkpoint()
        handle.release()

    with pytest.raises(AssertionError, match=r"S2: somebody still holds: .*\(cancelled by scope at step \d+\)"):
        await cancel_everywhere(small_pool, leaky_user)
    for handle in lost:
        handle.release()


async def test_a_place_that_nobody_gives_back_is_found() -> None:
    lost: list[Pooled[FakeConnection]] = []

    async def taker(pool: Pool[FakeConnection]) -> None:
        handle = await pool.get()
        await handle.take().aclose()
        lost.append(handle)

    with pytest.raises(AssertionError, match="S2: somebody still holds"):
        await cancel_everywhere(small_pool, taker)
    for handle in lost:
        handle.release()


async def test_a_caller_that_is_left_in_the_queue_is_found() -> None:
    async def wait(pool: Pool[FakeConnection]) -> None:
        with pytest.raises(Exception, match="closed"):
            await pool.get()

    async with anyio.create_task_group() as tasks:

        async def forgetful_user(pool: Pool[FakeConnection]) -> None:
            tasks.start_soon(wait, pool)
            await anyio.lowlevel.checkpoint()

        with pytest.raises(AssertionError, match="S4: somebody is still queued"):
            await cancel_everywhere(lambda: Pool(FakeConnector()), forgetful_user)


async def test_a_connect_that_leaks_places_on_its_server_is_found() -> None:
    class Server:
        """It has as many places as the pool, and never notices that a connection was closed."""

        def __init__(self) -> None:
            self.places = 2

        async def connect(self) -> FakeConnection:
            if not self.places:
                await anyio.sleep_forever()
            self.places -= 1
            return FakeConnection()

    async def user_of_a_fragile_connection(pool: Pool[FakeConnection]) -> None:
        async with pool.get() as connection:
            connection.die()

    with pytest.raises(AssertionError, match=r"no connection after .*\(cancelled by scope at step \d+\)") as caught:
        await cancel_everywhere(
            lambda: Pool(Server().connect, max_size=2, clock=HastyClock()), user_of_a_fragile_connection
        )
    assert isinstance(caught.value.__cause__, PoolTimeout)


async def test_a_pool_without_max_size_needs_a_capacity_to_prove() -> None:
    text = "say which capacity to prove: the pool has no max_size"
    with pytest.raises(AssertionError, match=re.escape(text)):
        await cancel_everywhere(lambda: small_pool(max_size=None), careful_user)
    await cancel_everywhere(lambda: small_pool(max_size=None), careful_user, capacity=3)


async def test_a_scenario_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wspool.testing._sweep._ENDLESS", 5)

    async def endless(pool: Pool[FakeConnection]) -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    with pytest.raises(AssertionError, match="has not ended after 5 steps"):
        await cancel_everywhere(small_pool, endless)
