"""The `websockets` library at the other end, over real TCP and TLS: its server, and its client."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio import BrokenResourceError, EndOfStream
from anyio.abc import ByteStream, SocketAttribute
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from wspool.websocket import (
    TLSStream,
    WebSocketClosed,
    WebSocketConnection,
    WebSocketSettings,
    WebSocketStream,
    accept_websocket,
    connect_websocket,
)

MESSAGES: list[Any] = [
    b"",
    b"x",
    "",
    "grüße",
    b"y" * 125,
    b"y" * 126,
    b"y" * 65535,
    b"y" * 65536,
    b"z" * 300_000,
    "€" * 70_000,
]

TLS = pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])


@contextmanager
def their_server(
    handler: Callable[[ServerConnection], None], context: ssl.SSLContext | None, **options: Any
) -> Generator[str, None, None]:
    """A server of the library, in threads of its own; gives its URL."""
    server: Server = serve(handler, "127.0.0.1", 0, ssl=context, compression=None, **options)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        port = server.socket.getsockname()[1]
        yield f"{'wss' if context else 'ws'}://127.0.0.1:{port}/"
    finally:
        server.shutdown()
        thread.join()


def echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


@TLS
async def test_our_client_and_their_server_echo_each_kind_and_size_of_message_with_pings_in_between(
    tls: bool, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with their_server(echo, server_context if tls else None) as url:
        client = await connect_websocket(url, ssl_context=client_context if tls else None)
        for message in MESSAGES:
            assert await client.ping()
            await client.send(message)
            await client.ping()  # the pong may come before the echo, or after it
            assert await client.receive() == message
        await client.aclose()


async def test_their_server_sees_our_close_with_its_code_and_reason() -> None:
    seen: list[ConnectionClosed] = []

    def handler(connection: ServerConnection) -> None:
        try:
            connection.recv()
        except ConnectionClosed as closed:
            seen.append(closed)

    with their_server(handler, None) as url:
        client = await connect_websocket(url)
        await client.aclose(1001, "going home")
    (closed,) = seen
    assert closed.rcvd is not None
    assert (closed.rcvd.code, closed.rcvd.reason) == (1001, "going home")


async def test_our_client_sees_their_close_with_its_code_and_reason() -> None:
    with their_server(lambda connection: connection.close(4000, "enough"), None) as url:
        client = await connect_websocket(url)
        with pytest.raises(BrokenResourceError, match="4000: enough") as caught:
            await client.receive()
        assert isinstance(caught.value.__cause__, WebSocketClosed)
        await client.aclose()


async def test_their_server_gets_a_pong_for_its_ping() -> None:
    answered: list[bool] = []

    def handler(connection: ServerConnection) -> None:
        answered.append(connection.ping().wait(30))
        connection.send("done")

    with their_server(handler, None) as url:
        client = await connect_websocket(url)
        assert await client.receive() == "done"
        await client.aclose()
    assert answered == [True]


async def test_their_server_answers_our_keepalive() -> None:
    """It sends nothing by itself until it has been pinged three times; only its pongs keep the connection alive."""
    pings = threading.Semaphore(0)

    class Counting(ServerConnection):
        def process_event(self, event: Any) -> None:
            if getattr(event, "opcode", None) == Opcode.PING:
                pings.release()
            super().process_event(event)

    def handler(connection: ServerConnection) -> None:
        for _ in range(3):
            assert pings.acquire(timeout=30)
        connection.send("done")

    with their_server(handler, None, create_connection=Counting) as url:
        client = await connect_websocket(url, settings=WebSocketSettings(ping_interval=0.01, ping_timeout=30))
        assert await client.receive() == "done"
        await client.aclose()


async def test_a_subprotocol_is_agreed_upon_with_their_server() -> None:
    def handler(connection: ServerConnection) -> None:
        connection.send(str(connection.subprotocol))

    with their_server(handler, None, subprotocols=["chat.v2", "chat.v1"]) as url:
        client = await connect_websocket(url, subprotocols=["chat.v1"])
        assert await client.receive() == "chat.v1"
        await client.aclose()


# --- our server -----------------------------------------------------------------------------------


async def with_our_server(
    handler: Callable[[WebSocketConnection], Any], context: ssl.SSLContext | None, client: Callable[[str], None]
) -> None:
    """Run their client, in a thread, against a server of ours."""

    async def handle(stream: ByteStream) -> None:
        if context is not None:
            stream = await TLSStream.wrap(stream, server_side=True, ssl_context=context)
        connection = await accept_websocket(stream, subprotocols=["chat"])
        async with connection:
            await handler(connection)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        port = listener.extra(SocketAttribute.local_port)
        await anyio.to_thread.run_sync(client, f"{'wss' if context else 'ws'}://127.0.0.1:{port}/")
        tasks.cancel_scope.cancel()


async def our_echo(connection: WebSocketConnection) -> None:
    async for message in connection:
        await connection.send(message)


@TLS
async def test_their_client_and_our_server_echo_each_kind_and_size_of_message(
    tls: bool, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    def client(url: str) -> None:
        with connect(url, ssl=client_context if tls else None, compression=None, max_size=None) as theirs:
            for message in MESSAGES:
                theirs.send(message)
                assert theirs.recv() == message
            assert theirs.ping().wait(30)

    await with_our_server(our_echo, server_context if tls else None, client)


async def test_their_fragmented_messages_arrive_whole() -> None:
    def client(url: str) -> None:
        with connect(url, compression=None) as theirs:
            theirs.send([b"one ", b"two ", b"", b"three"])
            assert theirs.recv() == b"one two three"
            theirs.send(["eins ", "zwei"])
            assert theirs.recv() == "eins zwei"

    await with_our_server(our_echo, None, client)


async def test_their_client_offers_compression_and_does_without() -> None:
    def client(url: str) -> None:
        with connect(url, compression="deflate", subprotocols=[Subprotocol("chat")]) as theirs:
            assert theirs.subprotocol == "chat"
            theirs.send("hello")
            assert theirs.recv() == "hello"

    await with_our_server(our_echo, None, client)


async def test_our_byte_stream_ends_when_their_client_closes() -> None:
    received: list[bytes] = []

    async def handler(connection: WebSocketConnection) -> None:
        stream = WebSocketStream(connection)
        try:
            while True:
                received.append(await stream.receive())
        except EndOfStream:
            await stream.aclose()

    def client(url: str) -> None:
        with connect(url, compression=None) as theirs:
            theirs.send(b"some bytes")
        assert theirs.close_code == 1000

    await with_our_server(handler, None, client)
    assert b"".join(received) == b"some bytes"
