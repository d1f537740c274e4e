"""Known bugs of other pools: counts that go wrong, and limits that are exceeded."""

from __future__ import annotations

import random

import anyio
import anyio.lowlevel
import pytest

from tests.pool.bug_catalogue_kit import Caller, check_out_and_in, queue_up
from wspool import Pool
from wspool.testing import FakeConnection, FakeConnector, ManualClock, check_invariants, prove_capacity, settle


async def test_max_idle_compares_with_what_is_idle_not_with_what_is_open() -> None:
    """B14 (encode/httpcore#1000): the maximum of idle connections was compared with all of them."""
    connector = FakeConnector.always()
    async with Pool(connector, max_size=3, max_idle=1) as pool:
        first, second, third = [await pool.get() for _ in range(3)]
        first.release()
        await settle()
        assert pool.statistics().idle == 1
        second.release()
        await settle()
        assert (pool.statistics().idle, pool.statistics().closed) == (1, 1)
        third.release()


async def test_a_hit_looks_at_one_connection_however_many_are_idle() -> None:
    """B14 (encode/httpcore PR #1035): each request looked at all connections, so that many cost O(N^2)."""
    asked: list[FakeConnection] = []

    def is_reusable(connection: FakeConnection) -> bool:
        asked.append(connection)
        return True

    async with Pool(FakeConnector.always(), max_size=100, is_reusable=is_reusable) as pool:
        await check_out_and_in(pool, 100)
        asked.clear()
        async with pool.get() as connection:
            pass
        assert asked == [connection, connection], "once to hand it out, once to take it back"


