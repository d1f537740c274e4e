"""Whoever does not read makes nobody's memory grow: what is on its way is bounded, and then the flood has to wait.

The streams are in memory, so that what they hold is known to the byte: what the flooding side could write beyond that
is in our process. `tracemalloc` shows what it takes there.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from anyio import BrokenResourceError, ClosedResourceError

from examples.socks_proxy import relay
from examples.socks_proxy.packets import MAX_DATA_SENT
from tests.jumping_clock import jumping_clock
from tests.socks_proxy.ends import exactly
from tests.stream_pairs import reset
from wspool.testing import settle
from wspool.websocket._connection import READ_SIZE

from .in_memory import ECHO, World, in_memory, taking, until, until_closed

anyio_backend = jumping_clock

KIB = 1024
FLOODED = 9
CHUNK = bytes(16 * KIB)
# The buffers of the three connections on the way: of the application, of the tunnel, of the destination.
STREAMS = 3 * 64 * KIB
# One end reads a piece of the local side, and waits for the tunnel to take it. The other reads the tunnel, and waits
# for its local side to take the first of what it has read. The flood counts a piece of its own when it is all gone.
ON_ITS_WAY = 2 * MAX_DATA_SENT + READ_SIZE
BOUND = STREAMS + ON_ITS_WAY
# In memory what is on its way is there up to three times, as it came, unmasked, and as the part that is written.
MEMORY = STREAMS + 3 * ON_ITS_WAY


class Flood:
    """Writes until it may write no more, or has written far more than it should, and counts."""

    def __init__(self) -> None:
        self.written = 0
        self.ended = False

    async def __call__(self, stream: Any) -> None:
        try:
            while self.written < 3 * BOUND:
                await stream.send(CHUNK)
                self.written += len(CHUNK)
        except (BrokenResourceError, ClosedResourceError):
            pass
        self.ended = True


class Sides:
    """Sessions of which one side floods and the other does not read, until it is let."""

    def __init__(self, world: World, *, upload: bool) -> None:
        self.world = world
        self.upload = upload
        self.read = anyio.Event()
        self.floods: list[Flood] = []
        world.destinations[FLOODED] = self.destination

    async def flood(self, stream: Any) -> None:
        self.floods.append(Flood())
        await self.floods[-1](stream)

    async def destination(self, stream: Any) -> None:
        async with stream:
            if not self.upload:
                await self.flood(stream)
            else:
                await self.read.wait()
                await until_closed(stream)

    async def begin(self, count: int) -> list[Any]:
        """The applications' sides, when nothing goes on any more."""
        streams = [await self.world.connect(FLOODED) for _ in range(count)]
        if self.upload:
            for stream in streams:
                self.world.tasks.start_soon(self.flood, stream)
        await settle()
        return streams


@pytest.mark.parametrize("upload", [False, True], ids=["slow-reader", "slow-destination"])
async def test_a_flood_that_nobody_reads_is_taken_up_to_a_bound(upload: bool) -> None:
    """And when somebody reads it, it goes on."""
    async with in_memory() as world:
        sides = Sides(world, upload=upload)
        [stream] = await sides.begin(1)
        (flood,) = sides.floods
        # All streams are full, so it is not only slow.
        assert STREAMS <= flood.written <= BOUND
        sides.read.set()
        if not upload:
            await exactly(stream, 3 * BOUND)
        await until(lambda: flood.ended)
        await stream.aclose()


@contextmanager
def traced() -> Generator[None, None, None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def traced_bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.parametrize("upload", [False, True], ids=["slow-readers", "slow-destinations"])
async def test_a_session_that_is_blocked_takes_a_bounded_memory(upload: bool) -> None:
    count = 10
    async with in_memory() as world:
        sides = Sides(world, upload=upload)
        streams = await sides.begin(1)
        with traced():
            before = traced_bytes()
            streams += await sides.begin(count)
            taken = traced_bytes() - before
        assert taken <= count * MEMORY, f"{taken / count / KIB:.0f} KiB each"
        sides.read.set()
        for stream in streams:
            await stream.aclose()


async def test_an_application_that_goes_away_in_its_upload_leaves_nothing_though_the_destination_is_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody can be told of it while all that it has said is in the way: it ends with the destination's time limit."""
    stall_timeout = 30.0
    monkeypatch.setattr(relay, "STALL_TIMEOUT", stall_timeout)
    async with in_memory() as world:
        sides = Sides(world, upload=True)
        [stream] = await sides.begin(1)
        with taking(stall_timeout, give_or_take=2):
            reset(stream)
            await stream.aclose()
            await settle()
            assert sides.floods[0].written <= BOUND
            # Others do not notice.
            async with await world.connect(ECHO) as other:
                await other.send(b"x")
                assert await exactly(other, 1) == b"x"
            await until(lambda: not world.server._sessions and not world.client.pool.statistics().held)
        sides.read.set()
