"""TCP on plain sockets: what `check_byte_stream` cannot ask of any stream, connecting, and listening."""

from __future__ import annotations

import asyncio
import errno
import gc
import itertools
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, EndOfStream
from anyio.abc import ByteStream, SocketAttribute

from tests.stream_pairs import own_tcp_pair, reset
from tests.turns import turns_of_another
from wspool.testing import settle
from wspool.websocket import (
    TCPListener,
    TCPStream,
    _tcp,
    _turns,
    _waits,
    connect_any,
    connect_tcp,
    listen_tcp,
    resolve,
)

REFUSED = (socket.AF_INET, ("127.0.0.1", 1))


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    """A socket that nobody has closed warns when it is collected, and a warning is an error."""
    yield
    gc.collect()


async def fill(stream: ByteStream) -> None:
    while True:
        await stream.send(bytes(1 << 20))


# --- streams ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: memoryview(data).cast("I")])
async def test_many_megabytes_of_any_buffer_type_arrive(make: Callable[[bytes], Any]) -> None:
    data = bytes(range(256)) * 40_000
    client, server = await own_tcp_pair()
    received = bytearray()
    async with client, server, anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, make(data))
        while len(received) < len(data):
            received += await server.receive()
    assert received == data


async def test_sending_nothing_sends_nothing() -> None:
    client, server = await own_tcp_pair()
    async with client, server:
        await client.send(b"")
        await client.send(b"x")
        assert await server.receive() == b"x"


async def test_what_the_kernel_takes_at_once_is_sent_without_waiting() -> None:
    client, server = await own_tcp_pair()
    assert isinstance(client, TCPStream)
    async with client, server:
        assert client.send_nowait(b"hello") == 5
        assert await server.receive() == b"hello"
        while client.send_nowait(bytes(1 << 20)):
            pass
        assert client.send_nowait(b"x") == 0


async def test_two_at_once_are_refused() -> None:
    client, server = await own_tcp_pair()
    assert isinstance(client, TCPStream)
    async with client, server, anyio.create_task_group() as tasks:
        tasks.start_soon(fill, client)
        tasks.start_soon(client.receive)
        await settle()
        for use in (client.send(b"x"), client.send_eof()):
            with pytest.raises(BusyResourceError, match="sending to"):
                await use
        with pytest.raises(BusyResourceError, match="sending to"):
            client.send_nowait(b"x")
        with pytest.raises(BusyResourceError, match="receiving from"):
            await client.receive()
        tasks.cancel_scope.cancel()


async def test_a_size_must_be_positive() -> None:
    client, server = await own_tcp_pair()
    async with client, server:
        with pytest.raises(ValueError, match="max_bytes must be at least 1, got 0"):
            await client.receive(0)


async def test_closing_ends_who_waits() -> None:
    client, server = await own_tcp_pair()
    ended = list[str]()

    async def expect_closed(use: Callable[[ByteStream], Awaitable[Any]]) -> None:
        with pytest.raises(ClosedResourceError):
            await use(client)
        ended.append("closed")

    async with server, anyio.create_task_group() as tasks:
        tasks.start_soon(expect_closed, fill)
        tasks.start_soon(expect_closed, lambda stream: stream.receive())
        await settle()
        await client.aclose()
    assert ended == ["closed", "closed"]
    for use in (client.receive(), client.send(b"x"), client.send_eof()):
        with pytest.raises(ClosedResourceError):
            await use
    await client.aclose()


