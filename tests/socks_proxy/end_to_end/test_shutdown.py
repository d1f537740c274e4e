"""SIGTERM under load: what runs may finish, what is new is told the truth, and the exit status is 0."""

from __future__ import annotations

import hashlib
import signal
import socket
import ssl
import time
from contextlib import ExitStack

import anyio
import pytest
from anyio import EndOfStream

from examples.socks_proxy.codes import CloseCode, Code
from examples.socks_proxy.packets import SUBPROTOCOL
from tests.socks_proxy.end_to_end import raw_socks
from tests.socks_proxy.end_to_end.conftest import TOKEN, Launcher
from tests.socks_proxy.end_to_end.content import content, digest
from tests.socks_proxy.end_to_end.origins import Gate, HTTPOrigin
from tests.socks_proxy.end_to_end.programs import LIMIT, Program, port_of
from wspool.websocket import WebSocketClosed, connect_websocket

PING, PONG = b"\x09\0\0\0 a ping ", b"\x0a\0\0\0 a ping "

SESSIONS = 30
SIZE = 400_000
# Long enough for a slow machine: a session that does not finish is to fail the test, not to be cut off.
GRACE = ("--grace", str(LIMIT))


class Load:
    """Sessions of which each has got half of its answer, and waits for the gate."""

    def __init__(self, proxy: int, origin: HTTPOrigin, gate: Gate, stack: ExitStack) -> None:
        self.gate = gate
        path = gate.url.removeprefix(origin.url)
        self.streams = [
            stack.enter_context(raw_socks.connect(proxy, "127.0.0.1", origin.port)) for _ in range(SESSIONS)
        ]
        for stream in self.streams:
            stream.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        self.halves = [raw_socks.receive_exactly(stream, SIZE // 2) for stream in self.streams]

    def finish(self) -> list[str]:
        """The digests of all answers."""
        self.gate.open.set()
        return [self._digest(half, stream) for half, stream in zip(self.halves, self.streams, strict=True)]

    def _digest(self, half: bytes, stream: socket.socket) -> str:
        with stream.makefile("rb") as rest:
            body = (half + rest.read()).partition(b"\r\n\r\n")[2]
        return hashlib.sha256(body).hexdigest()


def wait_until_closed(port: int) -> None:
    """It does not listen any more: a probe is refused."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), LIMIT).close()
        except OSError:
            return
    raise AssertionError(f"port {port} is still open")


def first_failure(proxy: int, origin: HTTPOrigin) -> int:
    """The reply code when sessions do not begin any more; one that was asked for before GOAWAY came still does."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        if code := raw_socks.reply_to(proxy, "127.0.0.1", origin.port).code:
            return code
    raise AssertionError("sessions still begin")


def fetch(proxy: int, origin: HTTPOrigin) -> bytes:
    """A whole answer, in a session of its own."""
    with raw_socks.connect(proxy, "127.0.0.1", origin.port) as stream, stream.makefile("rb") as answer:
        stream.sendall(b"GET /bytes/1000 HTTP/1.0\r\n\r\n")
        return answer.read().partition(b"\r\n\r\n")[2]


def test_sessions_finish_on_a_server_that_is_told_to_end(launcher: Launcher, origin: HTTPOrigin) -> None:
    server, url = launcher.server("--allow-private", *GRACE)
    _, proxy = launcher.client(url)
    with origin.gate(SIZE) as gate, ExitStack() as stack:
        load = Load(proxy, origin, gate, stack)
        server.signal(signal.SIGTERM)
        wait_until_closed(port_of(url))
        # Nowhere to go, and it is said.
        assert first_failure(proxy, origin) == Code.GENERAL_FAILURE
        assert load.finish() == [digest(SIZE)] * SESSIONS
    assert server.wait() == 0


def test_sessions_finish_on_a_client_that_is_told_to_end(launcher: Launcher, origin: HTTPOrigin) -> None:
    _, url = launcher.server("--allow-private")
    client, proxy = launcher.client(url, *GRACE)
    with origin.gate(SIZE) as gate, ExitStack() as stack:
        load = Load(proxy, origin, gate, stack)
        client.signal(signal.SIGTERM)
        wait_until_closed(proxy)
        assert load.finish() == [digest(SIZE)] * SESSIONS
    assert client.wait() == 0


async def farewell(
    server: Program, url: str, context: ssl.SSLContext
) -> tuple[list[str | bytes], BaseException | None]:
    """What a tunnel without a session gets when the server is told to end: packets, and how it ends."""
    credentials = {"Authorization": f"Bearer {TOKEN}"}
    packets: list[str | bytes] = []
    with anyio.fail_after(LIMIT):
        async with await connect_websocket(
            url, subprotocols=[SUBPROTOCOL], headers=credentials, ssl_context=context
        ) as websocket:
            await websocket.send(PING)
            assert await websocket.receive() == PONG  # so the server knows this tunnel
            server.signal(signal.SIGTERM)
            try:
                while True:
                    packets.append(await websocket.receive())
            except EndOfStream as end:
                return packets, end.__cause__


def test_a_server_that_is_told_to_end_says_so_in_every_tunnel(launcher: Launcher) -> None:
    server, url = launcher.server("--grace", "7")
    context = ssl.create_default_context(cafile=launcher.ca_file)
    packets, end = anyio.run(farewell, server, url, context)
    assert packets == [b"\x0b\0\0\0" + bytes([Code.GOING_AWAY]) + (7000).to_bytes(4, "big")]
    assert isinstance(end, WebSocketClosed)
    assert end.code == CloseCode.GOING_AWAY
    assert server.wait() == 0


def test_a_server_is_replaced_under_load_and_no_session_is_lost(launcher: Launcher, origin: HTTPOrigin) -> None:
    """The old one has said GOAWAY: what is new goes to its successor at the same port, over a fresh tunnel."""
    old, url = launcher.server("--allow-private", *GRACE)
    _, proxy = launcher.client(url)
    with origin.gate(SIZE) as gate, ExitStack() as stack:
        load = Load(proxy, origin, gate, stack)
        old.signal(signal.SIGTERM)
        wait_until_closed(port_of(url))
        _, successor = launcher.server("--allow-private", listen=f"127.0.0.1:{port_of(url)}")
        assert successor == url
        for _ in range(5):
            assert fetch(proxy, origin) == content(1000)
        assert load.finish() == [digest(SIZE)] * SESSIONS
    assert old.wait() == 0
    assert fetch(proxy, origin) == content(1000)


def test_a_second_signal_does_not_wait_for_sessions(launcher: Launcher, origin: HTTPOrigin) -> None:
    server, url = launcher.server("--allow-private", "--grace", "100000")
    _, proxy = launcher.client(url)
    with origin.gate(SIZE) as gate, ExitStack() as stack:
        load = Load(proxy, origin, gate, stack)
        server.signal(signal.SIGTERM)
        wait_until_closed(port_of(url))
        server.signal(signal.SIGINT)
        assert server.wait() == 128 + signal.SIGINT
        # The application hears that this was not the whole answer.
        assert all(ends_early(stream) for stream in load.streams)


@pytest.mark.parametrize("ending", ["kill", "second signal"])
@pytest.mark.parametrize("end", ["server", "client"])
def test_who_is_killed_cuts_its_sessions_off_and_ends_none(launcher: Launcher, end: str, ending: str) -> None:
    """The kernel closes its connections: nobody takes that for the end of what was to be said."""
    server, url = launcher.server("--allow-private", "--grace", "100000")
    client, proxy = launcher.client(url, "--grace", "100000")
    victim = {"server": server, "client": client}[end]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with raw_socks.connect(proxy, *listener.getsockname()) as stream, listener.accept()[0] as destination:
            for side in (stream, destination):
                side.settimeout(LIMIT)
                side.sendall(b"a half")
            for side in (stream, destination):
                assert raw_socks.receive_exactly(side, 6) == b"a half"
            if ending == "kill":
                victim.kill()
            else:
                victim.signal(signal.SIGTERM)
                wait_until_closed(port_of(url) if end == "server" else proxy)
                victim.signal(signal.SIGTERM)
            assert victim.wait() == (-signal.SIGKILL if ending == "kill" else 128 + signal.SIGTERM)
            assert ends_early(stream)
            assert ends_early(destination)


def ends_early(stream: socket.socket) -> bool:
    try:
        while stream.recv(SIZE):
            pass
    except ConnectionResetError:
        return True
    return False
