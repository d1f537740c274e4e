"""Event loops on which time passes at once, and only when every task is blocked: 20 seconds take none.

For what happens in memory. A thread or another process would be overtaken by the clock, and so would a socket.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from typing import Any

import pytest
import trio.testing


class _Selector(selectors.DefaultSelector):
    """Never waits for a timer: it lets the time pass instead."""

    skipped = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            # Next after, so that rounding cannot leave the time just before the timer for ever.
            self.skipped = math.nextafter(self.skipped + timeout, math.inf)
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, which skips the time until the next timer."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.skipped


# uvloop keeps the time to itself.
BACKENDS = ("asyncio", "trio")


@pytest.fixture(params=BACKENDS)
def jumping_clock(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """For a module's own `anyio_backend`."""
    if request.param == "asyncio":
        return "asyncio", {"debug": True, "loop_factory": JumpingLoop}
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
