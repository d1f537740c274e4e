"""What one task of a tunnel does while another is held up: nothing is overtaken, cut off or lost."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from anyio import BrokenResourceError

from examples.socks_proxy import (
    client as client_module,
    relay,
    server as server_module,
    sweeper,
    tunnel as tunnel_module,
)
from examples.socks_proxy.addresses import UNKNOWN, Address, parse_host
from examples.socks_proxy.codes import Code, Command
from examples.socks_proxy.dial import dial
from examples.socks_proxy.packets import (
    DATA,
    OPEN,
    OPENED,
    RESET,
    SUBPROTOCOL,
    Data,
    Fin,
    Goaway,
    Open,
    Opened,
    Packet,
    PacketReader,
    Ping,
    Pong,
    Refused,
    Reset,
    encode,
)
from examples.socks_proxy.session import ServerTunnel
from examples.socks_proxy.session_log import SessionRecord
from tests.stream_pairs import reset
from wspool.websocket import TCPStream, WebSocketConnection, connect_tcp, connect_websocket

from .ends import (
    PATIENCE,
    TOKEN,
    Ends,
    Handler,
    both_ends,
    echo,
    everything,
    exactly,
    packet_from,
    serve_in,
    tunnel_with,
)

pytestmark = pytest.mark.usefixtures("anyio_backend")


class Held:
    """Holds up the writing of such packets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, is_meant: Callable[[bool, int], bool]) -> None:
        self.reached, self.go_on = anyio.Event(), anyio.Event()
        send_many = WebSocketConnection.send_many

        async def send(websocket: WebSocketConnection, items: Iterable[Any]) -> None:
            messages, this = list(items), cast("Any", websocket)
            put = this._put

            async def slow_put(data: bytes) -> None:
                self.reached.set()
                await self.go_on.wait()
                await put(data)

            if any(is_meant(this._client, message[0]) for message in messages):
                this._put = slow_put
            try:
                await send_many(websocket, messages)
            finally:
                this._put = put

        monkeypatch.setattr(WebSocketConnection, "send_many", send)


async def all_has_arrived() -> None:
    """Wait until nobody has anything left to do; what is in a socket wakes somebody in the next round."""
    for _ in range(20):
        await anyio.wait_all_tasks_blocked()


