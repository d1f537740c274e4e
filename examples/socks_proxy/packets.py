"""PURE. The packets of the tunnel protocol `wspool.1`: written as bytes, and read as they come.

    TYPE u8 | FLAGS u8 | SESSION u16 | body        one binary websocket message each, in network byte order

Rules of this file:

1. DATA passes through: each part of its message is a `Data` of its own, and no part is kept. Every other
   packet is collected, within its limit.
2. Limits are checked when a part comes, before it is kept.
3. What a peer gets wrong is a `PacketError` with the code to close the websocket with, and nothing else.
   What we get wrong is an error of Python's.
4. Types 0x40-0x7F that are not known are skipped, and so are unknown flags: they leave room for later versions.
5. Text of a peer is for logs: what cannot be printed is replaced.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from .addresses import Address, BadAddress, read_address
from .codes import CloseCode

SUBPROTOCOL = "wspool.1"
"""What the client offers and the server echoes in `Sec-WebSocket-Protocol`."""

OPEN, OPENED, REFUSED, DATA, FIN, RESET, DATAGRAM, BOUND, PING, PONG, GOAWAY = range(0x01, 0x0C)
_FIRST_SKIPPED, _LAST_SKIPPED = 0x40, 0x7F
_OF_THE_TUNNEL = frozenset((PING, PONG, GOAWAY))
_RETRY_IS_SAFE = 0x01

HEADER_SIZE = 4
MAX_DATA_SENT = 64 * 1024 - 12
"""Of payload in one DATA: with our header, and the websocket's of a client, a frame has 64 KiB."""
MAX_DATA = 1024 * 1024
"""Of payload that is accepted in one DATA."""
MAX_PACKET = 1024
"""Of any other packet, DATAGRAM apart."""
MAX_DATAGRAM = 65507
"""Of UDP payload: what fits into an IPv4 packet."""
MAX_TEXT = 255
_MAX_ADDRESS = 1 + 1 + 255 + 2
MAX_MESSAGE = HEADER_SIZE + MAX_DATA
"""For the websocket below, which refuses more by the frame's header."""
_LIMITS = {DATA: MAX_MESSAGE, DATAGRAM: HEADER_SIZE + _MAX_ADDRESS + MAX_DATAGRAM}

_DATA = bytes((DATA,))
_HEADER = struct.Struct("!BBH")
_OPEN_BODY = struct.Struct("!BxH")
_U32 = struct.Struct("!I")
_CODE_AND_U32 = struct.Struct("!BI")
_MAX_U32 = 0xFFFFFFFF


