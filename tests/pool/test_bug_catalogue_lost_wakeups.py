"""Known bugs of other pools: a wake-up that reaches nobody."""

from __future__ import annotations

import anyio

from tests.pool.bug_catalogue_kit import Way, either_way, queue_up, skip_where_impossible
from wspool import GetWaiting, Pool, PoolEvent
from wspool.testing import FakeConnector, check_invariants, settle


@either_way
async def test_a_dial_that_came_for_a_waiter_just_cancelled_serves_the_next(way: Way) -> None:
    """B23 (boostorg/mysql#509): idle told A, A was cancelled, B was never told: idle, and a waiter, at once."""
    skip_where_impossible(way)
    connector = FakeConnector()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        told, untold = await queue_up(pool, tasks, 2)
        connection = connector.dials[0].succeed()
        told.cancel(way)
        await settle()
        assert told.gave_up
        assert untold.connection is connection
        check_invariants(pool)
        untold.leave()


async def test_a_release_while_a_caller_enters_the_queue_reaches_that_caller() -> None:
    """B39 (djc/bb8#122): the release landed between "nothing is idle" and "enqueue"."""
    connector = FakeConnector.always()

    queued: list[int] = []

    def release_meanwhile(event: PoolEvent) -> None:
        if isinstance(event, GetWaiting):
            queued.append(event.waiting)
            if len(queued) == 2:
                holder.release_now()

    async with Pool(connector, max_size=1, on_event=release_meanwhile) as pool, anyio.create_task_group() as tasks:
        (holder,) = await queue_up(pool, tasks, 1)
        (waiter,) = await queue_up(pool, tasks, 1)
        assert waiter.worked
        assert queued == [1, 1], "each is told of once, also by a release within the telling"
        waiter.leave()


@either_way
async def test_when_the_caller_whose_dial_all_wait_for_is_cancelled_the_dial_serves_the_next(way: Way) -> None:
    """B28 (hyperium/hyper-util#298): the driver was cancelled, and no successor drove on."""
    skip_where_impossible(way)
    connector = FakeConnector()
    async with Pool(connector, max_connecting=1) as pool, anyio.create_task_group() as tasks:
        driver, next_one, last = await queue_up(pool, tasks, 3)
        assert len(connector.dials) == 1
        driver.cancel(way)
        await settle()
        connection = connector.dials[0].succeed()
        await settle()
        assert next_one.connection is connection
        connector.dials[1].succeed()
        await settle()
        assert last.worked
        next_one.leave()
        last.leave()


@either_way
async def test_when_a_dial_fails_whose_caller_has_left_the_next_waiter_gets_a_dial(way: Way) -> None:
    """B28 (hyperium/hyper-util#299): the error of a dial was not passed on, and those behind it waited for ever."""
    skip_where_impossible(way)
    connector = FakeConnector()
    async with Pool(connector, max_connecting=1) as pool, anyio.create_task_group() as tasks:
        asker, waiter = await queue_up(pool, tasks, 2)
        asker.cancel(way)
        await settle()
        connector.dials[0].fail()
        await settle()
        assert len(connector.dials) == 2
        connector.dials[1].succeed()
        await settle()
        assert waiter.worked
        waiter.leave()
