"""An event that costs little: the same promises on every event loop."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from wspool._backend import in_trio
from wspool.testing import settle
from wspool.websocket import Event, new_event

pytestmark = pytest.mark.usefixtures("anyio_backend")


async def note(event: Event, gone_on: list[int], number: int) -> None:
    await event.wait()
    gone_on.append(number)


async def test_all_who_wait_go_on_when_it_has_happened() -> None:
    event, gone_on = new_event(), list[int]()
    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(note, event, gone_on, number)
        await settle()
        assert not event.is_set()
        assert not gone_on
        event.set()
        event.set()  # once more changes nothing
    assert event.is_set()
    assert sorted(gone_on) == [0, 1, 2]


async def test_when_it_has_happened_waiting_is_a_checkpoint() -> None:
    event, others = new_event(), list[int]()
    event.set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(note, event, others, 0)
        while not others:
            await event.wait()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await event.wait()
    assert scope.cancelled_caught


async def test_who_is_cancelled_takes_nobody_along() -> None:
    event, gone_on = new_event(), list[int]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(note, event, gone_on, 0)
        with anyio.move_on_after(0):
            await event.wait()
        async with anyio.create_task_group() as cancelled:
            cancelled.start_soon(note, event, gone_on, 1)
            await settle()
            cancelled.cancel_scope.cancel()
            event.set()  # before the cancelled task has had its turn
    assert 0 in gone_on


async def test_of_who_was_cancelled_nothing_is_kept() -> None:
    """It may be waited for ever so often before it happens."""
    event: Any = new_event()
    for _ in range(3):
        with anyio.move_on_after(0):
            await event.wait()
    assert not getattr(event, "_waiters", [])


async def test_on_trio_it_is_the_one_that_all_use() -> None:
    assert isinstance(new_event(), anyio.Event) == in_trio()