class Server:
    """Counts the connections and dials that exist at its end."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.open = 0
        self.peak = 0

    async def connect(self) -> FakeConnection:
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            await self._dawdle()
            if self.chance.random() < 0.3:
                raise ConnectionRefusedError
        except BaseException:
            self.open -= 1
            raise
        return FakeConnection()

    async def close(self, connection: FakeConnection) -> None:
        await self._dawdle()
        self.open -= 1

    async def _dawdle(self) -> None:
        for _ in range(self.chance.randrange(4)):
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("seed", range(3))
async def test_the_server_never_sees_more_than_max_size(seed: int) -> None:
    """B30 (golang/go#32336): MaxConnsPerHost was miscounted: over the limit, and deadlocks below it."""
    chance = random.Random(seed)
    server = Server(chance)

    async def use(pool: Pool[FakeConnection]) -> None:
        with anyio.CancelScope() as scope:
            try:
                async with pool.get() as connection:
                    if chance.random() < 0.3:
                        connection.die()
                    if chance.random() < 0.2:
                        scope.cancel()
                    await anyio.lowlevel.checkpoint()
            except ConnectionRefusedError:
                pass

    async with Pool(server.connect, max_size=4, max_idle=2, close=server.close) as pool:
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(use, pool)
        await settle()
        assert server.peak == 4
        assert pool.statistics().size == server.open <= 2
        check_invariants(pool)
    assert server.open == 0


async def test_a_steady_load_opens_and_closes_nothing_after_it_has_warmed_up() -> None:
    """B33 (golang/go#13801): with two idle ones kept for ten workers, eight were redialled in every round."""
    connector = FakeConnector.always()
    async with Pool(connector) as pool:
        for _ in range(5):
            async with anyio.create_task_group() as tasks:
                for worker in await queue_up(pool, tasks, 10):
                    worker.leave()
        assert len(connector.dials) == 10
        assert pool.statistics().closed == 0


async def test_counts_are_right_after_failed_dials_resets_and_checks() -> None:
    """B41 (deadpool-rs/deadpool#92, #18, #205): available exceeded the maximum after a failed create or recycle."""
    connector = FakeConnector.always()
    async with Pool(
        connector,
        max_size=2,
        reset=FakeConnection.reset,
        validate=FakeConnection.validate,
        validate_bypass_interval=0,
    ) as pool:
        for spoil in ("on_reset", "on_validate", "on_close"):
            async with pool.get() as connection:
                setattr(connection, spoil, OSError())
            await settle()
            async with pool.get(), pool.get():
                pass
            await settle()
            check_invariants(pool)
        connector.answer = None
        pool.clear()
        async with anyio.create_task_group() as tasks:
            await queue_up(pool, tasks, 2)
            for dial in connector.pending:
                dial.fail()
        figures = pool.statistics()
        assert (figures.size, figures.idle, figures.waiting, figures.dials_failed) == (0, 0, 0, 2)
        assert figures.opened == figures.closed
        connector.answer = connector.new_connection
        await prove_capacity(pool, 2)


@pytest.mark.parametrize("second", ["release", "discard"])
@pytest.mark.parametrize("first", ["release", "discard"])
async def test_a_handle_comes_back_once_however_often_it_is_given_back(first: str, second: str) -> None:
    """B51 (commons-pool POOL-419): returned and invalidated at once, the same object corrupted the counters."""
    async with Pool(FakeConnector.always(), max_size=1) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        connection = handle.connection
        getattr(handle, first)()
        (successor,) = await queue_up(pool, tasks, 1)
        getattr(handle, second)()
        await settle()
        assert successor.worked
        assert (successor.connection is connection) == (first == "release")
        assert connection.closes == (first == "discard")
        assert (pool.statistics().held, pool.statistics().size) == (1, 1)
        check_invariants(pool)
        successor.leave()


@pytest.mark.parametrize("seed", range(5))
async def test_any_sequence_of_what_can_happen_keeps_the_invariants(seed: int) -> None:
    """B57 (vapor/postgres-nio#608 to #645): eight bugs in five months, in a state machine tested by hand alone."""
    chance = random.Random(seed)
    clock, connector = ManualClock(), FakeConnector()
    callers: list[Caller] = []

    def someone(*, working: bool) -> Caller | None:
        eligible = [caller for caller in callers if not caller.ended and caller.worked == working]
        return chance.choice(eligible) if eligible else None

    async with (
        Pool(
            connector, max_size=4, max_idle=3, min_idle=1, idle_timeout=20, max_lifetime=50, max_uses=5, clock=clock
        ) as pool,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(150):
            what = chance.randrange(10)
            working, waiting = someone(working=True), someone(working=False)
            if what < 3:
                callers.append(Caller(pool, tasks))
            elif what == 3 and connector.pending:
                chance.choice(connector.pending).fail()
            elif what == 4:
                await settle()  # a dial that is being cancelled must have noticed: its connection would be lost
                if connector.pending:
                    chance.choice(connector.pending).succeed()
                    await settle()
            elif what == 5 and waiting is not None:
                waiting.cancel("scope")
            elif what == 6 and connector.open:
                chance.choice(connector.open).die()
            elif what == 7:
                await clock.advance(chance.choice([0.1, 3, 12]))
            elif what == 8 and chance.random() < 0.3:
                pool.clear()
            elif working is not None:
                chance.choice([working.release_now, working.leave, working.lease.discard])()
            if chance.random() < 0.5:
                await settle()
            check_invariants(pool)
        tasks.cancel_scope.cancel()
    assert pool.statistics().size == 0
    assert [connection.closes for connection in connector.connections] == [1] * len(connector.connections)


async def test_the_minimum_of_idle_connections_is_restored_whatever_took_them() -> None:
    """B57 (vapor/postgres-nio#633): a connection that closed was not replaced, and the minimum was lost."""
    clock, connector = ManualClock(), FakeConnector.always()
    async with Pool(connector, min_idle=2, max_lifetime=100, clock=clock) as pool:
        await settle()
        assert pool.statistics().idle == 2
        async with pool.get() as connection:
            connection.die()
        await settle()
        assert pool.statistics().idle == 2
        pool.clear()
        await settle()
        assert pool.statistics().idle == 2
        await clock.advance(101)
        assert pool.statistics().idle == 2
        connector.answer = None
        pool.clear()
        await settle()
        connector.answer = connector.new_connection
        for dial in connector.pending:
            dial.fail()
        await clock.advance(1)
        assert pool.statistics().idle == 2
        check_invariants(pool)
