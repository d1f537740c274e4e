"""SHELL. Tasks that do one job after the other: to start a task for each took a tenth of a short session's time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

from anyio.abc import TaskGroup

from wspool.websocket import new_event

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
            self._idle.pop().end()

    async def _work(self, job: _Job) -> None:
        jobs = [job]
        del job  # it would be kept, and all that it knows, for as long as it runs, and in the break after it
        while jobs:
            await jobs.pop()()
            if self._closed or len(self._idle) >= _MAX_IDLE:
                return
            jobs = await self._wait()

    async def _wait(self) -> list[_Job]:
        """The next job, if there is one."""
        pause = _Break()
        self._idle.append(pause)
        try:
            await pause.over.wait()
        except BaseException:
            if pause in self._idle:
                self._idle.remove(pause)
            for job in pause.jobs:
                await job()  # it begins, and is cancelled, as it would be in a task of its own
            raise
        return pause.jobs


class _Break:
    """Between two jobs."""

    __slots__ = ("jobs", "over")

    def __init__(self) -> None:
        self.over = new_event()
        self.jobs: list[_Job] = []

    def end(self, *jobs: _Job) -> None:
        self.jobs += jobs
        self.over.set()
