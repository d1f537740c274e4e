# mypy: disable-error-code="misc, unused-ignore"
"""httpcore's pool, without HTTP: its connections answer at once and parse nothing.

It lends no connections, it only sends requests. So one request is one visit: `handle_async_request` gets a
connection, and closing the response puts it back. The fake connection keeps the states of the real HTTP/1.1 one
(idle, active, connecting), and like it refuses a request while it serves another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import httpcore

from .base import Contender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.benchmarks.fakes import Dial


class _Connection(httpcore.AsyncConnectionInterface):
    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._connected = False
        self._idle = False
        self.fake: Any = None

    async def handle_async_request(self, request: Any) -> Any:
        if not self._connected:
            self._connected = True
            self.fake = await self._dial()
        elif self._idle:
            self._idle = False
        else:
            raise httpcore.ConnectionNotAvailable
        return httpcore.Response(200, content=_Body(self))

    def finished(self) -> None:
        self._idle = True

    async def aclose(self) -> None:
        self.fake.closed = True

    def can_handle_request(self, origin: Any) -> bool:
        return bool(origin == _REQUEST.url.origin)

    def is_available(self) -> bool:
        return self._idle

    def is_idle(self) -> bool:
        return self._idle

    def is_closed(self) -> bool:
        return False

    def has_expired(self) -> bool:
        return False


class _Body:
    """An empty response body."""

    def __init__(self, connection: _Connection) -> None:
        self.connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b""

    async def aclose(self) -> None:
        self.connection.finished()


_REQUEST = httpcore.Request("GET", "http://benchmark/")


class _Pool(httpcore.AsyncConnectionPool):
    dial: Dial

    def create_connection(self, origin: Any) -> Any:
        return _Connection(self.dial)


class HttpcorePool(Contender):
    name = "httpcore"
    note = "one request, made beforehand, is one visit; its connections are fakes that parse no HTTP"
    largest: ClassVar = {"handoff": 100, "burst": 100, "idle": 100, "waiter": 200}
    why_no_larger = "each release looks at every queued request for every connection, and wakes all of them for one"

    async def open(self, size: int, dial: Dial) -> None:
        self._pool: Any = _Pool(max_connections=size)
        self._pool.dial = dial

    async def close(self) -> None:
        await self._pool.aclose()

    async def use(self, times: int) -> None:
        pool = self._pool
        for _ in range(times):
            response = await pool.handle_async_request(_REQUEST)
            await response.aclose()

    async def take(self) -> Any:
        return await self._pool.handle_async_request(_REQUEST)

    async def give(self, taken: Any) -> None:
        await taken.aclose()

    def connection(self, taken: Any) -> Any:
        return taken.stream._stream.connection.fake
