"""Handshakes that never end, each kept alive byte by byte: their time is limited, and so is their number."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trustme

from examples.socks_proxy import front
from examples.socks_proxy.codes import Code
from examples.socks_proxy.effects import Effect
from examples.socks_proxy.relay import Session
from examples.socks_proxy.users import Users
from tests.jumping_clock import jumping_clock
from tests.socks_proxy.ends import exactly, logged
from wspool.testing import settle
from wspool.websocket import Response, TLSStream

from .in_memory import ECHO, TICK, UPGRADE, World, answers, in_memory, taking, trickle, until, until_closed

anyio_backend = jumping_clock

# Not the default, to see that it is this one.
GREETING_TIMEOUT = 7.0
HANDSHAKE_TIMEOUT = 10.0
# Nothing of this ends by itself: at a byte a second it takes four minutes.
LONG_GREETING = b"\x05\xff" + bytes(255)
LONG_PASSWORD = b"\x01\x01a\xff" + b"p" * 255
LONG_REQUEST = b"\x05\x01\x00\x03\xff" + b"a" * 255


async def answered_by(world: World) -> bool:
    """Whether a well-behaved application gets what it wants."""
    async with await world.connect(ECHO) as stream:
        await stream.send(b"x")
        return await exactly(stream, 1) == b"x"


# --- applications -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", b""),
        (b"", LONG_GREETING),
        (b"\x05\x01\x02", b""),
        (b"\x05\x01\x02", LONG_PASSWORD),
        (b"\x05\x01\x02\x01\x01a\x01b", b""),
        (b"\x05\x01\x02\x01\x01a\x01b", LONG_REQUEST),
    ],
    ids=["silence", "greeting", "silence-before-password", "password", "silence-before-request", "request"],
)
async def test_an_application_that_does_not_get_to_its_point_is_hung_up_on(first: bytes, then: bytes) -> None:
    settings = {"greeting_timeout": GREETING_TIMEOUT, "users": Users({b"a": b"b"})}
    async with in_memory(client=settings) as world:
        async with world.application() as stream:
            await stream.send(first)
            world.tasks.start_soon(trickle, stream, then)
            with taking(GREETING_TIMEOUT):
                await until_closed(stream)


async def test_applications_that_do_not_get_to_their_point_keep_no_other_waiting() -> None:
    async with in_memory() as world:
        slow = [world.application() for _ in range(100)]
        for stream in slow:
            world.tasks.start_soon(trickle, stream, LONG_REQUEST)
        await anyio.sleep(1)
        with taking(0):
            assert await answered_by(world)
        for stream in slow:
            await stream.aclose()


async def test_a_refused_application_that_does_not_hang_up_is_not_waited_for() -> None:
    async with in_memory() as world:
        stream, code = await world.ask(port=1)
        async with stream:
            assert code == Code.CONNECTION_REFUSED
            world.tasks.start_soon(trickle, stream, bytes(1000))
            with taking(2, give_or_take=TICK):
                await stream.hung_up()


async def test_an_application_that_is_refused_sees_the_end_at_once() -> None:
    async with in_memory() as world:
        stream, code = await world.ask(1)  # where nobody is
        assert code == 5
        with taking(0):
            assert await until_closed(stream) == b""
        await stream.aclose()


# --- strangers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a client and of a server."""
    authority = trustme.CA()
    client, server = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(client)
    authority.issue_cert("server.example").configure_cert(server)
    return client, server


