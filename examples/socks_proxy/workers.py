"""SHELL. Tasks that do one job after the other: to start a task for each took a tenth of a short session's time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

import anyio
from anyio.abc import TaskGroup

_Job: TypeAlias = Callable[[], Coroutine[Any, Any, Any]]

# What a burst has started is not kept for ever.
_MAX_IDLE = 64


class Workers:
    """Starts jobs as a task group does, in tasks of such a group. What a job raises ends its task, and the group."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._idle: list[_Break] = []
        self._closed = False

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        """Do a job in an idle task, the one that was last at work; or in a new one."""
        job = partial(function, *args)
        if self._idle:
            self._idle.pop().end(job)
        else:
            self._tasks.start_soon(self._work, job, name="worker")

    def close(self) -> None:
        """Let each task end, when it is idle."""
        self._closed = True
        while self._idle:
            self._idle.pop().end(None)

    async def _work(self, job: _Job | None) -> None:
        while job is not None:
            await job()
            job = None  # and all that it holds
            if self._closed or len(self._idle) >= _MAX_IDLE:
                return
            job = await self._wait()

    async def _wait(self) -> _Job | None:
        pause = _Break()
        self._idle.append(pause)
        try:
            await pause.over.wait()
        except BaseException:
            if pause in self._idle:
                self._idle.remove(pause)
            elif pause.job is not None:
                await pause.job()  # it begins, and is cancelled, as it would be in a task of its own
            raise
        return pause.job


class _Break:
    """Between two jobs."""

    __slots__ = ("job", "over")

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.job: _Job | None = None

    def end(self, job: _Job | None) -> None:
        self.job = job
        self.over.set()
