"""Tunnels that are about to be free are waited for, and no longer than that is likely to pay."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from examples.socks_proxy.client import _ClientEnd
from examples.socks_proxy.returning import Returning, return_patience
from tests.jumping_clock import jumping_clock
from wspool.testing import settle

anyio_backend = jumping_clock


class Waiters:
    """Tasks that wait for a tunnel, and the order in which they may look."""

    def __init__(self, returning: Returning, tasks: TaskGroup) -> None:
        self.looked: list[str] = []
        self._returning = returning
        self._tasks = tasks

    async def begin(self, name: str) -> anyio.CancelScope:
        scope = anyio.CancelScope()

        async def wait() -> None:
            with scope:
                await self._returning.wait(anyio.current_time())
                self.looked.append(name)

        self._tasks.start_soon(wait)
        await settle()
        return scope


async def test_who_waits_first_looks_first_when_one_is_free() -> None:
    returning = Returning()
    async with anyio.create_task_group() as tasks:
        waiters = Waiters(returning, tasks)
        for session in (1, 2):
            returning.expect(session, anyio.current_time() + 60)
        await waiters.begin("first")
        await waiters.begin("second")
        assert waiters.looked == []
        for session, expected in ((2, ["first"]), (1, ["first", "second"])):
            returning.ended(session)
            await settle()
            assert waiters.looked == expected
        await waiters.begin("none is due any more")
        assert len(waiters.looked) == 3


async def test_no_more_wait_than_are_due() -> None:
    returning = Returning()
    async with anyio.create_task_group() as tasks:
        waiters = Waiters(returning, tasks)
        await waiters.begin("none is due")
        returning.expect(1, anyio.current_time() + 60)
        await waiters.begin("first")
        await waiters.begin("another")
        assert waiters.looked == ["none is due", "another"]
        tasks.cancel_scope.cancel()


async def test_who_leaves_leaves_the_place_to_the_next() -> None:
    returning = Returning()
    async with anyio.create_task_group() as tasks:
        waiters = Waiters(returning, tasks)
        returning.expect(1, anyio.current_time() + 60)
        (await waiters.begin("gone")).cancel()
        await settle()
        await waiters.begin("next")
        assert waiters.looked == []
        returning.ended(1)
        await settle()
        assert waiters.looked == ["next"]


async def test_who_was_told_and_leaves_without_a_tunnel_tells_the_next() -> None:
    returning = Returning()
    never = SimpleNamespace(__aenter__=anyio.sleep_forever)
    client: Any = SimpleNamespace(returning=returning, pool=SimpleNamespace(get=lambda: never))
    asked_for: list[Any] = []
    async with anyio.create_task_group() as tasks:
        waiters = Waiters(returning, tasks)
        for session in (1, 2):
            returning.expect(session, time.monotonic() + 60)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as leaving:
                leaving.start_soon(_ClientEnd._wait, client, asked_for)
                await settle()
                await waiters.begin("next")
                returning.ended(1)
                await settle()
                assert waiters.looked == []
                scope.cancel()
        await settle()
        assert waiters.looked == ["next"]


@pytest.mark.parametrize("place", [0, 1])
async def test_each_waits_no_longer_than_until_its_own_is_overdue(place: int) -> None:
    returning, began = Returning(), anyio.current_time()
    returning.expect("late", began + 3)
    returning.expect("soon", began + 2)
    async with anyio.create_task_group() as tasks:
        waiters = Waiters(returning, tasks)
        for _ in range(place):
            await waiters.begin("before")
        await returning.wait(began)
        assert anyio.current_time() == pytest.approx(began + 2 + place)


async def test_what_is_overdue_is_not_waited_for() -> None:
    returning, began = Returning(), anyio.current_time()
    returning.expect("half-closed", began)
    await returning.wait(began)
    assert anyio.current_time() == pytest.approx(began)
    returning.expect("soon", began + 2)
    await returning.wait(began)
    assert anyio.current_time() == pytest.approx(began + 2)


def test_the_patience_covers_a_round_trip() -> None:
    assert all(return_patience(seconds) > seconds for seconds in (0, 0.001, 0.05, 1, 10))
