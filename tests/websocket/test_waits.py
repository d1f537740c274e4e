"""Waiting for a socket: by the loop itself where it can watch sockets, and only while something is wanted."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio import BusyResourceError, ClosedResourceError, EndOfStream

from tests.stream_pairs import own_tcp_pair
from wspool.testing import settle
from wspool.websocket import TCPStream, _waits, listen_tcp


@pytest.fixture
def on_asyncio(anyio_backend_name: str) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("trio's own waits are used there")


async def one(stream: TCPStream, received: list[bytes]) -> None:
    received.append(await stream.receive(10))


async def exchange(here: TCPStream, there: TCPStream) -> None:
    """One waits, and the other sends; and the other way round."""
    for sender, receiver in ((here, there), (there, here)):
        received = list[bytes]()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, receiver, received)
            await settle()
            await sender.send(b"x")
        assert received == [b"x"]


def test_a_stream_made_outside_of_any_event_loop_works(anyio_backend_name: str, anyio_backend_options: Any) -> None:
    here, there = map(TCPStream, socket.socketpair())

    async def use() -> None:
        async with here, there:
            await exchange(here, there)

    anyio.run(use, backend=anyio_backend_name, backend_options=anyio_backend_options)


class Blind(asyncio.SelectorEventLoop):
    """Watches no sockets, as Windows' own loop."""

    add_reader = asyncio.AbstractEventLoop.add_reader


def test_on_a_loop_that_watches_no_sockets_anyio_waits() -> None:
    here, there = socket.socketpair()

    async def use() -> None:
        assert isinstance(_waits.waits_for(here, lambda: None), _waits.AnyioWaits)

    with here, there, asyncio.Runner(loop_factory=Blind) as runner:
        runner.run(use())


@pytest.mark.usefixtures("on_asyncio")
async def test_what_nobody_waits_for_is_not_watched_for_long() -> None:
    """Else the loop would call for ever, until somebody reads."""
    here, there = map(TCPStream, socket.socketpair())
    waits: Any = here._waits
    async with here, there:
        await exchange(there, here)
        assert waits._watched  # for the next wait
        await there.send(b"x")
        while waits._watched:
            await anyio.lowlevel.checkpoint()
        assert await here.receive() == b"x"


@pytest.mark.usefixtures("on_asyncio")
async def test_a_call_for_nothing_is_waited_out() -> None:
    here, there = map(TCPStream, socket.socketpair())
    waits: Any = here._waits
    received = list[bytes]()
    async with here, there, anyio.create_task_group() as tasks:
        tasks.start_soon(one, here, received)
        await settle()
        waits._on_readable()
        await settle()
        assert not received
        await there.send(b"x")
    assert received == [b"x"]


@pytest.mark.usefixtures("on_asyncio")
@pytest.mark.parametrize("direction", ["read", "write"])
async def test_closing_after_a_cancellation_wakes_nobody_twice(direction: str) -> None:
    here, there = map(TCPStream, socket.socketpair())
    waits: Any = here._waits
    wait = waits.read if direction == "read" else waits.writable

    async def use() -> None:
        while here.send_nowait(bytes(1 << 20)):
            pass
        await wait()

    async with there:
        using = asyncio.ensure_future(use())
        await settle()
        using.cancel()
        here.close()  # before the cancelled task has had its turn
        with pytest.raises(asyncio.CancelledError):
            await using


async def test_two_at_once_are_refused() -> None:
    here, there = map(TCPStream, socket.socketpair())
    received = list[bytes]()
    async with here, there, anyio.create_task_group() as tasks:
        tasks.start_soon(one, here, received)
        await settle()
        with pytest.raises(BusyResourceError, match="receiving from"):
            here.receive_nowait(1)
        with pytest.raises(BusyResourceError, match="receiving from"):
            await here.receive(1)
        await there.send(b"x")
        await settle()
        await there.send(b"y")
        assert await here.receive(1) == b"y"


async def test_after_nothing_was_there_a_receive_waits_first_and_gets_what_has_come() -> None:
    here, there = map(TCPStream, socket.socketpair())
    async with here, there:
        for message in (b"x", b"y"):
            assert here.receive_nowait(10) is None
            await there.send(message)
            assert await here.receive(10) == message
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, here, list[bytes]())
            await settle()
            with pytest.raises(BusyResourceError, match="receiving from"):
                await here.receive(10)
            tasks.cancel_scope.cancel()
    with pytest.raises(ClosedResourceError):
        await here.receive(1)


