"""Connecting: every phase over real sockets, and no transport left open whatever fails."""

from __future__ import annotations

import datetime as dt
import errno
import math
import os
import re
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from anyio import EndOfStream, Event, create_task_group, fail_after
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.tls import TLSAttribute
from cryptography.hazmat.primitives import serialization

from tests.stream_pairs import reset
from tests.websocket.conftest import Certificates
from wspool.websocket import _connect
from wspool.websocket._accept import accept_websocket
from wspool.websocket._connect import connect_websocket
from wspool.websocket._connection import WebSocketAttribute
from wspool.websocket._errors import (
    ConnectFailed,
    ConnectTimeout,
    InvalidURL,
    TLSFailed,
    UpgradeFailed,
    WebSocketClosed,
)
from wspool.websocket._handshake import Request, Response
from wspool.websocket._tls import TLSStream

Serve = Callable[[SocketStream], Awaitable[None]]

# A machine without work connects in milliseconds.
PATIENCE = 30


class Server:
    """What answers at the port, and what it has seen."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.met = Event()  # a client
        self.left = Event()  # it has sent its end


@asynccontextmanager
async def serving(serve: Serve) -> AsyncGenerator[Server]:
    """A server for connections one after the other, which notes when a client closes."""

    async def handle(stream: SocketStream) -> None:
        server.met.set()
        async with stream:
            await serve(stream)
            await read_to_the_end(stream)
            server.left.set()

    with fail_after(PATIENCE):
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, create_task_group() as group:
            server = Server(int(listener.listeners[0].extra(SocketAttribute.local_address)[1]))
            group.start_soon(listener.serve, handle)
            yield server
            group.cancel_scope.cancel()


async def read_to_the_end(stream: ByteStream) -> None:
    try:
        while True:
            await stream.receive()
    except (EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass


async def echo(stream: ByteStream, **arguments: Any) -> None:
    connection = await accept_websocket(stream, **arguments)
    try:
        while True:
            await connection.send(await connection.receive())
    except (WebSocketClosed, EndOfStream):
        await connection.aclose()


def echo_over_tls(context: ssl.SSLContext) -> Serve:
    async def serve(stream: SocketStream) -> None:
        await echo(await TLSStream.wrap(stream, server_side=True, ssl_context=context))

    return serve


async def silence(stream: SocketStream) -> None:
    pass


def says(answer: bytes, *, after: bytes = b"\r\n\r\n") -> Serve:
    """Answers the first message so, and sends its end."""

    async def serve(stream: SocketStream) -> None:
        asked = b""
        while after not in asked:
            asked += await stream.receive()
        await stream.send(answer)
        await stream.send_eof()

    return serve


async def check_echo(url: str, **arguments: Any) -> None:
    async with await connect_websocket(url, **arguments) as connection:
        await connection.send("there and back")
        assert await connection.receive() == "there and back"


async def failing(error: type[Exception], why: str, url: str, **arguments: Any) -> Any:
    with pytest.raises(error, match=re.escape(why)) as caught:
        await connect_websocket(url, **arguments)
    return caught.value


# -------------------------------------------------------------------------------------------------- ws


async def test_messages_pass_over_tcp() -> None:
    async with serving(echo) as server:
        await check_echo(f"ws://127.0.0.1:{server.port}/")
        await server.left.wait()


async def test_a_name_with_several_addresses_is_tried_at_all_of_them() -> None:
    # localhost is ::1 as well on most machines, where nobody listens.
    async with serving(echo) as server:
        await check_echo(f"ws://localhost:{server.port}/")


async def test_headers_credentials_and_subprotocols_arrive() -> None:
    def check(request: Request) -> None:
        assert request.target == "/chat?room=1"
        assert request.subprotocols == ("a", "b")
        assert (b"authorization", b"Basic dXNlcjpwYXNzd29yZA==") in request.headers
        assert (b"x-token", b"1") in request.headers

    async def serve(stream: SocketStream) -> None:
        await echo(stream, handler=check, subprotocols=["b"])

    async with serving(serve) as server:
        url = f"ws://user:password@127.0.0.1:{server.port}/chat?room=1"
        connection = await connect_websocket(url, headers={"X-Token": "1"}, subprotocols=["a", "b"])
        assert connection.extra(WebSocketAttribute.subprotocol) == "b"
        assert connection.extra(SocketAttribute.remote_port) == server.port
        await connection.aclose()


async def test_what_follows_the_answer_is_not_lost() -> None:
    async def serve(stream: SocketStream) -> None:
        class Greeting(ByteStream):
            """Sends a message in the same write as the 101."""

            async def receive(self, max_bytes: int = 65536) -> bytes:
                return await stream.receive(max_bytes)

            async def send(self, item: bytes) -> None:
                await stream.send(item + b"\x82\x05hello")

            async def send_eof(self) -> None:
                raise AssertionError

            async def aclose(self) -> None:
                raise AssertionError

        await accept_websocket(Greeting())

    async with serving(serve) as server:
        connection = await connect_websocket(f"ws://127.0.0.1:{server.port}/")
        assert await connection.receive() == b"hello"
        with anyio.CancelScope() as scope:
            scope.cancel()
            await connection.aclose()


async def test_a_refusal_carries_status_headers_and_body() -> None:
    async def serve(stream: SocketStream) -> None:
        with pytest.raises(UpgradeFailed):
            await accept_websocket(stream, lambda request: Response(401, {"X": "y"}, b"who are you?"))

    async with serving(serve) as server:
        error = await failing(UpgradeFailed, "401 Unauthorized: it wants", f"ws://127.0.0.1:{server.port}/")
        assert (error.status, error.body) == (401, b"who are you?")
        assert (b"x", b"y") in error.headers


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "does not speak websocket: the answer is no HTTP/1.1"),
        (b"", "closed the connection without an answer to the upgrade"),
        (b"HTTP/1.1 101 Sw", "closed the connection in the middle of its answer to the upgrade"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "agreed to the upgrade, but wrongly"),
        (b"HTTP/1.1 500 Oh\r\n\r\nhalf", "500 Internal Server Error"),
    ],
)
async def test_a_server_that_speaks_no_websocket_is_left_and_said(answer: bytes, why: str) -> None:
    async with serving(says(answer)) as server:
        await failing(UpgradeFailed, why, f"ws://127.0.0.1:{server.port}/")
        await server.left.wait()


# ------------------------------------------------------------------------------------------- no connection


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def test_a_refused_connection_says_host_and_port(closed_port: int) -> None:
    with fail_after(PATIENCE):
        error = await failing(
            ConnectFailed, f"the TCP connection to 127.0.0.1:{closed_port} failed: ", f"ws://127.0.0.1:{closed_port}"
        )
    assert isinstance(error, OSError)
    assert "refused" in str(error)
    assert "all attempts to connect failed" not in str(error)
    assert "check host and port" in str(error)


async def test_a_refusing_proxy_says_its_host_and_port(closed_port: int) -> None:
    with fail_after(PATIENCE):
        await failing(
            ConnectFailed,
            f"the TCP connection to the proxy 127.0.0.1:{closed_port} failed: ",
            "ws://example.com",
            proxy=f"http://127.0.0.1:{closed_port}",
        )


GAI = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
ALL_FAILED = OSError("all attempts to connect failed")
ALL_FAILED.__cause__ = ExceptionGroup(
    "", [OSError(code, os.strerror(code)) for code in (errno.ECONNREFUSED, errno.ENETUNREACH)] * 2
)


@pytest.mark.parametrize(
    ("raised", "why"),
    [
        (GAI, "example.com:80 failed: Name or service not known; check"),
        (
            ALL_FAILED,
            f"example.com:80 failed: {os.strerror(errno.ECONNREFUSED)}, {os.strerror(errno.ENETUNREACH)}; check",
        ),
        (OSError("odd"), "example.com:80 failed: odd; check"),
        (OSError(errno.EMFILE, "Too many open files"), "example.com:80 failed: Too many open files; raise the limit"),
    ],
)
async def test_the_reasons_of_all_addresses_are_said_once(
    raised: OSError, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect_tcp(host: str, port: int) -> SocketStream:
        raise raised

    monkeypatch.setattr("wspool.websocket._connect.connect_tcp", connect_tcp)
    await failing(ConnectFailed, why, "ws://example.com")


# ------------------------------------------------------------------------------------------------- wss


async def test_messages_pass_over_tls(certificates: Certificates, server_context: ssl.SSLContext) -> None:
    server_context.set_alpn_protocols(["h2", "http/1.1"])
    async with serving(echo_over_tls(server_context)) as server:
        url = f"wss://localhost:{server.port}/"
        connection = await connect_websocket(url, ca_file=certificates.ca_file)
        assert connection.extra(TLSAttribute.alpn_protocol) == "http/1.1"
        assert connection.extra(TLSAttribute.tls_version) == "TLSv1.3"
        await connection.send(b"x")
        assert await connection.receive() == b"x"
        await connection.aclose()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "localhost."])
async def test_the_name_of_the_url_is_verified(
    host: str, certificates: Certificates, server_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_tcp = anyio.connect_tcp
    # Not every resolver knows `localhost.`.
    monkeypatch.setattr("wspool.websocket._connect.connect_tcp", lambda host, port: connect_tcp("127.0.0.1", port))
    async with serving(echo_over_tls(server_context)) as server:
        await check_echo(f"wss://{host}:{server.port}/", ca_file=Path(certificates.ca_file))


async def test_an_own_context_is_used(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
    async with serving(echo_over_tls(server_context)) as server:
        await check_echo(f"wss://localhost:{server.port}/", ssl_context=client_context)


async def test_another_name_can_be_asked_for_and_verified(certificates: Certificates) -> None:
    context = certificates.server_context(certificates.authority.issue_cert("xn--bcher-kva.example"))
    asked: list[str | None] = []
    context.sni_callback = lambda _, name, __: asked.append(name)
    async with serving(echo_over_tls(context)) as server:
        url = f"wss://127.0.0.1:{server.port}/"
        await check_echo(url, ca_file=certificates.ca_file, server_hostname="bücher.example")
    assert asked == ["xn--bcher-kva.example"]


def test_by_default_tls_is_verified_with_the_systems_certificates_and_at_least_1_2() -> None:
    context = _connect._new_context(None, None)
    assert context is _connect._new_context(None, None)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_by_default_an_unknown_authority_is_not_trusted(server_context: ssl.SSLContext) -> None:
    async with serving(tls_server(server_context)) as server:
        await failing(TLSFailed, "its certificate is not accepted", f"wss://localhost:{server.port}/")
        await server.left.wait()


class Kept(ByteStream):
    """Leaves the stream open when the TLS over it has failed, to see whether the client closes it."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._stream.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass


