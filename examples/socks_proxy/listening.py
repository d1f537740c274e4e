"""SHELL. What both ends do where they listen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anyio import ClosedResourceError
from anyio.abc import SocketAttribute, TaskGroup

from wspool.websocket import TCPListener, TCPStream

from .addresses import Address
from .dial import local_address
from .workers import Workers


async def accept_all(listener: TCPListener, handler: Callable[[TCPStream], Any], tasks: TaskGroup | Workers) -> None:
    """Handle connections in `tasks`, until the listener is closed."""
    try:
        await listener.serve(handler, tasks)
    except* ClosedResourceError:
        pass  # no more of them, please


def listening_on(listener: TCPListener) -> Address:
    """Where connections are accepted, on the first of its sockets."""
    return local_address(listener.extra(SocketAttribute.raw_socket))
