"""How often another task has its turn meanwhile."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel


class Turns:
    """Counted until the end of the block."""

    count = 0

    async def _take(self) -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            self.count += 1


@asynccontextmanager
async def turns_of_another() -> AsyncGenerator[Turns, None]:
    """Run another task, which does nothing but take its turns."""
    turns = Turns()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(turns._take)
        yield turns
        tasks.cancel_scope.cancel()
