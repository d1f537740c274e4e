"""Both ends of the proxy in one event loop, over real TCP, with whatever can go wrong between them."""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute, TaskGroup

from examples.socks_proxy import client as client_end, server as server_end
from examples.socks_proxy.client import run_client
from examples.socks_proxy.packets import SUBPROTOCOL, Packet, PacketReader
from examples.socks_proxy.policy import Policy
from examples.socks_proxy.server import run_server
from examples.socks_proxy.session_log import SessionRecord
from examples.socks_proxy.settings import ClientSettings, ServerSettings
from wspool.websocket import Accept, TCPStream, WebSocketConnection, accept_websocket, connect_tcp, listen_tcp

Handler: TypeAlias = Callable[[TCPStream], Awaitable[None]]

TOKEN = "a token that nobody knows"
# Longer than anything that works takes on a busy machine.
PATIENCE = 30


@dataclass
class Line:
    """What lies between the ends: a relay of TCP connections that can be cut, or fall silent."""

    tasks: TaskGroup
    to: int
    port: int = 0
    connections: int = 0
    """How many there have been."""
    silent: anyio.Event = field(default_factory=anyio.Event)
    """Replaced by `fall_silent`: connections made before stop carrying anything."""
    scopes: list[anyio.CancelScope] = field(default_factory=list)

    async def handle(self, near: TCPStream) -> None:
        self.connections += 1
        silent = self.silent
        with anyio.CancelScope() as scope:
            self.scopes.append(scope)
            async with near:
                try:
                    far = await connect_tcp("127.0.0.1", self.to)
                except ConnectionRefusedError:
                    return  # the server has ended
                async with far, anyio.create_task_group() as copies:
                    copies.start_soon(self._copy, near, far, silent)
                    copies.start_soon(self._copy, far, near, silent)

    async def _copy(self, source: TCPStream, sink: TCPStream, silent: anyio.Event) -> None:
        try:
            while True:
                data = await source.receive()
                if silent.is_set():
                    await anyio.sleep_forever()
                await sink.send(data)
        except anyio.EndOfStream:
            await sink.send_eof()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass

    def cut(self) -> None:
        """End all connections that there are."""
        for scope in self.scopes:
            scope.cancel()
        self.scopes.clear()

    def fall_silent(self) -> None:
        """Carry nothing more on the connections that there are; new ones work."""
        self.silent.set()
        self.silent = anyio.Event()


@dataclass
class Ends:
    """Both ends at work."""

    tasks: TaskGroup
    line: Line
    server_url: str
    client_port: int
    client: Any
    server: Any
    """The objects of both ends."""
    stop_client: anyio.Event
    stop_server: anyio.Event

    async def listen(self, handler: Handler) -> int:
        """Have a destination; the port."""
        return await serve_in(self.tasks, handler)

    async def ask(self, host: str, port: int) -> tuple[TCPStream, int]:
        """Ask the proxy for a connection: it, and the code of the reply."""
        stream = await connect_tcp("127.0.0.1", self.client_port)
        await stream.send(b"\x05\x01\x00")
        assert await exactly(stream, 2) == b"\x05\x00"
        name = host.encode()
        await stream.send(b"\x05\x01\x00\x03" + bytes((len(name),)) + name + struct.pack("!H", port))
        reply = await exactly(stream, 4)
        await exactly(stream, 6 if reply[3] == 1 else 18)
        return stream, reply[1]

    async def connect(self, port: int) -> TCPStream:
        """A connection through the proxy to a port of this machine."""
        stream, code = await self.ask("127.0.0.1", port)
        assert code == 0, f"reply {code}"
        return stream

    @property
    def pool(self) -> Any:
        return self.client.pool

    async def idle_tunnels(self, count: int) -> None:
        """Wait until so many tunnels are idle."""
        while self.pool.statistics().idle != count:
            await anyio.lowlevel.checkpoint()


async def serve_in(tasks: TaskGroup, handler: Handler) -> int:
    """Accept connections until the task group ends; the port."""
    listener = await listen_tcp("127.0.0.1")

    async def serve() -> None:
        async with listener:
            await listener.serve(handler)

    tasks.start_soon(serve)
    return int(listener.extra(SocketAttribute.local_port))


async def exactly(stream: TCPStream, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += await stream.receive(size - len(received))
    return received


async def everything(stream: TCPStream) -> bytes:
    received = bytearray()
    try:
        while True:
            received += await stream.receive()
    except anyio.EndOfStream:
        return bytes(received)


async def echo(stream: TCPStream) -> None:
    async with stream:
        try:
            while True:
                await stream.send(await stream.receive())
        except anyio.EndOfStream:
            pass
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass


async def packet_from(websocket: WebSocketConnection, reader: PacketReader) -> Any:
    message = await websocket.receive()
    assert isinstance(message, bytes)
    return reader.feed(message, True)


async def tunnel_with(kind: type[Packet], stream: ByteStream) -> WebSocketConnection:
    """As a server that is not ours, accept a tunnel, and wait until such a packet has come on it."""
    websocket = await accept_websocket(stream, lambda _: Accept(subprotocol=SUBPROTOCOL))
    reader = PacketReader()
    while not isinstance(await packet_from(websocket, reader), kind):
        pass
    return websocket


def logged(caplog: pytest.LogCaptureFixture) -> list[SessionRecord]:
    """The sessions that are in the log."""
    return [vars(record)["session"] for record in caplog.records if hasattr(record, "session")]


def remembered(monkeypatch: Any, module: Any, name: str) -> list[Any]:
    """The objects that are made of this class."""
    made: list[Any] = []
    original = getattr(module, name)

    def make(*args: Any) -> Any:
        made.append(original(*args))
        return made[-1]

    monkeypatch.setattr(module, name, make)
    return made


@asynccontextmanager
async def both_ends(monkeypatch: Any, *, client: Any = None, server: Any = None) -> AsyncGenerator[Ends, None]:
    """Run both, without TLS; `client` and `server` are settings to change."""
    made_server = remembered(monkeypatch, server_end, "_ServerEnd")
    made_client = remembered(monkeypatch, client_end, "_ClientEnd")
    stop_client, stop_server = anyio.Event(), anyio.Event()
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:

            async def start(run: Any, settings: Any, stop: anyio.Event) -> str:
                url: list[str] = []
                is_ready = anyio.Event()

                def ready(text: str) -> None:
                    url.append(text)
                    is_ready.set()

                async def running() -> None:
                    await run(settings, ready=ready, stop=stop)

                tasks.start_soon(running)
                await is_ready.wait()
                return url[0]

            far: dict[str, Any] = {
                "token": TOKEN,
                "path": "/tunnel",
                "plain": True,
                "policy": Policy(allow_private=True),
                "grace": PATIENCE,
                **(server or {}),
            }
            server_url = await start(run_server, ServerSettings(listen=("127.0.0.1", 0), **far), stop_server)
            line = Line(tasks, to=urlsplit(server_url).port or 0)
            line.port = await serve_in(tasks, line.handle)
            near: dict[str, Any] = {
                "server": f"ws://127.0.0.1:{line.port}/tunnel",
                "token": TOKEN,
                "min_idle": 0,
                "grace": PATIENCE,
                **(client or {}),
            }
            client_url = await start(run_client, ClientSettings(listen=("127.0.0.1", 0), **near), stop_client)
            client_port = urlsplit(client_url).port or 0
            made = (made_client[0], made_server[0])
            yield Ends(tasks, line, server_url, client_port, *made, stop_client, stop_server)
            tasks.cancel_scope.cancel()
