"""The lock of a stream's writers."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from wspool._backend import in_trio
from wspool.testing import settle
from wspool.websocket._turns import WriteLock


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