@pytest.mark.parametrize("wait", [fill, lambda stream: stream.receive()], ids=["sender", "receiver"])
async def test_who_waits_for_a_new_socket_with_the_number_of_a_closed_one_is_woken(wait: Any) -> None:
    """anyio's waits on asyncio clean up by the descriptor's number when they wake: the new one would be lost."""
    client, server = await own_tcp_pair()
    received = list[bytes]()

    async def expect_closed() -> None:
        with pytest.raises(ClosedResourceError):
            await wait(client)

    async def wait_for_others() -> None:
        pairs = [tuple(map(TCPStream, socket.socketpair())) for _ in range(10)]
        async with anyio.create_task_group() as waiting:
            for one, _ in pairs:
                waiting.start_soon(receive, one)
            await settle()
            for _, other in pairs:
                await other.send(b"x")
        for stream in itertools.chain(*pairs):
            await stream.aclose()

    async def receive(stream: TCPStream) -> None:
        received.append(await stream.receive())

    async with server, anyio.create_task_group() as tasks:
        tasks.start_soon(expect_closed)
        await settle()
        tasks.start_soon(client.aclose)
        tasks.start_soon(wait_for_others)
    assert client.extra(SocketAttribute.raw_socket).fileno() == -1
    assert received == [b"x"] * 10


def leave(stream: TCPStream) -> None:
    reset(stream)
    stream.close()


@pytest.mark.parametrize(
    ("act", "outcomes"),
    [
        (lambda stream: stream.send_nowait(b"abc"), [b"ab", b"c"]),
        (TCPStream.close, [EndOfStream]),
        (leave, [BrokenResourceError]),
    ],
    ids=["data", "end", "reset"],
)
async def test_what_arrives_in_the_moment_of_a_bare_cancellation_is_received_next(
    act: Callable[[TCPStream], Any], outcomes: list[Any], anyio_backend_name: str
) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("trio has no Task.cancel(): every cancellation is a scope's")
    client, server = cast("list[TCPStream]", await own_tcp_pair())
    waits: Any = client._waits
    read = waits._attempt

    def read_and_cancel() -> Any:
        receiving.cancel()  # as the handler of a signal does
        return read()

    async def outcome() -> Any:
        try:
            return await client.receive(2)
        except (EndOfStream, BrokenResourceError) as error:
            return type(error)

    async with client, server:
        receiving = asyncio.ensure_future(client.receive(3))
        await settle()
        waits._attempt = read_and_cancel
        act(server)
        with pytest.raises(asyncio.CancelledError):
            await receiving
        waits._attempt = read
        assert [await outcome() for _ in outcomes] == outcomes


async def test_what_was_kept_for_a_cancelled_receive_reaches_the_sink_as_well(anyio_backend_name: str) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("trio has no Task.cancel(): every cancellation is a scope's")
    client, server = cast("list[TCPStream]", await own_tcp_pair())
    waits: Any = client._waits
    read = waits._attempt

    def read_and_cancel() -> Any:
        receiving.cancel()
        return read()

    poured = bytearray()
    async with client, server:
        receiving = asyncio.ensure_future(client.receive())
        await settle()
        waits._attempt = read_and_cancel
        await server.send(b"ab")
        with pytest.raises(asyncio.CancelledError):
            await receiving
        waits._attempt = read
        client.pour_into(poured.extend)
        assert await client.receive() == b""
        await server.send(b"c")
        assert await client.receive() == b""
    assert poured == b"abc"


async def test_a_stream_closed_before_a_receive_has_begun_to_wait_ends_it() -> None:
    client, server = await own_tcp_pair()
    ended = list[str]()

    async def receive() -> None:
        _turns.work.moved = _turns.TURN  # so that it begins with a turn for the others
        with pytest.raises(ClosedResourceError):
            await client.receive()
        ended.append("closed")

    async with server, anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        tasks.start_soon(client.aclose)
    assert ended == ["closed"]
    assert client.extra(SocketAttribute.raw_socket).fileno() == -1


async def test_a_receive_that_has_to_wait_returns_no_more_than_it_was_asked_for() -> None:
    client, server = cast("list[TCPStream]", await own_tcp_pair())
    received = list[bytes]()

    async def receive() -> None:
        received.append(await client.receive(2))

    async with client, server:
        assert client.receive_nowait(10) is None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await settle()
            await server.send(b"abc")
        assert client.receive_nowait(2) == b"c"
    assert received == [b"ab"]


