"""Known bugs of other pools: dead connections handed out, sweepers that take what is in use, timers without end."""

from __future__ import annotations

import anyio
import pytest

from tests.pool.bug_catalogue_kit import Gate, StepClock, check_out_and_in, queue_up
from wspool import Pool
from wspool.testing import FakeConnection, FakeConnector, ManualClock, check_invariants, settle


@pytest.mark.parametrize("released", ["before", "meanwhile", "after"])
async def test_the_sweeper_leaves_alone_what_is_reserved_for_a_waiter(released: str) -> None:
    """B13 (encode/httpcore#1110): the idle sweep closed a connection already assigned to a queued request."""
    clock, connector = StepClock(), FakeConnector.always()
    async with (
        Pool(connector, max_size=1, idle_timeout=10, acquire_timeout=None, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        holder, waiter = await queue_up(pool, tasks, 2)
        if released == "before":
            holder.release_now()
        clock.jump(1000, meanwhile=holder.release_now if released == "meanwhile" else None)
        if released == "after":
            holder.release_now()
        await settle()
        assert waiter.worked
        assert waiter.connection is connector.connections[0]
        assert connector.connections[0].closes == 0
        waiter.leave()


async def test_an_empty_pool_arms_no_timer() -> None:
    """B26 (hyperium/hyper#4100): the idle task kept waking up although the pool was empty."""
    clock = ManualClock()
    async with Pool(
        FakeConnector.always(), idle_timeout=10, max_lifetime=100, validate=FakeConnection.validate, clock=clock
    ) as pool:
        await settle()
        assert clock.deadlines == []
        await check_out_and_in(pool, 3)
        assert clock.deadlines != []
        await clock.advance(11)
        assert pool.statistics().size == 0
        assert clock.deadlines == []


async def test_what_died_while_idle_is_not_handed_out() -> None:
    """B27 (hyperium/hyper#3553), R8 (rust-proxy): a closed connection was handed out before anybody noticed."""
    connector = FakeConnector.always()
    async with Pool(connector, max_size=3) as pool:
        connections = await check_out_and_in(pool, 3)
        connections[1].die()
        connections[2].die()
        async with pool.get() as connection:
            assert connection is connections[0]
        await settle()
        assert [connection.closes for connection in connections] == [0, 1, 1]
        assert len(connector.dials) == 3


async def test_an_expired_connection_gets_no_more_work_and_counts_until_it_is_gone() -> None:
    """B48 (nodejs/undici#5144): a client evicted by its time to live still counted, and was still given work."""
    clock, connector, close = ManualClock(), FakeConnector.always(), Gate()
    async with (
        Pool(
            connector, max_size=1, max_lifetime=60, lifetime_jitter=0, close=close, close_timeout=300, clock=clock
        ) as pool,
        anyio.create_task_group() as tasks,
    ):
        await check_out_and_in(pool)
        await clock.advance(60)
        (caller,) = await queue_up(pool, tasks, 1)
        assert (pool.statistics().size, pool.statistics().closing) == (1, 1)
        assert (caller.worked, len(connector.dials)) == (False, 1)
        close.open()
        await settle()
        assert caller.connection is connector.connections[1]
        caller.leave()


async def test_an_expired_connection_is_not_handed_out_before_the_sweeper_has_come() -> None:
    """B48 (nodejs/undici#5144): the same in the moment in which its time is over and nobody has noticed."""
    clock, connector = StepClock(), FakeConnector.always()
    async with Pool(connector, max_lifetime=60, lifetime_jitter=0, clock=clock) as pool:
        await check_out_and_in(pool)
        clock.jump(60)
        with pytest.raises(anyio.WouldBlock):
            pool.get_nowait()
        async with pool.get() as connection:
            assert connection is connector.connections[1]
        await settle()
        assert connector.connections[0].closes == 1


async def test_a_caller_waits_for_the_connection_under_check_and_dials_no_ghost() -> None:
    """B53 (cloudwego/volo#642): while a connection was out for its check, others saw an empty pool and dialled."""
    clock, connector, check = ManualClock(), FakeConnector.always(), Gate(True)
    async with (
        Pool(connector, validate=check, validate_interval=30, validate_timeout=5, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        (connection,) = await check_out_and_in(pool)
        await clock.advance(30)
        assert pool.statistics().validating == 1
        (caller,) = await queue_up(pool, tasks, 1)
        assert len(connector.dials) == 1
        check.open()
        await settle()
        assert caller.connection is connection
        check_invariants(pool)
        caller.leave()


async def test_the_question_whether_it_is_reusable_is_asked_while_nobody_can_look() -> None:
    """B53 (cloudwego/volo#642): the same for the synchronous question: no dial starts in the middle of a hit."""
    connector = FakeConnector.always()
    sizes: list[int] = []

    def is_reusable(connection: FakeConnection) -> bool:
        sizes.append(pool.statistics().dialling)
        return True

    async with Pool(connector, is_reusable=is_reusable) as pool:
        await check_out_and_in(pool, 2)
        async with pool.get(), pool.get():
            pass
    assert set(sizes) == {0}
    assert len(connector.dials) == 2
