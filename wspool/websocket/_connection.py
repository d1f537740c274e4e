"""SHELL. A websocket as a stream of messages, over any byte stream of anyio."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import anyio
from anyio import (
    BrokenResourceError,
    BusyResourceError,
    CancelScope,
    ClosedResourceError,
    EndOfStream,
    TypedAttributeSet,
    typed_attribute,
)
from anyio.abc import ByteStream, ObjectStream
from anyio.lowlevel import checkpoint_if_cancelled

from ._errors import ProtocolViolation, WebSocketClosed
from ._http import check_kind
from ._masking import Buffer
from ._protocol import (
    BytesReceived,
    CloseReceived,
    Part,
    PongReceived,
    TextReceived,
    Violation,
    WebSocketProtocol,
    is_close_code,
)
from ._settings import WebSocketSettings, check_settings
from ._tls import TLSStream
from ._turns import WriteLock, turn, turn_is_due

# What a TLS stream of ours, and an asyncio transport, can give at once.
READ_SIZE = 256 * 1024
# Larger objects come from mmap, which makes sending ten times slower; and a frame delays a pong by its length.
FRAME_SIZE = 64 * 1024
_ONLY_BYTES = {bytes}
# Of more, the headers count as well.
_MANY = 128

# So many parts of a message are joined to one: as objects, parts of a few bytes take fifty times their size.
_JOINED = 256

# Codes with which a far end says that nothing went wrong: done, going away, no code.
_WELL = frozenset((1000, 1001, 1005))
# A client lets the server close TCP first (RFC 6455 section 7.1.1), for so long.
_LINGER = 1.0


class WebSocketAttribute(TypedAttributeSet):
    """What a websocket knows beside the attributes of its transport."""

    subprotocol: str | None = typed_attribute()
    """The subprotocol agreed upon (RFC 6455 section 1.9)."""
    client: bool = typed_attribute()
    """Whether this is the client's end."""


_PONG = BytesReceived(b"", False)
"""Stands for the pong that `ping` waits for: a part of no message."""
_keys: list[bytes] = []
"""Masking keys that nobody has used: for all connections, as each would have 200 bytes of them on average."""
with suppress(AttributeError):  # Windows has no forks
    os.register_at_fork(after_in_child=_keys.clear)


def random_key() -> bytes:
    """A masking key from the operating system's generator, fetched by the dozen (RFC 6455 section 10.3)."""
    try:
        return _keys.pop()
    except IndexError:
        # Threads may share the stock: taking one and adding some are a step each.
        fresh = os.urandom(256)
        _keys.extend([fresh[start : start + 4] for start in range(4, 256, 4)])
        return fresh[:4]


def _checked(item: Buffer | str) -> bytes | memoryview | str:
    """What cannot be sent raises here, where it harms no other message."""
    if isinstance(item, str):
        item.encode()
    elif not isinstance(item, bytes) or len(item) > FRAME_SIZE:
        return memoryview(item).cast("B")
    return item


def _are_short(items: list[Any]) -> bool:
    """Whether these are messages in bytes, and go into one write together, as they are."""
    return len(items) <= _MANY and {*map(type, items)} == _ONLY_BYTES and sum(map(len, items)) <= FRAME_SIZE


