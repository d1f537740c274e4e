"""Sessions through both ends: what works, and what goes wrong between them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio import BrokenResourceError, EndOfStream

from examples.socks_proxy import (
    client as client_end,
    liveness,
    relay,
    server as server_end,
    sweeper,
    tunnel as tunnel_module,
    website,
)
from examples.socks_proxy.packets import Pong
from examples.socks_proxy.server import run_server
from examples.socks_proxy.session import ClientTunnel
from examples.socks_proxy.session_log import SessionRecord
from examples.socks_proxy.settings import ServerSettings
from examples.socks_proxy.users import Users
from tests.stream_pairs import reset
from wspool.testing import settle
from wspool.websocket import TCPStream, connect_tcp

from .ends import PATIENCE, TOKEN, both_ends, echo, everything, exactly, logged, serve_in

pytestmark = pytest.mark.usefixtures("anyio_backend")

MEGABYTE = 1 << 20
UPGRADE = (
    b"GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: wspool.1\r\nAuthorization: Bearer %s\r\n\r\n"
)


async def until_close(stream: TCPStream) -> bytes:
    """What comes, until a Close frame is among it."""
    received = b""
    while b"\x88" not in received:
        received += await stream.receive()
    return received


# --- what works ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast_open", [False, True])
async def test_sessions_follow_each_other_on_one_tunnel(fast_open: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with both_ends(monkeypatch, client={"fast_open": fast_open}) as ends:
        port = await ends.listen(echo)
        for number in range(5):
            async with await ends.connect(port) as stream:
                await stream.send(b"hello %d" % number)
                assert await exactly(stream, 7) == b"hello %d" % number
                await stream.send_eof()
                assert await everything(stream) == b""
            await ends.idle_tunnels(1)
        assert ends.line.connections == 1


async def test_an_application_may_say_its_password_its_request_and_more_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with both_ends(monkeypatch, client={"users": Users({b"alice": b"hush"})}) as ends:
        port = await ends.listen(echo)
        async with await connect_tcp("127.0.0.1", ends.client_port) as stream:
            request = b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big")
            await stream.send(b"\x05\x01\x02" + b"\x01\x05alice\x04hush" + request + b"hello")
            assert await exactly(stream, 4) == b"\x05\x02\x01\x00"
            assert (await exactly(stream, 10))[:2] == b"\x05\x00"
            assert await exactly(stream, 5) == b"hello"


@pytest.mark.parametrize("patience", [60.0, 0.0])
async def test_a_tunnel_that_is_about_to_be_free_is_waited_for_but_not_for_ever(
    patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_end, "return_patience", lambda _: patience)
    said_all, may_end = anyio.Event(), anyio.Event()

    async def destination(stream: TCPStream) -> None:
        async with stream:
            assert await everything(stream) == b""
            said_all.set()
            await may_end.wait()

    async with both_ends(monkeypatch) as ends:
        slow, port = await ends.listen(destination), await ends.listen(echo)
        first = await ends.connect(slow)
        await first.send_eof()
        await said_all.wait()
        async with anyio.create_task_group() as tasks:

            async def second() -> None:
                async with await ends.connect(port):
                    pass

            tasks.start_soon(second)
            if patience:
                while not ends.client.returning.waiting:
                    await anyio.lowlevel.checkpoint()
                may_end.set()
        assert ends.line.connections == (1 if patience else 2)
        may_end.set()
        assert await everything(first) == b""
        await first.aclose()


async def test_each_direction_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    up, down = os.urandom(8 * MEGABYTE), os.urandom(MEGABYTE)
    received: list[bytes] = []

    async def destination(stream: TCPStream) -> None:
        async with stream:
            received.append(await everything(stream))
            await stream.send(down)

    async with both_ends(monkeypatch) as ends:
        async with await ends.connect(await ends.listen(destination)) as stream:
            await stream.send(up)
            await stream.send_eof()
            assert await everything(stream) == down
        assert received == [up]
        await ends.idle_tunnels(1)


async def test_many_sessions_at_once_are_not_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both_ends(monkeypatch) as ends:
        port = await ends.listen(echo)

        async def talk(number: int) -> None:
            data = number.to_bytes(2, "big") * 50_000
            async with await ends.connect(port) as stream, anyio.create_task_group() as tasks:
                tasks.start_soon(stream.send, data)
                assert await exactly(stream, len(data)) == data

        async with anyio.create_task_group() as talks:
            for number in range(50):
                talks.start_soon(talk, number)


async def test_replies_and_logs_tell_the_real_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: dict[str, list[str]] = {"client": [], "server": []}
    monkeypatch.setattr(relay, "log_session", lambda record: outcomes[record.role].append(record.outcome))
    async with both_ends(monkeypatch) as ends:
        for host, port, expected in (("127.0.0.1", 1, 5), ("nowhere.invalid", 80, 4)):
            stream, code = await ends.ask(host, port)
            assert code == expected
            await stream.aclose()
        await ends.idle_tunnels(1)
        while any(len(told) < 2 for told in outcomes.values()):
            await anyio.lowlevel.checkpoint()
    for told in outcomes.values():
        assert told[0].startswith("connection refused: ")
        assert told[1].startswith("name ")  # not found, or not looked up


async def test_private_destinations_are_denied_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    from examples.socks_proxy.policy import Policy

    async with both_ends(monkeypatch, server={"policy": Policy()}) as ends:
        stream, code = await ends.ask("127.0.0.1", await ends.listen(echo))
        assert code == 2
        await stream.aclose()


# --- what goes wrong ----------------------------------------------------------------------------------------


async def test_a_reset_passes_in_both_directions_and_costs_no_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    over = anyio.Event()

    async def destination(stream: TCPStream) -> None:
        async with stream:
            if await stream.receive() == b"reset me":
                reset(stream)
                return
            try:
                await stream.receive()
            except EndOfStream:
                seen.append("end")
            except BrokenResourceError:
                seen.append("reset")
            over.set()

    async with both_ends(monkeypatch) as ends:
        port = await ends.listen(destination)
        async with await ends.connect(port) as stream:
            await stream.send(b"reset me")
            with pytest.raises(BrokenResourceError):
                await stream.receive()
        await ends.idle_tunnels(1)
        async with await ends.connect(port) as stream:
            await stream.send(b"x")
            reset(stream)
        await over.wait()
        assert seen == ["reset"]
        await ends.idle_tunnels(1)
        assert ends.line.connections == 1


@pytest.mark.parametrize("idle", [1, 50])
async def test_after_all_idle_tunnels_have_died_a_session_succeeds_with_one_fresh_dial(
    idle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with both_ends(monkeypatch, client={"max_idle": 50}) as ends:
        port = await ends.listen(echo)
        streams = [await ends.connect(port) for _ in range(idle)]
        for stream in streams:
            await stream.send_eof()
            assert await everything(stream) == b""
            await stream.aclose()
        await ends.idle_tunnels(idle)
        ends.line.cut()
        async with await ends.connect(port) as stream:
            await stream.send(b"x")
            assert await stream.receive() == b"x"
        assert ends.line.connections == idle + 1


async def test_a_tunnel_that_has_fallen_silent_is_noticed_and_the_session_is_tried_again_and_its_siblings_are_suspect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(liveness, "FRESH", -1.0)
    monkeypatch.setattr(tunnel_module, "reuse_patience", lambda _: 0.05)
    async with both_ends(monkeypatch) as ends:
        port = await ends.listen(echo)
        async with await ends.connect(port), await ends.connect(port):
            pass
        await ends.idle_tunnels(2)
        ends.line.fall_silent()
        async with await ends.connect(port) as stream:
            await stream.send(b"x")
            assert await stream.receive() == b"x"
            assert [each.liveness.suspect for each in ends.client.sweeper.tunnels].count(True) == 1
        assert ends.line.connections == 3


async def test_a_tunnel_that_is_going_away_is_left_for_a_fresh_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both_ends(monkeypatch) as ends:
        port = await ends.listen(echo)
        async with await ends.connect(port):
            pass
        await ends.idle_tunnels(1)
        for tunnel in ends.server.sweeper.tunnels:
            tunnel.machine.going_away = True  # its GOAWAY is on its way
        async with await ends.connect(port) as stream:
            await stream.send(b"x")
            assert await stream.receive() == b"x"
        assert ends.line.connections == 2


async def test_what_was_sent_ahead_of_the_answer_is_never_lost_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both_ends(monkeypatch, client={"fast_open": True}) as ends:
        port = await ends.listen(echo)
        async with await ends.connect(port) as stream:
            await stream.send(b"x")
            assert await stream.receive() == b"x"
        await ends.idle_tunnels(1)
        for tunnel in ends.server.sweeper.tunnels:
            tunnel.machine.going_away = True
        async with await ends.connect(port) as stream:
            try:
                await stream.send(b"hello")
                assert await stream.receive() == b"hello"  # it came soon enough for a fresh tunnel
            except BrokenResourceError:
                pass  # or it is told


async def test_a_slow_destination_is_not_taken_for_a_dead_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_end, "CLIENT_PING_AFTER", 0.2)
    monkeypatch.setattr(liveness.Liveness.__init__, "__kwdefaults__", {"ping_after": 45.0, "patience": 0.3})
    monkeypatch.setattr(tunnel_module, "_HEARTBEAT", 0.05)
    monkeypatch.setattr(sweeper, "_INTERVAL", 0.02)
    signs = 0
    enough = anyio.Event()
    receive = ClientTunnel.receive

    def counting_receive(self: ClientTunnel, packet: Any, now: float) -> Any:
        nonlocal signs
        signs += packet == Pong(bytes(8))
        if signs == 15:  # more than the patience
            enough.set()
        return receive(self, packet, now)

    async def destination(stream: TCPStream) -> None:
        async with stream:
            await enough.wait()
            await stream.send(b"%d" % len(await everything(stream)))

    monkeypatch.setattr(ClientTunnel, "receive", counting_receive)
    async with both_ends(monkeypatch) as ends:
        async with await ends.connect(await ends.listen(destination)) as stream:
            await stream.send(bytes(20 * MEGABYTE))
            await stream.send_eof()
            assert await everything(stream) == b"%d" % (20 * MEGABYTE)


async def test_a_far_end_that_is_gone_is_noticed_though_a_sender_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_end, "CLIENT_PING_AFTER", 0.2)
    monkeypatch.setattr(liveness.Liveness.__init__, "__kwdefaults__", {"ping_after": 45.0, "patience": 0.3})
    async with both_ends(monkeypatch) as ends:
        async with await ends.connect(await ends.listen(echo)) as stream:
            ends.line.fall_silent()
            with pytest.raises(BrokenResourceError):
                while True:
                    await stream.send(bytes(MEGABYTE))


async def test_a_tunnel_that_is_cut_resets_its_session_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both_ends(monkeypatch) as ends:
        port = await ends.listen(echo)
        async with await ends.connect(port) as one:
            scopes = list(ends.line.scopes)
            async with await ends.connect(port) as other:
                for scope in scopes:
                    scope.cancel()
                with pytest.raises(BrokenResourceError):
                    await one.receive()
                await other.send(b"x")
                assert await other.receive() == b"x"


async def test_an_application_that_goes_away_during_the_dial_cancels_it(monkeypatch: pytest.MonkeyPatch) -> None:
    dialling, cancelled = anyio.Event(), anyio.Event()
    outcomes: dict[str, str] = {}

    async def never(*_: Any, **__: Any) -> Any:
        dialling.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    monkeypatch.setattr("examples.socks_proxy.server.dial", never)
    monkeypatch.setattr(relay, "log_session", lambda record: outcomes.update({record.role: record.outcome}))
    async with both_ends(monkeypatch) as ends:
        stream = await connect_tcp("127.0.0.1", ends.client_port)
        await stream.send(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50")
        await dialling.wait()
        reset(stream)
        await stream.aclose()
        await cancelled.wait()
        await ends.idle_tunnels(1)
        while "server" not in outcomes:
            await anyio.lowlevel.checkpoint()
    assert outcomes["server"] == "cancelled: the client went away"


async def test_an_application_that_goes_away_while_the_destination_is_blocked_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    over, go_on = anyio.Event(), anyio.Event()

    async def destination(stream: TCPStream) -> None:
        async with stream:
            await go_on.wait()
            try:
                await everything(stream)
                seen.append("end")
            except BrokenResourceError:
                seen.append("reset")
            over.set()

    async with both_ends(monkeypatch) as ends:
        stream = await ends.connect(await ends.listen(destination))
        with anyio.move_on_after(0.3):  # until all buffers on the way are full
            await stream.send(bytes(64 * MEGABYTE))
        reset(stream)
        await stream.aclose()
        go_on.set()
        await over.wait()
        assert seen == ["reset"]


async def test_connections_that_are_aborted_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both_ends(monkeypatch) as ends:
        port = await ends.listen(echo)
        async with await ends.connect(port):
            pass
        await ends.idle_tunnels(1)
        before = len(os.listdir("/proc/self/fd"))
        for number in range(200):
            stream = await connect_tcp("127.0.0.1", ends.client_port)
            request = b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big")
            await stream.send(request[: number % len(request) + 1])
            reset(stream)
            await stream.aclose()
        while ends.pool.statistics().held or len(os.listdir("/proc/self/fd")) > before + 60:
            await anyio.lowlevel.checkpoint()
        async with await ends.connect(port) as stream:
            await stream.send(b"x")
            assert await stream.receive() == b"x"


@pytest.mark.parametrize(("token", "headers"), [("secret", [("Authorization", "Bearer secret")]), (None, [])])
async def test_a_tunnel_is_asked_for_with_the_token_if_there_is_one(
    token: str | None, headers: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_with: list[Any] = []

    async def refuse(*_: object, **options: Any) -> Any:
        asked_with.append(options["headers"])
        raise OSError("refused")

    monkeypatch.setattr(client_end, "connect_websocket", refuse)
    async with both_ends(monkeypatch, client={"token": token}) as ends:
        stream, code = await ends.ask("127.0.0.1", 80)
        assert code == 1
        await stream.aclose()
    assert asked_with == [headers]


# --- the end ------------------------------------------------------------------------------------------------


async def test_the_server_lets_a_running_session_finish_and_takes_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both_ends(monkeypatch, server={"grace": 20.0}) as ends:
        port = await ends.listen(echo)
        async with await ends.connect(port) as stream:
            await stream.send(b"x")
            assert await stream.receive() == b"x"
            ends.stop_server.set()
            await anyio.wait_all_tasks_blocked()
            await stream.send(b"y")
            assert await stream.receive() == b"y"
            other, code = await ends.ask("127.0.0.1", port)
            assert code == 1
            await other.aclose()


async def test_a_session_that_outlasts_the_grace_is_reset_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="wspool.proxy")
    async with both_ends(monkeypatch, server={"grace": 0.0}) as ends:
        async with await ends.connect(await ends.listen(echo)) as stream:
            ends.stop_server.set()
            with pytest.raises(BrokenResourceError):
                await stream.receive()
    outcomes = [each.outcome for each in logged(caplog) if each.role == "server"]
    # Whether its own task or the tunnel's was cancelled first.
    assert outcomes in (["cancelled: the proxy ends"], ["general failure: it is not read any more"])


async def test_no_tunnel_begins_while_the_server_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with both_ends(monkeypatch, server={"grace": 20.0}) as ends:
        async with (
            await ends.connect(await ends.listen(echo)) as stream,
            await connect_tcp("127.0.0.1", ends.line.to) as late,
        ):
            await stream.send(b"x")
            assert await stream.receive() == b"x"
            ends.stop_server.set()
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(ConnectionRefusedError):
                await connect_tcp("127.0.0.1", ends.line.to)
            await late.send(UPGRADE % TOKEN.encode())
            head, _, frame = (await until_close(late)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101")
            assert frame.startswith(b"\x88\x0c\x03\xe9")  # Close 1001, "going away"
            await stream.send(b"y")
            assert await stream.receive() == b"y"


@pytest.mark.parametrize("end", ["client", "server"])
async def test_a_session_that_is_cut_off_by_the_end_of_the_proxy_is_not_logged_as_done(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: dict[str, str] = {}
    monkeypatch.setattr(relay, "log_session", lambda record: outcomes.update({record.role: record.outcome}))
    async with both_ends(monkeypatch, **{end: {"grace": 0.01}}) as ends:
        async with await ends.connect(await ends.listen(echo)) as stream:
            getattr(ends, f"stop_{end}").set()
            with pytest.raises(BrokenResourceError):
                await stream.receive()
            while end not in outcomes:
                await anyio.lowlevel.checkpoint()
    # Of a client, the tunnel may be closed first.
    assert outcomes[end] in ("cancelled: the proxy ends", "general failure: the tunnel was closed: done")


async def test_both_ends_log_how_much_went_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[str, tuple[int, int]] = {}

    def note(record: SessionRecord) -> None:
        sizes[record.role] = record.bytes_up, record.bytes_down

    async def destination(stream: TCPStream) -> None:
        async with stream:
            assert len(await everything(stream)) == 200_000
            await stream.send(b"hello")

    monkeypatch.setattr(relay, "log_session", note)
    async with both_ends(monkeypatch) as ends:
        async with await ends.connect(await ends.listen(destination)) as stream:
            await stream.send(bytes(200_000))
            await stream.send_eof()
            assert await everything(stream) == b"hello"
        while len(sizes) < 2:
            await anyio.lowlevel.checkpoint()
    assert sizes == {"client": (200_000, 5), "server": (200_000, 5)}


@pytest.mark.parametrize(("has_files", "interval"), [(True, 0.0), (True, 1000.0), (False, 0.0)])
async def test_a_server_looks_at_its_files_from_time_to_time_if_it_has_any(
    has_files: bool, interval: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    stop = anyio.Event()
    settings = ServerSettings(listen=("127.0.0.1", 0), token=TOKEN, path="/tunnel", plain=True)
    files: Any = SimpleNamespace(reload_if_changed=lambda: looked.append("looked"))

    async def run() -> None:
        await run_server(settings, ready=lambda _: None, stop=stop, reload=files if has_files else None)

    monkeypatch.setattr(server_end, "_RELOAD_INTERVAL", interval)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await settle()
            while has_files and not interval and len(looked) < 2:
                await anyio.lowlevel.checkpoint()
            stop.set()
    assert bool(looked) == (has_files and not interval)


# --- strangers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200"),
        (b"GET /tunnel HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 404"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 405"),
        (UPGRADE % b"wrong", b"HTTP/1.1 404"),
    ],
)
async def test_a_stranger_sees_an_ordinary_site(
    request_head: bytes, status: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with both_ends(monkeypatch) as ends:
        async with await connect_tcp("127.0.0.1", ends.line.to) as stream:
            await stream.send(request_head)
            assert (await stream.receive()).startswith(status)


@pytest.mark.parametrize(
    ("site_says", "stranger_sees"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nContent-Length: 5\r\n\r\nhello", (b"HTTP/1.1 200", b"hello")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", (b"HTTP/1.1 200", b"hello")),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", (b"HTTP/1.1 200", b"to the end")),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", (b"HTTP/1.1 404", b"")),
        (b"HTTP/1.1 200 OK\r\nX-Name: \xe9\r\nContent-Length: 1\r\n\r\na", (b"HTTP/1.1 200", b"a")),
        (b"HTTP/1.1 301 Moved\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n", (b"HTTP/1.1 301", b"")),
        (b"no http at all\r\n\r\n", (b"HTTP/1.1 502", b"Bad Gateway\n")),
        (b"", (b"HTTP/1.1 502", b"Bad Gateway\n")),
        (b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", (b"HTTP/1.1 502", b"Bad Gateway\n")),
        (b"HTTP/1.0 200 OK\r\n\r\n" + bytes(9 * MEGABYTE), (b"HTTP/1.1 502", b"Bad Gateway\n")),
    ],
)
async def test_a_stranger_sees_the_website_behind_the_server(
    site_says: bytes, stranger_sees: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    answers: list[bytes] = []

    async def site(stream: TCPStream) -> None:
        async with stream:
            asked.append(await stream.receive())
            try:
                await stream.send(site_says)
                await stream.send_eof()
                await everything(stream)
            except (BrokenResourceError, anyio.ClosedResourceError):
                pass

    async with anyio.create_task_group() as tasks:
        port = await serve_in(tasks, site)
        settings = {"fallback_url": f"http://u:p@127.0.0.1:{port}/site/"}
        async with both_ends(monkeypatch, server=settings) as ends:
            async with await connect_tcp("127.0.0.1", ends.line.to) as stream:
                await stream.send(b"GET /a?b HTTP/1.1\r\nHost: c\r\nUser-Agent: d\r\nCookie: secret\r\n\r\n")
                answers.append(await everything(stream))
        tasks.cancel_scope.cancel()
    head, _, body = answers[0].partition(b"\r\n\r\n")
    assert (head[:12], body) == stranger_sees
    assert asked[0].startswith(b"GET /site/a?b HTTP/1.1\r\n")
    assert b"authorization: Basic dTpw" in asked[0].replace(b"Authorization", b"authorization")
    assert b"secret" not in asked[0]


@pytest.mark.parametrize(
    ("target", "asked"),
    [
        (b"/a?b", b"/site/a?b"),
        (b"http://other.example/a", b"/site/a"),
        (b"//other.example/a", b"/site//other.example/a"),
        (b"/../a", None),
        (b"/%2E%2e/a", None),
        (b"/b/..\\..\\a", None),
        (b"*", None),
        (b"@other.example/", None),
    ],
)
async def test_a_stranger_gets_nothing_but_what_is_below_the_website(
    target: bytes, asked: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[bytes] = []
    answer = b""

    async def site(stream: TCPStream) -> None:
        async with stream:
            requests.append(await stream.receive())
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with anyio.create_task_group() as tasks:
        port = await serve_in(tasks, site)
        async with both_ends(monkeypatch, server={"fallback_url": f"http://127.0.0.1:{port}/site"}) as ends:
            async with await connect_tcp("127.0.0.1", ends.line.to) as stream:
                await stream.send(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = await everything(stream)
        tasks.cancel_scope.cancel()
    assert [request.split()[1] for request in requests] == ([] if asked is None else [asked])
    assert answer.startswith(b"HTTP/1.1 502" if asked is None else b"HTTP/1.1 200")


def test_no_stranger_makes_the_system_s_certificates_be_read_again() -> None:
    assert website._context() is website._context()


async def test_a_stranger_gets_no_file_from_outside_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site = tmp_path / "site"
    (site / "inside").mkdir(parents=True)
    (tmp_path / "outside").write_text("secret")
    (site / "inside" / "index.html").write_text("hello")
    (site / "link").symlink_to(tmp_path / "outside")
    (site / "index.html").symlink_to(tmp_path / "outside")
    (site / "circle").symlink_to("circle")
    async with both_ends(monkeypatch, server={"fallback_dir": str(site)}) as ends:
        for path in (b"/inside/", b"/link", b"/", b"/circle", b"/../outside", b"/%2e%2e/outside", b"/%00"):
            async with await connect_tcp("127.0.0.1", ends.line.to) as stream:
                await stream.send(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = await everything(stream)
            assert answer.startswith(b"HTTP/1.1 200" if path == b"/inside/" else b"HTTP/1.1 404"), path
            assert b"secret" not in answer
    assert "error in this program" not in caplog.text


@pytest.mark.parametrize("wrong", ["token", "path"])
async def test_a_client_with_the_wrong_token_or_path_fails_and_both_logs_say_what_to_look_at(
    wrong: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="wspool.proxy")
    ends_with: dict[str, Any] = (
        {"client": {"token": "the wrong one, and long"}} if wrong == "token" else {"server": {"path": "/other"}}
    )
    async with both_ends(monkeypatch, **ends_with) as ends:
        stream, code = await ends.ask("127.0.0.1", 80)
        assert code == 1
        await stream.aclose()
    assert f"gets a page: its {wrong} is wrong" in caplog.text
    (session,) = logged(caplog)
    assert "check the path of the URL" in session.outcome
    assert "check the token as well" in session.outcome


@pytest.mark.parametrize(
    ("said", "answer"),
    [(b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b"\x00\x5b"), (b"GET http://a/ HTTP/1.1\r\n", b"HTTP/1.1 501")],
)
async def test_who_speaks_no_socks5_is_told_in_their_own_language(
    said: bytes, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with both_ends(monkeypatch) as ends:
        async with await connect_tcp("127.0.0.1", ends.client_port) as stream:
            await stream.send(said)
            assert (await everything(stream)).startswith(answer)
