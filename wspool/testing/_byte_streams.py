"""What every byte stream promises, as checks that any implementation can be put through."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, cast

import anyio
import anyio.lowlevel
from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, EndOfStream
from anyio.abc import ByteStream

from ._clock import settle

# Longer than any honest stream takes for one check.
_TIME_LIMIT = 30.0
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Case:
    """Two fresh streams, and what may differ between kinds of streams."""

    here: ByteStream
    there: ByteStream
    send_eof: bool
    concurrent_send: bool
    max_buffered: int


async def check_byte_stream(
    make_pair: Callable[[], Awaitable[tuple[ByteStream, ByteStream]]],
    *,
    send_eof: bool = True,
    concurrent_send: bool = False,
    max_buffered: int = 64 * 1024 * 1024,
) -> None:
    """Put a byte stream through everything that `anyio.abc.ByteStream` promises, and what is usual beyond.

    Bytes arrive whole and in order; `max_bytes` is kept; an end of stream is told, again and again; closing ends what
    is pending, can be repeated, and closes under cancellation as well; a cancelled receive loses nothing; a send
    that is cancelled before it began sends nothing; a sender is slowed down by a slow receiver.
    In the spirit of `trio.testing.check_two_way_stream`.

    Args:
        make_pair: Makes two fresh streams that are connected with each other. It is called twice for each check, so
            that each end plays each part.
        send_eof: Whether the stream can be closed for sending only; if not, `send_eof` must raise NotImplementedError.
        concurrent_send: Whether two tasks may send at once, each item arriving whole. If not, the second one may get a
            BusyResourceError.
        max_buffered: A sender whose receiver does not read must block before it has sent so many bytes.

    Raises:
        AssertionError: A promise is not kept; the text says which.
    """
    for check in _CHECKS:
        for swapped in (False, True):
            here, there = reversed(await make_pair()) if swapped else await make_pair()
            await _run(check, _Case(here, there, send_eof, concurrent_send, max_buffered), swapped)


async def _run(check: Callable[[_Case], Awaitable[None]], case: _Case, swapped: bool) -> None:
    promise = f"{check.__doc__} ({check.__name__}{', ends swapped' if swapped else ''})"
    limit = anyio.CancelScope(deadline=anyio.current_time() + _TIME_LIMIT)
    try:
        with limit:
            await check(case)
    except Exception as error:
        raise AssertionError(f"{promise}: {_told(error)}") from error
    finally:
        for stream in (case.here, case.there):
            await anyio.aclose_forcefully(stream)
    assert not limit.cancelled_caught, f"{promise}: not done after {_TIME_LIMIT:g} seconds"


def _told(error: Exception) -> str:
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    return str(error) if isinstance(error, AssertionError) else repr(error)


class _Raises:
    """As `pytest.raises`, which the kit must not need."""

    def __init__(self, what: str, *types: type[Exception]) -> None:
        self.what = what
        self.types = types

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        expected = " or ".join(each.__name__ for each in self.types)
        assert error is not None, f"{self.what} raised nothing, expected {expected}"
        if isinstance(error, Exception):
            assert isinstance(error, self.types), f"{self.what} raised {error!r}, expected {expected}"
        return isinstance(error, Exception)


# --- Helpers ----------------------------------------------------------------------------------------------


async def _receive_exactly(stream: ByteStream, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        received += await stream.receive(count - len(received))
    return bytes(received)


class _Flood:
    """Sends until it cannot: what a receiver that does not read does to a sender."""

    def __init__(self, stream: ByteStream, limit: int) -> None:
        self.stream = stream
        self.limit = limit
        self.sent = 0  # by sends that have returned
        self.error: Exception | None = None

    async def __call__(self) -> None:
        try:
            while self.sent < self.limit:
                await self.stream.send(b"x" * _CHUNK)
                self.sent += _CHUNK
        except Exception as error:
            self.error = error

    async def settled(self) -> None:
        """Return when it is blocked; AssertionError if it never is."""
        await settle()
        assert self.sent < self.limit, f"{self.sent} bytes were taken although nobody received any"


# --- Data -------------------------------------------------------------------------------------------------


async def _whole_and_in_order(case: _Case) -> None:
    """Bytes arrive whole and in order, both ways at once, at any sizes."""
    chance = random.Random(1)
    # From one byte to several TLS records.
    sizes = [int(2 ** chance.uniform(0, 17)) for _ in range(40)]
    items = [chance.randbytes(size) for size in sizes]
    expected = b"".join(items)

    async def send(stream: ByteStream) -> None:
        for item in items:
            await stream.send(item)

    async def receive(stream: ByteStream) -> None:
        received = bytearray()
        while len(received) < len(expected):
            max_bytes = int(2 ** chance.uniform(0, 18))
            data = await stream.receive(max_bytes)
            assert 1 <= len(data) <= max_bytes, f"receive({max_bytes}) returned {len(data)} bytes"
            received += data
        assert received == expected, "other bytes were received than were sent"

    async with anyio.create_task_group() as tasks:
        for stream in (case.here, case.there):
            tasks.start_soon(send, stream)
            tasks.start_soon(receive, stream)


async def _max_bytes_is_kept(case: _Case) -> None:
    """A receive returns at least one byte, and no more than it was asked for."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(case.here.send, b"abcdef")
        assert await case.there.receive(1) == b"a", "receive(1) did not return the first byte"
        rest = bytearray()
        while len(rest) < 5:
            data = await case.there.receive(2)
            assert 1 <= len(data) <= 2, f"receive(2) returned {len(data)} bytes"
            rest += data
        assert rest == b"bcdef", f"the rest was {bytes(rest)!r}"


