"""Garbage, and what is valid but has no place there, at each layer of both ends.

Whatever it is, an end closes what it came on, with the code that the tunnel protocol says, or goes on. It never hangs,
nobody else suffers, and afterwards nothing is left: `in_memory` checks that, and that the log tells of no bug.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import anyio
import pytest
import trustme
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream
from hypothesis import example, given, settings, strategies as st

from examples.socks_proxy.addresses import UNKNOWN, Address, parse_host
from examples.socks_proxy.codes import CloseCode, Code
from examples.socks_proxy.packets import (
    SUBPROTOCOL,
    Bound,
    Data,
    Datagram,
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
from examples.socks_proxy.session import next_session
from examples.socks_proxy.users import Users
from tests.jumping_clock import jumping_clock
from tests.socks_proxy.ends import exactly
from tests.stream_pairs import reset
from tests.websocket.frames import Frame, by_wsproto, close
from wspool.testing import settle
from wspool.websocket import Accept, WebSocketClosed, WebSocketConnection, accept_websocket

from .in_memory import ECHO, UPGRADE, Link, World, answers, in_memory, until_closed

clock = jumping_clock
Scenario: TypeAlias = Callable[..., Coroutine[Any, Any, None]]

# Each example is a whole proxy with its event loop.
EXAMPLES = settings().max_examples // 4
PROTOCOL_ERROR, WRONG_SESSION = CloseCode.PROTOCOL_ERROR, CloseCode.WRONG_SESSION


def run(clock: tuple[str, dict[str, Any]], scenario: Scenario, *arguments: object) -> None:
    """In an event loop of its own: Hypothesis comes back with many examples in one test."""
    options = {name: value for name, value in clock[1].items() if name != "debug"}  # it takes five times as long
    anyio.run(scenario, *arguments, backend=clock[0], backend_options=options)


@asynccontextmanager
async def bystander(world: World) -> AsyncGenerator[None, None]:
    """A session on a tunnel of its own, which goes on whatever happens meanwhile."""
    async with await world.connect(ECHO) as stream:
        yield
        await stream.send(b"still there")
        assert await exactly(stream, 11) == b"still there"


async def say(stream: Link, chunks: list[bytes]) -> None:
    """Whether anybody hears it or not."""
    try:
        for chunk in chunks:
            await stream.send(chunk)
            await anyio.sleep(0.01)  # on this clock, until everybody waits
    except BrokenResourceError:
        pass


async def ends_in_time(stream: Link, *, eof: bool) -> bytes:
    """What comes back. Who has said all hears the end; who keeps silent may have begun something that goes on."""
    if eof:
        await stream.send_eof()
    with anyio.move_on_after(60) as patience:
        return await until_closed(stream)
    assert not eof or not patience.cancelled_caught, "nobody hangs up"
    return b""


# --- bytes ------------------------------------------------------------------------------------------------------


def spoilt(*good: bytes) -> st.SearchStrategy[list[bytes]]:
    """Bytes at random, and good ones that were cut, doubled, or changed somewhere; in chunks."""

    def spoil(text: bytes, start: int, junk: bytes, end: int) -> bytes:
        return text[:start] + junk + text[end:]

    places = st.integers(0, max(map(len, good)))
    texts = st.binary(max_size=100) | st.builds(spoil, st.sampled_from(good), places, st.binary(max_size=8), places)
    return st.lists(texts, max_size=4)


REQUEST = b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00" + bytes([ECHO])
TO_SOCKS = (
    b"\x05\x01\x00" + REQUEST + b"payload",
    b"\x05\x02\x00\x02\x01\x01a\x01b\x05\x01\x00\x03\x09localhost\x00\x07",
    b"\x04\x01\x00\x07\x7f\x00\x00\x01\x00",
    b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
)


@settings(max_examples=EXAMPLES)
@given(chunks=spoilt(*TO_SOCKS), users=st.booleans(), eof=st.booleans())
def test_any_bytes_can_come_into_the_socks_port(
    chunks: list[bytes], users: bool, eof: bool, clock: tuple[str, dict[str, Any]]
) -> None:
    async def scenario() -> None:
        async with in_memory() as world, bystander(world):
            world.client._methods = (2,) if users else (0,)
            object.__setattr__(world.client._settings, "users", Users({b"a": b"b"}) if users else None)
            async with world.application() as stream:
                await say(stream, chunks)
                await ends_in_time(stream, eof=eof)
            world.client._methods = (0,)

    run(clock, scenario)


@pytest.fixture(scope="module")
def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("server.example").configure_cert(context)
    return context


TO_SERVER = (
    UPGRADE,
    UPGRADE + Frame(2, encode(Ping(bytes(8)))).encode(to_server=True),
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)


@settings(max_examples=EXAMPLES)
@given(chunks=spoilt(*TO_SERVER), eof=st.booleans())
def test_any_bytes_can_come_into_the_server_port(
    chunks: list[bytes], eof: bool, clock: tuple[str, dict[str, Any]]
) -> None:
    async def scenario() -> None:
        async with in_memory() as world, bystander(world):
            async with world.stranger() as stream:
                await say(stream, chunks)
                answer = await ends_in_time(stream, eof=eof)
                assert not answer or answer.startswith(b"HTTP/1.1 ")

    run(clock, scenario)


TO_TLS = (
    UPGRADE,
    b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    b"\x15\x03\x03\x00\x02\x02\x00",
    b"\x17\x03\x03\xff\xff" + bytes(50),
)


@settings(max_examples=EXAMPLES)
@given(chunks=spoilt(*TO_TLS), eof=st.booleans())
def test_any_bytes_can_come_into_the_server_port_in_place_of_tls(
    chunks: list[bytes], eof: bool, clock: tuple[str, dict[str, Any]], server_context: ssl.SSLContext
) -> None:
    async def scenario() -> None:
        async with in_memory(context=server_context, server={"plain": False}) as world:
            async with world.stranger() as stream:
                await say(stream, chunks)
                answer = await ends_in_time(stream, eof=eof)
                assert not answer or answer[0] in (0x15, 0x16)  # an alert, or a server's hello

    run(clock, scenario)


AGREED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
FROM_SERVER = (
    AGREED + b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\nSec-WebSocket-Protocol: wspool.1\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 302 Found\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
)


@settings(max_examples=EXAMPLES)
@given(chunks=spoilt(*FROM_SERVER), eof=st.booleans())
def test_any_bytes_can_come_from_a_server(chunks: list[bytes], eof: bool, clock: tuple[str, dict[str, Any]]) -> None:
    async def server(stream: Any) -> None:
        async with stream:
            await stream.receive()
            await say(stream, chunks)
            if eof:
                await stream.send_eof()
            await until_closed(stream)

    async def scenario() -> None:
        async with in_memory() as world, bystander(world):
            world.serve = server
            stream, code = await world.ask(ECHO)
            assert code == Code.GENERAL_FAILURE
            await stream.aclose()

    run(clock, scenario)


# --- frames -----------------------------------------------------------------------------------------------------

PACKETS = st.sampled_from(
    [
        encode(packet)
        for packet in (
            Open(1, 1, Address(parse_host("127.0.0.1"), ECHO)),
            Data(1, b"data"),
            Fin(1),
            Reset(1, Code.CANCELLED),
            Ping(bytes(8)),
            Opened(1, 0, UNKNOWN),
        )
    ]
)
FRAMES = st.builds(
    Frame,
    opcode=st.sampled_from([2] * 6 + [0, 0, 1, 3, 8, 9, 10, 15]),
    payload=PACKETS | st.binary(max_size=140),
    fin=st.sampled_from([True] * 4 + [False]),
    rsv=st.sampled_from([0] * 20 + [1, 4]),
    masked=st.sampled_from([None] * 20 + [True, False]),
)
# Of a Close that answers: our own, or what was wrong.
CLOSE_CODES = frozenset((1000, 1002, 1003, 1005, 1007, 1009, 4001))


def told_by(answer: bytes, *, client: bool) -> list[Any]:
    """The events that wsproto makes of it, which takes no wrong frame for a right one."""
    return by_wsproto(answer.partition(b"\r\n\r\n")[2], client=client)[0]


def check_closing(events: list[Any]) -> None:
    assert [event[0] for event in events].count("close") == 1, events
    kind, code, _ = events[-1]
    assert kind == "close"
    assert code in CLOSE_CODES or code >= 3000, code  # such a one was ours, and is given back


@settings(max_examples=EXAMPLES)
@given(frames=st.lists(FRAMES, max_size=6))
def test_any_frames_can_come_to_the_server(frames: list[Frame], clock: tuple[str, dict[str, Any]]) -> None:
    async def scenario() -> None:
        async with in_memory() as world, bystander(world):
            async with world.stranger() as stream:
                raw = [frame.encode(to_server=True) for frame in [*frames, close(1000)]]
                await say(stream, [UPGRADE, *raw])
                check_closing(told_by(await ends_in_time(stream, eof=True), client=True))

    run(clock, scenario)


@settings(max_examples=EXAMPLES)
@given(frames=st.lists(FRAMES, max_size=6))
def test_any_frames_can_come_to_the_client(frames: list[Frame], clock: tuple[str, dict[str, Any]]) -> None:
    answered: list[bytes] = []

    async def server(stream: Any) -> None:
        websocket = await accept_websocket(stream, lambda _: Accept(subprotocol=SUBPROTOCOL))
        raw = [frame.encode(to_server=False) for frame in [*frames, close(1000)]]
        await say(stream, raw)
        # The client lets the server end first, for a moment.
        answered.append(await until_closed(stream))
        await anyio.aclose_forcefully(websocket)

    async def scenario() -> None:
        async with in_memory() as world, bystander(world):
            world.serve = server
            async with world.application() as stream:
                await stream.send(b"\x05\x01\x00" + REQUEST)
                await ends_in_time(stream, eof=False)

    run(clock, scenario)
    for each in answered:
        check_closing(by_wsproto(each, client=False)[0])


# What it is, and the code that answers it.
FRAME_FAULTS = {
    "a frame without a mask": (Frame(2, b"x", masked=False).encode(to_server=True), 1002),
    "a reserved bit": (Frame(2, b"x", rsv=4).encode(to_server=True), 1002),
    "an unknown opcode": (Frame(3, b"x").encode(to_server=True), 1002),
    "a ping in parts": (Frame(9, b"x", fin=False).encode(to_server=True), 1002),
    "a continuation of nothing": (Frame(0, b"x").encode(to_server=True), 1002),
    "a text": (Frame(1, b"x").encode(to_server=True), 1003),
    "a text that is no UTF-8": (Frame(1, b"\xff").encode(to_server=True), 1007),
    # Refused before any of it has come.
    "a header that tells of 2 MiB": (b"\x82\xff" + (2 << 20).to_bytes(8, "big") + bytes(4), 1009),
    "1001 pings at once": (Frame(9, b"x").encode(to_server=True) * 1001, 1008),
}


@pytest.mark.parametrize("what", FRAME_FAULTS)
def test_a_wrong_frame_closes_with_its_code(what: str, clock: tuple[str, dict[str, Any]]) -> None:
    raw, expected = FRAME_FAULTS[what]

    async def scenario() -> None:
        async with in_memory() as world, bystander(world):
            async with world.stranger() as stream:
                await say(stream, [UPGRADE, raw])
                kind, code, _ = told_by(await until_closed(stream), client=True)[-1]
                assert (kind, code) == ("close", expected)

    run(clock, scenario)


# --- packets: what is no packet ---------------------------------------------------------------------------------

NO_PACKETS: dict[str, tuple[str | bytes, int | None]] = {
    "a text": ("ping", 1003),
    "an empty message": (b"", 1002),
    "less than a header": (b"\x05\0\0", 1002),
    "type 0": (b"\0\0\0\1", 1002),
    "an unknown type": (b"\x0c\0\0\1", 1002),
    "a type that is to be skipped": (b"\x40\0\0\1whatever", None),
    "unknown flags": (b"\x09\xff\0\0" + bytes(8), None),
    "empty DATA of any session": (b"\x04\0\xff\xff", None),
    "DATA of no session": (b"\x04\0\0\0x", 4001),
    "FIN with a body": (b"\x05\0\0\1x", 1002),
    "FIN of no session": (b"\x05\0\0\0", 4001),
    "RESET without a code": (b"\x06\0\0\1", 1002),
    "RESET with a long text": (b"\x06\0\0\1\x01" + bytes(256), 1002),
    "PING of a session": (b"\x09\0\0\1" + bytes(8), 4001),
    "PING of 7 bytes": (b"\x09\0\0\0" + bytes(7), 1002),
    "PING of 9 bytes": (b"\x09\0\0\0" + bytes(9), 1002),
    "a PONG that nobody asked for": (b"\x0a\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", None),
    "GOAWAY of 4 bytes": (b"\x0b\0\0\0" + bytes(4), 1002),
    "1025 bytes of what is to be skipped": (b"\x7f\0\0\1" + bytes(1021), 1002),
}
TO_SERVER_ONLY: dict[str, tuple[str | bytes, int | None]] = {
    "OPEN without an address": (b"\x01\0\0\1\x01\0\0\0", 1002),
    "OPEN with half an address": (b"\x01\0\0\1\x01\0\0\0\x01\x7f\0\0", 1002),
    "OPEN with an unknown type of address": (b"\x01\0\0\1\x01\0\0\0\x02\x7f\0\0\1\0\7", 1002),
    "OPEN with a name that cannot be": (b"\x01\0\0\1\x01\0\0\0\x03\xc8" + b"-" * 200 + b"\0\7", 1002),
    "OPEN with an empty name": (b"\x01\0\0\1\x01\0\0\0\x03\0\0\7", 1002),
    "OPEN with more behind it": (b"\x01\0\0\1\x01\0\0\0\x01\x7f\0\0\1\0\7x", 1002),
    "OPEN of session 2": (b"\x01\0\0\2\x01\0\0\0\x01\x7f\0\0\1\0\7", 4001),
    "OPENED to a server": (encode(Opened(1, 0, UNKNOWN)), 1002),
}


async def closed_with(websocket: WebSocketConnection) -> int | None:
    """The code, or None if it goes on. It takes no time."""
    with anyio.move_on_after(1):
        try:
            while True:
                await websocket.receive()
        except (EndOfStream, BrokenResourceError) as error:
            return code_of(error)
    return None


def code_of(error: Exception) -> int:
    """Of their Close: without one, a tunnel is not closed but cut."""
    cause = error.__cause__
    assert isinstance(cause, WebSocketClosed), error
    return cause.code


@pytest.mark.parametrize("what", [*NO_PACKETS, *TO_SERVER_ONLY])
def test_what_is_no_packet_closes_the_tunnel_of_a_server(what: str, clock: tuple[str, dict[str, Any]]) -> None:
    message, expected = {**NO_PACKETS, **TO_SERVER_ONLY}[what]

    async def scenario() -> None:
        async with in_memory() as world, bystander(world):
            websocket = await world.bare_tunnel()
            await websocket.send(message)
            code = await closed_with(websocket)
            assert code == expected
            assert code or await answers(websocket)
            await websocket.aclose()

    run(clock, scenario)


@pytest.mark.parametrize("what", NO_PACKETS)
def test_what_is_no_packet_closes_the_tunnel_of_a_client(what: str, clock: tuple[str, dict[str, Any]]) -> None:
    message, expected = NO_PACKETS[what]

    async def scenario() -> None:
        async with in_memory() as world, bystander(world):
            server = FakeServer()
            world.serve = server.handle
            async with world.application() as stream:
                await stream.send(b"\x05\x01\x00" + REQUEST)
                websocket = await server.first()
                await websocket.send(message)
                code = await closed_with(websocket)
                assert code == expected
                assert code or await answers(websocket)
            server.leave.set()

    run(clock, scenario)


# --- packets: valid ones, in any order --------------------------------------------------------------------------

NONE, FIN, RESET = "none", "FIN", "RESET"

# Which session a packet names: the one that runs, or one so many after or before it; 0 is that of the tunnel.
CURRENT, NEXT, LAST, FAR = 0, 1, -1, 30_000
SESSIONS = st.sampled_from([CURRENT] * 8 + [NEXT, LAST, FAR])
# Destinations of a session, by their ports.
REFUSING, SPEAKING, RESETTING, SILENT = 1, 2, 3, 4
ADDRESSES = {port: Address(parse_host("127.0.0.1"), port) for port in (ECHO, REFUSING, SPEAKING, RESETTING, SILENT)}


@dataclass
class Side:
    """What one side of a tunnel may say, by the rules of the tunnel protocol alone. `mine` are this side's ends."""

    session: int = 0
    mine: str = FIN
    theirs: str = FIN
    late: int = 0
    """The session before, if it ended by our FIN: a RESET of it may still be on the way."""

    @property
    def idle(self) -> bool:
        return NONE not in (self.mine, self.theirs)

    def breach(self, packet: Packet) -> int | None:
        """The code that the other side has to close with, if this may not be said now."""
        if isinstance(packet, Ping | Pong | Goaway):
            return None
        if packet.session == 0:
            return WRONG_SESSION
        match packet:
            case Data(session) | Fin(session):
                return WRONG_SESSION if session != self.session or self.mine != NONE else None
            case Reset(session):
                allowed = session == self.late or (session == self.session and self.mine != RESET)
                return None if allowed else WRONG_SESSION
            case _:
                return self.breach_of_others(packet)

    def breach_of_others(self, packet: Packet) -> int | None:
        raise NotImplementedError

    def begin(self, session: int) -> None:
        self.session, self.mine, self.theirs = session, NONE, NONE

    def say(self, packet: Packet) -> None:
        match packet:
            case Fin():
                self.mine = FIN
            case Reset(session) if session == self.late:
                self.late = 0
            case Reset() | Refused():
                self.mine = RESET
            case _:
                pass

    def hear(self, packet: Packet) -> None:
        match packet:
            case Fin():
                self.theirs = FIN
            case Reset() | Refused():
                self.theirs = RESET
            case _:
                pass


