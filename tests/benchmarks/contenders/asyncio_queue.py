"""The standard library's queue as a pool: the reference for a hit, and for a pool that only waits for releases."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .base import Contender

if TYPE_CHECKING:
    from tests.benchmarks.fakes import Dial


class AsyncioQueue(Contender):
    name = "asyncio.Queue, await put"
    is_reference = True
    note = "dials where fewer than its size were dialled, else waits; it checks, times and closes nothing"

    async def open(self, size: int, dial: Dial) -> None:
        self._dial = dial
        self._to_dial = size
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    async def close(self) -> None:
        pass

    async def use(self, times: int) -> None:
        queue = self._queue
        for _ in range(times):
            connection = await queue.get()
            await queue.put(connection)

    async def take(self) -> Any:
        if self._to_dial and self._queue.empty():
            self._to_dial -= 1
            return await self._dial()
        return await self._queue.get()

    async def give(self, taken: Any) -> None:
        self._queue.put_nowait(taken)


class AsyncioQueueNowait(AsyncioQueue):
    name = "asyncio.Queue, put_nowait"
    scenarios = frozenset({"hit", "handoff"})
    note = ""

    async def use(self, times: int) -> None:
        queue = self._queue
        for _ in range(times):
            connection = await queue.get()
            queue.put_nowait(connection)
