# mypy: disable-error-code="misc, no-untyped-call, unused-ignore"
"""asyncpg's pool, with its own Connection class over a protocol that talks to nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg

from .base import Contender

if TYPE_CHECKING:
    from tests.benchmarks.fakes import Dial


class _Protocol:
    queries_count = 0

    def is_connected(self) -> bool:
        return True

    def _is_cancelling(self) -> bool:
        return False


_PROTOCOL = _Protocol()


class _Connection(asyncpg.Connection):
    """The real class, down to what its pool calls; only what would send a query is emptied."""

    def __init__(self) -> None:
        # What the methods that are kept read: those of the real __init__ that need no server.
        self._protocol = _PROTOCOL
        self._aborted = False
        self._proxy = None
        self._pool_holder = None
        self._pool_release_ctr = 0
        self._listeners: dict[Any, Any] = {}
        self._log_listeners: set[Any] = set()
        self.served = False
        self.closed = False

    def __del__(self) -> None:
        pass

    async def reset(self, *, timeout: float | None = None) -> None:
        pass

    async def close(self, *, timeout: float | None = None) -> None:
        self.terminate()

    def terminate(self) -> None:
        self._aborted = self.closed = True
        if self._pool_holder is not None and (holder := self._pool_holder()) is not None:
            holder._release_on_close()


class AsyncpgPool(Contender):
    name = "asyncpg"
    note = "the reset on release, a query with a real server, costs nothing here"
    largest: ClassVar = {"idle": 2000}
    why_no_larger = "each acquire looks through its free places for one that is connected"

    def make(self) -> _Connection:
        return _Connection()

    async def open(self, size: int, dial: Dial) -> None:
        async def connect(*_: Any, **__: Any) -> Any:
            return await dial()

        self._pool: Any = await asyncpg.create_pool(
            connect=connect, connection_class=_Connection, min_size=0, max_size=size
        )

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

    def connection(self, taken: Any) -> Any:
        return taken._con