async def _bad_max_bytes(case: _Case) -> None:
    """A receive of less than one byte is a ValueError."""
    for max_bytes in (0, -1):
        with _Raises(f"receive({max_bytes})", ValueError):
            await case.here.receive(max_bytes)


async def _empty_send(case: _Case) -> None:
    """Sending nothing does nothing."""

    async def send() -> None:
        await case.here.send(b"")
        await case.here.send(b"y")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        data = await case.there.receive()
        assert data == b"y", f"{data!r} was received"


# --- Ends -------------------------------------------------------------------------------------------------


async def _end_of_stream(case: _Case) -> None:
    """When the peer closes, what it had sent can be received, then comes EndOfStream, again and again."""

    async def send_and_close() -> None:
        await case.here.send(b"y")
        await case.here.aclose()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send_and_close)
        await settle()
        data = await case.there.receive()
        assert data == b"y", f"{data!r} was received"
        for time in ("first", "second"):
            with _Raises(f"the {time} receive after the end", EndOfStream):
                await case.there.receive()
        await case.there.aclose()  # a stream may wait for that


async def _half_close(case: _Case) -> None:
    """After send_eof the other direction still works; without a half-close it is a NotImplementedError."""
    if not case.send_eof:
        with _Raises("send_eof()", NotImplementedError):
            await case.here.send_eof()
        return
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(case.here.send, b"y")
        assert await case.there.receive() == b"y", "what was sent before send_eof was lost"
    await case.here.send_eof()
    with _Raises("a receive after the peer's send_eof", EndOfStream):
        await case.there.receive()
    with _Raises("a send after send_eof", Exception):  # anyio has no rule which
        await case.here.send(b"late")
    await case.here.send_eof()  # may be repeated
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(case.there.send, b"z")
        data = await case.here.receive()
        assert data == b"z", f"{data!r} was received after send_eof"
    await case.there.send_eof()
    with _Raises("a receive after both have done send_eof", EndOfStream):
        await case.here.receive()


async def _use_after_close(case: _Case) -> None:
    """After aclose, which may be repeated, each use is a ClosedResourceError."""
    for _ in range(3):
        await case.here.aclose()
    with _Raises("a send after aclose", ClosedResourceError):
        await case.here.send(b"x")
    with _Raises("a receive after aclose", ClosedResourceError):
        await case.here.receive()


async def _peer_gone(case: _Case) -> None:
    """When the peer is gone, sends fail with BrokenResourceError sooner or later."""
    await anyio.aclose_forcefully(case.there)
    for _ in range(2):
        flood = _Flood(case.here, case.max_buffered)
        await flood()
        with _Raises("a send to nobody", BrokenResourceError):
            if flood.error is not None:
                raise flood.error


# --- Closing ----------------------------------------------------------------------------------------------


async def _close_ends_a_receive(case: _Case) -> None:
    """A receive that is pending when another task closes ends with ClosedResourceError."""

    async def receive() -> None:
        with _Raises("the pending receive", ClosedResourceError):
            await case.here.receive()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await settle()
        await case.here.aclose()


