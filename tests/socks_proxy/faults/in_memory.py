"""Both ends of the proxy over streams in memory, on a clock that jumps: their listeners, sockets and threads apart.

Time passes only when everybody waits for it, so a limit takes no time and is met to the second. And when everybody
waits, all that was said has arrived.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace
from typing import Any, TypeAlias

import anyio
import pytest
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream
from anyio.abc import ByteStream, SocketAttribute, TaskGroup

from examples.socks_proxy import client as client_end, relay, server as server_end, sweeper, tunnel as tunnel_module
from examples.socks_proxy.packets import SUBPROTOCOL, PacketReader, Ping, Pong, encode
from examples.socks_proxy.policy import Policy
from examples.socks_proxy.settings import ClientSettings, ServerSettings
from tests.socks_proxy.ends import TOKEN, echo, exactly
from wspool.testing import MemoryByteStream, memory_byte_streams, settle
from wspool.websocket import WebSocketConnection, connect_websocket

Handler: TypeAlias = Callable[[Any], Coroutine[Any, Any, None]]

URL = "ws://server.example/tunnel"
# Of the clock that jumps: more than all limits that a test may meet, one after the other.
ETERNITY = 200.0
# The port of a destination that is always there.
ECHO = 7
# Of that clock, too: how often it is looked whether something has happened that nobody is told of.
TICK = 0.25
UPGRADE = (
    b"GET /tunnel HTTP/1.1\r\nHost: server.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: wspool.1\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
)


# Sides of a connection.
NEAR, FAR, BOTH = slice(1), slice(1, None), slice(None)


class Link(ByteStream):
    """What the ends take for a TCP connection. It stands for its own socket, too."""

    def __init__(self, memory: MemoryByteStream, far: MemoryByteStream) -> None:
        self._memory: Any = memory
        self._far = far
        self._reset = False
        self._receiving = anyio.CancelScope()
        self.raw_socket = self
        self.receive_on = self.receive

    async def receive(self, max_bytes: int = 65536) -> bytes:
        with anyio.CancelScope() as self._receiving:
            return bytes(await self._memory.receive(max_bytes))
        return b""

    def interrupt(self) -> None:
        self._receiving.cancel()

    async def send(self, item: bytes) -> None:
        await self._memory.send(item)

    # Nothing is done at once, so that all that may wait does.

    def receive_nowait(self, _: int) -> None:
        if self.closed:
            raise ClosedResourceError

    def send_nowait(self, _: object) -> int:
        if self.closed:
            raise ClosedResourceError
        return 0

    def send_eof_nowait(self) -> None:
        if self.closed:
            raise ClosedResourceError
        self._memory._outgoing.ended = True
        self._memory._outgoing.change()

    async def send_eof(self) -> None:
        await self._memory.send_eof()

    def close(self) -> None:
        if self._reset and not self.closed:
            self._far.fail_after(0)
        self._memory._closed = self._memory._incoming.abandoned = self._memory._outgoing.ended = True
        self._memory._incoming.change()
        self._memory._outgoing.change()

    async def aclose(self) -> None:
        self.close()
        await anyio.lowlevel.checkpoint()

    @property
    def closed(self) -> bool:
        return bool(self._memory.closed)

    async def hung_up(self) -> None:
        """Wait until the far end is closed: its end may be seen long before."""
        await until(lambda: self._far.closed)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {SocketAttribute.raw_socket: lambda: self}

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        """Whether a close is a reset."""
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER)
        self._reset = value == struct.pack("ii", 1, 0)

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 1


class World:
    """Two ends, and whatever they reach."""

    def __init__(self, tasks: TaskGroup, client: Any, server: Any, context: ssl.SSLContext | None) -> None:
        self.tasks = tasks
        self.destinations: dict[int, Handler] = {ECHO: echo}
        """By port; the others refuse connections."""
        self.links: list[Link] = []
        """The ends' sides of all connections that there have been."""
        self.tunnels = 0
        """How many connections to the server there have been."""
        far: dict[str, Any] = {"policy": Policy(allow_private=True), "path": "/tunnel", "plain": True, **(server or {})}
        near: dict[str, Any] = {"server": URL, "min_idle": 0, **(client or {})}
        self.server: Any = server_end._ServerEnd(
            ServerSettings(listen=("127.0.0.1", 0), token=TOKEN, **far), context, tasks
        )
        self.client: Any = client_end._ClientEnd(ClientSettings(token=TOKEN, **near), None, tasks)
        self.serve: Handler = self.server.handle
        """What takes a tunnel's connection: another one plays a server that is not ours."""

    # --- what the ends see of the world -----------------------------------------------------------------

    def link(self, handler: Handler, max_buffer: int = 65536, *, ours: slice) -> Link:
        """A connection whose far side the handler takes. `ours` are the sides that an end of ours has to close."""
        here, there = memory_byte_streams(max_buffer)
        links = [Link(here, there), Link(there, here)]
        self.links += links[ours]
        self.tasks.start_soon(handler, links[1])
        return links[0]

    async def connect_tcp(self, *_: object) -> Link:
        """From the client to the server."""
        await anyio.lowlevel.checkpoint()
        self.tunnels += 1
        return self.link(self.serve, ours=BOTH if self.serve == self.server.handle else NEAR)

    async def connect_any(self, addresses: list[Any]) -> Link:
        """From the server to a destination."""
        await anyio.lowlevel.checkpoint()
        port = addresses[0][1][1]
        if port not in self.destinations:
            raise ConnectionRefusedError(111, "Connection refused")
        return self.link(self.destinations[port], ours=NEAR)

    # --- what is done to them ---------------------------------------------------------------------------

    def application(self) -> Link:
        """A connection to the client end."""
        return self.link(self.client.handle, ours=FAR)

    def stranger(self, max_buffer: int = 65536) -> Link:
        """A connection to the server end."""
        return self.link(self.server.handle, max_buffer, ours=FAR)

    async def ask(self, port: int) -> tuple[Any, int]:
        """Ask the proxy for a connection: it, and the code of the reply."""
        stream: Any = self.application()
        await stream.send(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
        return stream, (await exactly(stream, 12))[3]

    async def connect(self, port: int) -> Any:
        stream, code = await self.ask(port)
        assert code == 0, f"reply {code}"
        return stream

    async def bare_tunnel(self) -> WebSocketConnection:
        """A tunnel to the server end on which anything can be said."""
        headers = [("Authorization", f"Bearer {TOKEN}")]
        return await connect_websocket(URL, headers=headers, subprotocols=[SUBPROTOCOL])

    async def check_nothing_is_left(self) -> None:
        """Everybody has hung up, and so have the ends, in a while."""
        with anyio.move_on_after(ETERNITY):
            await until(lambda: not self._what_is_left())
        assert not (left := self._what_is_left()), left

    def _what_is_left(self) -> str:
        server, client = self.server, self.client
        counts = {
            "connections": server._connections,
            "handshakes": server._handshakes,
            "sessions": server._sessions,
            "tunnels of the server": len(server.sweeper.tunnels),
            "tunnels of the client": len(client.sweeper.tunnels),
            "tunnels in the pool": client.pool.statistics().size,
            "open streams": sum(not link.closed for link in self.links),
        }
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


class _Bugs(logging.Handler):
    """What no log of ours may hold."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(logging.Formatter().format(record))


@asynccontextmanager
async def in_memory(
    *, client: Any = None, server: Any = None, context: ssl.SSLContext | None = None
) -> AsyncGenerator[World, None]:
    """Run both ends; `client` and `server` are settings to change. Afterwards nothing may be left of them."""
    bugs = _Bugs()
    logger = logging.getLogger("wspool")
    tasks_before = len(anyio.get_running_tasks())
    with pytest.MonkeyPatch.context() as patch, anyio.fail_after(3 * ETERNITY):
        clock = SimpleNamespace(monotonic=anyio.current_time, time=time.time)
        for module in (client_end, relay, server_end, sweeper, tunnel_module):
            patch.setattr(module, "time", clock)
        logger.addHandler(bugs)
        try:
            async with anyio.create_task_group() as tasks:
                world = World(tasks, client, server, context)
                patch.setattr("wspool.websocket._connect.connect_tcp", world.connect_tcp)
                patch.setattr("examples.socks_proxy.dial.connect_any", world.connect_any)
                tasks.start_soon(world.client.sweeper.run)
                tasks.start_soon(world.server.sweeper.run)
                async with world.client.pool:
                    yield world
                await world.check_nothing_is_left()
                tasks.cancel_scope.cancel()
        finally:
            logger.removeHandler(bugs)
    await settle()
    assert len(anyio.get_running_tasks()) == tasks_before
    assert not bugs.said, bugs.said[0]


# --- time -------------------------------------------------------------------------------------------------------


@contextmanager
def taking(seconds: float, *, give_or_take: float = 1e-6) -> Generator[None, None, None]:
    """The block takes so long."""
    began = anyio.current_time()
    yield
    took = anyio.current_time() - began
    assert took == pytest.approx(seconds, abs=give_or_take), f"it took {took} s"


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that nobody is told of."""
    while True:
        if condition():
            return
        await anyio.sleep(TICK)


async def trickle(stream: Any, data: bytes, every: float = 1.0) -> None:
    """Send it byte by byte, the last ones to nobody."""
    try:
        for byte in data:
            await stream.send(bytes([byte]))
            await anyio.sleep(every)
    except (BrokenResourceError, ClosedResourceError):
        pass


async def until_closed(stream: Any) -> bytes:
    """What comes until they hang up."""
    received = bytearray()
    try:
        while True:
            received += await stream.receive()
    except (EndOfStream, BrokenResourceError):
        return bytes(received)


async def answers(websocket: WebSocketConnection, reader: PacketReader | None = None) -> bool:
    """Whether a ping of the tunnel's is answered, behind whatever else was said."""
    reader = reader or PacketReader()
    await websocket.send(encode(Ping(b"anybody?")))
    while True:
        message = await websocket.receive()
        assert isinstance(message, bytes)
        if reader.feed(message, True) == Pong(b"anybody?"):
            return True
