"""PURE. What may be set for a websocket, with the reasons for the defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from ._http import check_kind


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketSettings:
    """Limits and times of a websocket, in bytes and seconds. None means no limit, or never."""

    # hypercorn's cap for a message; the websockets library has 1 MiB, aiohttp 4.
    max_frame_size: int | None = 16 * 1024 * 1024
    """The longest frame accepted. Frames pass through in parts: this bounds no memory but that of messages."""
    max_message_size: int | None = 16 * 1024 * 1024
    """The longest message that `WebSocketConnection.receive` puts together. A byte stream has no messages."""
    # The websockets library waits 10 s, RFC 6455 section 7.1.1 asks for "a reasonable time".
    close_timeout: float = 5.0
    """How long the closing handshake may take before the transport is closed without it."""
    ping_interval: float | None = None
    """A ping goes out when a receive has waited this long for any byte."""
    # As in the websockets library and chisel.
    ping_timeout: float = 20.0
    """How long after such a ping any byte, not only the pong, must have come."""

    def __post_init__(self) -> None:
        """ValueError or TypeError, naming the field and the value."""
        for field in fields(self):
            value: Any = getattr(self, field.name)
            kind: Any = int if "int" in str(field.type) else int | float
            what = "a whole number" if kind is int else "a number"
            if "None" in str(field.type):
                kind, what = kind | None, f"{what} or None"
            check_kind(field.name, value, kind, what)
            if value is not None and (math.isnan(value) or value <= 0):
                raise ValueError(f"{field.name} must be more than 0, got {value!r}")


def check_settings(settings: WebSocketSettings | None) -> WebSocketSettings:
    """The caller's, or else the default; TypeError for anything else."""
    check_kind("settings", settings, WebSocketSettings | None, "a WebSocketSettings or None")
    return settings or WebSocketSettings()