async def test_who_waits_for_what_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it waits, or as something has come."""
    attempts = list[str]()

    async def close_meanwhile(_: object) -> None:
        waits.close()

    monkeypatch.setattr(anyio, "wait_readable", close_meanwhile)
    here, there = socket.socketpair()
    with here, there:
        waits: _waits.AnyioWaits[None] = _waits.AnyioWaits(here, lambda: attempts.append("asked"))
        for _ in range(2):
            with pytest.raises(ClosedResourceError):
                await waits.read()
        assert here.fileno() == -1
    assert attempts == []


@pytest.mark.parametrize("direction", ["readable", "writable"])
async def test_a_socket_is_closed_only_when_nobody_waits_for_it_any_more(
    direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where anyio waits in a thread, that one forgets the socket by its number, which somebody else might have."""
    was_open = list[bool]()

    async def close_meanwhile(_: object) -> None:
        waits.close()
        was_open.append(here.fileno() != -1)

    monkeypatch.setattr(anyio, f"wait_{direction}", close_meanwhile)
    here, there = socket.socketpair()
    with here, there:
        waits: _waits.AnyioWaits[None] = _waits.AnyioWaits(here, lambda: None)
        with suppress(ClosedResourceError):
            await (waits.read() if direction == "readable" else waits.writable())
        assert was_open == [True]
        assert here.fileno() == -1


@pytest.mark.usefixtures("on_asyncio")
async def test_who_was_waiting_when_a_stream_was_closed_leaves_the_next_socket_of_its_number_alone() -> None:
    here, there = map(TCPStream, socket.socketpair())
    loop, number = asyncio.get_running_loop(), here.raw_socket.fileno()
    while here.send_nowait(bytes(1 << 20)):
        pass
    sending = asyncio.ensure_future(here.send(b"x"))
    await settle()
    here.close()
    os.dup2(there.raw_socket.fileno(), number)
    is_writable = anyio.Event()
    loop.add_writer(number, is_writable.set)
    here.close()  # as anybody may once more
    with pytest.raises(ClosedResourceError):
        await sending
    await is_writable.wait()
    loop.remove_writer(number)
    os.close(number)
    await there.aclose()


async def test_a_connection_that_was_accepted_for_nobody_is_closed_with_the_listener() -> None:
    accepted, other = socket.socketpair()
    with other:
        async with await listen_tcp("127.0.0.1") as listener:
            listener._waits[0].kept = accepted  # its task was cancelled in the same moment
        assert accepted.fileno() == -1


class Late:
    """In place of a task's context: before the task goes on in it, it is cancelled once more."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task

    def run(self, wake: Callable[[object], object], waits: object) -> None:
        self._task.cancel()
        wake(waits)


@pytest.mark.usefixtures("on_asyncio")
async def test_who_waits_goes_on_in_the_very_turn_in_which_something_has_come() -> None:
    """Not behind all that is busy: and nothing lies between what was read and who gets it."""
    here, there = map(TCPStream, socket.socketpair())
    waits: Any = here._waits
    received = list[bytes]()
    loop = asyncio.get_running_loop()
    async with here, there, anyio.create_task_group() as tasks:
        tasks.start_soon(one, here, received)
        await settle()
        waits._unwatch()
        await there.send(b"x")
        called = loop.create_future()

        def arrive() -> None:
            waits._on_readable()
            called.set_result(list(received))

        loop.call_soon(arrive)
        assert await called == [b"x"]


@pytest.mark.usefixtures("on_asyncio")
async def test_a_cancellation_in_the_moment_in_which_something_has_come_loses_nothing() -> None:
    here, there = map(TCPStream, socket.socketpair())
    waits: Any = here._waits
    async with here, there:
        receiving = asyncio.ensure_future(here.receive())
        await settle()
        wake, _ = waits._reader
        waits._reader = wake, Late(receiving)
        await there.send(b"x")
        with pytest.raises(asyncio.CancelledError):
            await receiving
        assert await here.receive() == b"x"


@pytest.mark.usefixtures("on_asyncio")
async def test_a_task_that_is_cancelled_while_it_waits_hears_why() -> None:
    here, there = map(TCPStream, socket.socketpair())
    async with here, there:
        for reason in ("because", None):
            receiving = asyncio.ensure_future(here.receive())
            await settle()
            receiving.cancel(reason)
            with pytest.raises(asyncio.CancelledError) as caught:
                await receiving
            assert caught.value.args == ((reason,) if reason else ())


@pytest.mark.usefixtures("on_asyncio")
async def test_of_two_cancellations_at_once_the_first_one_is_heard_of() -> None:
    """As with any Future: a scope of anyio's knows its own by the reason, and lets any other through."""
    here, there = map(TCPStream, socket.socketpair())
    scope = anyio.CancelScope()

    async def receive() -> None:
        with scope:
            async with asyncio.timeout(None) as timeout:
                timeouts.append(timeout)
                await here.receive()

    timeouts = list[asyncio.Timeout]()
    async with here, there:
        receiving = asyncio.ensure_future(receive())
        await settle()
        timeouts[0].reschedule(0)  # it is over in the next turn, before the task has had its own
        scope.cancel()
        await receiving
    assert scope.cancelled_caught