def tls_server(context: ssl.SSLContext) -> Serve:
    """One that minds nothing that goes wrong."""

    async def serve(stream: SocketStream) -> None:
        try:
            await read_to_the_end(await TLSStream.wrap(Kept(stream), server_side=True, ssl_context=context))
        except (ssl.SSLError, anyio.BrokenResourceError):
            pass

    return serve


def expired(certificates: Certificates) -> trustme.LeafCert:
    return certificates.authority.issue_cert("localhost", not_after=dt.datetime(2001, 1, 1, tzinfo=dt.UTC))


def not_yet_valid(certificates: Certificates) -> trustme.LeafCert:
    start = dt.datetime(2999, 1, 1, tzinfo=dt.UTC)
    return certificates.authority.issue_cert("localhost", not_before=start, not_after=start.replace(year=3000))


@pytest.mark.parametrize(
    ("issue", "arguments", "why"),
    [
        (expired, {}, "certificate has expired; renew it on the server, or set the clock"),
        (not_yet_valid, {}, "; wait until it is valid, or set the clock"),
        (lambda c: c.authority.issue_cert("other.example"), {}, "connect to a name that the certificate is for"),
        (lambda c: c.server, {"server_hostname": "10.0.0.1"}, "connect to a name that the certificate is for"),
        (lambda c: trustme.CA().issue_cert("localhost"), {}, "give that one's certificate as ca_file"),
    ],
)
async def test_a_certificate_that_is_not_accepted_says_which_name_and_why(
    issue: Callable[[Certificates], trustme.LeafCert], arguments: Any, why: str, certificates: Certificates
) -> None:
    async with serving(tls_server(certificates.server_context(issue(certificates)))) as server:
        error = await failing(
            TLSFailed, why, f"wss://localhost:{server.port}/", ca_file=certificates.ca_file, **arguments
        )
        name = arguments.get("server_hostname", "localhost")
        assert str(error).startswith(
            f"TLS with localhost:{server.port} failed (the name {name!r} verified): its certificate is not accepted, "
        )
        assert isinstance(error, OSError)
        await server.left.wait()


