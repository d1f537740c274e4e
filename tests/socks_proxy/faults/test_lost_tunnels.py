"""Idle tunnels: those that end at the moment at which a session is to begin, and those that are not to be doubted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from examples.socks_proxy import relay
from examples.socks_proxy.codes import CloseCode, Code
from examples.socks_proxy.packets import SUBPROTOCOL, Open, Refused, encode
from tests.jumping_clock import jumping_clock
from tests.socks_proxy.ends import everything, exactly, tunnel_with
from wspool.websocket import Accept, accept_websocket

from .in_memory import ECHO, in_memory, taking, until, until_closed

anyio_backend = jumping_clock


async def test_a_session_whose_fresh_tunnel_has_ended_too_is_refused_and_does_not_wait_for_ever() -> None:
    """As at a server that is ending: GOAWAY on the tunnel that there is, and another is closed at once."""

    async def server(stream: Any) -> None:
        if world.tunnels == 1:
            websocket = await tunnel_with(Open, stream)
            await websocket.send(encode(Refused(1, Code.GOING_AWAY, "", retry_is_safe=True)))
            await anyio.sleep(1)
        else:
            websocket = await accept_websocket(stream, lambda _: Accept(subprotocol=SUBPROTOCOL))
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

    async def begin_late(stream: Any) -> None:
        await anyio.sleep(3)
        await world.server.handle(stream)

    async with in_memory() as world:
        world.serve = begin_late
        for _ in range(2):
            async with await world.connect(ECHO):
                pass
            await until(lambda: world.client.pool.statistics().idle)
    assert [wait for wait in waits if wait is not None] == pytest.approx([3, 0])


async def test_the_log_of_both_ends_says_how_long_the_server_has_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    dials: dict[str, float | None] = {}
    monkeypatch.setattr(relay, "log_session", lambda record: dials.update({record.role: record.dial_time}))
    async with in_memory() as world:

        async def connect_late(addresses: list[Any]) -> Any:
            await anyio.sleep(2)
            return await world.connect_any(addresses)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("examples.socks_proxy.dial.connect_any", connect_late)
            async with await world.connect(ECHO):
                pass
        await until(lambda: len(dials) == 2)
    assert dials == pytest.approx({"client": 2, "server": 2})


async def test_an_idle_tunnel_that_works_is_kept_for_the_next_session() -> None:
    async with in_memory() as world:
        for _ in range(2):
            async with await world.connect(ECHO) as stream:
                await stream.send(b"x")
                assert await stream.receive() == b"x"
            await anyio.sleep(60)
        assert world.tunnels == 1


async def test_an_idle_tunnel_that_has_ended_is_not_counted_for_long() -> None:
    """As long as it is, none is opened in its place."""
    async with in_memory() as world:
        async with await world.connect(ECHO):
            pass
        await until(lambda: world.client.pool.statistics().idle)
        for tunnel in list(world.server.sweeper.tunnels):
            await tunnel.aclose()
        await anyio.sleep(3)
        assert not world.client.pool.statistics().size


async def test_a_tunnel_that_has_died_since_it_was_used_costs_a_session_six_seconds_and_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It was heard too lately for a PING beside OPEN. The log says that it was silent, not how it was closed then."""
    caplog.set_level("INFO", logger="wspool.proxy")

    async def server(stream: Any) -> None:
        if world.tunnels == 2:
            await world.server.handle(stream)
            return
        websocket = await tunnel_with(Open, stream)
        await websocket.send(encode(Refused(1, Code.CONNECTION_REFUSED)))
        await until_closed(stream)

    async with in_memory() as world:
        world.serve = server
        stream, code = await world.ask(80)
        assert code == Code.CONNECTION_REFUSED
        await stream.aclose()
        await until(lambda: world.client.pool.statistics().idle)
        with taking(6, give_or_take=0.5):
            stream = await world.connect(ECHO)
        await stream.send(b"x")
        assert await stream.receive() == b"x"
        await stream.aclose()
        assert world.tunnels == 2
    assert "tried again on a fresh tunnel: no byte came after a ping" in caplog.text


async def test_what_a_destination_does_not_take_keeps_no_other_session_waiting_and_is_not_lost() -> None:
    """It has said its end, and so has the application: the tunnel is idle, with all of that on its way."""
    said = b"much that nobody reads yet" * 4_000
    reading, taken = anyio.Event(), bytearray()

    async def destination(stream: Any) -> None:
        async with stream:
            await stream.send_eof()
            await reading.wait()
            taken.extend(await everything(stream))

    async with in_memory() as world:
        world.destinations[80] = destination
        async with await world.connect(80) as stream:
            assert await everything(stream) == b""
            await stream.send(said)
        await until(lambda: world.client.pool.statistics().idle)
        with taking(6, give_or_take=0.5):
            stream = await world.connect(ECHO)
        await stream.aclose()
        assert world.tunnels == 2
        reading.set()
        await until(lambda: len(taken) == len(said))
        assert taken == said


@pytest.mark.parametrize("fast_open", [False, True], ids=["strict", "fast open"])
async def test_a_server_that_dials_for_long_is_not_taken_for_dead(fast_open: bool) -> None:
    """Even if it does not read: what comes early is more than it keeps."""
    early = bytes(200_000)

    async def dial_slowly(addresses: Any) -> Any:
        await anyio.sleep(9)
        return await dial(addresses)

    async with in_memory(client={"fast_open": fast_open}) as world:
        dial = world.connect_any
        with pytest.MonkeyPatch.context() as patch:  # undone before the world is
            patch.setattr("examples.socks_proxy.dial.connect_any", dial_slowly)
            async with anyio.create_task_group() as tasks:
                with taking(9, give_or_take=0.5):
                    stream = await world.connect(ECHO)
                    tasks.start_soon(stream.send, early)
                    assert await exactly(stream, len(early)) == early
                await stream.aclose()
        assert world.tunnels == 1


async def test_after_the_machine_was_asleep_every_idle_tunnel_is_suspect() -> None:
    async with in_memory() as world:
        for stream in [await world.connect(ECHO) for _ in range(3)]:
            await stream.aclose()
        await until(lambda: world.client.pool.statistics().idle == 3)
        world.client._sleep = SimpleNamespace(was_suspended=lambda *_: True)
        async with await world.connect(ECHO):  # which clears that one
            suspects = [each for each in world.client.sweeper.tunnels if each.liveness.suspect]
            assert len(suspects) == 2
