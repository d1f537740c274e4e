"""SHELL. The few things that asyncio and trio each have to do in their own way, because they are hot.

Everything else goes through anyio. What is here, and why (figures in docs/decisions):

- `task_in` and `home`: which task calls, and whether it runs in the pool's own loop and thread;
- `context`: where what a callback asks for can begin;
- `pause`: a pending cancellation, and a turn for the others;
- `park` and `wake`: a bare future, or trio's own parking, in place of `anyio.Event`;
- `now`: the clock's own function;
- `call_soon`: run something on the pool's loop from a finalizer, which may run anywhere.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from asyncio import events
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from ._errors import PoolMisuse

if TYPE_CHECKING:
    from ._wait_queue import Waiter

_FOREIGN = (
    "{name} belongs to another event loop or thread: use one pool for each event loop, "
    "and anyio.from_thread to reach it from a worker thread"
)


class Clock(Protocol):
    """Where a pool gets its time from. `wspool.testing.ManualClock` is one for tests."""

    def now(self) -> float:
        """The time in seconds; it never goes back."""
        ...

    async def sleep_until(self, deadline: float) -> None:
        """Return when `now()` has reached `deadline`; never, if it is infinite."""
        ...


class Backend(Protocol):
    """What the pool asks of the event loop that it was opened on."""

    @property
    def now(self) -> Callable[[], float]:
        """The loop's clock, in seconds."""
        ...

    @property
    def loop(self) -> Any:
        """What `task_in` is to be asked about."""
        ...

    @property
    def task_in(self) -> Callable[[Any], Any]:
        """The task that runs in this loop now, told at once; or None, then `arrive` must tell.

        Only to be asked in the loop's own thread.
        """
        ...

    def home(self) -> Any:
        """The calling task, or None in a callback. PoolMisuse in another loop or thread."""
        ...

    def pause(self, *, fully: bool) -> Generator[Any, Any, None]:
        """Raise a pending cancellation; if `fully`, let other tasks run as well."""
        ...

    def park(self, waiter: Waiter[Any]) -> Generator[Any, Any, None]:
        """Suspend the calling task until `wake(waiter)` or a cancellation."""
        ...

    def wake(self, waiter: Waiter[Any]) -> None:
        """Resume the task parked for this waiter, if it is parked and was not resumed already."""
        ...

    def name_of(self, task: Any) -> str:
        """The task's name."""
        ...

    def context(self) -> Context:
        """A copy of the caller's, in which anyio can begin tasks from a callback of the loop as well."""
        ...

    def is_stray(self, error: BaseException) -> bool:
        """Whether this is a cancellation that nobody asked of the calling task."""
        ...

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call the function on the loop, soon; from any thread. Nothing happens if the loop has ended."""
        ...


class AsyncioBackend:
    """asyncio, with its default loop, uvloop, or any other."""

    def __init__(self, name: str) -> None:
        """Bind to the running loop; `name` is the pool's, for errors."""
        self._name = name
        self.loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = self.loop.time
        if type(self.loop).time is asyncio.BaseEventLoop.time:
            self.now = time.monotonic  # what that method calls, at half the price
        self.task_in: Callable[[Any], Any] = asyncio.current_task
        if sys.version_info < (3, 12):
            # 3.11's own function is written in Python, and costs three times its look-up.
            self.task_in = vars(asyncio.tasks)["_current_tasks"].get
        self._thread = get_ident()

    def home(self) -> Any:
        """Ask for the task, or else for the loop: a callback has no task."""
        if get_ident() == self._thread:
            task = self.task_in(self.loop)
            if task is not None or events._get_running_loop() is self.loop:
                return task
        raise PoolMisuse(_FOREIGN.format(name=self._name))

    def pause(self, *, fully: bool) -> Generator[Any, Any, None]:
        """Turns of the loop: as many as it needs to deliver the cancellation of a scope, or of the task."""
        task = asyncio.current_task()
        if fully or (task is not None and task.cancelling()):
            yield
        while anyio.current_effective_deadline() == -math.inf:
            yield

    def park(self, waiter: Waiter[Any]) -> Generator[Any, Any, None]:
        """Suspend on a future."""
        future: asyncio.Future[None] = self.loop.create_future()
        waiter.parking = future
        return future.__await__()

    def wake(self, waiter: Waiter[Any]) -> None:
        """Complete the future, unless it is cancelled or completed."""
        future = waiter.parking
        if future is not None and not future.done():
            future.set_result(None)

    def name_of(self, task: Any) -> str:
        """By its method."""
        return str(task.get_name())

    def context(self) -> Context:
        """Where sniffio is installed, anyio asks that, which in a callback knows only what it was told."""
        context = copy_context()
        sniffio: Any = sys.modules.get("sniffio")
        if sniffio is not None:
            context.run(sniffio.current_async_library_cvar.set, "asyncio")
        return context

    def is_stray(self, error: BaseException) -> bool:
        """Awaiting a task that somebody has cancelled raises the same as being cancelled."""
        task = asyncio.current_task()
        return isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling()

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Through `loop.call_soon_threadsafe`."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function, *args)


