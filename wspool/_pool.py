"""SHELL. The pool: hands facts to the state machine and carries out its orders, on anyio."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import weakref
from inspect import isawaitable, iscoroutine, iscoroutinefunction
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, Self

import anyio
from anyio.lowlevel import checkpoint

from ._backend import Backend, Clock, LoopClock, current_backend
from ._entries import Entry, T
from ._errors import PoolClosed, PoolError, PoolMisuse, PoolTimeout
from ._events import CloseReason
from ._explain import describe, explain_timeout
from ._jobs import Job
from ._pool_state import (
    ALARM,
    CANCEL,
    CONNECT,
    LOG,
    NOTIFY,
    RESET,
    START,
    VALIDATE,
    WAKE,
    PoolState,
)
from ._pooled import HELD, NEW, Pooled
from ._settings import PoolSettings, check_time
from ._wait_queue import Refusal, Waiter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from contextvars import Context
    from types import TracebackType

    from anyio.abc import TaskGroup

    from ._events import PoolEvent
    from ._statistics import PoolStatistics

logger = logging.getLogger("wspool")

_NOTHING: Any = object()
# Nobody is cancelled in a hook that is not async: there it is about another task, as from asyncio's `Task.exception`.
_STRAY = asyncio.CancelledError
_ONE_TASK = (
    "have one task do both: `async with` in the one that outlives its users, "
    "and in tests a fixture of anyio's plugin or of pytest-trio (one of pytest-asyncio ends in a task of its own)"
)
_new_object: Any = object.__new__
_PACKAGE = os.path.dirname(__file__) + os.sep


class _Unchanged:
    def __repr__(self) -> str:
        return "(unchanged)"


UNCHANGED: Any = _Unchanged()


class Pool(Generic[T]):
    """A pool of connections of type T, on asyncio or trio.

    Use it as `async with Pool(connect) as pool:`, on one event loop, entered and left in one task.
    Get connections with `get()`. Dials, checks, resets and closes run in tasks of the pool's own,
    in the context (contextvars) in which the pool was entered.
    """

    __slots__ = (
        "__weakref__",
        "_backend",
        "_clock",
        "_close",
        "_connect",
        "_context",
        "_draining",
        "_emptied",
        "_entered",
        "_given_clock",
        "_host",
        "_loop",
        "_now",
        "_on_event",
        "_plight",
        "_reference",
        "_reset",
        "_settings",
        "_sleep",
        "_state",
        "_task_in",
        "_tasks",
        "_thread",
        "_timeless",
        "_timer",
        "_trace_holders",
        "_trouble",
        "_unbegun",
        "_validate",
        "name",
    )

    def __init__(
        self,
        connect: Callable[[], Awaitable[T]],
        *,
        max_size: int | None = 100,
        max_idle: int | None = None,
        min_idle: int = 0,
        max_connecting: int | None = None,
        max_waiting: int | None = None,
        acquire_timeout: float | None = 30.0,
        connect_timeout: float | None = 10.0,
        idle_timeout: float | None = 600.0,
        max_lifetime: float | None = None,
        lifetime_jitter: float = 0.1,
        max_uses: int | None = None,
        race_delay: float = 0.0,
        abandoned_dial_grace: float = 5.0,
        is_reusable: Callable[[T], bool] | None = None,
        validate: Callable[[T], Awaitable[object]] | None = None,
        validate_timeout: float = 5.0,
        validate_bypass_interval: float = 1.0,
        validate_interval: float | None = 30.0,
        reset: Callable[[T], Awaitable[object]] | None = None,
        reset_timeout: float = 5.0,
        close: Callable[[T], object] | None = None,
        close_timeout: float = 5.0,
        on_event: Callable[[PoolEvent], object] | None = None,
        trace_holders: bool = False,
        name: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Describe the pool; it opens when it is entered.

        Counts are whole numbers, None for no limit; durations are in seconds, None for ever. Each
        default has its precedent in `wspool/_settings.py`.

        Args:
            connect: Opens a connection. Its exception reaches the caller who needed it, unchanged.
            max_size: Connections and dials at most, in whatever state, those being closed included.
            max_idle: Idle connections kept at most; None keeps up to `max_size`.
            min_idle: Idle connections kept ready, dialled in the background, three at a time while others are in use.
            max_connecting: Dials at once at most.
            max_waiting: Callers that may wait for a release, beyond those whom a dial under way or a place being
                freed will serve; further ones get `PoolFull`.
            acquire_timeout: How long a get may wait before `PoolTimeout`.
            connect_timeout: How long a dial may take.
            idle_timeout: After so long unused, a connection is closed, while more than `min_idle` are idle.
            max_lifetime: After so long a connection is closed as soon as it is idle.
            lifetime_jitter: The part of `max_lifetime` that is taken off at random.
            max_uses: After so many uses a connection is closed.
            race_delay: How long a caller waits for a release before a dial starts for it; 0 starts
                the race at once. No wait where no release can come.
            abandoned_dial_grace: How long a dial goes on that nobody waits for any more.
            is_reusable: `Poolable.is_reusable` for connections that lack it.
            validate: Asks the peer whether the connection works: on hand-out, unless it was used or
                checked within `validate_bypass_interval`, and every `validate_interval` while idle.
                Returning False, raising, or taking longer than `validate_timeout` closes it.
            validate_timeout: See `validate`.
            validate_bypass_interval: See `validate`.
            validate_interval: See `validate`; up to a tenth shorter at random; None for no such checks.
            reset: Prepares a released connection for its next user; a failure closes the connection.
            reset_timeout: How long a reset may take.
            close: Closes a connection, synchronously or not. By default its `aclose` or `close`, if any.
            close_timeout: How long a close may take before its task is cancelled.
            on_event: Called with each `PoolEvent`; must be quick. Its exceptions are logged.
            trace_holders: Record where each connection was acquired, for the `ResourceWarning` about
                forgotten handles. Costs about a microsecond a get.
            name: The pool's name in errors and logs.
            clock: Another source of time, for tests.

        Raises:
            TypeError: A hook that cannot be called, or a number of another kind.
            ValueError: A number out of range, or numbers that contradict each other.
        """
        self._settings = PoolSettings(
            max_size=max_size,
            max_idle=max_idle,
            min_idle=min_idle,
            max_connecting=max_connecting,
            max_waiting=max_waiting,
            acquire_timeout=acquire_timeout,
            connect_timeout=connect_timeout,
            idle_timeout=idle_timeout,
            max_lifetime=max_lifetime,
            lifetime_jitter=lifetime_jitter,
            max_uses=max_uses,
            race_delay=race_delay,
            abandoned_dial_grace=abandoned_dial_grace,
            validate_timeout=validate_timeout,
            validate_bypass_interval=validate_bypass_interval,
            validate_interval=validate_interval,
            reset_timeout=reset_timeout,
            close_timeout=close_timeout,
        )
        _check_callable("connect", connect)
        if iscoroutinefunction(is_reusable):
            raise TypeError(f"is_reusable must not be async, got {is_reusable!r}: use validate for what is awaited")
        for argument, hook in (
            ("is_reusable", is_reusable),
            ("validate", validate),
            ("reset", reset),
            ("close", close),
            ("on_event", on_event),
        ):
            if hook is not None:
                _check_callable(argument, hook)
        _check_name(name)
        if clock is not None and not (hasattr(clock, "now") and hasattr(clock, "sleep_until")):
            raise TypeError(f"clock must have now() and sleep_until(), got {clock!r}")
        self.name: str = name if name is not None else f"pool of {_name_of(connect)}"
        self._connect = connect
        self._validate = validate
        self._reset = reset
        self._close = close if close is not None else _close_by_method
        self._on_event = on_event
        self._trace_holders = trace_holders
        self._given_clock = clock
        self._state: PoolState[T] = PoolState(
            self._settings,
            name=self.name,
            is_reusable=is_reusable,
            validates=validate is not None,
            resets=reset is not None,
            observed=on_event is not None,
            jitter=random.random,
            stray=_STRAY,
        )
        self._reference: weakref.ref[Pool[T]] = weakref.ref(self)
        self._draining = False
        self._entered = False
        self._unbegun: set[Job[T]] = set()
        """Jobs whose tasks were started and have not run yet."""
        self._timeless = False
        """Whether the timer was ended by somebody else: then no deadline will come."""
        self._plight: tuple[PoolStatistics, str, frozenset[int]] | None = None
        """What a time-out tells: figures, longest holder, ids of all holders. Taken once for all who fail together."""
        self._trouble: str | None = None
        """Why dials fail, as the log says it now."""

        # What a hit needs of the backend; until it is known, `_arrive` refuses.
        self._thread = -1
        self._loop: Any = None
        self._task_in: Callable[[Any], Any] = lambda _: None
        not_entered: Any = _NotEntered(self.name)
        self._backend: Backend = not_entered
        self._clock: Clock
        self._now: Callable[[], float] = lambda: 0.0
        self._context: Context
        self._tasks: TaskGroup
        self._timer: anyio.CancelScope
        self._sleep: anyio.CancelScope
        self._emptied: anyio.Event
        self._host: Any
        """The task that has entered it."""

    def __repr__(self) -> str:
        """Name and sizes."""
        figures = self._state.statistics(self._now())
        state = "closed" if self._state.closing else "open" if self._entered else "not entered"
        return f"<Pool {self.name}, {state}: {figures.held} held, {figures.idle} idle, {figures.waiting} waiting>"

    # --- opening and closing --------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the pool on the running event loop. A pool opens once."""
        if self._entered:
            raise PoolMisuse(f"{self.name} was entered before: make a new Pool")
        self._entered = True
        self._backend = current_backend(self.name)
        self._host = self._backend.home()
        self._clock = self._given_clock if self._given_clock is not None else LoopClock(self._backend)
        self._now = self._clock.now
        self._context = self._backend.context()
        self._emptied = anyio.Event()
        self._timer = anyio.CancelScope(shield=True)
        self._sleep = anyio.CancelScope()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._run_timer, name=f"{self.name}: timer")
        self._loop = self._backend.loop
        if not self._trace_holders:
            self._task_in = self._backend.task_in
        self._thread = get_ident()
        try:
            self._state.warm_up(self._now())
            self._drain()
        except BaseException as error:  # an interrupt of the observer
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        """Close the pool as `aclose()` does, also when the surrounding scope is cancelled.

        An exception of the body comes out as itself.
        """
        # A test that has failed does not let time pass any more, so that no grace would ever end.
        hasten = self._given_clock is not None and isinstance(exc, Exception)
        try:
            with anyio.CancelScope(shield=True):
                await self.aclose(grace=0.0 if hasten else 5.0)
        except BaseException:
            # A bare task.cancel() respects no shield: hasten, and let the cancellation through.
            self._state.force_close(self._now())
            self._drain()
            with anyio.CancelScope(shield=True):
                await self._start_again()
            raise
        finally:
            self._timer.cancel()
            crashed = self._tasks.cancel_scope.cancel_called
            leave = (exc_type, exc, tb) if crashed else (None, None, None)
            try:
                if self._backend.home() is not self._host:
                    raise PoolMisuse(f"{self.name} was closed, but in another task than it was entered in; {_ONE_TASK}")
                outcome = await self._tasks.__aexit__(*leave)
            finally:
                self._bury()
        return outcome if crashed else None

    async def aclose(self, *, grace: float = 5.0) -> None:
        """Close the pool, and every connection in it, within `grace` seconds.

        New and waiting gets fail with `PoolClosed` at once, dials are cancelled, idle connections
        are closed. Holders may go on until the grace is over; what they have not released by then
        is closed under them, and closes still under way are cut short. 5 s is psycopg_pool's default.

        Idempotent; called again, it can only shorten the grace. Cancelled while it waits, it raises,
        and the pool goes on closing.
        """
        check_time("grace", grace, finite=False)
        self._backend.home()
        self._state.begin_closing(self._now(), grace)
        if self._timeless:
            self._state.force_close(self._now())
        self._drain()
        await self._start_again()
        await self._emptied.wait()

    async def _start_again(self) -> None:
        """Start jobs anew whose tasks were cancelled before they began, for example by asyncio.run at its end.

        On asyncio such a task never runs at all, not even its `finally`.
        """
        ordered = self._unbegun.copy()
        for _ in range(2 if ordered else 0):  # then all have begun that ever will
            await checkpoint()
        for job in ordered & self._unbegun:
            self._start(job)

    def _bury(self) -> None:
        """The tasks have ended. Report the jobs of those that never began."""
        for job in self._unbegun.copy():
            self._unbegun.discard(job)
            self._report(job, _NOTHING, PoolError(f"{self.name}: the task of a {job.kind.name.lower()} was cancelled"))

    async def _run_timer(self) -> None:
        try:
            with self._timer:
                while True:
                    with anyio.CancelScope() as self._sleep:
                        await self._clock.sleep_until(self._state.alarm)
                    if self._state.alarm <= self._now():
                        self._state.expire(self._now())
                        self._drain()
        finally:
            if not self._timer.cancel_called:
                # Somebody cancelled this very task: nothing may wait for a deadline any more.
                self._timeless = True
                if self._state.closing:
                    self._state.force_close(self._now())
                    self._drain()

    # --- getting --------------------------------------------------------------------------------

    def get(self, connect: Callable[[], Awaitable[T]] | None = None) -> Pooled[T]:
        """A handle to check out a connection with: `async with pool.get() as connection:`.

        Or `pooled = await pool.get()`, then `pooled.release()`. See `Pooled.__await__` for errors.

        The newest idle connection is taken at once if it is reusable and nobody waits. Otherwise the
        caller queues, a dial starts where the limits allow, and the first to come wins: a connection
        that somebody releases, or a new one. The loser is kept for the next.

        Args:
            connect: Opens the connection in place of the pool's own `connect`, if a dial is started
                for this caller. Connections are interchangeable: the caller may get another one, and
                another caller this one.
        """
        if connect is not None:
            _check_callable("connect", connect)
        handle: Pooled[T] = _new_object(Pooled)
        handle._pool = self._reference
        handle._state = NEW
        handle._connect = connect
        return handle

    def get_nowait(self) -> Pooled[T]:
        """A checked-out handle, if a connection is idle and can be handed out in this very step.

        Raises:
            anyio.WouldBlock: None is idle, others wait for one, or it would have to be validated first.
            PoolClosed: The pool is closing or closed.
            PoolMisuse: The pool was not entered, or belongs to another loop.
        """
        holder = self._holder()
        try:
            entry = self._state.take_idle(holder, self._now())
        except BaseException:
            self._drain()  # an interrupt in is_reusable: its connection is to be closed
            raise
        if entry is None:
            self._drain()
            if self._state.closing:
                raise PoolClosed(f"{self.name} is closed")
            raise anyio.WouldBlock
        self._drain_with(entry)
        handle = self.get()
        handle._entry = entry
        handle._state = HELD
        if self._trace_holders:
            handle._site = _call_site()
        return handle

    def _arrive(self, handle: Pooled[T]) -> Generator[Any, Any, Any]:
        """The calling task, after all that a hit does not do every time."""
        self._backend.home()
        # Once in 64 hits the others get a turn. Who is about to queue gives none away: it would lose its place.
        state = self._state
        yield from self._backend.pause(fully=state.entries.idle > 0 and not state.acquired & 63)
        if self._trace_holders:
            handle._site = _call_site()
        return self._backend.home()

    def _enqueue(self, connect: Callable[[], Awaitable[T]] | None) -> Waiter[T]:
        waiter = self._state.enter_queue(self._now(), connect)
        try:
            if self._state.effects:
                self._drain()
        except BaseException:
            self._leave(waiter)
            raise
        return waiter

    def _collect(self, waiter: Waiter[T], task: Any) -> Entry[T] | None:
        """What was handed over. No await lies between this and the return of the get."""
        state = self._state
        entry = state.collect(waiter, weakref.ref(task), self._now())
        if entry is not None:
            if state.effects:
                self._drain_with(entry)
            return entry
        self._drain()
        if waiter.error is not None:
            raise self._refusal(waiter, task)
        return None

    def _leave(self, waiter: Waiter[T]) -> None:
        """Called on any exception between `_enqueue` and the return: nothing stays reserved."""
        self._state.leave_queue(waiter, self._now())
        self._drain()

    def _refusal(self, waiter: Waiter[T], task: Any) -> BaseException:
        error, waiter.error = waiter.error, None
        assert error is not None
        if not isinstance(error, Refusal):
            return error
        if error is Refusal.CLOSED:
            return PoolClosed(f"{self.name} was closed while this caller waited")
        if self._plight is None:
            self._plight = self._take_plight()
        figures, holder, holders = self._plight
        limit = getattr(self._settings, error.value)
        refused = PoolTimeout(
            explain_timeout(
                self.name,
                f"{error.value}={limit:g} s",
                self._now() - waiter.since,
                figures,
                holder=holder,
                holds_itself=id(task) in holders,
            )
        )
        refused.__cause__ = figures.last_dial_error
        return refused

    def _holder(self) -> weakref.ref[Any] | None:
        """The calling task as an entry's owner; None in a callback."""
        task = self._backend.home()
        return None if task is None else weakref.ref(task)

    def _take_plight(self) -> tuple[PoolStatistics, str, frozenset[int]]:
        held = self._state.entries.held()
        owners = [entry.owner for entry in sorted(held, key=lambda entry: entry.since)]
        tasks = [None if owner is None else owner() for owner in owners]
        longest = "no task"
        if owners and owners[0] is not None:
            longest = "a task that has ended" if tasks[0] is None else f"task {self._backend.name_of(tasks[0])}"
        return self._state.statistics(self._now()), longest, frozenset(id(task) for task in tasks if task is not None)

    # --- managing -------------------------------------------------------------------------------

    def clear(self) -> None:
        """Retire everything older than now, for example after a failover or a change of credentials.

        Idle connections are closed, dials under way are cancelled and started anew for those who
        wait, and what is held is closed on its release. No get returns an older one from now on.
        """
        self._backend.home()
        self._state.clear(self._now())
        self._drain()

    def resize(
        self,
        *,
        max_size: int | None = UNCHANGED,
        max_idle: int | None = UNCHANGED,
        min_idle: int = UNCHANGED,
    ) -> None:
        """Change sizes while running; what is not named stays.

        More room serves waiters at once. Less room closes idle connections, oldest first, at once,
        and held ones when they are released.

        Raises:
            ValueError, TypeError: As for `Pool()`; then nothing has changed.
        """
        self._backend.home()
        given = {"max_size": max_size, "max_idle": max_idle, "min_idle": min_idle}
        changes = {argument: value for argument, value in given.items() if value is not UNCHANGED}
        self._settings = self._settings.resized(**changes)
        self._state.resize(self._settings, self._now())
        self._drain()

    def statistics(self) -> PoolStatistics:
        """A consistent snapshot of sizes and counts. Also before and after the pool is open."""
        return self._state.statistics(self._now())

    # --- carrying out orders --------------------------------------------------------------------

    def _drain(self) -> None:
        """Run the state machine's orders, in order. Called after every fact; nested calls leave it be."""
        if self._draining:
            return
        self._draining = True
        trouble: BaseException | None = None
        effects = self._state.effects
        if effects:
            self._plight = None
        for effect, subject in effects:  # it grows while it is run
            try:
                if effect is WAKE:
                    self._backend.wake(subject)
                elif effect is START:
                    self._start(subject)
                elif effect is CANCEL:
                    if subject.scope is not None:
                        subject.scope.cancel()
                elif effect is ALARM:
                    self._sleep.cancel()
                elif effect is NOTIFY:
                    self._notify(subject)
                elif effect is LOG:
                    self._log(*subject)
                else:
                    self._log_dial(subject)
            except BaseException as error:
                # An interrupt, or a log handler that fails: the orders that remain must not be lost for it.
                trouble = trouble or error
        effects.clear()
        self._draining = False
        if self._state.closing and self._state.is_empty():
            self._emptied.set()
        if trouble is not None:
            raise trouble

    def _start(self, job: Job[T]) -> None:
        self._unbegun.add(job)
        try:
            self._context.run(self._tasks.start_soon, self._run_job, job)
        except BaseException as error:
            # There is no task group any more; or an eager task has ended right here, and has reported already.
            self._unbegun.discard(job)
            self._report(job, _NOTHING, error)
            raise

    def _drain_with(self, entry: Entry[T]) -> None:
        """The same, when the caller has just got this entry: an interrupt of the observer must not lose it."""
        try:
            self._drain()
        except BaseException:
            self._state.give_back(entry, self._now())
            self._drain()
            raise

    def _notify(self, event: PoolEvent) -> None:
        """Tell the observer."""
        assert self._on_event is not None
        try:
            told = self._on_event(event)
            if iscoroutine(told):
                told.close()  # so that it is not reported as never awaited as well
                raise TypeError("on_event must not be async")
        except (Exception, _STRAY) as error:
            self._state.observer_failed(error)

    def _log(self, what: str, error: BaseException) -> None:
        logger.warning("%s: %s failed: %s", self.name, what, describe(error), exc_info=error)

    def _log_dial(self, error: BaseException | None) -> None:
        """A warning for each new trouble; the same again is for debugging; and a line when it is over."""
        known, self._trouble = self._trouble, None if error is None else describe(error)
        if self._trouble is None:
            logger.info("%s: connect works again", self.name)
            return
        level = logging.DEBUG if self._trouble == known else logging.WARNING
        text = "%s: connect failed in the background: %s; the same again is logged at level DEBUG"
        logger.log(level, text, self.name, self._trouble, exc_info=error)

    async def _run_job(self, job: Job[T]) -> None:
        """Do one job in a task of its own, shielded from all but the pool, and report how it ended."""
        self._unbegun.discard(job)
        if job.kind is CONNECT and not self._state.dial_may_start(job, self._now()):
            self._report(job, _NOTHING, None)
            return
        outcome: Any = _NOTHING
        error: BaseException | None = None
        try:
            with anyio.CancelScope(shield=True) as job.scope:
                if job.cancelled is not None:
                    job.scope.cancel()
                outcome = await self._call_hook(job)
        except Exception as caught:
            error = caught
        except BaseException as caught:
            # Not by our scope: an interrupt, the end of the loop, or a hook that let the
            # cancellation of some task of its own through, which is its error and nobody's cancellation.
            error = PoolError(f"{job.kind.name.lower()} ended by {type(caught).__name__}: {caught}")
            error.__cause__ = caught
            if not self._backend.is_stray(caught):
                raise
        finally:
            job.scope = None
            self._report(job, outcome, error)
            error = None  # it has this frame in its traceback: no cycle

    async def _call_hook(self, job: Job[T]) -> Any:
        if job.kind is CONNECT:
            return await self._open(job.connect or self._connect)
        assert job.entry is not None
        connection = job.entry.connection
        if job.kind is VALIDATE:
            assert self._validate is not None
            return await _begun("validate", self._validate, connection)
        if job.kind is RESET:
            assert self._reset is not None
            return await _begun("reset", self._reset, connection)
        result = self._close(connection)
        return await result if isawaitable(result) else result

    async def _open(self, connect: Callable[[], Awaitable[T]]) -> T:
        connection = await _begun("connect", connect)
        if connection is None:
            raise TypeError(f"connect must return a connection: {_name_of(connect)} returned None")
        return connection

    def _report(self, job: Job[T], outcome: Any, error: BaseException | None) -> None:
        """Tell the state machine how a job ended: an outcome, an error, or neither if it was cancelled."""
        state, now = self._state, self._now()
        try:
            if job.kind is CONNECT:
                if outcome is _NOTHING:
                    state.connect_failed(job, now, error=error)
                else:
                    state.connect_succeeded(job, outcome, now)
            elif job.kind is VALIDATE:
                valid = outcome is not _NOTHING and outcome is not False
                state.check_ended(job, now, valid=valid, error=error)
            elif job.kind is RESET:
                state.reset_ended(job, now, error=error)
            else:
                state.close_ended(job, now, error=error)
        finally:
            self._drain()

    # --- forgotten handles ----------------------------------------------------------------------

    def _recover(self, entry: Entry[T]) -> None:
        self._state.discard(entry, self._now(), CloseReason.FORGOTTEN)
        self._drain()

    def _recover_place(self) -> None:
        self._state.drop_place(self._now())
        self._drain()


class _NotEntered:
    """Stands for the backend of a pool that was not entered: whatever is asked of it is a mistake."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        raise PoolMisuse(f"{self._name} is not open: use it inside `async with`")


def _begun(argument: str, hook: Callable[..., Awaitable[T]], *args: Any) -> Awaitable[T]:
    """Call a hook that has to be async."""
    begun = hook(*args)
    if not isawaitable(begun):
        raise TypeError(f"{argument} must be an async function: {_name_of(hook)} returned {begun!r}")
    return begun


def _call_site() -> str:
    """The innermost frame outside this package. There is one: the event loop's, if no other."""
    frame = sys._getframe()
    while frame.f_code.co_filename.startswith(_PACKAGE):
        assert frame.f_back is not None
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def _check_name(name: object) -> None:
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string or None, got {name!r}")


def _check_callable(argument: str, hook: object) -> None:
    if not callable(hook):
        raise TypeError(f"{argument} must be callable, got {hook!r}")


def _name_of(function: object) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def _close_by_method(connection: Any) -> Any:
    """Close by the connection's own `aclose` or `close`; a connection without either is just dropped."""
    close = getattr(connection, "aclose", None) or getattr(connection, "close", None)
    return close() if close is not None else None