def client_hello(context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    engine = context.wrap_bio(incoming, outgoing, server_hostname="server.example")
    with pytest.raises(ssl.SSLWantReadError):
        engine.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (lambda hello: b"", lambda hello: b""),
        (lambda hello: b"", lambda hello: hello),
        (lambda hello: hello, lambda hello: b""),
        (lambda hello: hello, lambda hello: b"\x17\x03\x03\x40\x00" + bytes(16384)),
    ],
    ids=["silence", "hello", "silence-after-hello", "finished"],
)
async def test_a_tls_handshake_that_does_not_get_on_is_given_up(
    first: Callable[[bytes], bytes], then: Callable[[bytes], bytes], contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    hello = client_hello(contexts[0])
    async with in_memory(context=contexts[1], server={"plain": False}) as world:
        async with world.stranger() as stream:
            await stream.send(first(hello))
            world.tasks.start_soon(trickle, stream, then(hello))
            with taking(HANDSHAKE_TIMEOUT):
                await until_closed(stream)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    ("first", "then"),
    [(b"", b""), (b"", UPGRADE), (UPGRADE[:-2], b"X-Header: " + b"x" * 1000)],
    ids=["silence", "request", "headers-without-end"],
)
async def test_an_upgrade_request_that_does_not_end_is_given_up(
    first: bytes, then: bytes, tls: bool, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async with in_memory(context=contexts[1] if tls else None) as world:
        async with world.stranger() as transport:
            stream: Any = transport
            if tls:
                stream = await TLSStream.wrap(transport, hostname="server.example", ssl_context=contexts[0])
            await stream.send(first)
            world.tasks.start_soon(trickle, stream, then)
            with taking(HANDSHAKE_TIMEOUT):
                await until_closed(transport)


async def test_a_stranger_that_does_not_read_its_page_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch(*_: object) -> Response:
        await anyio.lowlevel.checkpoint()
        return Response(200, [], bytes(100_000))

    monkeypatch.setattr(front, "fetch", fetch)
    async with in_memory(server={"fallback_url": "http://site.example"}) as world:
        async with world.stranger(max_buffer=1000) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            # A second more, in which a stranger that does read gets the end of its page.
            with taking(HANDSHAKE_TIMEOUT + 1, give_or_take=TICK):
                await stream.hung_up()


async def test_a_stranger_that_goes_on_after_its_page_is_hung_up_on() -> None:
    async with in_memory() as world:
        async with world.stranger() as stream:
            await stream.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            world.tasks.start_soon(trickle, stream, bytes(1000), 0.1)
            with taking(1, give_or_take=TICK):
                await stream.hung_up()


async def test_there_are_only_so_many_handshakes_at_once_and_tunnels_do_not_count() -> None:
    async with in_memory(server={"max_handshakes": 3}) as world:
        assert await answered_by(world)  # on a tunnel that goes on
        slow = [world.stranger() for _ in range(2)]
        for stream in slow:
            world.tasks.start_soon(trickle, stream, UPGRADE)
        await settle()
        # There is room for one more, again and again.
        tunnels = [await world.bare_tunnel() for _ in range(5)]
        assert all([await answers(tunnel) for tunnel in tunnels])
        slow.append(world.stranger())
        await settle()
        async with world.stranger() as refused:
            with taking(0):
                assert await until_closed(refused) == b""
        # Nobody who was there before has to suffer for it.
        assert all([await answers(tunnel) for tunnel in tunnels])
        assert await answered_by(world)
        with taking(HANDSHAKE_TIMEOUT):
            for stream in slow:
                await until_closed(stream)
        tunnels.append(await world.bare_tunnel())
        assert await answers(tunnels[-1])
        for tunnel in tunnels:
            await tunnel.aclose()


async def test_there_are_only_so_many_connections_at_once() -> None:
    async with in_memory(server={"max_connections": 2}) as world:
        tunnels = [await world.bare_tunnel() for _ in range(2)]
        async with world.stranger() as refused:
            with taking(0):
                assert await until_closed(refused) == b""
        await tunnels.pop().aclose()
        await settle()
        tunnels.append(await world.bare_tunnel())
        assert await answers(tunnels[1])
        for tunnel in tunnels:
            await tunnel.aclose()


async def test_a_tunnel_that_nobody_is_at_the_other_end_of_is_closed() -> None:
    """It has shown its token, and answers no ping: 45 s, varied by 10 %, and 10 more."""
    async with in_memory() as world:
        websocket = await world.bare_tunnel()
        with taking(55, give_or_take=5):
            await until(lambda: not world.server._connections)
        await anyio.aclose_forcefully(websocket)


# --- servers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Switching Protocols\r\nX-Header: " + b"x" * 1000])
async def test_a_server_that_does_not_answer_is_given_up_and_the_application_is_told(
    answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="wspool.proxy")

    async def server(stream: Any) -> None:
        async with stream:
            await stream.receive()
            await trickle(stream, answer)
            await until_closed(stream)

    async with in_memory(client={"connect_timeout": 5}) as world:
        world.serve = server
        with taking(5):
            stream, code = await world.ask(ECHO)
        assert code == Code.GENERAL_FAILURE
        await stream.aclose()
    assert any("the upgrade by" in each.outcome and "--connect-timeout" in each.outcome for each in logged(caplog))


async def test_who_finds_all_tunnels_in_use_is_refused_in_time_and_the_log_names_the_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="wspool.proxy")
    one = {"connect_timeout": 5, "max_size": 1, "max_idle": 1, "min_idle": 1}
    async with in_memory(client=one) as world:
        first, code = await world.ask(ECHO)
        assert code == Code.SUCCEEDED
        with taking(6):
            second, code = await world.ask(ECHO)
        assert code == Code.GENERAL_FAILURE
        await second.aclose()
        await first.aclose()
    assert any("all 1 are in use; more are possible with --max-size" in each.outcome for each in logged(caplog))


async def test_a_server_that_never_says_how_a_session_went_is_given_up() -> None:
    """The time limit is told to the server, and there is a grace for its answer."""

    async def never(_: object, __: object, session: Session, ___: object) -> list[Effect]:
        with anyio.CancelScope() as session.dial_scope:
            await anyio.sleep_forever()
        return []

    async with in_memory(client={"connect_timeout": 5}) as world:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("examples.socks_proxy.server._ServerEnd._dial", never)
            with taking(10):
                stream, code = await world.ask(ECHO)
            assert code == Code.TTL_EXPIRED
            await stream.aclose()
