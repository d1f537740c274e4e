"""PURE. The websocket protocol after the handshake: frames, messages, limits and close states (RFC 6455).

Bytes come in by `receive_data`, events are pulled by `next_event`, and what is to be sent is
returned, or kept for `control_to_send` where the protocol itself has to answer.

Rules of this file:

1. wsproto decides what pings, pongs and text say, and writes them and Close. Each is passed on to it as
   raw bytes. Binary payloads, the bulk, go round it: that is 3 to 4 times faster (docs/decisions). With
   `fast=False` they go through it as well, and nothing else changes. What a Close says is read here, as
   wsproto does not know all codes that IANA does, and would let some be sent that it does not accept.
2. All that a header says is checked when the header is there, in wsproto's order, before a byte of
   the payload is kept: so no peer makes us hold more than one control frame.
3. Partial payloads pass through at once. Nothing is assembled here.
4. A violation is the last event. What came before it has been delivered; what comes after is ignored.
5. Pulling is lazy: of what was received, only what has been asked for is unmasked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, TypeAlias

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from ._masking import Buffer, mask

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_FIN, _RSV, _OPCODE, _MASKED, _LENGTH = 0x80, 0x70, 0x0F, 0x80, 0x7F
_WHOLE = _FIN | BINARY
"""How a binary message in one frame begins."""
_SHORT = 125
"""The longest payload whose length fits into the second byte, and the longest of a control frame."""

# To copy less costs less than a view of it.
_WORTH_A_VIEW = 4096
# Control frames cost the one who gets them more than the one who sends them. Keepalive needs one in
# some seconds; Netty allows 200 resets in 30 s for the same reason.
CONTROL_FRAMES, CONTROL_WINDOW = 640, 10.0


class ProtocolState(Enum):
    """How far the closing handshake has come (RFC 6455 section 7.1)."""

    OPEN = "Both sides may send. Next: CLOSE_SENT, CLOSE_RECEIVED, FAILED."
    CLOSE_SENT = "We have sent Close and send nothing more; data still comes in. Next: CLOSED, FAILED."
    CLOSE_RECEIVED = "They have sent Close; we may finish what we send, and owe them a Close. Next: CLOSED."
    CLOSED = "Close frames went both ways: the transport is to be closed, by the server first."
    FAILED = "They broke the protocol; our Close says so, and the transport is to be dropped."


OPEN, CLOSE_SENT, CLOSE_RECEIVED, CLOSED, FAILED = ProtocolState


class BytesReceived(NamedTuple):
    """A part of a binary message; perhaps empty if it is the last."""

    data: bytes | memoryview
    """A view of what was received, if it is large and was not masked: so it is not copied."""
    finished: bool
    """Whether the message ends here."""


class TextReceived(NamedTuple):
    """A part of a text message; perhaps empty."""

    data: str
    finished: bool


class PongReceived(NamedTuple):
    """An answer to a ping, or an unsolicited one. Pings are answered here, and not told."""

    payload: bytes


class CloseReceived(NamedTuple):
    """They have closed; nothing more comes."""

    code: int
    """RFC 6455 section 7.4.1; 1005 if the frame had none."""
    reason: str


class Violation(NamedTuple):
    """They broke the protocol, or a limit; the state is FAILED."""

    code: int
    reason: str


Part: TypeAlias = BytesReceived | TextReceived
Event: TypeAlias = Part | PongReceived | CloseReceived | Violation


def is_close_code(code: int) -> bool:
    """Whether a Close frame can have it, by IANA's registry and RFC 6455 section 7.4."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


class _Broken(Exception):
    def __init__(self, reason: str, code: int = CloseReason.PROTOCOL_ERROR) -> None:
        super().__init__(reason)
        self.code = int(code)


