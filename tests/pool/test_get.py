"""Getting a connection: hits, dials, the race, the queue."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from wspool import Pool
from wspool.testing import FakeConnection, FakeConnector, check_invariants, settle


async def test_a_get_dials_when_nothing_is_idle_and_reuses_what_was_released() -> None:
    connector = FakeConnector()
    async with Pool(connector) as pool:
        seen: list[FakeConnection] = []

        async def user() -> None:
            async with pool.get() as connection:
                seen.append(connection)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(user)
            (await connector.next_dial()).succeed()
        await user()
        assert [connection.number for connection in seen] == [1, 1]
        check_invariants(pool)
    await settle()
    assert connector.connections[0].closes == 1
