"""Whoever shuts a program down, and however roughly: a pool closes, and hangs nobody."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from tests.event_loops import eager_loop
from tests.pool.caller import Caller
from wspool import Pool, PoolEvent
from wspool.testing import FakeConnection, FakeConnector, Fault, check_invariants, settle

# Said of each task that asyncio cancels before it has begun, whoever made it.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Such coroutines are garbage of this test, and not to be found in another one."""
    yield
    gc.collect()


LOOPS: list[Any] = [None, eager_loop]


def run(main: Callable[[], Coroutine[Any, Any, object]], loop_factory: Any) -> None:
    """As asyncio.run does it, which cancels all tasks that are left at the end."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_pool_closes_when_every_task_of_the_loop_is_cancelled_at_its_every_step(loop_factory: Any) -> None:
    """asyncio.run's end, and many a program's own: tasks that have not begun never run at all."""
    connectors: list[FakeConnector] = []

    async def service(connector: FakeConnector) -> None:
        async with Pool(connector, min_idle=1, max_size=3, reset=FakeConnection.reset) as pool:
            for _ in range(3):
                async with pool.get():
                    await anyio.lowlevel.checkpoint()

    async def main(step: int) -> None:
        connectors.append(FakeConnector.always())
        serving = asyncio.create_task(service(connectors[-1]))
        for _ in range(step):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.wait([serving])

    for step in range(60):
        run(partial(main, step), loop_factory)
    for connector in connectors:
        assert not connector.open
        assert all(connection.closes == 1 for connection in connector.connections)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_pool_ends_when_every_task_of_the_loop_is_cancelled_again_and_again(loop_factory: Any) -> None:
    async def service(connector: FakeConnector, ended: list[int]) -> None:
        pool = Pool(connector, min_idle=1, max_size=3)
        try:
            async with pool:
                async with pool.get():
                    await anyio.lowlevel.checkpoint()
        finally:
            ended.append(pool.statistics().size)

    async def main(step: int, times: int) -> None:
        ended: list[int] = []
        connector = FakeConnector.always()
        serving = asyncio.create_task(service(connector, ended))
        for turn in range(step + times):
            await asyncio.sleep(0)
            for task in asyncio.all_tasks() - {asyncio.current_task()} if turn >= step else ():
                task.cancel()
        await asyncio.wait([serving])
        assert all(connection.closes <= 1 for connection in connector.connections)
        assert ended in ([0], [])  # it may have been cancelled before it began

    for step in range(12):
        for times in range(2, 7):
            run(partial(main, step, times), loop_factory)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_closing_needs_no_timer_that_somebody_has_cancelled(loop_factory: Any) -> None:
    """asyncio.run cancels the pool's timer before it cancels who closes the pool: no deadline comes any more."""
    connector = FakeConnector.always()

    async def service() -> None:
        async with Pool(connector) as pool:
            async with pool.get() as connection:
                connection.on_close = Fault.HANG
            kept.append(await pool.get())
            await anyio.sleep_forever()

    kept: list[Any] = []
    tasks: list[Any] = []

    async def main() -> None:
        tasks.append(asyncio.create_task(service()))
        await settle()
        assert kept

    run(main, loop_factory)
    assert tasks[0].cancelled()
    assert not connector.open


def test_a_timer_that_dies_while_the_pool_closes_ends_the_grace() -> None:
    async def main() -> None:
        async with Pool(FakeConnector.always()) as pool:
            handle = await pool.get()
            closing = asyncio.create_task(pool.aclose(grace=1000))
            await asyncio.sleep(0)
            (timer,) = [task for task in asyncio.all_tasks() if task.get_name().endswith(": timer")]
            timer.cancel()
            await asyncio.wait([closing])
            handle.release()
            assert pool.statistics().size == 0

    run(main, None)


class Interrupt(BaseException):
    """As KeyboardInterrupt, but nobody treats it specially."""


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, Interrupt])
@pytest.mark.parametrize("hook", ["connect", "reset", "validate", "close"])
@pytest.mark.parametrize("loop_factory", LOOPS)
def test_an_interrupt_in_a_hook_ends_the_program_and_hangs_nobody(
    kind: type[BaseException], hook: str, loop_factory: Any
) -> None:
    async def interrupted(*_: object) -> Any:
        raise kind

    async def main() -> None:
        hooks: dict[str, Any] = {"connect": FakeConnector.always(), hook: interrupted}
        async with Pool(**hooks, validate_bypass_interval=0, min_idle=2) as pool:
            async with pool.get():
                pass
            await asyncio.sleep(0)
            async with pool.get() as connection:
                assert connection is not None

    try:
        run(main, loop_factory)
    except BaseException as error:
        caught: BaseException = error
        while isinstance(caught, BaseExceptionGroup):
            caught = caught.exceptions[0]
        assert isinstance(caught, kind | asyncio.CancelledError)


async def test_an_interrupt_of_the_observer_while_the_pool_opens_leaves_nothing_behind() -> None:
    connector = FakeConnector()

    def on_event(event: PoolEvent) -> None:
        if not heard:
            heard.append(event)
            raise Interrupt

    heard: list[PoolEvent] = []
    with pytest.raises(Interrupt):
        async with Pool(connector, min_idle=2, on_event=on_event):
            raise AssertionError("it was opened")
    await settle()  # no cancelled scope is left behind, and no task
    assert not connector.pending


async def test_a_log_handler_that_fails_costs_no_connection() -> None:
    class Full(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("disk full")

    handler, connector = Full(), FakeConnector.always()
    logging.getLogger("wspool").addHandler(handler)
    try:
        async with Pool(connector) as pool:
            handle = await pool.get()
            handle.connection.alive = ValueError("odd")
            with pytest.raises(RuntimeError, match="disk full"):
                handle.release()
            await settle()
            assert connector.connections[0].closes == 1
            check_invariants(pool)
    finally:
        logging.getLogger("wspool").removeHandler(handler)


@pytest.mark.parametrize("moment", ["release", "get", "get_nowait"])
async def test_an_interrupt_in_is_reusable_still_closes_the_connection_and_serves_the_next(moment: str) -> None:
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        if moment != "release":
            handle.release()
            connector.connections[0].alive = Interrupt()
            with pytest.raises(Interrupt):
                await pool.get() if moment == "get" else pool.get_nowait()
        caller = Caller(tasks, pool)
        await settle()
        if moment == "release":
            connector.connections[0].alive = Interrupt()
            with pytest.raises(Interrupt):
                handle.release()
        await settle()
        assert connector.connections[0].closes == 1
        assert caller.connection.number == 2
        caller.release()


async def test_a_place_is_not_lost_when_a_job_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Pool(FakeConnector.always(), max_size=1) as pool:

        def refuse(*_: object) -> None:
            raise MemoryError

        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(pool._tasks, "start_soon", refuse)
            await pool.get()
        async with pool.get():
            check_invariants(pool)