class WebSocketProtocol:
    """One end of a websocket, after the handshake."""

    __slots__ = (
        "_buffer",
        "_client",
        "_control",
        "_ended",
        "_fast",
        "_final",
        "_goes_round",
        "_in_frame",
        "_key",
        "_kind",
        "_left",
        "_max_frame_size",
        "_message",
        "_message_size",
        "_next_key",
        "_now",
        "_opcode",
        "_owed",
        "_ping",
        "_pong",
        "_position",
        "_sending",
        "_window_began",
        "_window_frames",
        "_wsproto",
        "accepts_text",
        "max_message_size",
        "may_send",
        "owes_control",
        "state",
    )

    def __init__(
        self,
        *,
        client: bool,
        next_key: Callable[[], bytes],
        max_frame_size: int | None = None,
        max_message_size: int | None = None,
        fast: bool = True,
    ) -> None:
        """`next_key` gives a fresh, unpredictable masking key of four bytes for each frame of a client."""
        self.state = OPEN
        self.may_send = True
        """Whether data may still be sent: our Close has not been sent."""
        self.owes_control = False
        """Whether `control_to_send` has something."""
        self.max_message_size = max_message_size
        """Bytes of all frames of a message together; the next header that goes beyond fails with 1009."""
        self.accepts_text = True
        """Whether a text message may come; if not, its header fails with 1003."""
        self._client = client
        self._next_key = next_key
        self._max_frame_size = max_frame_size
        self._fast = fast
        self._kind = ConnectionType.CLIENT if client else ConnectionType.SERVER
        self._wsproto: Connection | None = None
        """Made when it is needed, as it takes 1.5 KiB: most connections carry nothing but binary messages."""

        self._buffer: bytes = b""
        self._position = 0
        """Where the unread part of the buffer begins."""
        self._now = 0.0
        self._ended = False
        """They have closed or failed: nothing is read any more."""

        # The frame that is being received.
        self._in_frame = False
        self._opcode = CONTINUATION
        self._final = False
        self._left = 0
        """Bytes of its payload that have not come."""
        self._goes_round = False
        """Whether its payload goes round wsproto."""
        self._key = b""
        """Rotated to fit the next byte of the payload; empty for an unmasked frame."""
        self._control = b""
        """The raw control frame as far as it has come."""

        self._message = CONTINUATION
        """TEXT or BINARY within a message that comes in."""
        self._message_size = 0
        self._sending = False
        """Within a binary message that goes out."""
        self._pong: bytes | None = None
        self._ping: bytes | None = None
        self._owed = b""
        """A Close frame of ours that has not been fetched."""
        self._window_began = 0.0
        self._window_frames = 0

    # --- receiving ------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float = 0.0) -> None:
        """Take bytes from the transport; `now` in seconds on any monotonic clock, for the flood limit.

        Pull all events before the next call, so that nothing has to be kept. After the end it is not kept either.
        """
        if self._ended:
            return
        self._now = now
        rest = self._buffer[self._position :]
        self._buffer = rest + data if rest else data
        self._position = 0

    def next_event(self) -> Event | None:
        """What comes next of that which was received; None if more has to be received first."""
        try:
            while not self._ended:
                if self._position == len(self._buffer) and (self._left or not self._in_frame):
                    self._buffer, self._position = b"", 0  # not kept while nothing comes, as large as it may be
                    return None
                if not self._in_frame:
                    if self._fast and not self._message and (message := self._whole_message()) is not None:
                        return message
                    if not self._read_header():
                        return None
                elif (event := self._read_payload()) is not None:
                    return event
        except _Broken as broken:
            self.fail(broken.code, str(broken))
            return Violation(broken.code, str(broken))
        return None

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection (RFC 6455 section 7.1.7): a Close goes out if none has, nothing is read any more."""
        self._ended = True
        if self.may_send:
            self._owe(self._close_frame(code, reason))
        self._enter(FAILED)

    def _enter(self, state: ProtocolState) -> None:
        self.state = state
        self.may_send = state is OPEN or state is CLOSE_RECEIVED

    def _whole_message(self) -> BytesReceived | None:
        """A binary message in one frame that is there in full, as most are: read and checked in a quarter of the time.

        None for all that is anything else, or may not be.
        """
        buffer, start = self._buffer, self._position
        here = len(buffer) - start
        if here < 2 or buffer[start] != _WHOLE:
            return None
        first = start + 2
        length = buffer[start + 1] if self._client else buffer[start + 1] ^ _MASKED
        if length > _SHORT:
            if length != 126 or here < 4:
                return None
            length = buffer[start + 2] << 8 | buffer[start + 3]
            if length <= _SHORT:
                return None
            first += 2
        if not self._client:
            first += 4
        end = first + length
        if end > len(buffer) or (self._max_frame_size is not None and length > self._max_frame_size):
            return None
        if self.max_message_size is not None and length > self.max_message_size:
            return None
        self._position = end
        data = self._cut(first, end)
        return BytesReceived(data if self._client else mask(data, buffer[first - 4 : first]), True)

    def _read_header(self) -> bool:
        """Read and check a frame's header, if it is there in full (RFC 6455 section 5.2)."""
        buffer, start = self._buffer, self._position
        here = len(buffer) - start
        if here < 2:
            return False
        first, second = buffer[start], buffer[start + 1]
        opcode, length = first & _OPCODE, second & _LENGTH
        if opcode not in _OPCODES:
            raise _Broken(f"invalid opcode {opcode:#x}")
        if opcode >= CLOSE and not first & _FIN:
            raise _Broken("a fragmented control frame")
        if opcode >= CLOSE and length > _SHORT:
            raise _Broken("a control frame with more than 125 bytes")
        size = 2 if length <= _SHORT else 4 if length == 126 else 10
        if here < size:
            return False
        if length > _SHORT:
            length = self._long_length(length, start)
        if first & _RSV:
            raise _Broken("a reserved bit without an extension")
        if bool(second & _MASKED) is self._client:
            raise _Broken("a masked frame from a server" if self._client else "an unmasked frame from a client")
        if second & _MASKED:
            if here < size + 4:
                return False
            self._key = buffer[start + size : start + size + 4]
            size += 4
        self._final = bool(first & _FIN)
        self._admit(opcode, length)
        self._in_frame, self._opcode, self._left = True, opcode, length
        self._position = start + size
        self._goes_round = self._fast and self._message == BINARY and opcode < CLOSE
        if opcode >= CLOSE:
            self._control = buffer[start : start + size]
        elif not self._goes_round:
            self._by_wsproto().receive_data(buffer[start : start + size])
        return True

    def _long_length(self, form: int, start: int) -> int:
        if form == 126:
            (length,) = struct.unpack_from("!H", self._buffer, start + 2)
            least = _SHORT + 1
        else:
            (length,) = struct.unpack_from("!Q", self._buffer, start + 2)
            least = 0x10000
        if length < least:
            raise _Broken("a length in more bytes than it needs")
        if length >> 63:
            raise _Broken("a length with its first bit set")
        return int(length)

    def _admit(self, opcode: int, length: int) -> None:
        """Check the frame against its message and the limits."""
        if opcode >= CLOSE:
            self._count_control_frame("control frames")
            return
        if opcode == CONTINUATION and not self._message:
            raise _Broken("a continuation of nothing")
        if opcode == CONTINUATION and not length and not self._final:
            self._count_control_frame("empty fragments")
        if opcode != CONTINUATION and self._message:
            raise _Broken("a new message within a message")
        if opcode == TEXT and not self.accepts_text:
            raise _Broken("text, where only binary messages are accepted", CloseReason.UNSUPPORTED_DATA)
        if self._max_frame_size is not None and length > self._max_frame_size:
            why = f"a frame of {length} bytes: max_frame_size is {self._max_frame_size}"
            raise _Broken(why, CloseReason.MESSAGE_TOO_BIG)
        size = self._message_size + length
        if self.max_message_size is not None and size > self.max_message_size:
            why = f"a message of {size} bytes or more: max_message_size is {self.max_message_size}"
            raise _Broken(why, CloseReason.MESSAGE_TOO_BIG)
        self._message = self._message or opcode
        self._message_size = 0 if self._final else size

    def _count_control_frame(self, what: str) -> None:
        if self._now - self._window_began > CONTROL_WINDOW:
            self._window_began, self._window_frames = self._now, 0
        self._window_frames += 1
        if self._window_frames > CONTROL_FRAMES:
            raise _Broken(f"a flood of {what}", CloseReason.POLICY_VIOLATION)

    def _by_wsproto(self) -> Connection:
        if self._wsproto is None:
            self._wsproto = Connection(self._kind)
        return self._wsproto

    def _read_payload(self) -> Event | None:
        """Read as much of the payload as is there; an event, unless there is nothing to tell."""
        start = self._position
        end = min(start + self._left, len(self._buffer))
        self._position = end
        self._left -= end - start
        if not self._left:
            self._in_frame = False
        finished = self._final and not self._left
        event: Event | None
        if self._goes_round:
            event = BytesReceived(self._unmask(start, end) if self._key else self._cut(start, end), finished)
        elif self._opcode >= CLOSE:
            return self._take_control(self._buffer[start:end])
        else:
            event = self._ask_wsproto(self._buffer[start:end])
        if finished:
            self._message = CONTINUATION
        # Empty parts that end nothing would only cost memory and time.
        return event if event is not None and (event[0] or finished) else None

    def _cut(self, start: int, end: int) -> bytes | memoryview:
        return self._buffer[start:end] if end - start < _WORTH_A_VIEW else memoryview(self._buffer)[start:end]

    def _unmask(self, start: int, end: int) -> bytes:
        key = self._key
        phase = (end - start) % 4
        self._key = key[phase:] + key[:phase]
        return mask(memoryview(self._buffer)[start:end], key)

    def _ask_wsproto(self, raw: bytes) -> Part | None:
        """Let wsproto read a part of a text (or binary) message."""
        wsproto = self._by_wsproto()
        wsproto.receive_data(raw)
        told: Part | None = None
        for event in wsproto.events():
            if isinstance(event, CloseConnection):
                raise _Broken(event.reason or "", event.code)
            assert told is None, "one part in, one part out"
            if isinstance(event, TextMessage):
                told = TextReceived(event.data, event.message_finished)
            else:
                assert isinstance(event, BytesMessage), event
                told = BytesReceived(bytes(event.data), event.message_finished)
        return told

    # --- control frames -------------------------------------------------------------------------

    def _take_control(self, part: bytes) -> Event | None:
        self._control += part
        if self._left:
            return None
        raw, self._control = self._control, b""
        return self._take_close(raw) if self._opcode == CLOSE else self._take_ping_or_pong(raw)

    def _take_ping_or_pong(self, raw: bytes) -> Event | None:
        reader = Connection(self._kind)
        reader.receive_data(raw)
        (event,) = reader.events()
        if isinstance(event, Ping):
            # Of several pings the last one has to be answered (RFC 6455 section 5.5.3), none after our Close.
            if self.may_send:
                self._pong, self.owes_control = bytes(event.payload), True
            return None
        assert isinstance(event, Pong)
        return PongReceived(bytes(event.payload))

    def _take_close(self, raw: bytes) -> Event:
        payload = raw[2:] if self._client else mask(raw[6:], raw[2:6])
        code = int.from_bytes(payload[:2], "big") if payload else int(CloseReason.NO_STATUS_RCVD)
        if payload and not is_close_code(code):
            raise _Broken(f"a Close with the code {code}, which none can have")
        try:
            reason = payload[2:].decode()
        except UnicodeDecodeError as error:
            why = f"a Close with a reason that is no UTF-8: {error}"
            raise _Broken(why, CloseReason.INVALID_FRAME_PAYLOAD_DATA) from error
        self._ended = True
        self._enter(CLOSED if self.state is CLOSE_SENT else CLOSE_RECEIVED)
        return CloseReceived(code, reason)

    # --- sending --------------------------------------------------------------------------------

    def send_bytes(self, payload: Buffer, *, finished: bool = True) -> bytes:
        """A frame of a binary message, its last one if `finished`."""
        assert self.may_send, self.state
        opcode = CONTINUATION if self._sending else BINARY
        self._sending = not finished
        if not self._fast:
            return self._by_wsproto().send(BytesMessage(data=bytes(payload), message_finished=finished))
        head = self._header(opcode | _FIN if finished else opcode, len(payload))
        if not self._client:
            return b"".join((head, payload))
        key = self._next_key()
        return b"".join((head, key, mask(payload, key)))

    def _header(self, first: int, length: int) -> bytes:
        masked = _MASKED if self._client else 0
        if length <= _SHORT:
            return struct.pack("!BB", first, masked | length)
        if length < 0x10000:
            return struct.pack("!BBH", first, masked | 126, length)
        return struct.pack("!BBQ", first, masked | 127, length)

    def send_text(self, text: str) -> bytes:
        """A text message, in one frame."""
        assert self.may_send, self.state
        assert not self._sending, "within a binary message"
        return self._by_wsproto().send(TextMessage(data=text))

    def send_close(self, code: int, reason: str = "") -> bytes:
        """Our Close, once, after the pong that is due, if any. A reason of more than 123 bytes of UTF-8 is cut."""
        assert self.may_send, self.state
        self._enter(CLOSED if self.state is CLOSE_RECEIVED else CLOSE_SENT)
        return self._close_frame(code, reason)

    def _close_frame(self, code: int, reason: str) -> bytes:
        self._ping, self.owes_control = None, False
        pong = self._due_pong()  # for a ping that came before; nothing goes out after Close
        # wsproto knows a Close without a code by this very object.
        given = CloseReason.NO_STATUS_RCVD if code == CloseReason.NO_STATUS_RCVD else code
        return pong + self._by_wsproto().send(CloseConnection(code=given, reason=reason or None))

    def ask(self, payload: bytes) -> None:
        """Have a ping sent, with up to 125 bytes, which its pong repeats."""
        self._ping, self.owes_control = payload, True

    def answer_close(self, code: int) -> None:
        """Have their Close answered by its own code (RFC 6455 section 5.5.1)."""
        self._owe(self.send_close(code))

    def _owe(self, frames: bytes) -> None:
        self._owed, self.owes_control = frames, True

    def control_to_send(self) -> bytes:
        """The control frames that are due, once: a pong, a ping, or a Close and nothing after it."""
        frames = self._owed + self._due_pong()
        self._owed, self.owes_control = b"", False
        if self._ping is not None:
            frames += self._by_wsproto().send(Ping(payload=self._ping))
            self._ping = None
        return frames

    def _due_pong(self) -> bytes:
        payload, self._pong = self._pong, None
        return b"" if payload is None else self._by_wsproto().send(Pong(payload=payload))
