"""Puts the simulated network, its clock and an order of tasks in the place of the real ones.

wspool's own TCP code stays as it is: what is replaced lies below it, the sockets and the waiting for them.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
import trio._core._run as trio_run
from anyio.abc import SocketAttribute

from examples.socks_proxy import client, relay, server, sweeper, tunnel
from wspool.websocket import _connection, _tcp, _turns, _waits

from .network import OWNER, Network, Socket

# Whoever of the proxy's own looks at a clock; the pool asks the event loop.
_CLOCKS = (client, server, relay, sweeper, tunnel, _connection)
# 5 min would be most of the time that a run takes.
_STALL_TIMEOUT = 12.0


@contextmanager
def substituted(network: Network, sweep_interval: float) -> Generator[dict[str, Any]]:
    """Within it, the proxy runs over that network, and the same seed does the same.

    Gives the objects of the ends that are made, by the owner of their sockets.
    """
    ends: dict[str, Any] = {}
    state = random.getstate()
    with pytest.MonkeyPatch.context() as patch:
        for waiting in (_tcp, _waits):
            patch.setattr(waiting, "anyio", _Anyio(network))
        # No loop can watch these sockets: they are waited for by what stands in the place of anyio.
        patch.setattr(_waits, "in_trio", lambda: True)
        patch.setattr(_tcp, "socket", _SocketModule(network))
        clock = _Clock(network)
        for module in _CLOCKS:
            patch.setattr(module, "time", clock)
        for module, name in ((client, "_ClientEnd"), (server, "_ServerEnd")):
            patch.setattr(module, name, _remembered(getattr(module, name), ends))
        patch.setattr(relay, "STALL_TIMEOUT", _STALL_TIMEOUT)
        patch.setattr(sweeper, "_INTERVAL", sweep_interval)
        # Those of tunnels are walked through, and a set of objects has an order of its own in each process.
        patch.setattr(sweeper, "set", _OrderedSet, raising=False)
        patch.setattr(_turns.work, "moved", 0)
        patch.setattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        patch.setattr(trio_run, "_r", random.Random(network.seed))
        random.seed(network.seed)
        try:
            yield ends
        finally:
            random.setstate(state)


def _remembered(kind: Callable[..., Any], ends: dict[str, Any]) -> Callable[..., Any]:
    def make(*args: Any) -> Any:
        ends[OWNER.get()] = made = kind(*args)
        return made

    return make


class _OrderedSet(dict[Any, None]):
    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


class _Clock:
    """The module `time`, on the event loop's clock. The wall clock agrees with it."""

    def __init__(self, network: Network) -> None:
        self.monotonic = self.time = network.now

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class _SocketModule:
    """The module `socket`, whose sockets are of the network."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def socket(self, family: int, kind: int) -> Socket:
        return Socket(self._network, family)

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)


class _Anyio:
    """The module `anyio`, which waits for sockets of the network."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def wait_readable(self, sock: Socket) -> None:
        await sock.wait("read", sock.is_readable)

    async def wait_writable(self, sock: Socket) -> None:
        await sock.wait("write", sock.is_writable)

    def notify_closing(self, sock: Socket) -> None:
        sock.notify_closing()

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        return await self._network.look_up(host, port)

    async def create_tcp_listener(self, *, local_host: str, local_port: int, **_: Any) -> Any:
        return _Bound(self._network.listen((local_host, local_port)))

    def __getattr__(self, name: str) -> Any:
        return getattr(anyio, name)


class _Bound:
    """A listening socket, as anyio gives it: a `MultiListener` of one."""

    def __init__(self, sock: Socket) -> None:
        self._socket = sock
        self.listeners = [self]
        self.extra_attributes = {SocketAttribute.raw_socket: lambda: sock}

    def extra(self, attribute: Any) -> Any:
        return self.extra_attributes[attribute]()

    async def aclose(self) -> None:
        self._socket.close()
        await anyio.lowlevel.checkpoint()
