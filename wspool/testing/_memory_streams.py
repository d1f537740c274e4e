"""A pair of byte streams in memory, with a bounded buffer, that fragment, stall, end or break when told to."""

from __future__ import annotations

import anyio
from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, EndOfStream
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint


def memory_byte_streams(max_buffer: int = 65536) -> tuple[MemoryByteStream, MemoryByteStream]:
    """Make two byte streams: what is sent on one is received from the other.

    Args:
        max_buffer: So many bytes can be on the way in each direction; a send of more waits for the receiver.

    Raises:
        ValueError: `max_buffer` is less than 1.
    """
    if max_buffer < 1:
        raise ValueError(f"max_buffer must be at least 1, got {max_buffer}")
    there, back = _Pipe(max_buffer), _Pipe(max_buffer)
    return MemoryByteStream(back, there), MemoryByteStream(there, back)


class _Pipe:
    """One direction: at most one task waits at each end of it."""

    def __init__(self, max_buffer: int) -> None:
        self.max_buffer = max_buffer
        self.buffer: bytearray = bytearray()
        self.ended = False  # the sending side is closed
        self.abandoned = False  # the receiving side is closed
        self.broken = False
        self.stalled = False
        self.swallows: bool = False  # nobody will receive it, and nobody is told
        self._changed = anyio.Event()

    def change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def wait(self) -> None:
        await self._changed.wait()

    async def put(self, data: memoryview) -> None:
        while data:
            self.check_writable()
            if self.swallows:
                return
            room = self.max_buffer - len(self.buffer)
            if room:
                self.buffer += data[:room]
                data = data[room:]
                self.change()
            else:
                await self.wait()

    def check_writable(self) -> None:
        if self.ended:
            raise ClosedResourceError
        if self.broken or self.abandoned:
            raise BrokenResourceError

    def swallow(self) -> None:
        self.swallows = True
        self.buffer.clear()
        self.change()

    def take(self, count: int) -> bytes:
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        self.change()
        return data


class MemoryByteStream(ByteStream):
    """One end of `memory_byte_streams`. Its attributes and methods say what goes wrong with what it receives.

    One task may send and one receive at a time, others get a BusyResourceError. A send that is cancelled may have sent
    a part; a receive that is cancelled loses nothing.
    """

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        """Made by `memory_byte_streams`."""
        self.max_read: int | None = None
        """Hand out at most so many bytes a receive, as a slow network would."""
        self.sends: int = 0
        """How often `send` was called."""
        self.receives: int = 0
        """How often `receive` was called."""
        self._incoming = incoming
        self._outgoing = outgoing
        self._received = 0
        self._truncate_after: float = float("inf")
        self._fail_after: float = float("inf")
        self._sending = False
        self._receiving = False
        self._closed = False

    @property
    def buffered(self) -> int:
        """How many bytes were sent to this end and not received yet."""
        return len(self._incoming.buffer)

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called on this end."""
        return self._closed

    def stall(self) -> None:
        """Let nothing through to this end, not even the end of the stream, until `resume`."""
        self._incoming.stalled = True

    def resume(self) -> None:
        """End a `stall`."""
        self._incoming.stalled = False
        self._incoming.change()

    def truncate_after(self, count: int) -> None:
        """End the stream here after `count` bytes in all, received ones included. The sender does not notice."""
        self._truncate_after = count
        self._incoming.change()

    def fail_after(self, count: int) -> None:
        """Break the connection, both ways, once `count` bytes in all have been received here."""
        self._fail_after = count
        self._incoming.change()

    async def send(self, item: bytes) -> None:
        """Send all of `item`.

        Raises:
            BrokenResourceError: The other end was closed, or the connection was broken by `fail_after`.
            ClosedResourceError: This end was closed, or its sending side by `send_eof`.
            BusyResourceError: Another task is sending.
        """
        if self._sending:
            raise BusyResourceError("writing to")
        self._sending = True
        self.sends += 1
        try:
            await checkpoint()
            self._outgoing.check_writable()
            with memoryview(item) as data:
                await self._outgoing.put(data)
        finally:
            self._sending = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return what there is, at least one byte and at most `max_bytes`, or `max_read` if that is less.

        Raises:
            EndOfStream: The other end was closed, or `truncate_after` is reached.
            BrokenResourceError: `fail_after` is reached.
            ClosedResourceError: This end was closed.
            BusyResourceError: Another task is receiving.
            ValueError: `max_bytes` is less than 1.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {max_bytes}")
        if self._receiving:
            raise BusyResourceError("reading from")
        self._receiving = True
        self.receives += 1
        try:
            await checkpoint()
            return await self._receive(max_bytes)
        finally:
            self._receiving = False

    async def _receive(self, max_bytes: int) -> bytes:
        while True:
            if self._closed:
                raise ClosedResourceError
            if not self._incoming.stalled:
                count = self._receivable(max_bytes)
                if count:
                    self._received += count
                    return self._incoming.take(count)
            await self._incoming.wait()

    def _receivable(self, max_bytes: int) -> int:
        """How many bytes may be received now; raises if there will never be any."""
        left = min(self._fail_after, self._truncate_after) - self._received
        if left <= 0:
            if self._fail_after <= self._truncate_after:
                self._break()
            else:
                self._incoming.swallow()
                raise EndOfStream
        if self._incoming.broken:
            raise BrokenResourceError
        if self._incoming.ended and not self._incoming.buffer:
            raise EndOfStream
        return int(min(len(self._incoming.buffer), max_bytes, left, self.max_read or max_bytes))

    def _break(self) -> None:
        for pipe in (self._incoming, self._outgoing):
            pipe.broken = True
            pipe.change()

    async def send_eof(self) -> None:
        """Close the sending side: the other end gets an EndOfStream. May be repeated."""
        self._outgoing.ended = True
        self._outgoing.change()
        await checkpoint()

    async def aclose(self) -> None:
        """Close this end. May be repeated."""
        self._closed = True
        self._incoming.abandoned = True
        self._outgoing.ended = True
        self._incoming.change()
        self._outgoing.change()
        await checkpoint()
