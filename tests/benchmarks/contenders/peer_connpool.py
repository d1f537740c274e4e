# mypy: disable-error-code="misc, unused-ignore"
"""connpool, its asyncio half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from connpool import AsyncConnectionPool, PoolConfig

from .base import Contender

if TYPE_CHECKING:
    from tests.benchmarks.fakes import Dial


class Connpool(Contender):
    name = "connpool"

    async def open(self, size: int, dial: Dial) -> None:
        self._pool: Any = AsyncConnectionPool.from_callables(dial, config=PoolConfig(max_size=size))
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close()

    async def use(self, times: int) -> None:
        pool = self._pool
        for _ in range(times):
            connection = await pool.acquire()
            await pool.release(connection)

    async def take(self) -> Any:
        return await self._pool.acquire()

    async def give(self, taken: Any) -> None:
        await self._pool.release(taken)