class ClientSide(Side):
    def breach_of_others(self, packet: Packet) -> int | None:
        if not isinstance(packet, Open):
            return PROTOCOL_ERROR
        return None if self.idle and packet.session == next_session(self.session) else WRONG_SESSION

    def say(self, packet: Packet) -> None:
        if isinstance(packet, Open):
            self.late = self.session if self.mine == FIN else 0
            self.begin(packet.session)
        super().say(packet)


@dataclass
class ServerSide(Side):
    opening: bool = False

    def breach(self, packet: Packet) -> int | None:
        if isinstance(packet, Data | Fin) and self.opening:
            return WRONG_SESSION
        return super().breach(packet)

    def breach_of_others(self, packet: Packet) -> int | None:
        if not isinstance(packet, Opened | Refused):
            return PROTOCOL_ERROR
        if packet.session != self.session or self.mine != NONE:
            return WRONG_SESSION
        return None if self.opening else PROTOCOL_ERROR

    def say(self, packet: Packet) -> None:
        self.opening &= not isinstance(packet, Opened | Refused)
        super().say(packet)

    def hear(self, packet: Packet) -> None:
        if isinstance(packet, Open):
            self.late = self.session if self.mine == FIN else 0
            self.begin(packet.session)
            self.opening = True
        super().hear(packet)