async def test_a_self_signed_certificate_is_said(
    certificates: Certificates, tmp_path: Path, client_context: ssl.SSLContext
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.cert_pem.write_to_path(str(tmp_path / "cert.pem"))
    authority.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with serving(tls_server(context)) as server:
        why = "self-signed certificate; if you trust that certificate, give it as ca_file"
        await failing(TLSFailed, why, f"wss://localhost:{server.port}/", ssl_context=client_context)


async def test_a_server_without_a_version_in_common_is_said(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    server_context.minimum_version = ssl.TLSVersion.TLSv1_3
    client_context.maximum_version = ssl.TLSVersion.TLSv1_2
    client_context.check_hostname = False
    async with serving(tls_server(server_context)) as server:
        url = f"wss://localhost:{server.port}/"
        error = await failing(TLSFailed, "both ends have no version of TLS in common", url, ssl_context=client_context)
        assert "(the name 'localhost' not verified)" in str(error)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is no TLS; use ws://"),
        (b"SSH-2.0-OpenSSH\r\n", "what answers there is no TLS; use ws://"),
        (b"", "the connection broke during the handshake; check that TLS is spoken on that port"),
        (b"\x15\x03\x03\x00\x02\x02\x70", "the server does not know that name"),
        (b"\x15\x03\x03\x00\x02\x02\x78", "the server does not offer http/1.1 by ALPN"),
        (b"\x15\x03\x03\x00\x02\x02\x50", "internal error; check the TLS settings of both ends"),
    ],
)
async def test_a_port_without_proper_tls_is_said(answer: bytes, why: str, client_context: ssl.SSLContext) -> None:
    async with serving(says(answer, after=b"")) as server:
        await failing(TLSFailed, why, f"wss://localhost:{server.port}/", ssl_context=client_context)
        await server.left.wait()


