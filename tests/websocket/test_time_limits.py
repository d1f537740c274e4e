"""Keepalive and every time limit, to the second, on a clock that jumps from one deadline to the next."""

from __future__ import annotations

import math
import ssl
from collections.abc import Generator
from contextlib import contextmanager

import anyio
import pytest
from anyio import BrokenResourceError, ClosedResourceError
from anyio.abc import ByteStream

from tests.jumping_clock import jumping_clock
from tests.tls_pairs import tls_pair
from tests.websocket.frames import Frame, alone, by_wsproto, close, from_server
from wspool.testing import memory_byte_streams, settle
from wspool.websocket import (
    ConnectTimeout,
    UpgradeFailed,
    WebSocketConnection,
    WebSocketSettings,
    WebSocketStream,
    accept_websocket,
)
from wspool.websocket._handshake import ClientHandshake
from wspool.websocket._protocol import BINARY, PING, PONG
from wspool.websocket._url import parse_websocket_url

anyio_backend = jumping_clock

KEEPALIVE = WebSocketSettings(ping_interval=20, ping_timeout=10)


@contextmanager
def taking(seconds: float) -> Generator[None, None, None]:
    """The block takes exactly so long."""
    began = anyio.current_time()
    yield
    assert anyio.current_time() - began == pytest.approx(seconds, abs=1e-6)


async def trickle(stream: ByteStream, data: bytes, every: float) -> None:
    """Send it byte by byte, the last ones to nobody."""
    try:
        for byte in data:
            await anyio.sleep(every)
            await stream.send(bytes([byte]))
    except BrokenResourceError:
        pass


# --- keepalive ------------------------------------------------------------------------------------


async def test_a_quiet_far_end_is_pinged_each_time_that_the_interval_has_passed() -> None:
    connection, far = alone(settings=KEEPALIVE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connection.receive)
        for _ in range(3):
            with taking(20):
                ping = await far.receive()
            assert ping[0] == 0x80 | PING
            # A pong that answers no ping of ours is a sign of life too.
            await far.send(from_server(Frame(PONG, b"unasked")))
        tasks.cancel_scope.cancel()


async def test_a_dead_far_end_is_given_up_when_the_ping_has_not_been_answered_in_time() -> None:
    connection, far = alone(settings=KEEPALIVE)
    with taking(20 + 10), pytest.raises(BrokenResourceError, match="no byte came within 10 s after a ping"):
        await connection.receive()
    assert far.buffered == 10  # one ping, masked, with four bytes
    with taking(0), pytest.raises(BrokenResourceError, match="no byte came within 10 s after a ping"):
        await connection.send(b"x")


async def test_any_byte_is_a_sign_of_life_even_a_part_of_a_header() -> None:
    connection, far = alone(settings=KEEPALIVE)
    raw = from_server(Frame(BINARY, b"slow"))
    async with anyio.create_task_group() as tasks:
        # One second before it would be given up, five times.
        tasks.start_soon(trickle, far, raw, 29)
        with taking(29 * len(raw)):
            assert await connection.receive() == b"slow"


