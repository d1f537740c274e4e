"""The references on trio: its memory channel for asyncio.Queue, and the bare FIFO over its own parking."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import trio

from .base import Contender

if TYPE_CHECKING:
    from tests.benchmarks.fakes import Dial


class TrioChannel(Contender):
    name = "trio memory channel"
    is_reference = True
    scenarios = frozenset({"hit", "handoff", "race", "burst"})
    note = "dials where fewer than its size were dialled, else waits; it checks, times and closes nothing"

    async def open(self, size: int, dial: Dial) -> None:
        self._dial = dial
        self._to_dial = size
        self._send, self._receive = trio.open_memory_channel[Any](math.inf)

    async def close(self) -> None:
        self._send.close()
        self._receive.close()

    async def use(self, times: int) -> None:
        send, receive = self._send, self._receive
        for _ in range(times):
            connection = await receive.receive()
            send.send_nowait(connection)

    async def take(self) -> Any:
        if self._to_dial and not self._receive.statistics().current_buffer_used:
            self._to_dial -= 1
            return await self._dial()
        return await self._receive.receive()

    async def give(self, taken: Any) -> None:
        self._send.send_nowait(taken)


class TwoDequesOnTrio(Contender):
    name = "two deques"
    scenarios = frozenset({"hit", "handoff"})
    is_reference = True
    note = "hands over without a thought for cancellation, time limits or closing; a hit is no checkpoint"

    async def open(self, size: int, dial: Dial) -> None:
        self._dial = dial
        self._to_dial = size
        self._idle: deque[Any] = deque()
        self._waiters: deque[tuple[trio.lowlevel.Task, list[Any]]] = deque()

    async def close(self) -> None:
        pass

    async def use(self, times: int) -> None:
        for _ in range(times):
            connection = await self.get()
            self.release(connection)

    async def get(self) -> Any:
        if self._idle:
            return self._idle.pop()
        handed: list[Any] = []
        self._waiters.append((trio.lowlevel.current_task(), handed))
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return handed[0]

    def release(self, connection: Any) -> None:
        if self._waiters:
            task, handed = self._waiters.popleft()
            handed.append(connection)
            trio.lowlevel.reschedule(task)
        else:
            self._idle.append(connection)

    async def take(self) -> Any:
        if self._to_dial and not self._idle:
            self._to_dial -= 1
            return await self._dial()
        return await self.get()

    async def give(self, taken: Any) -> None:
        self.release(taken)
