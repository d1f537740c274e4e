"""A pool belongs to the event loop and the thread that it was opened on: others are refused, unharmed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from wspool import Pool, Pooled, PoolMisuse
from wspool.testing import FakeConnection, FakeConnector, check_invariants, prove_capacity, settle

FOREIGN = "belongs to another event loop or thread"


def synchronous_uses(pool: Pool[FakeConnection], handle: Pooled[FakeConnection]) -> dict[str, Callable[[], object]]:
    emptied = pool.get_nowait()
    emptied.take()
    return {
        "get_nowait": pool.get_nowait,
        "clear": pool.clear,
        "resize": lambda: pool.resize(max_size=5),
        "release": handle.release,
        "discard": handle.discard,
        "take": handle.take,
        "insert": lambda: emptied.insert(FakeConnection()),
        "release an emptied one": emptied.release,
        "get": lambda: start(pool.get()),
        "aclose": lambda: start(pool.aclose()),
    }


def start(awaitable: Any) -> object:
    """Run up to the first suspension, without any event loop."""
    iterator = awaitable.__await__()
    try:
        return next(iterator)
    finally:
        iterator.close()


USES = [
    "get_nowait",
    "clear",
    "resize",
    "release",
    "discard",
    "take",
    "insert",
    "release an emptied one",
    "get",
    "aclose",
]


async def refused_unharmed(use: str, run: Callable[[Callable[[], object]], Awaitable[object]]) -> None:
    """Use a pool in a foreign place, and then prove that nothing has happened to it."""
    async with Pool(FakeConnector.always(), max_size=3, name="toys") as pool:
        await prove_capacity(pool, 3)
        handle = await pool.get()
        uses = synchronous_uses(pool, handle)
        before = pool.statistics()
        with pytest.raises(PoolMisuse, match=FOREIGN):
            await run(uses[use])
        after = pool.statistics()
        assert replace(after, longest_held=0) == replace(before, longest_held=0)
        check_invariants(pool)
        assert handle.connection.closes == 0
        handle.release()
        uses["release an emptied one"]()
        await prove_capacity(pool, 3)


@pytest.mark.parametrize("use", USES)
async def test_a_pool_used_in_another_thread_says_so_and_nothing_has_changed(use: str) -> None:
    await refused_unharmed(use, anyio.to_thread.run_sync)


async def in_a_plain_thread(function: Callable[[], object]) -> None:
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    raise outcome[0]


@pytest.mark.parametrize("use", USES)
async def test_a_pool_used_in_a_thread_unknown_to_the_loop_says_so(use: str) -> None:
    await refused_unharmed(use, in_a_plain_thread)


async def in_another_loop(function: Callable[[], object]) -> None:
    async def main() -> None:
        function()

    await anyio.to_thread.run_sync(lambda: anyio.run(main))


@pytest.mark.parametrize("use", USES)
async def test_a_pool_used_on_another_loop_says_so(use: str) -> None:
    await refused_unharmed(use, in_another_loop)


@pytest.mark.parametrize("use", ["get", "release", "get_nowait"])
def test_a_pool_used_on_a_later_loop_of_the_same_thread_says_so(use: str, anyio_backend: Any) -> None:
    name, options = anyio_backend
    pool = Pool(FakeConnector.always())
    handles: list[Pooled[FakeConnection]] = []

    async def first() -> None:
        async with pool:
            handles.append(await pool.get())
            await pool.aclose(grace=0)

    async def second() -> None:
        with pytest.raises(PoolMisuse, match=FOREIGN):
            if use == "get":
                await pool.get()
            elif use == "release":
                handles[0].release()
            else:
                pool.get_nowait()

    async def on_the_other_backend() -> None:
        await second()

    anyio.run(first, backend=name, backend_options=options)
    anyio.run(second, backend=name, backend_options=options)
    anyio.run(on_the_other_backend, backend="trio" if name == "asyncio" else "asyncio")
    with pytest.raises(PoolMisuse):
        pool.get_nowait()
    handles.clear()  # no warning: the pool has closed what they held


@pytest.mark.parametrize("use", ["get", "get_nowait", "clear", "resize", "aclose"])
def test_a_pool_used_before_it_is_entered_says_so(use: str) -> None:
    pool = Pool(FakeConnector.always(), name="toys")
    uses: dict[str, Callable[[], object]] = {
        "get": lambda: start(pool.get()),
        "get_nowait": pool.get_nowait,
        "clear": pool.clear,
        "resize": lambda: pool.resize(max_size=1),
        "aclose": lambda: start(pool.aclose()),
    }
    with pytest.raises(PoolMisuse, match="toys is not open: use it inside `async with`"):
        uses[use]()
    assert pool.statistics() == Pool(FakeConnector.always()).statistics()


async def test_a_get_begun_before_the_pool_is_entered_says_so_in_a_task_too() -> None:
    pool = Pool(FakeConnector.always())
    with pytest.raises(PoolMisuse, match="is not open"):
        async with pool.get():
            pass


async def test_a_worker_thread_reaches_the_pool_through_its_loop() -> None:
    def work() -> int:
        async def use() -> int:
            async with pool.get() as connection:
                return connection.number

        return anyio.from_thread.run(use)

    async with Pool(FakeConnector.always()) as pool:
        assert await anyio.to_thread.run_sync(work) == 1
        anyio.to_thread.current_default_thread_limiter()
        check_invariants(pool)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_callback_of_the_loop_may_release_and_get_at_once(anyio_backend: str) -> None:
    done = asyncio.Event()
    numbers: list[int] = []

    def callback() -> None:
        handle.release()
        again = pool.get_nowait()
        numbers.append(again.connection.number)
        again.release()
        done.set()

    async with Pool(FakeConnector.always()) as pool:
        handle = await pool.get()
        asyncio.get_running_loop().call_soon(callback)
        await done.wait()
        assert numbers == [1]
        check_invariants(pool)


def test_a_pool_runs_on_trio_as_a_guest_of_asyncio() -> None:
    async def main() -> None:
        async with Pool(FakeConnector.always()) as pool:
            await prove_capacity(pool, 3)
            async with pool.get() as connection:
                assert connection.number in {1, 2, 3}
            await settle()
            check_invariants(pool)

    async def host() -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            main,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        (await done).unwrap()

    asyncio.run(host())


def test_two_pools_on_two_loops_do_not_disturb_each_other() -> None:
    async def main() -> None:
        async with Pool(FakeConnector.always()) as pool:
            await prove_capacity(pool, 3)

    threads = [threading.Thread(target=anyio.run, args=(main,), kwargs={"backend": b}) for b in ("asyncio", "trio")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
