"""SHELL. A session at one end: its local TCP connection, and what is to be told about it afterwards."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream

from wspool.websocket import new_event

from .codes import Code, code_name
from .effects import Effect, SessionOpened, SessionRefused
from .packets import MAX_DATA_SENT
from .session_log import SessionRecord, log_session

if TYPE_CHECKING:
    from wspool.websocket import Event, TCPStream

    from .addresses import Address
    from .tunnel import Tunnel

# What a closed, reset or vanished TCP connection raises.
GONE = (BrokenResourceError, ClosedResourceError)
# A destination that accepts nothing for so long is given up.
STALL_TIMEOUT = 300.0
# So much of bulk data is read at once when no session has begun for so long: a sixth less CPU. But a new session waits
# for a dozen turns of the others, and so much takes a whole one.
_BULK = 2 * MAX_DATA_SENT
_CALM = 0.1
# SO_LINGER, as l_onoff and l_linger: a close throws away pending data, and is a RST; or it is an end after all of it.
_RESET_ON_CLOSE, _END_ON_CLOSE = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)


class _Newest:
    """Of all sessions of this process, the one that came last."""

    __slots__ = ("began",)

    def __init__(self) -> None:
        self.began = 0.0


_newest = _Newest()


def reset_on_close(stream: TCPStream, *, off: bool = False) -> None:
    """When it is closed, by this process or at its death, let the far end see a reset; or no longer."""
    try:
        linger = _END_ON_CLOSE if off else _RESET_ON_CLOSE
        stream.raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    except OSError:
        pass  # it is closed already


async def send_all(stream: TCPStream, data: bytes) -> None:
    """Send it, for one who has just had a turn."""
    sent = stream.send_nowait(data)
    if sent < len(data):
        await stream.send(data[sent:])


class Session:
    """One session: from OPEN until both directions have ended."""

    # Without them, so many attributes take a dict of their own, of 1.6 KiB.
    __slots__ = (
        "_began",
        "_ended",
        "_failure",
        "_gone",
        "_news",
        "_portion",
        "_said_all",
        "_stopped",
        "_when_over",
        "address",
        "answer",
        "answer_by",
        "ask_at",
        "committed",
        "delivered",
        "dial_scope",
        "given_up",
        "held",
        "last_active",
        "local",
        "may_relay",
        "number",
        "on_opened",
        "over",
        "record",
        "said",
        "stalled_until",
        "tunnel",
        "unsaid",
    )

    def __init__(self, address: Address, record: SessionRecord, gone: Code, local: TCPStream | None = None) -> None:
        self.address = address
        self.record = record
        self._gone = gone
        """What it means when the local side goes away."""
        self.local: TCPStream | None = None
        """The application's connection, or that to the destination, once there is one."""
        if local is not None:
            self.join(local)
        self.tunnel: Tunnel | None = None
        self.number = 0
        """Its number on its tunnel."""
        self.answer: SessionRefused | None = None
        """Client: what the server has said to OPEN if it was no success, or why there is no answer."""
        self.answer_by: float | None = None
        """Client: until when the server has to answer."""
        self.ask_at: float | None = None
        """Client: when to ask whether the server is there, if it has not answered and another tunnel could be tried."""
        self.on_opened: Callable[[SessionOpened], Awaitable[None]] | None = None
        """Client: tells the application, before it gets the first data."""
        self.may_relay = False
        """What the local side says may go into the tunnel."""
        self.over = False
        """Both directions have ended, or the tunnel has."""
        self._when_over: Callable[[Session], None] | None = None
        self.dial_scope: anyio.CancelScope | None = None
        """Server: of the dial that runs."""
        self.given_up = False
        self.held = False
        """No packet of the tunnel is handled: what came before has to reach the local side first."""
        self.unsaid = b""
        """What the local side has said, and the tunnel has not been given."""
        self.said = 0
        """Bytes from the local side to the tunnel."""
        self.delivered = 0
        """Bytes from the tunnel to the local side."""
        self._began = self.last_active = _newest.began = time.monotonic()
        self.stalled_until: float | None = None
        """When a destination that accepts nothing of what is being delivered is given up."""
        self.committed = False
        """Something was said that only the tunnel has had, so no other can begin this session."""
        self._ended = False
        """The local side has said all."""
        self._failure: Exception | None = None
        """What has become of it since."""
        self._news: Event | None = None
        """Set when something has changed that somebody may wait for."""
        self._said_all = False
        """And the tunnel has been told."""
        self._portion = MAX_DATA_SENT
        """The most that is read of the local side at once."""
        self._stopped = False

    def join(self, local: TCPStream) -> None:
        """This is its local side. Until it is concluded, nobody takes a close for the end of what was to be said."""
        self.local = local
        reset_on_close(local)

    # --- what becomes of it -----------------------------------------------------------------------------

    @property
    def refused(self) -> bool:
        """Whether the server has refused it, or has not answered."""
        return self.answer is not None

    @property
    def refusal(self) -> SessionRefused | None:
        """What the application is to be told, if it is still there."""
        return None if self.given_up else self.answer

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that is told by `changed`."""
        while not condition():
            self._news = self._news or new_event()
            await self._news.wait()

    def changed(self) -> None:
        """Have those look who wait for something."""
        if self._news is not None:
            self._news.set()
            self._news = None

    def permit(self) -> None:
        """From now on the tunnel may have what the local side says."""
        self.may_relay = True
        self.changed()

    def refuse(self, answer: SessionRefused) -> None:
        """It cannot begin: whoever pumps is to look for another tunnel, or to tell the application."""
        self.answer = answer
        self.stop()

    def finish(self) -> None:
        """It is over on its tunnel."""
        self.over = True
        self.changed()
        if self._when_over is not None:
            act, self._when_over = self._when_over, None
            act(self)

    def when_over(self, act: Callable[[Session], None]) -> None:
        """Act once, now or as soon as it is over."""
        if self.over:
            act(self)
        else:
            self._when_over = act

    def restart(self) -> None:
        """Forget a tunnel on which it could not begin."""
        if self.tunnel is not None:
            self.tunnel.let_go(self)
            self.tunnel = None
        self.answer = self.answer_by = self.ask_at = None
        self.may_relay = self.over = self.held = self._stopped = False

    def failed(self, code: int, text: str) -> None:
        """For the log: the first reason is the one that counts."""
        self.record.outcome = self.record.outcome or f"{code_name(code)}: {text}".rstrip(": ")

    def conclude(self) -> None:
        """Write the line of the log: whatever came of it is known. What is not over is cut off: the proxy ends."""
        if not self.over:
            self.failed(Code.CANCELLED, "the proxy ends")
        elif self.local is not None:
            reset_on_close(self.local, off=True)
        record = self.record
        bytes_each_way = self.said, self.delivered
        record.bytes_up, record.bytes_down = bytes_each_way if record.role == "client" else bytes_each_way[::-1]
        record.duration = time.monotonic() - self._began
        record.outcome = record.outcome or "done"
        log_session(record)

    # --- from the tunnel to the local side --------------------------------------------------------------

    def deliver_nowait(self, payload: bytes | memoryview) -> int:
        """Write to the local side what it takes at once; the number of bytes."""
        if self.local is None:
            return 0
        try:
            sent = self.local.send_nowait(payload)
        except GONE:
            return 0  # `deliver` says so
        self.last_active = time.monotonic()
        self.delivered += sent
        return sent

    async def deliver(self, payload: bytes | memoryview) -> None:
        """Write payload to the local side. If that is gone, the session is given up."""
        assert self.local is not None
        try:
            await self._write(self.local, payload)
        except GONE as error:
            await self.give_up(self._gone, str(error))

    async def _write(self, local: TCPStream, payload: bytes | memoryview) -> None:
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
            self.local.send_eof_nowait()
        except GONE as error:
            await self.give_up(self._gone, str(error))

    def abort(self) -> None:
        """Reset the local side: its application must not take what it has got for all there is."""
        if self.local is not None:
            self.local.close()

    # --- from the local side to the tunnel --------------------------------------------------------------

    async def carry(self) -> None:
        """Carry what the local side says into the tunnel, until it has said all or is gone, or `stop`."""
        try:
            # What was heard when it is stopped waits for the next tunnel.
            while not (self._stopped or self._said_all):
                heard = self.unsaid or self._ended
                if heard and self.may_relay:
                    assert self.tunnel is not None
                    await self.tunnel.say(self.take_unsaid(self.tunnel))
                elif self._failure is not None:
                    raise self._failure
                elif heard:
                    await self.until(lambda: self.may_relay or self._stopped)
                else:
                    await self._listen()
        except GONE as error:
            await self.give_up(self._gone, str(error))

    async def _listen(self) -> None:
        """Fetch what the local side says, and its end if that has come as well: the two belong into one write."""
        assert self.local is not None
        try:
            self.unsaid = await self.local.receive_on(self._portion)
        except EndOfStream:
            self._ended = True
            return
        room = self._portion - len(self.unsaid)
        if room:
            self._listen_on(self.local, room)

    def _listen_on(self, local: TCPStream, room: int) -> None:
        """More of it, if that has come as well."""
        try:
            more = local.receive_nowait(room)
        except EndOfStream:
            self._ended = True
        except GONE as error:
            self._failure = error
        else:
            if more is not None:
                self.unsaid += more

    def take_unsaid(self, tunnel: Tunnel) -> list[Effect]:
        """Have the tunnel's machine say what was heard."""
        data, self.unsaid = self.unsaid, b""
        if not tunnel.machine.may_send:
            # Nobody wants it any more. To go on listening would only keep the others from having their turn.
            self._said_all = True
            return []
        effects = tunnel.machine.local_data(self.number, data)
        if self._ended:
            effects += tunnel.machine.local_end(self.number)
        self._said_all = self._ended
        self.last_active = time.monotonic()
        is_bulk = len(data) >= MAX_DATA_SENT and self.last_active - _newest.began > _CALM
        self._portion = _BULK if is_bulk else MAX_DATA_SENT
        self.said += len(data)
        self.committed |= self._ended or bool(data)
        return effects

    async def carried(self, all_said: Callable[[Session], None]) -> None:
        """Carry until both directions have ended, or the session is refused; tell when only the far end is to end."""
        if not self.refused:
            await self.carry()
            if not (self.over or self.refused):
                all_said(self)
            await self.until(lambda: self.over or self.refused)

    def stop(self) -> None:
        """Let `carry` end; nothing is lost, and it can be called again."""
        self._stopped = True
        # No scope is cancelled: what it writes must not be cut off, and a scope takes 50 calls and half a KiB.
        if self.local is not None:
            self.local.interrupt()
        self.changed()

    async def watched(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Wait for a tunnel, but not if the local side goes away: then the session is given up."""
        failure: Exception | None = None

        async def listen() -> None:
            await self.carry()
            if self.given_up:
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            try:
                await wait()
            except Exception as error:  # raised below, in no group
                failure = error
            self.stop()
        self._stopped = False
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # its traceback knows this frame: that would be a cycle

    async def give_up(self, code: Code, text: str) -> None:
        """The local side is gone, or has to go."""
        self.given_up, self.held = True, False
        self.failed(code, text)
        if self.tunnel is not None:
            await self.tunnel.say(self.tunnel.machine.local_abort(self.number, code, text, now=time.monotonic()))
        self.abort()
        self.stop()
