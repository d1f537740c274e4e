"""Known bugs of other pools: dials wasted, dials without end, and storms of them."""

from __future__ import annotations

import anyio
import pytest

from tests.pool.bug_catalogue_kit import Gate, Way, either_way, queue_up, skip_where_impossible
from wspool import Pool
from wspool.testing import FakeConnection, FakeConnector, ManualClock, check_invariants, settle


@either_way
async def test_a_cancelled_caller_does_not_interrupt_the_connect(way: Way) -> None:
    """B09 (MagicStack/asyncpg#464): a cancellation inside connect leaked the half-open socket."""
    skip_where_impossible(way)
    connector = FakeConnector()
    async with Pool(connector, max_size=1) as pool:
        async with anyio.create_task_group() as tasks:
            (caller,) = await queue_up(pool, tasks, 1)
            caller.cancel(way)
            await settle()
        assert not connector.dials[0].cancelled
        connector.dials[0].succeed()
        await settle()
        assert pool.statistics().idle == 1
    assert connector.open == []


async def test_a_connect_that_ends_in_spite_of_its_cancellation_loses_no_connection() -> None:
    """B09 (MagicStack/asyncpg#464): the same, where the pool itself cancels the dial that nobody waits for."""
    clock, finish, connection = ManualClock(), anyio.Event(), FakeConnection()

    async def connect() -> FakeConnection:
        with anyio.CancelScope(shield=True):
            await finish.wait()
        return connection

    async with Pool(connect, max_size=1, abandoned_dial_grace=5, clock=clock) as pool:
        async with anyio.create_task_group() as tasks:
            (caller,) = await queue_up(pool, tasks, 1)
            caller.cancel("scope")
        await clock.advance(5)
        assert pool.statistics().dialling == 1, "its place was given away while it goes on"
        finish.set()
        await settle()
        figures = pool.statistics()
        assert (figures.dialling, figures.idle + connection.closes) == (0, 1)
        check_invariants(pool)
    assert connection.closes == 1


async def test_a_dial_that_lost_the_race_is_kept_for_the_next() -> None:
    """B24 (hyperium/hyper#1584): the loser of the race was dropped, so that every lost race cost a socket."""
    connector = FakeConnector()
    async with Pool(connector, max_size=2) as pool:
        async with anyio.create_task_group() as tasks:
            (holder,) = await queue_up(pool, tasks, 1)
            first = connector.dials[0].succeed()
            await settle()
            (racer,) = await queue_up(pool, tasks, 1)
            holder.release_now()
            await settle()
            assert racer.connection is first
            loser = connector.dials[1].succeed()
            await settle()
            async with pool.get() as connection:
                assert connection is loser
            racer.leave()
        assert connector.open == connector.connections
        assert pool.statistics().dials_spare_used == 1


@pytest.mark.parametrize("released_after", [0.9, 1.1])
async def test_with_a_race_delay_no_dial_starts_for_a_caller_whom_a_release_serves_in_time(
    released_after: float,
) -> None:
    """B25 (hyperium/hyper#4134): tails were better without the race: it opened connections for nothing."""
    clock, connector = ManualClock(), FakeConnector()
    async with Pool(connector, max_size=2, race_delay=1, clock=clock) as pool, anyio.create_task_group() as tasks:
        (holder,) = await queue_up(pool, tasks, 1)
        connector.dials[0].succeed()
        await settle()
        (waiter,) = await queue_up(pool, tasks, 1)
        await clock.advance(released_after)
        holder.release_now()
        await settle()
        assert waiter.worked
        assert len(connector.dials) == (1 if released_after < 1 else 2)
        waiter.leave()


@either_way
async def test_callers_who_give_up_on_a_slow_server_do_not_pile_up_dials(way: Way) -> None:
    """B29 (golang/go#76784), R8 (rust-proxy): dials and abandoned waiters grew without bound on a slow server."""
    skip_where_impossible(way)
    clock, connector = ManualClock(), FakeConnector()
    async with Pool(connector, abandoned_dial_grace=5, connect_timeout=60, clock=clock) as pool:
        for _ in range(20):
            async with anyio.create_task_group() as tasks:
                callers = await queue_up(pool, tasks, 5)
                for caller in callers:
                    caller.cancel(way)
                await settle()
            check_invariants(pool)
            await clock.advance(0.1)
        assert len(connector.dials) == 5
        await clock.advance(5)
        assert pool.statistics().size == 0
        assert clock.deadlines == []


