"""Both ends of a TLS connection, ours or anyio's, over any pair of byte streams."""

from __future__ import annotations

import ssl
from typing import Any

import anyio
from anyio.abc import AnyByteStream

from wspool.websocket._tls import TLSStream

HOST = "wspool.example"


async def tls_pair(
    transports: tuple[AnyByteStream, AnyByteStream],
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    **options: Any,
) -> tuple[TLSStream, TLSStream]:
    """Wrap both, the client first."""
    return await wrap_both(TLSStream, transports, client_context, server_context, **options)


async def wrap_both(
    cls: Any,  # our TLSStream, or anyio's
    transports: tuple[AnyByteStream, AnyByteStream],
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    **options: Any,
) -> tuple[Any, Any]:
    wrapped: dict[str, Any] = {}
    wrap = cls.wrap

    async def client() -> None:
        wrapped["client"] = await wrap(transports[0], hostname=HOST, ssl_context=client_context, **options)

    async def server() -> None:
        wrapped["server"] = await wrap(transports[1], ssl_context=server_context, **options)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client)
        tasks.start_soon(server)
    return wrapped["client"], wrapped["server"]
