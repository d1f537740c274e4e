"""SHELL. One task that looks at the clock for everything in a process, in place of a timer for each."""

from __future__ import annotations

import logging
import time

import anyio

from wspool.websocket import TCPStream

from .tunnel import Tunnel

_logger = logging.getLogger("wspool.proxy")

# Shorter than any time limit that it watches over, which is a second or more.
_INTERVAL = 0.25


class Sweeper:
    """Watches tunnels, in the tasks of its owner."""

    def __init__(self) -> None:
        self.tunnels: set[Tunnel] = set()
        self.close_at: dict[TCPStream, float] = {}
        """Connections that have so long; whoever uses one gets ClosedResourceError."""

    async def watch(self, tunnel: Tunnel) -> None:
        """Read a tunnel until it ends, and look at the clock for it meanwhile. It takes no other one along."""
        self.tunnels.add(tunnel)
        try:
            await tunnel.run()
        except Exception:
            _logger.exception("a tunnel failed by an error in this program")
        finally:
            self.tunnels.discard(tunnel)

    async def run(self) -> None:
        """Look at the clock, for ever."""
        async with anyio.create_task_group() as ticks:
            while True:
                await anyio.sleep(_INTERVAL)
                now = time.monotonic()
                for stream in [stream for stream, deadline in self.close_at.items() if deadline <= now]:
                    stream.close()
                for tunnel in [each for each in self.tunnels if each.is_due(now)]:
                    # A tunnel whose far end does not read must not keep the others waiting.
                    ticks.start_soon(self._tick, tunnel, now)

    async def _tick(self, tunnel: Tunnel, now: float) -> None:
        try:
            await tunnel.tick(now)
        except Exception:
            _logger.exception("a tunnel failed by an error in this program")
            # Whoever reads it tells its session.
            await anyio.aclose_forcefully(tunnel.websocket)
