"""PURE. What the session machines want to be done: each effect is a small order, run by whoever owns the sockets."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from .addresses import Address
from .codes import CloseCode
from .packets import Open, Packet


class Send(NamedTuple):
    """Write the packet. Those of one fact belong together, into one write."""

    packet: Packet


class Deliver(NamedTuple):
    """Write payload to the local side."""

    session: int
    payload: bytes | memoryview


class EndLocal(NamedTuple):
    """The local side has got all: end its writing direction, once that is written."""

    session: int


class AbortLocal(NamedTuple):
    """Reset the local side (RST), so that the application does not take it for a clean end."""

    session: int
    code: int
    text: str


class SessionOpened(NamedTuple):
    """Client: the server has dialled."""

    session: int
    dial_ms: int
    bound: Address


class SessionRefused(NamedTuple):
    """Client: it has not, and nothing was delivered. There is no `AbortLocal` besides."""

    session: int
    code: int
    text: str
    retry_is_safe: bool
    """Whether another tunnel may try the same: what was sent on this one reached no destination."""


class StartDial(NamedTuple):
    """Server: dial, then say `dial_succeeded` or `dial_failed`."""

    request: Open


class CancelDial(NamedTuple):
    """Server: nobody waits for this dial any more. If it succeeds nevertheless, it says so as any other."""

    session: int


class CloseTunnel(NamedTuple):
    """Close the websocket with this code. It is the last effect of a tunnel."""

    close_code: CloseCode
    reason: str


Effect: TypeAlias = (
    Send | Deliver | EndLocal | AbortLocal | SessionOpened | SessionRefused | StartDial | CancelDial | CloseTunnel
)
