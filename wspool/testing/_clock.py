"""A clock that stands still until the test moves it, and `settle`, which lets everything else run."""

from __future__ import annotations

import asyncio

import anyio

from .._backend import in_trio
from .._settings import check_time

_CALM_ROUNDS = 3


async def settle() -> None:
    """Return when every other task of this event loop is blocked.

    As `anyio.wait_all_tasks_blocked`, which sleeps for a tenth of a second on asyncio each time
    that it finds a busy task. Use it in place of every sleep in a test. A task that waits for a real
    timer or for the network counts as blocked.
    """
    if _in_asyncio():
        await _settle_asyncio()
    else:
        import trio.testing

        await trio.testing.wait_all_tasks_blocked()


def _in_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return not in_trio()


async def _settle_asyncio() -> None:
    this = asyncio.current_task()
    calm = 0
    # Several rounds, because a callback may be on its way to the task that it will make busy.
    while calm < _CALM_ROUNDS:
        await asyncio.sleep(0)
        others = [task for task in asyncio.all_tasks() if task is not this]
        calm = calm + 1 if all(map(_is_blocked, others)) else 0


def _is_blocked(task: asyncio.Task[object]) -> bool:
    waits_for: asyncio.Future[object] | None = getattr(task, "_fut_waiter", None)
    return waits_for is not None and not waits_for.done()


class ManualClock:
    """A `Clock` for `Pool(clock=...)`: time passes only by `advance()`, on asyncio and on trio."""

    def __init__(self, now: float = 1000.0) -> None:
        """Begin at `now` seconds."""
        check_time("now", now)
        self._now = now
        self._sleepers: list[tuple[float, anyio.Event]] = []

    def now(self) -> float:
        """The time in seconds."""
        return self._now

    @property
    def deadlines(self) -> list[float]:
        """The times that somebody sleeps until, earliest first; empty if nothing is to expire."""
        return sorted(deadline for deadline, _ in self._sleepers if deadline < float("inf"))

    async def sleep_until(self, deadline: float) -> None:
        """Return when the time has been advanced to `deadline`."""
        if deadline <= self._now:
            return
        sleeper = (deadline, anyio.Event())
        self._sleepers.append(sleeper)
        try:
            await sleeper[1].wait()
        finally:
            self._sleepers.remove(sleeper)

    async def advance(self, seconds: float) -> None:
        """Let so many seconds pass, stopping at each deadline on the way until all tasks are blocked."""
        check_time("seconds", seconds)
        end = self._now + seconds
        await settle()
        while self.deadlines and self.deadlines[0] <= end:
            self._now = max(self._now, self.deadlines[0])
            for deadline, event in self._sleepers:
                if deadline <= self._now:
                    event.set()
            await settle()
        self._now = end
