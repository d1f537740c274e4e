# mypy: disable-error-code="misc, unused-ignore"
"""psycopg_pool, with a connection class that is always idle and never talks to a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool

from tests.benchmarks.fakes import Fake

from .base import Contender

if TYPE_CHECKING:
    from tests.benchmarks.fakes import Dial


class _PgConn:
    transaction_status = TransactionStatus.IDLE


class _Connection(Fake):
    pgconn = _PgConn()
    # The pool writes these on every connection; a real one has them as plain attributes too.
    _pool: Any = None
    _created_at = 0.0
    _expire_at = 0.0

    @classmethod
    async def connect(cls, _: str, *, dial: Dial) -> Any:
        return await dial()

    async def close(self) -> None:  # type: ignore[override]  # the pool calls it so
        self.closed = True


class PsycopgPool(Contender):
    name = "psycopg_pool"
    note = "getconn and putconn, its cheapest calls: `async with pool.connection()` would commit as well"

    def make(self) -> _Connection:
        return _Connection()

    async def open(self, size: int, dial: Dial) -> None:
        self._pool: Any = AsyncConnectionPool(
            connection_class=_Connection,  # type: ignore[type-var]  # a stand-in
            kwargs={"dial": dial},
            min_size=0,
            max_size=size,
            open=False,
        )
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close()

    async def use(self, times: int) -> None:
        pool = self._pool
        for _ in range(times):
            connection = await pool.getconn()
            await pool.putconn(connection)

    async def take(self) -> Any:
        return await self._pool.getconn()

    async def give(self, taken: Any) -> None:
        await self._pool.putconn(taken)
