"""Who carries bytes in a websocket over TLS. All have compression off and no limit on messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio.streams.tls import TLSStream as AnyioTLSStream
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, Request

from wspool.websocket import (
    TLSStream,
    WebSocketConnection,
    WebSocketStream,
    accept_websocket,
    connect_websocket,
    listen_tcp,
)

from .ends import ASYNCIO_ONLY, Contender, End, OnAnyio, byte_end

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from anyio.abc import ByteStream, Listener

    from .ends import Use


class Ours(OnAnyio):
    name = "wspool"

    async def listen(self) -> Listener[ByteStream]:
        return await listen_tcp("127.0.0.1")

    async def client(self, port: int, context: ssl.SSLContext) -> End:
        return self._end(await connect_websocket(f"wss://localhost:{port}/", ssl_context=context))

    async def accept(self, stream: ByteStream, context: ssl.SSLContext) -> End:
        tls = await TLSStream.wrap(stream, server_side=True, ssl_context=context)
        return self._end(await accept_websocket(tls))

    def _end(self, connection: WebSocketConnection) -> End:
        return byte_end(WebSocketStream(connection))


class OursThroughWsproto(Ours):
    name = "wspool, fast=False"

    def _end(self, connection: WebSocketConnection) -> End:
        # Neither `connect_websocket` nor `accept_websocket` passes it on.
        connection._protocol._fast = False
        return super()._end(connection)


class PlainWsproto(OnAnyio):
    """As its documentation shows it, on anyio's own TLS stream."""

    name = "wsproto on anyio's TLSStream"

    async def client(self, port: int, context: ssl.SSLContext) -> End:
        stream = await anyio.connect_tcp("localhost", port, tls=True, ssl_context=context)
        websocket = WSConnection(ConnectionType.CLIENT)
        await stream.send(websocket.send(Request(host="localhost", target="/")))
        websocket.receive_data(await stream.receive())
        assert isinstance(next(websocket.events()), AcceptConnection)
        return self._end(stream, websocket)

    async def accept(self, stream: ByteStream, context: ssl.SSLContext) -> End:
        tls = await AnyioTLSStream.wrap(stream, server_side=True, ssl_context=context)
        websocket = WSConnection(ConnectionType.SERVER)
        websocket.receive_data(await tls.receive())
        assert isinstance(next(websocket.events()), Request)
        await tls.send(websocket.send(AcceptConnection()))
        return self._end(tls, websocket)

    def _end(self, stream: ByteStream, websocket: WSConnection) -> End:
        async def send(payload: bytes) -> None:
            await stream.send(websocket.send(BytesMessage(data=payload)))

        async def receive() -> list[bytes | bytearray]:
            websocket.receive_data(await stream.receive())
            return [event.data for event in websocket.events() if isinstance(event, BytesMessage)]

        return End(send, receive, lambda: anyio.aclose_forcefully(stream))


class Websockets(Contender):
    name = "websockets"
    backends = ASYNCIO_ONLY

    async def client(self, port: int, context: ssl.SSLContext) -> End:
        from websockets.asyncio.client import connect

        return self._end(await connect(f"wss://localhost:{port}/", ssl=context, compression=None, max_size=None))

    async def serve(
        self, context: ssl.SSLContext, use: Use, listening: Callable[[int], None], until: anyio.Event
    ) -> None:
        from websockets.asyncio.server import serve

        async def handle(connection: Any) -> None:
            await use(self._end(connection))

        options: Any = {"ssl": context, "compression": None, "max_size": None}
        async with serve(handle, "127.0.0.1", 0, **options) as server:
            listening(next(iter(server.sockets)).getsockname()[1])
            await until.wait()

    def _end(self, connection: Any) -> End:
        async def receive() -> list[bytes]:
            return [await connection.recv()]

        async def close() -> None:
            connection.transport.abort()

        return End(connection.send, receive, close)


class Aiohttp(Contender):
    name = "aiohttp"
    backends = ASYNCIO_ONLY

    async def client(self, port: int, context: ssl.SSLContext) -> End:
        import aiohttp

        session = aiohttp.ClientSession()
        websocket = await session.ws_connect(f"wss://localhost:{port}/", ssl=context, max_msg_size=0, compress=0)

        async def close() -> None:
            websocket._response.close()
            await session.close()

        return self._end(websocket, close)

    async def serve(
        self, context: ssl.SSLContext, use: Use, listening: Callable[[int], None], until: anyio.Event
    ) -> None:
        from aiohttp import web

        async def handle(request: Any) -> Any:
            websocket = web.WebSocketResponse(max_msg_size=0, compress=False)
            await websocket.prepare(request)

            async def close() -> None:
                if request.transport is not None:  # the far end has not hung up
                    request.transport.abort()

            await use(self._end(websocket, close))
            return websocket

        runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        listening(runner.addresses[0][1])
        await until.wait()
        await runner.cleanup()

    def _end(self, websocket: Any, close: Any) -> End:
        async def receive() -> list[bytes]:
            return [await websocket.receive_bytes()]

        return End(websocket.send_bytes, receive, close)


CONTENDERS: tuple[type[Contender], ...] = (PlainWsproto, Ours, OursThroughWsproto, Websockets, Aiohttp)
