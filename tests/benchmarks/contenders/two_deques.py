"""A bare FIFO: one deque of connections, one of waiters. The least that a hand-off can cost."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from .base import Contender

if TYPE_CHECKING:
    from tests.benchmarks.fakes import Dial


class TwoDeques(Contender):
    name = "two deques"
    scenarios = frozenset({"hit", "handoff", "memory"})
    is_reference = True
    note = "hands over without a thought for cancellation, time limits or closing"

    async def open(self, size: int, dial: Dial) -> None:
        self._dial = dial
        self._to_dial = size
        self._idle: deque[Any] = deque()
        self._waiters: deque[asyncio.Future[Any]] = deque()
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        pass

    async def use(self, times: int) -> None:
        for _ in range(times):
            connection = await self.get()
            self.release(connection)

    async def get(self) -> Any:
        if self._idle:
            return self._idle.pop()
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        return await waiter

    def release(self, connection: Any) -> None:
        if self._waiters:
            self._waiters.popleft().set_result(connection)
        else:
            self._idle.append(connection)

    async def take(self) -> Any:
        if self._to_dial and not self._idle:
            self._to_dial -= 1
            return await self._dial()
        return await self.get()

    async def give(self, taken: Any) -> None:
        self.release(taken)
