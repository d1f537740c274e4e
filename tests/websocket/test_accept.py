"""Accepting a websocket: every answer is sent whole, and whatever fails, the stream is closed."""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import (
    BrokenResourceError,
    ClosedResourceError,
    EndOfStream,
    Event,
    create_memory_object_stream,
    create_task_group,
    fail_after,
    lowlevel,
)
from anyio.abc import ByteStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from anyio.streams.tls import TLSStream

from wspool.websocket._accept import accept_websocket
from wspool.websocket._connection import WebSocketAttribute, WebSocketConnection
from wspool.websocket._errors import ConnectTimeout, UpgradeFailed
from wspool.websocket._handshake import Accept, Agreement, ClientHandshake, Request, Response
from wspool.websocket._url import parse_websocket_url

PLAIN = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"


ENDS: list[End] = []


@pytest.fixture(autouse=True)
def close_the_ends() -> Iterator[None]:
    """Memory streams want to be closed; that `accept_websocket` does it is for the tests to say."""
    yield
    while ENDS:
        ENDS.pop().close()


class End(ByteStream):
    """One end of a pair in memory, which may fail as told."""

    def __init__(self, send: MemoryObjectSendStream[bytes], receive: MemoryObjectReceiveStream[bytes]) -> None:
        self._send = send
        self._receive = receive
        self.sending_fails: Exception | None = None
        self.receiving_fails: Exception | None = None
        self.closing_fails: Exception | None = None
        self.closed = False
        ENDS.append(self)

    def close(self) -> None:
        self._send.close()
        self._receive.close()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if self.receiving_fails is not None:
            raise self.receiving_fails
        return await self._receive.receive()

    async def send(self, item: bytes) -> None:
        if self.sending_fails is not None:
            raise self.sending_fails
        await self._send.send(item)

    async def send_eof(self) -> None:
        await lowlevel.checkpoint()
        self._send.close()

    async def aclose(self) -> None:
        self.close()
        self.closed = True
        if self.closing_fails is not None:
            raise self.closing_fails
        await lowlevel.checkpoint()

    def unread(self) -> int:
        """How many items the other end has not taken yet."""
        return self._send.statistics().current_buffer_used

    async def receive_all(self) -> bytes:
        data = b""
        while True:
            try:
                data += await self.receive()
            except EndOfStream:
                return data


def new_pair(*, buffered: float = math.inf) -> tuple[End, End]:
    """The client's end and the server's."""
    to_server = create_memory_object_stream[bytes](math.inf)
    to_client = create_memory_object_stream[bytes](buffered)
    return End(to_server[0], to_client[1]), End(to_client[0], to_server[1])


def new_handshake(**arguments: Any) -> ClientHandshake:
    return ClientHandshake(parse_websocket_url("ws://example.com/chat?room=1"), **arguments)


async def agree(end: ByteStream, handshake: ClientHandshake) -> Agreement:
    while True:
        agreement = handshake.receive(await end.receive())
        if agreement is not None:
            return agreement


async def refused(message: bytes, handler: Any = None, **arguments: Any) -> tuple[bytes, UpgradeFailed]:
    """What a client that sends this is answered, and the error."""
    client, server = new_pair()
    await client.send(message)
    await client.send_eof()
    with pytest.raises(UpgradeFailed) as caught:
        await accept_websocket(server, handler, **arguments)
    assert server.closed
    return await client.receive_all(), caught.value


async def test_an_upgrade_is_accepted_and_messages_pass() -> None:
    client, server = new_pair()
    handshake = new_handshake(subprotocols=["a", "b"])
    await client.send(handshake.request)
    there = await accept_websocket(server, subprotocols=["b"])
    agreement = await agree(client, handshake)
    assert agreement.subprotocol == there.extra(WebSocketAttribute.subprotocol) == "b"
    here = WebSocketConnection(client, client=True)
    await here.send("ping")
    assert await there.receive() == "ping"
    await there.send(b"pong")
    assert await here.receive() == b"pong"
    async with create_task_group() as group:
        group.start_soon(there.aclose)
        group.start_soon(here.aclose)


async def test_a_request_may_come_byte_by_byte() -> None:
    client, server = new_pair()
    handshake = new_handshake()
    for byte in handshake.request:
        await client.send(bytes([byte]))
    connection = await accept_websocket(server)
    assert await agree(client, handshake) == Agreement(None, b"")
    assert connection.extra(WebSocketAttribute.subprotocol) is None


def choose(request: Request) -> Accept:
    assert (request.method, request.path, request.query, request.host) == ("GET", "/chat", "room=1", "example.com")
    assert (b"x-token", b"1") in request.headers
    assert request.upgrade
    return Accept(request.subprotocols[-1], {"Set-Cookie": "x=1"})


async def choose_later(request: Request) -> Accept:
    await lowlevel.checkpoint()
    return choose(request)