@dataclass
class Tunnel:
    """A websocket on which the test says what it likes, and that is always read."""

    websocket: WebSocketConnection
    side: Side
    closed: int | None = None
    pongs: list[bytes] = field(default_factory=list)

    async def listen(self) -> None:
        reader = PacketReader()
        try:
            while True:
                message = await self.websocket.receive()
                assert isinstance(message, bytes)
                packet = reader.feed(message, True)
                if isinstance(packet, Pong):
                    self.pongs.append(packet.nonce)
                elif packet is not None:
                    self.side.hear(packet)
        except (EndOfStream, BrokenResourceError) as error:
            self.closed = code_of(error)
        except ClosedResourceError:
            pass  # by the test

    async def say(self, packet: Packet, *, may_be_done: bool = False) -> None:
        """Say it, and see that the far end takes it as it should."""
        expected = self.side.breach(packet)
        self.side.say(packet)
        await self.websocket.send(encode(packet))
        await settle()
        if not (may_be_done and expected is None and self.closed == CloseCode.DONE):
            assert self.closed == expected, f"{packet} at {self.side}: closed with {self.closed}, and not {expected}"

    async def is_alive(self) -> bool:
        await self.websocket.send(encode(Ping(b"anybody?")))
        await settle()
        return b"anybody?" in self.pongs


