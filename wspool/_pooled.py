"""SHELL. The handle: one get, from the call to the release."""

from __future__ import annotations

import warnings
from enum import Enum
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, final
from weakref import ref

from ._entries import EntryState, T
from ._errors import PoolMisuse
from ._wait_queue import WAITING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType

    from ._entries import Entry
    from ._pool import Pool


class HandleState(Enum):
    """How far a handle has come."""

    NEW = "it is not checked out yet: await it, or enter it with async with"
    HELD = "it has a connection already: use its .connection, or call pool.get() again for another one"
    EMPTY = "it was emptied by take(): insert() a connection, or release it"
    FAILED = "its get has not ended, or has failed: call pool.get() again"
    RELEASED = "it was released: each checkout needs a pool.get() of its own"


NEW, HELD, EMPTY, FAILED, RELEASED = HandleState


@final
class Pooled(Generic[T]):
    """A connection lent from a pool, or about to be.

    Made by `Pool.get()` and `Pool.get_nowait()` only. Await it to check a connection out, and
    `release()` it in a `finally`; or enter it with `async with`, which binds the connection itself
    and releases it at the end. A handle serves one checkout. It does not keep the pool alive.
    """

    __slots__ = ("__weakref__", "_connect", "_entry", "_pool", "_site", "_state")

    _pool: ref[Pool[T]]
    _state: HandleState
    _connect: Callable[[], Awaitable[T]] | None
    _entry: Entry[T]
    _site: str
    """Where it was checked out; set only for a pool with `trace_holders`."""

    def __new__(cls) -> Pooled[T]:
        """Handles come from a pool."""
        raise TypeError("use Pool.get() or Pool.get_nowait() to get a Pooled")

    # --- checking out ---------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, Any, Pooled[T]]:
        """Check out a connection and return this handle itself.

        Raises:
            PoolTimeout: not within `acquire_timeout`, or the dial exceeded `connect_timeout`.
            PoolFull: `max_waiting` callers wait already.
            PoolClosed: the pool is closing or closed.
            PoolMisuse: the pool was not entered, belongs to another loop, or the handle was used before.
            PoolError: this caller's own dial brought a connection that `is_reusable` refuses.
            Exception: what `connect` raised, when the dial that failed was this caller's own.

        Cancellation: whatever was reserved for the caller moves on to the next in the same step.
        """
        # Attributes that are functions go into a variable first: CPython 3.11 and 3.12 cannot
        # specialise a call of a slot's content, and a hit takes a tenth longer.
        reference = self._pool
        pool = reference()
        if pool is None or self._state is not NEW:
            raise self._misused("check out with", pool)
        state, task_in, now = pool._state, pool._task_in, pool._now
        task = task_in(pool._loop) if get_ident() == pool._thread else None
        self._state = FAILED
        # To look for a pending cancellation costs more than the rest of a hit: that is done once in
        # 64 hits, and before a dial is started.
        look = not state.acquired & 63 if state.entries.idle else state.places < state._max_size
        if look or task is None:
            task = yield from pool._arrive(self)
        try:
            entry = state.take_idle(ref(task), now())
        except BaseException:
            pool._drain()  # an interrupt in is_reusable: its connection is to be closed
            raise
        if entry is None:
            waiter = pool._enqueue(self._connect)
            try:
                while entry is None:
                    if waiter.state is WAITING:
                        yield from pool._backend.park(waiter)
                    entry = pool._collect(waiter, task)
            except BaseException:
                pool._leave(waiter)
                raise
        elif state.effects:
            pool._drain_with(entry)
        self._entry = entry
        self._state = HELD
        return self

    async def __aenter__(self) -> T:
        """Check out a connection and return the connection."""
        await self
        return self._entry.connection

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Give the connection back.

        Left by an exception or a cancellation, the connection is kept only if it says itself that
        it is reusable, by `is_reusable`; otherwise it is discarded, since an exchange may have been
        cut off half-way (redis/redis-py#2624). Never suspends.
        """
        if exc is None or self._state is not HELD:
            self.release()
            return
        pool = self._pool()
        if pool is not None and pool._state.judges_itself(self._entry.connection):
            self.release()
        else:
            self.discard()

    # --- holding --------------------------------------------------------------------------------

    @property
    def connection(self) -> T:
        """The connection. PoolMisuse before the checkout, after the release, and after `take()`."""
        if self._state is not HELD:
            raise self._misused("use the connection of", self._pool())
        return self._entry.connection

    def release(self) -> None:
        """Give the connection back: to the next waiter, else to the idle ones, else it is closed.

        Synchronous, so that nothing can interrupt it, and idempotent. Resetting and closing run in
        the pool's own tasks afterwards. From any task of the pool's event loop.
        """
        if self._state is HELD:
            reference = self._pool
            pool = reference()
            if pool is None:
                self._outlived()
                return
            state, task_in, now = pool._state, pool._task_in, pool._now
            if get_ident() != pool._thread or task_in(pool._loop) is None:
                pool._backend.home()
            self._state = RELEASED
            try:
                state.give_back(self._entry, now())
            finally:
                if state.effects:
                    pool._drain()
        elif self._state is EMPTY:
            self._release_place()
        elif self._state is NEW:
            raise self._misused("release", self._pool())

    def discard(self) -> None:
        """Give the connection back to be closed, because it is broken. Synchronous and idempotent."""
        if self._state is not HELD:
            self.release()
            return
        pool = self._pool()
        if pool is None:
            self._outlived()
            return
        pool._backend.home()
        self._state = RELEASED
        pool._state.discard(self._entry, pool._now())
        pool._drain()

    def take(self) -> T:
        """Take the connection out of the handle: it is yours now, and yours to close.

        Its place in the pool stays with the handle, so that `insert()` can put a connection in; the
        release of the empty handle frees it.
        """
        if self._state is not HELD:
            raise self._misused("take from", self._pool())
        pool = self._own_pool()
        pool._state.take(self._entry, pool._now())
        self._state = EMPTY
        pool._drain()
        return self._entry.connection

    def insert(self, connection: T) -> None:
        """Put a connection into the handle that `take()` emptied; it counts as opened now.

        Raises:
            PoolMisuse: the handle is not empty, or the connection is in the pool already.
            PoolClosed: the pool is closing; the connection stays yours.
        """
        if self._state is not EMPTY:
            raise self._misused("insert into", self._pool())
        if connection is None:
            raise TypeError("insert() needs a connection, got None")
        pool = self._own_pool()
        self._entry = pool._state.insert(connection, pool._holder(), pool._now())
        self._state = HELD
        pool._drain()

    def _release_place(self) -> None:
        pool = self._pool()
        if pool is not None:
            pool._backend.home()
        self._state = RELEASED
        if pool is not None:
            pool._state.drop_place(pool._now())
            pool._drain()

    def _own_pool(self) -> Pool[T]:
        pool = self._pool()
        if pool is None:
            raise PoolMisuse(f"the pool of {self!r} is gone")
        pool._backend.home()
        return pool

    def _outlived(self) -> None:
        """Released after its pool was dropped: if that was without being closed, nobody else can close it."""
        self._state = RELEASED
        if self._entry.state is EntryState.HELD:
            close_now(self._entry.connection)

    # --- telling --------------------------------------------------------------------------------

    def _misused(self, action: str, pool: Pool[T] | None) -> PoolMisuse:
        if pool is None:
            return PoolMisuse(f"cannot {action} {self!r}: its pool is gone")
        return PoolMisuse(f"cannot {action} {self!r}: {self._state.value}")

    def __repr__(self) -> str:
        """The pool's name and the state, and the connection while there is one."""
        pool = self._pool()
        name = "a dropped pool" if pool is None else pool.name
        if self._state is HELD:
            return f"<Pooled of {name}: {self._entry.connection!r}>"
        return f"<Pooled of {name}, {self._state.name.lower()}>"

    def __del__(self) -> None:
        """Recover what was forgotten: on the pool's own loop, since this may run anywhere."""
        if self._state is not RELEASED:
            self._dropped()

    def _dropped(self) -> None:
        pool = self._pool()
        if self._state is HELD:
            if self._entry.state is not EntryState.HELD:
                return  # the pool has closed it
            if pool is not None:
                pool._backend.call_soon(pool._recover, self._entry)
            site = getattr(self, "_site", "somewhere; Pool(trace_holders=True) tells where")
            text = f"{self!r} was never released; acquired at {site}"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)
        elif self._state is EMPTY and pool is not None:
            pool._backend.call_soon(pool._recover_place)


def close_now(connection: object) -> None:
    """Close a connection without an event loop, as far as its `close` is synchronous."""
    close = getattr(connection, "close", None)
    outcome: Any = close() if callable(close) else None
    if outcome is not None and hasattr(outcome, "close"):
        outcome.close()  # a coroutine: there is nobody to run it
    if outcome is not None or close is None:
        warnings.warn(f"{connection!r} outlived its pool and could not be closed", ResourceWarning, stacklevel=3)