@either_way
async def test_dials_outlive_the_callers_whose_time_was_too_short(way: Way) -> None:
    """B34 (jackc/pgx#1259): dials died with the queries' contexts, hundreds of half-done ones loaded the server."""
    skip_where_impossible(way)
    connector = FakeConnector()
    async with Pool(connector) as pool:
        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                for caller in await queue_up(pool, tasks, 10):
                    caller.cancel(way)
        for dial in connector.dials:
            dial.succeed()
        await settle()
        async with anyio.create_task_group() as tasks:
            callers = await queue_up(pool, tasks, 10)
            assert all(caller.worked for caller in callers)
            for caller in callers:
                caller.leave()
        assert len(connector.dials) == 10


async def test_no_dial_takes_the_place_of_a_connection_that_is_still_being_closed() -> None:
    """B35 (jackc/pgx#1780): the slot was freed before the socket was gone: the server saw more than the maximum."""
    connector, close = FakeConnector.always(), Gate()
    async with Pool(connector, max_size=1, close=close) as pool, anyio.create_task_group() as tasks:
        holder, waiter = await queue_up(pool, tasks, 2)
        holder.lease.discard()
        await settle()
        assert (pool.statistics().closing, pool.statistics().size) == (1, 1)
        assert len(connector.dials) == 1
        close.open()
        await settle()
        assert len(connector.dials) == 2
        assert waiter.worked
        holder.leave()
        waiter.leave()


@pytest.mark.parametrize("ended_after", [4.9, 5])
async def test_a_dial_that_nobody_waits_for_has_its_grace_and_no_more(ended_after: float) -> None:
    """B45 (dotnet/runtime#66297): abandoned dials were killed too early, or never."""
    clock, connector = ManualClock(), FakeConnector()
    async with Pool(connector, abandoned_dial_grace=5, connect_timeout=60, clock=clock) as pool:
        async with anyio.create_task_group() as tasks:
            (caller,) = await queue_up(pool, tasks, 1)
            caller.cancel("scope")
        await clock.advance(ended_after)
        dial = connector.dials[0]
        assert dial.cancelled == (ended_after >= 5)
        if dial.pending:
            dial.succeed()
        await settle()
        assert pool.statistics().size == pool.statistics().idle == (ended_after < 5)


async def test_a_caller_who_comes_in_time_takes_over_an_abandoned_dial() -> None:
    """B45 (dotnet/runtime#66297): once somebody waits for it again, it has its full connect_timeout."""
    clock, connector = ManualClock(), FakeConnector()
    async with (
        Pool(connector, abandoned_dial_grace=5, connect_timeout=10, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        (gone,) = await queue_up(pool, tasks, 1)
        gone.cancel("scope")
        await clock.advance(4)
        (heir,) = await queue_up(pool, tasks, 1)
        await clock.advance(4)
        connection = connector.dials[0].succeed()
        await settle()
        assert heir.connection is connection
        heir.leave()
    assert len(connector.dials) == 1


async def test_dials_that_fail_at_once_are_not_repeated_in_a_tight_loop() -> None:
    """B47 (coopernurse/node-pool#175): when create rejected, dials looped at 100 % CPU and no acquire settled."""

    def refuse() -> FakeConnection:
        raise ConnectionRefusedError

    clock, connector = ManualClock(), FakeConnector(refuse)
    async with Pool(connector, min_idle=3, clock=clock) as pool:
        await settle()
        assert len(connector.dials) <= 3
        async with anyio.create_task_group() as tasks:
            callers = await queue_up(pool, tasks, 10)
            assert all(isinstance(caller.error, ConnectionRefusedError) for caller in callers)
        before = len(connector.dials)
        await clock.advance(60)
        # The pauses double up to 30 s: at the least 0.05 + 0.1 + ... s, and not once per place.
        assert 1 <= len(connector.dials) - before <= 30
        check_invariants(pool)