@pytest.mark.parametrize("handler", [choose, choose_later])
async def test_the_handler_sees_the_request_and_chooses(handler: Any) -> None:
    client, server = new_pair()
    handshake = new_handshake(subprotocols=["a", "b"], headers={"X-Token": "1"})
    await client.send(handshake.request)
    connection = await accept_websocket(server, handler, subprotocols=["a"])
    assert connection.extra(WebSocketAttribute.subprotocol) == "b"
    answer = await client.receive()
    assert b"Set-Cookie: x=1\r\n" in answer
    assert handshake.receive(answer) == Agreement("b", b"")


async def test_a_handler_that_returns_none_leaves_it_to_the_default() -> None:
    client, server = new_pair()
    await client.send(new_handshake(subprotocols=["a"]).request)
    connection = await accept_websocket(server, lambda request: None, subprotocols=["a"])
    assert connection.extra(WebSocketAttribute.subprotocol) == "a"


async def test_a_refusal_is_sent_and_said() -> None:
    answer, error = await refused(new_handshake().request, lambda request: Response(403, {"X": "y"}, b"no"))
    assert answer == b"HTTP/1.1 403 Forbidden\r\nX: y\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
    assert (error.status, error.headers, error.body) == (403, [(b"X", b"y")], b"no")
    assert str(error) == "no websocket was opened; the client was answered 403 Forbidden: GET '/chat'"


async def test_plain_http_can_be_answered() -> None:
    answer, error = await refused(PLAIN, lambda request: Response(200 + request.upgrade, body=b"fine"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nfine")
    assert error.status == 200


async def test_by_default_plain_http_is_told_to_upgrade() -> None:
    answer, error = await refused(PLAIN)
    assert answer.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
    assert error.status == 426


def never(request: Request) -> None:
    raise AssertionError("must not be asked")


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (new_handshake().request + b"\x81\x80aaaa", 400),
        (new_handshake().request.replace(b": 13", b": 12"), 426),
        (b"\xff\r\n\r\n", 400),
        (PLAIN[:-2] + b"X: " + b"x" * 16384, 431),
    ],
)
async def test_a_request_that_breaks_the_rules_is_refused_without_the_handler(message: bytes, status: int) -> None:
    answer, error = await refused(message, never)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert error.status == status


@pytest.mark.parametrize(
    ("message", "handler", "error", "why"),
    [
        (PLAIN, lambda request: Accept(), ValueError, "only a request with upgrade=True can be accepted"),
        (new_handshake().request, lambda request: Accept("a"), ValueError, "one that the client offers"),
        (new_handshake().request, lambda request: True, TypeError, "handler must return an Accept, a Response or None"),
        (new_handshake().request, lambda request: 1 // 0, ZeroDivisionError, "zero"),
    ],
)
async def test_a_handler_that_fails_is_a_500_and_its_exception_comes_out(
    message: bytes, handler: Any, error: type[Exception], why: str
) -> None:
    client, server = new_pair()
    await client.send(message)
    await client.send_eof()
    with pytest.raises(error, match=why):
        await accept_websocket(server, handler)
    assert server.closed
    assert (await client.receive_all()).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")


@pytest.mark.parametrize(("came", "why"), [(b"", "without a request"), (PLAIN[:9], "in the middle of its request")])
async def test_a_client_that_leaves_is_said(came: bytes, why: str) -> None:
    answer, error = await refused(came) if came else await refused(b"")
    assert answer == b""
    assert error.status is None
    assert str(error) == f"the client closed the connection {why}"


BREAKS = [BrokenResourceError(), ClosedResourceError(), ConnectionResetError("reset"), ssl.SSLError("broken")]


@pytest.mark.parametrize("broken", BREAKS, ids=repr)
async def test_a_connection_that_breaks_before_the_request_is_a_client_that_left(broken: Exception) -> None:
    _, server = new_pair()
    server.receiving_fails = broken
    with pytest.raises(UpgradeFailed, match="the client closed the connection without a request") as caught:
        await accept_websocket(server)
    assert caught.value.__cause__ is broken
    assert server.closed


@pytest.mark.parametrize("broken", BREAKS, ids=repr)
async def test_a_connection_that_breaks_before_the_acceptance_is_said(broken: Exception) -> None:
    client, server = new_pair()
    await client.send(new_handshake().request)
    server.sending_fails = server.closing_fails = broken
    with pytest.raises(UpgradeFailed, match="the client went away before it was answered") as caught:
        await accept_websocket(server)
    assert caught.value.status is None
    assert server.closed


@pytest.mark.parametrize("broken", BREAKS, ids=repr)
async def test_a_client_that_does_not_wait_for_its_refusal_changes_nothing(broken: Exception) -> None:
    client, server = new_pair()
    await client.send(PLAIN)
    server.sending_fails = server.closing_fails = broken
    await client.send_eof()
    with pytest.raises(UpgradeFailed) as caught:
        await accept_websocket(server)
    assert caught.value.status == 426
    assert server.closed


async def wait_for_ever(request: Request) -> None:
    await anyio.sleep_forever()


@pytest.mark.parametrize(
    ("message", "handler", "what"),
    [
        (PLAIN[:9], None, "the client's request"),
        (new_handshake().request, wait_for_ever, "the handler"),
        (new_handshake().request, None, "sending the answer"),
    ],
)
async def test_a_time_limit_says_what_took_too_long(message: bytes, handler: Any, what: str) -> None:
    client, server = new_pair(buffered=0)
    await client.send(message)
    with pytest.raises(ConnectTimeout, match=f"^{what} took longer than upgrade_timeout allows, 0.01 s$"):
        await accept_websocket(server, handler, upgrade_timeout=0.01)
    assert server.closed


async def test_a_refusal_is_followed_by_an_end_and_the_client_heard_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """On TCP, closing with something unread would reset the connection and overtake the answer."""
    monkeypatch.setattr("wspool.websocket._accept._LINGER_TIME", 60)
    client, server = new_pair()
    await client.send(PLAIN)

    async def refuse() -> None:
        with pytest.raises(UpgradeFailed):
            await accept_websocket(server)

    async with create_task_group() as group:
        group.start_soon(refuse)
        assert (await client.receive_all()).startswith(b"HTTP/1.1 426 ")
        await client.send(b"more")
        await anyio.wait_all_tasks_blocked()
        assert not server.closed
        assert client.unread() == 0
        await client.send_eof()
    assert server.closed


async def test_a_client_that_never_stops_sending_is_not_read_for_ever() -> None:
    client, server = new_pair()
    await client.send(b"\0")
    for _ in range(5):
        await client.send(bytes(65536))
    with pytest.raises(UpgradeFailed) as caught:
        await accept_websocket(server, upgrade_timeout=None)
    assert caught.value.status == 400
    assert server.closed


@pytest.mark.parametrize("came", [b"", new_handshake().request])
async def test_cancellation_closes_the_stream_and_comes_out_as_itself(came: bytes) -> None:
    client, server = new_pair()
    await client.send(came)
    outcome: list[str] = []

    async def accept() -> None:
        try:
            await accept_websocket(server, wait_for_ever)
        except anyio.get_cancelled_exc_class():
            outcome.append("cancelled")
            raise

    async with create_task_group() as group:
        group.start_soon(accept)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert outcome == ["cancelled"]
    assert server.closed


@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [
        ({"subprotocols": "chat"}, TypeError, "subprotocols must be several names"),
        ({"upgrade_timeout": 0}, ValueError, "upgrade_timeout must be more than 0 seconds, got 0"),
        ({"handler": 5}, TypeError, "handler must be a function or None, got 5"),
        ({"settings": {}}, TypeError, "settings must be a WebSocketSettings or None, got {}"),
    ],
)
async def test_wrong_arguments_are_refused_at_once(arguments: Any, error: type[Exception], why: str) -> None:
    _, server = new_pair()
    with pytest.raises(error, match=why):
        await accept_websocket(server, **arguments)
    assert server.closed