async def test_a_reset_is_no_end() -> None:
    client, server = await own_tcp_pair()
    async with client:
        reset(server)
        await server.aclose()
        with pytest.raises(BrokenResourceError, match="the TCP connection broke: Connection reset by peer"):
            await client.receive()
        with pytest.raises(BrokenResourceError, match="the TCP connection broke: Broken pipe"):
            await client.send(b"x")
        await client.send_eof()  # nothing is left to be ended, and the next receive says why
        with pytest.raises(EndOfStream):
            await client.receive()


async def test_a_reset_behind_data_is_not_overlooked() -> None:
    """On uvloop: libuv calls once for both, and then no more."""
    here, there = await own_tcp_pair()
    received = list[bytes]()
    async with here:

        async def receive() -> None:
            received.append(await here.receive())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await settle()
            await there.send(b"x")
            reset(there)
            await there.aclose()
        assert received == [b"x"]
        with pytest.raises(BrokenResourceError):
            await here.receive()


async def test_after_a_reset_that_was_waited_for_a_receive_still_ends() -> None:
    """On uvloop, too: libuv has stopped to watch the socket then."""
    here, there = await own_tcp_pair()
    outcomes = list[type[Exception]]()

    async def receive_twice() -> None:
        for _ in range(2):
            try:
                await here.receive()
            except (BrokenResourceError, EndOfStream) as error:
                outcomes.append(type(error))

    async with here, anyio.create_task_group() as tasks:
        tasks.start_soon(receive_twice)
        await settle()
        reset(there)
        await there.aclose()
        await settle()
        tasks.cancel_scope.cancel()
    assert outcomes == [BrokenResourceError, EndOfStream]


async def test_it_tells_the_attributes_of_its_socket() -> None:
    client, server = await own_tcp_pair()
    async with client, server:
        assert client.extra(SocketAttribute.remote_port) == server.extra(SocketAttribute.local_port)
        assert client.extra(SocketAttribute.family) == socket.AF_INET
        for end in (client, server):
            assert end.extra(SocketAttribute.raw_socket).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_any_stream_socket_will_do() -> None:
    here, there = map(TCPStream, socket.socketpair())
    async with here, there:
        await here.send(b"x")
        assert await there.receive() == b"x"


async def test_a_busy_stream_lets_others_run() -> None:
    client, server = await own_tcp_pair()
    operations = 10 * _turns.TURN // _turns._OPERATION
    async with client, server, turns_of_another() as turns:
        for _ in range(operations):  # none of them has to wait
            await client.send(b"x")
            await server.receive(1)
    assert turns.count >= 15


async def test_a_cancellation_is_seen_by_the_next_operation() -> None:
    client, server = await own_tcp_pair()
    async with client, server:
        await server.send(b"x")
        for use in (client.send(b"y"), client.receive(), client.send_eof()):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await use
            assert scope.cancelled_caught
        assert await client.receive() == b"x"
        await client.send(b"z")
        assert await server.receive() == b"z"


class Gone(socket.socket):
    """One whose far end left before it was accepted, on macOS."""

    def setsockopt(self, *_: Any) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


async def test_a_far_end_that_has_left_already_does_not_stop_who_accepts_it() -> None:
    async with TCPStream(Gone()) as stream:
        with pytest.raises(BrokenResourceError):
            await stream.send(b"x")


# --- connecting ---------------------------------------------------------------------------------------------


