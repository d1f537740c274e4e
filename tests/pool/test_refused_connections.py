"""A connection that `is_reusable` refuses before its first use counts as a failed dial: told, paced, not repeated."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from tests.pool.caller import Caller, Ends
from wspool import Pool, PoolError, PoolEvent, PoolTimeout
from wspool._pool_state import LOG_DIAL, START, PoolState
from wspool._settings import PoolSettings
from wspool.testing import FakeConnection, FakeConnector, ManualClock, check_invariants, settle


class Toy:
    """A connection that says what it is told to say."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers
        self.closes = 0

    def is_reusable(self) -> bool:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return bool(answer)

    async def aclose(self) -> None:
        self.closes += 1


async def test_who_asked_for_the_dial_is_told_that_its_connection_was_refused() -> None:
    dials = 0

    async def connect() -> Toy:
        nonlocal dials
        dials += 1
        return Toy([False])

    async with Pool(connect, name="toys") as pool:
        with pytest.raises(PoolError, match=r"toys: connect brought .*Toy.*, which is_reusable refuses"):
            await pool.get()
        await settle()
        figures = pool.statistics()
        assert (dials, figures.dials_failed, figures.dials_won, figures.closed) == (1, 1, 0, 1)
        check_invariants(pool)


async def test_the_error_of_is_reusable_is_the_cause() -> None:
    error = AttributeError("a typo")

    async def connect() -> Toy:
        return Toy([error])

    async with Pool(connect) as pool:
        with pytest.raises(PoolError) as caught:
            await pool.get()
        assert caught.value.__cause__ is error


async def test_one_that_dies_before_its_caller_collects_it_is_a_failed_dial_too() -> None:
    toys: list[Toy] = []

    async def connect() -> Toy:
        toys.append(Toy([True, False]))
        return toys[-1]

    async with Pool(connect) as pool:
        with pytest.raises(PoolError, match="is_reusable refuses"):
            await pool.get()
        await settle()
        assert [toy.closes for toy in toys] == [1]
        check_invariants(pool)


async def test_one_that_was_used_and_is_refused_later_is_replaced_without_an_error() -> None:
    connector = FakeConnector.always()
    async with Pool(connector) as pool:
        async with pool.get() as first:
            pass
        first.die()
        async with pool.get() as second:
            assert second is not first


async def test_automatic_dials_pause_after_a_refused_connection() -> None:
    clock, dials = ManualClock(), 0

    async def connect() -> Toy:
        nonlocal dials
        dials += 1
        return Toy([False])

    async with Pool(connect, min_idle=1, clock=clock) as pool:
        await settle()
        assert dials == 1
        await clock.advance(0.1)
        assert dials == 2
        await clock.advance(0.04)
        assert dials == 2, "the second pause is longer"
        assert isinstance(pool.statistics().last_dial_error, PoolError)
        check_invariants(pool)


async def test_whoever_waits_again_past_its_deadline_times_out_at_once() -> None:
    """Its connection was cleared away between the hand-over and the resuming, when its time was up."""
    clock, connector = ManualClock(), FakeConnector.always()
    async with Pool(connector, max_size=1, acquire_timeout=1, clock=clock) as pool:
        async with anyio.create_task_group() as tasks:
            handle = await pool.get()
            caller = Caller(tasks, pool)
            await settle()
            handle.release()  # reserved for the caller
            clock._now += 1  # and the timer has not run
            pool.clear()
            await settle()
            assert isinstance(caller.error, PoolTimeout)
        check_invariants(pool)


class AsyncJudge:
    async def is_reusable(self) -> bool:
        return True


async def test_an_async_is_reusable_is_an_error_and_not_always_true(caplog: pytest.LogCaptureFixture) -> None:
    async def connect() -> AsyncJudge:
        return AsyncJudge()

    async with Pool(connect) as pool:
        with pytest.raises(PoolError) as caught:
            await pool.get()
        assert "is_reusable must not be async: use validate" in str(caught.value.__cause__)
        assert pool.statistics().hook_errors == 1


