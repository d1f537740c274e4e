"""Two byte streams that are connected with each other: in memory, and over real TCP, anyio's and ours; and a reset."""

from __future__ import annotations

import socket
import struct

import anyio
from anyio.abc import ByteStream, SocketAttribute

from wspool.testing import memory_byte_streams, settle
from wspool.websocket import connect_tcp, listen_tcp


async def memory_pair() -> tuple[ByteStream, ByteStream]:
    return memory_byte_streams()


async def tcp_pair() -> tuple[ByteStream, ByteStream]:
    """Make anyio's own socket streams, over the loopback interface.

    On asyncio, an accepted stream of anyio 4.16 reads without limit until a receive has had to wait for the first
    time; so that is done here.
    """
    accepted: list[ByteStream] = []
    connected, received = anyio.Event(), anyio.Event()
    made: list[tuple[ByteStream, ByteStream]] = []

    async def handle(stream: ByteStream) -> None:
        accepted.append(stream)
        connected.set()

    async def receive_first() -> None:
        await accepted[0].receive()
        received.set()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        client: ByteStream = await anyio.connect_tcp("127.0.0.1", listener.extra(SocketAttribute.local_port))
        await connected.wait()
        made.append((client, accepted[0]))
        tasks.start_soon(receive_first)
        await settle()
        await client.send(b"x")
        await received.wait()
        tasks.cancel_scope.cancel()
    return made[0]


async def own_tcp_pair() -> tuple[ByteStream, ByteStream]:
    """Make our own TCP streams, over the loopback interface; the first is the client's."""
    accepted: list[ByteStream] = []
    connected: list[ByteStream] = []
    arrived = anyio.Event()

    async def handle(stream: ByteStream) -> None:
        accepted.append(stream)
        arrived.set()

    async with await listen_tcp("127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        connected.append(await connect_tcp("127.0.0.1", listener.extra(SocketAttribute.local_port)))
        await arrived.wait()
        tasks.cancel_scope.cancel()
    return connected[0], accepted[0]


def reset(stream: ByteStream) -> None:
    """Have the far end see a reset, not an end, when this one is closed."""
    stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
