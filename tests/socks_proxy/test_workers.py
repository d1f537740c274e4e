"""Tasks that are used again: no job is lost, and none waits for another."""

from __future__ import annotations

import asyncio
import gc
import weakref

import anyio
import pytest
from anyio.lowlevel import checkpoint

from examples.socks_proxy import workers
from examples.socks_proxy.workers import Workers
from wspool._backend import in_trio
from wspool.testing import settle


async def note(done: list[object]) -> None:
    await checkpoint()
    done.append(anyio.get_current_task().id)


async def test_a_task_that_is_done_takes_the_next_job() -> None:
    done = list[object]()
    async with anyio.create_task_group() as tasks:
        made = Workers(tasks)
        for _ in range(3):
            made.start_soon(note, done)
            await settle()
        made.close()
    assert len(done) == 3
    assert len(set(done)) == 1


async def test_jobs_do_not_wait_for_each_other() -> None:
    done = list[object]()
    async with anyio.create_task_group() as tasks:
        made = Workers(tasks)
        for _ in range(3):
            made.start_soon(note, done)
        await settle()
        assert len(set(done)) == 3
        made.close()


async def test_what_a_burst_has_started_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_MAX_IDLE", 2)
    done = list[object]()
    async with anyio.create_task_group() as tasks:
        made = Workers(tasks)
        for _ in range(5):
            made.start_soon(note, done)
        await settle()
        assert len(made._idle) == 2
        made.close()
    assert len(done) == 5


async def test_a_task_at_work_ends_after_its_job_once_closed() -> None:
    done, go_on = list[object](), anyio.Event()

    async def work() -> None:
        await go_on.wait()
        done.append("done")

    async with anyio.create_task_group() as tasks:
        made = Workers(tasks)
        made.start_soon(work)
        await settle()
        made.close()
        go_on.set()
    assert done == ["done"]


async def test_an_idle_task_keeps_nothing_of_its_last_job() -> None:
    class Known:
        pass

    async def work(known: Known) -> None:
        kept.append(weakref.ref(known))

    kept = list[weakref.ref[Known]]()
    gc.disable()
    try:
        async with anyio.create_task_group() as tasks:
            made = Workers(tasks)
            made.start_soon(work, Known())
            await settle()
            assert [each() for each in kept] == [None]
            made.close()
    finally:
        gc.enable()


async def test_what_a_job_raises_ends_the_group() -> None:
    async def fail() -> None:
        raise ValueError

    with pytest.raises(ExceptionGroup):
        async with anyio.create_task_group() as tasks:
            Workers(tasks).start_soon(fail)


async def test_idle_tasks_are_cancelled_with_their_group() -> None:
    done = list[object]()
    async with anyio.create_task_group() as tasks:
        Workers(tasks).start_soon(note, done)
        await settle()
        tasks.cancel_scope.cancel()
    assert done


async def test_a_job_that_comes_after_the_idle_tasks_were_cancelled_begins_all_the_same() -> None:
    begun = list[str]()

    async def begin(name: str) -> None:
        begun.append(name)
        await checkpoint()

    async with anyio.create_task_group() as tasks:
        made = Workers(tasks)
        made.start_soon(begin, "first")
        await settle()
        with anyio.CancelScope(shield=True):
            tasks.cancel_scope.cancel()
            await settle()
            made.start_soon(begin, "second")
    assert begun == ["first", "second"]


async def test_a_job_given_to_a_task_that_is_cancelled_in_that_moment_is_done_all_the_same() -> None:
    """Perhaps nobody else would close its connection."""
    if in_trio():
        pytest.skip("trio has no Task.cancel()")
    done, idle = list[object](), list[asyncio.Task[None] | None]()

    async def tell() -> None:
        idle.append(asyncio.current_task())

    async with anyio.create_task_group() as tasks:
        made = Workers(tasks)
        made.start_soon(tell)
        await settle()
        made.start_soon(note, done)
        assert idle[0] is not None
        idle[0].cancel()
    assert done