def test_an_async_is_reusable_as_an_argument_is_refused_at_once() -> None:
    async def judge(connection: FakeConnection) -> bool:
        return True

    is_reusable: Any = judge
    with pytest.raises(TypeError, match="is_reusable must not be async"):
        Pool(FakeConnector(), is_reusable=is_reusable)


class Deferred:
    def __await__(self) -> Any:
        raise AssertionError


async def test_an_awaitable_answer_that_is_no_coroutine_is_an_error_too() -> None:
    deferred: Any = lambda _: Deferred()  # noqa: E731  # of a type that the checkers refuse
    async with Pool(FakeConnector.always(), is_reusable=deferred) as pool:
        with pytest.raises(PoolError, match="is_reusable refuses"):
            await pool.get()


async def test_an_answer_that_is_merely_true_is_true() -> None:
    merely: Any = lambda _: 1  # noqa: E731  # of a type that the checkers refuse
    async with Pool(FakeConnector.always(), is_reusable=merely) as pool:
        async with pool.get() as first:
            pass
        async with pool.get() as second:
            assert second is first


class Unlooked:
    """Something whose attributes cannot even be looked at, as a proxy of something gone."""

    def __init__(self) -> None:
        self.gone = True
        self.closes = 0

    def __getattr__(self, name: str) -> Any:
        if name == "is_reusable" and self.gone:
            raise ConnectionError("gone")
        raise AttributeError(name)

    def close(self) -> None:
        self.closes += 1


async def test_a_connection_whose_attributes_cannot_be_looked_at_is_closed_like_any_broken_one() -> None:
    made: list[Unlooked] = []

    async def connect() -> Unlooked:
        made.append(Unlooked())
        return made[-1]

    async with Pool(connect) as pool:
        with pytest.raises(PoolError) as caught:
            await pool.get()
        assert isinstance(caught.value.__cause__, ConnectionError)
        await settle()
        assert [one.closes for one in made] == [1]
        check_invariants(pool)


async def test_an_error_of_the_block_comes_out_though_its_connection_cannot_be_looked_at() -> None:
    ends = Ends()

    async def connect() -> Unlooked:
        one = Unlooked()
        one.gone = False
        return one

    async with Pool(connect, on_event=ends) as pool:
        with pytest.raises(ValueError, match="mine"):  # what is raised in the block is the point
            async with pool.get() as connection:
                connection.gone = True
                raise ValueError("mine")
        await settle()
        assert pool.statistics().held == 0
        assert len(ends.seen) <= 1
        check_invariants(pool)


@pytest.mark.parametrize("hook", ["validate", "reset"])
async def test_a_hook_that_should_be_async_and_is_not_says_so(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    hooks: dict[str, Any] = {hook: lambda _: True, "validate_bypass_interval": 0}
    async with Pool(FakeConnector.always(), **hooks) as pool:
        async with pool.get():
            pass
        await settle()
        async with pool.get():
            pass
    assert f"{hook} must be an async function" in caplog.text


async def test_an_async_observer_is_an_error_and_not_silence(caplog: pytest.LogCaptureFixture) -> None:
    async def on_event(event: PoolEvent) -> None:
        raise AssertionError

    async with Pool(FakeConnector.always(), on_event=on_event) as pool:
        async with pool.get():
            pass
        assert pool.statistics().hook_errors
    assert "on_event must not be async" in caplog.text


def test_a_caller_cancelled_in_the_step_in_which_its_dial_fails_leaves_the_error_to_the_log() -> None:
    state: PoolState[object] = PoolState(PoolSettings())
    waiter = state.enter_queue(0.0)
    (job,) = [subject for effect, subject in state.effects if effect is START]
    error = ConnectionRefusedError("nobody home")
    state.connect_failed(job, 0.0, error=error)
    assert waiter.error is error
    state.effects.clear()
    state.leave_queue(waiter, 0.0)
    assert [subject for effect, subject in state.effects if effect is LOG_DIAL] == [error]
