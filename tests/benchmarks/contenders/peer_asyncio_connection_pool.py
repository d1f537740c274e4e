# mypy: disable-error-code="misc, unused-ignore"
"""asyncio-connection-pool. It has no other way in than ``async with``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncio_connection_pool import ConnectionPool, ConnectionStrategy

from .base import Contender

if TYPE_CHECKING:
    from tests.benchmarks.fakes import Dial


class _Strategy(ConnectionStrategy[Any]):
    def __init__(self, dial: Dial) -> None:
        self._dial = dial

    async def make_connection(self) -> Any:
        return await self._dial()

    def connection_is_closed(self, conn: Any) -> bool:
        return bool(conn.closed)

    async def close_connection(self, conn: Any) -> None:
        conn.close()


class AsyncioConnectionPool(Contender):
    name = "asyncio-connection-pool"
    note = "`async with` is its only way in; it has no close"

    async def open(self, size: int, dial: Dial) -> None:
        self._pool: Any = ConnectionPool(strategy=_Strategy(dial), max_size=size)

    async def close(self) -> None:
        pass

    async def use(self, times: int) -> None:
        pool = self._pool
        for _ in range(times):
            async with pool.get_connection():
                pass

    async def take(self) -> Any:
        block = self._pool.get_connection()
        return block, await block.__aenter__()

    async def give(self, taken: Any) -> None:
        await taken[0].__aexit__(None, None, None)

    def connection(self, taken: Any) -> Any:
        return taken[1]