Make: TypeAlias = Callable[[int], Packet]


def of_either_side(command: str) -> Make:
    makers: dict[str, Make] = {
        "data": lambda session: Data(session, b"data"),
        "fin": Fin,
        "reset": lambda session: Reset(session, Code.CANCELLED),
        "ping": lambda _: Ping(b"12345678"),
        "pong": lambda _: Pong(b"12345678"),
        "datagram": lambda session: Datagram(session, UNKNOWN, b"x"),
        "bound": lambda session: Bound(session, UNKNOWN),
    }
    return makers[command]


EITHER = ["data"] * 4 + ["fin"] * 3 + ["reset"] * 2 + ["ping", "pong", "datagram", "bound"]
CLIENT_COMMANDS = st.tuples(
    st.sampled_from([*EITHER, "opened"]) | st.sampled_from(list(ADDRESSES)).map(lambda port: f"open {port}"), SESSIONS
)


def said_by_client(command: str) -> Make:
    if command == "opened":
        return lambda session: Opened(session, 0, UNKNOWN)
    if command.startswith("open "):
        # The one after the current one, unless it is to be another.
        return lambda session: Open(session % 65535 + 1, 1, ADDRESSES[int(command[5:])])
    return of_either_side(command)


async def speaking(stream: Any) -> None:
    async with stream:
        await stream.send(b"that is all")
        await stream.send_eof()
        await until_closed(stream)


