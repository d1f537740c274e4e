"""Websockets over any byte stream of anyio: messages, or an `anyio.abc.ByteStream` of bytes.

wsproto does the handshake and what is delicate; bulk data goes round it. See `connect_websocket`,
`accept_websocket`, `WebSocketConnection` and `WebSocketStream`.
"""

from __future__ import annotations

from ._accept import accept_websocket
from ._connect import connect_websocket
from ._connection import WebSocketAttribute, WebSocketConnection
from ._errors import (
    ConnectFailed,
    ConnectTimeout,
    InvalidURL,
    ProtocolViolation,
    TLSFailed,
    UpgradeFailed,
    WebSocketClosed,
    WebSocketError,
)
from ._event import Event, new_event
from ._handshake import Accept, Request, Response
from ._masking import masker
from ._settings import WebSocketSettings
from ._stream import WebSocketStream
from ._tcp import TCPListener, TCPStream, connect_any, connect_tcp, listen_tcp, resolve
from ._tls import TLSStream, default_context
from ._turns import WriteLock

__all__ = (
    "Accept",
    "ConnectFailed",
    "ConnectTimeout",
    "Event",
    "InvalidURL",
    "ProtocolViolation",
    "Request",
    "Response",
    "TCPListener",
    "TCPStream",
    "TLSFailed",
    "TLSStream",
    "UpgradeFailed",
    "WebSocketAttribute",
    "WebSocketClosed",
    "WebSocketConnection",
    "WebSocketError",
    "WebSocketSettings",
    "WebSocketStream",
    "WriteLock",
    "accept_websocket",
    "connect_any",
    "connect_tcp",
    "connect_websocket",
    "default_context",
    "listen_tcp",
    "masker",
    "new_event",
    "resolve",
)