def resolver(*addresses: tuple[int, tuple[Any, ...]]) -> Callable[..., Awaitable[Any]]:
    async def getaddrinfo(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        return [(family, socket.SOCK_STREAM, 0, "", address) for family, address in addresses]

    return getaddrinfo


async def test_a_name_is_resolved_and_an_address_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("anyio.getaddrinfo")
    assert await _tcp.resolve("127.0.0.1", 80) == [(socket.AF_INET, ("127.0.0.1", 80))]
    v6 = [(socket.AF_INET6, (str(number), 80, 0, 0)) for number in range(3)]
    v4 = [(socket.AF_INET, (f"1.1.1.{number}", 80)) for number in range(2)]
    monkeypatch.setattr("anyio.getaddrinfo", resolver(*v6, *v4), raising=False)
    assert await _tcp.resolve("name.example", 80) == [v6[0], v4[0], v6[1], v4[1], v6[2]]


@pytest.mark.parametrize("host", ["a" * 64, "a..b", "ü" * 64, "\ud800"])
async def test_a_host_that_cannot_be_a_name_has_no_address(host: str) -> None:
    with pytest.raises(socket.gaierror):
        await connect_tcp(host, 80)


async def test_a_refusal_is_the_operating_systems_own() -> None:
    with pytest.raises(ConnectionRefusedError, match="Connection refused"):
        await connect_tcp("127.0.0.1", 1)


@pytest.mark.parametrize("port", [0, -1, 65536, 70_000])
async def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match=f"port must be from 1 to 65535, got {port}"):
        await connect_tcp("127.0.0.1", port)


async def listen_with_backlog(backlog: int) -> TCPListener:
    return await listen_tcp("127.0.0.1", backlog=backlog)


@pytest.mark.parametrize(
    ("call", "arguments", "error", "why"),
    [
        (connect_tcp, ("127.0.0.1", "x"), TypeError, "port must be a whole number, got 'x'"),
        (connect_tcp, ("127.0.0.1", 80.0), TypeError, "port must be a whole number, got 80.0"),
        (connect_tcp, ("127.0.0.1", True), TypeError, "port must be a whole number, got True"),
        (connect_tcp, (None, 80), TypeError, "host must be a string, got None"),
        (resolve, (None, 80), TypeError, "host must be a string, got None"),
        (connect_any, ([],), ValueError, "addresses must be one at least, got none"),
        (listen_tcp, ("127.0.0.1", "x"), TypeError, "port must be a whole number, got 'x'"),
        (listen_tcp, ("127.0.0.1", 70_000), ValueError, "port must be from 0 to 65535, got 70000"),
        (listen_tcp, ("127.0.0.1", -1), ValueError, "port must be from 0 to 65535, got -1"),
        (listen_tcp, (5,), TypeError, "host must be a string or None, got 5"),
        (listen_with_backlog, ("x",), TypeError, "backlog must be a whole number, got 'x'"),
    ],
)
async def test_wrong_arguments_are_refused_by_name_and_value(
    call: Callable[..., Awaitable[object]], arguments: Any, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=f"^{why}$"):
        await call(*arguments)


async def test_connecting_without_a_wait_lets_others_run() -> None:
    """On the same machine a connection is there at once."""
    async with await listen_tcp("127.0.0.1") as listener, turns_of_another() as turns:
        for _ in range(20 * _turns.TURN // _turns._OPERATION):
            (await connect_tcp("127.0.0.1", listener.extra(SocketAttribute.local_port))).close()
    assert turns.count >= 9


async def test_a_cancellation_is_seen_before_anything_is_connected() -> None:
    """Though on the same machine nothing has to be waited for."""
    async with await listen_tcp("127.0.0.1") as listener:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await connect_tcp("127.0.0.1", listener.extra(SocketAttribute.local_port))
    assert scope.cancelled_caught


async def test_what_the_kernel_refuses_at_once_is_no_connection() -> None:
    """It is not told a second time."""
    with pytest.raises(OSError, match=r"Permission denied|Network is unreachable"):
        await connect_tcp("255.255.255.255", 80)


async def test_the_next_address_is_tried_only_after_a_while_if_one_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = list[object]()

    async def never(address: object) -> None:
        tried.append(address)
        await anyio.sleep_forever()

    addresses: list[Any] = ["first", "second"]
    monkeypatch.setattr(_tcp, "_connect", never)
    for delay, expected in ((1000.0, ["first"]), (0.0, ["first", "second"])):
        tried.clear()
        monkeypatch.setattr(_tcp, "_ATTEMPT_DELAY", delay)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_tcp.connect_any, addresses)
            await settle()
            tasks.cancel_scope.cancel()
        assert tried == expected


