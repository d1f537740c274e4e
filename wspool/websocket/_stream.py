"""SHELL. A websocket as a byte stream: its bytes travel in binary messages, whose bounds mean nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from anyio import BusyResourceError
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint_if_cancelled

from ._connection import WebSocketConnection
from ._http import check_kind
from ._protocol import BytesReceived, Part
from ._turns import take_turn, work

# Parts of this size are handed on as they are: to join them with others would cost a copy, and gain one call.
_ENOUGH = 16 * 1024
# So many parts are gathered without a turn for others: about a millisecond, even if all of them are empty.
_MANY = 256
# What a part counts for beside its bytes, by the time that it takes.
_PART = 2048


class WebSocketStream(ByteStream):
    """A byte stream over a websocket connection, which it takes over.

    Parts of frames pass through as they come. Any number of tasks may send, one may receive. A send
    that is cancelled has sent nothing, or marks the stream broken, which the next use says; a
    cancelled receive loses nothing. Errors are those of `WebSocketConnection`.
    """

    def __init__(self, connection: WebSocketConnection) -> None:
        """The connection is the stream's from now on, and closed with it."""
        check_kind("connection", connection, WebSocketConnection, "a WebSocketConnection")
        connection.become_stream()
        self._connection = connection
        self._stock = b""
        """What was gathered by the last receive that had to."""
        self._receiving = False
        self._taken = 0
        """How much of it has been returned."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """What has come, at least one byte and `max_bytes` at most: of one frame, or of several short ones.

        Raises EndOfStream when they have sent their end of file, or closed. A text message fails the
        connection with code 1003.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be positive, got {max_bytes!r}")
        if self._receiving:
            raise BusyResourceError("receiving from")
        self._receiving = True
        try:
            return await self._receive(max_bytes)
        finally:
            self._receiving = False

    async def _receive(self, max_bytes: int) -> bytes:
        if self._taken < len(self._stock):
            await take_turn()
            self._connection.check_usable()
        else:
            await checkpoint_if_cancelled()
            self._stock, self._taken = await self._gather(min(max_bytes, _ENOUGH)), 0
        data = self._stock[self._taken : self._taken + max_bytes]
        self._taken += len(data)
        return data

    async def _gather(self, enough: int) -> bytes:
        """Parts that are there, until there is enough, but at least one byte."""
        gathered: list[bytes | memoryview] = []
        size = 0
        while not size:
            gathered.clear()
            part: Part | None = await self._connection.receive_part()
            while part is not None:
                assert isinstance(part, BytesReceived), "the protocol accepts no text here"
                gathered.append(part.data)
                size += len(part.data)
                part = self._connection.part_at_hand() if size < enough and len(gathered) < _MANY else None
            work.moved += len(gathered) * _PART
        return b"".join(gathered)

    async def send(self, item: bytes) -> None:
        """Send bytes, in frames of 64 KiB at most; returns when the transport has taken all of them.

        Raises ClosedResourceError after `send_eof` or `aclose`, BrokenResourceError if the connection
        is broken or they have closed it.
        """
        await self._connection.send_frames(item)

    async def send_eof(self) -> None:
        """End the sending direction by a Close frame; the other goes on until they have done the same.

        They may: most other websockets answer a Close at once. Two of these streams go on.
        """
        await self._connection.send_eof()

    async def aclose(self) -> None:
        """Close as `WebSocketConnection.aclose` does."""
        await self._connection.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the connection."""
        return self._connection.extra_attributes
