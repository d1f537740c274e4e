"""A websocket that lies idle is asked whether it is alive; what came meanwhile is noticed, and no message is lost."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, EndOfStream
from anyio.abc import ByteStream

from tests.stream_pairs import memory_pair, own_tcp_pair, reset, tcp_pair
from tests.tls_pairs import tls_pair
from tests.websocket.frames import Frame, alone, by_wsproto, close, from_server
from wspool.testing import MemoryByteStream, memory_byte_streams, settle
from wspool.websocket import ProtocolViolation, WebSocketClosed, WebSocketConnection, WebSocketStream, _turns
from wspool.websocket._connection import READ_SIZE
from wspool.websocket._protocol import BINARY, CONTINUATION, PING, PONG, TEXT

Pair = tuple[ByteStream, ByteStream]


@pytest.fixture(params=["memory", "anyio TCP", "TCP", "TLS in memory", "TLS over TCP"])
def make_pair(
    request: pytest.FixtureRequest, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> Callable[[], Awaitable[Pair]]:
    plain = {"memory": memory_pair, "anyio TCP": tcp_pair, "TCP": own_tcp_pair}

    async def over_tls() -> Pair:
        transports = await (memory_pair if "memory" in request.param else own_tcp_pair)()
        return await tls_pair(transports, client_context, server_context)

    return plain.get(request.param, over_tls)


async def answer(far: MemoryByteStream, *behind: Frame) -> None:
    _, (payload,) = by_wsproto(await far.receive(), client=False)
    await far.send(from_server(Frame(PONG, payload), *behind))


# --- what it finds --------------------------------------------------------------------------------


async def test_a_far_end_that_is_there_is_found_alive(make_pair: Callable[[], Awaitable[Pair]]) -> None:
    here, there = await make_pair()
    client, server = WebSocketConnection(here, client=True), WebSocketConnection(there, client=False)
    received: list[Any] = []

    async def receive() -> None:
        received.extend([await server.receive(), await server.receive()])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        assert await client.ping()
        await client.send("one")
        assert await client.ping()
        await client.send(b"two")
    assert received == ["one", b"two"]
    await anyio.aclose_forcefully(here)
    await anyio.aclose_forcefully(there)


async def test_a_close_that_came_meanwhile_is_told_and_answered(make_pair: Callable[[], Awaitable[Pair]]) -> None:
    here, there = await make_pair()
    client, server = WebSocketConnection(here, client=True), WebSocketConnection(there, client=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.aclose, 1001, "idle for too long")
        with pytest.raises(EndOfStream) as caught:
            await client.ping()
        assert isinstance(caught.value.__cause__, WebSocketClosed)
        with pytest.raises(EndOfStream):
            await client.ping()
        assert not client._protocol.owes_control
        await client.aclose()
    assert isinstance(server._ending, WebSocketClosed)
    assert server._ending.code == 1001


async def test_a_message_that_came_meanwhile_is_told_and_the_next_receive_returns_it(
    make_pair: Callable[[], Awaitable[Pair]],
) -> None:
    here, there = await make_pair()
    client, server = WebSocketConnection(here, client=True), WebSocketConnection(there, client=False)
    messages: list[Any] = ["one", b"two", bytes(100_000)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.send_many, messages)
        for message in messages:
            assert not await client.ping()
            assert not await client.ping()
            assert await client.receive() == message
        tasks.start_soon(server.receive)
        assert await client.ping()
        tasks.cancel_scope.cancel()
    await anyio.aclose_forcefully(here)
    await anyio.aclose_forcefully(there)


async def test_pings_that_came_meanwhile_are_answered() -> None:
    connection, far = alone()
    await far.send(from_server(Frame(PING, b"1"), Frame(PONG, b"unasked"), Frame(PING, b"2")))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connection.ping)
        await settle()
        told, pings = by_wsproto(await far.receive(), client=False)
        assert told == [("pong", b"2")]
        assert len(pings) == 1
        tasks.cancel_scope.cancel()


async def test_a_reset_that_came_meanwhile_is_told() -> None:
    here, there = await own_tcp_pair()
    reset(there)
    await there.aclose()
    async with WebSocketConnection(here, client=True) as client:
        with pytest.raises(BrokenResourceError):
            await client.ping()


async def test_an_end_and_a_violation_that_came_meanwhile_are_told() -> None:
    connection, far = alone()
    await far.aclose()
    with pytest.raises(BrokenResourceError, match="ended without a Close"):
        await connection.ping()
    connection, far = alone()
    await far.send(from_server(Frame(0x3)))
    with pytest.raises(BrokenResourceError) as caught:
        await connection.ping()
    assert isinstance(caught.value.__cause__, ProtocolViolation)


# --- messages -------------------------------------------------------------------------------------


async def test_a_message_behind_the_pong_is_left_for_the_next_receive() -> None:
    connection, far = alone()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer, far, Frame(TEXT, b"later"))
        assert await connection.ping()
    assert await connection.receive() == "later"


async def test_who_has_a_message_at_hand_does_not_ask() -> None:
    connection, far = alone()
    await far.send(from_server(Frame(BINARY, b"one"), Frame(BINARY, b"two")))
    assert await connection.receive() == b"one"
    for _ in range(3):
        assert not await connection.ping()
    assert not connection._protocol.owes_control
    assert far.buffered == 0
    assert await connection.receive() == b"two"


async def test_a_message_that_is_cut_by_a_ping_arrives_whole() -> None:
    connection, far = alone()
    await far.send(from_server(Frame(BINARY, b"one ", fin=False)))
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.receive)
            await settle()
            scope.cancel()
    await far.send(from_server(Frame(CONTINUATION, b"two ", fin=False), Frame(CONTINUATION, b"three")))
    assert not await connection.ping()
    assert await connection.receive() == b"one two three"


async def test_a_byte_stream_loses_no_part_to_a_ping() -> None:
    connection, far = alone()
    stream = WebSocketStream(connection)
    await far.send(from_server(Frame(BINARY, b"one "), Frame(BINARY, b"two")))
    assert not await connection.ping()
    assert await stream.receive() == b"one two"


async def test_a_far_end_that_floods_is_read_no_further_than_its_first_message() -> None:
    here, far = memory_byte_streams()
    connection = WebSocketConnection(here, client=True)
    async with anyio.create_task_group() as tasks:

        async def flood() -> None:
            while True:
                await far.send(from_server(Frame(BINARY, bytes(1000))))

        tasks.start_soon(flood)
        for _ in range(1000):
            assert not await connection.ping()
        await settle()
        assert len(connection._protocol._buffer) <= READ_SIZE
        assert here.buffered > 60_000
        tasks.cancel_scope.cancel()


async def test_a_far_end_that_floods_with_control_frames_is_left() -> None:
    connection, far = alone()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(far.send, from_server(*[Frame(PONG, b"unasked")] * 1000))
        with pytest.raises(BrokenResourceError, match="a flood of control frames"):
            await connection.ping()


# --- cancellation, other tasks --------------------------------------------------------------------


async def test_a_pong_for_a_cancelled_ping_is_none_for_the_next_one() -> None:
    connection, far = alone()
    alive: list[bool] = []

    async def ping() -> None:
        alive.append(await connection.ping())

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ping)
            await settle()
            scope.cancel()
    _, (late,) = by_wsproto(await far.receive(), client=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ping)
        await settle()
        await far.send(from_server(Frame(PONG, late)))
        await settle()
        assert not alive
        await answer(far)
    assert alive == [True]


async def test_a_cancelled_ping_has_lost_nothing() -> None:
    connection, far = alone()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await connection.ping()
    assert far.buffered == 0
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.ping)
            await settle()
            await far.send(from_server(Frame(BINARY, b"kept")))
            scope.cancel()
    assert await connection.receive() == b"kept"


async def test_only_one_task_receives_or_pings() -> None:
    for first in ("receive", "ping"):
        connection, _far = alone()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(getattr(connection, first))
            await settle()
            for second in ("ping", "receive"):
                with pytest.raises(BusyResourceError):
                    await getattr(connection, second)()
            tasks.cancel_scope.cancel()


async def test_a_ping_that_gives_way_to_others_first_is_the_only_one_all_the_same() -> None:
    connection, far = alone()
    outcomes: list[object] = []

    async def ping() -> None:
        _turns.work.moved = _turns.TURN
        try:
            outcomes.append(await connection.ping())
        except BusyResourceError:
            outcomes.append("busy")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ping)
        tasks.start_soon(ping)
        await answer(far)
    assert outcomes == ["busy", True]


async def test_a_ping_goes_out_behind_what_another_task_is_sending() -> None:
    connection, far = alone()

    async def ping() -> None:
        assert await connection.ping()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connection.send, bytes(70_000))
        await settle()
        tasks.start_soon(ping)
        await settle()
        raw = b""
        while len(raw) < 70_000 + 14 + 8 + 10:
            raw += await far.receive()
        _, (payload,) = by_wsproto(raw[-10:], client=False)
        await far.send(from_server(Frame(PONG, payload)))


async def test_a_ping_ends_when_another_task_closes() -> None:
    connection, far = alone()

    async def ping() -> None:
        with pytest.raises(ClosedResourceError):
            await connection.ping()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ping)
        await settle()
        tasks.start_soon(connection.aclose)
        await settle()
        told, _ = by_wsproto(await far.receive(), client=False)
        assert told == [("close", 1000, "")]
        await far.send(from_server(close(1000)))
        await far.aclose()


async def test_who_has_ended_does_not_ping() -> None:
    connection, far = alone()
    await connection.send_eof()
    with pytest.raises(ClosedResourceError, match="end of file"):
        await connection.ping()
    assert far.buffered == 8  # the Close
    await far.send(from_server(close(1000)))
    await far.aclose()
    await connection.aclose()
    with pytest.raises(ClosedResourceError, match="was closed"):
        await connection.ping()


async def test_a_byte_stream_goes_on_sending_when_a_ping_has_met_their_end_of_file() -> None:
    connection, far = alone()
    stream = WebSocketStream(connection)
    await far.send(from_server(close(1000)))
    with pytest.raises(EndOfStream):
        await connection.ping()
    await stream.send(b"x")
