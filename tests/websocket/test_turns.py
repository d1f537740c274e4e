"""Turns for the other tasks, and the lock of a stream's writers."""

from __future__ import annotations

import asyncio
import ssl

import anyio
import pytest

from tests.stream_pairs import own_tcp_pair
from tests.tls_pairs import tls_pair
from tests.turns import turns_of_another
from wspool._backend import in_trio
from wspool.testing import settle
from wspool.websocket import TCPStream, _tls, _turns
from wspool.websocket._turns import WriteLock


@pytest.mark.parametrize("tls", [False, True])
async def test_a_send_whose_task_is_cancelled_in_its_turn_has_written_nothing(
    tls: bool, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    if in_trio():
        pytest.skip("trio has no Task.cancel(): every cancellation is a scope's")
    client, server = await own_tcp_pair()
    if tls:
        client, server = await tls_pair((client, server), client_context, server_context)
    async with client, server:
        _turns.work.moved = _turns.TURN
        task = asyncio.Task(client.send(b"never"))  # not begun already, as an eager one would be
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await client.send(b"x")
        assert await server.receive() == b"x"


async def test_a_long_send_gives_turns_even_if_the_kernel_takes_it_all_at_once(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = await tls_pair(await own_tcp_pair(), client_context, server_context)

    def take_all(_: TCPStream, data: bytes) -> int:
        _turns.work.moved += len(data)
        return len(data)

    async with client, server, turns_of_another() as turns:
        monkeypatch.setattr(TCPStream, "send_nowait", take_all)
        await client.send(bytes(20 * _tls._BATCH))
    assert turns.count >= 15


async def test_a_tls_stream_gives_a_turn_before_it_reads_if_one_is_due(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    """There may be no end of records that bring nothing."""
    client, server = await tls_pair(await own_tcp_pair(), client_context, server_context)
    async with client, server:
        await client.send(b"x")
        _turns.work.moved = _turns.TURN
        assert await server.receive_on(1) == b"x"
        assert _turns.work.moved < _turns.TURN


async def test_who_receives_in_the_turn_of_a_sender_does_not_take_what_that_has_encrypted_for_a_flood_of_answers(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = await tls_pair(await own_tcp_pair(), client_context, server_context)
    received = bytearray()

    async def turn() -> None:
        monkeypatch.undo()
        _turns.work.moved = 0
        tasks.start_soon(client.receive_on, 1)
        await settle()

    async def send() -> None:
        monkeypatch.setattr(_tls, "give_turn", turn)
        _turns.work.moved = _turns.TURN
        await client.send_on(bytes(100_000))

    async with client, server, anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        while len(received) < 100_000:
            received += await server.receive_on(100_000)
        await server.send(b"x")


async def test_what_is_received_counts_as_well_as_what_is_sent() -> None:
    client, server = await own_tcp_pair()
    async with client, server:
        await client.send(b"x" * 1000)
        for use in (server.receive(), server.send(b"x" * 1000)):
            _turns.work.moved = 0
            await use
            assert _turns.work.moved == _turns._OPERATION + 1000


async def test_writers_come_one_at_a_time_in_their_order() -> None:
    lock, order = WriteLock(), list[int]()

    async def write(number: int) -> None:
        async with lock:
            order.append(number)
            await anyio.lowlevel.checkpoint()
            order.append(number)

    async with anyio.create_task_group() as tasks:
        async with lock:
            for number in range(4):
                tasks.start_soon(write, number)
                await settle()
    assert order == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not lock.locked


@pytest.mark.parametrize("handed_over", [False, True])
async def test_a_writer_that_is_cancelled_in_the_queue_passes_it_on(handed_over: bool) -> None:
    lock, scope, written = WriteLock(), anyio.CancelScope(), list[str]()

    async def cancelled() -> None:
        with scope:
            await lock.acquire()
            raise AssertionError("acquired")

    async def write() -> None:
        async with lock:
            written.append("written")

    async with anyio.create_task_group() as tasks:
        await lock.acquire()
        tasks.start_soon(cancelled)
        await settle()
        tasks.start_soon(write)
        await settle()
        if handed_over:
            lock.release()
        scope.cancel()
        await settle()
        if not handed_over:
            lock.release()
    assert written == ["written"]
    assert not lock.locked


async def test_a_pending_cancellation_is_raised_before_it_is_acquired() -> None:
    lock = WriteLock()
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with lock:
            raise AssertionError("acquired")
    assert scope.cancelled_caught
    assert not lock.locked


async def test_a_task_cancelled_just_as_the_lock_is_handed_over_passes_it_on() -> None:
    if in_trio():
        pytest.skip("trio has no Task.cancel(): every cancellation is a scope's")
    lock = WriteLock()
    await lock.acquire()
    task = asyncio.create_task(lock.acquire())
    await settle()
    lock.release()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not lock.locked
