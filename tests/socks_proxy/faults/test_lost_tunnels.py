"""Idle tunnels: those that end at the moment at which a session is to begin, and those that are not to be doubted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from examples.socks_proxy import relay
from examples.socks_proxy.codes import CloseCode, Code
from examples.socks_proxy.packets import SUBPROTOCOL, Open, PacketReader, Refused, encode
from tests.jumping_clock import jumping_clock
from tests.socks_proxy.test_order import packet_from
from wspool.websocket import Accept, accept_websocket

from .in_memory import ECHO, in_memory, taking, until

anyio_backend = jumping_clock


async def test_a_session_whose_fresh_tunnel_has_ended_too_is_refused_and_does_not_wait_for_ever() -> None:
    """As at a server that is ending: GOAWAY on the tunnel that there is, and another is closed at once."""

    async def server(stream: Any) -> None:
        websocket = await accept_websocket(stream, lambda _: Accept(subprotocol=SUBPROTOCOL))
        if world.tunnels == 1:
            while not isinstance(await packet_from(websocket, PacketReader()), Open):
                pass
            await websocket.send(encode(Refused(1, Code.GOING_AWAY, "", retry_is_safe=True)))
            await anyio.sleep(1)
        await websocket.aclose(CloseCode.GOING_AWAY)

    async with in_memory() as world:
        world.serve = server
        dial = world.client._dial

        async def dial_and_lose() -> Any:
            tunnel = await dial()
            await until(lambda: tunnel.lost)
            return tunnel

        world.client._dial = dial_and_lose  # the pool has the other one
        with taking(0, give_or_take=5):
            stream, code = await world.ask(ECHO)
        assert code == Code.GENERAL_FAILURE
        await stream.aclose()


async def test_the_log_says_how_long_a_session_has_waited_for_its_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float | None] = []
    monkeypatch.setattr(relay, "log_session", lambda record: waits.append(record.pool_wait))
    async with in_memory() as world:
        connect = world.connect_tcp

        async def connect_slowly(*target: object) -> Any:
            await anyio.sleep(3)
            return await connect(*target)

        with pytest.MonkeyPatch.context() as patch:  # undone before the world is
            patch.setattr("wspool.websocket._connect.connect_tcp", connect_slowly)
            for _ in range(2):
                async with await world.connect(ECHO):
                    pass
                await until(lambda: world.client.pool.statistics().idle)
    assert [wait for wait in waits if wait is not None] == pytest.approx([3, 0])


async def test_an_idle_tunnel_that_works_is_kept_for_the_next_session() -> None:
    async with in_memory() as world:
        for _ in range(2):
            async with await world.connect(ECHO) as stream:
                await stream.send(b"x")
                assert await stream.receive() == b"x"
            await anyio.sleep(60)
        assert world.tunnels == 1


async def test_an_idle_tunnel_that_has_ended_is_not_counted_for_long() -> None:
    """None is opened in its place meanwhile."""
    async with in_memory() as world:
        async with await world.connect(ECHO):
            pass
        await until(lambda: world.client.pool.statistics().idle)
        for tunnel in list(world.server.sweeper.tunnels):
            await tunnel.aclose()
        await anyio.sleep(3)
        assert not world.client.pool.statistics().size


async def test_after_the_machine_was_asleep_every_idle_tunnel_is_suspect() -> None:
    async with in_memory() as world:
        for stream in [await world.connect(ECHO) for _ in range(3)]:
            await stream.aclose()
        await until(lambda: world.client.pool.statistics().idle == 3)
        world.client._sleep = SimpleNamespace(was_suspended=lambda *_: True)
        async with await world.connect(ECHO):  # which clears that one
            suspects = [each for each in world.client.sweeper.tunnels if each.liveness.suspect]
            assert len(suspects) == 2