async def resetting(stream: Any) -> None:
    async with stream:
        try:
            await stream.receive()
            reset(stream)
        except (EndOfStream, BrokenResourceError):
            pass


async def silent(stream: Any) -> None:
    async with stream:
        await until_closed(stream)


@settings(max_examples=2 * EXAMPLES)
@given(commands=st.lists(CLIENT_COMMANDS, max_size=12))
# Two sessions, whole, and a RESET of the first that came too late.
@example(
    commands=[
        (f"open {ECHO}", CURRENT),
        ("fin", CURRENT),
        (f"open {ECHO}", CURRENT),
        ("reset", LAST),
        ("data", CURRENT),
    ],
)
@example(commands=[(f"open {REFUSING}", CURRENT), ("data", CURRENT), ("fin", CURRENT), (f"open {RESETTING}", CURRENT)])
def test_a_server_takes_what_may_be_said_and_closes_on_what_may_not(
    commands: list[tuple[str, int]], clock: tuple[str, dict[str, Any]]
) -> None:
    async def scenario() -> None:
        async with in_memory() as world, bystander(world):
            world.destinations |= {SPEAKING: speaking, RESETTING: resetting, SILENT: silent}
            tunnel = Tunnel(await world.bare_tunnel(), ClientSide())
            world.tasks.start_soon(tunnel.listen)
            for command, which in commands:
                if tunnel.closed is None:
                    await tunnel.say(said_by_client(command)((tunnel.side.session + which) % 65536))
            assert tunnel.closed or await tunnel.is_alive()
            await tunnel.websocket.aclose()

    run(clock, scenario)


