"""SHELL. A session at one end: its local TCP connection, and what is to be told about it afterwards."""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING

import anyio
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream
from anyio.abc import SocketAttribute

from .codes import Code, code_name
from .packets import MAX_DATA_SENT
from .session_log import SessionRecord, log_session

if TYPE_CHECKING:
    from wspool.websocket import TCPStream

    from .addresses import Address
    from .effects import SessionOpened, SessionRefused
    from .tunnel import Tunnel

# What a closed, reset or vanished TCP connection raises.
GONE = (BrokenResourceError, ClosedResourceError)
# A destination that accepts nothing for so long is given up.
STALL_TIMEOUT = 300.0
# A close with pending data thrown away, and a RST: l_onoff 1, l_linger 0.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def reset_on_close(stream: TCPStream) -> None:
    """Whenever it is closed, let the far end see a reset."""
    try:
        sock: socket.socket = stream.extra(SocketAttribute.raw_socket)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    except OSError:
        pass  # it is closed already


class Session:
    """One session: from OPEN until both directions have ended."""

    def __init__(self, address: Address, record: SessionRecord, gone: Code, local: TCPStream | None = None) -> None:
        self.address = address
        self.record = record
        self._gone = gone
        """What it means when the local side goes away."""
        self.local = local
        """The application's connection, or that to the destination, once there is one."""
        self.tunnel: Tunnel | None = None
        self.number = 0
        """Its number on its tunnel."""
        self.answer: SessionOpened | SessionRefused | None = None
        """Client: what the server has said to OPEN."""
        self.answered = anyio.Event()
        self.may_relay = anyio.Event()
        """What the local side says may go into the tunnel."""
        self.over = anyio.Event()
        """Both directions have ended, or the tunnel has."""
        self.dial_scope: anyio.CancelScope | None = None
        """Server: of the dial that runs."""
        self.given_up = False
        self.held = False
        """No packet of the tunnel is handled: what came before has to reach the local side first."""
        self.said = 0
        """Bytes from the local side to the tunnel."""
        self.delivered = 0
        """Bytes from the tunnel to the local side."""
        self._began = self.last_active = time.monotonic()
        self.stalled_until: float | None = None
        """When a destination that accepts nothing of what is being delivered is given up."""
        self.committed = False
        """Something was said that only the tunnel has had, so no other can begin this session."""
        self._deliveries = anyio.Lock(fast_acquire=True)

    def restart(self) -> None:
        """Forget a tunnel on which it could not begin."""
        if self.tunnel is not None:
            self.tunnel.let_go(self)
            self.tunnel = None
        self.answer, self.answered, self.over = None, anyio.Event(), anyio.Event()
        if self.may_relay.is_set():  # if not, the pump waits for this very one
            self.may_relay = anyio.Event()
        self.held = False

    def failed(self, code: int, text: str) -> None:
        """For the log: the first reason is the one that counts."""
        self.record.outcome = self.record.outcome or f"{code_name(code)}: {text}".rstrip(": ")

    def conclude(self) -> None:
        """Write the line of the log: whatever came of it is known."""
        record = self.record
        bytes_each_way = self.said, self.delivered
        record.bytes_up, record.bytes_down = bytes_each_way if record.role == "client" else bytes_each_way[::-1]
        record.duration = time.monotonic() - self._began
        record.outcome = record.outcome or "done"
        log_session(record)

    # --- from the tunnel to the local side --------------------------------------------------------------

    async def deliver(self, payload: bytes | memoryview) -> None:
        """Write payload to the local side, in its turn. If that is gone, the session is given up."""
        assert self.local is not None
        try:
            await self._write(self.local, payload)
        except GONE as error:
            await self.give_up(self._gone, str(error))

    async def _write(self, local: TCPStream, payload: bytes | memoryview) -> None:
        async with self._deliveries:
            # An application may pause for as long as a session may be idle.
            if self._gone is Code.RESET_BY_DESTINATION:
                self.stalled_until = time.monotonic() + STALL_TIMEOUT
            try:
                await local.send(payload)
            finally:
                self.last_active, self.stalled_until = time.monotonic(), None
        self.delivered += len(payload)

    async def end(self) -> None:
        """All has been delivered: end the local side's direction, too."""
        assert self.local is not None
        try:
            async with self._deliveries:
                await self.local.send_eof()
        except GONE as error:
            await self.give_up(self._gone, str(error))

    async def abort(self) -> None:
        """Reset the local side: its application must not take what it has got for all there is."""
        if self.local is not None:
            reset_on_close(self.local)
            await anyio.aclose_forcefully(self.local)

    # --- from the local side to the tunnel --------------------------------------------------------------

    async def pump(self) -> None:
        """Carry what the local side says into the tunnel, until it has said all or is gone."""
        assert self.local is not None
        try:
            while True:
                data = await self.local.receive(MAX_DATA_SENT)
                await self._permitted()
                assert self.tunnel is not None
                self.last_active = time.monotonic()
                self.said += len(data)
                self.committed = True
                await self.tunnel.say(self.tunnel.machine.local_data(self.number, data))
        except EndOfStream:
            await self._permitted()
            assert self.tunnel is not None
            self.committed = True
            await self.tunnel.say(self.tunnel.machine.local_end(self.number))
        except GONE as error:
            await self.give_up(self._gone, str(error))

    async def _permitted(self) -> None:
        # Asked once more after the wait: meanwhile the session may have been moved to another tunnel.
        while not self.may_relay.is_set():
            await self.may_relay.wait()

    async def give_up(self, code: Code, text: str) -> None:
        """The local side is gone, or has to go."""
        self.given_up, self.held = True, False
        self.failed(code, text)
        self.answered.set()
        if self.tunnel is not None:
            await self.tunnel.say(self.tunnel.machine.local_abort(self.number, code, text, now=time.monotonic()))
        await self.abort()
