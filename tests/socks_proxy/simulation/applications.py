"""Both sides of a session: the application and its destination. Each follows its role, and notes what it hears."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import anyio
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream
from anyio.abc import SocketAttribute

from examples.socks_proxy.relay import reset_on_close
from wspool.websocket import TCPStream, connect_tcp

from .network import Target

GONE = (BrokenResourceError, ClosedResourceError)

_CONNECT_TIMEOUT = 20.0

Ending: TypeAlias = Literal["end", "answer", "close", "reset", "nothing"]


@dataclass(frozen=True)
class Role:
    """How one side of a session behaves."""

    size: int = 0
    """How much it says."""
    chunk: int = 1000
    pause: float = 0.0
    """Seconds between two chunks."""
    echoes: bool = False
    """It says what it hears, and ends when that ends."""
    waits: bool = False
    """It begins when the other side has ended."""
    ending: Ending = "end"
    """When all is said: "end" is a half-close; "answer" the same, but not before the other side's; "close" closes
    whatever still comes, "reset" resets, and "nothing" leaves it to the other side."""
    reads: int | None = None
    """At most so many bytes; None for all."""
    read_pause: float = 0.0
    patience: float | None = None
    """It resets after so many seconds."""

    @property
    def is_polite(self) -> bool:
        return self.ending in ("end", "answer") and self.reads is None and self.patience is None


class Party:
    """One side at work."""

    def __init__(
        self,
        name: str,
        role: Role,
        stream: TCPStream,
        says: bytes,
        check: Callable[[Party], None],
        *,
        said: int = 0,
    ) -> None:
        self.name = name
        self.role = role
        self.stream = stream
        self.socket: Any = stream.extra(SocketAttribute.raw_socket)
        self.says = says
        self.said = said
        """Bytes that it has begun to send."""
        self.heard = bytearray()
        self.has_ended = False
        """It has said all, and that this is all."""
        self.saw_end = False
        self.saw_reset = False
        self.gave_up = False
        self._check = check
        self._their_end = anyio.Event()
        self._scope: anyio.CancelScope

    def __repr__(self) -> str:
        flags = [name for name in ("has_ended", "saw_end", "saw_reset", "gave_up") if getattr(self, name)]
        return f"<{self.name}, said {self.said}, heard {len(self.heard)}, {' '.join(flags)}>"

    async def run(self) -> None:
        """Until both directions have ended, or one was cut off."""
        async with self.stream:
            with anyio.move_on_after(self.role.patience) as patience:
                async with anyio.create_task_group() as tasks:
                    self._scope = tasks.cancel_scope
                    if not self.role.echoes:
                        tasks.start_soon(self._guarded, self._speak)
                    await self._guarded(self._listen)
            self.gave_up |= patience.cancelled_caught
            if self.gave_up:
                reset_on_close(self.stream)
            # To close is to end as well.
            self.has_ended |= not self.gave_up and not self.saw_reset

    async def _guarded(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except GONE:
            # Whichever task is told of it: after that, the socket reads as if it had ended.
            self.saw_reset = True
            self._scope.cancel()

    async def _speak(self) -> None:
        role = self.role
        if role.waits:
            await self._their_end.wait()
        while self.said < role.size:
            await self._say(self.says[self.said : self.said + min(role.chunk, role.size - self.said)])
            await anyio.sleep(role.pause)
        match role.ending:
            case "end":
                await self._finish()
            case "answer":
                await self._their_end.wait()
                await self._finish()
            case "close":
                self._scope.cancel()
            case "reset":
                self.gave_up = True
                self._scope.cancel()
            case "nothing":
                pass

    @property
    def is_complete(self) -> bool:
        """Both directions have ended well."""
        return self.has_ended and self.saw_end and not self.saw_reset

    async def _say(self, data: bytes) -> None:
        self.said += len(data)
        await self.stream.send(data)

    async def _finish(self) -> None:
        self.has_ended = not self.saw_reset
        await self.stream.send_eof()

    async def _listen(self) -> None:
        role = self.role
        try:
            while role.reads is None or len(self.heard) < role.reads:
                data = await self.stream.receive(65536 if role.read_pause else role.chunk)
                self.heard += data
                self._check(self)
                if role.echoes:
                    await self._say(data)
                await anyio.sleep(role.read_pause)
            await anyio.sleep_forever()
        except EndOfStream:
            self.saw_end = not self.saw_reset
            self._check(self)
            self._their_end.set()
            if role.echoes:
                await self._finish()


async def ask(proxy: Target, host: str, port: int, early: bytes) -> tuple[TCPStream, int]:
    """Ask the proxy for a connection, and say something with the request: it, and the code of the reply."""
    with anyio.fail_after(_CONNECT_TIMEOUT):
        stream = await connect_tcp(*proxy)
    try:
        await stream.send(b"\x05\x01\x00")
        await _exactly(stream, 2)
        name = host.encode()
        await stream.send(b"\x05\x01\x00\x03" + bytes((len(name),)) + name + struct.pack("!H", port) + early)
        reply = await _exactly(stream, 4)
        await _exactly(stream, 6 if reply[3] == 1 else 18)
    except BaseException:
        reset_on_close(stream)
        await anyio.aclose_forcefully(stream)
        raise
    return stream, reply[1]


async def _exactly(stream: TCPStream, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += await stream.receive(size - len(received))
    return received