async def _close_ends_a_send(case: _Case) -> None:
    """A send that is pending when another task closes ends with an error."""
    flood = _Flood(case.here, case.max_buffered)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flood)
        await flood.settled()
        await case.here.aclose()
    with _Raises("the pending send", ClosedResourceError, BrokenResourceError):
        if flood.error is not None:
            raise flood.error


async def _cancelled_close(case: _Case) -> None:
    """An aclose that is cancelled closes all the same."""
    await anyio.aclose_forcefully(case.here)
    with _Raises("a send after a cancelled aclose", ClosedResourceError):
        await case.here.send(b"x")
    with _Raises("a receive after a cancelled aclose", ClosedResourceError):
        await case.here.receive()
    with _Raises("a receive of the peer", EndOfStream, BrokenResourceError):
        await case.there.receive()


# --- Two tasks --------------------------------------------------------------------------------------------


async def _two_receivers(case: _Case) -> None:
    """A second receive at the same time is a BusyResourceError, and does not harm the first."""
    received: list[bytes] = []

    async def receive() -> None:
        received.append(await case.here.receive())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await settle()
        with _Raises("the second receive", BusyResourceError):
            await case.here.receive()
        await case.there.send(b"y")
    assert received == [b"y"], f"the first receive got {received}"


async def _two_senders(case: _Case) -> None:
    """A second send at the same time waits for the first, or is a BusyResourceError."""
    flood = _Flood(case.here, case.max_buffered)
    late = b"y" * _CHUNK
    refused: list[BusyResourceError] = []

    async def send_late() -> None:
        try:
            await case.here.send(late)
        except BusyResourceError as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flood)
        await flood.settled()
        flood.limit = 0  # the send that is blocked is the last one
        expected = flood.sent + _CHUNK
        tasks.start_soon(send_late)
        await settle()
        data = await _receive_exactly(case.there, expected)
        assert data == b"x" * expected, "the second send came in between"
        due = b"" if refused else late
        assert await _receive_exactly(case.there, len(due)) == due, "what the second send sent has not arrived"
    assert flood.error is None, f"the first send failed with {flood.error!r}"
    assert not (refused and case.concurrent_send), "the second send was refused"


async def _backpressure(case: _Case) -> None:
    """A sender blocks at some point when nobody receives, and goes on when somebody does."""
    flood = _Flood(case.here, case.max_buffered)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flood)
        await flood.settled()
        flood.limit = 0
        await _receive_exactly(case.there, flood.sent + _CHUNK)
    assert flood.error is None, f"the send failed with {flood.error!r}"


# --- Cancellation -----------------------------------------------------------------------------------------


async def _cancelled_receive(case: _Case) -> None:
    """A receive that is cancelled loses nothing, at whatever moment."""
    received = bytearray()

    async def receive(scope: anyio.CancelScope) -> None:
        with scope:
            received.extend(await case.there.receive())

    # Before it began, while it waits, after the data was sent, and a few turns later.
    moments: tuple[Literal["first", "waiting"] | int, ...] = ("first", "waiting", 0, 1, 2, 3, 4)
    count = 0
    for moment in moments * 3:
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            if moment == "first":
                scope.cancel()
            tasks.start_soon(receive, scope)
            await settle()
            if moment == "waiting":
                scope.cancel()
            tasks.start_soon(case.here.send, bytes([count]))
            count += 1
            for _ in range(moment if isinstance(moment, int) else 0):
                await anyio.lowlevel.checkpoint()
            scope.cancel()
            await settle()
            received += await _receive_exactly(case.there, count - len(received))
    assert received == bytes(range(count)), f"of the bytes 0 to {count - 1} these were received: {list(received)}"


async def _cancelled_send(case: _Case) -> None:
    """A send that is cancelled before it began sends nothing, and does no harm."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await case.here.send(b"cancelled")
    assert scope.cancelled_caught, "a send in a cancelled scope was not cancelled"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(case.here.send, b"y")
        data = await case.there.receive()
        assert data == b"y", f"{data!r} was received"


_CHECKS = (
    _whole_and_in_order,
    _max_bytes_is_kept,
    _bad_max_bytes,
    _empty_send,
    _end_of_stream,
    _half_close,
    _use_after_close,
    _peer_gone,
    _close_ends_a_receive,
    _close_ends_a_send,
    _cancelled_close,
    _two_receivers,
    _two_senders,
    _backpressure,
    _cancelled_receive,
    _cancelled_send,
)
