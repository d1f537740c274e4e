"""A websocket as a stream of messages and as a stream of bytes: both ends, over memory, TCP and TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import anyio
import pytest
from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, EndOfStream
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSAttribute

from tests.stream_pairs import memory_pair, tcp_pair
from tests.tls_pairs import tls_pair
from tests.turns import turns_of_another
from tests.websocket.frames import Frame, alone, by_wsproto, close, from_server
from wspool.testing import MemoryByteStream, check_byte_stream, memory_byte_streams, settle
from wspool.websocket._connection import FRAME_SIZE, WebSocketAttribute, WebSocketConnection
from wspool.websocket._errors import ProtocolViolation, WebSocketClosed
from wspool.websocket._protocol import BINARY, CONTINUATION, PING, PONG, TEXT
from wspool.websocket._settings import WebSocketSettings
from wspool.websocket._stream import WebSocketStream

# A close to which no answer comes takes that long; one that does come may take a while on a busy machine.
IMPATIENT = WebSocketSettings(close_timeout=0.2)
PATHS = pytest.mark.parametrize("fast", [True, False], ids=["round wsproto", "through wsproto"])


def over(transports: tuple[ByteStream, ByteStream], **options: Any) -> tuple[WebSocketConnection, WebSocketConnection]:
    """A client and a server."""
    return (
        WebSocketConnection(transports[0], client=True, **options),
        WebSocketConnection(transports[1], client=False, **options),
    )


def memory(**options: Any) -> tuple[WebSocketConnection, WebSocketConnection]:
    return over(memory_byte_streams(), **options)


async def everything(stream: ByteStream) -> bytes:
    received = b""
    while True:
        try:
            received += await stream.receive()
        except EndOfStream:
            return received


async def both(*functions: Callable[[], Any]) -> None:
    async with anyio.create_task_group() as tasks:
        for function in functions:
            tasks.start_soon(function)


# --- the conformance suite ------------------------------------------------------------------------


@PATHS
async def test_it_keeps_every_promise_of_a_byte_stream_in_memory(fast: bool) -> None:
    async def make_pair() -> tuple[ByteStream, ByteStream]:
        client, server = over(await memory_pair(), fast=fast, settings=IMPATIENT)
        return WebSocketStream(client), WebSocketStream(server)

    await check_byte_stream(make_pair, concurrent_send=True)


async def test_it_keeps_every_promise_of_a_byte_stream_over_tls_over_tcp(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async def make_pair() -> tuple[ByteStream, ByteStream]:
        transports = await tls_pair(await tcp_pair(), client_context, server_context)
        client, server = over(transports, settings=IMPATIENT)
        return WebSocketStream(client), WebSocketStream(server)

    await check_byte_stream(make_pair, concurrent_send=True)


# --- messages -------------------------------------------------------------------------------------


@PATHS
async def test_messages_of_both_kinds_and_any_size_arrive_whole(fast: bool) -> None:
    client, server = memory(fast=fast)
    messages: list[Any] = [b"", b"x", "", "grüße", b"y" * 300_000, "€" * 50_000, bytearray(b"z"), memoryview(b"v")]
    for here, there in ((client, server), (server, client)):

        async def send(here: WebSocketConnection = here) -> None:
            for message in messages:
                await here.send(message)

        async def receive(there: WebSocketConnection = there) -> None:
            for message in messages:
                assert await there.receive() == message

        await both(send, receive)


async def test_a_long_message_goes_out_in_frames_of_64_kib() -> None:
    connection, far = alone(client=False)
    sizes: list[int] = []

    async def read() -> None:
        raw = b""
        while len(raw) < 150_000:
            raw += await far.receive()
        at = 0
        while at < len(raw):
            form = raw[at + 1] & 0x7F
            head = {126: 4, 127: 10}.get(form, 2)
            size = form if form < 126 else int.from_bytes(raw[at + 2 : at + head])
            sizes.append(size)
            at += head + size

    await both(read, lambda: connection.send(b"x" * 150_000))
    assert sizes == [FRAME_SIZE, FRAME_SIZE, 150_000 - 2 * FRAME_SIZE]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_a_message_in_ever_so_many_frames_takes_no_more_memory_than_its_size(opcode: int) -> None:
    connection, far = alone()
    first, more, last = (
        from_server(Frame(code, b"ab", fin=fin))
        for code, fin in ((opcode, False), (CONTINUATION, False), (CONTINUATION, True))
    )
    received: list[Any] = []

    async def receive() -> None:
        received.append(await connection.receive())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await far.send(first)
        for _ in range(10):
            await far.send(more * 1000)
        await settle()
        # Each one is an object of a hundred bytes: 10 001 of them would take a megabyte.
        assert len(connection._parts) < 300
        await far.send(last)
    assert received == ["ab" * 10_002 if opcode == TEXT else b"ab" * 10_002]


async def test_messages_of_several_senders_are_not_mixed() -> None:
    client, server = memory()
    messages = [bytes([number]) * 200_000 for number in range(4)]
    received = []

    async def receive() -> None:
        received.extend([await server.receive() for _ in messages])

    await both(receive, *[lambda message=message: client.send(message) for message in messages])
    assert sorted(received) == messages


async def test_nothing_is_read_while_nobody_receives_so_that_a_sender_waits() -> None:
    client, server = memory()
    assert isinstance(server._transport, MemoryByteStream)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, b"x" * 1_000_000)
        await settle()
        assert server._transport.receives == 0
        assert client._writer.locked
        assert await server.receive() == b"x" * 1_000_000
    assert not client._writer.locked


async def test_what_was_received_with_the_handshake_comes_first() -> None:
    frame = from_server(Frame(BINARY, b"early"))
    connection, far = alone(received=frame + frame[:3])
    assert await connection.receive() == b"early"
    await far.send(frame[3:])
    assert await connection.receive() == b"early"


async def test_iterating_ends_when_they_close() -> None:
    client, server = memory()

    async def send() -> None:
        await client.send(b"one")
        await client.send("two")
        await client.aclose()

    received: list[Any] = []

    async def receive() -> None:
        received.extend([message async for message in server])
        await server.aclose()

    await both(send, receive)
    assert received == [b"one", "two"]


# --- closing --------------------------------------------------------------------------------------


async def test_a_close_is_answered_and_told_with_its_code_and_reason() -> None:
    client, server = memory()
    ended: list[BaseException] = []

    async def receive() -> None:
        for _ in range(2):
            with pytest.raises(EndOfStream) as caught:
                await server.receive()
            assert caught.value.__cause__ is not None
            ended.append(caught.value.__cause__)
        with pytest.raises(BrokenResourceError, match="closed by the far end with code 1001: bye"):
            await server.send(b"too late")
        await server.aclose()

    await both(receive, lambda: client.aclose(1001, "bye"))
    assert isinstance(ended[0], WebSocketClosed)
    assert (ended[0].code, ended[0].reason) == (1001, "bye")
    assert ended[1] is ended[0]
    assert repr(server) == "<WebSocketConnection, server, closed>"


@pytest.mark.parametrize(
    ("code", "reason", "error", "why"),
    [
        (1005, "bye", ValueError, "1005 .* got 'bye'"),
        (1000, "\ud800", ValueError, "surrogates"),
        (1000, b"bye", TypeError, "reason must be a string, got b'bye'"),
        ("1000", "", TypeError, "code must be a whole number, got '1000'"),
        (1000.0, "", TypeError, r"code must be a whole number, got 1000\.0"),
        (True, "", TypeError, "code must be a whole number, got True"),
        *[
            (code, "", ValueError, rf"code must be 1000 to 1003, .* \(RFC 6455 section 7.4\), got {code}")
            for code in (5, 999, 1004, 1006, 1015, 1016, 2999, 5000, 99_999)
        ],
    ],
)
async def test_a_close_that_cannot_be_sent_is_refused_and_nothing_closed(
    code: Any, reason: Any, error: type[Exception], why: str
) -> None:
    connection, far = alone()
    with pytest.raises(error, match=why):
        await connection.aclose(code, reason)
    await connection.send(b"x")
    assert far.buffered == 7


async def test_every_code_that_can_be_sent_is_received_and_given_back() -> None:
    async def receive(server: WebSocketConnection) -> None:
        with pytest.raises((EndOfStream, BrokenResourceError)):
            await server.receive()
        await server.aclose()

    for code in (1000, 1001, 1002, 1003, 1005, *range(1007, 1015), 3000, 4999):
        client, server = memory()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive, server)
            await client.aclose(code, "" if code == 1005 else "bye")
        for ending in (server._ending, client._ending):
            assert isinstance(ending, WebSocketClosed)
            assert ending.code == code


async def test_a_close_with_an_error_code_is_an_error() -> None:
    connection, far = alone()
    await far.send(from_server(close(1011, "oops")))
    with pytest.raises(BrokenResourceError, match="code 1011: oops") as caught:
        await connection.receive()
    assert isinstance(caught.value.__cause__, WebSocketClosed)


async def test_an_end_without_a_close_is_an_error() -> None:
    connection, far = alone()
    await far.aclose()
    for _ in range(2):
        with pytest.raises(BrokenResourceError, match="ended without a Close"):
            await connection.receive()
    with pytest.raises(BrokenResourceError, match="ended without a Close"):
        await connection.send(b"")
    assert "broken" in repr(connection)


async def test_a_broken_transport_is_told_and_stays_broken() -> None:
    connection, far = alone()
    assert isinstance(connection._transport, MemoryByteStream)
    connection._transport.fail_after(0)
    with pytest.raises(BrokenResourceError):
        await connection.receive()
    with pytest.raises(BrokenResourceError, match="the connection is broken"):
        await connection.receive()
    await connection.aclose()
    assert far.buffered == 0


@pytest.mark.parametrize("error", [OSError(5, "failed"), ssl.SSLError("failed"), BrokenResourceError("failed")])
async def test_an_error_of_the_transport_is_told_as_a_broken_connection_and_keeps_no_frames(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> Any:
        raise error

    connection, _ = alone()
    monkeypatch.setattr(connection, "_put", fail)
    for _ in range(2):
        with pytest.raises(BrokenResourceError, match=r"the connection broke while sending: .*failed") as caught:
            await connection.send(b"x")
        assert caught.value.__cause__ is error
    assert error.__traceback__ is None
    connection, _ = alone()
    monkeypatch.setattr(connection, "_take", fail)
    for _ in range(2):
        with pytest.raises(BrokenResourceError, match=r"the connection is broken: .*failed") as caught:
            await connection.receive()
        assert caught.value.__cause__ is error
    assert error.__traceback__ is None


async def test_what_they_sent_before_they_left_is_received_though_nothing_can_be_sent_to_them() -> None:
    connection, far = alone()
    for frame in (Frame(BINARY, b"x"), Frame(PING, b"?"), Frame(BINARY, b"last words"), close(1008, "policy")):
        await far.send(from_server(frame))
    await far.aclose()
    assert isinstance(connection._transport, MemoryByteStream)
    connection._transport.max_read = 10
    assert await connection.receive() == b"x"
    for _ in range(2):
        with pytest.raises(BrokenResourceError, match="broke while sending"):
            await connection.send(b"x")
    assert await connection.receive() == b"last words"
    for _ in range(2):
        with pytest.raises(BrokenResourceError, match="code 1008: policy"):
            await connection.receive()
    await connection.aclose()


async def test_a_close_is_told_though_they_left_before_it_could_be_answered() -> None:
    connection, far = alone()
    await far.send(from_server(close(1001, "bye")))
    await far.aclose()
    for _ in range(2):
        with pytest.raises(EndOfStream) as caught:
            await connection.receive()
        assert isinstance(caught.value.__cause__, WebSocketClosed)
    with pytest.raises(BrokenResourceError, match="code 1001: bye"):
        await connection.send(b"too late")


async def test_a_violation_is_told_and_the_transport_dropped_though_they_left() -> None:
    connection, far = alone()
    await far.send(from_server(Frame(0x3)))
    await far.aclose()
    for _ in range(2):
        with pytest.raises(BrokenResourceError, match="invalid opcode 0x3"):
            await connection.receive()
    assert isinstance(connection._transport, MemoryByteStream)
    assert connection._transport.closed


async def test_a_receive_ends_as_closed_when_another_task_closes_and_they_just_leave() -> None:
    connection, far = alone()

    async def receive() -> None:
        with pytest.raises(ClosedResourceError):
            await connection.receive()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await settle()
        tasks.start_soon(connection.aclose)
        await settle()
        await far.aclose()


async def test_what_was_on_its_way_does_not_keep_them_from_closing() -> None:
    client, server = memory()

    async def busy() -> None:
        with pytest.raises((BrokenResourceError, ClosedResourceError)):
            while True:
                await client.send(b"x" * 1000)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(busy)
        await settle()
        tasks.start_soon(server.aclose)
        with pytest.raises(EndOfStream):
            await client.receive()
        await client.aclose()


async def test_a_cancelled_close_closes_the_transport_at_once() -> None:
    connection, far = alone()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await connection.aclose()
    assert await everything(far) == b""


async def test_a_receive_ends_when_another_task_closes() -> None:
    client, server = memory()
    errors: list[BaseException] = []

    async def receive(end: WebSocketConnection) -> None:
        try:
            await end.receive()
        except (ClosedResourceError, EndOfStream) as error:
            errors.append(error)
            await end.aclose()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive, client)
        tasks.start_soon(receive, server)
        await settle()
        await client.aclose()
    assert {type(error) for error in errors} == {ClosedResourceError, EndOfStream}


@PATHS
async def test_an_end_of_file_leaves_the_other_direction_open(fast: bool) -> None:
    client, server = (WebSocketStream(connection) for connection in memory(fast=fast))
    await client.send(b"request")
    await client.send_eof()
    await client.send_eof()
    with pytest.raises(ClosedResourceError, match="end of file"):
        await client.send(b"more")
    assert await server.receive() == b"request"
    with pytest.raises(EndOfStream):
        await server.receive()
    await server.send(b"answer")
    assert await client.receive() == b"answer"
    await server.send_eof()
    with pytest.raises(EndOfStream):
        await client.receive()
    await both(client.aclose, server.aclose)


async def test_after_both_ends_of_file_nothing_is_left_to_send() -> None:
    client, server = memory()
    await client.send_eof()
    with pytest.raises(EndOfStream):
        await server.receive()
    await server.send_eof()
    with pytest.raises(EndOfStream):
        await client.receive()
    for end in (client, server):
        assert not end._protocol.owes_control
    await both(client.aclose, server.aclose)


# --- violations -----------------------------------------------------------------------------------


async def test_a_violation_is_told_to_both_sides_and_the_transport_is_dropped() -> None:
    connection, far = alone()
    await far.send(from_server(Frame(BINARY, b"fine"), Frame(0x3)))
    assert await connection.receive() == b"fine"
    for _ in range(2):
        with pytest.raises(BrokenResourceError, match="invalid opcode 0x3") as caught:
            await connection.receive()
        assert isinstance(caught.value.__cause__, ProtocolViolation)
        assert caught.value.__cause__.code == 1002
    ((kind, code, _),), _ = by_wsproto(await everything(far), client=False)
    assert (kind, code) == ("close", 1002)
    await connection.aclose()


async def test_text_on_a_byte_stream_is_a_violation_with_code_1003() -> None:
    connection, far = alone()
    stream = WebSocketStream(connection)
    await far.send(from_server(Frame(BINARY, b"bytes"), Frame(TEXT, b"text")))
    assert await stream.receive() == b"bytes"
    with pytest.raises(BrokenResourceError, match="only binary"):
        await stream.receive()
    ((_, code, _),), _ = by_wsproto(await everything(far), client=False)
    assert code == 1003


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ("max_frame_size", "a frame of 1001 bytes: max_frame_size is 1000"),
        ("max_message_size", "a message of 1001 bytes or more: max_message_size is 1000"),
    ],
)
async def test_what_is_over_a_limit_is_refused_by_its_header_and_the_limit_named(limit: str, why: str) -> None:
    client, server = memory(settings=WebSocketSettings(**dict[str, Any]({limit: 1000})))
    await client.send(b"x" * 1001)
    with pytest.raises(BrokenResourceError, match=why):
        await server.receive()
    with pytest.raises(BrokenResourceError, match=f"code 1009: {why}"):
        await client.receive()


async def test_a_byte_stream_knows_no_limit_of_messages() -> None:
    client, server = memory(settings=WebSocketSettings(max_message_size=10))
    stream = WebSocketStream(server)
    await client.send(b"x" * 1000)
    assert await stream.receive() == b"x" * 1000


# --- cancellation ---------------------------------------------------------------------------------


async def test_a_send_cancelled_before_it_began_has_sent_nothing() -> None:
    connection, far = alone()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await connection.send(b"never")
    await connection.send(b"x")
    assert far.buffered == 7


async def test_a_send_cut_off_halfway_marks_the_connection_broken() -> None:
    connection, _ = alone()
    returned = False

    async def send() -> None:
        nonlocal returned
        await connection.send(b"x" * 1_000_000)
        returned = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await settle()
        tasks.cancel_scope.cancel()
    assert not returned
    for use in (connection.send(b""), connection.receive(), connection.send_eof()):
        with pytest.raises(BrokenResourceError, match="a send was cut off"):
            await use
    await connection.aclose()


async def test_a_send_that_waits_for_its_turn_can_be_cancelled_without_harm() -> None:
    client, server = memory()

    async def impatient() -> None:
        with scope:
            await client.send(b"impatient")

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, b"x" * 200_000)
        await settle()
        tasks.start_soon(impatient)
        await settle()
        scope.cancel()
        await settle()
        assert await server.receive() == b"x" * 200_000
    await client.send(b"next")
    assert await server.receive() == b"next"


async def test_a_receive_cancelled_between_two_parts_of_a_message_loses_none() -> None:
    connection, far = alone()
    raw = from_server(Frame(BINARY, b"0123456789"))
    for byte in raw[:-1]:
        await far.send(bytes([byte]))
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(connection.receive)
                await settle()
                scope.cancel()
    await far.send(raw[-1:])
    assert await connection.receive() == b"0123456789"


# --- pings ----------------------------------------------------------------------------------------


async def test_a_ping_is_answered_while_somebody_receives() -> None:
    connection, far = alone()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connection.receive)
        await far.send(from_server(Frame(PING, b"you?")))
        raw = await far.receive()
        assert raw == Frame(PONG, b"you?").encode(to_server=True, key=raw[2:6])
        tasks.cancel_scope.cancel()


async def test_a_ping_that_comes_while_a_sender_is_blocked_does_not_stop_the_receiver() -> None:
    connection, far = alone()
    raw = b""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connection.send, b"x" * 70_000)
        await settle()
        await far.send(from_server(Frame(PING, b"you?"), Frame(BINARY, b"data")))
        assert await connection.receive() == b"data"
        assert connection._protocol.owes_control
        while len(raw) < 70_000 + 10 + 8:
            raw += await far.receive()
        await settle()
        raw += await far.receive() if far.buffered else b""
    assert not connection._protocol.owes_control
    assert raw[-10] == 0x80 | PONG


async def test_a_ping_that_comes_after_our_end_of_file_is_not_answered_and_stops_nothing() -> None:
    connection, far = alone()
    stream = WebSocketStream(connection)
    await stream.send_eof()
    await far.send(from_server(Frame(PING, b"you?"), Frame(BINARY, b"one")))
    assert await stream.receive() == b"one"
    await far.send(from_server(Frame(BINARY, b"two")))
    assert await stream.receive() == b"two"
    assert far.buffered == 8  # our Close: a header of two bytes, a key of four, a code of two


# --- the byte stream ------------------------------------------------------------------------------


async def test_short_frames_are_received_together_and_a_long_one_in_parts() -> None:
    client, server = (WebSocketStream(connection) for connection in memory())
    for part in (b"a", b"b", b"", b"c"):
        await client.send(part)
    assert await server.receive() == b"abc"
    await client.send(b"0123456789")
    assert [await server.receive(4) for _ in range(3)] == [b"0123", b"4567", b"89"]


@pytest.mark.parametrize("frame", [Frame(BINARY, b"x"), Frame(BINARY)], ids=["short", "empty"])
async def test_ever_so_many_short_frames_let_others_run(frame: Frame) -> None:
    count, received = 20_000, b""
    raw = from_server(*[frame] * count, Frame(BINARY, b"end"))
    stream = WebSocketStream(alone(received=raw)[0])
    async with turns_of_another() as turns:
        while not received.endswith(b"end"):
            received += await stream.receive()
    assert received == frame.payload * count + b"end"
    assert turns.count >= 50


async def test_empty_messages_are_no_end() -> None:
    client, server = memory()
    stream = WebSocketStream(server)
    await client.send(b"")
    await client.send(b"x")
    assert await stream.receive() == b"x"


async def test_what_was_received_before_a_close_of_ones_own_is_not_handed_out() -> None:
    client, server = memory()
    stream = WebSocketStream(server)
    await client.send(b"0123456789")
    assert await stream.receive(4) == b"0123"
    await both(stream.aclose, client.aclose)
    with pytest.raises(ClosedResourceError):
        await stream.receive(4)


# --- attributes and settings ----------------------------------------------------------------------


async def test_it_tells_its_own_attributes_and_those_of_its_transport(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    transports = await tls_pair(await tcp_pair(), client_context, server_context)
    client, server = over(transports, subprotocol="chat")
    stream = WebSocketStream(client)
    assert stream.extra(WebSocketAttribute.subprotocol) == "chat"
    assert stream.extra(WebSocketAttribute.client)
    assert not server.extra(WebSocketAttribute.client)
    assert stream.extra(TLSAttribute.tls_version) == "TLSv1.3"
    assert stream.extra(SocketAttribute.remote_port)
    assert repr(client) == "<WebSocketConnection, client, open>"
    await both(client.aclose, server.aclose)


@pytest.mark.parametrize("name", [field.name for field in fields(WebSocketSettings)])
@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError)],
)
def test_wrong_settings_are_refused_by_name_and_value(name: str, value: Any, error: type[Exception]) -> None:
    if name.endswith("_size") and value != value:
        error = TypeError  # it is no whole number either
    with pytest.raises(error, match=rf"{name} must be .*{value!r}"):
        WebSocketSettings(**{name: value})


@pytest.mark.parametrize("name", ["max_frame_size", "max_message_size"])
def test_a_size_is_a_whole_number(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a whole number or None, got 1.5"):
        WebSocketSettings(**dict[str, Any]({name: 1.5}))


async def test_a_stream_is_made_of_a_connection() -> None:
    transport: Any = memory_byte_streams()[0]
    with pytest.raises(TypeError, match="connection must be a WebSocketConnection, got "):
        WebSocketStream(transport)


def test_a_time_limit_cannot_be_left_out() -> None:
    nothing: Any = None
    with pytest.raises(TypeError, match="close_timeout must be a number, got None"):
        WebSocketSettings(close_timeout=nothing)


async def test_two_tasks_cannot_receive_what_is_left_of_a_part_at_once() -> None:
    client, server = map(WebSocketStream, memory())
    await client.send(b"abc")
    assert await server.receive(1) == b"a"
    server._receiving = True  # as while another task takes its turn
    with pytest.raises(BusyResourceError, match="receiving from"):
        await server.receive(1)
    server._receiving = False
    assert await server.receive() == b"bc"
