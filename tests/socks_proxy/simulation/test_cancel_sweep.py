"""A session is cancelled at its every step, at either end: its tunnel is reusable or gone, and nothing else is left.

`run.py` does the asking. After the cancelled session two more must succeed, though there may be one tunnel only: so its
place was freed. Nothing of the first reaches them, and afterwards no socket, session or tunnel is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Literal, TypeAlias

import anyio
import pytest

from examples.socks_proxy.client import _ClientEnd
from examples.socks_proxy.relay import Session
from examples.socks_proxy.server import _ServerEnd
from examples.socks_proxy.tunnel import Tunnel
from wspool.testing._sweep import _Stepper

from .applications import Role
from .plan import Plan, Visit
from .run import run_plan
from .weather import Storm

Way: TypeAlias = Literal["scope", "task"]

# Data both ways at once, and two half-closes.
_VISIT = Visit(1, 0.0, "open", False, Role(800, chunk=300, pause=0.05), Role(500, chunk=200, pause=0.05), early=10)
_ENDS = {"client": (_ClientEnd, "handle"), "server": (_ServerEnd, "_session")}


def _plan(fast_open: bool) -> Plan:
    # A storm in which nothing happens: the session need not succeed.
    return Plan(1, Storm(0, 0, 0), fast_open, 1, 0, 30.0, 1.0, ((_VISIT,),), ())


class Sweep:
    """Cancels the first session at an end, when so many steps were taken since it began."""

    def __init__(self, step: int, way: Way) -> None:
        self.triggered = False
        self._left = step
        self._way = way
        self._scope: anyio.CancelScope
        self._task: Any = None
        self._is_over = False

    async def run(self, session: Awaitable[None]) -> None:
        if self._task is not None:
            return await session  # a later one
        self._task = asyncio.current_task() if self._way == "task" else self
        with anyio.CancelScope() as self._scope:
            try:
                await counted(session, self)
            except asyncio.CancelledError:
                if self._way == "scope" or not self.triggered:
                    raise
                self._task.uncancel()
            finally:
                self._is_over = True
        return None

    def count(self) -> None:
        """A task is about to be suspended: cancelled now, the session's own task is cancelled where it waits."""
        self._left -= self._task is not None
        if self._left == 0 and not self._is_over and not self.triggered:
            self.triggered = True
            (self._scope if self._way == "scope" else self._task).cancel()


def counted(awaitable: Awaitable[None], sweep: Any) -> Awaitable[None]:
    """Each suspension on its way counts, before it happens."""
    return _Stepper(awaitable, sweep, victim=False)


@pytest.mark.parametrize("fast_open", [False, True], ids=["strict", "fast open"])
@pytest.mark.parametrize("end", ["client", "server"])
@pytest.mark.parametrize(("backend", "way"), [("trio", "scope"), ("asyncio", "task")])
def test_a_session_cancelled_at_any_step_leaves_a_tunnel_that_is_reusable_or_gone(
    backend: str, way: Way, end: str, fast_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = _ENDS[end]
    session, carry, read = getattr(owner, name), Session.carry, Tunnel.run
    sweep = Sweep(0, way)

    def swept(*args: Any) -> Awaitable[None]:
        return sweep.run(session(*args))

    # The steps of both ends count: a cancellation may come at any time.
    async def counted_carry(self: Session, **until: Any) -> None:
        await counted(carry(self, **until), sweep)

    async def counted_read(self: Tunnel) -> None:
        await counted(read(self), sweep)

    monkeypatch.setattr(owner, name, swept)
    monkeypatch.setattr(Session, "carry", counted_carry)
    monkeypatch.setattr(Tunnel, "run", counted_read)
    steps = 0
    while sweep.triggered or not steps:
        steps += 1
        sweep = Sweep(steps, way)
        run_plan(_plan(fast_open), backend)
    assert steps > 10
