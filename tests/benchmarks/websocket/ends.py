"""What a contender is that moves bytes between two processes: it opens a client, and it serves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import anyio
from anyio.abc import SocketAttribute

if TYPE_CHECKING:
    import ssl

    from anyio.abc import ByteStream, Listener

Buffer: TypeAlias = bytes | bytearray | memoryview

EVERYWHERE = ("asyncio", "uvloop", "trio")
ASYNCIO_ONLY = ("asyncio", "uvloop")
# The most that is asked for at once, of those that are asked: what the fastest of them have.
READ_SIZE = 256 * 1024


@dataclass(frozen=True)
class End:
    """One end of an open connection."""

    send: Callable[[bytes], Awaitable[object]]
    # What has come, in as many parts as the library hands out: to join them would cost a copy.
    receive: Callable[[], Awaitable[Sequence[Buffer]]]
    # At once, without any handshake: closing is not measured.
    close: Callable[[], Awaitable[object]]


Use: TypeAlias = Callable[[End], Awaitable[None]]


class Contender(ABC):
    name: ClassVar[str]
    backends: ClassVar[tuple[str, ...]]

    @abstractmethod
    async def client(self, port: int, context: ssl.SSLContext) -> End: ...

    @abstractmethod
    async def serve(
        self, context: ssl.SSLContext, use: Use, listening: Callable[[int], None], until: anyio.Event
    ) -> None:
        """Listen on loopback, say on which port, and let every connection be used."""


class OnAnyio(Contender):
    """One on anyio's TCP streams, or on ours."""

    backends = EVERYWHERE

    async def listen(self) -> Listener[ByteStream]:
        return await anyio.create_tcp_listener(local_host="127.0.0.1")

    async def serve(
        self, context: ssl.SSLContext, use: Use, listening: Callable[[int], None], until: anyio.Event
    ) -> None:
        async def handle(stream: ByteStream) -> None:
            await use(await self.accept(stream, context))

        listener = await self.listen()
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, handle)
            listening(listener.extra(SocketAttribute.local_port))
            await until.wait()
            tasks.cancel_scope.cancel()

    @abstractmethod
    async def accept(self, stream: ByteStream, context: ssl.SSLContext) -> End: ...


def byte_end(stream: ByteStream) -> End:
    """A byte stream of anyio, ours among them."""

    async def receive() -> list[bytes]:
        return [await stream.receive(READ_SIZE)]

    return End(stream.send, receive, lambda: anyio.aclose_forcefully(stream))