class TrioBackend:
    """trio."""

    def __init__(self, name: str) -> None:
        """Bind to the running loop; `name` is the pool's, for errors."""
        self._name = name
        import trio

        self._trio = trio.lowlevel
        self._ended = trio.RunFinishedError
        self.loop = trio.lowlevel.current_trio_token()
        self.now: Callable[[], float] = trio.lowlevel.current_clock().current_time

    @staticmethod
    def task_in(loop: Any) -> None:  # as on asyncio
        """Never told at once: only an await can tell on trio whether the caller is cancelled."""

    def home(self) -> Any:
        """Ask for the token of this thread's run."""
        try:
            if self._trio.current_trio_token() is self.loop:
                return self._trio.current_task()
        except RuntimeError:
            pass  # not inside trio, or in trio but in no task
        raise PoolMisuse(_FOREIGN.format(name=self._name))

    def pause(self, *, fully: bool) -> Generator[Any, Any, None]:
        """A checkpoint, or the half of one that raises a cancellation."""
        if fully:
            yield from self._trio.checkpoint().__await__()
        else:
            yield from self._trio.checkpoint_if_cancelled().__await__()

    def park(self, waiter: Waiter[Any]) -> Generator[Any, Any, None]:
        """Suspend the task; a cancellation wins only while nobody has woken it."""
        waiter.parking = self._trio.current_task()

        def abort(_: object) -> Any:
            waiter.parking = None
            return self._trio.Abort.SUCCEEDED

        return self._trio.wait_task_rescheduled(abort).__await__()

    def wake(self, waiter: Waiter[Any]) -> None:
        """Reschedule the task, once."""
        task, waiter.parking = waiter.parking, None
        if task is not None:
            self._trio.reschedule(task)

    def name_of(self, task: Any) -> str:
        """By its attribute."""
        return str(task.name)

    def context(self) -> Context:
        """A plain copy: trio itself tells sniffio."""
        return copy_context()

    def is_stray(self, error: BaseException) -> bool:  # noqa: ARG002  # as on asyncio
        """Every cancellation has a scope here."""
        return False

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Through trio's token."""
        try:
            self.loop.run_sync_soon(function, *args)
        except self._ended:
            pass


def current_backend(name: str) -> Backend:
    """The backend of the running event loop."""
    # anyio has no public question for this, and sniffio is no longer among its dependencies.
    if in_trio():
        return TrioBackend(name)
    return AsyncioBackend(name)


def in_trio() -> bool:
    """Whether trio runs in this thread. It is not imported for the question."""
    trio: Any = sys.modules.get("trio")
    try:
        return trio is not None and trio.lowlevel.current_trio_token() is not None
    except RuntimeError:
        return False


class LoopClock:
    """The event loop's own clock; the default."""

    def __init__(self, backend: Backend) -> None:
        """Take the backend's clock function as it is, so that asking costs no more."""
        self.now = backend.now

    async def sleep_until(self, deadline: float) -> None:
        """Sleep in the event loop."""
        if deadline == math.inf:
            await anyio.sleep_forever()
        await anyio.sleep(max(0.0, deadline - self.now()))
