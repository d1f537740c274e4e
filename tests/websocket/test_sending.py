"""The way out of a websocket: what goes in one write, and what ends a send."""

from __future__ import annotations

import ssl
from typing import Any

import anyio
import pytest
from anyio import BrokenResourceError, EndOfStream

from tests.stream_pairs import own_tcp_pair
from tests.tls_pairs import tls_pair
from tests.websocket.frames import Frame, close, from_server
from wspool.testing import MemoryByteStream, memory_byte_streams, settle
from wspool.websocket import TLSStream, WebSocketClosed, WebSocketConnection
from wspool.websocket._protocol import BINARY, CLOSE, PING

LONG = bytes(1_000_000)


def counted(stream: MemoryByteStream, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all writes."""
    sizes, send = list[int](), stream.send

    async def counting_send(item: bytes) -> None:
        sizes.append(len(item))
        await send(item)

    monkeypatch.setattr(stream, "send", counting_send)
    return sizes


@pytest.mark.parametrize(
    "messages",
    [[b"a", b"", bytes(1000)], [b"a", "b", bytearray(1000), b"", "", memoryview(b"c")]],
    ids=["bytes", "all"],
)
async def test_short_messages_go_out_in_one_write(messages: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = memory_byte_streams()
    sizes = counted(here, monkeypatch)
    client, server = WebSocketConnection(here, client=True), WebSocketConnection(there, client=False)
    await client.send_many(messages)
    assert len(sizes) == 1
    assert [await server.receive() for _ in messages] == messages


async def test_what_is_sent_in_frames_is_a_message_each() -> None:
    here, there = memory_byte_streams()
    client, server = WebSocketConnection(here, client=True), WebSocketConnection(there, client=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send_frames, bytes(100_000))
        assert len(await server.receive()) == 65_536
        assert len(await server.receive()) == 34_464


async def test_long_messages_go_out_in_writes_of_about_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = memory_byte_streams()
    sizes = counted(here, monkeypatch)
    client, server = WebSocketConnection(here, client=True), WebSocketConnection(there, client=False)
    messages = [bytes(1000), bytes(200_000), bytes(1000)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send_many, messages)
        assert [await server.receive() for _ in messages] == messages
    assert max(sizes) < 70_000
    assert len(sizes) == 4


@pytest.mark.parametrize("message", [b"", b"x"])
async def test_however_short_many_messages_are_a_write_has_its_bound(
    message: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = memory_byte_streams()
    sizes = counted(here, monkeypatch)
    client, server = WebSocketConnection(here, client=True), WebSocketConnection(there, client=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send_many, [message] * 20_000)
        assert [await server.receive() for _ in range(20_000)] == [message] * 20_000
    assert max(sizes) < 70_000


async def test_sending_no_message_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    here, _there = memory_byte_streams()
    sizes = counted(here, monkeypatch)
    await WebSocketConnection(here, client=True).send_many([])
    assert sizes == []


async def test_what_is_owed_goes_out_with_the_next_message(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = memory_byte_streams()
    sizes = counted(here, monkeypatch)
    client = WebSocketConnection(here, client=True, received=from_server(Frame(PING, b"1"), Frame(BINARY, b"x")))
    assert await client.receive() == b"x"
    await client.send(b"y")
    assert len(sizes) == 1
    received = await there.receive()
    # Masked frames of one byte each: two of header, four of key.
    assert [received[0] & 0xF, received[7] & 0xF] == [BINARY, 0xA]


@pytest.mark.parametrize("operation", ["send", "send_eof"])
async def test_a_pong_is_sent_though_who_was_to_send_it_is_cancelled(
    operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = memory_byte_streams()
    second, gate, send = anyio.CancelScope(), anyio.Event(), here.send

    async def slow_send(item: bytes) -> None:
        await gate.wait()
        await send(item)

    async def send_first() -> None:
        await client.send(b"x")
        # The second has its turn already, and has not gone on yet.
        second.cancel()
        await client.receive_part()

    async def send_second() -> None:
        with second:
            await (client.send(b"y") if operation == "send" else client.send_eof())

    monkeypatch.setattr(here, "send", slow_send)
    client = WebSocketConnection(here, client=True, received=from_server(Frame(PING, b"1")))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send_first)
        await settle()
        tasks.start_soon(send_second)
        await settle()
        gate.set()
        await settle()
        # Masked frames of one byte each: two of header, four of key.
        received = await there.receive()
        assert [received[0] & 0xF, received[7] & 0xF] == [BINARY, 0xA]
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("wrong", "error"), [("\ud800", UnicodeEncodeError), (5, TypeError), (None, TypeError), ([b"x"], TypeError)]
)
async def test_what_cannot_be_sent_harms_no_other_message(wrong: Any, error: type[Exception]) -> None:
    here, there = memory_byte_streams()
    client, server = WebSocketConnection(here, client=True), WebSocketConnection(there, client=False)
    with pytest.raises(error):
        await client.send(wrong)
    with pytest.raises(error):
        await client.send_many([b"not sent either", wrong])
    await client.send(b"x")
    assert await server.receive() == b"x"


@pytest.mark.parametrize("one", ["text", b"bytes", bytearray(b"x"), memoryview(b"x")])
async def test_one_message_is_not_taken_for_several(one: Any) -> None:
    here, _there = memory_byte_streams()
    with pytest.raises(TypeError, match="send_many takes several messages"):
        await WebSocketConnection(here, client=True).send_many(one)


async def test_a_long_send_ends_when_they_close_meanwhile_and_their_close_is_answered() -> None:
    here, there = memory_byte_streams(100_000)
    client = WebSocketConnection(here, client=True)

    async def send() -> None:
        with pytest.raises(BrokenResourceError, match="1000") as caught:
            await client.send(LONG)
        assert isinstance(caught.value.__cause__, WebSocketClosed)

    async def receive() -> None:
        with pytest.raises(EndOfStream):
            await client.receive()

    received = b""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        tasks.start_soon(receive)
        await settle()
        await there.send(from_server(close(1000)))
        await settle()
        tasks.start_soon(client.aclose)
        while True:
            try:
                received += await there.receive()
            except EndOfStream:
                break
    assert len(received) < len(LONG)
    # Last came our Close: a header of two bytes, a key of four, a code of two.
    assert received[-8] == 0x80 | CLOSE


async def test_a_long_send_ends_when_they_break_the_protocol_meanwhile() -> None:
    here, there = memory_byte_streams(100_000)
    client = WebSocketConnection(here, client=True)

    async def expect_broken(use: Any) -> None:
        with pytest.raises(BrokenResourceError, match="reserved bit"):
            await use

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(expect_broken, client.send(LONG))
        tasks.start_soon(expect_broken, client.receive())
        await settle()
        await there.send(b"\xf2\x00")
    await client.aclose()


async def test_a_tls_stream_over_our_tcp_finishes_what_the_kernel_does_not_take_at_once(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    client, server = await tls_pair(await own_tcp_pair(), client_context, server_context)
    assert isinstance(client, TLSStream)
    received = bytearray()
    async with client, server, anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, LONG * 20)
        await settle()  # it has filled all buffers
        while len(received) < len(LONG) * 20:
            received += await server.receive()
    assert not any(received)