class FakeServer:
    """Takes tunnels, says nothing on them by itself, and hands the first one to the test."""

    def __init__(self) -> None:
        self.websockets: list[WebSocketConnection] = []
        self.leave = anyio.Event()

    async def handle(self, stream: Any) -> None:
        websocket = await accept_websocket(stream, lambda _: Accept(subprotocol=SUBPROTOCOL))
        self.websockets.append(websocket)
        await self.leave.wait()
        await anyio.aclose_forcefully(websocket)

    async def first(self) -> WebSocketConnection:
        await settle()
        return self.websockets[0]


SERVER_COMMANDS = st.tuples(
    st.sampled_from(
        EITHER
        + ["opened"] * 6
        + ["refused", "retry", "open", "goaway"]
        + ["application speaks", "application ends", "application goes", "another application"] * 2
    ),
    SESSIONS,
)


def said_by_server(command: str) -> Make:
    others: dict[str, Make] = {
        "opened": lambda session: Opened(session, 0, UNKNOWN),
        "refused": lambda session: Refused(session, Code.CONNECTION_REFUSED),
        "retry": lambda session: Refused(session, Code.GOING_AWAY, "", True),
        "open": lambda session: Open(session, 1, ADDRESSES[ECHO]),
        "goaway": lambda _: Goaway(Code.GOING_AWAY, 1000),
    }
    return others.get(command) or of_either_side(command)


