"""When all tasks are blocked, nothing is left in any buffer: what was asked for is out, what came is handed on."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream
from anyio.abc import ByteStream
from hypothesis import given, settings, strategies as st

from tests.tls_pairs import tls_pair
from wspool.testing import MemoryByteStream, memory_byte_streams, settle
from wspool.websocket import TLSStream, WebSocketConnection, WebSocketStream

SIZES = st.sampled_from([0, 1, 125, 126, 5000, 65_536, 200_000])
STEPS = st.lists(st.tuples(st.integers(0, 1), st.just("ping") | st.just("text") | SIZES), max_size=6)
ENDINGS = st.sampled_from(["close", "eof", "both eof", "nothing"])


class Pair:
    """Two websockets, over whatever is between them, on each of which somebody receives."""

    def __init__(self, transports: tuple[ByteStream, ByteStream], *, streams: bool) -> None:
        self.transports = transports
        self.connections = [WebSocketConnection(transports[0], client=True)]
        self.connections.append(WebSocketConnection(transports[1], client=False))
        self.ends: list[Any] = [WebSocketStream(end) if streams else end for end in self.connections]
        self.received = [0, 0]

    async def receive(self, which: int) -> None:
        with suppress(EndOfStream, ClosedResourceError, BrokenResourceError):
            while True:
                self.received[which] += len(await self.ends[which].receive())

    async def step(self, which: int, what: Any) -> None:
        """Ping as keepalive does, or send."""
        if what == "ping":
            self.connections[which]._protocol.ask(b"anybody?")
            await self.connections[which]._answer()
        elif what == "text" and isinstance(self.ends[which], WebSocketConnection):
            await self.ends[which].send("grüße")
        else:
            await self.ends[which].send(bytes(what if isinstance(what, int) else 10))

    async def end(self, how: str) -> None:
        if how == "close":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.ends[0].aclose)
                tasks.start_soon(self.ends[1].aclose)
        for end in self.ends[: {"eof": 1, "both eof": 2}.get(how, 0)]:
            await end.send_eof()

    def check(self) -> None:
        for connection, transport in zip(self.connections, self.transports, strict=True):
            below: object = transport
            protocol = connection._protocol
            assert not protocol.owes_control
            assert not connection._writer.locked
            assert not connection._parts
            assert protocol._position == len(protocol._buffer)
            if isinstance(transport, TLSStream):
                # A server's session tickets go along with its first data (`_tls.py` says why).
                assert transport._outgoing.pending == transport._held
                assert transport._incoming.pending == 0
                below = transport._transport
            assert isinstance(below, MemoryByteStream)
            assert below.closed or below.buffered == 0


async def run(pair: Pair, steps: list[tuple[int, Any]], ending: str) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.receive, 0)
        tasks.start_soon(pair.receive, 1)
        for which, what in steps:
            await pair.step(which, what)
            await settle()
            pair.check()
        # And all of it at once: a ping meets a sender at work.
        for which, what in steps:
            tasks.start_soon(pair.step, which, what)
        await settle()
        pair.check()
        await pair.end(ending)
        await settle()
        pair.check()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("streams", [False, True], ids=["messages", "bytes"])
@settings(max_examples=25)
@given(steps=STEPS, ending=ENDINGS)
async def test_nothing_is_left_in_any_buffer_when_all_tasks_are_blocked(
    streams: bool, steps: list[tuple[int, Any]], ending: str
) -> None:
    await run(Pair(memory_byte_streams(), streams=streams), steps, ending)


@pytest.mark.parametrize("streams", [False, True], ids=["messages", "bytes"])
@settings(max_examples=25)
@given(steps=STEPS, ending=ENDINGS)
async def test_nothing_is_left_in_any_buffer_over_tls(
    streams: bool,
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    steps: list[tuple[int, Any]],
    ending: str,
) -> None:
    transports = await tls_pair(memory_byte_streams(), client_context, server_context)
    await run(Pair(transports, streams=streams), steps, ending)
    assert transports[0]._held == 0