async def test_a_connection_that_cannot_be_made_after_the_upgrade_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wspool.websocket._accept.WebSocketConnection", len)
    client, server = new_pair()
    await client.send(new_handshake().request)
    with pytest.raises(TypeError, match="takes no keyword arguments"):
        await accept_websocket(server)
    assert server.closed


# ------------------------------------------------------------------------------------------ real sockets


@asynccontextmanager
async def serving(serve: Callable[[ByteStream], Awaitable[None]]) -> AsyncGenerator[int]:
    """The port at which every connection is served."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, create_task_group() as group:
        group.start_soon(listener.serve, serve)
        address = listener.listeners[0].extra(anyio.abc.SocketAttribute.local_address)
        yield int(address[1])
        group.cancel_scope.cancel()


async def test_a_refusal_arrives_though_the_client_goes_on_sending() -> None:
    statuses: list[int | None] = []

    async def serve(stream: ByteStream) -> None:
        try:
            await accept_websocket(stream)
        except UpgradeFailed as error:
            statuses.append(error.status)
            done.set()

    done = Event()
    with fail_after(20):
        async with serving(serve) as port:
            async with await anyio.connect_tcp("127.0.0.1", port) as client:
                await client.send(PLAIN[:-2] + b"X: " + b"x" * 200_000)
                answer = b""
                with pytest.raises(EndOfStream):
                    while True:
                        answer += await client.receive()
            await done.wait()
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert statuses == [431]


async def test_a_refusal_arrives_over_tls(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    async def serve(stream: ByteStream) -> None:
        wrapped = await TLSStream.wrap(stream, server_side=True, ssl_context=server_context)
        with pytest.raises(UpgradeFailed):
            await accept_websocket(wrapped)

    with fail_after(20):
        async with serving(serve) as port:
            tcp = await anyio.connect_tcp("127.0.0.1", port)
            async with await TLSStream.wrap(tcp, hostname="localhost", ssl_context=client_context) as client:
                await client.send(PLAIN)
                answer = await client.receive()
    assert answer.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")


async def test_a_unix_socket_will_do() -> None:
    here, there = socket.socketpair()
    with fail_after(20):
        client = await anyio.abc.UNIXSocketStream.from_socket(here)
        server = await anyio.abc.UNIXSocketStream.from_socket(there)
        handshake = new_handshake()
        await client.send(handshake.request)
        connection = await accept_websocket(server)
        assert await agree(client, handshake) == Agreement(None, b"")
        await client.aclose()
        await connection.aclose()
