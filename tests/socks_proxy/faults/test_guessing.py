"""Who guesses passwords is slowed down, and nobody else is."""

from __future__ import annotations

from typing import Any

import anyio

from examples.socks_proxy.client import _GUESS_DELAY
from examples.socks_proxy.users import Users
from tests.jumping_clock import jumping_clock
from tests.socks_proxy.ends import exactly

from .in_memory import World, in_memory

anyio_backend = jumping_clock

_USERS = {"users": Users({b"anna": b"secret"})}


async def log_in(world: World, password: bytes) -> tuple[int, float]:
    """What is answered, and after how long."""
    began = anyio.current_time()
    stream: Any = world.application()
    async with stream:
        await stream.send(b"\x05\x01\x02\x01\x04anna" + bytes((len(password),)) + password)
        return (await exactly(stream, 4))[3], anyio.current_time() - began


async def test_a_wrong_password_is_answered_late_and_a_right_one_at_once() -> None:
    async with in_memory(client=_USERS) as world:
        status, seconds = await log_in(world, b"wrong!")
        assert status != 0
        assert seconds >= _GUESS_DELAY
        status, seconds = await log_in(world, b"secret")
        assert status == 0
        assert seconds < _GUESS_DELAY
