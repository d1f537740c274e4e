"""The event loops: how a sample is run, and how many users run at once in it.

Users are bare tasks, not anyio's: a task group's own cost would be added to each hand-off, and hide the pool's.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType
    from typing import Self

T = TypeVar("T")

# No sample of a healthy pool comes near it; one that hangs must not hang the run.
SAMPLE_TIMEOUT = 60.0


class Event(Protocol):
    def set(self) -> object: ...
    def wait(self) -> Awaitable[object]: ...


class Crowd(Protocol):
    """Users that run at the same time. Leaving the block waits for all of them."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def add(self, user: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None: ...


class Backend(Protocol):
    name: str

    def run(self, sample: Callable[[], Coroutine[Any, Any, T]]) -> T: ...
    def crowd(self) -> Crowd: ...
    def event(self) -> Event: ...
    def sleep(self, seconds: float) -> Awaitable[object]: ...


async def calm(backend: Backend) -> None:
    """Wait until every task has come to rest: until three short sleeps in a row take about their time."""
    calm_sleeps = 0
    while calm_sleeps < 3:
        before = time.perf_counter()
        await backend.sleep(0.001)
        calm_sleeps = calm_sleeps + 1 if time.perf_counter() - before < 0.004 else 0


def named(name: str) -> Backend:
    return _OnTrio() if name == "trio" else _OnAsyncio(name)


class _AsyncioCrowd:
    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    def add(self, user: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        self._tasks.append(asyncio.create_task(user(*args)))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await asyncio.gather(*self._tasks)
        else:
            for task in self._tasks:
                task.cancel()


class _OnAsyncio:
    def __init__(self, name: str) -> None:
        self.name = name
        self._new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
        if name == "uvloop":
            import uvloop

            self._new_loop = uvloop.new_event_loop

    def run(self, sample: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(SAMPLE_TIMEOUT):
                return await sample()

        with asyncio.Runner(loop_factory=self._new_loop) as runner:
            return runner.run(bounded())

    def crowd(self) -> Crowd:
        return _AsyncioCrowd()

    def event(self) -> Event:
        return asyncio.Event()

    def sleep(self, seconds: float) -> Awaitable[object]:
        return asyncio.sleep(seconds)


class _TrioCrowd:
    def __init__(self) -> None:
        import trio

        self._manager = trio.open_nursery()

    async def __aenter__(self) -> Self:
        self._nursery = await self._manager.__aenter__()
        return self

    def add(self, user: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        self._nursery.start_soon(user, *args)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._manager.__aexit__(kind, error, traceback)


class _OnTrio:
    name = "trio"

    def run(self, sample: Callable[[], Coroutine[Any, Any, T]]) -> T:
        import trio

        async def bounded() -> T:
            with trio.fail_after(SAMPLE_TIMEOUT):
                return await sample()

        return trio.run(bounded)

    def crowd(self) -> Crowd:
        return _TrioCrowd()

    def event(self) -> Event:
        import trio

        return trio.Event()

    async def sleep(self, seconds: float) -> None:
        import trio

        await trio.sleep(seconds)
