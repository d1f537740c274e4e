"""A pool on a loop that anyio did not start, as in any program of asyncio's own: callbacks of the loop work there, too.

anyio asks sniffio, if that is installed, which loop runs; and sniffio knows it only in a task, or if it was told.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

import pytest

from wspool import Pool
from wspool.testing import FakeConnection, FakeConnector, check_invariants, settle

pytest.importorskip("sniffio", reason="without sniffio, anyio looks for asyncio only")

Run: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]


def run_by_uvloop(main: Coroutine[Any, Any, None]) -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


async def called_back(function: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_soon(function)
    await settle()


async def clear(pool: Pool[FakeConnection]) -> None:
    pool.get_nowait().release()
    await called_back(pool.clear)


async def discard(pool: Pool[FakeConnection]) -> None:
    await called_back(pool.get_nowait().discard)


async def forget(pool: Pool[FakeConnection]) -> None:
    forgotten = [pool.get_nowait()]
    with pytest.warns(ResourceWarning, match="never released"):
        forgotten.clear()
    await settle()


@pytest.mark.parametrize("run", [asyncio.run, run_by_uvloop])
@pytest.mark.parametrize("use", [clear, discard, forget])
def test_what_a_callback_gives_up_is_closed(run: Run, use: Callable[[Pool[FakeConnection]], Awaitable[None]]) -> None:
    connector = FakeConnector.always()

    async def main() -> None:
        async with Pool(connector, max_size=1) as pool:
            (await pool.get()).release()
            await use(pool)
            assert [connection.closes for connection in connector.connections] == [1]
            check_invariants(pool)
            (await pool.get()).release()

    run(main())


def test_where_sniffio_is_not_there_a_pool_works_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sniffio")
    connector = FakeConnector.always()

    async def main() -> None:
        async with Pool(connector) as pool:
            (await pool.get()).release()

    asyncio.run(main())
    assert [connection.closes for connection in connector.connections] == [1]
