"""Tunnels that end at the moment at which a session is to begin on them."""

from __future__ import annotations

from typing import Any

import anyio

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
