# mypy: disable-error-code="misc, unused-ignore"
"""generic-connection-pool, its asyncio half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generic_connection_pool.asyncio import BaseConnectionManager, ConnectionPool

from .base import Contender

if TYPE_CHECKING:
    from tests.benchmarks.fakes import Dial

_ENDPOINT = "benchmark"


class _Manager(BaseConnectionManager[str, Any]):
    def __init__(self, dial: Dial) -> None:
        self._dial = dial

    async def create(self, endpoint: str) -> Any:
        return await self._dial()

    async def dispose(self, endpoint: str, conn: Any) -> None:
        conn.close()


class GenericConnectionPool(Contender):
    name = "generic-connection-pool"
    note = "one endpoint: its endpoint lookup is part of each visit, as it always is"

    async def open(self, size: int, dial: Dial) -> None:
        self._pool: Any = ConnectionPool(_Manager(dial), max_size=size, total_max_size=size)

    async def close(self) -> None:
        await self._pool.close()

    async def use(self, times: int) -> None:
        pool = self._pool
        for _ in range(times):
            connection = await pool.acquire(_ENDPOINT)
            await pool.release(connection, _ENDPOINT)

    async def take(self) -> Any:
        return await self._pool.acquire(_ENDPOINT)

    async def give(self, taken: Any) -> None:
        await self._pool.release(taken, _ENDPOINT)
