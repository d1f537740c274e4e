"""What the types of the public API promise; never run, checked by mypy --strict and pyright --strict.

A line that must be an error carries an ignore comment: both checkers report an ignore that is not needed.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import assert_never, assert_type

from wspool import (
    CloseReason,
    ConnectionAcquired,
    ConnectionClosed,
    ConnectionReady,
    ConnectionReleased,
    DialFailed,
    DialStarted,
    GetTimedOut,
    GetWaiting,
    Pool,
    Poolable,
    PoolClosed,
    Pooled,
    PoolError,
    PoolEvent,
    PoolFull,
    PoolMisuse,
    PoolStatistics,
    PoolTimeout,
)


class Connection:
    async def send(self, data: bytes) -> None: ...

    async def aclose(self) -> None: ...

    def close(self) -> None: ...

    @property
    def is_open(self) -> bool: ...


class OtherConnection(Connection): ...


class Stranger: ...


class SelfAware:
    def is_reusable(self) -> bool: ...


async def connect() -> Connection: ...
async def connect_other() -> OtherConnection: ...
async def connect_stranger() -> Stranger: ...
async def connect_to(host: str, port: int) -> Connection: ...


async def the_pool_takes_its_type_from_connect() -> None:
    pool = Pool(connect)
    assert_type(pool, Pool[Connection])
    async with pool as entered:
        assert_type(entered, Pool[Connection])
    async with Pool(lambda: connect_to("db", 5432), max_size=10, max_idle=None) as inferred:
        assert_type(inferred, Pool[Connection])


async def the_type_is_written_out() -> None:
    pool: Pool[Connection] = Pool(connect_other)
    Pool[OtherConnection](connect)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Pool(connect_to)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await pool.aclose(grace=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def get_is_awaited(pool: Pool[Connection]) -> None:
    handle = pool.get()
    assert_type(handle, Pooled[Connection])
    assert_type(await handle, Pooled[Connection])
    assert_type((await pool.get()).connection, Connection)


async def get_is_entered(pool: Pool[Connection]) -> None:
    async with pool.get() as connection:
        assert_type(connection, Connection)
    async with (lease := pool.get()) as connection:
        assert_type(lease, Pooled[Connection])
        assert_type(connection, Connection)


async def get_has_a_connect_of_its_own(pool: Pool[Connection]) -> None:
    async with pool.get(connect=connect_other) as connection:
        assert_type(connection, Connection)
    pool.get(connect=connect_stranger)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def the_handle(pool: Pool[Connection]) -> None:
    pooled = pool.get_nowait()
    assert_type(pooled, Pooled[Connection])
    assert_type(pooled.take(), Connection)
    pooled.insert(OtherConnection())
    pooled.insert(Stranger())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pooled.connection = Connection()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert_type(pooled.release(), None)
    assert_type(pooled.discard(), None)


def a_handle_is_awaitable_and_enterable(pooled: Pooled[Connection]) -> None:
    awaitable: Awaitable[Pooled[Connection]] = pooled
    manager: AbstractAsyncContextManager[Connection] = pooled


def a_pool_does_not_vary(pool: Pool[OtherConnection]) -> None:
    """A wider pool could be given a connection that its holders do not expect."""
    wider: Pool[Connection] = pool  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def is_open(connection: Connection) -> bool: ...
async def ping(connection: Connection) -> None: ...
async def is_alive(connection: Connection) -> bool: ...
def take_anything(connection: object) -> None: ...
def strange(connection: Stranger) -> bool: ...


def hooks_see_the_connection() -> None:
    Pool(connect, is_reusable=is_open, validate=ping, reset=ping, close=ping)
    Pool(connect, is_reusable=lambda connection: connection.is_open, validate=is_alive)
    Pool(connect, close=Connection.close)
    Pool(connect, close=take_anything)
    Pool(connect, is_reusable=strange)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]


async def sizes_and_times() -> None:
    async with Pool(connect, max_size=None, acquire_timeout=None, validate_interval=None) as pool:
        assert_type(pool.clear(), None)
        assert_type(pool.resize(max_size=None), None)
        assert_type(pool.resize(max_idle=3, min_idle=1), None)
        assert_type(await pool.aclose(grace=1.5), None)
        assert_type(pool.statistics(), PoolStatistics)
        assert_type(pool.statistics().idle, int)
        assert_type(pool.statistics().last_dial_error, BaseException | None)


def every_event_is_in_the_union(event: PoolEvent) -> str:
    match event:
        case DialStarted(dial=dial) | ConnectionReady(dial=dial):
            return str(dial)
        case DialFailed(error=error, elapsed=elapsed):
            assert_type(error, BaseException | None)
            assert_type(elapsed, float)
            return f"{error} {elapsed}"
        case ConnectionAcquired(waited=waited) | GetTimedOut(waited=waited):
            assert_type(waited, float)
            return str(waited)
        case ConnectionReleased(held=held):
            return str(held)
        case ConnectionClosed(reason=reason):
            assert_type(reason, CloseReason)
            return reason
        case GetWaiting(waiting=waiting):
            assert_type(waiting, int)
            return str(waiting)
        case _:
            assert_never(event)


def report(event: PoolEvent) -> None: ...


def events_reach_the_callback() -> None:
    Pool(connect, on_event=report)
    seen: list[PoolEvent] = []
    Pool(connect, on_event=seen.append)


def errors_are_caught_by_their_bases() -> None:
    errors: list[type[PoolError]] = [PoolClosed, PoolFull, PoolMisuse, PoolTimeout]
    timeout: type[TimeoutError] = PoolTimeout
    misuse: type[RuntimeError] = PoolMisuse


def poolable_is_structural(aware: SelfAware, stranger: Stranger) -> None:
    poolable: Poolable = aware
    poolable = stranger  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


@dataclass
class Service:
    """A pool is kept as an attribute more often than as a local name."""

    pool: Pool[Connection]

    async def greet(self) -> None:
        async with self.pool.get() as connection:
            await connection.send(b"hello")