async def test_an_end_that_was_waited_for_is_forgotten_without_the_garbage_collector() -> None:
    """And with it the task, and all that it knows: the proxy seldom looks for cycles."""
    here, there = map(TCPStream, socket.socketpair())
    ends = list[weakref.ref[EndOfStream]]()

    async def receive() -> None:
        for _ in range(2):
            try:
                await here.receive()
            except EndOfStream as end:
                ends.append(weakref.ref(end))
            here._waits.kept = EndOfStream()  # as if the next one had been cancelled as it came

    gc.disable()
    try:
        async with here, there, anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await settle()
            await there.send_eof()
        assert [end() for end in ends] == [None, None]
    finally:
        gc.enable()


@pytest.mark.usefixtures("on_asyncio")
async def test_who_keeps_an_error_does_not_keep_the_task_that_has_waited() -> None:
    here, there = map(TCPStream, socket.socketpair())
    errors = list[Exception]()

    async def receive() -> None:
        try:
            await here.receive()
        except EndOfStream as end:
            errors.append(end)

    async with here, there:
        receiving = asyncio.ensure_future(receive())
        await settle()
        await there.send_eof()
        await receiving
        task = weakref.ref(receiving)
        del receiving
        await settle()
        assert task() is None
    assert errors


async def test_closing_twice_is_closing_once() -> None:
    client, server = await own_tcp_pair()
    async with server:
        await client.aclose()
        await client.aclose()


# --- interrupting -------------------------------------------------------------------------------------------


async def one_more(stream: TCPStream, received: list[bytes]) -> None:
    received.append(await stream.receive_on(10))


@asynccontextmanager
async def one_that_waits(stream: TCPStream) -> AsyncGenerator[list[bytes], None]:
    """What it receives, at the end."""
    received = list[bytes]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one_more, stream, received)
        await settle()
        yield received


async def test_who_is_interrupted_gets_an_empty_string_and_the_next_one_what_comes() -> None:
    here, there = map(TCPStream, socket.socketpair())
    async with here, there:
        async with one_that_waits(here) as received:
            here.interrupt()
            here.interrupt()
        assert received == [b""]
        await exchange(here, there)


async def test_an_interrupt_while_nobody_waits_is_none() -> None:
    here, there = map(TCPStream, socket.socketpair())
    async with here, there:
        here.interrupt()
        await exchange(here, there)
        here.interrupt()
        await exchange(here, there)


async def test_what_has_come_is_not_lost_to_an_interrupt() -> None:
    here, there = map(TCPStream, socket.socketpair())
    async with here, there:
        async with one_that_waits(here) as received:
            await there.send(b"x")
            here.interrupt()
        if received == [b""]:
            received.append(await here.receive(10))
    assert b"".join(received) == b"x"


async def test_of_an_interrupt_before_a_cancellation_nothing_is_left() -> None:
    here, there = map(TCPStream, socket.socketpair())
    async with here, there:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one_more, here, list[bytes]())
            await settle()
            here.interrupt()
            tasks.cancel_scope.cancel()
        assert here.receive_nowait(10) is None
        await exchange(here, there)


async def test_an_interrupt_is_heard_though_something_seemed_to_be_there() -> None:
    here, there = socket.socketpair()
    here.setblocking(False)
    waits: _waits.Waits[bytes] = _waits.waits_for(here, _nothing)
    received = list[object]()

    async def read() -> None:
        received.append(await waits.read())

    with here, there:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await settle()
            there.send(b"x")
            waits.interrupt()
        assert received == [b""]
        waits.close()


def _nothing() -> None:
    """Somebody else has taken it."""


async def test_an_interrupt_does_not_disturb_a_sender() -> None:
    here, there = map(TCPStream, socket.socketpair())
    received = list[bytes]()
    async with here, there:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(here.send, bytes(4 << 20))
            tasks.start_soon(one_more, here, received)
            await settle()
            here.interrupt()
            await settle()
            assert received == [b""]
            size = 0
            while size < 4 << 20:
                size += len(await there.receive())


async def test_a_stream_is_closed_after_an_interrupt_as_before() -> None:
    here, there = map(TCPStream, socket.socketpair())
    async with there:
        async with one_that_waits(here) as received:
            here.interrupt()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(expect_closed, here)
            await settle()
            here.close()
    assert received == [b""]


async def expect_closed(stream: TCPStream) -> None:
    with pytest.raises(ClosedResourceError):
        await stream.receive()


def test_on_a_loop_that_watches_no_sockets_who_waits_can_be_interrupted() -> None:
    async def use() -> None:
        await test_who_is_interrupted_gets_an_empty_string_and_the_next_one_what_comes()
        await test_an_interrupt_does_not_disturb_a_sender()

    with asyncio.Runner(loop_factory=Blind) as runner:
        runner.run(use())
