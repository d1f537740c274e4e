"""Who carries bytes over TLS, without a websocket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
from anyio.streams.tls import TLSStream as AnyioTLSStream

from wspool.websocket import TLSStream, connect_tcp, listen_tcp

from .ends import ASYNCIO_ONLY, READ_SIZE, Contender, End, OnAnyio, byte_end

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    import trio
    from anyio.abc import ByteStream, Listener

    from .ends import Use


class Ours(OnAnyio):
    name = "wspool"

    async def listen(self) -> Listener[ByteStream]:
        return await listen_tcp("127.0.0.1")

    async def client(self, port: int, context: ssl.SSLContext) -> End:
        stream = await connect_tcp("127.0.0.1", port)
        return byte_end(await TLSStream.wrap(stream, hostname="localhost", ssl_context=context))

    async def accept(self, stream: ByteStream, context: ssl.SSLContext) -> End:
        return byte_end(await TLSStream.wrap(stream, server_side=True, ssl_context=context))


class Anyio(OnAnyio):
    name = "anyio's TLSStream"

    async def client(self, port: int, context: ssl.SSLContext) -> End:
        stream = await anyio.connect_tcp("127.0.0.1", port)
        return byte_end(await AnyioTLSStream.wrap(stream, hostname="localhost", ssl_context=context))

    async def accept(self, stream: ByteStream, context: ssl.SSLContext) -> End:
        return byte_end(await AnyioTLSStream.wrap(stream, server_side=True, ssl_context=context))


class AsyncioStreams(Contender):
    """`drain` after each write, as its documentation says."""

    name = "asyncio's streams"
    backends = ASYNCIO_ONLY

    async def client(self, port: int, context: ssl.SSLContext) -> End:
        connection = asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        return self._end(*await connection)

    async def serve(
        self, context: ssl.SSLContext, use: Use, listening: Callable[[int], None], until: anyio.Event
    ) -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await use(self._end(reader, writer))

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
        listening(server.sockets[0].getsockname()[1])
        await until.wait()
        server.close()

    def _end(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> End:
        async def send(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        async def receive() -> list[bytes]:
            return [await reader.read(READ_SIZE)]

        async def close() -> None:
            writer.transport.abort()

        return End(send, receive, close)


class TrioSSLStream(Contender):
    name = "trio's SSLStream"
    backends = ("trio",)

    async def client(self, port: int, context: ssl.SSLContext) -> End:
        import trio

        stream = await trio.open_tcp_stream("127.0.0.1", port)
        return self._end(trio.SSLStream(stream, context, server_hostname="localhost"))

    async def serve(
        self, context: ssl.SSLContext, use: Use, listening: Callable[[int], None], until: anyio.Event
    ) -> None:
        import trio

        async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
            await use(self._end(stream))

        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        listening(listener.socket.getsockname()[1])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, handle, [trio.SSLListener(listener, context)])
            await until.wait()
            nursery.cancel_scope.cancel()

    def _end(self, stream: trio.SSLStream[trio.SocketStream]) -> End:
        import trio

        async def receive() -> list[bytes | bytearray]:
            return [await stream.receive_some(READ_SIZE)]

        async def close() -> None:
            await trio.aclose_forcefully(stream)

        return End(stream.send_all, receive, close)


CONTENDERS: tuple[type[Contender], ...] = (Anyio, Ours, AsyncioStreams, TrioSSLStream)
