"""Who makes and reads frames without any I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias
from unittest.mock import patch

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage

from wspool.websocket import _protocol
from wspool.websocket._connection import random_key
from wspool.websocket._masking import MASKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from .ends import Buffer

    # What goes to the transport: one buffer, or several.
    Encode: TypeAlias = Callable[[bytes], Buffer | Sequence[Buffer]]
    # The payloads in what has come, in as many parts as there are.
    Decode: TypeAlias = Callable[[bytes], Sequence[Buffer]]


class Framer(ABC):
    name: str

    def in_use(self) -> AbstractContextManager[object]:
        """Whatever must be so while it works."""
        return nullcontext()

    @abstractmethod
    def encoder(self, *, client: bool) -> Encode: ...

    @abstractmethod
    def decoder(self, *, client: bool) -> Decode: ...


class Ours(Framer):
    def __init__(self, name: str, masker: str | None = None, *, fast: bool = True) -> None:
        self.name = name
        self._masker = masker
        self._fast = fast

    def in_use(self) -> AbstractContextManager[object]:
        return patch.object(_protocol, "mask", MASKERS[self._masker]()) if self._masker else nullcontext()

    def _protocol(self, *, client: bool) -> _protocol.WebSocketProtocol:
        return _protocol.WebSocketProtocol(client=client, next_key=random_key, fast=self._fast)

    def encoder(self, *, client: bool) -> Encode:
        return self._protocol(client=client).send_bytes

    def decoder(self, *, client: bool) -> Decode:
        protocol = self._protocol(client=client)

        def decode(data: bytes) -> list[Buffer]:
            protocol.receive_data(data)
            parts: list[Buffer] = []
            while (event := protocol.next_event()) is not None:
                assert isinstance(event, _protocol.BytesReceived), event
                parts.append(event.data)
            return parts

        return decode


class Wsproto(Framer):
    name = "wsproto"

    @staticmethod
    def _connection(*, client: bool) -> Connection:
        return Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER)

    def encoder(self, *, client: bool) -> Encode:
        connection = self._connection(client=client)
        return lambda payload: connection.send(BytesMessage(data=payload))

    def decoder(self, *, client: bool) -> Decode:
        connection = self._connection(client=client)

        def decode(data: bytes) -> list[Buffer]:
            connection.receive_data(data)
            return [event.data for event in connection.events() if isinstance(event, BytesMessage)]

        return decode


class Websockets(Framer):
    """Its own protocol without I/O, in the state after the handshake. It hands out whole frames only."""

    name = "websockets"

    @staticmethod
    def _protocol(*, client: bool) -> Any:
        from websockets.client import ClientProtocol
        from websockets.protocol import State
        from websockets.server import ServerProtocol
        from websockets.uri import parse_uri

        if client:
            return ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=None)
        return ServerProtocol(state=State.OPEN, max_size=None)

    def encoder(self, *, client: bool) -> Encode:
        protocol = self._protocol(client=client)

        def encode(payload: bytes) -> list[bytes]:
            protocol.send_binary(payload)
            sent: list[bytes] = protocol.data_to_send()
            return sent

        return encode

    def decoder(self, *, client: bool) -> Decode:
        protocol = self._protocol(client=client)

        def decode(data: bytes) -> list[Buffer]:
            protocol.receive_data(data)
            return [frame.data for frame in protocol.events_received()]

        return decode


class Aiohttp(Framer):
    """Its reader and its writer, on a transport that keeps nothing. It hands out whole messages only.

    They are coroutines that never wait here, so they are run without an event loop.
    """

    name = "aiohttp"

    def encoder(self, *, client: bool) -> Encode:
        from aiohttp._websocket.writer import WebSocketWriter
        from aiohttp.http_websocket import WSMsgType

        flow: Any = _Flow()
        transport: Any = _Transport()
        writer = WebSocketWriter(flow, transport, use_mask=client)

        def encode(payload: bytes) -> list[Buffer]:
            transport.written = []
            _run(writer.send_frame(payload, WSMsgType.BINARY))
            written: list[Buffer] = transport.written
            return written

        return encode

    def decoder(self, *, client: bool) -> Decode:
        from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader

        flow: Any = _Flow()
        no_loop: Any = None
        queue: Any = WebSocketDataQueue(flow, 2**16, loop=no_loop)
        reader = WebSocketReader(queue, 0, compress=False, decode_text=True)

        def decode(data: bytes) -> list[Buffer]:
            reader.feed_data(data)
            waiting: deque[Any] = queue._buffer
            parts: list[Buffer] = []
            while waiting:
                parts.append(_run(queue.read()).data)
            return parts

        return decode


class _Transport:
    """What aiohttp's writer asks of asyncio's transport."""

    def __init__(self) -> None:
        self.written: list[Buffer] = []

    def is_closing(self) -> bool:
        return False

    def write(self, data: Buffer) -> None:
        self.written.append(data)


class _Flow:
    """What aiohttp's reader and writer ask of its protocol."""

    _paused = False
    _reading_paused = False

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits, without an event loop")


# Who masks matters only where there is something to mask.
_OTHERS = (Ours("wspool, fast=False", fast=False), Websockets(), Aiohttp())
MASKED: tuple[Framer, ...] = (
    Wsproto(),
    Ours("wspool, C masker", "websockets.speedups"),
    Ours("wspool, numpy masker", "numpy"),
    Ours("wspool, Python masker", "python"),
    *_OTHERS,
)
UNMASKED: tuple[Framer, ...] = (Wsproto(), Ours("wspool"), *_OTHERS)
