"""SHELL. Waiting for a socket: on asyncio by callbacks of the loop's own, which read; elsewhere by anyio's waits.

On asyncio, one of anyio's waits costs 25 µs and two changes of epoll's list. Here the loop goes on watching the socket
from one wait to the next, until it has something that nobody waits for; and the callback reads itself, and takes the
task that waits one step further, so that one arrival is one callback and one turn (figures in docs/decisions).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context
from types import coroutine
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

import anyio
from anyio import ClosedResourceError

from .._backend import in_trio
from ._turns import work

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_Callback: TypeAlias = Callable[[object], object]


class Waits(Protocol[T_co]):
    """What can be waited for on one socket. One task may read and one may wait to write."""

    kept: Any
    """What was read for one who was cancelled in the same moment; it comes before anything else."""
    reading: bool
    """Whether somebody waits to read."""
    tells_all: bool
    """Whether a wait tells of everything that there is. If not, ask before each: libuv stops to watch a socket that was
    reset, even if there still was something to be read."""

    def read_nowait(self) -> T_co | None:
        """What is there, or None."""
        ...

    def read(self) -> Awaitable[T_co]:
        """Wait, and return or raise what the attempt to read brings; ClosedResourceError once closed.

        Cancellation loses nothing. To be awaited at once.
        """
        ...

    def interrupt(self) -> None:
        """Who waits to read gets an empty string instead."""
        ...

    async def writable(self) -> None:
        """Wait until it takes something, or was closed."""
        ...

    def close(self) -> None:
        """Close the socket; who waits is told. May be repeated."""
        ...


def waits_for(sock: socket.socket, attempt: Callable[[], T | None]) -> Waits[T]:
    """For the event loop that runs. The attempt reads without blocking; None says that there is nothing."""
    if not in_trio():
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return AnyioWaits(sock, attempt)  # nobody waits yet, so the loop is not known
        # Windows' own loop cannot watch sockets; anyio does it in a thread.
        if type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader:
            return AsyncioWaits(sock, attempt, loop)
    return AnyioWaits(sock, attempt)


class _Keeps(Generic[T]):
    """What both have in common."""

    __slots__ = ("_attempt", "_closed", "_interrupted", "_socket", "kept", "reading", "tells_all")

    def __init__(self, sock: socket.socket, attempt: Callable[[], T | None], *, tells_all: bool = True) -> None:
        self.kept: Any = None
        self.reading = False
        self.tells_all = tells_all
        self._socket = sock
        self._attempt = attempt
        self._closed = False
        self._interrupted = False

    def read_nowait(self) -> T | None:
        return self._attempt() if self.kept is None else self._take()

    def _take(self) -> T | None:
        kept: T | Exception | None = self.kept
        self.kept = None
        if isinstance(kept, Exception):
            try:
                raise kept
            finally:
                del kept  # its traceback knows this frame: that would be a cycle
        return kept


def _nothing() -> None:
    """In place of an attempt that knows its stream: a closed one is not left to the garbage collector."""


class AsyncioWaits(_Keeps[T]):
    """On asyncio's own loop, uvloop, and any other that watches sockets.

    It is itself what the task that reads awaits, "Future-like" as asyncio has it (`asyncio.isfuture`). A Future would
    have its task go on only in the loop's next turn, behind all that is busy.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_cancelled",
        "_fd",
        "_loop",
        "_reader",
        "_watched",
        "_writer",
    )

    def __init__(self, sock: socket.socket, attempt: Callable[[], T | None], loop: asyncio.AbstractEventLoop) -> None:
        """Watch nothing yet."""
        super().__init__(sock, attempt, tells_all=isinstance(loop, asyncio.SelectorEventLoop))
        self._fd = sock.fileno()
        self._loop = loop
        self._watched = False
        self._asyncio_future_blocking = False
        self._reader: tuple[_Callback, Context] | None = None
        """What wakes the task that waits, and in which context; None as soon as it is called, or will be."""
        self._cancelled: asyncio.CancelledError | None = None
        self._writer: asyncio.Future[None] | None = None

    @coroutine
    def read(self) -> Generator[object, None, T]:
        while self.kept is None:
            if self._closed:
                raise ClosedResourceError
            if not self._watched:
                self._loop.add_reader(self._fd, self._on_readable)
                self._watched = True
            self.reading = True
            self._asyncio_future_blocking = True
            try:
                yield self
            finally:
                self.reading = False
                self._reader = self._cancelled = None
                interrupted, self._interrupted = self._interrupted, False
            work.moved = 0
            if interrupted and self.kept is None:
                return cast("T", b"")
        if isinstance(self.kept, Exception):
            return cast("T", self._take())  # which raises it
        kept: T = self.kept
        self.kept = None
        return kept

    def _on_readable(self) -> None:
        if self._reader is None:
            # Nobody wants it yet. Until then, the loop would call for ever.
            self._unwatch()
            return
        try:
            self.kept = self._attempt()
        except Exception as error:
            self.kept = error
        # Asked again: a signal's handler may have cancelled the task meanwhile, as that of Ctrl-C does.
        if self.kept is not None and self._reader:
            (wake, context), self._reader = self._reader, None
            # No task runs now: this is a callback of the loop's.
            context.run(wake, self)
            del wake, context  # an error's traceback knows this frame, and would keep the task

    def _wake_reader_soon(self) -> None:
        """For one who is in a step of a task."""
        if self._reader is not None:
            (wake, context), self._reader = self._reader, None
            self._loop.call_soon(wake, self, context=context)

    # What a task asks of that which it awaits: the part of asyncio.Future that it needs.

    def add_done_callback(self, callback: _Callback, *, context: Context) -> None:
        self._reader = (callback, context)

    def done(self) -> bool:
        return self._reader is None

    def cancel(self, msg: object = None) -> bool:
        if self.done():
            return False
        self._cancelled = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        self._wake_reader_soon()
        return True

    def result(self) -> None:
        """Nothing, as `read` looks itself; but of several cancellations the task is to hear of the first one."""
        if self._cancelled is not None:
            raise self._cancelled

    def interrupt(self) -> None:
        if self._reader is not None:
            self._interrupted = True
            self._wake_reader_soon()

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._fd)

    async def writable(self) -> None:
        writer = self._writer = self._loop.create_future()
        self._loop.add_writer(self._fd, _wake, writer)
        try:
            await writer
        finally:
            self._writer = None
            if not self._closed:
                self._loop.remove_writer(self._fd)
        work.moved = 0

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._attempt = _nothing
        self._unwatch()
        if self._writer is not None:
            self._loop.remove_writer(self._fd)
            _wake(self._writer)
        self._wake_reader_soon()
        self._socket.close()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class AnyioWaits(_Keeps[T]):
    """On trio, and on a loop that watches no sockets."""

    __slots__ = ("_scope", "_writing")

    def __init__(self, sock: socket.socket, attempt: Callable[[], T | None]) -> None:
        """Wait for nothing yet."""
        super().__init__(sock, attempt)
        self._scope: anyio.CancelScope
        self._writing = False

    async def read(self) -> T:
        while (result := self._take()) is None:
            await self._readable()
            interrupted, self._interrupted = self._interrupted, False
            self.kept = self._attempt()
            if interrupted and self.kept is None:
                return cast("T", b"")
        return result

    async def _readable(self) -> None:
        if self._closed:
            raise ClosedResourceError
        self.reading = True
        try:
            if in_trio():
                await anyio.wait_readable(self._socket)
            else:
                with anyio.CancelScope() as self._scope:
                    await anyio.wait_readable(self._socket)
        except ClosedResourceError:
            if not self._interrupted:
                raise
        except BaseException:
            self._interrupted = False
            raise
        finally:
            self.reading = False
            self._close_if_unused()
        work.moved = 0
        if self._closed:
            raise ClosedResourceError

    def interrupt(self) -> None:
        if not self.reading:
            return
        self._interrupted = True
        if in_trio():
            anyio.notify_closing(self._socket)  # which wakes a writer, too: it tries, and waits again
        else:
            self._scope.cancel()  # there, anyio would not let anybody wait for that socket again

    async def writable(self) -> None:
        self._writing = True
        try:
            await anyio.wait_writable(self._socket)
            work.moved = 0
        except ClosedResourceError:
            pass  # it was closed, or a reader was interrupted: whoever tries will see
        finally:
            self._writing = False
            self._close_if_unused()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._attempt = _nothing
            anyio.notify_closing(self._socket)
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        """On a thread of anyio's, who waits cleans up by the descriptor's number: that must not be in use again."""
        if self._closed and not self.reading and not self._writing:
            self._socket.close()