async def test_the_next_address_is_tried_when_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tcp, "_ATTEMPT_DELAY", 1000.0)
    async with await listen_tcp("127.0.0.1") as listener:
        here = (socket.AF_INET, ("127.0.0.1", listener.extra(SocketAttribute.local_port)))
        monkeypatch.setattr("anyio.getaddrinfo", resolver(REFUSED, here, REFUSED))
        async with await connect_tcp("name.example", 80) as stream:
            assert stream.extra(SocketAttribute.remote_address) == here[1]


async def test_all_refusals_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anyio.getaddrinfo", resolver(REFUSED, REFUSED))
    with pytest.raises(OSError, match="all attempts to connect failed") as caught:
        await connect_tcp("name.example", 80)
    group = caught.value.__cause__
    assert isinstance(group, ExceptionGroup)
    assert [type(each) for each in group.exceptions] == [ConnectionRefusedError] * 2


async def test_of_two_that_answer_at_once_one_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [_stream() for _ in range(2)]
    waiting, answered = list(made), anyio.Event()

    async def connect(_: Any) -> TCPStream:
        mine = waiting.pop()
        if not waiting:
            answered.set()
        with anyio.CancelScope(shield=True):  # its answer is there already
            await answered.wait()
        return mine

    monkeypatch.setattr(_tcp, "_ATTEMPT_DELAY", 0.0)
    monkeypatch.setattr(_tcp, "_connect", connect)
    async with await _tcp.connect_any([REFUSED] * 2) as winner:
        (loser,) = (each for each in made if each is not winner)
        assert loser.raw_socket.fileno() == -1


def _stream() -> TCPStream:
    sock, other = socket.socketpair()
    other.close()
    return TCPStream(sock)


@pytest.mark.parametrize("addresses", [1, 2])
async def test_a_cancelled_attempt_leaves_no_socket_open(addresses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: Any) -> None:
        await anyio.sleep_forever()

    for kind in (_waits.AsyncioWaits, _waits.AnyioWaits):
        monkeypatch.setattr(kind, "writable", never)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_tcp.connect_any, [REFUSED] * addresses)
        await settle()
        tasks.cancel_scope.cancel()


# --- listening ----------------------------------------------------------------------------------------------


async def test_connections_are_handled_in_the_given_task_group() -> None:
    handled = anyio.Event()

    async def handle(stream: TCPStream) -> None:
        await stream.send(b"hello")
        await stream.aclose()
        handled.set()

    async with await listen_tcp("localhost") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle, tasks)
        for bound in listener._bound.listeners:
            host, port, *_ = bound.extra(SocketAttribute.raw_socket).getsockname()
            assert port == listener.extra(SocketAttribute.local_port)
            async with await connect_tcp(host, port) as client:
                assert await client.receive() == b"hello"
        await handled.wait()
        tasks.cancel_scope.cancel()


async def test_closing_the_listener_ends_serving_once_and_for_all() -> None:
    listener = await listen_tcp("127.0.0.1")

    async def serve() -> None:
        with pytest.raises(BaseExceptionGroup) as caught:
            await listener.serve(TCPStream.aclose)
        assert caught.group_contains(ClosedResourceError)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        await settle()
        await listener.aclose()
    await serve()
    await listener.aclose()


def troubled(listener: TCPListener, *errors: int) -> list[int]:
    """Have accepting fail so, before it works; the errors that are still to come."""
    left = list(errors)
    waits: list[Any] = list(listener._waits)
    for each in waits:
        accept = each._attempt

        def attempt(accept: Callable[[], Any] = accept) -> Any:
            if not left:
                return accept()
            code = left.pop(0)
            raise OSError(code, os.strerror(code))

        each._attempt = attempt
    return left