async def test_a_connection_that_is_reset_in_the_tls_handshake_is_said(client_context: ssl.SSLContext) -> None:
    async def serve(stream: SocketStream) -> None:
        await stream.receive()
        reset(stream)
        await stream.aclose()

    async with serving(serve) as server:
        why = "the connection broke during the handshake"
        await failing(TLSFailed, why, f"wss://localhost:{server.port}/", ssl_context=client_context)


async def test_an_unsuitable_protocol_chosen_by_alpn_is_said(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    for context in (client_context, server_context):
        context.set_alpn_protocols(["h2"])
    async with serving(tls_server(server_context)) as server:
        url = f"wss://localhost:{server.port}/"
        await failing(TLSFailed, "chose h2 by ALPN; let ssl_context offer http/1.1", url, ssl_context=client_context)
        await server.left.wait()


# ------------------------------------------------------------------------------------ client certificates


@pytest.fixture
def demanding_context(certificates: Certificates) -> ssl.SSLContext:
    context = certificates.server_context()
    certificates.authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_a_client_certificate_is_shown(
    certificates: Certificates, demanding_context: ssl.SSLContext, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificates.client.cert_chain_pems[0].write_to_path(str(certificate))
    certificates.client.private_key_pem.write_to_path(str(key))
    async with serving(echo_over_tls(demanding_context)) as server:
        url = f"wss://localhost:{server.port}/"
        for shown in (certificates.client_file, (certificate, key)):
            await check_echo(url, ca_file=certificates.ca_file, client_cert=shown)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_wants_a_certificate_is_said(
    version: ssl.TLSVersion, certificates: Certificates, demanding_context: ssl.SSLContext
) -> None:
    """In TLS 1.3 it says so when the client has finished already, in the phase of the upgrade."""
    demanding_context.maximum_version = version
    async with serving(tls_server(demanding_context)) as server:
        await failing(TLSFailed, "client_cert", f"wss://localhost:{server.port}/", ca_file=certificates.ca_file)
        await server.left.wait()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_that_is_not_trusted_is_said(
    version: ssl.TLSVersion, certificates: Certificates, demanding_context: ssl.SSLContext, tmp_path: Path
) -> None:
    demanding_context.maximum_version = version
    file = str(tmp_path / "other.pem")
    trustme.CA().issue_cert("client@example.com").private_key_and_cert_chain_pem.write_to_path(file)
    async with serving(tls_server(demanding_context)) as server:
        url = f"wss://localhost:{server.port}/"
        why = "the server does not trust your certificate; give one that it does as client_cert"
        await failing(TLSFailed, why, url, ca_file=certificates.ca_file, client_cert=file)


async def test_files_without_certificates_are_refused_by_the_name_of_the_argument(
    certificates: Certificates, tmp_path: Path
) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("garbage")
    locked = tmp_path / "locked.pem"
    key = serialization.load_pem_private_key(certificates.client.private_key_pem.bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"password")
    locked.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        + certificates.client.cert_chain_pems[0].bytes()
    )
    await failing(ValueError, f"ca_file {garbage!r} holds no certificates", "wss://a", ca_file=garbage)
    await failing(ValueError, f"client_cert {garbage!r} holds no certificate", "wss://a", client_cert=garbage)
    await failing(ValueError, f"client_cert {locked!r} holds no certificate", "wss://a", client_cert=locked)
    await failing(FileNotFoundError, "No such file", "wss://a", ca_file=tmp_path / "nowhere")
    await failing(FileNotFoundError, "No such file", "wss://a", client_cert=tmp_path / "nowhere")


# ----------------------------------------------------------------------------------------------- proxy


def proxy_to(expected: str, upstream: Callable[[], int]) -> Serve:
    """A proxy that allows one host, with credentials, and leads to a port of ours."""
    connect_tcp = anyio.connect_tcp  # as it is now

    async def serve(stream: SocketStream) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += await stream.receive()
        assert asked.startswith(f"CONNECT {expected} HTTP/1.1\r\nHost: {expected}\r\n".encode())
        assert b"\r\nProxy-Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n" in asked
        await stream.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        other = await connect_tcp("127.0.0.1", upstream())
        async with other, create_task_group() as group:
            group.start_soon(copy, stream, other)
            await copy(other, stream)

    return serve


async def copy(source: SocketStream, sink: SocketStream) -> None:
    try:
        while True:
            await sink.send(await source.receive())
    except EndOfStream:
        await sink.send_eof()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass


async def test_messages_pass_through_a_proxy() -> None:
    async with serving(echo) as server, serving(proxy_to("server.example:80", lambda: server.port)) as proxy:
        await check_echo("ws://server.example/", proxy=f"http://user:password@127.0.0.1:{proxy.port}")


async def test_messages_pass_over_tls_through_a_proxy(
    certificates: Certificates, server_context: ssl.SSLContext
) -> None:
    async with serving(echo_over_tls(server_context)) as server:
        async with serving(proxy_to("server.example:443", lambda: server.port)) as proxy:
            url = f"http://user:password@127.0.0.1:{proxy.port}"
            await check_echo("wss://server.example/", proxy=url, ca_file=certificates.ca_file)


class ByteByByte(ByteStream):
    """A stream on which every read brings one byte."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._stream.receive(1)

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_nothing_depends_on_how_the_bytes_arrive(
    certificates: Certificates, server_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_tcp = anyio.connect_tcp

    async def connect(host: str, port: int) -> ByteStream:
        return ByteByByte(await connect_tcp(host, port))

    async with serving(echo_over_tls(server_context)) as server:
        async with serving(proxy_to("server.example:443", lambda: server.port)) as proxy:
            monkeypatch.setattr("wspool.websocket._connect.connect_tcp", connect)
            url = f"http://user:password@127.0.0.1:{proxy.port}"
            await check_echo("wss://server.example/", proxy=url, ca_file=certificates.ca_file)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 407 ?\r\n\r\n", "refused to connect to example.com:443 with 407 Proxy Authentication Required"),
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\n\r\nmore", "sent bytes before anything was asked of example.com:443"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20000, "is longer than 16384 bytes"),
    ],
)
async def test_a_proxy_that_opens_no_way_is_left_and_said(answer: bytes, why: str) -> None:
    async with serving(says(answer)) as proxy:
        address = f"127.0.0.1:{proxy.port}"
        error = await failing(ConnectFailed, why, "wss://example.com/", proxy=f"http://user:secret@{address}")
        assert f"the proxy {address}" in str(error)
        assert "secret" not in str(error)
        await proxy.left.wait()


# ---------------------------------------------------------------------------- time limits, cancellation


@pytest.fixture
def impatient_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Limits one phase to a moment and no other, however slow the machine is."""
    within = _connect._within

    def patch(phase: str) -> None:
        def limited(limit: float, what: str, step: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
            return within(0.01 if what.startswith(phase) else math.inf, what, step)

        monkeypatch.setattr(_connect, "_within", limited)

    return patch


async def hang(host: str, port: int) -> SocketStream:
    await anyio.sleep_forever()
    raise AssertionError


async def test_a_tcp_connection_that_takes_too_long_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wspool.websocket._connect.connect_tcp", hang)
    why = "the TCP connection to example.com:80 took longer than 0.01 s"
    error = await failing(ConnectTimeout, why, "ws://example.com", connect_timeout=0.01)
    assert isinstance(error, TimeoutError)
    why = "the TCP connection to the proxy proxy:80 took longer than 0.01 s"
    await failing(ConnectTimeout, why, "ws://example.com", connect_timeout=0.01, proxy="http://proxy")


@pytest.mark.parametrize(
    ("url", "proxied", "what"),
    [
        ("ws://127.0.0.1:{port}", False, "the upgrade by 127.0.0.1:{port}"),
        ("wss://127.0.0.1:{port}", False, "the TLS handshake with 127.0.0.1:{port}"),
        ("wss://example.com", True, "the answer of the proxy 127.0.0.1:{port}"),
    ],
)
async def test_every_phase_has_its_time_limit_and_its_cancellation_and_leaves_nothing_open(
    url: str, proxied: bool, what: str, client_context: ssl.SSLContext, impatient_in: Callable[[str], None]
) -> None:
    async def connect(server: Server, **arguments: Any) -> None:
        if url.startswith("wss"):
            arguments["ssl_context"] = client_context
        if proxied:
            arguments["proxy"] = f"http://127.0.0.1:{server.port}"
        await connect_websocket(url.format(port=server.port), **arguments)

    outcome: list[str] = []

    async def connect_and_tell(server: Server) -> None:
        try:
            await connect(server, connect_timeout=None)
        except anyio.get_cancelled_exc_class():
            outcome.append("cancelled")
            raise

    async with serving(silence) as server, create_task_group() as group:
        group.start_soon(connect_and_tell, server)
        await server.met.wait()
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await server.left.wait()
    assert outcome == ["cancelled"]

    async with serving(silence) as server:
        phase = what.format(port=server.port)
        impatient_in(phase)
        with pytest.raises(
            ConnectTimeout, match=f"^{phase} took longer than 0.01 s; check the network, or give it more"
        ):
            await connect(server)
        await server.left.wait()


async def test_a_silent_server_after_tls_is_said_and_left(
    certificates: Certificates, server_context: ssl.SSLContext, impatient_in: Callable[[str], None]
) -> None:
    async def serve(stream: SocketStream) -> None:
        await TLSStream.wrap(stream, server_side=True, ssl_context=server_context)

    async with serving(serve) as server:
        url = f"wss://localhost:{server.port}"
        impatient_in("the upgrade")
        await failing(ConnectTimeout, "the upgrade by", url, ca_file=certificates.ca_file)
        await server.left.wait()


async def test_a_connection_that_cannot_be_made_after_the_upgrade_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def accept(stream: SocketStream) -> None:
        await accept_websocket(stream)

    monkeypatch.setattr("wspool.websocket._connect.WebSocketConnection", len)
    async with serving(accept) as server:
        await failing(TypeError, "len() takes no keyword arguments", f"ws://127.0.0.1:{server.port}")
        await server.left.wait()


# ------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("url", "arguments", "error", "why"),
    [
        ("http://a", {}, InvalidURL, "use ws:// instead of http://"),
        ("ws://a", {"proxy": "socks5://b"}, InvalidURL, "a proxy's URL begins with http://"),
        (b"ws://a", {}, TypeError, "a websocket URL must be a string, got bytes"),
        ("ws://a", {"proxy": 5}, TypeError, "a proxy's URL must be a string, got int"),
        ("ws://a", {"headers": {"Host": "b"}}, ValueError, "headers: b'Host' is set by wspool itself"),
        ("ws://a", {"subprotocols": "chat"}, TypeError, "subprotocols must be several names"),
        ("ws://a", {"headers": None}, TypeError, "headers must be a mapping, or pairs of name and value, got NoneType"),
        ("ws://a", {"subprotocols": None}, TypeError, "subprotocols must be several names, such as ['chat'], got None"),
        ("ws://a", {"connect_timeout": 0}, ValueError, "connect_timeout must be more than 0 seconds, got 0"),
        ("ws://a", {"connect_timeout": math.nan}, ValueError, "connect_timeout must be more than 0 seconds, got nan"),
        ("ws://a", {"connect_timeout": "1"}, TypeError, "connect_timeout must be a number of seconds or None"),
        ("ws://a", {"settings": {}}, TypeError, "settings must be a WebSocketSettings or None, got {}"),
        ("ws://a", {"ssl_context": ssl.create_default_context()}, ValueError, "ssl_context is for wss:// only"),
        ("ws://a", {"ca_file": "x"}, ValueError, "ca_file is for wss:// only"),
        ("ws://a", {"client_cert": "x"}, ValueError, "client_cert is for wss:// only"),
        ("ws://a", {"server_hostname": "x"}, ValueError, "server_hostname is for wss:// only"),
        (
            "wss://a",
            {"ssl_context": ssl.create_default_context(), "ca_file": "x"},
            ValueError,
            "ca_file cannot be given together with ssl_context",
        ),
        (
            "wss://a",
            {"ssl_context": ssl.create_default_context(), "client_cert": "x"},
            ValueError,
            "client_cert cannot be given together with ssl_context",
        ),
        (
            "wss://a",
            {"ssl_context": ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)},
            ValueError,
            "ssl_context is one for servers",
        ),
        ("wss://a", {"ssl_context": True}, TypeError, "ssl_context must be an ssl.SSLContext or None, got True"),
        ("wss://a", {"ca_file": 5}, TypeError, "ca_file must be a path or None, got 5"),
        ("wss://a", {"client_cert": 5}, TypeError, "client_cert must be a path, a pair of paths or None, got 5"),
        (
            "wss://a",
            {"client_cert": ("a",)},
            TypeError,
            "client_cert must be a path, a pair of paths or None, got ('a',)",
        ),
        ("wss://a", {"client_cert": ("a", 5)}, TypeError, "client_cert must be a path, a pair of paths or None, got 5"),
        ("wss://a", {"server_hostname": 5}, TypeError, "server_hostname must be a string, got 5"),
        (
            "wss://a",
            {"server_hostname": ""},
            ValueError,
            "server_hostname must be a host name or an IP address, got ''",
        ),
    ],
)
async def test_wrong_arguments_are_refused_before_anything_is_done(
    url: Any, arguments: Any, error: type[Exception], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("wspool.websocket._connect.connect_tcp")
    await failing(error, why, url, **arguments)
