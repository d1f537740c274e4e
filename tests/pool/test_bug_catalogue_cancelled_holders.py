"""Known bugs of other pools: a connection that leaks or is spoilt when its holder is cancelled."""

from __future__ import annotations

from collections import deque

import anyio
import anyio.lowlevel
import pytest

from tests.pool.bug_catalogue_kit import Gate, Way, either_way, queue_up, skip_where_impossible
from wspool import Pool
from wspool.testing import FakeConnection, FakeConnector, cancel_everywhere, check_invariants, settle


async def test_cancelling_users_at_every_step_never_leads_to_pool_timeouts() -> None:
    """B16 (encode/httpx#1461): after a few cancelled requests, every further one got PoolTimeout."""

    async def use(pool: Pool[FakeConnection]) -> None:
        async with pool.get() as connection:
            connection.use("victim")
            try:
                await anyio.lowlevel.checkpoint()
            finally:
                connection.leave()

    async def use_both(pool: Pool[FakeConnection]) -> None:
        async with pool.get(), pool.get():
            await anyio.lowlevel.checkpoint()

    report = await cancel_everywhere(lambda: Pool(FakeConnector.always(), max_size=2), use, background=use_both)
    assert report.delivered > 3


class Pipe:
    """A connection that gives replies in the order of the requests, and does not know who is owed one."""

    def __init__(self) -> None:
        self.replies: deque[str] = deque()
        self.answering = anyio.Event()
        self.closed = False

    async def ask(self, question: str) -> str:
        self.replies.append(f"reply to {question}")
        await self.answering.wait()
        return self.replies.popleft()

    async def aclose(self) -> None:
        self.closed = True


class WatchfulPipe(Pipe):
    """The same, as a `Poolable`."""

    def is_reusable(self) -> bool:
        return not self.replies


@pytest.mark.parametrize("way", ["cancelled", "raised"])
async def test_a_connection_left_in_the_middle_of_an_exchange_is_not_used_again(way: str) -> None:
    """B20 (redis/redis-py#2624): the next user of the connection read the reply to the cancelled command."""
    pipes: list[Pipe] = []

    async def connect() -> Pipe:
        pipes.append(Pipe())
        return pipes[-1]

    async with Pool(connect, max_size=1) as pool:
        with anyio.CancelScope() as scope:
            try:
                async with pool.get() as pipe:
                    if way == "raised":
                        pipe.replies.append("reply to the first")
                        raise ConnectionError
                    scope.cancel()
                    await pipe.ask("the first")
            except ConnectionError:
                pass
        async with pool.get() as pipe:
            pipe.answering.set()
            assert await pipe.ask("the second") == "reply to the second"
        assert pipes[0].closed


@either_way
async def test_a_poolable_says_itself_whether_it_survived_the_cancellation(way: Way) -> None:
    """B46 (dotnet/corefx#27324): a cancelled send returned its connection as a healthy one."""
    skip_where_impossible(way)
    connector = FakeConnector.always()
    async with Pool(connector, max_size=2) as pool:
        async with anyio.create_task_group() as tasks:
            first, second = await queue_up(pool, tasks, 2)
            broken, unharmed = connector.connections
            assert (first.connection, second.connection) == (broken, unharmed)
            broken.die()
            first.cancel(way)
            second.cancel(way)
            await settle()
            assert (broken.closes, unharmed.closes) == (1, 0)
            async with pool.get() as connection:
                assert connection is unharmed


async def test_a_connection_discarded_in_a_cancelled_scope_is_closed_to_the_end() -> None:
    """B21 (sqlalchemy/sqlalchemy#6652): the scope's cancellation cut off the release, and the socket leaked."""
    gate = Gate()
    async with Pool(FakeConnector.always(), max_size=1, close=gate) as pool:
        with anyio.CancelScope() as scope:
            async with pool.get() as connection:
                connection.die()
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        await settle()
        assert (gate.calls, pool.statistics().closing) == (1, 1)
        gate.open()
        await settle()
        assert gate.interrupted == 0
        assert (pool.statistics().closed, pool.statistics().size) == (1, 0)


async def test_a_discard_needs_no_await_so_that_any_path_can_close() -> None:
    """B22 (oracle/python-oracledb#602): without a synchronous terminate, a cancelled path could not close."""
    async with Pool(FakeConnector.always(), max_size=1) as pool:
        handle = await pool.get()
        connection = handle.connection
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.lowlevel.checkpoint()
            finally:
                handle.discard()
                assert pool.statistics().held == 0
        await settle()
        assert connection.closes == 1
        assert pool.statistics().size == 0


@either_way
async def test_a_reset_goes_on_when_the_one_who_released_is_cancelled(way: Way) -> None:
    """R3 (anopool): a cancellation during the recycling skipped both the return and the permit."""
    skip_where_impossible(way)
    reset = Gate()
    async with Pool(FakeConnector.always(), max_size=1, reset=reset) as pool:
        async with anyio.create_task_group() as tasks:
            (holder,) = await queue_up(pool, tasks, 1)
            holder.cancel(way)
            await settle()
            assert holder.ended
            assert pool.statistics().resetting == 1
        reset.open()
        await settle()
        assert reset.interrupted == 0
        assert pool.statistics().idle == 1
        check_invariants(pool)


@either_way
async def test_a_cancelled_holder_hands_its_connection_to_the_one_who_waits(way: Way) -> None:
    """R10 (connpool): release awaited a condition first; cancelled there, the handle was neither idle nor closed."""
    skip_where_impossible(way)
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        holder, waiter = await queue_up(pool, tasks, 2)
        holder.cancel(way)
        await settle()
        assert waiter.worked
        assert waiter.connection is connector.connections[0]
        waiter.leave()