class PacketError(Exception):
    """The far end broke the tunnel's protocol: close the websocket with this code."""

    def __init__(self, reason: str, close_code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(reason)
        self.close_code = close_code


class Open(NamedTuple):
    """The client begins a session."""

    session: int
    command: int
    address: Address
    deadline: int = 0
    """For the dial, in units of 100 ms; 0 is the server's own."""


class Opened(NamedTuple):
    """The server has dialled."""

    session: int
    dial_ms: int
    bound: Address


class Refused(NamedTuple):
    """The server has not, and ends its direction."""

    session: int
    code: int
    text: str = ""
    retry_is_safe: bool = False
    """Nothing was dialled: the session may be tried on another tunnel."""


class Data(NamedTuple):
    """Payload: the whole of a DATA packet, or a part of it."""

    session: int
    payload: bytes | memoryview


class Fin(NamedTuple):
    """This direction is complete."""

    session: int


class Reset(NamedTuple):
    """This direction is cut off, and the other is not wanted any more."""

    session: int
    code: int
    text: str = ""


class Datagram(NamedTuple):
    """A UDP datagram to or from an address."""

    session: int
    address: Address
    payload: bytes


class Bound(NamedTuple):
    """The peer that a BIND has accepted."""

    session: int
    peer: Address


class Ping(NamedTuple):
    """To be answered at once, with the same 8 bytes."""

    nonce: bytes


class Pong(NamedTuple):
    """The answer."""

    nonce: bytes


class Goaway(NamedTuple):
    """No new session on this tunnel; the one that runs may finish within the grace."""

    code: int
    grace_ms: int


Packet: TypeAlias = Open | Opened | Refused | Data | Fin | Reset | Datagram | Bound | Ping | Pong | Goaway


# --- writing --------------------------------------------------------------------------------------


def data_header(session: int) -> bytes:
    """What stands before the payload in a DATA packet: it need not be copied to be sent."""
    return _HEADER.pack(DATA, 0, session)


def encode(packet: Packet) -> bytes:
    """The packet as the bytes of one message."""
    match packet:
        case Data(session, payload):
            return data_header(session) + payload
        case Open(session, command, address, deadline):
            return _head(OPEN, session) + _OPEN_BODY.pack(command, deadline) + address.encode()
        case Opened(session, dial_ms, bound):
            return _head(OPENED, session) + _U32.pack(min(dial_ms, _MAX_U32)) + bound.encode()
        case Refused(session, code, text, retry_is_safe):
            flags = _RETRY_IS_SAFE if retry_is_safe else 0
            return _head(REFUSED, session, flags) + bytes((code,)) + _encode_text(text)
        case Fin(session):
            return _head(FIN, session)
        case Reset(session, code, text):
            return _head(RESET, session) + bytes((code,)) + _encode_text(text)
        case Datagram(session, address, payload):
            return _head(DATAGRAM, session) + address.encode() + payload
        case Bound(session, peer):
            return _head(BOUND, session) + peer.encode()
        case Ping(nonce):
            return _head(PING, 0) + nonce
        case Pong(nonce):
            return _head(PONG, 0) + nonce
        case Goaway(code, grace_ms):
            return _head(GOAWAY, 0) + _CODE_AND_U32.pack(code, min(grace_ms, _MAX_U32))


def _head(kind: int, session: int, flags: int = 0) -> bytes:
    return _HEADER.pack(kind, flags, session)


def _encode_text(text: str) -> bytes:
    # A character that the limit cuts in two is left out.
    return text.encode("utf-8", "replace")[:MAX_TEXT].decode("utf-8", "ignore").encode()


# --- reading --------------------------------------------------------------------------------------


class PacketReader:
    """Reads packets out of the parts of binary messages."""

    __slots__ = ("_data_left", "_kept", "_session")

    def __init__(self) -> None:
        self._session = 0
        """Of the DATA that is being received; 0 if none is."""
        self._data_left = 0
        """How much of it is still allowed."""
        self._kept = bytearray()
        """Another packet as far as it has come, or a part of a header."""

    def feed(self, part: bytes | memoryview, finished: bool) -> Packet | None:
        """Take a part of a message; `finished` if the message ends with it. A part makes one packet at most."""
        if self._session:
            return self._pass(memoryview(part), finished)
        if not self._kept and len(part) >= HEADER_SIZE and part[0] == DATA:
            return self._begin_data(part, finished)
        if finished and not self._kept and len(part) <= MAX_PACKET:
            return _decode(bytes(part))
        self._check_growth(part)
        self._kept += part
        if self._kept.startswith(_DATA) and len(self._kept) >= HEADER_SIZE:
            return self._begin_data(bytes(self._kept), finished)
        if not finished:
            return None
        packet, self._kept = bytes(self._kept), bytearray()
        return _decode(packet)

    def _begin_data(self, data: bytes | memoryview, finished: bool) -> Data | None:
        session = (data[2] << 8) | data[3]
        if not session:
            raise PacketError("DATA without a session", CloseCode.WRONG_SESSION)
        self._session, self._data_left, self._kept = session, MAX_DATA, bytearray()
        # A view: the payload is not copied for four bytes.
        return self._pass(memoryview(data)[HEADER_SIZE:], finished)

    def _pass(self, payload: memoryview, finished: bool) -> Data | None:
        session = self._session
        self._data_left -= len(payload)
        if self._data_left < 0:
            raise PacketError(f"DATA of more than {MAX_DATA} bytes")
        if finished:
            self._session = 0
        # Empty DATA is a no-op.
        return Data(session, payload) if payload else None

    def _check_growth(self, part: bytes | memoryview) -> None:
        start = self._kept or part
        limit = _LIMITS.get(start[0], MAX_PACKET) if start else 0
        if len(self._kept) + len(part) > limit:
            raise PacketError(f"a packet of type {start[0]:#04x} with more than {limit} bytes")


def _decode(data: bytes) -> Packet | None:
    """A whole packet, DATA apart; None for one that is to be skipped."""
    if len(data) < HEADER_SIZE:
        raise PacketError(f"a packet of {len(data)} bytes, which is less than a header")
    kind, flags, session = _HEADER.unpack_from(data)
    if _FIRST_SKIPPED <= kind <= _LAST_SKIPPED:
        return None
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise PacketError(f"a packet of the unknown type {kind:#04x}")
    if (kind in _OF_THE_TUNNEL) != (session == 0):
        raise PacketError(f"a packet of type {kind:#04x} in session {session}", CloseCode.WRONG_SESSION)
    try:
        return decoder(session, flags, data[HEADER_SIZE:])
    except struct.error:
        raise PacketError(f"a packet of type {kind:#04x} with a body of {len(data) - HEADER_SIZE} bytes") from None


def _decode_open(session: int, _: int, body: bytes) -> Open:
    command, deadline = _OPEN_BODY.unpack_from(body)
    return Open(session, command, _whole_address(body, _OPEN_BODY.size), deadline)


def _decode_opened(session: int, _: int, body: bytes) -> Opened:
    (dial_ms,) = _U32.unpack_from(body)
    return Opened(session, dial_ms, _whole_address(body, _U32.size))


def _decode_refused(session: int, flags: int, body: bytes) -> Refused:
    return Refused(session, *_code_and_text(body), bool(flags & _RETRY_IS_SAFE))


def _decode_fin(session: int, _: int, body: bytes) -> Fin:
    if body:
        raise PacketError(f"FIN with a body of {len(body)} bytes")
    return Fin(session)


def _decode_reset(session: int, _: int, body: bytes) -> Reset:
    return Reset(session, *_code_and_text(body))


def _decode_datagram(session: int, _: int, body: bytes) -> Datagram:
    address, end = _address(body, 0)
    if len(body) - end > MAX_DATAGRAM:
        raise PacketError(f"a datagram of {len(body) - end} bytes")
    return Datagram(session, address, body[end:])


def _decode_bound(session: int, _: int, body: bytes) -> Bound:
    return Bound(session, _whole_address(body, 0))


def _decode_ping(_: int, __: int, body: bytes) -> Ping:
    return Ping(_nonce(body))


def _decode_pong(_: int, __: int, body: bytes) -> Pong:
    return Pong(_nonce(body))


def _decode_goaway(_: int, __: int, body: bytes) -> Goaway:
    return Goaway(*_CODE_AND_U32.unpack(body))


_DECODERS: dict[int, Callable[[int, int, bytes], Packet]] = {
    OPEN: _decode_open,
    OPENED: _decode_opened,
    REFUSED: _decode_refused,
    FIN: _decode_fin,
    RESET: _decode_reset,
    DATAGRAM: _decode_datagram,
    BOUND: _decode_bound,
    PING: _decode_ping,
    PONG: _decode_pong,
    GOAWAY: _decode_goaway,
}


def _address(body: bytes, start: int) -> tuple[Address, int]:
    try:
        found = read_address(body, start)
    except BadAddress as error:
        raise PacketError(f"a packet with {error}") from None
    if found is None:
        raise PacketError("a packet that ends within its address")
    return found


def _whole_address(body: bytes, start: int) -> Address:
    address, end = _address(body, start)
    if end != len(body):
        raise PacketError(f"a packet with {len(body) - end} bytes behind its address")
    return address


def _code_and_text(body: bytes) -> tuple[int, str]:
    if not body:
        raise PacketError("an end without a code")
    if len(body) > 1 + MAX_TEXT:
        raise PacketError(f"a text of {len(body) - 1} bytes")
    text = body[1:].decode("utf-8", "replace")
    return body[0], "".join(each if each.isprintable() else "\ufffd" for each in text)


def _nonce(body: bytes) -> bytes:
    if len(body) != 8:
        raise PacketError(f"a ping or pong of {len(body)} bytes instead of 8")
    return body