class WebSocketConnection(ObjectStream["bytes | str"]):
    """A websocket after its handshake: sends and receives whole messages, `bytes` or `str`.

    Any number of tasks may send, one may receive. Pings are answered while somebody receives or
    sends; nothing is read while nobody receives, so that backpressure goes from end to end.

    A send that is cancelled has sent nothing, or marks the connection broken, which the next use
    says. A cancelled receive loses nothing. When only sending has failed, because they take nothing
    more, what they had sent before can still be received.
    """

    def __init__(
        self,
        transport: ByteStream,
        *,
        client: bool,
        settings: WebSocketSettings | None = None,
        subprotocol: str | None = None,
        received: bytes = b"",
        fast: bool = True,
    ) -> None:
        """Take over a transport on which the handshake has been made.

        `connect_websocket` and `accept_websocket` do that.

        Args:
            transport: Any byte stream of anyio; it is the connection's to close from now on.
            client: Whether this end is the client, which has to mask.
            settings: Limits and times.
            subprotocol: The one agreed upon in the handshake.
            received: What has been read from the transport after the handshake.
            fast: False lets wsproto read and write all payloads, several times slower.
        """
        self._transport = transport
        # They need not look for a cancellation once more.
        self._put = transport.send_on if isinstance(transport, TLSStream) else transport.send
        self._take = transport.receive_on if isinstance(transport, TLSStream) else transport.receive
        self._settings = check_settings(settings)
        self._subprotocol = subprotocol
        self._client = client
        self._protocol = WebSocketProtocol(
            client=client,
            next_key=random_key,
            max_frame_size=self._settings.max_frame_size,
            max_message_size=self._settings.max_message_size,
            fast=fast,
        )
        self._protocol.receive_data(received)
        self._half_closes = False
        """Whether their Close is an end of file, and ours goes out when this end has finished."""
        self._writer = WriteLock()
        self._reading = False
        self._read_ended: anyio.Event | None = None
        self._closing = False
        self._eof_sent = False
        self._broken: str | None = None
        """What has made this end unusable."""
        self._cause: Exception | None = None
        self._unsendable: Exception | None = None
        """Why the transport takes nothing more; what they had sent before may still be received."""
        self._ending: WebSocketClosed | ProtocolViolation | None = None
        """How their side of it has ended."""
        self._parts: list[Part] = []
        """Of the message that is being received: kept here, so that a cancelled receive loses nothing."""
        self._joined = 0
        """How many of them, the first ones, have been made of many."""
        self._asked: bytes | None = None
        """What the pong that `ping` waits for will repeat."""
        self._kept: Part | None = None
        """What `ping` has found instead."""

    # --- sending --------------------------------------------------------------------------------

    async def send(self, item: Buffer | str) -> None:
        """Send a message: `str` as text, anything else as binary, in frames of 64 KiB at most.

        Returns when the transport has taken all of it.

        Raises:
            ClosedResourceError: This end was closed, or has sent its end of file.
            BrokenResourceError: The connection is broken, or they have closed it; the cause says more.
        """
        await checkpoint_if_cancelled()
        await self._send([_checked(item)], one_message=True)

    async def send_many(self, items: Iterable[Buffer | str]) -> None:
        """Send several messages, with nobody else's between them; short ones go out in one write.

        Errors as from `send`. What need not wait looks for a cancellation only from time to time.
        """
        if isinstance(items, str | bytes | bytearray | memoryview):
            raise TypeError("send_many takes several messages; send takes one")
        messages = list(items)
        if _are_short(messages):
            await self._send(messages, one_message=True, short=True)
        else:
            await self._send(list(map(_checked, messages)), one_message=True)

    async def send_frames(self, data: Buffer) -> None:
        """Send binary data in frames of 64 KiB at most, each of them a message. Errors as from `send`."""
        await checkpoint_if_cancelled()
        await self._send([_checked(data)], one_message=False)

    async def _send(self, items: list[Any], *, one_message: bool, short: bool = False) -> None:
        """The way out: one writer at a time."""
        if turn_is_due():
            await turn()
        if self._writer.locked:
            await self._take_writer()
        else:
            self._writer.locked = True
        try:
            if self._closing or self._broken is not None:
                self.check_usable()
            if self._eof_sent:
                raise ClosedResourceError("this end has sent its end of file")
            if self._protocol.may_send:
                if short:
                    batches: Iterable[bytes] = (b"".join(map(self._protocol.send_bytes, items)),)
                else:
                    batches = self._batches(self._frames(items, one_message=one_message))
                await self._hand_over(batches)
            if not self._protocol.may_send:
                raise BrokenResourceError(str(self._ending)) from self._ending
        finally:
            self._writer.release()

    async def _take_writer(self) -> None:
        """Acquire it. Who is cancelled while it is handed over sends what a receive has left to it."""
        try:
            await self._writer.acquire()
        except BaseException:
            await self._answer()
            raise

    @staticmethod
    def _batches(frames: Iterable[bytes]) -> Generator[bytes, None, None]:
        """Short frames together: what goes out in one write each."""
        batch: list[bytes] = []
        size = 0
        for frame in frames:
            batch.append(frame)
            size += len(frame)
            if size >= FRAME_SIZE:
                yield b"".join(batch)
                batch, size = [], 0
        if batch:
            yield b"".join(batch)

    def _frames(self, items: Iterable[bytes | memoryview | str], *, one_message: bool) -> Generator[bytes, None, None]:
        """Ends early when they have closed or failed meanwhile."""
        protocol = self._protocol
        for item in items:
            size = len(item)
            for start in range(0, max(1, size), FRAME_SIZE):
                if not protocol.may_send:
                    return
                if isinstance(item, str):
                    yield protocol.send_text(item)
                    break
                end = start + FRAME_SIZE
                yield protocol.send_bytes(item[start:end], finished=end >= size or not one_message)

    async def send_eof(self) -> None:
        """Send Close (1000): this end sends no more, and receives until they have closed as well.

        Another `WebSocketStream` goes on sending until it has finished. Most other websockets answer
        a Close at once and send nothing more, as RFC 6455 section 5.5.1 advises.
        """
        await checkpoint_if_cancelled()
        await self._take_writer()
        try:
            self.check_usable()
            self._eof_sent = True
            if self._protocol.may_send:
                await self._hand_over((self._protocol.send_close(1000),))
        finally:
            self._writer.release()

    async def _hand_over(self, batches: Iterable[bytes] = ()) -> None:
        """Give frames to the transport, and what the protocol has to answer as well.

        What interrupts that may have cut one off: no other can follow.
        """
        if self._unsendable is not None:
            self._raise_unsendable()
        try:
            for batch in batches:
                control = self._protocol.control_to_send() if self._protocol.owes_control else b""
                await self._put(batch + control if control else batch)
            # Asked after each write, as more may have come meanwhile.
            while self._protocol.owes_control:
                await self._put(self._protocol.control_to_send())
        except (BrokenResourceError, OSError) as error:
            self._unsendable = _without_traceback(error)
            self._raise_unsendable()
        except BaseException as error:
            self._break("a send was cut off, so nothing more can be sent", error)
            if isinstance(error, ClosedResourceError):
                self.check_usable()  # a violation of theirs has closed the transport, or it was us
            raise

    async def _answer(self) -> None:
        """Send what the protocol has to answer, on behalf of a receive, whose cancellation must not cut it off.

        A sender who is at it takes it along, so that receiving never waits for sending.
        """
        if self._protocol.owes_control and not self._writer.locked and self._broken is None:
            with CancelScope(shield=True), anyio.move_on_after(self._settings.close_timeout):
                try:
                    async with self._writer:
                        await self._hand_over()
                except BrokenResourceError:
                    pass  # they take nothing more; what they have sent may still be there

    # --- receiving ------------------------------------------------------------------------------

    async def receive(self) -> bytes | str:
        """The next message: `bytes` of a binary one, `str` of a text.

        Raises:
            EndOfStream: They have closed; the cause is a `WebSocketClosed`.
            BrokenResourceError: They closed with an error code, broke the protocol (the cause says
                which), or the transport ended without a Close.
            ClosedResourceError: This end was closed.
            BusyResourceError: Another task receives.
        """
        await checkpoint_if_cancelled()
        while True:
            part = await self.receive_part()
            self._parts.append(part)
            if part.finished:
                parts, self._parts, self._joined = self._parts, [], 0
                return _join(parts)
            if len(self._parts) - self._joined >= _JOINED:
                self._parts[self._joined :] = [_one_part(_join(self._parts[self._joined :]))]
                self._joined += 1

    async def receive_part(self) -> Part:
        """The next part of a message, as soon as it is there; see `receive` for errors.

        What is there already comes without a look for a cancellation, which is taken only from time to time.
        """
        if turn_is_due():
            await turn()
        if self._reading:
            raise BusyResourceError("receiving from")
        if self._closing or self._broken is not None:
            self.check_usable()
        self._reading = True
        try:
            while (part := self.part_at_hand()) is None:
                if self._ending is not None:
                    await self._end(self._ending)
                if self._protocol.owes_control:
                    await self._answer()
                if self._broken is not None:  # or they do not take the answer: nothing that comes now would be of use
                    self.check_usable()
                try:
                    self._protocol.receive_data(await self._arrival(), time.monotonic())
                except EndOfStream:
                    self._break("the connection ended without a Close frame")
                except (BrokenResourceError, OSError) as error:
                    self._break(_worded("the connection is broken", error), error)
            return part
        finally:
            self._reading = False
            if self._read_ended is not None:
                self._read_ended.set()

    def part_at_hand(self) -> Part | None:
        """The next part, if it has been received already."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            return kept
        event = self._protocol.next_event()
        if event is None or type(event) is BytesReceived:
            return event
        while isinstance(event, PongReceived):  # any byte is a sign of life, a pong no better one
            if event.payload == self._asked:
                return _PONG
            event = self._protocol.next_event()
        if isinstance(event, CloseReceived):
            self._ending = WebSocketClosed(event.code, event.reason)
            return None
        if isinstance(event, Violation):
            self._ending = ProtocolViolation(f"the far end broke the protocol: {event.reason}", event.code)
            return None
        return event

    async def ping(self) -> bool:
        """Ask whether the far end is there, after all that it has sent before: for a connection that lies idle.

        Returns True when the pong has come, within the settings' `ping_timeout`, and nothing but control frames
        before it; False when a message, or a part of one, has come first. Nothing more is read then, and the next
        receive returns it. A cancelled ping loses nothing.

        Raises:
            BusyResourceError: Another task receives, or pings. Where one receives all the time, set `ping_interval`.
            BrokenResourceError: No pong came in time, and the connection is broken; or as from `receive`.
            EndOfStream: As from `receive`, and ClosedResourceError as from it and from `send`.
        """
        await checkpoint_if_cancelled()
        if self._reading or self._asked is not None:
            raise BusyResourceError("receiving from")
        self.check_usable()
        if self._eof_sent:
            raise ClosedResourceError("this end has sent its end of file")
        patience = self._settings.ping_timeout
        try:
            with anyio.move_on_after(patience):
                return await self._ask()
        finally:
            self._asked = None
        self._break(f"no pong came within {patience:g} s after a ping")
        raise BrokenResourceError(self._broken)

    async def _ask(self) -> bool:
        self._kept = self.part_at_hand()
        if self._kept is None:
            self._asked = os.urandom(4)
            if self._protocol.may_send:
                self._protocol.ask(self._asked)
            part = await self.receive_part()
            if part is not _PONG:
                self._kept = part
        return self._kept is None

    def _arrival(self) -> Awaitable[bytes]:
        """What the transport brings next. Each coroutine that waits takes a quarter of a KiB: here is none."""
        interval = self._settings.ping_interval
        return self._take(READ_SIZE) if interval is None else self._read_alive(interval)

    async def _read_alive(self, interval: float) -> bytes:
        """Read; if nothing comes for a while, ask whether anybody is there."""
        with anyio.move_on_after(interval):
            return await self._take(READ_SIZE)
        if self._protocol.may_send:
            # Of several pings they may answer the last one only.
            self._protocol.ask(self._asked or os.urandom(4))
            await self._answer()
        patience = self._settings.ping_timeout
        with anyio.move_on_after(patience):
            return await self._take(READ_SIZE)
        self._break(f"no byte came within {patience:g} s after a ping")
        raise BrokenResourceError(self._broken)

    async def _end(self, ending: WebSocketClosed | ProtocolViolation) -> None:
        """Their side has ended: answer, and raise what a receive has to say about it."""
        if isinstance(ending, ProtocolViolation):
            await self._answer()
            self._break(str(ending), ending)
            await anyio.aclose_forcefully(self._transport)
        elif not self._half_closes and self._protocol.may_send:
            self._protocol.answer_close(ending.code)
            await self._answer()
        if self._closing:
            raise ClosedResourceError("the websocket was closed")
        if isinstance(ending, WebSocketClosed) and ending.code in _WELL:
            raise EndOfStream from ending
        raise BrokenResourceError(str(ending)) from ending

    # --- closing --------------------------------------------------------------------------------

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close by the closing handshake, then the transport; within `close_timeout`, with or without it.

        Cancelled, it closes the transport at once. A receive under way in another task ends with
        ClosedResourceError.

        Args:
            code: For the Close frame (RFC 6455 section 7.4): from 3000 on for what applications agree upon. With
                1005 it has none.
            reason: For it too; what goes beyond 123 bytes of UTF-8 is cut off.

        Raises:
            ValueError: No Close frame can have that code or reason, and nothing has been closed; TypeError alike.
        """
        _check_close(code, reason)
        if self._closing:
            await checkpoint_if_cancelled()
            return
        self._closing = True
        try:
            with anyio.move_on_after(self._settings.close_timeout):
                if self._broken is None:
                    await self._shake_hands(code, reason)
                await self._transport.aclose()
                return
        except (BrokenResourceError, ClosedResourceError, EndOfStream, OSError):
            pass  # what breaks now has no reader any more
        finally:
            await anyio.aclose_forcefully(self._transport)

    async def _shake_hands(self, code: int, reason: str) -> None:
        """Close frames both ways (RFC 6455 section 7.1.2), then let the server close first."""
        async with self._writer:
            if self._protocol.may_send:
                await self._hand_over((self._protocol.send_close(code, reason),))
        if self._reading:
            self._read_ended = anyio.Event()
            await self._read_ended.wait()
        while self._ending is None:
            if self.part_at_hand() is None and self._ending is None:
                self._protocol.receive_data(await self._arrival(), time.monotonic())
        if self._client:
            with anyio.move_on_after(_LINGER):
                while True:
                    await self._transport.receive(READ_SIZE)

    # --- telling --------------------------------------------------------------------------------

    def become_stream(self) -> None:
        """From now on messages have no meaning, and a Close ends one direction only."""
        self._half_closes = True
        self._protocol.max_message_size = None
        self._protocol.accepts_text = False

    def _break(self, reason: str, cause: BaseException | None = None) -> None:
        if self._broken is None:
            self._broken = reason
            self._cause = _without_traceback(cause) if isinstance(cause, Exception) else None

    def check_usable(self) -> None:
        """Raise if this end was closed, or is broken, as far as a send or a receive has found out; `ping` asks."""
        if self._closing:
            raise ClosedResourceError("the websocket was closed")
        if self._broken is not None:
            raise BrokenResourceError(self._broken) from self._cause

    def _raise_unsendable(self) -> NoReturn:
        assert self._unsendable is not None
        raise BrokenResourceError(_worded("the connection broke while sending", self._unsendable)) from self._unsendable

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the transport, and `WebSocketAttribute`."""
        return {
            **self._transport.extra_attributes,  # pyright: ignore[reportUnknownMemberType]  # anyio leaves it open
            WebSocketAttribute.subprotocol: lambda: self._subprotocol,
            WebSocketAttribute.client: lambda: self._client,
        }

    def __repr__(self) -> str:
        """The side and the state."""
        side = "client" if self._client else "server"
        state = "closed" if self._closing else f"broken: {self._broken}" if self._broken else self._protocol.state.name
        return f"<WebSocketConnection, {side}, {state.lower()}>"


def _check_close(code: int, reason: str) -> None:
    check_kind("code", code, int, "a whole number")
    check_kind("reason", reason, str, "a string")
    if code != 1005 and not is_close_code(code):
        codes = "1000 to 1003, 1007 to 1014 or 3000 to 4999, or 1005 for a Close without one"
        raise ValueError(f"code must be {codes} (RFC 6455 section 7.4), got {code}")
    if reason and code == 1005:
        raise ValueError(f"the code 1005 stands for none, which leaves no place for a reason, got {reason!r}")
    reason.encode()


def _without_traceback(error: Exception) -> Exception:
    """To be kept: a traceback would keep the frames of the call alive, and with them what was to be sent."""
    return error.with_traceback(None)


def _worded(what: str, error: Exception) -> str:
    return f"{what}: {error}" if str(error) else what


def _join(parts: list[Part]) -> bytes | str:
    if isinstance(parts[-1], TextReceived):
        return "".join(part.data for part in parts if isinstance(part, TextReceived))
    return b"".join(part.data for part in parts if isinstance(part, BytesReceived))


def _one_part(data: bytes | str) -> Part:
    return TextReceived(data, False) if isinstance(data, str) else BytesReceived(data, False)