@dataclass
class Applications:
    """One after the other."""

    world: World
    streams: list[Link] = field(default_factory=list)

    async def do(self, command: str) -> None:
        try:
            match command:
                case "application speaks":
                    await self.streams[-1].send(b"hello")
                case "application ends":
                    await self.streams[-1].send_eof()
                case "application goes":
                    reset(self.streams[-1])
                    await self.streams[-1].aclose()
                case _:
                    self.streams.append(self.world.application())
                    await self.streams[-1].send(b"\x05\x01\x00" + REQUEST)
        except (BrokenResourceError, ClosedResourceError):
            pass  # it has ended before
        await settle()


@settings(max_examples=2 * EXAMPLES)
@given(commands=st.lists(SERVER_COMMANDS, max_size=12))
@example(
    commands=[
        ("opened", CURRENT),
        ("data", CURRENT),
        ("fin", CURRENT),
        ("application ends", 0),
        ("another application", 0),
    ]
)
@example(commands=[("retry", CURRENT), ("ping", CURRENT)])
@example(commands=[("application goes", 0), ("opened", CURRENT), ("data", CURRENT), ("fin", CURRENT)])
@example(commands=[("application goes", 0), ("another application", 0), ("application goes", 0)])
def test_a_client_takes_what_may_be_said_and_closes_on_what_may_not(
    commands: list[tuple[str, int]], clock: tuple[str, dict[str, Any]]
) -> None:
    async def scenario() -> None:
        async with in_memory() as world, bystander(world):
            server = FakeServer()
            world.serve = server.handle
            applications = Applications(world)
            await applications.do("another application")
            tunnel = Tunnel(await server.first(), ServerSide())
            world.tasks.start_soon(tunnel.listen)
            await settle()
            for command, which in commands:
                if "application" in command:
                    await applications.do(command)
                elif tunnel.closed is None:
                    packet = said_by_server(command)((tunnel.side.session + which) % 65536)
                    await tunnel.say(packet, may_be_done=True)
            assert tunnel.closed or await tunnel.is_alive()
            for stream in applications.streams:
                await stream.aclose()
            server.leave.set()

    run(clock, scenario)
