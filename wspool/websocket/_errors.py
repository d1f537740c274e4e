"""PURE. What can go wrong with a websocket, each with its own type.

Errors of the transport that anyio has a type for stay anyio's: `BrokenResourceError`,
`ClosedResourceError`, `BusyResourceError` and `EndOfStream`, with one of these as their cause where
there is more to say.
"""

from __future__ import annotations

from collections.abc import Sequence


class WebSocketError(Exception):
    """Whatever goes wrong with a websocket."""


class InvalidURL(WebSocketError, ValueError):
    """The URL cannot be connected to. The text names the URL, without its password, and what is wrong with it."""


class ConnectFailed(WebSocketError, OSError):
    """No TCP connection to the host, or to the proxy, came about; or the proxy refused to open one."""


class TLSFailed(WebSocketError, OSError):
    """The TLS handshake failed. The text says with whom, about which name or certificate, and why."""


class ConnectTimeout(WebSocketError, TimeoutError):
    """Connecting took too long. The text says which phase of it."""


class UpgradeFailed(WebSocketError):
    """The far end did not agree to a websocket (RFC 6455 section 4.2.2)."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes = b"",
    ) -> None:
        """An answer that is no HTTP has no status."""
        super().__init__(message)
        self.status = status
        """The status of the answer, for example 401."""
        self.headers: list[tuple[bytes, bytes]] = list(headers)
        """Of the answer, with lower-case names."""
        self.body = body
        """The first 64 KiB of the answer's body."""


class ProtocolViolation(WebSocketError):
    """The far end broke the protocol; the connection is failed (RFC 6455 section 7.1.7)."""

    def __init__(self, message: str, code: int = 1002) -> None:
        """With the close code that the far end was told."""
        super().__init__(message)
        self.code = code
        """The close code that was sent (RFC 6455 section 7.4.1)."""


class WebSocketClosed(WebSocketError):
    """The far end has closed the websocket, by a Close frame."""

    def __init__(self, code: int, reason: str = "") -> None:
        """With the code and the reason of its Close frame."""
        said = f": {reason}" if reason else ""
        super().__init__(f"closed by the far end with code {code}{said}")
        self.code = code
        """RFC 6455 section 7.4; 1005 if its Close frame had no code."""
        self.reason = reason
        """What it gave as the reason; do not trust it."""
