"""The figures add up at every moment, and each of them counts what it says."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from tests.pool.caller import Caller, use
from wspool import Pool, PoolClosed, PoolEvent, PoolFull, PoolStatistics
from wspool.testing import FakeConnection, FakeConnector, Fault, ManualClock, check_invariants, prove_capacity, settle

HOOKS: dict[str, Any] = {"validate": FakeConnection.validate, "reset": FakeConnection.reset}


def assert_sums(figures: PoolStatistics) -> None:
    """The sums that the documentation promises."""
    in_hand = figures.idle + figures.held + figures.reserved + figures.validating + figures.resetting + figures.closing
    assert figures.size == in_hand + figures.dialling + figures.taken
    assert figures.opened + figures.inserted == in_hand + figures.closed + figures.takes
    assert figures.dials == (
        figures.dialling
        + figures.dials_won
        + figures.dials_spare_unused
        + figures.dials_spare_used
        + figures.dials_spare_wasted
        + figures.dials_failed
        + figures.dials_abandoned
        + figures.dials_cancelled
    )


async def test_the_documented_sums_hold_at_every_event() -> None:
    async def user(number: int) -> None:
        for turn in range(4):
            with anyio.CancelScope() as scope:
                async with (handle := pool.get()) as connection:
                    await anyio.lowlevel.checkpoint()
                    match (number + turn) % 5:
                        case 0:
                            connection.die()
                        case 1:
                            scope.cancel()
                            await anyio.lowlevel.checkpoint()
                        case 2:
                            handle.take()
                            handle.insert(FakeConnection())
                        case 3:
                            handle.discard()
                        case _:
                            pass

    def observe(event: PoolEvent) -> None:
        assert_sums(pool.statistics())

    pool = Pool(FakeConnector.always(), max_size=3, max_idle=2, max_uses=4, min_idle=1, on_event=observe, **HOOKS)
    async with pool:
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(user, number)
        assert_sums(pool.statistics())
        pool.clear()
        assert_sums(pool.statistics())
        check_invariants(pool)
    assert_sums(pool.statistics())
    assert pool.statistics().hook_errors == 0, "an assertion of the observer failed"


async def test_figures_are_one_frozen_value() -> None:
    figures = Pool(FakeConnector()).statistics()
    assert figures == Pool(FakeConnector()).statistics()
    with pytest.raises(AttributeError):
        figures.idle = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def test_the_sizes_say_where_every_place_is() -> None:
    clock, connector = ManualClock(), FakeConnector.always()
    pool = Pool(connector, max_size=10, clock=clock, **HOOKS)
    async with pool, anyio.create_task_group() as tasks:
        handles = [await pool.get() for _ in range(6)]
        handles[0].take()
        handles[1].connection.on_reset = Fault.HANG
        handles[1].release()
        handles[2].connection.on_close = Fault.HANG
        handles[2].discard()
        await settle()
        handles[3].connection.on_validate = Fault.HANG
        handles[3].release()
        await clock.advance(1)
        connector.answer = None
        first = Caller(tasks, pool)
        await settle()
        handles[4].release()
        await settle()
        others = [Caller(tasks, pool) for _ in range(2)]  # one for the check, one for a dial
        await settle()
        figures = pool.statistics()
        assert (figures.taken, figures.resetting, figures.closing) == (1, 1, 1)
        assert (figures.validating, figures.dialling, figures.waiting) == (1, 1, 2)
        assert figures.held == 2
        assert_sums(figures)
        first.release()
        assert all(caller.waits for caller in others)
        handles[0].release()
        await pool.aclose(grace=0)
        for handle in handles:
            handle.release()
        assert_sums(pool.statistics())


async def test_a_reserved_connection_is_counted_until_its_caller_resumes() -> None:
    async with Pool(FakeConnector.always(), max_size=1) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        caller = Caller(tasks, pool)
        await settle()
        handle.release()
        figures = pool.statistics()
        assert (figures.reserved, figures.held, figures.waiting) == (1, 0, 0)
        check_invariants(pool)
        await settle()
        assert pool.statistics().held == 1
        caller.release()


async def test_gets_are_counted_by_how_they_ended() -> None:
    clock, connector = ManualClock(), FakeConnector()
    async with Pool(connector, max_size=1, max_waiting=3, clock=clock) as pool:
        async with anyio.create_task_group() as tasks:
            failing = Caller(tasks, pool)
            (await connector.next_dial()).fail()
            await settle()
            assert failing.error is not None
            served = Caller(tasks, pool)
            (await connector.next_dial()).succeed()
            await settle()
            waiting = [Caller(tasks, pool) for _ in range(3)]
            await settle()
            with pytest.raises(PoolFull):
                await pool.get()
            waiting[0].scope.cancel()
            await settle()
            await clock.advance(30)
            served.release()
            await use(pool)
            doomed = await pool.get()
            Caller(tasks, pool)
            await settle()
            tasks.start_soon(pool.aclose)
            await settle()
            doomed.release()
        figures = pool.statistics()
        assert figures.failed == 1
        assert (figures.acquired, figures.acquired_waiting) == (3, 1)
        assert figures.cancelled == 1
        assert figures.timed_out == 2
        assert figures.rejected == 2  # one PoolFull, one PoolClosed
        with pytest.raises(PoolClosed):
            await pool.get()
        assert pool.statistics().rejected == 2  # it never queued


async def test_a_cancelled_get_that_was_served_counts_as_cancelled() -> None:
    async with Pool(FakeConnector.always(), max_size=1) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        caller = Caller(tasks, pool)
        await settle()
        caller.scope.cancel()
        handle.release()
        await settle()
        if caller.handle is not None:  # trio lets the delivery win if it comes first
            caller.release()
        figures = pool.statistics()
        assert figures.acquired + figures.cancelled == 2
        check_invariants(pool)


async def test_dials_are_counted_by_how_they_ended() -> None:
    clock, connector = ManualClock(), FakeConnector()
    async with Pool(connector, clock=clock) as pool, anyio.create_task_group() as tasks:
        # Won.
        first = Caller(tasks, pool)
        (await connector.next_dial()).succeed()
        await settle()
        # Spare: lost the race, then used, then lost again and wasted.
        second = Caller(tasks, pool)
        dial = await connector.next_dial()
        first.release()
        await settle()
        dial.succeed()
        await settle()
        figures = pool.statistics()
        assert (figures.dials_won, figures.dials_spare_unused, figures.dials_spare_used) == (1, 1, 0)
        await use(pool)
        figures = pool.statistics()
        assert (figures.dials_spare_unused, figures.dials_spare_used, figures.dials_spare_wasted) == (0, 1, 0)
        third, fourth = Caller(tasks, pool), Caller(tasks, pool)
        dial = await connector.next_dial()
        second.release()
        await settle()
        dial.succeed()
        await settle()
        pool.clear()
        await settle()
        assert pool.statistics().dials_spare_wasted == 1
        # Failed, abandoned, cancelled.
        fifth = Caller(tasks, pool)
        (await connector.next_dial()).fail()
        await settle()
        assert fifth.error is not None
        sixth = Caller(tasks, pool)
        await connector.next_dial()
        sixth.scope.cancel()
        await clock.advance(5)
        seventh = Caller(tasks, pool)
        await connector.next_dial()
        third.release()
        fourth.release()
        await pool.aclose()
        await settle()
        assert isinstance(seventh.error, PoolClosed)
        figures = pool.statistics()
        assert (figures.dials, figures.dials_failed, figures.dials_abandoned, figures.dials_cancelled) == (6, 1, 1, 1)
        assert_sums(figures)


async def test_takes_and_insertions_are_counted() -> None:
    async with Pool(FakeConnector.always()) as pool, (handle := pool.get()):
        connection = handle.take()
        handle.insert(connection)
        figures = pool.statistics()
        assert (figures.takes, figures.inserted, figures.taken, figures.opened) == (1, 1, 0, 1)
        assert_sums(figures)


async def test_the_age_of_the_longest_holder_is_told() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), clock=clock) as pool:
        assert pool.statistics().longest_held == 0
        first = await pool.get()
        await clock.advance(3)
        second = await pool.get()
        await clock.advance(2)
        assert pool.statistics().longest_held == 5
        first.release()
        assert pool.statistics().longest_held == 2
        second.release()
        assert pool.statistics().longest_held == 0


async def test_the_limits_are_told_as_they_are_now() -> None:
    async with Pool(FakeConnector(), max_size=None, max_idle=7) as pool:
        figures = pool.statistics()
        assert (figures.max_size, figures.max_idle, figures.min_idle) == (None, 7, 0)
        pool.resize(max_size=9, max_idle=None, min_idle=0)
        figures = pool.statistics()
        assert (figures.max_size, figures.max_idle, figures.min_idle) == (9, 9, 0), "as many as max_size may be idle"


async def test_a_pool_in_steady_use_opens_and_closes_nothing() -> None:
    async with Pool(FakeConnector.always(), max_size=5) as pool:
        await prove_capacity(pool, 5)
        before = pool.statistics()
        for _ in range(20):
            await prove_capacity(pool, 5)
        after = pool.statistics()
        assert (before.dials, before.closed) == (after.dials, after.closed)
