"""Connections that connect to nothing, and the dial that makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Fake:
    """A connection. A pool that demands a class of its own gets a subclass of both, with the same two facts."""

    served = False  # somebody held it
    closed = False

    def close(self) -> None:
        self.closed = True


class Dial:
    """What a pool calls to connect: it takes ``delay`` seconds, and counts."""

    def __init__(self, make: Callable[[], Any], sleep: Callable[[float], Awaitable[object]]) -> None:
        self._make = make
        self._sleep = sleep
        self._stock: list[Any] = []
        self._next = iter(self._stock)
        self.delay = 0.0
        self.started = 0
        self.made: list[Any] = []

    async def __call__(self) -> Any:
        self.started += 1
        if self.delay:
            await self._sleep(self.delay)
        if self._stock:
            return next(self._next)
        connection = self._make()
        self.made.append(connection)
        return connection

    def prepare(self, count: int) -> None:
        """Make the next ``count`` connections now, and keep them: what is left to be counted is the pool's."""
        self._stock = [self._make() for _ in range(count)]
        self._next = iter(self._stock)
