"""Cancel a scenario at its every step, and prove each time that nothing was lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio

from ._clock import _in_asyncio, settle
from ._invariants import check_invariants

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from .._pool import Pool
    from .._pooled import Pooled

T = TypeVar("T")
Way = Literal["scope", "task"]

_ENDLESS = 10_000


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What `cancel_everywhere` did."""

    runs: int
    """How often the scenario ran."""
    delivered: int
    """In how many of the runs the cancellation reached the scenario before it ended."""


async def cancel_everywhere(
    make_pool: Callable[[], Pool[T]],
    scenario: Callable[[Pool[T]], Awaitable[object]],
    *,
    background: Callable[[Pool[T]], Awaitable[object]] | None = None,
    capacity: int | None = None,
) -> SweepReport:
    """Run `scenario` again and again, cancelled at its first step, its second, and so on to its end.

    A step is a suspension of the scenario's task, or of `background`, which runs beside it: so the
    cancellation also hits in the moment between a release there and the resumption here. Each point
    is tried by cancelling a scope around the scenario and, on asyncio, by a bare `Task.cancel()`.
    After each run the pool must be consistent, hold nothing, and hand out `capacity` connections
    (default: its `max_size`) at once.

    Args:
        make_pool: Makes a fresh pool, not entered yet, for each run; with your own connect and hooks.
        scenario: What to cancel. It must not catch cancellations.
        background: Something that happens meanwhile; it is cancelled when the scenario has ended.
        capacity: What the pool must be able to hand out at once afterwards.

    Returns:
        How many runs it took.

    Raises:
        AssertionError: Something was lost, or a cancellation swallowed; the text says at which step.
    """
    runs = delivered = 0
    ways: tuple[Way, ...] = ("scope", "task") if _in_asyncio() else ("scope",)
    for way in ways:
        for step in range(1, _ENDLESS):
            run = _Run(way, step)
            await _run_once(run, make_pool(), scenario, background, capacity)
            runs += 1
            delivered += run.delivered
            if not run.triggered:
                break
        else:
            raise AssertionError(f"the scenario has not ended after {_ENDLESS} steps")
    return SweepReport(runs, delivered)


class _Run:
    """One run: counts steps, and cancels at the one that it is for."""

    def __init__(self, way: Way, step: int) -> None:
        self.way = way
        self.step = step
        self.steps = 0
        self.triggered = False
        self.delivered = False
        self.completed = False
        self.scope = anyio.CancelScope()
        self.task: asyncio.Task[Any] | None = None

    def __str__(self) -> str:
        return f"cancelled by {self.way} at step {self.step}"

    def count(self) -> None:
        self.steps += 1
        if self.steps == self.step and not self.completed:
            self.triggered = True
            if self.task is None:
                self.scope.cancel()
            else:
                self.task.cancel()


class _Stepper:
    """Awaits something and reports each suspension on the way, before it happens."""

    def __init__(self, awaitable: Awaitable[object], run: _Run, *, victim: bool) -> None:
        self._awaitable = awaitable
        self._run = run
        self._victim = victim

    def __await__(self) -> Generator[Any, Any, None]:
        inner = self._awaitable.__await__()
        resume: Callable[[], Any] = lambda: next(inner)  # noqa: E731  # one of three ways to go on
        while True:
            try:
                message = resume()
            except StopIteration:
                return
            self._run.count()
            try:
                sent = yield message
            except BaseException as error:
                thrown = error
                self._note(error)
                resume = lambda: inner.throw(thrown)  # noqa: B023, E731  # used before it changes
            else:
                self._note(getattr(sent, "error", None))  # trio sends outcomes, it never throws
                resume = lambda: inner.send(sent)  # noqa: B023, E731  # used before it changes

    def _note(self, error: BaseException | None) -> None:
        # What the scenario cancels itself, and what ends its own time limits, is no business of the sweep.
        if self._victim and self._run.triggered and isinstance(error, anyio.get_cancelled_exc_class()):
            self._run.delivered = True


async def _run_once(
    run: _Run,
    pool: Pool[T],
    scenario: Callable[[Pool[T]], Awaitable[object]],
    background: Callable[[Pool[T]], Awaitable[object]] | None,
    capacity: int | None,
) -> None:
    async def victim() -> None:
        if run.way == "task":
            run.task = asyncio.current_task()
        with run.scope:
            await _Stepper(scenario(pool), run, victim=True)
            run.completed = True

    async def beside() -> None:
        assert background is not None
        await _Stepper(background(pool), run, victim=False)

    async with pool:
        async with anyio.create_task_group() as others:
            if background is not None:
                others.start_soon(beside)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(victim)
            others.cancel_scope.cancel()
        assert not (run.delivered and run.completed), f"S5: the cancellation was swallowed, {run}"
        await _prove(run, pool, capacity)


async def _prove(run: _Run, pool: Pool[T], capacity: int | None) -> None:
    await settle()
    try:
        check_invariants(pool)
        figures = pool.statistics()
        assert not (figures.held or figures.reserved or figures.taken), f"S2: somebody still holds: {figures}"
        assert not figures.waiting, "S4: somebody is still queued"
        wanted = capacity if capacity is not None else figures.max_size
        assert wanted is not None, "say which capacity to prove: the pool has no max_size"
        await prove_capacity(pool, wanted)
        check_invariants(pool)
    except (AssertionError, TimeoutError) as error:
        await pool.aclose(grace=0)
        raise AssertionError(f"{error} ({run})") from error


async def prove_capacity(pool: Pool[T], count: int) -> None:
    """Hold `count` connections of the pool at once, then release them (invariant L12).

    Raises:
        PoolTimeout: They could not be had within the pool's `acquire_timeout`: places are lost.
    """
    handles: list[Pooled[T]] = []

    async def hold() -> None:
        handles.append(await pool.get())

    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(hold)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        for handle in handles:
            handle.release()
    await settle()