async def ask_at_once(ends: Ends, port: int, early: bytes = b"") -> TCPStream:
    """Ask an end with --fast-open, and say something with the request."""
    stream = await connect_tcp("127.0.0.1", ends.client_port)
    await stream.send(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big") + early)
    assert (await exactly(stream, 12))[:4] == b"\x05\x00\x05\x00"
    return stream


def resets_at(cut: anyio.Event) -> Handler:
    """A destination that resets when it is told to."""

    async def handle(stream: TCPStream) -> None:
        await cut.wait()
        reset(stream)
        await stream.aclose()

    return handle


async def bare_tunnel(ends: Ends) -> WebSocketConnection:
    """A tunnel to the server end on which any packet can be said."""
    headers = [("Authorization", f"Bearer {TOKEN}")]
    return await connect_websocket(ends.server_url, headers=headers, subprotocols=[SUBPROTOCOL])


async def never(*_: Any, **__: Any) -> Any:
    """A dial that does not end."""
    await anyio.sleep_forever()


async def test_the_reply_comes_before_what_the_destination_says_first(monkeypatch: pytest.MonkeyPatch) -> None:
    gone, closed = anyio.Event(), anyio.Event()

    async def server(stream: TCPStream) -> None:
        websocket = await tunnel_with(Open, stream)
        await websocket.send_many([encode(Opened(1, 0, UNKNOWN)), encode(Data(1, b"banner"))])
        await gone.wait()
        await anyio.aclose_forcefully(websocket)
        closed.set()

    async with anyio.create_task_group() as tasks:
        port = await serve_in(tasks, server)
        async with both_ends(monkeypatch, client={"server": f"ws://127.0.0.1:{port}/"}) as ends:
            async with await ends.connect(80) as stream:
                assert await exactly(stream, 6) == b"banner"
            gone.set()
            await closed.wait()
        tasks.cancel_scope.cancel()


async def test_no_data_overtakes_what_came_before_the_dial_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[bytes] = []
    over = anyio.Event()

    async def destination(stream: TCPStream) -> None:
        async with stream:
            received.append(await everything(stream))
        over.set()

    held = Held(monkeypatch, lambda _, kind: kind == OPENED)
    async with both_ends(monkeypatch, client={"fast_open": True}) as ends:
        async with await ask_at_once(ends, await ends.listen(destination), b"early ") as stream:
            await held.reached.wait()
            await stream.send(b"late")
            await stream.send_eof()
            await all_has_arrived()
            held.go_on.set()
            await over.wait()
    assert received == [b"early late"]


async def test_what_an_application_says_early_goes_out_in_one_write_with_its_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writes: list[list[int]] = []
    send_many = WebSocketConnection.send_many

    async def noting_send(websocket: WebSocketConnection, items: Iterable[Any]) -> None:
        messages = list(items)
        writes.append([message[0] for message in messages])
        await send_many(websocket, messages)

    monkeypatch.setattr(WebSocketConnection, "send_many", noting_send)
    async with both_ends(monkeypatch, client={"fast_open": True}) as ends:
        async with await ask_at_once(ends, await ends.listen(echo), b"early") as stream:
            assert await exactly(stream, 5) == b"early"
    assert [OPEN, DATA] in writes


async def test_a_tunnel_that_was_not_read_while_its_server_dialled_is_watched_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialling, go_on = anyio.Event(), anyio.Event()

    async def slow_dial(*args: Any, **options: Any) -> TCPStream:
        dialling.set()
        await go_on.wait()
        return await dial(*args, **options)

    monkeypatch.setattr(server_module, "dial", slow_dial)
    async with both_ends(monkeypatch, client={"fast_open": True}) as ends, anyio.create_task_group() as tasks:
        stream = await ask_at_once(ends, await ends.listen(echo))
        await dialling.wait()
        (tunnel,) = ends.server.sweeper.tunnels
        tasks.start_soon(stream.send, bytes(200_000))
        while tunnel.liveness.next_deadline is not None:
            await anyio.lowlevel.checkpoint()
        go_on.set()
        assert await exactly(stream, 200_000) == bytes(200_000)
        assert tunnel.liveness.next_deadline is not None
        await stream.aclose()


class HeardFirst(TCPStream):
    """A destination whose buffers are full both ways: it takes nothing before it has been heard."""

    heard: anyio.Event

    async def receive_on(self, max_bytes: int) -> bytes:
        data = await super().receive_on(max_bytes)
        self.heard.set()
        return data

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        data = super().receive_nowait(max_bytes)
        if data is not None:
            self.heard.set()
        return data

    def send_nowait(self, item: bytes | memoryview) -> int:
        return super().send_nowait(item) if self.heard.is_set() else 0

    async def send(self, item: bytes | bytearray | memoryview) -> None:
        await self.heard.wait()
        await super().send(item)


async def test_a_destination_is_heard_though_it_has_not_taken_all_that_came_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received: list[bytes] = []
    over, go_on = anyio.Event(), anyio.Event()

    async def destination(stream: TCPStream) -> None:
        async with stream:
            await stream.send(b"banner")
            received.append(await everything(stream))
        over.set()

    async def slow_dial(*args: Any, **options: Any) -> TCPStream:
        await go_on.wait()
        stream: Any = await dial(*args, **options)
        stream.__class__, stream.heard = HeardFirst, anyio.Event()
        return cast("TCPStream", stream)

    monkeypatch.setattr(server_module, "dial", slow_dial)
    async with both_ends(monkeypatch, client={"fast_open": True}) as ends:
        async with await ask_at_once(ends, await ends.listen(destination), b"early") as stream:
            await all_has_arrived()
            go_on.set()
            assert await exactly(stream, 6) == b"banner"
            await stream.send_eof()
            await over.wait()
    assert received == [b"early"]


async def test_a_reset_reaches_the_application_though_another_fact_comes_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = anyio.Event()
    held = Held(monkeypatch, lambda is_client, kind: is_client and kind == RESET)
    async with both_ends(monkeypatch) as ends:
        async with await ends.connect(await ends.listen(resets_at(cut))) as stream:
            cut.set()
            await held.reached.wait()
            await stream.send(b"x")
            await all_has_arrived()
            held.go_on.set()
            with pytest.raises(BrokenResourceError):
                await stream.receive()


async def test_a_session_that_ends_while_it_sends_leaves_a_tunnel_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = anyio.Event()
    held = Held(monkeypatch, lambda is_client, kind: is_client and kind == DATA)
    async with both_ends(monkeypatch) as ends:
        async with await ends.connect(await ends.listen(resets_at(cut))) as stream:
            await stream.send(b"x")
            await held.reached.wait()
            cut.set()
            await all_has_arrived()
            held.go_on.set()
        await ends.idle_tunnels(1)
        async with await ends.connect(await ends.listen(echo)) as stream:
            await stream.send(b"x")
            assert await stream.receive() == b"x"
        assert ends.line.connections == 1


async def test_what_is_said_between_two_tunnels_goes_to_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both_ends(monkeypatch, client={"fast_open": True}) as ends:
        port = await ends.listen(echo)
        async with await ends.connect(port):
            pass
        await ends.idle_tunnels(1)
        for tunnel in ends.server.sweeper.tunnels:
            tunnel.machine.going_away = True
        dialling, go_on, dial = anyio.Event(), anyio.Event(), ends.client._dial

        async def slow_dial() -> Any:
            dialling.set()
            await go_on.wait()
            return await dial()

        ends.client._dial = slow_dial
        async with await ask_at_once(ends, port) as stream:
            await dialling.wait()
            await stream.send(b"hello")
            await all_has_arrived()
            go_on.set()
            assert await exactly(stream, 5) == b"hello"


async def test_a_session_that_was_moved_is_not_over_when_its_first_tunnel_is(monkeypatch: pytest.MonkeyPatch) -> None:
    tunnels = 0
    closing = anyio.Event()
    unknown = b"\x30\0\0\0"

    async def server(stream: TCPStream) -> None:
        nonlocal tunnels
        tunnels += 1
        is_first = tunnels == 1
        websocket = await tunnel_with(Open, stream)
        await websocket.send(unknown if is_first else encode(Opened(1, 0, UNKNOWN)))
        await closing.wait()  # it does not answer a Close
        if not is_first:
            await websocket.send(encode(Data(1, b"hello")))
        await anyio.aclose_forcefully(websocket)

    async with anyio.create_task_group() as tasks:
        port = await serve_in(tasks, server)
        async with both_ends(monkeypatch, client={"server": f"ws://127.0.0.1:{port}/"}) as ends:
            async with await ends.connect(80) as stream:
                await all_has_arrived()
                closing.set()
                assert await exactly(stream, 5) == b"hello"
        tasks.cancel_scope.cancel()
    assert tunnels == 2


async def test_a_server_that_does_not_answer_costs_the_application_no_more_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replied = anyio.Event()

    async def server(stream: TCPStream) -> None:
        async with await tunnel_with(Reset, stream) as websocket:
            await replied.wait()
            await websocket.send(encode(Reset(1, Code.CANCELLED)))
            await anyio.sleep_forever()

    monkeypatch.setattr(client_module, "_ANSWER_GRACE", 0.01)
    async with anyio.create_task_group() as tasks:
        port = await serve_in(tasks, server)
        settings = {"server": f"ws://127.0.0.1:{port}/", "connect_timeout": 0.5}
        async with both_ends(monkeypatch, client=settings) as ends:
            stream, code = await ends.ask("127.0.0.1", 80)
            assert code == 6
            replied.set()
            await ends.idle_tunnels(1)
            await stream.aclose()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("code", [0, 1, 0xFF])
async def test_a_refusal_is_never_a_success_to_the_application(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def server(stream: TCPStream) -> None:
        async with await tunnel_with(Open, stream) as websocket:
            await websocket.send(encode(Refused(1, code)))
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        port = await serve_in(tasks, server)
        async with both_ends(monkeypatch, client={"server": f"ws://127.0.0.1:{port}/"}) as ends:
            stream, reply = await ends.ask("127.0.0.1", 80)
            await stream.aclose()
            assert reply == 1
        tasks.cancel_scope.cancel()


async def test_the_end_of_a_session_goes_out_before_a_server_that_ends_closes_its_tunnel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def destination(stream: TCPStream) -> None:
        async with stream:
            await everything(stream)
            await stream.send(b"x")
            await anyio.sleep_forever()

    monkeypatch.setattr(sweeper, "_INTERVAL", 0.02)
    monkeypatch.setattr(tunnel_module, "_LAST_WORDS", PATIENCE)  # on a busy machine all takes a second to arrive
    held = Held(monkeypatch, lambda is_client, kind: not is_client and kind == DATA)
    async with both_ends(monkeypatch, server={"idle_timeout": 0.3}) as ends:
        address = Address(parse_host("127.0.0.1"), await ends.listen(destination))
        async with await bare_tunnel(ends) as websocket:
            await websocket.send_many([encode(Open(1, Command.CONNECT, address, 0)), encode(Fin(1))])
            await held.reached.wait()
            (tunnel,) = ends.server.sweeper.tunnels
            await tunnel.idle()  # as nothing has happened for so long
            ends.stop_server.set()
            await all_has_arrived()
            held.go_on.set()
            reader = PacketReader()
            kinds = [type(await packet_from(websocket, reader)) for _ in range(4)]
            assert kinds == [Opened, Data, Reset, Goaway]
            with pytest.raises(anyio.EndOfStream):
                await websocket.receive()


async def test_nothing_begins_for_an_application_that_went_away_while_there_was_no_tunnel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accepted = 0

    async def destination(stream: TCPStream) -> None:
        nonlocal accepted
        accepted += 1
        await echo(stream)

    async with both_ends(monkeypatch, client={"fast_open": True, "max_size": 1, "max_idle": 1}) as ends:
        port = await ends.listen(destination)
        async with await ask_at_once(ends, port, b"x") as first:
            assert await first.receive() == b"x"
            second = await ask_at_once(ends, port)
            await all_has_arrived()
            reset(second)
            await second.aclose()
            await all_has_arrived()
        await ends.idle_tunnels(1)
        await all_has_arrived()
        await ends.idle_tunnels(1)
    assert accepted == 1


async def test_a_reset_that_comes_with_its_open_cancels_the_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both_ends(monkeypatch) as ends:
        port = await ends.listen(echo)
        dialled = 0

        async def count(*_: Any, **__: Any) -> Any:
            nonlocal dialled
            dialled += 1

        monkeypatch.setattr("examples.socks_proxy.server.dial", count)
        async with await bare_tunnel(ends) as websocket:
            request = Open(1, Command.CONNECT, Address(parse_host("127.0.0.1"), port), 0)
            await websocket.send_many([encode(request), encode(Reset(1, Code.CANCELLED))])
            assert await packet_from(websocket, PacketReader()) == Reset(1, Code.CANCELLED)
            await all_has_arrived()
    assert dialled == 0


async def test_a_session_that_is_cancelled_while_it_dials_stays_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    returned = False
    tunnel: Any = SimpleNamespace(machine=ServerTunnel(0.0), runs=lambda _: True)
    session = relay.Session(UNKNOWN, SessionRecord(id="s1", role="server"), Code.RESET_BY_DESTINATION)
    monkeypatch.setattr(server_module, "dial", never)
    async with both_ends(monkeypatch) as ends:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ends.server._session(tunnel, session, 1.0)
            returned = True
        assert scope.cancelled_caught
        assert not returned
        assert ends.server._sessions == 0


async def test_a_dial_that_ends_when_its_client_is_gone_is_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, over = anyio.Event(), anyio.Event(), anyio.Event()
    outcomes = list[str]()

    async def stubborn(*args: Any, **options: Any) -> Any:
        begun.set()
        with anyio.CancelScope(shield=True):
            await go_on.wait()
            return await dial(*args, **options)

    def note(record: SessionRecord) -> None:
        outcomes.append(record.outcome)
        over.set()

    monkeypatch.setattr(server_module, "dial", stubborn)
    monkeypatch.setattr(relay, "log_session", note)
    async with both_ends(monkeypatch) as ends:
        address = Address(parse_host("127.0.0.1"), await ends.listen(echo))
        async with await bare_tunnel(ends) as websocket:
            await websocket.send(encode(Open(1, Command.CONNECT, address, 0)))
            await begun.wait()
            await websocket.send(encode(Reset(1, Code.CANCELLED)))
            assert await packet_from(websocket, PacketReader()) == Reset(1, Code.CANCELLED)
            go_on.set()
            await over.wait()
    assert outcomes == ["cancelled: the client went away"]


async def test_who_spoke_before_the_reply_keeps_no_tunnel_when_the_session_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweeper, "_INTERVAL", 0.02)
    monkeypatch.setattr(server_module, "dial", never)
    async with both_ends(monkeypatch, client={"idle_timeout": 0.1}) as ends:
        async with await connect_tcp("127.0.0.1", ends.client_port) as stream:
            await stream.send(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50early")
            assert await exactly(stream, 2) == b"\x05\x00"
            with pytest.raises(BrokenResourceError):
                await stream.receive()
        await ends.idle_tunnels(1)


def sessions() -> list[relay.Session]:
    return [each for each in gc.get_objects() if isinstance(each, relay.Session)]


async def test_an_idle_tunnel_keeps_nothing_of_its_last_session(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    others = len(sessions())
    async with both_ends(monkeypatch) as ends:
        async with await ends.connect(await ends.listen(echo)) as stream:
            await stream.send(b"x")
            assert await stream.receive() == b"x"
        await ends.idle_tunnels(1)
        while len(sessions()) > others:
            await anyio.lowlevel.checkpoint()  # the end of the last one's task


async def talk_of(ends: Ends, sessions: anyio.Event) -> Address:
    """A destination that talks at once; the event is set when it does not any more."""

    async def destination(stream: TCPStream) -> None:
        async with stream:
            with suppress(BrokenResourceError):  # it may have been reset already
                await stream.send(b"x")
            await sessions.wait()

    return Address(parse_host("127.0.0.1"), await ends.listen(destination))


@pytest.mark.parametrize("asks_by", [Ping, Open])
async def test_a_far_end_that_asks_for_ever_more_and_reads_nothing_is_given_up(
    asks_by: type[Ping | Open], monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = dataclasses.replace(tunnel_module.WEBSOCKET_SETTINGS, close_timeout=0.05)
    monkeypatch.setattr(server_module, "WEBSOCKET_SETTINGS", impatient)
    held = Held(monkeypatch, lambda is_client, kind: not is_client and kind == DATA)
    done = anyio.Event()
    async with both_ends(monkeypatch) as ends:
        address = await talk_of(ends, done)
        websocket = await bare_tunnel(ends)
        await websocket.send(encode(Open(1, Command.CONNECT, address, 0)))
        await held.reached.wait()
        (tunnel,) = ends.server.sweeper.tunnels
        questions: dict[type, list[Packet]] = {
            Ping: [Ping(bytes(8))] * 100,
            Open: [
                packet
                for number in range(1, 100)
                for packet in (Reset(number, Code.CANCELLED), Open(number + 1, Command.CONNECT, address, 0))
            ],
        }
        await websocket.send_many(map(encode, questions[asks_by]))
        while ends.server.sweeper.tunnels:
            await anyio.lowlevel.checkpoint()
        assert "reads nothing" in tunnel.lost
        held.go_on.set()
        while ends.server._sessions:
            await anyio.lowlevel.checkpoint()
        done.set()
        await anyio.aclose_forcefully(websocket)


async def test_no_signs_of_life_pile_up_behind_what_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch, lambda is_client, kind: not is_client and kind == DATA)
    done = anyio.Event()
    async with both_ends(monkeypatch) as ends:
        async with await bare_tunnel(ends) as websocket:
            await websocket.send(encode(Open(1, Command.CONNECT, await talk_of(ends, done), 0)))
            await held.reached.wait()
            (tunnel,) = ends.server.sweeper.tunnels
            later = time.monotonic() + 20  # more than a heartbeat, and less than a silence that asks for a ping
            assert not tunnel.is_due(later)
            await tunnel.tick(later)
            held.go_on.set()
            await all_has_arrived()
            assert tunnel.is_due(later)
            await tunnel.tick(later)
            reader = PacketReader()
            assert [type(await packet_from(websocket, reader)) for _ in range(3)] == [Opened, Data, Pong]
            done.set()


@pytest.mark.parametrize(
    ("end", "places"),
    [
        ("client", ["receive"]),
        ("client", ["expire"]),
        ("server", ["local_data", "local_abort"]),
        ("server", ["takes_data"]),
    ],
)
async def test_an_error_in_this_program_costs_one_tunnel_and_nothing_else(
    end: str, places: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a planted error")

    monkeypatch.setattr(sweeper, "_INTERVAL", 0.02)
    monkeypatch.setattr(tunnel_module, "_HEARTBEAT", 0.0)
    async with both_ends(monkeypatch) as ends:
        port = await ends.listen(echo)
        async with await ends.connect(port) as stream:
            tunnel = next(iter(getattr(ends, end).sweeper.tunnels))
            for place in places:
                monkeypatch.setattr(tunnel.machine, place, fail)
            with pytest.raises(BrokenResourceError):
                await stream.send(b"x")
                await stream.receive()
                await stream.receive()
        async with await ends.connect(port) as stream:
            await stream.send(b"x")
            assert await stream.receive() == b"x"
    assert "a planted error" in caplog.text


async def test_a_client_may_say_for_how_long_it_waits_for_the_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "dial", never)
    async with both_ends(monkeypatch) as ends, await bare_tunnel(ends) as websocket:
        await websocket.send(encode(Open(1, Command.CONNECT, Address(parse_host("127.0.0.1"), 80), 1)))
        answer = await packet_from(websocket, PacketReader())
        assert (type(answer), answer.code) == (Refused, Code.TIMED_OUT)
        assert answer.text == "no address of 127.0.0.1 answered within 0.1 s"


async def test_port_0_is_refused_as_any_bad_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with both_ends(monkeypatch) as ends:
        async with await bare_tunnel(ends) as websocket:
            await websocket.send(encode(Open(1, Command.CONNECT, Address(parse_host("127.0.0.1"), 0), 0)))
            answer = await packet_from(websocket, PacketReader())
            assert (type(answer), answer.code) == (Refused, Code.BAD_REQUEST)
    assert "error in this program" not in caplog.text
