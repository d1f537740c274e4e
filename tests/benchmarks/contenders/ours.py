"""wspool, with its defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wspool import Pool

from .base import Contender

if TYPE_CHECKING:
    from tests.benchmarks.fakes import Dial
    from wspool import Pooled


class Wspool(Contender):
    name = "wspool"

    async def open(self, size: int, dial: Dial) -> None:
        self._pool: Pool[Any] = await Pool(dial, max_size=size).__aenter__()

    async def close(self) -> None:
        await self._pool.__aexit__(None, None, None)

    async def use(self, times: int) -> None:
        pool = self._pool
        for _ in range(times):
            pooled = await pool.get()
            pooled.release()

    async def take(self) -> Pooled[Any]:
        return await self._pool.get()

    async def give(self, taken: Pooled[Any]) -> None:
        taken.release()

    def connection(self, taken: Pooled[Any]) -> Any:
        return taken.connection


class WspoolBlock(Wspool):
    name = "wspool, async with"
    scenarios = frozenset({"hit", "handoff"})

    async def use(self, times: int) -> None:
        pool = self._pool
        for _ in range(times):
            async with pool.get():
                pass


class WspoolNowait(Wspool):
    name = "wspool, get_nowait"
    scenarios = frozenset({"hit"})

    async def use(self, times: int) -> None:
        pool = self._pool
        for _ in range(times):
            pool.get_nowait().release()
