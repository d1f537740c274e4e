"""What tests of a pool share: several callers at once, each in a task of its own; one use; an observer of ends."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from wspool import CloseReason, ConnectionClosed, DialEnd, DialFailed, Pool, Pooled, PoolEvent
from wspool.testing import FakeConnection

ASYNCIO_ONLY = pytest.mark.parametrize("anyio_backend", [pytest.param(("asyncio", {"debug": True}), id="asyncio")])
"""For what cannot happen on trio: a cancellation that belongs to no scope."""


class Caller:
    """One get: `handle` or `error` is set when it has ended, and `cancelled` if it was cancelled."""

    def __init__(self, tasks: TaskGroup, pool: Pool[FakeConnection], connect: Any = None, *, name: str = "") -> None:
        self.handle: Pooled[FakeConnection] | None = None
        self.error: Exception | None = None
        self.scope = anyio.CancelScope()
        tasks.start_soon(self._run, pool, connect, name=name or None)

    async def _run(self, pool: Pool[FakeConnection], connect: Any) -> None:
        with self.scope:
            try:
                self.handle = await pool.get(connect=connect)
            except Exception as error:
                self.error = error

    @property
    def cancelled(self) -> bool:
        return self.scope.cancelled_caught

    @property
    def waits(self) -> bool:
        return self.handle is None and self.error is None and not self.cancelled

    @property
    def connection(self) -> FakeConnection:
        assert self.handle is not None, self.error
        return self.handle.connection

    @property
    def text(self) -> str:
        """The error's text."""
        assert self.error is not None
        return str(self.error)

    def release(self) -> None:
        assert self.handle is not None, self.error
        self.handle.release()


async def use(pool: Pool[FakeConnection]) -> FakeConnection:
    async with pool.get() as connection:
        connection.use("a test")
        connection.leave()
    return connection


class Ends:
    """An observer that keeps how connections and dials ended."""

    def __init__(self) -> None:
        self.seen: list[ConnectionClosed | DialFailed] = []

    def __call__(self, event: PoolEvent) -> None:
        if isinstance(event, ConnectionClosed | DialFailed):
            self.seen.append(event)

    @property
    def reasons(self) -> list[CloseReason | DialEnd]:
        return [event.reason for event in self.seen]
