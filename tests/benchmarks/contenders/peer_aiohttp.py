# mypy: disable-error-code="misc, unused-ignore"
"""aiohttp's connector, with a protocol object that is always connected."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_reqrep import ConnectionKey

from tests.benchmarks.fakes import Fake

from .base import Contender

if TYPE_CHECKING:
    from tests.benchmarks.fakes import Dial


class _Protocol(Fake):
    """What the connector asks of a ResponseHandler."""

    transport = None
    should_close = False

    def is_connected(self) -> bool:
        return not self.closed

    def abort(self) -> None:
        self.closed = True


# The connector reads two attributes of a request. Its key is made once here, per request in real life.
_REQUEST: Any = SimpleNamespace(
    connection_key=ConnectionKey("benchmark", 80, False, True, None, None, None),
    proxy=None,
)
_TIMEOUT = aiohttp.ClientTimeout()


class _Connector(aiohttp.TCPConnector):
    dial: Dial

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
        return await self.dial()

    def _close(self, *, abort_ssl: bool = False) -> Any:
        # The parent's waits for each protocol's `closed` future; a fake has none.
        for connections in self._conns.values():
            for protocol, _ in connections:
                protocol.close()
        self._conns.clear()
        return super()._close(abort_ssl=abort_ssl)


class AiohttpConnector(Contender):
    name = "aiohttp connector"
    note = "connect and release with a request key made beforehand; no request is sent"

    def make(self) -> _Protocol:
        return _Protocol()

    async def open(self, size: int, dial: Dial) -> None:
        self._connector: Any = _Connector(limit=size)
        self._connector.dial = dial

    async def close(self) -> None:
        await self._connector.close()

    async def use(self, times: int) -> None:
        connect = self._connector.connect
        for _ in range(times):
            connection = await connect(_REQUEST, [], _TIMEOUT)
            connection.release()

    async def take(self) -> Any:
        return await self._connector.connect(_REQUEST, [], _TIMEOUT)

    async def give(self, taken: Any) -> None:
        taken.release()

    def connection(self, taken: Any) -> Any:
        return taken.protocol