async def test_a_lack_of_descriptors_is_waited_out_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_tcp, "_EXHAUSTED_DELAY", 0.0)
    async with await listen_tcp("127.0.0.1") as listener:
        troubled(listener, errno.EMFILE, errno.ECONNABORTED)
        await _serve_one(listener)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "no connection can be accepted" in caplog.text
    assert "Too many open files" in caplog.text


async def test_a_lack_of_descriptors_is_logged_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The same again is logged for those who debug."""
    monkeypatch.setattr(_tcp, "_EXHAUSTED_DELAY", 0.0)
    caplog.set_level(logging.DEBUG, logger=_tcp.__name__)
    clock = SimpleNamespace(now=1_000_000.0)
    monkeypatch.setattr("anyio.current_time", lambda: clock.now)
    async with await listen_tcp("127.0.0.1") as listener:
        for later, errors in ((0, 3), (59, 1), (1, 1)):
            clock.now += later
            troubled(listener, *[errno.EMFILE] * errors)
            await _serve_one(listener)
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG", "DEBUG", "DEBUG", "WARNING"]


async def test_during_a_lack_of_descriptors_nobody_tries_without_a_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tcp, "_EXHAUSTED_DELAY", 1000.0)
    async with await listen_tcp("127.0.0.1") as listener, anyio.create_task_group() as tasks:
        left = troubled(listener, *[errno.EMFILE] * 50)
        tasks.start_soon(listener.serve, TCPStream.aclose)
        await settle()
        assert len(left) == 49
        tasks.cancel_scope.cancel()


async def test_a_crowd_that_comes_at_once_lets_others_run() -> None:
    crowd, seen = 10 * _turns.TURN // _turns._OPERATION, list[int]()
    async with await listen_tcp("127.0.0.1") as listener, turns_of_another() as turns:

        async def handle(stream: TCPStream) -> None:
            stream.close()
            seen.append(turns.count)
            if len(seen) == crowd:
                tasks.cancel_scope.cancel()

        port = listener.extra(SocketAttribute.local_port)
        clients = [await connect_tcp("127.0.0.1", port) for _ in range(crowd)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, handle)
        for client in clients:
            client.close()
    assert max(seen) - min(seen) >= 8


async def _serve_one(listener: TCPListener) -> None:
    async def handle(stream: TCPStream) -> None:
        await stream.aclose()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        async with await connect_tcp("127.0.0.1", listener.extra(SocketAttribute.local_port)):
            await anyio.sleep_forever()


async def test_a_listener_closed_at_the_moment_of_an_accept_is_closed_and_not_broken() -> None:
    async with await listen_tcp("127.0.0.1") as listener:

        def closed_meanwhile() -> Any:
            listener._closed = True
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

        waits: list[Any] = list(listener._waits)
        for each in waits:
            each._attempt = closed_meanwhile
        with pytest.raises(BaseExceptionGroup) as caught:
            await listener.serve(TCPStream.aclose)
        assert caught.group_contains(ClosedResourceError)


async def test_a_socket_that_cannot_listen_is_told() -> None:
    async with await listen_tcp("127.0.0.1") as listener:
        troubled(listener, errno.EINVAL)
        with pytest.raises(BaseExceptionGroup) as caught:
            await listener.serve(TCPStream.aclose)
        assert caught.group_contains(OSError, match="Invalid argument")


async def test_serving_in_a_scope_that_is_cancelled_accepts_nobody() -> None:
    async def handle(stream: TCPStream) -> None:
        raise AssertionError(stream)

    async with await listen_tcp("127.0.0.1") as listener:
        async with await connect_tcp("127.0.0.1", listener.extra(SocketAttribute.local_port)):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await listener.serve(handle)
    assert scope.cancelled_caught
