"""What the tests of the bug catalogue share: callers to cancel in either way, a clock that jumps, gates."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup

from wspool import Pool
from wspool.testing import FakeConnection, settle

Way = Literal["scope", "task"]

either_way = pytest.mark.parametrize("way", ["scope", "task"])
"""Cancelled by an anyio scope, and by a bare `asyncio.Task.cancel()`."""


def in_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def skip_where_impossible(way: Way) -> None:
    if way == "task" and not in_asyncio():
        pytest.skip("trio has no Task.cancel(): every cancellation is a scope's")


class Caller:
    """A user of one connection, in a task of its own: it keeps the connection until `leave()` or a cancellation."""

    def __init__(
        self,
        pool: Pool[FakeConnection],
        tasks: TaskGroup,
        *,
        connect: Callable[[], Awaitable[FakeConnection]] | None = None,
    ) -> None:
        self.lease = pool.get(connect=connect)
        self.scope = anyio.CancelScope()
        self.connection: FakeConnection | None = None
        self.worked = False
        """Whether it got past the first checkpoint with its connection, which a cancelled task cannot."""
        self.error: Exception | None = None
        self.ended = False
        self._leave = anyio.Event()
        self._task: asyncio.Task[Any] | None = None
        self._cancelled_bare = False
        tasks.start_soon(self._run)

    async def _run(self) -> None:
        self._task = asyncio.current_task() if in_asyncio() else None
        try:
            with self.scope:
                async with self.lease as connection:
                    self.connection = connection
                    await anyio.lowlevel.checkpoint()
                    connection.use(self)
                    self.worked = True
                    try:
                        await self._leave.wait()
                    finally:
                        connection.leave()
        except Exception as error:
            self.error = error
        except asyncio.CancelledError:
            if not self._cancelled_bare:
                raise
        finally:
            self.ended = True

    def leave(self) -> None:
        """Have the task end its use, as soon as it runs."""
        self._leave.set()

    def release_now(self) -> None:
        """End the use in this very step, whoever calls."""
        assert self.connection is not None
        self.connection.leave()
        self.lease.release()
        self._leave.set()

    def cancel(self, way: Way) -> None:
        if way == "scope":
            self.scope.cancel()
        else:
            assert self._task is not None
            self._cancelled_bare = True
            self._task.cancel()

    @property
    def gave_up(self) -> bool:
        """Whether a cancellation ended it before it could work."""
        return self.ended and not self.worked and self.error is None


async def queue_up(pool: Pool[FakeConnection], tasks: TaskGroup, count: int) -> list[Caller]:
    """So many callers, who arrived in the order of the list."""
    callers: list[Caller] = []
    for _ in range(count):
        callers.append(Caller(pool, tasks))
        await settle()
    return callers


class StepClock:
    """A clock that jumps without anybody running meanwhile: the pool's timer comes late, among the other tasks."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._moved = anyio.Event()

    def now(self) -> float:
        return self._now

    async def sleep_until(self, deadline: float) -> None:
        while self._now < deadline:
            await self._moved.wait()

    def jump(self, seconds: float, *, meanwhile: Callable[[], object] | None = None) -> None:
        """Let time pass; what happens meanwhile happens before, but the timer's task is resumed first."""
        self._moved.set()
        self._moved = anyio.Event()
        if meanwhile is not None:
            meanwhile()
        self._now += seconds


class Gate:
    """A hook that waits until the test opens it, then answers `answer`, or raises it."""

    def __init__(self, answer: object = None) -> None:
        self.answer = answer
        self.calls = 0
        self.interrupted = 0
        self._open = anyio.Event()

    async def __call__(self, connection: FakeConnection) -> object:
        self.calls += 1
        try:
            await self._open.wait()
        except BaseException:
            self.interrupted += 1
            raise
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def open(self) -> None:
        self._open.set()


def forget(handles: list[Any]) -> None:
    """Drop the only reference to something that holds a connection, and have the garbage collected."""
    handles.clear()
    gc.collect()


async def check_out_and_in(pool: Pool[FakeConnection], count: int = 1) -> list[FakeConnection]:
    """Have so many idle connections in the pool."""
    handles = [await pool.get() for _ in range(count)]
    connections = [handle.connection for handle in handles]
    for handle in handles:
        handle.release()
    await settle()
    return connections
