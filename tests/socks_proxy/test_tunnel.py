"""The shell of a tunnel and its session, over a websocket that does as it is told: no moment is left to chance."""

from __future__ import annotations

import socket
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, cast

import anyio
import pytest
from anyio import EndOfStream

from examples.socks_proxy import relay
from examples.socks_proxy.addresses import UNKNOWN
from examples.socks_proxy.codes import Code, Command
from examples.socks_proxy.packets import (
    DATA,
    FIN,
    HEADER_SIZE,
    MAX_DATA_SENT,
    RESET,
    Data,
    Fin,
    Goaway,
    Open,
    Opened,
    Packet,
    Refused,
    Reset,
)
from examples.socks_proxy.relay import Session
from examples.socks_proxy.session import ClientTunnel, ServerTunnel
from examples.socks_proxy.session_log import SessionRecord
from examples.socks_proxy.tunnel import Tunnel, varied
from tests.stream_pairs import reset
from wspool.testing import settle
from wspool.websocket import TCPStream

pytestmark = pytest.mark.usefixtures("anyio_backend")


class Websocket:
    """Takes packets, unless it is held up."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False
        self.free = anyio.Event()
        self.free.set()

    async def send_many(self, packets: Iterable[bytes]) -> None:
        await self.free.wait()
        self.sent += packets

    async def aclose(self, *_: object) -> None:
        self.closed = True

    def hold_up(self) -> None:
        self.free = anyio.Event()


@contextmanager
def local() -> Generator[tuple[TCPStream, TCPStream], None, None]:
    """The local side, and who is behind it."""
    listening = socket.create_server(("127.0.0.1", 0))
    there = socket.create_connection(listening.getsockname())
    here, _ = listening.accept()
    listening.close()
    streams = TCPStream(here), TCPStream(there)
    yield streams
    for stream in streams:
        stream.close()


def client(websocket: Websocket, stream: TCPStream | None = None) -> tuple[Tunnel, Session, Any]:
    """A session that has just begun, and the machine."""
    now = time.monotonic()
    machine = ClientTunnel(now)
    tunnel = Tunnel(cast("Any", websocket), machine, ping_after=100, idle_timeout=100)
    session = Session(UNKNOWN, SessionRecord(id=1, role="client"), Code.LOCAL_CLIENT_GONE, stream)
    machine.open(UNKNOWN, now=now)
    tunnel.begin(session)
    return tunnel, session, machine


async def receive(tunnel: Tunnel, *packets: Packet) -> None:
    for packet in packets:
        await tunnel.say(tunnel.machine.receive(packet, time.monotonic()))


async def test_a_tunnel_whose_closing_is_cut_off_is_closed_all_the_same() -> None:
    websocket = Websocket()
    tunnel, session, machine = client(websocket)
    await receive(tunnel, Opened(1, 0, UNKNOWN), Fin(1))
    await tunnel.say(machine.local_end(1))  # it waits for the next OPEN
    assert session.over
    assert not websocket.sent
    websocket.hold_up()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await tunnel.aclose()
    assert websocket.closed
    assert not tunnel.is_reusable()


async def test_what_was_left_to_the_next_open_goes_out_before_a_tunnel_is_closed() -> None:
    websocket = Websocket()
    tunnel, _, machine = client(websocket)
    await receive(tunnel, Opened(1, 0, UNKNOWN), Fin(1))
    await tunnel.say(machine.local_end(1))
    await tunnel.aclose()
    assert [packet[0] for packet in websocket.sent] == [FIN]


async def test_what_was_left_to_the_next_open_goes_out_soon_without_one() -> None:
    websocket = Websocket()
    tunnel, _, machine = client(websocket)
    await receive(tunnel, Opened(1, 0, UNKNOWN), Fin(1))
    await tunnel.say(machine.local_end(1))
    now = time.monotonic()
    assert tunnel.is_due(now)
    await tunnel.tick(now)
    assert [packet[0] for packet in websocket.sent] == [FIN]
    assert not tunnel.is_due(now)
    assert tunnel.is_reusable()


async def test_no_session_begins_on_a_tunnel_that_is_too_old_or_going_away() -> None:
    now = time.monotonic()
    tunnel = Tunnel(cast("Any", Websocket()), ClientTunnel(now, max_age=1000), ping_after=100, idle_timeout=100)
    assert tunnel.is_reusable()
    assert not tunnel.may_begin(now + 1000)
    await receive(tunnel, Goaway(Code.GOING_AWAY, 0))
    assert not tunnel.is_reusable()


async def test_a_session_that_begins_anew_is_not_over_when_its_first_tunnel_ends() -> None:
    tunnel, session, _ = client(Websocket())
    session.restart()
    await tunnel.lose("it was closed")
    assert not session.over


async def test_a_tunnel_that_has_fallen_silent_says_so() -> None:
    websocket = Websocket()
    tunnel, session, _ = client(websocket)
    now = time.monotonic()
    tunnel.liveness.pinged(now, 1.0)
    assert tunnel.is_due(now + 1)
    await tunnel.tick(now + 1)
    assert websocket.closed
    assert tunnel.lost == "no byte came after a ping"
    assert session.refusal is not None
    assert session.refusal.text == tunnel.lost


def test_times_are_varied_by_a_tenth() -> None:
    times = [varied(20.0) for _ in range(1000)]
    assert 18.0 <= min(times) < 18.5
    assert 21.5 < max(times) <= 22.0


async def test_a_send_that_was_cut_off_leaves_no_tunnel_for_the_next() -> None:
    websocket = Websocket()
    tunnel, _, machine = client(websocket)
    await receive(tunnel, Opened(1, 0, UNKNOWN))
    websocket.hold_up()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tunnel.say, machine.local_data(1, b"x"))
            await settle()
            scope.cancel()
    await receive(tunnel, Reset(1, Code.CANCELLED))
    assert not tunnel.is_reusable()


async def test_a_refusal_cuts_no_write_off() -> None:
    websocket = Websocket()
    with local() as (here, there):
        tunnel, session, _ = client(websocket, here)
        session.permit()  # --fast-open
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.carried, lambda _: None)
            await settle()
            websocket.hold_up()
            there.send_eof_nowait()
            await settle()
            await receive(tunnel, Refused(1, Code.DENIED))
            websocket.free.set()
    assert session.refused
    assert [packet[0] for packet in websocket.sent] == [FIN]
    assert tunnel.is_reusable()


async def test_a_session_is_not_over_while_the_destination_takes_what_came_early() -> None:
    websocket, machine = Websocket(), ServerTunnel(time.monotonic())
    session = Session(UNKNOWN, SessionRecord(id=1, role="server"), Code.RESET_BY_DESTINATION)

    async def dial(tunnel: Tunnel, _: Open) -> None:
        tunnel.begin(session)

    tunnel = Tunnel(cast("Any", websocket), machine, ping_after=100, idle_timeout=5, dial=dial)
    await receive(tunnel, Open(1, Command.CONNECT, UNKNOWN), Data(1, b"early"), Fin(1))
    opened, *_ = machine.dial_succeeded(1, 0, UNKNOWN)
    session.held = True  # the rest is being delivered
    await tunnel.say([opened])
    await tunnel.say(machine.local_end(1))
    assert machine.is_idle
    assert not session.over
    assert tunnel.is_due(time.monotonic() + 6)  # its limits still hold
    tunnel.go_on(session)
    assert session.over


async def test_a_session_that_was_given_up_is_over_when_the_next_begins() -> None:
    """Though something still delivers to it: that finds out a moment later."""
    websocket, machine = Websocket(), ServerTunnel(time.monotonic())
    begun: list[Session] = []

    async def dial(tunnel: Tunnel, _: Open) -> None:
        begun.append(Session(UNKNOWN, SessionRecord(id=1, role="server"), Code.RESET_BY_DESTINATION))
        tunnel.begin(begun[-1])

    tunnel = Tunnel(cast("Any", websocket), machine, ping_after=100, idle_timeout=5, dial=dial)
    with local() as (here, _):
        await receive(tunnel, Open(1, Command.CONNECT, UNKNOWN), Data(1, b"early"), Fin(1))
        first = begun[0]
        first.local = here
        while here.send_nowait(bytes(60_000)):
            pass  # until it takes no more
        opened, *early = machine.dial_succeeded(1, 0, UNKNOWN)
        first.held = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tunnel.say, early)
            await settle()
            await tunnel.say([opened])
            await tunnel.say(machine.local_end(1))
            await first.give_up(Code.TIMED_OUT, "it has accepted nothing")
            await tunnel.say(machine.receive(Open(2, Command.CONNECT, UNKNOWN), time.monotonic()))
        assert first.over
        assert not begun[1].over


async def test_an_application_is_not_listened_to_any_more_once_its_session_was_cut() -> None:
    """It would be for nothing, and as long as it goes on speaking nobody else would have a turn."""
    websocket = Websocket()
    with local() as (here, there):
        tunnel, session, _ = client(websocket, here)
        await receive(tunnel, Opened(1, 0, UNKNOWN))
        session.permit()
        session.local = None  # its reset is still to come
        await receive(tunnel, Reset(1, Code.RESET_BY_DESTINATION))
        session.local = here
        await there.send(b"x")
        with anyio.fail_after(10):
            await session.carry()
        assert session.said == 0
        assert [packet[0] for packet in websocket.sent] == [RESET]


class Talker:
    """A local side that says all it may, so many times, and takes 40 ms for each."""

    def __init__(self, times: int, *, joined_at: int) -> None:
        """A session begins beside this one at the time with that number."""
        self.now = 1000.0
        self.asked: list[int] = []
        self.raw_socket = self
        self._times = times
        self._joined_at = joined_at

    def setsockopt(self, *_: object) -> None:
        pass

    def monotonic(self) -> float:
        return self.now

    async def receive_on(self, most: int) -> bytes:
        self.now += 0.04
        self.asked.append(most)
        if len(self.asked) == self._joined_at:
            Session(UNKNOWN, SessionRecord(id=2, role="client"), Code.LOCAL_CLIENT_GONE)
        if len(self.asked) > self._times:
            raise EndOfStream
        return bytes(most)


async def test_bulk_data_is_read_in_large_portions_unless_a_session_has_just_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It costs less; but those who begin wait for each portion."""
    talker, websocket = Talker(9, joined_at=6), Websocket()
    monkeypatch.setattr(relay, "time", talker)
    _, session, _ = client(websocket, cast("Any", talker))
    session.permit()
    await session.carry()
    small, large = MAX_DATA_SENT, 2 * MAX_DATA_SENT
    assert talker.asked == [small, small, small, large, large, large, small, small, small, large]
    sent = [packet for packet in websocket.sent if packet[0] == DATA]
    assert sum(len(packet) - HEADER_SIZE for packet in sent) == sum(talker.asked[:-1])
    assert max(map(len, sent)) == MAX_DATA_SENT + HEADER_SIZE


async def test_nobody_waits_for_a_tunnel_for_an_application_that_has_gone_away() -> None:
    with local() as (here, there):
        session = Session(UNKNOWN, SessionRecord(id=1, role="client"), Code.LOCAL_CLIENT_GONE, here)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.watched, anyio.sleep_forever)
            await settle()
            reset(there)
            there.close()
        assert session.given_up


async def test_a_reset_behind_what_was_said_is_noticed_before_the_answer() -> None:
    with local() as (here, there):
        _, session, _ = client(Websocket(), here)
        await there.send(b"x")
        reset(there)
        there.close()
        await session.carry()
        assert session.given_up