async def test_bytes_that_come_in_time_need_no_ping() -> None:
    connection, far = alone(settings=KEEPALIVE)
    raw = from_server(Frame(BINARY, b"slow"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(trickle, far, raw, 19)
        with taking(19 * len(raw)):
            assert await connection.receive() == b"slow"
    assert far.buffered == 0


async def test_without_an_interval_silence_is_never_broken() -> None:
    connection, far = alone()
    with taking(1_000_000), anyio.move_on_after(1_000_000):
        await connection.receive()
    assert far.buffered == 0


async def test_a_ping_that_a_blocked_sender_keeps_back_does_not_prolong_the_wait() -> None:
    connection, far = alone(max_buffer=100, settings=KEEPALIVE)

    async def send() -> None:
        with pytest.raises((BrokenResourceError, ClosedResourceError)):
            await connection.send(bytes(1000))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        with taking(30), pytest.raises(BrokenResourceError, match="no byte came"):
            await connection.receive()
        await connection.aclose()
    assert far.buffered == 100


async def test_no_ping_follows_our_end_of_file() -> None:
    connection, far = alone(settings=KEEPALIVE)
    await connection.send_eof()
    with taking(30), pytest.raises(BrokenResourceError, match="no byte"):
        await connection.receive()
    assert far.buffered == 8  # the Close, masked, with its code


async def test_a_cancelled_receive_is_cancelled_at_once_while_it_waits_for_a_pong() -> None:
    connection, far = alone(settings=KEEPALIVE)
    with taking(25), anyio.move_on_after(25):
        await connection.receive()
    await far.send(from_server(Frame(BINARY, b"alive")))
    assert await connection.receive() == b"alive"


async def test_a_far_end_that_answers_no_ping_is_given_up_in_time() -> None:
    for settings, seconds in ((None, 20), (WebSocketSettings(ping_timeout=3), 3), (KEEPALIVE, 10)):
        connection, far = alone(settings=settings)
        why = f"no pong came within {seconds} s after a ping"
        with taking(seconds), pytest.raises(BrokenResourceError, match=why):
            await connection.ping()
        assert far.buffered == 10
        with taking(0), pytest.raises(BrokenResourceError, match=why):
            await connection.send(b"x")


async def test_bytes_that_trickle_in_do_not_take_the_place_of_the_pong() -> None:
    connection, far = alone()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(trickle, far, from_server(*[Frame(PONG, b"other")] * 5), 1)
        with taking(20), pytest.raises(BrokenResourceError, match="no pong came"):
            await connection.ping()
        tasks.cancel_scope.cancel()


async def test_a_ping_that_keepalive_repeats_has_the_same_pong() -> None:
    """Of several pings, the far end may answer the last one only (RFC 6455 section 5.5.3)."""
    connection, far = alone(settings=WebSocketSettings(ping_interval=5, ping_timeout=20))

    async def answer_the_last() -> None:
        await anyio.sleep(7)
        raw = await far.receive()
        _, pings = by_wsproto(raw, client=False)
        assert len(pings) == 2
        await far.send(from_server(Frame(PONG, pings[-1])))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer_the_last)
        with taking(7):
            assert await connection.ping()


# --- closing --------------------------------------------------------------------------------------


async def test_closing_waits_for_a_far_end_that_does_not_answer_until_its_limit() -> None:
    connection, far = alone()
    with taking(5):
        await connection.aclose()
    with pytest.raises(ClosedResourceError):
        await connection.send(b"")
    with taking(0):
        await connection.aclose()
    ((kind, code, _),), _ = by_wsproto(await far.receive(), client=False)
    assert (kind, code) == ("close", 1000)


async def test_closing_takes_as_long_as_the_answer_does() -> None:
    connection, far = alone(client=False)

    async def answer() -> None:
        await far.receive()
        await anyio.sleep(3)
        await far.send(close(1000).encode(to_server=True))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        with taking(3):
            await connection.aclose()


async def test_a_client_lets_the_server_close_tcp_first_for_a_second() -> None:
    connection, far = alone()
    await far.send(from_server(close(1000)))
    with taking(1):
        await connection.aclose()
    connection, far = alone()
    await far.send(from_server(close(1000)))
    await far.send_eof()
    with taking(0):
        await connection.aclose()


async def test_closing_is_not_prolonged_by_data_that_keeps_coming() -> None:
    connection, far = alone()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(trickle, far, from_server(Frame(BINARY, bytes(100))), 1)
        with taking(5):
            await connection.aclose()


@pytest.mark.parametrize("seconds", [0.5, 5, 60])
async def test_closing_waits_for_a_blocked_sender_until_its_limit(seconds: float) -> None:
    connection, far = alone(max_buffer=100, settings=WebSocketSettings(close_timeout=seconds))

    async def send() -> None:
        with pytest.raises((BrokenResourceError, ClosedResourceError)):
            await connection.send(bytes(1000))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await settle()
        with taking(seconds):
            await connection.aclose()
    assert far.buffered == 100


async def test_a_violation_is_told_within_the_limit_to_a_far_end_that_reads_nothing() -> None:
    connection, far = alone(max_buffer=4)
    await far.send(from_server(Frame(0x3)))
    with taking(5), pytest.raises(BrokenResourceError):
        await connection.receive()


async def test_an_answer_to_a_ping_waits_no_longer_than_the_limit_for_a_far_end_that_reads_nothing() -> None:
    connection, far = alone(max_buffer=4)
    await far.send(from_server(Frame(PING, b"?")))
    with taking(5), pytest.raises(BrokenResourceError, match="cut off"):
        await connection.receive()


async def test_a_websocket_over_tls_closes_within_one_limit_after_the_other(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    """The websocket's 5 s include those of the TLS stream below it."""
    transports = memory_byte_streams(100_000)
    client, _server = await tls_pair(transports, client_context, server_context)
    stream = WebSocketStream(WebSocketConnection(client, client=True))
    await transports[0].send(bytes(100_000 - transports[1].buffered))  # the buffer is full
    with taking(5):
        await stream.aclose()
    assert transports[0].closed


async def test_a_tls_stream_closes_within_its_limit(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    transports = memory_byte_streams(100_000)
    client, _server = await tls_pair(transports, client_context, server_context, close_timeout=7)
    await transports[0].send(bytes(100_000 - transports[1].buffered))
    with taking(7):
        await client.aclose()
    assert transports[0].closed


# --- opening --------------------------------------------------------------------------------------


REQUEST = ClientHandshake(parse_websocket_url("ws://example.com")).request


async def test_a_request_that_trickles_in_has_the_same_limit_as_silence() -> None:
    for every in (1, 7, math.inf):
        client, server = memory_byte_streams()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(trickle, client, REQUEST, every)
            with taking(10), pytest.raises(ConnectTimeout, match=r"the client's request took longer .* 10 s"):
                await accept_websocket(server)
            assert server.closed
            tasks.cancel_scope.cancel()


async def test_a_handler_has_what_is_left_of_the_limit() -> None:
    async def think(_: object) -> None:
        await anyio.sleep_forever()

    client, server = memory_byte_streams()
    await client.send(REQUEST)
    with taking(10), pytest.raises(ConnectTimeout, match=r"the handler took longer .* 10 s"):
        await accept_websocket(server, think)


async def test_a_client_that_does_not_take_its_acceptance_has_the_same_limit() -> None:
    client, server = memory_byte_streams(100)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, REQUEST)
        with taking(10), pytest.raises(ConnectTimeout, match=r"sending the answer took longer .* 10 s"):
            await accept_websocket(server)


async def test_a_client_that_is_refused_and_stays_is_left_after_a_second() -> None:
    client, server = memory_byte_streams()
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with taking(1), pytest.raises(UpgradeFailed):
        await accept_websocket(server)
    assert server.closed


async def test_a_client_that_does_not_take_its_refusal_has_the_limit_and_a_second() -> None:
    client, server = memory_byte_streams(30)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with taking(10 + 1), pytest.raises(UpgradeFailed) as caught:
            await accept_websocket(server)
        assert caught.value.status == 426
    assert server.closed
