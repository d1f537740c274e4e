"""SHELL. One task that looks at the clock for all tunnels of a process, in place of a timer for each of them."""

from __future__ import annotations

import time

import anyio

from .tunnel import Tunnel

# Shorter than any time limit that it watches over, which is a second or more.
_INTERVAL = 0.25


class Sweeper:
    """Watches tunnels, in the tasks of its owner."""

    def __init__(self) -> None:
        self.tunnels = set[Tunnel]()

    async def watch(self, tunnel: Tunnel) -> None:
        """Read a tunnel until it ends, and look at the clock for it meanwhile."""
        self.tunnels.add(tunnel)
        try:
            await tunnel.run()
        finally:
            self.tunnels.discard(tunnel)

    async def run(self) -> None:
        """Look at the clock, for ever."""
        async with anyio.create_task_group() as ticks:
            while True:
                await anyio.sleep(_INTERVAL)
                now = time.monotonic()
                for tunnel in [each for each in self.tunnels if each.is_due(now)]:
                    # A tunnel whose far end does not read must not keep the others waiting.
                    ticks.start_soon(tunnel.tick, now)
