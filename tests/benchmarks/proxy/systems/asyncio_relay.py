"""The least that a tunnel in Python can be: asyncio's streams, TLS, and a connection for each session.

python asyncio_relay.py server PORT CERT KEY | client PORT SERVER_PORT CA. A floor, and no rival: it has no token, no
websocket, no pool, no time limit, and no reply but success.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import sys
from functools import partial

_SIZE = 64 * 1024
_ADDRESS = struct.Struct("!4sH")
_SUCCESS = b"\x05\x00\x00\x01" + bytes(6)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_SIZE):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def _join(
    near: tuple[asyncio.StreamReader, asyncio.StreamWriter], far: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    await asyncio.gather(_copy(near[0], far[1]), _copy(far[0], near[1]))


async def _at_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    host, port = _ADDRESS.unpack(await reader.readexactly(_ADDRESS.size))
    far = await asyncio.open_connection(socket.inet_ntoa(host), port)
    await _join((reader, writer), far)


async def _at_client(
    port: int, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    _, count = await reader.readexactly(2)
    await reader.readexactly(count)
    writer.write(b"\x05\x00")
    request = await reader.readexactly(4 + _ADDRESS.size)
    far = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    far[1].write(request[4:])
    writer.write(_SUCCESS)
    await _join((reader, writer), far)


async def _serve(role: str, port: str, *facts: str) -> None:
    if role == "server":
        served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        served.load_cert_chain(*facts)
        server = await asyncio.start_server(_at_server, "127.0.0.1", int(port), ssl=served, backlog=1024)
    else:
        context = ssl.create_default_context(cafile=facts[1])
        answer = partial(_at_client, int(facts[0]), context)
        server = await asyncio.start_server(answer, "127.0.0.1", int(port), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
