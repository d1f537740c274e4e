"""Raw frames made by hand, so that they can break any rule; a connection to say them to; what wsproto makes of them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from wspool.testing import MemoryByteStream, memory_byte_streams
from wspool.websocket import WebSocketConnection
from wspool.websocket._protocol import (
    BytesReceived,
    CloseReceived,
    Event,
    PongReceived,
    TextReceived,
    Violation,
    WebSocketProtocol,
)

KEY = b"\x11\x22\x33\x44"


@dataclass(frozen=True)
class Frame:
    """A frame as its sender wants it, right or wrong."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    masked: bool | None = None
    """None: as the direction asks for."""
    form: int | None = None
    """How many bytes the length takes: 1, 2 or 8; None: as few as possible."""

    def encode(self, *, to_server: bool, key: bytes = KEY) -> bytes:
        masked = to_server if self.masked is None else self.masked
        length = len(self.payload)
        form = 8 if length >= 65536 else self.form or (1 if length <= 125 else 2)
        bit = 0x80 if masked else 0
        first = (0x80 if self.fin else 0) | self.rsv << 4 | self.opcode
        head = {
            1: lambda: struct.pack("!BB", first, bit | length & 0x7F),
            2: lambda: struct.pack("!BBH", first, bit | 126, length),
            8: lambda: struct.pack("!BBQ", first, bit | 127, length),
        }[form]()
        if not masked:
            return head + self.payload
        return head + key + bytes(byte ^ key[index % 4] for index, byte in enumerate(self.payload))


def close(code: int | None = None, reason: str | bytes = b"") -> Frame:
    if isinstance(reason, str):
        reason = reason.encode()
    return Frame(0x8, b"" if code is None else struct.pack("!H", code) + reason)


def from_server(*frames: Frame) -> bytes:
    return b"".join(frame.encode(to_server=False) for frame in frames)


def alone(
    *, client: bool = True, max_buffer: int = 65536, **options: Any
) -> tuple[WebSocketConnection, MemoryByteStream]:
    """A connection, and the far end of its transport, where the test plays the other side by hand."""
    here, far = memory_byte_streams(max_buffer)
    return WebSocketConnection(here, client=client, **options), far


Told = tuple[Any, ...]
"""An event in short: ("bytes", data, finished), ("pong", payload), ("close", code, reason), ("violation", code)."""


def merged(events: list[Told]) -> list[Told]:
    """Parts of a message put together, since where they are cut depends on how the bytes came.

    So does how much of a text was told before its bytes turned out not to be UTF-8.
    """
    result: list[Told] = []
    for event in events:
        last: Told = result[-1] if result else ("nothing",)
        if event == ("violation", 1007) and last[0] == "text" and not last[2]:
            result.pop()
        if event[0] in {"bytes", "text"} and last[0] == event[0] and not last[2]:
            result[-1] = (event[0], last[1] + event[1], event[2])
        elif event[0] not in {"bytes", "text"} or event[1] or event[2]:
            result.append(event)
    return result


def told(event: Event) -> Told:
    match event:
        case BytesReceived(data, finished):
            return ("bytes", bytes(data), finished)  # long ones come as views, which cannot be added
        case TextReceived(text, finished):
            return ("text", text, finished)
        case PongReceived(payload):
            return ("pong", payload)
        case CloseReceived(code, reason):
            return ("close", code, reason)
        case Violation(code, _):
            return ("violation", code)


def pull(protocol: WebSocketProtocol) -> list[Told]:
    events = []
    while (event := protocol.next_event()) is not None:
        events.append(told(event))
    return events


def feed(protocol: WebSocketProtocol, *parts: bytes) -> list[Told]:
    """Let it receive the parts one after the other."""
    events = []
    for part in parts:
        protocol.receive_data(part)
        events += pull(protocol)
    return merged(events)


def by_wsproto(raw: bytes, *, client: bool) -> tuple[list[Told], list[bytes]]:
    """What wsproto alone tells, and the payloads of the pings."""
    reader = Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER)
    reader.receive_data(raw)
    events: list[Told] = []
    pings = []
    for event in reader.events():
        match event:
            case BytesMessage(data=data, message_finished=finished):
                events.append(("bytes", bytes(data), finished))
            case TextMessage(data=text, message_finished=finished):
                events.append(("text", text, finished))
            case Ping(payload=payload):
                pings.append(bytes(payload))
            case Pong(payload=payload):
                events.append(("pong", bytes(payload)))
            case CloseConnection(code=code, reason=reason):
                if reader.state is ConnectionState.REMOTE_CLOSING:
                    events.append(("close", int(code), reason or ""))
                else:
                    events.append(("violation", int(code)))
            case _:
                raise AssertionError(event)
    return merged(events), pings


def new_protocol(*, client: bool, **settings: Any) -> WebSocketProtocol:
    return WebSocketProtocol(client=client, next_key=lambda: KEY, **settings)
