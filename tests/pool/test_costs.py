"""What a hit costs, counted and not timed: blocks of memory, and Python calls."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from types import FrameType
from typing import Any

from wspool import Pool, Pooled

_IDLE = 200


class Connection:
    async def aclose(self) -> None:
        """Nothing is open."""


async def connect() -> Connection:
    return Connection()


async def warm(pool: Pool[Connection]) -> None:
    """All connections are idle, and whatever is made once has been made."""
    for _ in range(2):
        handles = [await pool.get() for _ in range(_IDLE)]
        for handle in handles:
            handle.release()


async def test_a_hit_allocates_its_handle_and_little_else() -> None:
    async with Pool(connect, max_size=_IDLE) as pool:
        await warm(pool)
        handles: list[Pooled[Connection] | None] = [None] * _IDLE
        gc.collect()
        gc.disable()
        try:
            before = sys.getallocatedblocks()
            for index in range(_IDLE):
                handles[index] = await pool.get()
            after = sys.getallocatedblocks()
        finally:
            gc.enable()
        for handle in handles:
            assert handle is not None
            handle.release()
    # Reached: 1.5, of which the handle is one.
    assert (after - before) / _IDLE <= 2.5


async def test_a_hit_makes_few_calls(anyio_backend_name: str) -> None:
    calls = Counter[str]()

    def count(_: FrameType, event: str, __: Any) -> None:
        calls[event] += 1

    async with Pool(connect, max_size=_IDLE) as pool:
        await warm(pool)
        sys.setprofile(count)
        try:
            for _ in range(_IDLE):
                (await pool.get()).release()
        finally:
            sys.setprofile(None)
    # Reached on asyncio: 7.4 and 8.2; on trio, which looks for a cancellation each time, 26.7 and 5.4.
    assert calls["call"] / _IDLE <= (32 if anyio_backend_name == "trio" else 10)
    assert calls["c_call"] / _IDLE <= 10
